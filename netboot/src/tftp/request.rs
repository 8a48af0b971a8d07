//! What becomes of a datagram at the server's well-known port: a plain function of site and bytes.
//! Must not know: sockets, which transfers are live, whether a file exists.
//! Spec: RFC 1350 (modes, errors), RFC 1123 section 4.2.3.

use std::net::{Ipv4Addr, SocketAddrV4};

use super::Event;
use super::options::Wishes;
use super::packet::{ErrorCode, Packet, Request};
use super::view;
use crate::site::Site;

/// The decision on one datagram.
#[derive(Debug, PartialEq, Eq)]
pub enum Decision {
    /// No answer.
    Ignore(Option<Event>),
    /// An ERROR at once: silence would cost a Pi 2 s x 15.
    Refuse(ErrorCode, &'static str, Event),
    /// A node wants a file that it may have, if it is there.
    Open(Open),
}

/// What to open, and how to send it.
#[derive(Debug, PartialEq, Eq)]
pub struct Open {
    /// The node's name.
    pub node: String,
    /// As [`super::Host::boot_file`] takes it.
    pub path: Vec<u8>,
    /// Netascii in place of octet.
    pub netascii: bool,
    /// The client's options.
    pub wishes: Wishes,
}

/// Decides on `datagram` from `from`.
///
/// Off the nodes' network nobody is answered: the source may be forged, and the answer would be
/// another's flood. On it everyone gets the same ERROR 1 for what they may not have and for what there is
/// not, so that a stranger learns nothing from it.
pub fn decide(site: &Site, from: SocketAddrV4, datagram: &[u8]) -> Decision {
    let asker = *from.ip();
    if from.port() == 0 || !may_be_answered(site, asker) {
        return Decision::Ignore(None);
    }
    let malformed = |reason: String| Decision::Ignore(Some(Event::Malformed { from: from.into(), reason }));
    let refused =
        |request: &Request<'_>, reason| Event::Refused { from: asker, name: request.name.to_vec(), reason };
    let request = match Packet::parse(datagram) {
        Ok(Packet::Read(request)) => request,
        Ok(Packet::Write(request)) => {
            let event = refused(&request, "writing is not offered");
            return Decision::Refuse(ErrorCode::ACCESS, "Read only", event);
        }
        Ok(_) => return malformed("not a request".into()),
        Err(e) => return malformed(e.to_string()),
    };
    let netascii = request.mode.eq_ignore_ascii_case(b"netascii");
    if !netascii && !request.mode.eq_ignore_ascii_case(b"octet") {
        let event = refused(&request, "the mode is neither octet nor netascii");
        return Decision::Refuse(ErrorCode::ILLEGAL, "Mode not supported", event);
    }
    match view::resolve(site, asker, request.name) {
        Ok(wanted) => Decision::Open(Open {
            node: wanted.node.name.clone(),
            path: wanted.path,
            netascii,
            wishes: Wishes::read(request.options),
        }),
        Err(reason) => Decision::Refuse(ErrorCode::NOT_FOUND, NOT_FOUND, refused(&request, reason)),
    }
}

/// The text of every ERROR 1, alike for all that is not there and all that is not for the asker.
pub const NOT_FOUND: &str = "File not found";

/// True for single machines of the site; a node behind a relay agent has an address of another network.
fn may_be_answered(site: &Site, asker: Ipv4Addr) -> bool {
    if site.by_address(asker).is_some() {
        return true;
    }
    let host = u32::from(asker) & !u32::from(site.netmask);
    let ends = [0, !u32::from(site.netmask)];
    let usable = u32::from(site.netmask) >= 0xffff_fffe || !ends.contains(&host);
    site.contains(asker)
        && usable
        && !asker.is_multicast()
        && !asker.is_broadcast()
        && !asker.is_unspecified()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::site::{Mac, Node, Serial};

    fn site() -> Site {
        let node = |name: &str, address, last| Node {
            name: name.into(),
            address,
            mac: Mac([2, 0, 0, 0, 0, last]),
            serial: Serial(last.into()),
        };
        Site {
            server: Ipv4Addr::new(10, 4, 0, 10),
            netmask: Ipv4Addr::new(255, 255, 240, 0),
            gateway: None,
            dns: vec![],
            domain: "example".into(),
            nodes: vec![
                node("fenn", Ipv4Addr::new(10, 4, 0, 15), 15),
                node("far", Ipv4Addr::new(192, 168, 7, 9), 9),
            ],
        }
    }

    /// The decision in short: what it says and the event's reason.
    fn short(from: [u8; 4], port: u16, datagram: &[u8]) -> String {
        match decide(&site(), SocketAddrV4::new(from.into(), port), datagram) {
            Decision::Ignore(None) => "ignored".into(),
            Decision::Ignore(Some(Event::Malformed { reason, .. })) => format!("malformed: {reason}"),
            Decision::Refuse(code, _, Event::Refused { reason, .. }) => format!("error {}: {reason}", code.0),
            Decision::Open(open) => {
                let mode = if open.netascii { "netascii" } else { "octet" };
                format!("{} {} {mode}", open.node, String::from_utf8_lossy(&open.path))
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn each_kind_of_datagram_has_its_answer() {
        const FENN: [u8; 4] = [10, 4, 0, 15];
        for (from, datagram, want) in [
            (FENN, &b"\0\x01config.txt\0octet\0"[..], "fenn config.txt octet"),
            (FENN, b"\0\x01config.txt\0OCTET\0", "fenn config.txt octet"),
            (FENN, b"\0\x01config.txt\0NetASCII\0", "fenn config.txt netascii"),
            (FENN, b"\0\x01/0000000F/config.txt\0octet\0", "fenn config.txt octet"),
            (FENN, b"\0\x01config.txt\0mail\0", "error 4: the mode is neither octet nor netascii"),
            (FENN, b"\0\x01config.txt\0\0", "error 4: the mode is neither octet nor netascii"),
            (FENN, b"\0\x02config.txt\0octet\0", "error 2: writing is not offered"),
            (FENN, b"\0\x01\0octet\0", "error 1: the name is empty"),
            (FENN, b"\0\x01../x\0octet\0", "error 1: the name leaves its directory"),
            (FENN, b"\0\x0100000009/x\0octet\0", "error 1: another board's serial"),
            (FENN, b"\0\x04\0\0", "malformed: not a request"),
            (FENN, b"\0\x05\0\0Early terminate\0", "malformed: not a request"),
            (FENN, b"\0\x01config.txt", "malformed: the file name does not end in NUL"),
            (FENN, b"", "malformed: the packet has 0 bytes, its fixed fields need 2"),
            ([192, 168, 7, 9], b"\0\x01x\0octet\0", "far x octet"),
            ([10, 4, 0, 99], b"\0\x01config.txt\0octet\0", "error 1: no node has this address"),
            ([10, 4, 0, 10], b"\0\x01config.txt\0octet\0", "error 1: no node has this address"),
            ([10, 4, 16, 1], b"\0\x01config.txt\0octet\0", "ignored"),
            ([8, 8, 8, 8], b"\0\x01config.txt\0octet\0", "ignored"),
            ([10, 4, 15, 255], b"\0\x01config.txt\0octet\0", "ignored"),
            ([10, 4, 0, 0], b"\0\x01config.txt\0octet\0", "ignored"),
            ([255; 4], b"\0\x01config.txt\0octet\0", "ignored"),
            ([0; 4], b"\0\x01config.txt\0octet\0", "ignored"),
            ([224, 0, 0, 1], b"\0\x01config.txt\0octet\0", "ignored"),
        ] {
            assert_eq!(short(from, 49152, datagram), want, "{from:?} sends {datagram:?}");
        }
        assert_eq!(short(FENN, 0, b"\0\x01config.txt\0octet\0"), "ignored", "port 0 cannot be answered");
    }
}
