//! Where an image goes, front to back: the one interface between the writers of filesystem images
//! and whatever takes their bytes (a sparse file, a compressor, a card).
//! Must not know: filesystem formats, partition tables.

use std::io::{self, Write};

/// Takes an image strictly in order. What is skipped reads as zero bytes later.
pub trait ImageSink {
    /// The next bytes of the image.
    fn data(&mut self, bytes: &[u8]) -> io::Result<()>;

    /// `len` bytes of zero that need not be stored.
    fn skip(&mut self, len: u64) -> io::Result<()>;

    /// Bytes taken so far, skipped ones included.
    fn position(&self) -> u64;

    /// Skips forward to `offset` bytes from the start of this sink.
    fn skip_to(&mut self, offset: u64) -> io::Result<()> {
        let here = self.position();
        match offset.checked_sub(here) {
            Some(0) => Ok(()),
            Some(len) => self.skip(len),
            None => Err(io::Error::other(format!(
                "the image is written in order: offset {offset} is behind position {here}"
            ))),
        }
    }
}

/// Adapts any [`Write`], holes written out as zero bytes. For tests and small images.
#[derive(Debug)]
pub struct Plain<W> {
    inner: W,
    position: u64,
}

impl<W: Write> Plain<W> {
    /// Starts at position 0.
    pub fn new(inner: W) -> Plain<W> {
        Plain { inner, position: 0 }
    }

    /// The writer, with all bytes in it.
    pub fn into_inner(self) -> W {
        self.inner
    }
}

impl<W: Write> ImageSink for Plain<W> {
    fn data(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.inner.write_all(bytes)?;
        self.position += bytes.len() as u64;
        Ok(())
    }

    fn skip(&mut self, len: u64) -> io::Result<()> {
        io::copy(&mut io::Read::take(io::repeat(0), len), &mut self.inner)?;
        self.position += len;
        Ok(())
    }

    fn position(&self) -> u64 {
        self.position
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn skips_are_zero_bytes_and_never_go_back() {
        let mut sink = Plain::new(Vec::new());
        sink.data(b"ab").unwrap();
        sink.skip_to(4).unwrap();
        sink.data(b"c").unwrap();
        assert!(sink.skip_to(3).is_err());
        assert_eq!(sink.position(), 5);
        assert_eq!(sink.into_inner(), b"ab\0\0c");
    }
}
