//! The CRC-32C of everything: with which seed, over which bytes.
//! Must not know: where checksums are stored, except for the fields that it leaves out.
//! Spec: Documentation/filesystems/ext4/checksums.rst. ext4 neither inverts the start nor the end
//! value, which RFC 3720's CRC-32C does.

use super::format::{FsBlock, Ino};

/// A checksum that other bytes are added to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Seed(u32);

impl Seed {
    /// What every checksum of a filesystem begins with. The superblock's alone has no seed: it is
    /// needed to believe the UUID.
    pub fn of_filesystem(uuid: &[u8; 16]) -> Seed {
        Seed::none().with(uuid)
    }

    /// The start of the superblock's own checksum.
    pub fn none() -> Seed {
        Seed(!0)
    }

    /// The start that a superblock states, for a filesystem whose UUID was changed.
    pub fn of_number(start: u32) -> Seed {
        Seed(start)
    }

    /// For what belongs to one inode. Its generation, which is zero for all our inodes, is part of it.
    pub fn of_inode(self, ino: Ino) -> Seed {
        self.with(&ino.0.to_le_bytes()).with(&0u32.to_le_bytes())
    }

    /// For an attribute block, which several inodes may share.
    pub fn of_block(self, block: FsBlock) -> Seed {
        self.with(&block.0.to_le_bytes())
    }

    /// For a group descriptor.
    pub fn of_group(self, group: u32) -> Seed {
        self.with(&group.to_le_bytes())
    }

    /// Adds bytes.
    pub fn with(self, bytes: &[u8]) -> Seed {
        Seed(!crc32c::crc32c_append(!self.0, bytes))
    }

    /// The checksum.
    pub fn sum(self) -> u32 {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_checksum_is_a_crc_32c_without_the_last_inversion() {
        // RFC 3720 appendix B.4 gives the inverted value for 32 zero bytes, 0x8a9136aa.
        assert_eq!(!Seed::none().with(&[0; 32]).sum(), 0x8a91_36aa);
    }

    #[test]
    fn bytes_may_come_in_pieces() {
        let whole = Seed::none().with(b"abcdef");
        assert_eq!(Seed::none().with(b"ab").with(b"").with(b"cdef"), whole);
    }

    #[test]
    fn seeds_differ_by_what_they_are_for() {
        let seed = Seed::of_filesystem(&[7; 16]);
        let seeds =
            [seed, seed.of_inode(Ino(1)), seed.of_inode(Ino(2)), seed.of_block(FsBlock(3)), seed.of_group(1)];
        for (i, a) in seeds.iter().enumerate() {
            assert!(seeds[i + 1..].iter().all(|b| a != b), "seed {i} has a twin");
        }
    }
}
