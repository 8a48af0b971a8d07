//! `gt-image lock`: resolves everything to exact bytes.
//! Must not know: how apt or pip are asked.
//! Spec: design.md sections 6 and 11.

use std::process::ExitCode;

use anyhow::Context;
use clap::Args;
use schemars::JsonSchema;
use serde::Serialize;

use super::{Global, project::Project, report};
use crate::base::resolve::Renew;
use crate::build::locking;
use crate::store::Store;

/// Resolve packages and artifacts to exact bytes
///
/// Writes images/<base>.lock, which belongs in git: its diff says what moved.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  gt-image lock                    what the description wants and no more
  gt-image lock --update           the archive's newest packages
  git diff images/                 what moved")]
pub struct Lock {
    /// Take the newest of everything, also where the lock still fits
    #[arg(long)]
    update: bool,
    /// Only this base [default: every base that a node has]
    #[arg(long, value_name = "NAME")]
    base: Option<String>,
    /// Leave out artifacts that cannot be had, and list them
    #[arg(long)]
    keep_going: bool,
    /// Ask no mirror
    #[arg(long)]
    offline: bool,
}

/// What one base's lock is now.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Row {
    base: String,
    packages: usize,
    artifacts: usize,
    /// What moved, one line each; empty when the lock stayed as it was.
    changes: Vec<String>,
    /// Artifacts that could not be had.
    missing: Vec<String>,
}

impl Lock {
    pub(super) fn run(&self, global: &Global) -> anyhow::Result<ExitCode> {
        let project = Project::find(global)?;
        let description = project.load()?;
        let mut bases: Vec<String> = match &self.base {
            Some(base) => {
                project.base(base)?;
                vec![base.clone()]
            }
            None => description.cluster.nodes.iter().map(|n| n.base.to_string()).collect(),
        };
        bases.sort();
        bases.dedup();
        let nearby = project.nearby(&description);
        // An image is looked at in there.
        let store = Store::open(&project.store).context("opening the store")?;
        let mut rows = Vec::new();
        for base in bases {
            let options = locking::Options {
                images: &project.images,
                store: &store,
                cache: &project.cache,
                nearby: &nearby,
                locked: false,
                offline: self.offline,
                keep_going: self.keep_going,
                renew: if self.update { Renew::All } else { Renew::Unfit },
            };
            let found = locking::lock(&base, &description, &options, &global.progress())?;
            rows.push(Row {
                base,
                packages: found.lock.packages.len(),
                artifacts: found.lock.artifacts.len(),
                changes: found.changes,
                missing: found.missing,
            });
        }
        if global.json {
            report::json(&rows)?
        } else {
            report::print(&text(&rows))?
        }
        Ok(ExitCode::SUCCESS)
    }
}

fn text(rows: &[Row]) -> String {
    let mut out = String::new();
    for row in rows {
        let state = if row.changes.is_empty() { "unchanged" } else { "written" };
        out.push_str(&format!(
            "images/{}.lock: {} packages, {} artifacts, {state}\n",
            row.base, row.packages, row.artifacts
        ));
        row.changes.iter().for_each(|line| out.push_str(&format!("  {line}\n")));
        row.missing.iter().for_each(|line| out.push_str(&format!("  missing: {line}\n")));
    }
    out
}
