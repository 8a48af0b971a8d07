//! `gt-image artifacts import`: files that somebody carried here, known by their bytes alone.
//! Must not know: networks.
//! Spec: docs/artifacts.md.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context;
use clap::Args;
use schemars::JsonSchema;
use serde::Serialize;

use super::super::{Global, Hint, carry, project::Project, report};
use crate::base::fetch::{Fetcher, Shelf};
use crate::build::artifacts::{Used, used};
use crate::digest::Digest;
use crate::io::progress::Unit;
use crate::overlay::Description;

/// Take files into the cache, from a stick for example
///
/// A file is known by its sha256, whatever its name. Folders are searched with
/// all that is in them. The files themselves stay as they are.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  gt-image artifacts import /media/usb
  gt-image artifacts import ~/Downloads/consul_1.20.5_linux_arm64.zip")]
pub struct Import {
    /// Files and folders
    #[arg(value_name = "FILE|DIR", required = true)]
    paths: Vec<PathBuf>,
}

/// What became of one file.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Row {
    /// The file.
    file: String,
    /// SHA-256, 64 hex digits.
    sha256: String,
    /// The artifact that it is; none has these bytes otherwise.
    artifact: Option<String>,
    /// The artifact whose file has the same name upstream, but other bytes.
    namesake: Option<String>,
    /// Where it is in the cache.
    path: Option<String>,
}

impl Import {
    pub(super) fn run(
        &self,
        global: &Global,
        project: &Project,
        description: &Description,
    ) -> anyhow::Result<ExitCode> {
        let fetcher = super::fetcher(global, project, description, true);
        let all = used(description)?;
        let mut files = BTreeMap::new();
        for path in &self.paths {
            carry::collect(path, &mut files)?;
        }
        let total: u64 = files.values().sum();
        let task = global.progress().task("looking at files", Unit::Bytes, Some(total));
        let mut rows = Vec::new();
        for (file, size) in &files {
            rows.push(take(file, &all, &fetcher)?);
            task.advance(*size);
        }
        drop(task);
        if global.json {
            report::json(&rows)?;
        } else {
            report::print(&text(&rows))?;
        }
        self.verdict(&rows)
    }

    /// Who names a file means it, so one that is no artifact is an error; a folder may hold anything, but
    /// not nothing.
    fn verdict(&self, rows: &[Row]) -> anyhow::Result<ExitCode> {
        let strange = |path: &&PathBuf| {
            rows.iter().any(|row| row.artifact.is_none() && Path::new(&row.file) == path.as_path())
        };
        let what = match self.paths.iter().filter(strange).count() {
            0 if rows.iter().any(|row| row.artifact.is_some()) => return Ok(ExitCode::SUCCESS),
            0 => "none of these files is an artifact of this description".to_owned(),
            1 => "1 file that was named is no artifact of this description".to_owned(),
            n => format!("{n} files that were named are no artifacts of this description"),
        };
        let hint = "run `gt-image artifacts list` for the digests that are wanted";
        Err(anyhow::anyhow!(what).context(Hint(hint.into())))
    }
}

/// Looks at one file, and takes it into the cache when it is known.
fn take(file: &Path, all: &[Used], fetcher: &Fetcher) -> anyhow::Result<Row> {
    let reading = || format!("reading `{}`", file.display());
    let sha256 = fs::File::open(file).and_then(|mut input| Digest::of_reader(&mut input));
    let sha256 = sha256.with_context(reading)?;
    let known = all.iter().find(|used| used.artifact.sha256 == sha256);
    let path = match known {
        Some(_) => Some(fetcher.import(file, &sha256, Shelf::Artifacts)?.display().to_string()),
        None => None,
    };
    let name = file.file_name().and_then(|name| name.to_str());
    let same = |used: &&Used| known.is_none() && used.artifact.filename.as_deref() == name;
    Ok(Row {
        file: file.display().to_string(),
        sha256: sha256.hex(),
        artifact: known.map(|used| used.artifact.name.clone()),
        // A wheel has no name to share, and a name that is no text none either.
        namesake: name.and_then(|_| all.iter().find(same)).map(|used| used.artifact.name.clone()),
        path,
    })
}

fn text(rows: &[Row]) -> String {
    let mut out = String::new();
    for row in rows {
        // Writing to a String cannot fail.
        let _ = match (&row.artifact, &row.namesake) {
            (Some(name), _) => writeln!(out, "{name}: {}", row.file),
            (None, Some(name)) => writeln!(
                out,
                "not known: {} is named as the file of `{name}`, but has other bytes\n  sha256 {}",
                row.file, row.sha256
            ),
            (None, None) => writeln!(out, "not known: {}\n  sha256 {}", row.file, row.sha256),
        };
    }
    out
}
