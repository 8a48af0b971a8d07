//! What the nodes of one base share: the lock, package layers, artifacts.
//! Must not know: a node's own files, boot files, disks.
//! Spec: design.md sections 2 and 6.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context;

use crate::base::fetch::{FetchError, Fetcher};
use crate::base::lock::Lock;
use crate::base::mirror::Mirrors;
use crate::base::resolve::Renew;
use crate::base::{Base, Location, Pinned, Source};
use crate::boot::kernel::{self, Kernel};
use crate::cluster::Node;
use crate::digest::Digest;
use crate::hint::Hint;
use crate::layer;
use crate::layer::packages::{Seed, SeedGroup, SeedUser};
use crate::manifest::Missing;
use crate::overlay::{Artifact, Origin, Overlay};
use crate::tree::diff::{Change, diff};
use crate::tree::{Meta, Object, Time, Tree};

use super::assemble::packages_epoch;
use super::node::extracts;
use super::{Request, import, locking, packages};

/// A base with its lock, and all that its nodes share.
pub struct PreparedBase {
    /// The base.
    pub base: Base,
    /// What it is resolved to.
    pub lock: Lock,
    /// What the base brings for the boot partition.
    pub boot: Tree,
    /// The kernels that are on it.
    pub kernels: Vec<Kernel>,
    /// The busybox of the initramfs, where it is not the root's own.
    pub busybox: Option<Object>,
    /// What nodes of each package set begin with, by [`Node::package_set`].
    pub sets: BTreeMap<String, Set>,
    /// Artifacts that were asked for: the file, or why it cannot be had. Not here is what is in the store,
    /// unpacked.
    pub artifacts: BTreeMap<String, Result<PathBuf, Missing>>,
}

/// What nodes of one package set begin with.
pub struct Set {
    /// Digest of the tree.
    pub digest: Digest,
    /// The base, with the set's packages.
    pub tree: Arc<Tree>,
    /// What differs from the base as it was imported; nothing for one that was not.
    pub changes: Vec<Change>,
}

/// Makes or finds all that the nodes of the base `name` share.
pub fn prepare(name: &str, request: &Request, changes: &mut Vec<String>) -> anyhow::Result<PreparedBase> {
    let mut options = request.locking;
    // Twice at most: a locked package that has left every mirror is resolved anew once.
    loop {
        let found = locking::lock(name, request.description, &options, request.progress)?;
        changes.extend(found.changes.iter().cloned());
        match try_prepare(found.base, found.lock, request) {
            Err(e) if options.renew != Renew::Packages && is_gone(&e) => {
                if request.locking.locked || request.locking.offline {
                    return Err(e.context(Hint(format!("run `gt-image lock --base {name}`"))));
                }
                request.progress.say("a locked package has left every mirror: resolving anew");
                options.renew = Renew::Packages;
            }
            done => return done,
        }
    }
}

fn is_gone(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| matches!(cause.downcast_ref(), Some(FetchError::Gone { .. })))
}

fn try_prepare(base: Base, lock: Lock, request: &Request) -> anyhow::Result<PreparedBase> {
    let Request { store, progress, locking, .. } = *request;
    let fetcher =
        |mirrors| Fetcher::new(locking.cache, mirrors, locking.offline, progress).near(locking.nearby);
    let nodes: Vec<&Node> =
        request.nodes.iter().copied().filter(|node| node.base.as_str() == base.name).collect();
    let imported = match base.pinned() {
        Some(pinned) => {
            let trees = import::import(&base, pinned, &fetcher(Mirrors::default()), store, progress)?;
            Some((trees.root, store.tree(&trees.root)?, store.tree(&trees.boot)?))
        }
        None => None,
    };
    let apt = match (&base.source, &imported) {
        (Source::Apt(apt), _) => Some(apt.clone()),
        // What is not locked is not asked for.
        (_, Some((_, root, _))) if !lock.packages.is_empty() => {
            import::ground(&base, root, store)?.map(|ground| ground.apt)
        }
        _ => None,
    };
    let mirrors = match &apt {
        Some(apt) => Mirrors::of(apt).context("finding the archive's mirrors")?,
        None => Mirrors::default(),
    };
    let fetcher = fetcher(mirrors);
    let maker = packages::Maker {
        store,
        fetcher: &fetcher,
        lock: &lock,
        architecture: apt.as_ref().map_or("all", |apt| apt.architecture.as_str()),
        progress,
        verbose: request.verbose,
    };
    let root = maker.base(imported.as_ref().map(|(digest, ..)| *digest), &base_seed(&base))?;
    let below = imported.as_ref().map(|(digest, tree, _)| (digest, tree));
    let sets = package_sets(&maker, root, below, &nodes, request)?;
    let (boot, kernels) = match imported {
        Some((_, root, boot)) => {
            let kernels = kernel::on_boot(&boot, &root, store).context("looking at the base's kernels")?;
            (boot, kernels)
        }
        None => (Tree::new(Meta::root_owned(0o755, Time::default())), Vec::new()),
    };
    let busybox = maker.busybox()?;
    let artifacts = artifacts(&nodes, request, &lock, &fetcher)?;
    Ok(PreparedBase { base, lock, boot, kernels, busybox, sets, artifacts })
}

/// The layer of each set of roles.
fn package_sets(
    maker: &packages::Maker,
    root: Digest,
    imported: Option<(&Digest, &Tree)>,
    nodes: &[&Node],
    request: &Request,
) -> anyhow::Result<BTreeMap<String, Set>> {
    let mut digests = BTreeMap::new();
    for node in nodes {
        if let Entry::Vacant(set) = digests.entry(node.package_set()) {
            let overlays = request.description.overlays.expand_node(node);
            let digest = maker.set(&root, set.key(), &set_seed(&overlays))?;
            set.insert(digest);
        }
    }
    let digests: Vec<(String, Digest)> = digests.into_iter().collect();
    let sets = super::several(&digests, |(_, digest)| {
        let tree = Arc::new(request.store.tree(digest)?);
        let other = imported.filter(|(imported, _)| *imported != digest);
        let changes = other.map(|(_, imported)| diff(imported, &tree)).unwrap_or_default();
        Ok(Set { digest: *digest, tree, changes })
    })?;
    Ok(digests.into_iter().map(|(name, _)| name).zip(sets).collect())
}

/// All artifacts that the nodes' overlays want and that are not unpacked yet: those that are made here, and
/// the others fetched at the same time.
fn artifacts(
    nodes: &[&Node],
    request: &Request,
    lock: &Lock,
    fetcher: &Fetcher,
) -> anyhow::Result<BTreeMap<String, Result<PathBuf, Missing>>> {
    let overlays = nodes.iter().flat_map(|node| request.description.overlays.expand_node(node));
    let mut wanted: BTreeMap<&str, (&Overlay, &Artifact)> =
        overlays.flat_map(|o| o.artifacts.iter().map(move |a| (a.name.as_str(), (o, a)))).collect();
    let epoch = packages_epoch(lock);
    let mut needed = BTreeSet::new();
    for (name, (_, artifact)) in &wanted {
        let stored = match &artifact.sha256 {
            Some(sha256) => layer::artifact::is_stored(sha256, &extracts(artifact), epoch, request.store)?,
            None => false,
        };
        if !stored {
            needed.insert(*name);
        }
    }
    wanted.retain(|name, _| needed.contains(name));
    let mut had = BTreeMap::new();
    for (name, (overlay, artifact)) in &wanted {
        if let Origin::Local { file, make } = &artifact.origin {
            let wants = || format!("overlay `{}` wants artifact `{name}`", overlay.name);
            let file = made_here(overlay, artifact, (file, make), request, fetcher).with_context(wants)?;
            had.insert((*name).to_owned(), file);
        }
    }
    wanted.retain(|name, _| !had.contains_key(*name));
    let mut locked = Vec::new();
    for name in wanted.keys() {
        locked.push(lock.artifact(name).with_context(|| format!("the lock has no artifact `{name}`"))?);
    }
    let files = fetcher.artifacts(&locked);
    for (((name, (overlay, artifact)), locked), file) in wanted.into_iter().zip(locked).zip(files) {
        let file = match file {
            Ok(file) => Ok(file),
            Err(FetchError::Artifact(_)) if request.locking.keep_going => Err(Missing {
                overlay: overlay.name.to_string(),
                artifact: name.to_owned(),
                source: locked.source.to_string(),
                sha256: artifact.sha256.map(|sha256| sha256.hex()),
            }),
            Err(e) => {
                let hint = Hint(e.hint().to_owned());
                let wants = format!("overlay `{}` wants artifact `{name}`", overlay.name);
                return Err(anyhow::Error::new(e).context(hint).context(wants));
            }
        };
        had.insert(name.to_owned(), file);
    }
    Ok(had)
}

/// A file that is made on this machine, if it was there when the overlays were read.
fn made_here(
    overlay: &Overlay,
    artifact: &Artifact,
    (file, make): (&Path, &str),
    request: &Request,
    fetcher: &Fetcher,
) -> anyhow::Result<Result<PathBuf, Missing>> {
    match artifact.sha256 {
        // Its digest is taken again: it may be made anew while a build runs.
        Some(sha256) => {
            let pinned = Pinned { location: Location::Path(file.to_owned()), sha256 };
            let had = fetcher.pinned(artifact.name.as_str(), &pinned);
            Ok(Ok(had.context(Hint("build again: the file was changed meanwhile".into()))?))
        }
        None if request.locking.keep_going => {
            // By its name alone: where it would be differs from machine to machine, a manifest must not.
            let name = file.file_name().unwrap_or_default().display();
            Ok(Err(Missing {
                overlay: overlay.name.to_string(),
                artifact: artifact.name.to_string(),
                source: format!("{name}, which `{make}` makes"),
                sha256: None,
            }))
        }
        None => {
            let hint = format!("run `{make}`, or use `--keep-going` to leave its overlay out");
            Err(anyhow::anyhow!("`{}` is not there", file.display()).context(Hint(hint)))
        }
    }
}

/// Fixed numbers that the base states for what its packages create.
fn base_seed(base: &Base) -> Seed {
    let user = |(name, id): (&String, &u32)| SeedUser::pinned(name, *id, base.groups.get(name).copied());
    let group = |(name, gid): (&String, &u32)| SeedGroup { name: name.clone(), gid: *gid };
    Seed { users: base.ids.iter().map(user).collect(), groups: base.groups.iter().map(group).collect() }
}

/// Users and groups that overlays fix, written before any script of their packages runs.
fn set_seed(overlays: &[&Overlay]) -> Seed {
    let mut seed = Seed::default();
    let groups = || overlays.iter().flat_map(|o| &o.groups);
    seed.groups.extend(groups().map(|g| SeedGroup { name: g.name.to_string(), gid: g.gid }));
    for user in overlays.iter().flat_map(|o| &o.users) {
        let named = user.group.as_ref().and_then(|name| groups().find(|g| g.name == *name));
        if user.group.is_none() {
            seed.groups.push(SeedGroup { name: user.name.to_string(), gid: user.uid });
        }
        seed.users.push(SeedUser {
            name: user.name.to_string(),
            uid: user.uid,
            gid: named.map_or(user.uid, |g| g.gid),
            home: user.home.clone(),
            shell: user.shell.clone(),
            comment: user.comment.clone(),
        });
    }
    seed
}
