//! What the server remembers from packet to packet: how often a node asked, what was told of it, whose
//! its address is, which strangers and foreign servers were seen. All of it may be lost without harm.
//! Must not know: how a packet is read or answered, sockets.
//! Spec: RFC 2131 section 4.3.3 (declined addresses), RFC 5227 (who holds an address).
//!
//! Everything is bounded: nodes by the description, strangers and servers by the figures below.

use std::collections::HashMap;
use std::hash::Hash;
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use crate::site::{Mac, Node, Site};

/// Packets of one exchange answered at once, and a second later on. A Pi asks every 4 s, udhcpc every
/// 3 s, so no client in order ever waits; one in a loop gets this much.
const PER_EXCHANGE: Rate = Rate { burst: 8, per_second: 4 };
/// Exchanges of one node that are counted apart. A flood under a node's address does not use up what the
/// node itself may ask, for the node asks under another transaction id.
const EXCHANGES: usize = 8;
/// Events of one node. Answers go on when this is used up.
const PER_NODE: Rate = Rate { burst: 40, per_second: 2 };
/// Strangers told of, all together; Pis and others have one each, so that the one does not hide the other.
const PER_STRANGERS: Rate = Rate { burst: 64, per_second: 1 };
/// A packet under the same transaction id within this time is a repetition: a Pi 3 always has the same
/// id and repeats itself after 5 s, and nothing reboots faster.
const REPETITION: Duration = Duration::from_secs(6);
/// A Pi gives up its whole exchange after 45 s (`DHCP_TIMEOUT`).
const FIRMWARE: Duration = Duration::from_secs(60);
/// How long a checked address counts as free: the exchanges of one boot follow each other within it.
const FREE: Duration = Duration::from_secs(60);
/// How long an address counts as taken before it is checked again.
const TAKEN: Duration = Duration::from_secs(10);
/// RFC 2131 section 3.1.5 has a client wait 10 s after a DECLINE; without a way to check, the address
/// is held back a little longer.
const DECLINED: Duration = Duration::from_secs(30);
/// The same stranger, foreign server, mismatch or conflict is told of once in this time.
const AGAIN: Duration = Duration::from_secs(300);
const STRANGERS: usize = 1024;
const SERVERS: usize = 64;

/// So many at once, then so many a second.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rate {
    pub burst: u32,
    pub per_second: u32,
}

/// A token bucket.
#[derive(Debug)]
pub(super) struct Bucket {
    rate: Rate,
    tokens: u32,
    since: Instant,
}

impl Bucket {
    pub fn new(rate: Rate, now: Instant) -> Bucket {
        Bucket { rate, tokens: rate.burst, since: now }
    }

    /// Takes a token, if one is there.
    pub fn take(&mut self, now: Instant) -> bool {
        let step = Duration::from_secs(1) / self.rate.per_second;
        let gained = now.saturating_duration_since(self.since).as_micros() / step.as_micros();
        let gained = u32::try_from(gained).unwrap_or(u32::MAX);
        if gained > 0 {
            self.tokens = self.tokens.saturating_add(gained).min(self.rate.burst);
            // A full bucket gains nothing by waiting, so what is left of a step does not count there.
            self.since = if self.tokens == self.rate.burst { now } else { self.since + step * gained };
        }
        let some = self.tokens > 0;
        self.tokens = self.tokens.saturating_sub(1);
        some
    }
}

/// Things that were told of, each with the time; when it is full, the oldest goes.
#[derive(Debug)]
struct Told<K> {
    seen: HashMap<K, Instant>,
    most: usize,
}

impl<K: Hash + Eq + Copy> Told<K> {
    fn new(most: usize) -> Told<K> {
        Told { seen: HashMap::new(), most }
    }

    /// True if `key` is to be told of now: never before, or longer than `again` ago.
    fn due(&mut self, key: K, again: Duration, now: Instant) -> bool {
        if let Some(at) = self.seen.get_mut(&key) {
            let due = now.saturating_duration_since(*at) >= again;
            if due {
                *at = now;
            }
            return due;
        }
        if self.seen.len() >= self.most
            && let Some(oldest) = self.seen.iter().min_by_key(|(_, at)| **at).map(|(key, _)| *key)
        {
            self.seen.remove(&oldest);
        }
        self.seen.insert(key, now);
        true
    }
}

/// Whose an address is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Holder {
    /// Nobody asked yet, or too long ago.
    Unknown,
    /// The node's own, or nobody's.
    Free,
    /// Another machine's.
    Taken(Mac),
    /// The node said that another machine has it, and there is no way to check.
    Declined,
}

/// Kinds of event that are told once an exchange, or once in a while.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Once {
    Discover,
    Offered,
    Leased,
    Released,
    Mismatch,
    CardMismatch,
    Conflict,
}

/// What is remembered of one node.
#[derive(Debug)]
pub(super) struct NodeMemory {
    exchanges: Vec<(u32, Bucket)>,
    events: Bucket,
    last: Option<(u32, Instant)>,
    told: Vec<Once>,
    told_long: Told<Once>,
    firmware: Option<(u32, Instant)>,
    holder: (Holder, Ipv4Addr, Instant),
}

impl NodeMemory {
    fn new(node: &Node, now: Instant) -> NodeMemory {
        NodeMemory {
            exchanges: Vec::new(),
            events: Bucket::new(PER_NODE, now),
            last: None,
            told: Vec::new(),
            told_long: Told::new(8),
            firmware: None,
            holder: (Holder::Unknown, node.address, now),
        }
    }

    /// True if one more packet of this exchange is to be answered.
    pub fn admit(&mut self, xid: u32, now: Instant) -> bool {
        // The one used last stands last, so the first is the one to forget.
        let mut entry = match self.exchanges.iter().position(|(x, _)| *x == xid) {
            Some(at) => self.exchanges.remove(at),
            None => (xid, Bucket::new(PER_EXCHANGE, now)),
        };
        let admitted = entry.1.take(now);
        if self.exchanges.len() >= EXCHANGES {
            self.exchanges.remove(0);
        }
        self.exchanges.push(entry);
        admitted
    }

    /// Notes a packet; what was told in an exchange before this one may be told again.
    pub fn enter(&mut self, xid: u32, now: Instant) {
        let same =
            self.last.is_some_and(|(x, at)| x == xid && now.saturating_duration_since(at) < REPETITION);
        if !same {
            self.told.clear();
        }
        self.last = Some((xid, now));
    }

    /// True if this is to be told of now.
    pub fn tell(&mut self, what: Once, now: Instant) -> bool {
        let due = match what {
            Once::Discover | Once::Offered | Once::Leased | Once::Released => !self.told.contains(&what),
            Once::Mismatch | Once::CardMismatch | Once::Conflict => self.told_long.due(what, AGAIN, now),
        };
        if due && !self.told.contains(&what) {
            self.told.push(what);
        }
        due && self.events.take(now)
    }

    /// Notes that what was told of is over: when it comes again it is news, whatever the time.
    pub fn settle(&mut self, what: Once) {
        self.told_long.seen.remove(&what);
    }

    /// Notes that the node's firmware asks under this transaction id.
    pub fn saw_firmware(&mut self, xid: u32, now: Instant) {
        self.firmware = Some((xid, now));
    }

    /// True if this transaction id is the firmware's.
    pub fn is_firmware(&self, xid: u32, now: Instant) -> bool {
        self.firmware.is_some_and(|(x, at)| x == xid && now.saturating_duration_since(at) < FIRMWARE)
    }

    /// Whose the node's address is, as far as known.
    pub fn holder(&self, address: Ipv4Addr, now: Instant) -> Holder {
        let (holder, of, at) = self.holder;
        let valid = match holder {
            Holder::Unknown => Duration::ZERO,
            Holder::Free => FREE,
            Holder::Taken(_) => TAKEN,
            Holder::Declined => DECLINED,
        };
        let fresh = of == address && now.saturating_duration_since(at) < valid;
        if fresh { holder } else { Holder::Unknown }
    }

    /// Notes that nothing is known of the node's address any more.
    pub fn forget_holder(&mut self) {
        self.holder.0 = Holder::Unknown;
    }

    /// Notes a DECLINE, where nobody can check.
    pub fn declined(&mut self, address: Ipv4Addr, now: Instant) {
        self.holder = (Holder::Declined, address, now);
    }
}

/// What the server remembers.
#[derive(Debug)]
pub struct Memory {
    nodes: HashMap<Mac, NodeMemory>,
    strangers: Told<Mac>,
    strangers_told: [Bucket; 2],
    servers: Told<Ipv4Addr>,
}

impl Memory {
    /// Nothing yet.
    pub fn new(now: Instant) -> Memory {
        Memory {
            nodes: HashMap::new(),
            strangers: Told::new(STRANGERS),
            strangers_told: [Bucket::new(PER_STRANGERS, now), Bucket::new(PER_STRANGERS, now)],
            servers: Told::new(SERVERS),
        }
    }

    /// Notes an ARP packet: `card` says that it has `address`. The node's own claim does not outweigh
    /// another machine's, for then both have it.
    pub fn heard(&mut self, site: &Site, address: Ipv4Addr, card: Mac, now: Instant) {
        let Some(node) = site.by_address(address) else { return };
        let memory = self.node(site, node, now);
        if card != node.mac {
            memory.holder = (Holder::Taken(card), address, now);
        } else if !matches!(memory.holder(address, now), Holder::Taken(_)) {
            memory.holder = (Holder::Free, address, now);
        }
    }

    /// Notes that the time for an answer about `address` is over.
    pub fn probed(&mut self, site: &Site, address: Ipv4Addr, now: Instant) {
        let Some(node) = site.by_address(address) else { return };
        let memory = self.node(site, node, now);
        if !matches!(memory.holder(address, now), Holder::Taken(_)) {
            memory.holder = (Holder::Free, address, now);
        }
    }

    /// What is remembered of a node of the site.
    pub(super) fn node(&mut self, site: &Site, node: &Node, now: Instant) -> &mut NodeMemory {
        // Nodes that left the description are dropped once they are as many as those that are in it.
        if self.nodes.len() > 2 * site.nodes.len() {
            self.nodes.retain(|mac, _| site.by_mac(*mac).is_some());
        }
        self.nodes.entry(node.mac).or_insert_with(|| NodeMemory::new(node, now))
    }

    /// True if this stranger is to be told of now.
    pub(super) fn tell_stranger(&mut self, mac: Mac, pi: bool, now: Instant) -> bool {
        self.strangers.due(mac, AGAIN, now) && self.strangers_told[usize::from(pi)].take(now)
    }

    /// True if this foreign server is to be told of now. One that is expected is told of once.
    pub(super) fn tell_server(&mut self, server: Ipv4Addr, expected: bool, now: Instant) -> bool {
        self.servers.due(server, if expected { Duration::MAX } else { AGAIN }, now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_gives_its_burst_and_then_its_rate() {
        let start = Instant::now();
        let mut bucket = Bucket::new(Rate { burst: 3, per_second: 4 }, start);
        let mut taken = |millis| {
            let now = start + Duration::from_millis(millis);
            (0..10).filter(|_| bucket.take(now)).count()
        };
        // Parts of a step add up, and a long rest gives no more than the burst.
        for (millis, want) in [(0, 3), (200, 0), (250, 1), (490, 0), (500, 1), (1000, 2), (3_600_000, 3)] {
            assert_eq!(taken(millis), want, "after {millis} ms");
        }
    }

    #[test]
    fn a_bucket_survives_a_clock_that_stands_or_goes_back() {
        let start = Instant::now() + Duration::from_secs(9);
        let mut bucket = Bucket::new(Rate { burst: 1, per_second: 1 }, start);
        assert!(bucket.take(start));
        assert!(!bucket.take(start - Duration::from_secs(5)));
        assert!(bucket.take(start + Duration::from_secs(1)));
    }

    #[test]
    fn what_was_told_is_bounded_and_the_oldest_goes() {
        let now = Instant::now();
        let mut told = Told::new(3);
        for key in 0..1000u32 {
            assert!(told.due(key, AGAIN, now + Duration::from_secs(u64::from(key) % 7)));
            assert!(told.seen.len() <= 3);
        }
        let mut told = Told::new(2);
        for (key, at, want) in
            [(1, 0, true), (2, 1, true), (1, 2, false), (3, 3, true), (2, 4, false), (1, 5, true)]
        {
            assert_eq!(told.due(key, AGAIN, now + Duration::from_secs(at)), want, "{key} at {at}");
        }
    }

    #[test]
    fn nodes_that_left_are_forgotten() {
        let now = Instant::now();
        let node = |n: u8| Node {
            name: n.to_string(),
            address: Ipv4Addr::new(10, 0, 0, n),
            mac: Mac([n; 6]),
            serial: crate::site::Serial(n.into()),
        };
        let site = |n| Site {
            server: Ipv4Addr::new(10, 0, 0, 1),
            netmask: Ipv4Addr::new(255, 255, 255, 0),
            gateway: None,
            dns: vec![],
            domain: String::new(),
            nodes: vec![node(n)],
        };
        let mut memory = Memory::new(now);
        for n in 0..200 {
            memory.node(&site(n), &node(n), now);
        }
        assert!(memory.nodes.len() <= 3, "{} nodes", memory.nodes.len());
    }
}
