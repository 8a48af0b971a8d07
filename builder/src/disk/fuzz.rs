//! Readers of disk images, one function each, for fuzzers and property tests alike: the bytes may be anything.
//! Must not know: the fuzzer.
//! Spec: the promise of each function stands above it.

use std::io;

use super::read::partitions;
use crate::io::at::ReadAt;
use crate::io::progress::{Progress, Unit};
use crate::store::Store;
use crate::tree::dump;
use crate::{ext4, fat};

/// Bytes with zeros after them, as many as a small card has: a fuzzer need not make those up.
struct Padded<'a>(&'a [u8]);

impl ReadAt for Padded<'_> {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        if offset.checked_add(buffer.len() as u64).is_none_or(|end| end > self.size()) {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let start = usize::try_from(offset).unwrap_or(usize::MAX).min(self.0.len());
        let len = buffer.len().min(self.0.len() - start);
        buffer[..len].copy_from_slice(&self.0[start..start + len]);
        buffer[len..].fill(0);
        Ok(())
    }

    fn size(&self) -> u64 {
        (self.0.len() as u64).max(8 << 20)
    }
}

/// No bytes panic the reader of partition tables, and partitions lie in the image.
pub fn table(data: &[u8]) {
    for found in partitions(&Padded(data)).unwrap_or_default() {
        assert!(found.start + found.size <= Padded(data).size(), "a partition beyond the image");
    }
}

/// No bytes panic the reader of ext4, and a tree that comes of them is written and read back as it is.
pub fn ext4(data: &[u8]) {
    let Some((_dir, store)) = scratch() else { return };
    let task = Progress::off().task("reading", Unit::Bytes, None);
    if let Ok(tree) = ext4::read::into_tree(&Padded(data), &store, &task) {
        assert!(dump::read(dump::write(&tree).as_bytes()).is_ok_and(|again| again == tree), "another tree");
    }
}

/// As [`ext4()`], for FAT.
pub fn fat(data: &[u8]) {
    let Some((_dir, store)) = scratch() else { return };
    if let Ok(tree) = fat::read::into_tree(&Padded(data), &store) {
        assert!(dump::read(dump::write(&tree).as_bytes()).is_ok_and(|again| again == tree), "another tree");
    }
}

fn scratch() -> Option<(tempfile::TempDir, Store)> {
    let dir = tempfile::tempdir().ok()?;
    let store = Store::open(dir.path()).ok()?;
    Some((dir, store))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(40))]
        #[test]
        fn no_bytes_panic(data in proptest::collection::vec(any::<u8>(), 0..4096)) {
            super::table(&data);
            super::ext4(&data);
            super::fat(&data);
        }
    }
}
