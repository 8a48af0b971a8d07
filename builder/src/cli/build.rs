//! `gt-image build`: generations and disk images.
//! Must not know: how anything is built.
//! Spec: design.md sections 11 and 13.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use clap::Args;

use super::{Global, Nodes, project::Project, report};
use crate::base::resolve::Renew;
use crate::build::{self, Report, locking};
use crate::overlay::Description;
use crate::store::Store;

/// Build generations and disk images
///
/// Images go to images/out/<node>/: disk.img.zst, disk.bmap, manifest.json
/// and sbom.spdx.json. What did not change is not made again.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  gt-image build --node fenn
  gt-image build --all --no-image      generations only, to be served
  gt-image build --node fenn --raw --out /srv/images")]
pub struct Build {
    #[command(flatten)]
    nodes: Nodes,
    /// Another base than the description says
    #[arg(long, value_name = "NAME")]
    base: Option<String>,
    /// A lock that does not fit is an error
    #[arg(long)]
    locked: bool,
    /// Ask no mirror: the cache has to do
    #[arg(long)]
    offline: bool,
    /// Leave out overlays whose artifacts cannot be had
    #[arg(long)]
    keep_going: bool,
    /// Where images go: DIR/<node>/
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Write disk.img in place of disk.img.zst
    #[arg(long)]
    raw: bool,
    /// Write no disk image
    #[arg(long)]
    no_image: bool,
}

impl Build {
    pub(super) fn run(&self, global: &Global) -> anyhow::Result<ExitCode> {
        let project = Project::find(global)?;
        let mut description = project.load()?;
        if let Some(base) = &self.base {
            project.base(base)?;
            use_base(&mut description, base)?;
        }
        // Before anything is made: a slip in a name leaves nothing behind.
        let nodes = super::project::pick(&description, &self.nodes)?;
        let progress = global.progress();
        let store = Store::open(&project.store).context("opening the store")?;
        let key = project.key_or_new(&progress)?;
        let nearby = project.nearby(&description);
        let request = build::Request {
            description: &description,
            nodes,
            locking: locking::Options {
                images: &project.images,
                store: &store,
                cache: &project.cache,
                nearby: &nearby,
                locked: self.locked,
                offline: self.offline,
                keep_going: self.keep_going,
                renew: Renew::Unfit,
            },
            store: &store,
            key: (&key, project.secrets()),
            out: (!self.no_image).then(|| self.out.as_deref().unwrap_or(&project.out)),
            raw: self.raw,
            progress: &progress,
            verbose: global.verbose > 0,
        };
        let done = build::build(&request)?;
        if global.json {
            report::json(&done)?;
        }
        // The words are for people; with `--json` stdout is for the machine.
        progress.say(text(&done).trim_end());
        Ok(ExitCode::SUCCESS)
    }
}

fn use_base(description: &mut Description, base: &str) -> anyhow::Result<()> {
    let name: crate::cluster::BaseName =
        base.parse().with_context(|| format!("`{base}` is no name of a base"))?;
    description.cluster.nodes.iter_mut().for_each(|node| node.base = name.clone());
    Ok(())
}

fn text(done: &Report) -> String {
    let mut out = String::new();
    for node in &done.nodes {
        let what = match (&node.image, node.unchanged) {
            (Some(path), true) => format!("`{}` is unchanged", path.display()),
            (Some(path), false) => {
                format!("wrote `{}`, {} of content", path.display(), indicatif::HumanBytes(node.mapped_bytes))
            }
            (None, _) => format!("generation {}", node.generation),
        };
        // Writing to a String cannot fail, here and below.
        let _ = writeln!(out, "{}: {what} ({:.1} s)", node.node, node.seconds);
        for warning in &node.warnings {
            let _ = writeln!(out, "  warning: {warning}");
        }
    }
    let mut missing: Vec<String> = done
        .nodes
        .iter()
        .flat_map(|n| &n.incomplete)
        .map(|m| format!("  overlay {}: artifact {} from {}\n", m.overlay, m.artifact, m.source))
        .collect();
    missing.sort();
    missing.dedup();
    if !missing.is_empty() {
        let _ = writeln!(out, "incomplete: these could not be had, so their overlays are left out");
        out.extend(missing);
        let _ = writeln!(
            out,
            "run `gt-image artifacts list --missing` to see what to bring, and how it is known"
        );
    }
    out
}
