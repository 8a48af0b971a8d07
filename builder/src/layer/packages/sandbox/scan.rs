//! Reads a folder back as a tree: what did not change is taken from the tree that it was made of.
//! Must not know: what may have changed it.
//! Spec: inode(7), xattr(7). Times of changed entries come out as [`CHANGED`]:
//! the clock must not show.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

use rustix::fs::{lgetxattr, llistxattr};

use super::materialise::{Stat, on_disk};
use super::mounts::Places;
use super::spec::Trouble;
use crate::layer::packages::CHANGED;
use crate::store::Store;
use crate::tree::{Inode, InodeId, Kind, Meta, Object, Tree, TreePath};

struct Scan<'a> {
    old: &'a Tree,
    before: &'a HashMap<TreePath, Stat>,
    /// Files by inode number: a renamed file keeps number, size and time.
    by_number: HashMap<u64, (&'a Object, &'a Stat)>,
    store: &'a Store,
    new: Tree,
    linked: HashMap<u64, InodeId>,
}

/// The tree below `root`, which was made of `old`; `before` says how each entry looked then.
pub(super) fn tree(
    old: &Tree,
    before: &HashMap<TreePath, Stat>,
    store: &Store,
    root: &Path,
    places: &Places,
) -> Result<Tree, Trouble> {
    let mut by_number = HashMap::new();
    for (path, _, inode) in old.iter() {
        if let (Some(object), Some(stat)) = (inode.object(), before.get(path)) {
            by_number.insert(stat.ino, (object, stat));
        }
    }
    let new = Tree::new(Meta::default());
    let mut scan = Scan { old, before, by_number, store, new, linked: HashMap::new() };
    // A list instead of recursion: folders may be nested as deep as scripts like.
    let mut todo = vec![TreePath::root()];
    while let Some(path) = todo.pop() {
        let read = || Trouble::io(format!("reading {path} back"));
        let place = on_disk(root, &path);
        let found = fs::symlink_metadata(&place).map_err(read())?;
        scan.entry(&path, &place, &found).map_err(read())?;
        if found.is_dir() {
            for entry in fs::read_dir(&place).map_err(read())? {
                let name = entry.map_err(read())?.file_name();
                let child = path.join(name.as_bytes()).map_err(|e| read()(std::io::Error::other(e)))?;
                if !places.contains(&child) {
                    todo.push(child);
                }
            }
        }
    }
    scan.devices().map_err(Trouble::io("keeping devices"))?;
    Ok(scan.new)
}

impl Scan<'_> {
    fn entry(&mut self, path: &TreePath, place: &Path, found: &fs::Metadata) -> std::io::Result<()> {
        let stat = Stat::from(found);
        let same = self.before.get(path).is_some_and(|old| *old == stat);
        let inode = match self.old.get(path) {
            Some(inode) if same => inode.clone(),
            _ => self.read(path, place, found, &stat)?,
        };
        let linked = !found.is_dir() && found.nlink() > 1;
        if let Some(&id) = self.linked.get(&stat.ino).filter(|_| linked) {
            return self.new.link(path.clone(), id).map_err(std::io::Error::other);
        }
        let id = self.new.insert(path.clone(), inode).map_err(std::io::Error::other)?;
        if linked {
            self.linked.insert(stat.ino, id);
        }
        Ok(())
    }

    fn read(
        &self,
        path: &TreePath,
        place: &Path,
        found: &fs::Metadata,
        stat: &Stat,
    ) -> std::io::Result<Inode> {
        let kind = found.file_type();
        let kind = if kind.is_dir() {
            Kind::Dir
        } else if kind.is_file() {
            Kind::File(self.object(place, stat)?)
        } else if kind.is_symlink() {
            Kind::Symlink(fs::read_link(place)?.as_os_str().as_bytes().into())
        } else if kind.is_fifo() {
            Kind::Fifo
        } else if kind.is_socket() {
            Kind::Socket
        } else {
            return Err(std::io::Error::other("a device that cannot be"));
        };
        let mode = u16::try_from(found.mode() & 0o7777).unwrap_or_default();
        let mtime = match (self.before.get(path), self.old.get(path)) {
            (Some(before), Some(old)) if before.mtime == stat.mtime => old.meta.mtime,
            _ => CHANGED,
        };
        let xattrs = xattrs(place)?;
        Ok(Inode { meta: Meta { mode, uid: found.uid(), gid: found.gid(), mtime, xattrs }, kind })
    }

    fn object(&self, place: &Path, stat: &Stat) -> std::io::Result<Object> {
        if let Some((object, old)) = self.by_number.get(&stat.ino)
            && old.size == stat.size
            && old.mtime == stat.mtime
        {
            return Ok((*object).clone());
        }
        let mut file = File::open(place)?;
        self.store.put_reader(&mut file).map_err(std::io::Error::other)
    }

    /// Devices of the old tree, which could not be made as files.
    fn devices(&mut self) -> std::io::Result<()> {
        for (path, _, inode) in self.old.iter() {
            let device = matches!(inode.kind, Kind::Block { .. } | Kind::Char { .. });
            let kept = path.parent().is_some_and(|parent| self.new.get(&parent).is_some());
            if device && kept && self.new.get(path).is_none() {
                self.new.insert(path.clone(), inode.clone()).map_err(std::io::Error::other)?;
            }
        }
        Ok(())
    }
}

fn xattrs(place: &Path) -> std::io::Result<std::collections::BTreeMap<Vec<u8>, Vec<u8>>> {
    let mut found = std::collections::BTreeMap::new();
    // The kernel's limits: 64 KiB of names, 64 KiB a value.
    let mut names = vec![0; 65_536];
    let len = match llistxattr(place, &mut names[..]) {
        Ok(0) | Err(rustix::io::Errno::NOTSUP) => return Ok(found),
        len => len?,
    };
    for name in names[..len].split(|&b| b == 0).filter(|n| !n.is_empty()) {
        let mut value = vec![0; 65_536];
        let len = lgetxattr(place, OsStr::from_bytes(name), &mut value[..])?;
        value.truncate(len);
        found.insert(name.to_vec(), value);
    }
    Ok(found)
}
