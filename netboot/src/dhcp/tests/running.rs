//! The service on loopback sockets and ports of the kernel's choice.
//! Must not know: privileges; what needs a packet socket is tested in a network namespace.

use std::net::{SocketAddrV4, UdpSocket};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::dhcp::{Counters, Host, Ports, Probe, Service, Sockets};

const HERE: Ipv4Addr = Ipv4Addr::LOCALHOST;
/// The node, and a relay agent: any address of 127.0.0.0/8 is this machine's.
const NODE: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 21);
const RELAY: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 254);

struct Ears {
    site: Arc<Site>,
    heard: mpsc::UnboundedSender<Event>,
}

impl Host for Ears {
    fn site(&self) -> Arc<Site> {
        self.site.clone()
    }
    fn can_boot(&self, _: &str) -> bool {
        true
    }
    fn event(&self, event: Event) {
        self.heard.send(event).ok();
    }
}

/// Says what it was told to say, once it is asked.
struct Puppet {
    asked: Arc<Mutex<Vec<Ipv4Addr>>>,
    claims: mpsc::UnboundedReceiver<(Ipv4Addr, Mac)>,
}

impl Probe for Puppet {
    fn ask(&mut self, address: Ipv4Addr) -> std::io::Result<()> {
        self.asked.lock().unwrap().push(address);
        Ok(())
    }
    fn poll_heard(&mut self, cx: &mut Context<'_>) -> Poll<(Ipv4Addr, Mac)> {
        match self.claims.poll_recv(cx) {
            Poll::Ready(Some(claim)) => Poll::Ready(claim),
            _ => Poll::Pending,
        }
    }
}

struct Running {
    server: SocketAddrV4,
    clients: SocketAddrV4,
    node: tokio::net::UdpSocket,
    relay: tokio::net::UdpSocket,
    events: mpsc::UnboundedReceiver<Event>,
    asked: Arc<Mutex<Vec<Ipv4Addr>>>,
    claims: mpsc::UnboundedSender<(Ipv4Addr, Mac)>,
    counters: Arc<Counters>,
    shutdown: CancellationToken,
    done: tokio::task::JoinHandle<std::io::Result<()>>,
}

fn here(address: Ipv4Addr, port: u16) -> UdpSocket {
    UdpSocket::bind((address, port)).unwrap()
}

fn port(socket: &UdpSocket) -> u16 {
    socket.local_addr().unwrap().port()
}

fn register(socket: UdpSocket) -> tokio::net::UdpSocket {
    socket.set_nonblocking(true).unwrap();
    tokio::net::UdpSocket::from_std(socket).unwrap()
}

fn start() -> Running {
    let (server, node) = (here(HERE, 0), here(NODE, 0));
    let ports = Ports { server: port(&server), client: port(&node) };
    let relay = register(here(RELAY, ports.server));
    let overhearing = here(HERE, 0);
    let clients = SocketAddrV4::new(HERE, port(&overhearing));
    let mut site = site();
    site.server = HERE;
    site.netmask = Ipv4Addr::new(255, 0, 0, 0);
    site.nodes[0].address = NODE;
    let (heard, events) = mpsc::unbounded_channel();
    let (claims, told) = mpsc::unbounded_channel();
    let asked = Arc::<Mutex<Vec<Ipv4Addr>>>::default();
    let counters = Arc::<Counters>::default();
    let shutdown = CancellationToken::new();
    let at = SocketAddrV4::new(HERE, ports.server);
    let service = Service {
        sockets: Sockets { server, client: Some(overhearing) },
        ports,
        settings: Settings::new(Mode::Authoritative),
        link: None,
        probe: Some(Box::new(Puppet { asked: asked.clone(), claims: told })),
        counters: counters.clone(),
    };
    let done = tokio::spawn(service.run(Arc::new(Ears { site: Arc::new(site), heard }), shutdown.clone()));
    Running {
        server: at,
        clients,
        node: register(node),
        relay,
        events,
        asked,
        claims,
        counters,
        shutdown,
        done,
    }
}

async fn receive(socket: &tokio::net::UdpSocket) -> Vec<u8> {
    let mut bytes = vec![0; 2000];
    let limit = Duration::from_secs(10);
    let (len, _) = tokio::time::timeout(limit, socket.recv_from(&mut bytes)).await.unwrap().unwrap();
    bytes.truncate(len);
    bytes
}

#[tokio::test]
async fn a_node_is_answered_and_junk_is_told_of() {
    let mut running = start();
    running.relay.send_to(b"junk", running.server).await.unwrap();
    let Some(Event::Malformed { from, reason }) = running.events.recv().await else { panic!() };
    assert_eq!(
        (from, reason),
        (running.relay.local_addr().unwrap(), "4 bytes are too few for a header, which takes 240".into())
    );

    // A client that has its address is answered there.
    let renewing = Ask { ciaddr: NODE, ..Ask::new(REQUEST) }.with(60, "udhcp 1.37");
    running.node.send_to(&renewing.bytes(), running.server).await.unwrap();
    let ack = receive(&running.node).await;
    assert_eq!((kind(&ack), reread(&ack).yiaddr()), (ACK, NODE));
    let want = Event::Leased { node: "fenn".into(), client: "udhcp 1.37".into() };
    assert_eq!(running.events.recv().await, Some(want));

    // A relay agent is answered at its own address and the server's port.
    let mut relayed = vector("discover-pi4");
    relayed[24..28].copy_from_slice(&RELAY.octets());
    running.relay.send_to(&relayed, running.server).await.unwrap();
    let offer = receive(&running.relay).await;
    assert_eq!((kind(&offer), reread(&offer).giaddr()), (OFFER, RELAY));

    let [received, malformed, sent] =
        [&running.counters.received, &running.counters.malformed, &running.counters.sent]
            .map(|counter| counter.load(Ordering::Relaxed));
    assert_eq!((received, malformed, sent), (3, 1, 2));
    running.shutdown.cancel();
    running.done.await.unwrap().unwrap();
}

#[tokio::test]
async fn an_address_in_use_is_asked_for_and_not_given() {
    let mut running = start();
    // A client that comes back to its address: checked, and then refused by broadcast.
    let rebooted = Ask::new(REQUEST).address(50, NODE).bytes();
    let other = Mac([2; 6]);
    running.claims.send((NODE, other)).unwrap();
    running.node.send_to(&rebooted, running.server).await.unwrap();
    let want = Event::Conflict { node: "fenn".into(), address: NODE, holder: Some(other) };
    assert_eq!(running.events.recv().await, Some(want));
    assert!(running.asked.lock().unwrap().is_empty(), "the claim was heard before anyone asked");
    running.shutdown.cancel();
    running.done.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_free_address_is_given_once_nobody_has_answered() {
    let mut running = start();
    let rebooted = Ask::new(REQUEST).address(50, NODE).bytes();
    for _ in 0..3 {
        running.node.send_to(&rebooted, running.server).await.unwrap();
    }
    let Some(Event::Leased { node, .. }) = running.events.recv().await else { panic!() };
    assert_eq!(
        (node.as_str(), running.asked.lock().unwrap().as_slice()),
        ("fenn", &[NODE][..]),
        "asked once for three packets"
    );
    running.shutdown.cancel();
    running.done.await.unwrap().unwrap();
}

#[tokio::test]
async fn another_server_is_overheard_and_other_peoples_requests_are_not() {
    let mut running = start();
    let stray = [Ask { mac: PC_MAC, ..Ask::new(REQUEST) }.address(54, ROUTER).bytes(), b"junk".to_vec()];
    for bytes in stray.iter().chain([&vector("offer-full-pi4")]) {
        running.relay.send_to(bytes, running.clients).await.unwrap();
    }
    // The one event there is comes of the last packet.
    let want = Event::ForeignServer { server: SERVER, mac: None };
    assert_eq!(running.events.recv().await, Some(want));
    assert!(running.events.try_recv().is_err());
    assert_eq!(running.counters.sent.load(Ordering::Relaxed), 0);
    running.shutdown.cancel();
    running.done.await.unwrap().unwrap();
}

/// One that waits does not hold up the next.
#[tokio::test]
async fn a_pi_3_waits_and_nobody_else() {
    let running = start();
    let relayed = |name| {
        let mut discover = vector(name);
        discover[24..28].copy_from_slice(&RELAY.octets());
        discover
    };
    let mut rom = relayed("discover-pi3b-rom");
    rom[28..34].copy_from_slice(&FENN_MAC.0); // the node that has an address here
    for discover in [rom, relayed("discover-pi4")] {
        running.relay.send_to(&discover, running.server).await.unwrap();
    }
    let [first, second] = [receive(&running.relay).await, receive(&running.relay).await];
    assert_eq!(reread(&first).xid(), 0xd383_a6ac);
    assert_eq!(reread(&second).xid(), 0x26f3_0339);
    running.shutdown.cancel();
    running.done.await.unwrap().unwrap();
}
