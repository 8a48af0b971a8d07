//! The running server: packets in, decisions asked for, replies out, until it is told to stop.
//! Must not know: DHCP's rules; they are [`respond`]'s.
//! Spec: RFC 2131 section 4.1 (where replies go).
//!
//! One task owns everything, so there is no lock. Nothing in it waits but the one `select!`: what has to
//! wait (a check of an address, an offer to a Pi 3) is put aside with its time.

use std::collections::BTreeMap;
use std::future::poll_fn;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::Poll;
use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;

use super::bind::{Ports, Sockets};
use super::link::{Link, Probe};
use super::memory::{Bucket, Memory, Rate};
use super::packet::Packet;
use super::respond::{Reply, Settings, Situation, To, respond};
use super::{Event, Host};

/// How long an answer to an ARP probe is waited for. RFC 5227 takes seconds, for hosts that sleep; a
/// machine that is up answers in one, and a Pi waits 4 s before it asks again.
const PROBE_WINDOW: Duration = Duration::from_millis(200);
/// Packets and replies that wait. Beyond it a packet is dropped; its sender asks again.
const MOST_WAITING: usize = 1024;
/// Packets that wait for the same check. A flood under one node's address leaves room for the others.
const MOST_FOR_ONE: usize = 4;
/// Malformed packets told of, and replies that could not be sent: their number is in the counters.
const COMPLAINTS: Rate = Rate { burst: 16, per_second: 1 };

/// Counted since the start.
#[derive(Debug, Default)]
pub struct Counters {
    /// Datagrams received on the server's port.
    pub received: AtomicU64,
    /// Those that were no DHCP.
    pub malformed: AtomicU64,
    /// Replies sent.
    pub sent: AtomicU64,
    /// Replies that the kernel did not take, and packets for which there was no room to wait.
    pub dropped: AtomicU64,
}

impl Counters {
    fn add(counter: &AtomicU64) {
        counter.fetch_add(1, Ordering::Relaxed);
    }
}

/// All that a server is made of. Sockets are bound by the caller, who then drops its privileges.
pub struct Service {
    /// Bound sockets.
    pub sockets: Sockets,
    /// The ports that clients and relay agents are answered at.
    pub ports: Ports,
    /// What the owner set.
    pub settings: Settings,
    /// Reaches clients without an address; without it they are reached by broadcast, if they listen.
    pub link: Option<Link>,
    /// Checks addresses; without it none is checked.
    pub probe: Option<Box<dyn Probe>>,
    /// Counted as it goes.
    pub counters: Arc<Counters>,
}

/// What waits for its time.
enum Waiting {
    /// A reply to send.
    Reply(Reply),
    /// A packet to be put again, now that the time to answer for this address is over.
    Probed(Ipv4Addr, Vec<u8>),
}

impl Service {
    /// Serves until `shutdown`. Call it within a tokio runtime.
    ///
    /// # Errors
    /// If the runtime does not take the sockets; never later.
    pub async fn run(mut self, host: Arc<dyn Host>, shutdown: CancellationToken) -> io::Result<()> {
        self.sockets.server.set_broadcast(true)?; // One that systemd bound may not be allowed to yet.
        let server = register(self.sockets.server)?;
        let client = self.sockets.client.map(register).transpose()?;
        self.settings.probe &= self.probe.is_some();
        let now = Instant::now();
        let mut work = Work {
            server: &server,
            ports: self.ports,
            settings: self.settings,
            link: self.link,
            probe: self.probe,
            counters: self.counters,
            host,
            memory: Memory::new(now),
            malformed: Bucket::new(COMPLAINTS, now),
            complaints: Bucket::new(COMPLAINTS, now),
            waiting: BTreeMap::new(),
            sequence: 0,
        };
        let (mut packet, mut overheard) = (vec![0; 4096], vec![0; 4096]);
        loop {
            let due = work.waiting.keys().next().map(|(due, _)| (*due).into());
            // Time and claims go first: under a storm the socket is never empty.
            tokio::select! {
                biased;
                () = shutdown.cancelled() => return Ok(()),
                () = tokio::time::sleep_until(due.unwrap_or_else(tokio::time::Instant::now)), if due.is_some() => {
                    work.due(Instant::now());
                }
                (address, card) = next_claim(&mut work.probe) => {
                    let site = work.host.site();
                    work.memory.heard(&site, address, card, Instant::now());
                }
                // An error is told once for each time the interface goes down; the socket lives on.
                received = server.recv_from(&mut packet) => match received {
                    Ok((len, from)) => {
                        Counters::add(&work.counters.received);
                        work.packet(&packet[..len], Some(from), Instant::now());
                    }
                    Err(error) if work.complaints.take(Instant::now()) => {
                        tracing::warn!(%error, "receiving DHCP requests");
                    }
                    Err(_) => {}
                },
                received = receive(client.as_ref(), &mut overheard) => match received {
                    Ok((len, from)) => work.overheard(&overheard[..len], from),
                    Err(error) => tracing::debug!(%error, "overhearing DHCP replies"),
                },
            }
        }
    }
}

fn register(socket: UdpSocket) -> io::Result<tokio::net::UdpSocket> {
    socket.set_nonblocking(true)?;
    tokio::net::UdpSocket::from_std(socket)
}

async fn receive(
    socket: Option<&tokio::net::UdpSocket>,
    buffer: &mut [u8],
) -> io::Result<(usize, SocketAddr)> {
    match socket {
        Some(socket) => socket.recv_from(buffer).await,
        None => std::future::pending().await,
    }
}

async fn next_claim(probe: &mut Option<Box<dyn Probe>>) -> (Ipv4Addr, crate::site::Mac) {
    poll_fn(|cx| probe.as_mut().map_or(Poll::Pending, |probe| probe.poll_heard(cx))).await
}

struct Work<'a> {
    server: &'a tokio::net::UdpSocket,
    ports: Ports,
    settings: Settings,
    link: Option<Link>,
    probe: Option<Box<dyn Probe>>,
    counters: Arc<Counters>,
    host: Arc<dyn Host>,
    memory: Memory,
    malformed: Bucket,
    complaints: Bucket,
    waiting: BTreeMap<(Instant, u64), Waiting>,
    sequence: u64,
}

impl Work<'_> {
    /// One datagram on the server's port, or one that waited.
    fn packet(&mut self, bytes: &[u8], from: Option<SocketAddr>, now: Instant) {
        let packet = match Packet::decode(bytes) {
            Ok(packet) => packet,
            Err(error) => {
                Counters::add(&self.counters.malformed);
                if let Some(from) = from.filter(|_| self.malformed.take(now)) {
                    self.host.event(Event::Malformed { from, reason: error.to_string() });
                }
                return;
            }
        };
        if packet.overloaded {
            tracing::debug!(mac = %packet.mac, "options in the file or sname field (option 52)");
        }
        let site = self.host.site();
        let can_boot = |node: &str| self.host.can_boot(node);
        let situation = Situation { site: &site, settings: &self.settings, can_boot: &can_boot, now };
        let decision = respond(&situation, &packet, &mut self.memory);
        for event in decision.events {
            self.host.event(event);
        }
        if let Some(address) = decision.probe {
            self.check(address, bytes, now);
        }
        match decision.reply {
            Some(reply) if reply.delay.is_zero() => self.send(&reply, site.server),
            Some(reply) => self.wait(now + reply.delay, Waiting::Reply(reply)),
            None => {}
        }
    }

    /// Something on the clients' port. It counts only if it is another server's: everything else there is
    /// other people's, and our own broadcasts come back by loopback.
    fn overheard(&mut self, bytes: &[u8], from: SocketAddr) {
        if from == SocketAddr::from((self.host.site().server, self.ports.server)) {
            return;
        }
        let reply = Packet::decode(bytes).is_ok_and(|packet| packet.op == super::Opcode::BootReply);
        if reply {
            self.packet(bytes, Some(from), Instant::now());
        }
    }

    fn check(&mut self, address: Ipv4Addr, packet: &[u8], now: Instant) {
        let of_this = |waiting: &&Waiting| matches!(waiting, Waiting::Probed(other, _) if *other == address);
        let before = self.waiting.values().filter(of_this).count();
        if before >= MOST_FOR_ONE {
            return Counters::add(&self.counters.dropped);
        }
        if before == 0
            && let Some(Err(error)) = self.probe.as_mut().map(|probe| probe.ask(address))
        {
            tracing::debug!(%address, %error, "the address could not be checked");
        }
        self.wait(now + PROBE_WINDOW, Waiting::Probed(address, packet.to_vec()));
    }

    fn wait(&mut self, until: Instant, what: Waiting) {
        if self.waiting.len() >= MOST_WAITING {
            return Counters::add(&self.counters.dropped);
        }
        self.sequence = self.sequence.wrapping_add(1);
        self.waiting.insert((until, self.sequence), what);
    }

    /// Does what is due.
    fn due(&mut self, now: Instant) {
        while let Some(entry) = self.waiting.first_entry().filter(|entry| entry.key().0 <= now) {
            match entry.remove() {
                Waiting::Reply(reply) => {
                    let server = self.host.site().server;
                    self.send(&reply, server);
                }
                Waiting::Probed(address, packet) => {
                    self.memory.probed(&self.host.site(), address, now);
                    self.packet(&packet, None, now);
                }
            }
        }
    }

    fn send(&mut self, reply: &Reply, server: Ipv4Addr) {
        let Ports { server: server_port, client } = self.ports;
        let everyone = SocketAddrV4::new(Ipv4Addr::BROADCAST, client);
        let to = match reply.to {
            To::Broadcast => everyone,
            To::Address(address) => SocketAddrV4::new(address, client),
            To::Relay(address) => SocketAddrV4::new(address, server_port),
            To::Card { address, mac } => {
                let from = SocketAddrV4::new(server, server_port);
                let to = SocketAddrV4::new(address, client);
                if self.link.as_ref().is_some_and(|link| link.send(from, to, mac, &reply.bytes).is_ok()) {
                    return Counters::add(&self.counters.sent);
                }
                everyone
            }
        };
        match self.server.try_send_to(&reply.bytes, to.into()) {
            Ok(_) => Counters::add(&self.counters.sent),
            Err(error) => {
                Counters::add(&self.counters.dropped);
                if self.complaints.take(Instant::now()) {
                    tracing::warn!(%to, %error, "a DHCP reply could not be sent");
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{Ask, DISCOVER, FENN, vector};
    use super::*;
    use crate::site::{Mac, Site};

    struct Deaf(Arc<Site>);

    impl Host for Deaf {
        fn site(&self) -> Arc<Site> {
            self.0.clone()
        }
        fn can_boot(&self, _: &str) -> bool {
            true
        }
        fn event(&self, _: Event) {}
    }

    /// Nobody answers; the questions are counted.
    struct Asked(Arc<AtomicU64>);

    impl Probe for Asked {
        fn ask(&mut self, _: Ipv4Addr) -> io::Result<()> {
            self.0.fetch_add(1, Ordering::Relaxed);
            Ok(())
        }
        fn poll_heard(&mut self, _: &mut std::task::Context<'_>) -> Poll<(Ipv4Addr, Mac)> {
            Poll::Pending
        }
    }

    #[tokio::test]
    async fn a_flood_under_one_node_leaves_room_for_the_others() {
        let server = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let (now, asked) = (Instant::now(), Arc::<AtomicU64>::default());
        let mut work = Work {
            server: &server,
            ports: Ports::default(),
            settings: Settings::new(super::super::Mode::Authoritative),
            link: None,
            probe: Some(Box::new(Asked(asked.clone()))),
            counters: Arc::default(),
            host: Arc::new(Deaf(Arc::new(super::super::tests::site()))),
            memory: Memory::new(now),
            malformed: Bucket::new(COMPLAINTS, now),
            complaints: Bucket::new(COMPLAINTS, now),
            waiting: BTreeMap::new(),
            sequence: 0,
        };
        for xid in 0..5000 {
            work.packet(&Ask { xid, ..Ask::new(DISCOVER) }.bytes(), None, now);
        }
        assert_eq!((work.waiting.len(), asked.load(Ordering::Relaxed)), (MOST_FOR_ONE, 1));
        work.packet(&vector("discover-pi5"), None, now);
        assert_eq!((work.waiting.len(), asked.load(Ordering::Relaxed)), (MOST_FOR_ONE + 1, 2));

        work.due(now + PROBE_WINDOW - Duration::from_millis(1));
        assert_eq!(work.waiting.len(), MOST_FOR_ONE + 1, "not yet");
        work.due(now + PROBE_WINDOW);
        assert!(work.waiting.is_empty());

        // What waits is bounded, whatever waits.
        let reply = Reply { to: To::Address(FENN), bytes: vec![], delay: Duration::ZERO };
        for _ in 0..MOST_WAITING + 7 {
            work.wait(now + Duration::from_secs(60), Waiting::Reply(reply.clone()));
        }
        assert_eq!(work.waiting.len(), MOST_WAITING);
    }
}
