//! Where the blocks of a file are: an extent tree, or the map of ext2 and ext3.
//! Must not know: what the blocks hold.
//! Spec: Documentation/filesystems/ext4/ifork.rst and blockmap.rst.

use super::bytes::{joined, le16, le32};
use super::error::ReadError;
use super::inode::RawInode;
use super::superblock::{Shape, damaged, read};
use crate::io::at::ReadAt;

const EXTENT_MAGIC: u16 = 0xf30a;
/// Bytes of a header, of an entry.
const ENTRY: usize = 12;
/// EXT4_MAX_EXTENT_DEPTH.
const DEPTH_MAX: u16 = 5;
/// Longer extents stand for blocks that are reserved and read as zero.
const WRITTEN_MAX: u16 = 32_768;

/// Blocks in a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Run {
    /// The first one, counted from the start of the file.
    pub logical: u64,
    /// How many.
    pub len: u64,
    /// The first one, counted from the start of the filesystem.
    pub physical: u64,
}

/// All blocks of an inode that hold something, ascending, and how many blocks they and those that tell of them
/// are. No more than the filesystem has: so an image cannot make this longer than itself.
pub(super) fn runs(
    device: &dyn ReadAt,
    shape: &Shape,
    inode: &RawInode,
) -> Result<(Vec<Run>, u64), ReadError> {
    let mut map = Map { device, shape, inode, runs: Vec::new(), taken: 0, next: 0 };
    match inode.has_extents() {
        true => map.extents(&inode.block, inode.at + 0x28, None)?,
        false => map.old_map()?,
    }
    Ok((map.runs, map.taken))
}

struct Map<'a> {
    device: &'a dyn ReadAt,
    shape: &'a Shape,
    inode: &'a RawInode,
    runs: Vec<Run>,
    /// Blocks that belong to the inode.
    taken: u64,
    /// No entry may speak of an earlier block of the file.
    next: u64,
}

impl Map<'_> {
    /// A node of an extent tree, which lies at `at`. `depth` is what its parent demands.
    fn extents(&mut self, node: &[u8], at: u64, depth: Option<u16>) -> Result<(), ReadError> {
        let number = self.inode.number;
        let wrong = |field: usize, what: String| {
            damaged(&format!("extent tree of inode {number}"), at + field as u64, what)
        };
        let (magic, entries, here) = (le16(node, 0), le16(node, 2), le16(node, 6));
        if magic != EXTENT_MAGIC {
            return Err(wrong(0, format!("magic number {magic:#06x}")));
        }
        if here > DEPTH_MAX || depth.is_some_and(|d| d != here) {
            return Err(wrong(6, format!("depth {here}")));
        }
        if usize::from(entries) > node.len() / ENTRY - 1 || depth.is_some() && entries == 0 {
            return Err(wrong(2, format!("{entries} entries")));
        }
        for (n, entry) in node.chunks_exact(ENTRY).enumerate().skip(1).take(entries.into()) {
            let field = n * ENTRY;
            let logical = u64::from(le32(entry, 0));
            if logical < self.next {
                return Err(wrong(field, format!("block {logical} of the file comes late or twice")));
            }
            if here > 0 {
                let child = joined(le32(entry, 4), le16(entry, 8).into());
                let bytes = self.tree_block(child, &wrong, field + 4)?;
                self.next = logical;
                self.extents(&bytes, child * self.shape.block_size as u64, Some(here - 1))?;
                continue;
            }
            let len = le16(entry, 4);
            let (len, written) = if len > WRITTEN_MAX { (len - WRITTEN_MAX, false) } else { (len, true) };
            let physical = joined(le32(entry, 8), le16(entry, 6).into());
            if len == 0 {
                return Err(wrong(field + 4, "an extent of no blocks".into()));
            }
            if written {
                self.add(Run { logical, len: len.into(), physical })
                    .map_err(|what| wrong(field + 6, what))?;
            }
            self.next = logical + u64::from(len);
        }
        Ok(())
    }

    fn tree_block(
        &mut self,
        block: u64,
        wrong: &dyn Fn(usize, String) -> ReadError,
        field: usize,
    ) -> Result<Vec<u8>, ReadError> {
        self.take(1).map_err(|what| wrong(field, what))?;
        let bytes = block_of(self.device, self.shape, block, |what| wrong(field, what))?;
        if let Some(seed) = self.inode.seed {
            // After as many entries as fit: their number is at the start.
            let end = ENTRY + ENTRY * usize::from(le16(&bytes, 4));
            let sum = bytes.get(..end).map(|covered| seed.with(covered).sum());
            if end + 4 > bytes.len() || sum != Some(le32(&bytes, end)) {
                return Err(wrong(field, format!("the checksum of block {block} is wrong")));
            }
        }
        Ok(bytes)
    }

    fn add(&mut self, run: Run) -> Result<(), String> {
        let end = run.physical.checked_add(run.len);
        if run.physical == 0 || end.is_none_or(|end| end > self.shape.blocks) {
            return Err(format!("block {} of {}", run.physical, self.shape.blocks));
        }
        self.take(run.len)?;
        match self.runs.last_mut() {
            Some(last)
                if last.logical + last.len == run.logical && last.physical + last.len == run.physical =>
            {
                last.len += run.len;
            }
            _ => self.runs.push(run),
        }
        Ok(())
    }

    fn take(&mut self, blocks: u64) -> Result<(), String> {
        self.taken += blocks;
        match self.taken > self.shape.blocks {
            true => Err("the file has more blocks than the filesystem".into()),
            false => Ok(()),
        }
    }

    /// Twelve blocks, then blocks of numbers at one, two and three removes.
    fn old_map(&mut self) -> Result<(), ReadError> {
        let mut logical = 0;
        let numbers: Vec<u32> = self.inode.block.chunks_exact(4).map(|n| le32(n, 0)).collect();
        for (n, number) in numbers.iter().enumerate() {
            let level = n.saturating_sub(11);
            self.old_entry(*number, level, &mut logical, self.inode.at + 0x28 + n as u64 * 4)?;
        }
        Ok(())
    }

    fn old_entry(&mut self, number: u32, level: usize, logical: &mut u64, at: u64) -> Result<(), ReadError> {
        let inode = self.inode.number;
        let wrong = |what: String| damaged(&format!("block map of inode {inode}"), at, what);
        let each = self.shape.block_size / 4;
        let span = (each as u64).pow(u32::try_from(level).unwrap_or(0));
        // Blocks beyond the end are what a file had before it was cut, or an image that means ill.
        let wanted = self.inode.size.div_ceil(self.shape.block_size as u64);
        if number == 0 || *logical >= wanted {
            *logical += span;
            return Ok(());
        }
        if level == 0 {
            self.add(Run { logical: *logical, len: 1, physical: number.into() }).map_err(wrong)?;
            *logical += 1;
            return Ok(());
        }
        // Such a block counts too: one that names itself would else never come to an end.
        self.take(1).map_err(wrong)?;
        let block = u64::from(number);
        let bytes = block_of(self.device, self.shape, block, wrong)?;
        for (n, entry) in bytes.chunks_exact(4).enumerate() {
            let at = block * self.shape.block_size as u64 + n as u64 * 4;
            self.old_entry(le32(entry, 0), level - 1, logical, at)?;
        }
        Ok(())
    }
}

/// Reads a block; `wrong` makes an error of what is wrong with its number.
pub(super) fn block_of(
    device: &dyn ReadAt,
    shape: &Shape,
    block: u64,
    wrong: impl FnOnce(String) -> ReadError,
) -> Result<Vec<u8>, ReadError> {
    if block == 0 || block >= shape.blocks {
        return Err(wrong(format!("block {block} of {}", shape.blocks)));
    }
    let mut bytes = vec![0; shape.block_size];
    read(device, &mut bytes, block * shape.block_size as u64)?;
    Ok(bytes)
}
