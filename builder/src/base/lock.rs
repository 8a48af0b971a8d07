//! `images/<base>.lock`: everything resolved to exact bytes. Reads it and writes it.
//! Must not know: what is wanted now, mirrors, apt, downloads, nodes.
//! Spec: design.md section 6. TOML with a `version` (a breaking change) and a `revision` (an
//! additive one); sorted, one name a line, so that a diff shows what moved.

use std::collections::BTreeSet;
use std::fmt;
use std::fmt::Write as _;
use std::io;
use std::path::Path;

use serde::Deserialize;

use super::artifact::Origin;
use super::packages::is_pool_path;
use super::{is_package_name, is_plain_word};
use crate::digest::Digest;
use crate::io::atomic;

/// Newest format; an older one is read as far as it is known, a newer one is not. Written is the oldest that
/// can say it: 2 lets an artifact be without size and file name, 3 is of a base that is a disk image.
pub const VERSION: u32 = 3;
/// Additions to the format since its version. A newer one is read without what it adds.
pub const REVISION: u32 = 0;
/// Name of the set that every node has.
pub const BASE_SET: &str = "base";
/// Name of the set that is for the initramfs alone, of a base that is a disk image. No role has a dot in its name.
pub const INITRAMFS_SET: &str = "base.initramfs";

/// Everything that builds may use, to the byte. Its file's version and revision are none of it: what is
/// read is as this program knows it, and equal to what this program would write.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Lock {
    /// Name of the base.
    pub base: String,
    /// Digest of the file, for a base that is a disk image.
    pub image: Option<Digest>,
    /// Archives of the image that nothing was taken from, sorted.
    #[serde(default)]
    pub without: Vec<String>,
    /// `SOURCE_DATE_EPOCH` of all builds: the newest date of the archive's Release files, in
    /// seconds since 1970.
    pub epoch: u64,
    /// The base's suites as they were when it was locked: one line each, sorted.
    #[serde(default)]
    pub suites: Vec<String>,
    /// All packages of all sets, sorted by name.
    #[serde(rename = "package", default)]
    pub packages: Vec<Package>,
    /// Which packages go together, sorted by name.
    #[serde(rename = "set", default)]
    pub sets: Vec<Set>,
    /// Upstream files, sorted by name.
    #[serde(rename = "artifact", default)]
    pub artifacts: Vec<Artifact>,
}

/// One `.deb`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Package {
    /// Name.
    pub name: String,
    /// Full version with epoch and revision.
    pub version: String,
    /// Architecture, or `all`.
    pub architecture: String,
    /// Name of the archive that has it, such as `debian`.
    pub archive: String,
    /// Path below the archive's root.
    pub path: String,
    /// Digest of the file.
    pub sha256: Digest,
    /// Size of the file in bytes.
    pub size: u64,
    /// Part of the essential set: marked essential, or needed by one that is. It is unpacked and
    /// configured first.
    #[serde(default)]
    pub essential: bool,
    /// No snapshot service has its archive's past: once it has left the archive, a cache is all that has it.
    #[serde(default)]
    pub unarchived: bool,
}

/// The packages of one kind of node.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Set {
    /// [`BASE_SET`], or the roles of the nodes, sorted and joined by `+`.
    pub name: String,
    /// Package names that were asked for, sorted.
    pub wants: Vec<String>,
    /// Names of all packages of the set that the set `base` has not, sorted.
    pub packages: Vec<String>,
}

/// One upstream file.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Artifact {
    /// Its name in overlays.
    pub name: String,
    /// Where it is had from.
    #[serde(flatten)]
    pub source: Origin,
    /// Name of the file; `None` for a wheel that nobody had when it was locked.
    pub filename: Option<String>,
    /// Digest of the file.
    pub sha256: Digest,
    /// Size of the file in bytes; `None` when no overlay states it and the file was not needed to lock it.
    pub size: Option<u64>,
    /// SPDX licence expression.
    pub licence: String,
}

/// A lock could not be read or written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LockFileError {
    /// It was written by a newer gt-image.
    #[error(
        "{file}: this lock has version {found}, and this gt-image reads up to version {known}; update gt-image"
    )]
    Version {
        /// The lock.
        file: String,
        /// Its version.
        found: u32,
        /// Ours.
        known: u32,
    },
    /// It is not a lock, or was damaged.
    #[error("{file}: {message}; remove it and run `gt-image lock`")]
    Corrupt {
        /// The lock, with a line where one is known.
        file: String,
        /// What is wrong.
        message: String,
    },
    /// The file could not be read or written.
    #[error("{file}: {source}")]
    Io {
        /// The lock.
        file: String,
        /// Why.
        source: io::Error,
    },
}

impl Lock {
    /// The same with all lists in their order.
    #[must_use]
    pub fn sorted(mut self) -> Lock {
        self.packages.sort_by(|a, b| a.name.cmp(&b.name));
        self.sets.sort_by(|a, b| (a.name != BASE_SET, &a.name).cmp(&(b.name != BASE_SET, &b.name)));
        self.artifacts.sort_by(|a, b| a.name.cmp(&b.name));
        self
    }

    /// Reads a lock; `None` when there is none.
    pub fn read(file: &Path) -> Result<Option<Lock>, LockFileError> {
        let shown = file.display().to_string();
        match std::fs::read_to_string(file) {
            Ok(text) => Lock::parse(&shown, &text).map(Some),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(LockFileError::Io { file: shown, source }),
        }
    }

    /// Reads a lock's text; `file` is its name in errors.
    pub fn parse(file: &str, text: &str) -> Result<Lock, LockFileError> {
        #[derive(Deserialize)]
        struct Header {
            version: u32,
        }
        let corrupt = |message: String| LockFileError::Corrupt { file: file.to_owned(), message };
        let toml = |e: toml::de::Error| {
            let line = e.span().and_then(|s| text.get(..s.start)).map_or(1, |t| t.matches('\n').count() + 1);
            LockFileError::Corrupt { file: format!("{file}:{line}"), message: e.message().to_owned() }
        };
        // The version first: a newer lock may have another shape.
        let Header { version } = toml::from_str(text).map_err(toml)?;
        if version > VERSION {
            return Err(LockFileError::Version { file: file.to_owned(), found: version, known: VERSION });
        }
        if version == 0 {
            return Err(corrupt("there never was a version 0".into()));
        }
        let lock: Lock = toml::from_str(text).map_err(toml)?;
        lock.check().map_err(corrupt)?;
        Ok(lock)
    }

    /// Names become paths and URLs, so they are checked, although we wrote them ourselves.
    fn check(&self) -> Result<(), String> {
        let mut names = BTreeSet::new();
        for p in &self.packages {
            if !is_package_name(&p.name) || !is_plain_word(&p.archive) || !is_pool_path(&p.path) {
                return Err(format!("package `{}` has an impossible name, archive or path", p.name));
            }
            if !names.insert(p.name.as_str()) {
                return Err(format!("package `{}` is locked twice", p.name));
            }
        }
        let unknown = |set: &Set| set.packages.iter().find(|p| !names.contains(p.as_str())).cloned();
        if let Some((set, p)) = self.sets.iter().find_map(|s| Some((s, unknown(s)?))) {
            return Err(format!("set `{}` has the package `{p}`, which is not locked", set.name));
        }
        let odd = |a: &Artifact| Some((a.name.clone(), a.filename.clone().filter(|f| !is_plain_word(f))?));
        match self.artifacts.iter().find_map(odd) {
            Some((name, file)) => Err(format!("artifact `{name}` has the impossible file name `{file}`")),
            None => Ok(()),
        }
    }

    fn version(&self) -> u32 {
        let whole = |a: &Artifact| a.size.is_some() && a.filename.is_some();
        match self.image {
            Some(_) => 3,
            None if self.artifacts.iter().all(whole) => 1,
            None => 2,
        }
    }

    /// Writes the lock, unless the file has these bytes already. Says whether it wrote.
    pub fn write(&self, file: &Path) -> Result<bool, LockFileError> {
        atomic::write_if_changed(file, self.to_string().as_bytes())
            .map_err(|source| LockFileError::Io { file: file.display().to_string(), source })
    }

    /// The set of a name.
    pub fn set(&self, name: &str) -> Option<&Set> {
        self.sets.iter().find(|s| s.name == name)
    }

    /// The package of a name.
    pub fn package(&self, name: &str) -> Option<&Package> {
        let found = self.packages.binary_search_by(|p| p.name.as_str().cmp(name)).ok()?;
        self.packages.get(found)
    }

    /// The artifact of a name.
    pub fn artifact(&self, name: &str) -> Option<&Artifact> {
        self.artifacts.iter().find(|a| a.name == name)
    }

    /// The packages that the set has on top of the base, sorted by name; for [`BASE_SET`] the
    /// base's own.
    pub fn packages_of(&self, set: &str) -> Vec<&Package> {
        self.set(set).iter().flat_map(|s| &s.packages).filter_map(|name| self.package(name)).collect()
    }
}

/// The file's text.
impl fmt::Display for Lock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "# Generated by `gt-image lock`; do not edit. Builds use exactly these bytes.\n")?;
        writeln!(f, "version = {}\nrevision = {REVISION}", self.version())?;
        writeln!(f, "base = {}", quote(&self.base))?;
        if let Some(image) = &self.image {
            writeln!(f, "image = \"{}\"", image.hex())?;
        }
        writeln!(f, "epoch = {}\nsuites = {}", self.epoch, list(&self.suites))?;
        if !self.without.is_empty() {
            writeln!(f, "without = {}", list(&self.without))?;
        }
        for set in &self.sets {
            writeln!(f, "\n[[set]]\nname = {}", quote(&set.name))?;
            writeln!(f, "wants = {}\npackages = {}", list(&set.wants), list(&set.packages))?;
        }
        for a in &self.artifacts {
            writeln!(f, "\n[[artifact]]\nname = {}", quote(&a.name))?;
            match &a.source {
                Origin::Url(url) => writeln!(f, "url = {}", quote(url))?,
                Origin::Wheel(w) => {
                    let [p, v, t] = [&w.package, &w.version, &w.platform].map(|s| quote(s));
                    writeln!(f, "wheel = {{ package = {p}, version = {v}, platform = {t} }}")?;
                }
            }
            if let Some(filename) = &a.filename {
                writeln!(f, "filename = {}", quote(filename))?;
            }
            writeln!(f, "sha256 = \"{}\"", a.sha256.hex())?;
            if let Some(size) = a.size {
                writeln!(f, "size = {size}")?;
            }
            writeln!(f, "licence = {}", quote(&a.licence))?;
        }
        for p in &self.packages {
            writeln!(f, "\n[[package]]\nname = {}\nversion = {}", quote(&p.name), quote(&p.version))?;
            writeln!(f, "architecture = {}\narchive = {}", quote(&p.architecture), quote(&p.archive))?;
            writeln!(f, "path = {}\nsha256 = \"{}\"\nsize = {}", quote(&p.path), p.sha256.hex(), p.size)?;
            if p.essential {
                writeln!(f, "essential = true")?;
            }
            if p.unarchived {
                writeln!(f, "unarchived = true")?;
            }
        }
        Ok(())
    }
}

fn quote(text: &str) -> String {
    toml::Value::String(text.to_owned()).to_string()
}

/// One name a line.
fn list(names: &[String]) -> String {
    if names.is_empty() {
        return "[]".into();
    }
    let mut text = String::from("[\n");
    for name in names {
        _ = writeln!(text, "    {},", quote(name));
    }
    text + "]"
}

#[cfg(test)]
mod tests {
    use super::super::testing::lock;
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_lock_is_read_back_and_written_the_same() {
        let text = lock().to_string();
        let read = Lock::parse("images/b.lock", &text).unwrap();
        assert_eq!(read, lock());
        assert_eq!(read.to_string(), text);
        assert!(text.starts_with("# Generated by `gt-image lock`"));
        assert_eq!(read.package("munge").unwrap().size, 3);
        assert_eq!(read.packages_of("worker").len(), 1);
        assert!(read.packages_of("nothing").is_empty());
    }

    #[test]
    fn a_lock_file_is_written_once() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("b.lock");
        assert_eq!(Lock::read(&file).unwrap(), None);
        assert!(lock().write(&file).unwrap());
        assert!(!lock().write(&file).unwrap());
        assert_eq!(Lock::read(&file).unwrap(), Some(lock()));
    }

    #[test]
    fn a_newer_revision_is_read_and_a_newer_version_refused() {
        let text = lock().to_string();
        let newer = text.replacen("revision = 0", "revision = 7\nfuture = true", 1);
        let newer = newer.replace("essential = true", "essential = true\nnovelty = [1]");
        assert_eq!(Lock::parse("l", &newer).unwrap(), lock(), "nothing that is known has moved");
        let error = Lock::parse("l", &text.replacen("version = 1", "version = 4", 1)).unwrap_err();
        assert_eq!(
            error.to_string(),
            "l: this lock has version 4, and this gt-image reads up to version 3; update gt-image"
        );
    }

    #[test]
    fn what_is_not_known_of_an_artifact_is_not_written() {
        let mut lock = lock();
        (lock.artifacts[0].size, lock.artifacts[0].filename) = (None, None);
        let text = lock.to_string();
        assert!(text.contains("version = 2") && !text.contains("size = 6") && !text.contains("filename"));
        let read = Lock::parse("l", &text).unwrap();
        assert_eq!((read.to_string(), read), (text, lock));
    }

    #[test]
    fn the_lock_of_an_image_says_what_only_a_cache_keeps() {
        let mut lock =
            Lock { image: Some(Digest::of(b"image")), without: vec!["raspberrypi".into()], ..lock() };
        lock.packages[1].unarchived = true;
        let text = lock.to_string();
        assert!(text.contains("version = 3") && text.matches("unarchived = true").count() == 1, "{text}");
        let read = Lock::parse("l", &text).unwrap();
        assert_eq!((read.to_string(), read), (text, lock));
    }

    #[test]
    fn one_damaged_field_is_corrupt() {
        let text = lock().to_string();
        for (from, to, want) in [
            ("epoch = ", "epoc = ", "missing field `epoch`"),
            ("version = 1", "version = 0", "there never was a version 0"),
            (
                "path = \"pool/main/m",
                "path = \"../m",
                "package `munge` has an impossible name, archive or path",
            ),
            ("archive = \"debian\"", "archive = \"a/b\"", "package `apt` has an impossible"),
            ("name = \"munge\"", "name = \"apt\"", "package `apt` is locked twice"),
            (
                "    \"munge\",\n]\n\n",
                "    \"mungo\",\n]\n\n",
                "set `worker` has the package `mungo`, which is not locked",
            ),
            ("filename = \"c", "filename = \"../c", "artifact `consul` has the impossible file name"),
            ("sha256 = \"", "sha256 = \"x", "is no SHA-256 digest"),
            ("[[set]]", "[[set]", ""),
        ] {
            let bad = text.replacen(from, to, 1);
            assert_ne!(bad, text, "{from}");
            let error = Lock::parse("l", &bad).unwrap_err();
            assert!(matches!(error, LockFileError::Corrupt { .. }), "{error}");
            assert!(error.to_string().contains(want), "{error}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_quoted(text in "\\PC{0,30}|[\\x00-\\x7f]{0,30}") {
            let table: toml::Table = toml::from_str(&format!("x = {}", quote(&text))).unwrap();
            prop_assert_eq!(table["x"].as_str(), Some(text.as_str()));
        }

        #[test]
        fn no_text_panics(at in 0usize..1500, with in "\\PC{0,5}") {
            let mut text = lock().to_string();
            let at = at.min(text.len());
            if text.is_char_boundary(at) {
                text.insert_str(at, &with);
            }
            Lock::parse("l", &text).ok();
        }
    }
}
