//! Makes a lock: packages as apt resolves them now, artifacts as they are pinned or found.
//! Must not know: nodes, overlays, how files are fetched or apt is run.
//! Spec: design.md section 6.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use super::apt::Root;
use super::apt_error::AptError;
use super::artifact::{Origin, url_filename};
use super::fetch::{FetchError, Fetcher, MissingArtifact, each, threads};
use super::index::{Index, Located};
use super::lock::{Artifact, BASE_SET, INITRAMFS_SET, Lock, Package, Set};
use super::mirror::Mirrors;
use super::nearby::Nearby;
use super::root_apt::{Ground, is_debian};
use super::upstream::Upstream;
use super::{Apt, Want, Wanted, WantedArtifact, changes};
use crate::digest::Digest;
use crate::io::progress::{Progress, Unit};

/// Epoch of a base without an archive: 2025-01-01T00:00:00Z. Not zero, since a board without a clock
/// of its own starts at the newest file time, and certificates are not valid in 1970.
const PLAIN_EPOCH: u64 = 1_735_689_600;

/// The package with a busybox that needs no library, which is most of the initramfs.
pub const BUSYBOX: &str = "busybox-static";

/// What is locked anew although an old lock is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Renew {
    /// Nothing while the old lock fits; else packages are resolved again.
    #[default]
    Unfit,
    /// Packages: some of them are gone from the mirrors.
    Packages,
    /// Packages, and artifacts whose digest no overlay states: `lock --update`.
    All,
}

/// What to lock, and how.
#[derive(Debug, Clone, Copy)]
pub struct Request<'a> {
    /// What the lock must hold.
    pub wanted: Wanted<'a>,
    /// What packages are resolved on; `None` for a base without an archive, and needed only where
    /// [`Request::kept`] gives nothing.
    pub ground: Option<&'a Ground>,
    /// The cache folder.
    pub cache: &'a Path,
    /// Where upstream files are looked for before upstream.
    pub nearby: &'a Nearby,
    /// The lock that there is.
    pub old: Option<&'a Lock>,
    /// What to renew.
    pub renew: Renew,
    /// Lists artifacts that cannot be had, instead of ending with an error.
    pub keep_going: bool,
    /// Asks no mirror.
    pub offline: bool,
    /// Where to show progress.
    pub progress: &'a Progress,
}

/// A new lock.
#[derive(Debug)]
pub struct Outcome {
    /// The lock; the old one where that still fits.
    pub lock: Lock,
    /// Artifacts that could not be had and are not in the lock; only with `keep_going`.
    pub missing: Vec<MissingArtifact>,
    /// What moved, one line each.
    pub changes: Vec<String>,
}

/// No lock could be made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LockError {
    /// Packages could not be resolved.
    #[error(transparent)]
    Apt(#[from] AptError),
    /// An artifact could not be had.
    #[error(transparent)]
    Fetch(#[from] FetchError),
    /// Packages are wanted on a base that has no archive.
    #[error("{origin}: package `{package}` is wanted, but the base `{base}` has no archive")]
    NoArchive {
        /// The package.
        package: String,
        /// Who wants it.
        origin: String,
        /// The base.
        base: String,
    },
    /// Nothing may be asked, and the old lock does not fit.
    #[error("the lock of `{base}` has to be made anew, and `--offline` forbids asking the archive")]
    Offline {
        /// The base.
        base: String,
    },
    /// The file upstream has another size than its overlay states.
    #[error("{origin}: artifact `{name}` is stated with {wanted} bytes and has {found}")]
    Size {
        /// The artifact.
        name: String,
        /// Who wants it.
        origin: String,
        /// Bytes, as stated.
        wanted: u64,
        /// Bytes, as found.
        found: u64,
    },
    /// A URL that does not end in a file name.
    #[error("{origin}: artifact `{name}`: `{url}` does not end in a file name")]
    NoFilename {
        /// The artifact.
        name: String,
        /// Who wants it.
        origin: String,
        /// Its URL.
        url: String,
    },
}

impl LockError {
    /// What the user can do about it.
    pub fn hint(&self) -> &'static str {
        match self {
            LockError::Apt(error) => error.hint(),
            LockError::Fetch(error) => error.hint(),
            LockError::NoArchive { .. } => {
                "use a base with sources of apt: one of kind `apt`, or an image that has some; or take the package out of the overlay"
            }
            LockError::Offline { .. } => "run `gt-image lock` without `--offline`",
            LockError::Size { .. } | LockError::NoFilename { .. } => "correct the artifact in its overlay",
        }
    }
}

impl<'a> Request<'a> {
    /// The old lock, when that fits and is not to be renewed.
    pub fn kept(&self) -> Option<&'a Lock> {
        self.old.filter(|old| self.renew == Renew::Unfit && old.fits(&self.wanted).is_ok())
    }
}

/// Resolves everything to exact bytes. Packages come as the newest that the archive has; artifacts
/// keep the bytes that an overlay states or the old lock pins. What an overlay states is locked as it is
/// stated and not fetched, so that the lock is the same on every network.
pub fn lock(request: &Request<'_>) -> Result<Outcome, LockError> {
    let Request { wanted, old, .. } = request;
    if let Some(old) = request.kept() {
        return Ok(Outcome { lock: old.clone(), missing: Vec::new(), changes: Vec::new() });
    }
    let Resolved { packages, sets, epoch } = match request.ground {
        Some(_) if request.offline => return Err(LockError::Offline { base: wanted.base.name.clone() }),
        Some(ground) => resolve(request, ground)?,
        None => Resolved::plain(wanted)?,
    };
    let (artifacts, missing) = artifacts(request)?;
    let (base, image) = (wanted.base.name.clone(), wanted.base.image());
    let without = image.map(|image| image.without.clone()).unwrap_or_default();
    let image = image.map(|image| image.pinned.sha256);
    let suites = request.ground.map(|ground| ground.apt.suite_lines()).unwrap_or_default();
    let mut lock = Lock { base, image, without, epoch, suites, packages, sets, artifacts }.sorted();
    // A newer Release file that moved nothing of ours must not change every file's time.
    if let Some(old) = old {
        let epoch = std::mem::replace(&mut lock.epoch, old.epoch);
        if lock.to_string() != old.to_string() {
            lock.epoch = epoch;
        }
    }
    let changes = changes::between(*old, &lock);
    Ok(Outcome { lock, missing, changes })
}

struct Resolved {
    packages: Vec<Package>,
    sets: Vec<Set>,
    epoch: u64,
}

impl Resolved {
    fn plain(wanted: &Wanted<'_>) -> Result<Resolved, LockError> {
        match wanted.sets.iter().flat_map(|s| &s.wants).chain(wanted.base.packages()).next() {
            Some(Want { package, origin }) => Err(LockError::NoArchive {
                package: package.clone(),
                origin: origin.clone(),
                base: wanted.base.name.clone(),
            }),
            None => Ok(Resolved { packages: Vec::new(), sets: Vec::new(), epoch: PLAIN_EPOCH }),
        }
    }
}

fn resolve(request: &Request<'_>, ground: &Ground) -> Result<Resolved, LockError> {
    let apt = &ground.apt;
    let mirrors = Mirrors::of(apt).map_err(AptError::from)?;
    let task = request.progress.task("resolving packages", Unit::Items, None);
    task.note("reading the archive's indices");
    let root = Root::open(request.cache, apt)?;
    let index = root.update(ground, &mirrors)?;
    // A system that is there has them.
    let essential = if ground.status.is_empty() { index.essential() } else { Vec::new() };
    let essential = wants_of(essential, "the archive's essential set");
    let [essential_set, base] = resolve_both(&root, &index, &essential, apt)?;
    let essential_names = names(&essential_set);

    let base_names = names(&base);
    let mut sets = vec![set(BASE_SET, &apt.packages, base_names.iter().cloned())];
    let mut all = BTreeMap::new();
    add(&mut all, base, &essential_names);
    if request.wanted.base.image().is_some() {
        // By itself and not into the image: there it would take the place of the `busybox` that Debian's own
        // initramfs needs.
        let wants = wants_of(vec![BUSYBOX.to_owned()], "the initramfs");
        let found = root.newest(&index, INITRAMFS_SET, &wants)?;
        sets.push(set(INITRAMFS_SET, &wants, names(&found).into_iter()));
        add(&mut all, found, &essential_names);
    }
    // A layer of packages is laid over the base's, so a set is the base as it was resolved and more.
    let below = wants_of(base_names.iter().cloned().collect(), "the base");
    let wanted: Vec<_> = request.wanted.sets.iter().filter(|s| !s.wants.is_empty()).collect();
    // One `apt-get` takes 0.6 s of one processor, nearly all of it to read its own cache.
    let found = each(&wanted, threads(), |wanted| {
        task.advance(1);
        root.resolve(&index, &wanted.name, &merge(&below, &wanted.wants))
    });
    for (wanted, found) in wanted.iter().zip(found) {
        let found = found?;
        let own = names(&found).into_iter().filter(|n| !base_names.contains(n));
        sets.push(set(&wanted.name, &wanted.wants, own));
        add(&mut all, found, &essential_names);
    }
    Ok(Resolved { packages: all.into_values().collect(), sets, epoch: index.epoch })
}

/// The essential packages with what they need, and the base, which contains them.
fn resolve_both(
    root: &Root,
    index: &Index,
    essential: &[Want],
    apt: &Apt,
) -> Result<[Vec<Located>; 2], AptError> {
    let base = merge(essential, &apt.packages);
    let jobs = [("essential", essential), (BASE_SET, base.as_slice())];
    let mut found = each(&jobs, threads(), |(set, wants)| root.resolve(index, set, wants)).into_iter();
    let mut next = || found.next().unwrap_or_else(|| Ok(Vec::new()));
    Ok([next()?, next()?])
}

fn set(name: &str, wants: &[Want], packages: impl Iterator<Item = String>) -> Set {
    let wants: BTreeSet<_> = wants.iter().map(|w| w.package.clone()).collect();
    Set { name: name.to_owned(), wants: wants.into_iter().collect(), packages: packages.collect() }
}

fn names(found: &[Located]) -> BTreeSet<String> {
    found.iter().map(|l| l.record.name.clone()).collect()
}

fn wants_of(names: Vec<String>, origin: &str) -> Vec<Want> {
    names.into_iter().map(|package| Want { package, origin: origin.to_owned() }).collect()
}

/// Each package once; the second list's origin is told in errors, as it is the user's.
fn merge(below: &[Want], wants: &[Want]) -> Vec<Want> {
    let merged: BTreeMap<_, _> = below.iter().chain(wants).map(|w| (&w.package, w)).collect();
    merged.into_values().cloned().collect()
}

/// Adds packages that are not there yet. All sets are resolved from the same indices and contain the
/// base, so one name is one version.
fn add(all: &mut BTreeMap<String, Package>, found: Vec<Located>, essential: &BTreeSet<String>) {
    for Located { archive, record } in found {
        let essential = essential.contains(&record.name);
        all.entry(record.name.clone()).or_insert(Package {
            name: record.name,
            version: record.version,
            architecture: record.architecture,
            unarchived: !is_debian(&archive),
            archive,
            path: record.path,
            sha256: record.sha256,
            size: record.size,
            essential,
        });
    }
}

fn artifacts(request: &Request<'_>) -> Result<(Vec<Artifact>, Vec<MissingArtifact>), LockError> {
    let fetcher = Fetcher::new(request.cache, Mirrors::default(), request.offline, request.progress)
        .near(request.nearby);
    let (mut artifacts, mut missing) = (BTreeMap::new(), Vec::new());
    for wanted in request.wanted.artifacts {
        match artifact(request, &fetcher, wanted) {
            Ok(artifact) => _ = artifacts.insert(wanted.name.clone(), artifact),
            Err(LockError::Fetch(FetchError::Artifact(error))) if request.keep_going => {
                missing.push(*error);
            }
            Err(error) => return Err(error),
        }
    }
    Ok((artifacts.into_values().collect(), missing))
}

/// The lock's entry of an artifact whose digest is stated. Nothing but what is stated goes in, also where
/// more is known from a cache or an old lock: the same description gives the same lock everywhere.
pub fn stated(wanted: &WantedArtifact) -> Result<Option<Artifact>, LockError> {
    let Some(sha256) = wanted.sha256 else { return Ok(None) };
    Ok(Some(entry(wanted, filename(wanted)?, sha256, wanted.size)))
}

fn entry(wanted: &WantedArtifact, filename: Option<String>, sha256: Digest, size: Option<u64>) -> Artifact {
    let WantedArtifact { name, source, licence, .. } = wanted.clone();
    Artifact { name, source, filename, sha256, size, licence }
}

/// The name that the file has upstream; a wheel's is only known when one is had.
fn filename(wanted: &WantedArtifact) -> Result<Option<String>, LockError> {
    let Origin::Url(url) = &wanted.source else { return Ok(None) };
    let error = || {
        let WantedArtifact { name, origin, .. } = wanted.clone();
        LockError::NoFilename { name, origin, url: url.clone() }
    };
    url_filename(url).map(Some).ok_or_else(error)
}

fn artifact(
    request: &Request<'_>,
    fetcher: &Fetcher,
    wanted: &WantedArtifact,
) -> Result<Artifact, LockError> {
    if let Some(stated) = stated(wanted)? {
        return Ok(stated);
    }
    let WantedArtifact { name, source, origin, .. } = wanted;
    let named = filename(wanted)?;
    let entry = |filename, sha256, size| entry(wanted, filename, sha256, size);
    let pinned = request.old.and_then(|l| l.artifact(name)).filter(|a| a.source == *source);
    let pinned = pinned.filter(|_| request.renew != Renew::All);
    if let Some(Artifact { filename, sha256, size, .. }) = pinned
        && wanted.size.is_none_or(|stated| Some(stated) == *size)
    {
        return Ok(entry(filename.clone().or(named), *sha256, *size));
    }
    let filename = named.unwrap_or_default();
    let sha256 = pinned.map(|a| a.sha256);
    // A stated size is compared afterwards, so that the message names the overlay.
    let had = fetcher.upstream(&Upstream { name, filename: &filename, source, sha256, size: None })?;
    match wanted.size.filter(|size| *size != had.size) {
        Some(wanted) => {
            Err(LockError::Size { name: name.clone(), origin: origin.clone(), wanted, found: had.size })
        }
        None => Ok(entry(Some(had.filename), had.sha256, Some(had.size))),
    }
}

#[cfg(test)]
mod tests;
