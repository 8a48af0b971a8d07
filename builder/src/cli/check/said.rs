//! What the program `check` of a node says, line by line.
//! Must not know: processes, how the lines came here.
//! Spec: docs/overlay-format.md, "What a node gets": the form that `/usr/lib/gt/check each` prints. A node that was
//! built before there was `each` prints the other form, which has no file names.

use std::collections::BTreeMap;

use super::Checked;

/// Reads lines and gives checks.
pub(super) struct Said<'a> {
    /// Overlay and name of each check by its file, as the description has them now.
    expected: BTreeMap<&'a str, (&'a str, &'a str)>,
    overlays: &'a [String],
    /// A failed check whose output is still coming.
    open: Option<Checked>,
    /// The last line was there.
    pub(super) finished: bool,
}

impl<'a> Said<'a> {
    pub(super) fn new(expected: &'a [(String, String, String)], overlays: &'a [String]) -> Said<'a> {
        let expected =
            expected.iter().map(|(file, o, n)| (file.as_str(), (o.as_str(), n.as_str()))).collect();
        Said { expected, overlays, open: None, finished: false }
    }

    /// Takes one line; gives a check that is complete by now.
    pub(super) fn line(&mut self, line: &str) -> Option<Checked> {
        if let Some(output) = line.strip_prefix("| ") {
            if let Some(open) = &mut self.open {
                open.output.push_str(output);
                open.output.push('\n');
            }
            return None;
        }
        let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
        let passed = match word {
            "ok" => true,
            "FAILED" => false,
            "gt-check:" => {
                self.finished = true;
                return self.open.take();
            }
            // Output of a check in the other form.
            _ => {
                if let Some(open) = &mut self.open {
                    open.output.push_str(line);
                    open.output.push('\n');
                }
                return None;
            }
        };
        self.open.replace(self.checked(rest, passed))
    }

    fn checked(&self, rest: &str, passed: bool) -> Checked {
        let named = rest.split_once(' ').filter(|(file, _)| number(file).is_some());
        let Some((file, name)) = named else { return self.old(rest, passed) };
        let (overlay, name) = match self.expected.get(file) {
            Some((overlay, _)) => (Some((*overlay).to_owned()), name),
            None => (self.guess(file), name),
        };
        let (name, file) = (name.to_owned(), Some(file.to_owned()));
        Checked { overlay, name, file, passed, output: String::new() }
    }

    /// `NAME`, or `NAME: OUTPUT` of one that failed. A name may have a colon, so the known names decide.
    fn old(&self, rest: &str, passed: bool) -> Checked {
        let fits = |name: &str| {
            rest == name || (!passed && rest.strip_prefix(name).is_some_and(|rest| rest.starts_with(": ")))
        };
        let found = self.expected.iter().find(|(_, (_, name))| fits(name));
        let name = match found {
            Some((_, (_, name))) => *name,
            None if passed => rest,
            None => rest.split_once(": ").map_or(rest, |(name, _)| name),
        };
        let output = rest[name.len()..].trim_start_matches(": ");
        Checked {
            overlay: found.map(|(_, (overlay, _))| (*overlay).to_owned()),
            name: name.to_owned(),
            file: found.map(|(file, _)| (*file).to_owned()),
            passed,
            output: if output.is_empty() { String::new() } else { format!("{output}\n") },
        }
    }

    /// The overlay in a file name of another generation: the longest that it can be.
    fn guess(&self, file: &str) -> Option<String> {
        let rest = number(file)?;
        let fits =
            |name: &&String| rest.strip_prefix(name.as_str()).is_some_and(|rest| rest.starts_with('-'));
        self.overlays.iter().filter(fits).max_by_key(|name| name.len()).cloned()
    }

    /// The last check, when the lines have ended.
    pub(super) fn end(&mut self) -> Option<Checked> {
        self.open.take()
    }
}

/// What follows the number of a check's file name.
fn number(file: &str) -> Option<&str> {
    let (digits, rest) = file.split_once('-')?;
    (digits.len() >= 2 && digits.bytes().all(|b| b.is_ascii_digit())).then_some(rest)
}
