//! Reads a partition table, so that the partitions of somebody's image can be found.
//! Must not know: what is in partitions.
//! Spec: UEFI 2.10 chapter 5 for GPT and its protective MBR; the classical MBR has no other.

use std::io;

use super::layout::SECTOR;
use crate::io::at::ReadAt;

/// Entries of a GPT that are looked at; tools write 128.
const ENTRIES_MAX: u32 = 1024;
/// Bytes of an entry at most.
const ENTRY_MAX: u32 = 4096;
/// The MBR type that says "see the GPT".
const PROTECTIVE: u8 = 0xee;
/// MBR types of partitions that hold partitions.
const EXTENDED: [u8; 3] = [0x05, 0x0f, 0x85];

/// A partition of an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// Its number, counted from 1.
    pub number: u32,
    /// Bytes from the start of the image.
    pub start: u64,
    /// Bytes.
    pub size: u64,
}

/// A table that cannot be read. Offsets count from the start of the image.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TableError {
    /// The image is too short for a table, or could not be read.
    #[error("reading {len} bytes at {at}: {source}")]
    Io {
        /// Where.
        at: u64,
        /// How many bytes.
        len: usize,
        /// Why.
        source: io::Error,
    },
    /// Neither kind of table.
    #[error("no partition table: sector 0 ends with {found:02x?}, not with 55 aa")]
    None {
        /// Its last two bytes.
        found: [u8; 2],
    },
    /// A table that cannot be.
    #[error("partition table, at byte {at}: {what}")]
    Damaged {
        /// Where.
        at: u64,
        /// What is wrong.
        what: String,
    },
}

/// All partitions in the order of the table. Extended ones are refused: no Raspberry Pi image has any.
pub fn partitions(image: &dyn ReadAt) -> Result<Vec<Found>, TableError> {
    let mut sector = [0; 512];
    read(image, &mut sector, 0)?;
    if sector[510..] != [0x55, 0xaa] {
        return Err(TableError::None { found: [sector[510], sector[511]] });
    }
    let entries = || (1u32..).zip(sector[446..510].chunks_exact(16));
    let found = match entries().any(|(_, entry)| entry[4] == PROTECTIVE) {
        true => gpt(image)?,
        false => {
            let mut found = Vec::new();
            for (number, entry) in entries().filter(|(_, entry)| entry[4] != 0) {
                let at = 446 + (u64::from(number) - 1) * 16;
                if EXTENDED.contains(&entry[4]) {
                    return Err(damaged(at + 4, "an extended partition, which is not supported"));
                }
                let (first, count) = (le32(entry, 8).into(), le32(entry, 12).into());
                found.push(placed(number, first, count, at)?);
            }
            found
        }
    };
    for partition in &found {
        let end = partition.start.checked_add(partition.size);
        if partition.start == 0 || end.is_none_or(|end| end > image.size()) {
            let (n, size) = (partition.number, image.size());
            let what = format!("partition {n} ends beyond the image of {size} bytes: is the image whole?");
            return Err(damaged(partition.start, what));
        }
    }
    Ok(found)
}

fn gpt(image: &dyn ReadAt) -> Result<Vec<Found>, TableError> {
    let mut header = [0; 512];
    read(image, &mut header, SECTOR)?;
    let wrong = |field: u64, what: &str| Err(damaged(SECTOR + field, what));
    if header[..8] != *b"EFI PART" {
        return wrong(0, "the MBR is a protective one, but there is no GPT header");
    }
    let len = le32(&header, 12);
    let Some(covered) = usize::try_from(len).ok().filter(|len| *len >= 92).and_then(|len| header.get(..len))
    else {
        return wrong(12, "a GPT header of an impossible size");
    };
    let mut blank = covered.to_vec();
    blank[16..20].fill(0);
    if crc32fast::hash(&blank) != le32(&header, 16) {
        return wrong(16, "the GPT header's checksum is wrong");
    }
    let (count, size) = (le32(&header, 80), le32(&header, 84));
    if count > ENTRIES_MAX || !(128..=ENTRY_MAX).contains(&size) || size % 8 != 0 {
        return wrong(80, "a GPT of an impossible number or size of entries");
    }
    let Some(at) = le64(&header, 72).checked_mul(SECTOR) else {
        return wrong(72, "the GPT's entries are nowhere");
    };
    let mut entries = vec![0; (count * size) as usize];
    read(image, &mut entries, at)?;
    if crc32fast::hash(&entries) != le32(&header, 88) {
        return wrong(88, "the checksum of the GPT's entries is wrong");
    }
    let mut found = Vec::new();
    for (number, entry) in (1..).zip(entries.chunks_exact(size as usize)) {
        if entry[..16] == [0; 16] {
            continue;
        }
        let at = at + (u64::from(number) - 1) * u64::from(size);
        let (first, last) = (le64(entry, 32), le64(entry, 40));
        let Some(count) = last.checked_sub(first).and_then(|less| less.checked_add(1)) else {
            return Err(damaged(at + 32, format!("partition {number} ends before it begins")));
        };
        found.push(placed(number, first, count, at)?);
    }
    Ok(found)
}

fn placed(number: u32, first: u64, count: u64, at: u64) -> Result<Found, TableError> {
    match (first.checked_mul(SECTOR), count.checked_mul(SECTOR)) {
        (Some(start), Some(size)) => Ok(Found { number, start, size }),
        _ => Err(damaged(at, format!("partition {number} lies beyond all disks"))),
    }
}

fn damaged(at: u64, what: impl Into<String>) -> TableError {
    TableError::Damaged { at, what: what.into() }
}

fn read(image: &dyn ReadAt, buffer: &mut [u8], at: u64) -> Result<(), TableError> {
    let len = buffer.len();
    image.read_at(buffer, at).map_err(|source| TableError::Io { at, len, source })
}

/// Both are called at fixed places of whole records.
fn le32(bytes: &[u8], at: usize) -> u32 {
    bytes.get(at..).and_then(|b| b.first_chunk()).map_or(0, |b| u32::from_le_bytes(*b))
}

fn le64(bytes: &[u8], at: usize) -> u64 {
    bytes.get(at..).and_then(|b| b.first_chunk()).map_or(0, |b| u64::from_le_bytes(*b))
}

#[cfg(test)]
mod tests {
    use super::super::layout::tests::{GPT, MBR, MIB, spec};
    use super::super::{Role, lay_out};
    use super::*;
    use proptest::prelude::*;

    fn image(table: super::super::Table) -> Vec<u8> {
        let layout =
            lay_out(table, vec![spec("a", Role::Boot, 9 * MIB), spec("b", Role::Root, 2 * MIB)]).unwrap();
        let bytes = layout.table_bytes(layout.size).unwrap();
        let mut image = vec![0; usize::try_from(layout.size).unwrap()];
        image[..bytes.head.len()].copy_from_slice(&bytes.head);
        let tail = image.len() - bytes.tail.len();
        image[tail..].copy_from_slice(&bytes.tail);
        image
    }

    fn find(image: &[u8]) -> Result<Vec<Found>, TableError> {
        partitions(&image as &dyn ReadAt)
    }

    #[test]
    fn both_tables_are_read() {
        let want = [
            Found { number: 1, start: 8 * MIB, size: 9 * MIB },
            Found { number: 2, start: 24 * MIB, size: 2 * MIB },
        ];
        for table in [GPT, MBR] {
            assert_eq!(find(&image(table)).unwrap(), want, "{table:?}");
        }
    }

    #[test]
    fn what_cannot_be_is_told_with_its_place() {
        let (gpt, mbr) = (image(GPT), image(MBR));
        let told = |mut bytes: Vec<u8>, at: usize, value: u8| {
            bytes[at] = value;
            find(&bytes).unwrap_err().to_string()
        };
        assert!(told(mbr.clone(), 510, 0).contains("no partition table"));
        assert!(told(mbr.clone(), 450, 0x05).contains("byte 450: an extended partition"));
        assert!(told(mbr.clone(), 461, 0xff).contains("is the image whole?"));
        assert!(told(gpt.clone(), 512, 0).contains("no GPT header"));
        assert!(told(gpt.clone(), 512 + 24, 9).contains("header's checksum"));
        assert!(told(gpt.clone(), 1024 + 40, 9).contains("checksum of the GPT's entries"));
        assert!(matches!(find(&[]), Err(TableError::Io { .. })));
        assert!(find(&mbr[..20 << 20]).unwrap_err().to_string().contains("is the image whole?"));
    }

    proptest! {
        #[test]
        fn no_bytes_panic(head in proptest::collection::vec(any::<u8>(), 0..2048), sign in any::<bool>(), gpt in any::<bool>()) {
            let mut head = head;
            if sign && head.len() >= 512 {
                head[510..512].copy_from_slice(&[0x55, 0xaa]);
                if gpt { head[450] = 0xee }
            }
            let _ = find(&head);
        }
    }
}
