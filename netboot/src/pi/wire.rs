//! How DHCP packets leave and come in before there is an address: whole Ethernet frames, or plain UDP
//! where there is no privilege.
//! Must not know: what the packets say.
//! Spec: packet(7), RFC 791 and 768 (headers and checksums).

use std::io;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, UdpSocket};
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use rustix::net::addr::{SocketAddrArg, SocketAddrLen, SocketAddrOpaque};
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType};

use crate::site::Mac;

/// All protocols, so that answers which leave this machine are heard too: a server on this very host
/// sends from a packet socket, and its frames do not come in.
const ETH_P_ALL: u16 = 3;
const ETH_P_IP: [u8; 2] = [8, 0];
const ETHERNET: usize = 14;
/// DHCP's ports: server, client.
const PORTS: (u16, u16) = (67, 68);

/// One UDP datagram, as it came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Datagram {
    /// What it carries.
    pub payload: Vec<u8>,
    /// Who sent it.
    pub from: SocketAddrV4,
    /// The sender's card, where the wire tells.
    pub card: Option<Mac>,
}

/// A way for DHCP packets.
pub trait Wire {
    /// Sends to all servers.
    ///
    /// # Errors
    /// What the kernel says.
    fn broadcast(&mut self, payload: &[u8]) -> io::Result<()>;
    /// The next packet for a client, or `None` after `wait`.
    ///
    /// # Errors
    /// What the kernel says.
    fn receive(&mut self, wait: Duration) -> io::Result<Option<Datagram>>;
}

/// Frames of our own making on one interface. The source is the node's card and 0.0.0.0, and answers
/// are heard whatever address they are for: the interface needs none.
#[derive(Debug)]
pub struct PacketWire {
    socket: OwnedFd,
    card: Mac,
    /// Sends by this in place of frames: see [`PacketWire::with_this_host`].
    udp: Option<UdpSocket>,
}

impl PacketWire {
    /// Opens `interface`, playing the card `card`, which need not be the interface's own as long as
    /// answers are broadcast or the interface takes all frames.
    ///
    /// # Errors
    /// `EPERM` without CAP_NET_RAW, `ENODEV` if there is no such interface.
    pub fn open(interface: &str, card: Mac) -> io::Result<PacketWire> {
        let any = rustix::net::socket(AddressFamily::INET, SocketType::DGRAM, None)?;
        let index = rustix::net::netdevice::name_to_index(&any, interface)?;
        // Protocol none until it is bound: no frame of another interface ever comes in.
        let socket =
            rustix::net::socket_with(AddressFamily::PACKET, SocketType::RAW, SocketFlags::CLOEXEC, None)?;
        rustix::net::bind(&socket, &LinkAddr::new(index)?)?;
        Ok(PacketWire { socket, card, udp: None })
    }

    /// Sends from this host's own address in place of 0.0.0.0, so that a server on this host hears it:
    /// frames of a packet socket leave and are never handed to a local socket, broadcasts of a UDP
    /// socket are both. Listens as before.
    ///
    /// # Errors
    /// `EPERM` without CAP_NET_RAW, and what the kernel says.
    pub fn with_this_host(mut self, interface: &str) -> io::Result<PacketWire> {
        use socket2::{Domain, Protocol, Socket, Type};
        let socket = Socket::new(Domain::IPV4, Type::DGRAM, Some(Protocol::UDP))?;
        rustix::net::sockopt::set_socket_reuseaddr(&socket, true)?;
        rustix::net::sockopt::set_socket_broadcast(&socket, true)?;
        socket.bind_device(Some(interface.as_bytes()))?;
        // This host's own DHCP client may hold port 68; servers answer to 68 whatever the source is.
        let bind = |port| socket.bind(&SocketAddr::from((Ipv4Addr::UNSPECIFIED, port)).into());
        bind(PORTS.1).or_else(|_| bind(0))?;
        self.udp = Some(socket.into());
        Ok(self)
    }
}

impl Wire for PacketWire {
    fn broadcast(&mut self, payload: &[u8]) -> io::Result<()> {
        if let Some(udp) = &self.udp {
            udp.send_to(payload, (Ipv4Addr::BROADCAST, PORTS.0))?;
            return Ok(());
        }
        rustix::net::send(&self.socket, &frame(self.card, payload)?, SendFlags::empty())?;
        Ok(())
    }

    fn receive(&mut self, wait: Duration) -> io::Result<Option<Datagram>> {
        let until = Instant::now() + wait;
        let mut buffer = vec![0; 4096];
        loop {
            let Some(left) = until.checked_duration_since(Instant::now()).filter(|left| !left.is_zero())
            else {
                return Ok(None);
            };
            set_socket_timeout(&self.socket, Timeout::Recv, Some(left.max(Duration::from_millis(1))))?;
            match rustix::net::recv(&self.socket, &mut buffer[..], RecvFlags::empty()) {
                Ok((len, _)) => {
                    if let Some(datagram) = buffer.get(..len).and_then(unframe) {
                        return Ok(Some(datagram));
                    }
                }
                Err(rustix::io::Errno::AGAIN) => return Ok(None),
                Err(rustix::io::Errno::INTR) => {}
                Err(e) => return Err(e.into()),
            }
        }
    }
}

/// Plain UDP to one server, on ports of the caller's choice: tests without privilege.
#[derive(Debug)]
pub struct UdpWire {
    socket: UdpSocket,
    server: SocketAddrV4,
}

impl UdpWire {
    /// Sends from and listens on `socket`.
    pub fn new(socket: UdpSocket, server: SocketAddrV4) -> UdpWire {
        UdpWire { socket, server }
    }
}

impl Wire for UdpWire {
    fn broadcast(&mut self, payload: &[u8]) -> io::Result<()> {
        self.socket.send_to(payload, self.server)?;
        Ok(())
    }

    fn receive(&mut self, wait: Duration) -> io::Result<Option<Datagram>> {
        let mut buffer = vec![0; 4096];
        self.socket.set_read_timeout(Some(wait.max(Duration::from_millis(1))))?;
        match self.socket.recv_from(&mut buffer) {
            Ok((len, SocketAddr::V4(from))) => {
                buffer.truncate(len);
                Ok(Some(Datagram { payload: buffer, from, card: None }))
            }
            Err(e) if !is_timeout(&e) => Err(e),
            _ => Ok(None),
        }
    }
}

/// True for a read that waited in vain.
pub(super) fn is_timeout(error: &io::Error) -> bool {
    use io::ErrorKind::{Interrupted, TimedOut, WouldBlock};
    matches!(error.kind(), WouldBlock | TimedOut | Interrupted)
}

/// `struct sockaddr_ll` of packet(7), to bind with.
#[repr(C)]
struct LinkAddr {
    family: u16,
    /// Big-endian.
    protocol: u16,
    index: i32,
    hardware_type: u16,
    packet_type: u8,
    address_len: u8,
    address: [u8; 8],
}

impl LinkAddr {
    fn new(index: u32) -> io::Result<LinkAddr> {
        Ok(LinkAddr {
            family: AddressFamily::PACKET.as_raw(),
            protocol: ETH_P_ALL.to_be(),
            index: i32::try_from(index).map_err(io::Error::other)?,
            hardware_type: 0,
            packet_type: 0,
            address_len: 0,
            address: [0; 8],
        })
    }
}

// SAFETY: the pointer is to a whole `LinkAddr`, which lives until `f` returns, has the layout of
// `struct sockaddr_ll` and no padding (2 + 2 + 4 + 2 + 1 + 1 + 8 = 20 bytes), and the length is its size.
// Neither socket2 nor rustix has a type for this address, so there is no way without.
unsafe impl SocketAddrArg for LinkAddr {
    unsafe fn with_sockaddr<R>(&self, f: impl FnOnce(*const SocketAddrOpaque, SocketAddrLen) -> R) -> R {
        f(std::ptr::from_ref(self).cast(), size_of::<LinkAddr>() as SocketAddrLen)
    }
}

/// A broadcast from 0.0.0.0 port 68 to port 67. Time to live 128, id 0 and no UDP checksum, as a Pi 3's
/// ROM sends it; the IP header of the others is not published.
fn frame(card: Mac, payload: &[u8]) -> io::Result<Vec<u8>> {
    let too_long = |_| io::Error::from(rustix::io::Errno::MSGSIZE);
    let total = u16::try_from(payload.len() + 28).map_err(too_long)?;
    let mut frame = Vec::with_capacity(payload.len() + ETHERNET + 28);
    frame.extend([0xff; 6]);
    frame.extend(card.0);
    frame.extend(ETH_P_IP);
    frame.extend([0x45, 0]);
    frame.extend(total.to_be_bytes());
    frame.extend([0, 0, 0, 0, 128, 17, 0, 0]);
    frame.extend(Ipv4Addr::UNSPECIFIED.octets());
    frame.extend(Ipv4Addr::BROADCAST.octets());
    let sum = header_checksum(&frame[ETHERNET..]);
    frame[ETHERNET + 10..ETHERNET + 12].copy_from_slice(&sum.to_be_bytes());
    frame.extend(PORTS.1.to_be_bytes());
    frame.extend(PORTS.0.to_be_bytes());
    frame.extend((total - 20).to_be_bytes());
    frame.extend([0, 0]);
    frame.extend(payload);
    Ok(frame)
}

/// RFC 1071 over an IP header.
fn header_checksum(header: &[u8]) -> u16 {
    let mut sum: u32 = 0;
    for two in header.chunks_exact(2) {
        sum += u32::from(u16::from_be_bytes([two[0], two[1]]));
    }
    sum = (sum & 0xffff) + (sum >> 16);
    sum = (sum & 0xffff) + (sum >> 16);
    !(sum as u16)
}

/// The UDP datagram to port 68 that a frame carries. Checksums are not looked at: of a frame that comes
/// from this machine's own stack they are not yet filled in. Fragments are none of DHCP's.
pub fn unframe(frame: &[u8]) -> Option<Datagram> {
    let card = Mac(*frame.get(6..)?.first_chunk::<6>()?);
    if frame.get(12..ETHERNET)? != ETH_P_IP {
        return None;
    }
    let packet = frame.get(ETHERNET..)?;
    let word = |at: usize| packet.get(at..)?.first_chunk::<2>().map(|two| u16::from_be_bytes(*two));
    let first = *packet.first()?;
    let header = usize::from(first & 15) * 4;
    let fragment = word(6)? & 0x3fff != 0;
    if first >> 4 != 4 || header < 20 || *packet.get(9)? != 17 || fragment || word(header + 2)? != PORTS.1 {
        return None;
    }
    let source = Ipv4Addr::from(*packet.get(12..)?.first_chunk::<4>()?);
    let len = usize::from(word(header + 4)?).checked_sub(8)?;
    // By the UDP length: frames are padded to 60 bytes and more.
    let payload = packet.get(header + 8..)?.get(..len)?.to_vec();
    Some(Datagram { payload, from: SocketAddrV4::new(source, word(header)?), card: Some(card) })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::pi::testing::vector;

    const CARD: Mac = Mac([0xdc, 0xa6, 0x32, 1, 2, 3]);

    #[test]
    fn a_discover_has_the_length_of_the_captures() {
        for (name, want) in [("discover-pi3b-rom", 362), ("discover-pi4", 364)] {
            let bytes = frame(CARD, &vector(name)).unwrap();
            assert_eq!(bytes.len(), want, "{name}");
            assert_eq!(header_checksum(&bytes[ETHERNET..ETHERNET + 20]), 0, "a right header sums to zero");
        }
        assert!(frame(CARD, &[0; 65_508]).is_err());
    }

    /// The same bytes as an answer: ports turned, so that it is for a client.
    fn answer(payload: &[u8]) -> Vec<u8> {
        let mut bytes = frame(CARD, payload).unwrap();
        bytes[ETHERNET + 20..ETHERNET + 24].copy_from_slice(&[0, 67, 0, 68]);
        bytes
    }

    #[test]
    fn answers_are_read_by_the_udp_length() {
        let mut bytes = answer(b"hello");
        bytes.extend([0; 20]);
        let got = unframe(&bytes).unwrap();
        assert_eq!((got.payload.as_slice(), got.from.port(), got.card), (&b"hello"[..], 67, Some(CARD)));
        bytes.truncate(ETHERNET + 28 + 4);
        assert_eq!(unframe(&bytes), None, "cut");
        for (at, value) in
            [(12, 0x86), (ETHERNET, 0x65), (ETHERNET, 0x44), (ETHERNET + 9, 6), (ETHERNET + 6, 0x20)]
        {
            let mut other = answer(b"hello");
            other[at] = value;
            assert_eq!(unframe(&other), None, "byte {at} is {value:#x}");
        }
        assert_eq!(unframe(&frame(CARD, b"hello").unwrap()), None, "a client's own packet");
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
            unframe(&bytes);
            let mut bytes = bytes;
            let good = answer(b"hello");
            for (to, from) in bytes.iter_mut().zip(&good).take(40) {
                *to = *from;
            }
            unframe(&bytes);
        }
    }
}
