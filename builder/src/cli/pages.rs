//! Generated pages in a folder: compared with what they should be, written where they differ, removed when
//! nothing makes them any more.
//! Must not know: what stands on a page.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context;

use super::{Hint, report};
use crate::io::atomic;

/// All pages that one command makes.
pub struct Pages {
    /// The first line of each, by which a page is known that may be rewritten or removed.
    pub mark: &'static str,
    /// What the pages are made from, for messages: `the overlays`.
    pub source: &'static str,
    /// The command that makes them, up to the folder.
    pub command: &'static str,
    /// Texts by file name.
    pub texts: BTreeMap<String, String>,
}

impl Pages {
    /// Writes what differs and prints its name; with `check` writes nothing, and is an error when something
    /// differs.
    pub fn keep(self, folder: &Path, check: bool) -> anyhow::Result<ExitCode> {
        let stale = self.stale(folder);
        if check && !stale.is_empty() {
            let lines: Vec<String> = stale.iter().map(|path| format!("`{}`", path.display())).collect();
            let hint = format!("run `{} {}`", self.command, folder.display());
            let error = anyhow::anyhow!("{}", lines.join("\n")).context(Hint(hint));
            return Err(error.context(format!("these pages are not what {} say", self.source)));
        }
        for path in stale {
            let writing = || format!("writing `{}`", path.display());
            match path.file_name().and_then(|name| self.texts.get(name.to_str()?)) {
                Some(text) => atomic::write(&path, text.as_bytes()).with_context(writing)?,
                None => fs::remove_file(&path).with_context(writing)?,
            }
            report::print(&format!("{}\n", path.display()))?;
        }
        Ok(ExitCode::SUCCESS)
    }

    /// Pages that are missing or differ, and those that are here though nothing makes them. Of the latter
    /// only those that this command made.
    fn stale(&self, folder: &Path) -> Vec<PathBuf> {
        let differs = |path: &PathBuf, text: &str| fs::read(path).map_or(true, |old| old != text.as_bytes());
        let all = self.texts.iter().map(|(name, text)| (folder.join(name), text));
        let mut stale: Vec<PathBuf> =
            all.filter(|(path, text)| differs(path, text)).map(|(path, _)| path).collect();
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            let path = entry.path();
            let known = entry.file_name().to_str().is_some_and(|name| self.texts.contains_key(name));
            let ours = || fs::read_to_string(&path).is_ok_and(|text| text.starts_with(self.mark));
            if path.extension().is_some_and(|end| end == "md") && !known && ours() {
                stale.push(path);
            }
        }
        stale.sort();
        stale
    }
}
