//! `gt-image artifacts`: the upstream files that overlays pin, and how they come into the cache.
//! Must not know: how a file is fetched or verified.
//! Spec: docs/artifacts.md.

pub(super) mod export;
mod fetch;
pub(super) mod import;
pub(super) mod list;

use std::process::ExitCode;

use anyhow::Context;
use clap::{Args, Subcommand};

use super::{Global, Hint, project::Project};
use crate::base::fetch::{Fetcher, MissingArtifact};
use crate::base::mirror::Mirrors;
use crate::build::artifacts::{Used, used};
use crate::diagnostic::nearest;
use crate::overlay::Description;

/// List, fetch and carry the upstream files that overlays pin
///
/// Every file is judged by its sha256, wherever it comes from.
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub struct Artifacts {
    #[command(subcommand)]
    command: Command,
}

const EXAMPLES: &str = "Examples:
  gt-image artifacts list --missing      what a build would have to fetch
  gt-image artifacts fetch consul vault  into the cache, before it is needed
  gt-image artifacts export /media/usb   for a machine without a network, where
  gt-image artifacts import /media/usb   takes from it what it can use";

#[derive(Subcommand, Debug)]
enum Command {
    List(list::List),
    Fetch(fetch::Fetch),
    Import(import::Import),
    Export(export::Export),
}

impl Artifacts {
    pub(super) fn run(&self, global: &Global) -> anyhow::Result<ExitCode> {
        let project = Project::find(global)?;
        let description = project.load()?;
        match &self.command {
            Command::List(c) => c.run(global, &project, &description),
            Command::Fetch(c) => c.run(global, &project, &description),
            Command::Import(c) => c.run(global, &project, &description),
            Command::Export(c) => c.run(global, &project, &description),
        }
    }
}

/// A fetcher of upstream files; it only looks at what is here when it is `offline`.
fn fetcher(global: &Global, project: &Project, description: &Description, offline: bool) -> Fetcher {
    Fetcher::new(&project.cache, Mirrors::default(), offline, &global.progress())
        .near(&project.nearby(description))
}

/// The artifacts of these names; without names those that a node has.
fn pick<'a>(description: &'a Description, names: &[String]) -> anyhow::Result<Vec<Used<'a>>> {
    let all = used(description).context("reading the artifacts of all overlays")?;
    if names.is_empty() {
        return Ok(all.into_iter().filter(|used| !used.nodes.is_empty()).collect());
    }
    for name in names {
        if !all.iter().any(|used| used.artifact.name == *name) {
            let near = nearest(name, all.iter().map(|used| used.artifact.name.as_str()));
            let hint = match near {
                Some(near) => format!("did you mean `{near}`? `gt-image artifacts list` shows all"),
                None => "run `gt-image artifacts list` to see all".into(),
            };
            return Err(anyhow::anyhow!("no overlay has an artifact `{name}`").context(Hint(hint)));
        }
    }
    Ok(all.into_iter().filter(|used| names.contains(&used.artifact.name)).collect())
}

/// The error that lists what is missing, with all that is needed to bring it by hand.
fn missing(all: usize, missing: &[MissingArtifact]) -> anyhow::Error {
    let mut lines = Vec::new();
    for file in missing {
        lines.push(format!("{}: {}", file.name, file.reason));
        lines.push(format!("  file   {}", file.filename));
        lines.push(format!("  from   {}", file.from));
        lines.extend(file.sha256.map(|digest| format!("  sha256 {}", digest.hex())));
    }
    let folder = missing.first().map(|file| file.folder.display().to_string()).unwrap_or_default();
    let hint = format!(
        "bring the files by `gt-image artifacts import FILE…`, or put them into `{folder}` under these names"
    );
    let what = match missing.len() {
        1 => format!("1 of {all} artifacts is missing"),
        n => format!("{n} of {all} artifacts are missing"),
    };
    anyhow::anyhow!("{}", lines.join("\n")).context(Hint(hint)).context(what)
}
