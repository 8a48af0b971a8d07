//! Group descriptors and bitmaps: what is free in each group.
//! Must not know: what the blocks and inodes are used for.
//! Spec: Documentation/filesystems/ext4/{group_descr,bitmaps}.rst.

use std::ops::Range;

use super::checksum::Seed;
use super::format::{BLOCK, DESC, hi16, lo16, put16, put32};
use super::geometry::Tables;

/// `bg_flags`: no inode is used, and the bitmap is not written.
pub(super) const INODE_UNINIT: u16 = 1;
/// `bg_flags`: only the group's own superblock and descriptors are used, and the bitmap is not
/// written.
pub(super) const BLOCK_UNINIT: u16 = 2;
/// `bg_flags`: the unused part of the inode table reads as zero bytes, so the kernel need not write
/// them in the background after the first mount.
pub(super) const ITABLE_ZEROED: u16 = 4;

const CHECKSUM: usize = 0x1e;

/// What a descriptor tells of its group.
#[derive(Clone, Copy, Debug)]
pub(super) struct Group {
    pub tables: Tables,
    pub free_blocks: u32,
    pub free_inodes: u32,
    pub used_dirs: u32,
    /// Inodes at the table's end that were never used.
    pub unused_inodes: u32,
    pub flags: u16,
}

impl Group {
    /// Encodes into `out`, 64 bytes of zero. `bitmaps` are the checksums of the bitmaps of blocks
    /// and inodes, 0 for those that are not written.
    pub fn encode(&self, seed: Seed, number: u32, bitmaps: (u32, u32), out: &mut [u8]) {
        let Tables { block_bitmap, inode_bitmap, inode_table } = self.tables;
        for (lo, hi, block) in
            [(0x00, 0x20, block_bitmap), (0x04, 0x24, inode_bitmap), (0x08, 0x28, inode_table)]
        {
            put32(out, lo, block.lo());
            put32(out, hi, u32::from(block.hi()));
        }
        for (lo, hi, value) in [
            (0x0c, 0x2c, self.free_blocks),
            (0x0e, 0x2e, self.free_inodes),
            (0x10, 0x30, self.used_dirs),
            (0x1c, 0x32, self.unused_inodes),
            (0x18, 0x38, bitmaps.0),
            (0x1a, 0x3a, bitmaps.1),
        ] {
            put16(out, lo, lo16(value));
            put16(out, hi, hi16(value));
        }
        put16(out, 0x12, self.flags);
        let sum = seed.of_group(number).with(&out[..DESC]).sum();
        put16(out, CHECKSUM, lo16(sum));
    }
}

/// A bitmap of one block, with bits in the order that ext4 keeps them.
pub(super) struct Bitmap<'a>(&'a mut [u8]);

impl<'a> Bitmap<'a> {
    /// On one block of zero bytes, of which only the first `len` bits stand for something: the
    /// others are set.
    pub fn new(out: &'a mut [u8], len: usize) -> Bitmap<'a> {
        let bits = BLOCK * 8;
        let mut bitmap = Bitmap(out);
        bitmap.set(len.min(bits)..bits);
        bitmap
    }

    /// Sets a range of bits.
    pub fn set(&mut self, range: Range<usize>) {
        let (first, last) = (range.start.div_ceil(8), range.end / 8);
        if range.start / 8 == last {
            self.set_bits(range);
            return;
        }
        self.set_bits(range.start..first * 8);
        self.0[first..last].fill(0xff);
        self.set_bits(last * 8..range.end);
    }

    fn set_bits(&mut self, range: Range<usize>) {
        for bit in range {
            self.0[bit / 8] |= 1 << (bit % 8);
        }
    }

    /// The checksum, over the first `len` bits.
    pub fn sum(&self, seed: Seed, len: usize) -> u32 {
        seed.with(&self.0[..len / 8]).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ext4::format::FsBlock;

    #[test]
    fn ranges_of_bits_are_those_bits() {
        for range in [0..0, 0..1, 3..7, 5..8, 8..16, 7..9, 1..100, 64..72, 30_000..32_768] {
            let mut block = vec![0; BLOCK];
            Bitmap::new(&mut block, BLOCK * 8).set(range.clone());
            for bit in 0..BLOCK * 8 {
                let set = block[bit / 8] >> (bit % 8) & 1 == 1;
                assert_eq!(set, range.contains(&bit), "bit {bit} of {range:?}");
            }
        }
    }

    #[test]
    fn bits_that_stand_for_nothing_are_set() {
        let mut block = vec![0; BLOCK];
        Bitmap::new(&mut block, 12);
        assert_eq!(block[..3], [0, 0xf0, 0xff]);
        assert_eq!(block[BLOCK - 1], 0xff);
    }

    #[test]
    fn every_field_is_in_the_checksum() {
        let block = |n| FsBlock(n);
        let tables = Tables { block_bitmap: block(1), inode_bitmap: block(2), inode_table: block(3) };
        let good =
            Group { tables, free_blocks: 32_768, free_inodes: 5, used_dirs: 6, unused_inodes: 7, flags: 4 };
        let sum = |group: Group, number, bitmaps| {
            let mut out = [0; DESC];
            group.encode(Seed::none(), number, bitmaps, &mut out);
            u16::from_le_bytes([out[CHECKSUM], out[CHECKSUM + 1]])
        };
        let want = sum(good, 0, (8, 9));
        let moved = Tables { inode_table: block(1 << 33), ..tables };
        for (what, other) in [
            ("tables", sum(Group { tables: moved, ..good }, 0, (8, 9))),
            ("free blocks", sum(Group { free_blocks: 0, ..good }, 0, (8, 9))),
            ("free inodes", sum(Group { free_inodes: 0, ..good }, 0, (8, 9))),
            ("directories", sum(Group { used_dirs: 0, ..good }, 0, (8, 9))),
            ("unused", sum(Group { unused_inodes: 0, ..good }, 0, (8, 9))),
            ("flags", sum(Group { flags: 0, ..good }, 0, (8, 9))),
            ("number", sum(good, 1, (8, 9))),
            ("bitmaps", sum(good, 0, (8 << 16, 9))),
        ] {
            assert_ne!(other, want, "{what}");
        }
    }
}
