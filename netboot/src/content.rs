//! The bytes of one file that is served.
//! Must not know: where the file lies, what it is for.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

/// A regular file that is open and never changes. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Content {
    file: Arc<File>,
    len: u64,
}

impl Content {
    /// `len` is the file's length in bytes, as the tree that names it says.
    pub fn new(file: Arc<File>, len: u64) -> Content {
        Content { file, len }
    }

    /// Length in bytes.
    #[expect(clippy::len_without_is_empty, reason = "an empty file is a file like others here")]
    pub fn len(&self) -> u64 {
        self.len
    }

    /// The open file, for calls that this type has not.
    pub fn file(&self) -> &Arc<File> {
        &self.file
    }

    /// Fills `buf` from `offset` on, as far as the file goes, and says how much that was. It may wait
    /// for the disk.
    pub fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut done = 0;
        while done < buf.len() {
            match self.file.read_at(&mut buf[done..], offset.saturating_add(done as u64)) {
                Ok(0) => break,
                Ok(n) => done += n,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        Ok(done)
    }
}
