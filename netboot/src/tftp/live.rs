//! One live transfer: its state and its file, put together.
//! Must not know: other transfers, the well-known port, who may read what.
//! Spec: RFC 1350 section 4 (transfer IDs).

use std::io;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::Instant;

use super::Event;
use super::options::Terms;
use super::packet::{self, ErrorCode, Packet};
use super::port::{Outgoing, Port};
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
    /// The address that it asked, which has to answer.
    pub local: Ipv4Addr,
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

/// Where a transfer's packets go.
pub struct Out<'a> {
    /// The port that they come from.
    pub port: &'a Port,
    /// They wait here until they are sent together.
    pub outgoing: &'a mut Outgoing,
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
    pub fn start(granted: Granted, out: &mut Out<'_>, now: Instant) -> (Live, Flow) {
        let len = granted.octet.then(|| granted.source.len());
        let (transfer, step) = Transfer::start(&granted.terms, len, now);
        let mut live = Live { granted, transfer, due: None, loading: false };
        let flow = live.act(step, out);
        (live, flow)
    }

    /// The client's address and port.
    pub fn client(&self) -> SocketAddrV4 {
        self.granted.client
    }

    /// When [`Live::tick`] has something to do; nothing while the disk is waited for.
    pub fn deadline(&self) -> Option<Instant> {
        (!self.loading).then(|| self.transfer.deadline())
    }

    /// Takes one packet of the client's.
    pub fn packet(&mut self, packet: &Packet<'_>, out: &mut Out<'_>, now: Instant) -> Flow {
        let step = self.transfer.packet(packet, now);
        self.act(step, out)
    }

    /// Does what is due at `now`.
    pub fn tick(&mut self, out: &mut Out<'_>, now: Instant) -> Flow {
        let step = self.transfer.tick(now);
        self.act(step, out)
    }

    /// The request that began this transfer has come once more.
    pub fn repeated(&mut self, out: &mut Out<'_>, now: Instant) -> Flow {
        if self.loading {
            return Flow::Idle;
        }
        let step = self.transfer.repeated(now);
        self.act(step, out)
    }

    /// The bytes that were waited for, or why there are none.
    pub fn loaded(&mut self, chunk: io::Result<Chunk>, out: &mut Out<'_>, now: Instant) -> Flow {
        self.loading = false;
        match chunk {
            Ok(chunk) => self.granted.source.fill(chunk),
            Err(e) => return Flow::End(End::Failed(format!("reading the file: {e}"))),
        }
        self.transfer.delayed(now);
        let due = self.due.take().unwrap_or(Step::Wait);
        self.act(due, out)
    }

    /// Tells the client that there will be no more.
    pub fn abort(&self, message: &str, out: &mut Out<'_>) {
        out.outgoing.push(out.port, self.granted.client, [&packet::error(ErrorCode::OTHER, message), &[]]);
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

    fn act(&mut self, step: Step, out: &mut Out<'_>) -> Flow {
        match step {
            Step::Wait => Flow::Idle,
            Step::End(outcome) => Flow::End(End::Outcome(outcome)),
            Step::Oack => {
                if let Some(oack) = &self.granted.terms.oack {
                    out.outgoing.push(out.port, self.granted.client, [oack, &[]]);
                }
                Flow::Idle
            }
            Step::Data { first, last } => self.send_blocks(first, last, out),
        }
    }

    fn send_blocks(&mut self, first: u64, last: u64, out: &mut Out<'_>) -> Flow {
        if self.loading {
            self.due = Some(Step::Data { first, last });
            return Flow::Idle;
        }
        for number in first..=last {
            match self.granted.source.block(number) {
                Block::Ready(bytes) => {
                    #[expect(clippy::cast_possible_truncation, reason = "the wire has the low 16 bits")]
                    let header = packet::data_header(number as u16);
                    out.outgoing.push(out.port, self.granted.client, [&header, bytes]);
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
        }
        Flow::Idle
    }
}
