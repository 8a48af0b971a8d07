//! Compares a medium with the bytes that it should have.
//! Must not know: what the bytes are.
//!
//! The bytes are made again from the trees: no digest stands between what was meant and what is there, and the
//! first byte that differs has a place.

use std::io;

use super::medium::{Buffer, Medium};
use super::pieces::Worker;

/// The first difference.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("byte {at} is {found:#04x}, and {wanted:#04x} was written")]
pub struct Differs {
    /// Bytes from the start of the medium.
    pub at: u64,
    /// What is there.
    pub found: u8,
    /// What should be.
    pub wanted: u8,
    /// Bytes before it that were compared and equal.
    pub equal: u64,
}

/// Reads from the medium what it is given.
pub struct Compare<'m> {
    medium: &'m Medium,
    buffer: Buffer,
    compared: u64,
}

impl<'m> Compare<'m> {
    /// Begins.
    pub fn new(medium: &'m Medium) -> Compare<'m> {
        Compare { medium, buffer: Buffer::default(), compared: 0 }
    }
}

impl Worker for Compare<'_> {
    /// Bytes that were equal.
    type Done = u64;

    fn piece(&mut self, start: u64, piece: &Buffer) -> io::Result<()> {
        let wanted = piece.bytes();
        let found = self.medium.read(start, wanted.len(), &mut self.buffer)?;
        if found != wanted {
            let pair = (start..).zip(found.iter().zip(wanted)).find(|(_, (found, wanted))| found != wanted);
            if let Some((at, (&found, &wanted))) = pair {
                let equal = self.compared + (at - start);
                return Err(io::Error::other(Differs { at, found, wanted, equal }));
            }
        }
        self.compared += wanted.len() as u64;
        Ok(())
    }

    fn finish(self) -> io::Result<u64> {
        Ok(self.compared)
    }
}
