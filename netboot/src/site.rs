//! Who is allowed on this network: the nodes with their addresses, checked by the caller.
//! Must not know: how the description is written, what a node boots.

use std::fmt;
use std::net::Ipv4Addr;

/// An Ethernet address.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Mac(pub [u8; 6]);

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl fmt::Debug for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The low 32 bits of a Pi's serial number, shown as eight lower-case hex digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Serial(pub u32);

impl fmt::Display for Serial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:08x}", self.0)
    }
}

impl fmt::Debug for Serial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// One machine of the description.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// Host name, lower case.
    pub name: String,
    /// Its reservation.
    pub address: Ipv4Addr,
    /// Its wired card.
    pub mac: Mac,
    /// Its board.
    pub serial: Serial,
}

/// The network and everyone who may boot from it. Names, addresses, MACs and serials are unique.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Site {
    /// The address of this server that nodes are told.
    pub server: Ipv4Addr,
    /// The network's mask.
    pub netmask: Ipv4Addr,
    /// The router, if there is one.
    pub gateway: Option<Ipv4Addr>,
    /// Name servers.
    pub dns: Vec<Ipv4Addr>,
    /// The nodes' domain.
    pub domain: String,
    /// The nodes.
    pub nodes: Vec<Node>,
}

impl Site {
    /// The node with this card.
    pub fn by_mac(&self, mac: Mac) -> Option<&Node> {
        self.nodes.iter().find(|node| node.mac == mac)
    }

    /// The node with this board.
    pub fn by_serial(&self, serial: Serial) -> Option<&Node> {
        self.nodes.iter().find(|node| node.serial == serial)
    }

    /// The node with this reservation.
    pub fn by_address(&self, address: Ipv4Addr) -> Option<&Node> {
        self.nodes.iter().find(|node| node.address == address)
    }

    /// True for an address of the nodes' network.
    pub fn contains(&self, address: Ipv4Addr) -> bool {
        address & self.netmask == self.server & self.netmask
    }
}
