//! Numbers that ext4 fixes, or that we fix for every filesystem we write, and how they are stored.
//! Must not know: trees, sizes of a filesystem.
//! Spec: the kernel's Documentation/filesystems/ext4; names as in fs/ext4/ext4.h where it has one.

/// Bytes of a block. The kernel mounts no block larger than a page, and 4096 is a page on every Pi
/// kernel but the Pi 5's 16 KiB one, which takes it too.
pub(super) const BLOCK: usize = 4096;
/// The same, for arithmetic on offsets.
pub(super) const BLOCK_SIZE: u64 = 4096;
/// Bytes of an inode.
pub(super) const INODE: usize = 256;
/// Inodes in a block of an inode table.
pub(super) const INODES_PER_BLOCK: u32 = 16;
/// Blocks in a group: as many as one block of bitmap has bits.
pub(super) const BLOCKS_PER_GROUP: u64 = 32_768;
/// Inodes in a group at most: as many as one block of bitmap has bits.
pub(super) const INODES_PER_GROUP_MAX: u32 = 32_768;
/// Bytes of a group descriptor, with the `64bit` feature.
pub(super) const DESC: usize = 64;
/// Group descriptors in a block.
pub(super) const DESCS_PER_BLOCK: u64 = 64;
/// Groups whose bitmaps and inode tables lie together, as mke2fs chooses.
pub(super) const FLEX_GROUPS: u32 = 16;
/// Block numbers in a block of the resize inode's map.
pub(super) const ADDRS_PER_BLOCK: u64 = 1024;
/// Bytes of an inode that hold addresses, a short link's target or a device number.
pub(super) const I_BLOCK: usize = 60;
/// Names of one file at most, and subdirectories that are counted: EXT4_LINK_MAX.
pub(super) const LINK_MAX: u32 = 65_000;
/// Unit of `i_blocks`.
pub(super) const SECTORS_PER_BLOCK: u64 = 8;

/// `has_journal`, `ext_attr`, `resize_inode`, `dir_index`.
pub(super) const FEATURE_COMPAT: u32 = 0x4 | 0x8 | 0x10 | 0x20;
/// `filetype`, `extents`, `64bit`, `flex_bg`.
pub(super) const FEATURE_INCOMPAT: u32 = 0x2 | 0x40 | 0x80 | 0x200;
/// `sparse_super`, `large_file`, `huge_file`, `dir_nlink`, `extra_isize`, `metadata_csum`.
pub(super) const FEATURE_RO_COMPAT: u32 = 0x1 | 0x2 | 0x8 | 0x20 | 0x40 | 0x400;

/// Block of one ext4 filesystem, counted from that filesystem's first byte.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub(super) struct FsBlock(pub u64);

impl FsBlock {
    /// Bytes from the start of the filesystem.
    pub fn offset(self) -> u64 {
        self.0 * BLOCK_SIZE
    }

    /// Bits 0 to 31.
    pub fn lo(self) -> u32 {
        lo32(self.0)
    }

    /// Bits 32 to 47; block numbers have no more, and ours fewer: 8 TiB are 2^31 blocks.
    pub fn hi(self) -> u16 {
        lo16(hi32(self.0))
    }
}

/// Number of an inode, counted from 1.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(super) struct Ino(pub u32);

impl Ino {
    /// The root directory.
    pub const ROOT: Ino = Ino(2);
    /// Owner of the blocks that future group descriptors will take.
    pub const RESIZE: Ino = Ino(7);
    /// The journal.
    pub const JOURNAL: Ino = Ino(8);
    /// `lost+found`, the first inode that is not reserved (`s_first_ino`).
    pub const LOST_AND_FOUND: Ino = Ino(11);
}

/// Bits 0 to 31 of a number whose others are stored elsewhere.
pub(super) fn lo32(value: u64) -> u32 {
    (value & 0xffff_ffff) as u32
}

/// Bits 32 to 63.
pub(super) fn hi32(value: u64) -> u32 {
    (value >> 32) as u32
}

/// Bits 0 to 15 of a number whose others are stored elsewhere.
pub(super) fn lo16(value: u32) -> u16 {
    (value & 0xffff) as u16
}

/// Bits 16 to 31.
pub(super) fn hi16(value: u32) -> u16 {
    (value >> 16) as u16
}

/// Stores bytes at an offset of the format. The buffers are whole blocks or inodes and the offsets
/// constants of the format, so this cannot be out of bounds.
pub(super) fn put(out: &mut [u8], at: usize, bytes: &[u8]) {
    out[at..at + bytes.len()].copy_from_slice(bytes);
}

/// Stores 16 bits, little-endian.
pub(super) fn put16(out: &mut [u8], at: usize, value: u16) {
    put(out, at, &value.to_le_bytes());
}

/// Stores 32 bits, little-endian.
pub(super) fn put32(out: &mut [u8], at: usize, value: u32) {
    put(out, at, &value.to_le_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_split_and_stored_as_the_format_wants() {
        let block = FsBlock(0x1234_5678_9abc);
        assert_eq!((block.lo(), block.hi()), (0x5678_9abc, 0x1234));
        assert_eq!(FsBlock(3).offset(), 12_288);
        let mut out = [0; 8];
        put16(&mut out, 1, lo16(0xaabb_ccdd));
        put32(&mut out, 4, u32::from(hi16(0xaabb_ccdd)));
        assert_eq!(out, [0, 0xdd, 0xcc, 0, 0xbb, 0xaa, 0, 0]);
    }

    #[test]
    fn the_features_are_those_that_dumpe2fs_shows_for_mke2fs() {
        // s_feature_compat, incompat and ro_compat of `mke2fs -t ext4` 1.47.0 on Debian 12.
        assert_eq!((FEATURE_COMPAT, FEATURE_INCOMPAT, FEATURE_RO_COMPAT), (0x3c, 0x2c2, 0x46b));
    }
}
