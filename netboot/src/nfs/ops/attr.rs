//! Procedures that tell of one inode or of the filesystem: GETATTR, ACCESS, READLINK, FSSTAT, FSINFO,
//! PATHCONF.
//! Must not know: directories, contents.
//! Spec: RFC 1813 sections 3.3.1, 3.3.4, 3.3.5, 3.3.18 to 3.3.20.

use crate::nfs::FileType;
use crate::nfs::access::{EXECUTE, READ};
use crate::nfs::ops::{Context, Inode, fail};
use crate::nfs::types::{HANDLE_MAX, NAME_MAX, RTMAX, Status, fattr3};
use crate::rpc::xdr::{Reader, Writer, XdrError};

// Bits of ACCESS. MODIFY, EXTEND and DELETE are never granted.
const ACCESS_READ: u32 = 1;
const ACCESS_LOOKUP: u32 = 2;
const ACCESS_EXECUTE: u32 = 0x20;

/// Reads a handle and finds its inode; a failure is written to `out`.
pub(super) fn subject(
    cx: &Context<'_>,
    arguments: &mut Reader<'_>,
    out: &mut Vec<u8>,
) -> Result<Option<Inode>, XdrError> {
    Ok(cx.resolve(arguments.opaque(HANDLE_MAX)?).map_err(|status| fail(out, status, None)).ok())
}

/// Appends the head of a successful result.
pub(super) fn ok(out: &mut Vec<u8>, inode: &Inode) {
    out.u32(Status::Ok.code());
    inode.post_op(out);
}

pub(super) fn getattr(
    cx: &Context<'_>,
    arguments: &mut Reader<'_>,
    out: &mut Vec<u8>,
) -> Result<(), XdrError> {
    match cx.resolve(arguments.opaque(HANDLE_MAX)?) {
        Ok(inode) => {
            out.u32(Status::Ok.code());
            fattr3(out, inode.export.id(), inode.id, &inode.attributes);
        }
        // The one failure without attributes behind it.
        Err(status) => out.u32(status.code()),
    }
    Ok(())
}

pub(super) fn access(
    cx: &Context<'_>,
    arguments: &mut Reader<'_>,
    out: &mut Vec<u8>,
) -> Result<(), XdrError> {
    let inode = subject(cx, arguments, out)?;
    let asked = arguments.u32()?;
    let Some(inode) = inode else { return Ok(()) };
    let granted = inode.granted(&cx.caller);
    let execute = match inode.attributes.kind {
        FileType::Directory => ACCESS_LOOKUP,
        _ => ACCESS_EXECUTE,
    };
    let mut allowed = if granted & READ != 0 { ACCESS_READ } else { 0 };
    if granted & EXECUTE != 0 {
        allowed |= execute;
    }
    ok(out, &inode);
    out.u32(allowed & asked);
    Ok(())
}

pub(super) fn readlink(
    cx: &Context<'_>,
    arguments: &mut Reader<'_>,
    out: &mut Vec<u8>,
) -> Result<(), XdrError> {
    let Some(inode) = subject(cx, arguments, out)? else { return Ok(()) };
    match inode.export.link_target(inode.id) {
        Some(target) => {
            ok(out, &inode);
            out.opaque(target);
        }
        None => fail(out, Status::Inval, Some(&inode)),
    }
    Ok(())
}

pub(super) fn fsstat(
    cx: &Context<'_>,
    arguments: &mut Reader<'_>,
    out: &mut Vec<u8>,
) -> Result<(), XdrError> {
    let Some(inode) = subject(cx, arguments, out)? else { return Ok(()) };
    ok(out, &inode);
    // Total, free and available: bytes, then files.
    for figure in [inode.export.bytes(), 0, 0, inode.export.inodes(), 0, 0] {
        out.u64(figure);
    }
    // Seconds for which nothing will change. "For an immutable file system, such as a CD-ROM, this
    // would be the largest unsigned integer."
    out.u32(u32::MAX);
    Ok(())
}

pub(super) fn fsinfo(
    cx: &Context<'_>,
    arguments: &mut Reader<'_>,
    out: &mut Vec<u8>,
) -> Result<(), XdrError> {
    const WTMAX: u32 = 64 * 1024;
    const MULTIPLE: u32 = 4096;
    const DTPREF: u32 = 64 * 1024;
    const MAX_FILE_SIZE: u64 = i64::MAX as u64;
    /// FSF3_LINK, FSF3_SYMLINK, FSF3_HOMOGENEOUS; without FSF3_CANSETTIME.
    const PROPERTIES: u32 = 0x0b;
    let Some(inode) = subject(cx, arguments, out)? else { return Ok(()) };
    ok(out, &inode);
    for word in [RTMAX, RTMAX, MULTIPLE, WTMAX, WTMAX, MULTIPLE, DTPREF] {
        out.u32(word);
    }
    out.u64(MAX_FILE_SIZE);
    // time_delta: one nanosecond.
    out.u32(0);
    out.u32(1);
    out.u32(PROPERTIES);
    Ok(())
}

pub(super) fn pathconf(
    cx: &Context<'_>,
    arguments: &mut Reader<'_>,
    out: &mut Vec<u8>,
) -> Result<(), XdrError> {
    /// ext4's, so that a tree from there is never over it.
    const LINK_MAX: u32 = 65_000;
    let Some(inode) = subject(cx, arguments, out)? else { return Ok(()) };
    ok(out, &inode);
    out.u32(LINK_MAX);
    out.u32(NAME_MAX as u32);
    // no_trunc, chown_restricted, case_insensitive, case_preserving
    for yes in [true, true, false, true] {
        out.bool(yes);
    }
    Ok(())
}
