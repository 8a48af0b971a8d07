//! A filesystem without file bytes: directories, files by digest, links, devices, owners, modes,
//! times and extended attributes. Everything that gt-image builds, writes or serves is a [`Tree`].
//! Must not know: where the bytes are kept, roles, filesystem formats.
//! Spec: inode(7) for modes and types, xattr(7); the canonical text form is in [`dump`].

pub mod diff;
pub mod dump;
pub mod layer;
pub mod path;

use std::collections::{BTreeMap, HashMap};

use crate::digest::Digest;
pub use path::{PathError, TreePath, printable};

/// Seconds and nanoseconds since 1970-01-01 00:00:00 UTC; the nanoseconds count forward from the
/// second, also before 1970.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Time {
    /// Whole seconds, negative before 1970.
    pub sec: i64,
    /// Nanoseconds, below 1,000,000,000.
    pub nsec: u32,
}

impl Time {
    /// A time on a whole second.
    pub fn seconds(sec: i64) -> Time {
        Time { sec, nsec: 0 }
    }
}

/// What every inode has whatever its type.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Meta {
    /// The twelve low bits: permissions, set-uid, set-gid, sticky.
    pub mode: u16,
    /// Numeric owner.
    pub uid: u32,
    /// Numeric group.
    pub gid: u32,
    /// Time of the last change of content. Access and change times are not kept.
    pub mtime: Time,
    /// Extended attributes with their full names (`user.x`, `security.capability`), in the form
    /// that getxattr(2) gives; POSIX access control lists are attributes like others.
    pub xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
}

impl Meta {
    /// Root's own, without attributes.
    pub fn root_owned(mode: u16, mtime: Time) -> Meta {
        Meta { mode, mtime, ..Meta::default() }
    }
}

/// A run of zero bytes in a file that a filesystem need not store.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Hole {
    /// Bytes from the start of the file, a multiple of [`HOLE_GRAIN`].
    pub offset: u64,
    /// Bytes; a multiple of [`HOLE_GRAIN`] unless the hole ends the file.
    pub len: u64,
}

/// Holes begin and end on multiples of this many bytes.
pub const HOLE_GRAIN: u64 = 4096;
/// Shorter runs of zero bytes are stored as data.
pub const HOLE_MIN: u64 = 65_536;

/// The bytes of one regular file, by digest.
///
/// `holes` are all maximal runs of zero blocks of at least [`HOLE_MIN`] bytes, ascending. They
/// follow from the bytes alone, so the same bytes give the same object on every machine.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Object {
    /// SHA-256 of all bytes, holes included.
    pub digest: Digest,
    /// Length in bytes, holes included.
    pub size: u64,
    /// Runs of zero bytes.
    pub holes: Box<[Hole]>,
}

/// The type of an inode, with what only this type has.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Kind {
    /// A directory; its entries are the paths below it.
    Dir,
    /// A regular file.
    File(Object),
    /// A symbolic link with its target as written, 1 to 4095 bytes.
    Symlink(Box<[u8]>),
    /// A block device.
    Block {
        /// Device class, at most 12 bits.
        major: u32,
        /// Device in its class, at most 20 bits.
        minor: u32,
    },
    /// A character device; 0:0 is overlayfs's whiteout and an ordinary device here.
    Char {
        /// Device class, at most 12 bits.
        major: u32,
        /// Device in its class, at most 20 bits.
        minor: u32,
    },
    /// A named pipe.
    Fifo,
    /// A socket's name.
    Socket,
}

impl Kind {
    /// The word used in messages.
    pub fn noun(&self) -> &'static str {
        match self {
            Kind::Dir => "directory",
            Kind::File(_) => "file",
            Kind::Symlink(_) => "symbolic link",
            Kind::Block { .. } => "block device",
            Kind::Char { .. } => "character device",
            Kind::Fifo => "fifo",
            Kind::Socket => "socket",
        }
    }
}

/// One inode: what all its names share.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Inode {
    /// Owner, mode, time and attributes.
    pub meta: Meta,
    /// Type and content.
    pub kind: Kind,
}

impl Inode {
    /// A directory.
    pub fn dir(meta: Meta) -> Inode {
        Inode { meta, kind: Kind::Dir }
    }

    /// True for directories.
    pub fn is_dir(&self) -> bool {
        matches!(self.kind, Kind::Dir)
    }

    /// The object of a regular file.
    pub fn object(&self) -> Option<&Object> {
        match &self.kind {
            Kind::File(object) => Some(object),
            _ => None,
        }
    }
}

/// Names an inode within one tree; paths with the same number are hard links of each other.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct InodeId(u32);

/// A whole filesystem. Always has a root directory; every entry's parent is a directory of the
/// tree; directories have one name each.
#[derive(Clone, Debug)]
pub struct Tree {
    paths: BTreeMap<TreePath, InodeId>,
    /// With the number of names, by id. The place of one that has gone stays empty: ids are not used again.
    inodes: Vec<Option<(Inode, u32)>>,
}

/// A change that would make a tree no tree.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TreeError {
    /// The path itself is malformed.
    #[error(transparent)]
    Path(#[from] PathError),
    /// There is no such entry.
    #[error("`{path}` does not exist")]
    Missing {
        /// Where it was looked for.
        path: TreePath,
    },
    /// The place above is no directory.
    #[error("`{path}` cannot be made: `{parent}` is a {found}, not a directory")]
    NotDir {
        /// What was to be made.
        path: TreePath,
        /// What should be a directory.
        parent: TreePath,
        /// What it is.
        found: &'static str,
    },
    /// A directory has exactly one name.
    #[error("`{path}` is a directory, which cannot have a second name")]
    LinkedDir {
        /// The directory.
        path: TreePath,
    },
    /// The root must stay a directory.
    #[error("the root of a tree must be a directory, not a {found}")]
    Root {
        /// What it was to become.
        found: &'static str,
    },
    /// A directory with entries in it would vanish.
    #[error("the directory `{path}` cannot become a {wanted}: it has entries")]
    Occupied {
        /// The directory.
        path: TreePath,
        /// What was to take its place.
        wanted: &'static str,
    },
    /// More inodes than an id can name.
    #[error("a tree holds at most 2^32 inodes")]
    Full,
}

impl Tree {
    /// A tree of only a root directory.
    pub fn new(root: Meta) -> Tree {
        let id = InodeId(0);
        Tree { paths: BTreeMap::from([(TreePath::root(), id)]), inodes: vec![Some((Inode::dir(root), 1))] }
    }

    /// The inode at `path`; symbolic links are not followed.
    pub fn get(&self, path: &TreePath) -> Option<&Inode> {
        self.id(path).map(|id| self.inode(id))
    }

    /// The same inode for changing, under all its names. The type must stay what it is.
    pub fn meta_mut(&mut self, path: &TreePath) -> Option<&mut Meta> {
        let id = self.id(path)?;
        self.slot(id).map(|(inode, _)| &mut inode.meta)
    }

    /// Which inode has this name.
    pub fn id(&self, path: &TreePath) -> Option<InodeId> {
        self.paths.get(path).copied()
    }

    /// The inode of an id of this tree.
    pub fn inode(&self, id: InodeId) -> &Inode {
        &self.held(id).0
    }

    /// How many names the inode has. For a directory this is 1, whatever a filesystem counts.
    pub fn links(&self, id: InodeId) -> u32 {
        self.held(id).1
    }

    fn held(&self, id: InodeId) -> &(Inode, u32) {
        // An id is only made by this tree and lives as long as a name of it.
        self.inodes[id.0 as usize].as_ref().expect("an inode that has a name")
    }

    fn slot(&mut self, id: InodeId) -> Option<&mut (Inode, u32)> {
        self.inodes.get_mut(id.0 as usize)?.as_mut()
    }

    /// All entries, the root first, in the order of a sorted depth-first walk. This order is the
    /// canonical one: every writer and server uses it.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = (&TreePath, InodeId, &Inode)> {
        self.paths.iter().map(|(path, &id)| (path, id, self.inode(id)))
    }

    /// `path` and all that is below it, in canonical order.
    pub fn below<'a>(
        &'a self,
        path: &'a TreePath,
    ) -> impl Iterator<Item = (&'a TreePath, InodeId, &'a Inode)> {
        self.paths
            .range(path.clone()..)
            .take_while(move |(p, _)| p.starts_with(path))
            .map(|(p, &id)| (p, id, self.inode(id)))
    }

    /// The direct entries of a directory, by name in byte order.
    pub fn children<'a>(
        &'a self,
        dir: &'a TreePath,
    ) -> impl Iterator<Item = (&'a TreePath, InodeId, &'a Inode)> {
        let depth = dir.depth() + 1;
        self.below(dir).filter(move |(p, _, _)| p.depth() == depth)
    }

    /// Number of names, the root included.
    pub fn len(&self) -> usize {
        self.paths.len()
    }

    /// Never true: there is always a root.
    pub fn is_empty(&self) -> bool {
        false
    }

    /// Puts an entry at `path`, in place of what has this name now (only of this name: other hard
    /// links keep the old inode). A directory in place of a directory keeps its entries.
    pub fn insert(&mut self, path: TreePath, inode: Inode) -> Result<InodeId, TreeError> {
        self.check_place(&path, inode.kind.noun(), inode.is_dir())?;
        if let Some(id) = self.id(&path).filter(|&id| inode.is_dir() && self.inode(id).is_dir()) {
            self.inodes[id.0 as usize] = Some((inode, 1));
            return Ok(id);
        }
        let id = InodeId(u32::try_from(self.inodes.len()).map_err(|_| TreeError::Full)?);
        self.inodes.push(Some((inode, 0)));
        self.name(path, id);
        Ok(id)
    }

    /// Gives an existing inode one more name.
    pub fn link(&mut self, path: TreePath, id: InodeId) -> Result<(), TreeError> {
        let noun = self.inode(id).kind.noun();
        if self.inode(id).is_dir() {
            return Err(TreeError::LinkedDir { path });
        }
        self.check_place(&path, noun, false)?;
        if self.id(&path) != Some(id) {
            self.name(path, id);
        }
        Ok(())
    }

    /// Makes the directories above `path` that do not exist, each with `meta`.
    pub fn make_parents(&mut self, path: &TreePath, meta: &Meta) -> Result<(), TreeError> {
        let Some(parent) = path.parent() else { return Ok(()) };
        if self.get(&parent).is_none() {
            self.make_parents(&parent, meta)?;
            self.insert(parent, Inode::dir(meta.clone()))?;
        }
        Ok(())
    }

    /// Removes `path` and all below it; says how many names went. The root's entries go, the root
    /// stays.
    pub fn remove(&mut self, path: &TreePath) -> usize {
        let doomed: Vec<TreePath> =
            self.below(path).map(|(p, _, _)| p.clone()).filter(|p| !p.is_root()).collect();
        for path in &doomed {
            if let Some(id) = self.paths.remove(path) {
                self.drop_name(id);
            }
        }
        doomed.len()
    }

    /// Where `path` leads when the symbolic links in its directories are followed inside this
    /// tree, and the last component too if `last`. What does not exist is kept as written. `None`
    /// when the links form a loop.
    pub fn resolve(&self, path: &TreePath, last: bool) -> Option<TreePath> {
        let mut todo: Vec<Vec<u8>> = path.components().rev().map(<[u8]>::to_vec).collect();
        let mut done = TreePath::root();
        let mut links = 0;
        while let Some(name) = todo.pop() {
            match name.as_slice() {
                b"" | b"." => continue,
                b".." => {
                    done = done.parent().unwrap_or_default();
                    continue;
                }
                _ => {}
            }
            let here = done.join(&name).ok()?;
            match self.get(&here).map(|inode| &inode.kind) {
                Some(Kind::Symlink(target)) if last || !todo.is_empty() => {
                    links += 1;
                    // The kernel gives up after 40 links: path_resolution(7).
                    if links > 40 {
                        return None;
                    }
                    if target.first() == Some(&b'/') {
                        done = TreePath::root();
                    }
                    todo.extend(target.split(|&b| b == b'/').rev().map(<[u8]>::to_vec));
                }
                _ => done = here,
            }
        }
        Some(done)
    }

    fn check_place(&self, path: &TreePath, noun: &'static str, dir: bool) -> Result<(), TreeError> {
        let Some(parent) = path.parent() else {
            return if dir { Ok(()) } else { Err(TreeError::Root { found: noun }) };
        };
        match self.get(&parent) {
            None => return Err(TreeError::Missing { path: parent }),
            Some(above) if !above.is_dir() => {
                let found = above.kind.noun();
                return Err(TreeError::NotDir { path: path.clone(), parent, found });
            }
            Some(_) => {}
        }
        let occupied = |p: &TreePath| self.below(p).nth(1).is_some();
        if !dir && self.get(path).is_some_and(Inode::is_dir) && occupied(path) {
            return Err(TreeError::Occupied { path: path.clone(), wanted: noun });
        }
        Ok(())
    }

    fn name(&mut self, path: TreePath, id: InodeId) {
        if let Some((_, links)) = self.slot(id) {
            *links += 1;
        }
        if let Some(old) = self.paths.insert(path, id) {
            self.drop_name(old);
        }
    }

    fn drop_name(&mut self, id: InodeId) {
        if let Some((_, links)) = self.slot(id) {
            *links -= 1;
            if *links == 0 {
                self.inodes[id.0 as usize] = None;
            }
        }
    }
}

/// Equal when they would give the same filesystem: same names, same inodes, same hard links.
impl PartialEq for Tree {
    fn eq(&self, other: &Tree) -> bool {
        let mut pairs = HashMap::new();
        self.len() == other.len()
            && self.iter().zip(other.iter()).all(|((p, a, x), (q, b, y))| {
                p == q && x == y && self.links(a) == other.links(b) && *pairs.entry(a).or_insert(b) == b
            })
    }
}

impl Eq for Tree {}

#[cfg(test)]
pub(crate) mod tests;
