//! Writes ext4 filesystems from a tree and the store, front to back, without root, mounts or loop
//! devices. [`lay_out`] decides every block first and writes nothing; [`Layout::write`] follows it.
//! Must not know: partition tables, roles, where the image goes.
//! Spec: the kernel's Documentation/filesystems/ext4 and fs/ext4; what mke2fs 1.47.0 writes by
//! default on Debian 12 and 13 is the model for every choice that the format leaves open.
//!
//! ```text
//! flex group 0   superblock, descriptors, room for more of them │ bitmaps and inode tables of 16
//!                groups │ journal │ directories │ attribute blocks, long links │ file bytes …
//! flex group n   (backup superblock and descriptors) │ bitmaps and inode tables │ file bytes …
//! ```
//!
//! File bytes lie in canonical order with no gap between files, so an image is read and written in
//! one sweep, and all that is free is at the end. Skipped ranges must read as zero bytes: unused
//! inode tables and the journal count on it.

mod acl;
mod checksum;
mod content;
mod dir;
mod error;
mod extent;
mod feed;
mod format;
mod geometry;
mod group;
mod hash;
mod inode;
mod layout;
pub mod read;
mod space;
mod superblock;
mod writer;
mod xattr;

#[cfg(test)]
mod tests;

use crate::tree::{Time, Tree};

pub use error::Ext4Error;
pub use layout::{Layout, lay_out};

/// What a filesystem is made with, besides its tree. The same options and tree give the same bytes.
#[derive(Clone, Debug)]
pub struct Options {
    /// Bytes of the filesystem: a multiple of 4096, from 8 MiB to 8 TiB.
    pub size: u64,
    /// Identifies the filesystem, and is the seed of all its checksums.
    pub uuid: [u8; 16],
    /// Spreads the names of large directories.
    pub hash_seed: [u8; 16],
    /// Volume label, at most 16 bytes.
    pub label: String,
    /// When the filesystem was made: its own times and those of the journal, and of `lost+found`
    /// unless the tree has one. From 1970 on.
    pub time: Time,
    /// Blocks that only root may fill, in percent; at most 50.
    pub reserved_percent: u8,
}

/// Sizes are multiples of this, so that a partition is a whole number of an SD card's erase units.
const SIZE_STEP: u64 = 4 << 20;

/// The smallest size in bytes, a multiple of 4 MiB, of a filesystem that holds `tree` and has at
/// least `free` bytes free. Holds for every [`Options`]. Fails as [`lay_out`] would.
pub fn size_for(tree: &Tree, free: u64) -> Result<u64, Ext4Error> {
    let content = content::Content::gather(tree, Time::default())?;
    layout::size_for(&content, free)
}

/// As [`size_for`], with free bytes that depend on the size which leaves none free.
pub fn roomy_size_for(tree: &Tree, free: impl FnOnce(u64) -> u64) -> Result<u64, Ext4Error> {
    let content = content::Content::gather(tree, Time::default())?;
    let tight = layout::size_for(&content, 0)?;
    layout::size_for(&content, free(tight))
}
