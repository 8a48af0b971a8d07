//! A tree as a tar archive in PAX form: the same tree gives the same bytes everywhere.
//! Must not know: compression, where the tree came from.
//! Spec: POSIX.1-2017 pax; extended attributes as `SCHILY.xattr.*` the way GNU tar writes them.
//!
//! Entries come in canonical order as `./etc/motd`, the root as `./`. An extended header is written
//! only for an entry that a ustar header cannot hold. A further name of an inode is a hard link to
//! its first. Holes are written as zero bytes. A name that is not UTF-8 is written as it is.

use std::collections::HashMap;
use std::io::{self, Read, Write};

use crate::digest::Digest;
use crate::store::{Store, StoreError};
use crate::tree::{Inode, InodeId, Kind, Meta, Object, Time, Tree, TreePath};

const BLOCK: usize = 512;
/// Tar's customary record: archives are padded to 20 blocks, and some readers ask for it.
const RECORD: u64 = 20 * BLOCK as u64;
/// Largest numbers in seven and in eleven octal digits.
const SEVEN_DIGITS: u64 = 0o7_777_777;
const ELEVEN_DIGITS: u64 = 0o77_777_777_777;

/// An archive could not be written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WriteError {
    /// An object is not there or damaged.
    #[error("writing `{path}` into the archive")]
    Object {
        /// The file.
        path: TreePath,
        /// What the store said.
        source: StoreError,
    },
    /// An object has another length than its tree says.
    #[error("`{path}` has {found} bytes in the store and {wanted} in its tree")]
    Length {
        /// The file.
        path: TreePath,
        /// Bytes found.
        found: u64,
        /// Bytes wanted.
        wanted: u64,
    },
    /// The archive or an object could not be written or read.
    #[error("writing the archive")]
    Io(#[from] io::Error),
}

/// Writes the whole tree. Returns the sockets, which tar cannot hold: they are left out.
pub fn write(tree: &Tree, store: &Store, out: &mut dyn Write) -> Result<Vec<TreePath>, WriteError> {
    let mut first: HashMap<InodeId, &TreePath> = HashMap::new();
    let mut out = Counted { out, at: 0 };
    let mut sockets = Vec::new();
    for (path, id, inode) in tree.iter() {
        if inode.kind == Kind::Socket {
            sockets.push(path.clone());
            continue;
        }
        // `./` as mmdebstrap and dpkg-deb write it: an entry `./` can hold the root's own attributes.
        let name = name_of(path, inode.is_dir());
        if let Some(first) = first.get(&id) {
            write_header(&mut out, &name, inode, Some(&name_of(first, false)))?;
            continue;
        }
        if tree.links(id) > 1 {
            first.insert(id, path);
        }
        write_header(&mut out, &name, inode, None)?;
        if let Kind::File(object) = &inode.kind {
            write_data(&mut out, path, object, store)?;
        }
    }
    out.end()?;
    Ok(sockets)
}

/// Writes plain files one after another: root's, of mode 0644 and no time.
pub struct Files<'a>(Counted<'a>);

impl<'a> Files<'a> {
    /// Begins an archive.
    pub fn new(out: &'a mut dyn Write) -> Files<'a> {
        Files(Counted { out, at: 0 })
    }

    /// Writes one file; `size` is what `bytes` must give, and no more is taken.
    pub fn file(&mut self, name: &str, size: u64, bytes: &mut dyn Read) -> io::Result<()> {
        let object = Object { digest: Digest::of(b""), size, holes: Box::default() };
        let meta = Meta::root_owned(0o644, Time::default());
        write_header(&mut self.0, name.as_bytes(), &Inode { meta, kind: Kind::File(object) }, None)?;
        let found = io::copy(&mut bytes.take(size), &mut self.0)?;
        if found != size {
            let what = format!("`{name}` has {found} bytes in place of {size}");
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, what));
        }
        self.0.pad(size)
    }

    /// Ends the archive.
    pub fn finish(mut self) -> io::Result<()> {
        self.0.end()
    }
}

fn name_of(path: &TreePath, dir: bool) -> Vec<u8> {
    let mut name = b"./".to_vec();
    name.extend_from_slice(path.as_bytes());
    if dir && !path.is_root() {
        name.push(b'/');
    }
    name
}

/// The header of one entry, with an extended one before it where that is needed. `first` is the
/// name that a hard link leads to.
fn write_header(out: &mut Counted<'_>, name: &[u8], inode: &Inode, first: Option<&[u8]>) -> io::Result<()> {
    let meta = &inode.meta;
    let mut records = Vec::new();
    let target = match (&inode.kind, first) {
        (_, Some(first)) => first,
        (Kind::Symlink(target), None) => target,
        _ => b"",
    };
    let size = match (&inode.kind, first) {
        (Kind::File(object), None) => object.size,
        _ => 0,
    };
    if (name.len() > 100 && !name.is_ascii()) || (target.len() > 100 && !target.is_ascii()) {
        // Records are UTF-8 unless this one says otherwise; header fields have no such rule.
        if std::str::from_utf8(name).is_err() || std::str::from_utf8(target).is_err() {
            push_record(&mut records, b"hdrcharset", b"BINARY");
        }
    }
    // Always a record, never ustar's prefix: not every long name can be split, and one way is enough.
    push_if(&mut records, name.len() > 100, "path", name);
    push_if(&mut records, target.len() > 100, "linkpath", target);
    push_if(&mut records, size > ELEVEN_DIGITS, "size", size.to_string().as_bytes());
    push_if(&mut records, u64::from(meta.uid) > SEVEN_DIGITS, "uid", meta.uid.to_string().as_bytes());
    push_if(&mut records, u64::from(meta.gid) > SEVEN_DIGITS, "gid", meta.gid.to_string().as_bytes());
    let seconds = u64::try_from(meta.mtime.sec).ok().filter(|sec| *sec <= ELEVEN_DIGITS);
    let plain_time = seconds.is_some() && meta.mtime.nsec == 0;
    push_if(&mut records, !plain_time, "mtime", time_text(meta.mtime).as_bytes());
    // A hard link repeats times and owners, for readers that set those from its entry again.
    for (name, value) in meta.xattrs.iter().filter(|_| first.is_none()) {
        push_record(&mut records, &xattr_keyword(name), value);
    }
    if !records.is_empty() {
        out.block(&extension(records.len() as u64))?;
        out.padded(&records)?;
    }
    let mut raw = Raw::new(typeflag(&inode.kind, first.is_some()), name, target);
    raw.octal(100, 8, u64::from(meta.mode));
    raw.octal(108, 8, fitting(u64::from(meta.uid), SEVEN_DIGITS));
    raw.octal(116, 8, fitting(u64::from(meta.gid), SEVEN_DIGITS));
    raw.octal(124, 12, fitting(size, ELEVEN_DIGITS));
    raw.octal(136, 12, seconds.unwrap_or(0));
    if let Kind::Block { major, minor } | Kind::Char { major, minor } = inode.kind {
        raw.octal(329, 8, u64::from(major));
        raw.octal(337, 8, u64::from(minor));
    }
    out.block(&raw.seal())
}

fn write_data(
    out: &mut Counted<'_>,
    path: &TreePath,
    object: &Object,
    store: &Store,
) -> Result<(), WriteError> {
    let fail = |source| WriteError::Object { path: path.clone(), source };
    let file = store.open_object(object).map_err(fail)?;
    // Never more than the header promised, whatever happens to the file meanwhile.
    let found = io::copy(&mut file.take(object.size), out)?;
    if found != object.size {
        return Err(WriteError::Length { path: path.clone(), found, wanted: object.size });
    }
    out.pad(object.size)?;
    Ok(())
}

fn typeflag(kind: &Kind, link: bool) -> u8 {
    match kind {
        _ if link => b'1',
        // Sockets do not come here.
        Kind::File(_) | Kind::Socket => b'0',
        Kind::Symlink(_) => b'2',
        Kind::Char { .. } => b'3',
        Kind::Block { .. } => b'4',
        Kind::Dir => b'5',
        Kind::Fifo => b'6',
    }
}

fn extension(size: u64) -> Block {
    let mut raw = Raw::new(b'x', b"././@PaxHeader", b"");
    raw.octal(100, 8, 0o644);
    raw.octal(108, 8, 0);
    raw.octal(116, 8, 0);
    raw.octal(124, 12, size);
    raw.octal(136, 12, 0);
    raw.seal()
}

/// What a field cannot hold stands in an extended header, and the field is 0.
fn fitting(value: u64, most: u64) -> u64 {
    if value <= most { value } else { 0 }
}

/// `%` and `=` are coded as GNU tar does: a keyword ends at its first `=`.
fn xattr_keyword(name: &[u8]) -> Vec<u8> {
    let mut keyword = b"SCHILY.xattr.".to_vec();
    for &byte in name {
        match byte {
            b'%' => keyword.extend_from_slice(b"%25"),
            b'=' => keyword.extend_from_slice(b"%3D"),
            _ => keyword.push(byte),
        }
    }
    keyword
}

/// Decimal seconds with as few digits as keep the value.
fn time_text(time: Time) -> String {
    let (sec, nsec) = (i128::from(time.sec), time.nsec);
    // Before 1970 the fraction counts away from zero: -2 s and 0.5 s forward is -1.5.
    let (sign, whole, nsec) = match (sec < 0, nsec) {
        (false, _) => ("", sec, nsec),
        (true, 0) => ("-", -sec, 0),
        (true, _) => ("-", -sec - 1, 1_000_000_000 - nsec),
    };
    let text = format!("{sign}{whole}.{nsec:09}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

fn push_if(out: &mut Vec<u8>, needed: bool, keyword: &str, value: &[u8]) {
    if needed {
        push_record(out, keyword.as_bytes(), value);
    }
}

/// Adds `LENGTH KEYWORD=VALUE\n`; the length counts its own digits.
pub(crate) fn push_record(out: &mut Vec<u8>, keyword: &[u8], value: &[u8]) {
    let rest = keyword.len() + value.len() + 3;
    let mut len = rest + 1;
    while rest + len.to_string().len() != len {
        len = rest + len.to_string().len();
    }
    out.extend_from_slice(len.to_string().as_bytes());
    out.push(b' ');
    out.extend_from_slice(keyword);
    out.push(b'=');
    out.extend_from_slice(value);
    out.push(b'\n');
}

type Block = [u8; BLOCK];

/// A header block that is being filled; the offsets are those of the format.
struct Raw(Block);

impl Raw {
    fn new(typeflag: u8, name: &[u8], target: &[u8]) -> Raw {
        let mut raw = Raw([0; BLOCK]);
        raw.put(0, &name[..name.len().min(100)]);
        raw.put(156, &[typeflag]);
        raw.put(157, &target[..target.len().min(100)]);
        raw.put(257, b"ustar\x0000");
        raw
    }

    fn put(&mut self, at: usize, bytes: &[u8]) {
        self.0[at..at + bytes.len()].copy_from_slice(bytes);
    }

    /// Zero-filled octal digits and a zero byte.
    fn octal(&mut self, at: usize, len: usize, value: u64) {
        self.put(at, format!("{value:0width$o}", width = len - 1).as_bytes());
    }

    fn seal(mut self) -> Block {
        self.put(148, b"        ");
        let sum: u64 = self.0.iter().map(|&b| u64::from(b)).sum();
        self.octal(148, 7, sum);
        self.0[154] = 0;
        self.0
    }
}

/// Counts what is written.
struct Counted<'a> {
    out: &'a mut dyn Write,
    at: u64,
}

impl Counted<'_> {
    fn block(&mut self, block: &Block) -> io::Result<()> {
        self.write_all(block)
    }

    fn padded(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.write_all(bytes)?;
        self.pad(bytes.len() as u64)
    }

    fn pad(&mut self, len: u64) -> io::Result<()> {
        self.zeros(len.next_multiple_of(BLOCK as u64) - len)
    }

    /// Two zero blocks end an archive.
    fn end(&mut self) -> io::Result<()> {
        let end = (self.at + 2 * BLOCK as u64).next_multiple_of(RECORD);
        self.zeros(end - self.at)
    }

    fn zeros(&mut self, len: u64) -> io::Result<()> {
        io::copy(&mut io::repeat(0).take(len), self).map(drop)
    }
}

impl Write for Counted<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let got = self.out.write(bytes)?;
        self.at += got as u64;
        Ok(got)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

#[cfg(test)]
mod tests;
