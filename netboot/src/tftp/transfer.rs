//! One transfer as a state machine: a packet or the time goes in, what to send comes out.
//! Must not know: sockets, file content, nodes. It counts blocks; others fill them.
//! Spec: RFC 1350 (lock step), 2347 (OACK), 7440 (windows, rollback), RFC 1123 section 4.2.3.1 (the
//! Sorcerer's Apprentice).
//!
//! Blocks are counted from 1 in 64 bits and meet the wire's 16 bits in one place, [`Transfer::meant`].

use std::time::{Duration, Instant};

use super::options::Terms;
use super::packet::Packet;

/// Times that one packet is sent again before the client is given up.
pub const MAX_RESENDS: u32 = 5;

/// Where doubling stops. With the first wait of one second a client is given up after 31 s, which is when a
/// Pi (15 requests, 2 s apart; 30 s for a file) has given us up too.
const MAX_WAIT: Duration = Duration::from_secs(8);

/// What is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Step {
    /// Nothing.
    Wait,
    /// Send the OACK.
    Oack,
    /// Send these blocks, both ends included.
    Data {
        /// First block.
        first: u64,
        /// Last block.
        last: u64,
    },
    /// The transfer is over.
    End(Outcome),
}

/// How a transfer ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The last block is acknowledged.
    Sent,
    /// The client sent an ERROR.
    Stopped,
    /// The client fell silent.
    TimedOut,
    /// The client asks for the same again while its transfer is silent: it has been restarted, and
    /// its request is to be taken as a new one.
    Restarted,
}

/// A transfer from its request to its end.
#[derive(Clone, Debug)]
pub struct Transfer {
    blksize: u16,
    windowsize: u16,
    /// The last block, once it is known.
    last: Option<u64>,
    /// The OACK is out, and nothing is acknowledged.
    oack_unanswered: bool,
    /// Every block up to here has arrived.
    acked: u64,
    /// Every block up to here was handed out to be sent.
    sent: u64,
    first_wait: Duration,
    wait: Duration,
    deadline: Instant,
    /// Packets sent again since the client was last heard.
    tries: u32,
    resent: u32,
}

impl Transfer {
    /// Begins a transfer. `len` is the number of bytes to be sent; if it is not known, `terms` must have a
    /// window of 1, and [`Transfer::ends_with`] has to be called before the last block is acknowledged.
    pub fn start(terms: &Terms, len: Option<u64>, now: Instant) -> (Transfer, Step) {
        let mut transfer = Transfer {
            blksize: terms.blksize,
            windowsize: if len.is_some() { terms.windowsize } else { 1 },
            // A file of whole blocks ends with an empty one.
            last: len.map(|len| len / u64::from(terms.blksize) + 1),
            oack_unanswered: terms.oack.is_some(),
            acked: 0,
            sent: 0,
            first_wait: terms.timeout,
            wait: terms.timeout,
            deadline: now + terms.timeout,
            tries: 0,
            resent: 0,
        };
        let step = if transfer.oack_unanswered { Step::Oack } else { transfer.advance() };
        (transfer, step)
    }

    /// Takes what the client sent. Anything but an ERROR and the awaited acknowledgements changes nothing.
    ///
    /// An ACK that was seen before is never answered: the answer would double every later block (RFC
    /// 1123 section 4.2.3.1), and `start4.elf` hangs on a DATA that comes twice (firmware#1631).
    pub fn packet(&mut self, packet: &Packet<'_>, now: Instant) -> Step {
        match packet {
            Packet::Error { .. } => Step::End(Outcome::Stopped),
            Packet::Ack { block } if self.oack_unanswered => {
                if *block != 0 {
                    return Step::Wait;
                }
                self.oack_unanswered = false;
                self.heard(now);
                self.advance()
            }
            Packet::Ack { block } => match self.meant(*block) {
                None => Step::Wait,
                Some(block) => {
                    self.acked = block;
                    self.heard(now);
                    if self.last == Some(block) { Step::End(Outcome::Sent) } else { self.advance() }
                }
            },
            _ => Step::Wait,
        }
    }

    /// Does what is due at `now`; [`Transfer::deadline`] says when to call.
    pub fn tick(&mut self, now: Instant) -> Step {
        if now < self.deadline {
            return Step::Wait;
        }
        if self.tries == MAX_RESENDS {
            return Step::End(Outcome::TimedOut);
        }
        self.tries += 1;
        self.wait = (self.wait * 2).min(MAX_WAIT.max(self.first_wait));
        self.deadline = now + self.wait;
        self.resend()
    }

    /// Takes the request that began this transfer once more. A Pi repeats it every 2 s until it is
    /// answered, so the first packet is sent again. Later it is an echo from the network, unless the client
    /// is silent: then it was restarted and uses the same port.
    pub fn repeated(&mut self, now: Instant) -> Step {
        if self.acked == 0 && (self.oack_unanswered || self.sent <= 1) {
            self.deadline = now + self.wait;
            return self.resend();
        }
        if self.tries == 0 { Step::Wait } else { Step::End(Outcome::Restarted) }
    }

    /// Says that `block` turned out to be the last one.
    pub fn ends_with(&mut self, block: u64) {
        self.last = Some(block);
    }

    /// Moves the deadline away from `now`: blocks came late from the disk, which is not the client's doing.
    pub fn delayed(&mut self, now: Instant) {
        self.deadline = now + self.wait;
    }

    /// When [`Transfer::tick`] has something to do.
    pub fn deadline(&self) -> Instant {
        self.deadline
    }

    /// Bytes of content in a block.
    pub fn blksize(&self) -> u16 {
        self.blksize
    }

    /// Packets that were sent again.
    pub fn resent(&self) -> u32 {
        self.resent
    }

    /// Bytes that the client has acknowledged; the last block counts as a whole one.
    pub fn acked_bytes(&self) -> u64 {
        self.acked.saturating_mul(self.blksize.into())
    }

    /// The block that an ACK means, if it is news: the numbers of a window lie within 16 bits of
    /// what is acknowledged, so the difference is right across the roll-over from 65535 to 0.
    fn meant(&self, wire: u16) -> Option<u64> {
        #[expect(clippy::cast_possible_truncation, reason = "the wire has the low 16 bits")]
        let ahead = u64::from(wire.wrapping_sub(self.acked as u16));
        (ahead > 0 && ahead <= self.sent - self.acked).then_some(self.acked + ahead)
    }

    fn heard(&mut self, now: Instant) {
        self.tries = 0;
        self.wait = self.first_wait;
        self.deadline = now + self.wait;
    }

    /// The next window. It begins behind what is acknowledged, even if later blocks were sent: the
    /// client of RFC 7440 acknowledges less than a window to say that the rest is lost.
    fn advance(&mut self) -> Step {
        let first = self.acked + 1;
        let end = self.acked + u64::from(self.windowsize);
        self.sent = self.last.map_or(end, |last| end.min(last));
        Step::Data { first, last: self.sent }
    }

    fn resend(&mut self) -> Step {
        if self.oack_unanswered {
            self.resent += 1;
            return Step::Oack;
        }
        let step = self.advance();
        self.resent += u32::try_from(self.sent - self.acked).unwrap_or(u32::MAX);
        step
    }
}

#[cfg(test)]
#[path = "transfer_tests.rs"]
mod tests;
