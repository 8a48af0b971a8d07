//! One inode: its fields, and how it is told that they are whole.
//! Must not know: what its blocks hold.
//! Spec: Documentation/filesystems/ext4/inodes.rst, dynamic.rst.

use super::super::checksum::Seed;
use super::bytes::{joined, le16, le32};
use super::error::ReadError;
use super::superblock::{Shape, damaged, read};
use crate::io::at::ReadAt;
use crate::tree::Time;

/// Bytes of `i_block`.
pub(super) const I_BLOCK: usize = 60;
/// Bytes of the fields that every inode has.
const OLD_SIZE: usize = 128;

const ENCRYPTED: u32 = 0x800;
const INDEX: u32 = 0x1000;
const EXTENTS: u32 = 0x80000;
const INLINE_DATA: u32 = 0x1000_0000;

/// The types of `i_mode`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Type {
    Fifo,
    Char,
    Dir,
    Block,
    File,
    Symlink,
    Socket,
}

/// An inode that has names.
#[derive(Debug, Clone)]
pub(super) struct RawInode {
    pub number: u32,
    /// Where it lies, for messages.
    pub at: u64,
    pub kind: Type,
    /// Permissions.
    pub mode: u16,
    pub uid: u32,
    pub gid: u32,
    pub size: u64,
    pub mtime: Time,
    pub block: [u8; I_BLOCK],
    /// Block of attributes, 0 when there is none.
    pub attributes: u64,
    /// Bytes after the fields, where attributes begin.
    pub body: Vec<u8>,
    /// Start of the checksums of its blocks.
    pub seed: Option<Seed>,
    flags: u32,
}

impl RawInode {
    /// Reads the inode `number`, which `from` names.
    pub fn read(device: &dyn ReadAt, shape: &Shape, number: u32, from: &str) -> Result<RawInode, ReadError> {
        let Some(at) = shape.inode_at(number) else {
            return Err(damaged(from, 0, format!("inode {number} of {} is named", shape.inodes)));
        };
        let mut raw = vec![0; shape.inode_size];
        read(device, &mut raw, at)?;
        let wrong = |field: u64, what: String| damaged(&format!("inode {number}"), at + field, what);
        let extra = if raw.len() > OLD_SIZE { usize::from(le16(&raw, 0x80)) } else { 0 };
        if extra % 4 != 0 || OLD_SIZE + extra > raw.len() {
            return Err(wrong(0x80, format!("{extra} bytes of further fields")));
        }
        let generation = le32(&raw, 0x64);
        let seed = shape.seed.map(|seed| seed.with(&number.to_le_bytes()).with(&generation.to_le_bytes()));
        if let Some(seed) = seed {
            // The upper half has a place where the fields reach so far.
            let high = extra >= 4;
            let stored = joined_sum(&raw, high);
            let mut blank = raw.clone();
            blank[0x7c..0x7e].fill(0);
            if high {
                blank[0x82..0x84].fill(0);
            }
            let sum = seed.with(&blank).sum();
            if stored != if high { sum } else { sum & 0xffff } {
                return Err(wrong(0x7c, "its checksum is wrong".into()));
            }
        }
        let mode = le16(&raw, 0x00);
        let kind = match mode >> 12 {
            0x1 => Type::Fifo,
            0x2 => Type::Char,
            0x4 => Type::Dir,
            0x6 => Type::Block,
            0x8 => Type::File,
            0xa => Type::Symlink,
            0xc => Type::Socket,
            _ => return Err(wrong(0x00, format!("mode {mode:#o} in an inode that has a name"))),
        };
        let flags = le32(&raw, 0x20);
        if flags & ENCRYPTED != 0 {
            return Err(ReadError::Feature { feature: "encrypt".into() });
        }
        if le16(&raw, 0x1a) == 0 {
            return Err(wrong(0x1a, "it has a name, but counts none".into()));
        }
        let high_size = matches!(kind, Type::File | Type::Dir).then(|| le32(&raw, 0x6c));
        let wide = |low: usize, high: usize| u32::from(le16(&raw, low)) | u32::from(le16(&raw, high)) << 16;
        let block = raw[0x28..].first_chunk().copied().unwrap_or([0; I_BLOCK]);
        Ok(RawInode {
            number,
            at,
            kind,
            mode: mode & 0o7777,
            uid: wide(0x02, 0x78),
            gid: wide(0x18, 0x7a),
            size: joined(le32(&raw, 0x04), high_size.unwrap_or(0)),
            mtime: time(le32(&raw, 0x10), if extra >= 12 { le32(&raw, 0x88) } else { 0 }),
            block,
            attributes: joined(le32(&raw, 0x68), le16(&raw, 0x76).into()),
            body: raw.split_off(OLD_SIZE + extra),
            seed,
            flags,
        })
    }

    /// `i_block` is the root of an extent tree.
    pub fn has_extents(&self) -> bool {
        self.flags & EXTENTS != 0
    }

    /// The content is in the inode itself.
    pub fn is_inline(&self) -> bool {
        self.flags & INLINE_DATA != 0
    }

    /// A directory of which some blocks are an index.
    pub fn is_indexed(&self) -> bool {
        self.flags & INDEX != 0
    }

    /// An error about this inode, `field` bytes from its start.
    pub fn wrong(&self, field: u64, what: impl Into<String>) -> ReadError {
        damaged(&format!("inode {}", self.number), self.at + field, what)
    }

    /// The target of a link that needs no block.
    pub fn short_link(&self) -> Option<&[u8]> {
        let len = usize::try_from(self.size).ok().filter(|len| *len < I_BLOCK)?;
        (self.kind == Type::Symlink && !self.has_extents() && !self.is_inline()).then(|| &self.block[..len])
    }

    /// Major and minor number of a device.
    pub fn device(&self) -> (u32, u32) {
        match le32(&self.block, 0) {
            0 => {
                let new = le32(&self.block, 4);
                (new >> 8 & 0xfff, new & 0xff | new >> 12 & 0xf_ff00)
            }
            old => (old >> 8 & 0xff, old & 0xff),
        }
    }
}

fn joined_sum(raw: &[u8], high: bool) -> u32 {
    u32::from(le16(raw, 0x7c)) | if high { u32::from(le16(raw, 0x82)) << 16 } else { 0 }
}

/// Seconds as a signed number, two more bits of them, and nanoseconds.
fn time(sec: u32, extra: u32) -> Time {
    let signed = i64::from(i32::from_le_bytes(sec.to_le_bytes()));
    // More than a second of nanoseconds is nothing that a kernel writes, nor that stat(2) could show.
    Time { sec: signed + (i64::from(extra & 3) << 32), nsec: (extra >> 2).min(999_999_999) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_and_devices_are_those_of_the_documentation() {
        // inodes.rst, the table of "Inode Timestamps".
        for (sec, extra, want) in [
            (0x8000_0000, 0, -0x8000_0000),
            (0xffff_ffff, 0, -1),
            (0x7fff_ffff, 0, 0x7fff_ffff),
            (0x8000_0000, 1, 0x8000_0000),
            (0x7fff_ffff, 3, 0x3_7fff_ffff),
        ] {
            assert_eq!(time(sec, extra | 5 << 2), Time { sec: want, nsec: 5 }, "{sec:#x} {extra}");
        }
    }
}
