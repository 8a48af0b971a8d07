//! Digests of the mapped ranges, taken by a thread of their own while the image is written.
//! Must not know: files, partitions.
//! Spec: FIPS 180-4.

use std::io;
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::thread::{self, JoinHandle};

use sha2::{Digest as _, Sha256};

use super::bmap::{BLOCK, Range};
use crate::digest::Digest;

/// Buffers on their way or waiting: enough that neither side waits for the other's small delays,
/// few enough that they stay in the processor's cache.
const IN_FLIGHT: usize = 4;
/// Bytes of a buffer.
pub(super) const BUFFER: usize = 512 * 1024;

enum Job {
    /// The next bytes of a range.
    Bytes(Vec<u8>),
    /// The range ends; it began at this block.
    End { first: u64 },
}

/// Takes buffers in order and gives empty ones back.
pub(super) struct Hasher {
    jobs: SyncSender<Job>,
    empty: Receiver<Vec<u8>>,
    thread: JoinHandle<Vec<Range>>,
}

impl Hasher {
    pub fn start() -> io::Result<Hasher> {
        let (jobs, work) = sync_channel(IN_FLIGHT);
        let (back, empty) = channel();
        let thread = thread::Builder::new().name("digest".into()).spawn(move || run(&work, &back))?;
        Ok(Hasher { jobs, empty, thread })
    }

    /// An empty buffer, an old one if there is one.
    pub fn buffer(&self) -> Vec<u8> {
        self.empty.try_recv().unwrap_or_else(|_| Vec::with_capacity(BUFFER))
    }

    /// Adds bytes to the range.
    pub fn bytes(&self, bytes: Vec<u8>) -> io::Result<()> {
        self.send(Job::Bytes(bytes))
    }

    /// Ends the range that began at block `first`.
    pub fn end(&self, first: u64) -> io::Result<()> {
        self.send(Job::End { first })
    }

    /// All ranges in order, when every job is done.
    pub fn finish(self) -> io::Result<Vec<Range>> {
        drop(self.jobs);
        self.thread.join().map_err(|_| gone())
    }

    fn send(&self, job: Job) -> io::Result<()> {
        self.jobs.send(job).map_err(|_| gone())
    }
}

fn gone() -> io::Error {
    io::Error::other("the thread that takes digests has ended early")
}

fn run(jobs: &Receiver<Job>, back: &Sender<Vec<u8>>) -> Vec<Range> {
    let mut ranges = Vec::new();
    let mut hasher = Sha256::new();
    let mut len = 0u64;
    for job in jobs {
        match job {
            Job::Bytes(mut bytes) => {
                hasher.update(&bytes);
                len += bytes.len() as u64;
                bytes.clear();
                // Nobody wants it back once the image is complete.
                let _ = back.send(bytes);
            }
            Job::End { first } => {
                let digest = Digest::from(<[u8; 32]>::from(hasher.finalize_reset()));
                let blocks = len.div_ceil(BLOCK).max(1);
                ranges.push(Range { first, last: first + blocks - 1, digest });
                len = 0;
            }
        }
    }
    ranges
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_come_back_in_order_with_their_digests() {
        let hasher = Hasher::start().unwrap();
        for (first, pieces) in [(0, &[4096usize, 8192][..]), (9, &[100])] {
            for len in pieces {
                let mut buffer = hasher.buffer();
                buffer.resize(*len, 7);
                hasher.bytes(buffer).unwrap();
            }
            hasher.end(first).unwrap();
        }
        let want = |first, last, len| Range { first, last, digest: Digest::of(&vec![7; len]) };
        assert_eq!(hasher.finish().unwrap(), [want(0, 2, 12_288), want(9, 9, 100)]);
    }
}
