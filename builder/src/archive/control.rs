//! deb822 text: paragraphs of `Name: value` fields, as in `control`, Packages, Release and dpkg's
//! status. Read one paragraph at a time; written with the fields in their order.
//! Must not know: what any field means, OpenPGP signatures around the text.
//! Spec: deb822(5); Debian policy 5.1.

use std::fmt;
use std::io::{self, BufRead, Read};
use std::ops::Range;

/// Bytes of one line; the longest in Debian, a list of dependencies, has some 50 KiB.
const LINE_MAX: usize = 1 << 20;
/// Bytes of one paragraph; a Release file's lists of digests make the largest, of under 1 MiB.
const PARAGRAPH_MAX: usize = 16 << 20;
/// Fields of one paragraph; Debian's have at most 40, and a search looks at all.
const FIELDS_MAX: usize = 1000;

/// Text that is no deb822. `line` counts from 1.
#[derive(Debug, thiserror::Error)]
#[error("line {line}: {fault}")]
pub struct ControlError {
    /// The line that is wrong.
    pub line: u64,
    /// What is wrong.
    pub fault: ControlFault,
}

/// What is wrong with a line or a field.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ControlFault {
    /// A line is neither a field nor goes on with one.
    #[error("`{found}` is no field: `Name: value` is wanted")]
    Syntax {
        /// How the line begins.
        found: String,
    },
    /// A field's name has characters that none may have.
    #[error("`{name}` cannot be the name of a field")]
    Name {
        /// The name.
        name: String,
    },
    /// A value would not be read back as it is.
    #[error("the value of `{name}` has a line that does not begin with a space or is empty")]
    Value {
        /// The field.
        name: String,
    },
    /// A paragraph has the same field twice.
    #[error("the field `{name}` is there twice")]
    Duplicate {
        /// The field.
        name: String,
    },
    /// A line that begins with a space has no field before it.
    #[error("the line continues a field, and there is none before it")]
    Orphan,
    /// More than is sensible.
    #[error("the {what} is too long: at most {limit} are allowed")]
    TooLong {
        /// Of what.
        what: &'static str,
        /// What is allowed.
        limit: usize,
    },
    /// Bytes that are not UTF-8.
    #[error("the text is not UTF-8")]
    Utf8,
    /// The text could not be read.
    #[error("reading the text: {0}")]
    Io(#[source] io::Error),
}

/// Fields in their order. Values keep their further lines as they are, each with its newline in
/// front: `"a,\n b"`.
#[derive(Clone, Default)]
pub struct Paragraph {
    /// All names and values; one allocation serves them all, for a Packages file has a million.
    text: String,
    fields: Vec<Field>,
}

#[derive(Clone)]
struct Field {
    name: Range<usize>,
    value: Range<usize>,
    line: u64,
}

impl Paragraph {
    /// A paragraph without fields.
    pub fn new() -> Paragraph {
        Paragraph::default()
    }

    /// The value of a field, whatever the case of its name.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.find(name).map(|field| &self.text[field.value.clone()])
    }

    /// The line that a field begins on, counted from 1 in the whole text; 0 for one that was set.
    pub fn line(&self, name: &str) -> Option<u64> {
        self.find(name).map(|field| field.line)
    }

    /// Names and values in their order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.fields.iter().map(|f| (&self.text[f.name.clone()], &self.text[f.value.clone()]))
    }

    /// True without fields.
    pub fn is_empty(&self) -> bool {
        self.fields.is_empty()
    }

    /// Sets a field: in its place if it is there, else as the last. A value of several lines has
    /// each further line begin with a space.
    pub fn set(&mut self, name: &str, value: &str) -> Result<(), ControlFault> {
        if !is_name(name.as_bytes()) {
            return Err(ControlFault::Name { name: name.into() });
        }
        let mut lines = value.split('\n');
        let first = lines.next().unwrap_or_default();
        let further = |line: &str| line.starts_with([' ', '\t']) && !line.trim_ascii().is_empty();
        if first.trim_ascii() != first || value.contains('\r') || !lines.all(further) {
            return Err(ControlFault::Value { name: name.into() });
        }
        let start = self.text.len();
        self.text.push_str(value);
        let value = start..self.text.len();
        if let Some(at) = self.position(name) {
            self.fields[at].value = value;
            self.fields[at].line = 0;
            return Ok(());
        }
        let start = self.text.len();
        self.text.push_str(name);
        self.fields.push(Field { name: start..self.text.len(), value, line: 0 });
        Ok(())
    }

    /// Takes a field away; false when there was none.
    pub fn remove(&mut self, name: &str) -> bool {
        let at = self.position(name);
        at.map(|at| self.fields.remove(at)).is_some()
    }

    fn position(&self, name: &str) -> Option<usize> {
        self.fields.iter().position(|f| self.text[f.name.clone()].eq_ignore_ascii_case(name))
    }

    fn find(&self, name: &str) -> Option<&Field> {
        self.position(name).map(|at| &self.fields[at])
    }
}

/// Equal when they have the same fields in the same order, wherever those were read.
impl PartialEq for Paragraph {
    fn eq(&self, other: &Paragraph) -> bool {
        self.iter().eq(other.iter())
    }
}

impl Eq for Paragraph {}

impl fmt::Debug for Paragraph {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.iter()).finish()
    }
}

/// The fields as text, each with its newline. Paragraphs of one text need an empty line between
/// them.
impl fmt::Display for Paragraph {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, value) in self.iter() {
            let space = if value.is_empty() || value.starts_with('\n') { "" } else { " " };
            writeln!(f, "{name}:{space}{value}")?;
        }
        Ok(())
    }
}

/// Reads paragraph after paragraph. After an error there are no more.
#[derive(Debug)]
pub struct Paragraphs<R> {
    source: R,
    line: u64,
    done: bool,
}

impl<R: BufRead> Paragraphs<R> {
    /// Reads from the text's start.
    pub fn new(source: R) -> Paragraphs<R> {
        Paragraphs { source, line: 0, done: false }
    }

    fn read(&mut self) -> Result<Option<Paragraph>, ControlFault> {
        let mut text = Vec::new();
        let mut fields: Vec<Field> = Vec::new();
        let first = self.line;
        loop {
            let start = text.len();
            if !self.read_line(&mut text)? {
                self.done = true;
                break;
            }
            let line = &text[start..];
            match line.first() {
                // deb822(5): a line of spaces and tabs separates like an empty one.
                _ if line.trim_ascii().is_empty() => {
                    text.truncate(start);
                    if !fields.is_empty() {
                        break;
                    }
                }
                // Only source packages may have comments; dropping them everywhere costs nothing.
                Some(b'#') => text.truncate(start),
                Some(b' ' | b'\t') => {
                    let field = fields.last_mut().ok_or(ControlFault::Orphan)?;
                    field.value.end = start + line.trim_ascii_end().len();
                }
                _ => fields.push(field(line, start, self.line)?),
            }
            if fields.len() > FIELDS_MAX {
                return Err(ControlFault::TooLong { what: "paragraph's list of fields", limit: FIELDS_MAX });
            }
            if text.len() > PARAGRAPH_MAX {
                return Err(ControlFault::TooLong { what: "paragraph in bytes", limit: PARAGRAPH_MAX });
            }
        }
        self.check(text, fields, first).map(|paragraph| Some(paragraph).filter(|p| !p.is_empty()))
    }

    /// What can only be told of a whole paragraph, whose first line is the one after `before`.
    fn check(&mut self, text: Vec<u8>, fields: Vec<Field>, before: u64) -> Result<Paragraph, ControlFault> {
        let text = String::from_utf8(text).map_err(|e| {
            let good = &e.as_bytes()[..e.utf8_error().valid_up_to()];
            let newlines = |bytes: &[u8]| bytes.iter().filter(|&&b| b == b'\n').count() as u64;
            // Comments are not in the text, so counting starts at the field that the bytes are in.
            let field = fields.iter().rfind(|f| f.name.start <= good.len());
            self.line = field.map_or(before + 1, |f| f.line + newlines(&good[f.name.start..]));
            ControlFault::Utf8
        })?;
        let paragraph = Paragraph { text, fields };
        for (at, field) in paragraph.fields.iter().enumerate() {
            let name = &paragraph.text[field.name.clone()];
            if paragraph.position(name) != Some(at) {
                self.line = field.line;
                return Err(ControlFault::Duplicate { name: name.into() });
            }
        }
        Ok(paragraph)
    }

    /// Adds the next line to `text`; false at the end.
    fn read_line(&mut self, text: &mut Vec<u8>) -> Result<bool, ControlFault> {
        let limit = LINE_MAX as u64 + 1;
        let got = self.source.by_ref().take(limit).read_until(b'\n', text).map_err(ControlFault::Io)?;
        self.line += u64::from(got > 0);
        if got > LINE_MAX {
            return Err(ControlFault::TooLong { what: "line in bytes", limit: LINE_MAX });
        }
        Ok(got > 0)
    }
}

impl<R: BufRead> Iterator for Paragraphs<R> {
    type Item = Result<Paragraph, ControlError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.done {
            return None;
        }
        let read = self.read();
        self.done |= read.is_err();
        read.map_err(|fault| ControlError { line: self.line, fault }).transpose()
    }
}

/// The field that a line begins; `start` is the line's place in its paragraph's text.
fn field(line: &[u8], start: usize, number: u64) -> Result<Field, ControlFault> {
    let shown = |bytes: &[u8]| crate::tree::printable(&bytes[..bytes.len().min(60)]);
    let Some(colon) = line.iter().position(|&b| b == b':') else {
        return Err(ControlFault::Syntax { found: shown(line.trim_ascii_end()) });
    };
    let name = &line[..colon];
    if !is_name(name) {
        return Err(ControlFault::Name { name: shown(name) });
    }
    let end = line.trim_ascii_end().len();
    let value = match end > colon + 1 {
        true => {
            let blank = line[colon + 1..end].iter().take_while(|b| b.is_ascii_whitespace()).count();
            start + colon + 1 + blank..start + end
        }
        // Further lines join on with the newline, whatever blanks stand before it.
        false => {
            let newline = start + line.strip_suffix(b"\n").unwrap_or(line).len();
            newline..newline
        }
    };
    Ok(Field { name: start..start + colon, value, line: number })
}

/// Policy 5.1: printable ASCII but for space and colon, and neither `#` nor `-` first.
fn is_name(name: &[u8]) -> bool {
    name.iter().all(|b| b.is_ascii_graphic() && *b != b':')
        && !matches!(name.first(), None | Some(b'#' | b'-'))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read(text: &str) -> Vec<Paragraph> {
        Paragraphs::new(text.as_bytes()).map(|p| p.unwrap()).collect()
    }

    const STATUS: &str = "\
Package: bash
Essential: yes
Depends: base-files (>= 2.1.12),
 debianutils (>= 5.6-0.1)
Conffiles:
 /etc/bash.bashrc 89269e1298235f1b12b4c16e4065ad0d
 /etc/skel/.bashrc ee35a240758f374832e809ae0ea4883a
Description: GNU Bourne Again SHell
 Bash is an sh-compatible command language
 .
 Included.
";

    #[test]
    fn fields_are_found_in_any_case_with_their_further_lines_as_they_are() {
        let p = &read(STATUS)[0];
        assert_eq!(p.get("package"), Some("bash"));
        assert_eq!(p.get("DEPENDS"), Some("base-files (>= 2.1.12),\n debianutils (>= 5.6-0.1)"));
        assert!(p.get("conffiles").unwrap().starts_with("\n /etc/bash.bashrc 8"));
        assert_eq!(p.get("Version"), None);
        assert_eq!(p.line("Description"), Some(8));
        let names: Vec<&str> = p.iter().map(|(name, _)| name).collect();
        assert_eq!(names, ["Package", "Essential", "Depends", "Conffiles", "Description"]);
        assert_eq!(p.to_string(), STATUS);
    }

    #[test]
    fn paragraphs_end_at_blank_lines_and_comments_are_skipped() {
        let text = "\n# start\n\nA: 1\n# within\nB:2  \n \t\n\n\nA:\t3\r\nC:\n";
        let all = read(text);
        assert_eq!(all.len(), 2);
        assert_eq!((all[0].get("A"), all[0].get("B")), (Some("1"), Some("2")));
        assert_eq!((all[1].get("A"), all[1].get("C")), (Some("3"), Some("")));
        assert_eq!(all[1].line("A"), Some(10));
        assert!(read("").is_empty() && read("\n\n").is_empty() && read("# only\n").is_empty());
        assert_eq!(read("A: 1\n\nB: no newline")[1].get("b"), Some("no newline"));
    }

    #[test]
    fn faults_are_told_with_their_line() {
        let long = format!("A: 1\nB: {}\n", "x".repeat(LINE_MAX));
        let many: String = (0..1200).map(|n| format!("F{n}: 1\n")).collect();
        for (text, want) in [
            (&b"A: 1\nnothing\n"[..], "line 2: `nothing` is no field: `Name: value` is wanted"),
            (b"A: 1\n\n more\n", "line 3: the line continues a field, and there is none before it"),
            (b"A b: 1\n", "line 1: `A b` cannot be the name of a field"),
            (b": 1\n", "line 1: `` cannot be the name of a field"),
            (b"-A: 1\n", "line 1: `-A` cannot be the name of a field"),
            (b"\xff: 1\n", "line 1: `\\xff` cannot be the name of a field"),
            (b"A: 1\nB: 1\na: 2\nD: 1\n", "line 3: the field `a` is there twice"),
            (b"A: 1\n\nB: 1\n#c\n x\n \xff\n", "line 5: the text is not UTF-8"),
            (long.as_bytes(), "line 2: the line in bytes is too long: at most 1048576 are allowed"),
            (
                many.as_bytes(),
                "line 1001: the paragraph's list of fields is too long: at most 1000 are allowed",
            ),
        ] {
            let mut reader = Paragraphs::new(text);
            let error = reader.find_map(|p| p.err()).unwrap();
            assert_eq!(error.to_string(), want);
            assert!(reader.next().is_none(), "nothing after an error");
        }
    }

    #[test]
    fn values_that_would_be_read_otherwise_cannot_be_set() {
        let mut p = Paragraph::new();
        for (name, value, good) in [
            ("Status", "install ok installed", true),
            ("Empty", "", true),
            ("Conffiles", "\n /etc/x 1\n /etc/y 2", true),
            ("status", "install ok unpacked", true),
            ("Bad name", "1", false),
            ("Bad", "a\nB: 2", false),
            ("Bad", "a\n\n b", false),
            ("Bad", "a\n \n b", false),
            ("Bad", " a", false),
            ("Bad", "a\r\n b", false),
        ] {
            assert_eq!(p.set(name, value).is_ok(), good, "{name}: {value:?}");
        }
        assert_eq!(p.to_string(), "Status: install ok unpacked\nEmpty:\nConffiles:\n /etc/x 1\n /etc/y 2\n");
        assert!(p.remove("EMPTY") && !p.remove("Empty"));
        assert_eq!(read(&p.to_string())[0], p);
    }

    proptest! {
        #[test]
        fn what_is_set_is_read_back(fields in proptest::collection::btree_map(
            "[A-Z][a-z-]{0,8}", "([a-z](.{0,10}[a-z])?)?(\n [a-z.]{1,9}){0,3}", 1..8,
        )) {
            let mut p = Paragraph::new();
            for (name, value) in &fields {
                if p.get(name).is_none() {
                    prop_assume!(p.set(name, value).is_ok());
                }
            }
            prop_assert_eq!(&read(&p.to_string()), &[p]);
        }

        #[test]
        fn changed_texts_never_panic(at in 0usize..350, bytes: [u8; 3], cut in 0usize..350) {
            let mut text = STATUS.repeat(2).into_bytes();
            text.truncate(cut * 2);
            let end = text.len().min(at + 3);
            text.splice(at.min(end)..end, bytes);
            crate::archive::fuzz::control(&text);
        }
    }
}
