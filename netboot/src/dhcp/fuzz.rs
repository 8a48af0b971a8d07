//! What holds for any bytes, for the fuzz target and the property tests.
//! Must not know: sockets.
//! Spec: RFC 2131 table 3: a reply carries its request's transaction id and hardware address.

use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use super::{Memory, Mode, Opcode, Packet, Settings, Situation, respond};
use crate::site::{Node, Site};

/// Puts `bytes` to a server whose site has their sender, so that every rule is reached, in both modes and
/// again after a check.
///
/// # Panics
/// If a reply cannot be read, or is not its request's; if a proxy answers what is no DISCOVER.
pub fn fuzz(bytes: &[u8]) {
    let Ok(packet) = Packet::decode(bytes) else { return };
    let server = Ipv4Addr::new(10, 4, 0, 10);
    let guid = super::Sender::of(&packet, true).guid;
    let serial = guid.identity().map_or(crate::site::Serial(1), |identity| identity.serial);
    let address = Ipv4Addr::new(10, 4, 0, 21);
    let site = Site {
        server,
        netmask: Ipv4Addr::new(255, 255, 255, 0),
        gateway: Some(Ipv4Addr::new(10, 4, 0, 1)),
        dns: vec![server; 3],
        domain: "x".repeat(253),
        nodes: vec![Node { name: "n".repeat(63), address, mac: packet.mac, serial }],
    };
    let now = Instant::now();
    for mode in [Mode::Proxy, Mode::Authoritative] {
        let settings = Settings::new(mode);
        let mut memory = Memory::new(now);
        let situation = |now| Situation { site: &site, settings: &settings, can_boot: &|_| true, now };
        let mut decision = respond(&situation(now), &packet, &mut memory);
        if let Some(asked) = decision.probe {
            assert!(decision.reply.is_none(), "an answer before the address was checked");
            memory.probed(&site, asked, now);
            decision = respond(&situation(now + Duration::from_millis(200)), &packet, &mut memory);
        }
        let Some(reply) = decision.reply else { continue };
        assert_eq!(packet.op, Opcode::BootRequest, "a reply to a reply");
        let discover = packet.kind == super::MessageType::Discover;
        assert!(mode == Mode::Authoritative || discover, "a proxy answered {:?}", packet.kind);
        let Ok(sent) = Packet::decode(&reply.bytes) else { panic!("sent what cannot be read") };
        assert_eq!((sent.op, sent.xid, sent.mac), (Opcode::BootReply, packet.xid, packet.mac));
        assert_eq!(sent.server_id, Some(server));
        assert!(sent.yiaddr.is_unspecified() || sent.yiaddr == address);
    }
}
