//! A tree as files, and what the kernel says of each, so that changes are found without reading.
//! Must not know: what the files are for, but for those that no script reads.
//! Spec: inode(7): any change of content, owner, mode or name changes ctime, which nobody can set.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs::{self, File, Permissions};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt, lchown, symlink};
use std::path::{Path, PathBuf};

use rustix::fs::{
    AtFlags, CWD, FileType, Mode, Timespec, Timestamps, XattrFlags, lsetxattr, mknodat, utimensat,
};

use super::mounts::Places;
use super::spec::Trouble;
use crate::store::Store;
use crate::tree::{Inode, InodeId, Kind, Object, Time, Tree, TreePath};

/// What stat(2) says of one entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Stat {
    pub ino: u64,
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    pub size: u64,
    pub mtime: (i64, i64),
    pub ctime: (i64, i64),
}

impl From<&fs::Metadata> for Stat {
    fn from(m: &fs::Metadata) -> Stat {
        Stat {
            ino: m.ino(),
            mode: m.mode(),
            uid: m.uid(),
            gid: m.gid(),
            size: m.size(),
            mtime: (m.mtime(), m.mtime_nsec()),
            ctime: (m.ctime(), m.ctime_nsec()),
        }
    }
}

/// Where in a folder made of a tree an entry is.
pub(super) fn on_disk(root: &Path, path: &TreePath) -> PathBuf {
    if path.is_root() { root.to_owned() } else { root.join(OsStr::from_bytes(path.as_bytes())) }
}

/// Makes all entries of `tree` below `root`, which must not exist yet, and those of `places`. Gives
/// what the kernel says of each; device nodes, which nobody may make here, are left out.
pub(super) fn tree(
    tree: &Tree,
    store: &Store,
    root: &Path,
    places: &Places,
) -> Result<HashMap<TreePath, Stat>, Trouble> {
    let mut first: HashMap<InodeId, PathBuf> = HashMap::new();
    for (path, id, inode) in tree.iter() {
        let place = on_disk(root, path);
        let made = match first.get(&id) {
            Some(old) => fs::hard_link(old, &place).map(|()| true),
            None => make(store, path, &place, inode),
        };
        let made = made.map_err(Trouble::io(format!("making {path}")))?;
        if made && tree.links(id) > 1 {
            first.entry(id).or_insert(place);
        }
    }
    for path in &places.dirs {
        fs::create_dir(on_disk(root, path)).map_err(Trouble::io(format!("making {path}")))?;
    }
    for path in &places.files {
        File::create(on_disk(root, path)).map_err(Trouble::io(format!("making {path}")))?;
    }
    // Making entries changed the times of their folders.
    for (path, _, inode) in tree.iter().rev().filter(|(_, _, inode)| inode.is_dir()) {
        set_time(&on_disk(root, path), inode.meta.mtime).map_err(Trouble::io(format!("making {path}")))?;
    }
    let mut stats = HashMap::with_capacity(tree.len());
    for (path, _, _) in tree.iter() {
        if let Ok(found) = fs::symlink_metadata(on_disk(root, path)) {
            stats.insert(path.clone(), Stat::from(&found));
        }
    }
    Ok(stats)
}

/// Makes one entry; false for a device, which is left out.
fn make(store: &Store, path: &TreePath, place: &Path, inode: &Inode) -> std::io::Result<bool> {
    match &inode.kind {
        Kind::Dir => fs::create_dir(place)?,
        Kind::File(object) => make_file(store, path, place, object)?,
        Kind::Symlink(target) => symlink(OsStr::from_bytes(target), place)?,
        Kind::Fifo => mknodat(CWD, place, FileType::Fifo, Mode::empty(), 0)?,
        Kind::Socket => mknodat(CWD, place, FileType::Socket, Mode::empty(), 0)?,
        Kind::Block { .. } | Kind::Char { .. } => return Ok(false),
    }
    let meta = &inode.meta;
    lchown(place, Some(meta.uid), Some(meta.gid))?;
    if !matches!(inode.kind, Kind::Symlink(_)) {
        // After the owner: chown(2) clears set-id bits.
        fs::set_permissions(place, Permissions::from_mode(u32::from(meta.mode)))?;
    }
    for (name, value) in &meta.xattrs {
        // And capabilities.
        lsetxattr(place, OsStr::from_bytes(name), value, XattrFlags::empty())?;
    }
    set_time(place, meta.mtime)?;
    Ok(true)
}

fn make_file(store: &Store, path: &TreePath, place: &Path, object: &Object) -> std::io::Result<()> {
    let mut out = File::create_new(place)?;
    if unread(path) {
        return out.set_len(object.size);
    }
    let mut source = store.open_object(object).map_err(std::io::Error::other)?;
    std::io::copy(&mut source, &mut out).map(|_| ())
}

/// Files that no script reads, so that a hole of their size stands for them. Half of a base's bytes
/// are kernel modules and translations; depmod and initramfs tools, their only readers at
/// installation, are run elsewhere.
fn unread(path: &TreePath) -> bool {
    let p = path.as_bytes();
    let module = p.starts_with(b"usr/lib/modules/") && p.windows(8).any(|w| w == b"/kernel/");
    module || (p.starts_with(b"usr/share/locale/") && p.ends_with(b".mo"))
}

fn set_time(place: &Path, time: Time) -> std::io::Result<()> {
    let at = Timespec { tv_sec: time.sec, tv_nsec: i64::from(time.nsec) };
    let times = Timestamps { last_access: at, last_modification: at };
    Ok(utimensat(CWD, place, &times, AtFlags::SYMLINK_NOFOLLOW)?)
}
