//! One inode, 256 bytes: fields, times, device numbers, checksum.
//! Must not know: trees, where inodes lie.
//! Spec: Documentation/filesystems/ext4/inodes.rst.

use super::checksum::Seed;
use super::format::{FsBlock, I_BLOCK, INODE, Ino, hi16, hi32, lo16, lo32, put, put16, put32};
use crate::tree::Time;

/// `i_flags`: the directory has an index.
pub(super) const INDEX_FL: u32 = 0x1000;
/// `i_flags`: `i_block` is an extent tree.
pub(super) const EXTENTS_FL: u32 = 0x80000;
/// Bytes of the fields after the first 128, as mke2fs sets `s_want_extra_isize`.
pub(super) const EXTRA_ISIZE: u16 = 32;
/// Where attributes begin.
pub(super) const BODY: usize = 128 + EXTRA_ISIZE as usize;

const CHECKSUM_LO: usize = 0x7c;
const CHECKSUM_HI: usize = 0x82;

/// A time as inodes hold it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct DiskTime {
    /// Seconds, the lower 32 bits of a signed number.
    sec: u32,
    /// Two more bits of seconds below 30 bits of nanoseconds.
    extra: u32,
}

impl DiskTime {
    /// `None` outside of 1901-12-13 20:45:52 to 2446-05-10 22:38:55 UTC, or with a whole second of
    /// nanoseconds.
    pub fn new(time: Time) -> Option<DiskTime> {
        let range = i64::from(i32::MIN)..(3 << 32) + (1 << 31);
        if !range.contains(&time.sec) || time.nsec >= 1_000_000_000 {
            return None;
        }
        // The reader takes the 32 bits as signed and adds the epoch: so what they lack is a
        // multiple of 2^32, also before 1970 (where it is none). See `ext4_encode_extra_time`.
        let epoch = lo32(((time.sec + (1 << 31)) >> 32).unsigned_abs());
        let sec = (time.sec & 0xffff_ffff) as u32;
        Some(DiskTime { sec, extra: time.nsec << 2 | epoch })
    }
}

/// A device number as the first bytes of `i_block` hold it; `None` when it has more than 12 and 20
/// bits.
pub(super) fn device(major: u32, minor: u32) -> Option<[u8; 8]> {
    let mut block = [0; 8];
    match (major, minor) {
        // The form of Linux 2.4 where it is enough: the kernel writes it too.
        (0..=0xff, 0..=0xff) => put32(&mut block, 0, major << 8 | minor),
        (0..=0xfff, 0..=0xf_ffff) => {
            put32(&mut block, 4, minor & 0xff | major << 8 | (minor & !0xff) << 12);
        }
        _ => return None,
    }
    Some(block)
}

/// Everything in an inode that is not the same for all.
#[derive(Clone, Debug)]
pub(super) struct RawInode {
    /// Type and permissions.
    pub mode: u16,
    pub uid: u32,
    pub gid: u32,
    pub links: u16,
    /// Bytes.
    pub size: u64,
    /// All blocks that belong to the inode, in units of 512 bytes.
    pub sectors: u64,
    pub flags: u32,
    /// Modification time, and all other times.
    pub time: DiskTime,
    pub block: [u8; I_BLOCK],
    /// Attribute block, 0 when there is none.
    pub file_acl: FsBlock,
}

impl RawInode {
    /// Writes all fields but the attributes into `out`, which holds zero bytes and perhaps the
    /// attributes, and then the checksum.
    pub fn encode(&self, seed: Seed, ino: Ino, out: &mut [u8]) {
        put16(out, 0x00, self.mode);
        put16(out, 0x02, lo16(self.uid));
        put32(out, 0x04, lo32(self.size));
        for at in [0x08, 0x0c, 0x10, 0x90] {
            put32(out, at, self.time.sec);
        }
        put16(out, 0x18, lo16(self.gid));
        put16(out, 0x1a, self.links);
        put32(out, 0x1c, lo32(self.sectors));
        put32(out, 0x20, self.flags);
        put(out, 0x28, &self.block);
        put32(out, 0x68, self.file_acl.lo());
        put32(out, 0x6c, hi32(self.size));
        put16(out, 0x74, lo16(hi32(self.sectors)));
        put16(out, 0x76, self.file_acl.hi());
        put16(out, 0x78, hi16(self.uid));
        put16(out, 0x7a, hi16(self.gid));
        put16(out, 0x80, EXTRA_ISIZE);
        for at in [0x84, 0x88, 0x8c, 0x94] {
            put32(out, at, self.time.extra);
        }
        let sum = seed.of_inode(ino).with(&out[..INODE]).sum();
        put16(out, CHECKSUM_LO, lo16(sum));
        put16(out, CHECKSUM_HI, hi16(sum));
    }
}

/// A reserved inode that nothing uses: all zero, in the short form of 128 bytes, where the checksum
/// has its lower half only.
pub(super) fn encode_unused(seed: Seed, ino: Ino, out: &mut [u8]) {
    let sum = seed.of_inode(ino).with(&out[..INODE]).sum();
    put16(out, CHECKSUM_LO, lo16(sum));
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The table of inodes.rst, "Inode Timestamps": what a reader makes of the two fields.
    fn read(time: DiskTime) -> (i64, u32) {
        let sec = i64::from(i32::from_le_bytes(time.sec.to_le_bytes()));
        (sec + (i64::from(time.extra & 3) << 32), time.extra >> 2)
    }

    #[test]
    fn times_reach_from_1901_to_2446() {
        let ends = [-0x8000_0000, -1, 0, 0x7fff_ffff, 0x8000_0000, 0xffff_ffff, 0x1_0000_0000, 0x3_7fff_ffff];
        for sec in ends {
            let time = DiskTime::new(Time { sec, nsec: 999_999_999 }).unwrap();
            assert_eq!(read(time), (sec, 999_999_999), "second {sec}");
        }
        for sec in [-0x8000_0001, 0x3_8000_0000, i64::MIN, i64::MAX] {
            assert_eq!(DiskTime::new(Time::seconds(sec)), None, "second {sec}");
        }
        assert_eq!(DiskTime::new(Time { sec: 0, nsec: 1_000_000_000 }), None);
    }

    #[test]
    fn device_numbers_take_the_old_form_where_it_is_enough() {
        for (major, minor, old, new) in [
            (8, 1, 0x0801, 0),
            (255, 255, 0xffff, 0),
            (0, 0, 0, 0),
            (259, 0, 0, 0x1_0300),
            (8, 256, 0, 0x10_0800),
            (0xfff, 0xf_ffff, 0, 0xffff_ffff_u32),
        ] {
            let block = device(major, minor).unwrap();
            let word = |at: usize| u32::from_le_bytes(block[at..at + 4].try_into().unwrap());
            assert_eq!((word(0), word(4)), (old, new), "device {major}:{minor}");
        }
        assert_eq!(device(0x1000, 0), None);
        assert_eq!(device(0, 0x10_0000), None);
    }

    #[test]
    fn high_halves_are_kept_and_every_bit_is_in_the_checksum() {
        let raw = RawInode {
            mode: 0o100_644,
            uid: 0xaaaa_bbbb,
            gid: 0xcccc_dddd,
            links: 3,
            size: 0x1_2345_6789,
            sectors: 0x2_0000_0008,
            flags: EXTENTS_FL,
            time: DiskTime::new(Time { sec: 5, nsec: 6 }).unwrap(),
            block: [9; I_BLOCK],
            file_acl: FsBlock(0x1_0000_0002),
        };
        let encode = |raw: &RawInode| {
            let mut out = [0; INODE];
            raw.encode(Seed::none(), Ino(12), &mut out);
            out
        };
        let out = encode(&raw);
        for (at, want) in [
            (0x02, 0xbbbb),
            (0x78, 0xaaaa),
            (0x18, 0xdddd),
            (0x7a, 0xcccc),
            (0x6c, 1),
            (0x74, 2),
            (0x76, 1),
            (0x1a, 3),
            (0x80, 32),
        ] {
            assert_eq!(u16::from_le_bytes([out[at], out[at + 1]]), want, "field at {at:#x}");
        }
        let other = encode(&RawInode { links: 4, ..raw });
        assert_ne!(out[CHECKSUM_LO..CHECKSUM_LO + 2], other[CHECKSUM_LO..CHECKSUM_LO + 2]);
    }
}
