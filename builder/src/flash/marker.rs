//! What stands in place of a partition table while a card is being written: that it is not complete, whose it
//! will be, and how far the writing is known to have come.
//! Must not know: how anything is written.
//!
//! ```text
//! 0    16  "gt-image flash 1"
//! 16   32  digest of what is being written
//! 48   8   bytes from the start that were synced, little-endian
//! 56   32  SHA-256 of the 56 bytes before
//! 88       zeros; no 55 aa at 510, so that nothing boots from it or sees a table
//! ```
//!
//! On the card, not beside the store: a card that is taken to another machine goes on there.

use crate::digest::Digest;

const MAGIC: &[u8; 16] = b"gt-image flash 1";
/// Bytes of a marker.
pub const LEN: usize = 4096;

/// The marker's bytes.
pub fn write(what: &Digest, synced: u64) -> Vec<u8> {
    let mut bytes = [&MAGIC[..], what.bytes(), &synced.to_le_bytes()].concat();
    let check = Digest::of(&bytes);
    bytes.extend_from_slice(check.bytes());
    bytes.resize(LEN, 0);
    bytes
}

/// How far the writing of `what` had come, if these are the first bytes of a card on which it began.
pub fn read(bytes: &[u8], what: &Digest) -> Option<u64> {
    let (head, rest) = bytes.split_at_checked(56)?;
    let valid = head.starts_with(MAGIC)
        && head.get(16..48)? == what.bytes()
        && rest.get(..32)? == Digest::of(head).bytes();
    valid.then(|| head.last_chunk::<8>().map(|le| u64::from_le_bytes(*le)))?
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn only_a_whole_marker_of_the_same_work_counts() {
        let (one, other) = (Digest::of(b"1"), Digest::of(b"2"));
        let bytes = write(&one, 77);
        assert_eq!((read(&bytes, &one), read(&bytes, &other)), (Some(77), None));
        assert_ne!(bytes[510..512], [0x55, 0xaa]);
        for at in 0..88 {
            let mut bad = bytes.clone();
            bad[at] ^= 1;
            assert_eq!(read(&bad, &one), None, "byte {at}");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..120)) {
            read(&bytes, &Digest::of(b""));
        }
    }
}
