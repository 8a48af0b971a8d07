//! `gt-image inspect`: what generations there are, and what one of them holds.
//! Must not know: how they were made.
//! Spec: design.md section 11.

use std::fmt::Write as _;
use std::process::ExitCode;

use anyhow::Context;
use clap::Args;
use schemars::JsonSchema;
use serde::Serialize;

use super::{Global, project::Project, report, select};
use crate::manifest::Manifest;
use crate::store::Store;

/// Show generations: all current ones, those of a node, or one in detail
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  gt-image inspect                 the current generation of each node
  gt-image inspect --node fenn     all that are kept of fenn
  gt-image inspect fenn~1          one of them: roles, packages, partitions")]
pub struct Inspect {
    /// The node whose generations are listed
    #[arg(long, value_name = "NAME")]
    node: Option<String>,
    /// One generation: `fenn`, `fenn~1` or `fenn@3fa2`
    generation: Option<String>,
}

/// One generation in a list.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Row {
    node: String,
    generation: String,
    current: bool,
    incomplete: bool,
    /// Digest of the root tree.
    root: String,
    /// Digest of the boot tree.
    boot: String,
    packages: usize,
}

impl Inspect {
    pub(super) fn run(&self, global: &Global) -> anyhow::Result<ExitCode> {
        let project = Project::find(global)?;
        let store = Store::open(&project.store).context("opening the store")?;
        if let Some(name) = &self.generation {
            let generation = select::generation(&store, name)?;
            let manifest: Manifest =
                serde_json::from_slice(&generation.manifest).context("reading the manifest")?;
            if global.json {
                report::json(&manifest)?;
            } else {
                report::print(&detail(&manifest, &generation.digest.to_string()))?;
            }
            return Ok(ExitCode::SUCCESS);
        }
        let mut rows = Vec::new();
        for node in self.node.clone().map_or_else(|| store.nodes(), |node| Ok(vec![node]))? {
            let current = store.current(&node)?;
            for digest in store.generations(&node)? {
                let is_current = current == Some(digest);
                if let Some(g) =
                    store.generation(&node, &digest)?.filter(|_| is_current || self.node.is_some())
                {
                    rows.push(row(&node, is_current, &g)?);
                }
            }
        }
        if global.json {
            report::json(&rows)?
        } else {
            report::print(&list(&rows))?
        }
        Ok(ExitCode::SUCCESS)
    }
}

fn row(node: &str, current: bool, g: &crate::store::Generation) -> anyhow::Result<Row> {
    let manifest: Manifest = serde_json::from_slice(&g.manifest).context("reading the manifest")?;
    Ok(Row {
        node: node.into(),
        generation: g.digest.to_string(),
        current,
        incomplete: !manifest.incomplete.is_empty(),
        root: g.root.to_string(),
        boot: g.boot.to_string(),
        packages: manifest.packages.len(),
    })
}

fn list(rows: &[Row]) -> String {
    let mut out = String::new();
    for r in rows {
        let mark = if r.current { "current" } else { "" };
        let incomplete = if r.incomplete { "incomplete" } else { "" };
        // Writing to a String cannot fail, here and below.
        let generation = &r.generation[..r.generation.len().min(20)];
        let line = format!("{:12} {generation:20} {:4} packages  {mark:8}{incomplete}", r.node, r.packages);
        let _ = writeln!(out, "{}", line.trim_end());
    }
    if rows.is_empty() {
        out.push_str("no generations yet\n");
    }
    out
}

fn detail(m: &Manifest, digest: &str) -> String {
    let mut out = String::new();
    let overlays: Vec<&str> = m.overlays.iter().map(|o| o.name.as_str()).collect();
    for (name, value) in [
        ("node", m.node.clone()),
        ("generation", digest.to_owned()),
        ("base", format!("{} ({})", m.base.name, m.base.kind)),
        ("roles", m.roles.join(", ")),
        ("overlays", overlays.join(", ")),
        ("root", format!("{} ({})", m.root, m.root_mode)),
        ("boot", m.boot.clone()),
        ("packages", m.packages.len().to_string()),
        ("epoch", crate::sbom::utc(m.epoch)),
    ] {
        let _ = writeln!(out, "{name:12} {value}");
    }
    for p in &m.partitions {
        let _ = writeln!(
            out,
            "partition    {:10} at {:>12}, {:>14} bytes, {}",
            p.label, p.start, p.size, p.partuuid
        );
    }
    for s in &m.secrets {
        let _ = writeln!(out, "secret       {} ({})", s.path, s.source);
    }
    for i in &m.incomplete {
        let _ = writeln!(out, "missing      {} of overlay {}: {}", i.artifact, i.overlay, i.source);
    }
    out
}
