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
use super::{Global, project::Project, report};
use crate::store::Store;
use crate::tree::diff::{Change, diff};

/// Show what differs between two generations
///
/// A generation is named by its node: `fenn` is the current one, `fenn~1` the
/// one before, `fenn@3fa2` the one whose digest begins so.
#[derive(Args, Debug)]
pub struct Diff {
    /// The first generation
    a: String,
    /// The second generation
    b: String,
}

/// One difference. `change` is `added`, `removed` or `changed`.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Row {
    tree: &'static str,
    #[serde(flatten)]
    path: JsonPath,
    change: &'static str,
    fields: Vec<RowField>,
}

/// A field with both values.
#[derive(Debug, Serialize, JsonSchema)]
pub struct RowField {
    name: String,
    old: String,
    new: String,
}

impl Diff {
    pub(super) fn run(&self, global: &Global) -> anyhow::Result<ExitCode> {
        let project = Project::find(global)?;
        let store = Store::open(&project.store).context("opening the store")?;
        let (a, b) = (generation(&store, &self.a)?, generation(&store, &self.b)?);
        let mut rows = Vec::new();
        for (tree, x, y) in [("root", a.root, b.root), ("boot", a.boot, b.boot)] {
            if x != y {
                let changes = diff(&store.tree(&x)?, &store.tree(&y)?);
                rows.extend(changes.iter().map(|change| row(tree, change)));
            }
        }
        if global.json {
            report::json(&rows)?
        } else {
            report::print(&text(&rows))?
        }
        Ok(ExitCode::SUCCESS)
    }
}

fn row(tree: &'static str, change: &Change) -> Row {
    let (word, fields) = match change {
        Change::Added(_) => ("added", &[][..]),
        Change::Removed(_) => ("removed", &[][..]),
        Change::Changed(_, fields) => ("changed", &fields[..]),
    };
    let fields =
        fields.iter().map(|f| RowField { name: f.name.clone(), old: f.old.clone(), new: f.new.clone() });
    Row { tree, path: JsonPath::from(change.path()), change: word, fields: fields.collect() }
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
    }
    if rows.is_empty() {
        out.push_str("no difference\n");
    }
    out
}
