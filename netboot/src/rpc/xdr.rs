//! XDR: a reader that borrows from the message and a writer that appends to a buffer used again.
//! Must not know: what the items mean.
//! Spec: RFC 4506. All items are big-endian and fill units of 4 bytes.

/// What is wrong with an item. The places are bytes from the start of what the reader was given.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum XdrError {
    /// The message ends inside the item.
    #[error("the message ends at byte {at}, where {want} more are due")]
    Truncated {
        /// Where the item begins.
        at: usize,
        /// Bytes that the item needs.
        want: usize,
    },
    /// A length, or a count, is over the item's limit.
    #[error("length {found} at byte {at} is over the limit of {limit}")]
    TooLong {
        /// Where the length stands.
        at: usize,
        /// The length.
        found: u32,
        /// What the protocol allows.
        limit: usize,
    },
    /// A boolean that is neither 0 nor 1.
    #[error("{found} at byte {at} is no boolean")]
    NoBoolean {
        /// Where it stands.
        at: usize,
        /// Its value.
        found: u32,
    },
}

/// Reads items one after another. It never copies and never allocates.
#[derive(Clone, Debug)]
pub struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    /// A reader at the first byte.
    pub fn new(bytes: &'a [u8]) -> Reader<'a> {
        Reader { bytes, at: 0 }
    }

    /// What has not been read.
    pub fn rest(&self) -> &'a [u8] {
        self.bytes.get(self.at..).unwrap_or_default()
    }

    fn take(&mut self, want: usize) -> Result<&'a [u8], XdrError> {
        let found = self.rest().get(..want).ok_or(XdrError::Truncated { at: self.at, want })?;
        self.at += want;
        Ok(found)
    }

    /// `unsigned int`.
    pub fn u32(&mut self) -> Result<u32, XdrError> {
        self.array().map(u32::from_be_bytes)
    }

    /// `unsigned hyper`.
    pub fn u64(&mut self) -> Result<u64, XdrError> {
        self.array().map(u64::from_be_bytes)
    }

    /// `bool`.
    pub fn bool(&mut self) -> Result<bool, XdrError> {
        let at = self.at;
        match self.u32()? {
            0 => Ok(false),
            1 => Ok(true),
            found => Err(XdrError::NoBoolean { at, found }),
        }
    }

    /// `opaque[N]`, N being a multiple of 4.
    pub fn array<const N: usize>(&mut self) -> Result<[u8; N], XdrError> {
        const { assert!(N.is_multiple_of(4), "an array with padding is read as opaque") };
        // Cannot fail: `take` gives N bytes or an error.
        Ok(self.take(N)?.try_into().unwrap_or([0; N]))
    }

    /// `opaque<limit>` or `string<limit>`. Padding is not looked at: RFC 4506 wants zeros, and kernels
    /// take anything.
    pub fn opaque(&mut self, limit: usize) -> Result<&'a [u8], XdrError> {
        let at = self.at;
        let found = self.u32()?;
        let len = usize::try_from(found).unwrap_or(usize::MAX);
        if len > limit {
            return Err(XdrError::TooLong { at, found, limit });
        }
        let bytes = self.take(len)?;
        self.take(padding(len))?;
        Ok(bytes)
    }
}

/// Zero bytes after `len` bytes of content.
pub const fn padding(len: usize) -> usize {
    len.wrapping_neg() % 4
}

/// Bytes of an opaque item of `len` bytes: length, content and padding.
pub const fn opaque_size(len: usize) -> usize {
    4 + len + padding(len)
}

/// Appends items to a buffer.
pub trait Writer {
    /// `unsigned int`.
    fn u32(&mut self, value: u32);
    /// `unsigned hyper`.
    fn u64(&mut self, value: u64);
    /// `bool`.
    fn bool(&mut self, value: bool);
    /// `opaque<>` or `string<>`. Content is far shorter than 4 GiB: the caller's limits see to it.
    fn opaque(&mut self, content: &[u8]);
}

impl Writer for Vec<u8> {
    fn u32(&mut self, value: u32) {
        self.extend_from_slice(&value.to_be_bytes());
    }

    fn u64(&mut self, value: u64) {
        self.extend_from_slice(&value.to_be_bytes());
    }

    fn bool(&mut self, value: bool) {
        self.u32(u32::from(value));
    }

    fn opaque(&mut self, content: &[u8]) {
        self.u32(u32::try_from(content.len()).unwrap_or(u32::MAX));
        self.extend_from_slice(content);
        self.extend_from_slice(&[0; 3][..padding(content.len())]);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn every_item_is_checked_against_the_end() {
        let mut four = Reader::new(&[0, 0, 0, 1]);
        assert_eq!(four.u64(), Err(XdrError::Truncated { at: 0, want: 8 }));
        assert_eq!(four.u32(), Ok(1));
        assert_eq!(four.u32(), Err(XdrError::Truncated { at: 4, want: 4 }));
        assert_eq!(four.array::<8>(), Err(XdrError::Truncated { at: 4, want: 8 }));
        assert!(four.rest().is_empty());
    }

    #[test]
    fn opaque_items_have_limits_and_padding() {
        let too_long = XdrError::TooLong { at: 0, found: 5, limit: 4 };
        for (bytes, want) in [
            (&b"\0\0\0\x03abc\0"[..], Ok(&b"abc"[..])),
            (b"\0\0\0\x03abc\xff", Ok(b"abc")),
            (b"\0\0\0\0", Ok(b"")),
            (b"\0\0\0\x03abc", Err(XdrError::Truncated { at: 7, want: 1 })),
            (b"\0\0\0\x04abc", Err(XdrError::Truncated { at: 4, want: 4 })),
            (b"\0\0\0\x05abcde\0\0\0", Err(too_long)),
            (b"\xff\xff\xff\xff", Err(XdrError::TooLong { at: 0, found: u32::MAX, limit: 4 })),
        ] {
            assert_eq!(Reader::new(bytes).opaque(4), want, "given {bytes:?}");
        }
    }

    #[test]
    fn a_boolean_is_0_or_1() {
        assert_eq!(Reader::new(&[0, 0, 0, 0]).bool(), Ok(false));
        assert_eq!(Reader::new(&[0, 0, 0, 1]).bool(), Ok(true));
        assert_eq!(Reader::new(&[0, 0, 0, 2]).bool(), Err(XdrError::NoBoolean { at: 0, found: 2 }));
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(a: u32, b: u64, c: bool, d in prop::collection::vec(any::<u8>(), 0..40)) {
            let mut out = Vec::new();
            out.u32(a);
            out.opaque(&d);
            out.bool(c);
            out.u64(b);
            prop_assert_eq!(out.len(), 4 + opaque_size(d.len()) + 4 + 8);
            let mut input = Reader::new(&out);
            prop_assert_eq!(input.u32(), Ok(a));
            prop_assert_eq!(input.opaque(40), Ok(&d[..]));
            prop_assert_eq!(input.bool(), Ok(c));
            prop_assert_eq!(input.u64(), Ok(b));
            prop_assert!(input.rest().is_empty());
        }
    }
}
