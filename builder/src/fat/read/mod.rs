//! Reads a FAT12, FAT16 or FAT32 volume out of an image, without mounting it.
//! Must not know: partition tables, what the files are for.
//! Spec: Microsoft FAT specification 1.03 (fatgen103); names and owners as the kernel's vfat shows them when it
//! is mounted with `umask=0022,utf8`.
//!
//! Nothing in a volume is believed: a chain of clusters ends with the size that its file states, a directory
//! with the most that it may have, and all files together with the volume.

mod volume;

use std::collections::HashSet;
use std::io;

use self::volume::{Chain, Cluster, Volume};
use super::format::{ENTRY, checksum, unix_time};
use crate::io::at::ReadAt;
use crate::store::{Store, StoreError};
use crate::tree::{Inode, Kind, Meta, Time, Tree, TreeError, TreePath, printable};

/// Bytes of a directory at most: fatgen103, "Directory structure".
const DIR_MAX: u64 = 2 << 20;
/// FAT knows no owners and no permissions.
const MODE: u16 = 0o755;

const ATTR_LABEL: u8 = 0x08;
const ATTR_DIRECTORY: u8 = 0x10;
const ATTR_LONG: u8 = 0x0f;
/// The bits that tell a long entry from others.
const ATTR_MASK: u8 = 0x3f;

/// A volume that cannot be read. Offsets count from its first byte.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FatReadError {
    /// The image could not be read, or ends before what its volume says it has.
    #[error("reading {len} bytes at {at}: {source}")]
    Io {
        /// Where.
        at: u64,
        /// How many bytes.
        len: usize,
        /// Why.
        source: io::Error,
    },
    /// The boot sector is none of a FAT volume.
    #[error("boot sector, at byte {at}: {what}")]
    Boot {
        /// Where.
        at: u64,
        /// What is wrong.
        what: String,
    },
    /// A directory or a chain of clusters that cannot be.
    #[error("`{path}`: {what}")]
    Damaged {
        /// The entry, or the directory that it is in.
        path: TreePath,
        /// What is wrong.
        what: String,
    },
    /// What was read could not be stored.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The entries make no tree.
    #[error(transparent)]
    Tree(#[from] TreeError),
}

/// Reads all directories and files of the volume.
pub fn into_tree(device: &dyn ReadAt, store: &Store) -> Result<Tree, FatReadError> {
    let volume = Volume::open(device)?;
    let owned = |mtime| Meta::root_owned(MODE, mtime);
    // The root has no entry, and with it no time.
    let mut tree = Tree::new(owned(Time::default()));
    let mut todo = vec![(TreePath::root(), volume.root())];
    let (mut seen, mut total) = (HashSet::new(), 0u64);
    while let Some((dir, chain)) = todo.pop() {
        let bytes = volume.read(chain, DIR_MAX, &dir)?;
        for Entry { name, directory, first, size, mtime } in entries(&dir, &bytes)? {
            let wrong = |what: String| FatReadError::Damaged { path: dir.clone(), what };
            let path = dir.join(name.as_bytes()).map_err(|e| wrong(e.to_string()))?;
            if tree.get(&path).is_some() {
                return Err(FatReadError::Damaged { path, what: "the name is there twice".into() });
            }
            let damaged = |what: &str| FatReadError::Damaged { path: path.clone(), what: what.to_owned() };
            if directory {
                if !seen.insert(first) {
                    return Err(damaged("the directory is another's too"));
                }
                tree.insert(path.clone(), Inode::dir(owned(mtime)))?;
                todo.push((path, Chain::Clusters(first)));
                continue;
            }
            total += u64::from(size);
            if total > device.size() {
                return Err(damaged(
                    "its clusters are other files' too: there are more bytes than the volume has",
                ));
            }
            let object = store.put_reader(&mut volume.file(first, size, &path)).map_err(|e| match e {
                StoreError::Source(source) => match source.downcast::<FatReadError>() {
                    Ok(told) => told,
                    Err(source) => FatReadError::Io { at: 0, len: 0, source },
                },
                other => other.into(),
            })?;
            tree.insert(path, Inode { meta: owned(mtime), kind: Kind::File(object) })?;
        }
    }
    Ok(tree)
}

/// One file or directory of a directory.
#[derive(Debug, PartialEq, Eq)]
struct Entry {
    name: String,
    directory: bool,
    first: Cluster,
    size: u32,
    mtime: Time,
}

fn entries(dir: &TreePath, bytes: &[u8]) -> Result<Vec<Entry>, FatReadError> {
    let wrong = |what: String| FatReadError::Damaged { path: dir.clone(), what };
    let mut found = Vec::new();
    let mut long = Long::default();
    for entry in bytes.chunks_exact(ENTRY) {
        match entry[0] {
            // Nothing follows.
            0 => break,
            // A name that was removed.
            0xe5 => {
                long = Long::default();
                continue;
            }
            _ => {}
        }
        let attributes = entry[11];
        if attributes & ATTR_MASK == ATTR_LONG {
            long.add(entry);
            continue;
        }
        let name = std::mem::take(&mut long).name(&entry[..11]);
        if attributes & ATTR_LABEL != 0 {
            continue;
        }
        let name = match name {
            Some(units) => String::from_utf16(&units).map_err(|_| {
                wrong(format!("the name `{}` is no UTF-16", String::from_utf16_lossy(&units)))
            })?,
            None => short_name(&entry[..11], entry[12])
                .ok_or_else(|| wrong(format!("the short name `{}`", printable(&entry[..11]))))?,
        };
        if name == "." || name == ".." {
            continue;
        }
        if name.is_empty() || name.contains(['/', '\0']) {
            return Err(wrong(format!("the name `{}`", printable(name.as_bytes()))));
        }
        let word = |at: usize| u16::from_le_bytes([entry[at], entry[at + 1]]);
        found.push(Entry {
            name,
            directory: attributes & ATTR_DIRECTORY != 0,
            first: Cluster(u32::from(word(20)) << 16 | u32::from(word(26))),
            size: u32::from(word(28)) | u32::from(word(30)) << 16,
            mtime: unix_time(word(24), word(22)),
        });
    }
    Ok(found)
}

/// The parts of a long name, which stand before their short entry, the last part first.
#[derive(Default)]
struct Long {
    units: Vec<u16>,
    /// The part that must come next, and what all parts must state.
    next: u8,
    sum: u8,
}

impl Long {
    fn add(&mut self, entry: &[u8]) {
        let (number, last, sum) = (entry[0] & 0x3f, entry[0] & 0x40 != 0, entry[13]);
        if last {
            *self = Long { units: Vec::new(), next: number, sum };
        }
        // A part without its fellows is what another system left when it removed a name by the short entry.
        if number == 0 || number > 20 || number != self.next || sum != self.sum {
            *self = Long::default();
            return;
        }
        let part = [1..11, 14..26, 28..32].into_iter().flat_map(|range| entry[range].chunks_exact(2));
        let part = part.map(|unit| u16::from_le_bytes([unit[0], unit[1]]));
        self.units.splice(0..0, part);
        self.next = number - 1;
    }

    /// The name, if it belongs to this short one.
    fn name(self, short: &[u8]) -> Option<Vec<u16>> {
        let whole = self.next == 0 && !self.units.is_empty();
        let ours = short.first_chunk::<11>().is_some_and(|short| checksum(short) == self.sum);
        (whole && ours).then(|| self.units.into_iter().take_while(|unit| *unit != 0).collect())
    }
}

/// Eight and three letters; bits 3 and 4 of `flags` say that they are small (Windows NT's, and Linux's).
/// `None` for letters of a code page, which the volume does not name.
fn short_name(short: &[u8], flags: u8) -> Option<String> {
    let part = |bytes: &[u8], small: bool| -> Option<String> {
        let text = std::str::from_utf8(bytes).ok().filter(|text| text.is_ascii())?.trim_end_matches(' ');
        Some(if small { text.to_ascii_lowercase() } else { text.to_owned() })
    };
    let (base, extension) = (part(&short[..8], flags & 0x08 != 0)?, part(&short[8..11], flags & 0x10 != 0)?);
    Some(if extension.is_empty() { base } else { format!("{base}.{extension}") })
}

#[cfg(test)]
mod tests;
