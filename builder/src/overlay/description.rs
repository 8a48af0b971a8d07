//! The whole description: `cluster.toml` and the overlays beside it, checked against each other.
//! Must not know: bases, locks, trees.
//! Spec: design.md sections 4 and 5.

use std::path::Path;

use super::{Overlays, node};
use crate::cluster::{self, Cluster};
use crate::diagnostic::Report;

/// A description without a single finding.
#[derive(Clone, Debug)]
pub struct Description {
    /// Nodes, network, users.
    pub cluster: Cluster,
    /// All overlays.
    pub overlays: Overlays,
}

impl Description {
    /// Reads `cluster.toml` and `overlays/` beside it. Every problem of every file is in the one
    /// report that is the error.
    pub fn load(cluster_toml: &Path) -> Result<Description, Report> {
        let mut report = Report::new();
        let folder = cluster_toml.parent().unwrap_or(Path::new("")).join("overlays");
        let overlays = Overlays::load(&folder, &mut report);
        let cluster = cluster::load(cluster_toml, &overlays.names(), &mut report);
        if let Some(cluster) = &cluster {
            node::check(cluster, &overlays, &mut report);
        }
        match cluster {
            Some(cluster) => report.finish(Description { cluster, overlays }),
            None => Err(report),
        }
    }
}
