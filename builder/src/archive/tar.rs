//! Tar archives front to back: v7, ustar, star, GNU and PAX, one entry after another with its data.
//! Must not know: compression, trees, what a path may lead to.
//! Spec: POSIX.1-2017 pax; GNU tar manual, "Tar Internals". Entries of types that hold a file's
//! content in another archive (multi-volume, incremental) are refused.

mod entry;
mod header;
mod pax;
mod sparse;

use std::io::{self, BufReader, Read};

use crate::archive::CompressError;
use crate::tree::{Meta, Time, path::PATH_MAX, printable};
use entry::kind;
pub use entry::{Entry, EntryKind, Fault, TarError};
use header::{BLOCK, Block, Header};
use pax::Pax;
use sparse::{Sparse, Step};

/// Bytes of one extended header; the kernel gives an inode at most 64 KiB of attributes.
const PAX_MAX: u64 = 1 << 20;
/// Bytes of a long name: the longest path with `./`, a slash and a zero byte around it.
const NAME_MAX: u64 = PATH_MAX as u64 + 6;
/// Bytes after the end marker. Tar pads to its record, at most some MiB.
const TRAILER_MAX: u64 = 64 << 20;
/// Larger than any card that takes the result; a sparse file of a few bytes can claim 2^63.
const FILE_MAX: u64 = 64 << 30;

/// Reads an archive entry by entry.
#[derive(Debug)]
pub struct Reader<R> {
    source: BufReader<R>,
    at: u64,
    header_at: u64,
    name: Option<Vec<u8>>,
    global: Pax,
    /// Bytes of the present entry's data, and of the padding after it, still to come.
    left: u64,
    pad: u64,
    sparse: Option<Sparse>,
    file_max: u64,
    ended: bool,
}

/// Extended headers that wait for their entry.
#[derive(Default)]
struct Extra {
    pax: Option<Pax>,
    name: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
}

impl<R: Read> Reader<R> {
    /// Reads an archive that is not compressed.
    pub fn new(source: R) -> Reader<R> {
        Reader {
            source: BufReader::with_capacity(64 * 1024, source),
            at: 0,
            header_at: 0,
            name: None,
            global: Pax::default(),
            left: 0,
            pad: 0,
            sparse: None,
            file_max: FILE_MAX,
            ended: false,
        }
    }

    /// Refuses files above `bytes`, holes included, in place of 64 GiB.
    #[must_use]
    pub fn file_limit(mut self, bytes: u64) -> Reader<R> {
        self.file_max = bytes;
        self
    }

    /// The next entry, past what was left of the one before; `None` after the end marker, when
    /// only zero bytes follow it.
    pub fn next_entry(&mut self) -> Result<Option<Entry>, TarError> {
        if self.ended {
            return Ok(None);
        }
        let entry = self.advance();
        entry.map_err(|fault| self.place(fault))
    }

    /// Bytes of the present file; 0 at its end. Holes are read as zero bytes.
    pub fn read(&mut self, buffer: &mut [u8]) -> Result<usize, TarError> {
        let got = self.read_data(buffer);
        got.map_err(|fault| self.place(fault))
    }

    /// All bytes of the present file, if they are at most `limit`.
    pub fn read_all(&mut self, limit: u64) -> Result<Vec<u8>, TarError> {
        let size = self.sparse.as_ref().map_or(self.left, Sparse::real_size);
        if size > limit {
            return Err(self.place(Fault::TooLarge { what: "file", size, limit }));
        }
        let mut bytes = Vec::new();
        let mut buffer = [0; 16 * 1024];
        loop {
            match self.read(&mut buffer)? {
                0 => return Ok(bytes),
                got => bytes.extend_from_slice(&buffer[..got]),
            }
        }
    }

    /// The source, wherever it was read to.
    pub fn into_inner(self) -> R {
        self.source.into_inner()
    }

    fn place(&self, fault: Fault) -> TarError {
        let at = match fault {
            Fault::Truncated | Fault::Io(_) | Fault::Packed(_) => self.at,
            _ => self.header_at,
        };
        let entry = self.name.as_ref().map(|name| printable(&name[..name.len().min(300)]));
        TarError { at, entry, fault }
    }

    fn advance(&mut self) -> Result<Option<Entry>, Fault> {
        self.skip_data()?;
        self.name = None;
        let mut extra = Extra::default();
        loop {
            self.header_at = self.at;
            let block = self.read_block()?;
            if block == [0; BLOCK] {
                return self.end(&extra);
            }
            let header = Header::new(&block)?;
            match header.typeflag() {
                b'x' if extra.pax.is_some() => {
                    return Err(Fault::Corrupt("a second extended header for one entry".into()));
                }
                b'x' => {
                    let data = self.read_extension("extended header", header.size()?, PAX_MAX)?;
                    let pax = extra.pax.insert(self.global.clone());
                    pax.apply(&data)?;
                }
                b'g' => self.read_global(header.size()?)?,
                b'L' => extra.name = Some(self.read_name("long name", header.size()?)?),
                b'K' => extra.link = Some(self.read_name("long link target", header.size()?)?),
                // A volume's label says nothing about the tree.
                b'V' => {
                    self.expect_data(header.size()?)?;
                    self.skip_data()?;
                }
                _ => return self.entry(&block, &header, extra).map(Some),
            }
        }
    }

    /// Reads to the archive's very end, so that the checksum of a compressed stream is checked too
    /// and nothing hides behind the marker.
    fn end(&mut self, extra: &Extra) -> Result<Option<Entry>, Fault> {
        if extra.pax.is_some() || extra.name.is_some() || extra.link.is_some() {
            return Err(Fault::Corrupt("an extended header without an entry".into()));
        }
        let mut buffer = [0; 8192];
        let mut after = 0;
        loop {
            let got = self.read_source(&mut buffer)?;
            if got == 0 {
                self.ended = true;
                return Ok(None);
            }
            after += got as u64;
            if buffer[..got].iter().any(|&b| b != 0) {
                return Err(Fault::Corrupt("more data after the end marker".into()));
            }
            if after > TRAILER_MAX {
                return Err(Fault::TooLarge { what: "padding", size: after, limit: TRAILER_MAX });
            }
        }
    }

    fn entry(&mut self, block: &Block, header: &Header<'_>, extra: Extra) -> Result<Entry, Fault> {
        let mut pax = extra.pax.unwrap_or_else(|| self.global.clone());
        let name = pax.sparse.name.take().or(pax.path.take()).or(extra.name);
        let name = name.unwrap_or_else(|| header.name());
        self.name = Some(name.clone());
        if name.is_empty() {
            return Err(Fault::Corrupt("an entry without a name".into()));
        }
        if name.len() as u64 > NAME_MAX {
            let size = name.len() as u64;
            return Err(Fault::TooLarge { what: "name", size, limit: NAME_MAX });
        }
        let kind = kind(header, &mut pax, extra.link, name.ends_with(b"/"))?;
        let mut size = 0;
        if kind == EntryKind::File {
            self.expect_data(pax.size.map_or_else(|| header.size(), Ok)?)?;
            size = self.left;
            if header.typeflag() == b'S' || pax.sparse.used() {
                let sparse = self.read_sparse(block, header, &pax)?;
                size = sparse.real_size();
                self.sparse = Some(sparse);
            }
            if size > self.file_max {
                return Err(Fault::TooLarge { what: "file", size, limit: self.file_max });
            }
        }
        let meta = Meta {
            mode: header.mode()?,
            uid: pax.uid.map_or_else(|| header.uid(), Ok)?,
            gid: pax.gid.map_or_else(|| header.gid(), Ok)?,
            mtime: pax.mtime.map_or_else(|| header.mtime().map(Time::seconds), Ok)?,
            xattrs: pax.xattrs,
        };
        Ok(Entry { name, kind, meta, size, at: self.header_at })
    }

    fn read_global(&mut self, size: u64) -> Result<(), Fault> {
        let data = self.read_extension("global header", size, PAX_MAX)?;
        self.global.apply(&data)?;
        if !self.global.fits_all() {
            return Err(Fault::Unsupported("a global header with one file's name or size".into()));
        }
        let kept: u64 =
            self.global.xattrs.iter().map(|(name, value)| (name.len() + value.len()) as u64).sum();
        if kept > PAX_MAX {
            return Err(Fault::TooLarge { what: "global headers", size: kept, limit: PAX_MAX });
        }
        Ok(())
    }

    fn read_name(&mut self, what: &'static str, size: u64) -> Result<Vec<u8>, Fault> {
        let mut name = self.read_extension(what, size, NAME_MAX)?;
        // GNU tar counts an ending zero byte.
        name.truncate(name.iter().position(|&b| b == 0).unwrap_or(name.len()));
        Ok(name)
    }

    fn read_extension(&mut self, what: &'static str, size: u64, limit: u64) -> Result<Vec<u8>, Fault> {
        if size > limit {
            return Err(Fault::TooLarge { what, size, limit });
        }
        self.expect_data(size)?;
        // Cannot fail: `limit` fits.
        let mut data = vec![0; usize::try_from(size).unwrap_or_default()];
        self.read_exact_data(&mut data)?;
        self.skip_data()?;
        Ok(data)
    }

    fn read_sparse(&mut self, block: &Block, header: &Header<'_>, pax: &Pax) -> Result<Sparse, Fault> {
        if header.typeflag() == b'S' {
            let (mut pieces, mut more) = sparse::old_gnu(block, false)?;
            while more {
                let (next, again) = sparse::old_gnu(&self.read_block()?, true)?;
                pieces.extend(next);
                more = again;
                check_pieces(pieces.len())?;
            }
            return Sparse::new(pieces, sparse::old_gnu_size(block)?, self.left);
        }
        let real_size =
            pax.sparse.real_size.ok_or_else(|| Fault::Corrupt("a sparse file without its size".into()))?;
        let flat = match pax.sparse.major {
            None | Some(0) => pax.sparse.map.clone(),
            Some(1) => self.read_map()?,
            Some(other) => return Err(Fault::Unsupported(format!("sparse format {other}"))),
        };
        Sparse::new(sparse::pairs(&flat)?, real_size, self.left)
    }

    /// The map of format 1.0, which is the data's first blocks: a count, then pairs, each number on
    /// a line.
    fn read_map(&mut self) -> Result<Vec<u64>, Fault> {
        let wrong = || Fault::Corrupt("a bad number in the sparse map".into());
        let mut numbers = Vec::new();
        let mut count = None;
        let mut digits = Vec::new();
        loop {
            let mut block = [0; BLOCK];
            self.read_exact_data(&mut block)?;
            for byte in block {
                if byte != b'\n' {
                    digits.push(byte);
                    if digits.len() > 20 {
                        return Err(wrong());
                    }
                    continue;
                }
                let number: u64 = pax::decimal(b"map", &digits)?.ok_or_else(wrong)?;
                digits.clear();
                match count {
                    None => count = Some(check_pieces(usize::try_from(number).unwrap_or(usize::MAX))?),
                    Some(_) => numbers.push(number),
                }
                if count.is_some_and(|count| numbers.len() == count * 2) {
                    return Ok(numbers);
                }
            }
        }
    }

    /// The present entry has this many bytes of data, then padding.
    fn expect_data(&mut self, size: u64) -> Result<(), Fault> {
        let block = BLOCK as u64;
        // An archive cannot be longer than 2^63 bytes, and sums of offsets stay in range.
        if size > u64::MAX / 4 {
            return Err(Fault::Corrupt(format!("a size of {size} bytes")));
        }
        self.left = size;
        self.pad = size.next_multiple_of(block) - size;
        Ok(())
    }

    fn skip_data(&mut self) -> Result<(), Fault> {
        self.sparse = None;
        self.left += std::mem::take(&mut self.pad);
        let mut buffer = [0; 8192];
        while self.left > 0 {
            self.read_stored(&mut buffer)?;
        }
        Ok(())
    }

    fn read_data(&mut self, buffer: &mut [u8]) -> Result<usize, Fault> {
        let Some(sparse) = &mut self.sparse else { return self.read_stored(buffer) };
        let limit = |n: u64| usize::try_from(n).unwrap_or(usize::MAX).min(buffer.len());
        let got = match sparse.step() {
            Step::End => 0,
            Step::Zeros(n) => {
                let n = limit(n);
                buffer[..n].fill(0);
                n
            }
            Step::Data(n) => {
                let n = limit(n);
                self.read_stored(&mut buffer[..n])?
            }
        };
        if let Some(sparse) = &mut self.sparse {
            sparse.advance(got as u64);
        }
        Ok(got)
    }

    /// Bytes of the data as the archive has it; 0 at its end only.
    fn read_stored(&mut self, buffer: &mut [u8]) -> Result<usize, Fault> {
        let want = usize::try_from(self.left).unwrap_or(usize::MAX).min(buffer.len());
        if want == 0 {
            return Ok(0);
        }
        let got = self.read_source(&mut buffer[..want])?;
        if got == 0 {
            return Err(Fault::Truncated);
        }
        self.left -= got as u64;
        Ok(got)
    }

    fn read_exact_data(&mut self, buffer: &mut [u8]) -> Result<(), Fault> {
        let mut done = 0;
        while done < buffer.len() {
            match self.read_stored(&mut buffer[done..])? {
                0 => return Err(Fault::Corrupt("an entry's data ends inside its map".into())),
                got => done += got,
            }
        }
        Ok(())
    }

    fn read_block(&mut self) -> Result<Block, Fault> {
        let mut block = [0; BLOCK];
        let mut done = 0;
        while done < BLOCK {
            match self.read_source(&mut block[done..])? {
                0 => return Err(Fault::Truncated),
                got => done += got,
            }
        }
        Ok(block)
    }

    fn read_source(&mut self, buffer: &mut [u8]) -> Result<usize, Fault> {
        loop {
            match self.source.read(buffer) {
                Ok(got) => {
                    self.at += got as u64;
                    return Ok(got);
                }
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e.downcast::<CompressError>().map_or_else(Fault::Io, Fault::Packed)),
            }
        }
    }
}

fn check_pieces(count: usize) -> Result<usize, Fault> {
    if count > sparse::PIECES_MAX {
        return Err(Fault::Corrupt(format!("a sparse map of {count} pieces")));
    }
    Ok(count)
}

#[cfg(test)]
pub(crate) mod tests;
