//! Buffers on their way from the thread that fills them to the sink, so that reading files and
//! writing the image overlap.
//! Must not know: ext4, the store.
//! Spec: none. A buffer is taken by the sink as a whole, so small files cost no call each.

use std::sync::mpsc::{Receiver, SyncSender, channel, sync_channel};
use std::{io, panic, thread};

use super::format::BLOCK;
use crate::io::sink::ImageSink;

/// Bytes of a buffer, a multiple of a block.
const BUFFER: usize = 1 << 20;
/// Buffers that exist at once: all the memory that file bytes take.
const BUFFERS: usize = 4;

enum Chunk {
    /// The bytes of a buffer up to the number given.
    Data(Vec<u8>, usize),
    /// Bytes to be skipped.
    Skip(u64),
}

/// The sink has failed: nothing more is wanted.
#[derive(Clone, Copy, Debug)]
pub(super) struct Closed;

/// Takes the image from front to back in the filling thread.
pub(super) struct Feed {
    chunks: SyncSender<Chunk>,
    spare: Receiver<Vec<u8>>,
    buffer: Vec<u8>,
    used: usize,
    /// Bytes of the image before the buffer.
    before: u64,
}

impl Feed {
    /// Bytes taken or skipped so far.
    pub fn position(&self) -> u64 {
        self.before + self.used as u64
    }

    /// Skips to `offset`, which is not behind.
    pub fn skip_to(&mut self, offset: u64) -> Result<(), Closed> {
        let len = offset.saturating_sub(self.position());
        if len > 0 {
            self.flush()?;
            self.chunks.send(Chunk::Skip(len)).map_err(|_| Closed)?;
            self.before += len;
        }
        Ok(())
    }

    /// A block of zero bytes, for the caller to fill.
    pub fn block(&mut self) -> Result<&mut [u8], Closed> {
        let used = self.room()?.len().min(BLOCK);
        let start = self.used;
        self.used += used;
        let block = &mut self.buffer[start..self.used];
        block.fill(0);
        Ok(block)
    }

    /// Room for bytes of any value, at least a block. What has been put there is told by
    /// [`Feed::took`].
    pub fn room(&mut self) -> Result<&mut [u8], Closed> {
        if self.used == self.buffer.len() {
            self.flush()?;
        }
        Ok(&mut self.buffer[self.used..])
    }

    /// Counts bytes at the start of the room as taken, and fills the block they end in with zero.
    pub fn took(&mut self, len: usize) {
        let end = self.used + len;
        self.used = end.next_multiple_of(BLOCK).min(self.buffer.len());
        self.buffer[end..self.used].fill(0);
    }

    /// Sends what is in the buffer and takes an empty one.
    fn flush(&mut self) -> Result<(), Closed> {
        if self.used > 0 {
            let empty = self.spare.recv().map_err(|_| Closed)?;
            let full = std::mem::replace(&mut self.buffer, empty);
            self.chunks.send(Chunk::Data(full, self.used)).map_err(|_| Closed)?;
            self.before += self.used as u64;
            self.used = 0;
        }
        Ok(())
    }
}

/// Why [`run`] has ended early.
#[derive(Debug)]
pub(super) enum Fault<E> {
    /// What fills the buffers has failed.
    Source(E),
    /// The sink has failed, at this many bytes from the start.
    Sink(u64, io::Error),
}

/// An error of the source, or the sink's end.
#[derive(Debug)]
pub(super) enum Stop<E> {
    Source(E),
    Closed,
}

impl<E> From<Closed> for Stop<E> {
    fn from(_: Closed) -> Stop<E> {
        Stop::Closed
    }
}

/// Runs `fill` in a thread of its own and gives what it makes to `sink` in this one.
pub(super) fn run<E: Send>(
    sink: &mut dyn ImageSink,
    fill: impl FnOnce(&mut Feed) -> Result<(), Stop<E>> + Send,
) -> Result<(), Fault<E>> {
    let (chunks, taken) = sync_channel(BUFFERS);
    let (give_back, spare) = channel();
    for _ in 1..BUFFERS {
        // The other end is in this function: it is there.
        let _ = give_back.send(vec![0; BUFFER]);
    }
    let mut feed = Feed { chunks, spare, buffer: vec![0; BUFFER], used: 0, before: 0 };
    thread::scope(|scope| {
        let filler = thread::Builder::new().name("ext4".into()).spawn_scoped(scope, move || {
            fill(&mut feed)?;
            Ok(feed.flush()?)
        });
        let filler = filler.map_err(|e| Fault::Sink(0, e))?;
        let drained = drain(sink, taken, &|buffer| {
            // Nobody waits for it when the filler has ended.
            let _ = give_back.send(buffer);
        });
        drop(give_back);
        match (filler.join(), drained) {
            (Err(panicked), _) => panic::resume_unwind(panicked),
            (Ok(Err(Stop::Source(error))), _) => Err(Fault::Source(error)),
            (_, Err((at, error))) => Err(Fault::Sink(at, error)),
            (Ok(Ok(()) | Err(Stop::Closed)), Ok(())) => Ok(()),
        }
    })
}

fn drain(
    sink: &mut dyn ImageSink,
    taken: Receiver<Chunk>,
    give_back: &dyn Fn(Vec<u8>),
) -> Result<(), (u64, io::Error)> {
    let start = sink.position();
    for chunk in taken {
        let at = sink.position() - start;
        match chunk {
            Chunk::Data(buffer, used) => {
                sink.data(&buffer[..used]).map_err(|e| (at, e))?;
                give_back(buffer);
            }
            Chunk::Skip(len) => sink.skip(len).map_err(|e| (at, e))?,
        }
    }
    Ok(())
}
