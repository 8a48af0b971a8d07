//! The shape of a volume, and chains of clusters.
//! Must not know: directory entries.
//! Spec: fatgen103, "Boot sector and BPB" and "FAT type determination".

use std::io::{self, Read};

use super::FatReadError;
use crate::io::at::ReadAt;
use crate::tree::TreePath;

/// Number of a cluster; the first is 2, and an empty file has 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Cluster(pub u32);

/// Where a directory or a file lies.
#[derive(Debug, Clone, Copy)]
pub(super) enum Chain {
    /// The root directory of FAT12 and FAT16: bytes from the start of the volume.
    Fixed { at: u64, len: u64 },
    /// Clusters from this one on.
    Clusters(Cluster),
}

/// Bits of an entry of the FAT.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Width {
    Fat12,
    Fat16,
    Fat32,
}

/// A volume of which the shape is known.
pub(super) struct Volume<'d> {
    device: &'d dyn ReadAt,
    width: Width,
    cluster: u64,
    /// Clusters are numbered from 2 to below this.
    end: u32,
    /// Where the first FAT and the first cluster begin.
    fat: u64,
    data: u64,
    root: Chain,
}

impl<'d> Volume<'d> {
    pub fn open(device: &'d dyn ReadAt) -> Result<Volume<'d>, FatReadError> {
        let mut sector = [0; 512];
        read(device, &mut sector, 0)?;
        let word = |at: usize| u64::from(u16::from_le_bytes([sector[at], sector[at + 1]]));
        let long = |at: usize| word(at) | word(at + 2) << 16;
        let wrong = |at: u64, what: String| Err(FatReadError::Boot { at, what });
        if sector[510..] != [0x55, 0xaa] {
            return wrong(510, "no FAT volume: the signature 0x55 0xaa is missing".into());
        }
        let bytes = word(11);
        if !matches!(bytes, 512 | 1024 | 2048 | 4096) {
            return wrong(11, format!("no FAT volume: sectors of {bytes} bytes"));
        }
        let per_cluster = u64::from(sector[13]);
        if !per_cluster.is_power_of_two() {
            return wrong(13, format!("clusters of {per_cluster} sectors"));
        }
        let (reserved, fats, root_entries) = (word(14), u64::from(sector[16]), word(17));
        if reserved == 0 || !(1..=4).contains(&fats) {
            return wrong(14, format!("{reserved} reserved sectors, {fats} FATs"));
        }
        let sectors = if word(19) != 0 { word(19) } else { long(32) };
        let fat_sectors = if word(22) != 0 { word(22) } else { long(36) };
        let root_sectors = (root_entries * 32).div_ceil(bytes);
        let before = reserved + fats * fat_sectors + root_sectors;
        if sectors * bytes > device.size() {
            return wrong(32, format!("{sectors} sectors, but there are {} bytes in all", device.size()));
        }
        let Some(room) = sectors.checked_sub(before) else {
            return wrong(32, format!("{sectors} sectors, of which {before} are its own"));
        };
        let clusters = room / per_cluster;
        let width = match clusters {
            0..4085 => Width::Fat12,
            4085..65_525 => Width::Fat16,
            _ => Width::Fat32,
        };
        // Numbers from 0x0FFF_FFF7 on mean something else.
        let end = u32::try_from(clusters + 2).ok().filter(|end| *end <= 0x0fff_fff7);
        let Some(end) = end else { return wrong(32, format!("{clusters} clusters")) };
        let bits = match width {
            Width::Fat12 => 12,
            Width::Fat16 => 16,
            Width::Fat32 => 32,
        };
        if (clusters + 2) * bits > fat_sectors * bytes * 8 {
            return wrong(36, format!("FATs of {fat_sectors} sectors for {clusters} clusters"));
        }
        let fat = reserved * bytes;
        let fixed = (reserved + fats * fat_sectors) * bytes;
        let root = match width {
            Width::Fat32 => Chain::Clusters(Cluster(u32::try_from(long(44)).unwrap_or(0))),
            _ => Chain::Fixed { at: fixed, len: root_entries * 32 },
        };
        Ok(Volume { device, width, cluster: per_cluster * bytes, end, fat, data: before * bytes, root })
    }

    pub fn root(&self) -> Chain {
        self.root
    }

    /// All bytes of a directory.
    pub fn read(&self, chain: Chain, most: u64, path: &TreePath) -> Result<Vec<u8>, FatReadError> {
        let damaged = |what: String| FatReadError::Damaged { path: path.clone(), what };
        let mut bytes = Vec::new();
        match chain {
            Chain::Fixed { at, len } => {
                bytes.resize(usize::try_from(len).unwrap_or(0), 0);
                read(self.device, &mut bytes, at)?;
            }
            Chain::Clusters(first) => {
                let mut next = Some(first);
                while let Some(cluster) = next {
                    // Also what ends a chain that comes back to itself.
                    if bytes.len() as u64 >= most {
                        return Err(damaged(format!("a directory of more than {most} bytes")));
                    }
                    let start = bytes.len();
                    bytes.resize(start + usize::try_from(self.cluster).unwrap_or(0), 0);
                    let at = self.place(cluster).ok_or_else(|| damaged(format!("cluster {}", cluster.0)))?;
                    read(self.device, &mut bytes[start..], at)?;
                    next = self.after(cluster)?;
                }
            }
        }
        Ok(bytes)
    }

    /// The bytes of a file; what is wrong with its chain comes as an [`io::Error`] around ours.
    pub fn file<'v>(&'v self, first: Cluster, size: u32, path: &'v TreePath) -> FileContent<'v> {
        FileContent { volume: self, path, next: Some(first), left: size, at: 0, here: 0 }
    }

    /// Where a cluster lies, if there is one of this number.
    fn place(&self, cluster: Cluster) -> Option<u64> {
        let index = cluster.0.checked_sub(2).filter(|_| cluster.0 < self.end)?;
        Some(self.data + u64::from(index) * self.cluster)
    }

    /// The cluster that follows in the chain, if it goes on.
    fn after(&self, cluster: Cluster) -> Result<Option<Cluster>, FatReadError> {
        let number = u64::from(cluster.0);
        let entry = |at: u64, bytes: &mut [u8]| read(self.device, bytes, self.fat + at);
        let (next, end) = match self.width {
            Width::Fat12 => {
                let mut two = [0; 2];
                entry(number + number / 2, &mut two)?;
                let both = u32::from(u16::from_le_bytes(two));
                (if number % 2 == 0 { both & 0xfff } else { both >> 4 }, 0xff8)
            }
            Width::Fat16 => {
                let mut two = [0; 2];
                entry(number * 2, &mut two)?;
                (u32::from(u16::from_le_bytes(two)), 0xfff8)
            }
            Width::Fat32 => {
                let mut four = [0; 4];
                entry(number * 4, &mut four)?;
                (u32::from_le_bytes(four) & 0x0fff_ffff, 0x0fff_fff8)
            }
        };
        Ok((next < end).then_some(Cluster(next)))
    }
}

/// The bytes of one file.
pub(super) struct FileContent<'v> {
    volume: &'v Volume<'v>,
    path: &'v TreePath,
    /// The cluster that follows those of `here`.
    next: Option<Cluster>,
    /// Bytes of the file that were not read yet.
    left: u32,
    /// Where the next byte lies, and how many follow it in a row.
    at: u64,
    here: u64,
}

impl FileContent<'_> {
    /// Goes on to the next clusters, as many as lie in a row.
    fn advance(&mut self) -> Result<(), FatReadError> {
        let damaged = |what: String| FatReadError::Damaged { path: self.path.clone(), what };
        let Some(first) = self.next else {
            return Err(damaged(format!("its chain of clusters ends {} bytes before the file", self.left)));
        };
        let place = |cluster: Cluster| {
            self.volume.place(cluster).ok_or_else(|| damaged(format!("its cluster {} is none", cluster.0)))
        };
        let at = place(first)?;
        let (mut last, mut len) = (first, self.volume.cluster);
        loop {
            // Beyond the file's end the chain is not followed: it need not have one.
            let next = if len >= self.left.into() { None } else { self.volume.after(last)? };
            match next {
                Some(cluster) if cluster.0 == last.0 + 1 && place(cluster).is_ok() => {
                    last = cluster;
                    len += self.volume.cluster;
                }
                next => {
                    (self.next, self.at, self.here) = (next, at, len);
                    return Ok(());
                }
            }
        }
    }
}

impl Read for FileContent<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.left == 0 || buffer.is_empty() {
            return Ok(0);
        }
        if self.here == 0 {
            self.advance().map_err(io::Error::other)?;
        }
        let most = self.here.min(self.left.into());
        let len = buffer.len().min(usize::try_from(most).unwrap_or(usize::MAX));
        self.volume.device.read_at(&mut buffer[..len], self.at)?;
        (self.at, self.here) = (self.at + len as u64, self.here - len as u64);
        // No longer than `left`, which has 32 bits.
        self.left -= u32::try_from(len).unwrap_or(self.left);
        Ok(len)
    }
}

fn read(device: &dyn ReadAt, buffer: &mut [u8], at: u64) -> Result<(), FatReadError> {
    let len = buffer.len();
    device.read_at(buffer, at).map_err(|source| FatReadError::Io { at, len, source })
}
