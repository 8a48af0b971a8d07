//! `gt-image flash`: nodes onto cards.
//! Must not know: how cards are written.
//! Spec: design.md sections 11 and 13.

mod prepare;

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::{Mutex, PoisonError};

use anyhow::{Context, bail};
use clap::Args;
use indicatif::HumanBytes;
use schemars::JsonSchema;
use serde::Serialize;

use super::subject::{Shared, Subject};
use super::{Global, Hint, project::Project, report};
use crate::build::image::STATE;
use crate::cluster::ByteSize;
use crate::digest::{Digest, Key};
use crate::flash::cards::{Card, Registry};
use crate::flash::device::{Device, System};
use crate::flash::medium::Medium;
use crate::flash::{Content, Job, Outcome};
use prepare::{Prepared, last_node, line};

/// Write a node to a card, read it back, and only then make it bootable
///
/// Takes the node's current generation straight from the store. Asks before a
/// device is overwritten. May be interrupted at any time: the card has no
/// partition table then, and the same command goes on where it was. What a
/// node has in gt-state stays.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  gt-image flash                                  the cards of this machine
  gt-image flash --node fenn --device /dev/sdb
  gt-image flash --node fenn --device /dev/sdb --node jast --device /dev/sdc
  gt-image flash --node fenn --device fenn.img    a plain file")]
pub struct Flash {
    /// The node, or one of its generations (`fenn~1`); one for each device
    #[arg(long, value_name = "NAME")]
    node: Vec<String>,
    /// The card, or a plain file; may be given several times
    #[arg(long, value_name = "DEV")]
    device: Vec<PathBuf>,
    /// Let the root filesystem take all of the card that nothing else does
    #[arg(long)]
    grow: bool,
    /// Size of the partition gt-state, such as 4G [default: as described]
    #[arg(long, value_name = "SIZE")]
    state: Option<ByteSize>,
    /// Size of the partition gt-scratch [default: as described]
    #[arg(long, value_name = "SIZE")]
    scratch: Option<ByteSize>,
    /// Make gt-state anew: what the node had there is lost
    #[arg(long)]
    wipe_state: bool,
    /// Do not read the card back
    #[arg(long)]
    no_verify: bool,
    /// Do not ask; also take what does not look like a card
    #[arg(long)]
    yes: bool,
    /// Also a generation that was built with --keep-going
    #[arg(long)]
    allow_incomplete: bool,
}

/// One card that was written.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Row {
    /// The node.
    node: String,
    /// The device or file.
    device: PathBuf,
    /// The generation's digest.
    generation: String,
    /// Bytes of the device.
    size: u64,
    /// Bytes that were written.
    written: u64,
    /// Bytes that an interrupted run had written and that are right.
    reused: u64,
    /// Bytes of no content, which were not written.
    skipped: u64,
    /// Bytes that were read back and are right.
    verified: u64,
    /// Whether the node's gt-state was left as it was.
    state_kept: bool,
    /// Seconds of writing.
    writing_seconds: f64,
    /// Seconds of reading back.
    reading_seconds: f64,
}

/// One card of this machine.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Candidate {
    /// What the machine tells of it.
    #[serde(flatten)]
    device: Device,
    /// The node that it was last made for, as far as this store knows.
    last: Option<String>,
}

impl Flash {
    pub(super) fn run(&self, global: &Global) -> anyhow::Result<ExitCode> {
        let project = Project::find(global)?;
        let registry = Registry::of(&project.store);
        if self.device.is_empty() {
            return self.list(global, &registry);
        }
        if self.node.len() != self.device.len() {
            let (nodes, devices) = (self.node.len(), self.device.len());
            let error = anyhow::anyhow!("{nodes} nodes for {devices} devices");
            return Err(
                error.context(Hint("give one `--node` for each `--device`, in the same order".into()))
            );
        }
        let mut seen = BTreeSet::new();
        for path in &self.device {
            if !seen.insert(std::fs::canonicalize(path).unwrap_or_else(|_| path.clone())) {
                bail!("`{}` is named twice", path.display());
            }
        }
        let progress = global.progress();
        let shared = Shared::open(project)?;
        let pairs = self.node.iter().zip(&self.device);
        let prepared: Vec<Prepared<'_>> = pairs
            .map(|(node, device)| self.prepare(&shared, &registry, node, device))
            .collect::<Result<_, _>>()?;
        let rows = Mutex::new(Vec::new());
        let failed = Mutex::new(Vec::new());
        std::thread::scope(|scope| {
            for card in &prepared {
                scope.spawn(|| {
                    // A card that failed, or whose thread panicked, spoils no other's result.
                    let done = self.write(&shared, &registry, card, &progress);
                    match done {
                        Ok(row) => rows.lock().unwrap_or_else(PoisonError::into_inner).push(row),
                        Err(e) => failed.lock().unwrap_or_else(PoisonError::into_inner).push(e),
                    }
                });
            }
        });
        let mut rows = rows.into_inner().unwrap_or_else(PoisonError::into_inner);
        rows.sort_by(|a: &Row, b| a.device.cmp(&b.device));
        if global.json {
            report::json(&rows)?;
        }
        for row in &rows {
            progress.say(text(row).trim_end());
        }
        let mut failed = failed.into_inner().unwrap_or_else(PoisonError::into_inner);
        let last = failed.pop();
        for error in &failed {
            progress.say(&format!("error: {error:#}"));
        }
        last.map_or(Ok(ExitCode::SUCCESS), Err)
    }

    /// The cards of this machine. Nothing was flashed, which a script must notice.
    fn list(&self, global: &Global, registry: &Registry) -> anyhow::Result<ExitCode> {
        let known = registry.cards()?;
        let cards = System::default().cards().context("looking for cards in /sys/block")?;
        let rows: Vec<Candidate> =
            cards.into_iter().map(|device| Candidate { last: last_node(&known, &device), device }).collect();
        if global.json {
            report::json(&rows)?;
        } else {
            report::print(
                &rows.iter().map(|row| line(&row.device, row.last.as_deref())).collect::<String>(),
            )?;
        }
        let what = if rows.is_empty() { "no card is in this machine" } else { "no device was named" };
        Err(anyhow::anyhow!(what)
            .context(Hint("run `gt-image flash --node NAME --device DEV`, also with a plain file".into())))
    }

    fn write(
        &self,
        shared: &Shared,
        registry: &Registry,
        card: &Prepared<'_>,
        progress: &crate::io::progress::Progress,
    ) -> anyhow::Result<Row> {
        let Subject { node, generation, manifest, boot, .. } = &card.subject;
        let name = node.name.as_str();
        let mut from = Key::new("flashed").with(generation.digest.bytes());
        for file in &card.disk.private {
            from = from.with(file.path.as_bytes()).with(Digest::of(&file.bytes).bytes());
        }
        for partition in card.disk.plan.partitions() {
            from = from.with(&partition.start.to_le_bytes()).with(&partition.size.to_le_bytes());
        }
        let job = Job {
            medium: &card.medium,
            content: Content {
                plan: &card.disk.plan,
                trees: card.disk.trees(boot),
                epoch: manifest.epoch,
                keep: card.keep,
            },
            from: from.finish(),
            verify: !self.no_verify,
            progress,
        };
        let outcome = job.run().with_context(|| format!("flashing {name}"))?;
        if let Some(key) = &card.key {
            key.register(shared.project.secrets(), name).context("noting the node's key")?;
        }
        let Medium { path, size, .. } = &card.medium;
        let id =
            card.device.as_ref().and_then(|d| d.id.clone()).unwrap_or_else(|| path.display().to_string());
        let digest = generation.digest.to_string();
        registry.note(Card {
            id,
            model: card.device.as_ref().map_or_else(|| "file".into(), |d| d.model.clone()),
            size: *size,
            node: name.into(),
            generation: digest.clone(),
            at: 0,
            times: 0,
        })?;
        let Outcome { written, reused, verified, writing, reading } = outcome;
        Ok(Row {
            node: name.into(),
            device: path.clone(),
            generation: digest,
            size: *size,
            written,
            reused,
            skipped: size.saturating_sub(written + reused),
            verified,
            state_kept: card.keep.is_some(),
            writing_seconds: writing,
            reading_seconds: reading,
        })
    }
}

fn text(row: &Row) -> String {
    let rate = |bytes: u64, seconds: f64| HumanBytes((bytes as f64 / seconds.max(0.001)) as u64);
    let mut out = format!(
        "{}: {} has generation {}\n  wrote {} in {:.1} s ({}/s), left out {} of no content\n",
        row.node,
        row.device.display(),
        row.generation.get(..19).unwrap_or(&row.generation),
        HumanBytes(row.written),
        row.writing_seconds,
        rate(row.written, row.writing_seconds),
        HumanBytes(row.skipped),
    );
    if row.reused > 0 {
        let _ = writeln!(out, "  {} were there from a run that was interrupted", HumanBytes(row.reused));
    }
    if row.verified > 0 {
        let bytes = HumanBytes(row.verified);
        let rate = rate(row.verified, row.reading_seconds);
        let _ = writeln!(out, "  read {bytes} back in {:.1} s ({rate}/s): all right", row.reading_seconds);
    }
    if row.state_kept {
        let _ = writeln!(out, "  {STATE} is as it was");
    }
    out
}
