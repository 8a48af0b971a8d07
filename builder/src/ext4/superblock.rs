//! The superblock, 1024 bytes, and the journal's own.
//! Must not know: trees; where anything but the tables lies.
//! Spec: Documentation/filesystems/ext4/{super,journal}.rst. Fields not named here are zero, as in
//! what mke2fs 1.47.0 writes.

use super::Options;
use super::checksum::Seed;
use super::format::{
    BLOCK_SIZE, BLOCKS_PER_GROUP, DESC, FEATURE_COMPAT, FEATURE_INCOMPAT, FEATURE_RO_COMPAT, FLEX_GROUPS,
    I_BLOCK, INODE, Ino, hi32, lo16, lo32, put, put16, put32,
};
use super::geometry::Geometry;
use super::inode::EXTRA_ISIZE;

/// Bytes of a superblock.
pub(super) const SUPERBLOCK: usize = 1024;
/// Where the first one begins, after room for a boot sector. Copies begin at their block's start.
pub(super) const PRIMARY_OFFSET: usize = 1024;
const CHECKSUM: usize = 0x3fc;

/// What the superblock tells beyond shape and options.
#[derive(Clone, Copy, Debug)]
pub(super) struct Counts {
    pub free_blocks: u64,
    pub free_inodes: u32,
    /// `i_block` of the journal, of which the superblock keeps a copy.
    pub journal: [u8; I_BLOCK],
}

/// Encodes the superblock, or the copy of a group other than 0, into zero bytes.
pub(super) fn encode(geometry: &Geometry, options: &Options, counts: &Counts, group: u32, out: &mut [u8]) {
    let blocks = geometry.blocks;
    let reserved = blocks * u64::from(options.reserved_percent) / 100;
    for (lo, hi, value) in [(0x04, 0x150, blocks), (0x08, 0x154, reserved), (0x0c, 0x158, counts.free_blocks)]
    {
        put32(out, lo, lo32(value));
        put32(out, hi, hi32(value));
    }
    put32(out, 0x00, geometry.inodes());
    put32(out, 0x10, counts.free_inodes);
    put32(out, 0x18, 2); // s_log_block_size: 4096 = 1024 << 2
    put32(out, 0x1c, 2); // s_log_cluster_size
    put32(out, 0x20, lo32(BLOCKS_PER_GROUP));
    put32(out, 0x24, lo32(BLOCKS_PER_GROUP)); // s_clusters_per_group
    put32(out, 0x28, geometry.inodes_per_group);
    put16(out, 0x36, 0xffff); // s_max_mnt_count: no check after some number of mounts
    put16(out, 0x38, 0xef53); // s_magic
    // s_state: only the first superblock says that the filesystem is clean, as mke2fs has it, so
    // that who starts from a copy gets a full check.
    put16(out, 0x3a, u16::from(group == 0));
    put16(out, 0x3c, 1); // s_errors: continue
    put32(out, 0x4c, 1); // s_rev_level
    put32(out, 0x54, Ino::LOST_AND_FOUND.0); // s_first_ino
    put16(out, 0x58, INODE as u16);
    put16(out, 0x5a, lo16(group)); // s_block_group_nr
    put32(out, 0x5c, FEATURE_COMPAT);
    put32(out, 0x60, FEATURE_INCOMPAT);
    put32(out, 0x64, FEATURE_RO_COMPAT);
    put(out, 0x68, &options.uuid);
    put(out, 0x78, options.label.as_bytes());
    put16(out, 0xce, lo16(lo32(geometry.reserved_desc_blocks))); // at most 1024
    put32(out, 0xe0, Ino::JOURNAL.0);
    put(out, 0xec, &options.hash_seed);
    out[0xfc] = 1; // s_def_hash_version: half MD4
    put16(out, 0xfe, DESC as u16);
    put32(out, 0x100, 0x4 | 0x8); // s_default_mount_opts: user_xattr, acl
    journal_copy(geometry, counts, out);
    put16(out, 0x15c, EXTRA_ISIZE); // s_min_extra_isize
    put16(out, 0x15e, EXTRA_ISIZE); // s_want_extra_isize
    put32(out, 0x160, 2); // s_flags: names are hashed as unsigned bytes
    out[0x174] = (FLEX_GROUPS.ilog2() & 0xff) as u8; // s_log_groups_per_flex
    out[0x175] = 1; // s_checksum_type: CRC-32C
    put32(out, 0x248, lo32(geometry.overhead()));
    times(options, out);
    let sum = Seed::none().with(&out[..CHECKSUM]).sum();
    put32(out, CHECKSUM, sum);
}

/// `s_wtime`, `s_lastcheck` and `s_mkfs_time` with their upper bytes.
fn times(options: &Options, out: &mut [u8]) {
    // `lay_out` lets only times pass that have 34 bits.
    let sec = options.time.sec.unsigned_abs();
    for (lo, hi) in [(0x30, 0x274), (0x40, 0x277), (0x108, 0x276)] {
        put32(out, lo, lo32(sec));
        out[hi] = (hi32(sec) & 0xff) as u8;
    }
}

/// `s_jnl_blocks`: the journal can be found when its inode is lost.
fn journal_copy(geometry: &Geometry, counts: &Counts, out: &mut [u8]) {
    let size = geometry.journal_blocks * BLOCK_SIZE;
    out[0xfd] = 1; // s_jnl_backup_type
    put(out, 0x10c, &counts.journal);
    put32(out, 0x10c + I_BLOCK, hi32(size));
    put32(out, 0x10c + I_BLOCK + 4, lo32(size));
}

/// Encodes the first block of an empty journal into zero bytes. The journal is big-endian.
pub(super) fn encode_journal(geometry: &Geometry, options: &Options, out: &mut [u8]) {
    for (at, value) in [
        (0x00, 0xc03b_3998), // h_magic
        (0x04, 4),           // h_blocktype: superblock, version 2
        (0x0c, lo32(BLOCK_SIZE)),
        (0x10, lo32(geometry.journal_blocks)),
        (0x14, 1), // s_first
        (0x18, 1), // s_sequence; s_start stays 0: nothing to replay
        (0x40, 1), // s_nr_users
    ] {
        put(out, at, &u32::to_be_bytes(value));
    }
    put(out, 0x30, &options.uuid);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tree::Time;

    fn options() -> Options {
        Options {
            size: 1 << 30,
            uuid: *b"uuid-uuid-uuid--",
            hash_seed: *b"seed-seed-seed--",
            label: "sixteen bytes ok".into(),
            time: Time::seconds(0x1_2345_6789),
            reserved_percent: 5,
        }
    }

    fn encoded(group: u32) -> Vec<u8> {
        let geometry = Geometry::new(262_144, Ino(11)).unwrap();
        let counts = Counts { free_blocks: 1000, free_inodes: 2000, journal: [6; I_BLOCK] };
        let mut out = vec![0; SUPERBLOCK];
        encode(&geometry, &options(), &counts, group, &mut out);
        out
    }

    fn u32_at(bytes: &[u8], at: usize) -> u32 {
        u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap())
    }

    #[test]
    fn fields_are_where_the_format_has_them() {
        let out = encoded(0);
        for (name, at, want) in [
            ("s_inodes_count", 0x00, 65_536),
            ("s_blocks_count_lo", 0x04, 262_144),
            ("s_r_blocks_count_lo", 0x08, 13_107),
            ("s_free_blocks_count_lo", 0x0c, 1000),
            ("s_free_inodes_count", 0x10, 2000),
            ("s_wtime", 0x30, 0x2345_6789),
            ("s_mkfs_time", 0x108, 0x2345_6789),
            ("s_jnl_blocks", 0x10c, 0x0606_0606),
            ("the journal's size", 0x14c, 32 << 20),
            ("s_overhead_clusters", 0x248, 12_949),
        ] {
            assert_eq!(u32_at(&out, at), want, "{name}");
        }
        assert_eq!((out[0x274], out[0x276], out[0x277]), (1, 1, 1), "upper bytes of times");
        assert_eq!(&out[0x78..0x88], b"sixteen bytes ok");
        assert_eq!(u32_at(&out, CHECKSUM), Seed::none().with(&out[..CHECKSUM]).sum());
    }

    #[test]
    fn copies_know_their_group_and_are_not_called_clean() {
        let (first, copy) = (encoded(0), encoded(3));
        let differ: Vec<usize> = (0..CHECKSUM).filter(|&at| first[at] != copy[at]).collect();
        assert_eq!(differ, [0x3a, 0x5a]);
        assert_eq!((copy[0x3a], copy[0x5a]), (0, 3));
    }

    #[test]
    fn the_journal_is_empty_and_big_endian() {
        let geometry = Geometry::new(262_144, Ino(11)).unwrap();
        let mut out = vec![0; 4096];
        encode_journal(&geometry, &options(), &mut out);
        // The first bytes of what mke2fs 1.47.0 writes, up to the UUID.
        let want = [0xc03b_3998_u32, 4, 0, 4096, 8192, 1, 1, 0];
        let found: Vec<u32> =
            out[..32].chunks_exact(4).map(|c| u32::from_be_bytes(c.try_into().unwrap())).collect();
        assert_eq!(found, want);
        assert_eq!(&out[0x30..0x40], b"uuid-uuid-uuid--");
    }
}
