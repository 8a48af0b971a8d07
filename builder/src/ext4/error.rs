//! Why a tree cannot be an ext4 filesystem, or could not be written.
//! Must not know: how the filesystem is laid out.
//! Spec: limits of ext4 with 4096-byte blocks and 256-byte inodes, as each variant states.

use std::io;

use crate::store::StoreError;
use crate::tree::{Time, TreePath, printable};

/// A filesystem could not be laid out or written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Ext4Error {
    /// The tree does not fit. The remedy is a larger filesystem, or a smaller tree.
    #[error("the tree needs a filesystem of {wanted} bytes, not of {size}")]
    TooSmall {
        /// Bytes that were given.
        size: u64,
        /// Bytes of the smallest filesystem that holds it.
        wanted: u64,
    },
    /// No filesystem of this size is written.
    #[error("a filesystem of {size} bytes is not supported: {why}")]
    Size {
        /// Bytes that were given.
        size: u64,
        /// The rule that it breaks.
        why: &'static str,
    },
    /// An option other than the size is out of its range.
    #[error("the {name} of the filesystem is {found}, but {wanted}")]
    Option {
        /// Which option.
        name: &'static str,
        /// Its value.
        found: String,
        /// Its range.
        wanted: &'static str,
    },
    /// ext4 keeps 34 bits of seconds.
    #[error("the time of `{path}` ({} s, {} ns) is outside of 1901-12-13 to 2446-05-10", time.sec, time.nsec)]
    Time {
        /// The entry.
        path: TreePath,
        /// Its time.
        time: Time,
    },
    /// Device numbers have 12 and 20 bits.
    #[error("the device number {major}:{minor} of `{path}` does not fit into 12 and 20 bits")]
    Device {
        /// The entry.
        path: TreePath,
        /// Device class.
        major: u32,
        /// Device in its class.
        minor: u32,
    },
    /// A file has at most 65,000 names.
    #[error("`{path}` has {links} names, but ext4 counts to 65000")]
    Links {
        /// Its first name.
        path: TreePath,
        /// How many names it has.
        links: u32,
    },
    /// Extents number the blocks of a file with 32 bits.
    #[error("`{path}` has {size} bytes, and files end before 16 TiB")]
    FileSize {
        /// The file.
        path: TreePath,
        /// Its length in bytes.
        size: u64,
    },
    /// The object's list of holes contradicts itself or the object's length.
    #[error("the holes recorded for `{path}` are not in order: one begins at byte {at}")]
    Holes {
        /// The file.
        path: TreePath,
        /// Where the first bad hole begins.
        at: u64,
    },
    /// A target is 1 to 4095 bytes, none of them zero.
    #[error("the target of the symbolic link `{path}` is empty, over 4095 bytes or holds a zero byte")]
    Symlink {
        /// The link.
        path: TreePath,
    },
    /// A directory index has two levels.
    #[error("the directory `{path}` has {entries} entries, more than an index of two levels takes")]
    DirSize {
        /// The directory.
        path: TreePath,
        /// How many entries it has.
        entries: usize,
    },
    /// `e2fsck` needs a directory of this name.
    #[error("`/lost+found` is a {found}, but ext4 needs a directory there")]
    LostAndFound {
        /// What it is.
        found: &'static str,
    },
    /// The kernel would not show this attribute.
    #[error("the attribute `{}` of `{path}` has a name that ext4 cannot keep", printable(name))]
    XattrName {
        /// The entry.
        path: TreePath,
        /// The attribute's full name.
        name: Vec<u8>,
    },
    /// Attributes have what the inode leaves, and one block.
    #[error("the attribute `{}` of `{path}` no longer fits: there is room for about 4 KiB", printable(name))]
    XattrSpace {
        /// The entry.
        path: TreePath,
        /// The first attribute that does not fit.
        name: Vec<u8>,
    },
    /// An access control list is malformed.
    #[error("the attribute `{}` of `{path}` is no access control list: {why}", printable(name))]
    Acl {
        /// The entry.
        path: TreePath,
        /// The attribute's full name.
        name: Vec<u8>,
        /// What is wrong.
        why: &'static str,
    },
    /// An object is not in the store, or not whole.
    #[error("writing `{path}`")]
    Store {
        /// The file.
        path: TreePath,
        /// What the store said.
        source: StoreError,
    },
    /// The bytes of an object could not be read.
    #[error("reading the bytes of `{path}` from byte {at}")]
    Read {
        /// The file.
        path: TreePath,
        /// Where reading began.
        at: u64,
        /// What the system said.
        source: io::Error,
    },
    /// The image could not be written.
    #[error("writing the filesystem at byte {at}")]
    Write {
        /// Bytes from the start of the filesystem.
        at: u64,
        /// What the system said.
        source: io::Error,
    },
}
