//! `ar` archives as Debian packages use them: one member after another, read front to back.
//! Must not know: what the members hold, compression, the names that a package must have.
//! Spec: deb(5); the common form of ar(5) with names of at most 16 bytes.
//!
//! ```text
//! 0   16  name, padded with spaces; a trailing `/` is dropped
//! 16  12  mtime   28  6  uid   34  6  gid   40  8  mode, octal     (not used here)
//! 48  10  size in bytes, decimal
//! 58   2  "`\n"
//! ```

use std::io::{self, Read};

/// What every archive begins with.
const MAGIC: &[u8; 8] = b"!<arch>\n";
const HEADER: usize = 60;

/// An archive that cannot be read. `at` counts bytes from the archive's start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ArError {
    /// Another kind of file.
    #[error("not an ar archive: it begins with `{found}`, not with `!<arch>`")]
    Magic {
        /// The first bytes, made printable.
        found: String,
    },
    /// A member's header is wrong.
    #[error("offset {at}: the member's header has {what}")]
    Header {
        /// Where the header begins.
        at: u64,
        /// Which field, and what is in it.
        what: String,
    },
    /// Long names of GNU and BSD, which no package has.
    #[error("offset {at}: the member has a {form}, which is not supported")]
    Unsupported {
        /// Where the header begins.
        at: u64,
        /// What it uses.
        form: &'static str,
    },
    /// The archive ends inside a header or a member.
    #[error("offset {at}: the archive is cut off, {missing} more bytes are wanted")]
    Truncated {
        /// Where the archive ends.
        at: u64,
        /// How much is missing at least.
        missing: u64,
    },
    /// The archive could not be read.
    #[error("offset {at}: reading the archive")]
    Io {
        /// How far it was read.
        at: u64,
        /// What the system said.
        source: io::Error,
    },
}

/// One member's header.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// The name without padding.
    pub name: String,
    /// Bytes of content.
    pub size: u64,
    /// Offset of the header in the archive, in bytes.
    pub at: u64,
}

/// Reads an archive. After [`ArReader::next_member`], reading gives the bytes of that member; an
/// [`io::Error`] from reading holds an [`ArError`].
#[derive(Debug)]
pub struct ArReader<R> {
    source: R,
    at: u64,
    left: u64,
    pad: bool,
}

impl<R: Read> ArReader<R> {
    /// Reads the magic.
    pub fn new(source: R) -> Result<ArReader<R>, ArError> {
        let mut reader = ArReader { source, at: 0, left: 0, pad: false };
        let mut magic = [0; MAGIC.len()];
        let got = reader.fill(&mut magic)?;
        if magic.get(..got) != Some(MAGIC) {
            return Err(ArError::Magic { found: crate::tree::printable(&magic[..got]) });
        }
        Ok(reader)
    }

    /// The next member, past what was left of the one before; `None` at the archive's end.
    pub fn next_member(&mut self) -> Result<Option<Member>, ArError> {
        self.skip_rest()?;
        let at = self.at;
        let mut raw = [0; HEADER];
        match self.fill(&mut raw)? {
            0 => return Ok(None),
            HEADER => {}
            got => return Err(ArError::Truncated { at: self.at, missing: (HEADER - got) as u64 }),
        }
        let member = parse(&raw, at)?;
        self.left = member.size;
        self.pad = member.size % 2 == 1;
        Ok(Some(member))
    }

    /// How many bytes of the archive were read.
    pub fn position(&self) -> u64 {
        self.at
    }

    fn skip_rest(&mut self) -> Result<(), ArError> {
        let mut buffer = [0; 8192];
        while self.read_member(&mut buffer)? > 0 {}
        // The last member's padding may be missing: dpkg-deb does not ask for it.
        if std::mem::take(&mut self.pad) {
            self.fill(&mut [0])?;
        }
        Ok(())
    }

    fn read_member(&mut self, buffer: &mut [u8]) -> Result<usize, ArError> {
        let want = usize::try_from(self.left).unwrap_or(usize::MAX).min(buffer.len());
        let got = self.read_some(&mut buffer[..want])?;
        if got == 0 && want > 0 {
            return Err(ArError::Truncated { at: self.at, missing: self.left });
        }
        self.left -= got as u64;
        Ok(got)
    }

    /// As many bytes as there are, up to the buffer's length.
    fn fill(&mut self, buffer: &mut [u8]) -> Result<usize, ArError> {
        let mut done = 0;
        while done < buffer.len() {
            match self.read_some(&mut buffer[done..])? {
                0 => break,
                got => done += got,
            }
        }
        Ok(done)
    }

    fn read_some(&mut self, buffer: &mut [u8]) -> Result<usize, ArError> {
        loop {
            match self.source.read(buffer) {
                Ok(got) => {
                    self.at += got as u64;
                    return Ok(got);
                }
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(source) => return Err(ArError::Io { at: self.at, source }),
            }
        }
    }
}

/// The bytes of the present member.
impl<R: Read> Read for ArReader<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.read_member(buffer).map_err(|e| match e {
            ArError::Io { source, .. } => source,
            other => io::Error::new(io::ErrorKind::InvalidData, other),
        })
    }
}

fn parse(raw: &[u8; HEADER], at: u64) -> Result<Member, ArError> {
    let wrong = |field: &str, bytes: &[u8]| {
        let what = format!("{field} `{}`", crate::tree::printable(bytes));
        ArError::Header { at, what }
    };
    if &raw[58..] != b"`\n" {
        return Err(wrong("the wrong end mark", &raw[58..]));
    }
    let name = raw[..16].trim_ascii_end();
    let form = match name {
        [b'#', b'1', b'/', ..] => Some("long name in BSD form"),
        [b'/', ..] => Some("long name or symbol table in GNU form"),
        _ => None,
    };
    if let Some(form) = form {
        return Err(ArError::Unsupported { at, form });
    }
    // GNU ar ends names with a slash, dpkg-deb does not, and dpkg takes both: deb(5).
    let name = name.strip_suffix(b"/").unwrap_or(name);
    if name.is_empty() || !name.iter().all(u8::is_ascii_graphic) {
        return Err(wrong("a bad name", name));
    }
    let digits = raw[48..58].trim_ascii_end();
    let number = std::str::from_utf8(digits).ok().filter(|d| d.bytes().all(|b| b.is_ascii_digit()));
    let size = number.and_then(|d| d.parse().ok()).ok_or_else(|| wrong("a bad size", digits))?;
    Ok(Member { name: String::from_utf8_lossy(name).into_owned(), size, at })
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use proptest::prelude::*;

    /// An archive of the given members.
    pub(crate) fn ar(members: &[(&str, &[u8])]) -> Vec<u8> {
        let mut out = MAGIC.to_vec();
        for (name, bytes) in members {
            out.extend(
                format!("{name:<16}{:<12}{:<6}{:<6}{:<8}{:<10}`\n", 0, 0, 0, 100644, bytes.len()).bytes(),
            );
            out.extend_from_slice(bytes);
            if bytes.len() % 2 == 1 {
                out.push(b'\n');
            }
        }
        out
    }

    fn list(bytes: &[u8]) -> Result<Vec<(String, Vec<u8>)>, ArError> {
        let mut reader = ArReader::new(bytes)?;
        let mut found = Vec::new();
        while let Some(member) = reader.next_member()? {
            let mut content = Vec::new();
            reader.read_to_end(&mut content).map_err(|e| e.downcast::<ArError>().unwrap())?;
            found.push((member.name, content));
        }
        Ok(found)
    }

    #[test]
    fn members_are_read_in_order_with_and_without_reading_their_bytes() {
        let bytes = ar(&[("a", b"odd"), ("b/", b""), ("c.tar.xz", b"even")]);
        let want: [(&str, &[u8]); 3] = [("a", b"odd"), ("b", b""), ("c.tar.xz", b"even")];
        let got = list(&bytes).unwrap();
        assert!(got.iter().zip(want).all(|(g, w)| (g.0.as_str(), &*g.1) == w), "{got:?}");
        let mut reader = ArReader::new(&bytes[..]).unwrap();
        let offsets: Vec<u64> = std::iter::from_fn(|| reader.next_member().unwrap()).map(|m| m.at).collect();
        assert_eq!(offsets, [8, 72, 132]);
        assert_eq!(reader.position(), bytes.len() as u64);
    }

    #[test]
    fn a_missing_last_pad_byte_is_no_fault() {
        let mut bytes = ar(&[("a", b"odd")]);
        bytes.pop();
        assert_eq!(list(&bytes).unwrap().len(), 1);
    }

    #[test]
    fn each_fault_has_its_error_and_place() {
        let good = ar(&[("a", b"1234"), ("b", b"5")]);
        let with = |at: usize, bytes: &[u8]| {
            let mut bad = good.clone();
            bad[at..at + bytes.len()].copy_from_slice(bytes);
            list(&bad).unwrap_err().to_string()
        };
        for (at, bytes, want) in [
            (0, &b"!<thin>\n"[..], "not an ar archive: it begins with `!<thin>\\x0a`, not with `!<arch>`"),
            (
                8,
                b"/ ",
                "offset 8: the member has a long name or symbol table in GNU form, which is not supported",
            ),
            (8, b"#1/20", "offset 8: the member has a long name in BSD form, which is not supported"),
            (8, b" ", "offset 8: the member's header has a bad name ``"),
            (8, b"\xff", "offset 8: the member's header has a bad name `\\xff`"),
            (56, b"x", "offset 8: the member's header has a bad size `x`"),
            (56, b"-1", "offset 8: the member's header has a bad size `-1`"),
            (66, b"'", "offset 8: the member's header has the wrong end mark `'\\x0a`"),
        ] {
            assert_eq!(with(at, bytes), want);
        }
        let cut = |len: usize| list(&good[..len]).unwrap_err();
        assert!(matches!(cut(7), ArError::Magic { .. }));
        assert!(matches!(cut(20), ArError::Truncated { at: 20, missing: 48 }));
        assert!(matches!(cut(70), ArError::Truncated { at: 70, missing: 2 }));
    }

    proptest! {
        #[test]
        fn changed_archives_never_panic(
            at in 0usize..200, byte: u8, cut in 0usize..200, tail in proptest::collection::vec(any::<u8>(), 0..80),
        ) {
            let mut bytes = ar(&[("debian-binary", b"2.0\n"), ("x", &[7; 33])]);
            bytes.truncate(cut);
            bytes.extend(tail);
            if let Some(b) = bytes.get_mut(at) {
                *b = byte;
            }
            crate::archive::fuzz::ar(&bytes);
        }
    }
}
