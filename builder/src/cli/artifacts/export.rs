//! `gt-image artifacts export`: a folder with all that a machine without a network needs.
//! Must not know: networks.
//! Spec: docs/artifacts.md; `sha256sum -c` reads the list that is written.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context;
use clap::Args;
use schemars::JsonSchema;
use serde::Serialize;

use super::super::{Global, project::Project, report};
use crate::base::artifact::Origin;
use crate::base::fetch::FetchError;
use crate::base::lock::Artifact;
use crate::base::nearby::SUMS;
use crate::digest::Digest;
use crate::io::atomic;
use crate::overlay::Description;

/// Copy artifacts that are here into a folder, for another machine
///
/// With a list SHA256SUMS. The folder can be imported there, or stated as
/// `folder` of `[artifacts]` in cluster.toml.
#[derive(Args, Debug)]
pub struct Export {
    /// The folder, made when it is not there
    #[arg(value_name = "DIR")]
    folder: PathBuf,
    /// Which [default: all that a node uses]
    #[arg(value_name = "NAME")]
    names: Vec<String>,
    /// Leave out those that are not here
    #[arg(long)]
    keep_going: bool,
}

/// One file in the folder.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Row {
    artifact: String,
    file: String,
    /// SHA-256, 64 hex digits.
    sha256: String,
}

impl Export {
    pub(super) fn run(
        &self,
        global: &Global,
        project: &Project,
        description: &Description,
    ) -> anyhow::Result<ExitCode> {
        let fetcher = super::fetcher(global, project, description, true);
        let picked = super::pick(description, &self.names)?;
        let (mut here, mut missing) = (Vec::new(), Vec::new());
        for used in &picked {
            match fetcher.artifact(&used.artifact) {
                Ok(path) => here.push((&used.artifact, path)),
                Err(FetchError::Artifact(file)) => missing.push(*file),
                Err(error) => return Err(error.into()),
            }
        }
        if !missing.is_empty() && !self.keep_going {
            return Err(super::missing(picked.len(), &missing));
        }
        let rows = self.write(&here).with_context(|| format!("filling `{}`", self.folder.display()))?;
        if global.json {
            report::json(&rows)?;
        } else {
            let lines = rows.iter().map(|row| format!("{}: {}\n", row.artifact, row.file));
            report::print(&lines.collect::<String>())?;
        }
        Ok(ExitCode::SUCCESS)
    }

    /// Copies the files and notes them in the list, beside what it has of others.
    fn write(&self, here: &[(&Artifact, PathBuf)]) -> anyhow::Result<Vec<Row>> {
        fs::create_dir_all(&self.folder)?;
        let list = self.folder.join(SUMS);
        let mut sums = read_sums(&list);
        let (mut rows, mut taken) = (Vec::new(), BTreeSet::new());
        for (artifact, from) in here {
            let mut name = filename(artifact);
            if !taken.insert(name.clone()) {
                name = format!("{}-{name}", artifact.name);
                taken.insert(name.clone());
            }
            let to = self.folder.join(&name);
            let hex = artifact.sha256.hex();
            // A second export to a stick need not write what is there.
            let there = fs::File::open(&to)
                .ok()
                .and_then(|mut file| Digest::of_reader(&mut file).ok())
                .is_some_and(|digest| digest == artifact.sha256);
            if !there {
                copy(from, &to)
                    .with_context(|| format!("copying `{}` to `{}`", from.display(), to.display()))?;
            }
            sums.insert(name, hex.clone());
            rows.push(Row { artifact: artifact.name.clone(), file: to.display().to_string(), sha256: hex });
        }
        let text: String = sums.iter().map(|(name, hex)| format!("{hex}  {name}\n")).collect();
        atomic::write_if_changed(&list, text.as_bytes())?;
        Ok(rows)
    }
}

/// Synced, for the next thing that is done with a stick is to pull it out.
fn copy(from: &Path, to: &Path) -> io::Result<()> {
    let mut part = atomic::begin(to)?;
    io::copy(&mut fs::File::open(from)?, &mut part)?;
    atomic::finish(part, to)
}

/// Names and digests of a list; a line that is none is dropped.
fn read_sums(list: &Path) -> BTreeMap<String, String> {
    let text = fs::read_to_string(list).unwrap_or_default();
    let pair = |line: &str| {
        let (hex, name) = line.split_once("  ")?;
        hex.parse::<Digest>().ok()?;
        Some((name.to_owned(), hex.to_owned()))
    };
    text.lines().filter_map(pair).collect()
}

/// The name upstream; one like it for a wheel, whose full name only pip knows.
fn filename(artifact: &Artifact) -> String {
    match (&artifact.filename, &artifact.source) {
        (Some(name), _) => name.clone(),
        (None, Origin::Wheel(wheel)) => {
            let package = wheel.package.replace(['-', '.'], "_").to_ascii_lowercase();
            format!("{package}-{}-{}.whl", wheel.version, wheel.platform)
        }
        (None, Origin::Url(_)) => artifact.name.clone(),
    }
}
