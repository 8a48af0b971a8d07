//! One live transfer: its socket, its state and its file, put together.
//! Must not know: other transfers, the well-known port, who may read what.
//! Spec: RFC 1350 section 4 (transfer IDs).

use std::io;
use std::net::{SocketAddr, SocketAddrV4, UdpSocket};
use std::time::Instant;

use super::Event;
use super::options::Terms;
use super::packet::{self, ErrorCode, Packet};
use super::source::{Block, Chunk, Load, Source};
use super::table::Id;
use super::transfer::{Outcome, Step, Transfer};

/// A transfer that was granted, with all that it needs.
#[derive(Debug)]
pub struct Granted {
    /// Its name.
    pub id: Id,
    /// The client's address and port.
    pub client: SocketAddrV4,
    /// A socket of its own, bound, not blocking. It is not connected: then the kernel would answer
    /// packets of other ports by itself, with an ICMP error where RFC 1350 has ERROR 5.
    pub socket: UdpSocket,
    /// The node.
    pub node: String,
    /// The file.
    pub path: Vec<u8>,
    /// What was agreed.
    pub terms: Terms,
    /// The file's content.
    pub source: Source,
    /// Whether its length on the wire is the file's.
    pub octet: bool,
    /// When the request came.
    pub since: Instant,
}

/// A transfer that is under way.
#[derive(Debug)]
pub struct Live {
    granted: Granted,
    transfer: Transfer,
    /// Blocks that are due as soon as the file's bytes are there.
    due: Option<Step>,
    loading: bool,
}

/// Buffers that all transfers of a thread share.
#[derive(Debug)]
pub struct Buffers {
    incoming: Box<[u8]>,
    outgoing: Vec<u8>,
}

impl Default for Buffers {
    fn default() -> Buffers {
        // Clients send four bytes, or an ERROR's text; what is longer is cut, and still an ERROR.
        Buffers { incoming: vec![0; 1024].into(), outgoing: Vec::with_capacity(2048) }
    }
}

/// What came of an input.
#[derive(Debug)]
pub enum Flow {
    /// The client is waited for.
    Idle,
    /// Bytes of the file are waited for.
    Load(Load),
    /// It is over.
    End(End),
}

/// Why a transfer is over.
#[derive(Debug)]
pub enum End {
    /// By the protocol.
    Outcome(Outcome),
    /// The file could not be read, or the server stops.
    Failed(String),
}

impl Live {
    /// Sends the first packet.
    pub fn start(granted: Granted, buffers: &mut Buffers, now: Instant) -> (Live, Flow) {
        let len = granted.octet.then(|| granted.source.len());
        let (transfer, step) = Transfer::start(&granted.terms, len, now);
        let mut live = Live { granted, transfer, due: None, loading: false };
        let flow = live.act(step, buffers);
        (live, flow)
    }

    /// The socket, to be waited on.
    pub fn socket(&self) -> &UdpSocket {
        &self.granted.socket
    }

    /// The client's address and port.
    pub fn client(&self) -> SocketAddrV4 {
        self.granted.client
    }

    /// When [`Live::tick`] has something to do; nothing while the disk is waited for.
    pub fn deadline(&self) -> Option<Instant> {
        (!self.loading).then(|| self.transfer.deadline())
    }

    /// Takes one packet from the socket, if there is one; `None` says that there was none.
    pub fn receive(&mut self, buffers: &mut Buffers, now: Instant) -> Option<Flow> {
        let (len, from) = match self.granted.socket.recv_from(&mut buffers.incoming) {
            Ok(found) => found,
            // An ICMP error about an earlier packet; the timer takes care of a client that is gone.
            Err(e) if e.kind() != io::ErrorKind::WouldBlock => return Some(Flow::Idle),
            Err(_) => return None,
        };
        let parsed = Packet::parse(&buffers.incoming[..len]);
        if from != SocketAddr::V4(self.granted.client) {
            // RFC 1350 section 4: the stranger is told, the transfer goes on. An ERROR is not
            // answered, or two servers could keep each other busy for ever.
            if !matches!(parsed, Ok(Packet::Error { .. })) {
                let answer = packet::error(ErrorCode::UNKNOWN_TID, "Unknown transfer ID");
                let _ = self.granted.socket.send_to(&answer, from);
            }
            return Some(Flow::Idle);
        }
        let Ok(packet) = parsed else { return Some(Flow::Idle) };
        let step = self.transfer.packet(&packet, now);
        Some(self.act(step, buffers))
    }

    /// Does what is due at `now`.
    pub fn tick(&mut self, buffers: &mut Buffers, now: Instant) -> Flow {
        let step = self.transfer.tick(now);
        self.act(step, buffers)
    }

    /// The request that began this transfer has come once more.
    pub fn repeated(&mut self, buffers: &mut Buffers, now: Instant) -> Flow {
        if self.loading {
            return Flow::Idle;
        }
        let step = self.transfer.repeated(now);
        self.act(step, buffers)
    }

    /// The bytes that were waited for, or why there are none.
    pub fn loaded(&mut self, chunk: io::Result<Chunk>, buffers: &mut Buffers, now: Instant) -> Flow {
        self.loading = false;
        match chunk {
            Ok(chunk) => self.granted.source.fill(chunk),
            Err(e) => return Flow::End(End::Failed(format!("reading the file: {e}"))),
        }
        self.transfer.delayed(now);
        let due = self.due.take().unwrap_or(Step::Wait);
        self.act(due, buffers)
    }

    /// Tells the client that there will be no more.
    pub fn abort(&self, message: &str) {
        let _ = self.granted.socket.send_to(&packet::error(ErrorCode::OTHER, message), self.granted.client);
    }

    /// What is reported of the end.
    pub fn event(self, end: End) -> Event {
        let Granted { node, path, source, since, .. } = self.granted;
        let bytes = self.transfer.acked_bytes().min(source.len());
        match end {
            End::Outcome(Outcome::Sent) => {
                let resent = self.transfer.resent();
                Event::Sent { node, path, bytes: source.len(), took: since.elapsed(), resent }
            }
            End::Outcome(Outcome::Stopped) => Event::Stopped { node, path },
            End::Outcome(Outcome::TimedOut | Outcome::Restarted) => Event::TimedOut { node, path, bytes },
            End::Failed(reason) => Event::Failed { node, path, bytes, reason },
        }
    }

    fn act(&mut self, step: Step, buffers: &mut Buffers) -> Flow {
        match step {
            Step::Wait => Flow::Idle,
            Step::End(outcome) => Flow::End(End::Outcome(outcome)),
            Step::Oack => {
                if let Some(oack) = &self.granted.terms.oack {
                    self.send(oack);
                }
                Flow::Idle
            }
            Step::Data { first, last } => self.send_blocks(first, last, buffers),
        }
    }

    fn send_blocks(&mut self, first: u64, last: u64, buffers: &mut Buffers) -> Flow {
        if self.loading {
            self.due = Some(Step::Data { first, last });
            return Flow::Idle;
        }
        for number in first..=last {
            match self.granted.source.block(number) {
                Block::Ready(bytes) => {
                    #[expect(clippy::cast_possible_truncation, reason = "the wire has the low 16 bits")]
                    let header = packet::data_header(number as u16);
                    buffers.outgoing.clear();
                    buffers.outgoing.extend_from_slice(&header);
                    buffers.outgoing.extend_from_slice(bytes);
                    if bytes.len() < usize::from(self.transfer.blksize()) {
                        self.transfer.ends_with(number);
                    }
                }
                Block::Absent(load) => {
                    self.loading = true;
                    self.due = Some(Step::Data { first: number, last });
                    return Flow::Load(load);
                }
            }
            self.send(&buffers.outgoing);
        }
        Flow::Idle
    }

    /// Sends, or leaves it: a packet that the kernel does not take is a lost one, and the timer knows how to
    /// deal with those.
    fn send(&self, packet: &[u8]) {
        let _ = self.granted.socket.send_to(packet, self.granted.client);
    }
}
