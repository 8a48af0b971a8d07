//! A node's generation with all that a disk of it needs: for commands that write one or look at one.
//! Must not know: what is done with it.

use anyhow::Context;

use super::project::Project;
use super::select;
use crate::build::disk::{Disk, Owner};
use crate::build::image::Sizes;
use crate::cluster::Node;
use crate::manifest::Manifest;
use crate::overlay::{Description, Overlay};
use crate::store::{Generation, Store};
use crate::tree::Tree;

/// What is read once for all nodes.
pub struct Shared {
    /// The project.
    pub project: Project,
    /// The description.
    pub description: Description,
    /// The open store.
    pub store: Store,
}

impl Shared {
    /// Reads it.
    pub fn open(project: Project) -> anyhow::Result<Shared> {
        let description = project.load()?;
        let store = Store::open(&project.store).context("opening the store")?;
        Ok(Shared { project, description, store })
    }
}

/// One generation.
pub struct Subject<'a> {
    shared: &'a Shared,
    /// Its node.
    pub node: &'a Node,
    overlays: Vec<&'a Overlay>,
    /// What is recorded.
    pub generation: Generation,
    /// What it says of itself.
    pub manifest: Manifest,
    /// Its root, without private files.
    pub root: Tree,
    /// Its boot partition.
    pub boot: Tree,
}

impl<'a> Subject<'a> {
    /// Finds the generation that `name` names.
    pub fn find(shared: &'a Shared, name: &str) -> anyhow::Result<Subject<'a>> {
        let Shared { store, description, project, .. } = shared;
        let generation = select::generation(store, name)?;
        let manifest: Manifest =
            serde_json::from_slice(&generation.manifest).context("reading the manifest")?;
        let node = description.cluster.node(&manifest.node).with_context(|| {
            format!("`{}` is in the store, but not in `{}`", manifest.node, project.file.display())
        })?;
        let all = description.overlays.expand_node(node);
        let in_it = |o: &&Overlay| manifest.overlays.iter().any(|built| built.name == o.name.as_str());
        let overlays = all.into_iter().filter(in_it).collect();
        let root = store.tree(&generation.root)?;
        let boot = store.tree(&generation.boot)?;
        Ok(Subject { shared, node, overlays, generation, manifest, root, boot })
    }

    /// Its disk; nothing is written.
    pub fn disk(&self, sizes: &Sizes) -> anyhow::Result<Disk> {
        let Shared { project, description, store } = self.shared;
        let key = project.key()?;
        let owner = Owner {
            cluster: description.cluster.name.as_str(),
            node: self.node,
            overlays: &self.overlays,
            key: (&key, project.secrets()),
            epoch: self.manifest.epoch,
        };
        Disk::new(&owner, &self.root, sizes, store)
    }
}
