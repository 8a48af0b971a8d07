//! What the tests of this module share: the vectors of `tests/fixtures/pi-netboot-vectors.txt`, and a
//! small TFTP server that can misbehave.
//! Must not know: the servers of this crate.
//! Spec: RFC 1350, 2347 to 2349, and each [`Fault`]'s own breach.

use std::collections::BTreeMap;
use std::net::{SocketAddr, SocketAddrV4, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

/// The bytes of one vector; the file says where each comes from.
pub fn vector(name: &str) -> Vec<u8> {
    let text = include_str!("../../tests/fixtures/pi-netboot-vectors.txt");
    let line = text.lines().find(|line| line.split(' ').next() == Some(name));
    let mut words = line.unwrap_or_else(|| panic!("no vector {name}")).split(' ').skip(1);
    let len: usize = words.next().unwrap().parse().unwrap();
    let hex = words.next().unwrap().as_bytes();
    let byte = |two: &[u8]| u8::from_str_radix(std::str::from_utf8(two).unwrap(), 16).unwrap();
    let bytes: Vec<u8> = hex.chunks(2).map(byte).collect();
    assert_eq!(bytes.len(), len, "{name}");
    bytes
}

/// What the server does wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    None,
    IgnoreFirstRequest,
    NoOack,
    WrongSize,
    LargerBlocks,
    DoubleData,
    StopAfterOne,
}

#[derive(Debug)]
struct Shared {
    files: BTreeMap<String, Vec<u8>>,
    fault: Fault,
    stop: AtomicBool,
    aborted: AtomicU32,
    requests: Mutex<Vec<(String, u16)>>,
}

/// A server on loopback that serves one client at a time, until it is dropped.
#[derive(Debug)]
pub struct Server {
    address: SocketAddrV4,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    pub fn start(files: impl IntoIterator<Item = (String, Vec<u8>)>, fault: Fault) -> Server {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
        let SocketAddr::V4(address) = socket.local_addr().unwrap() else { unreachable!() };
        let shared = Arc::new(Shared {
            files: files.into_iter().collect(),
            fault,
            stop: false.into(),
            aborted: 0.into(),
            requests: Mutex::default(),
        });
        let state = Arc::clone(&shared);
        let thread = std::thread::spawn(move || {
            let mut buffer = [0; 2048];
            while !state.stop.load(Ordering::Relaxed) {
                if let Ok((len, from)) = socket.recv_from(&mut buffer) {
                    state.answer(&socket, &buffer[..len], from);
                }
            }
        });
        Server { address, shared, thread: Some(thread) }
    }

    pub fn address(&self) -> SocketAddrV4 {
        self.address
    }

    /// Transfers that the client ended, as far as the server has read: up to its last request.
    pub fn aborted(&self) -> u32 {
        self.shared.aborted.load(Ordering::Relaxed)
    }

    /// The names that were asked for, with the port that asked.
    pub fn requests(&self) -> Vec<(String, u16)> {
        self.shared.requests.lock().unwrap().clone()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        self.thread.take().unwrap().join().unwrap();
    }
}

impl Shared {
    fn answer(&self, listen: &UdpSocket, packet: &[u8], from: SocketAddr) {
        let Some(rest) = packet.strip_prefix(b"\0\x01") else { return };
        let words: Vec<&str> =
            rest.split(|byte| *byte == 0).map(|word| std::str::from_utf8(word).unwrap()).collect();
        let first = {
            let mut requests = self.requests.lock().unwrap();
            requests.push((words[0].to_owned(), from.port()));
            requests.len() == 1
        };
        if self.fault == Fault::IgnoreFirstRequest && first {
            return;
        }
        let Some(content) = self.files.get(words[0]) else {
            listen.send_to(b"\0\x05\0\x01File not found\0", from).unwrap();
            return;
        };
        let option = |name: &str| words.iter().position(|word| *word == name).map(|at| words[at + 1]);
        let blksize = option("blksize").filter(|_| self.fault != Fault::NoOack);
        let mut oack = vec![0, 6];
        if option("tsize").is_some() && self.fault != Fault::NoOack {
            let size = content.len() + usize::from(self.fault == Fault::WrongSize);
            oack.extend(format!("tsize\0{size}\0").bytes());
        }
        if let Some(blksize) = blksize {
            let larger = if self.fault == Fault::LargerBlocks { "9" } else { "" };
            oack.extend(format!("blksize\0{blksize}{larger}\0").bytes());
        }
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
        if oack.len() > 2 && !self.deliver(&socket, from, &oack, 0) {
            return;
        }
        let blksize = blksize.map_or(512, |text| text.parse().unwrap());
        for number in 0..=content.len() / blksize {
            if self.fault == Fault::StopAfterOne && number > 0 {
                return;
            }
            let block = (number + 1) as u16;
            let mut data = vec![0, 3];
            data.extend(block.to_be_bytes());
            data.extend(content[number * blksize..].iter().take(blksize));
            if self.fault == Fault::DoubleData {
                socket.send_to(&data, from).unwrap();
            }
            if !self.deliver(&socket, from, &data, block) {
                return;
            }
        }
    }

    /// Sends until the block is acknowledged.
    fn deliver(&self, socket: &UdpSocket, to: SocketAddr, packet: &[u8], block: u16) -> bool {
        let mut buffer = [0; 512];
        for _ in 0..5 {
            socket.send_to(packet, to).unwrap();
            while let Ok(len) = socket.recv(&mut buffer) {
                match buffer[..len] {
                    [0, 4, high, low] if u16::from_be_bytes([high, low]) == block => return true,
                    [0, 5, ..] => {
                        self.aborted.fetch_add(1, Ordering::Relaxed);
                        return false;
                    }
                    _ => {}
                }
            }
        }
        false
    }
}

/// A DHCP server on loopback that gives one board an address and names `tftp` as its server.
#[derive(Debug)]
pub struct DhcpServer {
    address: SocketAddrV4,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl DhcpServer {
    pub fn address(&self) -> SocketAddrV4 {
        self.address
    }
}

impl Drop for DhcpServer {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.take().unwrap().join().unwrap();
    }
}

/// Answers by the vectors `offer-full-pi4` and `ack-full-pi4`, with the board's own transaction and card,
/// after `delay`.
pub fn dhcp_server(board: &super::Board, tftp: std::net::Ipv4Addr, delay: Duration) -> DhcpServer {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
    let SocketAddr::V4(address) = socket.local_addr().unwrap() else { unreachable!() };
    let stop = Arc::new(AtomicBool::new(false));
    let (state, mac) = (Arc::clone(&stop), board.mac);
    let thread = std::thread::spawn(move || {
        let mut buffer = [0; 2048];
        while !state.load(Ordering::Relaxed) {
            let Ok((_, from)) = socket.recv_from(&mut buffer) else { continue };
            let mut reply = vector(if buffer[242] == 1 { "offer-full-pi4" } else { "ack-full-pi4" });
            reply[4..8].copy_from_slice(&buffer[4..8]);
            reply[28..34].copy_from_slice(&mac.0);
            // Option 66 has nine bytes in the vectors, as `127.0.0.1` has.
            let text = tftp.to_string();
            let at = reply.windows(11).position(|part| part.starts_with(&[66, 9])).unwrap();
            reply[at + 2..at + 11].copy_from_slice(text.as_bytes());
            std::thread::park_timeout(delay);
            socket.send_to(&reply, from).unwrap();
        }
    });
    DhcpServer { address, stop, thread: Some(thread) }
}
