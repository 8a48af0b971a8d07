//! What the DHCP tests share: the vectors of real firmware, a site, a client that asks.
//! Must not know: how packets are read or written by the code under test.

mod decode;
mod packets;
mod rules;
mod running;

use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use super::{Decision, Event, Memory, Mode, Packet, Settings, Situation, respond};
use crate::site::{Mac, Node, Serial, Site};

pub(super) const SERVER: Ipv4Addr = Ipv4Addr::new(10, 4, 0, 10);
pub(super) const FENN: Ipv4Addr = Ipv4Addr::new(10, 4, 0, 21);
pub(super) const ROUTER: Ipv4Addr = Ipv4Addr::new(10, 4, 0, 1);
pub(super) const NONE: Ipv4Addr = Ipv4Addr::UNSPECIFIED;
pub(super) const FENN_MAC: Mac = Mac([0xdc, 0xa6, 0x32, 0x2e, 0xf8, 0xed]);
pub(super) const PC_MAC: Mac = Mac([0x52, 0x54, 0, 1, 2, 3]);

/// One vector of `tests/fixtures/pi-dhcp-vectors.txt`, which says where each comes from.
pub(super) fn vector(name: &str) -> Vec<u8> {
    let all = include_str!("../../../tests/fixtures/pi-dhcp-vectors.txt");
    let line = all.lines().find(|line| line.split(' ').next() == Some(name)).unwrap();
    let [_, len, hex] = line.split(' ').collect::<Vec<_>>().try_into().unwrap();
    let bytes: Vec<u8> =
        (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect();
    assert_eq!(bytes.len(), len.parse::<usize>().unwrap(), "{name}");
    bytes
}

fn node(name: &str, last: u8, mac: [u8; 6], serial: u32) -> Node {
    Node { name: name.into(), address: Ipv4Addr::new(10, 4, 0, last), mac: Mac(mac), serial: Serial(serial) }
}

/// The machines of the vectors: a Pi 4, a Pi 5 and a Pi 3B.
pub(super) fn site() -> Site {
    Site {
        server: SERVER,
        netmask: Ipv4Addr::new(255, 255, 255, 0),
        gateway: Some(ROUTER),
        dns: vec![ROUTER, Ipv4Addr::new(9, 9, 9, 9)],
        domain: "nodes.example".into(),
        nodes: vec![
            node("fenn", 21, FENN_MAC.0, 0x5b15_4510),
            node("harlton", 22, [0xd8, 0x3a, 0xdd, 0x98, 0x09, 0x77], 0xbe51_2421),
            node("inchfield", 23, [0xb8, 0x27, 0xeb, 0x28, 0xf6, 0x6d], 0x0028_f66d),
        ],
    }
}

/// A request, to be made as a test needs it.
#[derive(Clone)]
pub(super) struct Ask {
    pub kind: u8,
    pub xid: u32,
    pub flags: u16,
    pub ciaddr: Ipv4Addr,
    pub giaddr: Ipv4Addr,
    pub mac: Mac,
    pub options: Vec<(u8, Vec<u8>)>,
}

pub(super) const DISCOVER: u8 = 1;
pub(super) const OFFER: u8 = 2;
pub(super) const REQUEST: u8 = 3;
pub(super) const DECLINE: u8 = 4;
pub(super) const ACK: u8 = 5;
pub(super) const NAK: u8 = 6;
pub(super) const RELEASE: u8 = 7;
pub(super) const INFORM: u8 = 8;

impl Ask {
    /// From fenn's running system.
    pub fn new(kind: u8) -> Ask {
        Ask { kind, xid: 0x1234_5678, flags: 0, ciaddr: NONE, giaddr: NONE, mac: FENN_MAC, options: vec![] }
    }

    pub fn with(mut self, code: u8, value: impl AsRef<[u8]>) -> Ask {
        self.options.push((code, value.as_ref().to_vec()));
        self
    }

    pub fn address(self, code: u8, address: Ipv4Addr) -> Ask {
        self.with(code, address.octets())
    }

    pub fn bytes(&self) -> Vec<u8> {
        let mut bytes = vec![1, 1, 6, 0];
        bytes.extend(self.xid.to_be_bytes());
        bytes.extend([0, 0]);
        bytes.extend(self.flags.to_be_bytes());
        bytes.extend(self.ciaddr.octets());
        bytes.extend([0; 8]);
        bytes.extend(self.giaddr.octets());
        bytes.extend(self.mac.0);
        bytes.extend([0; 10 + 64 + 128]);
        bytes.extend([99, 130, 83, 99, 53, 1, self.kind]);
        for (code, value) in &self.options {
            bytes.extend([*code, u8::try_from(value.len()).unwrap()]);
            bytes.extend(value);
        }
        bytes.push(255);
        bytes
    }
}

/// A server without a socket. Addresses are not checked unless a test says so.
pub(super) struct Bench {
    pub site: Site,
    pub settings: Settings,
    pub memory: Memory,
    pub now: Instant,
    pub can_boot: bool,
}

impl Bench {
    pub fn new(mode: Mode) -> Bench {
        let now = Instant::now();
        let settings = Settings { probe: false, ..Settings::new(mode) };
        Bench { site: site(), settings, memory: Memory::new(now), now, can_boot: true }
    }

    pub fn ask(&mut self, bytes: &[u8]) -> Decision {
        let can_boot = |_: &str| self.can_boot;
        let situation =
            Situation { site: &self.site, settings: &self.settings, can_boot: &can_boot, now: self.now };
        respond(&situation, &Packet::decode(bytes).unwrap(), &mut self.memory)
    }

    pub fn later(&mut self, seconds: u64) {
        self.now += Duration::from_secs(seconds);
    }
}

/// The options of a reply, read by other means than ours: dhcproto's typed reader.
pub(super) fn reread(bytes: &[u8]) -> dhcproto::v4::Message {
    use dhcproto::Decodable;
    dhcproto::v4::Message::from_bytes(bytes).unwrap()
}

/// Codes in the order of the wire, without the END.
pub(super) fn codes(bytes: &[u8]) -> Vec<u8> {
    Packet::decode(bytes).unwrap().options.iter().map(|(code, _)| code).collect()
}

pub(super) fn kind(bytes: &[u8]) -> u8 {
    Packet::decode(bytes).unwrap().kind.into()
}

pub(super) fn option(bytes: &[u8], code: u8) -> Option<Vec<u8>> {
    Packet::decode(bytes).unwrap().options.get(code.into()).map(<[u8]>::to_vec)
}

pub(super) fn conflicts(decision: &Decision) -> usize {
    decision.events.iter().filter(|event| matches!(event, Event::Conflict { .. })).count()
}
