//! `gt-image serve` on the wire: nodes whose firmware is played boot beside a real router, all at once,
//! over a lossy cable, amid garbage and through a crash; strangers and neighbours get nothing.
//! Must not know: how anything is served. Spec: design.md sections 7, 10 and 13; the played firmware is
//! `gt_netboot::pi`.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::io::Write;
use std::net::{Ipv4Addr, SocketAddrV4, TcpStream, UdpSocket};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use gt_netboot::pi::Pace;
use gt_netboot::pi::boot::{Boot, Fault, Loaded, Setup};
use gt_netboot::pi::firmware::Kind;
use gt_netboot::pi::lease::LeaseError;
use gt_netboot::pi::tftp_client::{Answer, Client, OnDuplicate, Style, request};
use libtest_mimic::Trial;
use serde_json::Value;

use crate::support::dnsmasq::Dnsmasq;
use crate::support::net::{Card, Net, SERVER};
use crate::support::server::{Node, Server, node_status, power_on, status};
use crate::support::site::{Site, noise};
use crate::support::{Tier, ok, run, text, trial};

pub fn trials() -> Vec<Trial> {
    const NET: &[Tier] = &[Tier::Root, Tier::Judge(&["ip"])];
    const ROUTER: &[Tier] = &[Tier::Root, Tier::Judge(&["ip", "dnsmasq"])];
    const LOSS: &[Tier] = &[Tier::Root, Tier::Judge(&["ip", "nft"])];
    const NFS: &[Tier] = &[Tier::Root, Tier::Judge(&["ip", "nfs-ls", "nfs-cat", "showmount", "setpriv"])];
    vec![
        trial("wire::a_router_gives_the_address_and_we_the_rest", ROUTER, proxy),
        trial("wire::reservations_are_for_their_nodes_alone", NET, authoritative),
        trial("wire::ten_nodes_boot_in_lock_step", NET, ten),
        trial("wire::lost_packets_are_made_good", LOSS, loss),
        trial("wire::a_node_sees_its_own_files_and_root_alone", NFS, own_alone),
        trial("wire::garbage_changes_nothing", NET, garbage),
        trial("wire::a_crash_in_mid_transfer_is_survived", NET, crash),
    ]
}

pub const fn node(name: &'static str, mac: &'static str, serial: u32, address: &'static str) -> Node {
    Node { name, mac, serial, address }
}

/// The cluster's ten. The server of these networks has Allyrion's address, so Allyrion has another.
pub const NODES: [Node; 10] = [
    node("bettley", "d8:3a:dd:89:c1:0b", 0x4cd9_693a, "10.4.0.11"),
    node("cargyll", "d8:3a:dd:8a:7d:ef", 0x5963_9862, "10.4.0.12"),
    node("dalt", "d8:3a:dd:8a:7e:9a", 0xd32a_9346, "10.4.0.13"),
    node("erenford", "d8:3a:dd:8a:80:3c", 0xd4d1_72f8, "10.4.0.14"),
    node("fenn", "d8:3a:dd:89:ef:61", 0xd2a7_ebcf, "10.4.0.15"),
    node("gardener", "d8:3a:dd:89:aa:7d", 0x13e0_244f, "10.4.0.16"),
    node("harlton", "d8:3a:dd:89:f9:23", 0x39c0_dd15, "10.4.0.17"),
    node("inchfield", "d8:3a:dd:89:fa:fc", 0x1c0e_763f, "10.4.0.18"),
    node("jast", "d8:3a:dd:89:f0:4b", 0xcaee_93f7, "10.4.0.19"),
    node("allyrion", "d8:3a:dd:8a:7d:aa", 0xf2c6_2f60, "10.4.0.20"),
];
pub const BETTLEY: Node = NODES[0];
pub const CARGYLL: Node = NODES[1];
pub const FENN: Node = NODES[4];

/// A machine that is in no description.
pub const STRANGER: Node = node("stranger", "dc:a6:32:01:36:c2", 0x5b15_4510, "10.4.0.99");
pub const ROUTER: Node = node("router", "02:00:00:00:00:01", 0, "10.4.0.1");

pub const MEBIBYTE: usize = 1 << 20;
pub const AUTHORITATIVE: &[&str] = &["--dhcp", "authoritative"];

/// The first of the cluster's nodes, with everything built.
pub fn built(nodes: usize, payload: usize) -> Site {
    let site = Site::for_netboot(&NODES[..nodes], payload);
    ok(&mut site.gt_image(["build", "--all", "--no-image"]));
    site
}

pub fn dir(site: &Site) -> PathBuf {
    site.path("")
}

/// Waits until the newest boot of a node tells of a kernel that was sent whole: its last block is
/// acknowledged a moment before the server knows.
pub fn recorded(net: &Net, site: &Site, node: &Node) -> Value {
    let kernel = fs::metadata(site.path("root/boot/firmware/kernel8.img")).unwrap().len();
    let begun = Instant::now();
    loop {
        let found = node_status(net, &dir(site), node);
        let steps = found["boots"][0]["steps"].as_array().cloned().unwrap_or_default();
        let sent = |step: &Value| {
            let name = step["detail"].as_str().unwrap_or_default();
            step["step"] == "file" && name.ends_with("kernel8.img") && step["bytes"] == kernel
        };
        if steps.iter().any(sent) {
            return found;
        }
        assert!(begun.elapsed() < Duration::from_secs(30), "{found:#}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// The kernel gets what the base brings.
pub fn right_bytes(site: &Site, loaded: &Loaded) {
    let initramfs = loaded.initramfs.as_ref().unwrap();
    for file in [&loaded.kernel, initramfs, &loaded.device_tree] {
        let name = file.name.rsplit('/').next().unwrap();
        let want = fs::read(site.path("root/boot/firmware").join(name)).unwrap();
        assert!(file.bytes == want, "{} has other bytes", file.name);
    }
    let line = String::from_utf8(loaded.cmdline.as_ref().unwrap().bytes.clone()).unwrap();
    assert!(line.contains(SERVER), "the root is the server's: {line}");
}

pub fn silence(played: &Boot, server: &Server) {
    let result = &played.result;
    let silent = matches!(result, Err(Fault::Lease(LeaseError::Silence { .. })));
    assert!(silent && played.heard.is_empty(), "{result:?} {:#?}\n{}", played.heard, server.text());
}

// --- Addresses -----------------------------------------------------------------------------------

/// dnsmasq as a home router: it leases addresses and knows nothing of booting.
pub fn router(card: &Card, leases: &Path, nodes: &[&Node]) -> Dnsmasq {
    router_with(card, leases, nodes, &[])
}

/// The same with something more.
pub fn router_with(card: &Card, leases: &Path, nodes: &[&Node], more: &[&str]) -> Dnsmasq {
    card.configure(ROUTER.address);
    let hosts = nodes.iter().map(|node| format!("--dhcp-host={},{}", node.mac, node.address));
    let leases = format!("--dhcp-leasefile={}", leases.display());
    let range = "--dhcp-range=10.4.0.100,10.4.0.200,255.255.240.0,1h".to_owned();
    let mut args = ["--interface=eth0", "--dhcp-authoritative", "--no-ping"].map(str::to_owned).to_vec();
    args.extend([range, leases].into_iter().chain(hosts));
    let args: Vec<&str> = args.iter().map(String::as_str).chain(more.iter().copied()).collect();
    Dnsmasq::start(card.command("dnsmasq"), &args, "IP range")
}

fn proxy() {
    let site = built(1, MEBIBYTE);
    let net = Net::new("proxy", &[BETTLEY.mac, ROUTER.mac]);
    let _router = router(net.card(1), &site.path("leases"), &[&BETTLEY]);
    let server = Server::start(&net, &dir(&site), &["--dhcp", "proxy"]);
    let (played, loaded) = server.whole(power_on(net.card(0), &BETTLEY.board(), &Setup::default()));
    right_bytes(&site, &loaded);
    let lease = played.lease.as_ref().unwrap();
    assert_eq!(lease.address.to_string(), BETTLEY.address);
    assert_eq!(lease.server.unwrap().to_string(), ROUTER.address);
    assert_eq!(lease.tftp.to_string(), SERVER);
    let from = |address: &str| -> Vec<_> {
        played.heard.iter().filter(|heard| heard.from.ip().to_string() == address).collect()
    };
    let ours = from(SERVER);
    let only_offers =
        ours.iter().all(|heard| heard.reply.kind == Kind::Offer && heard.reply.yiaddr.is_none());
    assert!(!ours.is_empty() && only_offers, "we lease nothing: {:#?}", played.heard);
    assert!(from(ROUTER.address).iter().any(|heard| heard.reply.kind == Kind::Ack), "{:#?}", played.heard);
    let status = status(&net, &dir(&site));
    assert_eq!(status["servers"][0]["address"], ROUTER.address, "{status:#}");
    recorded(&net, &site, &BETTLEY);
}

fn authoritative() {
    let site = built(2, 100_000);
    let rival = "02:00:00:00:00:02";
    let net = Net::new("lease", &[BETTLEY.mac, CARGYLL.mac, STRANGER.mac, rival]);
    let server = Server::start(&net, &dir(&site), AUTHORITATIVE);
    let hasty = Setup { pace: Pace::faster(10), ..Setup::default() };

    let (played, _) = server.whole(power_on(net.card(0), &BETTLEY.board(), &Setup::default()));
    let lease = played.lease.unwrap();
    assert_eq!(lease.address.to_string(), BETTLEY.address);
    assert_eq!(lease.server.unwrap().to_string(), SERVER);

    silence(&power_on(net.card(2), &STRANGER.board(), &hasty), &server);
    let found = status(&net, &dir(&site));
    let stranger = &found["strangers"][0];
    assert_eq!(stranger["mac"], STRANGER.mac, "{found:#}");
    assert_eq!(stranger["serial"], format!("{:08x}", STRANGER.serial));
    assert_eq!(stranger["revision"], format!("{:x}", STRANGER.board().revision));

    net.card(3).configure(CARGYLL.address);
    silence(&power_on(net.card(1), &CARGYLL.board(), &hasty), &server);
    server.until(&format!("its address {} is in use by {rival}", CARGYLL.address));

    let other_board = Node { serial: STRANGER.serial, ..CARGYLL };
    silence(&power_on(net.card(1), &other_board.board(), &hasty), &server);
    server.until(&format!("refused: its card came with serial {:08x}", STRANGER.serial));

    // Both reasons gone, the same card is served: the silence was for them. The firmware asks for 45 s,
    // and the address is looked at again before that.
    net.card(3).plug(false);
    let (played, _) = server.whole(power_on(net.card(1), &CARGYLL.board(), &Setup::default()));
    assert_eq!(played.lease.unwrap().address.to_string(), CARGYLL.address);
    let strangers = status(&net, &dir(&site))["strangers"].as_array().unwrap().len();
    assert_eq!(strangers, 1, "nodes are no strangers");
}

// --- Boots ---------------------------------------------------------------------------------------

/// Switches on all nodes at the same moment, each on the card of its number.
pub fn lock_step(net: &Net) -> Vec<Boot> {
    let start = &Barrier::new(NODES.len());
    std::thread::scope(|scope| {
        let play = |(n, node): (usize, &Node)| {
            let (board, xid) = (node.board(), node.serial);
            scope.spawn(move || {
                start.wait();
                power_on(net.card(n), &board, &Setup { xid, ..Setup::default() })
            })
        };
        let threads: Vec<_> = NODES.iter().enumerate().map(play).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    })
}

fn ten() {
    let site = built(NODES.len(), MEBIBYTE);
    let net = Net::new("ten", &NODES.map(|node| node.mac));
    let server = Server::start(&net, &dir(&site), AUTHORITATIVE);
    for (node, played) in NODES.iter().zip(lock_step(&net)) {
        let (played, loaded) = server.whole(played);
        right_bytes(&site, &loaded);
        assert_eq!(played.lease.unwrap().address.to_string(), node.address);
        assert_eq!(loaded.directory, format!("{:08x}/", node.serial));
        let line = String::from_utf8(loaded.cmdline.unwrap().bytes).unwrap();
        assert!(line.contains(node.name), "{}: {line}", node.name);
        assert!(played.requests.iter().all(|r| r.duplicates == 0), "{:#?}", played.requests);
        let found = recorded(&net, &site, node);
        assert_eq!(found["boots"].as_array().unwrap().len(), 1, "{found:#}");
        assert_eq!(found["pinned"], found["generation"]);
    }
}

fn loss() {
    const RULE: &str = "table ip loss { chain in { type filter hook input priority 0; \
                        ip protocol udp numgen random mod 100 < 2 counter drop; }; }";
    let site = built(1, 120_000);
    let net = Net::new("loss", &[BETTLEY.mac]);
    let server = Server::start(&net, &dir(&site), AUTHORITATIVE);
    let sides = || [net.command("nft"), net.card(0).command("nft")];
    for mut nft in sides() {
        ok(nft.arg(RULE));
    }
    // start4.elf hangs at a duplicate, and where packets are lost no server can spare it one.
    let setup = Setup { start4_on_duplicate: OnDuplicate::AckAgain, ..Setup::default() };
    let (_, loaded) = server.whole(power_on(net.card(0), &BETTLEY.board(), &setup));
    right_bytes(&site, &loaded);
    for mut nft in sides() {
        let rules = ok(nft.args(["list", "table", "ip", "loss"]));
        assert!(rules.contains("counter packets") && !rules.contains("packets 0 "), "none was lost: {rules}");
    }
    recorded(&net, &site, &BETTLEY);
}

fn crash() {
    let site = Site::for_netboot(&NODES[..1], 6 * MEBIBYTE);
    let publish = |generation: &str| {
        let text = format!("description = \"A role for tests.\"\ncmdline = [\"generation={generation}\"]\n");
        site.write("overlays/role/overlay.toml", &text);
        ok(&mut site.gt_image(["build", "--all", "--no-image"]));
    };
    publish("one");
    let net = Net::new("crash", &[BETTLEY.mac]);
    let server = Server::start(&net, &dir(&site), AUTHORITATIVE);
    let hasty = Setup { pace: Pace::faster(3), ..Setup::default() };
    let (played, first, server) = std::thread::scope(|scope| {
        let playing = scope.spawn(|| power_on(net.card(0), &BETTLEY.board(), &hasty));
        server.until("start4.elf");
        let first = node_status(&net, &dir(&site), &BETTLEY);
        server.kill();
        assert!(!playing.is_finished(), "the boot was over before the server was");
        publish("two");
        let server = Server::start(&net, &dir(&site), AUTHORITATIVE);
        let second = node_status(&net, &dir(&site), &BETTLEY);
        assert_ne!(second["generation"], first["generation"]);
        assert_eq!(second["pinned"], first["pinned"], "no boot mixes two generations: {second:#}");
        assert_eq!(second["boots"][0]["id"], first["boots"][0]["id"]);
        (playing.join().unwrap(), first, server)
    });
    let lived = played.result.is_ok();
    let played = if lived {
        played
    } else {
        // The transfer that was cut off timed out: the firmware begins anew.
        assert!(matches!(played.result, Err(Fault::Transfer { .. })), "{played:#?}");
        power_on(net.card(0), &BETTLEY.board(), &Setup::default())
    };
    let (_, loaded) = server.whole(played);
    right_bytes(&site, &loaded);
    let found = recorded(&net, &site, &BETTLEY);
    assert!(!lived || found["pinned"] == first["pinned"], "{found:#}");
    let line = String::from_utf8(loaded.cmdline.unwrap().bytes).unwrap();
    // A board that asks again within seconds is taken to be in the same boot.
    let which = if found["pinned"] == first["pinned"] { "one" } else { "two" };
    assert!(line.contains(&format!("generation={which}")), "{line}: {found:#}");
}

// --- What a node may see -------------------------------------------------------------------------

/// What a directory listing tells of an inode, as far as libnfs shows it: kind and mode, links where
/// they are names of a file, owner, group, and the size where it is one of bytes.
type Listed = (String, Option<u64>, u32, u32, Option<u64>);

fn own_alone() {
    let site = Site::for_netboot(&NODES[..2], 100_000);
    fill(&site.path("root"));
    site.pack_base();
    ok(&mut site.gt_image(["build", "--all", "--no-image"]));
    let net = Net::new("own", &[BETTLEY.mac, CARGYLL.mac]);
    let server = Server::start(&net, &dir(&site), AUTHORITATIVE);
    let card = net.card(0);
    let nfs = |program: &str, path: &str| {
        card.command(program).arg(format!("nfs://{SERVER}/{path}?version=3")).output().unwrap()
    };

    card.configure(BETTLEY.address);
    let early = Command::output(card.command("nfs-ls").arg(format!("nfs://{SERVER}/bettley?version=3")));
    assert!(!early.unwrap().status.success(), "there is no root before a boot");
    for (n, node) in NODES.iter().take(2).enumerate() {
        server.whole(power_on(net.card(n), &node.board(), &Setup::default()));
    }

    let theirs = format!("{:08x}/config.txt", CARGYLL.serial);
    for name in [&theirs, "../config.txt", &format!("{}/config.txt", CARGYLL.mac.replace(':', "-"))] {
        let answer = fetch(card, BETTLEY.address, name);
        assert!(matches!(answer, Answer::Refused { code: 1, .. }), "{name}: {answer:?}");
    }
    let answer = fetch(net.card(1), CARGYLL.address, &theirs);
    assert!(matches!(answer, Answer::Content(_)), "its owner has it: {answer:?}");

    let exports = ok(card.command("showmount").args(["--no-headers", "-e", SERVER]));
    assert!(exports.contains("/bettley") && !exports.contains("cargyll"), "{exports}");
    let refused = nfs("nfs-ls", "cargyll");
    assert!(!refused.status.success(), "{}", text(&refused));

    let mut ls = card.command("nfs-ls");
    let listing = ls.arg("-R").arg(format!("nfs://{SERVER}/bettley?version=3")).output().unwrap();
    assert!(listing.status.success(), "{}", text(&listing));
    let root = extracted(&site);
    let (seen, there) = (listed(&listing.stdout), walked(&root));
    for (path, want) in &there {
        assert_eq!(seen.get(path), Some(want), "{}", path.display());
    }
    assert_eq!(seen.len(), there.len(), "{:?}", seen.keys().filter(|path| !there.contains_key(*path)));
    let read = nfs("nfs-cat", "bettley/usr/share/noise");
    assert!(read.stdout == fs::read(root.join("usr/share/noise")).unwrap(), "nfs-cat reads other bytes");

    // Any user of a node has high ports, and may say there that he is root.
    let as_user = |path: &str| {
        let mut command = card.command("setpriv");
        command.args(["--reuid=65534", "--regid=65534", "--clear-groups", "nfs-cat"]);
        command.arg(format!("nfs://{SERVER}/bettley/{path}?version=3&uid=0&gid=0")).output().unwrap()
    };
    assert!(nfs("nfs-cat", "bettley/etc/private").stdout == b"private\n");
    let (private, open) = (as_user("etc/private"), as_user("etc/passwd"));
    assert!(private.stdout.is_empty() && !private.status.success(), "{}", text(&private));
    assert!(open.stdout.starts_with(b"root:"), "{}", text(&open));
}

/// What makes a tree awkward.
fn fill(root: &Path) {
    let at = |name: &[u8]| root.join(OsStr::from_bytes(name));
    let mode = |name: &[u8], mode| fs::set_permissions(at(name), fs::Permissions::from_mode(mode)).unwrap();
    for name in [&b"usr/share/odd/caf\xe9"[..], b"usr/share/odd/ blank ", b"usr/share/odd/-n", &long_name()] {
        fs::create_dir_all(at(name).parent().unwrap()).unwrap();
        fs::write(at(name), name).unwrap();
    }
    for n in 0..300 {
        fs::create_dir_all(at(b"usr/share/many")).unwrap();
        fs::write(at(format!("usr/share/many/{n}").as_bytes()), vec![b'x'; n]).unwrap();
    }
    fs::write(at(b"usr/share/noise"), noise(9, 300_001)).unwrap();
    fs::hard_link(at(b"usr/share/noise"), at(b"usr/share/same")).unwrap();
    symlink("nowhere/at all", at(b"usr/share/dangling")).unwrap();
    fs::write(at(b"etc/private"), "private\n").unwrap();
    mode(b"etc/private", 0o600);
    std::os::unix::fs::chown(at(b"usr/share/many/7"), Some(1000), Some(70_000)).unwrap();
    mode(b"usr/share/many/7", 0o751);
    fs::create_dir_all(at(b"dev")).unwrap();
    let dev = |name: &str| at(b"dev").join(name).into_os_string();
    let make = |name: &str, what: [&str; 3]| {
        let what = what.iter().filter(|word| !word.is_empty()).map(|word| word.into());
        run("mknod", std::iter::once(dev(name)).chain(what));
    };
    make("null", ["c", "1", "3"]);
    make("card", ["b", "179", "300"]);
    make("pipe", ["p", "", ""]);
}

fn long_name() -> Vec<u8> {
    [b"usr/share/odd/".to_vec(), vec![b'l'; 255]].concat()
}

fn fetch(card: &Card, from: &str, name: &str) -> Answer {
    let (from, server): (Ipv4Addr, Ipv4Addr) = (from.parse().unwrap(), SERVER.parse().unwrap());
    card.run(|| {
        let mut client = Client::new(from, SocketAddrV4::new(server, 69), Pace::REAL, 50_000);
        client.fetch(name).unwrap().answer
    })
}

/// The root as a tar of it says.
fn extracted(site: &Site) -> PathBuf {
    let (tar, root) = (site.path("root.tar"), site.path("extracted"));
    ok(site.gt_image(["export", "--node", BETTLEY.name, "--tar"]).arg(&tar));
    fs::create_dir(&root).unwrap();
    run("tar", ["--numeric-owner", "-C", root.to_str().unwrap(), "-xpf", tar.to_str().unwrap()]);
    root
}

fn walked(root: &Path) -> BTreeMap<PathBuf, Listed> {
    let (mut all, mut open) = (BTreeMap::new(), vec![root.to_owned()]);
    while let Some(dir) = open.pop() {
        for entry in fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            let meta = fs::symlink_metadata(&path).unwrap();
            let kind = meta.file_type();
            if kind.is_dir() {
                open.push(path.clone());
            }
            let letter = match () {
                () if kind.is_dir() => 'd',
                () if kind.is_symlink() => 'l',
                () if kind.is_char_device() => 'c',
                () if kind.is_block_device() => 'b',
                () => '-',
            };
            let bit = |n: u32| if meta.mode() >> n & 1 == 1 { b"xwr"[n as usize % 3] as char } else { '-' };
            let mode = std::iter::once(letter).chain((0..9).rev().map(bit)).collect();
            let bytes = (kind.is_file() || kind.is_symlink()).then_some(meta.size());
            let links = kind.is_file().then_some(meta.nlink());
            let path = path.strip_prefix(root).unwrap().to_owned();
            all.insert(path, (mode, links, meta.uid(), meta.gid(), bytes));
        }
    }
    all
}

/// Lines of `nfs-ls`: mode, links, uid, gid, size in columns, then the path. Of a pipe it shows no letter.
fn listed(output: &[u8]) -> BTreeMap<PathBuf, Listed> {
    let mut all = BTreeMap::new();
    for line in output.split(|&b| b == b'\n').filter(|line| !line.is_empty()) {
        let mut rest = line;
        let mut word = || {
            rest = rest.trim_ascii_start();
            let end = rest.iter().position(|&b| b == b' ').unwrap();
            let (word, tail) = rest.split_at(end);
            rest = tail;
            String::from_utf8(word.to_vec()).unwrap()
        };
        let mode = word();
        let [links, uid, gid, size] = [word(), word(), word(), word()].map(|n| n.parse::<u64>().unwrap());
        let mode = if mode.len() == 9 { format!("-{mode}") } else { mode };
        let path = PathBuf::from(OsStr::from_bytes(&rest[1..]));
        let id = |id: u64| u32::try_from(id).unwrap();
        let file = mode.starts_with('-') && !path.ends_with("pipe");
        let bytes = file || mode.starts_with('l');
        let listed = (mode, file.then_some(links), id(uid), id(gid), bytes.then_some(size));
        all.insert(path, listed);
    }
    all
}

// --- Garbage -------------------------------------------------------------------------------------

fn garbage() {
    const DATAGRAMS: u64 = 20_000;
    let site = built(3, MEBIBYTE);
    let net = Net::new("noise", &[BETTLEY.mac, CARGYLL.mac, NODES[2].mac]);
    let server = Server::start(&net, &dir(&site), AUTHORITATIVE);
    let boot = |n: usize| server.whole(power_on(net.card(n), &NODES[n].board(), &Setup::default())).1;
    right_bytes(&site, &boot(2));
    recorded(&net, &site, &NODES[2]);
    let before = server.resident();

    net.card(1).configure(CARGYLL.address);
    let over = AtomicBool::new(false);
    let (sent, loaded) = std::thread::scope(|scope| {
        let storm = scope.spawn(|| {
            net.card(1).run(|| {
                let mut sent = 0;
                while sent < DATAGRAMS || !over.load(Ordering::Relaxed) {
                    storm(sent);
                    sent += 100;
                }
                sent
            })
        });
        let loaded = boot(0);
        over.store(true, Ordering::Relaxed);
        (storm.join().unwrap(), loaded)
    });
    right_bytes(&site, &loaded);
    let found = recorded(&net, &site, &BETTLEY);
    assert_eq!(found["boots"].as_array().unwrap().len(), 1, "after {sent} datagrams: {found:#}");
    let after = server.resident();
    assert!(after < before + 20 * MEBIBYTE as u64, "{before} bytes of memory became {after}");
    assert!(!server.text().contains("panicked"), "{}", server.text());
}

/// A hundred datagrams and some connections, from a node that is at home here.
fn storm(seed: u64) {
    let board = STRANGER.board();
    // RFC 5531: a call, RPC 2, program, version, procedure; no credential, no verifier.
    let call = |program: u32, version: u32, procedure: u32| -> Vec<u8> {
        let words = [7, 0, 2, program, version, procedure, 0, 0, 0, 0, 0, 0, 0, 8];
        words.iter().flat_map(|word: &u32| word.to_be_bytes()).chain(*b"/bettley").collect()
    };
    let seeds = [
        (67, board.discover(0x1234_5678)),
        (69, request("4cd9693a/config.txt", &Style::START4)),
        (111, call(100_000, 2, 3)),
        (20_048, call(100_005, 3, 1)),
        (2_049, call(100_003, 3, 1)),
        (8_080, b"GET /status HTTP/1.1\r\nHost: x\r\n\r\n".to_vec()),
    ];
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).unwrap();
    for n in 0..100 {
        let dice = noise(seed + n + 1, 1024);
        let (port, proper) = &seeds[n as usize % 4];
        // A full queue of ours is no concern of the server's.
        let _ = socket.send_to(&harm(proper, &dice), (SERVER, *port));
    }
    for (port, proper) in &seeds[2..] {
        let dice = noise(seed, 1024);
        let wild = harm(proper, &dice);
        let mark = 0x8000_0000 | u32::try_from(wild.len()).unwrap();
        let record = [mark.to_be_bytes().to_vec(), wild].concat();
        let bytes = if dice[100] < 128 || *port == 8_080 { &record[4..] } else { &record[..] };
        // The server may have closed it by then.
        let _ = TcpStream::connect((SERVER, *port)).and_then(|mut stream| stream.write_all(bytes));
    }
    // The machine that tests has other work to do, too: the storm lasts as long as the boot.
    std::thread::sleep(Duration::from_millis(2));
}

/// Noise alone, or a proper packet with some bytes changed and perhaps its end cut off.
fn harm(proper: &[u8], dice: &[u8]) -> Vec<u8> {
    if dice[0] < 64 {
        return dice[..usize::from(dice[1]) * 4].to_vec();
    }
    let mut packet = proper.to_vec();
    for pair in dice[8..8 + usize::from(dice[2] % 8) * 3].chunks_exact(3) {
        let at = usize::from(u16::from_be_bytes([pair[0], pair[1]])) % packet.len();
        packet[at] = pair[2];
    }
    if dice[3] < 64 {
        packet.truncate(usize::from(u16::from_be_bytes([dice[4], dice[5]])) % packet.len());
    }
    packet
}
