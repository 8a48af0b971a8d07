//! The indices that apt has verified: which package is at which path of which archive, and when the
//! archive was last made.
//! Must not know: how apt is run, mirrors beyond the URL that apt printed.
//! Spec: Debian repository format, "Packages" indices and the `Date` of `Release` files.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs::File;
use std::io::{self, BufReader};
use std::path::Path;

use super::apt_error::AptError;
use super::mirror::unescape;
use super::packages::{Record, Stanza};

/// A record and the archive whose index it is from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Located {
    /// Name of the archive.
    pub archive: String,
    /// The package.
    pub record: Record,
}

/// All packages that the verified indices name.
#[derive(Debug, Default)]
pub struct Index {
    roots: BTreeMap<String, String>,
    records: HashMap<(String, String), Record>,
    pub(super) names: BTreeSet<String>,
    /// Newest `Date` of the Release files, seconds since 1970.
    pub epoch: u64,
}

impl Index {
    /// An empty index of archives at these URLs.
    pub(super) fn of(roots: BTreeMap<String, String>) -> Index {
        Index { roots, ..Index::default() }
    }

    /// Names of the packages that are marked essential, sorted.
    pub fn essential(&self) -> Vec<String> {
        let names: BTreeSet<_> =
            self.records.values().filter(|r| r.essential).map(|r| r.name.clone()).collect();
        names.into_iter().collect()
    }

    /// Adds the packages of one verified index.
    pub(super) fn read(&mut self, archive: &str, file: &Path) -> Result<(), AptError> {
        let wrap = |source: io::Error| match source.kind() {
            io::ErrorKind::InvalidData => {
                AptError::Corrupt { detail: format!("{}: {source}", file.display()) }
            }
            _ => AptError::Io { path: file.to_owned(), source },
        };
        let mut input = BufReader::with_capacity(1 << 16, File::open(file).map_err(wrap)?);
        while let Some(stanza) = Stanza::read(&mut input).map_err(wrap)? {
            let record = Record::try_from(&stanza).map_err(|detail| AptError::Corrupt { detail })?;
            self.names.insert(record.name.clone());
            self.records.insert((archive.to_owned(), record.path.clone()), record);
        }
        Ok(())
    }

    /// The record of a URL that apt printed.
    pub(super) fn locate(&self, url: &str) -> Option<Located> {
        self.roots.iter().find_map(|(archive, root)| {
            let path = unescape(plain(url).strip_prefix(plain(root).as_str())?.strip_prefix('/')?)?;
            let key = (archive.clone(), path);
            self.records.get(&key).map(|record| Located { archive: key.0.clone(), record: record.clone() })
        })
    }
}

/// apt writes `file:/x` for `file:///x`.
fn plain(url: &str) -> String {
    let url = url.trim_end_matches('/');
    url.strip_prefix("file://").map_or_else(|| url.to_owned(), |path| format!("file:{path}"))
}

/// Whether two URLs are one archive's root.
pub(super) fn same_root(a: &str, b: &str) -> bool {
    plain(a) == plain(b)
}

/// `Sat, 10 May 2025 09:12:33 UTC` as seconds since 1970; the day of the week is not looked at.
/// Civil date to days as in Howard Hinnant's `days_from_civil`.
pub(super) fn parse_date(text: &str) -> Option<u64> {
    const MONTHS: [&str; 12] =
        ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let mut words = text.split_once(", ")?.1.split_whitespace();
    let day: u64 = words.next()?.parse().ok().filter(|d| (1..=31).contains(d))?;
    let name = words.next()?;
    let month = u64::try_from(MONTHS.iter().position(|m| *m == name)?).ok()? + 1;
    let year: u64 = words.next()?.parse().ok().filter(|y| (1970..=9999).contains(y))?;
    let mut clock = words.next()?.split(':').map(|n| n.parse::<u64>().ok().filter(|n| *n < 61));
    let (hour, minute, second) = (clock.next()??, clock.next()??, clock.next()??);
    if !matches!(words.next(), Some("UTC" | "GMT" | "+0000" | "Z")) {
        return None;
    }
    let y = if month <= 2 { year - 1 } else { year };
    let (era, yoe) = (y / 400, y % 400);
    let doy = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let days = era * 146_097 + yoe * 365 + yoe / 4 - yoe / 100 + doy - 719_468;
    Some(days * 86_400 + hour * 3600 + minute * 60 + second)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn dates_are_seconds() {
        for (given, want) in [
            ("Thu, 01 Jan 1970 00:00:00 UTC", Some(0)),
            ("Tue, 29 Feb 2000 12:34:56 UTC", Some(951_827_696)),
            ("Wed, 31 Dec 2025 23:59:59 UTC", Some(1_767_225_599)),
            ("Wed, 31 Dec 2025 23:59:59 CET", None),
            ("31 Dec 2025 23:59:59 UTC", None),
            ("Wed, 31 Dez 2025 23:59:59 UTC", None),
            ("Wed, 0 Dec 2025 23:59:59 UTC", None),
            ("Wed, 31 Dec 99999999999999 23:59:59 UTC", None),
        ] {
            assert_eq!(parse_date(given), want, "{given}");
        }
    }

    proptest! {
        #[test]
        fn no_date_panics(text in "[A-Za-z]{0,3},? ?[0-9]{0,20} (Jan|Feb|Xyz) [0-9]{0,21} [0-9:]{0,12} ?(UTC)?") {
            parse_date(&text);
        }
    }
}
