//! `gt-image overlays`: the overlays that there are, and a page of documentation for each.
//! Must not know: what stands on a page.
//! Spec: docs/overlay-format.md.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context;
use clap::Args;
use schemars::JsonSchema;
use serde::Serialize;

use super::{Global, Hint, project::Project, report};
use crate::io::atomic;
use crate::overlay::{Description, page};

/// Show the overlays and the nodes that have them, or write their pages
#[derive(Args, Debug)]
pub struct Overlays {
    /// Write a page for each overlay, and an index, into this folder
    #[arg(long, value_name = "DIR")]
    markdown: Option<PathBuf>,
    /// With --markdown: write nothing, and end with 1 when a page is stale
    #[arg(long, requires = "markdown")]
    check: bool,
}

/// One overlay.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Row {
    /// Its name.
    name: String,
    /// What it gives.
    description: String,
    /// Overlays laid below it.
    includes: Vec<String>,
    /// Ports, such as `9100/tcp`.
    listens: Vec<String>,
    /// Nodes that have it, by a role or by what a role includes.
    nodes: Vec<String>,
}

impl Overlays {
    pub(super) fn run(&self, global: &Global) -> anyhow::Result<ExitCode> {
        let project = Project::find(global)?;
        let description = project.load()?;
        if let Some(folder) = &self.markdown {
            return self.pages(folder, &description);
        }
        let rows = rows(&description);
        if global.json {
            report::json(&rows)?;
        } else {
            report::print(&text(&rows))?;
        }
        Ok(ExitCode::SUCCESS)
    }

    fn pages(&self, folder: &Path, description: &Description) -> anyhow::Result<ExitCode> {
        let all = &description.overlays;
        let mut pages: BTreeMap<PathBuf, String> =
            all.iter().map(|o| (folder.join(format!("{}.md", o.name)), page::page(o, all))).collect();
        pages.insert(folder.join("README.md"), page::index(all));
        let mut stale = Vec::new();
        for (path, text) in &pages {
            let is_current = fs::read(path).is_ok_and(|old| old == text.as_bytes());
            if !is_current {
                stale.push(path.clone());
            }
        }
        // Pages of overlays that are gone. Only those that this command made.
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            let path = entry.path();
            let ours = || fs::read_to_string(&path).is_ok_and(|text| text.starts_with(page::MARK));
            if path.extension().is_some_and(|e| e == "md") && !pages.contains_key(&path) && ours() {
                stale.push(path);
            }
        }
        stale.sort();
        if self.check && !stale.is_empty() {
            let lines: Vec<String> = stale.iter().map(|path| format!("`{}`", path.display())).collect();
            let hint = format!("run `gt-image overlays --markdown {}`", folder.display());
            let error = anyhow::anyhow!("{}", lines.join("\n")).context(Hint(hint));
            return Err(error.context("these pages are not what the overlays say"));
        }
        for path in stale {
            let writing = || format!("writing `{}`", path.display());
            match pages.get(&path) {
                Some(text) => atomic::write(&path, text.as_bytes()).with_context(writing)?,
                None => fs::remove_file(&path).with_context(writing)?,
            }
            report::print(&format!("{}\n", path.display()))?;
        }
        Ok(ExitCode::SUCCESS)
    }
}

fn rows(description: &Description) -> Vec<Row> {
    let nodes = &description.cluster.nodes;
    let has = |name: &str| {
        let has = |node: &&crate::cluster::Node| {
            description.overlays.expand_node(node).iter().any(|o| o.name.as_str() == name)
        };
        nodes.iter().filter(has).map(|node| node.name.to_string()).collect()
    };
    description
        .overlays
        .iter()
        .map(|o| Row {
            name: o.name.to_string(),
            description: o.description.clone(),
            includes: o.includes.iter().map(|i| i.value.to_string()).collect(),
            listens: o.listens.iter().map(|l| l.ports()).collect(),
            nodes: has(o.name.as_str()),
        })
        .collect()
}

fn text(rows: &[Row]) -> String {
    let mut out = String::new();
    for row in rows {
        // Writing to a String cannot fail.
        let _ = writeln!(out, "{}: {}", row.name, row.description);
        let nodes = if row.nodes.is_empty() { "no node".into() } else { row.nodes.join(", ") };
        let _ = writeln!(out, "  on {nodes}");
        if !row.listens.is_empty() {
            let _ = writeln!(out, "  listens on {}", row.listens.join(", "));
        }
    }
    out
}
