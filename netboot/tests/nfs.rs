//! The NFS service over real loopback sockets: the foreign codec calls each procedure, and libnfs's
//! tools fetch files.
//! Must not know: private parts of the service.
//! Spec: RFC 1813, RFC 5531, RFC 1833. Ports are the system's choice; 127.0.0.1 is the node `fenn`.

#![expect(clippy::unwrap_used, reason = "in a test an unwrap is the assertion")]

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream, UdpSocket};
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use gt_netboot::nfs::memory::MemoryExport;
use gt_netboot::nfs::service::HighPorts;
use gt_netboot::nfs::{Denied, Event, Export, ExportId, FileType, Host, Ports, Server, Sockets};
use gt_netboot::site::{Mac, Node, Serial, Site};
use nfs3_types::mount::{dirpath, mountres3};
use nfs3_types::nfs3::{
    ACCESS3args, ACCESS3res, COMMIT3args, COMMIT3res, CREATE3args, CREATE3res, FSINFO3args, FSINFO3res,
    FSSTAT3args, FSSTAT3res, GETATTR3args, GETATTR3res, LINK3args, LINK3res, LOOKUP3args, LOOKUP3res,
    MKDIR3args, MKDIR3res, MKNOD3args, MKNOD3res, Nfs3Result, PATHCONF3args, PATHCONF3res, READ3args,
    READ3res, READDIR3args, READDIR3res, READDIRPLUS3args, READDIRPLUS3res, READLINK3args, READLINK3res,
    REMOVE3args, REMOVE3res, RENAME3args, RENAME3res, RMDIR3args, RMDIR3res, SETATTR3args, SETATTR3res,
    SYMLINK3args, SYMLINK3res, WRITE3args, WRITE3res, cookieverf3, createhow3, diropargs3, mknoddata3,
    nfs_fh3, nfsstat3, sattr3, sattrguard3, stable_how, symlinkdata3,
};
use nfs3_types::rpc::{
    accept_stat_data, auth_unix, call_body, msg_body, opaque_auth, rejected_reply, reply_body, rpc_msg,
};
use nfs3_types::xdr_codec::{Opaque, Pack, Unpack};
use tokio::net::{TcpListener, UdpSocket as AsyncUdp};
use tokio::runtime::Runtime;
use tokio_util::sync::CancellationToken;

const NFS: u32 = 100_003;
const MOUNT: u32 = 100_005;
const PORTMAP: u32 = 100_000;
const LOCALHOST: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

struct OneNode {
    site: Arc<Site>,
    export: Arc<MemoryExport>,
    events: Mutex<Vec<Event>>,
}

impl Host for OneNode {
    fn site(&self) -> Arc<Site> {
        Arc::clone(&self.site)
    }

    fn mount(&self, node: &str) -> Result<Arc<dyn Export>, Denied> {
        if node == "fenn" { Ok(self.export.clone()) } else { Err(Denied::NoBoot) }
    }

    fn export(&self, node: &str, id: ExportId) -> Result<Arc<dyn Export>, Denied> {
        if id == self.export.id() { self.mount(node) } else { Err(Denied::Gone) }
    }

    fn event(&self, event: Event) {
        self.events.lock().unwrap().push(event);
    }
}

fn node(name: &str, address: Ipv4Addr, n: u8) -> Node {
    Node { name: name.to_owned(), address, mac: Mac([n; 6]), serial: Serial(n.into()) }
}

fn host(export: Arc<MemoryExport>) -> Arc<OneNode> {
    let nodes = vec![node("fenn", Ipv4Addr::LOCALHOST, 1), node("karstark", Ipv4Addr::new(127, 0, 0, 2), 2)];
    let site = Site {
        server: Ipv4Addr::LOCALHOST,
        netmask: Ipv4Addr::new(255, 0, 0, 0),
        gateway: None,
        dns: vec![],
        domain: "goldentooth.net".to_owned(),
        nodes,
    };
    Arc::new(OneNode { site: Arc::new(site), export, events: Mutex::default() })
}

/// A service on free ports; it ends with the value.
struct Served {
    ports: Ports,
    server: Arc<Server>,
    host: Arc<OneNode>,
    shutdown: CancellationToken,
    done: tokio::task::JoinHandle<()>,
    runtime: Runtime,
}

impl Served {
    fn new(export: Arc<MemoryExport>) -> Served {
        Served::with(export, HighPorts::Trusted)
    }

    fn with(export: Arc<MemoryExport>, high_ports: HighPorts) -> Served {
        let runtime = Runtime::new().unwrap();
        let (sockets, ports) = runtime.block_on(sockets());
        let (host, shutdown) = (host(export), CancellationToken::new());
        let server = Server::new(host.clone(), &[9; 32], ports, high_ports);
        let done = runtime.spawn(Arc::clone(&server).run(sockets, shutdown.clone()));
        Served { ports, server, host, shutdown, done, runtime }
    }

    fn connect(&self) -> Client {
        Client::new(self.ports.nfs)
    }

    /// Stops the service and waits for it.
    fn stop(self) {
        self.shutdown.cancel();
        self.runtime.block_on(self.done).unwrap();
    }
}

async fn sockets() -> (Sockets, Ports) {
    let tcp = async || TcpListener::bind(LOCALHOST).await.unwrap();
    let (nfs, mount, portmap) = (tcp().await, tcp().await, tcp().await);
    let port = |listener: &TcpListener| listener.local_addr().unwrap();
    let ports = Ports { nfs: port(&nfs).port(), mount: port(&mount).port(), portmap: port(&portmap).port() };
    let mount_udp = AsyncUdp::bind(port(&mount)).await.unwrap();
    let portmap_udp = AsyncUdp::bind(port(&portmap)).await.unwrap();
    let sockets = Sockets {
        nfs: vec![nfs],
        mount: vec![mount],
        mount_udp: vec![mount_udp],
        portmap: vec![portmap],
        portmap_udp: vec![portmap_udp],
    };
    (sockets, ports)
}

/// A blocking client whose messages the foreign codec writes and reads.
struct Client {
    stream: TcpStream,
    uid: u32,
    xid: u32,
}

/// The foreign codec's answer to a call that was not done, as it shows itself.
type Refused = String;

impl Client {
    fn new(port: u16) -> Client {
        let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        Client { stream, uid: 0, xid: 100 }
    }

    fn message(&mut self, (program, version, procedure): (u32, u32, u32), args: &impl Pack) -> Vec<u8> {
        self.xid += 1;
        let auth = auth_unix { uid: self.uid, gid: self.uid, ..auth_unix::default() };
        message(self.xid, (program, version, procedure), opaque_auth::auth_unix(&auth), args)
    }

    fn send(&mut self, message: &[u8]) {
        // One write: two would wait for each other (Nagle and delayed acknowledgements).
        let mark = (0x8000_0000 | message.len() as u32).to_be_bytes();
        self.stream.write_all(&[&mark, message].concat()).unwrap();
    }

    /// The next reply, which must be one fragment.
    fn receive(&mut self) -> Vec<u8> {
        let mut mark = [0; 4];
        self.stream.read_exact(&mut mark).unwrap();
        assert_eq!(mark[0] & 0x80, 0x80, "the first fragment is the last");
        let mut reply = vec![0; (u32::from_be_bytes(mark) & 0x7fff_ffff) as usize];
        self.stream.read_exact(&mut reply).unwrap();
        reply
    }

    fn raw(&mut self, call: (u32, u32, u32), args: &impl Pack) -> Result<Vec<u8>, Refused> {
        let message = self.message(call, args);
        self.send(&message);
        let reply = self.receive();
        result(self.xid, &reply)
    }

    fn call<T: Unpack>(&mut self, call: (u32, u32, u32), args: &impl Pack) -> T {
        let bytes = self.raw(call, args).unwrap();
        let (found, len) = T::unpack(&mut &bytes[..]).unwrap();
        assert_eq!(len, bytes.len(), "the whole result of {call:?} is read");
        found
    }

    fn nfs<T: Unpack>(&mut self, procedure: u32, args: &impl Pack) -> T {
        self.call((NFS, 3, procedure), args)
    }

    fn root(&mut self) -> nfs_fh3 {
        match self.call((MOUNT, 3, 1), &dirpath(Opaque::borrowed(b"/fenn"))) {
            mountres3::Ok(ok) => nfs_fh3 { data: Opaque::owned(ok.fhandle.0.to_vec()) },
            mountres3::Err(status) => panic!("MNT: {status}"),
        }
    }

    fn find(&mut self, dir: &nfs_fh3, name: &'static str) -> nfs_fh3 {
        match self.nfs(3, &LOOKUP3args { what: entry(dir, name) }) {
            LOOKUP3res::Ok(ok) => ok.object,
            LOOKUP3res::Err((status, _)) => panic!("LOOKUP {name}: {status}"),
        }
    }

    fn read(&mut self, file: &nfs_fh3, offset: u64, count: u32) -> Result<(Vec<u8>, bool), nfsstat3> {
        match self.nfs(6, &READ3args { file: file.clone(), offset, count }) {
            READ3res::Ok(ok) => {
                assert_eq!(ok.count as usize, ok.data.len());
                Ok((ok.data.to_vec(), ok.eof))
            }
            READ3res::Err((status, _)) => Err(status),
        }
    }
}

fn message(
    xid: u32,
    (prog, vers, proc): (u32, u32, u32),
    cred: opaque_auth<'static>,
    args: &impl Pack,
) -> Vec<u8> {
    let body = call_body { rpcvers: 2, prog, vers, proc, cred, verf: opaque_auth::default() };
    let mut out = Vec::new();
    rpc_msg { xid, body: msg_body::CALL(body) }.pack(&mut out).unwrap();
    args.pack(&mut out).unwrap();
    out
}

fn result(xid: u32, reply: &[u8]) -> Result<Vec<u8>, Refused> {
    let (message, len) = rpc_msg::unpack(&mut &reply[..]).unwrap();
    assert_eq!(message.xid, xid);
    let msg_body::REPLY(body) = message.body else { panic!("no reply") };
    match body {
        reply_body::MSG_ACCEPTED(accepted) => match accepted.reply_data {
            accept_stat_data::SUCCESS => Ok(reply[len..].to_vec()),
            other => Err(format!("{other:?}")),
        },
        reply_body::MSG_DENIED(rejected_reply::AUTH_ERROR(why)) => Err(format!("{why}")),
        reply_body::MSG_DENIED(other) => Err(format!("{other:?}")),
    }
}

fn entry<'a>(dir: &nfs_fh3, name: &'a str) -> diropargs3<'a> {
    diropargs3 { dir: dir.clone(), name: name.as_bytes().into() }
}

fn content(len: usize) -> Vec<u8> {
    (0..len).map(|i| (i / 7) as u8 ^ (i / 1024) as u8).collect()
}

const BIG: usize = (3 << 20) + 5;

fn export() -> Arc<MemoryExport> {
    let mut export = MemoryExport::new(ExportId(*b"fenn generation1"));
    export.add("/etc", FileType::Directory, 0o755);
    export.add("/many", FileType::Directory, 0o755);
    export.add_file("/etc/hostname", 0o644, b"fenn\n").unwrap();
    export.add_file("/etc/shadow", 0o600, b"root:*:\n").unwrap();
    export.add_file("/big", 0o644, &content(BIG)).unwrap();
    export.add_symlink("/link", b"etc/hostname");
    export.add("/null", FileType::Char(1, 3), 0o666);
    for n in 0..2000 {
        export.add(format!("/many/entry-{n:04}"), FileType::Fifo, 0o600);
    }
    Arc::new(export)
}

#[test]
fn a_foreign_codec_calls_each_procedure() {
    let served = Served::new(export());
    let mut client = served.connect();
    let root = client.root();
    let (etc, link) = (client.find(&root, "etc"), client.find(&root, "link"));
    let file = client.find(&etc, "hostname");
    assert_eq!(client.raw((NFS, 3, 0), &0u32), Ok(vec![]), "NULL");
    let object = file.clone();
    let GETATTR3res::Ok(ok) = client.nfs(1, &GETATTR3args { object }) else { panic!("GETATTR") };
    assert_eq!((ok.obj_attributes.size, ok.obj_attributes.mode), (5, 0o644));
    let ACCESS3res::Ok(ok) = client.nfs(4, &ACCESS3args { object: file.clone(), access: 0x3f }) else {
        panic!("ACCESS")
    };
    assert_eq!(ok.access, 1);
    let READLINK3res::Ok(ok) = client.nfs(5, &READLINK3args { symlink: link }) else { panic!("READLINK") };
    assert_eq!(ok.data.0.as_ref(), b"etc/hostname");
    assert_eq!(client.read(&file, 1, 3), Ok((b"enn".to_vec(), false)));
    let args = READDIR3args { dir: etc.clone(), cookie: 0, cookieverf: cookieverf3([0; 8]), count: 4096 };
    let READDIR3res::Ok(ok) = client.nfs(16, &args) else { panic!("READDIR") };
    assert_eq!(ok.reply.entries.into_inner().len(), 4);
    let cookieverf = cookieverf3([1; 8]);
    let args = READDIRPLUS3args { dir: etc, cookie: 2, cookieverf, dircount: 4096, maxcount: 4096 };
    let READDIRPLUS3res::Ok(ok) = client.nfs(17, &args) else { panic!("READDIRPLUS") };
    assert_eq!(ok.reply.entries.into_inner().len(), 2);
    let fsroot = root.clone();
    assert!(matches!(client.nfs(18, &FSSTAT3args { fsroot }), FSSTAT3res::Ok(ok) if ok.abytes == 0));
    let fsroot = root.clone();
    assert!(matches!(client.nfs(19, &FSINFO3args { fsroot }), FSINFO3res::Ok(ok) if ok.rtmax == 1 << 20));
    let object = root.clone();
    assert!(matches!(client.nfs(20, &PATHCONF3args { object }), PATHCONF3res::Ok(ok) if ok.no_trunc));
    assert_eq!(client.raw((NFS, 3, 22), &0u32), Err("PROC_UNAVAIL".to_owned()));
    let calls: Vec<_> = served.server.calls("fenn").iter().filter(|(_, count)| *count > 0).collect();
    let want = [
        ("NULL", 1),
        ("GETATTR", 1),
        ("LOOKUP", 3),
        ("ACCESS", 1),
        ("READLINK", 1),
        ("READ", 1),
        ("READDIR", 1),
        ("READDIRPLUS", 1),
        ("FSSTAT", 1),
        ("FSINFO", 1),
        ("PATHCONF", 1),
    ];
    assert_eq!(calls, want);
    assert_eq!(served.server.calls("fenn").bytes_read(), 3);
}

fn read_only<T, E>(what: &str, found: Nfs3Result<T, E>) {
    match found {
        Nfs3Result::Ok(_) => panic!("{what} was done"),
        Nfs3Result::Err((status, _)) => assert!(matches!(status, nfsstat3::NFS3ERR_ROFS), "{what}: {status}"),
    }
}

#[test]
fn a_foreign_codec_changes_nothing() {
    let served = Served::new(export());
    let client = &mut served.connect();
    let root = client.root();
    let file = client.find(&root, "big");
    let (at, new) = (|| entry(&root, "new"), sattr3::default);
    let args = SETATTR3args { object: file.clone(), new_attributes: new(), guard: sattrguard3::None };
    read_only("SETATTR", client.nfs::<SETATTR3res>(2, &args));
    let (stable, data) = (stable_how::FILE_SYNC, Opaque::owned(vec![1; 65536]));
    let args = WRITE3args { file: file.clone(), offset: 0, count: 65536, stable, data };
    read_only("WRITE", client.nfs::<WRITE3res>(7, &args));
    let how = createhow3::UNCHECKED(new());
    read_only("CREATE", client.nfs::<CREATE3res>(8, &CREATE3args { where_: at(), how }));
    read_only("MKDIR", client.nfs::<MKDIR3res>(9, &MKDIR3args { where_: at(), attributes: new() }));
    let symlink = symlinkdata3 { symlink_attributes: new(), symlink_data: b"x"[..].into() };
    read_only("SYMLINK", client.nfs::<SYMLINK3res>(10, &SYMLINK3args { where_: at(), symlink }));
    let what = mknoddata3::NF3FIFO(new());
    read_only("MKNOD", client.nfs::<MKNOD3res>(11, &MKNOD3args { where_: at(), what }));
    read_only("REMOVE", client.nfs::<REMOVE3res>(12, &REMOVE3args { object: at() }));
    read_only("RMDIR", client.nfs::<RMDIR3res>(13, &RMDIR3args { object: at() }));
    read_only("RENAME", client.nfs::<RENAME3res>(14, &RENAME3args { from: at(), to: at() }));
    read_only("LINK", client.nfs::<LINK3res>(15, &LINK3args { file: file.clone(), link: at() }));
    read_only("COMMIT", client.nfs::<COMMIT3res>(21, &COMMIT3args { file, offset: 0, count: 0 }));
}

#[test]
fn contents_come_byte_for_byte() {
    let dir = TempDir::new("contents");
    std::fs::write(dir.0.join("big"), content(BIG)).unwrap();
    let loaded = Arc::new(MemoryExport::load(ExportId([5; 16]), &dir.0).unwrap());
    // One export whose files are in memory, where RWF_NOWAIT may not be known, and one on disk.
    for export in [export(), loaded] {
        let served = Served::new(export);
        let mut client = served.connect();
        let root = client.root();
        let file = client.find(&root, "big");
        // Twice: the second time the file is open, and in the page cache.
        for round in 0..2 {
            let (mut found, mut eof) = (Vec::new(), false);
            while !eof {
                let (data, end) = client.read(&file, found.len() as u64, 999_999).unwrap();
                found.extend(data);
                eof = end;
            }
            assert!(found == content(BIG), "round {round}");
        }
    }
}

#[test]
fn calls_sent_ahead_are_answered_in_order() {
    let served = Served::new(export());
    let mut client = served.connect();
    let root = client.root();
    let file = client.find(&root, "big");
    let mut stream = Vec::new();
    for n in 0..40 {
        let args = READ3args { file: file.clone(), offset: n * 70_000, count: 70_000 };
        let message = client.message((NFS, 3, 6), &args);
        // Each in three fragments.
        let (a, rest) = message.split_at(7);
        let (b, c) = rest.split_at(50);
        for (last, part) in [(0, a), (0, b), (0x8000_0000, c)] {
            stream.extend_from_slice(&(last | part.len() as u32).to_be_bytes());
            stream.extend_from_slice(part);
        }
    }
    let first = client.xid - 39;
    let mut writer = client.stream.try_clone().unwrap();
    let sender = std::thread::spawn(move || writer.write_all(&stream).unwrap());
    let want = content(BIG);
    for n in 0..40usize {
        let reply = client.receive();
        let bytes = result(first + n as u32, &reply).unwrap();
        let READ3res::Ok(ok) = READ3res::unpack(&mut &bytes[..]).unwrap().0 else { panic!("READ {n}") };
        assert!(ok.data.as_ref() == &want[n * 70_000..(n + 1) * 70_000], "READ {n}");
    }
    sender.join().unwrap();
}

#[test]
fn a_connection_that_breaks_the_rules_ends_alone() {
    let served = Served::new(export());
    let mut good = served.connect();
    let root = good.root();
    let too_long = 0x8002_0001u32.to_be_bytes().to_vec();
    let reply = [&0x8000_0008u32.to_be_bytes()[..], &[0, 0, 0, 1, 0, 0, 0, 1]].concat();
    for bytes in [too_long, vec![0; 4], reply, b"\x80\0\0\x04junk".to_vec(), vec![0xff; 100]] {
        let mut bad = served.connect();
        bad.stream.write_all(&bytes).unwrap();
        // Bytes that were not read make the end a reset.
        let mut rest = Vec::new();
        let end = bad.stream.read_to_end(&mut rest);
        assert!(end.is_ok() || end.unwrap_err().kind() == std::io::ErrorKind::ConnectionReset, "{bytes:?}");
        assert!(rest.is_empty());
    }
    assert!(matches!(good.nfs(1, &GETATTR3args { object: root }), GETATTR3res::Ok(_)));
    let events = served.host.events.lock().unwrap();
    assert_eq!(events.iter().filter(|e| matches!(e, Event::Malformed { .. })).count(), 5);
}

#[test]
fn handles_and_cookies_outlive_the_server() {
    let walk = |client: &mut Client, dir: &nfs_fh3, cookie| {
        let cookieverf = cookieverf3([0; 8]);
        let args = READDIRPLUS3args { dir: dir.clone(), cookie, cookieverf, dircount: 1000, maxcount: 3000 };
        let READDIRPLUS3res::Ok(ok) = client.nfs(17, &args) else { panic!("READDIRPLUS at {cookie}") };
        let names: Vec<_> =
            ok.reply.entries.into_inner().iter().map(|e| (e.name.0.to_vec(), e.cookie)).collect();
        (names, ok.reply.eof)
    };
    let mut served = Served::new(export());
    let mut client = served.connect();
    let root = client.root();
    let (many, mut found, mut pages) = (client.find(&root, "many"), Vec::new(), 0);
    loop {
        let (names, eof) = walk(&mut client, &many, found.last().map_or(0, |(_, cookie)| *cookie));
        found.extend(names);
        if eof {
            break;
        }
        pages += 1;
        if pages % 50 == 0 {
            served.stop();
            served = Served::new(export());
            client = served.connect();
        }
    }
    assert_eq!(found.len(), 2002);
    assert!(found[2..].is_sorted() && found[2001].0 == b"entry-1999");
}

#[test]
fn programs_and_versions() {
    let served = Served::new(export());
    let ports = served.ports;
    let mismatch = |low: u32, high: u32| Err(format!("PROG_MISMATCH {{ low: {low}, high: {high} }}"));
    let unavailable = || Err("PROG_UNAVAIL".to_owned());
    for (port, call, want) in [
        (ports.nfs, (NFS, 2, 0), mismatch(3, 3)),
        (ports.nfs, (NFS, 4, 0), mismatch(3, 3)),
        (ports.nfs, (100_227, 2, 0), mismatch(3, 3)),
        (ports.nfs, (100_227, 3, 0), Ok(vec![])),
        (ports.nfs, (100_021, 4, 0), unavailable()),
        (ports.nfs, (PORTMAP, 2, 0), unavailable()),
        (ports.nfs, (MOUNT, 3, 0), Ok(vec![])),
        (ports.mount, (MOUNT, 3, 0), Ok(vec![])),
        (ports.mount, (MOUNT, 1, 0), Ok(vec![])),
        (ports.mount, (MOUNT, 4, 0), mismatch(1, 3)),
        (ports.mount, (NFS, 3, 0), unavailable()),
        (ports.portmap, (PORTMAP, 2, 0), Ok(vec![])),
        (ports.portmap, (PORTMAP, 4, 0), mismatch(2, 2)),
        (ports.portmap, (MOUNT, 3, 0), unavailable()),
    ] {
        assert_eq!(Client::new(port).raw(call, &0u32), want, "{call:?} on {port} of {ports:?}");
    }
    let mut client = served.connect();
    let bad = opaque_auth { flavor: nfs3_types::rpc::auth_flavor::AUTH_DES, body: Opaque::borrowed(b"") };
    client.send(&message(1, (NFS, 3, 1), bad, &0u32));
    assert_eq!(result(1, &client.receive()), Err("AUTH_BADCRED".to_owned()));
}

/// A datagram from `from` and what comes back.
fn datagram(from: Ipv4Addr, port: u16, call: (u32, u32, u32), args: &impl Pack) -> Result<Vec<u8>, Refused> {
    let socket = UdpSocket::bind((from, 0)).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let sent = message(5, call, opaque_auth::default(), args);
    // What is no RPC is dropped, and the service goes on.
    socket.send_to(b"junk", (Ipv4Addr::LOCALHOST, port)).unwrap();
    socket.send_to(&sent, (Ipv4Addr::LOCALHOST, port)).unwrap();
    let mut reply = [0; 2048];
    let len = socket.recv(&mut reply).unwrap();
    result(5, &reply[..len])
}

#[test]
fn datagrams() {
    let served = Served::new(export());
    let getport = |prog, vers, prot| {
        let args = nfs3_types::portmap::mapping { prog, vers, prot, port: 0 };
        let found = datagram(Ipv4Addr::LOCALHOST, served.ports.portmap, (PORTMAP, 2, 3), &args).unwrap();
        u32::unpack(&mut &found[..]).unwrap().0
    };
    assert_eq!(getport(NFS, 3, 6), u32::from(served.ports.nfs));
    assert_eq!(getport(NFS, 3, 17), 0, "no NFS over UDP");
    assert_eq!(getport(MOUNT, 3, 17), u32::from(served.ports.mount));
    assert_eq!(getport(100_227, 3, 6), u32::from(served.ports.nfs));
    let mnt = |from| {
        let path = dirpath(Opaque::borrowed(b"/fenn"));
        let found = datagram(from, served.ports.mount, (MOUNT, 3, 1), &path).unwrap();
        match mountres3::unpack(&mut &found[..]).unwrap().0 {
            mountres3::Ok(ok) => Ok(ok.fhandle.0.to_vec()),
            mountres3::Err(status) => Err(status as u32),
        }
    };
    assert_eq!(mnt(Ipv4Addr::LOCALHOST).map(|handle| handle.len()), Ok(32));
    assert_eq!(mnt(Ipv4Addr::new(127, 0, 0, 2)), Err(2), "karstark has another path");
    assert_eq!(mnt(Ipv4Addr::new(127, 0, 0, 3)), Err(13), "a stranger");
    let dump = datagram(Ipv4Addr::LOCALHOST, served.ports.portmap, (PORTMAP, 2, 4), &0u32);
    assert_eq!(dump, Err("PROC_UNAVAIL".to_owned()));
}

#[test]
fn users_past_their_kernel_are_nobody() {
    for (high_ports, want) in [(HighPorts::Trusted, true), (HighPorts::Nobody, false)] {
        let served = Served::with(export(), high_ports);
        let mut client = served.connect();
        let root = client.root();
        let etc = client.find(&root, "etc");
        let (open, closed) = (client.find(&etc, "hostname"), client.find(&etc, "shadow"));
        assert!(client.read(&open, 0, 1).is_ok());
        assert_eq!(client.read(&closed, 0, 1).is_ok(), want, "{high_ports:?}");
    }
}

#[test]
fn connections_are_bounded_for_each_address() {
    let served = Served::new(export());
    let mut open: Vec<_> = (0..32).map(|_| served.connect()).collect();
    for client in &mut open {
        assert_eq!(client.raw((NFS, 3, 0), &0u32), Ok(vec![]));
    }
    let mut refused = served.connect();
    let end = refused.stream.read(&mut [0]);
    assert!(matches!(end, Ok(0)), "the 33rd is closed: {end:?}");
    assert_eq!(open[31].raw((NFS, 3, 0), &0u32), Ok(vec![]), "and the others live");
}

#[test]
fn shutdown_ends_idle_connections() {
    let served = Served::new(export());
    let mut client = served.connect();
    client.root();
    served.stop();
    assert!(matches!(client.stream.read(&mut [0]), Ok(0)));
}

/// A directory that goes with the value.
struct TempDir(std::path::PathBuf);

impl TempDir {
    fn new(name: &str) -> TempDir {
        let dir =
            std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        TempDir(dir)
    }
}

impl Drop for TempDir {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// The output of a libnfs tool on a path of the export; `None`, said aloud, if it is not installed.
fn libnfs(tool: &str, served: &Served, options: &[&str], path: &str) -> Option<Vec<u8>> {
    let Ports { nfs, mount, .. } = served.ports;
    let url = format!("nfs://127.0.0.1/fenn{path}?version=3&nfsport={nfs}&mountport={mount}");
    let out = match Command::new(tool).args(options).arg(&url).output() {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
            let required = std::env::var("GT_IMAGE_REQUIRE").unwrap_or_default();
            assert!(
                !required.split(',').any(|tier| tier == "netns"),
                "netns is required here: there is no {tool}"
            );
            writeln!(std::io::stderr(), "not run: netns: there is no {tool}").ok();
            return None;
        }
        out => out.unwrap(),
    };
    let said = String::from_utf8_lossy(&out.stderr).into_owned();
    assert!(out.status.success(), "{tool} {url}: {said}{}", String::from_utf8_lossy(&out.stdout));
    Some(out.stdout)
}

#[test]
fn libnfs_fetches_files() {
    let served = Served::new(export());
    let Some(found) = libnfs("nfs-cat", &served, &[], "/big") else { return };
    assert!(found == content(BIG), "nfs-cat /big");
    assert_eq!(libnfs("nfs-cat", &served, &[], "/etc/hostname").unwrap(), b"fenn\n");
}

#[test]
fn libnfs_lists_directories() {
    let served = Served::new(export());
    let Some(found) = libnfs("nfs-ls", &served, &["-R"], "") else { return };
    let found = String::from_utf8(found).unwrap();
    let names: Vec<_> = found.lines().filter_map(|line| line.split_whitespace().last()).collect();
    for n in 0..2000 {
        let want = format!("entry-{n:04}");
        assert_eq!(names.iter().filter(|name| name.ends_with(&want)).count(), 1, "{want}");
    }
    let line = found.lines().find(|line| line.ends_with("hostname")).unwrap();
    let fields: Vec<_> = line.split_whitespace().collect();
    assert_eq!(fields[..5], ["-rw-r--r--", "1", "0", "0", "5"], "{line}");
}
