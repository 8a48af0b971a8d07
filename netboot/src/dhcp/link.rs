//! Below IP: frames to a card that has no address yet, ARP to learn who holds one, and the interface
//! they go through.
//! Must not know: DHCP's rules, nodes.
//! Spec: packet(7), RFC 791 and 768 (headers and checksums), RFC 826 and 5227 (ARP probes),
//! rtnetlink(7).
//!
//! Packet sockets need CAP_NET_RAW when they are opened and never again, so they outlive the drop of
//! privileges. A neighbour entry in place of a frame would need CAP_NET_ADMIN for each client.

use std::io;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::fd::OwnedFd;
use std::task::{Context, Poll};

use rustix::net::addr::{SocketAddrArg, SocketAddrLen, SocketAddrOpaque};
use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType};
use tokio::io::ReadBuf;

use crate::site::Mac;

const ETH_P_IP: u16 = 0x0800;
const ETH_P_ARP: u16 = 0x0806;
/// Ethernet, IPv4, address lengths 6 and 4: how every ARP packet of an IPv4 network begins.
const ARP_HEAD: [u8; 6] = [0, 1, 8, 0, 6, 4];

/// One network interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Interface {
    /// Its name, such as `eth0`.
    pub name: String,
    /// Its index in this network namespace.
    pub index: u32,
    /// Its card, if it is Ethernet.
    pub mac: Option<Mac>,
}

impl Interface {
    /// Looks an interface up in this network namespace. It asks the kernel, not /sys, which may show
    /// another namespace's.
    ///
    /// # Errors
    /// `ENODEV` if there is none of this name, and what the kernel says otherwise.
    pub fn named(name: &str) -> io::Result<Interface> {
        let any = rustix::net::socket(AddressFamily::INET, SocketType::DGRAM, None)?;
        let index = rustix::net::netdevice::name_to_index(&any, name)?;
        let answer = ask_about(index)?;
        Ok(Interface { name: name.to_owned(), index, mac: card_in(&answer) })
    }
}

/// RTM_GETLINK for one interface; the answer is one RTM_NEWLINK.
fn ask_about(index: u32) -> io::Result<Vec<u8>> {
    const RTM_GETLINK: u16 = 18;
    const NLM_F_REQUEST: u16 = 1;
    let mut ask = Vec::with_capacity(32);
    ask.extend(32u32.to_ne_bytes());
    ask.extend(RTM_GETLINK.to_ne_bytes());
    ask.extend(NLM_F_REQUEST.to_ne_bytes());
    ask.extend([0; 8]); // sequence, port
    ask.extend([0; 4]); // family, pad, type
    ask.extend(index.to_ne_bytes());
    ask.extend([0; 8]); // flags, change
    let socket =
        rustix::net::socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, None)?;
    rustix::net::sendto(&socket, &ask, SendFlags::empty(), &SocketAddrNetlink::new(0, 0))?;
    let mut answer = vec![0; 16 << 10];
    let (len, _) = rustix::net::recv(&socket, &mut answer[..], RecvFlags::empty())?;
    answer.truncate(len);
    Ok(answer)
}

/// The Ethernet address in an RTM_NEWLINK: 16 bytes nlmsghdr, 16 bytes ifinfomsg, then attributes of
/// length, type and value, each padded to four bytes.
fn card_in(answer: &[u8]) -> Option<Mac> {
    const RTM_NEWLINK: u16 = 16;
    const ARPHRD_ETHER: u16 = 1;
    const IFLA_ADDRESS: u16 = 1;
    let u16_at =
        |bytes: &[u8], at: usize| bytes.get(at..)?.first_chunk::<2>().map(|two| u16::from_ne_bytes(*two));
    if u16_at(answer, 4)? != RTM_NEWLINK || u16_at(answer, 18)? != ARPHRD_ETHER {
        return None;
    }
    let mut rest = answer.get(32..)?;
    loop {
        let len = usize::from(u16_at(rest, 0)?);
        let value = rest.get(4..len)?; // `None` for a length under 4, so the walk goes on and ends.
        if u16_at(rest, 2)? == IFLA_ADDRESS {
            return value.try_into().ok().map(Mac);
        }
        rest = rest.get(len.next_multiple_of(4)..)?;
    }
}

/// `struct sockaddr_ll` of packet(7).
#[repr(C)]
#[derive(Clone, Copy)]
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
    fn new(protocol: u16, index: u32, Mac([a, b, c, d, e, f]): Mac) -> io::Result<LinkAddr> {
        Ok(LinkAddr {
            family: AddressFamily::PACKET.as_raw(),
            protocol: protocol.to_be(),
            index: i32::try_from(index).map_err(io::Error::other)?,
            hardware_type: 0,
            packet_type: 0,
            address_len: 6,
            address: [a, b, c, d, e, f, 0, 0],
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

/// Sends UDP datagrams to a card, whatever address it has.
#[derive(Debug)]
pub struct Link {
    socket: OwnedFd,
    index: u32,
}

impl Link {
    /// Opens a packet socket that only sends.
    ///
    /// # Errors
    /// `EPERM` without CAP_NET_RAW.
    pub fn open(interface: &Interface) -> io::Result<Link> {
        // Protocol 0: it receives nothing.
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = rustix::net::socket_with(AddressFamily::PACKET, SocketType::DGRAM, flags, None)?;
        Ok(Link { socket, index: interface.index })
    }

    /// Sends one datagram; the kernel writes the Ethernet header.
    ///
    /// # Errors
    /// What the kernel says: `ENETDOWN`, `ENOBUFS`, `EMSGSIZE`.
    pub fn send(&self, from: SocketAddrV4, to: SocketAddrV4, card: Mac, payload: &[u8]) -> io::Result<()> {
        let packet = udp_packet(from, to, payload)?;
        let address = LinkAddr::new(ETH_P_IP, self.index, card)?;
        rustix::net::sendto(&self.socket, &packet, SendFlags::empty(), &address)?;
        Ok(())
    }
}

/// An IPv4 packet with one UDP datagram, both checksums right.
fn udp_packet(from: SocketAddrV4, to: SocketAddrV4, payload: &[u8]) -> io::Result<Vec<u8>> {
    let too_long = |_| io::Error::from(rustix::io::Errno::MSGSIZE);
    let total = u16::try_from(payload.len() + 28).map_err(too_long)?;
    let udp_len = total - 20;
    let mut packet = Vec::with_capacity(usize::from(total));
    packet.extend([0x45, 0x10]); // version 4, five words; low delay, as every DHCP server sends
    packet.extend(total.to_be_bytes());
    packet.extend([0, 0, 0x40, 0]); // id 0, don't fragment
    packet.extend([64, 17, 0, 0]); // time to live, UDP, checksum
    packet.extend(from.ip().octets());
    packet.extend(to.ip().octets());
    let sum = checksum(&[&packet]);
    packet[10..12].copy_from_slice(&sum.to_be_bytes());

    packet.extend(from.port().to_be_bytes());
    packet.extend(to.port().to_be_bytes());
    packet.extend(udp_len.to_be_bytes());
    packet.extend([0, 0]);
    packet.extend(payload);
    let [high, low] = udp_len.to_be_bytes();
    let sum = match checksum(&[&packet[12..20], &[0, 17, high, low], &packet[20..]]) {
        0 => 0xffff, // RFC 768: a zero would say that there is none.
        sum => sum,
    };
    packet[26..28].copy_from_slice(&sum.to_be_bytes());
    Ok(packet)
}

/// RFC 1071 over parts that, all but the last, have an even length.
fn checksum(parts: &[&[u8]]) -> u16 {
    let words = parts.iter().flat_map(|part| part.chunks(2)).map(|two| match *two {
        [high, low] => u16::from_be_bytes([high, low]),
        [high] => u16::from_be_bytes([high, 0]),
        _ => 0,
    });
    // 65,535 bytes of 0xffff are 2^31: no overflow.
    let sum: u32 = words.map(u32::from).sum();
    let sum = (sum & 0xffff) + (sum >> 16);
    let sum = (sum & 0xffff) + (sum >> 16);
    !(sum as u16)
}

/// Asks the segment who holds an address, and hears who says so.
pub trait Probe: Send {
    /// Asks once.
    ///
    /// # Errors
    /// What the kernel says; the address then counts as unchecked for this once.
    fn ask(&mut self, address: Ipv4Addr) -> io::Result<()>;
    /// The next claim that is heard, asked for or not: an address and the card that has it.
    fn poll_heard(&mut self, cx: &mut Context<'_>) -> Poll<(Ipv4Addr, Mac)>;
}

/// A packet socket for ARP, opened while there was the right to.
#[derive(Debug)]
pub struct Arp {
    socket: OwnedFd,
    index: u32,
    card: Mac,
}

/// Probes by ARP.
#[derive(Debug)]
struct ArpProbe {
    /// A packet socket in the one type of tokio's that takes a datagram socket without `unsafe`. It is
    /// only waited for and read; its address family never comes up.
    socket: tokio::net::UdpSocket,
    index: u32,
    card: Mac,
}

impl Arp {
    /// Opens a packet socket for ARP on an Ethernet interface.
    ///
    /// # Errors
    /// `EPERM` without CAP_NET_RAW; `Unsupported` if the interface is no Ethernet.
    pub fn open(interface: &Interface) -> io::Result<Arp> {
        let card = interface.mac.ok_or(io::ErrorKind::Unsupported)?;
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let open =
            |protocol| rustix::net::socket_with(AddressFamily::PACKET, SocketType::DGRAM, flags, protocol);
        // Opened for nothing and bound to ARP on this one interface: it never hears another.
        let socket = open(None)?;
        rustix::net::bind(&socket, &LinkAddr::new(ETH_P_ARP, interface.index, Mac([0; 6]))?)?;
        Ok(Arp { socket, index: interface.index, card })
    }

    /// Puts the socket to use. Call it within a tokio runtime.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn probe(self) -> io::Result<impl Probe + use<>> {
        let socket = tokio::net::UdpSocket::from_std(self.socket.into())?;
        Ok(ArpProbe { socket, index: self.index, card: self.card })
    }
}

impl Probe for ArpProbe {
    fn ask(&mut self, address: Ipv4Addr) -> io::Result<()> {
        let packet = arp_probe(self.card, address);
        let everyone = LinkAddr::new(ETH_P_ARP, self.index, Mac([0xff; 6]))?;
        rustix::net::sendto(&self.socket, &packet, SendFlags::empty(), &everyone)?;
        Ok(())
    }

    fn poll_heard(&mut self, cx: &mut Context<'_>) -> Poll<(Ipv4Addr, Mac)> {
        let mut packet = [0; 64];
        loop {
            let mut packet = ReadBuf::new(&mut packet);
            match std::task::ready!(self.socket.poll_recv(cx, &mut packet)) {
                Ok(()) => {
                    if let Some(claim) = arp_claim(packet.filled()) {
                        return Poll::Ready(claim);
                    }
                }
                // ENETDOWN, once for each time the interface goes down. Others have their turn first, in
                // case it is told for ever.
                Err(_) => {
                    cx.waker().wake_by_ref();
                    return Poll::Pending;
                }
            }
        }
    }
}

/// RFC 5227 section 2.1.1: the sender's address is zero, so that no cache is touched by the question.
fn arp_probe(card: Mac, address: Ipv4Addr) -> Vec<u8> {
    let none = [0; 4];
    [&ARP_HEAD[..], &[0, 1], &card.0, &none, &[0; 6], &address.octets()].concat()
}

/// Who says that they have which address. Requests say it too: they name their sender.
fn arp_claim(packet: &[u8]) -> Option<(Ipv4Addr, Mac)> {
    let packet = packet.strip_prefix(&ARP_HEAD)?;
    let card = *packet.get(2..)?.first_chunk::<6>()?;
    let address = Ipv4Addr::from(*packet.get(8..)?.first_chunk::<4>()?);
    (!address.is_unspecified()).then_some((address, Mac(card)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_packet_is_what_another_stack_writes() {
        // As tcpdump shows it: `IP (tos 0x10, ttl 64, id 0, offset 0, flags [DF], proto UDP (17), length
        // 33) 10.4.0.10.67 > 10.4.0.21.68: [udp sum ok]`.
        let from = "10.4.0.10:67".parse().unwrap();
        let packet = udp_packet(from, "10.4.0.21:68".parse().unwrap(), b"hello").unwrap();
        assert_eq!(&packet[..4], [0x45, 0x10, 0, 33]);
        assert_eq!(&packet[28..], b"hello");
        // The sum over a header with its own sum in place is zero.
        assert_eq!(checksum(&[&packet[..20]]), 0);
        assert_eq!(checksum(&[&packet[12..20], &[0, 17, 0, 13], &packet[20..]]), 0);
    }

    #[test]
    fn checksum_of_the_rfc() {
        // RFC 1071 section 3: the sum is ddf2 before it is inverted.
        assert_eq!(checksum(&[&[0x00, 0x01, 0xf2, 0x03], &[0xf4, 0xf5, 0xf6, 0xf7]]), !0xddf2);
        assert_eq!(checksum(&[&[0xff]]), 0x00ff);
    }

    #[test]
    fn a_datagram_longer_than_ip_is_refused() {
        let any = SocketAddrV4::new(Ipv4Addr::LOCALHOST, 1);
        assert!(udp_packet(any, any, &[0; 65_507]).is_ok());
        assert!(udp_packet(any, any, &[0; 65_508]).is_err());
    }

    #[test]
    fn arp_packets() {
        let card = Mac([2, 0, 0, 0, 0, 1]);
        let probe = arp_probe(card, Ipv4Addr::new(10, 4, 0, 21));
        assert_eq!(probe.len(), 28);
        assert_eq!(arp_claim(&probe), None, "a probe claims nothing");
        let mut reply = probe;
        reply[14..18].copy_from_slice(&[10, 4, 0, 21]);
        assert_eq!(arp_claim(&reply), Some((Ipv4Addr::new(10, 4, 0, 21), card)));
        for len in 0..18 {
            assert_eq!(arp_claim(&reply[..len]), None, "cut to {len}");
        }
        reply[1] = 6;
        assert_eq!(arp_claim(&reply), None, "no Ethernet");
    }

    #[test]
    fn the_loopback_interface_has_no_card() {
        let lo = Interface::named("lo").unwrap();
        assert_eq!((lo.name.as_str(), lo.mac), ("lo", None));
        assert!(lo.index > 0);
        assert!(Interface::named("no-such-thing").is_err());
    }

    #[test]
    fn the_card_is_found_among_the_attributes() {
        let mut answer = vec![0; 32];
        answer[4..6].copy_from_slice(&16u16.to_ne_bytes());
        answer[18..20].copy_from_slice(&1u16.to_ne_bytes());
        answer.extend(7u16.to_ne_bytes());
        answer.extend(3u16.to_ne_bytes());
        answer.extend(b"lo\0\0");
        answer.extend(10u16.to_ne_bytes());
        answer.extend(1u16.to_ne_bytes());
        answer.extend([0xdc, 0xa6, 0x32, 1, 2, 3, 0, 0]);
        assert_eq!(card_in(&answer), Some(Mac([0xdc, 0xa6, 0x32, 1, 2, 3])));
        for len in 0..answer.len() - 2 {
            assert_eq!(card_in(&answer[..len]), None, "cut to {len}");
        }
        answer[32..34].copy_from_slice(&0u16.to_ne_bytes());
        assert_eq!(card_in(&answer), None, "an attribute of no length");
    }
}
