//! Procedures of directories: LOOKUP, READDIR, READDIRPLUS.
//! Must not know: contents.
//! Spec: RFC 1813 sections 3.3.3, 3.3.16, 3.3.17.
//!
//! A cookie names a place and no open iterator: `.` has 1, `..` has 2, the entry at position n has
//! n + 3. So it works twice, late, from each connection and after a restart. A server whose cookies
//! worked once answered BAD_COOKIE to READDIRPLUS, and systemd lost its units.

use crate::nfs::access::{EXECUTE, READ};
use crate::nfs::handle::HANDLE_SIZE;
use crate::nfs::ops::attr::{ok, subject};
use crate::nfs::ops::{Context, Inode, fail};
use crate::nfs::types::{NAME_MAX, POST_OP_SIZE, RTMAX, Status};
use crate::nfs::{FileId, FileType};
use crate::rpc::xdr::{Reader, Writer, XdrError, opaque_size};

/// The tree never changes while it is exported, so one value serves all, and every value is taken.
const VERIFIER: u64 = 0;

/// Names are taken as long as a message may be, to say NAMETOOLONG and not GARBAGE_ARGS.
const ANY_LENGTH: usize = crate::rpc::record::MAX_RECORD;

pub(super) fn lookup(
    cx: &Context<'_>,
    arguments: &mut Reader<'_>,
    out: &mut Vec<u8>,
) -> Result<(), XdrError> {
    let dir = subject(cx, arguments, out)?;
    let name = arguments.opaque(ANY_LENGTH)?;
    let Some(dir) = dir else { return Ok(()) };
    match find(cx, &dir, name) {
        Ok(found) => {
            out.u32(Status::Ok.code());
            cx.put_handle(out, &found);
            found.post_op(out);
            dir.post_op(out);
        }
        Err(status) => fail(out, status, Some(&dir)),
    }
    Ok(())
}

fn find(cx: &Context<'_>, dir: &Inode, name: &[u8]) -> Result<Inode, Status> {
    may(cx, dir, EXECUTE)?;
    if name.len() > NAME_MAX {
        return Err(Status::NameTooLong);
    }
    named(dir, name).and_then(|id| dir.sibling(id)).ok_or(Status::NoEnt)
}

fn named(dir: &Inode, name: &[u8]) -> Option<FileId> {
    match name {
        b"." => Some(dir.id),
        b".." => dir.export.parent(dir.id),
        _ => dir.export.lookup(dir.id, name),
    }
}

fn may(cx: &Context<'_>, dir: &Inode, what: u16) -> Result<(), Status> {
    if dir.attributes.kind != FileType::Directory {
        return Err(Status::NotDir);
    }
    if dir.granted(&cx.caller) & what == 0 { Err(Status::Acces) } else { Ok(()) }
}

/// The entry that follows the one with `cookie`; its own cookie is one more.
fn entry_after(dir: &Inode, cookie: u64) -> Option<(&[u8], FileId)> {
    match cookie {
        0 => Some((b".", dir.id)),
        1 => Some((b"..", dir.export.parent(dir.id)?)),
        _ => dir.export.entry(dir.id, cookie - 2),
    }
}

/// What one answer may hold, in bytes.
struct Room {
    /// The whole result.
    total: usize,
    /// Numbers, names and cookies of READDIRPLUS.
    names: usize,
    /// Each entry's attributes and handle, if those are asked for.
    plus: bool,
}

pub(super) fn readdir(
    cx: &Context<'_>,
    arguments: &mut Reader<'_>,
    out: &mut Vec<u8>,
) -> Result<(), XdrError> {
    let dir = subject(cx, arguments, out)?;
    let (cookie, _verifier, count) = (arguments.u64()?, arguments.u64()?, arguments.u32()?);
    if let Some(dir) = dir {
        list(cx, &dir, cookie, Room { total: bytes(count), names: usize::MAX, plus: false }, out);
    }
    Ok(())
}

pub(super) fn readdirplus(
    cx: &Context<'_>,
    arguments: &mut Reader<'_>,
    out: &mut Vec<u8>,
) -> Result<(), XdrError> {
    let dir = subject(cx, arguments, out)?;
    let (cookie, _verifier) = (arguments.u64()?, arguments.u64()?);
    let (dircount, maxcount) = (arguments.u32()?, arguments.u32()?);
    if let Some(dir) = dir {
        list(cx, &dir, cookie, Room { total: bytes(maxcount), names: bytes(dircount), plus: true }, out);
    }
    Ok(())
}

fn bytes(count: u32) -> usize {
    usize::try_from(count.min(RTMAX)).unwrap_or(usize::MAX)
}

/// Appends the result from the entry behind `cookie` on. A cookie past the end is an empty rest, not
/// an error: it could be read.
fn list(cx: &Context<'_>, dir: &Inode, mut cookie: u64, room: Room, out: &mut Vec<u8>) {
    /// The list's end and `eof`.
    const TAIL: usize = 8;
    if let Err(status) = may(cx, dir, READ) {
        return fail(out, status, Some(dir));
    }
    let start = out.len();
    ok(out, dir);
    out.u64(VERIFIER);
    let (mut names, mut listed) = (0, 0);
    let mut next = entry_after(dir, cookie);
    while let Some((name, id)) = next {
        // fileid, name and cookie; `true` before each entry.
        let core = 8 + opaque_size(name.len()) + 8;
        let extra = if room.plus { POST_OP_SIZE + 4 + opaque_size(HANDLE_SIZE) } else { 0 };
        if out.len() - start + 4 + core + extra + TAIL > room.total || names + core > room.names {
            break;
        }
        names += core;
        listed += 1;
        cookie = cookie.saturating_add(1);
        out.bool(true);
        out.u64(id.0);
        out.opaque(name);
        out.u64(cookie);
        if room.plus {
            attributes_and_handle(cx, dir, id, out);
        }
        next = entry_after(dir, cookie);
    }
    if listed == 0 && (next.is_some() || out.len() - start + TAIL > room.total) {
        out.truncate(start);
        return fail(out, Status::TooSmall, Some(dir));
    }
    out.bool(false);
    out.bool(next.is_none());
}

fn attributes_and_handle(cx: &Context<'_>, dir: &Inode, id: FileId, out: &mut Vec<u8>) {
    match dir.sibling(id) {
        Some(inode) => {
            inode.post_op(out);
            out.bool(true);
            cx.put_handle(out, &inode);
        }
        None => {
            out.bool(false);
            out.bool(false);
        }
    }
}
