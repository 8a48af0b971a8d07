use std::collections::BTreeMap;

use proptest::prelude::*;
use serde::Deserialize;

use super::*;
use crate::diagnostic::At;

#[derive(Debug, Deserialize, JsonSchema)]
#[expect(dead_code, reason = "the schema is what is tested")]
#[schemars(deny_unknown_fields, extend("x-refused" = { "password": "never a plain password" }))]
struct Wire {
    #[schemars(required)]
    name: Option<At<String>>,
    size: Option<At<u32>>,
    shape: Option<At<Shape>>,
    inner: Option<Inner>,
    #[serde(default)]
    many: Vec<Inner>,
    #[serde(default)]
    named: BTreeMap<At<String>, Inner>,
    #[serde(default)]
    free: BTreeMap<String, Value>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
enum Shape {
    /// Round.
    Round,
    /// Of four equal sides.
    FourSquare,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[expect(dead_code, reason = "the schema is what is tested")]
#[schemars(deny_unknown_fields)]
struct Inner {
    #[schemars(required)]
    path: Option<At<String>>,
    #[serde(default)]
    words: Vec<At<String>>,
}

fn findings(text: &str) -> (Option<Wire>, String) {
    let mut report = Report::new();
    let wire = load(&Source::new("x", text), &mut report);
    (wire, report.to_string())
}

#[test]
fn what_fits_has_no_findings() {
    let text = "name = 'a'\nsize = 0x10\nshape = 'four-square'\nfree = { a = [1, { b = 2.5 }] }\n\
         [inner]\npath = 'p'\n[[many]]\npath = 'q'\nwords = ['w']\n[named.k]\npath = 'r'\n";
    let (wire, report) = findings(text);
    assert_eq!(report, "");
    let wire = wire.unwrap();
    assert_eq!(wire.size.map(|s| *s.get()), Some(16));
    assert_eq!(wire.named.keys().map(|k| k.span().start).next(), text.find("k]"));
    assert_eq!(wire.many[0].words[0].get(), "w");
}

#[test]
fn everything_wrong_is_told_at_its_place_and_the_rest_is_kept() {
    let (wire, report) = findings(
        "nam = 'a'\nsize = 'big'\nshape = 'rond'\npassword = 'x'\n\
         [inner]\npaths = 'p'\n[[many]]\npath = 1\nwords = ['w', 2]\n[[many]]\npath = 'q'\n\
         [named.k]\n",
    );
    assert_eq!(
        report,
        "x:1:1: key `name` is missing in the file\n\
         x:1:1: unknown key `nam`; did you mean `name`?\n\
         x:2:8: `size` is a string, an integer is wanted\n\
         x:3:9: `shape` is `rond`, wanted is one of `round`, `four-square`; did you mean `round`?\n\
         x:4:1: never a plain password\n\
         x:5:1: key `path` is missing in `inner`\n\
         x:6:1: unknown key `paths`; did you mean `path`?\n\
         x:8:8: `path` is an integer, a string is wanted\n\
         x:9:15: an entry of `words` is an integer, a string is wanted\n\
         x:12:1: key `path` is missing in `k`"
    );
    let wire = wire.unwrap();
    assert_eq!(wire.many.len(), 2);
    assert_eq!(wire.many[0].words.len(), 1);
}

#[test]
fn numbers_out_of_range_are_told() {
    for (given, fits) in [("0", true), ("4294967295", true), ("4294967296", false), ("-1", false)] {
        let (wire, report) = findings(&format!("name = 'a'\nsize = {given}\n"));
        assert_eq!(report.is_empty(), fits, "given {given}: {report}");
        assert!(wire.is_some());
    }
}

#[test]
fn what_is_no_toml_is_told_line_by_line() {
    let (wire, report) = findings("name = \nsize = 1\nshape == 2\n");
    assert!(wire.is_none());
    assert!(report.contains("x:1:8: ") && report.contains("x:3:"), "{report}");
}

#[test]
fn a_text_that_nests_without_end_is_refused() {
    for text in [format!("free = {}", "[".repeat(100_000)), "a.".repeat(10_000) + "b = 1"] {
        let (_, report) = findings(&text);
        assert!(!report.is_empty());
    }
}

proptest! {
    /// Any text gives findings or a value, never a panic.
    #[test]
    fn no_text_panics(text in "[a-z\\[\\]{}=.,'\"\n 0-9é#]{0,200}") {
        let (wire, report) = findings(&text);
        prop_assert!(wire.is_some() || !report.is_empty());
    }
}
