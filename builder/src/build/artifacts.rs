//! All artifacts of a description that are pinned, with the nodes that use them.
//! Must not know: how files are had, how lists are shown.
//! Spec: docs/artifacts.md.

use anyhow::Context;

use crate::base::lock;
use crate::base::resolve;
use crate::overlay::{Description, Overlay};

use super::locking;

/// One artifact.
#[derive(Debug, Clone)]
pub struct Used<'a> {
    /// What must be had, as a lock has it.
    pub artifact: lock::Artifact,
    /// For people.
    pub version: Option<String>,
    /// The overlay that states it.
    pub overlay: &'a Overlay,
    /// The nodes that have the overlay, in the order of the description.
    pub nodes: Vec<String>,
}

/// Every pinned artifact of every overlay, by name; also of overlays that no node has. Overlays pin their
/// artifacts, so no lock is needed to know them. What is made here is none: nobody has it to bring.
pub fn used(description: &Description) -> anyhow::Result<Vec<Used<'_>>> {
    let nodes: Vec<(String, Vec<&Overlay>)> = description
        .cluster
        .nodes
        .iter()
        .map(|node| (node.name.to_string(), description.overlays.expand_node(node)))
        .collect();
    let mut all = Vec::new();
    for overlay in description.overlays.iter() {
        let has = |(_, overlays): &&(String, Vec<&Overlay>)| overlays.iter().any(|o| o.name == overlay.name);
        let nodes: Vec<String> = nodes.iter().filter(has).map(|(name, _)| name.clone()).collect();
        for stated in &overlay.artifacts {
            let Some(wanted) = locking::wanted_artifact(stated) else { continue };
            let artifact = resolve::stated(&wanted)?
                .with_context(|| format!("artifact `{}` has no digest", stated.name))?;
            all.push(Used { artifact, version: stated.version.clone(), overlay, nodes: nodes.clone() });
        }
    }
    all.sort_by(|a, b| a.artifact.name.cmp(&b.artifact.name));
    Ok(all)
}
