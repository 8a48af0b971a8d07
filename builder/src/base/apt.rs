//! Resolution by the host's `apt-get` in a private root: own state, cache and settings, an empty
//! dpkg status and a foreign architecture. apt verifies the archive; we read only what it verified.
//! Must not know: locks, downloads of packages, roles. It turns package names into records.
//! Spec: apt.conf(5), sources.list(5), apt-get(8); Debian repository format for `Release` dates.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::{self, BufReader};
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::fs::{FlockOperation, flock};

use super::mirror::{Mirrors, NoMirror, unescape};
use super::packages::{Record, Stanza};
use super::tool::{self, ToolError};
use super::{Apt, Want, diagnose};
use crate::digest::Key;
use crate::io::atomic;

/// The archive could not be resolved. Texts of apt are its own lines, without colour.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AptError {
    /// apt is not installed, or does not start.
    #[error(transparent)]
    Tool(#[from] ToolError),
    /// Nothing is known to download from.
    #[error(transparent)]
    NoMirror(#[from] NoMirror),
    /// The keyring is not there.
    #[error("the keyring `{}` is missing, so the archive cannot be verified", path.display())]
    NoKeyring {
        /// Where it should be.
        path: PathBuf,
    },
    /// A Release file is not signed by a key of the keyring, or was changed after it was signed.
    #[error("the archive's signature is not valid:\n{detail}")]
    Signature {
        /// apt's words.
        detail: String,
    },
    /// A Release file is older than it may be, or from the future.
    #[error("the archive's Release file is out of date:\n{detail}")]
    Expired {
        /// apt's words.
        detail: String,
    },
    /// An index does not fit the signed Release file, or cannot be read.
    #[error("an index of the archive is corrupt: {detail}")]
    Corrupt {
        /// What is wrong.
        detail: String,
    },
    /// No mirror answered.
    #[error("no mirror could be reached; the last one said:\n{detail}")]
    Unreachable {
        /// apt's words.
        detail: String,
    },
    /// The archive has no such package.
    #[error("{origin}: package `{package}` is not in the archive{}", near_text(near.as_deref()))]
    UnknownPackage {
        /// What was wanted.
        package: String,
        /// Who wanted it.
        origin: String,
        /// A package with a similar name.
        near: Option<String>,
    },
    /// The packages cannot be installed together.
    #[error("the packages of set `{set}` do not go together:\n{detail}")]
    Unsatisfiable {
        /// Name of the set.
        set: String,
        /// apt's words.
        detail: String,
    },
    /// A file of the private root could not be read or written.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

fn near_text(near: Option<&str>) -> String {
    near.map_or(String::new(), |n| format!("; did you mean `{n}`?"))
}

impl AptError {
    /// What the user can do about it.
    pub fn hint(&self) -> &'static str {
        match self {
            AptError::Tool(_) => "run `apt-get install apt` or build on a Debian-like machine",
            AptError::NoMirror(_) => "add the URL of a Debian mirror to `mirrors` in the base's file",
            AptError::NoKeyring { .. } => {
                "run `apt-get install debian-archive-keyring`, or set `keyring` in the base's file"
            }
            AptError::Signature { .. } => {
                "check `keyring` and `mirrors` in the base's file; a newer `debian-archive-keyring` may be needed"
            }
            AptError::Expired { .. } => {
                "check this machine's clock, or name another mirror in the base's file"
            }
            AptError::Corrupt { .. } => "try again later, or name another mirror in the base's file",
            AptError::Unreachable { .. } => "check the network, or use the locked bytes with `--offline`",
            AptError::UnknownPackage { .. } => {
                "correct the name, or add the suite that has it to the base's file"
            }
            AptError::Unsatisfiable { .. } => "take one of the packages out of its overlay",
            AptError::Io { .. } => "check the cache folder, or name another with `--cache`",
        }
    }
}

/// A private apt root under the cache folder. Holds a lock on it, so only one process is inside.
#[derive(Debug)]
pub struct Root {
    dir: PathBuf,
    // The lock ends when the file is closed.
    _lock: File,
}

impl Root {
    /// Makes the root for a base, or takes the one of an earlier run, which saves downloading the
    /// indices again. Waits while another process is inside.
    pub fn open(cache: &Path, apt: &Apt) -> Result<Root, AptError> {
        if !apt.keyring.is_file() {
            return Err(AptError::NoKeyring { path: apt.keyring.clone() });
        }
        let wrap = |path: &Path| {
            let path = path.to_owned();
            move |source| AptError::Io { path, source }
        };
        fs::create_dir_all(cache).map_err(wrap(cache))?;
        let cache = fs::canonicalize(cache).map_err(wrap(cache))?;
        let mut key = Key::new("apt root 1").with(apt.architecture.as_bytes());
        for suite in &apt.suites {
            key = key.with(suite.to_string().as_bytes());
        }
        let dir = cache.join("apt").join(&key.finish().hex()[..16]);
        for sub in ["state/lists/partial", "cache/archives/partial", "etc/apt.conf.d", "etc/preferences.d"] {
            fs::create_dir_all(dir.join(sub)).map_err(wrap(&dir))?;
        }
        let lock = File::create(dir.join("lock")).map_err(wrap(&dir))?;
        flock(&lock, FlockOperation::LockExclusive).map_err(|e| wrap(&dir)(e.into()))?;
        Ok(Root { dir, _lock: lock })
    }

    /// Downloads and verifies the indices from the first mirrors that answer, and reads them.
    pub fn update(&self, apt: &Apt, mirrors: &Mirrors) -> Result<Index, AptError> {
        self.put("status", "")?;
        self.put("apt.conf", &self.settings(apt, &mirrors.host().lines))?;
        self.put("etc/preferences", &preferences(apt))?;
        let most = apt.suites.iter().map(|s| mirrors.roots(&s.archive).len()).max().unwrap_or(0);
        let mut last = AptError::Unreachable { detail: "no mirror is named".into() };
        for turn in 0..most {
            let roots = roots_of(apt, mirrors, turn);
            self.put("etc/sources.list.d/base.sources", &sources(apt, &roots))?;
            match self.run("apt-get", &["update", "-q"]) {
                Ok(_) => return self.read_index(&roots),
                Err(Failure::Tool(e)) => return Err(e.into()),
                Err(Failure::Said(text)) => match update_error(&text) {
                    // Another mirror may answer, or may have an index that fits its Release file.
                    error @ (AptError::Unreachable { .. } | AptError::Corrupt { .. }) => last = error,
                    // A bad signature is told, and not papered over by the next mirror.
                    error => return Err(error),
                },
            }
        }
        Err(last)
    }

    /// The packages that installing `wants` into an empty system would bring, as apt decides it,
    /// sorted by name. `set` names the set in errors.
    pub fn resolve(&self, index: &Index, set: &str, wants: &[Want]) -> Result<Vec<Located>, AptError> {
        if wants.is_empty() {
            return Ok(Vec::new());
        }
        let mut args =
            vec!["install", "--print-uris", "-qq", "-y", "--no-install-recommends", "--no-remove", "--"];
        args.extend(wants.iter().map(|w| w.package.as_str()));
        let out = self.run("apt-get", &args).map_err(|failure| match failure {
            Failure::Tool(e) => AptError::Tool(e),
            Failure::Said(text) => install_error(set, &text, wants, index),
        })?;
        let mut found = Vec::new();
        for line in out.lines().filter(|l| l.starts_with('\'')) {
            let url = line[1..].split('\'').next().unwrap_or_default();
            found.push(index.locate(url).ok_or_else(|| AptError::Corrupt {
                detail: format!("apt wants `{url}`, which no index names"),
            })?);
        }
        found.sort_by(|a, b| a.record.name.cmp(&b.record.name));
        Ok(found)
    }

    /// apt.conf of the root. The host's own settings are not read, apart from those that say how a
    /// mirror is reached.
    fn settings(&self, apt: &Apt, host: &[String]) -> String {
        let dir = self.dir.display();
        let mut text = host.join("\n");
        _ = write!(
            text,
            r#"
Dir::State "{dir}/state";
Dir::State::status "{dir}/status";
Dir::Cache "{dir}/cache";
Dir::Etc "{dir}/etc";
Dir::Etc::parts "{dir}/etc/apt.conf.d";
Dir::Etc::main "/dev/null";
Dir::Etc::trusted "/dev/null";
Dir::Etc::trustedparts "/dev/null";
Dir::Etc::netrc "/etc/apt/auth.conf";
Dir::Etc::netrcparts "/etc/apt/auth.conf.d";
Dir::Log "{dir}";
APT::Architecture "{arch}";
APT::Architectures {{ "{arch}"; }};
APT::Install-Recommends "false";
APT::Get::AllowUnauthenticated "false";
APT::Cmd::Pattern-Only "true";
Acquire::AllowInsecureRepositories "false";
Acquire::AllowDowngradeToInsecureRepositories "false";
Acquire::Languages "none";
"#,
            arch = apt.architecture
        );
        // One index that is not had is an error and not a warning.
        text.push_str("APT::Update::Error-Mode \"any\";\n");
        // We hold a lock of our own on the whole root, and apt's needs rights that we may not have.
        text.push_str("Debug::NoLocking \"true\";\n");
        if rustix::process::geteuid().is_root() {
            // apt would download as `_apt`, who may not be able to enter the cache folder.
            text.push_str("APT::Sandbox::User \"root\";\n");
        }
        text
    }

    fn put(&self, name: &str, text: &str) -> Result<(), AptError> {
        let path = self.dir.join(name);
        // An unchanged file keeps its time, so that apt's own cache of the indices stays good.
        atomic::write_if_changed(&path, text.as_bytes()).map_err(|source| AptError::Io { path, source })?;
        Ok(())
    }

    /// Standard output of a good end, the messages of a bad one.
    fn run(&self, program: &str, args: &[&str]) -> Result<String, Failure> {
        let mut command: Command = tool::command(program);
        command.env("APT_CONFIG", self.dir.join("apt.conf")).args(args);
        let out = tool::output(&mut command).map_err(Failure::Tool)?;
        if out.status.success() {
            return Ok(String::from_utf8_lossy(&out.stdout).into_owned());
        }
        let (said, listed) = (String::from_utf8_lossy(&out.stderr), String::from_utf8_lossy(&out.stdout));
        let mut text: Vec<&str> = said.lines().filter(|l| !l.is_empty()).collect();
        // The reasons of an unsatisfiable request are on standard output.
        if let Some((_, why)) = listed.split_once("unmet dependencies:") {
            text.extend(why.lines().filter(|l| !l.is_empty()));
        }
        Err(Failure::Said(text.join("\n")))
    }

    fn read_index(&self, roots: &BTreeMap<String, String>) -> Result<Index, AptError> {
        let args = ["indextargets", "--format", "$(REPO_URI)\t$(FILENAME)", "Created-By: Packages"];
        let targets = self.run("apt-get", &args).map_err(|f| f.into_corrupt())?;
        let mut index = Index { roots: roots.clone(), ..Index::default() };
        for line in targets.lines() {
            let (url, file) = line.split_once('\t').unwrap_or_default();
            for (archive, _) in roots.iter().filter(|(_, root)| same_root(root, url)) {
                index.read(archive, Path::new(file))?;
            }
        }
        index.epoch = self.newest_release()?;
        Ok(index)
    }

    /// The newest `Date` of the Release files that apt has verified, in seconds since 1970. Files
    /// that are not verified yet are in `partial/`.
    fn newest_release(&self) -> Result<u64, AptError> {
        let lists = self.dir.join("state/lists");
        let wrap = |source| AptError::Io { path: lists.clone(), source };
        let mut newest = None;
        for entry in fs::read_dir(&lists).map_err(wrap)? {
            let path = entry.map_err(wrap)?.path();
            if path.to_str().is_some_and(|p| p.ends_with("Release")) {
                let text = fs::read_to_string(&path).map_err(wrap)?;
                let date =
                    text.lines().find_map(|l| l.strip_prefix("Date:")).and_then(|d| parse_date(d.trim()));
                newest = newest.max(date);
            }
        }
        newest.ok_or_else(|| AptError::Corrupt { detail: "no Release file has a date".into() })
    }
}

enum Failure {
    Tool(ToolError),
    Said(String),
}

impl Failure {
    fn into_corrupt(self) -> AptError {
        match self {
            Failure::Tool(e) => AptError::Tool(e),
            Failure::Said(detail) => AptError::Corrupt { detail },
        }
    }
}

/// A record and the archive whose index it is from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Located {
    /// Name of the archive.
    pub archive: String,
    /// The package.
    pub record: Record,
}

/// All packages that the verified indices name.
#[derive(Debug, Default)]
pub struct Index {
    roots: BTreeMap<String, String>,
    records: HashMap<(String, String), Record>,
    names: BTreeSet<String>,
    /// Newest `Date` of the Release files, seconds since 1970.
    pub epoch: u64,
}

impl Index {
    /// Names of the packages that are marked essential, sorted.
    pub fn essential(&self) -> Vec<String> {
        let names: BTreeSet<_> =
            self.records.values().filter(|r| r.essential).map(|r| r.name.clone()).collect();
        names.into_iter().collect()
    }

    fn read(&mut self, archive: &str, file: &Path) -> Result<(), AptError> {
        let wrap = |source: io::Error| match source.kind() {
            io::ErrorKind::InvalidData => {
                AptError::Corrupt { detail: format!("{}: {source}", file.display()) }
            }
            _ => AptError::Io { path: file.to_owned(), source },
        };
        let mut input = BufReader::with_capacity(1 << 16, File::open(file).map_err(wrap)?);
        while let Some(stanza) = Stanza::read(&mut input).map_err(wrap)? {
            let record = Record::try_from(&stanza).map_err(|detail| AptError::Corrupt { detail })?;
            self.names.insert(record.name.clone());
            self.records.insert((archive.to_owned(), record.path.clone()), record);
        }
        Ok(())
    }

    /// The record of a URL that apt printed.
    fn locate(&self, url: &str) -> Option<Located> {
        self.roots.iter().find_map(|(archive, root)| {
            let path = unescape(plain(url).strip_prefix(plain(root).as_str())?.strip_prefix('/')?)?;
            let key = (archive.clone(), path);
            self.records.get(&key).map(|record| Located { archive: key.0.clone(), record: record.clone() })
        })
    }
}

/// apt writes `file:/x` for `file:///x`.
fn plain(url: &str) -> String {
    let url = url.trim_end_matches('/');
    url.strip_prefix("file://").map_or_else(|| url.to_owned(), |path| format!("file:{path}"))
}

fn same_root(a: &str, b: &str) -> bool {
    plain(a) == plain(b)
}

/// The mirror of each archive in turn `turn`; an archive with fewer keeps its last.
fn roots_of(apt: &Apt, mirrors: &Mirrors, turn: usize) -> BTreeMap<String, String> {
    let root = |archive: &str| {
        let roots = mirrors.roots(archive);
        roots.get(turn).or(roots.last()).cloned()
    };
    apt.suites.iter().filter_map(|s| Some((s.archive.clone(), root(&s.archive)?))).collect()
}

fn sources(apt: &Apt, roots: &BTreeMap<String, String>) -> String {
    let mut text = String::new();
    for suite in &apt.suites {
        let root = roots.get(&suite.archive).map_or("", String::as_str);
        _ = writeln!(
            text,
            "Types: deb\nURIs: {root}\nSuites: {}\nComponents: {}\nSigned-By: {}\n",
            suite.suite,
            suite.components.join(" "),
            apt.keyring.display()
        );
    }
    text
}

/// A negative priority is a version that is never installed: apt_preferences(5).
fn preferences(apt: &Apt) -> String {
    apt.exclude.iter().map(|p| format!("Package: {p}\nPin: release *\nPin-Priority: -1\n\n")).collect()
}

/// Which error apt's messages of an update mean. They are English, as the locale is fixed.
fn update_error(said: &str) -> AptError {
    let has = |words: &[&str]| words.iter().any(|w| said.contains(w));
    let detail = complaints(said);
    if has(&[
        "NO_PUBKEY",
        "BADSIG",
        "EXPKEYSIG",
        "REVKEYSIG",
        "is not signed",
        "invalid signature",
        "Clearsigned file",
        "signatures couldn't be verified",
        "signatures were invalid",
        "gpgv",
        "sqv",
    ]) {
        AptError::Signature { detail }
    } else if has(&["is expired", "is not valid yet"]) {
        AptError::Expired { detail }
    } else if has(&["Hash Sum mismatch", "unexpected size", "sync in progress"]) {
        AptError::Corrupt { detail }
    } else {
        AptError::Unreachable { detail }
    }
}

fn install_error(set: &str, said: &str, wants: &[Want], index: &Index) -> AptError {
    let after = |words: &str| said.split_once(words).map(|(_, rest)| rest);
    let located = after("Unable to locate package ").and_then(|r| r.split_whitespace().next());
    let candidate = after("E: Package '").and_then(|r| r.split('\'').next());
    let named = located.or(candidate).and_then(|n| wants.iter().find(|w| w.package == n));
    match named {
        Some(want) => {
            let names = index.names.iter().map(String::as_str);
            let near = diagnose::nearest(&want.package, names.filter(|n| *n != want.package));
            let (package, origin) = (want.package.clone(), want.origin.clone());
            AptError::UnknownPackage { package, origin, near: near.map(str::to_owned) }
        }
        None => AptError::Unsatisfiable { set: set.to_owned(), detail: complaints(said) },
    }
}

/// At most twenty lines of what apt said, without its progress.
fn complaints(said: &str) -> String {
    said.lines().filter(|l| !l.starts_with("N: ")).take(20).collect::<Vec<_>>().join("\n")
}

/// `Sat, 10 May 2025 09:12:33 UTC` as seconds since 1970; the day of the week is not looked at.
/// Civil date to days as in Howard Hinnant's `days_from_civil`.
fn parse_date(text: &str) -> Option<u64> {
    const MONTHS: [&str; 12] =
        ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let mut words = text.split_once(", ")?.1.split_whitespace();
    let day: u64 = words.next()?.parse().ok().filter(|d| (1..=31).contains(d))?;
    let name = words.next()?;
    let month = u64::try_from(MONTHS.iter().position(|m| *m == name)?).ok()? + 1;
    let year: u64 = words.next()?.parse().ok().filter(|y| (1970..=9999).contains(y))?;
    let mut clock = words.next()?.split(':').map(|n| n.parse::<u64>().ok().filter(|n| *n < 61));
    let (hour, minute, second) = (clock.next()??, clock.next()??, clock.next()??);
    if !matches!(words.next(), Some("UTC" | "GMT" | "+0000" | "Z")) {
        return None;
    }
    let y = if month <= 2 { year - 1 } else { year };
    let (era, yoe) = (y / 400, y % 400);
    let doy = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let days = era * 146_097 + yoe * 365 + yoe / 4 - yoe / 100 + doy - 719_468;
    Some(days * 86_400 + hour * 3600 + minute * 60 + second)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn dates_are_seconds() {
        for (given, want) in [
            ("Thu, 01 Jan 1970 00:00:00 UTC", Some(0)),
            ("Tue, 29 Feb 2000 12:34:56 UTC", Some(951_827_696)),
            ("Wed, 31 Dec 2025 23:59:59 UTC", Some(1_767_225_599)),
            ("Wed, 31 Dec 2025 23:59:59 CET", None),
            ("31 Dec 2025 23:59:59 UTC", None),
            ("Wed, 31 Dez 2025 23:59:59 UTC", None),
            ("Wed, 0 Dec 2025 23:59:59 UTC", None),
            ("Wed, 31 Dec 99999999999999 23:59:59 UTC", None),
        ] {
            assert_eq!(parse_date(given), want, "{given}");
        }
    }

    #[test]
    fn messages_are_told_apart() {
        for (said, want) in [
            ("W: GPG error: http://m trixie InRelease: NO_PUBKEY 1", "Signature"),
            ("E: The repository 'http://m trixie InRelease' is not signed.", "Signature"),
            ("E: Release file for http://m/InRelease is expired (invalid since 1d)", "Expired"),
            ("E: Failed to fetch http://m/Packages.xz  Hash Sum mismatch", "Corrupt"),
            ("E: Failed to fetch http://m/InRelease  Could not resolve 'm'", "Unreachable"),
        ] {
            assert!(format!("{:?}", update_error(said)).starts_with(want), "{said}");
        }
    }

    #[test]
    fn an_unknown_package_is_told_with_its_origin() {
        let mut index = Index::default();
        index.names.extend(["munge".to_owned(), "nano".to_owned()]);
        let want = Want { package: "mungo".into(), origin: "overlays/slurm/overlay.toml:3:13".into() };
        for said in ["E: Unable to locate package mungo", "E: Package 'mungo' has no installation candidate"]
        {
            let error = install_error("worker", said, std::slice::from_ref(&want), &index);
            assert_eq!(
                error.to_string(),
                "overlays/slurm/overlay.toml:3:13: package `mungo` is not in the archive; did you mean `munge`?"
            );
        }
        let other = install_error("worker", "E: Unable to correct problems", &[], &index);
        assert!(matches!(other, AptError::Unsatisfiable { .. }));
    }

    proptest! {
        #[test]
        fn no_date_panics(text in "[A-Za-z]{0,3},? ?[0-9]{0,20} (Jan|Feb|Xyz) [0-9]{0,21} [0-9:]{0,12} ?(UTC)?") {
            parse_date(&text);
        }
    }
}
