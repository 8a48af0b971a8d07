//! Compares a medium with the bytes that it should have.
//! Must not know: what the bytes are.
//!
//! The bytes are made again from the trees: no digest stands between what was meant and what is there, and the
//! first byte that differs has a place.

use std::io;

use super::medium::{Buffer, Medium, PIECE};
use super::writer::{Bounds, split};
use crate::disk::Backend;

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
}

/// Takes a disk's bytes in order and reads the same from the medium.
pub struct Compare<'m> {
    medium: &'m Medium,
    /// Where data is; the table is left out. Nothing to compare all.
    bounds: Option<Bounds>,
    buffer: Buffer,
    /// Bytes that were equal.
    pub compared: u64,
}

impl<'m> Compare<'m> {
    /// Begins.
    pub fn new(medium: &'m Medium, bounds: Option<Bounds>) -> Compare<'m> {
        Compare { medium, bounds, buffer: Buffer::default(), compared: 0 }
    }
}

impl Backend for Compare<'_> {
    fn data(&mut self, mut at: u64, bytes: &[u8]) -> io::Result<()> {
        let data = self.bounds.map_or(bytes, |bounds| split(bounds, at, bytes).0);
        for wanted in data.chunks(PIECE) {
            let found = self.medium.read(at, wanted.len(), &mut self.buffer)?;
            if found != wanted {
                let pair = (at..).zip(found.iter().zip(wanted)).find(|(_, (found, wanted))| found != wanted);
                let Some((at, (&found, &wanted))) = pair else { continue };
                return Err(io::Error::other(Differs { at, found, wanted }));
            }
            at += wanted.len() as u64;
            self.compared += wanted.len() as u64;
        }
        Ok(())
    }

    fn hole(&mut self, _: u64) -> io::Result<()> {
        Ok(())
    }

    fn finish(&mut self, _: u64) -> io::Result<()> {
        Ok(())
    }
}
