//! Machines that are not a Pi's firmware, or not the right Pi, as `gt-image serve` meets them: PXE clients,
//! the DHCP clients of running systems, and boards, cards and servers that do not fit the description.
//! Must not know: how anything is served. Spec: RFC 4578 (PXE), design.md section 13, "Status".

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::time::{Duration, Instant};

use gt_netboot::pi::firmware::{Kind, Reply};
use gt_netboot::pi::wire::{PacketWire, Wire};
use gt_netboot::pi::{Board, Pace, boot::Setup};
use gt_netboot::site::Mac;
use libtest_mimic::Trial;
use serde_json::Value;

use crate::support::net::{Card, Net, SERVER};
use crate::support::server::{Node, Server, node_status, power_on, status, status_page};
use crate::support::{Tier, ok, text, trial};
use crate::wire::{AUTHORITATIVE, BETTLEY, CARGYLL, ROUTER, STRANGER, built, dir, node, router, silence};

/// klibc's, which initramfs-tools uses; it is on no PATH.
const IPCONFIG: &str = "/usr/lib/klibc/bin/ipconfig";

pub fn trials() -> Vec<Trial> {
    const NET: &[Tier] = &[Tier::Root, Tier::Judge(&["ip"])];
    const CLIENTS: &[Tier] = &[Tier::Root, Tier::Judge(&["ip", "busybox", IPCONFIG, "dnsmasq"])];
    vec![
        trial("wire_others::what_does_not_fit_shows_without_a_boot", NET, problems),
        trial("wire_others::pxe_clients_are_left_alone", NET, pxe),
        trial("wire_others::running_systems_get_the_reservation", CLIENTS, systems),
    ]
}

// --- What does not fit ---------------------------------------------------------------------------

fn problems() {
    let site = built(2, 100_000);
    let rival = "02:00:00:00:00:02";
    let net = Net::new("fit", &[BETTLEY.mac, CARGYLL.mac, STRANGER.mac, rival]);
    let server = Server::start(&net, &dir(&site), AUTHORITATIVE);
    let hasty = Setup { pace: Pace::faster(10), ..Setup::default() };
    let refused = |card: usize, board: &Board| silence(&power_on(net.card(card), board, &hasty), &server);
    let shown = |node: &Node, kind: &str| {
        let found = node_status(&net, &dir(&site), node);
        assert_eq!(found["boots"], serde_json::json!([]), "nothing booted: {found:#}");
        let problems = found["problems"].as_array().unwrap();
        let problem = problems.iter().find(|problem| problem["kind"] == kind);
        let detail = problem.unwrap_or_else(|| panic!("no {kind}: {found:#}"))["detail"].as_str().unwrap();
        let page = status_page(&net, &dir(&site));
        assert!(page.contains("\nproblems") && page.contains(detail), "{page}");
        detail.to_owned()
    };
    assert!(!status_page(&net, &dir(&site)).contains("problems"), "nobody asked yet");

    // Another board with a node's card, a node's board with another card.
    refused(1, &Node { serial: STRANGER.serial, ..CARGYLL }.board());
    assert!(shown(&CARGYLL, "serial").contains(&format!("{:08x}", STRANGER.serial)));
    refused(2, &Node { serial: BETTLEY.serial, ..STRANGER }.board());
    assert!(shown(&BETTLEY, "card").contains(STRANGER.mac));

    net.card(3).configure(CARGYLL.address);
    refused(1, &CARGYLL.board());
    assert!(shown(&CARGYLL, "address").contains(rival));

    // A client that took another server's offer names that server to all.
    let taken = STRANGER.board().request(7, "10.4.0.99".parse().unwrap(), ROUTER.address.parse().unwrap());
    send(net.card(2), &STRANGER, &[taken]);
    server.until("another DHCP server");
    assert_eq!(status(&net, &dir(&site))["servers"][0]["address"], ROUTER.address);
    assert!(status_page(&net, &dir(&site)).contains("\nother DHCP servers\n  10.4.0.1 "));

    // What is right again is shown no more.
    net.card(3).plug(false);
    for (n, node) in [BETTLEY, CARGYLL].iter().enumerate() {
        server.whole(power_on(net.card(n), &node.board(), &Setup::default()));
        let found = node_status(&net, &dir(&site), node);
        assert_eq!(found["problems"], serde_json::json!([]), "{found:#}");
        assert_eq!(found["boots"].as_array().unwrap().len(), 1, "{found:#}");
    }
}

// --- PXE clients ---------------------------------------------------------------------------------

/// A PC, or whatever else boots by PXE and is no node.
const PC: Node = node("pc", "52:54:00:12:34:56", 0, "10.4.0.98");

fn pxe() {
    let site = built(2, 100_000);
    let net = Net::new("pxe", &[BETTLEY.mac, PC.mac, CARGYLL.mac]);
    for mode in ["authoritative", "proxy"] {
        let _server = Server::start(&net, &dir(&site), &["--dhcp", mode]);
        let stranger = replies(&net, net.card(1), &PC, &discovers(&PC));
        assert_eq!(stranger, [], "{mode}: a PXE client that is no node");
        // UEFI on a node's own board is no firmware of the kind that we boot: an address it may have.
        let on_arm = &discovers(&CARGYLL)[..ON_ARM];
        let node = replies(&net, net.card(2), &CARGYLL, on_arm);
        assert!(!node.iter().any(Reply::boots_a_pi), "{mode}: {node:#?}");
        let offers = node.iter().filter(|reply| reply.kind == Kind::Offer && reply.yiaddr.is_some()).count();
        assert_eq!(offers > 0, mode == "authoritative", "{mode}: {node:#?}");
        let pc = |s: &Value| s["mac"] == PC.mac;
        assert!(status(&net, &dir(&site))["strangers"].as_array().unwrap().iter().any(pc), "it is told of");
    }
}

/// Transaction id of the packets that are sent here.
const XID: u32 = 0x0101_0101;

/// How many of [`discovers`] a Pi's card may have: only a PC says that it has a BIOS and a Pi's firmware.
const ON_ARM: usize = 3;

/// What UEFI for arm64 and x86-64 and iPXE send, with the options that tell them from a Pi.
fn discovers(node: &Node) -> Vec<Vec<u8>> {
    let uefi = |class: &str, architecture: u8, more: &[u8]| {
        let mut packet = node.board().discover(XID)[..240].to_vec();
        // The broadcast flag, so that an answer would be heard whatever it is.
        packet[10] = 0x80;
        packet.extend([53, 1, 1, 57, 2, 5, 0xc0, 55, 7, 1, 3, 43, 54, 60, 66, 67]);
        packet.extend([97, 17, 0]);
        packet.extend([
            0x4c, 0x4c, 0x45, 0x44, 0, 0x31, 0x51, 0x10, 0x80, 0x4b, 0xb7, 0xc0, 0x4f, 0x4e, 0x33, 0x32,
        ]);
        packet.extend([94, 3, 1, 3, 16, 93, 2, 0, architecture]);
        packet.extend([60, 32]);
        packet.extend(class.as_bytes());
        packet.extend(more);
        packet.push(255);
        packet
    };
    // iPXE: user class `iPXE` (77), and its features in 175.
    let ipxe = [&[77, 4][..], b"iPXE", &[175, 6, 0xb1, 1, 1, 0x13, 1, 1]].concat();
    vec![
        uefi("PXEClient:Arch:00011:UNDI:003016", 11, &[]),
        uefi("PXEClient:Arch:00007:UNDI:003016", 7, &[]),
        uefi("PXEClient:Arch:00011:UNDI:003010", 11, &ipxe),
        uefi("PXEClient:Arch:00000:UNDI:002001", 0, &ipxe),
    ]
}

fn send(card: &Card, node: &Node, packets: &[Vec<u8>]) {
    card.run(|| {
        let mut wire = PacketWire::open("eth0", node.board().mac).unwrap();
        packets.iter().for_each(|packet| wire.broadcast(packet).unwrap());
    });
}

/// What a machine hears to its packets until the server has answered the firmware of Bettley, which asks
/// after it.
fn replies(net: &Net, card: &Card, node: &Node, packets: &[Vec<u8>]) -> Vec<Reply> {
    let mac: Mac = node.board().mac;
    let mut wire = card.run(|| PacketWire::open("eth0", mac).unwrap());
    packets.iter().for_each(|packet| wire.broadcast(packet).unwrap());
    net.card(0).run(|| {
        let board = BETTLEY.board();
        let mut own = PacketWire::open("eth0", board.mac).unwrap();
        let begun = Instant::now();
        let xid = XID ^ u32::from(mac.0[5]);
        own.broadcast(&board.discover(xid)).unwrap();
        let answered = |packet: &[u8]| Reply::read(packet, xid, board.mac).is_some();
        while !own.receive(Duration::from_secs(1)).unwrap().is_some_and(|heard| answered(&heard.payload)) {
            assert!(begun.elapsed() < Duration::from_secs(30), "a node is not answered");
            own.broadcast(&board.discover(xid)).unwrap();
        }
    });
    let heard = std::iter::from_fn(|| wire.receive(Duration::from_millis(300)).unwrap());
    heard.filter_map(|heard| Reply::read(&heard.payload, XID, mac)).collect()
}

// --- Running systems -----------------------------------------------------------------------------

fn systems() {
    let site = built(2, 100_000);
    let net = Net::new("sys", &[BETTLEY.mac, STRANGER.mac, ROUTER.mac]);
    let script = site.path("told");
    fs::write(&script, "#!/bin/sh\necho \"$1 $ip/$mask by $serverid via $router as $hostname\"\n").unwrap();
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).unwrap();
    let udhcpc = |card: &Card| {
        let mut command = card.command("busybox");
        command
            .args(["udhcpc", "-f", "-n", "-q", "-i", "eth0", "-t", "5", "-T", "2", "-O", "hostname", "-s"]);
        command.arg(&script).output().unwrap()
    };
    let server = Server::start(&net, &dir(&site), AUTHORITATIVE);
    let told = text(&udhcpc(net.card(0)));
    let want = format!("bound {}/20 by {SERVER} via 10.4.0.1 as bettley", BETTLEY.address);
    assert!(told.contains(&want), "{told}\n{}", server.text());
    // It writes to /run, which is the host's; in a mount namespace, which `ip netns exec` makes, it is not.
    let mut ipconfig = net.card(0).command("sh");
    let line = format!("mount -t tmpfs tmpfs /run && exec {IPCONFIG} -t 20 -c dhcp -d eth0");
    let told = text(&ipconfig.args(["-c", &line]).output().unwrap());
    let there = ok(net.card(0).command("ip").args(["address", "show", "dev", "eth0"]));
    assert!(there.contains(&format!("inet {}/20", BETTLEY.address)), "{told}\n{there}\n{}", server.text());
    assert!(told.contains(SERVER), "{told}");

    let stranger = udhcpc(net.card(1));
    assert!(!stranger.status.success() && !text(&stranger).contains("bound"), "{}", text(&stranger));
    // With another server on the network it has an address, and the server has been seen.
    let _router = router(net.card(2), &site.path("leases"), &[&BETTLEY]);
    let told = text(&udhcpc(net.card(1)));
    assert!(told.contains(&format!("by {}", ROUTER.address)), "{told}");
    server.until("another DHCP server");
    assert_eq!(status(&net, &dir(&site))["servers"][0]["address"], ROUTER.address);
}
