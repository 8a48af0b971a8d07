//! The part of a request's target after `?`: pairs of names and values, decoded and bounded.
//! Must not know: pages, nodes, HTTP.
//! Spec: WHATWG URL, application/x-www-form-urlencoded parsing. It never fails there and does not here:
//! what tells of a failed boot is put together by a shell script that has no encoder at hand, and a
//! stray `%` in it must not cost the operator the reason.

/// Longest detail of a step that is kept, in characters: it is shown on one screen, and any machine
/// that has a node's address may send it.
const DETAIL_MAX: usize = 300;
/// Most boots of each node that `?boots=N` gives: more are not kept.
const BOOTS_MAX: usize = 1000;

/// The steps that a node tells of itself.
pub const STEPS: [&str; 5] = ["init", "root", "switch", "login", "failed"];

/// `?name=root&detail=nfs`: a step that a node tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// One of [`STEPS`].
    pub name: &'static str,
    /// What else there is to say: the value of `detail`, or of `why`.
    pub detail: Option<String>,
}

impl Step {
    /// `None` without a known name. Of several equal names the first counts.
    pub fn parse(query: &str) -> Option<Step> {
        let told = value(query, "name")?;
        let name = STEPS.into_iter().find(|name| *name == told)?;
        let detail = value(query, "detail").or_else(|| value(query, "why"));
        Some(Step { name, detail: detail.as_deref().map(line).filter(|text| !text.is_empty()) })
    }
}

/// `?boots=N`: how many boots of each node are wanted; `otherwise` when it is not said, or is no number.
pub fn boots(query: &str, otherwise: usize) -> usize {
    value(query, "boots").and_then(|text| text.parse().ok()).unwrap_or(otherwise).min(BOOTS_MAX)
}

/// The decoded value of the first pair with this name.
fn value(query: &str, name: &str) -> Option<String> {
    let pairs = query.split('&').map(|pair| pair.split_once('=').unwrap_or((pair, "")));
    pairs.into_iter().find(|(key, _)| decode(key) == name).map(|(_, value)| decode(value))
}

/// `+` is a space, `%41` a byte; a `%` without two hex digits stands for itself, and what is not UTF-8
/// in the end becomes U+FFFD.
fn decode(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        let escaped = match (first, after) {
            (b'%', [high, low, ..]) => hex(*high).zip(hex(*low)),
            _ => None,
        };
        rest = match escaped {
            Some((high, low)) => {
                bytes.push(high << 4 | low);
                &after[2..]
            }
            None => {
                bytes.push(if first == b'+' { b' ' } else { first });
                after
            }
        };
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

fn hex(digit: u8) -> Option<u8> {
    // A digit in base 16 is below 16.
    char::from(digit).to_digit(16).and_then(|value| u8::try_from(value).ok())
}

/// One line for logs and screens: control characters could move an operator's cursor.
fn line(text: &str) -> String {
    text.trim().chars().take(DETAIL_MAX).map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

/// For fuzzers and the property test: any text is read without a panic, and what comes of it is one of
/// our names and a short line.
pub fn fuzz(query: &str) {
    assert!(boots(query, 1) <= BOOTS_MAX, "more boots than are kept");
    let Some(step) = Step::parse(query) else { return };
    assert!(STEPS.contains(&step.name), "a step that nobody knows");
    let detail = step.detail.unwrap_or_default();
    assert!(detail.chars().count() <= DETAIL_MAX, "a detail of {} bytes", detail.len());
    assert!(!detail.contains(char::is_control), "a control character in {detail:?}");
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn steps_are_read() {
        let step = |name, detail: &str| Some(Step { name, detail: Some(detail.into()) });
        for (given, want) in [
            ("name=init", Some(Step { name: "init", detail: None })),
            ("name=root&detail=nfs%2010.4.0.10+%2ffenn", step("root", "nfs 10.4.0.10 /fenn")),
            ("detail=a&name=login&detail=b", step("login", "a")),
            ("name=failed&why=no%20link", step("failed", "no link")),
            // A shell that does not encode.
            ("name=failed&why=100%", step("failed", "100%")),
            ("name=failed&why=5%zz%4", step("failed", "5%zz%4")),
            ("n%61me=root&detail=%", step("root", "%")),
            ("name=failed&why=a%1b[2Jb%0ac", step("failed", "a\u{fffd}[2Jb\u{fffd}c")),
            ("name=failed&why=%ff", step("failed", "\u{fffd}")),
            ("name=root&detail=+%20", Some(Step { name: "root", detail: None })),
            ("name=reboot", None),
            ("name=", None),
            ("name", None),
            ("", None),
            ("&&=&", None),
        ] {
            assert_eq!(Step::parse(given), want, "given {given:?}");
        }
        let long = Step::parse(&format!("name=failed&why={}", "é".repeat(2000))).unwrap();
        assert_eq!(long.detail.unwrap().chars().count(), DETAIL_MAX);
    }

    #[test]
    fn numbers_of_boots_are_bounded() {
        for (given, want) in [
            ("boots=3", 3),
            ("boots=0", 0),
            ("boots=9999999", 1000),
            ("boots=-1", 5),
            ("boots=x", 5),
            ("", 5),
        ] {
            assert_eq!(boots(given, 5), want, "given {given:?}");
        }
    }

    proptest! {
        #[test]
        fn any_query_is_read(query in "\\PC{0,80}", tail in "[a-z%&=+0-9A-F]{0,80}") {
            fuzz(&query);
            fuzz(&format!("name=failed&why={tail}"));
            fuzz(&format!("boots={tail}"));
        }

        #[test]
        fn what_is_encoded_comes_back(detail in "[^\\p{Cc}]{1,80}") {
            let encoded: String = detail.bytes().map(|b| format!("%{b:02X}")).collect();
            let step = Step::parse(&format!("name=root&detail={encoded}")).unwrap();
            prop_assert_eq!(step.detail.unwrap_or_default(), detail.trim());
        }
    }
}
