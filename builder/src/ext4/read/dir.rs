//! Directories: their entries, in the order in which they lie.
//! Must not know: what the entries are, trees.
//! Spec: Documentation/filesystems/ext4/directory.rst. The blocks of an index look like empty ones to a reader
//! that does not know of it, so entries are found without it.

use super::super::checksum::Seed;
use super::bytes::{le16, le32};
use super::error::ReadError;
use super::inode::{I_BLOCK, RawInode};
use super::superblock::damaged;
use crate::tree::printable;

/// An entry without its name.
const ENTRY: usize = 8;
/// Bytes that hold the checksum of a block of entries, made to look like an entry without a name.
const TAIL: usize = 12;
const TAIL_TYPE: u8 = 0xde;

/// A name and what it names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Entry {
    pub name: Vec<u8>,
    pub inode: u32,
}

/// Entries of a directory whose content is `bytes`, which lies in blocks of `block` bytes.
pub(super) fn entries(inode: &RawInode, bytes: &[u8], block: usize) -> Result<Vec<Entry>, ReadError> {
    let place = format!("directory of inode {}", inode.number);
    let mut found = Vec::new();
    for (n, bytes) in bytes.chunks(block).enumerate() {
        // Offsets are of the directory's content here: its blocks may lie anywhere.
        let at = (n * block) as u64;
        if let Some(seed) = inode.seed {
            check(seed, bytes, n == 0 && inode.is_indexed()).map_err(|what| damaged(&place, at, what))?;
        }
        read(bytes, at, &place, &mut found)?;
    }
    Ok(found)
}

/// Entries of a directory that is in its inode and, the rest of it, in an attribute.
pub(super) fn inline_entries(inode: &RawInode, rest: &[u8]) -> Result<Vec<Entry>, ReadError> {
    let place = format!("inline directory of inode {}", inode.number);
    let mut found = Vec::new();
    // The number of the parent, then entries.
    read(&inode.block[4..], inode.at + 0x2c, &place, &mut found)?;
    read(rest, I_BLOCK as u64, &place, &mut found)?;
    Ok(found)
}

fn read(bytes: &[u8], start: u64, place: &str, found: &mut Vec<Entry>) -> Result<(), ReadError> {
    let mut at = 0;
    while at < bytes.len() {
        let wrong = |what: String| damaged(place, start + at as u64, what);
        let entry = &bytes[at..];
        if entry.len() < ENTRY {
            return Err(wrong("an entry that is cut off".into()));
        }
        let (inode, name_len) = (le32(entry, 0), usize::from(entry[6]));
        // A block of 64 KiB has no room for its own length: EXT4_MAX_REC_LEN.
        let len = match le16(entry, 4) {
            0xffff | 0 if bytes.len() == 65_536 => 65_536,
            len => usize::from(len),
        };
        if len < ENTRY || len % 4 != 0 || len > entry.len() || ENTRY + name_len > len {
            return Err(wrong(format!("an entry of {len} bytes with a name of {name_len}")));
        }
        let name = &entry[ENTRY..ENTRY + name_len];
        if inode != 0 && !matches!(name, b"." | b"..") {
            if name.is_empty() || name.contains(&b'/') || name.contains(&0) {
                return Err(wrong(format!("the name `{}`", printable(name))));
            }
            found.push(Entry { name: name.to_vec(), inode });
        }
        at += len;
    }
    Ok(())
}

/// Whether a block is what was written. `root` says that it begins an index.
fn check(seed: Seed, block: &[u8], root: bool) -> Result<(), &'static str> {
    let tail = block.len().saturating_sub(TAIL);
    let has_tail = le32(block, tail) == 0
        && usize::from(le16(block, tail + 4)) == TAIL
        && block.get(tail + 6..tail + 8) == Some(&[0, TAIL_TYPE]);
    let sum = match (root, has_tail) {
        (false, true) => seed.with(&block[..tail]).sum() == le32(block, tail + 8),
        // An index: where its entries begin, how many there is room for, how many there are.
        _ => {
            let first = if root { 32 } else { 8 };
            let (limit, count) = (usize::from(le16(block, first)), usize::from(le16(block, first + 2)));
            let (end, tail) = (first + 8 * count, first + 8 * limit);
            let (Some(covered), Some(reserved)) = (block.get(..end), block.get(tail..tail + 4)) else {
                return Err("a block of its index has more entries than room");
            };
            seed.with(covered).with(reserved).with(&[0; 4]).sum() == le32(block, tail + 4)
        }
    };
    if sum { Ok(()) } else { Err("the checksum of this block is wrong") }
}
