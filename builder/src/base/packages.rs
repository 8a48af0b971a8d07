//! Debian control stanzas, and the records of a `Packages` index.
//! Must not know: where the index came from. Its caller answers for the signature.
//! Spec: deb-control(5), deb822(5); Debian repository format, "Packages" indices.

use std::io::{self, BufRead};

use crate::digest::Digest;

/// Longest line taken, in bytes. The longest of trixie's indices in November 2026 has 75,649 (a
/// `Provides`).
const MAX_LINE: u64 = 1 << 20;
/// Most fields of one stanza. Debian's have up to 29.
const MAX_FIELDS: usize = 200;

/// A stanza: names and values in order, continuation lines joined by newlines.
#[derive(Debug, Default)]
pub struct Stanza(Vec<(String, String)>);

impl Stanza {
    /// The value of a field; names match whatever their case.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, v)| v.as_str())
    }

    /// Reads the next stanza; `None` at the end. Comment lines are left out.
    pub fn read(input: &mut impl BufRead) -> io::Result<Option<Stanza>> {
        let corrupt = |what: &str| io::Error::new(io::ErrorKind::InvalidData, what.to_owned());
        let mut fields: Vec<(String, String)> = Vec::new();
        let mut line = Vec::new();
        loop {
            line.clear();
            let read = io::Read::take(&mut *input, MAX_LINE).read_until(b'\n', &mut line)?;
            if u64::try_from(read).is_ok_and(|n| n >= MAX_LINE) {
                return Err(corrupt("a line of the control file is too long"));
            }
            let text = str::from_utf8(&line).map_err(|_| corrupt("a control file is not UTF-8"))?;
            let text = text.trim_end();
            match fields.last_mut() {
                _ if text.starts_with('#') => {}
                None if read == 0 => return Ok(None),
                Some(_) if text.is_empty() => return Ok(Some(Stanza(fields))),
                None if text.is_empty() => {}
                Some((_, value)) if text.starts_with([' ', '\t']) => {
                    if value.len() + text.len() > MAX_FIELDS * 4096 {
                        return Err(corrupt("a field of the control file is too long"));
                    }
                    value.push('\n');
                    value.push_str(text.trim_start());
                }
                _ => {
                    let (name, value) = text
                        .split_once(':')
                        .ok_or_else(|| corrupt("a line of the control file has no `:`"))?;
                    if fields.len() >= MAX_FIELDS {
                        return Err(corrupt("a stanza of the control file has too many fields"));
                    }
                    fields.push((name.to_owned(), value.trim_start().to_owned()));
                }
            }
        }
    }
}

/// What a lock needs of one package.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Name.
    pub name: String,
    /// Full version with epoch and revision.
    pub version: String,
    /// `arm64` or `all`.
    pub architecture: String,
    /// Path of the `.deb` below the archive's root.
    pub path: String,
    /// Digest of the `.deb`.
    pub sha256: Digest,
    /// Size of the `.deb` in bytes.
    pub size: u64,
    /// Marked `Essential: yes`.
    pub essential: bool,
}

impl TryFrom<&Stanza> for Record {
    type Error = String;

    fn try_from(stanza: &Stanza) -> Result<Record, String> {
        let name = stanza.get("Package").unwrap_or_default();
        let need = |field: &str| {
            stanza.get(field).map(str::to_owned).ok_or_else(|| format!("package `{name}` has no {field}"))
        };
        let record = Record {
            name: need("Package")?,
            version: need("Version")?,
            architecture: need("Architecture")?,
            path: need("Filename")?.trim_start_matches("./").to_owned(),
            sha256: need("SHA256")?.parse().map_err(|e| format!("package `{name}`: {e}"))?,
            size: need("Size")?
                .parse()
                .map_err(|_| format!("package `{name}` has a Size that is no number"))?,
            essential: stanza.get("Essential") == Some("yes"),
        };
        // The path becomes part of URLs; a signed index that leaves its archive is still refused.
        if !is_pool_path(&record.path) {
            return Err(format!("package `{name}` has the path `{}`, which leaves the archive", record.path));
        }
        Ok(record)
    }
}

/// Whether `path` stays below an archive's root.
pub(super) fn is_pool_path(path: &str) -> bool {
    !path.contains(|c: char| c.is_control() || c.is_whitespace() || "?#%\"\\".contains(c))
        && path.split('/').all(|part| !matches!(part, "" | "." | ".."))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn stanzas(text: &str) -> io::Result<Vec<Stanza>> {
        let mut input = text.as_bytes();
        std::iter::from_fn(|| Stanza::read(&mut input).transpose()).collect()
    }

    fn record(change: impl Fn(&str) -> String) -> Result<Record, String> {
        let good = format!(
            "Package: apt\nVersion: 3.0.4\nArchitecture: arm64\nFilename: pool/main/a/apt_3.0.4_arm64.deb\n\
             Size: 7\nSHA256: {}\nEssential: yes\n",
            "a".repeat(64)
        );
        Record::try_from(&stanzas(&change(&good)).unwrap()[0])
    }

    #[test]
    fn stanzas_are_apart_and_continuations_joined() {
        let text = "\n# note\nA: 1\nB:\n two\n .\n\tthree\n\n\nA: 2";
        let all = stanzas(text).unwrap();
        assert_eq!(all.len(), 2);
        assert_eq!(all[0].get("b"), Some("\ntwo\n.\nthree"));
        assert_eq!(all[1].get("A"), Some("2"));
        assert_eq!(all[1].get("B"), None);
    }

    #[test]
    fn bad_stanzas_are_corrupt() {
        let many = "A: 1\n".repeat(MAX_FIELDS + 1);
        let long = format!("A: {}\n", "x".repeat(1 << 20));
        let folded = format!("A: 1\n{}", " x".repeat(4000).add_line().repeat(300));
        for bad in ["no colon", many.as_str(), long.as_str(), folded.as_str()] {
            assert_eq!(stanzas(bad).unwrap_err().kind(), io::ErrorKind::InvalidData, "{:.20}", bad);
        }
        let error = Stanza::read(&mut &b"A: \xff\n"[..]).unwrap_err();
        assert_eq!(error.to_string(), "a control file is not UTF-8");
    }

    trait AddLine {
        fn add_line(self) -> String;
    }
    impl AddLine for String {
        fn add_line(self) -> String {
            format!(" {self}\n")
        }
    }

    #[test]
    fn a_record_needs_every_field() {
        let good = record(str::to_owned).unwrap();
        assert_eq!((good.name.as_str(), good.size, good.essential), ("apt", 7, true));
        for (from, to, want) in [
            ("Version", "Vers", "package `apt` has no Version"),
            ("Size: 7", "Size: x", "package `apt` has a Size that is no number"),
            ("SHA256: aa", "SHA256: a", "package `apt`: `"),
            ("pool/main", "pool/../..", "package `apt` has the path"),
            ("pool/", "/", "package `apt` has the path"),
            ("pool/", "p?ol/", "package `apt` has the path"),
        ] {
            let error = record(|t| t.replacen(from, to, 1)).unwrap_err();
            assert!(error.starts_with(want), "{error}");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            let mut input = bytes.as_slice();
            while let Ok(Some(stanza)) = Stanza::read(&mut input) {
                Record::try_from(&stanza).ok();
            }
        }

        #[test]
        fn fields_are_read_back(fields in proptest::collection::vec(("[A-Za-z][A-Za-z-]{0,8}", "[a-z0-9.:~+]{1,20}"), 1..9)) {
            let text: String = fields.iter().map(|(n, v)| format!("{n}: {v}\n")).collect();
            let all = stanzas(&text).unwrap();
            prop_assert_eq!(all.len(), 1);
            prop_assert_eq!(&all[0].0, &fields);
        }
    }
}
