//! A build: which steps, in which order, and what need not be done again.
//! Must not know: file formats, protocols; every step is a module of its own.
//! Spec: design.md sections 2, 6, 11 and 13.

pub mod artifacts;
mod assemble;
mod base;
pub mod boot;
pub mod disk;
pub mod image;
pub mod import;
pub mod locking;
pub mod node;
mod output;
pub mod packages;
pub mod ram;
pub mod secrets;
pub mod xattrs;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use anyhow::Context;
use schemars::JsonSchema;
use serde::Serialize;

use crate::cluster::Node;
use crate::io::progress::Progress;
use crate::layer::identity::ClusterKey;
use crate::manifest::Missing;
use crate::overlay::Description;
use crate::store::Store;

/// Nodes that are built at once at most: each has trees of some 20 MB, and all of a build is to stay
/// below 300 MB.
const AT_ONCE: usize = 4;

/// What to build, and how.
pub struct Request<'a> {
    /// The whole description.
    pub description: &'a Description,
    /// The nodes, in order.
    pub nodes: Vec<&'a Node>,
    /// How locks are come by, and where files are.
    pub locking: locking::Options<'a>,
    /// The open store.
    pub store: &'a Store,
    /// The cluster key and its folder.
    pub key: (&'a ClusterKey, &'a Path),
    /// Where images go: `<out>/<node>/`; `None` for generations only.
    pub out: Option<&'a Path>,
    /// `disk.img` in place of `disk.img.zst`.
    pub raw: bool,
    /// Where progress is shown.
    pub progress: &'a Progress,
    /// Shows what package scripts print.
    pub verbose: bool,
}

/// What a build did.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct Report {
    /// One row a node, in the order of the description.
    pub nodes: Vec<Built>,
    /// What moved in locks, one line each.
    pub lock_changes: Vec<String>,
    /// How long it took.
    pub seconds: f64,
}

/// What was built of one node.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct Built {
    /// The node.
    pub node: String,
    /// The generation's digest.
    pub generation: String,
    /// Digest of the root tree.
    pub root: String,
    /// Digest of the boot tree.
    pub boot: String,
    /// The disk image, when one was asked for.
    pub image: Option<PathBuf>,
    /// Whether the image was there already, from the same inputs.
    pub unchanged: bool,
    /// Bytes of the image that are no holes; 0 when none was written.
    pub mapped_bytes: u64,
    /// What was left out.
    pub incomplete: Vec<Missing>,
    /// What will not work, or needs attention.
    pub warnings: Vec<String>,
    /// How long this node took, shared layers aside.
    pub seconds: f64,
}

/// Builds all nodes of the request: first what they share, then each by itself, several at once.
pub fn build(request: &Request) -> anyhow::Result<Report> {
    let begun = Instant::now();
    let mut lock_changes = Vec::new();
    let mut bases = BTreeMap::new();
    for node in &request.nodes {
        let name = node.base.as_str();
        if !bases.contains_key(name) {
            bases.insert(name, base::prepare(name, request, &mut lock_changes)?);
        }
    }
    let writing = Mutex::new(());
    let nodes = several(&request.nodes, |node| {
        let base = bases.get(node.base.as_str()).context("a node without its base")?;
        let one = assemble::Build { request, node, base, writing: &writing };
        one.run().with_context(|| format!("building node `{}`", node.name))
    })?;
    Ok(Report { nodes, lock_changes, seconds: begun.elapsed().as_secs_f64() })
}

/// `work` on each item, on several threads; results in the order of the items. After an error nothing
/// new is begun, and the first item's error is the one that is told.
fn several<T: Sync, R: Send>(
    items: &[T],
    work: impl Fn(&T) -> anyhow::Result<R> + Sync,
) -> anyhow::Result<Vec<R>> {
    let threads = std::thread::available_parallelism().map_or(1, |n| n.get()).min(AT_ONCE).min(items.len());
    let next = AtomicUsize::new(0);
    let failed = AtomicUsize::new(usize::MAX);
    let take = || {
        let mut done = Vec::new();
        loop {
            let index = next.fetch_add(1, Ordering::Relaxed);
            let Some(item) = items.get(index) else { return done };
            if failed.load(Ordering::Relaxed) < index {
                return done;
            }
            let result = work(item);
            if result.is_err() {
                failed.fetch_min(index, Ordering::Relaxed);
            }
            done.push((index, result));
        }
    };
    let mut done: Vec<(usize, anyhow::Result<R>)> = std::thread::scope(|scope| {
        let running: Vec<_> = (0..threads).map(|_| scope.spawn(take)).collect();
        running
            .into_iter()
            .flat_map(|thread| thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
            .collect()
    });
    done.sort_by_key(|(index, _)| *index);
    done.into_iter().map(|(_, result)| result).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn several_keep_their_order_and_tell_the_first_error() {
        let items: Vec<usize> = (0..100).collect();
        assert_eq!(several(&items, |n| Ok(n * 2)).unwrap(), items.iter().map(|n| n * 2).collect::<Vec<_>>());
        assert!(several::<u8, u8>(&[], |_| anyhow::bail!("never called")).unwrap().is_empty());
        let error = several(&items, |n| if *n >= 3 { anyhow::bail!("{n}") } else { Ok(()) }).unwrap_err();
        assert_eq!(error.to_string(), "3");
    }
}
