//! `gt-image artifacts import`: files that somebody carried here, known by their bytes alone.
//! Must not know: networks.
//! Spec: docs/artifacts.md.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, bail};
use clap::Args;
use schemars::JsonSchema;
use serde::Serialize;

use super::super::{Global, Hint, project::Project, report};
use crate::base::nearby::SUMS;
use crate::build::artifacts::used;
use crate::digest::Digest;
use crate::io::progress::Unit;
use crate::overlay::Description;

/// Folders in folders that are looked into: a stick may have a copy of a whole disk.
const DEPTH: usize = 8;

/// Take files into the cache, from a stick for example
///
/// A file is known by its sha256, whatever its name. Folders are searched with
/// all that is in them. The files themselves stay as they are.
#[derive(Args, Debug)]
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
            collect(path, 0, &mut files).with_context(|| format!("looking into `{}`", path.display()))?;
        }
        let total = files.values().map(|size| size.unwrap_or(0)).sum();
        let task = global.progress().task("looking at files", Unit::Bytes, Some(total));
        let mut rows = Vec::new();
        for (file, size) in &files {
            let reading = || format!("reading `{}`", file.display());
            let mut input = fs::File::open(file).with_context(reading)?;
            let sha256 = Digest::of_reader(&mut input).with_context(reading)?;
            task.advance(size.unwrap_or(0));
            let name = file.file_name().unwrap_or_default();
            let known: Vec<_> = all.iter().filter(|used| used.artifact.sha256 == sha256).collect();
            let path = match known.is_empty() {
                true => None,
                false => Some(fetcher.import(file, &sha256)?.display().to_string()),
            };
            let namesake = all
                .iter()
                .find(|used| path.is_none() && used.artifact.filename.as_deref().is_some_and(|f| name == f));
            rows.push(Row {
                file: file.display().to_string(),
                sha256: sha256.hex(),
                artifact: known.first().map(|used| used.artifact.name.clone()),
                namesake: namesake.map(|used| used.artifact.name.clone()),
                path,
            });
        }
        drop(task);
        if global.json {
            report::json(&rows)?
        } else {
            report::print(&text(&rows))?
        }
        // Who names a file means it; a folder may hold anything.
        let strange = |path: &&PathBuf| {
            path.is_file()
                && rows.iter().any(|r| r.artifact.is_none() && Path::new(&r.file) == path.as_path())
        };
        let strange = self.paths.iter().filter(strange).count();
        if strange > 0 || rows.iter().all(|row| row.artifact.is_none()) {
            let what = match strange {
                0 => "none of these files is an artifact of this description".to_owned(),
                1 => "1 file that was named is no artifact of this description".to_owned(),
                n => format!("{n} files that were named are no artifacts of this description"),
            };
            let hint = "run `gt-image artifacts list` for the digests that are wanted";
            return Err(anyhow::anyhow!(what).context(Hint(hint.into())));
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// Files with their sizes, in the order of their paths. Links are not followed, but for those that are
/// named; hidden files are left out, and the list of a folder that `export` made.
fn collect(path: &Path, depth: usize, files: &mut BTreeMap<PathBuf, Option<u64>>) -> anyhow::Result<()> {
    let meta = if depth == 0 { fs::metadata(path)? } else { fs::symlink_metadata(path)? };
    if meta.is_file() {
        files.insert(path.to_owned(), Some(meta.len()));
    } else if meta.is_dir() && depth < DEPTH {
        for entry in fs::read_dir(path)? {
            let entry = entry?;
            let name = entry.file_name();
            if !name.as_encoded_bytes().starts_with(b".") && name != SUMS {
                collect(&entry.path(), depth + 1, files)?;
            }
        }
    } else if depth == 0 {
        bail!("it is neither a file nor a folder");
    }
    Ok(())
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
