//! Record marking: cuts a TCP stream into RPC messages, whose fragments are joined.
//! Must not know: what a message says.
//! Spec: RFC 5531 section 11. Each fragment is preceded by a word: its length in 31 bits, and in the
//! highest bit whether it is the message's last.

/// Longest message that is taken: the WRITE that a client may send after FSINFO's wtmax of 64 KiB,
/// with its headers, and as much again. It is compared before anything is kept: a 31-bit length taken
/// on trust makes a server allocate 2 GiB.
pub const MAX_RECORD: usize = 128 * 1024;

const LAST: u32 = 1 << 31;

/// Why a stream cannot be cut further; the connection is closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RecordError {
    /// The fragments of one message are longer together than [`MAX_RECORD`].
    #[error("a message of {found} bytes or more")]
    TooLong {
        /// Bytes of the message as far as its marks tell.
        found: usize,
    },
    /// A fragment without content that is not the last: a message that never ends.
    #[error("an empty fragment that is not the last")]
    Empty,
}

/// Cuts one stream. Feed what was read, take messages until there is none.
#[derive(Debug, Default)]
pub struct Records {
    /// Bytes of the stream; those before `taken` belong to messages that are done.
    stream: Vec<u8>,
    taken: usize,
    /// Earlier fragments of a message whose last is not here yet.
    joined: Vec<u8>,
    /// `joined` was handed out and goes with the next call.
    spent: bool,
}

impl Records {
    /// Adds what was read from the stream.
    pub fn feed(&mut self, bytes: &[u8]) {
        // A client that waits for answers leaves nothing here, and then this moves nothing.
        self.stream.drain(..self.taken);
        self.taken = 0;
        self.stream.extend_from_slice(bytes);
    }

    /// The next whole message, `None` if more must be fed first. After an error the stream is lost.
    pub fn next_record(&mut self) -> Result<Option<&[u8]>, RecordError> {
        if std::mem::take(&mut self.spent) {
            self.joined.clear();
        }
        loop {
            let Some((mark, rest)) = self.stream[self.taken..].split_first_chunk::<4>() else {
                return Ok(None);
            };
            let mark = u32::from_be_bytes(*mark);
            let last = mark & LAST != 0;
            let len = usize::try_from(mark & !LAST).unwrap_or(usize::MAX);
            let found = self.joined.len().saturating_add(len);
            if found > MAX_RECORD {
                return Err(RecordError::TooLong { found });
            }
            if len == 0 && !last {
                return Err(RecordError::Empty);
            }
            let Some(fragment) = rest.get(..len) else { return Ok(None) };
            let begin = self.taken + 4;
            self.taken = begin + len;
            if last && self.joined.is_empty() {
                return Ok(Some(&self.stream[begin..self.taken]));
            }
            self.joined.extend_from_slice(fragment);
            if last {
                self.spent = true;
                return Ok(Some(&self.joined));
            }
        }
    }

    /// True if the stream stands between two messages.
    pub fn at_boundary(&self) -> bool {
        self.taken == self.stream.len() && (self.joined.is_empty() || self.spent)
    }

    /// Gives memory back; for a stream that is quiet.
    pub fn shrink(&mut self) {
        self.stream.drain(..self.taken);
        self.taken = 0;
        self.stream.shrink_to_fit();
        if self.spent {
            self.joined = Vec::new();
            self.spent = false;
        }
    }
}

/// The mark of a message of `len` bytes in one fragment. klibc reads a reply with one read() and
/// refuses one whose first fragment is not its last.
pub fn mark(len: usize) -> [u8; 4] {
    // Cannot be cut: replies are bounded by NFS's rtmax of 1 MiB and some header.
    (LAST | (u32::try_from(len).unwrap_or(u32::MAX) & !LAST)).to_be_bytes()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn fragment(last: bool, content: &[u8]) -> Vec<u8> {
        let mut out = mark(content.len()).to_vec();
        out[0] &= if last { 0xff } else { 0x7f };
        out.extend_from_slice(content);
        out
    }

    fn drain(records: &mut Records) -> Vec<Vec<u8>> {
        std::iter::from_fn(|| records.next_record().unwrap().map(<[u8]>::to_vec)).collect()
    }

    #[test]
    fn fragments_are_joined() {
        let mut records = Records::default();
        records.feed(&[fragment(false, b"ab"), fragment(false, b"c"), fragment(true, b"")].concat());
        assert_eq!(drain(&mut records), [b"abc"]);
        records.feed(&[fragment(true, b"next"), fragment(false, b"x"), fragment(true, b"yz")].concat());
        assert_eq!(drain(&mut records), [&b"next"[..], b"xyz"]);
        assert!(records.at_boundary());
    }

    #[test]
    fn a_part_is_not_a_message() {
        let mut records = Records::default();
        records.feed(&fragment(true, b"abcd")[..7]);
        assert_eq!(records.next_record(), Ok(None));
        assert!(!records.at_boundary());
        records.feed(b"d");
        assert_eq!(records.next_record(), Ok(Some(&b"abcd"[..])));
        records.feed(&fragment(false, b"abcd"));
        assert_eq!(records.next_record(), Ok(None));
        assert!(!records.at_boundary(), "the message goes on");
    }

    #[test]
    fn a_length_is_refused_before_anything_is_kept() {
        let at_limit = fragment(true, &vec![7; MAX_RECORD]);
        let over = 0x8000_0000 | (MAX_RECORD as u32 + 1);
        let endless = [fragment(false, &vec![7; MAX_RECORD]), fragment(true, b"x")].concat();
        for (bytes, want) in [
            (at_limit, Ok(true)),
            (over.to_be_bytes().to_vec(), Err(RecordError::TooLong { found: MAX_RECORD + 1 })),
            (vec![0xff; 4], Err(RecordError::TooLong { found: 0x7fff_ffff })),
            (vec![0x7f, 0xff, 0xff, 0xff], Err(RecordError::TooLong { found: 0x7fff_ffff })),
            (endless, Err(RecordError::TooLong { found: MAX_RECORD + 1 })),
            (vec![0, 0, 0, 0], Err(RecordError::Empty)),
        ] {
            let mut records = Records::default();
            records.feed(&bytes);
            assert_eq!(records.next_record().map(|r| r.is_some()), want, "given {:?}", &bytes[..4]);
        }
    }

    proptest! {
        /// Messages come out as they went in, however they were cut into fragments and reads.
        #[test]
        fn cuts_do_not_matter(
            messages in prop::collection::vec(
                prop::collection::vec(prop::collection::vec(any::<u8>(), 1..9), 1..5), 1..8),
            reads in prop::collection::vec(1usize..40, 1..60),
            shrink: bool,
        ) {
            let mut stream = Vec::new();
            for fragments in &messages {
                for (i, content) in fragments.iter().enumerate() {
                    stream.extend(fragment(i + 1 == fragments.len(), content));
                }
            }
            let (mut records, mut found, mut at) = (Records::default(), Vec::new(), 0);
            for size in reads.iter().cycle() {
                let end = stream.len().min(at + size);
                records.feed(&stream[at..end]);
                found.extend(drain(&mut records));
                if shrink {
                    records.shrink();
                }
                at = end;
                if at == stream.len() {
                    break;
                }
            }
            prop_assert!(records.at_boundary());
            let want: Vec<_> = messages.iter().map(|fragments| fragments.concat()).collect();
            prop_assert_eq!(found, want);
        }

        #[test]
        fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let mut records = Records::default();
            records.feed(&bytes);
            while let Ok(Some(record)) = records.next_record() {
                assert!(record.len() <= bytes.len());
            }
        }
    }
}
