//! `gt-image serve` on networks that make it hard: behind a router with a relay agent, over a wire that
//! loses, doubles and turns packets, amid a thousand strangers that boot too.
//! Must not know: how anything is served. Spec: RFC 2131 and 3046 (relay agents); the played firmware and
//! the rough wire are `gt_netboot::pi`.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use gt_netboot::pi::boot::{Boot, Setup, boot};
use gt_netboot::pi::impair::{Forwarder, Harm, RoughWire};
use gt_netboot::pi::tftp_client::{OnDuplicate, Style, request};
use gt_netboot::pi::wire::PacketWire;
use gt_netboot::pi::{Board, Model, Pace};
use gt_netboot::site::{Mac, Serial};
use libtest_mimic::Trial;
use serde_json::Value;

use crate::support::dnsmasq::Dnsmasq;
use crate::support::net::{Card, Net, SERVER};
use crate::support::server::{Node, Server, power_on, status};
use crate::support::site::Site;
use crate::support::{Tier, ok, trial};
use crate::wire::{
    AUTHORITATIVE, BETTLEY, MEBIBYTE, NODES, ROUTER, built, dir, lock_step, recorded, right_bytes, router,
    silence,
};

pub fn trials() -> Vec<Trial> {
    const NET: &[Tier] = &[Tier::Root, Tier::Judge(&["ip"])];
    const ROUTER: &[Tier] = &[Tier::Root, Tier::Judge(&["ip", "dnsmasq"])];
    vec![
        trial("wire_hard::a_node_behind_a_relay_agent_boots", ROUTER, relayed),
        trial("wire_hard::lost_doubled_and_turned_packets_are_borne", NET, rough),
        trial("wire_hard::they_are_borne_beside_a_router_too", ROUTER, rough_proxy),
        trial("wire_hard::a_thousand_strangers_cost_no_node_its_boot", NET, storm),
    ]
}

/// The one boot of a node, whole and without anything late or alarming.
fn one_good_boot(net: &Net, site: &Site, node: &Node) -> Value {
    let found = recorded(net, site, node);
    let boots = found["boots"].as_array().unwrap();
    assert_eq!(boots.len(), 1, "{found:#}");
    let bad = |step: &Value| step["step"] == "alarm" || step["step"] == "late";
    assert!(!boots[0]["steps"].as_array().unwrap().iter().any(bad), "{found:#}");
    assert_eq!(found["problems"], serde_json::json!([]), "{found:#}");
    found
}

// --- A relay agent -------------------------------------------------------------------------------

/// ```text
/// server 10.4.0.10/20 ── 10.4.0.1/20 eth0 [dnsmasq --dhcp-relay] eth1 10.6.0.1/20 ── eth0 node
/// ```
fn relayed() {
    const FAR: Node = Node { address: "10.6.0.11", ..BETTLEY };
    const AGENT: &str = "10.6.0.1";
    let site = Site::for_netboot(&[FAR], MEBIBYTE);
    site.edit("cluster.toml", "subnet = \"10.4.0.0/20\"", "subnet = \"10.6.0.0/20\"");
    site.edit("cluster.toml", "gateway = \"10.4.0.1\"", "gateway = \"10.6.0.1\"");
    ok(&mut site.gt_image(["build", "--all", "--no-image"]));
    let net = Net::new("relay", &[ROUTER.mac, FAR.mac]);
    net.route(1, 0, "10.6.0.1/20", "10.4.0.1/20");
    let server = Server::start(&net, &dir(&site), AUTHORITATIVE);
    let hasty = Setup { pace: Pace::faster(30), ..Setup::default() };
    silence(&power_on(net.card(1), &FAR.board(), &hasty), &server);

    let relay = format!("--dhcp-relay={AGENT},{SERVER}");
    let _agent = Dnsmasq::start(net.card(0).command("dnsmasq"), &[&relay], "DHCP relay");
    let (played, loaded) = server.whole(power_on(net.card(1), &FAR.board(), &Setup::default()));
    right_bytes(&site, &loaded);
    let lease = played.lease.unwrap();
    assert_eq!(lease.address.to_string(), FAR.address);
    assert_eq!(lease.server.unwrap().to_string(), SERVER);
    assert_eq!(lease.tftp.to_string(), SERVER);
    assert_eq!(lease.router.unwrap().to_string(), AGENT);
    let by_agent = |heard: &gt_netboot::pi::lease::Heard| heard.from.ip().to_string() == AGENT;
    assert!(played.heard.iter().all(by_agent), "{:#?}", played.heard);
    let found = one_good_boot(&net, &site, &FAR);
    let steps = found["boots"][0]["steps"].as_array().unwrap();
    for wanted in ["discover", "offer", "lease"] {
        assert!(steps.iter().any(|step| step["step"] == wanted), "no {wanted}: {found:#}");
    }
    assert_eq!(status(&net, &dir(&site))["strangers"], serde_json::json!([]));
}

// --- A rough wire --------------------------------------------------------------------------------

/// Four packets of DHCP must show something, thousands of TFTP must end.
const ROUGH_DHCP: Harm = Harm { lose: 250, duplicate: 250, reorder: 250 };
const ROUGH_TFTP: Harm = Harm { lose: 15, duplicate: 30, reorder: 30 };
const SEED: u64 = 0x6774_696d_6167_6531;

fn rough() {
    let site = built(1, 120_000);
    let net = Net::new("rough", &[BETTLEY.mac]);
    borne(&site, &net, AUTHORITATIVE);
}

fn rough_proxy() {
    let site = built(1, 120_000);
    let net = Net::new("roughp", &[BETTLEY.mac, ROUTER.mac]);
    let _router = router(net.card(1), &site.path("leases"), &[&BETTLEY]);
    borne(&site, &net, &["--dhcp", "proxy"]);
}

fn borne(site: &Site, net: &Net, args: &[&str]) {
    let server = Server::start(net, &dir(site), args);
    let (played, harmed) = rough_power_on(net.card(0), &BETTLEY.board());
    let (played, loaded) = server.whole(played);
    right_bytes(site, &loaded);
    assert_eq!(played.lease.unwrap().address.to_string(), BETTLEY.address);
    let [dhcp, tftp] = harmed;
    assert!(dhcp > 0 && tftp > 20, "{dhcp} packets of DHCP and {tftp} of TFTP were harmed");
    let again = played.requests.iter().any(|r| r.tries > 1);
    let doubled = played.requests.iter().any(|r| r.duplicates > 0);
    assert!(again && doubled, "{:#?}", played.requests);
    one_good_boot(net, site, &BETTLEY);
}

/// Plays the firmware; what it says and hears passes a rough network within its own machine. Tells how
/// many packets of DHCP and TFTP were harmed.
fn rough_power_on(card: &Card, board: &Board) -> (Boot, [u64; 2]) {
    // start4.elf hangs at a duplicate, and where the network doubles packets no server can spare it one.
    let setup = Setup { start4_on_duplicate: OnDuplicate::AckAgain, ..Setup::default() };
    let board = Board { tftp_ip: Some(Ipv4Addr::LOCALHOST), ..board.clone() };
    card.run(|| {
        let mut wire = RoughWire::new(PacketWire::open("eth0", board.mac).unwrap(), ROUGH_DHCP, SEED);
        let mut forwarder = None;
        let played = boot(&board, &mut wire, &setup, |lease| {
            card.configure(&lease.address.to_string());
            let front = UdpSocket::bind((Ipv4Addr::LOCALHOST, 69))?;
            let server = SocketAddr::new(SERVER.parse().map_err(io::Error::other)?, 69);
            forwarder = Some(Forwarder::start(front, lease.address, server, ROUGH_TFTP, SEED)?);
            Ok(Ipv4Addr::LOCALHOST)
        });
        let tftp = forwarder.map_or(0, |f| f.counts().harmed.load(Ordering::Relaxed));
        (played, [wire.counts().harmed.load(Ordering::Relaxed), tftp])
    })
}

// --- A storm -------------------------------------------------------------------------------------

const STRANGERS: u32 = 1000;
/// The address of their card; each has another one beside.
const CROWD: &str = "10.4.15.1";
/// How many strangers wait for an answer at the same time.
const AT_ONCE: u32 = 8;
/// Rounds of all strangers at most, should the nodes never end.
const ROUNDS: u32 = 500;

/// What strangers got.
#[derive(Default, Debug)]
struct Got {
    asked: u32,
    refused: u32,
    /// Anything but a refusal.
    served: u32,
}

fn storm() {
    let site = built(NODES.len(), 300_000);
    let mut cards = NODES.map(|node| node.mac).to_vec();
    cards.push("02:00:00:00:00:03");
    let net = Net::new("storm", &cards);
    let crowd = net.card(NODES.len());
    crowd.configure(CROWD);
    crowd.gateway(ROUTER.address);
    crowd.crowd("10.4.8.0/22");
    let server = Server::start(&net, &dir(&site), AUTHORITATIVE);
    let over = &AtomicBool::new(false);
    let (got, boots) = std::thread::scope(|scope| {
        let strangers = scope.spawn(move || crowd.run(|| strangers(over)));
        // The nodes are switched on when the storm is there.
        let begun = Instant::now();
        while status(&net, &dir(&site))["strangers"].as_array().unwrap().len() < 16 {
            assert!(begun.elapsed() < Duration::from_secs(60), "no strangers: {}", server.text());
        }
        let boots = lock_step(&net);
        over.store(true, Ordering::Relaxed);
        (strangers.join().unwrap(), boots)
    });
    assert!(got.asked >= STRANGERS && got.served == 0 && got.refused > got.asked / 2, "{got:?}");
    for (node, played) in NODES.iter().zip(boots) {
        let (played, loaded) = server.whole(played);
        right_bytes(&site, &loaded);
        assert_eq!(played.lease.unwrap().address.to_string(), node.address);
        one_good_boot(&net, &site, node);
    }
    let listed = status(&net, &dir(&site))["strangers"].as_array().unwrap().len();
    assert!((16..=128).contains(&listed), "{listed} strangers are listed: some, never all");
    assert!(!server.text().contains("panicked"), "{}", server.text());
}

/// All strangers ask once, and again until the nodes have booted.
fn strangers(over: &AtomicBool) -> Got {
    let mut all = Got::default();
    // By its source address the kernel finds the card that a broadcast leaves by.
    let dhcp = &UdpSocket::bind((CROWD, 68)).unwrap();
    dhcp.set_broadcast(true).unwrap();
    for _ in 0..ROUNDS {
        let threads: Vec<Got> = std::thread::scope(|scope| {
            let some = |first: u32| {
                let all = (first..STRANGERS).step_by(AT_ONCE as usize);
                scope.spawn(move || all.map(|n| stranger(n, dhcp)).collect::<Vec<Got>>())
            };
            let threads: Vec<_> = (0..AT_ONCE).map(some).collect();
            threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
        });
        for got in threads {
            all.asked += got.asked;
            all.refused += got.refused;
            all.served += got.served;
        }
        if over.load(Ordering::Relaxed) {
            break;
        }
    }
    all
}

/// One stranger: a DISCOVER, and a request for a file from an address of its own.
fn stranger(n: u32, dhcp: &UdpSocket) -> Got {
    let [_, _, high, low] = n.to_be_bytes();
    let board = Board::new(Model::Pi4, Mac([0xdc, 0xa6, 0x32, 0xee, high, low]), Serial(0x7000_0000 | n));
    let socket = UdpSocket::bind((Ipv4Addr::new(10, 4, 8 + high, low), 0)).unwrap();
    // A full queue of ours is no concern of the server's.
    let _ = dhcp.send_to(&board.discover(n), (Ipv4Addr::BROADCAST, 67));
    let name = format!("{}start4.elf", board.directory());
    let _ = socket.send_to(&request(&name, &Style::START4), (SERVER, 69));
    socket.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
    let mut answer = [0; 2048];
    let error = socket.recv(&mut answer).ok().map(|len| len >= 4 && answer[..4] == [0, 5, 0, 1]);
    Got { asked: 1, refused: u32::from(error == Some(true)), served: u32::from(error == Some(false)) }
}
