//! Bases: what a node starts from, and the lock that pins it to exact bytes.
//! Must not know: nodes, roles, trees. It is told which packages and artifacts are wanted, and
//! gives back files whose digests it has checked.
//! Spec: design.md section 6; the kinds and keys of `images/<name>.toml` are in `wire.rs`.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use crate::digest::Digest;

pub mod apt;
pub mod apt_error;
pub mod artifact;
pub mod changes;
mod diagnose;
pub mod disk_image;
pub mod fetch;
mod first_user;
pub mod firstboot;
pub mod fit;
pub mod index;
pub mod lock;
pub mod mirror;
pub mod nearby;
pub mod packages;
mod part;
pub mod resolve;
pub mod root_apt;
pub mod sources;
pub mod tar;
#[cfg(test)]
mod testing;
mod tool;
mod transport;
mod upstream;
mod wire;

pub use diagnose::Problem;

/// A checked base: `images/<name>.toml`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Base {
    /// The file's name without `.toml`.
    pub name: String,
    /// The file it was read from, as it was named.
    pub file: PathBuf,
    /// Fixed numbers for users that package scripts create, and for their groups of the same name.
    pub ids: BTreeMap<String, u32>,
    /// Fixed numbers for groups that have no user.
    pub groups: BTreeMap<String, u32>,
    /// Where its bytes come from.
    pub source: Source,
}

/// Where a base's bytes come from.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Source {
    /// A Debian archive.
    Apt(Apt),
    /// A root filesystem tarball.
    Tar(Pinned),
    /// An official disk image.
    DiskImage(Image),
}

/// A base from a disk image, and what goes on top of it. Where its packages come from is written in the image;
/// the base's file says what is to be different.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Image {
    /// The image.
    pub pinned: Pinned,
    /// Mirrors of Debian's archives, tried before those that the image names.
    pub mirrors: Vec<Mirror>,
    /// Mirrors of other archives by the archive's name, tried before those that the image names.
    pub archives: BTreeMap<String, Vec<Mirror>>,
    /// Archives of the image that nothing is taken from, sorted.
    pub without: Vec<String>,
    /// URL of a dated snapshot service of Debian's archives, with `{archive}` and `{time}` in it.
    pub snapshot: Option<String>,
    /// Packages of every node, besides those of the image.
    pub packages: Vec<Want>,
    /// Packages that are never installed, sorted.
    pub exclude: Vec<String>,
}

/// A base from a Debian archive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Apt {
    /// Debian's name of the machine architecture, such as `arm64`.
    pub architecture: String,
    /// Suites in the order of the file.
    pub suites: Vec<Suite>,
    /// URL of a dated snapshot service, with `{archive}` and `{time}` in it.
    pub snapshot: Option<String>,
    /// Packages of every node, besides the essential ones.
    pub packages: Vec<Want>,
    /// Packages that are never installed, sorted.
    pub exclude: Vec<String>,
}

/// One suite of an archive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Suite {
    /// Name of the archive on its mirrors, such as `debian` or `debian-security`.
    pub archive: String,
    /// Suite or code name, such as `trixie`.
    pub suite: String,
    /// Components in the order of the file.
    pub components: Vec<String>,
    /// Mirrors to try in turn.
    pub mirrors: Vec<Mirror>,
    /// Who may sign it.
    pub keys: Keys,
}

/// Keys that may sign a suite.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Keys {
    /// A keyring of this machine.
    File(PathBuf),
    /// Keyrings that an image brought, as OpenPGP packets or in ASCII armour.
    Brought(Vec<Vec<u8>>),
}

impl fmt::Display for Suite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {}", self.archive, self.suite, self.components.join(" "))
    }
}

/// Where an archive is had from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Mirror {
    /// The mirror that this machine's own apt uses.
    Host,
    /// A URL of the archive `debian`, without a slash at its end; other archives of Debian are looked for beside
    /// it.
    Url(String),
    /// A URL of the suite's own archive, without a slash at its end.
    Root(String),
}

/// A file with a known digest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pinned {
    /// Where it is.
    pub location: Location,
    /// What its bytes must be.
    pub sha256: Digest,
}

/// The place of a pinned file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Location {
    /// A file of this machine. A relative path in the base's file counts from that file.
    Path(PathBuf),
    /// An `https://`, `http://` or `file://` address.
    Url(String),
}

/// A package that something asks for.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Want {
    /// Name of the package.
    pub package: String,
    /// Who asks, as `file:line:column`, for messages.
    pub origin: String,
}

/// The packages that a kind of node has on top of its base.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WantedSet {
    /// The node's roles, sorted and joined by `+`.
    pub name: String,
    /// What they ask for.
    pub wants: Vec<Want>,
}

/// An upstream file that something asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WantedArtifact {
    /// Its name in overlays.
    pub name: String,
    /// Where it is had from.
    pub source: artifact::Origin,
    /// Its digest, when the asker states one.
    pub sha256: Option<Digest>,
    /// Its size in bytes, when the asker states one.
    pub size: Option<u64>,
    /// SPDX licence expression.
    pub licence: String,
    /// Who asks, as `file:line:column`, for messages.
    pub origin: String,
}

/// All that a lock must hold.
#[derive(Debug, Clone, Copy)]
pub struct Wanted<'a> {
    /// The base.
    pub base: &'a Base,
    /// Package sets besides the base's own.
    pub sets: &'a [WantedSet],
    /// Artifacts of all overlays.
    pub artifacts: &'a [WantedArtifact],
}

/// A base cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BaseError {
    /// The file is not what it should be: every problem found, in the order of the file.
    #[error("{}", diagnose::listed(.0))]
    Invalid(Vec<Problem>),
    /// The file could not be read.
    #[error("{file}: {source}")]
    Io {
        /// The base's file.
        file: String,
        /// Why.
        source: std::io::Error,
    },
}

impl Base {
    /// Reads and checks `images/<name>.toml`. All problems are reported at once.
    pub fn load(file: &Path) -> Result<Base, BaseError> {
        let shown = file.display().to_string();
        let text =
            std::fs::read_to_string(file).map_err(|source| BaseError::Io { file: shown.clone(), source })?;
        wire::read(file, &text)
    }

    /// The archive part, for bases that are one.
    pub fn apt(&self) -> Option<&Apt> {
        match &self.source {
            Source::Apt(apt) => Some(apt),
            Source::Tar(_) | Source::DiskImage(_) => None,
        }
    }

    /// The image, for bases that are one.
    pub fn image(&self) -> Option<&Image> {
        match &self.source {
            Source::DiskImage(image) => Some(image),
            Source::Apt(_) | Source::Tar(_) => None,
        }
    }

    /// The file that the base begins with, for bases that are imported.
    pub fn pinned(&self) -> Option<&Pinned> {
        match &self.source {
            Source::Apt(_) => None,
            Source::Tar(pinned) => Some(pinned),
            Source::DiskImage(image) => Some(&image.pinned),
        }
    }

    /// Packages of every node that the base's file names.
    pub fn packages(&self) -> &[Want] {
        match &self.source {
            Source::Apt(apt) => &apt.packages,
            Source::DiskImage(image) => &image.packages,
            Source::Tar(_) => &[],
        }
    }

    /// Packages that are never installed.
    pub fn exclude(&self) -> &[String] {
        match &self.source {
            Source::Apt(apt) => &apt.exclude,
            Source::DiskImage(image) => &image.exclude,
            Source::Tar(_) => &[],
        }
    }
}

impl Apt {
    /// What the lock records of the archive, so that it is seen when the base changes: one line a
    /// suite, sorted.
    pub fn suite_lines(&self) -> Vec<String> {
        let mut lines: Vec<_> = self.suites.iter().map(Suite::to_string).collect();
        lines.sort();
        lines
    }
}

/// Whether `name` is a package name by Debian policy 5.6.1. Stricter than apt's command line, where
/// `name-`, `name/suite` and patterns mean something else.
pub fn is_package_name(name: &str) -> bool {
    let rest = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "+-.".contains(c);
    name.len() >= 2
        && name.starts_with(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit())
        && name.chars().all(rest)
        && !name.ends_with('-')
}

/// Whether `name` may stand in a URL, a file name and an apt source without quoting.
fn is_plain_word(name: &str) -> bool {
    !name.is_empty()
        && name.len() <= 200
        && !name.starts_with(['.', '-'])
        && name.chars().all(|c| c.is_ascii_alphanumeric() || "-._+~".contains(c))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn package_names_are_debians() {
        for good in ["apt", "g++", "libc6", "libstdc++6", "0ad", "linux-image-6.12.117+deb13-arm64"] {
            assert!(is_package_name(good), "{good}");
        }
        for bad in
            ["", "a", "-y", "apt-", "apt/trixie", "?essential", "Apt", "a b", "libc6:arm64", "apt=1", "é2"]
        {
            assert!(!is_package_name(bad), "{bad}");
        }
    }

    #[test]
    fn words_cannot_leave_their_place() {
        for bad in ["", "..", ".x", "a/b", "-o", "a b", "[x]"] {
            assert!(!is_plain_word(bad), "{bad}");
        }
        assert!(is_plain_word("consul_1.21.zip"));
    }
}
