//! Why a filesystem cannot be read.
//! Must not know: how it is read.

use std::io;

use crate::store::StoreError;
use crate::tree::TreeError;

/// A filesystem that cannot be read. Offsets count from its first byte.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReadError {
    /// The image could not be read, or ends before what its filesystem says it has.
    #[error("reading {len} bytes at {at}: {source}")]
    Io {
        /// Where.
        at: u64,
        /// How many bytes.
        len: usize,
        /// Why.
        source: io::Error,
    },
    /// Another filesystem, or none.
    #[error("no ext2, ext3 or ext4 filesystem: its superblock has the magic number {found:#06x}, not 0xef53")]
    Foreign {
        /// What is there.
        found: u16,
    },
    /// It has something that this reader does not know.
    #[error("the filesystem has the feature `{feature}`, which cannot be read")]
    Feature {
        /// mke2fs's name of it, or its bit.
        feature: String,
    },
    /// It was not unmounted: changes are in its journal and not yet in their places.
    #[error(
        "the filesystem was not unmounted cleanly: its journal holds changes that are not in place; \
         `e2fsck -fy` on a copy of the partition puts them there"
    )]
    Journal,
    /// Something in it cannot be true.
    #[error("{place}, at byte {at}: {what}")]
    Damaged {
        /// Of what: the superblock, a group, an inode.
        place: String,
        /// Where it lies.
        at: u64,
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
