//! File handles: which inode of which export, sealed for one node.
//! Must not know: whether the export is still served.
//! Spec: RFC 1813 section 2.3.3 leaves the content to the server.
//!
//! | bytes | content |
//! |---|---|
//! | 0 | version of this layout: 1 |
//! | 1..17 | export |
//! | 17..25 | inode, big-endian |
//! | 25..32 | HMAC-SHA-256 of bytes 0..25 and the node's name, its first 7 bytes |
//!
//! A handle says the same to each server that has the key, so it survives restarts and moves. It has
//! 32 bytes, because MOUNT version 1 knows no other length. 56 bits of seal can only be guessed by
//! asking the server from the node's own address, and what a right guess opens is one inode of the
//! node's own root.

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

use crate::nfs::{ExportId, FileId};

/// Bytes of each handle.
pub const HANDLE_SIZE: usize = 32;

const VERSION: u8 = 1;
const SEALED: usize = 25;

/// A handle as it stands on the wire.
pub type Handle = [u8; HANDLE_SIZE];

/// Makes and checks handles. The key's two hash states are kept, so a check costs two compressions.
#[derive(Clone)]
pub struct Seal {
    keyed: Hmac<Sha256>,
}

impl Seal {
    /// With the server's key, which must outlive the server: a new one ends every mounted root.
    pub fn new(key: &[u8; 32]) -> Seal {
        // Cannot fail: HMAC takes keys of every length.
        #[expect(clippy::unwrap_used, reason = "see above")]
        Seal { keyed: Hmac::new_from_slice(key).unwrap() }
    }

    fn mac(&self, node: &str, sealed: &[u8]) -> Hmac<Sha256> {
        self.keyed.clone().chain_update(sealed).chain_update(node)
    }

    /// The handle of an inode for `node`.
    pub fn seal(&self, node: &str, export: ExportId, file: FileId) -> Handle {
        let mut handle = [0; HANDLE_SIZE];
        handle[0] = VERSION;
        handle[1..17].copy_from_slice(&export.0);
        handle[17..SEALED].copy_from_slice(&file.0.to_be_bytes());
        let mac = self.mac(node, &handle[..SEALED]).finalize().into_bytes();
        handle[SEALED..].copy_from_slice(&mac[..HANDLE_SIZE - SEALED]);
        handle
    }

    /// What a handle names; `None` if this server did not make it for `node`.
    pub fn open(&self, node: &str, handle: &[u8]) -> Option<(ExportId, FileId)> {
        let handle: &Handle = handle.try_into().ok()?;
        let (sealed, mac) = handle.split_at(SEALED);
        self.mac(node, sealed).verify_truncated_left(mac).ok()?;
        let (export, file) = sealed.split_first().filter(|(version, _)| **version == VERSION)?.1.split_at(16);
        Some((ExportId(export.try_into().ok()?), FileId(u64::from_be_bytes(file.try_into().ok()?))))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const EXPORT: ExportId = ExportId(*b"generation fenn1");

    #[test]
    fn handles_of_another_node_key_or_length_are_nothing() {
        let seal = Seal::new(&[7; 32]);
        let handle = seal.seal("fenn", EXPORT, FileId(9));
        assert_eq!(Seal::new(&[7; 32]).open("fenn", &handle), Some((EXPORT, FileId(9))), "after a restart");
        assert_eq!(seal.open("karstark", &handle), None);
        assert_eq!(Seal::new(&[8; 32]).open("fenn", &handle), None);
        assert_eq!(seal.open("fenn", &handle[..31]), None);
        assert_eq!(seal.open("fenn", &[&handle[..], &[0]].concat()), None);
        assert_eq!(seal.open("fenn", &[]), None);
    }

    #[test]
    fn the_layout_is_for_ever() {
        let handle = Seal::new(&[0; 32]).seal("fenn", EXPORT, FileId(0x0102));
        assert_eq!(handle[..SEALED], *b"\x01generation fenn1\0\0\0\0\0\0\x01\x02");
        // By Python's hmac.new(bytes(32), handle[:25] + b"fenn", "sha256").
        assert_eq!(handle[SEALED..], HMAC_BY_PYTHON);
    }

    const HMAC_BY_PYTHON: [u8; 7] = [0x15, 0xed, 0x2b, 0xf0, 0x43, 0x7b, 0x27];

    proptest! {
        #[test]
        fn what_is_sealed_is_opened(key: [u8; 32], export: [u8; 16], file: u64, node in "[a-z]{1,20}") {
            let seal = Seal::new(&key);
            let handle = seal.seal(&node, ExportId(export), FileId(file));
            prop_assert_eq!(seal.open(&node, &handle), Some((ExportId(export), FileId(file))));
        }

        #[test]
        fn one_bit_breaks_it(file: u64, bit in 0usize..256) {
            let seal = Seal::new(&[7; 32]);
            let mut handle = seal.seal("fenn", EXPORT, FileId(file));
            handle[bit / 8] ^= 1 << (bit % 8);
            prop_assert_eq!(seal.open("fenn", &handle), None);
        }
    }
}
