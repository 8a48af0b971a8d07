//! The folder of a node's outputs: what is current there, and the record that says so.
//! Must not know: how outputs are made.
//! Spec: design.md sections 11 and 13: `images/out/<node>/`.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use serde::{Deserialize, Serialize};

use crate::digest::Digest;
use crate::io::atomic;

/// The record's name. With a dot, because it is ours and not an output.
const RECORD: &str = ".built.json";
/// What temporary files of ours begin with.
const TEMPORARY: &str = ".gt-image-";

/// One node's folder.
#[derive(Debug)]
pub struct Folder {
    dir: PathBuf,
}

/// From which inputs which files were made. A file that was changed since has another size or time.
#[derive(Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Record {
    key: String,
    files: BTreeMap<String, (u64, i64, i64)>,
}

impl Folder {
    /// The folder of a node below the output directory; made when it does not exist.
    pub fn open(out: &Path, node: &str) -> anyhow::Result<Folder> {
        let dir = out.join(node);
        fs::create_dir_all(&dir).with_context(|| format!("making the folder `{}`", dir.display()))?;
        Ok(Folder { dir })
    }

    /// Where an output goes.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// True when these files were made from these inputs and are as they were left.
    pub fn is_current(&self, key: &Digest, names: &[&str]) -> bool {
        let record = fs::read(self.path(RECORD)).ok().and_then(|b| serde_json::from_slice::<Record>(&b).ok());
        record.is_some_and(|record| {
            record.key == key.to_string()
                && names.iter().all(|name| {
                    record
                        .files
                        .get(*name)
                        .is_some_and(|was| stamp(&self.path(name)).ok().as_ref() == Some(was))
                })
        })
    }

    /// Checks that nothing which is no file of ours stands where an output goes, and removes what
    /// a killed build left. `gone` are outputs of an earlier build that would now be out of date.
    pub fn prepare(&self, names: &[&str], gone: &[&str]) -> anyhow::Result<()> {
        for name in names {
            let path = self.path(name);
            match fs::symlink_metadata(&path) {
                Ok(meta) if !meta.is_file() => bail!("`{}` is in the way: it is no file", path.display()),
                Ok(_) => {}
                Err(e) if e.kind() == io::ErrorKind::NotFound => {}
                Err(e) => return Err(e).with_context(|| format!("looking at `{}`", path.display())),
            }
        }
        let reading = || format!("reading `{}`", self.dir.display());
        for entry in fs::read_dir(&self.dir).with_context(reading)? {
            let name = entry.with_context(reading)?.file_name();
            let name = name.to_string_lossy();
            if (name.starts_with(TEMPORARY) || gone.contains(&&*name)) && self.path(&name).is_file() {
                remove(&self.path(&name))?;
            }
        }
        // From here on the outputs are in doubt until `finish` says otherwise.
        remove(&self.path(RECORD))
    }

    /// Writes a small output.
    pub fn write(&self, name: &str, bytes: &[u8]) -> anyhow::Result<()> {
        let path = self.path(name);
        atomic::write(&path, bytes).with_context(|| format!("writing `{}`", path.display()))
    }

    /// Records that these files are made from these inputs.
    pub fn finish(&self, key: &Digest, names: &[&str]) -> anyhow::Result<()> {
        let mut record = Record { key: key.to_string(), ..Record::default() };
        for name in names {
            let path = self.path(name);
            let stamp = stamp(&path).with_context(|| format!("looking at `{}`", path.display()))?;
            record.files.insert((*name).to_owned(), stamp);
        }
        self.write(RECORD, &serde_json::to_vec(&record)?)
    }
}

fn stamp(path: &Path) -> io::Result<(u64, i64, i64)> {
    let meta = fs::metadata(path)?;
    Ok((meta.len(), meta.mtime(), meta.mtime_nsec()))
}

fn remove(path: &Path) -> anyhow::Result<()> {
    match fs::remove_file(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => {
            Err(e).with_context(|| format!("removing `{}`", path.display()))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outputs_are_current_until_inputs_or_files_change() {
        let dir = tempfile::tempdir().unwrap();
        let folder = Folder::open(dir.path(), "fenn").unwrap();
        let (key, other) = (Digest::of(b"a"), Digest::of(b"b"));
        assert!(!folder.is_current(&key, &["x"]));
        folder.prepare(&["x"], &[]).unwrap();
        folder.write("x", b"1").unwrap();
        folder.finish(&key, &["x"]).unwrap();
        assert!(folder.is_current(&key, &["x"]) && !folder.is_current(&other, &["x"]));
        assert!(!folder.is_current(&key, &["x", "y"]));
        fs::write(folder.path("x"), b"22").unwrap();
        assert!(!folder.is_current(&key, &["x"]));
        folder.finish(&key, &["x"]).unwrap();
        folder.prepare(&["x"], &[]).unwrap();
        assert!(!folder.is_current(&key, &["x"]), "a build that was begun and not finished");
    }

    #[test]
    fn leavings_go_and_things_in_the_way_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let folder = Folder::open(dir.path(), "fenn").unwrap();
        fs::write(folder.path(".gt-image-abc"), b"").unwrap();
        fs::write(folder.path("old"), b"").unwrap();
        fs::write(folder.path("mine"), b"").unwrap();
        folder.prepare(&["x"], &["old"]).unwrap();
        let mut left: Vec<_> =
            fs::read_dir(dir.path().join("fenn")).unwrap().map(|e| e.unwrap().file_name()).collect();
        left.sort();
        assert_eq!(left, ["mine"]);
        fs::create_dir(folder.path("x")).unwrap();
        assert!(folder.prepare(&["x"], &[]).unwrap_err().to_string().contains("in the way"));
    }
}
