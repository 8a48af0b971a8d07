//! The firmware's TFTP client: lock-step, one packet in flight, no window, with its ports, its probes
//! and its faults.
//! Must not know: which files a boot needs, nodes, our server.
//! Spec: RFC 1350, 2347, 2348, 2349; where the firmware departs from them, its issue is named.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, UdpSocket};
use std::time::{Duration, Instant};

use super::wire::is_timeout;
use super::{Model, Pace};

/// An unanswered request is sent again after this, from the same port.
const REQUEST_RESEND: Duration = Duration::from_secs(2);
/// So often in all.
const REQUEST_TRIES: u32 = 15;
/// `TFTP_FILE_TIMEOUT`: one whole file.
const FILE_TIMEOUT: Duration = Duration::from_secs(30);
/// No file is longer: 65,536 blocks of 1468 bytes, rounded up. A server that says more is not believed.
const LONGEST: usize = 96 << 20;
/// Code 0 and the text with which the firmware ends its probes.
const EARLY_TERMINATE: &[u8] = b"\0\x05\0\0Early terminate\0";
/// A minimal Ethernet frame holds 46 bytes of IP: a Pi 5 fills its ACKs up with zeros inside the IP
/// packet (firmware#1898).
const PADDED_PACKET: usize = 46;

/// What a duplicate of the last DATA does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnDuplicate {
    /// It is acknowledged again: EEPROM since 2021-02-16.
    AckAgain,
    /// `start4.elf` acknowledged the block after it and hung (firmware#1631): so does this client, and
    /// the transfer ends as [`Answer::Hung`].
    Hang,
}

/// How one stage of the firmware asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Style {
    /// The `blksize` that is asked for; `None` asks for none and takes 512.
    pub blksize: Option<u16>,
    /// True asks for `tsize`.
    pub tsize: bool,
    /// What a duplicate does.
    pub on_duplicate: OnDuplicate,
    /// True if block 65535 is followed by 0: EEPROM since 2025-09-23.
    pub wraps: bool,
    /// True ends a first transfer of each file after its size is known (rpi-eeprom#74).
    pub probes: bool,
    /// True fills ACKs with zeros past the UDP length. It needs CAP_NET_RAW; without, they are plain.
    pub pads_acks: bool,
}

impl Style {
    /// A Pi 3's boot ROM: no options at all.
    pub const ROM: Style = Style {
        blksize: None,
        tsize: false,
        on_duplicate: OnDuplicate::AckAgain,
        wraps: false,
        probes: false,
        pads_acks: false,
    };
    /// A Pi 3's `bootcode.bin` and `start.elf`: `tsize` and blocks of 512.
    pub const PI3: Style = Style { tsize: true, probes: true, ..Style::ROM };
    /// `start4.elf` as it is in captures.
    pub const START4: Style = Style { blksize: Some(1024), on_duplicate: OnDuplicate::Hang, ..Style::PI3 };

    /// The first stage that has all options.
    pub fn bootloader(model: Model) -> Style {
        match model {
            Model::Pi3b | Model::Pi3bPlus => Style::PI3,
            Model::Pi4Old => Style { blksize: Some(1024), ..Style::PI3 },
            Model::Pi4 => Style { blksize: Some(1468), wraps: true, ..Style::PI3 },
            Model::Pi5 => Style { blksize: Some(1468), wraps: true, pads_acks: true, ..Style::PI3 },
        }
    }
}

/// The request for a file, as the firmware writes it.
pub fn request(name: &str, style: &Style) -> Vec<u8> {
    let mut packet = vec![0, 1];
    packet.extend(name.as_bytes());
    packet.extend(b"\0octet\0");
    if style.tsize {
        packet.extend(b"tsize\x000\0");
    }
    if let Some(blksize) = style.blksize {
        packet.extend(b"blksize\0");
        packet.extend(blksize.to_string().as_bytes());
        packet.push(0);
    }
    packet
}

/// How a transfer ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// The whole file.
    Content(Vec<u8>),
    /// The probe was answered: there is such a file, of this size if the server said so.
    There(Option<u64>),
    /// The server said ERROR: 1 is "not found".
    Refused {
        /// RFC 1350's error code.
        code: u16,
        /// The server's text.
        text: String,
    },
    /// No answer to any of the requests.
    Silent,
    /// It began, and was not whole in time.
    TimedOut {
        /// Bytes that came.
        bytes: usize,
    },
    /// A duplicate of this block hung the firmware.
    Hung {
        /// The block, as on the wire.
        block: u16,
    },
    /// The server broke the protocol: what it did.
    Broken(&'static str),
}

/// One transfer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transfer {
    /// How it ended.
    pub answer: Answer,
    /// True if an OACK came, which all but the ROM need: without it a Pi 4 drops a whole `config.txt`
    /// (firmware#1012).
    pub oack: bool,
    /// From the first request to the end.
    pub took: Duration,
    /// From the first request to the first answer.
    pub first_answer: Option<Duration>,
    /// Requests that were sent.
    pub requests: u32,
    /// Packets that came twice.
    pub duplicates: u32,
    /// Our port.
    pub port: u16,
}

/// A client with its ports.
#[derive(Debug)]
pub struct Client {
    local: Ipv4Addr,
    server: SocketAddrV4,
    pace: Pace,
    next_port: u16,
    /// How it asks; the caller changes it with the stage.
    pub style: Style,
    raw: Option<socket2::Socket>,
}

impl Client {
    /// A client that asks from `local`, from port `first_port` on.
    pub fn new(local: Ipv4Addr, server: SocketAddrV4, pace: Pace, first_port: u16) -> Client {
        use socket2::{Domain, Protocol, Socket, Type};
        // IPPROTO_RAW: it takes whole IP packets and receives nothing. Without the privilege ACKs are plain.
        let raw = Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::from(255))).ok();
        Client { local, server, pace, next_port: first_port.max(1024), style: Style::PI3, raw }
    }

    /// Asks for a file and ends the transfer after the first answer.
    ///
    /// # Errors
    /// What the kernel says of our own socket.
    pub fn probe(&mut self, name: &str) -> io::Result<Transfer> {
        self.transfer(name, true)
    }

    /// Fetches a whole file.
    ///
    /// # Errors
    /// What the kernel says of our own socket.
    pub fn fetch(&mut self, name: &str) -> io::Result<Transfer> {
        self.transfer(name, false)
    }

    fn transfer(&mut self, name: &str, probe: bool) -> io::Result<Transfer> {
        let (socket, port) = self.next_socket()?;
        let mut talk = Talk::new(self, socket, port);
        let answer = talk.run(&request(name, &self.style), probe)?;
        Ok(Transfer { answer, took: talk.started.elapsed(), ..talk.seen })
    }

    /// Each transfer has the next port; one that another program holds is left out.
    fn next_socket(&mut self) -> io::Result<(UdpSocket, u16)> {
        loop {
            let port = self.next_port;
            self.next_port = port.checked_add(1).unwrap_or(49_152);
            match UdpSocket::bind((self.local, port)) {
                Ok(socket) => return Ok((socket, port)),
                Err(e) if e.kind() == io::ErrorKind::AddrInUse => {}
                Err(e) => return Err(e),
            }
        }
    }
}

/// One transfer in progress.
struct Talk<'a> {
    client: &'a Client,
    socket: UdpSocket,
    started: Instant,
    /// Who answered first; nobody else is heard after that (RFC 1350 section 4).
    peer: Option<SocketAddr>,
    /// The last block that was taken in.
    block: u16,
    blksize: usize,
    tsize: Option<u64>,
    content: Vec<u8>,
    seen: Transfer,
}

impl<'a> Talk<'a> {
    fn new(client: &'a Client, socket: UdpSocket, port: u16) -> Talk<'a> {
        let seen = Transfer {
            answer: Answer::Silent,
            oack: false,
            took: Duration::ZERO,
            first_answer: None,
            requests: 0,
            duplicates: 0,
            port,
        };
        Talk {
            client,
            socket,
            started: Instant::now(),
            peer: None,
            block: 0,
            blksize: 512,
            tsize: None,
            content: vec![],
            seen,
        }
    }

    fn run(&mut self, request: &[u8], probe: bool) -> io::Result<Answer> {
        let Some(first) = self.ask(request)? else { return Ok(Answer::Silent) };
        self.seen.first_answer = Some(self.started.elapsed());
        if probe && matches!(first.get(1), Some(3 | 6)) {
            let size = (first.get(1) == Some(&6)).then(|| self.take_oack(&first)).transpose();
            self.say(EARLY_TERMINATE)?;
            return Ok(size.map_or_else(Answer::Broken, |_| Answer::There(self.tsize)));
        }
        let mut packet = first;
        loop {
            if let Some(answer) = self.take(&packet)? {
                return Ok(answer);
            }
            let left = self.client.pace.wait(FILE_TIMEOUT).checked_sub(self.started.elapsed());
            let next = match left {
                Some(left) => self.hear(left)?,
                None => None,
            };
            let Some(next) = next else { return Ok(Answer::TimedOut { bytes: self.content.len() }) };
            packet = next;
        }
    }

    /// Sends the request until something comes.
    fn ask(&mut self, request: &[u8]) -> io::Result<Option<Vec<u8>>> {
        for _ in 0..REQUEST_TRIES {
            self.seen.requests += 1;
            // A closed port at the server answers by ICMP: the firmware takes no notice of it.
            let _ = self.socket.send_to(request, self.client.server);
            if let Some(answer) = self.hear(self.client.pace.wait(REQUEST_RESEND))? {
                return Ok(Some(answer));
            }
        }
        Ok(None)
    }

    /// The next packet of the server's, or `None` after `wait`.
    fn hear(&mut self, wait: Duration) -> io::Result<Option<Vec<u8>>> {
        let until = Instant::now() + wait;
        let mut buffer = vec![0; 2048];
        loop {
            let Some(left) = until.checked_duration_since(Instant::now()).filter(|left| !left.is_zero())
            else {
                return Ok(None);
            };
            self.socket.set_read_timeout(Some(left.max(Duration::from_millis(1))))?;
            match self.socket.recv_from(&mut buffer) {
                Ok((len, from)) if self.is_peer(from) => {
                    buffer.truncate(len);
                    return Ok(Some(buffer));
                }
                Ok((_, from)) if from.ip() == *self.client.server.ip() => {
                    self.socket.send_to(b"\0\x05\0\x05unknown transfer\0", from)?;
                }
                Ok(_) => {}
                Err(e) if is_timeout(&e) || e.kind() == io::ErrorKind::ConnectionRefused => {}
                Err(e) => return Err(e),
            }
        }
    }

    /// The server may answer from a new port or from 69 itself (seen with Pi 5).
    fn is_peer(&mut self, from: SocketAddr) -> bool {
        from.ip() == *self.client.server.ip() && *self.peer.get_or_insert(from) == from
    }

    /// Takes one packet in and answers it. Gives the end, if it is one.
    fn take(&mut self, packet: &[u8]) -> io::Result<Option<Answer>> {
        match packet {
            [0, 3, high, low, data @ ..] => self.take_data(u16::from_be_bytes([*high, *low]), data),
            [0, 5, high, low, text @ ..] => {
                let text = String::from_utf8_lossy(text.strip_suffix(b"\0").unwrap_or(text)).into_owned();
                Ok(Some(Answer::Refused { code: u16::from_be_bytes([*high, *low]), text }))
            }
            [0, 6, ..] if self.block == 0 => {
                self.seen.duplicates += u32::from(self.seen.oack);
                if let Err(what) = self.take_oack(packet) {
                    self.say(b"\0\x05\0\x08bad option\0")?;
                    return Ok(Some(Answer::Broken(what)));
                }
                self.acknowledge(0)?;
                Ok(None)
            }
            [0, 6, ..] => {
                self.seen.duplicates += 1;
                Ok(None)
            }
            _ => Ok(Some(Answer::Broken("a packet that is neither DATA, ERROR nor OACK"))),
        }
    }

    fn take_data(&mut self, block: u16, data: &[u8]) -> io::Result<Option<Answer>> {
        // Block 0 before any other is no duplicate of the last one.
        let begun = !self.content.is_empty() || self.block != 0;
        if block == self.block && begun {
            self.seen.duplicates += 1;
            let hangs = self.client.style.on_duplicate == OnDuplicate::Hang;
            self.acknowledge(if hangs { block.wrapping_add(1) } else { block })?;
            return Ok(hangs.then_some(Answer::Hung { block }));
        }
        if block != self.block.wrapping_add(1) {
            self.seen.duplicates += 1; // Older than the last: it was held up on its way.
            return Ok(None);
        }
        if block == 0 && !self.client.style.wraps {
            return Ok(Some(Answer::TimedOut { bytes: self.content.len() })); // rpi-eeprom#375, #720
        }
        if data.len() > self.blksize || self.content.len() + data.len() > LONGEST {
            return Ok(Some(Answer::Broken("more bytes than were agreed")));
        }
        self.block = block;
        self.content.extend(data);
        self.acknowledge(block)?;
        if data.len() == self.blksize {
            return Ok(None);
        }
        let content = std::mem::take(&mut self.content);
        let right = self.tsize.is_none_or(|tsize| tsize == content.len() as u64);
        Ok(Some(if right {
            Answer::Content(content)
        } else {
            Answer::Broken("another size than `tsize` said")
        }))
    }

    fn take_oack(&mut self, packet: &[u8]) -> Result<(), &'static str> {
        let style = &self.client.style;
        let options =
            packet.get(2..).and_then(|rest| rest.strip_suffix(b"\0")).ok_or("an OACK that is cut")?;
        let words: Vec<&[u8]> = options.split(|byte| *byte == 0).collect();
        for pair in words.chunks(2) {
            let [name, value] = pair else { return Err("an option without a value") };
            let value: u64 = std::str::from_utf8(value)
                .ok()
                .and_then(|text| text.parse().ok())
                .ok_or("an option that is no number")?;
            match name.to_ascii_lowercase().as_slice() {
                b"tsize" if style.tsize => self.tsize = Some(value),
                b"blksize" => {
                    let asked = style.blksize.map(u64::from).filter(|asked| (8..=*asked).contains(&value));
                    asked.ok_or("a `blksize` that was not asked for")?;
                    self.blksize =
                        usize::try_from(value).map_err(|_| "a `blksize` that was not asked for")?;
                }
                _ => return Err("an option that was not asked for"),
            }
        }
        self.seen.oack = true;
        Ok(())
    }

    fn acknowledge(&self, block: u16) -> io::Result<()> {
        let [high, low] = block.to_be_bytes();
        let packet = [0, 4, high, low];
        match (&self.client.raw, self.peer) {
            (Some(raw), Some(SocketAddr::V4(peer))) if self.client.style.pads_acks => {
                let from = SocketAddrV4::new(self.client.local, self.seen.port);
                raw.send_to(&padded(from, peer, packet), &SocketAddr::from((*peer.ip(), 0)).into()).map(drop)
            }
            _ => self.say(&packet),
        }
    }

    fn say(&self, packet: &[u8]) -> io::Result<()> {
        let Some(peer) = self.peer else { return Ok(()) };
        match self.socket.send_to(packet, peer) {
            // The server has closed its port after an ERROR of its own, or has died: time tells.
            Err(e) if e.kind() == io::ErrorKind::ConnectionRefused => Ok(()),
            other => other.map(drop),
        }
    }
}

/// An IP packet that goes on with zeros past the end of its UDP datagram, which has no checksum. The kernel
/// writes the header's checksum and total length (raw(7)).
fn padded(from: SocketAddrV4, to: SocketAddrV4, payload: [u8; 4]) -> Vec<u8> {
    let mut packet = vec![0x45, 0, 0, 0, 0, 0, 0, 0, 128, 17, 0, 0];
    packet.extend(from.ip().octets());
    packet.extend(to.ip().octets());
    packet.extend(from.port().to_be_bytes());
    packet.extend(to.port().to_be_bytes());
    packet.extend([0, 12, 0, 0]);
    packet.extend(payload);
    packet.resize(PADDED_PACKET, 0);
    packet
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pi::testing::{Fault, Server, vector};

    #[test]
    fn requests_are_those_of_the_captures() {
        for (name, style, vector_name) in [
            ("bootcode.bin", Style::ROM, "rrq-pi3b-rom"),
            ("89eb9bb9/start.elf", Style::PI3, "rrq-pi3-second-stage"),
            ("5b154510/start4.elf", Style::bootloader(Model::Pi4Old), "rrq-pi4-1024"),
            ("5b154510/start4.elf", Style::START4, "rrq-pi4-1024"),
            ("5b154510/config.txt", Style::bootloader(Model::Pi4), "rrq-pi4-1468"),
            ("dc-a6-32-01-36-c2/start4.elf", Style::START4, "rrq-mac-prefix"),
        ] {
            assert_eq!(request(name, &style), vector(vector_name), "{vector_name}");
        }
        assert_eq!(EARLY_TERMINATE, vector("error-early-terminate"));
    }

    fn client(server: &Server) -> Client {
        paced(server, Pace::REAL)
    }

    fn paced(server: &Server, pace: Pace) -> Client {
        let mut client = Client::new(Ipv4Addr::LOCALHOST, server.address(), pace, 40_000);
        client.style = Style::bootloader(Model::Pi4);
        client
    }

    fn bytes(len: usize) -> Vec<u8> {
        (0..len).map(|at| (at * 31 + at / 997) as u8).collect()
    }

    #[test]
    fn files_of_all_lengths_come_whole() {
        let lengths = [0, 1, 511, 512, 1467, 1468, 1469, 100_000];
        let server = Server::start(lengths.map(|len| (len.to_string(), bytes(len))), Fault::None);
        let mut client = client(&server);
        for style in [Style::ROM, Style::PI3, Style::START4, Style::bootloader(Model::Pi5)] {
            client.style = style;
            for len in lengths {
                let got = client.fetch(&len.to_string()).unwrap();
                assert!(got.answer == Answer::Content(bytes(len)), "{len} bytes by {style:?}: {got:?}");
                assert_eq!((got.oack, got.duplicates, got.requests), (style.tsize, 0, 1));
            }
        }
    }

    #[test]
    fn a_probe_learns_the_size_and_the_next_request_has_the_next_port() {
        let server = Server::start([("a".to_owned(), bytes(5000))], Fault::None);
        let mut client = client(&server);
        let probe = client.probe("a").unwrap();
        assert_eq!(probe.answer, Answer::There(Some(5000)));
        let read = client.fetch("a").unwrap();
        assert!(read.port > probe.port);
        assert_eq!(read.answer, Answer::Content(bytes(5000)));
        assert_eq!(server.aborted(), 1, "the server heard the probe's ERROR");
        let missing = client.fetch("b").unwrap().answer;
        assert_eq!(missing, Answer::Refused { code: 1, text: "File not found".into() });
    }

    #[test]
    fn a_lost_answer_is_asked_for_again_from_the_same_port() {
        let server = Server::start([("a".to_owned(), bytes(3000))], Fault::IgnoreFirstRequest);
        let got = paced(&server, Pace::faster(20)).fetch("a").unwrap();
        assert_eq!(got.answer, Answer::Content(bytes(3000)));
        assert!(got.requests >= 2);
        assert!(server.requests().iter().all(|(_, port)| *port == got.port));
    }

    #[test]
    fn silence_is_asked_15_times() {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let SocketAddr::V4(address) = socket.local_addr().unwrap() else { unreachable!() };
        let mut client = Client::new(Ipv4Addr::LOCALHOST, address, Pace::faster(500), 41_000);
        let got = client.fetch("a").unwrap();
        assert_eq!((got.answer, got.requests, got.first_answer), (Answer::Silent, 15, None));
    }

    #[test]
    fn duplicates_are_acknowledged_again_or_hang() {
        let server = Server::start([("a".to_owned(), bytes(9000))], Fault::DoubleData);
        let mut client = client(&server);
        let got = client.fetch("a").unwrap();
        assert_eq!(got.answer, Answer::Content(bytes(9000)));
        assert!(got.duplicates > 0);
        client.style = Style::START4;
        assert_eq!(client.fetch("a").unwrap().answer, Answer::Hung { block: 1 }, "firmware#1631");
    }

    #[test]
    fn block_numbers_wrap_or_the_file_is_cut() {
        // 65,536 blocks of 8 bytes, and four more.
        let long = bytes(65_540 * 8 - 3);
        let server = Server::start([("a".to_owned(), long.clone())], Fault::None);
        let mut client = client(&server);
        client.style = Style { blksize: Some(8), ..Style::bootloader(Model::Pi4) };
        assert!(client.fetch("a").unwrap().answer == Answer::Content(long));
        client.style.wraps = false;
        assert_eq!(client.fetch("a").unwrap().answer, Answer::TimedOut { bytes: 65_535 * 8 });
    }

    #[test]
    fn a_server_that_breaks_the_protocol_is_found_out() {
        for (fault, want) in [
            (Fault::WrongSize, Answer::Broken("another size than `tsize` said")),
            (Fault::LargerBlocks, Answer::Broken("a `blksize` that was not asked for")),
            (Fault::StopAfterOne, Answer::TimedOut { bytes: 1468 }),
        ] {
            let server = Server::start([("a".to_owned(), bytes(4000))], fault);
            assert_eq!(paced(&server, Pace::faster(20)).fetch("a").unwrap().answer, want);
        }
        let server = Server::start([("a".to_owned(), bytes(4000))], Fault::NoOack);
        let got = client(&server).fetch("a").unwrap();
        assert!(!got.oack);
        assert_eq!(got.answer, Answer::Content(bytes(4000)));
    }

    /// A client of a server that is not there.
    fn nobody(style: Style) -> Client {
        let server = SocketAddrV4::new(Ipv4Addr::LOCALHOST, 9);
        Client { style, ..Client::new(Ipv4Addr::LOCALHOST, server, Pace::REAL, 42_000) }
    }

    #[test]
    fn oacks_of_the_vectors() {
        for (name, style, tsize, blksize) in [
            ("oack-pi3", Style::PI3, 2_965_216, 512),
            ("oack-pi4-1024", Style::START4, 2_252_256, 1024),
            ("oack-pi4-1468", Style::bootloader(Model::Pi4), 1540, 1468),
        ] {
            let client = nobody(style);
            let mut talk = Talk::new(&client, UdpSocket::bind("127.0.0.1:0").unwrap(), 0);
            assert_eq!(talk.take(&vector(name)).unwrap(), None, "{name}");
            assert_eq!((talk.tsize, talk.blksize, talk.seen.oack), (Some(tsize), blksize, true));
        }
        for bad in [&b"\0\x06"[..], b"\0\x06tsize\0", b"\0\x06tsize\0x\0", b"\0\x06windowsize\x008\0"] {
            let client = nobody(Style::START4);
            let end = Talk::new(&client, UdpSocket::bind("127.0.0.1:0").unwrap(), 0).take(bad).unwrap();
            assert!(matches!(end, Some(Answer::Broken(_))), "{bad:?}: {end:?}");
        }
    }

    #[test]
    fn a_pi_5_pads_its_acks_past_the_udp_length() {
        let packet =
            padded("10.4.0.21:49152".parse().unwrap(), "10.4.0.10:69".parse().unwrap(), [0, 4, 0, 0]);
        assert_eq!(packet.len(), 46);
        assert_eq!(packet[24..26], [0, 12], "the UDP length ends before the zeros");
        assert_eq!(packet[28..32], vector("ack-0"));
        assert!(packet[32..].iter().all(|byte| *byte == 0));
    }
}
