//! NFSv3's numbers and the attributes of an inode as they stand on the wire.
//! Must not know: procedures, handles.
//! Spec: RFC 1813 sections 2.5 and 2.6.

use crate::nfs::{Attributes, ExportId, FileId, FileType};
use crate::rpc::xdr::Writer;

/// The NFS program.
pub const PROGRAM: u32 = 100_003;
/// The only version that is served: overlayfs does not work over an NFSv4 lower.
pub const VERSION: u32 = 3;

/// Most bytes of one READ, and of one directory answer. What other servers offer too; rsize from 1 KB
/// to 1 MB took one server from 4 to 40 MB/s.
pub const RTMAX: u32 = 1 << 20;
/// Longest name (NAME_MAX).
pub const NAME_MAX: usize = 255;
/// Longest handle that the protocol allows (NFS3_FHSIZE).
pub const HANDLE_MAX: usize = 64;

/// `fattr3` in bytes.
pub const FATTR_SIZE: usize = 84;
/// `post_op_attr` with attributes, in bytes.
pub const POST_OP_SIZE: usize = 4 + FATTR_SIZE;

/// nfsstat3, as far as a read-only server gives it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
#[expect(missing_docs, reason = "the names are RFC 1813's, less NFS3ERR_")]
pub enum Status {
    Ok = 0,
    NoEnt = 2,
    Io = 5,
    Acces = 13,
    NotDir = 20,
    IsDir = 21,
    Inval = 22,
    RoFs = 30,
    NameTooLong = 63,
    Stale = 70,
    BadHandle = 10001,
    TooSmall = 10005,
}

impl Status {
    /// The number on the wire.
    pub fn code(self) -> u32 {
        self as u32
    }
}

/// The filesystem's number: the same for all inodes of an export, another for another export, never 0
/// (which some clients take for "none").
pub fn fsid(export: ExportId) -> u64 {
    let (head, tail) = export.0.split_at(8);
    // Cannot fail: 16 bytes have two halves of 8.
    let half = |bytes: &[u8]| u64::from_be_bytes(bytes.try_into().unwrap_or([0; 8]));
    (half(head) ^ half(tail)).max(1)
}

/// Appends `fattr3`.
pub fn fattr3(out: &mut Vec<u8>, export: ExportId, file: FileId, attributes: &Attributes) {
    let (kind, major, minor) = match attributes.kind {
        FileType::Regular => (1, 0, 0),
        FileType::Directory => (2, 0, 0),
        FileType::Block(major, minor) => (3, major, minor),
        FileType::Char(major, minor) => (4, major, minor),
        FileType::Symlink => (5, 0, 0),
        FileType::Socket => (6, 0, 0),
        FileType::Fifo => (7, 0, 0),
    };
    for word in [kind, u32::from(attributes.mode & 0o7777), attributes.nlink, attributes.uid, attributes.gid]
    {
        out.u32(word);
    }
    out.u64(attributes.size);
    out.u64(attributes.used);
    out.u32(major);
    out.u32(minor);
    out.u64(fsid(export));
    out.u64(file.0);
    let (seconds, nanoseconds) = time(attributes.mtime);
    for _atime_mtime_ctime in 0..3 {
        out.u32(seconds);
        out.u32(nanoseconds);
    }
}

/// `nfstime3` has 32 bits for seconds, which clients take as unsigned: 1970 to 2106. A time outside is
/// shown as the nearest end, the same on each server and at each restart, for overlayfs compares times.
fn time((seconds, nanoseconds): (i64, u32)) -> (u32, u32) {
    match u32::try_from(seconds) {
        Ok(seconds) => (seconds, nanoseconds.min(999_999_999)),
        Err(_) if seconds < 0 => (0, 0),
        Err(_) => (u32::MAX, 999_999_999),
    }
}

#[cfg(test)]
mod tests {
    use nfs3_types::nfs3::fattr3 as foreign;
    use nfs3_types::xdr_codec::Unpack;

    use super::*;

    fn attributes(kind: FileType) -> Attributes {
        Attributes {
            kind,
            mode: 0o4755,
            nlink: 3,
            uid: 1000,
            gid: 1001,
            size: 5 << 32,
            used: 4096,
            mtime: (1_700_000_000, 123_456_789),
        }
    }

    fn read(attributes: &Attributes) -> foreign {
        let mut out = Vec::new();
        fattr3(&mut out, ExportId([3; 16]), FileId(77), attributes);
        assert_eq!(out.len(), FATTR_SIZE);
        foreign::unpack(&mut &out[..]).unwrap().0
    }

    #[test]
    fn a_foreign_client_reads_each_attribute() {
        for (kind, number, rdev) in [
            (FileType::Regular, 1, (0, 0)),
            (FileType::Directory, 2, (0, 0)),
            (FileType::Block(8, 1), 3, (8, 1)),
            (FileType::Char(1, 1_000_000), 4, (1, 1_000_000)),
            (FileType::Symlink, 5, (0, 0)),
            (FileType::Socket, 6, (0, 0)),
            (FileType::Fifo, 7, (0, 0)),
        ] {
            let found = read(&attributes(kind));
            assert_eq!(
                (found.type_ as u32, found.rdev.specdata1, found.rdev.specdata2),
                (number, rdev.0, rdev.1)
            );
            assert_eq!((found.mode, found.nlink, found.uid, found.gid), (0o4755, 3, 1000, 1001));
            assert_eq!((found.size, found.used, found.fileid), (5 << 32, 4096, 77));
            assert_eq!((found.mtime.seconds, found.mtime.nseconds), (1_700_000_000, 123_456_789));
            assert_eq!((found.atime.seconds, found.ctime.nseconds), (1_700_000_000, 123_456_789));
        }
    }

    #[test]
    fn times_outside_the_wire_are_its_ends() {
        for (mtime, want) in [
            ((0, 1), (0, 1)),
            ((-1, 5), (0, 0)),
            ((i64::from(u32::MAX), 7), (u32::MAX, 7)),
            ((i64::from(u32::MAX) + 1, 7), (u32::MAX, 999_999_999)),
            ((i64::MIN, 0), (0, 0)),
            ((5, u32::MAX), (5, 999_999_999)),
        ] {
            assert_eq!(time(mtime), want, "given {mtime:?}");
        }
    }

    #[test]
    fn fsid_is_never_0() {
        assert_eq!(fsid(ExportId([0; 16])), 1);
        assert_eq!(fsid(ExportId([9; 16])), 1, "halves that cancel out");
        assert_ne!(fsid(ExportId(*b"0123456789abcdef")), fsid(ExportId(*b"0123456789abcdeg")));
    }
}
