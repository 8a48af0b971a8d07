//! Where each partition lies on a disk. Pure: sizes in, offsets out.
//! Must not know: filesystems, images, how tables are spelt in bytes.
//! Spec: the images of Raspberry Pi OS since 2025-03-12 for offsets and MBR types.

use super::{gpt, mbr};

/// Bytes of a sector, the unit of both tables.
pub(super) const SECTOR: u64 = 512;
/// Partitions begin on multiples of 8 MiB, as those of Raspberry Pi OS do since 2025-03-12.
///
/// SD cards erase in units of up to 8 MiB (the allocation unit of SDXC cards is larger still, but
/// 8 MiB divides most). A filesystem that begins inside such a unit shares it with its neighbour,
/// and each write to one moves the other.
pub const ALIGN: u64 = 8 << 20;
/// A disk image has whole MiB: a whole number of blocks, and friendly to loop devices and cards.
const ROUND: u64 = 1 << 20;

/// The kind of partition table, with what names the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Table {
    /// GUID partition table; bytes of the GUID in the order they are written in text.
    Gpt {
        /// The disk's own GUID.
        disk_guid: [u8; 16],
    },
    /// Master boot record, for bootloaders before 2020-09-14.
    Mbr {
        /// The disk id at offset 440; PARTUUIDs follow from it.
        id: u32,
    },
}

/// What a partition is for, which gives its type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// FAT, read by the firmware: basic data in GPT (the firmware takes this type and EFI system;
    /// no one else mounts this one by itself), 0x0c in MBR.
    Boot,
    /// The root filesystem: plain Linux data. The type "Linux root" would let
    /// systemd-gpt-auto-generator mount it where our command line does not.
    Root,
    /// Any other Linux filesystem, such as `gt-state`.
    Data,
}

/// A partition that is wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Spec {
    /// The name in a GPT, at most 36 UTF-16 units; MBR has none.
    pub name: String,
    /// What it is for.
    pub role: Role,
    /// Bytes, a multiple of 512 and not 0.
    pub size: u64,
    /// Its own GUID in a GPT, bytes in the order of the text.
    pub guid: [u8; 16],
}

/// A partition with its place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Partition {
    /// What was wanted.
    pub spec: Spec,
    /// Bytes from the start of the disk.
    pub offset: u64,
}

/// A disk with a place for every partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DiskLayout {
    /// The kind of table.
    pub table: Table,
    /// In the order of the table, which is also that of the disk.
    pub partitions: Vec<Partition>,
    /// Bytes of the whole disk image.
    pub size: u64,
}

/// The bytes of a partition table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TableBytes {
    /// From the start of the disk.
    pub head: Vec<u8>,
    /// Up to the end of the disk; empty for MBR.
    pub tail: Vec<u8>,
}

/// Partitions that no table can hold.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LayoutError {
    /// More partitions than the table has entries.
    #[error("{wanted} partitions are wanted; {table} has room for {limit}")]
    TooMany {
        /// How many are wanted.
        wanted: usize,
        /// The kind of table.
        table: &'static str,
        /// Its entries.
        limit: usize,
    },
    /// MBR counts sectors in 32 bits.
    #[error("partition `{name}` ends at byte {end}; an MBR reaches 2 TiB, use a GPT")]
    TooLarge {
        /// The partition.
        name: String,
        /// Where it would end.
        end: u64,
    },
    /// A size that is not a positive number of sectors.
    #[error("partition `{name}` has {size} bytes, not a positive multiple of 512")]
    Size {
        /// The partition.
        name: String,
        /// Its size.
        size: u64,
    },
    /// A name that a GPT cannot hold.
    #[error("partition name `{name}` is longer than the 36 UTF-16 units of a GPT")]
    Name {
        /// The name.
        name: String,
    },
    /// Two partitions would answer to one PARTUUID.
    #[error("partitions `{name}` and `{other}` have the same GUID")]
    SameGuid {
        /// The later one.
        name: String,
        /// The earlier one.
        other: String,
    },
    /// The disk cannot hold the table, or the bytes do not fit their fields.
    #[error("no partition table for a disk of {size} bytes: {what}")]
    Disk {
        /// Bytes of the disk.
        size: u64,
        /// What does not fit.
        what: String,
    },
}

/// Gives each partition its place, in the given order. With a boot partition of 512 MiB first, both
/// tables have the offsets of Raspberry Pi OS: sectors 16384 and 1064960.
pub fn lay_out(table: Table, wanted: Vec<Spec>) -> Result<DiskLayout, LayoutError> {
    check(&table, &wanted)?;
    let mut partitions: Vec<Partition> = Vec::new();
    let mut end = 0u64;
    for spec in wanted {
        let too_large = || LayoutError::TooLarge { name: spec.name.clone(), end: u64::MAX };
        let offset = end.max(1).checked_next_multiple_of(ALIGN).ok_or_else(too_large)?;
        end = offset.checked_add(spec.size).ok_or_else(too_large)?;
        if matches!(table, Table::Mbr { .. }) && end / SECTOR > u64::from(u32::MAX) {
            return Err(LayoutError::TooLarge { name: spec.name, end });
        }
        partitions.push(Partition { spec, offset });
    }
    let tail = match table {
        Table::Gpt { .. } => gpt::TAIL,
        Table::Mbr { .. } => 0,
    };
    // An empty disk still has its table.
    let size = end.max(gpt::HEAD).saturating_add(tail).checked_next_multiple_of(ROUND);
    let size = size.ok_or_else(|| LayoutError::Disk { size: end, what: "beyond 64 bits".into() })?;
    Ok(DiskLayout { table, partitions, size })
}

fn check(table: &Table, wanted: &[Spec]) -> Result<(), LayoutError> {
    let (noun, limit) = match table {
        Table::Gpt { .. } => ("a GPT", gpt::ENTRIES),
        Table::Mbr { .. } => ("an MBR", mbr::ENTRIES),
    };
    if wanted.len() > limit {
        return Err(LayoutError::TooMany { wanted: wanted.len(), table: noun, limit });
    }
    for (at, Spec { name, size, guid, .. }) in wanted.iter().enumerate() {
        if *size == 0 || !size.is_multiple_of(SECTOR) {
            return Err(LayoutError::Size { name: name.clone(), size: *size });
        }
        if matches!(table, Table::Mbr { .. }) {
            continue;
        }
        if name.encode_utf16().count() > gpt::NAME_UNITS {
            return Err(LayoutError::Name { name: name.clone() });
        }
        if let Some(other) = wanted[..at].iter().find(|o| o.guid == *guid) {
            return Err(LayoutError::SameGuid { name: name.clone(), other: other.name.clone() });
        }
    }
    Ok(())
}

impl DiskLayout {
    /// What the kernel calls a partition in `PARTUUID=`; the index counts from 0. `None` when there
    /// is no such partition.
    pub fn partuuid(&self, index: usize) -> Option<String> {
        let partition = self.partitions.get(index)?;
        Some(match self.table {
            Table::Gpt { .. } => gpt::guid_text(&partition.spec.guid),
            // Partitions count from 1, in hex: `printk_all_partitions` and `man blkid`.
            Table::Mbr { id } => format!("{id:08x}-{:02x}", index + 1),
        })
    }

    /// The table for a disk of `disk` bytes, which may be larger than [`DiskLayout::size`]: the
    /// backup of a GPT belongs at the end of the device, not of the image.
    pub fn table_bytes(&self, disk: u64) -> Result<TableBytes, LayoutError> {
        let end = self.partitions.last().map_or(0, |p| p.offset + p.spec.size);
        if disk < end {
            return Err(LayoutError::Disk { size: disk, what: format!("partitions end at byte {end}") });
        }
        match self.table {
            Table::Gpt { disk_guid } => gpt::table(&disk_guid, &self.partitions, disk),
            Table::Mbr { id } => Ok(TableBytes { head: mbr::table(id, &self.partitions)?, tail: Vec::new() }),
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use proptest::prelude::*;

    pub(crate) const MIB: u64 = 1 << 20;
    pub(crate) const GPT: Table = Table::Gpt { disk_guid: [0xd1; 16] };
    pub(crate) const MBR: Table = Table::Mbr { id: 0x041b_ba91 };

    pub(crate) fn spec(name: &str, role: Role, size: u64) -> Spec {
        let mut guid = [0; 16];
        guid.iter_mut().zip(name.bytes()).for_each(|(to, from)| *to = from);
        Spec { name: name.into(), role, size, guid }
    }

    pub(crate) fn official(table: Table) -> DiskLayout {
        let boot = spec("bootfs", Role::Boot, 512 * MIB);
        lay_out(table, vec![boot, spec("rootfs", Role::Root, 2320 * MIB)]).unwrap()
    }

    #[test]
    fn both_tables_have_the_offsets_of_raspberry_pi_os() {
        for (table, size) in [(GPT, 2841 * MIB), (MBR, 5_816_320 * SECTOR)] {
            let layout = official(table);
            let starts: Vec<u64> = layout.partitions.iter().map(|p| p.offset / SECTOR).collect();
            assert_eq!((starts, layout.size), (vec![16_384, 1_064_960], size));
        }
    }

    #[test]
    fn partuuids_are_those_of_the_kernel() {
        assert_eq!(official(MBR).partuuid(1).unwrap(), "041bba91-02");
        assert_eq!(official(GPT).partuuid(0).unwrap(), "626f6f74-6673-0000-0000-000000000000");
        assert_eq!(official(GPT).partuuid(2), None);
    }

    #[test]
    fn partitions_that_no_table_holds_are_refused() {
        let many = |n: u8| (0..n).map(|i| spec(&format!("{i}"), Role::Data, MIB)).collect::<Vec<_>>();
        assert!(lay_out(MBR, many(4)).is_ok());
        assert!(matches!(lay_out(MBR, many(5)), Err(LayoutError::TooMany { limit: 4, .. })));
        assert!(lay_out(GPT, many(128)).is_ok());
        assert!(matches!(lay_out(GPT, many(129)), Err(LayoutError::TooMany { limit: 128, .. })));
        for size in [0, 1, 511, MIB + 1] {
            let odd = vec![spec("a", Role::Data, size)];
            assert!(matches!(lay_out(GPT, odd), Err(LayoutError::Size { .. })), "{size}");
        }
        let large = vec![spec("a", Role::Data, 2 << 40)];
        assert!(matches!(lay_out(MBR, large.clone()), Err(LayoutError::TooLarge { .. })));
        assert!(lay_out(GPT, large).is_ok());
        let huge = vec![spec("a", Role::Data, u64::MAX - 511)];
        assert!(matches!(lay_out(GPT, huge), Err(LayoutError::TooLarge { .. })));
        let long = vec![spec(&"x".repeat(37), Role::Data, MIB)];
        assert!(matches!(lay_out(GPT, long.clone()), Err(LayoutError::Name { .. })));
        assert!(lay_out(MBR, long).is_ok());
        let twice = vec![spec("a", Role::Data, MIB), spec("a", Role::Data, MIB)];
        assert!(matches!(lay_out(GPT, twice), Err(LayoutError::SameGuid { .. })));
    }

    #[test]
    fn a_disk_too_small_for_its_partitions_gets_no_table() {
        for table in [GPT, MBR] {
            let layout = official(table);
            assert!(layout.table_bytes(layout.size).is_ok());
            assert!(layout.table_bytes(64 << 30).is_ok());
            let error = layout.table_bytes(2000 * MIB).unwrap_err();
            assert!(matches!(error, LayoutError::Disk { .. }), "{error}");
        }
        // The backup GPT would lie over the end of the last partition.
        let end = 520 * MIB + 2320 * MIB;
        assert!(official(GPT).table_bytes(end).is_err());
    }

    proptest! {
        #[test]
        fn partitions_are_aligned_and_apart(sectors in proptest::collection::vec(1u64..1 << 24, 0..20)) {
            let specs = sectors.iter().enumerate();
            let specs = specs.map(|(i, n)| spec(&format!("{i}"), Role::Data, n * SECTOR)).collect();
            let layout = lay_out(GPT, specs).unwrap();
            let mut end = gpt::HEAD;
            for p in &layout.partitions {
                prop_assert!(p.offset >= end && p.offset % ALIGN == 0);
                end = p.offset + p.spec.size;
            }
            prop_assert!(layout.size >= end + gpt::TAIL && layout.size.is_multiple_of(ROUND));
            prop_assert!(layout.table_bytes(layout.size).is_ok());
        }
    }
}
