//! Files that are carried from one machine to another in a folder, with a list of their digests.
//! Must not know: what the files are.
//! Spec: `sha256sum -c` reads the list.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};

use crate::base::nearby::SUMS;
use crate::digest::Digest;
use crate::io::atomic;
use crate::io::progress::{Progress, Task, Unit};

/// Folders in folders that are looked into: a stick may have a copy of a whole disk.
const DEPTH: usize = 8;

/// A file to be carried.
#[derive(Debug, Clone)]
pub(super) struct File {
    /// Its name in the folder, perhaps with folders in it.
    pub name: String,
    /// What its bytes must be.
    pub sha256: Digest,
    /// Where it is.
    pub from: PathBuf,
}

/// Copies the files into a folder, those that are not there, and notes them in its list, beside what that has
/// of others.
pub(super) fn fill(folder: &Path, files: &[File], progress: &Progress) -> anyhow::Result<()> {
    fs::create_dir_all(folder)?;
    let list = folder.join(SUMS);
    let mut sums = read_sums(&list);
    let task = copying(files, progress);
    for File { name, sha256, from } in files {
        let to = folder.join(name);
        // A second export to a stick need not write what is there.
        let there = fs::File::open(&to)
            .ok()
            .and_then(|mut file| Digest::of_reader(&mut file).ok())
            .is_some_and(|digest| digest == *sha256);
        if !there {
            copy(from, &to).with_context(|| format!("copying `{}` to `{}`", from.display(), to.display()))?;
        }
        sums.insert(name.clone(), sha256.hex());
        task.advance(1);
    }
    atomic::write_if_changed(&list, sums_text(&sums).as_bytes())?;
    Ok(())
}

/// A stick takes minutes for what an export of a cache has.
pub(super) fn copying(files: &[File], progress: &Progress) -> Task {
    progress.task("copying files", Unit::Items, u64::try_from(files.len()).ok())
}

/// The text of a list.
pub(super) fn sums_text(sums: &BTreeMap<String, String>) -> String {
    sums.iter().map(|(name, hex)| format!("{hex}  {name}\n")).collect()
}

/// Synced, for the next thing that is done with a stick is to pull it out.
fn copy(from: &Path, to: &Path) -> io::Result<()> {
    if let Some(parent) = to.parent() {
        fs::create_dir_all(parent)?;
    }
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

/// The files that a path names, with their sizes, in the order of their paths. Links are not followed, but for one
/// that is named; hidden files are left out, and lists of digests.
pub(super) fn collect(path: &Path, files: &mut BTreeMap<PathBuf, u64>) -> anyhow::Result<()> {
    collect_at(path, 0, files).with_context(|| format!("looking into `{}`", path.display()))
}

fn collect_at(path: &Path, depth: usize, files: &mut BTreeMap<PathBuf, u64>) -> anyhow::Result<()> {
    let meta = if depth == 0 { fs::metadata(path)? } else { fs::symlink_metadata(path)? };
    if meta.is_file() {
        files.insert(path.to_owned(), meta.len());
    } else if meta.is_dir() && depth < DEPTH {
        for entry in fs::read_dir(path)? {
            let entry = entry?;
            let name = entry.file_name();
            if !name.as_encoded_bytes().starts_with(b".") && name != SUMS {
                collect_at(&entry.path(), depth + 1, files)?;
            }
        }
    } else if depth == 0 {
        bail!("it is neither a file nor a folder");
    }
    Ok(())
}
