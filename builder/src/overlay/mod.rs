//! Overlays: the folders `overlays/<name>/` with overlay.toml and files, checked, and the order in
//! which the overlays of a node are laid.
//! Must not know: trees, how a layer is made, packages' contents.
//! Spec: docs/overlay-format.md.

mod description;
mod expand;
mod files;
mod node;
pub mod page;
mod read;
mod values;
pub(crate) mod wire;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use crate::cluster::{AccountName, ModuleName, OverlayName, PackageName, SysctlKey, ThingName, UnitName};
use crate::diagnostic::{Place, Placed, Report, Source};
use crate::digest::Digest;

pub use description::Description;
pub use files::{Content, FileSource};
pub use read::parse;
pub use values::{FileKind, Listen, Mode, Owner, TargetPath, XattrValue};

/// All overlays, by name.
#[derive(Clone, Debug, Default)]
pub struct Overlays {
    all: BTreeMap<OverlayName, Overlay>,
}

/// One overlay, checked. Lists are in the order written.
#[derive(Clone, Debug)]
pub struct Overlay {
    /// Its name: that of its folder.
    pub name: OverlayName,
    /// What it gives, in one sentence, or nothing.
    pub description: String,
    /// Overlays laid below it.
    pub includes: Vec<Placed<OverlayName>>,
    /// Names that no other overlay of a node may provide.
    pub provides: Vec<Placed<OverlayName>>,
    /// Overlays or provided names that may not be on the same node.
    pub conflicts: Vec<Placed<OverlayName>>,
    /// Packages from the base's archive.
    pub packages: Vec<Placed<PackageName>>,
    /// Kernel modules loaded at boot.
    pub modules: Vec<ModuleName>,
    /// Lines for `config.txt`.
    pub config_txt: Vec<String>,
    /// Words for the kernel command line.
    pub cmdline: Vec<String>,
    /// Kernel parameters and their values.
    pub sysctl: BTreeMap<SysctlKey, String>,
    /// Units to start at boot.
    pub enable: Vec<Placed<UnitName>>,
    /// Units not to start at boot.
    pub disable: Vec<Placed<UnitName>>,
    /// Units never to start.
    pub mask: Vec<Placed<UnitName>>,
    /// Ports that something of it listens on.
    pub listens: Vec<Listen>,
    /// What `[[files]]` states.
    pub files: Vec<FileEntry>,
    /// What is in `files/`, in the order of the paths.
    pub sources: Vec<FileSource>,
    /// Paths of lower layers that go.
    pub remove: Vec<TargetPath>,
    /// Groups with their numbers.
    pub groups: Vec<Group>,
    /// Users with their numbers.
    pub users: Vec<User>,
    /// Files from elsewhere.
    pub artifacts: Vec<Artifact>,
    /// Secrets by name and place.
    pub secrets: Vec<Secret>,
    /// Directories kept on `gt-state`.
    pub persist: Vec<Dir>,
    /// Directories on `gt-scratch`.
    pub scratch: Vec<Dir>,
    /// Commands that must succeed on the booted node.
    pub checks: Vec<Check>,
    /// The folder `overlays/<name>`.
    pub folder: PathBuf,
    /// Its overlay.toml.
    pub place: Place,
}

/// How one path differs from a plain copy.
#[derive(Clone, Debug)]
pub struct FileEntry {
    /// The path on the node.
    pub path: TargetPath,
    /// What stands there.
    pub kind: FileKind,
    /// The file is a template.
    pub template: bool,
    /// Other than the default.
    pub mode: Option<Mode>,
    /// The user.
    pub owner: Owner,
    /// The group.
    pub group: Owner,
    /// Where a symbolic link leads; only for one.
    pub target: Option<String>,
    /// Extended attributes by full name.
    pub xattrs: BTreeMap<String, XattrValue>,
    /// Where the path is written.
    pub place: Place,
}

/// A group with its number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group {
    /// The group's name.
    pub name: AccountName,
    /// Its number.
    pub gid: u32,
    /// Where the name is written.
    pub place: Place,
}

/// A user with its number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    /// The user's name.
    pub name: AccountName,
    /// Its number.
    pub uid: u32,
    /// Its group; one of the same name and number when `None`.
    pub group: Option<AccountName>,
    /// Further groups.
    pub groups: Vec<AccountName>,
    /// The home directory, which is not made.
    pub home: String,
    /// The login shell.
    pub shell: String,
    /// What the user is for.
    pub comment: String,
    /// Where the name is written.
    pub place: Place,
}

/// A file from elsewhere.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Artifact {
    /// Unique among all overlays.
    pub name: ThingName,
    /// Where it comes from.
    pub origin: Origin,
    /// For people: as stated, or as its address tells.
    pub version: Option<String>,
    /// What it must be; of a file that is made here, what it was when the overlay was read, and `None` when
    /// it was not there.
    pub sha256: Option<Digest>,
    /// Bytes, when stated.
    pub size: Option<u64>,
    /// SPDX expression.
    pub licence: String,
    /// What goes where.
    pub extract: Vec<Extract>,
    /// Where the name is written.
    pub place: Place,
}

/// Where an artifact comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// `https://`, `http://` or `file://`.
    Url(String),
    /// From the Python index of this machine.
    Wheel {
        /// The project's name.
        package: String,
        /// The exact version.
        version: String,
        /// The platform tag.
        platform: String,
    },
    /// Made on this machine. It is one of the overlay's own files, only that git has it not, so no lock
    /// pins it.
    Local {
        /// The file.
        file: PathBuf,
        /// The command that makes it.
        make: String,
    },
}

/// One file or folder out of an artifact.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Extract {
    /// The path in the archive, a folder's with `/` at its end; the artifact itself when `None`.
    pub from: Option<String>,
    /// The path on the node.
    pub to: TargetPath,
    /// Other than the archive's.
    pub mode: Option<Mode>,
}

/// A secret by name and place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Secret {
    /// Its name.
    pub name: ThingName,
    /// Where it is wanted, and how.
    pub file: Dir,
    /// Bytes to derive from the cluster key when the owner has no file of this name.
    pub derive: Option<u16>,
    /// The overlay does its work without it as well.
    pub optional: bool,
}

/// A path with owner and mode that is not in the tree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dir {
    /// The path on the node.
    pub path: TargetPath,
    /// The user.
    pub owner: Owner,
    /// The group.
    pub group: Owner,
    /// The permissions.
    pub mode: Mode,
    /// Where the path is written.
    pub place: Place,
}

/// A command that must succeed on the booted node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Check {
    /// What is true when it succeeds.
    pub name: String,
    /// For `sh -c`.
    pub command: String,
}

impl Artifact {
    /// Takes the digest of a file that is made here. That it is not there is no finding: nodes without this
    /// overlay are built without it.
    fn look(&mut self, report: &mut Report) {
        let Origin::Local { file, .. } = &self.origin else { return };
        match std::fs::File::open(file).and_then(|mut file| Digest::of_reader(&mut file)) {
            Ok(digest) => self.sha256 = Some(digest),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
            Err(e) => report.add(self.place.clone(), format!("`{}`: {e}", file.display()).to_lowercase()),
        }
    }
}

impl Overlays {
    /// Reads all overlays of a folder. All findings go to the report; the overlays are of use only
    /// when there are none, but their names are all there.
    pub fn load(folder: &Path, report: &mut Report) -> Overlays {
        let mut all = BTreeMap::new();
        for (name, folder) in folders(folder, report) {
            let Some(source) = Source::read(&folder.join("overlay.toml"), report) else { continue };
            let sources = files::list(&folder.join("files"), report);
            let mut overlay = parse(name, &source, sources, &folder, report);
            overlay.artifacts.iter_mut().for_each(|artifact| artifact.look(report));
            all.insert(overlay.name.clone(), overlay);
        }
        Overlays::checked(all, report)
    }

    /// Overlays that are at hand already, with the checks that concern several of them.
    pub fn checked(all: BTreeMap<OverlayName, Overlay>, report: &mut Report) -> Overlays {
        let overlays = Overlays { all };
        expand::check(&overlays, report);
        node::check_artifacts(&overlays, report);
        overlays
    }

    /// The overlay of this name.
    pub fn get(&self, name: &OverlayName) -> Option<&Overlay> {
        self.all.get(name)
    }

    /// All overlays in the order of their names.
    pub fn iter(&self) -> impl Iterator<Item = &Overlay> {
        self.all.values()
    }

    /// All names: what a role can be.
    pub fn names(&self) -> BTreeSet<OverlayName> {
        self.all.keys().cloned().collect()
    }
}

/// The folders with their names, in the order of the names. What is no folder, or begins with a
/// dot, is not ours.
fn folders(folder: &Path, report: &mut Report) -> Vec<(OverlayName, PathBuf)> {
    let entries = match std::fs::read_dir(folder) {
        Ok(entries) => entries,
        // No overlays at all is a description too.
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Vec::new(),
        Err(e) => {
            report.add(Place::file(folder.display().to_string()), e.to_string().to_lowercase());
            return Vec::new();
        }
    };
    let mut found = Vec::new();
    for path in entries.flatten().map(|entry| entry.path()).filter(|path| path.is_dir()) {
        let name = path.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
        match name.parse() {
            _ if name.starts_with('.') => {}
            Ok(name) => found.push((name, path)),
            Err(e) => report.add(Place::file(path.display().to_string()), format!("{e}")),
        }
    }
    found.sort();
    found
}

#[cfg(test)]
pub(crate) mod tests;
