//! What stands in place of a partition table while a card is being written: that it is not complete, whose it
//! will be, and how far the writing is known to have come.
//! Must not know: how anything is written.
//!
//! ```text
//! 0    16  "gt-image flash 2"
//! 16   32  digest of what is being written
//! 48   8   bytes from the start that were synced, little-endian
//! 56   8   where the state begins that is kept, in bytes from the start; 0 for none
//! 64   8   its bytes
//! 72   32  SHA-256 of the 72 bytes before
//! 104      zeros; no 55 aa at 510, so that nothing boots from it or sees a table
//! ```
//!
//! On the card, not beside the store: a card that is taken to another machine goes on there.

use crate::digest::Digest;

const MAGIC: &[u8; 16] = b"gt-image flash 2";
/// Bytes of a marker.
pub const LEN: usize = 4096;
/// Bytes of it before their digest.
const HEAD: usize = 72;

/// What is known of a card that is not complete.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Marker {
    /// What is being written.
    pub what: Digest,
    /// Bytes from the start that are known to be on the medium.
    pub synced: u64,
    /// Start and size of a node's state that stays: no table has its place meanwhile.
    pub kept: Option<(u64, u64)>,
}

impl Marker {
    /// The marker's bytes.
    pub fn write(&self) -> Vec<u8> {
        let (start, size) = self.kept.unwrap_or_default();
        let numbers = [self.synced, start, size].map(u64::to_le_bytes).concat();
        let mut bytes = [&MAGIC[..], self.what.bytes(), &numbers].concat();
        let check = Digest::of(&bytes);
        bytes.extend_from_slice(check.bytes());
        bytes.resize(LEN, 0);
        bytes
    }

    /// The marker that these first bytes of a card are.
    pub fn read(bytes: &[u8]) -> Option<Marker> {
        let (head, rest) = bytes.split_at_checked(HEAD)?;
        if !head.starts_with(MAGIC) || rest.get(..32)? != Digest::of(head).bytes() {
            return None;
        }
        let number = |at: usize| head.get(at..)?.first_chunk().map(|le| u64::from_le_bytes(*le));
        let what = Digest::from(*head.get(16..)?.first_chunk::<32>()?);
        let kept = Some((number(56)?, number(64)?)).filter(|(start, _)| *start > 0);
        Some(Marker { what, synced: number(48)?, kept })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn only_a_whole_marker_counts() {
        for kept in [None, Some((1 << 30, 1 << 25))] {
            let marker = Marker { what: Digest::of(b"1"), synced: 77, kept };
            let bytes = marker.write();
            assert_eq!(Marker::read(&bytes), Some(marker));
            assert_ne!(bytes[510..512], [0x55, 0xaa]);
            for at in 0..HEAD + 32 {
                let mut bad = bytes.clone();
                bad[at] ^= 1;
                assert_eq!(Marker::read(&bad), None, "byte {at}");
            }
        }
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..120)) {
            Marker::read(&bytes);
        }
    }
}
