//! What a site has nearer than upstream, mirrors and a folder of files, and which hosts did not answer
//! in this run.
//! Must not know: artifacts, digests, transports. It turns addresses into addresses.
//! Spec: docs/artifacts.md; `[artifacts]` of cluster.toml.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use super::is_plain_word;
use crate::digest::Digest;

/// The list of a folder's files that `sha256sum` writes and checks.
pub const SUMS: &str = "SHA256SUMS";

/// Where upstream files are looked for before upstream. A clone shares what is known of hosts.
#[derive(Debug, Clone, Default)]
pub struct Nearby {
    /// Prefixes and what stands in their place, the longest prefix first.
    mirrors: Vec<(String, String)>,
    folder: Option<PathBuf>,
    down: Arc<Mutex<BTreeMap<String, String>>>,
}

impl Nearby {
    /// `mirrors` says which prefix of an address has another one in its place; `folder` holds files.
    pub fn new(mirrors: &BTreeMap<String, String>, folder: Option<PathBuf>) -> Nearby {
        let mut mirrors: Vec<_> = mirrors.iter().map(|(from, to)| (from.clone(), to.clone())).collect();
        // The more a prefix says, the better its owner knew what is there.
        mirrors.sort_by_key(|(from, _)| std::cmp::Reverse(from.len()));
        Nearby { mirrors, folder, down: Arc::default() }
    }

    /// The folder of the description.
    pub fn folder(&self) -> Option<&Path> {
        self.folder.as_deref()
    }

    /// Addresses of the file that upstream has at `url`, in the order in which they are tried; `url`
    /// itself is the last.
    pub(super) fn urls(&self, url: &str) -> Vec<String> {
        let there = |(from, to): &(String, String)| Some(format!("{to}{}", url.strip_prefix(from.as_str())?));
        let mut urls: Vec<String> = self.mirrors.iter().filter_map(there).collect();
        urls.push(url.to_owned());
        urls
    }

    /// Why the host of `url` is not asked again.
    pub(super) fn down(&self, url: &str) -> Option<String> {
        let down = self.down.lock().unwrap_or_else(PoisonError::into_inner);
        down.get(host(url)?).cloned()
    }

    /// The host of `url` gave no connection: nobody waits for it again in this run.
    pub(super) fn note_down(&self, url: &str, reason: &str) {
        let Some(host) = host(url) else { return };
        let mut down = self.down.lock().unwrap_or_else(PoisonError::into_inner);
        down.entry(host.to_owned()).or_insert_with(|| reason.to_owned());
    }
}

/// Host and port of an address; none of `file://`.
fn host(url: &str) -> Option<&str> {
    let (scheme, rest) = url.split_once("://")?;
    let authority = rest.split(['/', '?', '#']).next()?;
    (scheme != "file" && !authority.is_empty()).then_some(authority)
}

/// The names that a folder's [`SUMS`] gives to a digest. A list that is not there, or is none, has none.
pub(super) fn listed(folder: &Path, sha256: &Digest) -> Vec<String> {
    // It is read whole, so one that is no list must not fill the memory: 100 bytes a line, 10,000 lines.
    const MAX: u64 = 1 << 20;
    let file = folder.join(SUMS);
    if std::fs::metadata(&file).map_or(true, |m| m.len() > MAX) {
        return Vec::new();
    }
    let text = std::fs::read_to_string(&file).unwrap_or_default();
    let hex = sha256.hex();
    // `<digest>  <name>`, or `<digest> *<name>` when it was read as binary.
    let name = |line: &str| Some(line.strip_prefix(&hex)?.strip_prefix([' '])?.get(1..)?.to_owned());
    text.lines().filter_map(name).filter(|name| is_plain_word(name)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_prefix_comes_first_and_upstream_last() {
        let mirrors = [
            ("https://", "http://any/"),
            ("https://github.com/", "https://mirror.lan/github/"),
            ("https://get.helm.sh/", "file:///media/helm/"),
        ];
        let mirrors = mirrors.map(|(a, b)| (a.to_owned(), b.to_owned())).into();
        let nearby = Nearby::new(&mirrors, None);
        assert_eq!(
            nearby.urls("https://github.com/a/b.tgz"),
            [
                "https://mirror.lan/github/a/b.tgz",
                "http://any/github.com/a/b.tgz",
                "https://github.com/a/b.tgz"
            ]
        );
        assert_eq!(nearby.urls("http://github.com/a"), ["http://github.com/a"]);
    }

    #[test]
    fn a_host_is_down_for_all_its_addresses() {
        let nearby = Nearby::default();
        nearby.clone().note_down("https://h:1/a/b", "no name");
        nearby.note_down("https://h:1/c", "later");
        assert_eq!(nearby.down("http://h:1?x").as_deref(), Some("no name"));
        assert_eq!(nearby.down("http://h/a"), None);
        nearby.note_down("file:///a", "x");
        assert_eq!(nearby.down("file:///a"), None);
    }

    #[test]
    fn a_folders_list_names_files_and_nothing_outside() {
        let dir = tempfile::tempdir().unwrap();
        let digest = Digest::of(b"x");
        assert!(listed(dir.path(), &digest).is_empty());
        let (hex, other) = (digest.hex(), Digest::of(b"y").hex());
        let text =
            format!("{hex}  a.tgz\n{other}  b\n{hex} *c.tgz\n{hex}  ../d\n{hex}\n{hex} é\n{hex}é  e\n\n");
        std::fs::write(dir.path().join(SUMS), text).unwrap();
        assert_eq!(listed(dir.path(), &digest), ["a.tgz", "c.tgz"]);
    }
}
