//! A card or a file that is written and read in large aligned pieces.
//! Must not know: partitions, nodes.
//! Spec: open(2) on O_DIRECT and O_EXCL; block devices are 512 or 4096 bytes a sector.

use std::fs::{File, OpenOptions};
use std::io::{self, Seek, SeekFrom};
use std::os::unix::fs::{FileExt, FileTypeExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;

use crate::io::at::ReadAt;

/// Bytes of a piece. Cards erase 4 MiB at a time; smaller writes make them do it more than once.
pub const PIECE: usize = 4 << 20;
/// What a direct transfer must be aligned to, in memory and on the medium.
pub const ALIGN: usize = 4096;

/// Bytes in memory where the kernel can transfer them directly.
#[derive(Debug)]
pub struct Buffer {
    bytes: Vec<u8>,
    start: usize,
    len: usize,
}

/// Room for one piece.
impl Default for Buffer {
    fn default() -> Buffer {
        let bytes = vec![0; PIECE + ALIGN];
        let start = bytes.as_ptr().align_offset(ALIGN).min(ALIGN);
        Buffer { bytes, start, len: 0 }
    }
}

impl Buffer {
    /// The bytes in it.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes[self.start..self.start + self.len]
    }

    /// Bytes that still fit.
    pub fn room(&self) -> usize {
        PIECE - self.len
    }

    /// Adds bytes, of which there are no more than [`Buffer::room`].
    pub fn push(&mut self, bytes: &[u8]) {
        let at = self.start + self.len;
        self.bytes[at..at + bytes.len()].copy_from_slice(bytes);
        self.len += bytes.len();
    }

    /// Makes it `len` bytes long, at most a piece; what is new in it is arbitrary.
    pub fn resize(&mut self, len: usize) -> &mut [u8] {
        self.len = len.min(PIECE);
        &mut self.bytes[self.start..self.start + self.len]
    }
}

/// What is written to.
#[derive(Debug)]
pub struct Medium {
    file: File,
    /// Where it is.
    pub path: PathBuf,
    /// Its bytes.
    pub size: u64,
    /// Whether it is a device.
    pub device: bool,
}

impl Medium {
    /// Opens a device, past the page cache and for us alone: the kernel refuses that while it is mounted.
    /// A plain file is opened too, or made.
    ///
    /// # Errors
    /// `EBUSY` for a device in use, and what else the kernel says.
    pub fn open(path: &Path, write: bool) -> io::Result<Medium> {
        let device = std::fs::metadata(path).is_ok_and(|meta| meta.file_type().is_block_device());
        let open = |flags: OFlags| {
            let mut options = OpenOptions::new();
            // What the kernel calls these bits is a C int.
            let flags = i32::try_from(flags.bits()).unwrap_or(0);
            options.read(true).write(write).create(write && !device).truncate(false);
            options.custom_flags(flags).open(path)
        };
        let file = match (device, write) {
            (true, true) => open(OFlags::DIRECT | OFlags::EXCL)?,
            (true, false) => open(OFlags::DIRECT)?,
            (false, _) => open(OFlags::empty())?,
        };
        let size = (&file).seek(SeekFrom::End(0))?;
        Ok(Medium { file, path: path.into(), size, device })
    }

    /// A file that is open already; `path` is what it is called in messages.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn of(file: File, path: &Path) -> io::Result<Medium> {
        let size = (&file).seek(SeekFrom::End(0))?;
        Ok(Medium { file, path: path.into(), size, device: false })
    }

    /// Makes a new file so long.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn set_size(&mut self, size: u64) -> io::Result<()> {
        self.file.set_len(size)?;
        self.size = size;
        Ok(())
    }

    /// Writes what is in the buffer.
    ///
    /// # Errors
    /// What the device says, with the place.
    pub fn write(&self, at: u64, buffer: &Buffer) -> io::Result<()> {
        let bytes = buffer.bytes();
        self.file.write_all_at(bytes, at).map_err(|e| placed(&e, "writing", at, bytes.len()))
    }

    /// Fills the buffer with `len` bytes, at most a piece.
    ///
    /// # Errors
    /// What the device says, with the place.
    pub fn read<'b>(&self, at: u64, len: usize, buffer: &'b mut Buffer) -> io::Result<&'b [u8]> {
        let bytes = buffer.resize(len);
        self.file.read_exact_at(bytes, at).map_err(|e| placed(&e, "reading", at, len))?;
        Ok(bytes)
    }

    /// Waits until everything is on the medium, and forgets what the kernel remembers of it.
    ///
    /// # Errors
    /// What the device says; earlier writes may show here that they failed.
    pub fn sync(&self) -> io::Result<()> {
        self.file.sync_data()?;
        // So that reading asks the medium. A file's pages are clean now; advice cannot fail them.
        let _ = rustix::fs::fadvise(&self.file, 0, None, rustix::fs::Advice::DontNeed);
        Ok(())
    }
}

fn placed(error: &io::Error, doing: &str, at: u64, len: usize) -> io::Error {
    io::Error::new(error.kind(), format!("{doing} {len} bytes at {at}: {error}"))
}

/// For those who look at tables and superblocks, a few bytes at a time.
impl ReadAt for Medium {
    fn read_at(&self, out: &mut [u8], offset: u64) -> io::Result<()> {
        let end = offset.checked_add(out.len() as u64).filter(|end| *end <= self.size);
        let end = end.ok_or(io::ErrorKind::UnexpectedEof)?;
        if !self.device {
            return self.file.read_exact_at(out, offset);
        }
        let mut buffer = Buffer::default();
        let mut at = offset;
        while at < end {
            let start = at / ALIGN as u64 * ALIGN as u64;
            let whole = end.next_multiple_of(ALIGN as u64).min(self.size).min(start + PIECE as u64);
            let bytes = self.read(start, usize::try_from(whole - start).unwrap_or(PIECE), &mut buffer)?;
            let from = usize::try_from(at - start).unwrap_or(0);
            let to = usize::try_from(at - offset).unwrap_or(0);
            let len = (bytes.len() - from).min(out.len() - to);
            out[to..to + len].copy_from_slice(&bytes[from..from + len]);
            at += len as u64;
        }
        Ok(())
    }

    fn size(&self) -> u64 {
        self.size
    }
}

/// A partition of a medium.
pub fn part(medium: &Medium, start: u64, size: u64) -> impl ReadAt + '_ {
    struct Part<'m>(&'m Medium, u64, u64);
    impl ReadAt for Part<'_> {
        fn read_at(&self, out: &mut [u8], offset: u64) -> io::Result<()> {
            let Part(medium, start, size) = self;
            let end = offset.checked_add(out.len() as u64).filter(|end| end <= size);
            end.and(start.checked_add(offset))
                .map_or(Err(io::ErrorKind::UnexpectedEof.into()), |at| medium.read_at(out, at))
        }

        fn size(&self) -> u64 {
            self.2
        }
    }
    Part(medium, start, size)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_few_bytes_are_read_across_pieces() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("card");
        let bytes: Vec<u8> = (0..3 * PIECE as u32 + 700).map(|n| (n % 251) as u8).collect();
        std::fs::write(&path, &bytes).unwrap();
        let medium = Medium { device: true, ..Medium::open(&path, false).unwrap() };
        for (at, len) in [(0, 1), (PIECE - 3, 9), (5000, 2 * PIECE + 1), (bytes.len() - 5, 5)] {
            let mut out = vec![0; len];
            medium.read_at(&mut out, at as u64).unwrap();
            assert!(out == bytes[at..at + len], "{at} {len}");
        }
        assert!(medium.read_at(&mut [0; 6], bytes.len() as u64 - 5).is_err());
    }

    #[test]
    fn a_buffer_is_aligned() {
        let mut buffer = Buffer::default();
        buffer.push(b"abc");
        assert_eq!(buffer.bytes().as_ptr() as usize % ALIGN, 0);
        assert_eq!((buffer.bytes(), buffer.room()), (&b"abc"[..], PIECE - 3));
    }
}
