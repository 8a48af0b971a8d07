//! The superblock and the group descriptors: the shape of a filesystem, and where its inodes are.
//! Must not know: what is in inodes.
//! Spec: Documentation/filesystems/ext4/super.rst and group_descr.rst.

use super::super::checksum::Seed;
use super::bytes::{joined, le16, le32};
use super::error::ReadError;
use crate::io::at::ReadAt;

/// Where the superblock begins; it has 1024 bytes.
const SUPERBLOCK: u64 = 1024;
const MAGIC: u16 = 0xef53;

const RECOVER: u32 = 0x4;
const BITS_64: u32 = 0x80;
const CSUM_SEED: u32 = 0x2000;
/// `filetype`, `extent`, `64bit`, `mmp`, `flex_bg`, `ea_inode`, `metadata_csum_seed`, `large_dir`,
/// `inline_data`, `casefold`, and `needs_recovery`, which has an error of its own.
const KNOWN: u32 =
    0x2 | RECOVER | 0x40 | BITS_64 | 0x100 | 0x200 | 0x400 | CSUM_SEED | 0x4000 | 0x8000 | 0x20000;
/// Names of the others, as mke2fs(8) and debugfs(8) have them.
const NAMES: [(u32, &str); 5] = [
    (0x1, "compression"),
    (0x8, "journal_dev"),
    (0x10, "meta_bg"),
    (0x1000, "dirdata"),
    (0x10000, "encrypt"),
];
/// `ro_compat`. What else is there only matters to those who write.
const METADATA_CSUM: u32 = 0x400;

/// What every part of the reader must know.
#[derive(Debug, Clone)]
pub(super) struct Shape {
    /// Bytes of a block.
    pub block_size: usize,
    /// Blocks.
    pub blocks: u64,
    /// Inodes; their numbers begin at 1.
    pub inodes: u32,
    /// Bytes of an inode.
    pub inode_size: usize,
    /// Start of all checksums, when there are any.
    pub seed: Option<Seed>,
    inodes_per_group: u32,
    /// First block of each group's inodes.
    tables: Vec<u64>,
}

impl Shape {
    pub fn read(device: &dyn ReadAt) -> Result<Shape, ReadError> {
        let mut sb = [0; 1024];
        read(device, &mut sb, SUPERBLOCK)?;
        let wrong = |field: u64, what: String| damaged("superblock", SUPERBLOCK + field, what);
        if le16(&sb, 0x38) != MAGIC {
            return Err(ReadError::Foreign { found: le16(&sb, 0x38) });
        }
        // Features only exist from revision 1 on, and so do inodes of another size.
        let dynamic = le32(&sb, 0x4c) >= 1;
        let (incompat, ro_compat) = if dynamic { (le32(&sb, 0x60), le32(&sb, 0x64)) } else { (0, 0) };
        let checked = ro_compat & METADATA_CSUM != 0;
        if checked && Seed::none().with(&sb[..0x3fc]).sum() != le32(&sb, 0x3fc) {
            return Err(wrong(0x3fc, "its checksum is wrong".into()));
        }
        if incompat & !KNOWN != 0 {
            let bit = 1 << (incompat & !KNOWN).trailing_zeros();
            let name = NAMES.iter().find(|(b, _)| *b == bit).map(|(_, name)| (*name).to_owned());
            return Err(ReadError::Feature { feature: name.unwrap_or_else(|| format!("{bit:#x}")) });
        }
        if incompat & RECOVER != 0 {
            return Err(ReadError::Journal);
        }
        let log = le32(&sb, 0x18);
        if log > 6 {
            return Err(wrong(0x18, format!("blocks of 2^{} bytes", u64::from(log) + 10)));
        }
        let block_size = 1024usize << log;
        let wide = incompat & BITS_64 != 0;
        let blocks = joined(le32(&sb, 0x04), if wide { le32(&sb, 0x150) } else { 0 });
        if blocks.checked_mul(block_size as u64).is_none_or(|bytes| bytes > device.size()) {
            return Err(wrong(
                0x04,
                format!(
                    "{blocks} blocks of {block_size} bytes, but there are {} bytes in all",
                    device.size()
                ),
            ));
        }
        let first_block = le32(&sb, 0x14);
        let (blocks_per_group, inodes_per_group) = (le32(&sb, 0x20), le32(&sb, 0x28));
        if u64::from(first_block) >= blocks || first_block > 1 {
            return Err(wrong(0x14, format!("data begin at block {first_block}")));
        }
        if blocks_per_group == 0 {
            return Err(wrong(0x20, format!("{blocks_per_group} blocks a group")));
        }
        // A group's bitmap of inodes is one block.
        if inodes_per_group == 0 || u64::from(inodes_per_group) > block_size as u64 * 8 {
            return Err(wrong(0x28, format!("{inodes_per_group} inodes a group")));
        }
        let inode_size = if dynamic { usize::from(le16(&sb, 0x58)) } else { 128 };
        if !inode_size.is_power_of_two() || inode_size < 128 || inode_size > block_size {
            return Err(wrong(0x58, format!("inodes of {inode_size} bytes")));
        }
        let desc_size = if wide { usize::from(le16(&sb, 0xfe)) } else { 32 };
        if !desc_size.is_power_of_two() || !(32..=1024).contains(&desc_size) || wide && desc_size < 64 {
            return Err(wrong(0xfe, format!("group descriptors of {desc_size} bytes")));
        }
        let groups = (blocks - u64::from(first_block)).div_ceil(blocks_per_group.into());
        let inodes = le32(&sb, 0x00);
        if groups.checked_mul(inodes_per_group.into()) != Some(inodes.into()) {
            return Err(wrong(0x00, format!("{inodes} inodes, but {groups} groups of {inodes_per_group}")));
        }
        let seed = checked.then(|| match incompat & CSUM_SEED {
            0 => Seed::none().with(&sb[0x68..0x78]),
            _ => Seed::of_number(le32(&sb, 0x270)),
        });
        let mut shape =
            Shape { block_size, blocks, inodes, inode_size, seed, inodes_per_group, tables: Vec::new() };
        shape.tables = shape.read_tables(device, first_block, groups, desc_size)?;
        Ok(shape)
    }

    fn read_tables(
        &self,
        device: &dyn ReadAt,
        first_block: u32,
        groups: u64,
        desc_size: usize,
    ) -> Result<Vec<u64>, ReadError> {
        let start = (u64::from(first_block) + 1) * self.block_size as u64;
        let table = u64::from(self.inodes_per_group) * self.inode_size as u64;
        let mut tables = Vec::new();
        let mut desc = vec![0; desc_size];
        for group in 0..groups {
            let at = start + group * desc_size as u64;
            read(device, &mut desc, at)?;
            let place = || format!("group {group}");
            if let Some(seed) = self.seed {
                let sum = u32::from(le16(&desc, 0x1e));
                desc[0x1e..0x20].fill(0);
                let number = u32::try_from(group).unwrap_or(u32::MAX);
                if seed.of_group(number).with(&desc).sum() & 0xffff != sum {
                    return Err(damaged(&place(), at + 0x1e, "its descriptor's checksum is wrong"));
                }
            }
            let first = joined(le32(&desc, 0x08), if desc_size >= 64 { le32(&desc, 0x28) } else { 0 });
            let end = first.checked_add(table.div_ceil(self.block_size as u64));
            if first <= u64::from(first_block) || end.is_none_or(|end| end > self.blocks) {
                return Err(damaged(&place(), at + 0x08, format!("its inodes begin at block {first}")));
            }
            tables.push(first);
        }
        Ok(tables)
    }

    /// Where an inode lies, if there is one of this number.
    pub fn inode_at(&self, ino: u32) -> Option<u64> {
        let index = ino.checked_sub(1).filter(|_| ino <= self.inodes)?;
        let table = *self.tables.get((index / self.inodes_per_group) as usize)?;
        let offset = u64::from(index % self.inodes_per_group) * self.inode_size as u64;
        Some(table * self.block_size as u64 + offset)
    }
}

/// Fills `buffer` from the device.
pub(super) fn read(device: &dyn ReadAt, buffer: &mut [u8], at: u64) -> Result<(), ReadError> {
    let len = buffer.len();
    device.read_at(buffer, at).map_err(|source| ReadError::Io { at, len, source })
}

pub(super) fn damaged(place: &str, at: u64, what: impl Into<String>) -> ReadError {
    ReadError::Damaged { place: place.to_owned(), at, what: what.into() }
}
