//! The decision: one request in, at most one reply and what is worth telling out. No socket, no clock.
//! Must not know: how a reply reaches its client.
//! Spec: RFC 2131 sections 3 and 4.3, RFC 3046 (relay agents), RFC 5227 (checking an address); for the
//! Pi, what its firmware was seen to do, named at each rule.

use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use super::Event;
use super::identity::{Client, Guid, Sender};
use super::memory::{Holder, Memory, NodeMemory, Once};
use super::packet::{MessageType, Opcode, Packet};
use super::reply::{self, Contents, Header};
use crate::site::{Mac, Node, Site};

/// The longest that an offer to a Pi 3 is held back, whatever is set: it gives up 25 s after power.
const LONGEST_DELAY: Duration = Duration::from_secs(3);

/// How the server stands to the network.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Another server gives addresses; this one adds what a Pi needs to boot, and says nothing else.
    Proxy,
    /// This server gives the nodes their addresses, and nobody else any.
    Authoritative,
}

/// What the owner may set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settings {
    /// How the server stands to the network.
    pub mode: Mode,
    /// Lease time of an address.
    pub lease: Duration,
    /// How long an offer to a Pi 3B's ROM is held back: it locks up if DHCP and TFTP are both answered
    /// within 2 s (raspberrypi/firmware#862, #934). At most 3 s count.
    pub pi3_delay: Duration,
    /// True if an address is checked by ARP before it is offered.
    pub probe: bool,
}

impl Settings {
    /// One hour, 1.5 s, addresses checked.
    pub fn new(mode: Mode) -> Settings {
        Settings {
            mode,
            lease: Duration::from_secs(3600),
            pi3_delay: Duration::from_millis(1500),
            probe: true,
        }
    }
}

/// All that a decision rests on beside the packet and the memory.
#[derive(Clone, Copy)]
pub struct Situation<'a> {
    /// The site as it is now.
    pub site: &'a Site,
    /// What the owner set.
    pub settings: &'a Settings,
    /// True for a node that has something to boot.
    pub can_boot: &'a dyn Fn(&str) -> bool,
    /// When the packet came.
    pub now: Instant,
}

/// Where a reply goes. Ports follow: a relay agent has the server's, everyone else the client's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum To {
    /// Everyone on the segment.
    Broadcast,
    /// A client that has no address yet and so answers no ARP: by its card.
    Card {
        /// The address it is to have.
        address: Ipv4Addr,
        /// Its card.
        mac: Mac,
    },
    /// A client that has an address.
    Address(Ipv4Addr),
    /// A relay agent.
    Relay(Ipv4Addr),
}

/// One datagram to send.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    /// Where to.
    pub to: To,
    /// UDP payload.
    pub bytes: Vec<u8>,
    /// How long to wait first.
    pub delay: Duration,
}

/// What comes of one packet.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Decision {
    /// The answer, or silence.
    pub reply: Option<Reply>,
    /// An address to be checked first. Nothing else was decided: once [`Memory::heard`] and
    /// [`Memory::probed`] have been told what came of it, the same packet is to be put again.
    pub probe: Option<Ipv4Addr>,
    /// What is worth telling.
    pub events: Vec<Event>,
}

/// Decides what comes of `packet`.
pub fn respond(situation: &Situation<'_>, packet: &Packet<'_>, memory: &mut Memory) -> Decision {
    let mut decision = Decision::default();
    if let Some(server) = foreign_server(situation.site, packet) {
        let expected = situation.settings.mode == Mode::Proxy;
        if memory.tell_server(server, expected, situation.now) {
            decision.events.push(Event::ForeignServer { server, mac: None });
        }
    }
    if packet.op != Opcode::BootRequest {
        return decision;
    }
    let Situation { site, now, .. } = *situation;
    let Some(node) = site.by_mac(packet.mac) else {
        decision.events.extend(stranger(situation, packet, memory));
        return decision;
    };
    let memory = memory.node(site, node, now);
    if memory.admit(packet.xid, now) {
        memory.enter(packet.xid, now);
        let mut exchange =
            Exchange { situation, packet, node, memory, sender: Sender::of(packet, true), decision };
        exchange.decide();
        return exchange.decision;
    }
    decision
}

/// The server that another machine's packet names: as its sender, or as the one whose offer was taken.
/// The second is what a switch lets through, for most offers are unicast.
fn foreign_server(site: &Site, packet: &Packet<'_>) -> Option<Ipv4Addr> {
    let speaks = match packet.op {
        Opcode::BootReply => {
            matches!(packet.kind, MessageType::Offer | MessageType::Ack | MessageType::Nak)
        }
        _ => packet.kind == MessageType::Request,
    };
    packet.server_id.filter(|server| speaks && *server != site.server && !server.is_unspecified())
}

/// A machine that is not in the description: told of when it boots, or when it goes without an address
/// because of us; never answered.
fn stranger(situation: &Situation<'_>, packet: &Packet<'_>, memory: &mut Memory) -> Option<Event> {
    let sender = Sender::of(packet, false);
    let boots = sender.client != Client::System;
    let waits = situation.settings.mode == Mode::Authoritative;
    let tell = packet.kind == MessageType::Discover
        && (boots || sender.pi || waits)
        && memory.tell_stranger(packet.mac, sender.pi, situation.now);
    tell.then(|| Event::Stranger { mac: packet.mac, identity: sender.guid.identity(), pi: sender.pi })
}

/// One packet of a node.
struct Exchange<'a> {
    situation: &'a Situation<'a>,
    packet: &'a Packet<'a>,
    node: &'a Node,
    memory: &'a mut NodeMemory,
    sender: Sender,
    decision: Decision,
}

impl Exchange<'_> {
    fn decide(&mut self) {
        if !self.board_is_right() {
            return;
        }
        self.recognise_firmware();
        let authoritative = self.situation.settings.mode == Mode::Authoritative;
        match self.packet.kind {
            MessageType::Discover if authoritative => self.discover(),
            MessageType::Discover => self.proxy(),
            // A proxy gave no address, so it confirms and refuses none.
            _ if !authoritative => {}
            MessageType::Request => self.request(),
            MessageType::Inform => self.inform(),
            MessageType::Decline => self.decline(),
            MessageType::Release => self.release(),
            _ => {}
        }
    }

    /// Compares option 97 with the description. Another serial is another board: refused. Another card
    /// in option 97 alone is only told of, for nobody knows what an EEPROM's `MAC_ADDRESS` does to it.
    fn board_is_right(&mut self) -> bool {
        let Some(identity) = self.sender.guid.identity() else { return true };
        let (node, expected, found) = (self.node.name.clone(), self.node.serial, identity.serial);
        if found != expected {
            self.tell(Once::Mismatch, Event::Mismatch { node, expected, found });
            return false;
        }
        self.memory.settle(Once::Mismatch);
        let [_, _, tail @ ..] = self.node.mac.0;
        match identity.mac_tail {
            Some(found) if found != tail => {
                self.tell(Once::CardMismatch, Event::CardMismatch { node, found })
            }
            _ => self.memory.settle(Once::CardMismatch),
        }
        true
    }

    /// A Pi 4 of 2020 sent its REQUEST without option 60 (raspberrypi/rpi-eeprom#82, #87): the
    /// transaction id says whose it is.
    fn recognise_firmware(&mut self) {
        let (xid, now) = (self.packet.xid, self.situation.now);
        if self.sender.client == Client::Firmware {
            self.memory.saw_firmware(xid, now);
        } else if self.packet.kind == MessageType::Request && self.memory.is_firmware(xid, now) {
            self.sender.client = Client::Firmware;
        }
    }

    fn boots(&self) -> bool {
        self.sender.client == Client::Firmware && (self.situation.can_boot)(&self.node.name)
    }

    fn tell(&mut self, what: Once, event: Event) {
        if self.memory.tell(what, self.situation.now) {
            self.decision.events.push(event);
        }
    }

    fn tell_discover(&mut self) {
        if self.sender.client == Client::Firmware {
            let identity = self.sender.guid.identity();
            self.tell(Once::Discover, Event::Discover { node: self.node.name.clone(), identity });
        }
    }

    /// Yiaddr 0, no lease, no mask: only where to boot. The broadcast flag is set, for the Pi has no
    /// address yet and gets none from here. The Pi waits until another server's offer has come too.
    fn proxy(&mut self) {
        self.tell_discover();
        if !self.boots() {
            return;
        }
        let to = match self.packet.giaddr {
            Ipv4Addr::UNSPECIFIED => To::Broadcast,
            relay => To::Relay(relay),
        };
        let header = Header { flags: self.packet.flags | 0x8000, ..self.header(MessageType::Offer) };
        self.reply(to, header, Contents { boot: true, ..Contents::default() });
        self.tell(Once::Offered, Event::Offered { node: self.node.name.clone() });
    }

    fn discover(&mut self) {
        if !self.same_link() || !self.address_is_free() {
            return;
        }
        self.memory.settle(Once::Conflict);
        self.tell_discover();
        self.lease(MessageType::Offer, Ipv4Addr::UNSPECIFIED);
        self.tell(Once::Offered, Event::Offered { node: self.node.name.clone() });
        if self.sender.pi3 {
            self.tell_leased(); // It takes the address and never says so (raspberrypi/firmware#1699).
        }
    }

    /// The four states of RFC 2131 section 4.3.2, told apart by which of option 54, option 50 and ciaddr
    /// are there.
    fn request(&mut self) {
        let Packet { server_id, requested, ciaddr, .. } = *self.packet;
        let bound = !ciaddr.is_unspecified();
        if server_id.is_some_and(|server| server != self.situation.site.server) || !self.same_link() {
            return; // It took another server's offer.
        }
        let firmware = self.sender.client == Client::Firmware;
        let wanted = match requested {
            _ if bound => ciaddr, // RENEWING, REBINDING
            Some(address) => address,
            // What the firmware's REQUEST carries was never published: the exchange says what it means.
            None if firmware => self.node.address,
            None => return,
        };
        if wanted != self.node.address {
            return self.refuse("this address is not yours");
        }
        // A client that runs on its address is never cut off: its root may hang on it. One that comes back
        // to an address of before (INIT-REBOOT) has it checked, and then asks anew if it is taken.
        if !bound && server_id.is_none() && !firmware && !self.address_is_free() {
            if self.decision.probe.is_none() {
                self.refuse("this address is in use by another machine");
            }
            return;
        }
        self.lease(MessageType::Ack, ciaddr);
        self.tell_leased();
    }

    /// Parameters for a client that has its address from elsewhere: no lease, no yiaddr.
    fn inform(&mut self) {
        let ciaddr = self.packet.ciaddr;
        // Nowhere else, or a forged packet would have us write to anyone. Behind a relay agent a node is in
        // another network than the server.
        if ciaddr != self.node.address && !self.situation.site.contains(ciaddr) {
            return;
        }
        let header = Header { ciaddr, ..self.header(MessageType::Ack) };
        let contents = Contents { parameters: Some(self.node), boot: self.boots(), ..Contents::default() };
        self.reply(To::Address(ciaddr), header, contents);
    }

    /// The client found another machine on the address: nothing is offered before it was checked again.
    fn decline(&mut self) {
        let Packet { server_id, requested, .. } = *self.packet;
        let (address, now) = (self.node.address, self.situation.now);
        let ours = server_id.is_none_or(|server| server == self.situation.site.server);
        if !ours || requested != Some(address) {
            return;
        }
        if self.situation.settings.probe {
            self.memory.forget_holder();
        } else {
            self.memory.declined(address, now);
        }
        self.tell(Once::Conflict, Event::Conflict { node: self.node.name.clone(), address, holder: None });
    }

    /// A reservation stays, so there is nothing to give back but what was known of its holder.
    fn release(&mut self) {
        let ours = self.packet.server_id.is_none_or(|server| server == self.situation.site.server);
        if ours && self.packet.ciaddr == self.node.address {
            self.memory.forget_holder();
            self.tell(Once::Released, Event::Released { node: self.node.name.clone() });
        }
    }

    /// True unless a relay agent stands on another network than the node's reservation.
    fn same_link(&self) -> bool {
        let (relay, mask) = (self.packet.giaddr, self.situation.site.netmask);
        relay.is_unspecified() || relay & mask == self.node.address & mask
    }

    /// True if the node may be given its address now. If not, either a check was asked for or another
    /// machine has it.
    fn address_is_free(&mut self) -> bool {
        let address = self.node.address;
        // ARP does not go through a relay agent.
        let checked = self.situation.settings.probe && self.packet.giaddr.is_unspecified();
        match self.memory.holder(address, self.situation.now) {
            Holder::Unknown if checked => self.decision.probe = Some(address),
            Holder::Taken(mac) => {
                let node = self.node.name.clone();
                self.tell(Once::Conflict, Event::Conflict { node, address, holder: Some(mac) });
            }
            Holder::Declined => {}
            Holder::Unknown | Holder::Free => return true,
        }
        false
    }

    /// OFFER or ACK of the reservation.
    fn lease(&mut self, kind: MessageType, ciaddr: Ipv4Addr) {
        let address = self.node.address;
        let to = match self.packet.giaddr {
            Ipv4Addr::UNSPECIFIED if ciaddr == address => To::Address(address),
            Ipv4Addr::UNSPECIFIED if self.packet.broadcast() => To::Broadcast,
            Ipv4Addr::UNSPECIFIED => To::Card { address, mac: self.node.mac },
            relay => To::Relay(relay),
        };
        let contents = Contents {
            lease: Some(self.situation.settings.lease),
            parameters: Some(self.node),
            boot: self.boots(),
            times: self.sender.client != Client::Firmware,
            message: None,
        };
        self.reply(to, Header { ciaddr, yiaddr: address, ..self.header(kind) }, contents);
        if kind == MessageType::Offer && self.sender.guid == Guid::Pi3Rom {
            let delay = self.situation.settings.pi3_delay.min(LONGEST_DELAY);
            self.decision.reply.iter_mut().for_each(|reply| reply.delay = delay);
        }
    }

    /// A NAK goes to everyone on the segment, whatever the client has for an address (RFC 2131 section
    /// 4.1); behind a relay agent the flag has the agent do so (section 4.3.2).
    fn refuse(&mut self, why: &str) {
        let (to, flags) = match self.packet.giaddr {
            Ipv4Addr::UNSPECIFIED => (To::Broadcast, self.packet.flags),
            relay => (To::Relay(relay), self.packet.flags | 0x8000),
        };
        let header = Header { flags, siaddr: Ipv4Addr::UNSPECIFIED, ..self.header(MessageType::Nak) };
        self.reply(to, header, Contents { message: Some(why), ..Contents::default() });
    }

    fn header(&self, kind: MessageType) -> Header {
        let none = Ipv4Addr::UNSPECIFIED;
        let siaddr = self.situation.site.server;
        Header { kind, flags: self.packet.flags, ciaddr: none, yiaddr: none, siaddr }
    }

    fn reply(&mut self, to: To, header: Header, contents: Contents<'_>) {
        let bytes = reply::write(self.packet, self.situation.site, header, contents);
        self.decision.reply = Some(Reply { to, bytes, delay: Duration::ZERO });
    }

    fn tell_leased(&mut self) {
        let client = self.packet.class();
        self.tell(Once::Leased, Event::Leased { node: self.node.name.clone(), client });
    }
}
