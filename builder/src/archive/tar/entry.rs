//! What a tar archive gives: entries, and errors with their place.
//! Must not know: how blocks are read, how data is laid out.
//! Spec: POSIX.1-2017 pax, the field `typeflag`.

use std::io;

use super::header::Header;
use super::pax::Pax;
use crate::archive::CompressError;
use crate::tree::{Meta, printable};

/// An archive that cannot be read, with the place.
#[derive(Debug, thiserror::Error)]
#[error("offset {at}{}: {fault}", entry.as_ref().map_or(String::new(), |e| format!(", entry `{e}`")))]
pub struct TarError {
    /// Bytes from the archive's start (after decompression): of the entry's header, or how far the
    /// archive could be read.
    pub at: u64,
    /// The entry's name as written, made printable, once it is known.
    pub entry: Option<String>,
    /// What is wrong.
    pub fault: Fault,
}

/// What is wrong with a tar archive.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Fault {
    /// It contradicts its format.
    #[error("{0}")]
    Corrupt(String),
    /// It uses what we do not read.
    #[error("{0} is not supported")]
    Unsupported(String),
    /// It claims more than is sensible.
    #[error("the {what} has {size} bytes, at most {limit} are allowed")]
    TooLarge {
        /// Of what.
        what: &'static str,
        /// What it claims.
        size: u64,
        /// What is allowed.
        limit: u64,
    },
    /// It ends inside an entry or without its end marker.
    #[error("the archive is cut off")]
    Truncated,
    /// The compressed stream around it is bad.
    #[error(transparent)]
    Packed(#[from] CompressError),
    /// It could not be read.
    #[error("reading the archive: {0}")]
    Io(#[source] io::Error),
}

/// The type of an entry, with what only this type has. Names are as written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EntryKind {
    /// A directory.
    Dir,
    /// A regular file; its bytes are read from the [`Reader`].
    File,
    /// A further name of an entry before.
    HardLink(Vec<u8>),
    /// A symbolic link, 1 to 4095 bytes.
    Symlink(Vec<u8>),
    /// A block device, major and minor number.
    Block(u32, u32),
    /// A character device, major and minor number.
    Char(u32, u32),
    /// A named pipe.
    Fifo,
}

/// One entry of an archive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The name as written: perhaps absolute, perhaps with `..`.
    pub name: Vec<u8>,
    /// Type.
    pub kind: EntryKind,
    /// Owner, mode, time, attributes. A hard link's are of no meaning.
    pub meta: Meta,
    /// Bytes of a file with its holes; 0 for other types.
    pub size: u64,
    /// Offset of its header in the archive, in bytes.
    pub at: u64,
}

/// The type of an entry; `slash` when its name ends with one.
pub(super) fn kind(
    header: &Header<'_>,
    pax: &mut Pax,
    long_link: Option<Vec<u8>>,
    slash: bool,
) -> Result<EntryKind, Fault> {
    let target = pax.linkpath.take().or(long_link).unwrap_or_else(|| header.linkname());
    Ok(match header.typeflag() {
        // Before ustar, a directory was a file whose name ends with a slash.
        0 | b'0' | b'7' if slash => EntryKind::Dir,
        0 | b'0' | b'7' | b'S' => EntryKind::File,
        b'1' if pax.size.map_or_else(|| header.size(), Ok)? > 0 => {
            return Err(Fault::Unsupported("a hard link with data of its own".into()));
        }
        b'1' if target.is_empty() => return Err(Fault::Corrupt("a hard link without a target".into())),
        b'1' => EntryKind::HardLink(target),
        b'2' if (1..=4095).contains(&target.len()) && !target.contains(&0) => EntryKind::Symlink(target),
        b'2' => return Err(Fault::Corrupt(format!("a link target of {} bytes", target.len()))),
        b'3' => device(header, pax).map(|(major, minor)| EntryKind::Char(major, minor))?,
        b'4' => device(header, pax).map(|(major, minor)| EntryKind::Block(major, minor))?,
        b'5' => EntryKind::Dir,
        b'6' => EntryKind::Fifo,
        other => {
            return Err(Fault::Unsupported(format!("an entry of type `{}`", printable(&[other]))));
        }
    })
}

/// Major and minor number. The kernel keeps 12 bits of the one and 20 of the other.
fn device(header: &Header<'_>, pax: &Pax) -> Result<(u32, u32), Fault> {
    let (major, minor) = match (pax.major, pax.minor) {
        (Some(major), Some(minor)) => (major, minor),
        _ => header.device()?,
    };
    if major >= 1 << 12 || minor >= 1 << 20 {
        return Err(Fault::Unsupported(format!("the device number {major}:{minor}")));
    }
    Ok((major, minor))
}
