//! Cuts a disk's bytes into aligned pieces and has a thread of its own do something with each: the medium is busy
//! while the next piece is made.
//! Must not know: what the bytes are, what is done with them.
//! Spec: design.md section 13: no table is on the medium before all data is.

use std::io;
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::thread::{Scope, ScopedJoinHandle};

use super::medium::{Buffer, PIECE};
use crate::disk::Backend;

/// Pieces on their way.
const IN_FLIGHT: usize = 3;

/// Where a disk's own part ends: before the first partition and after the last one is the table.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// Where partitions begin.
    pub first: u64,
    /// Where they end.
    pub end: u64,
}

impl Bounds {
    /// For who wants the table's bytes in pieces too.
    pub const NONE: Bounds = Bounds { first: 0, end: u64::MAX };

    /// Splits what is given into others' bytes and the table's. A chunk may reach over the end of the last
    /// partition; none reaches over the start of the first, for there is a gap.
    fn split(self, at: u64, bytes: &[u8]) -> (&[u8], &[u8]) {
        let data = match at < self.first {
            true => 0,
            false => usize::try_from(self.end.saturating_sub(at)).unwrap_or(usize::MAX).min(bytes.len()),
        };
        bytes.split_at(data)
    }
}

/// The bytes of both ends, with their places.
pub type Table = Vec<(u64, Vec<u8>)>;

/// What is done with pieces.
pub trait Worker: Send {
    /// What there is to say at the end.
    type Done: Send;
    /// The next piece; `at` grows.
    fn piece(&mut self, at: u64, piece: &Buffer) -> io::Result<()>;
    /// After the last one.
    fn finish(self) -> io::Result<Self::Done>;
}

/// One piece on its way.
struct Piece {
    at: u64,
    buffer: Buffer,
}

/// Takes a disk's bytes in order.
pub struct Pieces<'s, T> {
    bounds: Bounds,
    pieces: Option<SyncSender<Piece>>,
    empty: Receiver<Buffer>,
    thread: Option<ScopedJoinHandle<'s, io::Result<T>>>,
    current: Option<Piece>,
    table: Table,
}

impl<'s, T: Send + 's> Pieces<'s, T> {
    /// Begins. What is outside of `bounds` is kept back.
    pub fn start<'e>(
        scope: &'s Scope<'s, 'e>,
        bounds: Bounds,
        worker: impl Worker<Done = T> + 's,
    ) -> Pieces<'s, T> {
        let (pieces, work) = sync_channel(IN_FLIGHT);
        let (back, empty) = channel();
        let thread = scope.spawn(move || run(&work, &back, worker));
        Pieces {
            bounds,
            pieces: Some(pieces),
            empty,
            thread: Some(thread),
            current: None,
            table: Table::new(),
        }
    }

    /// Waits until all pieces are done with; gives what was kept back.
    ///
    /// # Errors
    /// The first piece that failed.
    pub fn finish(mut self) -> io::Result<(T, Table)> {
        let sent = self.send();
        self.pieces = None;
        let done = match self.thread.take().map(ScopedJoinHandle::join) {
            Some(Ok(done)) => done?,
            _ => return Err(io::Error::other("the thread that transfers has ended early")),
        };
        sent?;
        Ok((done, self.table))
    }

    fn send(&mut self) -> io::Result<()> {
        let Some(piece) = self.current.take() else { return Ok(()) };
        let sent = self.pieces.as_ref().is_some_and(|pieces| pieces.send(piece).is_ok());
        // `finish` has the reason.
        if sent { Ok(()) } else { Err(io::Error::other("transferring has failed")) }
    }
}

impl<'s, T: Send + 's> Backend for Pieces<'s, T> {
    fn data(&mut self, at: u64, bytes: &[u8]) -> io::Result<()> {
        let (mut data, table) = self.bounds.split(at, bytes);
        if !table.is_empty() {
            self.table.push((at + data.len() as u64, table.to_vec()));
        }
        let mut at = at;
        while !data.is_empty() {
            let fits = self.current.as_ref().is_some_and(|piece| {
                piece.at + piece.buffer.bytes().len() as u64 == at && piece.buffer.room() > 0
            });
            if !fits {
                self.send()?;
                let mut buffer = self.empty.try_recv().unwrap_or_else(|_| Buffer::default());
                buffer.resize(0);
                self.current = Some(Piece { at, buffer });
            }
            let Some(Piece { at: start, buffer }) = &mut self.current else { continue };
            // Pieces end on multiples of a piece, so that cards are given whole erase blocks.
            let left = PIECE - usize::try_from(*start % PIECE as u64).unwrap_or(0) - buffer.bytes().len();
            let len = data.len().min(buffer.room()).min(left);
            buffer.push(&data[..len]);
            at += len as u64;
            data = &data[len..];
            if len == left {
                self.send()?;
            }
        }
        Ok(())
    }

    fn hole(&mut self, _: u64) -> io::Result<()> {
        Ok(())
    }

    fn finish(&mut self, _: u64) -> io::Result<()> {
        self.send()
    }
}

fn run<W: Worker>(work: &Receiver<Piece>, back: &Sender<Buffer>, mut worker: W) -> io::Result<W::Done> {
    for Piece { at, buffer } in work {
        worker.piece(at, &buffer)?;
        // Nobody wants it back once the disk is complete.
        let _ = back.send(buffer);
    }
    worker.finish()
}
