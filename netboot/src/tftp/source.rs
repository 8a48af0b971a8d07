//! The blocks of one file: cut from a chunk that is read ahead, and rewritten for netascii.
//! Must not know: packets, clients, time.
//! Spec: RFC 1350 (blocks), RFC 764 (netascii: CR LF is a new line, CR NUL a carriage return).
//!
//! A read that could wait for a disk is never made here, for the thread serves every other transfer
//! too: it is handed out as a [`Load`], to be run elsewhere and given back.

use std::io::{self, IoSliceMut};

use rustix::io::{Errno, ReadWriteFlags, preadv2};

use crate::content::Content;

/// One read serves 45 blocks of 1428 bytes. Larger chunks gained nothing measurable, and a thousand
/// transfers hold one each.
const CHUNK: u64 = 64 * 1024;

/// What is asked of the disk beyond a chunk that had to be waited for, so that the next ones are there.
const READ_AHEAD: u64 = 1024 * 1024;

/// A file that is being sent.
#[derive(Debug)]
pub struct Source {
    content: Content,
    blksize: u16,
    chunk: Chunk,
    netascii: Option<Netascii>,
}

/// Bytes of the file from an offset on.
#[derive(Debug, Default)]
pub struct Chunk {
    offset: u64,
    bytes: Vec<u8>,
}

/// A block, or what is missing to make it.
#[derive(Debug)]
pub enum Block<'a> {
    /// Its content; shorter than `blksize` in the last block.
    Ready(&'a [u8]),
    /// A read that may wait.
    Absent(Load),
}

/// A read that may wait for a disk.
#[derive(Debug)]
pub struct Load {
    content: Content,
    offset: u64,
    len: usize,
}

impl Load {
    /// Reads, and waits.
    ///
    /// # Errors
    /// Those of the read; `UnexpectedEof` if the file is shorter than its tree says.
    pub fn run(self) -> io::Result<Chunk> {
        let mut bytes = vec![0; self.len];
        let got = self.content.read_at(&mut bytes, self.offset)?;
        if got < bytes.len() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let next = self.offset.saturating_add(bytes.len() as u64);
        let more = std::num::NonZeroU64::new(READ_AHEAD);
        // Advice: where it is not taken, the next chunk is waited for as this one was.
        let _ = rustix::fs::fadvise(self.content.file(), next, more, rustix::fs::Advice::WillNeed);
        Ok(Chunk { offset: self.offset, bytes })
    }
}

/// State of the rewriting. Blocks come in order, and only the newest can be asked for again.
#[derive(Debug, Default)]
struct Netascii {
    /// Number and content of the newest whole block.
    number: u64,
    block: Vec<u8>,
    /// The block that is being made.
    next: Vec<u8>,
    /// Bytes of the file that were taken.
    taken: u64,
    /// The second byte of a pair whose first one filled a block.
    left_over: Option<u8>,
}

impl Source {
    /// A source of blocks of `blksize` bytes.
    pub fn new(content: Content, blksize: u16, netascii: bool) -> Source {
        Source { content, blksize, chunk: Chunk::default(), netascii: netascii.then(Netascii::default) }
    }

    /// The file's length in bytes, before any rewriting.
    pub fn len(&self) -> u64 {
        self.content.len()
    }

    /// Block `number`, from 1. Octet takes any number within the file, netascii the newest and the next one.
    pub fn block(&mut self, number: u64) -> Block<'_> {
        if self.netascii.is_some() {
            return self.netascii_block(number);
        }
        let size = u64::from(self.blksize);
        let offset = number.saturating_sub(1).saturating_mul(size);
        let len = size.min(self.content.len().saturating_sub(offset));
        match self.need(offset, len) {
            Some(load) => Block::Absent(load),
            None => Block::Ready(self.chunk.get(offset, len)),
        }
    }

    /// Takes a chunk that was read elsewhere.
    pub fn fill(&mut self, chunk: Chunk) {
        self.chunk = chunk;
    }

    /// Sees to it that the chunk holds these bytes; else says what to read.
    fn need(&mut self, offset: u64, len: u64) -> Option<Load> {
        if self.chunk.holds(offset, len) {
            return None;
        }
        let whole = CHUNK.max(len).min(self.content.len().saturating_sub(offset));
        // Cannot fail: a chunk is at most 64 KiB.
        let whole = usize::try_from(whole).unwrap_or_default();
        self.chunk.read_cached(&self.content, offset, whole);
        if self.chunk.holds(offset, len) {
            return None;
        }
        Some(Load { content: self.content.clone(), offset, len: whole })
    }

    fn netascii_block(&mut self, number: u64) -> Block<'_> {
        // Taken out, because reading needs all of the source; it is put back below.
        let mut state = self.netascii.take().unwrap_or_default();
        let missing = if number == state.number { None } else { self.make_next(&mut state) };
        let state = self.netascii.insert(state);
        match missing {
            Some(load) => Block::Absent(load),
            None => Block::Ready(&state.block),
        }
    }

    fn make_next(&mut self, state: &mut Netascii) -> Option<Load> {
        let size = usize::from(self.blksize);
        while state.next.len() < size {
            if let Some(byte) = state.left_over.take() {
                state.next.push(byte);
                continue;
            }
            if state.taken == self.content.len() {
                break;
            }
            let load = self.need(state.taken, 1);
            if load.is_some() {
                return load;
            }
            let byte = self.chunk.get(state.taken, 1)[0];
            state.taken += 1;
            let (first, second) = match byte {
                b'\n' => (b'\r', Some(b'\n')),
                b'\r' => (b'\r', Some(0)),
                other => (other, None),
            };
            state.next.push(first);
            state.left_over = second;
        }
        state.number += 1;
        std::mem::swap(&mut state.block, &mut state.next);
        state.next.clear();
        None
    }
}

impl Chunk {
    fn holds(&self, offset: u64, len: u64) -> bool {
        let end = self.offset + self.bytes.len() as u64;
        len == 0 || (offset >= self.offset && offset.saturating_add(len) <= end)
    }

    /// Bytes that [`Chunk::holds`] has said yes to.
    fn get(&self, offset: u64, len: u64) -> &[u8] {
        if len == 0 {
            return &[];
        }
        #[expect(clippy::cast_possible_truncation, reason = "both are within the chunk, 64 KiB")]
        let (start, len) = ((offset - self.offset) as usize, len as usize);
        &self.bytes[start..start + len]
    }

    /// Becomes what the page cache has of `len` bytes from `offset` on: all, some, or nothing. A
    /// filesystem without `RWF_NOWAIT` gives nothing; then every chunk is read elsewhere.
    fn read_cached(&mut self, content: &Content, offset: u64, len: usize) {
        self.offset = offset;
        self.bytes.resize(len, 0);
        let got = loop {
            let mut into = [IoSliceMut::new(&mut self.bytes)];
            match preadv2(content.file(), &mut into, offset, ReadWriteFlags::NOWAIT) {
                Err(Errno::INTR) => {}
                other => break other.unwrap_or(0),
            }
        };
        self.bytes.truncate(got);
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::Write;
    use std::sync::Arc;

    use super::*;

    /// A file without a name; `len` is what the tree would say.
    fn file(bytes: &[u8], len: u64) -> Content {
        let path = std::env::temp_dir().join(format!("gt-tftp-source-{:?}", std::thread::current().id()));
        let mut file =
            File::options().read(true).write(true).create(true).truncate(true).open(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        file.write_all(bytes).unwrap();
        Content::new(Arc::new(file), len)
    }

    /// Every block up to the first short one, with loads run on the spot.
    fn all(mut source: Source, blksize: usize) -> Vec<u8> {
        let mut out = Vec::new();
        for number in 1.. {
            loop {
                match source.block(number) {
                    Block::Ready(bytes) => {
                        out.extend_from_slice(bytes);
                        if bytes.len() < blksize {
                            return out;
                        }
                        break;
                    }
                    Block::Absent(load) => {
                        let chunk = load.run().unwrap();
                        source.fill(chunk);
                    }
                }
            }
        }
        unreachable!("an infinite range");
    }

    #[test]
    fn blocks_make_up_the_file() {
        let bytes: Vec<u8> = (0..200_001u32).map(|i| (i * 7 % 251) as u8).collect();
        for (len, blksize) in
            [(0, 512), (1, 512), (512, 512), (200_001, 1428), (200_001, 8), (200_001, 65464)]
        {
            let source = Source::new(file(&bytes[..len], len as u64), blksize, false);
            assert!(all(source, blksize.into()) == bytes[..len], "{len} bytes by {blksize}");
        }
    }

    #[test]
    fn an_earlier_block_can_be_had_again() {
        let bytes: Vec<u8> = (0..200_000u32).map(|i| (i % 253) as u8).collect();
        let mut source = Source::new(file(&bytes, 200_000), 1000, false);
        for number in [1, 150, 2, 150, 200] {
            if let Block::Absent(load) = source.block(number) {
                source.fill(load.run().unwrap());
            }
            let Block::Ready(block) = source.block(number) else { panic!("just read") };
            let start = (number as usize - 1) * 1000;
            assert_eq!(block, &bytes[start..start + 1000]);
        }
    }

    #[test]
    fn netascii_rewrites_line_ends_across_blocks() {
        for (given, want) in [
            (&b"a\nb"[..], &b"a\r\nb"[..]),
            (b"", b""),
            (b"\n", b"\r\n"),
            (b"1234567\n", b"1234567\r\n"),
            (b"1234567\r8", b"1234567\r\x008"),
            (b"12345678", b"12345678"),
            (b"\n\n\n\n\n\n\n\n\n", b"\r\n\r\n\r\n\r\n\r\n\r\n\r\n\r\n\r\n"),
        ] {
            let source = Source::new(file(given, given.len() as u64), 8, true);
            assert_eq!(all(source, 8), want, "given {given:?}");
        }
    }

    #[test]
    fn a_netascii_block_stays_until_the_next_one() {
        let mut source = Source::new(file(b"12345678\n", 9), 8, true);
        for (number, want) in [(1, &b"12345678"[..]), (1, b"12345678"), (2, b"\r\n"), (2, b"\r\n")] {
            if let Block::Absent(load) = source.block(number) {
                source.fill(load.run().unwrap());
            }
            let Block::Ready(block) = source.block(number) else { panic!("just read") };
            assert_eq!(block, want);
        }
    }

    #[test]
    fn a_file_that_is_too_short_is_an_error() {
        let mut source = Source::new(file(b"short", 2000), 512, false);
        let Block::Absent(load) = source.block(1) else { panic!("there are no 512 bytes") };
        assert_eq!(load.run().unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    }
}
