//! Findings in the files that people write: where, what, and what was probably meant; all of them at
//! once, sorted, so that a description is mended in one go and not one error a run.
//! Must not know: clusters, overlays, bases.
//! Spec: style.md section 5: `cluster.toml:12:5: unknown key `hostnme`; did you mean `name`?`

mod nearest;
mod source;
mod strict;

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

pub use nearest::nearest;
pub use source::{At, Source};
pub use strict::{load, schema, schema_text};

/// A place in a file that somebody can put the cursor on.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Place {
    file: Arc<str>,
    at: Option<(usize, usize)>,
}

impl Place {
    /// The whole of a file.
    pub fn file(name: impl Into<Arc<str>>) -> Place {
        Place { file: name.into(), at: None }
    }

    /// A line and a column, both counted from 1; columns count characters, not bytes.
    pub fn at(name: impl Into<Arc<str>>, line: usize, column: usize) -> Place {
        Place { file: name.into(), at: Some((line, column)) }
    }

    /// The file's name as the user would write it.
    pub fn file_name(&self) -> &str {
        &self.file
    }

    /// Line and column, both counted from 1; `None` for a whole file.
    pub fn line_column(&self) -> Option<(usize, usize)> {
        self.at
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.at {
            Some((line, column)) => write!(f, "{}:{line}:{column}", self.file),
            None => f.write_str(&self.file),
        }
    }
}

/// A checked value and where it stands, for messages of later steps.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Placed<T> {
    /// The value.
    pub value: T,
    /// Where it was written.
    pub place: Place,
}

/// One thing that is wrong.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Finding {
    /// Where.
    pub place: Place,
    /// What: lower case, no full stop, names in backticks.
    pub message: String,
    /// What to do about it.
    pub hint: Option<String>,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The file's own words are quoted in messages; they must not move the user's cursor.
        let clean = |text: &str| text.replace(|c: char| c.is_control(), "\u{fffd}");
        write!(f, "{}: {}", self.place, clean(&self.message))?;
        match &self.hint {
            Some(hint) => write!(f, "; {}", clean(hint)),
            None => Ok(()),
        }
    }
}

/// All findings of one load. Displays as one line each, sorted by file, line and column.
#[derive(Clone, PartialEq, Eq, Debug, Default, thiserror::Error)]
pub struct Report {
    findings: BTreeSet<Finding>,
}

impl Report {
    /// A report without findings.
    pub fn new() -> Report {
        Report::default()
    }

    /// Adds a finding.
    pub fn add(&mut self, place: Place, message: impl Into<String>) {
        self.findings.insert(Finding { place, message: message.into(), hint: None });
    }

    /// Adds a finding with what to do about it.
    pub fn add_with_hint(&mut self, place: Place, message: impl Into<String>, hint: impl Into<String>) {
        self.findings.insert(Finding { place, message: message.into(), hint: Some(hint.into()) });
    }

    /// Adds a finding about a name that is not among `known`, and names the nearest that is.
    pub fn add_unknown<'a>(
        &mut self,
        place: Place,
        noun: &str,
        name: &str,
        known: impl IntoIterator<Item = &'a str>,
    ) {
        let hint = nearest(name, known).map(|near| format!("did you mean `{near}`?"));
        self.findings.insert(Finding { place, message: format!("unknown {noun} `{name}`"), hint });
    }

    /// The findings, sorted, each once.
    pub fn findings(&self) -> impl ExactSizeIterator<Item = &Finding> {
        self.findings.iter()
    }

    /// True when nothing was found.
    pub fn is_clean(&self) -> bool {
        self.findings.is_empty()
    }

    /// `value` when nothing was found, and otherwise the report as the error.
    pub fn finish<T>(self, value: T) -> Result<T, Report> {
        if self.is_clean() { Ok(value) } else { Err(self) }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, finding) in self.findings.iter().enumerate() {
            let lead = if i == 0 { "" } else { "\n" };
            write!(f, "{lead}{finding}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_is_sorted_and_says_nothing_twice() {
        let mut report = Report::new();
        report.add(Place::at("b.toml", 2, 1), "two");
        report.add(Place::at("a.toml", 10, 1), "ten");
        report.add_unknown(Place::at("a.toml", 9, 3), "key", "hostnme", ["name", "hostname"]);
        report.add(Place::at("b.toml", 2, 1), "two");
        report.add(Place::file("b.toml"), "cannot be read");
        assert_eq!(
            report.to_string(),
            "a.toml:9:3: unknown key `hostnme`; did you mean `hostname`?\n\
             a.toml:10:1: ten\n\
             b.toml: cannot be read\n\
             b.toml:2:1: two"
        );
        assert_eq!(report.findings().len(), 4);
        assert!(report.finish(()).is_err() && Report::new().finish(()).is_ok());
    }

    #[test]
    fn words_of_the_file_cannot_move_the_cursor() {
        let mut report = Report::new();
        report.add(Place::file("x"), "unknown key `\u{1b}[2J\n`");
        assert_eq!(report.to_string(), "x: unknown key `\u{fffd}[2J\u{fffd}`");
    }
}
