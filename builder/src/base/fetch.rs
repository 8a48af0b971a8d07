//! Verified downloads into the cache: parallel, resumable, each mirror in turn. A file has its final
//! name only after its digest was right, and the digest is checked again at each use.
//! Must not know: apt, overlays, trees.
//! Spec: design.md section 6. Layout: `debs/<2 hex digits>/<sha256>.deb`, `artifacts/<2>/<sha256>`,
//! `parts/` for what is on its way, and `artifacts/<file name>` for files put there by hand.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, OnceLock};
use std::time::Duration;

use super::lock::Package;
use super::mirror::Mirrors;
use super::nearby::Nearby;
use super::part::{Part, Receive, digest_of, place};
use super::transport::{Client, NoReply};
use crate::digest::Digest;
use crate::io::progress::{Progress, Task, Unit};

/// Downloads at once: eight brought 150 MB of 157 packages in 10 to 16 s on two busy cores. Not tuned
/// further, since mirrors are shared with others.
const PARALLEL: usize = 8;
/// Waits before trying the same URL again: 10.5 s in all, about what a mirror takes to reload.
const PAUSES: [Duration; 3] = [Duration::from_millis(500), Duration::from_secs(2), Duration::from_secs(8)];
/// So many bytes in one try count as progress: the waits begin again.
const PROGRESS: u64 = 1 << 20;

/// A file could not be had.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FetchError {
    /// Every mirror answered that it has no such file: the lock is out of date.
    #[error("gone from every mirror: {}", names.join(", "))]
    Gone {
        /// The locked packages, sorted.
        names: Vec<String>,
    },
    /// The bytes are others than locked.
    #[error("`{url}` has other bytes than locked: wanted {wanted}, found {found}")]
    Digest {
        /// Where they came from.
        url: String,
        /// The locked digest.
        wanted: Digest,
        /// What was found: a digest, or a size that is too large.
        found: String,
    },
    /// No mirror gave the file.
    #[error("`{url}` cannot be had: {reason}")]
    Unreachable {
        /// The last URL that was tried.
        url: String,
        /// Why.
        reason: String,
    },
    /// Only the cache may be used, and it has not all.
    #[error("`--offline` is set and the cache has not: {}", names.join(", "))]
    Offline {
        /// What is missing, sorted.
        names: Vec<String>,
    },
    /// An upstream file could not be had.
    #[error(transparent)]
    Artifact(Box<MissingArtifact>),
    /// The cache folder could not be used.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// An upstream file that could not be had, and all that is needed to bring it by hand.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "artifact `{name}`: file `{filename}` from {from}{} cannot be had: {reason}; put it into `{}` by hand",
    sha256.map_or(String::new(), |d| format!(" with {d}")),
    folder.display()
)]
pub struct MissingArtifact {
    /// Name of the artifact.
    pub name: String,
    /// Name that the file must have; for a wheel that was never had, a pattern.
    pub filename: String,
    /// Its URL or wheel.
    pub from: String,
    /// The digest that it must have, where one is known.
    pub sha256: Option<Digest>,
    /// Where to put it.
    pub folder: PathBuf,
    /// Why.
    pub reason: String,
}

impl FetchError {
    /// What the user can do about it.
    pub fn hint(&self) -> &'static str {
        match self {
            FetchError::Gone { .. } => "run `gt-image lock`",
            FetchError::Digest { .. } => "try again later, or name another mirror in the base's file",
            FetchError::Unreachable { .. } => "check the network, or name another mirror in the base's file",
            FetchError::Offline { .. } => "run once without `--offline`",
            FetchError::Artifact(_) => {
                "bring the file by `gt-image artifacts import`, or use `--keep-going` to leave its overlay out"
            }
            FetchError::Io { .. } => "check the cache folder, or name another with `--cache`",
        }
    }
}

pub(super) fn wrap(path: &Path) -> impl FnOnce(io::Error) -> FetchError {
    let path = path.to_owned();
    move |source| FetchError::Io { path, source }
}

/// A part of the cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shelf {
    /// Packages of archives.
    Packages,
    /// Upstream files: artifacts, images, tarballs.
    Artifacts,
}

/// Brings files into a cache folder. Several may use one folder at once, in several processes too.
#[derive(Debug)]
pub struct Fetcher {
    pub(super) cache: PathBuf,
    mirrors: Mirrors,
    client: OnceLock<Client>,
    pub(super) nearby: Nearby,
    pub(super) offline: bool,
    pub(super) progress: Progress,
    pauses: Vec<Duration>,
}

/// One file to have.
#[derive(Debug, Clone)]
pub(super) struct Item {
    /// Name for messages.
    pub(super) name: String,
    pub(super) sha256: Option<Digest>,
    pub(super) size: Option<u64>,
    pub(super) urls: Vec<String>,
    /// Where it is to be; for a file of unknown digest the folder, and the digest gives the name.
    pub(super) path: PathBuf,
}

/// Why one item was not had from its URLs.
#[derive(Debug)]
pub(super) enum Failure {
    Gone,
    Digest { url: String, found: String },
    Unreachable { url: String, reason: String },
    Io(FetchError),
}

impl Fetcher {
    /// A fetcher for a cache folder; with `offline` it takes what the cache has and asks nobody.
    pub fn new(cache: &Path, mirrors: Mirrors, offline: bool, progress: &Progress) -> Fetcher {
        let client = OnceLock::new();
        let (cache, progress) = (cache.to_owned(), progress.clone());
        let nearby = Nearby::default();
        Fetcher { cache, mirrors, client, nearby, offline, progress, pauses: PAUSES.to_vec() }
    }

    /// The same, looking at what the site has before it asks upstream.
    pub fn near(self, nearby: &Nearby) -> Fetcher {
        Fetcher { nearby: nearby.clone(), ..self }
    }

    fn client(&self) -> &Client {
        self.client.get_or_init(|| Client::new(self.mirrors.host().proxy.as_deref()))
    }

    /// Where a package's file is once it is had.
    pub fn package_path(&self, sha256: &Digest) -> PathBuf {
        let hex = sha256.hex();
        self.cache.join("debs").join(&hex[..2]).join(format!("{hex}.deb"))
    }

    /// Where a file of this digest is once it is had.
    pub(super) fn shelved(&self, shelf: Shelf, sha256: &Digest) -> PathBuf {
        match shelf {
            Shelf::Packages => self.package_path(sha256),
            Shelf::Artifacts => self.artifact_path(sha256),
        }
    }

    /// Where a locked package is without asking anybody.
    pub fn package_at_hand(&self, package: &Package) -> Result<Option<PathBuf>, FetchError> {
        let item = self.package_item(package, Vec::new());
        Ok(self.cached(&item)?.then_some(item.path))
    }

    fn package_item(&self, p: &Package, urls: Vec<String>) -> Item {
        let path = self.package_path(&p.sha256);
        Item { name: p.name.clone(), sha256: Some(p.sha256), size: Some(p.size), urls, path }
    }

    /// Where files of unknown place can be put by hand.
    pub fn hand_folder(&self) -> PathBuf {
        self.cache.join("artifacts")
    }

    /// Has all packages in the cache, verified; gives their files in the same order. `epoch` is the
    /// lock's. [`FetchError::Gone`] names all that are gone, and comes only when nothing else is
    /// wrong.
    pub fn packages(&self, packages: &[&Package], epoch: u64) -> Result<Vec<PathBuf>, FetchError> {
        let items: Vec<Item> = packages
            .iter()
            .map(|p| self.package_item(p, self.mirrors.urls(&p.archive, &p.path, epoch)))
            .collect();
        let missing: Vec<Item> = each(&items, PARALLEL.min(threads()), |item| {
            self.cached(item).map(|c| (!c).then(|| item.clone()))
        })
        .into_iter()
        .filter_map(Result::transpose)
        .collect::<Result<_, _>>()?;
        if !missing.is_empty() {
            self.fetch_all(&missing)?;
        }
        Ok(items.into_iter().map(|i| i.path).collect())
    }

    fn fetch_all(&self, items: &[Item]) -> Result<(), FetchError> {
        let names = |items: &mut dyn Iterator<Item = &Item>| {
            let mut names: Vec<_> = items.map(|i| i.name.clone()).collect();
            names.sort();
            names
        };
        if self.offline {
            return Err(FetchError::Offline { names: names(&mut items.iter()) });
        }
        let total = items.iter().filter_map(|i| i.size).sum();
        let task = self.progress.task("fetching packages", Unit::Bytes, Some(total));
        // The first mirror that is dead is dead for all: the rest need not wait for it too.
        let stop = AtomicBool::new(false);
        let results = each(items, PARALLEL, |item| {
            if stop.load(Ordering::Relaxed) {
                return None;
            }
            let failure = self.fetch(item, &task).err();
            stop.fetch_or(!matches!(failure, None | Some(Failure::Gone)), Ordering::Relaxed);
            failure
        });
        let mut gone = Vec::new();
        for (item, failure) in items.iter().zip(results) {
            match failure.map(|f| item.error(f)) {
                None => {}
                Some(None) => gone.push(item),
                Some(Some(error)) => return Err(error),
            }
        }
        if gone.is_empty() { Ok(()) } else { Err(FetchError::Gone { names: names(&mut gone.into_iter()) }) }
    }

    /// Whether the cache has the file with the right bytes. One with wrong bytes is removed: a disk
    /// that lost power may have left it empty.
    pub(super) fn cached(&self, item: &Item) -> Result<bool, FetchError> {
        match digest_of(&item.path) {
            Ok((found, _)) if Some(found) == item.sha256 => Ok(true),
            // It cannot be had again now, and a look at it may tell what happened.
            Ok(_) if self.offline => Ok(false),
            Ok(_) => match fs::remove_file(&item.path) {
                Err(e) if e.kind() != io::ErrorKind::NotFound => Err(wrap(&item.path)(e)),
                _ => Ok(false),
            },
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(e) => Err(wrap(&item.path)(e)),
        }
    }

    /// Downloads one file from the first URL that has the right bytes.
    pub(super) fn fetch(&self, item: &Item, task: &Task) -> Result<(PathBuf, Digest, u64), Failure> {
        let key = item.sha256.unwrap_or_else(|| Digest::of(item.urls.concat().as_bytes()));
        let path = self.cache.join("parts").join(format!("{}.part", key.hex()));
        let mut part = Part::open(&path, &item.path, item.sha256).map_err(Failure::Io)?;
        if let Some((digest, size)) = part.done {
            return Ok((item.path.clone(), digest, size));
        }
        let mut failure = Failure::Gone;
        for url in &item.urls {
            match self.fetch_from(url, item, &mut part, task) {
                Ok((digest, size)) => {
                    let to =
                        if item.sha256.is_some() { item.path.clone() } else { self.artifact_path(&digest) };
                    // No sync before the rename: bytes are checked at each use.
                    place(&path, &to).map_err(Failure::Io)?;
                    return Ok((to, digest, size));
                }
                Err(e @ Failure::Io(_)) => return Err(e),
                // A mirror that has not the file tells less than one that has another or is dead.
                Err(Failure::Gone) => {}
                Err(e) => failure = e,
            }
        }
        Err(failure)
    }

    /// One URL, with retries; what has come stays in the part file, for the next URL too.
    fn fetch_from(
        &self,
        url: &str,
        item: &Item,
        part: &mut Part,
        task: &Task,
    ) -> Result<(Digest, u64), Failure> {
        let mut pauses = self.pauses.iter();
        loop {
            // Others may have found out meanwhile.
            if let Some(reason) = self.nearby.down(url) {
                return Err(Failure::Unreachable { url: url.to_owned(), reason });
            }
            let (begun, resumed) = (part.len, part.len > 0);
            let mut unconnected = false;
            let reason = match part.receive(self.client(), url, item.size, task) {
                Ok((digest, size)) if item.sha256.is_none_or(|d| d == digest) => return Ok((digest, size)),
                Ok((digest, _)) => {
                    part.restart().map_err(Failure::Io)?;
                    // What was resumed may have begun with bytes of another file.
                    if resumed {
                        continue;
                    }
                    return Err(Failure::Digest { url: url.to_owned(), found: digest.to_string() });
                }
                Err(Receive::TooLong(limit)) => {
                    part.restart().map_err(Failure::Io)?;
                    return Err(Failure::Digest {
                        url: url.to_owned(),
                        found: format!("more than {limit} bytes"),
                    });
                }
                Err(Receive::Io(error)) => return Err(Failure::Io(error)),
                Err(Receive::No(NoReply::Gone)) => return Err(Failure::Gone),
                Err(Receive::No(NoReply::Refused(reason))) => {
                    return Err(Failure::Unreachable { url: url.to_owned(), reason });
                }
                Err(Receive::No(NoReply::Nowhere(reason))) => {
                    self.nearby.note_down(url, &reason);
                    return Err(Failure::Unreachable { url: url.to_owned(), reason });
                }
                Err(Receive::No(NoReply::Unconnected(reason))) => {
                    unconnected = true;
                    reason
                }
                Err(Receive::No(NoReply::Range)) => {
                    part.restart().map_err(Failure::Io)?;
                    "the answer has no such range".to_owned()
                }
                Err(Receive::No(NoReply::Transient(reason))) => reason,
            };
            // A line that breaks now and then still brings a large file home.
            if part.len.saturating_sub(begun) >= PROGRESS {
                pauses = self.pauses.iter();
            }
            match pauses.next() {
                Some(pause) => std::thread::sleep(*pause),
                None => {
                    if unconnected {
                        self.nearby.note_down(url, &reason);
                    }
                    return Err(Failure::Unreachable { url: url.to_owned(), reason });
                }
            }
        }
    }
}

impl Item {
    /// The error of a failure; `None` when the file is gone, as those are told together.
    fn error(&self, failure: Failure) -> Option<FetchError> {
        match failure {
            Failure::Gone => None,
            Failure::Io(error) => Some(error),
            Failure::Unreachable { url, reason } => Some(FetchError::Unreachable { url, reason }),
            Failure::Digest { url, found } => {
                let wanted = self.sha256.unwrap_or_else(|| Digest::of(b""));
                Some(FetchError::Digest { url, wanted, found })
            }
        }
    }
}

/// As many workers as there are processors for work that needs one each.
pub(super) fn threads() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// Does `work` for each item on some threads; results are in the order of the items.
pub(super) fn each<T: Sync, R: Send>(items: &[T], threads: usize, work: impl Fn(&T) -> R + Sync) -> Vec<R> {
    let next = AtomicUsize::new(0);
    let results = Mutex::new(Vec::with_capacity(items.len()));
    std::thread::scope(|scope| {
        for _ in 0..threads.min(items.len()) {
            scope.spawn(|| {
                loop {
                    let at = next.fetch_add(1, Ordering::Relaxed);
                    let Some(item) = items.get(at) else { break };
                    let result = work(item);
                    // A poisoned lock means that another worker panicked, which the scope passes on.
                    results.lock().unwrap_or_else(|e| e.into_inner()).push((at, result));
                }
            });
        }
    });
    let mut results = results.into_inner().unwrap_or_else(|e| e.into_inner());
    results.sort_by_key(|(at, _)| *at);
    results.into_iter().map(|(_, r)| r).collect()
}

#[cfg(test)]
mod tests;
