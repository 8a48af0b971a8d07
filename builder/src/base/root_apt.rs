//! What an imported root says of its packages: which are installed, and where apt gets more from.
//! Must not know: how apt is run, how the root was imported.
//! Spec: sources.list(5), apt-secure(8); dpkg's `/var/lib/dpkg/status`.
//!
//! An archive is known by its address, and by that name mirrors are stated for it. Debian's own archives keep the
//! names that they have on every mirror, so that `mirrors` and `snapshot` serve them as they serve a base of
//! kind `apt`; a mirror of Debian never stands for another vendor's archive, whatever its path.

use std::collections::BTreeMap;

use super::sources::{self, Entry, SignedBy, SourceError};
use super::{Apt, Image, Keys, Mirror, Suite, is_plain_word, mirror};
use crate::archive::control::{ControlError, Paragraphs};
use crate::store::{Store, StoreError};
use crate::tree::{Inode, PathError, Tree, TreePath};

/// What packages are resolved on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ground {
    /// Where they come from.
    pub apt: Apt,
    /// dpkg's list of what is there already; empty for a system that is made from nothing.
    pub status: Vec<u8>,
}

/// An image whose packages nothing can be laid on.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RootAptError {
    /// A list of sources that apt would not take.
    #[error("the image's `{file}`: {source}")]
    Sources {
        /// The file in the image.
        file: TreePath,
        /// What is wrong.
        source: SourceError,
    },
    /// A source of a kind that is not supported.
    #[error("the image's `{file}`, line {line}: archive `{archive}`: {what}")]
    Unsupported {
        /// The file in the image.
        file: TreePath,
        /// The line on which the source begins.
        line: u64,
        /// What it has, and why that will not do.
        what: String,
        /// The archive's name.
        archive: String,
    },
    /// The base's file names an archive that the image has not.
    #[error("{file}: the base names the archive `{archive}`, and the image has {}", known.join(", "))]
    NoArchive {
        /// The base's file.
        file: String,
        /// The archive.
        archive: String,
        /// Those of the image.
        known: Vec<String>,
    },
    /// dpkg's list is no deb822 text.
    #[error("the image's `/{STATUS}`: {0}")]
    Status(#[source] ControlError),
    /// dpkg's list has no dpkg.
    #[error("the image's `/{STATUS}` has no package `dpkg`, so its architecture is not known")]
    NoDpkg,
    /// A name that no tree has.
    #[error(transparent)]
    Path(#[from] PathError),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl RootAptError {
    /// What the user can do about it.
    pub fn hint(&self) -> String {
        match self {
            RootAptError::Unsupported { archive, .. } => {
                format!("leave the archive out: `without = [\"{archive}\"]` in the base's file")
            }
            RootAptError::NoArchive { .. } => "correct `without` or `archives` in the base's file".into(),
            _ => "is it an image of Debian or Raspberry Pi OS, and whole? take another".into(),
        }
    }
}

const STATUS: &str = "var/lib/dpkg/status";
const LIST: &str = "etc/apt/sources.list";
const PARTS: &str = "etc/apt/sources.list.d";
const TRUSTED: &str = "etc/apt/trusted.gpg";
const TRUSTED_PARTS: &str = "etc/apt/trusted.gpg.d";

/// Reads an imported root. `None` when nothing can be installed into it: it has no dpkg, or no archive. `file` is
/// the base's, for messages.
pub fn read(root: &Tree, store: &Store, image: &Image, file: &str) -> Result<Option<Ground>, RootAptError> {
    let root = Root { tree: root, store };
    let Some(status) = root.bytes(STATUS)? else { return Ok(None) };
    let mut archives = Archives { image, architecture: architecture(&status)?, root, found: BTreeMap::new() };
    for file in archives.root.source_files()? {
        let text = archives.root.at(&file)?.unwrap_or_default();
        for entry in sources::of_file(&file.to_string(), &text) {
            let entry = entry.map_err(|source| RootAptError::Sources { file: file.clone(), source })?;
            archives.add(&file, &entry)?;
        }
    }
    let known: Vec<String> = archives.found.keys().cloned().collect();
    let mut named = image.without.iter().chain(image.archives.keys());
    if let Some(archive) = named.find(|name| !known.contains(name)) {
        return Err(RootAptError::NoArchive { file: file.to_owned(), archive: archive.clone(), known });
    }
    let apt = archives.into_apt();
    Ok((!apt.suites.is_empty()).then_some(Ground { apt, status }))
}

fn architecture(status: &[u8]) -> Result<String, RootAptError> {
    for paragraph in Paragraphs::new(status) {
        let paragraph = paragraph.map_err(RootAptError::Status)?;
        if paragraph.get("Package") == Some("dpkg") {
            let architecture = paragraph.get("Architecture").unwrap_or_default();
            return Some(architecture.to_owned()).filter(|a| is_plain_word(a)).ok_or(RootAptError::NoDpkg);
        }
    }
    Err(RootAptError::NoDpkg)
}

/// The files of a root.
#[derive(Clone, Copy)]
struct Root<'a> {
    tree: &'a Tree,
    store: &'a Store,
}

impl Root<'_> {
    fn bytes(&self, path: &str) -> Result<Option<Vec<u8>>, RootAptError> {
        self.at(&TreePath::new(path)?)
    }

    /// The bytes of the file that a path leads to.
    fn at(&self, path: &TreePath) -> Result<Option<Vec<u8>>, RootAptError> {
        let end = self.tree.resolve(path, true);
        let object = end.and_then(|end| self.tree.get(&end)).and_then(Inode::object);
        Ok(object.map(|object| self.store.read_object(object)).transpose()?)
    }

    /// `sources.list`, then the folder's files by name, as apt reads them.
    fn source_files(&self) -> Result<Vec<TreePath>, RootAptError> {
        let parts = TreePath::new(PARTS)?;
        let parts = self.tree.children(&parts).map(|(path, _, _)| path.clone());
        Ok([TreePath::new(LIST)?].into_iter().chain(parts).collect())
    }

    /// All that the machine trusts.
    fn trusted(&self) -> Result<Vec<Vec<u8>>, RootAptError> {
        let mut keys: Vec<Vec<u8>> = self.bytes(TRUSTED)?.into_iter().collect();
        for (path, _, _) in self.tree.children(&TreePath::new(TRUSTED_PARTS)?) {
            if path.name().ends_with(b".gpg") || path.name().ends_with(b".asc") {
                keys.extend(self.at(path)?);
            }
        }
        Ok(keys)
    }
}

/// Archives in the making, by name.
struct Archives<'a> {
    image: &'a Image,
    architecture: String,
    root: Root<'a>,
    found: BTreeMap<String, Archive>,
}

#[derive(Default)]
struct Archive {
    mirrors: Vec<Mirror>,
    /// Each suite with its components and keys.
    suites: BTreeMap<String, (Vec<String>, Keys)>,
}

impl Archives<'_> {
    fn add(&mut self, file: &TreePath, entry: &Entry) -> Result<(), RootAptError> {
        let elsewhere = !entry.architectures.is_empty() && !entry.architectures.contains(&self.architecture);
        for uri in entry.uris.iter().filter(|uri| !elsewhere && !uri.starts_with("cdrom:")) {
            let read = |list: &str| {
                let bytes = self.root.bytes(list).ok().flatten()?;
                Some(String::from_utf8_lossy(&bytes).into_owned())
            };
            let usable = mirror::usable(uri, &read);
            let name = archive_name(usable.as_deref().unwrap_or(uri));
            let archive = self.found.entry(name.clone()).or_default();
            if self.image.without.contains(&name) {
                continue;
            }
            let unsupported = |what: String| RootAptError::Unsupported {
                file: file.clone(),
                line: entry.line,
                what,
                archive: name.clone(),
            };
            let url = usable
                .ok_or_else(|| unsupported(format!("the address `{uri}` is neither http, https nor file")))?;
            if !archive.mirrors.contains(&Mirror::Root(url.clone())) {
                archive.mirrors.push(Mirror::Root(url));
            }
            if let Some(suite) = entry.suites.iter().find(|suite| suite.ends_with('/')) {
                return Err(unsupported(format!("`{suite}` is a path in place of a suite")));
            }
            let keys = keys(self.root, entry.signed_by.as_ref())?.map_err(unsupported)?;
            for suite in &entry.suites {
                let (components, had) =
                    archive.suites.entry(suite.clone()).or_insert_with(|| (Vec::new(), keys.clone()));
                if *had != keys {
                    return Err(unsupported(format!("the suite `{suite}` has other keys than above")));
                }
                for component in &entry.components {
                    if !components.contains(component) {
                        components.push(component.clone());
                    }
                }
            }
        }
        Ok(())
    }

    fn into_apt(self) -> Apt {
        let Image { mirrors, archives, without, snapshot, exclude, packages, .. } = self.image;
        let mut suites = Vec::new();
        for (archive, found) in self.found.into_iter().filter(|(name, _)| !without.contains(name)) {
            let stated = if is_debian(&archive) { Some(mirrors) } else { archives.get(&archive) };
            let mirrors: Vec<Mirror> = stated.into_iter().flatten().cloned().chain(found.mirrors).collect();
            suites.extend(found.suites.into_iter().map(|(suite, (components, keys))| Suite {
                archive: archive.clone(),
                suite,
                components,
                mirrors: mirrors.clone(),
                keys,
            }));
        }
        Apt {
            architecture: self.architecture,
            suites,
            snapshot: snapshot.clone(),
            packages: packages.clone(),
            exclude: exclude.clone(),
        }
    }
}

/// The keys of a source, or why they will not do.
fn keys(root: Root<'_>, signed_by: Option<&SignedBy>) -> Result<Result<Keys, String>, RootAptError> {
    let brought = match signed_by {
        Some(SignedBy::Inline(key)) => vec![key.clone().into_bytes()],
        Some(SignedBy::Names(names)) => {
            let mut keys = Vec::new();
            for name in names {
                if !name.starts_with('/') {
                    return Ok(Err(format!("`{name}` in `Signed-By` is no path of a keyring")));
                }
                match root.bytes(name)? {
                    Some(bytes) => keys.push(bytes),
                    None => return Ok(Err(format!("there is no keyring `{name}`"))),
                }
            }
            keys
        }
        None => root.trusted()?,
    };
    Ok(if brought.is_empty() {
        Err(format!("there is no `Signed-By`, and no key in `/{TRUSTED_PARTS}`"))
    } else {
        Ok(Keys::Brought(brought))
    })
}

/// Hosts of archives whose name in locks and in `archives` is not their address.
const VENDORS: [(&str, &str); 3] = [
    ("archive.raspberrypi.com", "raspberrypi"),
    ("archive.raspberrypi.org", "raspberrypi"),
    ("raspbian.raspberrypi.com", "raspbian"),
];

/// The name of the archive at an address: for one of Debian's hosts the last part of its path, which is the same on
/// all mirrors; else the vendor's, or host and path.
fn archive_name(url: &str) -> String {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest).trim_matches('/');
    let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
    if host == "debian.org" || host.ends_with(".debian.org") {
        let last = path.rsplit('/').next().filter(|last| is_debian(last) && is_plain_word(last));
        let security = host.starts_with("security.");
        return last.unwrap_or(if security { "debian-security" } else { "debian" }).to_owned();
    }
    if let Some((_, name)) = VENDORS.iter().find(|(vendor, _)| *vendor == host) {
        return (*name).to_owned();
    }
    let plain = |c: char| if c.is_ascii_alphanumeric() || ".-".contains(c) { c } else { '-' };
    // At most as long as a word may be; the start tells people the host.
    let name: String = rest.chars().map(plain).take(100).collect();
    // A word that is not plain begins with a dot or a dash, or is empty; and Debian's names are Debian's.
    if is_plain_word(&name) && !is_debian(&name) { name } else { format!("at-{name}") }
}

/// Whether an archive is one of Debian's: those have a snapshot service, and mirrors carry them.
pub fn is_debian(archive: &str) -> bool {
    archive == "debian" || archive.starts_with("debian-")
}

#[cfg(test)]
mod tests;
