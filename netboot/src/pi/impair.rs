//! A network that loses, doubles and reorders, for tests: a UDP forwarder between a client and a server, and
//! a wire for DHCP, which needs more than UDP.
//! Which packet suffers is drawn from a seed, so that a failure can be played again.
//! Must not know: what the packets say.
//! Spec: none; TFTP's ports are handled by a socket of the forwarder's own for each client and for each
//! port that the server answers from.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, VecDeque};
use std::io;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use super::wire::{Datagram, Wire, is_timeout};

/// How bad the network is, in thousandths of all packets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Harm {
    /// Lost.
    pub lose: u16,
    /// Sent twice.
    pub duplicate: u16,
    /// Held back until the next packet of the same way has passed, or 50 ms.
    pub reorder: u16,
}

/// What happens to one packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It arrives.
    Pass,
    /// It does not.
    Lose,
    /// It arrives twice.
    Double,
    /// It arrives after the next one.
    Hold,
}

/// Draws fates from a seed: `xorshift64*`, which is as random as this needs.
#[derive(Clone, Debug)]
pub struct Dice(u64);

impl Dice {
    /// The same seed gives the same fates.
    pub fn new(seed: u64) -> Dice {
        Dice(seed | 1)
    }

    /// The fate of the next packet.
    pub fn fate(&mut self, harm: Harm) -> Fate {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        let drawn = (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) % 1000;
        let [lose, duplicate, reorder] = [harm.lose, harm.duplicate, harm.reorder].map(u64::from);
        match drawn {
            n if n < lose => Fate::Lose,
            n if n < lose + duplicate => Fate::Double,
            n if n < lose + duplicate + reorder => Fate::Hold,
            _ => Fate::Pass,
        }
    }
}

/// What was done so far.
#[derive(Debug, Default)]
pub struct Counts {
    /// Packets that came.
    pub seen: AtomicU64,
    /// Packets that were harmed.
    pub harmed: AtomicU64,
}

/// A forwarder that runs until it is dropped.
#[derive(Debug)]
pub struct Forwarder {
    address: SocketAddr,
    stop: Arc<AtomicBool>,
    counts: Arc<Counts>,
    thread: Option<JoinHandle<io::Result<()>>>,
}

impl Forwarder {
    /// Forwards what comes to `front` to `server`. To the server, each client is a port of `local`; to
    /// the client, the server is `front` alone, whatever port it answers from. It runs on a thread of
    /// its own, in the network namespace of the caller's.
    ///
    /// # Errors
    /// What the kernel says when the thread is made.
    pub fn start(
        front: UdpSocket,
        local: Ipv4Addr,
        server: SocketAddr,
        harm: Harm,
        seed: u64,
    ) -> io::Result<Forwarder> {
        let address = front.local_addr()?;
        front.set_read_timeout(Some(TICK))?;
        let (stop, counts) = (Arc::new(AtomicBool::new(false)), Arc::new(Counts::default()));
        let (stopped, counted) = (Arc::clone(&stop), Arc::clone(&counts));
        let thread = std::thread::Builder::new()
            .name("impair".into())
            .spawn(move || forward(&front, local, server, (harm, seed), &counted, &stopped))?;
        Ok(Forwarder { address, stop, counts, thread: Some(thread) })
    }

    /// Where clients send to.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// What was done so far.
    pub fn counts(&self) -> &Counts {
        &self.counts
    }
}

impl Drop for Forwarder {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// How long a read waits before it looks whether to stop, and how long a packet is held at most.
const TICK: Duration = Duration::from_millis(50);

/// One way of one client's traffic.
struct Lane {
    dice: Dice,
    harm: Harm,
    counts: Arc<Counts>,
    held: Option<Vec<u8>>,
}

impl Lane {
    fn new(seed: u64, harm: Harm, counts: &Arc<Counts>) -> Lane {
        Lane { dice: Dice::new(seed), harm, counts: Arc::clone(counts), held: None }
    }

    fn pass(&mut self, packet: &[u8], socket: &UdpSocket, to: SocketAddr) {
        self.counts.seen.fetch_add(1, Ordering::Relaxed);
        let fate = self.dice.fate(self.harm);
        self.counts.harmed.fetch_add(u64::from(fate != Fate::Pass), Ordering::Relaxed);
        let times = match fate {
            Fate::Hold if self.held.is_none() => {
                self.held = Some(packet.to_vec());
                return;
            }
            Fate::Pass | Fate::Hold => 1,
            Fate::Lose => 0,
            Fate::Double => 2,
        };
        for _ in 0..times {
            // A closed port is the network's fault like any other.
            let _ = socket.send_to(packet, to);
        }
        self.release(socket, to);
    }

    fn release(&mut self, socket: &UdpSocket, to: SocketAddr) {
        if let Some(packet) = self.held.take() {
            let _ = socket.send_to(&packet, to);
        }
    }
}

/// What one client's two ways share: the socket that is this client to the server, and the port that
/// the server last answered from.
struct Client {
    socket: UdpSocket,
    peer: Mutex<SocketAddr>,
}

impl Client {
    fn peer(&self) -> SocketAddr {
        *self.peer.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The clients' way; each client's way back has a thread.
fn forward(
    front: &UdpSocket,
    local: Ipv4Addr,
    server: SocketAddr,
    dice: (Harm, u64),
    counts: &Arc<Counts>,
    stop: &Arc<AtomicBool>,
) -> io::Result<()> {
    let (harm, seed) = dice;
    let mut clients: HashMap<SocketAddr, (Arc<Client>, Lane)> = HashMap::new();
    let mut buffer = vec![0; 65_536];
    while !stop.load(Ordering::Relaxed) {
        let (len, from) = match front.recv_from(&mut buffer) {
            Ok(got) => got,
            Err(e) if is_timeout(&e) || e.kind() == io::ErrorKind::ConnectionRefused => {
                for (client, lane) in clients.values_mut() {
                    lane.release(&client.socket, client.peer());
                }
                continue;
            }
            Err(e) => return Err(e),
        };
        let (client, lane) = match clients.entry(from) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(new) => {
                let seed = seed ^ u64::from(from.port()).wrapping_mul(0x9e37_79b9_7f4a_7c15);
                let client =
                    Arc::new(Client { socket: UdpSocket::bind((local, 0))?, peer: Mutex::new(server) });
                let down = Lane::new(!seed, harm, counts);
                way_back(front.try_clone()?, from, Arc::clone(&client), down, Arc::clone(stop))?;
                new.insert((client, Lane::new(seed, harm, counts)))
            }
        };
        // A request is for the well-known port, all else for the one that answered it.
        let request = matches!(buffer.get(..2), Some([0, 1 | 2]));
        lane.pass(&buffer[..len], &client.socket, if request { server } else { client.peer() });
    }
    Ok(())
}

fn way_back(
    front: UdpSocket,
    to: SocketAddr,
    client: Arc<Client>,
    mut lane: Lane,
    stop: Arc<AtomicBool>,
) -> io::Result<()> {
    client.socket.set_read_timeout(Some(TICK))?;
    std::thread::Builder::new().name("impair-back".into()).spawn(move || {
        let mut buffer = vec![0; 65_536];
        while !stop.load(Ordering::Relaxed) {
            match client.socket.recv_from(&mut buffer) {
                Ok((len, from)) => {
                    *client.peer.lock().unwrap_or_else(PoisonError::into_inner) = from;
                    lane.pass(&buffer[..len], &front, to);
                }
                Err(_) => lane.release(&front, to),
            }
        }
    })?;
    Ok(())
}

/// A wire whose packets, out and in, have the fates that are drawn for them.
#[derive(Debug)]
pub struct RoughWire<W> {
    wire: W,
    harm: Harm,
    out: Dice,
    back: Dice,
    held_out: Option<Vec<u8>>,
    held_back: Option<Datagram>,
    ready: VecDeque<Datagram>,
    counts: Counts,
}

impl<W: Wire> RoughWire<W> {
    /// Harms what goes over `wire`.
    pub fn new(wire: W, harm: Harm, seed: u64) -> RoughWire<W> {
        RoughWire {
            wire,
            harm,
            out: Dice::new(seed),
            back: Dice::new(!seed),
            held_out: None,
            held_back: None,
            ready: VecDeque::new(),
            counts: Counts::default(),
        }
    }

    /// What was done so far.
    pub fn counts(&self) -> &Counts {
        &self.counts
    }

    fn count(&self, fate: Fate) -> Fate {
        self.counts.seen.fetch_add(1, Ordering::Relaxed);
        self.counts.harmed.fetch_add(u64::from(fate != Fate::Pass), Ordering::Relaxed);
        fate
    }
}

impl<W: Wire> Wire for RoughWire<W> {
    fn broadcast(&mut self, payload: &[u8]) -> io::Result<()> {
        let fate = self.out.fate(self.harm);
        match self.count(fate) {
            Fate::Lose => return Ok(()),
            Fate::Hold if self.held_out.is_none() => {
                self.held_out = Some(payload.to_vec());
                return Ok(());
            }
            Fate::Double => self.wire.broadcast(payload)?,
            Fate::Pass | Fate::Hold => {}
        }
        self.wire.broadcast(payload)?;
        self.held_out.take().map_or(Ok(()), |late| self.wire.broadcast(&late))
    }

    fn receive(&mut self, wait: Duration) -> io::Result<Option<Datagram>> {
        if let Some(next) = self.ready.pop_front() {
            return Ok(Some(next));
        }
        // A packet that nothing overtakes comes once its receiver has waited in vain.
        let Some(datagram) = self.wire.receive(wait)? else { return Ok(self.held_back.take()) };
        // A wire hears what leaves, too, and that has had its fate: BOOTREPLY is 2.
        if datagram.payload.first() != Some(&2) {
            return Ok(Some(datagram));
        }
        let fate = self.back.fate(self.harm);
        match self.count(fate) {
            Fate::Lose => return Ok(None),
            Fate::Hold if self.held_back.is_none() => {
                self.held_back = Some(datagram);
                return Ok(None);
            }
            Fate::Double => self.ready.push_back(datagram.clone()),
            Fate::Pass | Fate::Hold => {}
        }
        self.ready.extend(self.held_back.take());
        Ok(Some(datagram))
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddrV4;

    use super::*;

    const BAD: Harm = Harm { lose: 100, duplicate: 50, reorder: 50 };

    #[test]
    fn fates_are_drawn_as_often_as_asked_and_again_from_the_same_seed() {
        let draw = |seed| {
            let mut dice = Dice::new(seed);
            (0..10_000).map(|_| dice.fate(BAD)).collect::<Vec<_>>()
        };
        let fates = draw(7);
        assert_eq!(fates, draw(7));
        assert_ne!(fates, draw(9));
        for (fate, want) in [(Fate::Lose, 1000), (Fate::Double, 500), (Fate::Hold, 500), (Fate::Pass, 8000)] {
            let count = fates.iter().filter(|drawn| **drawn == fate).count();
            assert!(count.abs_diff(want) < want / 5, "{fate:?}: {count}");
        }
        assert!((0..1000).all(|seed| Dice::new(seed).fate(Harm::default()) == Fate::Pass));
    }

    /// Sends `count` packets through a lane and tells what came out.
    fn through(harm: Harm, count: u8) -> Vec<u8> {
        let (out, seen) = (UdpSocket::bind("127.0.0.1:0").unwrap(), UdpSocket::bind("127.0.0.1:0").unwrap());
        seen.set_read_timeout(Some(TICK)).unwrap();
        let to = seen.local_addr().unwrap();
        let mut lane = Lane::new(3, harm, &Arc::default());
        (0..count).for_each(|n| lane.pass(&[n], &out, to));
        lane.release(&out, to);
        let mut byte = [0];
        std::iter::from_fn(|| seen.recv(&mut byte).ok().map(|_| byte[0])).collect()
    }

    #[test]
    fn packets_are_lost_doubled_and_turned() {
        assert_eq!(through(Harm::default(), 5), [0, 1, 2, 3, 4]);
        assert_eq!(through(Harm { lose: 1000, ..Harm::default() }, 5), []);
        assert_eq!(through(Harm { duplicate: 1000, ..Harm::default() }, 2), [0, 0, 1, 1]);
        assert_eq!(through(Harm { reorder: 1000, ..Harm::default() }, 5), [1, 0, 3, 2, 4]);
    }

    /// Keeps what is sent, gives what is laid out.
    #[derive(Default)]
    struct Script(Vec<u8>, VecDeque<u8>);

    impl Wire for Script {
        fn broadcast(&mut self, payload: &[u8]) -> io::Result<()> {
            self.0.extend(payload);
            Ok(())
        }
        fn receive(&mut self, _: Duration) -> io::Result<Option<Datagram>> {
            let from = SocketAddrV4::new(Ipv4Addr::LOCALHOST, 67);
            Ok(self.1.pop_front().map(|n| Datagram { payload: vec![2, n], from, card: None }))
        }
    }

    #[test]
    fn a_rough_wire_does_so_both_ways() {
        for (harm, want) in [
            (Harm::default(), &[0, 1, 2, 3, 4][..]),
            (Harm { lose: 1000, ..Harm::default() }, &[]),
            (Harm { duplicate: 1000, ..Harm::default() }, &[0, 0, 1, 1, 2, 2, 3, 3, 4, 4]),
            (Harm { reorder: 1000, ..Harm::default() }, &[1, 0, 3, 2]),
        ] {
            let mut wire = RoughWire::new(Script(vec![], (0..5).collect()), harm, 3);
            (0..5).for_each(|n| wire.broadcast(&[n]).unwrap());
            assert_eq!(wire.wire.0, want, "{harm:?}");
            let back: Vec<u8> =
                (0..20).filter_map(|_| wire.receive(TICK).unwrap()).map(|d| d.payload[1]).collect();
            // Nothing overtakes the last one, so it comes after a wait.
            let late: &[u8] = if harm.reorder > 0 { &[4] } else { &[] };
            assert_eq!(back, [want, late].concat(), "{harm:?}");
            assert_eq!(wire.counts().seen.load(Ordering::Relaxed), 10);
        }
    }
}
