//! A GUID partition table with its protective MBR, by the `gpt` crate, as the bytes of the disk's two
//! ends.
//! Must not know: where partitions should lie.
//! Spec: UEFI 2.10 chapter 5.
//!
//! ```text
//! LBA 0          protective MBR; never a hybrid one, which start4.elf does not read (firmware#1465)
//! LBA 1          header
//! LBA 2 to 33    128 entries; bootloaders before 2024-10-10 look nowhere else (rpi-eeprom#585)
//! …
//! LBA -33 to -2  the entries again
//! LBA -1         backup header
//! ```

use std::collections::BTreeMap;
use std::fmt::Display;
use std::io::{self, Read, Seek, SeekFrom, Write};

use gpt::mbr::ProtectiveMBR;
use gpt::{GptConfig, partition, partition_types};

use super::layout::{LayoutError, Partition, Role, SECTOR, TableBytes};

/// Entries of the table: the least that the specification allows, and what all tools write.
pub const ENTRIES: usize = 128;
/// Longest name of a partition in UTF-16 units.
pub const NAME_UNITS: usize = 36;
/// Bytes at the front of the disk: protective MBR, header, 128 entries of 128 bytes.
pub const HEAD: u64 = 34 * SECTOR;
/// Bytes at its end: entries and backup header.
pub const TAIL: u64 = 33 * SECTOR;

/// A GUID in lower case, as the kernel and udev write it.
pub fn guid_text(guid: &[u8; 16]) -> String {
    let mut text = String::with_capacity(36);
    for (at, byte) in guid.iter().enumerate() {
        if matches!(at, 4 | 6 | 8 | 10) {
            text.push('-');
        }
        text.push_str(&format!("{byte:02x}"));
    }
    text
}

/// Both ends of a disk of `disk` bytes.
pub(super) fn table(
    disk_guid: &[u8; 16],
    partitions: &[Partition],
    disk: u64,
) -> Result<TableBytes, LayoutError> {
    let wrong = |what: &dyn Display| LayoutError::Disk { size: disk, what: what.to_string() };
    let end = partitions.last().map_or(HEAD, |p| p.offset + p.spec.size);
    if !disk.is_multiple_of(SECTOR) || disk.checked_sub(TAIL).is_none_or(|room| end > room) {
        return Err(wrong(&"no room for the backup at its end"));
    }
    let mut ends = Ends::new(disk);
    // A disk of 2 TiB or more is protected as far as 32 bits reach: UEFI 2.10, table 5-4.
    let protected = u32::try_from(disk / SECTOR - 1).unwrap_or(u32::MAX);
    ProtectiveMBR::with_lb_size(protected).overwrite_lba0(&mut ends).map_err(|e| wrong(&e))?;
    // The type of GUIDs is the uuid crate's, which `parse` finds without our naming it.
    let guid = guid_text(disk_guid).parse().map_err(|e: _| wrong(&e))?;
    let config = GptConfig::new().writable(true);
    let mut table = config.create_from_device(ends, Some(guid)).map_err(|e| wrong(&e))?;
    let mut entries = BTreeMap::new();
    for (number, Partition { spec, offset }) in (1..).zip(partitions) {
        let entry = partition::Partition {
            part_type_guid: match spec.role {
                Role::Boot => partition_types::BASIC,
                Role::Root | Role::Data => partition_types::LINUX_FS,
            },
            part_guid: guid_text(&spec.guid).parse().map_err(|e: _| wrong(&e))?,
            first_lba: offset / SECTOR,
            last_lba: (offset + spec.size) / SECTOR - 1,
            flags: 0,
            name: spec.name.clone(),
        };
        entries.insert(number, entry);
    }
    table.update_partitions(entries).map_err(|e| wrong(&e))?;
    let ends = table.write().map_err(|e| wrong(&e))?;
    Ok(TableBytes { head: ends.head, tail: ends.tail })
}

/// A disk of which only the two ends exist: what is between belongs to the partitions.
#[derive(Debug)]
struct Ends {
    head: Vec<u8>,
    tail: Vec<u8>,
    size: u64,
    at: u64,
}

impl Ends {
    fn new(size: u64) -> Ends {
        // Both are a few KiB, so the conversions cannot fail.
        let zeros = |len: u64| vec![0; usize::try_from(len).unwrap_or(0)];
        Ends { head: zeros(HEAD), tail: zeros(TAIL), size, at: 0 }
    }

    /// The bytes from the current position to the end of the part that holds it.
    fn here(&mut self) -> io::Result<&mut [u8]> {
        let tail = self.size - TAIL;
        let (part, start) = if self.at >= tail { (&mut self.tail, tail) } else { (&mut self.head, 0) };
        let from = usize::try_from(self.at - start).unwrap_or(usize::MAX);
        part.get_mut(from..).ok_or_else(|| io::Error::other("the middle of the disk is not ours"))
    }
}

impl Read for Ends {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let here = self.here()?;
        let len = here.len().min(buf.len());
        buf[..len].copy_from_slice(&here[..len]);
        self.at += len as u64;
        Ok(len)
    }
}

impl Write for Ends {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        let here = self.here()?;
        let len = here.len().min(buf.len());
        here[..len].copy_from_slice(&buf[..len]);
        self.at += len as u64;
        Ok(len)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Seek for Ends {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let at = match to {
            SeekFrom::Start(at) => Some(at),
            SeekFrom::End(by) => self.size.checked_add_signed(by),
            SeekFrom::Current(by) => self.at.checked_add_signed(by),
        };
        self.at = at.ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))?;
        Ok(self.at)
    }
}

#[cfg(test)]
mod tests {
    use super::super::layout::tests::{GPT, MIB, official};
    use super::*;

    #[test]
    fn the_ends_are_where_firmware_looks() {
        let layout = official(GPT);
        let TableBytes { head, tail } = layout.table_bytes(layout.size).unwrap();
        assert_eq!((head.len() as u64, tail.len() as u64), (HEAD, TAIL));
        assert_eq!((head[450], &head[462..510]), (0xee, &[0; 48][..]), "one protective entry, no hybrid");
        assert_eq!(&head[512..520], b"EFI PART");
        assert_eq!(&head[512 + 72..512 + 80], &2u64.to_le_bytes(), "entries at LBA 2");
        assert_eq!(&tail[32 * 512..32 * 512 + 8], b"EFI PART");
        assert_eq!(&head[1024..], &tail[..32 * 512], "both have the same entries");
        let name: Vec<u8> = "bootfs".encode_utf16().flat_map(u16::to_le_bytes).collect();
        assert_eq!(&head[1024 + 56..1024 + 68], name);
        // EBD0A0A2-B9E5-4433-87C0-68B6B72699C7, its first three parts in little endian.
        assert_eq!(&head[1024..1032], [0xa2, 0xa0, 0xd0, 0xeb, 0xe5, 0xb9, 0x33, 0x44]);
        // 0FC63DAF-8483-4772-8E79-3D69D8477DE4
        assert_eq!(&head[1152..1160], [0xaf, 0x3d, 0xc6, 0x0f, 0x83, 0x84, 0x72, 0x47]);
        assert_eq!(&head[1024 + 32..1024 + 40], &16_384u64.to_le_bytes());
        assert_eq!(&head[1024 + 40..1024 + 48], &1_064_959u64.to_le_bytes());
    }

    #[test]
    fn the_same_layout_gives_the_same_bytes() {
        let layout = official(GPT);
        assert_eq!(layout.table_bytes(layout.size).unwrap(), layout.table_bytes(layout.size).unwrap());
    }

    #[test]
    fn a_larger_disk_moves_the_backup_only() {
        let layout = official(GPT);
        let small = layout.table_bytes(layout.size).unwrap();
        let large = layout.table_bytes(64 << 30).unwrap();
        assert_eq!(small.head[1024..], large.head[1024..]);
        let backup = u64::from_le_bytes(large.head[512 + 32..512 + 40].try_into().unwrap());
        assert_eq!(backup, (64 << 30) / SECTOR - 1);
    }

    #[test]
    fn only_the_ends_can_be_written() {
        let mut ends = Ends::new(100 * MIB);
        assert_eq!(ends.seek(SeekFrom::End(-1)).unwrap(), 100 * MIB - 1);
        assert_eq!(ends.write(b"ab").unwrap(), 1);
        assert_eq!(ends.write(b"b").unwrap(), 0);
        ends.seek(SeekFrom::Start(MIB)).unwrap();
        assert!(ends.write(b"x").is_err());
        assert!(ends.seek(SeekFrom::Current(i64::MIN)).is_err());
    }
}
