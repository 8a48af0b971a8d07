//! Problems of a TOML file with file, line and column, and the nearest known key.
//! Must not know: what the file means. `parse` is the one function that reads TOML here, so that
//! the cluster's diagnostics can take its place.
//! Spec: TOML 1.0; message style of style.md section 5.

use std::fmt;
use std::ops::Range;
use std::path::Path;

use serde::de::DeserializeOwned;

/// One thing wrong with a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The file, as it was named.
    pub file: String,
    /// Line and column, counted from 1, in characters.
    pub place: (usize, usize),
    /// What is wrong.
    pub message: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (line, column) = self.place;
        write!(f, "{}:{line}:{column}: {}", self.file, self.message)
    }
}

/// All problems, one a line.
pub(super) fn listed(problems: &[Problem]) -> String {
    problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}

/// Reads `text` as a `T`; an unknown key is a problem that names the nearest known one.
pub(super) fn parse<T: DeserializeOwned>(file: &Path, text: &str) -> Result<T, Problem> {
    toml::from_str(text).map_err(|e: toml::de::Error| {
        let message = with_nearest(e.message());
        problem(file, text, e.span().unwrap_or(0..0), message)
    })
}

/// A problem at a byte range of `text`.
pub(super) fn problem(file: &Path, text: &str, span: Range<usize>, message: String) -> Problem {
    Problem { file: file.display().to_string(), place: place(text, span.start), message }
}

/// `file:line:column` of a byte offset.
pub(super) fn origin(file: &Path, text: &str, offset: usize) -> String {
    let (line, column) = place(text, offset);
    format!("{}:{line}:{column}", file.display())
}

fn place(text: &str, offset: usize) -> (usize, usize) {
    let before = text.get(..offset).unwrap_or(text);
    let line = before.matches('\n').count() + 1;
    let column = before.rsplit('\n').next().unwrap_or("").chars().count() + 1;
    (line, column)
}

/// serde says "unknown field `x`, expected one of `a`, `b`": the known keys are in the message.
fn with_nearest(message: &str) -> String {
    let mut quoted = message.split('`').skip(1).step_by(2);
    let (true, Some(found)) = (message.starts_with("unknown field"), quoted.next()) else {
        return message.to_owned();
    };
    let known: Vec<&str> = quoted.collect();
    match nearest(found, known.iter().copied()) {
        Some(near) => format!("unknown key `{found}`; did you mean `{near}`?"),
        None => format!("unknown key `{found}`; known are {}", known.join(", ")),
    }
}

/// The known word that is nearest to `found`, if any is near enough to be meant: at most a third of
/// the letters differ, and never more than three.
pub(super) fn nearest<'a>(found: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let limit = (found.len() / 3).clamp(1, 3);
    known.map(|k| (distance(found, k, limit), k)).filter(|(d, _)| *d <= limit).min().map(|(_, k)| k)
}

/// Levenshtein's distance, or something above `limit` when it is above `limit`.
fn distance(a: &str, b: &str, limit: usize) -> usize {
    if a.len().abs_diff(b.len()) > limit {
        return limit + 1;
    }
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.bytes().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.bytes().enumerate() {
            let change = diagonal + usize::from(x != y);
            diagonal = row[j + 1];
            row[j + 1] = change.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn places_count_from_one_in_characters() {
        for (offset, want) in [(0, (1, 1)), (2, (1, 2)), (3, (2, 1)), (4, (2, 2)), (99, (2, 2))] {
            assert_eq!(place("é\nx", offset), want, "offset {offset}");
        }
    }

    #[test]
    fn the_nearest_key_is_named() {
        for (found, want) in [("suits", Some("suites")), ("mirror", Some("mirrors")), ("zzzzzzz", None)] {
            assert_eq!(nearest(found, ["suites", "mirrors", "kind"].into_iter()), want, "{found}");
        }
    }

    proptest! {
        #[test]
        fn distance_is_a_metric(a in "[a-d]{0,8}", b in "[a-d]{0,8}") {
            prop_assert_eq!(distance(&a, &b, 99), distance(&b, &a, 99));
            prop_assert_eq!(distance(&a, &b, 99) == 0, a == b);
            prop_assert!(distance(&a, &b, 99) <= a.len().max(b.len()));
        }
    }
}
