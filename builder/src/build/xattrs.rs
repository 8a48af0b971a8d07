//! The extended attributes of a root, for roots by NFS: version 3 of that protocol carries none, so file
//! capabilities would be lost. What has some goes, with its attributes, into a small filesystem within
//! the root, and the initramfs lays that over the lower directory of overlayfs.
//! Must not know: NFS, how the initramfs mounts it.
//! Spec: overlayfs.rst, "Multiple lower layers"; netboot.sh, `attributes`.
//!
//! A list and a program that sets attributes would do as well, but the target has no such program for
//! certain: Debian's busybox has no `setfattr`, and `setcap` is a package of its own. This way nothing is
//! copied up at boot, and hard links, ACLs and attributes of directories come along.

use anyhow::Context;

use super::ram::{Each, compact};
use crate::io::sink::Plain;
use crate::store::Store;
use crate::tree::layer::Layer;
use crate::tree::{Inode, InodeId, Kind, Meta, Time, Tree, TreePath};

/// Where the filesystem is in the root. The initramfs looks for it there.
pub const IMAGE: &str = "usr/lib/gt/xattrs.ext4";

/// A layer with the filesystem, or `None` for a root without attributes. `epoch` is its time.
pub(super) fn layer(root: &Tree, store: &Store, epoch: i64) -> anyhow::Result<Option<Layer>> {
    let Some(part) = part_with_attributes(root)? else { return Ok(None) };
    let mut writer = store.object_writer()?;
    let mut sink = Plain::new(Each(|bytes: &[u8]| writer.write(bytes).map_err(std::io::Error::other)));
    compact(&part, "gt-xattrs", store, &mut sink).context("laying out the extended attributes")?;
    let object = writer.finish()?;
    let mut layer = Layer::new();
    let meta = Meta::root_owned(0o600, Time::seconds(epoch));
    layer.insert(TreePath::new(IMAGE)?, Inode { meta, kind: Kind::File(object) })?;
    Ok(Some(layer))
}

/// All inodes that have attributes, under all their names, below directories that are as in the root:
/// overlayfs shows a directory as its uppermost layer has it.
fn part_with_attributes(root: &Tree) -> anyhow::Result<Option<Tree>> {
    let Some(top) = root.get(&TreePath::root()) else { return Ok(None) };
    let mut part = Tree::new(top.meta.clone());
    let mut links: Vec<(InodeId, InodeId)> = Vec::new();
    let mut found = has_some(top);
    for (path, id, inode) in root.iter().filter(|(path, _, inode)| !path.is_root() && has_some(inode)) {
        found = true;
        for at in ancestors(path) {
            if let Some(dir) = root.get(&at).filter(|_| part.get(&at).is_none()) {
                part.insert(at, dir.clone())?;
            }
        }
        match links.iter().find(|(of, _)| *of == id) {
            Some((_, copy)) => part.link(path.clone(), *copy)?,
            None if part.get(path).is_some() => {}
            None => {
                let copy = part.insert(path.clone(), inode.clone())?;
                links.push((id, copy));
            }
        }
    }
    Ok(found.then_some(part))
}

/// ACLs are left out because NFS_ACL carries them, SELinux labels because every file of a base that has
/// some has one, and our kernels are given no policy.
fn has_some(inode: &Inode) -> bool {
    let carried = |name: &[u8]| name.starts_with(b"system.posix_acl_") || name == b"security.selinux";
    inode.meta.xattrs.keys().any(|name| !carried(name))
}

/// The directories above `path`, the root aside, from the top.
fn ancestors(path: &TreePath) -> Vec<TreePath> {
    let mut above = Vec::new();
    let mut at = path.parent();
    while let Some(dir) = at.filter(|dir| !dir.is_root()) {
        at = dir.parent();
        above.push(dir);
    }
    above.reverse();
    above
}

#[cfg(test)]
mod tests;
