//! One node's root tree: the package layer, then overlays and artifacts in order, then the node's
//! own files.
//! Must not know: packages, boot files, disks.
//! Spec: design.md sections 2, 5 and 7.

use std::collections::BTreeMap;
use std::path::PathBuf;

use anyhow::Context;

use super::base::Set;
use super::xattrs;
use crate::base::firstboot;
use crate::cluster::Node;
use crate::digest::{Digest, Key};
use crate::layer::artifact::{self, Extract};
use crate::layer::leak;
use crate::layer::overlay::{Context as Values, node_files, render};
use crate::manifest;
use crate::origin::Origins;
use crate::overlay::{self, Description, Overlay};
use crate::store::Store;
use crate::tree::diff::Change;
use crate::tree::layer::Layer;
use crate::tree::{Tree, TreePath};

/// What a root is made of.
pub struct Parts<'a> {
    /// The whole description.
    pub description: &'a Description,
    /// The node.
    pub node: &'a Node,
    /// Its overlays in order, without those that are left out.
    pub overlays: &'a [&'a Overlay],
    /// Files of artifacts whose layers the store has not, by name.
    pub artifacts: &'a BTreeMap<String, PathBuf>,
    /// The base is an official image, whose first boot is not to happen.
    pub official: bool,
    /// Time of all that is made here.
    pub epoch: i64,
}

/// A node's root.
pub struct Root {
    /// The tree.
    pub tree: Tree,
    /// Which layer gave what.
    pub origins: Origins,
    /// The overlays with their digests.
    pub overlays: Vec<manifest::Overlay>,
}

/// Lays everything over what the node's package set gives.
pub fn root(parts: &Parts, set: &Set, store: &Store) -> anyhow::Result<Root> {
    let Description { cluster, overlays } = parts.description;
    let values = Values::new(cluster, overlays, parts.node);
    let tree = Tree::clone(&set.tree);
    let mut made = Root { tree, origins: Origins::default(), overlays: Vec::new() };
    for change in &set.changes {
        // Which package has the path is in dpkg's own lists; what scripts made and changed is not.
        let origin = "the packages of the node's overlays, or their scripts";
        match change {
            Change::Removed(path) => made.origins.note_removed(path, origin),
            Change::Added(path) | Change::Changed(path, _) => made.origins.note(path, origin),
        }
    }
    let name = parts.node.name.as_str();
    if parts.official {
        let layer = firstboot::layer(&made.tree, store).context("switching off the image's first boot")?;
        merge(&mut made, &layer, "gt-image: what the image does at its first boot, switched off")?;
    }
    for overlay in parts.overlays {
        let layer = render(overlay, &values, &made.tree, store, parts.epoch)?;
        let mut key = Key::new("overlay 1").with(layer_digest(&layer).bytes());
        let merging = || format!("merging overlay `{}` into node `{name}`", overlay.name);
        leak::check(&layer, store).with_context(merging)?;
        merge(&mut made, &layer, &format!("overlay {}", overlay.name)).with_context(merging)?;
        for artifact in &overlay.artifacts {
            let wanted = extracts(artifact);
            let taking = || format!("taking artifact `{}` for overlay `{}`", artifact.name, overlay.name);
            let sha256 = artifact.sha256.as_ref().context("its file is not here").with_context(taking)?;
            let layer = match artifact::stored(sha256, &wanted, parts.epoch, store).with_context(taking)? {
                Some(layer) => layer,
                None => {
                    let file = parts.artifacts.get(artifact.name.as_str()).context("its file is not here")?;
                    artifact::make(file, sha256, &wanted, parts.epoch, store).with_context(taking)?
                }
            };
            key = key.with(layer_digest(&layer).bytes());
            let origin = format!("artifact {} of overlay {}", artifact.name, overlay.name);
            merge(&mut made, &layer, &origin).with_context(taking)?;
        }
        let digest = key.finish().to_string();
        made.overlays.push(manifest::Overlay { name: overlay.name.to_string(), digest });
    }
    let layer = node_files(parts.overlays, &values, &made.tree, store, parts.epoch)?;
    let laying = || format!("laying the own files of node `{name}`");
    merge(&mut made, &layer, "node").with_context(laying)?;
    // Last, because it has a copy of what all others gave.
    if let Some(layer) = xattrs::layer(&made.tree, store, parts.epoch).with_context(laying)? {
        merge(&mut made, &layer, "node").with_context(laying)?;
    }
    Ok(made)
}

fn merge(made: &mut Root, layer: &Layer, origin: &str) -> anyhow::Result<()> {
    let at = |tree: &Tree, path: &TreePath| tree.resolve(path, false).unwrap_or_else(|| path.clone());
    for path in layer.whiteouts() {
        let at = at(&made.tree, path);
        made.origins.note_removed(&at, origin);
    }
    // A directory that only holds others is the layer's where there was none.
    let here = |path: &TreePath| made.tree.get(&at(&made.tree, path)).is_some();
    let given = layer.tree().iter().map(|(path, _, _)| path);
    let given: Vec<&TreePath> = given.filter(|path| !layer.is_implied(path) || !here(path)).collect();
    layer.merge_onto(&mut made.tree)?;
    for path in given {
        let at = at(&made.tree, path);
        made.origins.note(&at, origin);
    }
    Ok(())
}

/// What an overlay wants of an artifact.
pub fn extracts(artifact: &overlay::Artifact) -> Vec<Extract> {
    let extract = |e: &overlay::Extract| Extract {
        from: e.from.clone(),
        to: e.to.tree().clone(),
        mode: e.mode.map(|mode| mode.bits()),
    };
    artifact.extract.iter().map(extract).collect()
}

/// What a layer adds and takes away.
fn layer_digest(layer: &Layer) -> Digest {
    let mut key = Key::new("layer 1").with(crate::tree::dump::digest(layer.tree()).bytes());
    for path in layer.whiteouts() {
        key = key.with(path.as_bytes());
    }
    key.finish()
}
