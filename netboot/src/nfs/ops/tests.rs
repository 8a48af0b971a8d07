//! A node, its export and calls to it, without sockets; and a table for each procedure.

use std::net::Ipv4Addr;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex};

use proptest::prelude::*;

use super::*;
use crate::nfs::ExportId;
use crate::nfs::FileType;
use crate::nfs::handle::Handle;
use crate::nfs::memory::MemoryExport;
use crate::nfs::types::RTMAX;
use crate::rpc::message::{Credential, Groups};
use crate::site::Site;

pub(crate) const KEY: [u8; 32] = [42; 32];
const ID: ExportId = ExportId(*b"fenn generation1");

/// Gives one export to every node that asks, while it is booted.
pub(crate) struct TestHost {
    export: Arc<MemoryExport>,
    state: Mutex<(bool, bool, Vec<Event>)>,
}

impl TestHost {
    pub fn new(export: Arc<MemoryExport>) -> TestHost {
        TestHost { export, state: Mutex::new((true, false, Vec::new())) }
    }

    pub fn set_booted(&self, booted: bool) {
        self.state.lock().unwrap().0 = booted;
    }

    pub fn set_gone(&self) {
        self.state.lock().unwrap().1 = true;
    }

    pub fn take_events(&self) -> Vec<Event> {
        std::mem::take(&mut self.state.lock().unwrap().2)
    }
}

impl Host for TestHost {
    fn site(&self) -> Arc<Site> {
        unimplemented!("these tests name the node themselves")
    }

    fn mount(&self, _node: &str) -> Result<Arc<dyn Export>, Denied> {
        if self.state.lock().unwrap().0 { Ok(self.export.clone()) } else { Err(Denied::NoBoot) }
    }

    fn export(&self, node: &str, id: ExportId) -> Result<Arc<dyn Export>, Denied> {
        if id != self.export.id() || self.state.lock().unwrap().1 {
            return Err(Denied::Gone);
        }
        self.mount(node)
    }

    fn event(&self, event: Event) {
        self.state.lock().unwrap().2.push(event);
    }
}

/// A small root as `fenn` sees it; fields are changed to be somebody else.
pub(crate) struct Rig {
    pub host: TestHost,
    pub export: Arc<MemoryExport>,
    pub node: Option<&'static str>,
    pub uid: u32,
    seal: Seal,
    told: AtomicBool,
}

impl Rig {
    pub fn new() -> Rig {
        Rig::with(|_| {})
    }

    pub fn with(change: impl FnOnce(&mut MemoryExport)) -> Rig {
        let mut export = MemoryExport::new(ID);
        for dir in ["/etc", "/bin", "/dev", "/empty"] {
            export.add(dir, FileType::Directory, 0o755);
        }
        export.add("/root", FileType::Directory, 0o700);
        export.add_file("/etc/hostname", 0o644, b"fenn\n").unwrap();
        export.add_file("/etc/shadow", 0o600, b"root:*:\n").unwrap();
        export.add_file("/bin/sh", 0o755, b"\x7fELF").unwrap();
        export.add_link("/bin/dash", "/bin/sh");
        export.add_symlink("/bin/link", b"sh\xff");
        export.add("/dev/null", FileType::Char(1, 3), 0o666);
        export.add_file(b"/etc/\xff\xfename", 0o644, b"").unwrap();
        change(&mut export);
        let export = Arc::new(export);
        Rig {
            host: TestHost::new(Arc::clone(&export)),
            export,
            node: Some("fenn"),
            uid: 0,
            seal: Seal::new(&KEY),
            told: AtomicBool::new(false),
        }
    }

    pub fn context(&self) -> Context<'_> {
        let credential = Credential::Sys { uid: self.uid, gid: self.uid, gids: Groups::default() };
        Context {
            host: &self.host,
            seal: &self.seal,
            from: Ipv4Addr::new(10, 4, 0, 11),
            node: self.node,
            caller: Caller::new(&credential),
            told: &self.told,
        }
    }

    pub fn handle(&self, path: &str) -> Handle {
        self.seal.seal("fenn", ID, self.export.at(path))
    }

    pub fn export_id(&self) -> ExportId {
        ID
    }

    fn call(&self, procedure: u32, arguments: &[u8]) -> Result<Vec<u8>, Refusal> {
        let mut out = Vec::new();
        match call(&self.context(), procedure, &mut Reader::new(arguments), &mut out)? {
            Answer::Done => Ok(out),
            Answer::Read(_) => panic!("READ is tested in its own file"),
        }
    }

    fn on(&self, procedure: u32, path: &str, rest: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
        let arguments = args(|out| {
            out.opaque(&self.handle(path));
            rest(out);
        });
        self.call(procedure, &arguments).unwrap()
    }
}

pub(crate) fn args(fill: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut out = Vec::new();
    fill(&mut out);
    out
}

fn status(result: &[u8]) -> u32 {
    Reader::new(result).u32().unwrap()
}

mod judge {
    //! The foreign codec reads our results.
    use nfs3_types::nfs3::{
        ACCESS3res, FSINFO3res, FSSTAT3res, GETATTR3res, LOOKUP3res, Nfs3Option, PATHCONF3res, READDIR3res,
        READDIRPLUS3res, READLINK3res,
    };
    use nfs3_types::xdr_codec::Unpack;

    use super::*;

    fn read<T: Unpack>(result: &[u8]) -> T {
        let (found, len) = T::unpack(&mut &result[..]).unwrap();
        assert_eq!(len, result.len(), "the whole result is read");
        found
    }

    #[test]
    fn getattr() {
        let rig = Rig::new();
        let GETATTR3res::Ok(ok) = read(&rig.on(1, "/dev/null", |_| {})) else { panic!("refused") };
        assert_eq!((ok.obj_attributes.rdev.specdata1, ok.obj_attributes.rdev.specdata2), (1, 3));
        let GETATTR3res::Ok(a) = read(&rig.on(1, "/bin/sh", |_| {})) else { panic!("refused") };
        let GETATTR3res::Ok(b) = read(&rig.on(1, "/bin/dash", |_| {})) else { panic!("refused") };
        assert_eq!((a.obj_attributes.fileid, a.obj_attributes.nlink), (b.obj_attributes.fileid, 2));
    }

    #[test]
    fn lookup() {
        let rig = Rig::new();
        let find = |dir: &str, name: &[u8]| read::<LOOKUP3res>(&rig.on(3, dir, |out| out.opaque(name)));
        for (dir, name, want) in [
            ("/", &b"etc"[..], "/etc"),
            ("/etc", b"hostname", "/etc/hostname"),
            ("/etc", b".", "/etc"),
            ("/etc", b"..", "/"),
            ("/", b"..", "/"),
            ("/bin", b"dash", "/bin/sh"),
        ] {
            let LOOKUP3res::Ok(ok) = find(dir, name) else { panic!("{name:?} in {dir} is refused") };
            assert_eq!(ok.object.data.as_ref(), rig.handle(want), "{name:?} in {dir}");
            assert!(matches!(ok.obj_attributes, Nfs3Option::Some(a) if a.fileid == rig.export.at(want).0));
            assert!(matches!(ok.dir_attributes, Nfs3Option::Some(a) if a.fileid == rig.export.at(dir).0));
        }
        for (dir, name, want) in [
            ("/etc", vec![b'x'; 255], Status::NoEnt),
            ("/etc", vec![b'x'; 256], Status::NameTooLong),
            ("/etc", b"".to_vec(), Status::NoEnt),
            ("/etc", b"a/b".to_vec(), Status::NoEnt),
            ("/etc/hostname", b"x".to_vec(), Status::NotDir),
        ] {
            let LOOKUP3res::Err((found, fail)) = find(dir, &name) else { panic!("{name:?} is found") };
            assert_eq!(found as u32, want.code(), "{name:?} in {dir}");
            assert!(matches!(fail.dir_attributes, Nfs3Option::Some(_)));
        }
    }

    #[test]
    fn readlink_and_the_filesystem() {
        let rig = Rig::new();
        let READLINK3res::Ok(ok) = read(&rig.on(5, "/bin/link", |_| {})) else { panic!("refused") };
        assert_eq!(ok.data.0.as_ref(), b"sh\xff");
        let READLINK3res::Err((found, _)) = read(&rig.on(5, "/bin/sh", |_| {})) else { panic!("given") };
        assert_eq!(found as u32, Status::Inval.code());
        let FSSTAT3res::Ok(ok) = read(&rig.on(18, "/", |_| {})) else { panic!("refused") };
        assert_eq!((ok.tbytes, ok.fbytes, ok.abytes, ok.tfiles), (17, 0, 0, rig.export.inodes()));
        let FSINFO3res::Ok(ok) = read(&rig.on(19, "/", |_| {})) else { panic!("refused") };
        assert_eq!(
            (ok.rtmax, ok.rtpref, ok.wtmax, ok.dtpref, ok.properties),
            (RTMAX, RTMAX, 65536, 65536, 0x0b)
        );
        assert_eq!((ok.maxfilesize, ok.time_delta.seconds, ok.time_delta.nseconds), (i64::MAX as u64, 0, 1));
        let PATHCONF3res::Ok(ok) = read(&rig.on(20, "/", |_| {})) else { panic!("refused") };
        assert_eq!((ok.linkmax, ok.name_max), (65_000, 255));
        assert_eq!(
            (ok.no_trunc, ok.chown_restricted, ok.case_insensitive, ok.case_preserving),
            (true, true, false, true)
        );
    }

    #[test]
    fn access() {
        let mut rig = Rig::new();
        for (uid, path, want) in [
            (0, "/etc/shadow", 0x01),
            (0, "/bin/sh", 0x21),
            (0, "/root", 0x03),
            (5, "/etc/shadow", 0),
            (5, "/etc/hostname", 0x01),
            (5, "/bin/sh", 0x21),
            (5, "/etc", 0x03),
            (5, "/root", 0),
        ] {
            rig.uid = uid;
            for asked in [0x3f, 0x1f, 0x01, 0] {
                let ACCESS3res::Ok(ok) = read(&rig.on(4, path, |out| out.u32(asked))) else {
                    panic!("refused")
                };
                assert_eq!(ok.access, want & asked, "{path} as {uid}, asked {asked:x}");
            }
        }
    }

    fn names(list: &[(u64, Vec<u8>, u64)]) -> Vec<&[u8]> {
        list.iter().map(|(_, name, _)| &name[..]).collect()
    }

    #[test]
    fn readdir() {
        let rig = Rig::new();
        let result = rig.on(16, "/etc", |out| {
            out.u64(0);
            out.u64(0xdead); // an old server's verifier
            out.u32(4096);
        });
        let READDIR3res::Ok(ok) = read(&result) else { panic!("refused") };
        let list: Vec<_> = ok
            .reply
            .entries
            .into_inner()
            .into_iter()
            .map(|e| (e.fileid, e.name.0.to_vec(), e.cookie))
            .collect();
        assert_eq!(names(&list), [&b"."[..], b"..", b"hostname", b"shadow", b"\xff\xfename"]);
        assert_eq!(list.iter().map(|e| e.2).collect::<Vec<_>>(), [1, 2, 3, 4, 5]);
        assert_eq!((list[0].0, list[1].0), (rig.export.at("/etc").0, 1));
        assert!(ok.reply.eof);
    }

    #[test]
    fn readdirplus() {
        let rig = Rig::new();
        let result = rig.on(17, "/bin", |out| {
            out.u64(2);
            out.u64(0);
            out.u32(4096);
            out.u32(4096);
        });
        let READDIRPLUS3res::Ok(ok) = read(&result) else { panic!("refused") };
        let list = ok.reply.entries.into_inner();
        assert_eq!(
            list.iter().map(|e| e.name.0.as_ref()).collect::<Vec<_>>(),
            [&b"dash"[..], b"link", b"sh"]
        );
        for entry in &list {
            let path = format!("/bin/{}", String::from_utf8_lossy(entry.name.0.as_ref()));
            assert!(
                matches!(&entry.name_handle, Nfs3Option::Some(h) if h.data.as_ref() == rig.handle(&path))
            );
            assert!(matches!(&entry.name_attributes, Nfs3Option::Some(a) if a.fileid == entry.fileid));
        }
        assert!(ok.reply.eof);
    }
}

#[test]
fn modifying_calls_say_read_only() {
    let rig = Rig::new();
    for procedure in [2, 7, 8, 9, 10, 11, 12, 13, 14, 15, 21] {
        let words = match procedure {
            14 => 5,
            15 => 4,
            _ => 3,
        };
        let mut want = vec![0; words * 4];
        want[3] = 30;
        assert_eq!(rig.call(procedure, &[]), Ok(want), "procedure {procedure}");
    }
    assert_eq!(rig.call(0, &[]), Ok(vec![]));
    assert_eq!(rig.call(22, &[]), Err(Refusal::NoProcedure));
}

#[test]
fn arguments_that_end_early_are_garbage() {
    let rig = Rig::new();
    let mut full = args(|out| out.opaque(&rig.handle("/etc")));
    let bare = full.len();
    full.extend_from_slice(&[0; 24]);
    // Bytes behind the handle that each procedure needs.
    for (procedure, rest) in
        [(1, 0), (3, 4), (4, 4), (5, 0), (6, 12), (16, 20), (17, 24), (18, 0), (19, 0), (20, 0)]
    {
        for end in 0..bare + rest {
            assert_eq!(rig.call(procedure, &full[..end]), Err(Refusal::Garbage), "{procedure} cut at {end}");
        }
        assert!(rig.call(procedure, &full[..bare + rest]).is_ok(), "{procedure}");
    }
    let long = args(|out| out.opaque(&[0; 65]));
    assert_eq!(rig.call(1, &long), Err(Refusal::Garbage), "a handle of 65 bytes");
}

#[test]
fn handles_are_for_the_node_that_booted() {
    let getattr = |rig: &Rig, handle: &[u8]| status(&rig.call(1, &args(|out| out.opaque(handle))).unwrap());
    let mut rig = Rig::new();
    let good = rig.handle("/etc");
    assert_eq!(getattr(&rig, &good), 0);
    assert_eq!(getattr(&rig, &[0; 32]), Status::BadHandle.code(), "forged");
    assert_eq!(getattr(&rig, &good[..31]), Status::BadHandle.code(), "cut");
    let unknown = Seal::new(&KEY).seal("fenn", ID, FileId(9999));
    assert_eq!(getattr(&rig, &unknown), Status::Stale.code(), "no such inode");
    let older = Seal::new(&KEY).seal("fenn", ExportId([0; 16]), FileId(1));
    assert_eq!(getattr(&rig, &older), Status::Stale.code(), "an export that is gone");
    rig.node = Some("karstark");
    assert_eq!(getattr(&rig, &good), Status::BadHandle.code(), "another node's, the same as forged");
    rig.node = None;
    assert_eq!(getattr(&rig, &good), Status::Acces.code(), "a stranger");
    rig.node = Some("fenn");
    rig.host.set_booted(false);
    assert_eq!(getattr(&rig, &good), Status::Acces.code(), "before any boot");
    assert_eq!(rig.host.take_events().len(), 1, "a connection tells of its first refusal");
    rig.host.set_booted(true);
    rig.host.set_gone();
    assert_eq!(getattr(&rig, &good), Status::Stale.code(), "a boot that is over");
}

#[test]
fn directories_are_closed_to_others() {
    let mut rig = Rig::new();
    rig.uid = 5;
    let acces = Status::Acces.code();
    assert_eq!(status(&rig.on(3, "/root", |out| out.opaque(b"x"))), acces);
    assert_eq!(status(&rig.on(16, "/root", |out| out.extend_from_slice(&[0xf; 20]))), acces);
    assert_eq!(status(&rig.on(17, "/root", |out| out.extend_from_slice(&[0xf; 24]))), acces);
    assert_eq!(status(&rig.on(1, "/root", |_| {})), 0, "attributes are no secret");
}

/// What one READDIR or READDIRPLUS gave: names with cookies, and eof. `None` is TOOSMALL.
fn list(
    rig: &Rig,
    path: &str,
    plus: bool,
    cookie: u64,
    counts: (u32, u32),
) -> Option<(Vec<(Vec<u8>, u64)>, bool)> {
    let result = rig.on(if plus { 17 } else { 16 }, path, |out| {
        out.u64(cookie);
        out.u64(0);
        if plus {
            out.u32(counts.0);
        }
        out.u32(counts.1);
    });
    let mut input = Reader::new(&result);
    if input.u32().unwrap() == Status::TooSmall.code() {
        return None;
    }
    assert_eq!(status(&result), 0);
    assert!(result.len() <= counts.1 as usize, "{} bytes where {} are allowed", result.len(), counts.1);
    input.array::<88>().unwrap();
    input.u64().unwrap();
    let (mut found, mut names) = (Vec::new(), 0);
    while input.bool().unwrap() {
        input.u64().unwrap();
        let name = input.opaque(255).unwrap();
        names += 8 + crate::rpc::xdr::opaque_size(name.len()) + 8;
        found.push((name.to_vec(), input.u64().unwrap()));
        if plus {
            input.array::<88>().unwrap();
            input.array::<40>().unwrap();
        }
    }
    assert!(!plus || names <= counts.0 as usize, "{names} bytes of names where {} are allowed", counts.0);
    let eof = input.bool().unwrap();
    assert!(input.rest().is_empty());
    Some((found, eof))
}

#[test]
fn counts_bound_the_whole_result() {
    let rig = Rig::new();
    // Head 4 + 88 + 8, tail 8, `.` 4 + 8 + 8 + 8, and with READDIRPLUS 88 + 40 more.
    assert_eq!(list(&rig, "/empty", false, 0, (0, 135)), None);
    assert_eq!(list(&rig, "/empty", false, 0, (0, 136)), Some((vec![(b".".to_vec(), 1)], false)));
    assert_eq!(list(&rig, "/empty", false, 0, (0, 163)).unwrap().0.len(), 1);
    let both = vec![(b".".to_vec(), 1), (b"..".to_vec(), 2)];
    assert_eq!(list(&rig, "/empty", false, 0, (0, 164)), Some((both.clone(), true)));
    assert_eq!(list(&rig, "/empty", true, 0, (1000, 263)), None);
    assert_eq!(list(&rig, "/empty", true, 0, (1000, 264)), Some((vec![(b".".to_vec(), 1)], false)));
    assert_eq!(list(&rig, "/empty", true, 0, (23, 1000)), None);
    assert_eq!(list(&rig, "/empty", true, 0, (24, 1000)), Some((vec![(b".".to_vec(), 1)], false)));
    assert_eq!(list(&rig, "/empty", true, 0, (48, 420)), Some((both, true)));
    // Nothing is left: an empty list needs no more than its frame.
    for past in [2, 3, 1000, u64::MAX] {
        assert_eq!(list(&rig, "/empty", false, past, (0, 108)), Some((vec![], true)), "cookie {past}");
        assert_eq!(list(&rig, "/empty", false, past, (0, 107)), None);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// A walk with any counts that hold one entry gives each entry once, also when each answer comes
    /// from another server.
    #[test]
    fn a_walk_gives_each_entry_once(
        sizes in prop::collection::btree_set(1usize..=255, 0..60),
        counts in prop::collection::vec((0u32..3000, 0u32..3000), 1..10),
        plus: bool,
    ) {
        let build = || Rig::with(|export| {
            for size in &sizes {
                export.add([&b"/empty/"[..], &vec![b'n'; *size]].concat(), FileType::Fifo, 0o600);
            }
        });
        // The largest entry: a name of 255 bytes.
        let least = (8 + 260 + 8, 100 + 4 + 8 + 260 + 8 + if plus { 128 } else { 0 } + 8);
        let (mut cookie, mut found) = (0, Vec::new());
        for (names, total) in counts.iter().cycle() {
            let (page, eof) = list(&build(), "/empty", plus, cookie, (least.0 + names, least.1 + total)).unwrap();
            prop_assert!(eof || !page.is_empty());
            cookie = page.last().map_or(cookie, |(_, cookie)| *cookie);
            found.extend(page.into_iter().map(|(name, _)| name));
            if eof {
                break;
            }
        }
        let mut want = vec![b".".to_vec(), b"..".to_vec()];
        want.extend(sizes.iter().map(|size| vec![b'n'; *size]));
        prop_assert_eq!(found, want);
    }
}
