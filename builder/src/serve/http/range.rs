//! Which bytes of a file a request is for.
//! Must not know: files, pages.
//! Spec: RFC 9110 section 14: a range that is malformed, of another unit or one of several may be left
//! out of account, and then the whole file is the answer.

use std::ops::Range;

/// What to send of a file of a known length.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wanted {
    /// All of it (200).
    Whole,
    /// These bytes, which are inside it and not none (206).
    Part(Range<u64>),
    /// The range begins beyond the end (416).
    Nothing,
}

/// Reads the value of a `Range` header for a file of `len` bytes.
pub fn wanted(header: Option<&str>, len: u64) -> Wanted {
    header.and_then(|text| range(text, len)).map_or(Wanted::Whole, |range| {
        let range = range.start..range.end.min(len);
        if range.is_empty() { Wanted::Nothing } else { Wanted::Part(range) }
    })
}

/// `bytes=5-9`, `bytes=5-` or, for the last five, `bytes=-5`; `None` for all else.
fn range(text: &str, len: u64) -> Option<Range<u64>> {
    let (first, last) = text.trim().strip_prefix("bytes=")?.split_once('-')?;
    match (first, last) {
        ("", last) => Some(len.saturating_sub(number(last)?)..len),
        (first, "") => Some(number(first)?..len),
        (first, last) => {
            let (first, last) = (number(first)?, number(last)?);
            (first <= last).then(|| first..last.saturating_add(1))
        }
    }
}

/// Digits alone: `parse` would take a sign. More digits than fit are further than any file goes.
fn number(text: &str) -> Option<u64> {
    let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    digits.then(|| text.parse().unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn ranges_are_read() {
        for (given, want) in [
            (None, Wanted::Whole),
            (Some("bytes=0-9"), Wanted::Part(0..10)),
            (Some("bytes=90-"), Wanted::Part(90..100)),
            (Some("bytes=-1"), Wanted::Part(99..100)),
            (Some("bytes=-1000"), Wanted::Part(0..100)),
            (Some("bytes=50-5000"), Wanted::Part(50..100)),
            (Some("bytes=0-18446744073709551615"), Wanted::Part(0..100)),
            (Some("bytes=99999999999999999999-"), Wanted::Nothing),
            (Some("bytes=100-"), Wanted::Nothing),
            (Some("bytes=-0"), Wanted::Nothing),
            (Some("bytes=9-5"), Wanted::Whole),
            (Some("bytes=0-1,5-6"), Wanted::Whole),
            (Some("bytes=-"), Wanted::Whole),
            (Some("bytes=+1-2"), Wanted::Whole),
            (Some("lines=0-1"), Wanted::Whole),
            (Some(""), Wanted::Whole),
        ] {
            assert_eq!(wanted(given, 100), want, "given {given:?}");
        }
        assert_eq!(wanted(Some("bytes=0-"), 0), Wanted::Nothing);
    }

    proptest! {
        #[test]
        fn a_part_is_inside_the_file(text in "(bytes=)?[0-9]{0,21}-?[0-9]{0,21}", len: u64) {
            if let Wanted::Part(range) = wanted(Some(&text), len) {
                prop_assert!(range.start < range.end && range.end <= len);
            }
        }
    }
}
