//! `gt-image artifacts list`: every artifact of the description, and whether it is here.
//! Must not know: networks. Nothing is asked and nothing is changed.
//! Spec: docs/artifacts.md.

use std::fmt::Write as _;
use std::process::ExitCode;

use clap::Args;
use schemars::JsonSchema;
use serde::Serialize;

use super::super::{Global, project::Project, report};
use crate::base::fetch::Fetcher;
use crate::build::artifacts::{Used, used};
use crate::overlay::Description;

/// Show every artifact: what it is, who uses it, whether it is here
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  gt-image artifacts list
  gt-image artifacts list --missing      what a build would have to fetch")]
pub struct List {
    /// Only those that would have to be fetched
    #[arg(long)]
    missing: bool,
}

/// One artifact.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Row {
    /// Its name in overlays.
    pub(super) name: String,
    /// For people: as stated, or as its address tells.
    pub(super) version: Option<String>,
    /// SPDX expression.
    pub(super) licence: String,
    /// Bytes: as stated, or as the file here has; not known otherwise.
    pub(super) size: Option<u64>,
    /// SHA-256, 64 hex digits.
    pub(super) sha256: String,
    /// Its URL, or the wheel.
    pub(super) source: String,
    /// The overlay that states it.
    pub(super) overlay: String,
    /// The nodes that have the overlay.
    pub(super) nodes: Vec<String>,
    /// Where the file is, when it is here and its digest is right.
    pub(super) path: Option<String>,
}

impl Row {
    /// Looks whether the file is here.
    pub(super) fn new(used: &Used, fetcher: &Fetcher) -> anyhow::Result<Row> {
        let here = fetcher.at_hand(&used.artifact)?;
        let measured = here.as_ref().and_then(|path| Some(std::fs::metadata(path).ok()?.len()));
        Ok(Row {
            name: used.artifact.name.clone(),
            version: used.version.clone(),
            licence: used.artifact.licence.clone(),
            size: used.artifact.size.or(measured),
            sha256: used.artifact.sha256.hex(),
            source: used.artifact.source.to_string(),
            overlay: used.overlay.name.to_string(),
            nodes: used.nodes.clone(),
            path: here.map(|path| path.display().to_string()),
        })
    }
}

impl List {
    pub(super) fn run(
        &self,
        global: &Global,
        project: &Project,
        description: &Description,
    ) -> anyhow::Result<ExitCode> {
        // Offline: a look must not remove a file that rotted.
        let fetcher = super::fetcher(global, project, description, true);
        let all = used(description)?;
        let mut rows = all.iter().map(|used| Row::new(used, &fetcher)).collect::<Result<Vec<_>, _>>()?;
        let (total, here) = (rows.len(), rows.iter().filter(|row| row.path.is_some()).count());
        rows.retain(|row| !self.missing || row.path.is_none());
        if global.json {
            report::json(&rows)?;
        } else {
            report::print(&text(&rows))?;
            let noun = if total == 1 { "artifact" } else { "artifacts" };
            global.progress().say(&format!("{total} {noun}: {here} here, {} missing", total - here));
        }
        Ok(ExitCode::SUCCESS)
    }
}

fn text(rows: &[Row]) -> String {
    let mut out = String::new();
    for row in rows {
        let version = row.version.as_ref().map(|v| format!(" {v}")).unwrap_or_default();
        let size = row.size.map_or("size not known".into(), |s| indicatif::HumanBytes(s).to_string());
        let state = if row.path.is_some() { "here" } else { "missing" };
        let nodes =
            if row.nodes.is_empty() { "on no node".into() } else { format!("on {}", row.nodes.join(", ")) };
        // Writing to a String cannot fail.
        let _ = writeln!(out, "{}{version}: {state}, {size}, {}", row.name, row.licence);
        let _ = writeln!(out, "  overlay {}, {nodes}", row.overlay);
        let _ = writeln!(out, "  {}\n  sha256 {}", row.source, row.sha256);
    }
    out
}
