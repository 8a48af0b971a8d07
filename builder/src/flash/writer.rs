//! Puts the bytes of a disk on a medium, by a thread of its own, and keeps the partition table back.
//! Must not know: what the bytes are.
//! Spec: design.md section 13: no table is on the medium before all data is.

use std::io;
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::thread::{Scope, ScopedJoinHandle};

use super::marker;
use super::medium::{Buffer, Medium, PIECE};
use crate::digest::Digest;
use crate::disk::Backend;

/// Pieces on their way to the medium.
const IN_FLIGHT: usize = 3;
/// How often the marker says how far the writing has come. A sync empties the card's own buffer, which at
/// 25 MB/s costs a hundredth of the time at this distance.
const SYNC_EVERY: u64 = 256 << 20;

/// Where a disk's own part ends: before the first partition and after the last one is the table.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// Where partitions begin.
    pub first: u64,
    /// Where they end.
    pub end: u64,
}

/// The bytes of both ends, with their places.
pub type Table = Vec<(u64, Vec<u8>)>;

/// Splits what is given into the table's bytes and others. A chunk may reach over the end of the last
/// partition; none reaches over the start of the first, for there is a gap.
pub fn split(bounds: Bounds, at: u64, bytes: &[u8]) -> (&[u8], &[u8]) {
    let data = match at < bounds.first {
        true => 0,
        false => usize::try_from(bounds.end.saturating_sub(at)).unwrap_or(usize::MAX).min(bytes.len()),
    };
    bytes.split_at(data)
}

/// What was done.
#[derive(Debug, Default, Clone, Copy)]
pub struct Done {
    /// Bytes that were written.
    pub written: u64,
    /// Bytes that were there already, from a run before.
    pub reused: u64,
}

/// One piece on its way.
struct Piece {
    at: u64,
    buffer: Buffer,
}

/// Takes a disk's bytes in order.
pub struct Writer<'s> {
    bounds: Bounds,
    pieces: Option<SyncSender<Piece>>,
    empty: Receiver<Buffer>,
    thread: Option<ScopedJoinHandle<'s, io::Result<Done>>>,
    current: Option<Piece>,
    table: Table,
}

impl<'s> Writer<'s> {
    /// Begins. What was synced by a run before, up to `resume`, is compared and written only where it differs.
    pub fn start<'e>(
        scope: &'s Scope<'s, 'e>,
        medium: &'s Medium,
        bounds: Bounds,
        what: Digest,
        resume: u64,
    ) -> Writer<'s> {
        let (pieces, work) = sync_channel(IN_FLIGHT);
        let (back, empty) = channel();
        let thread = scope.spawn(move || run(medium, &work, &back, &what, resume));
        Writer {
            bounds,
            pieces: Some(pieces),
            empty,
            thread: Some(thread),
            current: None,
            table: Table::new(),
        }
    }

    /// Waits until all is on the medium; gives the table, which is not.
    ///
    /// # Errors
    /// The first write that failed.
    pub fn finish(mut self) -> io::Result<(Done, Table)> {
        let sent = self.send();
        self.pieces = None;
        let done = match self.thread.take().map(ScopedJoinHandle::join) {
            Some(Ok(done)) => done?,
            _ => return Err(io::Error::other("the thread that writes has ended early")),
        };
        sent?;
        Ok((done, self.table))
    }

    fn send(&mut self) -> io::Result<()> {
        let Some(piece) = self.current.take() else { return Ok(()) };
        let sent = self.pieces.as_ref().is_some_and(|pieces| pieces.send(piece).is_ok());
        // `finish` has the reason.
        if sent { Ok(()) } else { Err(io::Error::other("writing has failed")) }
    }
}

impl Backend for Writer<'_> {
    fn data(&mut self, at: u64, bytes: &[u8]) -> io::Result<()> {
        let (mut data, table) = split(self.bounds, at, bytes);
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

fn run(
    medium: &Medium,
    work: &Receiver<Piece>,
    back: &Sender<Buffer>,
    what: &Digest,
    resume: u64,
) -> io::Result<Done> {
    let mut done = Done::default();
    let mut old = Buffer::default();
    let mut since_sync = 0;
    for Piece { at, buffer } in work {
        let bytes = buffer.bytes();
        let len = bytes.len() as u64;
        // A sector that cannot be read is written again.
        let there =
            at + len <= resume && medium.read(at, bytes.len(), &mut old).is_ok_and(|old| old == bytes);
        if there {
            done.reused += len;
        } else {
            // So that the next run need not begin anew; a medium that is gone takes no note.
            medium.write(at, &buffer).inspect_err(|_| {
                let _ = medium.sync().and_then(|()| mark(medium, what, at));
            })?;
            done.written += len;
            since_sync += len;
        }
        if since_sync >= SYNC_EVERY {
            since_sync = 0;
            medium.sync()?;
            mark(medium, what, at + len)?;
        }
        // Nobody wants it back once the disk is complete.
        let _ = back.send(buffer);
    }
    medium.sync()?;
    mark(medium, what, medium.size)?;
    medium.sync()?;
    Ok(done)
}

/// Notes on the medium how far the writing has come.
pub fn mark(medium: &Medium, what: &Digest, synced: u64) -> io::Result<()> {
    let mut buffer = Buffer::default();
    buffer.push(&marker::write(what, synced));
    medium.write(0, &buffer)
}
