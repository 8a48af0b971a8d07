//! `gt-image cache export`: all that locks need, out of the cache as plain files.
//! Must not know: networks. What is not here is told.
//! Spec: docs/artifacts.md.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context;
use clap::Args;
use schemars::JsonSchema;
use serde::Serialize;

use super::super::artifacts::export::filename;
use super::super::carry::{self, File};
use super::super::{Global, Hint, project::Project, report};
use crate::archive::tar_write::Files;
use crate::base::artifact::url_filename;
use crate::base::fetch::{FetchError, Fetcher, Shelf};
use crate::base::lock::Lock;
use crate::base::mirror::Mirrors;
use crate::base::nearby::SUMS;
use crate::base::{Base, Location};
use crate::io::{atomic, progress::Progress};

/// Copy what locks need out of the cache, for another machine
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  gt-image cache export /media/usb       all that the locks of all nodes need
  gt-image cache export keep.tar --base raspios-lite")]
pub struct Export {
    /// A folder, or an archive, whose name ends in .tar
    #[arg(value_name = "DIR|FILE.tar")]
    to: PathBuf,
    /// Only what this base needs [default: every base that a node has]
    #[arg(long, value_name = "NAME")]
    base: Option<String>,
    /// Leave out what is not here
    #[arg(long)]
    keep_going: bool,
}

/// One file.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Row {
    /// Its name in the folder or the archive.
    file: String,
    /// SHA-256, 64 hex digits.
    sha256: String,
}

/// What is here, by name, and the names of what is not.
#[derive(Default)]
struct Found {
    here: BTreeMap<String, File>,
    missing: Vec<String>,
}

impl Export {
    pub(super) fn run(&self, global: &Global, project: &Project) -> anyhow::Result<ExitCode> {
        let description = project.load()?;
        let fetcher = Fetcher::new(&project.cache, Mirrors::default(), true, &global.progress())
            .near(&project.nearby(&description));
        let mut bases: Vec<String> = match &self.base {
            Some(base) => vec![base.clone()],
            None => description.cluster.nodes.iter().map(|n| n.base.to_string()).collect(),
        };
        bases.sort();
        bases.dedup();
        let mut found = Found::default();
        for name in &bases {
            let base = project.base(name)?;
            let lock = Lock::read(&project.images.join(format!("{name}.lock")))?.ok_or_else(|| {
                let hint = format!("run `gt-image lock --base {name}`");
                anyhow::anyhow!("the base `{name}` has no lock").context(Hint(hint))
            })?;
            found.add(&base, &lock, &fetcher)?;
        }
        if !found.missing.is_empty() && !self.keep_going {
            let hint = "run `gt-image build --all --no-image` where they can be had, or use `--keep-going`";
            return Err(anyhow::anyhow!("{}", found.missing.join("\n"))
                .context(Hint(hint.into()))
                .context("the cache has not all that the locks need"));
        }
        let files: Vec<File> = found.here.into_values().collect();
        let writing = || format!("filling `{}`", self.to.display());
        if self.to.extension().is_some_and(|end| end == "tar") {
            pack(&self.to, &files, &global.progress()).with_context(writing)?;
        } else {
            carry::fill(&self.to, &files, &global.progress()).with_context(writing)?;
        }
        let rows: Vec<Row> =
            files.iter().map(|f| Row { file: f.name.clone(), sha256: f.sha256.hex() }).collect();
        if global.json {
            report::json(&rows)?;
        } else {
            let (count, left_out) = (rows.len(), found.missing.len());
            let left_out = if left_out > 0 { format!(", {left_out} left out") } else { String::new() };
            report::print(&format!("{}: {count} files{left_out}\n", self.to.display()))?;
        }
        Ok(ExitCode::SUCCESS)
    }
}

impl Found {
    fn add(&mut self, base: &Base, lock: &Lock, fetcher: &Fetcher) -> anyhow::Result<()> {
        for package in &lock.packages {
            let filename = package.path.rsplit('/').next().unwrap_or_default();
            let name = super::name(Shelf::Packages, &package.sha256, filename);
            let File { sha256, from, .. } = match fetcher.package_at_hand(package)? {
                Some(from) => File { name: name.clone(), sha256: package.sha256, from },
                None => {
                    self.missing.push(format!("package {} {}", package.name, package.version));
                    continue;
                }
            };
            self.here.insert(name.clone(), File { name, sha256, from });
        }
        for artifact in &lock.artifacts {
            let name = super::name(Shelf::Artifacts, &artifact.sha256, &filename(artifact));
            match fetcher.at_hand(artifact)? {
                Some(from) => {
                    _ = self.here.insert(name.clone(), File { name, sha256: artifact.sha256, from });
                }
                None => self.missing.push(format!("artifact {}", artifact.name)),
            }
        }
        let Some(pinned) = base.pinned() else { return Ok(()) };
        let filename = match &pinned.location {
            Location::Url(url) => url_filename(url),
            Location::Path(path) => path.file_name().map(|name| name.to_string_lossy().into_owned()),
        };
        let name = super::name(Shelf::Artifacts, &pinned.sha256, &filename.unwrap_or_else(|| "image".into()));
        match fetcher.pinned(&base.name, pinned) {
            Ok(from) => _ = self.here.insert(name.clone(), File { name, sha256: pinned.sha256, from }),
            Err(FetchError::Artifact(_)) => self.missing.push(format!("the file of the base {}", base.name)),
            Err(error) => return Err(error.into()),
        }
        Ok(())
    }
}

/// The list first: whoever reads the archive from its start knows what is to come.
fn pack(to: &Path, files: &[File], progress: &Progress) -> anyhow::Result<()> {
    let sums = files.iter().map(|f| (f.name.clone(), f.sha256.hex())).collect();
    let sums = carry::sums_text(&sums);
    let mut part = atomic::begin(to)?;
    let mut archive = Files::new(&mut part);
    archive.file(SUMS, sums.len() as u64, &mut sums.as_bytes())?;
    let task = carry::copying(files, progress);
    for File { name, from, .. } in files {
        let reading = || format!("reading `{}`", from.display());
        let mut file = fs::File::open(from).with_context(reading)?;
        let size = file.metadata().with_context(reading)?.len();
        archive.file(name, size, &mut file).with_context(reading)?;
        task.advance(1);
    }
    archive.finish()?;
    Ok(atomic::finish(part, to)?)
}
