//! `gt-image diff`: what differs between two generations.
//! Must not know: why.
//! Spec: design.md section 11.

use std::fmt::Write as _;
use std::process::ExitCode;

use anyhow::Context;
use clap::Args;
use schemars::JsonSchema;
use serde::Serialize;

use super::select::{JsonPath, generation};
use super::{Global, Hint, project::Project, report};
use crate::build::import::{self, Imported};
use crate::origin::{Origin, Origins};
use crate::store::{Generation, Store};
use crate::tree::diff::{Change, diff};

/// Show what differs between two generations
///
/// A generation is named by its node: `fenn` is the current one, `fenn~1` the
/// one before, `fenn@3fa2` the one whose digest begins so. `base:raspios-lite`
/// is the image or tarball of a base, as it was imported.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  gt-image diff fenn~1 fenn        what the last build changed
  gt-image diff fenn jast --why    two nodes, with who put each file there
  gt-image diff base:raspios-lite fenn")]
pub struct Diff {
    /// The first generation
    a: String,
    /// The second generation
    b: String,
    /// Tell what put each path of the root there, in the second generation
    #[arg(long)]
    why: bool,
}

/// One difference. `change` is `added`, `removed` or `changed`.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Row {
    tree: &'static str,
    #[serde(flatten)]
    path: JsonPath,
    change: &'static str,
    fields: Vec<RowField>,
    /// With `--why`, of paths of the root: what had a part in it in the second generation, the last one last.
    #[serde(skip_serializing_if = "Option::is_none")]
    why: Option<Vec<Origin>>,
}

/// A field with both values.
#[derive(Debug, Serialize, JsonSchema)]
pub struct RowField {
    pub name: String,
    pub old: String,
    pub new: String,
}

impl Diff {
    pub(super) fn run(&self, global: &Global) -> anyhow::Result<ExitCode> {
        let project = Project::find(global)?;
        let store = Store::open(&project.store).context("opening the store")?;
        let (a, b) = (trees(&project, &store, &self.a)?, trees(&project, &store, &self.b)?);
        let mut rows = Vec::new();
        for (tree, x, y) in [("root", a.root, b.root), ("boot", a.boot, b.boot)] {
            if x != y {
                let changes = diff(&store.tree(&x)?, &store.tree(&y)?);
                rows.extend(changes.iter().map(|change| (change.path().clone(), row(tree, change))));
            }
        }
        if self.why {
            let generation = generation(&store, &self.b)?;
            let origins: Origins =
                serde_json::from_slice(&generation.origins).context("reading the origins")?;
            let root = store.tree(&generation.root)?;
            let explained = origins.of(&root, &store)?;
            for (path, row) in rows.iter_mut().filter(|(_, row)| row.tree == "root") {
                row.why = Some(explained.why(path));
            }
        }
        let rows: Vec<Row> = rows.into_iter().map(|(_, row)| row).collect();
        if global.json {
            report::json(&rows)?
        } else {
            report::print(&text(&rows))?
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// The trees of a generation, or of a base as it was imported.
fn trees(project: &Project, store: &Store, text: &str) -> anyhow::Result<Imported> {
    let Some(name) = text.strip_prefix("base:") else {
        let Generation { root, boot, .. } = generation(store, text)?;
        return Ok(Imported { root, boot });
    };
    let base = project.base(name)?;
    if base.pinned().is_none() {
        let hint = "name a generation, or a base of kind `disk-image` or `tar`".to_owned();
        return Err(anyhow::anyhow!("the base `{name}` is no file that was imported").context(Hint(hint)));
    }
    import::find(&base, store)?.ok_or_else(|| {
        let hint = format!("run `gt-image build --node N --base {name} --no-image`");
        anyhow::anyhow!("the base `{name}` was not imported yet").context(Hint(hint))
    })
}

fn row(tree: &'static str, change: &Change) -> Row {
    let (word, fields) = match change {
        Change::Added(_) => ("added", &[][..]),
        Change::Removed(_) => ("removed", &[][..]),
        Change::Changed(_, fields) => ("changed", &fields[..]),
    };
    let fields =
        fields.iter().map(|f| RowField { name: f.name.clone(), old: f.old.clone(), new: f.new.clone() });
    Row { tree, path: JsonPath::from(change.path()), change: word, fields: fields.collect(), why: None }
}

fn text(rows: &[Row]) -> String {
    let mut out = String::new();
    for row in rows {
        let sign = match row.change {
            "added" => '+',
            "removed" => '-',
            _ => '~',
        };
        // Writing to a String cannot fail, here and below.
        let _ = writeln!(out, "{sign} {}:{}", row.tree, row.path);
        for f in &row.fields {
            let _ = writeln!(out, "    {}: {} -> {}", f.name, f.old, f.new);
        }
        for origin in row.why.iter().flatten() {
            let _ = writeln!(out, "    by {origin}");
        }
    }
    if rows.is_empty() {
        out.push_str("no difference\n");
    }
    out
}
