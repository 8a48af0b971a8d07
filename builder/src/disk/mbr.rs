//! A master boot record with up to four primary partitions.
//! Must not know: where partitions should lie.
//! Spec: UEFI 2.10 section 5.2.1, and the bytes of Raspberry Pi OS images.

use super::layout::{LayoutError, Partition, Role, SECTOR};

/// Primary partitions; we write no extended ones.
pub(super) const ENTRIES: usize = 4;

/// The 512 bytes of sector 0. Every partition lies below 2 TiB.
pub(super) fn table(id: u32, partitions: &[Partition]) -> Result<Vec<u8>, LayoutError> {
    let mut sector = vec![0; 512];
    // No boot code: the firmware of a Raspberry Pi reads the table itself.
    sector[440..444].copy_from_slice(&id.to_le_bytes());
    sector[510..].copy_from_slice(&[0x55, 0xaa]);
    for (partition, slot) in partitions.iter().zip(sector[446..510].chunks_exact_mut(16)) {
        slot.copy_from_slice(&entry(partition)?);
    }
    Ok(sector)
}

fn entry(partition: &Partition) -> Result<[u8; 16], LayoutError> {
    let end = partition.offset + partition.spec.size;
    let sectors = |bytes: u64| {
        let name = || partition.spec.name.clone();
        u32::try_from(bytes / SECTOR).map_err(|_| LayoutError::TooLarge { name: name(), end })
    };
    let (first, count) = (sectors(partition.offset)?, sectors(partition.spec.size)?);
    let mut entry = [0; 16];
    entry[1..4].copy_from_slice(&chs(u64::from(first)));
    entry[4] = match partition.spec.role {
        Role::Boot => 0x0c,
        Role::Root | Role::Data => 0x83,
    };
    entry[5..8].copy_from_slice(&chs(u64::from(first) + u64::from(count).saturating_sub(1)));
    entry[8..12].copy_from_slice(&first.to_le_bytes());
    entry[12..].copy_from_slice(&count.to_le_bytes());
    Ok(entry)
}

/// Cylinder, head and sector as parted writes them for disks of 255 heads and 63 sectors; the last
/// address there is stands for all beyond. Nothing that boots a Raspberry Pi reads them.
fn chs(sector: u64) -> [u8; 3] {
    let (cylinder, head, sector) = (sector / (255 * 63), sector / 63 % 255, sector % 63 + 1);
    let [low, high, ..] = cylinder.to_le_bytes();
    match (u8::try_from(head), u8::try_from(sector)) {
        (Ok(head), Ok(sector)) if cylinder < 1024 => [head, sector | high << 6, low],
        _ => [0xfe, 0xff, 0xff],
    }
}

#[cfg(test)]
mod tests {
    use super::super::layout::TableBytes;
    use super::super::layout::tests::{MBR, official};
    use super::*;

    #[test]
    fn the_record_is_that_of_raspberry_pi_os() {
        let layout = official(MBR);
        let TableBytes { head, tail } = layout.table_bytes(layout.size).unwrap();
        assert_eq!((head.len(), tail.len()), (512, 0));
        assert_eq!(&head[440..446], [0x91, 0xba, 0x1b, 0x04, 0, 0]);
        assert_eq!((head[446], head[450], head[462], head[466]), (0, 0x0c, 0, 0x83));
        assert_eq!(&head[454..462], [0, 0x40, 0, 0, 0, 0, 0x10, 0]);
        assert_eq!(&head[470..478], [0, 0x40, 0x10, 0, 0, 0x80, 0x48, 0]);
        assert_eq!((&head[478..510], &head[510..]), (&[0; 32][..], &[0x55, 0xaa][..]));
    }

    #[test]
    fn addresses_beyond_the_last_cylinder_are_the_last() {
        for (sector, want) in [
            (0, [0, 1, 0]),
            (62, [0, 63, 0]),
            (63, [1, 1, 0]),
            (16_384, [5, 5, 1]),
            (300 * 255 * 63, [0, 0x41, 44]),
            (1024 * 255 * 63 - 1, [254, 0xff, 0xff]),
            (1024 * 255 * 63, [0xfe, 0xff, 0xff]),
            (u64::from(u32::MAX), [0xfe, 0xff, 0xff]),
        ] {
            assert_eq!(chs(sector), want, "sector {sector}");
        }
    }
}
