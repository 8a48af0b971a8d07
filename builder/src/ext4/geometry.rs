//! The shape of a filesystem that follows from its size: groups, inodes, journal, and where each
//! group's bitmaps and inode table lie.
//! Must not know: trees, contents.
//! Spec: Documentation/filesystems/ext4/blockgroup.rst; sizes as lib/ext2fs/{initialize,mkjournal,
//! alloc_tables}.c and misc/mke2fs.c of e2fsprogs 1.47.0 choose them.

use std::ops::Range;

use super::format::{
    ADDRS_PER_BLOCK, BLOCKS_PER_GROUP, DESCS_PER_BLOCK, FLEX_GROUPS, FsBlock, INODES_PER_BLOCK,
    INODES_PER_GROUP_MAX, Ino,
};
use super::space::{Full, Space};

/// Blocks below which there is no room for a journal: 8 MiB.
pub(super) const BLOCKS_MIN: u64 = 2048;
/// Blocks up to which we write: 8 TiB. Far from the 2^32 that the resize inode can address.
pub(super) const BLOCKS_MAX: u64 = 1 << 31;
/// Bytes per inode are 16384 unless the tree wants more inodes: mke2fs's `inode_ratio`.
const BLOCKS_PER_INODE: u64 = 4;
/// A last group with fewer blocks than this beyond its own tables is left out, as mke2fs does.
const LAST_GROUP_MIN: u64 = 50;
/// How much a filesystem may grow: `calc_reserved_gdt_blocks` in lib/ext2fs/initialize.c.
const GROWTH: u64 = 1024;

/// Where the tables of one group lie.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Tables {
    pub block_bitmap: FsBlock,
    pub inode_bitmap: FsBlock,
    pub inode_table: FsBlock,
}

/// The shape of a filesystem.
#[derive(Clone, Debug)]
pub(super) struct Geometry {
    /// Blocks of the filesystem: all groups are whole but the last one.
    pub blocks: u64,
    /// Inodes of each group, a multiple of 16.
    pub inodes_per_group: u32,
    /// Blocks of each group's inode table.
    pub table_blocks: u64,
    /// Blocks of group descriptors.
    pub desc_blocks: u64,
    /// Blocks after them for descriptors of groups to come.
    pub reserved_desc_blocks: u64,
    /// Blocks of the journal.
    pub journal_blocks: u64,
    /// One for each group.
    pub tables: Vec<Tables>,
}

impl Geometry {
    /// For a filesystem of that many blocks, in which inodes up to `last` are used.
    pub fn new(blocks: u64, last: Ino) -> Result<Geometry, Full> {
        if blocks < BLOCKS_MIN {
            return Err(Full { short: BLOCKS_MIN - blocks });
        }
        let mut geometry = Geometry::without_tables(blocks, last)?;
        let (groups, rest) = (geometry.group_count(), blocks % BLOCKS_PER_GROUP);
        let own = geometry.head_blocks(groups - 1) + 2 + geometry.table_blocks;
        if groups > 1 && rest > 0 && rest < own + LAST_GROUP_MIN {
            geometry = Geometry::without_tables(blocks - rest, last)?;
        }
        geometry.place_tables()?;
        Ok(geometry)
    }

    fn without_tables(blocks: u64, last: Ino) -> Result<Geometry, Full> {
        let groups = blocks.div_ceil(BLOCKS_PER_GROUP);
        let used = u64::from(last.0);
        // Besides the inodes in use some must be left for the system that will run.
        let wanted = (blocks / BLOCKS_PER_INODE).max(used + used / 16 + 16);
        let full_groups = used.div_ceil(u64::from(INODES_PER_GROUP_MAX));
        if full_groups > groups {
            return Err(Full { short: (full_groups - groups - 1) * BLOCKS_PER_GROUP + 1 });
        }
        let per_group = u32::try_from(wanted.div_ceil(groups)).unwrap_or(INODES_PER_GROUP_MAX);
        let inodes_per_group = per_group.min(INODES_PER_GROUP_MAX).next_multiple_of(INODES_PER_BLOCK);
        let desc_blocks = groups.div_ceil(DESCS_PER_BLOCK);
        let grown = (blocks * GROWTH).min(u64::from(u32::MAX)).div_ceil(BLOCKS_PER_GROUP);
        let reserved = grown.div_ceil(DESCS_PER_BLOCK).saturating_sub(desc_blocks);
        Ok(Geometry {
            blocks,
            inodes_per_group,
            table_blocks: u64::from(inodes_per_group / INODES_PER_BLOCK),
            desc_blocks,
            reserved_desc_blocks: reserved.min(ADDRS_PER_BLOCK),
            journal_blocks: journal_blocks(blocks),
            tables: Vec::new(),
        })
    }

    /// How many groups there are, the last one perhaps not whole.
    pub fn group_count(&self) -> u32 {
        // At most 2^16: BLOCKS_MAX / BLOCKS_PER_GROUP.
        u32::try_from(self.blocks.div_ceil(BLOCKS_PER_GROUP)).unwrap_or(u32::MAX)
    }

    /// The blocks of a group.
    pub fn group(&self, group: u32) -> Range<u64> {
        let start = u64::from(group) * BLOCKS_PER_GROUP;
        start..(start + BLOCKS_PER_GROUP).min(self.blocks)
    }

    /// Blocks at a group's start for the superblock and all descriptors, those to come included; 0
    /// where there is no copy.
    pub fn head_blocks(&self, group: u32) -> u64 {
        if has_superblock(group) { 1 + self.desc_blocks + self.reserved_desc_blocks } else { 0 }
    }

    /// Groups that hold a copy of superblock and descriptors, and group 0.
    pub fn superblock_groups(&self) -> impl Iterator<Item = u32> {
        (0..self.group_count()).filter(|&group| has_superblock(group))
    }

    /// All inodes.
    pub fn inodes(&self) -> u32 {
        // At most 2^31: 2^16 groups of 2^15 inodes.
        self.group_count().saturating_mul(self.inodes_per_group)
    }

    /// Blocks that never hold files (`s_overhead_clusters`): all that is reserved, and the journal.
    pub fn overhead(&self) -> u64 {
        let heads: u64 = self.superblock_groups().map(|group| self.head_blocks(group)).sum();
        heads + u64::from(self.group_count()) * (2 + self.table_blocks) + self.journal_blocks
    }

    /// All blocks but those that [`Geometry`] itself uses.
    pub fn space(&self) -> Space {
        let heads = self.superblock_groups().map(|group| {
            let start = self.group(group).start;
            start..start + self.head_blocks(group)
        });
        let tables = self.tables.iter().flat_map(|tables| {
            let single = |block: FsBlock| block.0..block.0 + 1;
            let table = tables.inode_table.0;
            [single(tables.block_bitmap), single(tables.inode_bitmap), table..table + self.table_blocks]
        });
        Space::new(self.blocks, heads.chain(tables).collect())
    }

    /// Packs the bitmaps and inode tables of 16 groups behind the head of the first of them.
    fn place_tables(&mut self) -> Result<(), Full> {
        for first in (0..self.group_count()).step_by(FLEX_GROUPS as usize) {
            let count = FLEX_GROUPS.min(self.group_count() - first) as usize;
            let mut at = self.group(first).start;
            let mut places = Vec::with_capacity(3 * count);
            for len in [1, 1, self.table_blocks] {
                for _ in 0..count {
                    at = self.after_heads(at, len);
                    places.push(FsBlock(at));
                    at += len;
                }
            }
            if at > self.blocks {
                return Err(Full { short: at - self.blocks });
            }
            self.tables.extend((0..count).map(|i| Tables {
                block_bitmap: places[i],
                inode_bitmap: places[count + i],
                inode_table: places[2 * count + i],
            }));
        }
        Ok(())
    }

    /// The first place from `at` on where `len` blocks, at most a group's, meet no superblock copy.
    fn after_heads(&self, mut at: u64, len: u64) -> u64 {
        let groups = at / BLOCKS_PER_GROUP..=(at + len) / BLOCKS_PER_GROUP;
        for group in groups.filter_map(|group| u32::try_from(group).ok()) {
            let head = u64::from(group) * BLOCKS_PER_GROUP;
            let head = head..head + self.head_blocks(group);
            if at < head.end && head.start < at + len {
                at = head.end;
            }
        }
        at
    }
}

/// `sparse_super`: group 0, 1, and powers of 3, 5 and 7.
pub(super) fn has_superblock(group: u32) -> bool {
    let power_of = |base: u32| {
        let mut power = base;
        while power < group {
            power = power.saturating_mul(base);
        }
        power == group
    };
    group <= 1 || power_of(3) || power_of(5) || power_of(7)
}

/// `ext2fs_default_journal_size` in lib/ext2fs/mkjournal.c.
fn journal_blocks(blocks: u64) -> u64 {
    const K: u64 = 1024;
    match blocks {
        ..32_768 => K,
        ..262_144 => 4 * K,
        ..524_288 => 8 * K,
        ..4_194_304 => 16 * K,
        ..8_388_608 => 32 * K,
        ..16_777_216 => 64 * K,
        ..33_554_432 => 128 * K,
        _ => 256 * K,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn geometry(blocks: u64) -> Geometry {
        Geometry::new(blocks, Ino(11)).unwrap()
    }

    #[test]
    fn sizes_are_those_of_mke2fs() {
        // Blocks, then reserved descriptor blocks, inodes and inodes per group, and journal blocks,
        // from `dumpe2fs -h` after `mke2fs -t ext4 -b 4096 -T ext4`, e2fsprogs 1.47.0.
        for (blocks, reserved, inodes, per_group, journal) in [
            (8192, 3, 2048, 2048, 1024),
            (32_767, 15, 8192, 8192, 1024),
            (32_768, 15, 8192, 8192, 4096),
            (262_143, 127, 65_536, 8192, 4096),
            (262_144, 127, 65_536, 8192, 8192),
            (524_288, 255, 131_072, 8192, 16_384),
            (1_048_575, 511, 262_144, 8192, 16_384),
            (4_194_303, 1024, 1_048_576, 8192, 16_384),
            (4_194_304, 1024, 1_048_576, 8192, 32_768),
            (8_388_608, 1024, 2_097_152, 8192, 65_536),
            (16_777_216, 1024, 4_194_304, 8192, 131_072),
            (33_554_432, 1024, 8_388_608, 8192, 262_144),
        ] {
            let g = geometry(blocks);
            assert_eq!(
                (g.reserved_desc_blocks, g.inodes(), g.inodes_per_group, g.journal_blocks),
                (reserved, inodes, per_group, journal),
                "{blocks} blocks"
            );
        }
        // Of 262144 blocks dumpe2fs says: "Overhead clusters: 12949".
        assert_eq!(geometry(262_144).overhead(), 12_949);
    }

    #[test]
    fn copies_of_the_superblock_are_sparse() {
        let found: Vec<u32> = (0..130).filter(|&group| has_superblock(group)).collect();
        assert_eq!(found, [0, 1, 3, 5, 7, 9, 25, 27, 49, 81, 125]);
    }

    #[test]
    fn a_last_group_that_is_hardly_more_than_its_tables_is_left_out() {
        // Of 65636 blocks mke2fs makes 65536, of 66536 all.
        assert_eq!(geometry(65_636).blocks, 65_536);
        assert_eq!(geometry(66_536).blocks, 66_536);
    }

    #[test]
    fn nothing_overlaps_whatever_the_size_and_number_of_inodes() {
        for blocks in [2048, 5000, 32_768, 70_000, 600_000, 1_000_003, 9_000_000] {
            for inodes in [11, 1000, 30_000, 500_000] {
                let Ok(g) = Geometry::new(blocks, Ino(inodes)) else { continue };
                assert!(g.inodes() >= inodes, "{blocks} blocks, {inodes} inodes");
                let reserved = g.overhead() - g.journal_blocks;
                // Blocks that two things claim would count once.
                assert_eq!(g.space().free(), g.blocks - reserved, "{blocks} blocks, {inodes} inodes");
                assert!(g.tables.iter().all(|t| t.inode_table.0 + g.table_blocks <= g.blocks));
            }
        }
    }

    #[test]
    fn too_few_blocks_are_told() {
        assert_eq!(Geometry::new(2000, Ino(11)).unwrap_err(), Full { short: 48 });
        // 100,000 inodes are four groups even when full, so at least one block of the fourth.
        assert_eq!(Geometry::new(65_536, Ino(100_000)).unwrap_err(), Full { short: 32_769 });
    }
}
