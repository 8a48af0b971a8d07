//! What an upstream file gives a node: the file itself, or files and folders out of an archive.
//! Must not know: where artifacts come from, forms of archives, overlays' other parts.
//! Spec: docs/overlay-format.md, "Artifacts".

mod error;
mod forms;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::path::Path;

use crate::digest::{Digest, Key};
use crate::store::{Store, StoreError};
use crate::tree::layer::Layer;
use crate::tree::{Inode, InodeId, Kind, Meta, Object, Time, Tree, TreeError, TreePath};

pub use error::ArtifactError;
use forms::{Member, What};

/// Raised when the same artifact gives another layer.
const RECIPE: &str = "artifact 1";
/// Bytes that one artifact may give. The largest that a cluster has, container images for a whole
/// Kubernetes, are 1 GiB; without a limit a file of a few kilobytes could fill the disk.
const TOTAL_MAX: u64 = 16 << 30;
/// A symbolic link's target has at most so many bytes: PATH_MAX less the zero byte.
const LINK_MAX: usize = 4095;

/// One file or folder that is wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Extract {
    /// Its path in the archive; a folder's ends in `/`, and `/` is all of it. `None` is the whole file.
    pub from: Option<String>,
    /// Where it goes on the node.
    pub to: TreePath,
    /// Permissions of files; the archive's own without special bits when `None`.
    pub mode: Option<u16>,
}

impl Extract {
    /// The folder's path in the archive, when one is wanted.
    fn folder(&self) -> Option<&str> {
        self.from.as_deref().filter(|from| from.ends_with('/'))
    }
}

/// The layer that was made before of a file with this digest. So an artifact of some hundred megabytes is not
/// unpacked for each node, and a build that makes nothing new does not even read it.
pub fn stored(
    sha256: &Digest,
    wanted: &[Extract],
    epoch: i64,
    store: &Store,
) -> Result<Option<Layer>, ArtifactError> {
    match store.layer(&key(sha256, wanted, epoch))? {
        Some(tree) => Ok(Some(stated(&store.tree(&tree)?, wanted)?)),
        None => Ok(None),
    }
}

/// True when [`stored`] has it.
pub fn is_stored(sha256: &Digest, wanted: &[Extract], epoch: i64, store: &Store) -> Result<bool, StoreError> {
    Ok(store.layer(&key(sha256, wanted, epoch))?.is_some())
}

/// Makes the layer of a file with this digest, for [`stored`] to have it from now on.
pub fn make(
    file: &Path,
    sha256: &Digest,
    wanted: &[Extract],
    epoch: i64,
    store: &Store,
) -> Result<Layer, ArtifactError> {
    let layer = layer(file, wanted, epoch, store)?;
    store.put_layer(&key(sha256, wanted, epoch), &store.put_tree(layer.tree())?)?;
    Ok(layer)
}

/// All that a layer follows from.
fn key(sha256: &Digest, wanted: &[Extract], epoch: i64) -> Digest {
    let mut key = Key::new(RECIPE).with(sha256.bytes()).with(&epoch.to_le_bytes());
    for Extract { from, to, mode } in wanted {
        let (from, mode) = (from.as_deref().map(str::as_bytes), mode.map(u16::to_le_bytes));
        key = key.with(&[from.is_some().into(), mode.is_some().into()]).with(from.unwrap_or_default());
        key = key.with(to.as_bytes()).with(&mode.unwrap_or_default());
    }
    key.finish()
}

/// A layer of what is wanted, owned by root, with the time `epoch`.
pub fn layer(file: &Path, wanted: &[Extract], epoch: i64, store: &Store) -> Result<Layer, ArtifactError> {
    let shown = file.display().to_string();
    let mut picker = Picker {
        file: &shown,
        wanted,
        found: vec![false; wanted.len()],
        near: vec![None; wanted.len()],
        hard: Vec::new(),
        links: vec![None; wanted.len()],
        layer: Layer::new(),
        time: Time::seconds(epoch),
        store,
        total: 0,
    };
    for extract in wanted.iter().filter(|extract| extract.from.is_none()) {
        let mut input =
            File::open(file).map_err(|source| ArtifactError::Io { file: shown.clone(), source })?;
        let object = picker.object(&mut input)?;
        picker.put(extract.to.clone(), extract.mode.unwrap_or(0o644), Kind::File(object))?;
    }
    if wanted.iter().any(|extract| extract.from.is_some()) {
        forms::walk(file, &mut picker)?;
    }
    // Which of a file's names is the file and which are hard links is chance: tar writes what it meets first.
    for (i, file) in std::mem::take(&mut picker.hard) {
        picker.links[i] = Some(file);
    }
    if picker.links.iter().any(Option::is_some) {
        forms::walk(file, &mut picker)?;
    }
    picker.finish()
}

/// Takes what is wanted from the members that it is shown.
struct Picker<'a> {
    file: &'a str,
    wanted: &'a [Extract],
    found: Vec<bool>,
    near: Vec<Option<String>>,
    /// What is wanted and was found to be a hard link, with the file that it is one of.
    hard: Vec<(usize, TreePath)>,
    /// The same in the second walk, which is for these alone.
    links: Vec<Option<TreePath>>,
    layer: Layer,
    time: Time,
    store: &'a Store,
    total: u64,
}

impl Picker<'_> {
    /// Whether a member of this name has to be shown.
    fn wants(&self, name: &[u8]) -> bool {
        let Ok(path) = TreePath::new(name) else { return true };
        self.wanted.iter().filter_map(|e| e.from.as_deref()).any(|from| {
            let from_path = TreePath::new(from).unwrap_or_default();
            (from.ends_with('/') && path.starts_with(&from_path)) || path.name() == from_path.name()
        })
    }

    /// Looks at one member, and takes it where it is wanted.
    fn take(&mut self, member: &Member<'_>, data: &mut dyn Read) -> Result<(), ArtifactError> {
        let path = match TreePath::new(member.name) {
            Ok(path) => path,
            // A name that cannot be is none that is wanted, unless everything of a folder is.
            Err(_) if self.wanted.iter().all(|e| e.folder().is_none()) => return Ok(()),
            Err(e) => return Err(self.entry(member, e.to_string())),
        };
        let mut object = None;
        let again = self.links.iter().any(Option::is_some);
        for (i, extract) in self.wanted.iter().enumerate() {
            let Some(from) = extract.from.as_ref().filter(|_| !again || self.links[i].is_some()) else {
                continue;
            };
            let from_path = self.links[i].clone().map_or_else(|| TreePath::new(from), Ok)?;
            if extract.folder().is_some() {
                if path.starts_with(&from_path) && (path != from_path || matches!(member.what, What::Dir)) {
                    self.found[i] = true;
                    self.take_into(extract, &from_path, &path, member, data, &mut object)?;
                }
            } else if path == from_path && !self.found[i] {
                let found = match &member.what {
                    What::File => {
                        self.found[i] = true;
                        let object = self.object_once(data, &mut object)?;
                        self.put(
                            extract.to.clone(),
                            extract.mode.unwrap_or(member.mode),
                            Kind::File(object),
                        )?;
                        continue;
                    }
                    What::Dir => format!("a folder: write `{from}/` to have all of it"),
                    What::HardLink(to) if !again && TreePath::new(to).is_ok() => {
                        self.hard.push((i, TreePath::new(to)?));
                        continue;
                    }
                    What::Symlink(to) | What::HardLink(to) => {
                        format!("a link to `{}`: take that", crate::tree::printable(to))
                    }
                    What::Other(noun) => format!("a {noun}"),
                };
                return Err(ArtifactError::NotFile {
                    file: self.file.to_owned(),
                    wanted: from.clone(),
                    found,
                });
            } else if path.name() == from_path.name() && matches!(member.what, What::File | What::HardLink(_))
            {
                self.near[i].get_or_insert_with(|| crate::tree::printable(path.as_bytes()));
            }
        }
        Ok(())
    }

    /// Takes one member of a folder.
    fn take_into(
        &mut self,
        extract: &Extract,
        from: &TreePath,
        path: &TreePath,
        member: &Member<'_>,
        data: &mut dyn Read,
        object: &mut Option<Object>,
    ) -> Result<(), ArtifactError> {
        let target = |path: &TreePath| {
            extract.to.join(path.as_bytes().get(from.as_bytes().len()..).unwrap_or_default())
        };
        let to = target(path)?;
        match &member.what {
            // What holds the folder is the node's, not the archive's: `./` often has the mode of somebody's `/tmp`.
            What::Dir if path == from => self.put(to, 0o755, Kind::Dir),
            What::Dir => self.put(to, member.mode, Kind::Dir),
            What::File => {
                let object = self.object_once(data, object)?;
                self.put(to, extract.mode.unwrap_or(member.mode), Kind::File(object))
            }
            What::Symlink(link) if link.is_empty() || link.contains(&0) || link.len() > LINK_MAX => {
                Err(self.entry(member, "is a symbolic link to what can be no path".into()))
            }
            What::Symlink(link) => self.put(to, 0o777, Kind::Symlink(link.as_slice().into())),
            What::HardLink(link) => {
                let first = TreePath::new(link).ok().filter(|link| link.starts_with(from));
                let first = first.and_then(|link| self.layer.tree().id(&target(&link).ok()?));
                match first {
                    Some(first) => Ok(self.layer.link(to, first)?),
                    None => {
                        Err(self.entry(member, "is a hard link to something outside of the folder".into()))
                    }
                }
            }
            What::Other(noun) => Err(self.entry(member, format!("is a {noun}"))),
        }
    }

    fn entry(&self, member: &Member<'_>, fault: String) -> ArtifactError {
        let name = member.name.get(..member.name.len().min(300)).unwrap_or_default();
        ArtifactError::Entry { file: self.file.to_owned(), entry: crate::tree::printable(name), fault }
    }

    fn put(&mut self, to: TreePath, mode: u16, kind: Kind) -> Result<(), ArtifactError> {
        let meta = Meta::root_owned(mode, self.time);
        self.layer.insert(to, Inode { meta, kind })?;
        Ok(())
    }

    /// A member's bytes can be read once; several places may want them.
    fn object_once(
        &mut self,
        data: &mut dyn Read,
        object: &mut Option<Object>,
    ) -> Result<Object, ArtifactError> {
        match object {
            Some(object) => Ok(object.clone()),
            None => Ok(object.insert(self.object(data)?).clone()),
        }
    }

    fn object(&mut self, data: &mut dyn Read) -> Result<Object, ArtifactError> {
        let left = TOTAL_MAX.saturating_sub(self.total);
        let object = self.store.put_reader(&mut data.take(left.saturating_add(1)))?;
        self.total = self.total.saturating_add(object.size);
        if object.size > left {
            return Err(ArtifactError::TooLarge { file: self.file.to_owned(), limit: TOTAL_MAX });
        }
        Ok(object)
    }

    fn finish(mut self) -> Result<Layer, ArtifactError> {
        for (i, extract) in self.wanted.iter().enumerate() {
            if let Some(from) = extract.from.as_ref().filter(|_| !self.found[i]) {
                return Err(ArtifactError::Missing {
                    file: self.file.to_owned(),
                    what: if extract.folder().is_some() { "folder" } else { "file" },
                    wanted: from.clone(),
                    near: self.near[i].take(),
                });
            }
        }
        Ok(stated(self.layer.tree(), self.wanted)?)
    }
}

/// The layer of a tree that [`layer`] made: directories in wanted folders are stated, all others are only there
/// to hold something, so that a directory of the node below keeps its owner and mode. One way for what is fresh
/// and what comes from the store, so that both are equal.
fn stated(tree: &Tree, wanted: &[Extract]) -> Result<Layer, TreeError> {
    let folders: Vec<&TreePath> = wanted.iter().filter(|e| e.folder().is_some()).map(|e| &e.to).collect();
    let (mut layer, mut placed) = (Layer::new(), BTreeMap::<InodeId, InodeId>::new());
    for (path, id, inode) in tree.iter() {
        let inside = |folder: &&&TreePath| path.starts_with(folder) && path != **folder;
        // One that is empty is held by nothing else.
        let empty = || tree.children(path).next().is_none();
        if path.is_root() || (inode.is_dir() && !folders.iter().any(|f| inside(&f)) && !empty()) {
            continue;
        }
        match placed.get(&id) {
            Some(first) => layer.link(path.clone(), *first)?,
            None => _ = placed.insert(id, layer.insert(path.clone(), inode.clone())?),
        }
    }
    Ok(layer)
}
