//! SHA-256 digests: the identity of content everywhere in gt-image.
//! Must not know: what is digested.
//! Spec: FIPS 180-4; text form `sha256:` and 64 lower-case hex digits in our own files, bare hex in
//! formats that are others' (Packages files, SPDX).

use std::fmt;
use std::io::{self, Read};
use std::str::FromStr;

use sha2::{Digest as _, Sha256};

/// A SHA-256 digest of some bytes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest([u8; 32]);

/// A digest could not be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{found}` is no SHA-256 digest: 64 hex digits are wanted")]
pub struct DigestError {
    found: String,
}

impl Digest {
    /// The digest of `bytes`.
    pub fn of(bytes: &[u8]) -> Digest {
        Digest(Sha256::digest(bytes).into())
    }

    /// The digest of all that `reader` gives.
    pub fn of_reader(reader: &mut impl Read) -> io::Result<Digest> {
        let (mut hash, mut buffer) = (Sha256::new(), vec![0; 1 << 17]);
        loop {
            match reader.read(&mut buffer) {
                Ok(0) => return Ok(Digest(hash.finalize().into())),
                Ok(got) => hash.update(buffer.get(..got).unwrap_or_default()),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
    }

    /// The raw 32 bytes.
    pub fn bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// 64 lower-case hex digits without a prefix.
    pub fn hex(&self) -> String {
        String::from_utf8_lossy(&self.hex_digits()).into_owned()
    }

    /// Adds what `Display` shows.
    pub fn push_to(&self, text: &mut String) {
        text.push_str("sha256:");
        text.push_str(str::from_utf8(&self.hex_digits()).unwrap_or_default());
    }

    // A tree's text has one for each file: formatting byte by byte was a quarter of a build's time.
    fn hex_digits(&self) -> [u8; 64] {
        const DIGITS: [u8; 16] = *b"0123456789abcdef";
        let mut text = [0; 64];
        for (pair, byte) in text.chunks_exact_mut(2).zip(self.0) {
            pair[0] = DIGITS[usize::from(byte >> 4)];
            pair[1] = DIGITS[usize::from(byte & 15)];
        }
        text
    }
}

impl From<[u8; 32]> for Digest {
    fn from(raw: [u8; 32]) -> Digest {
        Digest(raw)
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("sha256:")?;
        f.write_str(str::from_utf8(&self.hex_digits()).unwrap_or_default())
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Reads both forms, with and without `sha256:`.
impl FromStr for Digest {
    type Err = DigestError;

    fn from_str(text: &str) -> Result<Digest, DigestError> {
        let wrong = || DigestError { found: text.chars().take(80).collect() };
        let hex = text.strip_prefix("sha256:").unwrap_or(text).as_bytes();
        if hex.len() != 64 {
            return Err(wrong());
        }
        let mut raw = [0; 32];
        for (byte, pair) in raw.iter_mut().zip(hex.chunks_exact(2)) {
            let digit = |c: u8| match c {
                b'0'..=b'9' => Some(c - b'0'),
                b'a'..=b'f' => Some(c - b'a' + 10),
                b'A'..=b'F' => Some(c - b'A' + 10),
                _ => None,
            };
            let (Some(high), Some(low)) = (digit(pair[0]), digit(pair[1])) else {
                return Err(wrong());
            };
            *byte = high << 4 | low;
        }
        Ok(Digest(raw))
    }
}

impl serde::Serialize for Digest {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

impl<'de> serde::Deserialize<'de> for Digest {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Digest, D::Error> {
        let text = std::borrow::Cow::<str>::deserialize(d)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// Digests a sequence of fields so that no two different sequences give the same bytes: each field
/// is preceded by its length. Keys of cached layers and generations are made with it.
#[derive(Clone, Debug, Default)]
pub struct Key(Sha256);

impl Key {
    /// A key for one purpose, such as `"layer 1"`; change the name when the meaning changes.
    pub fn new(purpose: &str) -> Key {
        Key::default().with(purpose.as_bytes())
    }

    /// Adds one field.
    #[must_use]
    pub fn with(mut self, field: &[u8]) -> Key {
        self.0.update((field.len() as u64).to_le_bytes());
        self.0.update(field);
        self
    }

    /// The digest of all fields.
    pub fn finish(self) -> Digest {
        Digest(self.0.finalize().into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_forms_are_read_back() {
        let d = Digest::of(b"abc");
        assert_eq!(d.to_string().parse::<Digest>().unwrap(), d);
        assert_eq!(d.hex().to_uppercase().parse::<Digest>().unwrap(), d);
        // FIPS 180-2, appendix B.1.
        assert!(d.hex().starts_with("ba7816bf8f01cfea"));
        for bad in ["", "sha256:", "xyz", &d.hex()[1..], &format!("{}0", d.hex()), &"é".repeat(32)] {
            assert!(bad.parse::<Digest>().is_err(), "{bad}");
        }
    }

    #[test]
    fn fields_cannot_run_into_each_other() {
        let a = Key::new("t").with(b"ab").with(b"c").finish();
        let b = Key::new("t").with(b"a").with(b"bc").finish();
        assert_ne!(a, b);
    }
}
