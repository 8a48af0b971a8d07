//! A TFTP server for Pi firmware: read-only, one view per node.
//! Must not know: images, how files are stored. It asks its [`Host`] for content and tells it what it
//! sent.
//! Spec: RFC 1350, 2347, 2348, 2349, 7440.

mod live;
pub mod options;
pub mod packet;
mod port;
pub mod request;
mod service;
mod source;
mod table;
pub mod transfer;
pub mod view;
mod worker;

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use crate::content::Content;
use crate::site::Site;

pub use service::{BindError, Config, ServeError, bind, serve};
pub use table::Limits;

/// What the TFTP server asks of the half that knows images and boots. Calls are quick; opening one
/// local file is the slowest.
pub trait Host: Send + Sync + 'static {
    /// The site as it is now.
    fn site(&self) -> Arc<Site>;
    /// The file at `path` (components joined by `/`, no prefix, neither empty nor `..`) of what
    /// `node` boots. The first request of a node begins a boot.
    fn boot_file(&self, node: &str, path: &[u8]) -> Option<Content>;
    /// Something was seen.
    fn event(&self, event: Event);
}

/// Steps of a transfer.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event {
    /// A node has a whole file.
    Sent {
        /// The node.
        node: String,
        /// The file as [`Host::boot_file`] was asked for it.
        path: Vec<u8>,
        /// Bytes of content.
        bytes: u64,
        /// From the request to the last acknowledgement.
        took: Duration,
        /// Packets sent again.
        resent: u32,
    },
    /// The client ended the transfer (the firmware's probe does so after reading the size).
    Stopped {
        /// The node.
        node: String,
        /// The file.
        path: Vec<u8>,
    },
    /// The client fell silent.
    TimedOut {
        /// The node.
        node: String,
        /// The file.
        path: Vec<u8>,
        /// Bytes that were acknowledged.
        bytes: u64,
    },
    /// We gave up: the file could not be read, or the server is stopping.
    Failed {
        /// The node.
        node: String,
        /// The file.
        path: Vec<u8>,
        /// Bytes that were acknowledged.
        bytes: u64,
        /// Why, for the log.
        reason: String,
    },
    /// A node asked for what its boot tree has not; firmware does so all the time.
    Missing {
        /// The node.
        node: String,
        /// The file.
        path: Vec<u8>,
    },
    /// Someone asked for what it may not have.
    Refused {
        /// Who asked.
        from: Ipv4Addr,
        /// The name as it was asked for.
        name: Vec<u8>,
        /// Why, for the log.
        reason: &'static str,
    },
    /// A packet that is no TFTP, counted and dropped.
    Malformed {
        /// Who sent it.
        from: SocketAddr,
        /// What is wrong, for the log.
        reason: String,
    },
}

/// Feeds foreign bytes to the codec, the decision on requests and a transfer; the fuzz target calls it.
///
/// # Panics
/// If one of the promises does not hold that the target states.
pub fn fuzz(data: &[u8]) {
    use std::net::SocketAddrV4;
    use std::time::Instant;

    use crate::site::{Mac, Node, Serial};

    let address = Ipv4Addr::new(10, 0, 0, 2);
    let node = Node { name: "n".into(), address, mac: Mac([2, 0, 0, 0, 0, 1]), serial: Serial(0x1234_abcd) };
    let site = Site {
        server: Ipv4Addr::new(10, 0, 0, 1),
        netmask: Ipv4Addr::new(255, 255, 255, 0),
        gateway: None,
        dns: vec![],
        domain: String::new(),
        nodes: vec![node],
    };
    // The first bytes choose the file's length and the request's; the rest are packets of eight bytes.
    let Some((&[len, cut], rest)) = data.split_first_chunk() else { return };
    let (request, packets) = rest.split_at(usize::from(cut).min(rest.len()));
    if let Ok(packet) = packet::Packet::parse(request) {
        let mut again = Vec::new();
        packet.encode(&mut again);
        assert_eq!(packet::Packet::parse(&again), Ok(packet), "what was read is written and read the same");
    }
    let decision = request::decide(&site, SocketAddrV4::new(address, 1000), request);
    let request::Decision::Open(open) = decision else { return };
    assert!(open.path.split(|&b| b == b'/').all(|part| !matches!(part, b"" | b"." | b"..")));

    let bytes = u64::from(len) * 1000;
    let terms = open.wishes.grant(Some(bytes), || 1500);
    let end = bytes / u64::from(terms.blksize) + 1;
    let (mut transfer, mut step) = transfer::Transfer::start(&terms, Some(bytes), Instant::now());
    for datagram in packets.chunks(8) {
        if let transfer::Step::Data { first, last } = step {
            assert!(1 <= first && first <= last && last <= end, "blocks {first} to {last} of {end}");
            assert!(last - first < u64::from(terms.windowsize));
        }
        let now = transfer.deadline();
        step = match packet::Packet::parse(datagram) {
            Ok(packet) => transfer.packet(&packet, now),
            Err(_) => transfer.tick(now),
        };
        if let transfer::Step::End(_) = step {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    proptest! {
        /// What the fuzz target does, on inputs that get past the first checks.
        #[test]
        fn the_fuzz_targets_promises_hold(
            len: u8, name in "[a-c./]{0,12}", options in "(tsize|blksize|windowsize|timeout)\u{0}[0-9]{1,5}\u{0}",
            packets in proptest::collection::vec((0u8..7, 0u8..3, any::<u8>()), 0..200)
        ) {
            let request = format!("\0\u{1}{name}\0octet\0{options}");
            let mut data = vec![len, request.len() as u8];
            data.extend_from_slice(request.as_bytes());
            for (opcode, high, low) in packets {
                data.extend_from_slice(&[0, opcode, high, low, 0, 0, 0, 0]);
            }
            super::fuzz(&data);
        }

        #[test]
        fn no_bytes_panic(data in proptest::collection::vec(any::<u8>(), 0..300)) {
            super::fuzz(&data);
        }
    }
}
