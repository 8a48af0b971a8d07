//! The tree as it will be once the layer in the making is laid over it.
//! Must not know: what the layer is for.
//! Spec: the rules of [`Layer::merge_onto`]; systemd and passwd(5) readers follow links, so this does.

use std::collections::BTreeSet;

use super::{Inode, Kind, Layer, Meta, Result, Store, Time, Tree, TreePath};

pub(super) struct View<'a> {
    pub below: &'a Tree,
    pub layer: Layer,
    pub store: &'a Store,
    pub epoch: i64,
}

impl<'a> View<'a> {
    pub fn new(below: &'a Tree, store: &'a Store, epoch: i64) -> View<'a> {
        View { below, layer: Layer::new(), store, epoch }
    }

    pub fn time(&self) -> Time {
        Time::seconds(self.epoch)
    }

    /// The inode at a path; links are followed in its directories, and at its end if `last`.
    pub fn get(&self, path: &TreePath, last: bool) -> Option<&Inode> {
        let mut path = path.clone();
        // As many links as the kernel follows: path_resolution(7).
        for _ in 0..40 {
            let inode = self.look(&path)?;
            match &inode.kind {
                Kind::Symlink(target) if last => {
                    let parent = path.parent().unwrap_or_default();
                    path = step(&parent, target)?;
                }
                _ => return Some(inode),
            }
        }
        None
    }

    fn look(&self, path: &TreePath) -> Option<&Inode> {
        if let Some(inode) = self.layer.tree().get(path).filter(|_| !self.layer.is_implied(path)) {
            return Some(inode);
        }
        let real = self.below.resolve(path, false)?;
        let hidden = |p: &TreePath| self.layer.whiteouts().any(|gone| p.starts_with(gone));
        if real != *path
            && let Some(inode) = self.layer.tree().get(&real).filter(|_| !self.layer.is_implied(&real))
        {
            return Some(inode);
        }
        self.below.get(&real).filter(|_| !hidden(path) && !hidden(&real))
    }

    /// The bytes of a regular file, links followed.
    pub fn read(&self, path: &TreePath) -> Result<Option<Vec<u8>>> {
        match self.get(path, true).and_then(Inode::object) {
            Some(object) => Ok(Some(self.store.read_object(object)?)),
            None => Ok(None),
        }
    }

    /// The names in a directory, in byte order.
    pub fn names(&self, dir: &TreePath) -> BTreeSet<Vec<u8>> {
        let real = self.below.resolve(dir, true).unwrap_or_default();
        let upper = self.layer.tree().children(dir).map(|(p, ..)| p.name().to_vec());
        let lower = self.below.children(&real).map(|(p, ..)| p.name().to_vec());
        let all = upper.chain(lower.filter(|_| !real.is_root()));
        all.filter(|name| dir.join(name).is_ok_and(|path| self.look(&path).is_some())).collect()
    }

    /// Adds a file that root owns.
    pub fn put_text(&mut self, path: &str, mode: u16, text: &str) -> Result<()> {
        let meta = Meta::root_owned(mode, self.time());
        self.put_file(TreePath::new(path)?, meta, text.as_bytes())
    }

    /// Adds a file.
    pub fn put_file(&mut self, path: TreePath, meta: Meta, bytes: &[u8]) -> Result<()> {
        let kind = Kind::File(self.store.put_bytes(bytes)?);
        self.layer.insert(path, Inode { meta, kind })?;
        Ok(())
    }

    /// Adds a link that root owns.
    pub fn put_link(&mut self, path: TreePath, target: &str) -> Result<()> {
        let meta = Meta::root_owned(0o777, self.time());
        self.layer.insert(path, Inode { meta, kind: Kind::Symlink(target.as_bytes().into()) })?;
        Ok(())
    }
}

/// Where a link in `dir` leads; `..` at the root stays there.
pub(super) fn step(dir: &TreePath, target: &[u8]) -> Option<TreePath> {
    let mut at = if target.first() == Some(&b'/') { TreePath::root() } else { dir.clone() };
    for name in target.split(|&b| b == b'/') {
        at = match name {
            b"" | b"." => continue,
            b".." => at.parent().unwrap_or_default(),
            name => at.join(name).ok()?,
        };
    }
    Some(at)
}
