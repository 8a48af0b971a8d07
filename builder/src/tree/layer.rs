//! Laying one tree over another: what an overlay, a package or an identity adds, and what it takes
//! away.
//! Must not know: where the layer came from, roles, stores.
//! Spec: design.md section 2; a directory over a symbolic link to a directory follows the link, as
//! dpkg does, because Debian's /bin, /lib and /sbin are such links.

use std::collections::BTreeSet;

use super::{Inode, InodeId, Kind, Meta, Tree, TreeError, TreePath};

/// A change to a tree: entries to lay over it and names to take away first.
#[derive(Clone, Debug)]
pub struct Layer {
    tree: Tree,
    implied: BTreeSet<TreePath>,
    whiteouts: BTreeSet<TreePath>,
}

/// A layer does not fit the tree below.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum MergeError {
    /// A file, link or device would replace a directory.
    #[error("`{path}` is a directory below and a {found} in the layer: remove the directory first")]
    OverDir {
        /// The place.
        path: TreePath,
        /// What the layer has there.
        found: &'static str,
    },
    /// A directory would replace something else.
    #[error("`{path}` is a {found} below and a directory in the layer: remove the {found} first")]
    DirOver {
        /// The place.
        path: TreePath,
        /// What the tree below has there.
        found: &'static str,
    },
    /// Symbolic links below lead in a circle.
    #[error("`{path}` leads through a circle of symbolic links")]
    Loop {
        /// The path that cannot be followed.
        path: TreePath,
    },
    /// Any other reason why the result would be no tree.
    #[error(transparent)]
    Tree(#[from] TreeError),
}

impl Default for Layer {
    fn default() -> Layer {
        Layer::new()
    }
}

impl Layer {
    /// A layer that changes nothing.
    pub fn new() -> Layer {
        let implied = BTreeSet::from([TreePath::root()]);
        Layer {
            tree: Tree::new(Meta::root_owned(0o755, Default::default())),
            implied,
            whiteouts: BTreeSet::new(),
        }
    }

    /// A layer of all that a tree holds; its directories, the root too, bring their own owner and
    /// mode.
    pub fn from_tree(tree: Tree) -> Layer {
        Layer { tree, implied: BTreeSet::new(), whiteouts: BTreeSet::new() }
    }

    /// Adds an entry. Directories above it that the layer does not state are implied: they get
    /// `root:root 0755` where the tree below has none, and change nothing where it has one.
    pub fn insert(&mut self, path: TreePath, inode: Inode) -> Result<InodeId, TreeError> {
        self.imply_parents(&path, &inode)?;
        self.implied.remove(&path);
        self.tree.insert(path, inode)
    }

    /// Adds a further name of an inode of this layer.
    pub fn link(&mut self, path: TreePath, id: InodeId) -> Result<(), TreeError> {
        let like = self.tree.inode(id).clone();
        self.imply_parents(&path, &like)?;
        self.tree.link(path, id)
    }

    /// Takes away a name of the tree below, and all below that name, before entries are laid over.
    pub fn remove(&mut self, path: TreePath) {
        self.whiteouts.insert(path);
    }

    /// What the layer adds. Implied directories are among it.
    pub fn tree(&self) -> &Tree {
        &self.tree
    }

    /// What the layer takes away.
    pub fn whiteouts(&self) -> impl Iterator<Item = &TreePath> {
        self.whiteouts.iter()
    }

    /// True for a directory that only holds others.
    pub fn is_implied(&self, path: &TreePath) -> bool {
        self.implied.contains(path)
    }

    fn imply_parents(&mut self, path: &TreePath, like: &Inode) -> Result<(), TreeError> {
        let Some(parent) = path.parent() else { return Ok(()) };
        if self.tree.get(&parent).is_none() {
            let meta = Meta::root_owned(0o755, like.meta.mtime);
            self.imply_parents(&parent, like)?;
            self.tree.insert(parent.clone(), Inode::dir(meta))?;
            self.implied.insert(parent);
        }
        Ok(())
    }

    /// Lays this layer over `below`.
    ///
    /// `below` is changed in place and is of no further use after an error. Replacing a file, link
    /// or device by another of these is allowed; a directory and anything else never replace each
    /// other silently.
    pub fn merge_onto(&self, below: &mut Tree) -> Result<(), MergeError> {
        for path in &self.whiteouts {
            let path = follow(below, path)?;
            below.remove(&path);
        }
        let mut placed = std::collections::HashMap::new();
        for (path, id, inode) in self.tree.iter() {
            let target = follow(below, path)?;
            if inode.is_dir() {
                self.merge_dir(below, path, target, inode)?;
                continue;
            }
            if below.get(&target).is_some_and(Inode::is_dir) {
                return Err(MergeError::OverDir { path: target, found: inode.kind.noun() });
            }
            match placed.get(&id) {
                Some(&first) => below.link(target, first)?,
                None => _ = placed.insert(id, below.insert(target, inode.clone())?),
            }
        }
        Ok(())
    }

    fn merge_dir(
        &self,
        below: &mut Tree,
        path: &TreePath,
        target: TreePath,
        inode: &Inode,
    ) -> Result<(), MergeError> {
        let implied = self.implied.contains(path);
        match below.get(&target).map(|old| (&old.kind, old.kind.noun())) {
            Some((Kind::Dir, _)) if implied => {}
            None | Some((Kind::Dir, _)) => _ = below.insert(target, inode.clone())?,
            Some((Kind::Symlink(_), noun)) => {
                let end =
                    below.resolve(&target, true).ok_or_else(|| MergeError::Loop { path: target.clone() })?;
                // The link stays, and what is below the directory goes where it leads.
                if !below.get(&end).is_some_and(Inode::is_dir) {
                    return Err(MergeError::DirOver { path: target, found: noun });
                }
            }
            Some((_, noun)) => return Err(MergeError::DirOver { path: target, found: noun }),
        }
        Ok(())
    }
}

fn follow(below: &Tree, path: &TreePath) -> Result<TreePath, MergeError> {
    below.resolve(path, false).ok_or_else(|| MergeError::Loop { path: path.clone() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tree::tests::{any_tree, dir, file, path, symlink, tree};
    use proptest::prelude::*;

    fn layer(entries: &[(&str, Inode)]) -> Layer {
        let mut layer = Layer::new();
        for (name, inode) in entries {
            layer.insert(path(name), inode.clone()).unwrap();
        }
        layer
    }

    #[test]
    fn implied_directories_keep_what_is_below_and_stated_ones_change_it() {
        let mut below = tree(&[("etc", dir())]);
        below.meta_mut(&path("etc")).unwrap().mode = 0o700;
        layer(&[("etc/a", file(b""))]).merge_onto(&mut below).unwrap();
        assert_eq!(below.get(&path("etc")).unwrap().meta.mode, 0o700);
        layer(&[("etc", dir())]).merge_onto(&mut below).unwrap();
        assert_eq!(below.get(&path("etc")).unwrap().meta.mode, 0o755);
        assert!(below.get(&path("etc/a")).is_some());
    }

    #[test]
    fn directories_and_others_never_replace_each_other() {
        let mut below = tree(&[("d/x", file(b"")), ("f", file(b"")), ("l", symlink("f"))]);
        let error = layer(&[("d", file(b""))]).merge_onto(&mut below.clone()).unwrap_err();
        assert_eq!(error, MergeError::OverDir { path: path("d"), found: "file" });
        let error = layer(&[("f/x", file(b""))]).merge_onto(&mut below.clone()).unwrap_err();
        assert_eq!(error, MergeError::DirOver { path: path("f"), found: "file" });
        assert!(layer(&[("l/x", file(b""))]).merge_onto(&mut below.clone()).is_err());
        let mut swap = layer(&[("d", file(b"new"))]);
        swap.remove(path("d"));
        swap.merge_onto(&mut below).unwrap();
        assert_eq!(below.get(&path("d")).unwrap().kind.noun(), "file");
    }

    #[test]
    fn a_directory_over_a_link_goes_where_the_link_leads() {
        let mut below = tree(&[("usr/lib", dir()), ("lib", symlink("usr/lib"))]);
        layer(&[("lib/a/b", file(b"x")), ("lib", dir())]).merge_onto(&mut below).unwrap();
        assert!(below.get(&path("usr/lib/a/b")).is_some());
        assert_eq!(below.get(&path("lib")).unwrap().kind.noun(), "symbolic link");
        let mut circle = tree(&[("l", symlink("m")), ("m", symlink("l"))]);
        assert!(matches!(layer(&[("l/x", dir())]).merge_onto(&mut circle), Err(MergeError::Loop { .. })));
    }

    #[test]
    fn hard_links_of_a_layer_stay_links() {
        let mut layer = Layer::new();
        let id = layer.insert(path("a"), file(b"new")).unwrap();
        layer.link(path("d/b"), id).unwrap();
        let mut below = tree(&[("a", file(b"old"))]);
        layer.merge_onto(&mut below).unwrap();
        assert_eq!(below.id(&path("a")), below.id(&path("d/b")));
    }

    proptest! {
        #[test]
        fn an_empty_layer_changes_nothing(t in any_tree()) {
            let mut below = t.clone();
            Layer::new().merge_onto(&mut below).unwrap();
            prop_assert_eq!(below, t);
        }

        #[test]
        fn a_whole_tree_over_an_empty_one_is_that_tree(t in any_tree()) {
            let mut below = Tree::new(Meta::default());
            // Symbolic links of the layer itself are never followed: nothing lies below them.
            Layer::from_tree(t.clone()).merge_onto(&mut below).unwrap();
            prop_assert_eq!(below, t);
        }

        #[test]
        fn merging_twice_is_merging_once(a in any_tree(), b in any_tree()) {
            let mut once = a;
            if Layer::from_tree(b.clone()).merge_onto(&mut once).is_ok() {
                let mut twice = once.clone();
                Layer::from_tree(b).merge_onto(&mut twice).unwrap();
                prop_assert_eq!(twice, once);
            }
        }
    }
}
