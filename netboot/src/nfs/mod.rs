//! A read-only NFSv3 server with MOUNT and NFS_ACL, over immutable exports.
//! Must not know: images, how trees are kept. It asks its [`Host`] who may mount what, and an
//! [`Export`] for inodes.
//! Spec: RFC 1813 (NFSv3 and MOUNT v3); NFS_ACL v3 as the Linux kernel's fs/nfs_common/nfsacl.c and
//! include/uapi/linux/nfsacl.h define it.

mod access;
mod acl;
mod connection;
mod counters;
pub mod fuzz;
pub mod handle;
pub mod memory;
mod mount;
mod ops;
mod read;
pub mod service;
pub mod types;

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

pub use counters::Calls;
pub use service::{Ports, Server, Sockets};

use crate::content::Content;
use crate::site::Site;

/// What the NFS server asks of the half that knows images and boots. Calls are quick.
pub trait Host: Send + Sync + 'static {
    /// The site as it is now.
    fn site(&self) -> Arc<Site>;
    /// `node`, whose address asked, mounts its root: the export that its boot is pinned to, or why
    /// it gets none.
    fn mount(&self, node: &str) -> Result<Arc<dyn Export>, Denied>;
    /// The export with this id, if `node` may still read it: that of its pinned boot, or of the boot
    /// before while the new one has not mounted. `Gone` if it once had it.
    fn export(&self, node: &str, id: ExportId) -> Result<Arc<dyn Export>, Denied>;
    /// Something was seen.
    fn event(&self, event: Event);
}

/// Why a node gets no export.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Denied {
    /// The node has no boot: it must ask by DHCP or TFTP first. MNT3ERR_ACCES, NFS3ERR_ACCES.
    NoBoot,
    /// The export is no longer served to this node. NFS3ERR_STALE.
    Gone,
}

/// Names one generation's root tree as given to one node, for ever: it is part of every file handle.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ExportId(pub [u8; 16]);

/// Number of an inode in one export: the root is 1, hard links share one, 0 is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FileId(pub u64);

/// The type of an inode (RFC 1813, ftype3), with the device number of those that have one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileType {
    /// NF3REG
    Regular,
    /// NF3DIR
    Directory,
    /// NF3BLK: major, minor.
    Block(u32, u32),
    /// NF3CHR: major, minor.
    Char(u32, u32),
    /// NF3LNK
    Symlink,
    /// NF3SOCK
    Socket,
    /// NF3FIFO
    Fifo,
}

/// What GETATTR tells, without what follows from the export. Atime and ctime are mtime.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attributes {
    /// Type.
    pub kind: FileType,
    /// The twelve low bits: permissions, set-uid, set-gid, sticky.
    pub mode: u16,
    /// Names; for a directory 2 and its subdirectories.
    pub nlink: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Bytes; of a symbolic link its target's length.
    pub size: u64,
    /// Bytes on disk.
    pub used: u64,
    /// Seconds and nanoseconds since 1970.
    pub mtime: (i64, u32),
}

/// An immutable filesystem. Everything but [`Export::open`] answers from memory.
pub trait Export: Send + Sync + 'static {
    /// Its id.
    fn id(&self) -> ExportId;
    /// Attributes, or `None` if there is no such inode.
    fn attributes(&self, file: FileId) -> Option<Attributes>;
    /// The entry `name` of a directory; not asked for `.` and `..`.
    fn lookup(&self, dir: FileId, name: &[u8]) -> Option<FileId>;
    /// The directory that holds a directory; the root holds itself.
    fn parent(&self, dir: FileId) -> Option<FileId>;
    /// The entry at `position` of a directory, counted from 0 in canonical order (by bytes of the
    /// name), or `None` past the end.
    fn entry(&self, dir: FileId, position: u64) -> Option<(&[u8], FileId)>;
    /// The target of a symbolic link.
    fn link_target(&self, file: FileId) -> Option<&[u8]>;
    /// The content of a regular file. It opens a local file at most.
    fn open(&self, file: FileId) -> std::io::Result<Content>;
    /// Value of an extended attribute, such as `system.posix_acl_access` for GETACL.
    fn xattr(&self, file: FileId, name: &[u8]) -> Option<&[u8]>;
    /// Inodes in all.
    fn inodes(&self) -> u64;
    /// Bytes of all files.
    fn bytes(&self) -> u64;
}

/// What a person would want to read of a mount.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event {
    /// A node mounted its root.
    Mounted {
        /// The node.
        node: String,
        /// The export.
        export: ExportId,
    },
    /// Someone asked for what it may not have.
    Refused {
        /// Who.
        from: Ipv4Addr,
        /// What, for the log: `MNT /fenn`, `handle of another node`.
        what: String,
    },
    /// Bytes that are no RPC, counted; the connection is closed.
    Malformed {
        /// Who sent them.
        from: SocketAddr,
        /// What is wrong, for the log.
        reason: String,
    },
}
