//! NFSv3's procedures, from arguments to results, without sockets and without reading files.
//! Must not know: transports, how a reply is sent, the content of files.
//! Spec: RFC 1813 section 3.

mod attr;
mod dir;

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::nfs::access::Caller;
use crate::nfs::acl::Acl;
use crate::nfs::handle::Seal;
use crate::nfs::read::{self, ReadPlan};
use crate::nfs::types::{Status, fattr3};
use crate::nfs::{Attributes, Denied, Event, Export, FileId, Host};
use crate::rpc::message::Refusal;
use crate::rpc::xdr::{Reader, Writer};

/// Who asks, and whom the answer may be asked of.
pub(crate) struct Context<'a> {
    pub host: &'a dyn Host,
    pub seal: &'a Seal,
    pub from: Ipv4Addr,
    /// The node that has the asker's address.
    pub node: Option<&'a str>,
    pub caller: Caller,
    /// A connection tells of the first refusal only: a node whose root is gone asks without end.
    pub told: &'a AtomicBool,
}

/// An inode that the asker may know of.
pub(crate) struct Inode {
    pub export: Arc<dyn Export>,
    pub id: FileId,
    pub attributes: Attributes,
}

impl Inode {
    /// Appends `post_op_attr`.
    pub fn post_op(&self, out: &mut Vec<u8>) {
        out.bool(true);
        fattr3(out, self.export.id(), self.id, &self.attributes);
    }

    /// Another inode of the same export.
    fn sibling(&self, id: FileId) -> Option<Inode> {
        let attributes = self.export.attributes(id)?;
        Some(Inode { export: Arc::clone(&self.export), id, attributes })
    }

    /// What the caller may do, in bits of `access`.
    pub fn granted(&self, caller: &Caller) -> u16 {
        caller.granted(&self.attributes, Acl::of(self))
    }
}

impl Context<'_> {
    /// The inode that a handle names. A stranger's and a forged handle, and another node's, tell
    /// nothing of what there is.
    pub fn resolve(&self, handle: &[u8]) -> Result<Inode, Status> {
        let node =
            self.node.ok_or_else(|| self.refuse("handle from an address of no node", Status::Acces))?;
        let Some((export, id)) = self.seal.open(node, handle) else {
            return Err(self.refuse("handle of another node, or forged", Status::BadHandle));
        };
        let export = self.host.export(node, export).map_err(|denied| match denied {
            Denied::NoBoot => self.refuse("handle before any boot", Status::Acces),
            Denied::Gone => self.refuse("handle of an export that is gone", Status::Stale),
        })?;
        let attributes = export.attributes(id).ok_or(Status::Stale)?;
        Ok(Inode { export, id, attributes })
    }

    fn refuse(&self, what: &str, status: Status) -> Status {
        if !self.told.swap(true, Ordering::Relaxed) {
            self.host.event(Event::Refused { from: self.from, what: what.to_owned() });
        }
        status
    }

    /// Appends the handle of an inode.
    fn put_handle(&self, out: &mut Vec<u8>, inode: &Inode) {
        // Cannot be empty: inodes come from `resolve`, which asks for a node.
        let node = self.node.unwrap_or_default();
        out.opaque(&self.seal.seal(node, inode.export.id(), inode.id));
    }
}

/// Appends a failed result: the status, and attributes of what the handle named.
pub(crate) fn fail(out: &mut Vec<u8>, status: Status, inode: Option<&Inode>) {
    out.u32(status.code());
    match inode {
        Some(inode) => inode.post_op(out),
        None => out.bool(false),
    }
}

/// What is left to do for a call.
#[must_use]
pub(crate) enum Answer {
    /// Nothing: the result is written.
    Done,
    /// To read, and to write the result by [`read::finish`].
    Read(ReadPlan),
}

/// Does a procedure. After an error `out` may hold part of a result.
pub(crate) fn call(
    cx: &Context<'_>,
    procedure: u32,
    arguments: &mut Reader<'_>,
    out: &mut Vec<u8>,
) -> Result<Answer, Refusal> {
    match procedure {
        0 => {}
        1 => attr::getattr(cx, arguments, out)?,
        3 => dir::lookup(cx, arguments, out)?,
        4 => attr::access(cx, arguments, out)?,
        5 => attr::readlink(cx, arguments, out)?,
        6 => return Ok(read::plan(cx, arguments, out)?.map_or(Answer::Done, Answer::Read)),
        16 => dir::readdir(cx, arguments, out)?,
        17 => dir::readdirplus(cx, arguments, out)?,
        18 => attr::fsstat(cx, arguments, out)?,
        19 => attr::fsinfo(cx, arguments, out)?,
        20 => attr::pathconf(cx, arguments, out)?,
        // SETATTR WRITE CREATE MKDIR SYMLINK MKNOD REMOVE RMDIR COMMIT: one wcc_data, which is empty;
        // RENAME: two; LINK: a post_op_attr and one. "Procedure unavailable" would make clients think
        // of a broken server.
        2 | 7..=13 | 21 => read_only(out, 2),
        14 => read_only(out, 4),
        15 => read_only(out, 3),
        _ => return Err(Refusal::NoProcedure),
    }
    Ok(Answer::Done)
}

fn read_only(out: &mut Vec<u8>, absent: usize) {
    out.u32(Status::RoFs.code());
    for _ in 0..absent {
        out.bool(false);
    }
}

#[cfg(test)]
pub(crate) mod tests;
