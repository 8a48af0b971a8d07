//! MOUNT: from a path to the first handle, and the list of what the asker may mount.
//! Must not know: transports.
//! Spec: RFC 1813 appendix I (version 3); RFC 1094 appendix A (version 1, whose handles have 32 bytes
//! as ours do). Version 2 is version 1 with a PATHCONF that nobody asks.
//!
//! UMNT means nothing here: klibc and the kernel do not send it in normal life, and a boot ends
//! elsewhere.

use crate::nfs::ops::{Context, Inode};
use crate::nfs::types::Status;
use crate::nfs::{Event, FileId, FileType};
use crate::rpc::message::Refusal;
use crate::rpc::xdr::{Reader, Writer};

/// The program.
pub(crate) const PROGRAM: u32 = 100_005;
/// Lowest and highest version.
pub(crate) const VERSIONS: (u32, u32) = (1, 3);

/// MNTPATHLEN
const PATH_MAX: usize = 1024;

/// Appends the result of a procedure.
pub(crate) fn call(
    cx: &Context<'_>,
    version: u32,
    procedure: u32,
    arguments: &mut Reader<'_>,
    out: &mut Vec<u8>,
) -> Result<(), Refusal> {
    match procedure {
        0 | 3 | 4 => {}
        1 => mnt(cx, version, arguments.opaque(crate::rpc::record::MAX_RECORD)?, out),
        // DUMP: who has mounted what. Nobody keeps count, as RFC 1813 allows.
        2 => out.bool(false),
        5 => exports(cx, out),
        _ => return Err(Refusal::NoProcedure),
    }
    Ok(())
}

fn mnt(cx: &Context<'_>, version: u32, path: &[u8], out: &mut Vec<u8>) {
    /// AUTH_SYS, the only flavour.
    const FLAVOURS: [u32; 2] = [1, 1];
    let (node, inode) = match mount(cx, path) {
        Ok(found) => found,
        Err(status) => {
            let what = format!("MNT {}", path.get(..PATH_MAX).unwrap_or(path).escape_ascii());
            cx.host.event(Event::Refused { from: cx.from, what });
            // The numbers of mountstat3 and of version 1's errno are NFS's own.
            return out.u32(status.code());
        }
    };
    if inode.id == FileId(1) {
        cx.host.event(Event::Mounted { node: node.to_owned(), export: inode.export.id() });
    }
    let handle = cx.seal.seal(node, inode.export.id(), inode.id);
    out.u32(Status::Ok.code());
    if version == 3 {
        out.opaque(&handle);
        FLAVOURS.iter().for_each(|word| out.u32(*word));
    } else {
        out.extend_from_slice(&handle);
    }
}

/// The directory that a path names. A path that is not below the asker's own name has one answer,
/// whether it is another node's or nobody's.
fn mount<'a>(cx: &Context<'a>, path: &[u8]) -> Result<(&'a str, Inode), Status> {
    let node = cx.node.ok_or(Status::Acces)?;
    if path.len() > PATH_MAX {
        return Err(Status::NameTooLong);
    }
    // By whole components: a test for a prefix would let `/fe` open `/fenn`.
    let mut names =
        path.strip_prefix(b"/").ok_or(Status::NoEnt)?.split(|b| *b == b'/').filter(|n| !n.is_empty());
    if names.next() != Some(node.as_bytes()) {
        return Err(Status::NoEnt);
    }
    let export = cx.host.mount(node).map_err(|_| Status::Acces)?;
    let mut id = FileId(1);
    let mut attributes = export.attributes(id).ok_or(Status::NoEnt)?;
    for name in names {
        // `.` and `..` are no names of an export.
        id = Some(name)
            .filter(|n| !matches!(*n, b"." | b".."))
            .and_then(|n| export.lookup(id, n))
            .ok_or(Status::NoEnt)?;
        attributes = export.attributes(id).ok_or(Status::NoEnt)?;
        if attributes.kind != FileType::Directory {
            return Err(Status::NotDir);
        }
    }
    Ok((node, Inode { export, id, attributes }))
}

/// The asker's own path, with its name as the only group.
fn exports(cx: &Context<'_>, out: &mut Vec<u8>) {
    if let Some(node) = cx.node {
        out.bool(true);
        out.opaque(format!("/{node}").as_bytes());
        out.bool(true);
        out.opaque(node.as_bytes());
        out.bool(false);
    }
    out.bool(false);
}

#[cfg(test)]
mod tests {
    use nfs3_types::mount::{dirpath, exports as foreign_exports, mountres3, mountstat3};
    use nfs3_types::xdr_codec::{Opaque, Pack, Unpack};

    use super::*;
    use crate::nfs::ops::tests::Rig;

    fn ask(rig: &Rig, version: u32, procedure: u32, arguments: &[u8]) -> Result<Vec<u8>, Refusal> {
        let mut out = Vec::new();
        call(&rig.context(), version, procedure, &mut Reader::new(arguments), &mut out).map(|()| out)
    }

    fn mnt3(rig: &Rig, path: &[u8]) -> Result<Vec<u8>, mountstat3> {
        let mut arguments = Vec::new();
        dirpath(Opaque::borrowed(path)).pack(&mut arguments).unwrap();
        let found = ask(rig, 3, 1, &arguments).unwrap();
        let (result, len) = mountres3::unpack(&mut &found[..]).unwrap();
        assert_eq!(len, found.len());
        match result {
            mountres3::Ok(ok) => {
                assert_eq!(ok.auth_flavors, [1]);
                Ok(ok.fhandle.0.into_owned().to_vec())
            }
            mountres3::Err(status) => Err(status),
        }
    }

    #[test]
    fn the_path_is_the_nodes_own() {
        let rig = Rig::new();
        let root = rig.handle("/").to_vec();
        for (path, want) in [
            (&b"/fenn"[..], Ok(root.clone())),
            (b"/fenn/", Ok(root.clone())),
            (b"//fenn///", Ok(root)),
            (b"/fenn/etc", Ok(rig.handle("/etc").to_vec())),
            (b"/fenn//etc/", Ok(rig.handle("/etc").to_vec())),
            (b"/fenn/etc/hostname", Err(2 + 18)),
            (b"/fenn/bin/link", Err(20)),
            (b"/fenn/nothing", Err(2)),
            (b"/fenn/.", Err(2)),
            (b"/fenn/etc/..", Err(2)),
            (b"/fe", Err(2)),
            (b"/fennx", Err(2)),
            (b"/karstark", Err(2)),
            (b"/nobody", Err(2)),
            (b"fenn", Err(2)),
            (b"/", Err(2)),
            (b"", Err(2)),
            (b"/\xff\xfe", Err(2)),
            (&[b'/'; 1024], Err(2)),
            (&[b'/'; 1025], Err(63)),
        ] {
            let found = mnt3(&rig, path).map_err(|status| status as u32);
            assert_eq!(found, want, "given {}", path.escape_ascii());
        }
    }

    #[test]
    fn who_may_not_mount() {
        let mut rig = Rig::new();
        rig.host.set_booted(false);
        assert_eq!(mnt3(&rig, b"/fenn").unwrap_err() as u32, 13, "before any boot");
        assert_eq!(mnt3(&rig, b"/karstark").unwrap_err() as u32, 2);
        rig.node = None;
        assert_eq!(mnt3(&rig, b"/fenn").unwrap_err() as u32, 13, "a stranger");
        assert_eq!(mnt3(&rig, b"/nobody").unwrap_err() as u32, 13, "who learns nothing of names");
        let refused = |what: &str| Event::Refused { from: rig.context().from, what: what.to_owned() };
        assert_eq!(
            rig.host.take_events(),
            [refused("MNT /fenn"), refused("MNT /karstark"), refused("MNT /fenn"), refused("MNT /nobody")]
        );
    }

    #[test]
    fn a_mount_of_the_root_is_told() {
        let rig = Rig::new();
        mnt3(&rig, b"/fenn/etc").unwrap();
        mnt3(&rig, b"/fenn").unwrap();
        let mounted = Event::Mounted { node: "fenn".to_owned(), export: rig.export_id() };
        assert_eq!(rig.host.take_events(), [mounted]);
    }

    #[test]
    fn version_1_has_handles_of_a_fixed_length() {
        let rig = Rig::new();
        let path = b"\0\0\0\x05/fenn\0\0\0";
        let want = [&[0; 4][..], &rig.handle("/")].concat();
        assert_eq!(ask(&rig, 1, 1, path), Ok(want));
        assert_eq!(ask(&rig, 1, 1, b"\0\0\0\x03/no\0"), Ok(vec![0, 0, 0, 2]));
    }

    #[test]
    fn export_lists_the_asker_alone() {
        let mut rig = Rig::new();
        for version in [1, 3] {
            let found = ask(&rig, version, 5, &[]).unwrap();
            let (list, len) = foreign_exports::unpack(&mut &found[..]).unwrap();
            assert_eq!(len, found.len());
            let list = list.into_inner();
            assert_eq!(list.len(), 1);
            assert_eq!(list[0].ex_dir.0.as_ref(), b"/fenn");
        }
        rig.node = None;
        assert_eq!(ask(&rig, 3, 5, &[]), Ok(vec![0; 4]));
    }

    #[test]
    fn the_rest() {
        let rig = Rig::new();
        assert_eq!(ask(&rig, 3, 0, &[]), Ok(vec![]));
        assert_eq!(ask(&rig, 3, 2, &[]), Ok(vec![0; 4]), "DUMP");
        assert_eq!(ask(&rig, 3, 3, b"\0\0\0\x05/fenn\0\0\0"), Ok(vec![]), "UMNT");
        assert_eq!(ask(&rig, 3, 4, &[]), Ok(vec![]), "UMNTALL");
        assert_eq!(ask(&rig, 3, 6, &[]), Err(Refusal::NoProcedure));
        assert_eq!(ask(&rig, 3, 1, &[0, 0]), Err(Refusal::Garbage));
    }
}
