//! One tar header block: 512 bytes to fields, whatever dialect wrote it.
//! Must not know: what follows the block, extended headers, trees.
//! Spec: POSIX.1-2017 pax, "ustar Interchange Format"; GNU tar manual, "Basic Tar Format"; star(5)
//! for the shorter prefix.
//!
//! ```text
//! 0    100  name      136  12  mtime     257  6  magic, 2 version      329  8  devmajor
//! 100    8  mode      148   8  chksum    265 32  uname (not used)      337  8  devminor
//! 108    8  uid       156   1  typeflag  297 32  gname (not used)      345 155 prefix (ustar)
//! 116    8  gid       157 100  linkname                                345 131 prefix (star)
//! 124   12  size                                                       386     sparse map (GNU)
//! ```

use super::Fault;

/// Bytes of a block; headers and data are padded to it.
pub(crate) const BLOCK: usize = 512;
/// A block as it is in the archive.
pub(crate) type Block = [u8; BLOCK];

/// Who defined the fields beyond v7's.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Dialect {
    V7,
    Ustar,
    Star,
    Gnu,
}

/// A header block whose checksum is right.
pub(crate) struct Header<'a> {
    raw: &'a Block,
    dialect: Dialect,
}

impl<'a> Header<'a> {
    /// Checks the sum over all bytes, the sum's own field taken as spaces. Old tars on machines with
    /// signed characters summed those.
    pub fn new(raw: &'a Block) -> Result<Header<'a>, Fault> {
        let sum = |byte: fn(u8) -> i64| {
            let rest = raw[..148].iter().chain(&raw[156..]).map(|&b| byte(b)).sum::<i64>();
            rest + 8 * i64::from(b' ')
        };
        let stored = number(&raw[148..156]);
        if stored.is_none_or(|s| s != sum(i64::from) && s != sum(|b| i64::from(b.cast_signed()))) {
            return Err(Fault::Corrupt(format!("the header's checksum is not {:o}", sum(i64::from))));
        }
        let dialect = match (&raw[257..263], &raw[508..]) {
            (b"ustar ", _) => Dialect::Gnu,
            (b"ustar\0", b"tar\0") => Dialect::Star,
            (b"ustar\0", _) => Dialect::Ustar,
            _ => Dialect::V7,
        };
        Ok(Header { raw, dialect })
    }

    pub fn typeflag(&self) -> u8 {
        self.raw[156]
    }

    /// The name with its prefix, if the dialect has one.
    pub fn name(&self) -> Vec<u8> {
        let name = text(&self.raw[..100]);
        let prefix = match self.dialect {
            Dialect::Ustar => text(&self.raw[345..500]),
            Dialect::Star => text(&self.raw[345..476]),
            Dialect::V7 | Dialect::Gnu => b"",
        };
        if prefix.is_empty() { name.to_vec() } else { [prefix, b"/", name].concat() }
    }

    pub fn linkname(&self) -> Vec<u8> {
        text(&self.raw[157..257]).to_vec()
    }

    pub fn size(&self) -> Result<u64, Fault> {
        unsigned("size", &self.raw[124..136])
    }

    /// The twelve low bits; some old tars keep the file's type above them.
    pub fn mode(&self) -> Result<u16, Fault> {
        let mode: u64 = unsigned("mode", &self.raw[100..108])?;
        // Cannot fail: 12 bits fit.
        Ok(u16::try_from(mode & 0o7777).unwrap_or_default())
    }

    pub fn uid(&self) -> Result<u32, Fault> {
        unsigned("uid", &self.raw[108..116])
    }

    pub fn gid(&self) -> Result<u32, Fault> {
        unsigned("gid", &self.raw[116..124])
    }

    pub fn mtime(&self) -> Result<i64, Fault> {
        number(&self.raw[136..148]).ok_or_else(|| bad("mtime", &self.raw[136..148]))
    }

    /// Major and minor number of a device.
    pub fn device(&self) -> Result<(u32, u32), Fault> {
        if self.dialect == Dialect::V7 {
            return Err(Fault::Corrupt("a device in a header of v7, which has no device numbers".into()));
        }
        Ok((unsigned("devmajor", &self.raw[329..337])?, unsigned("devminor", &self.raw[337..345])?))
    }
}

/// A field's bytes up to the first zero byte.
fn text(field: &[u8]) -> &[u8] {
    field.split(|&b| b == 0).next().unwrap_or_default()
}

/// A numeric field: octal digits with spaces around, or base 256 when the first bit is set (GNU).
/// An empty field is 0. `None` for what is neither or does not fit.
pub(crate) fn number(field: &[u8]) -> Option<i64> {
    let (&first, rest) = field.split_first()?;
    if first & 0x80 != 0 {
        // Two's complement of the whole field less the mark, which is the first bit.
        let sign = if first & 0x40 != 0 { -128 } else { 0 };
        return rest
            .iter()
            .try_fold(i64::from(first & 0x7f) + sign, |n, &b| n.checked_mul(256)?.checked_add(i64::from(b)));
    }
    let digits = field.trim_ascii_start();
    let end = digits.iter().position(|b| matches!(b, 0 | b' ')).unwrap_or(digits.len());
    digits[..end].iter().try_fold(0i64, |n, &b| match b {
        b'0'..=b'7' => n.checked_mul(8)?.checked_add(i64::from(b - b'0')),
        _ => None,
    })
}

/// A field that must fit `T`.
pub(crate) fn unsigned<T: TryFrom<i64>>(name: &str, field: &[u8]) -> Result<T, Fault> {
    number(field).and_then(|n| T::try_from(n).ok()).ok_or_else(|| bad(name, field))
}

fn bad(name: &str, field: &[u8]) -> Fault {
    Fault::Corrupt(format!("the field {name} is `{}`", crate::tree::printable(field)))
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// Puts the right checksum into a block.
    pub(crate) fn seal(mut raw: Block) -> Block {
        raw[148..156].fill(b' ');
        let sum: u32 = raw.iter().map(|&b| u32::from(b)).sum();
        raw[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        raw
    }

    /// A block with bytes at offsets, and the checksum that fits.
    pub(crate) fn block(fields: &[(usize, &[u8])]) -> Block {
        let mut raw = [0; BLOCK];
        for (at, bytes) in fields {
            raw[*at..at + bytes.len()].copy_from_slice(bytes);
        }
        seal(raw)
    }

    #[test]
    fn numbers_of_all_dialects() {
        for (field, want) in [
            (&b"0000644\0"[..], Some(0o644)),
            (b"   644 \0", Some(0o644)),
            (b"00000000001\0", Some(1)),
            (b"777777777777", Some(0o777_777_777_777)),
            (b"\0\0\0\0\0\0\0\0", Some(0)),
            (b"        ", Some(0)),
            (b"12\0garbage", Some(0o12)),
            (b"0000648\0", None),
            (b"-0000001", None),
            (b"\x80\0\0\0\0\0\0\0\0\0\x01\0", Some(256)),
            (b"\x80\0\0\0\x7f\xff\xff\xff\xff\xff\xff\xff", Some(i64::MAX)),
            (b"\x80\0\0\0\x80\0\0\0\0\0\0\0", None),
            (b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xfe", Some(-2)),
            (b"\xff\xff\xff\xff\x80\0\0\0\0\0\0\0", Some(i64::MIN)),
            (b"\xff\xff\xff\xff\x7f\xff\xff\xff\xff\xff\xff\xff", None),
            (b"\xbf\0\0\0\0\0\0\0\0\0\0\0", None),
        ] {
            assert_eq!(number(field), want, "{field:?}");
        }
    }

    #[test]
    fn prefixes_belong_to_their_dialects() {
        let long = [b'p'; 155];
        for (magic, end, want) in [
            (&b"ustar\x0000"[..], &b""[..], 155 + 2),
            (b"ustar\x0000", b"tar\0", 131 + 2),
            (b"ustar  \0", b"", 1),
            (b"", b"", 1),
        ] {
            let raw = block(&[(0, b"n"), (257, magic), (345, &long), (508, end)]);
            assert_eq!(Header::new(&raw).unwrap().name().len(), want, "{magic:?} {end:?}");
        }
    }

    #[test]
    fn signed_and_unsigned_checksums_are_taken_and_others_refused() {
        let mut raw = block(&[(0, b"caf\xe9")]);
        assert!(Header::new(&raw).is_ok());
        let unsigned = number(&raw[148..156]).unwrap();
        raw[148..156].copy_from_slice(format!("{:06o}\0 ", unsigned - 256).as_bytes());
        assert!(Header::new(&raw).is_ok());
        raw[0] ^= 1;
        assert!(matches!(Header::new(&raw), Err(Fault::Corrupt(_))));
    }

    #[test]
    fn modes_lose_the_type_and_ids_must_fit() {
        let raw = block(&[(100, b"0100644\0"), (108, b"\x80\0\0\x01\0\0\0\0"), (116, b"7777777\0")]);
        let header = Header::new(&raw).unwrap();
        assert_eq!(header.mode().unwrap(), 0o644);
        assert!(header.uid().is_err(), "2^32 is no uid");
        assert_eq!(header.gid().unwrap(), 0o7777777);
        assert!(header.device().is_err());
    }
}
