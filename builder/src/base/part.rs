//! One file on its way into the cache: what has come stays, so that the next try goes on from there.
//! Must not know: mirrors, retries, what the file is.
//! Spec: flock(2), rename(2); RFC 9110 section 14 for resuming.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};
use sha2::{Digest as _, Sha256};

use super::fetch::{FetchError, wrap};
use super::transport::{Client, NoReply};
use crate::digest::Digest;
use crate::io::progress::Task;

/// Most bytes of a file whose size is not known, so that an endless answer does not fill the disk.
const MAX_UNKNOWN: u64 = 16 << 30;

/// Why a try ended early.
pub(super) enum Receive {
    /// The server gave nothing, or stopped.
    No(NoReply),
    /// It gave more than so many bytes.
    TooLong(u64),
    /// The part file could not be written.
    Io(FetchError),
}

/// A file that is on its way, held by a lock, so that two processes do not write into it at once.
pub(super) struct Part {
    path: PathBuf,
    file: File,
    /// Bytes that have come.
    pub(super) len: u64,
    hash: Sha256,
    /// Set when another process finished the file while this one waited.
    pub(super) done: Option<(Digest, u64)>,
}

impl Part {
    /// Opens or makes the part file `path` of what is to be `to`. Waits for whoever is in it.
    pub(super) fn open(path: &Path, to: &Path, sha256: Option<Digest>) -> Result<Part, FetchError> {
        let io = |e: io::Error| wrap(path)(e);
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent).map_err(io)?;
        }
        let mut file = loop {
            let file = OpenOptions::new()
                .read(true)
                .write(true)
                .create(true)
                .truncate(false)
                .open(path)
                .map_err(io)?;
            flock(&file, FlockOperation::LockExclusive).map_err(|e| io(e.into()))?;
            // Whoever held the lock may have renamed the file away: then the name is free again.
            let named = fs::metadata(path).ok().map(|m| (m.dev(), m.ino()));
            let held = file.metadata().map_err(io)?;
            if named == Some((held.dev(), held.ino())) {
                break file;
            }
        };
        if let (Some(wanted), Ok((found, size))) = (sha256, digest_of(to))
            && wanted == found
        {
            // The lock is ours, so nobody else is in the empty file that was made just now.
            fs::remove_file(path).map_err(io)?;
            let (path, hash, done) = (path.to_owned(), Sha256::new(), Some((found, size)));
            return Ok(Part { path, file, len: 0, hash, done });
        }
        let mut hash = Sha256::new();
        // Reading what is there again costs less than storing the state of a digest beside it.
        let len = copy(&mut file, |bytes| {
            hash.update(bytes);
            Ok(())
        });
        Ok(Part { path: path.into(), len: len.map_err(io)?, file, hash, done: None })
    }

    /// Throws away what has come.
    pub(super) fn restart(&mut self) -> Result<(), FetchError> {
        self.file.set_len(0).and_then(|()| self.file.seek(SeekFrom::Start(0))).map_err(wrap(&self.path))?;
        (self.len, self.hash) = (0, Sha256::new());
        Ok(())
    }

    /// Asks for the rest of the file and takes it to its end. `size` in bytes, where it is known.
    pub(super) fn receive(
        &mut self,
        client: &Client,
        url: &str,
        size: Option<u64>,
        task: &Task,
    ) -> Result<(Digest, u64), Receive> {
        let limit = size.unwrap_or(MAX_UNKNOWN);
        if size.is_none_or(|s| self.len < s) {
            let mut reply = client.get(url, self.len).map_err(Receive::No)?;
            if reply.from != self.len {
                self.restart().map_err(Receive::Io)?;
                if reply.from != 0 {
                    return Err(Receive::No(NoReply::Transient("the answer has another range".into())));
                }
            }
            // One file of unknown size has a task of its own; packages share one, whose total is known.
            if let (None, Some(left)) = (size, reply.left) {
                task.expect(left);
            }
            self.take(&mut reply.body, limit, task)?;
        }
        if let Some(size) = size.filter(|size| self.len < *size) {
            let reason = format!("it ended after {} of {size} bytes", self.len);
            return Err(Receive::No(NoReply::Transient(reason)));
        }
        Ok((Digest::from(<[u8; 32]>::from(self.hash.clone().finalize())), self.len))
    }

    fn take(&mut self, body: &mut dyn Read, limit: u64, task: &Task) -> Result<(), Receive> {
        let mut buffer = vec![0; 1 << 16];
        loop {
            let bytes = match body.read(&mut buffer) {
                Ok(0) => return Ok(()),
                Ok(n) => buffer.get(..n).unwrap_or_default(),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                Err(e) => return Err(Receive::No(NoReply::Transient(e.to_string()))),
            };
            let count = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
            if self.len.saturating_add(count) > limit {
                return Err(Receive::TooLong(limit));
            }
            self.file.write_all(bytes).map_err(|e| Receive::Io(wrap(&self.path)(e)))?;
            self.hash.update(bytes);
            self.len += count;
            task.advance(count);
        }
    }
}

/// Gives a verified file its final name.
pub(super) fn place(from: &Path, to: &Path) -> Result<(), FetchError> {
    if let Some(parent) = to.parent() {
        fs::create_dir_all(parent).map_err(wrap(parent))?;
    }
    fs::rename(from, to).map_err(wrap(to))
}

/// Digest and size in bytes of a file.
pub(super) fn digest_of(path: &Path) -> io::Result<(Digest, u64)> {
    let mut hash = Sha256::new();
    let size = copy(&mut File::open(path)?, |bytes| {
        hash.update(bytes);
        Ok(())
    })?;
    Ok((Digest::from(<[u8; 32]>::from(hash.finalize())), size))
}

fn copy(from: &mut impl Read, mut to: impl FnMut(&[u8]) -> io::Result<()>) -> io::Result<u64> {
    let mut buffer = vec![0; 1 << 17];
    let mut total = 0;
    loop {
        match from.read(&mut buffer) {
            Ok(0) => return Ok(total),
            Ok(n) => {
                to(buffer.get(..n).unwrap_or_default())?;
                total += u64::try_from(n).unwrap_or(u64::MAX);
            }
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
}
