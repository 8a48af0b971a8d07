//! NFS_ACL version 3: POSIX access lists, from the extended attributes that hold them.
//! Must not know: anything of NFS but handles and attributes.
//! Spec: Linux fs/nfs_common/nfsacl.c, include/uapi/linux/nfsacl.h, posix_acl_xattr.h and posix_acl.h.
//!
//! Without GETACL an overlayfs over NFSv3 refuses everything to every user but root on kernels of 2024
//! and later ("Operation not supported"; seen with 6.12.107), and the boot looks almost right. An
//! answer with no entries cures it.

use crate::nfs::ops::{Context, Inode, fail};
use crate::nfs::types::{HANDLE_MAX, Status};
use crate::nfs::{Attributes, FileType};
use crate::rpc::message::Refusal;
use crate::rpc::xdr::{Reader, Writer, XdrError};

/// The side program, on NFS's own port.
pub(crate) const PROGRAM: u32 = 100_227;

const ACCESS: &[u8] = b"system.posix_acl_access";
const DEFAULT: &[u8] = b"system.posix_acl_default";

// Bits of GETACL's mask: which list, and which count, is asked for.
const WANT_ACCESS: u32 = 1;
const WANT_DEFAULT: u32 = 4;
/// NFS_ACL_DEFAULT: marks the entries of a default list.
const DEFAULT_FLAG: u32 = 0x1000;

/// Who an entry is about (posix_acl.h's numbers, in the attribute and on the wire).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tag {
    Owner = 1,
    User = 2,
    GroupOwner = 4,
    Group = 8,
    Mask = 0x10,
    Other = 0x20,
}

/// One line of a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    pub tag: Tag,
    pub permissions: u16,
    /// Of [`Tag::User`] and [`Tag::Group`]; without sense elsewhere.
    pub id: u32,
}

/// A list that was checked, in the attribute's form: a version of 4 bytes, then 8 bytes an entry, all
/// little-endian.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Acl<'a> {
    entries: &'a [[u8; 8]],
}

impl<'a> Acl<'a> {
    /// `None` if the bytes are no list of version 2, or its entries are not as Linux keeps them.
    pub fn parse(xattr: &'a [u8]) -> Option<Acl<'a>> {
        let (version, entries) = xattr.split_first_chunk::<4>()?;
        let (entries, rest) = entries.as_chunks::<8>();
        let sound = *version == [2, 0, 0, 0] && rest.is_empty() && entries.len() >= 3;
        (sound && entries.iter().all(|bytes| entry(bytes).is_some())).then_some(Acl { entries })
    }

    pub fn of(inode: &'a Inode) -> Option<Acl<'a>> {
        Acl::parse(inode.export.xattr(inode.id, ACCESS)?)
    }

    pub fn entries(self) -> impl Iterator<Item = Entry> {
        self.entries.iter().filter_map(entry)
    }
}

fn entry([t0, t1, p0, p1, id @ ..]: &[u8; 8]) -> Option<Entry> {
    let tag = match u16::from_le_bytes([*t0, *t1]) {
        1 => Tag::Owner,
        2 => Tag::User,
        4 => Tag::GroupOwner,
        8 => Tag::Group,
        0x10 => Tag::Mask,
        0x20 => Tag::Other,
        _ => return None,
    };
    let permissions = u16::from_le_bytes([*p0, *p1]);
    (permissions <= 7).then_some(Entry { tag, permissions, id: u32::from_le_bytes(*id) })
}

/// Appends the result of a procedure.
pub(crate) fn call(
    cx: &Context<'_>,
    procedure: u32,
    arguments: &mut Reader<'_>,
    out: &mut Vec<u8>,
) -> Result<(), Refusal> {
    match procedure {
        0 => {}
        1 => getacl(cx, arguments, out)?,
        2 => fail(out, Status::RoFs, None),
        // GETATTR and ACCESS were for clients without NFSv3; Linux and Solaris 10 do not ask.
        _ => return Err(Refusal::NoProcedure),
    }
    Ok(())
}

fn getacl(cx: &Context<'_>, arguments: &mut Reader<'_>, out: &mut Vec<u8>) -> Result<(), XdrError> {
    let (handle, mask) = (arguments.opaque(HANDLE_MAX)?, arguments.u32()?);
    let inode = match cx.resolve(handle) {
        Ok(inode) => inode,
        Err(status) => {
            fail(out, status, None);
            return Ok(());
        }
    };
    out.u32(Status::Ok.code());
    inode.post_op(out);
    // A mask without what was asked for makes the client say EIO.
    out.u32(mask);
    let list = |want: u32, name| (mask & want != 0).then(|| inode.export.xattr(inode.id, name)).flatten();
    array(out, list(WANT_ACCESS, ACCESS), &inode.attributes, 0);
    let default = list(WANT_DEFAULT, DEFAULT).filter(|_| inode.attributes.kind == FileType::Directory);
    array(out, default, &inode.attributes, DEFAULT_FLAG);
    Ok(())
}

/// The count, then the list with its own count; twice 0 without one.
fn array(out: &mut Vec<u8>, xattr: Option<&[u8]>, attributes: &Attributes, flag: u32) {
    let mut entries: Vec<Entry> =
        xattr.and_then(Acl::parse).map_or_else(Vec::new, |acl| acl.entries().collect());
    if let [_, group, _] = entries[..] {
        // Solaris's form, which Linux keeps to: a list without named entries has a mask all the same.
        entries.insert(2, Entry { tag: Tag::Mask, ..group });
    }
    // Cannot be cut: an extended attribute has at most 64 KiB.
    let count = u32::try_from(entries.len()).unwrap_or(u32::MAX);
    out.u32(count);
    out.u32(count);
    for entry in entries {
        let id = match entry.tag {
            Tag::Owner => attributes.uid,
            Tag::GroupOwner => attributes.gid,
            Tag::User | Tag::Group => entry.id,
            Tag::Mask | Tag::Other => 0,
        };
        out.u32(entry.tag as u32 | flag);
        out.u32(id);
        out.u32(u32::from(entry.permissions));
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::nfs::ops::tests::Rig;

    /// A list as setfacl leaves it: (tag, permissions, id).
    pub(crate) fn xattr(entries: &[(u16, u16, u32)]) -> Vec<u8> {
        let mut out = vec![2, 0, 0, 0];
        for (tag, permissions, id) in entries {
            out.extend_from_slice(&tag.to_le_bytes());
            out.extend_from_slice(&permissions.to_le_bytes());
            out.extend_from_slice(&id.to_le_bytes());
        }
        out
    }

    const NONE: u32 = u32::MAX;

    fn ask(rig: &Rig, path: &str, mask: u32) -> Vec<u32> {
        let mut arguments = Vec::new();
        arguments.opaque(&rig.handle(path));
        arguments.u32(mask);
        let mut out = Vec::new();
        call(&rig.context(), 1, &mut Reader::new(&arguments), &mut out).unwrap();
        assert_eq!(out[..8], [0, 0, 0, 0, 0, 0, 0, 1], "status, attributes follow");
        out[92..].as_chunks::<4>().0.iter().map(|word| u32::from_be_bytes(*word)).collect()
    }

    #[test]
    fn without_a_list_the_answer_is_empty() {
        let rig = Rig::new();
        for mask in [0, 1, 4, 5, 0xf] {
            assert_eq!(ask(&rig, "/etc/hostname", mask), [mask, 0, 0, 0, 0], "mask {mask}");
        }
    }

    #[test]
    fn lists_travel() {
        let rig = Rig::with(|export| {
            let named = xattr(&[(1, 7, NONE), (2, 6, 30), (4, 5, NONE), (16, 7, NONE), (32, 4, NONE)]);
            export.set_xattr("/etc", ACCESS, &named);
            export.set_xattr("/etc", DEFAULT, &xattr(&[(1, 7, NONE), (4, 5, NONE), (32, 0, NONE)]));
            export.set_xattr("/etc/hostname", DEFAULT, &named);
            export.set_xattr("/bin/sh", ACCESS, b"\x02\0\0\0nonsense");
        });
        let access = [5, 5, 1, 0, 7, 2, 30, 6, 4, 0, 5, 16, 0, 7, 32, 0, 4];
        let default = [4, 4, 0x1001, 0, 7, 0x1004, 0, 5, 0x1010, 0, 5, 0x1020, 0, 0];
        assert_eq!(ask(&rig, "/etc", 0xf), [&[0xf][..], &access, &default].concat());
        assert_eq!(ask(&rig, "/etc", 1), [&[1][..], &access, &[0, 0]].concat());
        assert_eq!(ask(&rig, "/etc", 4), [&[4, 0, 0][..], &default].concat());
        assert_eq!(ask(&rig, "/etc/hostname", 0xf), [0xf, 0, 0, 0, 0], "a default list is a directory's");
        assert_eq!(ask(&rig, "/bin/sh", 0xf), [0xf, 0, 0, 0, 0], "bytes that are no list");
    }

    #[test]
    fn nothing_can_be_set() {
        let rig = Rig::new();
        let mut out = Vec::new();
        call(&rig.context(), 2, &mut Reader::new(&[]), &mut out).unwrap();
        assert_eq!(out, [0, 0, 0, 30, 0, 0, 0, 0]);
        out.clear();
        assert_eq!(call(&rig.context(), 0, &mut Reader::new(&[]), &mut out), Ok(()));
        assert!(out.is_empty());
        assert_eq!(call(&rig.context(), 3, &mut Reader::new(&[]), &mut out), Err(Refusal::NoProcedure));
        assert_eq!(call(&rig.context(), 1, &mut Reader::new(&[0; 4]), &mut out), Err(Refusal::Garbage));
    }

    #[test]
    fn only_lists_of_version_2_are_read() {
        let good = xattr(&[(1, 7, 0), (4, 5, 0), (32, 0, 0)]);
        assert!(Acl::parse(&good).is_some());
        assert!(Acl::parse(&[&[1], &good[1..]].concat()).is_none());
        assert!(Acl::parse(&good[..good.len() - 1]).is_none());
        assert!(Acl::parse(&xattr(&[(1, 7, 0), (4, 5, 0)])).is_none());
        assert!(Acl::parse(&xattr(&[(1, 7, 0), (4, 8, 0), (32, 0, 0)])).is_none());
        assert!(Acl::parse(&xattr(&[(1, 7, 0), (3, 5, 0), (32, 0, 0)])).is_none());
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..100)) {
            if let Some(acl) = Acl::parse(&bytes) {
                prop_assert_eq!(acl.entries().count(), (bytes.len() - 4) / 8);
            }
        }
    }
}
