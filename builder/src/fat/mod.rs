//! FAT32 filesystems, written straight from a tree: laid out first, then emitted front to back.
//! Must not know: partition tables, nodes, what the firmware wants to find.
//! Spec: Microsoft FAT specification 1.03 (fatgen103), with the choices of mkfs.fat where it is free.
//!
//! FAT keeps less than a tree has. Owners, modes and extended attributes are dropped; a file with
//! several names is written once for each; times lose the odd second and everything outside 1980 to
//! 2107. What cannot be dropped without a lie (links, devices, names that FAT has no letters for) is
//! an error that names the path.

mod format;
mod geometry;
mod layout;
mod name;
pub mod read;
mod writer;

use crate::store::StoreError;
use crate::tree::TreePath;

pub use layout::{Layout, lay_out, size_for};
pub use name::NameError;

/// What a volume has besides its tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// Bytes of the whole volume, a multiple of 512. Some 33 MiB are the least: FAT32 is told from
    /// FAT16 by its count of clusters alone.
    pub size: u64,
    /// The volume id, shown as `1234-ABCD`.
    pub serial: u32,
    /// At most 11 characters, such as `bootfs`; empty for none.
    pub label: String,
    /// Sectors of 512 bytes before the partition on its disk.
    pub hidden_sectors: u32,
}

/// A tree that does not fit FAT32, or could not be written. Paths are the tree's.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FatError {
    /// FAT has directories and regular files and nothing else.
    #[error("`{path}` is a {found}, which FAT cannot hold")]
    Kind {
        /// The entry.
        path: TreePath,
        /// Its type.
        found: &'static str,
    },
    /// A name that FAT cannot spell.
    #[error("the name of `{path}` is not possible on FAT")]
    Name {
        /// The entry.
        path: TreePath,
        /// Why not.
        source: NameError,
    },
    /// Two names that differ in case only are one name on FAT.
    #[error("`{path}` and `{other}` have the same name on FAT, which ignores case")]
    Duplicate {
        /// The entry that comes later.
        path: TreePath,
        /// The one before it.
        other: TreePath,
    },
    /// A file of 4 GiB or more: the size field has 32 bits.
    #[error("`{path}` has {size} bytes; FAT ends at 4294967295")]
    FileSize {
        /// The file.
        path: TreePath,
        /// Its size in bytes.
        size: u64,
    },
    /// A directory of more than 2 MiB.
    #[error("the directory `{path}` needs {entries} entries of 32 bytes; FAT ends at 65536")]
    DirectorySize {
        /// The directory.
        path: TreePath,
        /// How many entries its names take, long names included.
        entries: u64,
    },
    /// A label that cannot be stored.
    #[error("`{label}` is no FAT label: at most 11 ASCII characters, none of `\"*+,./:;<=>?[\\]|`")]
    Label {
        /// What was asked for.
        label: String,
    },
    /// A volume that cannot be FAT32 whatever is in it.
    #[error("no FAT32 volume can have {size} bytes: {why}")]
    Volume {
        /// The size asked for, in bytes.
        size: u64,
        /// Which limit it breaks.
        why: &'static str,
    },
    /// The tree is too big for the volume.
    #[error("the volume has room for {room} bytes in clusters of {cluster}; {needed} are needed")]
    Full {
        /// Bytes that the tree takes, rounded up to clusters.
        needed: u64,
        /// Bytes in all clusters.
        room: u64,
        /// Bytes of a cluster.
        cluster: u64,
    },
    /// The bytes of a file are not in the store as they should be.
    #[error("reading `{path}` from the store")]
    Store {
        /// The file.
        path: TreePath,
        /// What the store said.
        source: StoreError,
    },
    /// The bytes of a file could not be read.
    #[error("reading `{path}`")]
    Read {
        /// The file.
        path: TreePath,
        /// What the system said.
        source: std::io::Error,
    },
    /// The image could not be written.
    #[error("writing a FAT volume at byte {at}")]
    Sink {
        /// Bytes from the start of the volume.
        at: u64,
        /// What the sink said.
        source: std::io::Error,
    },
}

#[cfg(test)]
mod tests;
