//! From a tar archive to a tree or a layer: paths made canonical and safe, bytes put into the store.
//! Must not know: compression, packages, what is done with the result.
//! Spec: design.md section 2. As tar does it: later entries replace earlier ones, a directory's
//! entry after its children sets its owner and mode, directories that are not stated are implied.

use std::io::Read;

use crate::archive::tar::{Entry, EntryKind, Reader, TarError};
use crate::store::{Store, StoreError};
use crate::tree::layer::Layer;
use crate::tree::{
    Inode, InodeId, Kind, Meta, Object, PathError, Time, Tree, TreeError, TreePath, printable,
};

/// An archive that gives no tree.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ImportError {
    /// The archive itself is bad.
    #[error(transparent)]
    Tar(#[from] TarError),
    /// An entry cannot be where it wants to be.
    #[error("offset {at}, entry `{entry}`: {fault}")]
    Entry {
        /// Offset of its header in the archive, in bytes.
        at: u64,
        /// Its name as written, made printable.
        entry: String,
        /// What is wrong.
        fault: EntryFault,
    },
    /// The store could not take an object.
    #[error("storing the bytes of `{entry}`")]
    Store {
        /// The name as written, made printable.
        entry: String,
        /// What happened.
        source: StoreError,
    },
}

/// Why an entry cannot be where it wants to be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EntryFault {
    /// Its name would leave the tree or cannot exist.
    #[error(transparent)]
    Path(#[from] PathError),
    /// It is a hard link whose target would leave the tree or cannot exist.
    #[error("the hard link's target is bad: {0}")]
    Target(PathError),
    /// It leads through a symbolic link that the archive itself made.
    #[error("its path leads through the symbolic link `{link}` of the same archive")]
    ThroughLink {
        /// The symbolic link.
        link: TreePath,
    },
    /// It is a hard link to something that the archive did not have before.
    #[error("a hard link to `{target}`, which is not in the archive before it")]
    MissingTarget {
        /// What it wants to link to.
        target: TreePath,
    },
    /// Any other reason why the result would be no tree.
    #[error(transparent)]
    Tree(#[from] TreeError),
}

/// Reads a whole root filesystem. A root directory that the archive does not state is root's own,
/// mode 0755, of 1970.
pub fn into_tree<R: Read>(archive: &mut Reader<R>, store: &Store) -> Result<Tree, ImportError> {
    let mut tree = Tree::new(Meta::root_owned(0o755, Time::default()));
    import(archive, store, &mut tree)?;
    Ok(tree)
}

/// Reads the files of a package. Paths through symbolic links of the tree below are followed when
/// the layer is merged, not here.
pub fn into_layer<R: Read>(archive: &mut Reader<R>, store: &Store) -> Result<Layer, ImportError> {
    let mut layer = Layer::new();
    import(archive, store, &mut layer)?;
    Ok(layer)
}

/// What entries are put into.
trait Target {
    fn tree(&self) -> &Tree;
    fn put(&mut self, path: TreePath, inode: Inode) -> Result<(), TreeError>;
    fn link(&mut self, path: TreePath, id: InodeId, mtime: Time) -> Result<(), TreeError>;
}

impl Target for Tree {
    fn tree(&self) -> &Tree {
        self
    }

    fn put(&mut self, path: TreePath, inode: Inode) -> Result<(), TreeError> {
        self.make_parents(&path, &Meta::root_owned(0o755, inode.meta.mtime))?;
        self.insert(path, inode).map(drop)
    }

    fn link(&mut self, path: TreePath, id: InodeId, mtime: Time) -> Result<(), TreeError> {
        self.make_parents(&path, &Meta::root_owned(0o755, mtime))?;
        Tree::link(self, path, id)
    }
}

impl Target for Layer {
    fn tree(&self) -> &Tree {
        Layer::tree(self)
    }

    fn put(&mut self, path: TreePath, inode: Inode) -> Result<(), TreeError> {
        self.insert(path, inode).map(drop)
    }

    fn link(&mut self, path: TreePath, id: InodeId, _mtime: Time) -> Result<(), TreeError> {
        Layer::link(self, path, id)
    }
}

fn import<R: Read>(
    archive: &mut Reader<R>,
    store: &Store,
    target: &mut impl Target,
) -> Result<(), ImportError> {
    let mut buffer = vec![0; 128 * 1024];
    while let Some(entry) = archive.next_entry()? {
        let place = |fault: EntryFault| {
            let name = &entry.name[..entry.name.len().min(300)];
            ImportError::Entry { at: entry.at, entry: printable(name), fault }
        };
        let path = TreePath::new(&entry.name).map_err(|e| place(e.into()))?;
        check_parents(target.tree(), &path).map_err(place)?;
        if let EntryKind::HardLink(to) = &entry.kind {
            link(target, path, to, entry.meta.mtime).map_err(place)?;
            continue;
        }
        let kind = match kind(&entry) {
            Some(kind) => kind,
            None => Kind::File(store_file(archive, store, &entry, &mut buffer)?),
        };
        let inode = Inode { meta: entry.meta.clone(), kind };
        target.put(path, inode).map_err(|e| place(e.into()))?;
    }
    Ok(())
}

/// The kind of what has no bytes.
fn kind(entry: &Entry) -> Option<Kind> {
    match &entry.kind {
        EntryKind::Dir => Some(Kind::Dir),
        EntryKind::Symlink(to) => Some(Kind::Symlink(to.as_slice().into())),
        &EntryKind::Block(major, minor) => Some(Kind::Block { major, minor }),
        &EntryKind::Char(major, minor) => Some(Kind::Char { major, minor }),
        EntryKind::Fifo => Some(Kind::Fifo),
        EntryKind::File | EntryKind::HardLink(_) => None,
    }
}

fn store_file<R: Read>(
    archive: &mut Reader<R>,
    store: &Store,
    entry: &Entry,
    buffer: &mut [u8],
) -> Result<Object, ImportError> {
    let fail = |source| ImportError::Store { entry: printable(&entry.name), source };
    let mut writer = store.object_writer().map_err(fail)?;
    loop {
        match archive.read(buffer)? {
            0 => return writer.finish().map_err(fail),
            got => writer.write(&buffer[..got]).map_err(fail)?,
        }
    }
}

fn link(target: &mut impl Target, path: TreePath, to: &[u8], mtime: Time) -> Result<(), EntryFault> {
    let to = TreePath::new(to).map_err(EntryFault::Target)?;
    let id = target.tree().id(&to).ok_or(EntryFault::MissingTarget { target: to })?;
    Ok(target.link(path, id, mtime)?)
}

/// Whoever unpacks such an archive elsewhere would write wherever the link leads: no honest archive
/// has that. The nearest directory that exists decides, for below it nothing exists.
fn check_parents(tree: &Tree, path: &TreePath) -> Result<(), EntryFault> {
    let mut above = path.parent();
    while let Some(dir) = above {
        match tree.get(&dir).map(|inode| &inode.kind) {
            None => above = dir.parent(),
            Some(Kind::Symlink(_)) => return Err(EntryFault::ThroughLink { link: dir }),
            // A file above is found by the tree itself.
            Some(_) => break,
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
