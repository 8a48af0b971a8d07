//! Directories in which something is being made, and the removal of those whose maker was killed.
//! Must not know: what is made in them.
//! Spec: flock(2): a lock goes with the last descriptor, also when a process is killed.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};

use super::{Result, fail};

/// A directory that is removed when dropped. While it lives, a locked file beside it tells other
/// processes that it is in use.
#[derive(Debug)]
pub struct WorkDir {
    path: PathBuf,
    lock_path: PathBuf,
    _lock: File,
}

impl WorkDir {
    pub(super) fn new(tmp: &Path, purpose: &str) -> Result<WorkDir> {
        let (lock, lock_path) = tempfile::Builder::new()
            .prefix(&format!("{purpose}-"))
            .suffix(".lock")
            .tempfile_in(tmp)
            .and_then(|f| f.keep().map_err(|e| e.error))
            .map_err(|e| fail("writing", tmp, e))?;
        flock(&lock, FlockOperation::LockExclusive).map_err(|e| fail("locking", &lock_path, e.into()))?;
        let path = lock_path.with_extension("d");
        fs::create_dir(&path).map_err(|e| fail("making", &path, e))?;
        Ok(WorkDir { path, lock_path, _lock: lock })
    }

    /// The directory, empty at first.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for WorkDir {
    fn drop(&mut self) {
        // What cannot be removed now is removed by gc: nothing refers to it.
        let _ = fs::remove_dir_all(&self.path);
        let _ = fs::remove_file(&self.lock_path);
    }
}

/// Work directories below `tmp` whose makers are gone, for removal.
pub(super) fn abandoned(tmp: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(tmp).map_err(|e| fail("reading", tmp, e))? {
        let path = entry.map_err(|e| fail("reading", tmp, e))?.path();
        let lock = if path.extension().is_some_and(|e| e == "d") {
            path.with_extension("lock")
        } else {
            path.clone()
        };
        let in_use =
            File::open(&lock).is_ok_and(|f| flock(&f, FlockOperation::NonBlockingLockExclusive).is_err());
        if !in_use {
            found.push(path);
        }
    }
    Ok(found)
}
