//! `gt-image why`: which overlay, package or artifact put a file there.
//! Must not know: how layers are made.
//! Spec: design.md section 5.

use std::fmt::Write as _;
use std::process::ExitCode;

use anyhow::Context;
use clap::Args;
use schemars::JsonSchema;
use serde::Serialize;

use super::{Global, Hint, project::Project, report, select};
use crate::origin::{Origin, Origins};
use crate::store::Store;
use crate::tree::TreePath;

/// Tell which overlay, package or artifact put a file on a node
///
/// Or took it away, when an imported base had it.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  gt-image why /etc/hosts --node fenn
  gt-image why /usr/bin/consul --node fenn~1 --json")]
pub struct Why {
    /// The path on the node
    path: String,
    /// The node, or one of its generations
    #[arg(long, value_name = "NAME")]
    node: String,
}

/// The answer; the last origin gave what is there now.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Answer {
    path: String,
    origins: Vec<Origin>,
}

impl Why {
    pub(super) fn run(&self, global: &Global) -> anyhow::Result<ExitCode> {
        let project = Project::find(global)?;
        let store = Store::open(&project.store).context("opening the store")?;
        let generation = select::generation(&store, &self.node)?;
        let root = store.tree(&generation.root)?;
        let asked = TreePath::new(&self.path)?;
        let path = root.resolve(&asked, false).unwrap_or(asked);
        let origins: Origins = serde_json::from_slice(&generation.origins).context("reading the origins")?;
        let origins = origins.of(&root, &store)?.why(&path);
        if origins.is_empty() {
            let dump = format!("run `gt-image export --node {} --dump -` to see all paths", self.node);
            return Err(anyhow::anyhow!("node `{}` has no `{path}`", self.node).context(Hint(dump)));
        }
        let answer = Answer { path: path.to_string(), origins };
        if global.json {
            report::json(&answer)?
        } else {
            report::print(&text(&answer))?
        }
        Ok(ExitCode::SUCCESS)
    }
}

fn text(answer: &Answer) -> String {
    let mut out = format!("{}\n", answer.path);
    let last = answer.origins.len().saturating_sub(1);
    for (i, origin) in answer.origins.iter().enumerate() {
        // Writing to a String cannot fail.
        let _ = writeln!(out, "  {origin}{}", if i < last { ", then replaced or changed by" } else { "" });
    }
    out
}
