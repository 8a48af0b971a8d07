//! A generation as it is on a disk of its own: what is added for that, and where everything lies.
//! Must not know: how the generation was made, what takes the disk's bytes.
//! Spec: design.md sections 7 and 13.

use std::path::Path;

use super::image::{self, Private, Sizes, Trees};
use super::secrets;
use crate::cluster::Node;
use crate::layer::identity::ClusterKey;
use crate::overlay::Overlay;
use crate::store::Store;
use crate::tree::{Meta, Time, Tree};

/// A node, and what is known of it.
#[derive(Clone, Copy)]
pub struct Owner<'a> {
    /// The cluster's name.
    pub cluster: &'a str,
    /// The node.
    pub node: &'a Node,
    /// Its overlays, without those that were left out.
    pub overlays: &'a [&'a Overlay],
    /// The cluster key and its folder.
    pub key: (&'a ClusterKey, &'a Path),
    /// Time of all that is added.
    pub epoch: i64,
}

/// A disk that can be written.
pub struct Disk {
    /// Files that are in no generation, secrets among them.
    pub private: Vec<Private>,
    /// The generation's root with the private files in it.
    root: Tree,
    /// What a new `gt-state` begins with.
    state: Tree,
    /// Has the bytes of the private files too.
    store: Store,
    /// Where everything lies.
    pub plan: image::Plan,
    /// What needs attention.
    pub warnings: Vec<String>,
}

impl Disk {
    /// Puts a disk together; nothing is written.
    pub fn new(owner: &Owner<'_>, root: &Tree, sizes: &Sizes, store: &Store) -> anyhow::Result<Disk> {
        let Owner { cluster, node, overlays, key: (key, folder), epoch } = *owner;
        let mut private = image::private_files(cluster, node, key, root, store)?;
        let accounts = secrets::accounts(root, store)?;
        let secrets = secrets::collect(node.name.as_str(), overlays, folder, key, &accounts)?;
        private.extend(secrets.files);
        let (root, store) = image::with_private(root, &private, epoch, store)?;
        let plan = image::plan(cluster, node, &root, sizes)?;
        let state = Tree::new(Meta::root_owned(0o755, Time::seconds(epoch)));
        Ok(Disk { private, root, state, store, plan, warnings: secrets.warnings })
    }

    /// Puts files into a new `gt-state`.
    pub fn with_state(mut self, files: &[Private], epoch: i64) -> anyhow::Result<Disk> {
        (self.state, self.store) = image::with_private(&self.state, files, epoch, &self.store)?;
        Ok(self)
    }

    /// What its partitions hold, with this boot partition.
    pub fn trees<'a>(&'a self, boot: &'a Tree) -> Trees<'a> {
        Trees { boot, root: &self.root, state: &self.state, store: &self.store }
    }
}
