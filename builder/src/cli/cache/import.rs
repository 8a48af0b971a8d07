//! `gt-image cache import`: what `export` wrote, into this machine's cache.
//! Must not know: locks. Each file says by its name what it must be.
//! Spec: docs/artifacts.md.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context;
use clap::Args;
use schemars::JsonSchema;
use serde::Serialize;

use super::super::{Global, Hint, carry, project::Project, report};
use crate::archive::tar::{EntryKind, Reader};
use crate::base::fetch::{FetchError, Fetcher};
use crate::base::mirror::Mirrors;
use crate::base::nearby::SUMS;

/// Take into the cache what `export` wrote elsewhere
///
/// Every file's bytes are digested. One that is not what its name says is
/// refused, and the others are taken.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  gt-image cache import /media/usb
  gt-image cache import keep.tar")]
pub struct Import {
    /// Folders, archives whose names end in .tar, or single files of them
    #[arg(value_name = "DIR|FILE.tar", required = true)]
    paths: Vec<PathBuf>,
}

/// What became of one file.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Row {
    /// The file; one of an archive behind the archive's name.
    file: String,
    /// Where it is in the cache.
    path: Option<String>,
    /// Why it was refused.
    refused: Option<String>,
}

impl Import {
    pub(super) fn run(&self, global: &Global, project: &Project) -> anyhow::Result<ExitCode> {
        let fetcher = Fetcher::new(&project.cache, Mirrors::default(), true, &global.progress());
        let mut rows = Vec::new();
        for path in &self.paths {
            if path.extension().is_some_and(|end| end == "tar") {
                archive(path, &fetcher, &mut rows)
                    .with_context(|| format!("reading `{}`", path.display()))?;
            } else {
                let mut files = BTreeMap::new();
                carry::collect(path, &mut files)?;
                for file in files.keys() {
                    let mut bytes =
                        fs::File::open(file).with_context(|| format!("reading `{}`", file.display()))?;
                    // Its folder tells what it is, also where that is the current one.
                    let full = std::path::absolute(file)?;
                    rows.push(take(file, &full, &mut bytes, &fetcher)?);
                }
            }
        }
        if global.json {
            report::json(&rows)?;
        }
        verdict(&rows, global)
    }
}

fn archive(path: &Path, fetcher: &Fetcher, rows: &mut Vec<Row>) -> anyhow::Result<()> {
    let mut archive = Reader::new(fs::File::open(path)?);
    while let Some(entry) = archive.next_entry()? {
        let name = PathBuf::from(String::from_utf8_lossy(&entry.name).into_owned());
        if entry.kind == EntryKind::Dir || name.file_name().is_some_and(|name| name == SUMS) {
            continue;
        }
        let shown = path.join(&name);
        if entry.kind == EntryKind::File {
            let size = entry.size;
            let mut bytes = Entry(&mut archive).take(size);
            rows.push(take(&shown, &name, &mut bytes, fetcher)?);
        } else {
            rows.push(Row {
                file: shown.display().to_string(),
                path: None,
                refused: Some("it is no file".into()),
            });
        }
    }
    Ok(())
}

/// The present file of an archive.
struct Entry<'a>(&'a mut Reader<fs::File>);

impl Read for Entry<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.read(buffer).map_err(io::Error::other)
    }
}

/// Takes one file; `name` tells what it is, and `shown` is for messages.
fn take(shown: &Path, name: &Path, bytes: &mut dyn Read, fetcher: &Fetcher) -> anyhow::Result<Row> {
    let file = shown.display().to_string();
    let Some((shelf, sha256)) = super::of_name(name) else {
        let refused =
            "its name does not say what it is: `packages/<sha256>-NAME` or `artifacts/<sha256>-NAME`";
        return Ok(Row { file, path: None, refused: Some(refused.into()) });
    };
    match fetcher.import_bytes(shown, bytes, &sha256, shelf) {
        Ok(path) => Ok(Row { file, path: Some(path.display().to_string()), refused: None }),
        Err(FetchError::Digest { found, .. }) => {
            Ok(Row { file, path: None, refused: Some(format!("it is {found}, and its name says {sha256}")) })
        }
        Err(error) => Err(error.into()),
    }
}

fn verdict(rows: &[Row], global: &Global) -> anyhow::Result<ExitCode> {
    let refused: Vec<String> =
        rows.iter().filter_map(|row| Some(format!("{}: {}", row.file, row.refused.as_ref()?))).collect();
    let taken = rows.len() - refused.len();
    if !global.json {
        report::print(&format!("{taken} files taken, {} refused\n", refused.len()))?;
    }
    let what = match refused.len() {
        0 if taken > 0 => return Ok(ExitCode::SUCCESS),
        0 => "there is no file".to_owned(),
        1 => "1 file was refused".to_owned(),
        n => format!("{n} files were refused"),
    };
    let error = if refused.is_empty() {
        anyhow::anyhow!(what)
    } else {
        anyhow::anyhow!(refused.join("\n")).context(what)
    };
    Err(error.context(Hint("export them again where `gt-image cache export` wrote them".into())))
}
