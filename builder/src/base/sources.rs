//! apt's sources in both of their forms: texts to entries. Only what gives packages: `deb`, and enabled.
//! Must not know: whose they are, which archive an address is, how one is reached.
//! Spec: sources.list(5); apt 3.0's `debReleaseIndex::NormalizeSignedBy` for what `Signed-By` may be.

use crate::archive::control::{ControlError, ControlFault, Paragraph, Paragraphs};

/// One entry. A field that is not stated is empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The line that it begins on, counted from 1.
    pub line: u64,
    /// Addresses as they are written, of whatever scheme.
    pub uris: Vec<String>,
    /// Suites; one that ends in a slash is a path, in an archive without suites.
    pub suites: Vec<String>,
    /// Components.
    pub components: Vec<String>,
    /// Architectures that it is for; empty for all.
    pub architectures: Vec<String>,
    /// Who may sign it; `None` for whoever the machine trusts.
    pub signed_by: Option<SignedBy>,
}

/// Keys that may sign an archive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SignedBy {
    /// Paths of keyrings, or fingerprints of keys.
    Names(Vec<String>),
    /// The key itself, in ASCII armour.
    Inline(String),
}

/// A text that apt would not take either. `line` counts from 1.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {fault}")]
pub struct SourceError {
    /// The line that is wrong.
    pub line: u64,
    /// What is wrong.
    pub fault: SourceFault,
}

/// What is wrong with a line.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SourceFault {
    /// It is no deb822 text.
    #[error("{what}")]
    Control {
        /// What is wrong with it.
        what: String,
    },
    /// `[` without `]`.
    #[error("the options in brackets do not end")]
    Bracket,
    /// A word in brackets that is no option.
    #[error("`{word}` is no option: `name=value` is wanted")]
    Option {
        /// The word.
        word: String,
    },
    /// Something that every source has.
    #[error("the source has no {what}")]
    Missing {
        /// What.
        what: &'static str,
    },
}

impl From<ControlFault> for SourceFault {
    fn from(fault: ControlFault) -> SourceFault {
        SourceFault::Control { what: fault.to_string() }
    }
}

/// The entries of a file of this name, each or what is wrong with it; none when apt passes over such a name.
pub fn of_file(name: &str, text: &[u8]) -> Vec<Result<Entry, SourceError>> {
    if name.ends_with(".sources") {
        deb822(text)
    } else if name.ends_with(".list") {
        // What is not UTF-8 can only be in a comment, or makes an address that nobody has.
        one_line(&String::from_utf8_lossy(text))
    } else {
        Vec::new()
    }
}

/// The entries of a file `*.list`, each or what is wrong with its line.
pub fn one_line(text: &str) -> Vec<Result<Entry, SourceError>> {
    let numbered = (1..).zip(text.lines());
    numbered.filter_map(|(line, text)| entry_of_line(line, text).transpose()).collect()
}

fn entry_of_line(line: u64, text: &str) -> Result<Option<Entry>, SourceError> {
    let fail = |fault| SourceError { line, fault };
    let text = text.split('#').next().unwrap_or_default().trim();
    let Some(rest) = text.strip_prefix("deb").filter(|rest| rest.starts_with([' ', '\t', '['])) else {
        return Ok(None);
    };
    let rest = rest.trim_start();
    let (options, rest) = match rest.strip_prefix('[') {
        Some(options) => options.split_once(']').ok_or_else(|| fail(SourceFault::Bracket))?,
        None => ("", rest),
    };
    let mut entry = Entry {
        line,
        uris: Vec::new(),
        suites: Vec::new(),
        components: Vec::new(),
        architectures: Vec::new(),
        signed_by: None,
    };
    for word in options.split_whitespace() {
        let (name, value) =
            word.split_once('=').ok_or_else(|| fail(SourceFault::Option { word: word.to_owned() }))?;
        match name.to_ascii_lowercase().as_str() {
            "arch" => entry.architectures = words(value),
            "signed-by" => entry.signed_by = Some(SignedBy::Names(words(value))),
            // `trusted=yes` is left out on purpose: nothing unsigned is believed.
            _ => {}
        }
    }
    let mut rest = rest.split_whitespace().map(str::to_owned);
    entry.uris.extend(rest.next());
    entry.suites.extend(rest.next());
    entry.components.extend(rest);
    whole(entry).map(Some)
}

/// The entries of a file `*.sources`, each or what is wrong with it. After text that is no deb822 there are no
/// more.
pub fn deb822(text: &[u8]) -> Vec<Result<Entry, SourceError>> {
    let entry = |paragraph: Result<Paragraph, ControlError>| match paragraph {
        Ok(paragraph) => entry_of_paragraph(&paragraph).transpose(),
        Err(error) => Some(Err(SourceError { line: error.line, fault: error.fault.into() })),
    };
    Paragraphs::new(text).filter_map(entry).collect()
}

fn entry_of_paragraph(paragraph: &Paragraph) -> Result<Option<Entry>, SourceError> {
    let get = |name: &str| paragraph.get(name).map(words).unwrap_or_default();
    // apt's StringToBool.
    let off = ["no", "false", "without", "off", "disable", "0"];
    let off = paragraph.get("Enabled").is_some_and(|e| off.contains(&e.to_ascii_lowercase().as_str()));
    if off || !get("Types").iter().any(|kind| kind == "deb") {
        return Ok(None);
    }
    let signed_by = paragraph.get("Signed-By").filter(|value| !value.trim().is_empty()).map(|value| {
        if value.contains("-----BEGIN") {
            SignedBy::Inline(armour(value))
        } else {
            SignedBy::Names(words(value))
        }
    });
    let entry = Entry {
        line: paragraph.line("Types").unwrap_or_default(),
        uris: get("URIs"),
        suites: get("Suites"),
        components: get("Components"),
        architectures: get("Architectures"),
        signed_by,
    };
    whole(entry).map(Some)
}

/// Lines of a folded field: each begins with a space, and an empty one is a dot.
fn armour(value: &str) -> String {
    let lines = value.trim().lines().map(str::trim);
    lines.map(|line| if line == "." { "\n".to_owned() } else { format!("{line}\n") }).collect()
}

/// Words between blanks or commas: apt takes both.
fn words(value: &str) -> Vec<String> {
    let split = value.split(|c: char| c.is_whitespace() || c == ',');
    split.filter(|word| !word.is_empty()).map(str::to_owned).collect()
}

fn whole(entry: Entry) -> Result<Entry, SourceError> {
    let flat = entry.suites.iter().all(|suite| suite.ends_with('/'));
    let missing = match () {
        () if entry.uris.is_empty() => "address",
        () if entry.suites.is_empty() => "suite",
        () if entry.components.is_empty() && !flat => "components",
        () => return Ok(entry),
    };
    Err(SourceError { line: entry.line, fault: SourceFault::Missing { what: missing } })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn all(found: Vec<Result<Entry, SourceError>>) -> Vec<Entry> {
        found.into_iter().map(|entry| entry.unwrap()).collect()
    }

    /// As Raspberry Pi OS of 2025 to 2026 has them, and a key that is in the file.
    const SOURCES: &str = "# Debian\nTypes: deb\nURIs: http://mirror.debian.org/debian/\nSuites: trixie trixie-updates\n\
        Components: main contrib\nSigned-By: /usr/share/keyrings/debian-archive-keyring.pgp\n\n\
        Enabled: no\nTypes: deb\n\nTypes: deb-src\nURIs: http://s/\nSuites: x\nComponents: main\n\n\
        Types: deb\nURIs: http://v/debian\nSuites: stable\nComponents: main\nArchitectures: arm64,armhf\nSigned-By:\n \
        -----BEGIN PGP PUBLIC KEY BLOCK-----\n .\n mDMEZ\n -----END PGP PUBLIC KEY BLOCK-----\n";

    #[test]
    fn both_forms_are_read() {
        let found = all(deb822(SOURCES.as_bytes()));
        assert_eq!(found.len(), 2);
        assert_eq!(
            (found[0].line, &found[0].suites[..]),
            (2, &["trixie".to_owned(), "trixie-updates".into()][..])
        );
        let keyring = "/usr/share/keyrings/debian-archive-keyring.pgp".to_owned();
        assert_eq!(found[0].signed_by, Some(SignedBy::Names(vec![keyring])));
        assert_eq!(found[1].architectures, ["arm64", "armhf"]);
        let block = "-----BEGIN PGP PUBLIC KEY BLOCK-----\n\nmDMEZ\n-----END PGP PUBLIC KEY BLOCK-----\n";
        assert_eq!(found[1].signed_by, Some(SignedBy::Inline(block.into())));
        let list = "# no\ndeb-src http://s x main\n\
                    deb [arch=arm64 signed-by=/k.gpg,/l.gpg trusted=yes] http://a/debian/ trixie main contrib # c\n\
                    deb http://flat/ ./\ndebris x y z\n";
        let found = all(one_line(list));
        assert_eq!(found.len(), 2);
        assert_eq!(found[0].line, 3);
        assert_eq!(found[0].components, ["main", "contrib"]);
        assert_eq!(found[0].architectures, ["arm64"]);
        assert_eq!(found[0].signed_by, Some(SignedBy::Names(vec!["/k.gpg".into(), "/l.gpg".into()])));
        assert_eq!((&found[1].suites[..], found[1].signed_by.as_ref()), (&["./".to_owned()][..], None));
    }

    #[test]
    fn faults_are_told_with_their_line() {
        for (list, want) in [
            ("\ndeb [arch=arm64 http://a b c\n", "line 2: the options in brackets do not end"),
            ("deb [arch] http://a b c\n", "line 1: `arch` is no option: `name=value` is wanted"),
            ("deb\t\n\ndeb http://a\n", "line 3: the source has no suite"),
            ("deb http://a trixie\n", "line 1: the source has no components"),
        ] {
            let error = one_line(list).into_iter().find_map(Result::err).unwrap();
            assert_eq!(error.to_string(), want);
        }
        let error = deb822(b"Types: deb\nSuites: x\n\nnothing\n");
        let told: Vec<_> = error.into_iter().map(|e| e.unwrap_err().to_string()).collect();
        assert_eq!(told[0], "line 1: the source has no address");
        assert!(told[1].starts_with("line 4: `nothing` is no field"), "{told:?}");
    }

    proptest! {
        #[test]
        fn no_text_panics(text in "(deb|deb-src| |\\[|\\]|arch=|http://a|x|#|\n|\t|,|é){0,40}", at in 0usize..600, cut in 0usize..600, bytes: [u8; 2]) {
            one_line(&text);
            let mut text = SOURCES.as_bytes().to_vec();
            text.truncate(cut);
            let end = text.len().min(at + 2);
            text.splice(at.min(end)..end, bytes);
            deb822(&text);
            one_line(&String::from_utf8_lossy(&text));
        }

        #[test]
        fn what_is_written_is_read_back(uri in "https?://[a-z]{1,8}/[a-z/]{0,8}", suite in "[a-z-]{1,9}", components in proptest::collection::vec("[a-z-]{1,9}", 1..4), key in "/[a-z.]{1,9}") {
            let joined = components.join(" ");
            let line = all(one_line(&format!("deb [signed-by={key}] {uri} {suite} {joined}\n")));
            let field = format!("Types: deb\nURIs: {uri}\nSuites: {suite}\nComponents: {joined}\nSigned-By: {key}\n");
            prop_assert_eq!(&line, &all(deb822(field.as_bytes())));
            prop_assert_eq!(&line[0].components, &components);
        }
    }
}
