//! The records of FAT32: boot sector, FSInfo, directory entries, times. Values in, bytes out.
//! Must not know: trees, sinks, where a record goes.
//! Spec: fatgen103; offsets below are its own.

use super::geometry::{FATS, Geometry, SECTOR};
use super::name::Short;
use crate::tree::Time;

/// Bytes of a directory entry.
pub(super) const ENTRY: usize = 32;
/// Sector of FSInfo, and of the copy of the boot sector: the values that fatgen103 asks for.
const FSINFO: u16 = 1;
pub(super) const BACKUP: u16 = 6;
/// A fixed disk; must equal the lowest byte of the first FAT entry.
const MEDIA: u8 = 0xf8;
/// The first two entries of a FAT, which belong to no cluster: the medium, and "was unmounted
/// cleanly, had no errors".
pub(super) const FAT_HEAD: [u32; 2] = [0x0fff_ff00 | MEDIA as u32, 0x0fff_ffff];
/// Ends a chain of clusters.
pub(super) const CHAIN_END: u32 = 0x0fff_ffff;

const SIGNATURE: [u8; 2] = [0x55, 0xaa];
const ATTR_LABEL: u8 = 0x08;
const ATTR_DIRECTORY: u8 = 0x10;
const ATTR_ARCHIVE: u8 = 0x20;
const ATTR_LONG: u8 = 0x0f;

/// Number of a cluster. The first is 2; 0 is written where there is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Cluster(pub u32);

impl Cluster {
    /// The root directory's place, and the first cluster there is.
    pub const FIRST: Cluster = Cluster(2);
    /// Of an empty file, and of the root where `..` refers to it.
    pub const NONE: Cluster = Cluster(0);
}

/// The label's eleven bytes, or `None` when it cannot be one. Case is kept: Raspberry Pi OS has
/// `bootfs`, and its scripts look for that.
pub(super) fn label(text: &str) -> Option<Short> {
    let legal = |b: u8| (b' '..=b'~').contains(&b) && !b"\"*+,./:;<=>?[\\]|".contains(&b);
    if text.len() > 11 || text.starts_with(' ') || !text.bytes().all(legal) {
        return None;
    }
    let mut label = [b' '; 11];
    label[..text.len()].copy_from_slice(text.as_bytes());
    Some(label)
}

/// What the boot sector says besides the geometry.
#[derive(Debug, Clone, Copy)]
pub(super) struct Identity {
    pub serial: u32,
    pub label: Option<Short>,
    pub hidden_sectors: u32,
}

/// The boot sector with its parameter block.
pub(super) fn boot_sector(g: &Geometry, id: &Identity) -> [u8; 512] {
    let mut sector = [0; 512];
    let mut put = |at: usize, bytes: &[u8]| sector[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, &[0xeb, 0x58, 0x90]); // BS_jmpBoot: over the parameters, to offset 0x5a
    put(3, b"gt-image"); // BS_OEMName
    put(11, &512u16.to_le_bytes()); // BPB_BytsPerSec
    put(13, &[g.cluster_sectors]);
    put(14, &g.reserved.to_le_bytes());
    put(16, &[FATS.to_le_bytes()[0]]);
    put(21, &[MEDIA]);
    // Sectors of a track and heads: no disk has them, but mtools wants them above zero.
    put(24, &32u16.to_le_bytes());
    put(26, &64u16.to_le_bytes());
    put(28, &id.hidden_sectors.to_le_bytes());
    put(32, &g.sectors.to_le_bytes());
    put(36, &g.fat_sectors.to_le_bytes());
    put(44, &Cluster::FIRST.0.to_le_bytes()); // BPB_RootClus
    put(48, &FSINFO.to_le_bytes());
    put(50, &BACKUP.to_le_bytes());
    put(64, &[0x80, 0, 0x29]); // BS_DrvNum, BS_Reserved1, BS_BootSig: id, label and type follow
    put(67, &id.serial.to_le_bytes());
    put(71, &id.label.unwrap_or(*b"NO NAME    "));
    put(82, b"FAT32   ");
    put(90, &[0xcd, 0x18, 0xf4, 0xeb, 0xfd]); // int 0x18 (a PC tries its next disk), then halt
    put(510, &SIGNATURE);
    sector
}

/// The FSInfo sector: how many clusters are free, and which is the first, if there is one.
pub(super) fn fs_info(free: u32, next: Option<Cluster>) -> [u8; 512] {
    /// A reader that finds this searches the FAT itself.
    const UNKNOWN: u32 = 0xffff_ffff;
    let mut sector = [0; 512];
    sector[..4].copy_from_slice(b"RRaA");
    sector[484..488].copy_from_slice(b"rrAa");
    sector[488..492].copy_from_slice(&free.to_le_bytes());
    let next = next.map_or(UNKNOWN, |cluster| cluster.0);
    sector[492..496].copy_from_slice(&next.to_le_bytes());
    sector[510..].copy_from_slice(&SIGNATURE);
    sector
}

/// What a short entry refers to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Target {
    /// The volume's label, in the root only.
    Label,
    Directory(Cluster),
    File(Cluster, u32),
}

/// A short directory entry.
pub(super) fn short_entry(name: &Short, target: Target, mtime: Time) -> [u8; ENTRY] {
    let (attributes, cluster, size) = match target {
        Target::Label => (ATTR_LABEL, Cluster::NONE, 0),
        Target::Directory(cluster) => (ATTR_DIRECTORY, cluster, 0),
        Target::File(cluster, size) => (ATTR_ARCHIVE, cluster, size),
    };
    let (date, time) = dos_time(mtime);
    let first = cluster.0.to_le_bytes();
    let mut entry = [0; ENTRY];
    let mut put = |at: usize, bytes: &[u8]| entry[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, name);
    put(11, &[attributes]);
    put(14, &time.to_le_bytes()); // creation; the tree knows one time only
    put(16, &date.to_le_bytes());
    put(18, &date.to_le_bytes()); // access
    put(20, &first[2..]);
    put(22, &time.to_le_bytes());
    put(24, &date.to_le_bytes());
    put(26, &first[..2]);
    put(28, &size.to_le_bytes());
    entry
}

/// Adds the long entries of a name, the last part first as they stand before their short entry.
pub(super) fn put_long_entries(out: &mut Vec<u8>, long: &[u16], short: &Short) {
    /// Offsets of the thirteen UTF-16 units.
    const UNITS: [usize; 13] = [1, 3, 5, 7, 9, 14, 16, 18, 20, 22, 24, 28, 30];
    let sum = checksum(short);
    let mut last = 0x40;
    for (part, number) in long.chunks(13).zip(1u8..).collect::<Vec<_>>().into_iter().rev() {
        let mut entry = [0; ENTRY];
        entry[0] = number | last;
        entry[11] = ATTR_LONG;
        entry[13] = sum;
        // One zero ends a name that does not fill its last entry; 0xffff follows.
        let padded = part.iter().copied().chain([0]).chain(std::iter::repeat(0xffff));
        for (at, unit) in UNITS.into_iter().zip(padded) {
            entry[at..at + 2].copy_from_slice(&unit.to_le_bytes());
        }
        out.extend_from_slice(&entry);
        last = 0;
    }
}

/// Ties long entries to their short one: `ChkSum()` of fatgen103.
pub(super) fn checksum(short: &Short) -> u8 {
    short.iter().fold(0u8, |sum, &b| sum.rotate_right(1).wrapping_add(b))
}

/// Date and time fields in UTC: years from 1980 to 2107, seconds in steps of two, rounded down.
/// Times outside are the nearest inside, so that no file is from 1980 by wrapping.
pub(super) fn dos_time(time: Time) -> (u16, u16) {
    const DAY: i64 = 86_400;
    /// 1980-01-01 00:00:00 and 2107-12-31 23:59:58.
    const RANGE: (i64, i64) = (315_532_800, 4_354_819_198);
    let sec = time.sec.clamp(RANGE.0, RANGE.1);
    let (days, of_day) = (sec.div_euclid(DAY), sec.rem_euclid(DAY));
    let (year, month, day) = civil(days);
    let date = (year - 1980) << 9 | month << 5 | day;
    let time = (of_day / 3600) << 11 | (of_day / 60 % 60) << 5 | (of_day % 60 / 2);
    // Cannot fail: the range above makes both fit 16 bits.
    (u16::try_from(date).unwrap_or(u16::MAX), u16::try_from(time).unwrap_or(0))
}

/// The way back. A day or a month that is none counts as the nearest that is one.
pub(super) fn unix_time(date: u16, time: u16) -> Time {
    let (year, month, day) = (1980 + i64::from(date >> 9), i64::from(date >> 5 & 15), i64::from(date & 31));
    let (month, day) = (month.clamp(1, 12), day.max(1));
    // The inverse of `civil`: years begin in March.
    let shifted_year = if month > 2 { year } else { year - 1 };
    let of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let era = shifted_year / 400;
    let year_of_era = shifted_year % 400;
    let days = era * 146_097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + of_year - 719_468;
    let (hour, minute, second) = (i64::from(time >> 11), i64::from(time >> 5 & 63), i64::from(time & 31) * 2);
    Time::seconds(days * 86_400 + hour * 3600 + minute * 60 + second)
}

/// Year, month and day of a day counted from 1970-01-01, by the Gregorian calendar; years begin in
/// March here, so that the leap day is the last. Holds for days after 1970.
fn civil(days: i64) -> (i64, i64, i64) {
    let days = days + 719_468; // from 0000-03-01
    let era = days / 146_097;
    let of_era = days % 146_097;
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * of_year + 2) / 153;
    let day = of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    (year_of_era + era * 400 + i64::from(month <= 2), month, day)
}

// The fields above speak of sectors of this size.
const _: () = assert!(SECTOR == 512);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_even_seconds_between_1980_and_2107() {
        let fields = |sec| {
            let (d, t) = dos_time(Time::seconds(sec));
            (1980 + (d >> 9), d >> 5 & 15, d & 31, t >> 11, t >> 5 & 63, (t & 31) * 2)
        };
        for (sec, want) in [
            (i64::MIN, (1980, 1, 1, 0, 0, 0)),
            (0, (1980, 1, 1, 0, 0, 0)),
            (315_532_800, (1980, 1, 1, 0, 0, 0)),
            (951_782_399, (2000, 2, 28, 23, 59, 58)),
            (951_782_400, (2000, 2, 29, 0, 0, 0)),
            (1_700_000_001, (2023, 11, 14, 22, 13, 20)),
            (4_107_542_399, (2100, 2, 28, 23, 59, 58)),
            (4_107_542_400, (2100, 3, 1, 0, 0, 0)),
            (4_354_819_199, (2107, 12, 31, 23, 59, 58)),
            (i64::MAX, (2107, 12, 31, 23, 59, 58)),
        ] {
            assert_eq!(fields(sec), want, "second {sec}");
        }
    }

    #[test]
    fn times_come_back() {
        for sec in (315_532_800..4_354_819_198).step_by(86_399 * 2) {
            let (date, time) = dos_time(Time::seconds(sec));
            assert_eq!(unix_time(date, time), Time::seconds(sec / 2 * 2));
        }
        unix_time(0, 0);
        unix_time(u16::MAX, u16::MAX);
    }

    #[test]
    fn long_entries_carry_the_name_backwards() {
        let long: Vec<u16> = "The quick brown.fox".encode_utf16().collect();
        let mut out = Vec::new();
        put_long_entries(&mut out, &long, b"THEQUI~1FOX");
        // The worked example of fatgen103.
        assert_eq!(out.len(), 64);
        assert_eq!((out[0], out[32]), (0x42, 0x01));
        assert_eq!((out[11], out[13], out[45]), (0x0f, 0x07, 0x07));
        assert_eq!(&out[1..11], b"w\0n\0.\0f\0o\0");
        assert_eq!(&out[14..20], b"x\0\0\0\xff\xff");
        assert_eq!(&out[33..43], b"T\0h\0e\0 \0q\0");
    }

    #[test]
    fn a_name_of_thirteen_units_has_no_terminator() {
        let mut out = Vec::new();
        put_long_entries(&mut out, &[b'x'.into(); 13], b"XXXXXX~1   ");
        assert_eq!((out.len(), out[0]), (32, 0x41));
        assert_eq!(&out[28..], b"x\0x\0");
    }

    #[test]
    fn labels_keep_their_case_and_their_limits() {
        assert_eq!(label("bootfs"), Some(*b"bootfs     "));
        assert_eq!(label("GT BOOT"), Some(*b"GT BOOT    "));
        assert_eq!(label(""), Some(*b"           "));
        for bad in ["twelve chars", "a.b", "é", "tab\t", " x"] {
            assert_eq!(label(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn entries_hold_their_fields_at_the_offsets_of_the_specification() {
        let e =
            short_entry(b"A       B  ", Target::File(Cluster(0x0012_3456), 0x0102_0304), Time::seconds(0));
        assert_eq!(&e[..12], b"A       B  \x20");
        assert_eq!((&e[20..22], &e[26..28]), (&[0x12, 0][..], &[0x56, 0x34][..]));
        assert_eq!(&e[28..], [4, 3, 2, 1]);
        let d = short_entry(b"D          ", Target::Directory(Cluster(3)), Time::seconds(0));
        assert_eq!((d[11], &d[28..]), (0x10, &[0; 4][..]));
    }
}
