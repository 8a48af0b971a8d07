//! A whole filesystem into a tree and the store: first all names, then the content of files in the order in
//! which it lies.
//! Must not know: where inodes and blocks are.

use std::collections::HashMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::error::ReadError;
use super::inode::{RawInode, Type};
use super::{Filesystem, ROOT};
use crate::io::at::ReadAt;
use crate::io::progress::Task;
use crate::store::{Store, StoreError};
use crate::tree::{Inode, InodeId, Kind, Meta, Object, Tree, TreePath};

/// Bytes of holes in all files together: they cost the image nothing, and each must be digested.
const HOLES_MAX: u64 = 64 << 30;
/// Bytes of all attributes together, which are in memory: a root has some hundred.
const ATTRIBUTES_MAX: usize = 64 << 20;
/// Threads that read files at most.
const THREADS_MAX: usize = 4;

/// Reads the filesystem of `device`. Attributes are those that the kernel shows when it is mounted. The task
/// counts bytes of files.
pub fn into_tree(device: &dyn ReadAt, store: &Store, progress: &Task) -> Result<Tree, ReadError> {
    let fs = Filesystem::open(device)?;
    let mut walk =
        Walk { fs: &fs, found: Vec::new(), first: HashMap::new(), taken: 0, holes: 0, attributes: 0 };
    walk.all()?;
    let Walk { found, .. } = walk;
    let objects = objects(&fs, &found, store, progress)?;
    tree(found, &objects)
}

/// An entry on its way into the tree.
enum Found {
    /// An inode under its first name; files without their content.
    Inode { meta: Meta, what: What },
    /// A further name of the inode of this number.
    Link(u32),
}

enum What {
    /// Nothing is missing.
    Done(Kind),
    /// Content is to be read; it begins here.
    File { inode: Box<RawInode>, inline: Vec<u8>, place: u64 },
}

struct Walk<'a> {
    fs: &'a Filesystem<'a>,
    /// Parents before what is in them.
    found: Vec<(TreePath, u32, Found)>,
    /// Numbers that have been seen.
    first: HashMap<u32, Type>,
    /// Blocks of all inodes so far: none belongs to two, so they are no more than the filesystem has.
    taken: u64,
    holes: u64,
    attributes: usize,
}

impl Walk<'_> {
    fn all(&mut self) -> Result<(), ReadError> {
        let root = self.fs.inode(ROOT, "superblock")?;
        if root.kind != Type::Dir {
            return Err(root.wrong(0x00, "the root is no directory"));
        }
        let mut dirs = self.take(TreePath::root(), root)?.into_iter().collect::<Vec<_>>();
        // A directory has one name, so no loop of them is walked twice.
        while let Some((path, entries)) = dirs.pop() {
            for (name, number) in entries {
                let from = format!("directory `{path}`");
                let inode = self.fs.inode(number, &from)?;
                let path = path.join(&name).map_err(|e| inode.wrong(0, e.to_string()))?;
                match self.first.get(&number) {
                    Some(Type::Dir) => {
                        return Err(inode.wrong(0x1a, format!("a directory with the further name `{path}`")));
                    }
                    Some(_) => self.found.push((path, number, Found::Link(number))),
                    None => dirs.extend(self.take(path, inode)?),
                }
            }
        }
        Ok(())
    }

    /// Notes an inode under its first name; gives what is to be walked.
    #[expect(clippy::type_complexity, reason = "a directory and its entries, used once")]
    fn take(
        &mut self,
        path: TreePath,
        inode: RawInode,
    ) -> Result<Option<(TreePath, Vec<(Vec<u8>, u32)>)>, ReadError> {
        let number = inode.number;
        let mut attributes = self.fs.attributes(&inode)?;
        let entries = match inode.kind {
            Type::Dir => {
                let (entries, taken) = self.fs.entries(&inode, &attributes)?;
                self.count(&inode, taken)?;
                Some(entries)
            }
            _ => None,
        };
        let (major, minor) = inode.device();
        let kind = match inode.kind {
            Type::Dir => Some(Kind::Dir),
            Type::Symlink => {
                let (target, taken) = self.fs.target(&inode, &mut attributes)?;
                self.count(&inode, taken)?;
                Some(Kind::Symlink(target.into()))
            }
            Type::Block => Some(Kind::Block { major, minor }),
            Type::Char => Some(Kind::Char { major, minor }),
            Type::Fifo => Some(Kind::Fifo),
            Type::Socket => Some(Kind::Socket),
            // Follows from its content, which is read later.
            Type::File => None,
        };
        let shown = std::mem::take(&mut attributes.shown);
        self.attributes += shown.iter().map(|(name, value)| name.len() + value.len()).sum::<usize>();
        if self.attributes > ATTRIBUTES_MAX {
            return Err(inode.wrong(0x68, format!("attributes of more than {ATTRIBUTES_MAX} bytes in all")));
        }
        let meta =
            Meta { mode: inode.mode, uid: inode.uid, gid: inode.gid, mtime: inode.mtime, xattrs: shown };
        self.first.insert(number, inode.kind);
        let what = match kind {
            Some(kind) => What::Done(kind),
            None => self.file(inode, attributes.inline)?,
        };
        let walk = entries.map(|entries| {
            let entries = entries.into_iter().map(|entry| (entry.name, entry.inode)).collect();
            (path.clone(), entries)
        });
        self.found.push((path, number, Found::Inode { meta, what }));
        Ok(walk)
    }

    fn count(&mut self, inode: &RawInode, blocks: u64) -> Result<(), ReadError> {
        self.taken += blocks;
        match self.taken > self.fs.shape.blocks {
            true => Err(inode.wrong(0x28, "its blocks belong to others already")),
            false => Ok(()),
        }
    }

    /// Counts what a file will take to read, so that an image cannot make that endless.
    fn file(&mut self, inode: RawInode, inline: Vec<u8>) -> Result<What, ReadError> {
        let mut attributes = super::Attributes { inline: inline.clone(), ..Default::default() };
        let content = self.fs.content(&inode, &mut attributes)?;
        let (taken, place) = (content.taken, content.place());
        self.holes += inode.size.saturating_sub(content.mapped());
        self.count(&inode, taken)?;
        if self.holes > HOLES_MAX {
            return Err(inode.wrong(0x04, format!("files with holes of more than {HOLES_MAX} bytes in all")));
        }
        Ok(What::File { inode: Box::new(inode), inline, place })
    }
}

/// The content of all files, by the number of the inode.
fn objects(
    fs: &Filesystem<'_>,
    found: &[(TreePath, u32, Found)],
    store: &Store,
    progress: &Task,
) -> Result<HashMap<u32, Object>, ReadError> {
    let mut files: Vec<(u64, u32, &RawInode, &[u8])> = found
        .iter()
        .filter_map(|(_, number, found)| match found {
            Found::Inode { what: What::File { inode, inline, place }, .. } => {
                Some((*place, *number, &**inode, &inline[..]))
            }
            _ => None,
        })
        .collect();
    files.sort_by_key(|(place, number, ..)| (*place, *number));
    let next = AtomicUsize::new(0);
    let done = Mutex::new((HashMap::with_capacity(files.len()), None));
    let work = || {
        while let Some((_, number, inode, inline)) = files.get(next.fetch_add(1, Ordering::Relaxed)) {
            let object = object(fs, inode, inline, store);
            progress.advance(inode.size);
            // A thread that panicked is told of by the scope.
            let mut done = done.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            match object {
                Ok(object) => _ = done.0.insert(*number, object),
                Err(error) => {
                    done.1.get_or_insert(error);
                    next.store(files.len(), Ordering::Relaxed);
                }
            }
        }
    };
    let threads = std::thread::available_parallelism().map_or(1, usize::from).min(THREADS_MAX);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(work);
        }
    });
    let (objects, error) = done.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
    match error {
        None => Ok(objects),
        Some(error) => Err(error),
    }
}

fn object(fs: &Filesystem<'_>, inode: &RawInode, inline: &[u8], store: &Store) -> Result<Object, ReadError> {
    let mut attributes = super::Attributes { inline: inline.to_vec(), ..Default::default() };
    let mut content = fs.content(inode, &mut attributes)?;
    store.put_reader(&mut content).map_err(|error| match error {
        StoreError::Source(source) => ReadError::Io { at: inode.at, len: 0, source },
        other => other.into(),
    })
}

fn tree(found: Vec<(TreePath, u32, Found)>, objects: &HashMap<u32, Object>) -> Result<Tree, ReadError> {
    let mut tree = Tree::new(Meta::default());
    let mut ids: HashMap<u32, InodeId> = HashMap::new();
    for (path, number, found) in found {
        match found {
            Found::Link(number) => {
                if let Some(id) = ids.get(&number) {
                    tree.link(path, *id)?;
                }
            }
            Found::Inode { meta, what } => {
                let kind = match what {
                    What::Done(kind) => kind,
                    What::File { .. } => match objects.get(&number) {
                        Some(object) => Kind::File(object.clone()),
                        None => continue,
                    },
                };
                ids.insert(number, tree.insert(path, Inode { meta, kind })?);
            }
        }
    }
    Ok(tree)
}
