//! Who may do what to an inode, by mode bits and POSIX access list.
//! Must not know: procedures. It decides for clients that could also be lied to by their own users:
//! the server sees numbers, and trusts the node's kernel for them.
//! Spec: POSIX.1 file access permissions; acl(5), "access check algorithm".

use crate::nfs::acl::{Acl, Tag};
use crate::nfs::{Attributes, FileType};
use crate::rpc::message::{Credential, Groups};

pub(crate) const READ: u16 = 4;
pub(crate) const WRITE: u16 = 2;
pub(crate) const EXECUTE: u16 = 1;

const NOBODY: u32 = 65534;

/// The user on whose behalf a node asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Caller {
    uid: u32,
    gid: u32,
    gids: Groups,
}

impl Caller {
    /// uid 0 is not mapped: files of mode 0600 on a read-only root must be readable by their owner.
    pub fn new(credential: &Credential) -> Caller {
        match credential {
            Credential::None => Caller { uid: NOBODY, gid: NOBODY, gids: Groups::default() },
            Credential::Sys { uid, gid, gids } => Caller { uid: *uid, gid: *gid, gids: *gids },
        }
    }

    pub fn owns(&self, attributes: &Attributes) -> bool {
        self.uid == 0 || self.uid == attributes.uid
    }

    fn in_group(&self, gid: u32) -> bool {
        self.gid == gid || self.gids.as_slice().contains(&gid)
    }

    /// The bits of [`READ`], [`WRITE`] and [`EXECUTE`] that `attributes`, and the access list if there
    /// is one, give this caller.
    pub fn granted(&self, attributes: &Attributes, acl: Option<Acl<'_>>) -> u16 {
        let mode = attributes.mode;
        if self.uid == 0 {
            let runs = mode & 0o111 != 0 || attributes.kind == FileType::Directory;
            return READ | WRITE | if runs { EXECUTE } else { 0 };
        }
        if self.uid == attributes.uid {
            return mode >> 6 & 7;
        }
        if let Some(acl) = acl {
            return self.granted_by(acl, attributes.gid);
        }
        if self.in_group(attributes.gid) { mode >> 3 & 7 } else { mode & 7 }
    }

    /// For callers that are not the owner.
    fn granted_by(&self, acl: Acl<'_>, owning_group: u32) -> u16 {
        let (mut user, mut group, mut other, mut mask) = (None, None, 0, 7);
        for entry in acl.entries() {
            match entry.tag {
                Tag::User if entry.id == self.uid => user = Some(entry.permissions),
                Tag::GroupOwner if self.in_group(owning_group) => {
                    group = Some(group.unwrap_or(0) | entry.permissions);
                }
                Tag::Group if self.in_group(entry.id) => group = Some(group.unwrap_or(0) | entry.permissions),
                Tag::Mask => mask = entry.permissions,
                Tag::Other => other = entry.permissions,
                Tag::Owner | Tag::User | Tag::GroupOwner | Tag::Group => {}
            }
        }
        user.or(group).map_or(other, |found| found & mask)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nfs::acl::tests::xattr;

    fn caller(uid: u32, gid: u32, gids: &[u32]) -> Caller {
        Caller::new(&Credential::Sys { uid, gid, gids: Groups::new(gids) })
    }

    fn attributes(kind: FileType, mode: u16) -> Attributes {
        Attributes { kind, mode, nlink: 1, uid: 10, gid: 20, size: 0, used: 0, mtime: (0, 0) }
    }

    #[test]
    fn modes() {
        let owner = caller(10, 99, &[]);
        let group = caller(11, 20, &[]);
        let sixteenth = caller(11, 99, &[1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 20]);
        let other = caller(11, 99, &[21]);
        let nobody = Caller::new(&Credential::None);
        let root = caller(0, 0, &[]);
        for (who, mode, want) in [
            (owner, 0o640, 6),
            (group, 0o640, 4),
            (sixteenth, 0o640, 4),
            (other, 0o640, 0),
            (nobody, 0o641, 1),
            (owner, 0o077, 0),
            (group, 0o707, 0),
            (other, 0o4755, 5),
            (root, 0o000, 6),
            (root, 0o010, 7),
        ] {
            assert_eq!(who.granted(&attributes(FileType::Regular, mode), None), want, "{who:?} {mode:o}");
        }
        assert_eq!(root.granted(&attributes(FileType::Directory, 0), None), 7);
    }

    #[test]
    fn access_lists() {
        // user::rwx user:30:rw- group::r-- group:40:-wx mask::rw- other::--x
        let acl = xattr(&[
            (1, 7, u32::MAX),
            (2, 6, 30),
            (4, 4, u32::MAX),
            (8, 3, 40),
            (16, 6, u32::MAX),
            (32, 1, 0),
        ]);
        let acl = Acl::parse(&acl);
        for (who, want) in [
            (caller(10, 1, &[]), 7),
            (caller(30, 20, &[]), 6),
            (caller(31, 20, &[]), 4),
            (caller(31, 40, &[]), 2),
            (caller(31, 40, &[20]), 6),
            (caller(31, 1, &[]), 1),
        ] {
            assert_eq!(who.granted(&attributes(FileType::Regular, 0o761), acl), want, "{who:?}");
        }
    }
}
