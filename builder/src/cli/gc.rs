//! `gt-image gc`: frees disk space in the store.
//! Must not know: what is stored.
//! Spec: design.md section 2.

use std::process::ExitCode;

use anyhow::Context;
use clap::Args;

use super::{Global, project::Project, report};
use crate::io::progress::Unit;
use crate::store::Store;

/// Remove what no generation needs from the store
///
/// The current generation of every node always stays. Waits until no other gt-image uses the store.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  gt-image gc                      keep three generations of each node
  gt-image gc --keep 1 --layers    keep as little as possible")]
pub struct Gc {
    /// How many generations of each node to keep
    #[arg(long, value_name = "N", default_value_t = 3)]
    keep: usize,
    /// Forget cached layers too: the next build runs package scripts again
    #[arg(long)]
    layers: bool,
}

impl Gc {
    pub(super) fn run(&self, global: &Global) -> anyhow::Result<ExitCode> {
        let project = Project::find(global)?;
        let store = Store::open_alone(&project.store).context("opening the store")?;
        let task = global.progress().task("looking through the store", Unit::Items, None);
        let freed = store.gc(self.keep, !self.layers).context("collecting garbage")?;
        drop(task);
        if global.json {
            report::json(&freed)?;
        } else {
            let bytes = indicatif::HumanBytes(freed.bytes);
            report::print(&format!(
                "freed {bytes}: {} generations, {} cached layers, {} trees, {} objects\n",
                freed.generations, freed.layers, freed.trees, freed.objects
            ))?;
        }
        Ok(ExitCode::SUCCESS)
    }
}
