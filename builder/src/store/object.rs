//! Writing one object: digest, holes and bytes in a single pass.
//! Must not know: trees, names of files.
//! Spec: design.md section 2; holes as [`crate::tree::Object`] defines them.

use std::fs::{self, File, Permissions};
use std::io::{Seek, SeekFrom, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use sha2::{Digest as _, Sha256};
use tempfile::TempPath;

use super::{Result, Store, fail};
use crate::digest::Digest;
use crate::tree::{HOLE_GRAIN, HOLE_MIN, Hole, Object};

const GRAIN: usize = HOLE_GRAIN as usize;
/// Small files are kept in memory until they end, so that one which the store has already costs no
/// file of its own.
const IN_MEMORY: usize = 512 * 1024;

/// Takes the bytes of one object in order; [`ObjectWriter::finish`] stores it.
#[derive(Debug)]
pub struct ObjectWriter {
    store: Store,
    hasher: Sha256,
    size: u64,
    /// Bytes not yet written: less than a grain once there is a file.
    pending: Vec<u8>,
    file: Option<(File, TempPath)>,
    holes: Vec<Hole>,
    /// Start of the run of zero blocks that reaches up to the bytes pending, if there is one.
    zeros: Option<u64>,
}

impl ObjectWriter {
    pub(super) fn new(store: &Store) -> Result<ObjectWriter> {
        Ok(ObjectWriter {
            store: store.clone(),
            hasher: Sha256::new(),
            size: 0,
            pending: Vec::new(),
            file: None,
            holes: Vec::new(),
            zeros: None,
        })
    }

    /// Adds bytes.
    pub fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.hasher.update(bytes);
        self.size += bytes.len() as u64;
        self.pending.extend_from_slice(bytes);
        if self.pending.len() > IN_MEMORY || (self.file.is_some() && self.pending.len() >= IN_MEMORY / 2) {
            self.flush(false)?;
        }
        Ok(())
    }

    /// Stores the object and says what it is.
    pub fn finish(mut self) -> Result<Object> {
        let digest = Digest::from(<[u8; 32]>::from(self.hasher.clone().finalize()));
        let path = self.store.object_path(&digest);
        let stored = fs::metadata(&path).is_ok_and(|m| m.len() == self.size);
        if stored && self.file.is_none() {
            self.scan_pending(true);
        } else {
            self.flush(true)?;
        }
        let object = Object { digest, size: self.size, holes: std::mem::take(&mut self.holes).into() };
        if let Some((file, temp)) = self.file.take().filter(|_| !stored) {
            // The last hole has no bytes after it that would give the file its length.
            file.set_len(self.size).map_err(|e| fail("writing", &temp, e))?;
            file.set_permissions(Permissions::from_mode(0o444)).map_err(|e| fail("writing", &temp, e))?;
            let dir = path.parent().map(PathBuf::from).unwrap_or_default();
            if let Err(e) = temp.persist(&path) {
                // The directory is made only when missing: 256 of them serve all objects.
                fs::create_dir_all(&dir).map_err(|e| fail("making", &dir, e))?;
                e.path.persist(&path).map_err(|e| fail("writing", &path, e.error))?;
            }
        }
        Ok(object)
    }

    /// Writes what is pending, all of it or all whole blocks.
    fn flush(&mut self, all: bool) -> Result<()> {
        if self.file.is_none() {
            let dir = self.store.root().join("tmp");
            let temp = tempfile::Builder::new().prefix("object-").tempfile_in(&dir);
            self.file = Some(temp.map_err(|e| fail("writing", &dir, e))?.into_parts());
        }
        let runs = self.scan_pending(all);
        let start = self.size - self.pending.len() as u64;
        let done = runs.last().map_or(0, |(_, range)| range.end);
        if let Some((file, temp)) = &mut self.file {
            for (zero, range) in runs {
                if !zero {
                    let at = SeekFrom::Start(start + range.start as u64);
                    let bytes = &self.pending[range];
                    file.seek(at)
                        .and_then(|_| file.write_all(bytes))
                        .map_err(|e| fail("writing", temp, e))?;
                }
            }
        }
        self.pending.drain(..done);
        Ok(())
    }

    /// Finds runs of zero blocks and of others in the bytes pending, and keeps the list of holes.
    fn scan_pending(&mut self, all: bool) -> Vec<(bool, std::ops::Range<usize>)> {
        let start = self.size - self.pending.len() as u64;
        let end = if all { self.pending.len() } else { self.pending.len() / GRAIN * GRAIN };
        let mut runs: Vec<(bool, std::ops::Range<usize>)> = Vec::new();
        for at in (0..end).step_by(GRAIN) {
            let block = at..end.min(at + GRAIN);
            let zero = is_zero(&self.pending[block.clone()]);
            let offset = start + at as u64;
            match (zero, self.zeros) {
                (true, None) => self.zeros = Some(offset),
                (false, Some(_)) => self.end_zeros(offset),
                _ => {}
            }
            match runs.last_mut().filter(|(kind, _)| *kind == zero) {
                Some((_, run)) => run.end = block.end,
                None => runs.push((zero, block)),
            }
        }
        if all {
            self.end_zeros(self.size);
        }
        runs
    }

    fn end_zeros(&mut self, end: u64) {
        if let Some(offset) = self.zeros.take().filter(|start| end - start >= HOLE_MIN) {
            self.holes.push(Hole { offset, len: end - offset });
        }
    }
}

fn is_zero(bytes: &[u8]) -> bool {
    // Most blocks differ in their first bytes; the rest compares 16 bytes at a time.
    bytes.first() == Some(&0) && {
        let mut chunks = bytes.chunks_exact(16);
        chunks.all(|c| c == [0; 16]) && chunks.remainder().iter().all(|&b| b == 0)
    }
}
