//! `gt-image overlays`: the overlays that there are, and a page of documentation for each.
//! Must not know: what stands on a page.
//! Spec: docs/overlay-format.md.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use schemars::JsonSchema;
use serde::Serialize;

use super::{Global, pages::Pages, project::Project, report};
use crate::overlay::{Description, page};

/// Show the overlays and the nodes that have them, or write their pages
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  gt-image overlays                each overlay, its nodes and its ports
  gt-image overlays --markdown docs/overlays")]
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
            return pages(&description).keep(folder, self.check);
        }
        let rows = rows(&description);
        if global.json {
            report::json(&rows)?;
        } else {
            report::print(&text(&rows))?;
        }
        Ok(ExitCode::SUCCESS)
    }
}

fn pages(description: &Description) -> Pages {
    let all = &description.overlays;
    let mut texts: BTreeMap<String, String> =
        all.iter().map(|o| (format!("{}.md", o.name), page::page(o, all))).collect();
    texts.insert("README.md".into(), page::index(all));
    Pages { mark: page::MARK, source: "the overlays", command: "gt-image overlays --markdown", texts }
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
