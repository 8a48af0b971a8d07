//! Where the parts of a volume of a given size lie: reserved sectors, two FATs, clusters.
//! Must not know: trees, directory entries.
//! Spec: fatgen103, "FAT type determination"; cluster sizes as mkfs.fat 4.2 chooses them.

use super::FatError;

/// Bytes of a sector. Every disk that a Raspberry Pi boots from has this size.
pub(super) const SECTOR: u64 = 512;
/// Copies of the FAT: what every formatter writes, and all that some readers accept.
pub(super) const FATS: u64 = 2;
/// Entries of four bytes in one sector of a FAT.
const ENTRIES_PER_SECTOR: u64 = SECTOR / 4;
/// A volume with fewer clusters is FAT16, whatever else it says.
pub(super) const MIN_CLUSTERS: u64 = 65_525;
/// Cluster numbers end below 0x0FFF_FFF7, the mark of a bad cluster, and begin at 2.
const MAX_CLUSTERS: u64 = 0x0FFF_FFF5;
/// Enough for the boot sector, its backup at 6 and 7, and what mkfs.fat reserves too.
const RESERVED: u64 = 32;
/// Clusters begin on a multiple of 4096 bytes, the page of flash memory and the block of a block
/// map, so that small clusters do not straddle one more of them than they must.
const GRAIN: u64 = 8;

const MIB: u64 = 1 << 20;
/// Largest volume, in bytes, for each number of sectors in a cluster.
///
/// mkfs.fat 4.2 has one sector up to 260 MiB and then eight. Raspberry Pi OS uses one sector for
/// its 512 MiB since 2026-03-27 (commit 46c69572), and so do we up to 1 GiB; the FATs then take
/// 1.6 % of the volume.
const CLASSES: [(u64, u64); 5] =
    [(1, 1024 * MIB), (8, 8192 * MIB), (16, 16_384 * MIB), (32, 32_768 * MIB), (64, u64::MAX)];

/// The measures of a volume; all counts are of sectors except `clusters`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Geometry {
    pub sectors: u32,
    pub reserved: u16,
    pub fat_sectors: u32,
    pub cluster_sectors: u8,
    pub clusters: u32,
}

impl Geometry {
    /// The measures of a volume of `size` bytes.
    pub fn new(size: u64) -> Result<Geometry, FatError> {
        let wrong = |why| FatError::Volume { size, why };
        if !size.is_multiple_of(SECTOR) {
            return Err(wrong("not a multiple of 512"));
        }
        let sectors = u32::try_from(size / SECTOR).map_err(|_| wrong("2 TiB or more"))?;
        let per_cluster = cluster_sectors(size);
        let reserved = RESERVED.next_multiple_of(per_cluster);
        let Some(rest) = u64::from(sectors).checked_sub(reserved) else {
            return Err(wrong("smaller than its reserved sectors"));
        };
        // With F sectors a FAT has room for 128 F clusters less the two entries that are none:
        // rest + 2 c <= F (128 c + 2) gives (rest - 2 F) / c <= 128 F - 2.
        let fat_sectors = (rest + 2 * per_cluster)
            .div_ceil(ENTRIES_PER_SECTOR * per_cluster + FATS)
            .next_multiple_of(per_cluster.max(GRAIN));
        let clusters = rest.saturating_sub(FATS * fat_sectors) / per_cluster;
        if clusters < MIN_CLUSTERS {
            return Err(wrong("under 65525 clusters, the least that make a volume FAT32"));
        }
        if clusters > MAX_CLUSTERS {
            return Err(wrong("more clusters than FAT32 has numbers for"));
        }
        let narrow = |_| wrong("beyond the fields of the boot sector");
        Ok(Geometry {
            sectors,
            reserved: u16::try_from(reserved).map_err(narrow)?,
            fat_sectors: u32::try_from(fat_sectors).map_err(narrow)?,
            cluster_sectors: u8::try_from(per_cluster).map_err(narrow)?,
            clusters: u32::try_from(clusters).map_err(narrow)?,
        })
    }

    /// Bytes of one cluster.
    pub fn cluster_bytes(&self) -> u64 {
        u64::from(self.cluster_sectors) * SECTOR
    }

    /// Bytes of one FAT.
    pub fn fat_bytes(&self) -> u64 {
        u64::from(self.fat_sectors) * SECTOR
    }

    /// Bytes from the start of the volume to its first cluster.
    #[cfg(test)]
    pub fn data_start(&self) -> u64 {
        u64::from(self.reserved) * SECTOR + FATS * self.fat_bytes()
    }
}

/// Sectors of a cluster in a volume of `size` bytes.
fn cluster_sectors(size: u64) -> u64 {
    CLASSES.iter().find(|(_, limit)| size <= *limit).map_or(64, |(sectors, _)| *sectors)
}

/// The smallest volume, in whole MiB, whose clusters are enough. `clusters_of` says how many
/// clusters of so many bytes are needed.
pub(super) fn smallest(clusters_of: impl Fn(u64) -> u64) -> Result<u64, FatError> {
    let mut floor = MIB;
    for (per_cluster, limit) in CLASSES {
        let wanted = clusters_of(per_cluster * SECTOR).max(MIN_CLUSTERS);
        let data = wanted.saturating_mul(per_cluster * SECTOR);
        let fats = wanted.saturating_mul(4 * FATS);
        // Counts too little by the reserved sectors and by roundings; the loop makes up for it.
        let mut size = data.saturating_add(fats).max(floor);
        while size <= limit.min(u64::from(u32::MAX) * SECTOR) {
            size = size.next_multiple_of(MIB);
            match Geometry::new(size) {
                Ok(geometry) if u64::from(geometry.clusters) >= wanted => return Ok(size),
                _ => size += MIB,
            }
        }
        floor = limit.saturating_add(MIB);
    }
    Err(FatError::Volume { size: clusters_of(SECTOR).saturating_mul(SECTOR), why: "2 TiB or more" })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_volume_of_raspberry_pi_os() {
        let g = Geometry::new(512 * MIB).unwrap();
        assert_eq!((g.sectors, g.reserved, g.cluster_sectors), (1_048_576, 32, 1));
        assert_eq!((g.fat_sectors, g.clusters), (8072, 1_032_400));
    }

    #[test]
    fn cluster_sizes_follow_the_volume() {
        for (mib, want) in [(34, 1), (512, 1), (1024, 1), (1025, 8), (8192, 8), (8193, 16), (40_000, 64)] {
            assert_eq!(Geometry::new(mib * MIB).unwrap().cluster_sectors, want, "{mib} MiB");
        }
    }

    #[test]
    fn volumes_that_cannot_be_fat32_are_refused() {
        for size in [0, 512, 16 * MIB, 32 * MIB, 33 * MIB + 1, 512 * MIB + 511, 2048 * 1024 * MIB, u64::MAX] {
            assert!(matches!(Geometry::new(size), Err(FatError::Volume { .. })), "{size}");
        }
    }

    #[test]
    fn the_smallest_volume_is_one() {
        for need in [0, 65_525, 65_526, 100_000, 2_000_000, 3_000_000] {
            let size = smallest(|cluster| (need * SECTOR).div_ceil(cluster)).unwrap();
            let g = Geometry::new(size).unwrap();
            assert!(u64::from(g.clusters) * g.cluster_bytes() >= need * SECTOR, "{need}");
            // One less MiB is not enough, or it has clusters of another size.
            let less = Geometry::new(size - MIB);
            assert!(less.is_err() || u64::from(less.unwrap().clusters) < need.max(MIN_CLUSTERS), "{need}");
        }
        assert!(smallest(|_| u64::MAX).is_err());
    }

    proptest! {
        #[test]
        fn fats_reach_the_last_cluster_and_clusters_end_in_the_volume(sectors in 66_700u64..1 << 32) {
            let Ok(g) = Geometry::new(sectors * SECTOR) else { return Ok(()) };
            prop_assert!(g.fat_bytes() / 4 >= u64::from(g.clusters) + 2);
            let end = g.data_start() + u64::from(g.clusters) * g.cluster_bytes();
            prop_assert!(end <= sectors * SECTOR);
            prop_assert!(g.data_start() % 4096 == 0);
            prop_assert!(sectors * SECTOR - end < g.cluster_bytes());
        }
    }
}
