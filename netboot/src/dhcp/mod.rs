//! DHCP for the nodes of a site: beside a router's server (proxy), in its place (authoritative), or
//! not at all.
//! Must not know: files, images. It tells its [`Host`] what it saw.
//! Spec: RFC 2131, 2132, 3396, 4578; the Pi firmware's habits are named where a rule rests on one.

mod bind;
mod fuzz;
mod identity;
mod link;
mod memory;
mod packet;
mod reply;
mod respond;
mod service;
#[cfg(test)]
mod tests;

use std::net::Ipv4Addr;
use std::sync::Arc;

pub use bind::{BindError, Ports, Sockets};
pub use fuzz::fuzz;
pub use identity::{Client, Guid, Sender};
pub use link::{Arp, Interface, Link, Probe};
pub use memory::Memory;
pub use packet::{MessageType, Opcode, OptionCode, Options, Packet, PacketError};
pub use reply::PI_BOOT;
pub use respond::{Decision, Mode, Reply, Settings, Situation, To, respond};
pub use service::{Counters, Service};

use crate::site::{Mac, Serial, Site};

/// What the DHCP server asks of the half that knows images and boots. Calls are quick: no disk, no
/// network.
pub trait Host: Send + Sync + 'static {
    /// The site as it is now.
    fn site(&self) -> Arc<Site>;
    /// True if the node has something to boot; a node that has nothing gets no boot answer.
    fn can_boot(&self, node: &str) -> bool;
    /// Something was seen.
    fn event(&self, event: Event);
}

/// What one Pi says of itself in option 97.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The board's serial number.
    pub serial: Serial,
    /// Board revision, as in /proc/cpuinfo, where the firmware tells it.
    pub revision: Option<u32>,
    /// The last four bytes of the card's address, where the firmware tells them.
    pub mac_tail: Option<[u8; 4]>,
}

/// Steps of one DHCP exchange, one for each line that a person would want to read.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event {
    /// The firmware of a node began to boot (DISCOVER).
    Discover {
        /// The node.
        node: String,
        /// What option 97 says.
        identity: Option<Identity>,
    },
    /// We offered: an address in authoritative mode, boot information alone in proxy mode.
    Offered {
        /// The node.
        node: String,
    },
    /// A node took its address (authoritative mode).
    Leased {
        /// The node.
        node: String,
        /// Who asked: the vendor class, such as `PXEClient…` or `udhcp 1.37`.
        client: String,
    },
    /// A machine that is not in the description asked to boot.
    Stranger {
        /// Its card.
        mac: Mac,
        /// What option 97 says.
        identity: Option<Identity>,
        /// True if it is a Raspberry Pi.
        pi: bool,
    },
    /// A node's card came with another board's serial: swapped, mistyped or forged. It gets nothing.
    Mismatch {
        /// The node whose card it is.
        node: String,
        /// What the description says.
        expected: Serial,
        /// What option 97 says.
        found: Serial,
    },
    /// The serial is the node's, but option 97 names another card than the one that asks: perhaps an
    /// EEPROM that replaces the card's address. It is answered all the same.
    CardMismatch {
        /// The node.
        node: String,
        /// The last four bytes of the card's address, as option 97 says.
        found: [u8; 4],
    },
    /// A node gave its address back: it shuts down, or its network does.
    Released {
        /// The node.
        node: String,
    },
    /// Another DHCP server answered someone on this network.
    ForeignServer {
        /// Its address: option 54.
        server: Ipv4Addr,
        /// Its card, when known.
        mac: Option<Mac>,
    },
    /// An address that is reserved for a node is in use by another machine.
    Conflict {
        /// The node.
        node: String,
        /// The address.
        address: Ipv4Addr,
        /// Who has it, when known.
        holder: Option<Mac>,
    },
    /// A packet that is no DHCP, counted and dropped.
    Malformed {
        /// Who sent it.
        from: std::net::SocketAddr,
        /// What is wrong, for the log.
        reason: String,
    },
}
