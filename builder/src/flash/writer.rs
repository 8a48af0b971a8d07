//! Puts pieces on a medium, and notes there how far it has come.
//! Must not know: what the bytes are, where the partition table is.
//! Spec: design.md section 13.

use std::io;

use super::marker::Marker;
use super::medium::{Buffer, Medium};
use super::pieces::Worker;

/// How often the marker says how far the writing has come. A sync empties the card's own buffer, which at
/// 25 MB/s costs a hundredth of the time at this distance.
const SYNC_EVERY: u64 = 256 << 20;

/// What was done.
#[derive(Debug, Default, Clone, Copy)]
pub struct Done {
    /// Bytes that were written.
    pub written: u64,
    /// Bytes that were there already, from a run before.
    pub reused: u64,
}

/// Writes what it is given.
pub struct Writer<'m> {
    medium: &'m Medium,
    marker: Marker,
    done: Done,
    old: Buffer,
    since_sync: u64,
}

impl<'m> Writer<'m> {
    /// Begins. What was synced by a run before, as the marker says, is compared and written only where it differs.
    pub fn new(medium: &'m Medium, marker: Marker) -> Writer<'m> {
        Writer { medium, marker, done: Done::default(), old: Buffer::default(), since_sync: 0 }
    }
}

impl Worker for Writer<'_> {
    type Done = Done;

    fn piece(&mut self, at: u64, piece: &Buffer) -> io::Result<()> {
        let Writer { medium, marker, .. } = self;
        let bytes = piece.bytes();
        let len = bytes.len() as u64;
        // A sector that cannot be read is written again.
        let there = at + len <= marker.synced
            && medium.read(at, bytes.len(), &mut self.old).is_ok_and(|old| old == bytes);
        if there {
            self.done.reused += len;
        } else {
            // So that the next run need not begin anew; a medium that is gone takes no note.
            medium.write(at, piece).inspect_err(|_| {
                let _ = medium.sync().and_then(|()| mark(medium, &Marker { synced: at, ..*marker }));
            })?;
            self.done.written += len;
            self.since_sync += len;
        }
        if self.since_sync >= SYNC_EVERY {
            self.since_sync = 0;
            medium.sync()?;
            mark(medium, &Marker { synced: at + len, ..*marker })?;
        }
        Ok(())
    }

    fn finish(self) -> io::Result<Done> {
        self.medium.sync()?;
        mark(self.medium, &Marker { synced: self.medium.size, ..self.marker })?;
        self.medium.sync()?;
        Ok(self.done)
    }
}

/// Notes on the medium how far the writing has come.
pub fn mark(medium: &Medium, marker: &Marker) -> io::Result<()> {
    let mut buffer = Buffer::default();
    buffer.push(&marker.write());
    medium.write(0, &buffer)
}
