//! `gt-image rollback`: another generation of a node becomes the current one.
//! Must not know: what generations hold.
//! Spec: design.md sections 2 and 10: a rollback is a pointer; a running node keeps what it booted.

use std::process::ExitCode;

use anyhow::Context;
use clap::Args;
use schemars::JsonSchema;
use serde::Serialize;

use super::{Global, Hint, project::Project, report, select};
use crate::digest::Digest;
use crate::manifest::Manifest;
use crate::store::Store;

/// Make an earlier generation of a node the current one
///
/// Nothing is built and nothing is deleted. The node gets it at its next boot; until then it runs on
/// undisturbed. Run it again, or with --to, to go on or back.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  gt-image rollback --node fenn --dry-run
  gt-image rollback --node fenn    to the generation before
  gt-image rollback --node fenn --to 3fa2")]
pub struct Rollback {
    /// The node
    #[arg(long, value_name = "NAME")]
    node: String,
    /// The generation: the first digits of its digest [default: the one before]
    #[arg(long, value_name = "DIGEST")]
    to: Option<String>,
    /// Only show the generations
    #[arg(long)]
    dry_run: bool,
}

/// One generation of the node, newest first.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Row {
    /// Its digest.
    generation: String,
    /// The node's next boot gets it.
    current: bool,
    /// It was the current one before this command.
    before: bool,
    /// Artifacts are missing in it.
    incomplete: bool,
}

impl Rollback {
    pub(super) fn run(&self, global: &Global) -> anyhow::Result<ExitCode> {
        let project = Project::find(global)?;
        let store = Store::open(&project.store).context("opening the store")?;
        let node = self.node.as_str();
        let before = select::generation(&store, node)?.digest;
        let to = match &self.to {
            Some(prefix) => select::generation(&store, &format!("{node}@{prefix}"))?.digest,
            None => earlier(&store.generations(node)?, before).ok_or_else(|| nothing_earlier(node))?,
        };
        if !self.dry_run {
            store.set_current(node, &to).with_context(|| format!("rolling back node `{node}`"))?;
        }
        let now = if self.dry_run { before } else { to };
        let rows = rows(&store, node, now, before)?;
        if global.json {
            report::json(&rows)?;
        } else {
            report::print(&text(node, &rows, self.dry_run.then_some(to)))?;
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// The one that was made before `current`; `all` is newest first.
fn earlier(all: &[Digest], current: Digest) -> Option<Digest> {
    let at = all.iter().position(|digest| *digest == current)?;
    all.get(at + 1).copied()
}

fn nothing_earlier(node: &str) -> anyhow::Error {
    let hint = format!("run `gt-image inspect --node {node}` to see what there is, and name one with `--to`");
    anyhow::anyhow!("node `{node}` has no generation before the current one").context(Hint(hint))
}

fn rows(store: &Store, node: &str, now: Digest, before: Digest) -> anyhow::Result<Vec<Row>> {
    let mut rows = Vec::new();
    for digest in store.generations(node)? {
        let Some(found) = store.generation(node, &digest)? else { continue };
        let manifest: Manifest = serde_json::from_slice(&found.manifest).context("reading the manifest")?;
        rows.push(Row {
            generation: digest.to_string(),
            current: digest == now,
            before: digest == before,
            incomplete: !manifest.incomplete.is_empty(),
        });
    }
    Ok(rows)
}

fn text(node: &str, rows: &[Row], would: Option<Digest>) -> String {
    let mut out = String::new();
    for row in rows {
        let mark = match (row.current, row.before) {
            (true, true) => "current",
            (true, false) => "current now",
            (false, true) => "current before",
            (false, false) => "",
        };
        let incomplete = if row.incomplete { "incomplete" } else { "" };
        let line =
            format!("{}  {mark:14}  {incomplete}", row.generation.get(..19).unwrap_or(&row.generation));
        out.push_str(line.trim_end());
        out.push('\n');
    }
    match would {
        Some(to) => out.push_str(&format!("{node} would get {} at its next boot\n", &to.to_string()[..19])),
        None => out.push_str(&format!(
            "{node} gets the current one at its next boot: `gt-image reset --node {node}`\n"
        )),
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_one_before_is_the_next_older() {
        let digest = |n: u8| Digest::of(&[n]);
        let all = [digest(3), digest(2), digest(1)];
        for (current, want) in [(3, Some(2)), (2, Some(1)), (1, None), (9, None)] {
            assert_eq!(earlier(&all, digest(current)), want.map(digest), "from {current}");
        }
    }
}
