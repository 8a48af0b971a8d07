//! The text of one file and the way from a byte in it to a line and a column.
//! Must not know: TOML's grammar, what the file describes.
//! Spec: columns count characters (Unicode scalar values) as editors do, both numbers from 1.

use std::borrow::Cow;
use std::fmt::Display;
use std::ops::Range;
use std::path::Path;
use std::str::FromStr;
use std::sync::Arc;

use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::{Deserialize, Deserializer};

use super::{Place, Placed, Report};

/// A value of a file with the bytes it stands in. Wire structs hold these; [`Source`] turns them
/// into checked values or findings. Two are equal when their values are.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct At<T>(toml::Spanned<T>);

impl<T> At<T> {
    /// The value.
    pub fn get(&self) -> &T {
        self.0.get_ref()
    }

    /// Bytes from the start of the file.
    pub fn span(&self) -> Range<usize> {
        self.0.span()
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for At<T> {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<At<T>, D::Error> {
        toml::Spanned::deserialize(d).map(At)
    }
}

/// In a schema a value with a place is just the value.
impl<T: JsonSchema> JsonSchema for At<T> {
    fn inline_schema() -> bool {
        T::inline_schema()
    }
    fn schema_name() -> Cow<'static, str> {
        T::schema_name()
    }
    fn schema_id() -> Cow<'static, str> {
        T::schema_id()
    }
    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        T::json_schema(generator)
    }
}

/// One file: its name for messages and its text.
#[derive(Clone, Debug)]
pub struct Source {
    name: Arc<str>,
    text: String,
}

impl Source {
    /// A text that is at hand.
    pub fn new(name: impl Into<Arc<str>>, text: impl Into<String>) -> Source {
        Source { name: name.into(), text: text.into() }
    }

    /// Reads a file; one that cannot be read, or is no UTF-8, is a finding.
    pub fn read(path: &Path, report: &mut Report) -> Option<Source> {
        let name = path.display().to_string();
        match std::fs::read_to_string(path) {
            Ok(text) => Some(Source::new(name, text)),
            Err(e) => {
                report.add(Place::file(name), e.to_string().to_lowercase());
                None
            }
        }
    }

    /// The file's name.
    pub fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// The file's text.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The place of a byte; the end of the file when there is no such byte.
    pub fn place(&self, offset: usize) -> Place {
        let offset = offset.min(self.text.len());
        // Never endless: 0 is a boundary.
        let offset = (0..=offset).rev().find(|at| self.text.is_char_boundary(*at)).unwrap_or(0);
        let before = &self.text[..offset];
        let line_start = before.rfind('\n').map_or(0, |at| at + 1);
        let line = before.matches('\n').count() + 1;
        Place::at(self.name.clone(), line, before[line_start..].chars().count() + 1)
    }

    /// Where a value stands.
    pub fn place_of<T>(&self, value: &At<T>) -> Place {
        self.place(value.span().start)
    }

    /// The value with its place.
    pub fn placed<T: Clone>(&self, value: &At<T>) -> Placed<T> {
        Placed { value: value.get().clone(), place: self.place_of(value) }
    }

    /// Reads a string as something checked; why it is none becomes a finding.
    pub fn parse<T>(&self, raw: &At<String>, report: &mut Report) -> Option<Placed<T>>
    where
        T: FromStr<Err: Display>,
    {
        match raw.get().parse() {
            Ok(value) => Some(Placed { value, place: self.place_of(raw) }),
            Err(e) => {
                report.add(self.place_of(raw), e.to_string());
                None
            }
        }
    }

    /// Reads a string that may be left out.
    pub fn parse_option<T>(&self, raw: &Option<At<String>>, report: &mut Report) -> Option<Placed<T>>
    where
        T: FromStr<Err: Display>,
    {
        raw.as_ref().and_then(|raw| self.parse(raw, report))
    }

    /// Reads a list of strings, leaving out the wrong ones.
    pub fn parse_all<T>(&self, raw: &[At<String>], report: &mut Report) -> Vec<Placed<T>>
    where
        T: FromStr<Err: Display>,
    {
        raw.iter().filter_map(|raw| self.parse(raw, report)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn lines_and_columns_count_from_one_and_in_characters() {
        let source = Source::new("x", "ab\n\u{fc}\u{fc}=1\r\n");
        for (offset, want) in [
            (0, "x:1:1"),
            (2, "x:1:3"),
            (3, "x:2:1"),
            (5, "x:2:2"),
            (6, "x:2:2"),
            (7, "x:2:3"),
            (99, "x:3:1"),
        ] {
            assert_eq!(source.place(offset).to_string(), want, "offset {offset}");
        }
    }

    #[test]
    fn strings_become_values_or_findings() {
        #[derive(Deserialize)]
        struct Wire {
            sizes: Vec<At<String>>,
        }
        let source = Source::new("x", "sizes = [\"1\", \"two\", \"3\"]");
        let wire: Wire = toml::from_str(source.text()).unwrap();
        let mut report = Report::new();
        let sizes = source.parse_all::<u8>(&wire.sizes, &mut report);
        assert_eq!(sizes.iter().map(|s| s.value).collect::<Vec<_>>(), [1, 3]);
        assert_eq!(report.to_string(), "x:1:15: invalid digit found in string");
    }

    #[test]
    fn a_file_that_cannot_be_read_is_a_finding() {
        let dir = tempfile::tempdir().unwrap();
        let mut report = Report::new();
        assert!(Source::read(&dir.path().join("none.toml"), &mut report).is_none());
        assert!(report.to_string().contains("none.toml: no such file"), "{report}");
    }

    proptest! {
        #[test]
        fn every_offset_has_a_place(text in "\\PC*(\n\\PC*){0,3}", offset in 0usize..200) {
            let (line, column) = Source::new("x", text).place(offset).line_column().unwrap();
            prop_assert!(line >= 1 && column >= 1);
        }
    }
}
