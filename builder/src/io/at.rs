//! Reading at any place of something that does not change: a disk image, or a partition in it.
//! Must not know: what the bytes mean.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

/// Bytes that can be read at any offset, by several threads at once.
pub trait ReadAt: Sync {
    /// Fills `buffer` with the bytes at `offset`; an error when there are fewer.
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()>;

    /// How many bytes there are.
    fn size(&self) -> u64;
}

impl ReadAt for &[u8] {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        let start = usize::try_from(offset).map_err(|_| io::ErrorKind::UnexpectedEof)?;
        let end = start.checked_add(buffer.len()).ok_or(io::ErrorKind::UnexpectedEof)?;
        buffer.copy_from_slice(self.get(start..end).ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn size(&self) -> u64 {
        self.len() as u64
    }
}

/// A part of a file.
#[derive(Debug, Clone, Copy)]
pub struct Window<'f> {
    file: &'f File,
    start: u64,
    size: u64,
}

impl<'f> Window<'f> {
    /// The bytes of `file` from `start` on, `size` of them.
    pub fn new(file: &'f File, start: u64, size: u64) -> Window<'f> {
        Window { file, start, size }
    }
}

impl ReadAt for Window<'_> {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        let end = offset.checked_add(buffer.len() as u64);
        if end.is_none_or(|end| end > self.size) {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let at = self.start.checked_add(offset).ok_or(io::ErrorKind::UnexpectedEof)?;
        self.file.read_exact_at(buffer, at)
    }

    fn size(&self) -> u64 {
        self.size
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn nothing_beyond_the_end_is_read() {
        let bytes = b"0123456789";
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(bytes).unwrap();
        let window = Window::new(&file, 2, 5);
        let slice: &[u8] = &bytes[2..7];
        for from in [&window as &dyn ReadAt, &slice as &dyn ReadAt] {
            assert_eq!(from.size(), 5);
            let mut three = [0; 3];
            from.read_at(&mut three, 2).unwrap();
            assert_eq!(&three, b"456");
            for offset in [3, 5, u64::MAX, u64::MAX - 1] {
                assert!(from.read_at(&mut three, offset).is_err(), "{offset}");
            }
        }
    }
}
