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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::sink::Plain;
    use std::io::Write;

    type Filled = Result<(), Stop<&'static str>>;

    fn bytes(fill: impl FnOnce(&mut Feed) -> Filled + Send) -> Vec<u8> {
        let mut sink = Plain::new(Vec::new());
        run(&mut sink, fill).unwrap();
        sink.into_inner()
    }

    #[test]
    fn bytes_arrive_in_order_with_gaps_of_zero() {
        let out = bytes(|feed| {
            feed.block()?[0] = 1;
            feed.skip_to(3 * BLOCK as u64)?;
            feed.room()?[..3].fill(2);
            feed.took(3);
            assert_eq!(feed.position(), 4 * BLOCK as u64);
            feed.block()?[BLOCK - 1] = 3;
            Ok(feed.skip_to(6 * BLOCK as u64)?)
        });
        let at: Vec<(usize, u8)> = out.iter().copied().enumerate().filter(|(_, b)| *b != 0).collect();
        let b = BLOCK;
        assert_eq!(at, [(0, 1), (3 * b, 2), (3 * b + 1, 2), (3 * b + 2, 2), (5 * b - 1, 3)]);
        assert_eq!(out.len(), 6 * b);
    }

    #[test]
    fn buffers_are_used_again_without_what_was_in_them() {
        let out = bytes(|feed| {
            for _ in 0..3 * BUFFERS {
                let room = feed.room()?;
                room.fill(0xff);
                let len = room.len();
                feed.took(len);
            }
            for _ in 0..3 * BUFFERS {
                feed.room()?[0] = 1;
                feed.took(1);
                feed.block()?;
            }
            Ok(())
        });
        let (full, rest) = out.split_at(3 * BUFFERS * BUFFER);
        assert!(full.iter().all(|&b| b == 0xff));
        assert_eq!(rest.iter().map(|&b| u64::from(b)).sum::<u64>(), 3 * BUFFERS as u64);
    }

    #[test]
    fn errors_of_either_side_end_both() {
        let mut sink = Plain::new(Vec::new());
        let fault = run(&mut sink, |_| Err(Stop::Source("source"))).unwrap_err();
        assert!(matches!(fault, Fault::Source("source")));

        struct Full(usize);
        impl Write for Full {
            fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
                self.0 = self.0.checked_sub(bytes.len()).ok_or_else(|| io::Error::other("full"))?;
                Ok(bytes.len())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let mut sink = Plain::new(Full(3 * BUFFER));
        let endless = |feed: &mut Feed| -> Filled {
            loop {
                feed.block()?;
            }
        };
        let fault = run(&mut sink, endless).unwrap_err();
        assert!(matches!(fault, Fault::Sink(at, _) if at == 3 * BUFFER as u64), "{fault:?}");
    }
}
