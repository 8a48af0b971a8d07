//! `gt-image verify`: whether a generation, an image or a card is what it should be.
//! Must not know: how any of them is made or written.
//! Spec: design.md section 11: names the first differing file, field or byte.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context;
use clap::Args;
use schemars::JsonSchema;
use serde::Serialize;

use super::diff::RowField;
use super::project::Project;
use super::select::JsonPath;
use super::subject::{Shared, Subject};
use super::{Global, Hint, report};
use crate::archive::{Decoder, Format};
use crate::base::disk_image::sparse;
use crate::base::resolve::Renew;
use crate::build::disk::Disk;
use crate::build::image::{SCRATCH, STATE, Sizes};
use crate::build::{self, locking};
use crate::digest::Digest;
use crate::disk::read::{Found, partitions};
use crate::flash::compare::Compare;
use crate::flash::device::label;
use crate::flash::medium::{Medium, part};
use crate::flash::pieces::Bounds;
use crate::flash::{Content, differs};
use crate::io::progress::{Progress, Unit};
use crate::store::Store;
use crate::tree::Tree;
use crate::tree::diff::{Change, diff};

/// Differences that are told.
const TOLD: usize = 20;

/// Check a generation, a disk image or a card against what it should be
///
/// Without --image: every object of the generation in the store. With it: every
/// byte of an image (raw, .zst, .xz or .gz) or card that has content, except
/// gt-state. Ends with status 1 and the differences when there are some.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  gt-image verify --node fenn
  gt-image verify --node fenn --image images/out/fenn/disk.img.zst
  gt-image verify --node fenn --image /dev/sdb
  gt-image verify --node fenn --rebuild")]
pub struct Verify {
    /// The node, or one of its generations: `fenn`, `fenn~1`
    #[arg(long, value_name = "NAME")]
    node: String,
    /// An image, or a card
    #[arg(long, value_name = "FILE", conflicts_with = "rebuild")]
    image: Option<PathBuf>,
    /// Build it again from nothing, in a store of its own, and compare: takes minutes
    #[arg(long)]
    rebuild: bool,
}

/// What was found.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Answer {
    /// The node.
    node: String,
    /// The generation's digest.
    generation: String,
    /// Bytes that were looked at.
    checked: u64,
    /// Where bytes of an image begin to differ.
    #[serde(skip_serializing_if = "Option::is_none")]
    byte: Option<Byte>,
    /// Files that differ, and in which fields.
    differences: Vec<Difference>,
}

/// A place in an image.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Byte {
    /// Bytes from the start of the image.
    at: u64,
    /// The partition; nothing in the table or between partitions.
    partition: Option<String>,
    /// Bytes from the partition's start.
    offset: u64,
    /// The value that is there.
    found: u8,
    /// The value that should be.
    wanted: u8,
}

/// A file that differs.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Difference {
    /// `root`, `boot` or `store`.
    tree: &'static str,
    #[serde(flatten)]
    path: JsonPath,
    /// `added`, `removed` or `changed`.
    change: &'static str,
    /// Each field with the value that it should have (`old`) and the one that it has (`new`).
    fields: Vec<RowField>,
}

impl Verify {
    pub(super) fn run(&self, global: &Global) -> anyhow::Result<ExitCode> {
        let progress = global.progress();
        let shared = Shared::open(Project::find(global)?)?;
        let subject = Subject::find(&shared, &self.node)?;
        let mut answer = Answer {
            node: subject.node.name.to_string(),
            generation: subject.generation.digest.to_string(),
            checked: 0,
            byte: None,
            differences: Vec::new(),
        };
        match &self.image {
            Some(image) => image_of(&shared, &subject, image, &mut answer, &progress)?,
            None if self.rebuild => rebuild(&shared, &subject, &mut answer, &progress)?,
            None => objects(&shared, &subject, &mut answer, &progress)?,
        }
        if global.json {
            report::json(&answer)?;
        }
        if answer.byte.is_none() && answer.differences.is_empty() {
            if !global.json {
                report::print(&text(&answer))?;
            }
            return Ok(ExitCode::SUCCESS);
        }
        let what =
            self.image.as_deref().map_or("the generation".into(), |image| format!("`{}`", image.display()));
        let hint = match (&self.image, self.rebuild) {
            (Some(_), _) => "write it again: `gt-image flash`, or `gt-image build` for an image",
            (None, true) => "if the description or an overlay was changed since, build it: `gt-image build`",
            (None, false) => "the disk that holds the store is damaged: remove the files, and build again",
        };
        Err(anyhow::anyhow!("{what} is not what it should be\n{}", text(&answer).trim_end())
            .context(Hint(hint.into())))
    }
}

/// Reads every object again.
fn objects(
    shared: &Shared,
    subject: &Subject<'_>,
    answer: &mut Answer,
    progress: &Progress,
) -> anyhow::Result<()> {
    let task = progress.task("reading objects", Unit::Bytes, None);
    for (tree, name) in [(&subject.root, "root"), (&subject.boot, "boot")] {
        for (path, _, inode) in tree.iter() {
            let Some(object) = inode.object() else { continue };
            task.advance(object.size);
            answer.checked += object.size;
            let found = shared.store.open_object(object).map_err(anyhow::Error::from);
            let found = found.and_then(|mut file| Ok(Digest::of_reader(&mut file)?.to_string()));
            let found = found.unwrap_or_else(|e| format!("{e:#}"));
            let wanted = object.digest.to_string();
            if found != wanted {
                let field = RowField { name: "content".into(), old: wanted, new: found };
                answer.differences.push(Difference {
                    tree: name,
                    path: path.into(),
                    change: "changed",
                    fields: vec![field],
                });
            }
        }
    }
    Ok(())
}

/// Builds the node once more, where nothing of the store helps.
fn rebuild(
    shared: &Shared,
    subject: &Subject<'_>,
    answer: &mut Answer,
    progress: &Progress,
) -> anyhow::Result<()> {
    let Shared { project, description, .. } = shared;
    let key = project.key()?;
    let place = tempfile::tempdir_in(&project.images).context("making a store of its own")?;
    let store = Store::open(place.path()).context("making a store of its own")?;
    let nearby = project.nearby(description);
    let request = build::Request {
        description,
        nodes: vec![subject.node],
        locking: locking::Options {
            images: &project.images,
            cache: &project.cache,
            store: &store,
            nearby: &nearby,
            locked: true,
            offline: false,
            keep_going: !subject.manifest.incomplete.is_empty(),
            renew: Renew::Unfit,
        },
        store: &store,
        key: (&key, project.secrets()),
        out: None,
        raw: false,
        progress,
        verbose: false,
    };
    build::build(&request)?;
    let again = super::select::generation(&store, subject.node.name.as_str())?;
    for (tree, digest, name) in [(&subject.root, again.root, "root"), (&subject.boot, again.boot, "boot")] {
        let new = store.tree(&digest)?;
        answer.checked += new.iter().filter_map(|(_, _, inode)| inode.object()).map(|o| o.size).sum::<u64>();
        answer.differences.extend(diff(tree, &new).iter().map(|change| difference(name, change)));
    }
    Ok(())
}

/// Compares an image with the bytes that a flash would write.
fn image_of(
    shared: &Shared,
    subject: &Subject<'_>,
    image: &Path,
    answer: &mut Answer,
    progress: &Progress,
) -> anyhow::Result<()> {
    let medium = open(image, &shared.store, progress)?;
    let found = partitions(&medium).with_context(|| format!("reading `{}`", image.display()))?;
    let disk = subject.disk(&sizes(&medium, &found))?;
    let layout = disk.plan.layout();
    let keep = layout.partitions.iter().position(|p| p.spec.name == STATE);
    let task = progress.task("comparing", Unit::Bytes, Some(medium.size));
    let (trees, epoch) = (disk.trees(&subject.boot), subject.manifest.epoch);
    let content = Content { plan: &disk.plan, trees, epoch, keep };
    let error = match content.each((image, medium.size), Bounds::NONE, Compare::new(&medium), &task) {
        Ok((compared, _)) => {
            answer.checked = compared;
            return Ok(());
        }
        Err(error) => error,
    };
    let Some(first) = differs(&error) else { return Err(error) };
    answer.checked = first.equal;
    let inside = |p: &&crate::disk::Partition| (p.offset..p.offset + p.spec.size).contains(&first.at);
    let partition = layout.partitions.iter().find(inside);
    answer.byte = Some(Byte {
        at: first.at,
        partition: partition.map(|p| p.spec.name.clone()),
        offset: first.at - partition.map_or(0, |p| p.offset),
        found: first.found,
        wanted: first.wanted,
    });
    answer.differences = files(&medium, &found, &disk, subject, progress)?;
    Ok(())
}

/// The files that differ, as far as what is there can be read.
fn files(
    medium: &Medium,
    found: &[Found],
    disk: &Disk,
    subject: &Subject<'_>,
    progress: &Progress,
) -> anyhow::Result<Vec<Difference>> {
    let place = tempfile::tempdir().context("making a place for what is on it")?;
    let store = Store::open(place.path()).context("making a place for what is on it")?;
    let task = progress.task("reading files", Unit::Bytes, None);
    let trees = disk.trees(&subject.boot);
    let mut all = Vec::new();
    for (index, (wanted, name)) in [(trees.boot, "boot"), (trees.root, "root")].into_iter().enumerate() {
        let Some(found) = found.get(index) else { continue };
        let part = part(medium, found.start, found.size);
        let read: Result<Tree, anyhow::Error> = match index {
            0 => crate::fat::read::into_tree(&part, &store).map_err(Into::into),
            _ => crate::ext4::read::into_tree(&part, &store, &task).map_err(Into::into),
        };
        match read {
            Ok(tree) => all.extend(diff(wanted, &tree).iter().map(|change| difference(name, change))),
            // Where it stops to be a filesystem is worth more than nothing.
            Err(e) => progress.say(&format!("partition {}: {e:#}", found.number)),
        }
    }
    // What a filesystem has by itself, or cannot hold: ext4 its `lost+found`, FAT no owners, modes and odd seconds.
    let by_itself = |d: &Difference| match d.tree {
        "root" => d.change == "added" && d.path.to_string() == "/lost+found",
        _ => d.change == "changed" && d.fields.iter().all(|field| field.name != "content"),
    };
    all.retain(|difference| !by_itself(difference));
    Ok(all)
}

/// Sizes as the image has them: it may have been made with others than the node says.
fn sizes(medium: &Medium, found: &[Found]) -> Sizes {
    let named = |name: &str| {
        let part = found.iter().find(|part| label(medium, part.start).is_some_and(|label| label == name));
        part.map(|part| part.size)
    };
    Sizes {
        fill: None,
        root: found.get(1).map(|part| part.size),
        state: named(STATE),
        scratch: named(SCRATCH),
    }
}

fn open(image: &Path, store: &Store, progress: &Progress) -> anyhow::Result<Medium> {
    let opening = || format!("opening `{}`", image.display());
    let medium = Medium::open(image, false).with_context(opening).map_err(|e| {
        e.context(Hint("name an image, or a card: `gt-image flash` shows those of this machine".into()))
    })?;
    let mut head = [0; 6];
    let packed = !medium.device
        && crate::io::at::ReadAt::read_at(&medium, &mut head, 0).is_ok()
        && !matches!(Format::detect(&head), Ok(Format::Plain));
    if !packed {
        return Ok(medium);
    }
    let task = progress.task("unpacking image", Unit::Bytes, None);
    let file = std::fs::File::open(image).with_context(opening)?;
    let unpacked = sparse(image, &mut Decoder::new(file).with_context(opening)?, store, &task)?;
    Ok(Medium::of(unpacked, image)?)
}

fn difference(tree: &'static str, change: &Change) -> Difference {
    let (change, path, fields) = match change {
        Change::Added(path) => ("added", path, &[][..]),
        Change::Removed(path) => ("removed", path, &[][..]),
        Change::Changed(path, fields) => ("changed", path, &fields[..]),
    };
    let fields = fields
        .iter()
        .map(|f| RowField { name: f.name.clone(), old: f.old.clone(), new: f.new.clone() })
        .collect();
    Difference { tree, path: path.into(), change, fields }
}

fn text(answer: &Answer) -> String {
    let mut out = String::new();
    // Writing to a String cannot fail, here and below.
    if let Some(Byte { at, partition, offset, found, wanted }) = &answer.byte {
        let place = match partition {
            Some(name) => format!("in `{name}`, byte {offset} (byte {at} of the whole)"),
            None => format!("byte {at}, in the partition table"),
        };
        let _ = writeln!(out, "first difference: {place}: {found:#04x} in place of {wanted:#04x}");
    }
    for Difference { tree, path, change, fields } in answer.differences.iter().take(TOLD) {
        let _ = write!(out, "{tree} {path}: {change}");
        for RowField { name, old, new } in fields {
            let _ = write!(out, "; {name} is {new} in place of {old}");
        }
        out.push('\n');
    }
    if let Some(more) = answer.differences.len().checked_sub(TOLD).filter(|more| *more > 0) {
        let _ = writeln!(out, "and {more} more: `--json` has all of them");
    }
    if out.is_empty() {
        let Answer { node, generation, checked, .. } = answer;
        let generation = generation.get(..19).unwrap_or(generation);
        let _ = writeln!(out, "{node}: {generation} is right, {} compared", indicatif::HumanBytes(*checked));
    }
    out
}
