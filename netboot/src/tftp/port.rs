//! The sockets that transfers share, and packets in batches from and to them.
//! Must not know: what the packets say, which transfers there are.
//! Spec: RFC 1350 section 4; recvmmsg(2), sendmmsg(2).
//!
//! A transfer is told apart by the client's address and port, so many can share a port of ours, and one
//! call then takes the acknowledgements of all and another sends all their blocks. Ten lock-step clients
//! on two quiet cores, blksize 1024: 274 MB/s with a socket and an epoll event for each, 342 MB/s this way.

use std::collections::HashMap;
use std::io::{self, IoSlice, IoSliceMut};
use std::net::{Ipv4Addr, SocketAddrV4, UdpSocket};
use std::ops::Range;
use std::os::fd::AsRawFd;

use nix::sys::socket::{ControlMessage, MsgFlags, MultiHeaders, SockaddrIn, recvmmsg, sendmmsg};

use super::table::Id;

/// Packets in one call.
pub const BATCH: usize = 16;
/// Clients send four bytes, or an ERROR's text; what is longer is cut, and still an ERROR.
const LONGEST: usize = 512;
/// Transfers whose end is remembered.
const ENDED: usize = 64;

/// One socket with the transfers that go through it.
#[derive(Debug)]
pub struct Port {
    socket: UdpSocket,
    /// The transfers by the client's end.
    pub by_client: HashMap<SocketAddrV4, Id>,
    /// Clients whose transfers here are over, the oldest to be forgotten next.
    ended: Vec<SocketAddrV4>,
    oldest: usize,
}

impl Port {
    /// A free port of this machine's address `local`. It is not connected: then the kernel would answer
    /// packets of other ports by itself, with an ICMP error where RFC 1350 has ERROR 5.
    ///
    /// # Errors
    /// Out of descriptors or ports, or the address has gone.
    pub fn open(local: Ipv4Addr) -> io::Result<Port> {
        let socket = UdpSocket::bind((local, 0))?;
        socket.set_nonblocking(true)?;
        // A thousand acknowledgements at once, each of which the kernel counts as 768 bytes.
        let _ = socket2::SockRef::from(&socket).set_recv_buffer_size(1 << 20);
        Ok(Port { socket, by_client: HashMap::new(), ended: Vec::new(), oldest: 0 })
    }

    /// To be waited on.
    pub fn socket(&self) -> &UdpSocket {
        &self.socket
    }

    /// Takes a transfer out, unless another one of the same client has its place by now.
    pub fn end(&mut self, client: SocketAddrV4, id: Id) {
        if self.by_client.get(&client) == Some(&id) {
            self.by_client.remove(&client);
        }
        if self.ended.len() < ENDED {
            return self.ended.push(client);
        }
        self.ended[self.oldest] = client;
        self.oldest = (self.oldest + 1) % ENDED;
    }

    /// True if `client` has just had a transfer here. What still comes of it is no stranger's.
    pub fn knew(&self, client: SocketAddrV4) -> bool {
        self.ended.contains(&client)
    }
}

/// Packets that came in one call.
#[derive(Debug)]
pub struct Incoming {
    headers: MultiHeaders<SockaddrIn>,
    bytes: Box<[u8]>,
    packets: Vec<(SocketAddrV4, usize)>,
}

impl Incoming {
    /// Room for one batch.
    pub fn new() -> Incoming {
        Incoming {
            headers: MultiHeaders::preallocate(BATCH, None),
            bytes: vec![0; BATCH * LONGEST].into(),
            packets: Vec::with_capacity(BATCH),
        }
    }

    /// Takes what has come, [`BATCH`] packets at most; gives their number.
    pub fn receive(&mut self, port: &Port) -> usize {
        self.packets.clear();
        let mut slices = self.bytes.chunks_exact_mut(LONGEST).map(|chunk| [IoSliceMut::new(chunk)]);
        let mut slices: [[IoSliceMut<'_>; 1]; BATCH] =
            std::array::from_fn(|_| slices.next().unwrap_or_else(|| [IoSliceMut::new(&mut [])]));
        let fd = port.socket.as_raw_fd();
        // An error is an empty queue, or an ICMP error about an earlier packet; the timer takes care of a
        // client that is gone.
        if let Ok(found) = recvmmsg(fd, &mut self.headers, slices.iter_mut(), MsgFlags::MSG_DONTWAIT, None) {
            let from = |address: &SockaddrIn| SocketAddrV4::new(address.ip(), address.port());
            let unknown = SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, 0);
            self.packets.extend(found.map(|m| (m.address.as_ref().map_or(unknown, from), m.bytes)));
        }
        self.packets.len()
    }

    /// The packets of the last call, with who sent each.
    pub fn packets(&self) -> impl Iterator<Item = (SocketAddrV4, &[u8])> {
        let chunks = self.bytes.chunks_exact(LONGEST);
        self.packets.iter().zip(chunks).map(|((from, len), chunk)| (*from, &chunk[..(*len).min(LONGEST)]))
    }
}

/// Packets that are to be sent from one port.
#[derive(Debug)]
pub struct Outgoing {
    headers: MultiHeaders<SockaddrIn>,
    bytes: Vec<u8>,
    packets: Vec<(SocketAddrV4, Range<usize>)>,
}

impl Outgoing {
    /// Nothing to send.
    pub fn new() -> Outgoing {
        let headers = MultiHeaders::preallocate(BATCH, None);
        Outgoing { headers, bytes: Vec::new(), packets: Vec::with_capacity(BATCH) }
    }

    /// Adds a packet; a whole batch is sent at once, the rest by [`Outgoing::send`].
    pub fn push(&mut self, port: &Port, to: SocketAddrV4, parts: [&[u8]; 2]) {
        let start = self.bytes.len();
        parts.iter().for_each(|part| self.bytes.extend_from_slice(part));
        self.packets.push((to, start..self.bytes.len()));
        if self.packets.len() == BATCH {
            self.send(port);
        }
    }

    /// Sends, or leaves it: a packet that the kernel does not take is a lost one, and the timer knows how
    /// to deal with those.
    pub fn send(&mut self, port: &Port) {
        let mut sent = 0;
        while sent < self.packets.len() {
            let packets = &self.packets[sent..];
            let packet = |n| packets.get(n).map(|(to, range): &(_, Range<usize>)| (*to, range.clone()));
            let slices: [[IoSlice<'_>; 1]; BATCH] = std::array::from_fn(|n| {
                [IoSlice::new(packet(n).map_or(&[], |(_, range)| &self.bytes[range]))]
            });
            let addresses: [_; BATCH] = std::array::from_fn(|n| packet(n).map(|(to, _)| to.into()));
            let none: [ControlMessage<'_>; 0] = [];
            let (fd, flags) = (port.socket.as_raw_fd(), MsgFlags::MSG_DONTWAIT);
            let slices = slices[..packets.len()].iter();
            let done = sendmmsg(fd, &mut self.headers, slices, addresses, none, flags)
                .map_or(0, |done| done.count());
            // The kernel stops at the packet that it does not take, and says so only if it is the first.
            sent += done.max(1);
        }
        self.packets.clear();
        self.bytes.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn end(socket: &UdpSocket) -> SocketAddrV4 {
        match socket.local_addr().unwrap() {
            std::net::SocketAddr::V4(address) => address,
            other => panic!("{other}"),
        }
    }

    #[test]
    fn batches_go_out_and_come_in_whole_and_in_order() {
        let (one, other) =
            (Port::open(Ipv4Addr::LOCALHOST).unwrap(), Port::open(Ipv4Addr::LOCALHOST).unwrap());
        let to = end(other.socket());
        let mut out = Outgoing::new();
        for n in 0..BATCH as u8 + 3 {
            out.push(&one, to, [&[n], &vec![n; usize::from(n) * 20]]);
        }
        out.send(&one);
        let mut incoming = Incoming::new();
        assert_eq!(incoming.receive(&other), BATCH);
        for (n, (from, packet)) in incoming.packets().enumerate() {
            assert_eq!(from, end(one.socket()));
            assert_eq!((packet.len(), packet[0]), ((1 + n * 20).min(LONGEST), n as u8));
        }
        assert_eq!((incoming.receive(&other), incoming.receive(&other)), (3, 0));
        assert_eq!(incoming.packets().count(), 0);
    }

    #[test]
    fn a_packet_that_cannot_be_sent_takes_none_along() {
        let (one, other) =
            (Port::open(Ipv4Addr::LOCALHOST).unwrap(), Port::open(Ipv4Addr::LOCALHOST).unwrap());
        let to = end(other.socket());
        let mut out = Outgoing::new();
        for (n, to) in [to, SocketAddrV4::new(Ipv4Addr::LOCALHOST, 0), to].into_iter().enumerate() {
            out.push(&one, to, [&[n as u8], &[]]);
        }
        out.send(&one);
        let mut incoming = Incoming::new();
        assert_eq!(incoming.receive(&other), 2);
        assert_eq!(incoming.packets().map(|(_, packet)| packet[0]).collect::<Vec<_>>(), [0, 2]);
    }

    #[test]
    fn ends_are_remembered_for_a_while() {
        let mut port = Port::open(Ipv4Addr::LOCALHOST).unwrap();
        let client = |n| SocketAddrV4::new(Ipv4Addr::LOCALHOST, n);
        port.by_client.insert(client(1), 7);
        port.end(client(1), 6);
        assert_eq!(port.by_client.get(&client(1)), Some(&7), "6 had no place any more");
        assert!(port.knew(client(1)) && !port.knew(client(2)));
        (2..66).for_each(|n| port.end(client(n), 0));
        assert!(!port.knew(client(1)) && port.knew(client(2)) && port.knew(client(65)));
    }
}
