//! The records of PAX extended headers: `LENGTH KEYWORD=VALUE\n`.
//! Must not know: header blocks, how data is laid out in the archive, trees.
//! Spec: POSIX.1-2017 pax, "pax Extended Header"; `SCHILY.*` in star(5), `LIBARCHIVE.*` in tar(5) of
//! libarchive, `GNU.sparse.*` in the GNU tar manual, appendix "Storing Sparse Files".

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};

use super::Fault;
use crate::tree::{Time, printable};

/// libarchive writes base64 without padding.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// What extended headers said; `None` leaves a field to the header block.
#[derive(Clone, Default, Debug, PartialEq, Eq)]
pub(crate) struct Pax {
    pub path: Option<Vec<u8>>,
    pub linkpath: Option<Vec<u8>>,
    pub size: Option<u64>,
    pub mtime: Option<Time>,
    pub uid: Option<u32>,
    pub gid: Option<u32>,
    pub major: Option<u32>,
    pub minor: Option<u32>,
    pub xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
    pub sparse: PaxSparse,
}

/// The `GNU.sparse.*` records, as written.
#[derive(Clone, Default, Debug, PartialEq, Eq)]
pub(crate) struct PaxSparse {
    /// Format; 0.0 and 0.1 write none.
    pub major: Option<u64>,
    pub name: Option<Vec<u8>>,
    /// Length of the file with its holes.
    pub real_size: Option<u64>,
    /// Offset and length of each piece of data, flat: of formats 0.0 and 0.1.
    pub map: Vec<u64>,
}

impl PaxSparse {
    /// True when the entry is sparse.
    pub fn used(&self) -> bool {
        *self != PaxSparse::default()
    }
}

impl Pax {
    /// Adds the records of one extended header to what is known. An empty value takes back an
    /// earlier one.
    pub fn apply(&mut self, data: &[u8]) -> Result<(), Fault> {
        let mut rest = data;
        while !rest.is_empty() {
            let (keyword, value) = record(&mut rest)?;
            self.set(keyword, value)?;
        }
        Ok(())
    }

    /// True when nothing is said about single files: a global header that does is refused, for it
    /// would give all files one name or one content.
    pub fn fits_all(&self) -> bool {
        self.path.is_none() && self.linkpath.is_none() && self.size.is_none() && !self.sparse.used()
    }

    fn set(&mut self, keyword: &[u8], value: &[u8]) -> Result<(), Fault> {
        match keyword {
            b"path" => self.path = some(value),
            b"linkpath" => self.linkpath = some(value),
            b"size" => self.size = decimal(keyword, value)?,
            b"uid" => self.uid = decimal(keyword, value)?,
            b"gid" => self.gid = decimal(keyword, value)?,
            b"mtime" => self.mtime = if value.is_empty() { None } else { Some(time(value)?) },
            b"SCHILY.devmajor" => self.major = decimal(keyword, value)?,
            b"SCHILY.devminor" => self.minor = decimal(keyword, value)?,
            b"hdrcharset" => charset(value)?,
            _ => {
                if let Some(name) = keyword.strip_prefix(b"SCHILY.xattr.") {
                    self.xattrs.insert(decode_name(name, &["25", "3D"]), value.to_vec());
                } else if let Some(name) = keyword.strip_prefix(b"LIBARCHIVE.xattr.") {
                    let bytes = BASE64.decode(value).map_err(|_| bad(keyword, value))?;
                    self.xattrs.insert(decode_name(name, &[]), bytes);
                } else if let Some(what) = keyword.strip_prefix(b"GNU.sparse.") {
                    self.set_sparse(keyword, what, value)?;
                } else if keyword.starts_with(b"SCHILY.acl.") || keyword == b"RHT.security.selinux" {
                    // Dropping them would change who may read a file.
                    let what = format!("access control in text form (`{}`)", printable(keyword));
                    return Err(Fault::Unsupported(what));
                }
                // POSIX: unknown keywords are ignored; `comment`, `atime` and `uname` are of no use.
            }
        }
        Ok(())
    }

    fn set_sparse(&mut self, keyword: &[u8], what: &[u8], value: &[u8]) -> Result<(), Fault> {
        let number = || decimal::<u64>(keyword, value)?.ok_or_else(|| bad(keyword, value));
        let sparse = &mut self.sparse;
        match what {
            b"major" => sparse.major = Some(number()?),
            b"name" => sparse.name = some(value),
            b"realsize" | b"size" => sparse.real_size = Some(number()?),
            b"offset" | b"numbytes" => sparse.map.push(number()?),
            b"map" => {
                let numbers = value.split(|&b| b == b',').map(|n| decimal(keyword, n).transpose());
                sparse.map = numbers
                    .map(|n| n.unwrap_or_else(|| Err(bad(keyword, value))))
                    .collect::<Result<_, _>>()?;
            }
            // The map's own length says the same; format 1.0 has minor 0 only.
            b"numblocks" => {}
            b"minor" if value == b"0" => {}
            _ => return Err(Fault::Unsupported(format!("`{}`", printable(keyword)))),
        }
        Ok(())
    }
}

/// Takes the first record off: keyword and value.
fn record<'a>(data: &mut &'a [u8]) -> Result<(&'a [u8], &'a [u8]), Fault> {
    let fault = |what: &str| Fault::Corrupt(format!("the extended header has a record {what}"));
    let space = data.iter().take(20).position(|&b| b == b' ').ok_or_else(|| fault("without a length"))?;
    let len = decimal::<usize>(b"", &data[..space]).ok().flatten().filter(|&len| len > space + 1);
    let len = len.ok_or_else(|| fault("with a bad length"))?;
    let (record, tail) = data.split_at_checked(len).ok_or_else(|| fault("that is cut off"))?;
    let record = record.strip_suffix(b"\n").ok_or_else(|| fault("that does not end its line"))?;
    let body = &record[space + 1..];
    let equals = body.iter().position(|&b| b == b'=').ok_or_else(|| fault("without `=`"))?;
    if equals == 0 {
        return Err(fault("without a keyword"));
    }
    *data = tail;
    Ok((&body[..equals], &body[equals + 1..]))
}

/// POSIX names UTF-8 by its ISO number; BINARY is for names that are not UTF-8. Bytes are bytes here.
fn charset(value: &[u8]) -> Result<(), Fault> {
    match value {
        b"" | b"BINARY" | b"ISO-IR 10646 2000 UTF-8" => Ok(()),
        _ => Err(Fault::Unsupported(format!("the character set `{}`", printable(value)))),
    }
}

/// Turns `%XX` back into bytes: only the codes in `only`, which GNU tar writes for `%` and `=`, or
/// all when `only` is empty, as libarchive does.
fn decode_name(name: &[u8], only: &[&str]) -> Vec<u8> {
    let mut out = Vec::with_capacity(name.len());
    let mut rest = name;
    while let Some((&first, tail)) = rest.split_first() {
        let code = tail.get(..2).and_then(|hex| std::str::from_utf8(hex).ok());
        let code = code.filter(|hex| first == b'%' && (only.is_empty() || only.contains(hex)));
        // `from_str_radix` alone would take a sign.
        let code = code.filter(|hex| hex.bytes().all(|b| b.is_ascii_hexdigit()));
        match code.and_then(|hex| u8::from_str_radix(hex, 16).ok()) {
            Some(byte) => {
                out.push(byte);
                rest = &tail[2..];
            }
            None => {
                out.push(first);
                rest = tail;
            }
        }
    }
    out
}

/// Seconds with a fraction, perhaps negative: `-1.5` is half a second before the second -1. What is
/// finer than a nanosecond is cut off.
fn time(value: &[u8]) -> Result<Time, Fault> {
    let wrong = || bad(b"mtime", value);
    let (negative, digits) = match value.strip_prefix(b"-") {
        Some(rest) => (true, rest),
        None => (false, value),
    };
    let mut parts = digits.splitn(2, |&b| b == b'.');
    let whole: u64 = decimal(b"mtime", parts.next().unwrap_or_default())?.ok_or_else(wrong)?;
    let fraction = parts.next().unwrap_or_default();
    if !fraction.iter().all(u8::is_ascii_digit) {
        return Err(wrong());
    }
    let nanos = (0..9).fold(0u32, |n, i| n * 10 + fraction.get(i).map_or(0, |&b| u32::from(b - b'0')));
    let whole = i128::from(whole);
    let (sec, nsec) = match (negative, nanos) {
        (false, _) => (whole, nanos),
        (true, 0) => (-whole, 0),
        (true, _) => (-whole - 1, 1_000_000_000 - nanos),
    };
    Ok(Time { sec: i64::try_from(sec).map_err(|_| wrong())?, nsec })
}

/// Decimal digits alone; `None` for an empty value.
pub(super) fn decimal<T: std::str::FromStr>(keyword: &[u8], value: &[u8]) -> Result<Option<T>, Fault> {
    if value.is_empty() {
        return Ok(None);
    }
    let text = std::str::from_utf8(value).ok().filter(|t| t.bytes().all(|b| b.is_ascii_digit()));
    text.and_then(|t| t.parse().ok()).map(Some).ok_or_else(|| bad(keyword, value))
}

fn some(value: &[u8]) -> Option<Vec<u8>> {
    Some(value.to_vec()).filter(|v| !v.is_empty())
}

fn bad(keyword: &[u8], value: &[u8]) -> Fault {
    let value = printable(&value[..value.len().min(100)]);
    Fault::Corrupt(format!("the extended header's `{}` is `{value}`", printable(keyword)))
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A record with its length, as `tar_write` makes it too.
    pub(crate) fn line(keyword: &str, value: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        crate::archive::tar_write::push_record(&mut out, keyword.as_bytes(), value);
        out
    }

    fn read(lines: &[(&str, &[u8])]) -> Result<Pax, Fault> {
        let mut pax = Pax::default();
        let data: Vec<u8> = lines.iter().flat_map(|(k, v)| line(k, v)).collect();
        pax.apply(&data)?;
        Ok(pax)
    }

    #[test]
    fn every_keyword_reaches_its_field() {
        let pax = read(&[
            ("path", b"a\nb=c"),
            ("linkpath", b"\xff"),
            ("size", b"8589934592"),
            ("uid", b"4294967295"),
            ("gid", b"7"),
            ("hdrcharset", b"BINARY"),
            ("SCHILY.devmajor", b"8"),
            ("SCHILY.devminor", b"1048575"),
            ("SCHILY.xattr.user.a%3Db%25%20", b"\0v\n"),
            ("LIBARCHIVE.xattr.user.x%20y", b"AQID/w"),
            ("comment", b"anything"),
            ("ACME.unknown", b"1"),
        ])
        .unwrap();
        assert_eq!(pax.path.unwrap(), b"a\nb=c");
        assert_eq!(pax.linkpath.unwrap(), b"\xff");
        assert_eq!((pax.size, pax.uid, pax.gid), (Some(1 << 33), Some(u32::MAX), Some(7)));
        assert_eq!((pax.major, pax.minor), (Some(8), Some((1 << 20) - 1)));
        assert_eq!(pax.xattrs[&b"user.a=b%%20"[..]], b"\0v\n");
        assert_eq!(pax.xattrs[&b"user.x y"[..]], b"\x01\x02\x03\xff");
    }

    #[test]
    fn times_before_and_after_1970() {
        for (text, want) in [
            ("0", Some((0, 0))),
            ("1700000000.5", Some((1_700_000_000, 500_000_000))),
            ("1.000000001", Some((1, 1))),
            ("1.0000000019", Some((1, 1))),
            ("-1", Some((-1, 0))),
            ("-1.5", Some((-2, 500_000_000))),
            ("-0.000000001", Some((-1, 999_999_999))),
            ("-9223372036854775808", Some((i64::MIN, 0))),
            ("9223372036854775808", None),
            ("-9223372036854775808.5", None),
            ("", None),
            ("-", None),
            ("1e9", None),
            ("1.x", None),
            ("1.-5", None),
        ] {
            let want = want.map(|(sec, nsec)| Time { sec, nsec });
            assert_eq!(time(text.as_bytes()).ok(), want, "{text}");
        }
    }

    #[test]
    fn an_empty_value_takes_an_earlier_one_back() {
        let pax = read(&[
            ("path", b"x"),
            ("uid", b"1"),
            ("mtime", b"1"),
            ("path", b""),
            ("uid", b""),
            ("mtime", b""),
        ]);
        assert_eq!(pax.unwrap(), Pax::default());
        let pax = read(&[("SCHILY.xattr.user.empty", b"")]).unwrap();
        assert_eq!(pax.xattrs[&b"user.empty"[..]], b"", "an attribute without bytes is one");
    }

    #[test]
    fn broken_records_are_refused() {
        for data in
            ["x", "5 a=b", "6 a=b\n", "9999 a=b\n", "5 a=bb", "6 abc\n", "5 =b\n", "0 \n", "2 \n", "-6 a=b\n"]
        {
            let got = Pax::default().apply(data.as_bytes());
            // "6 a=b\n" is right as it stands and shows that the others are not.
            assert_eq!(got.is_ok(), data == "6 a=b\n", "{data:?}");
        }
        for (keyword, value) in [
            ("size", &b"-1"[..]),
            ("size", b"18446744073709551616"),
            ("uid", b"4294967296"),
            ("LIBARCHIVE.xattr.user.x", b"!"),
            ("GNU.sparse.map", b"1,,2"),
        ] {
            assert!(matches!(read(&[(keyword, value)]), Err(Fault::Corrupt(_))), "{keyword}");
        }
        for (keyword, value) in
            [("hdrcharset", &b"KOI8-R"[..]), ("GNU.sparse.minor", b"1"), ("SCHILY.acl.access", b"user::rwx")]
        {
            assert!(matches!(read(&[(keyword, value)]), Err(Fault::Unsupported(_))), "{keyword}");
        }
    }

    proptest! {
        #[test]
        fn any_record_is_read_back(key in proptest::collection::vec(1u8..=255, 1..30), value: Vec<u8>) {
            prop_assume!(!key.contains(&b'='));
            let mut data = Vec::new();
            crate::archive::tar_write::push_record(&mut data, &key, &value);
            let mut rest = &data[..];
            prop_assert_eq!(record(&mut rest).unwrap(), (&key[..], &value[..]));
            prop_assert!(rest.is_empty());
        }

        #[test]
        fn no_bytes_panic(data: Vec<u8>) {
            let _ = Pax::default().apply(&data);
        }
    }
}
