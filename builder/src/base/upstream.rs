//! Upstream files: pinned bases, artifacts by URL, wheels, and files that were put there by hand.
//! Must not know: overlays, archives of packages.
//! Spec: design.md sections 5 and 11 (what a missing artifact is told with).

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use super::artifact::{Origin, PipError, url_filename};
use super::fetch::{Failure, FetchError, Fetcher, Item, MissingArtifact, Shelf, each, wrap};
use super::lock::Artifact;
use super::part::{digest_of, place};
use super::{Location, Pinned, nearby};
use crate::digest::Digest;
use crate::io::atomic;
use crate::io::progress::Unit;

/// Artifacts fetched at once. They are large, and upstream's hosts are few: more would share one line.
const PARALLEL: usize = 4;

/// A file that was had.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Had {
    pub path: PathBuf,
    /// Its name upstream.
    pub filename: String,
    pub sha256: Digest,
    /// Bytes.
    pub size: u64,
}

/// A file to have; what is not known yet is `None`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Upstream<'a> {
    /// Name for messages.
    pub name: &'a str,
    /// Its name upstream; empty for a wheel that was never had.
    pub filename: &'a str,
    pub source: &'a Origin,
    pub sha256: Option<Digest>,
    /// Bytes.
    pub size: Option<u64>,
}

impl<'a> Upstream<'a> {
    fn locked(artifact: &'a Artifact) -> Upstream<'a> {
        let Artifact { name, filename, source, sha256, size, .. } = artifact;
        let filename = filename.as_deref().unwrap_or_default();
        Upstream { name, filename, source, sha256: Some(*sha256), size: *size }
    }

    /// Whether a file of this name may be it.
    fn names(&self, name: &str) -> bool {
        match self.source {
            Origin::Wheel(wheel) => wheel.names(name),
            Origin::Url(_) => name == self.filename,
        }
    }
}

impl Failure {
    /// Why there is no file, for an error that names the file.
    fn reason(self) -> String {
        match self {
            Failure::Gone => "it is gone".into(),
            Failure::Unreachable { reason, .. } => reason,
            Failure::Digest { found, .. } => format!("it has other bytes ({found})"),
            Failure::Io(error) => error.to_string(),
        }
    }
}

impl Fetcher {
    /// Has a base's pinned file; gives its path. A file of this machine is checked where it is; when it is not
    /// there, the cache may have it.
    pub fn pinned(&self, name: &str, pinned: &Pinned) -> Result<PathBuf, FetchError> {
        let url = match &pinned.location {
            Location::Url(url) => url.clone(),
            Location::Path(path) => {
                let filename = path.file_name().unwrap_or_default().to_string_lossy();
                let source = &Origin::Url(format!("file://{}", path.display()));
                let sha256 = Some(pinned.sha256);
                let carried = Upstream { name, filename: &filename, source, sha256, size: None };
                if !path.exists()
                    && let Some(had) = self.here(&carried)?
                {
                    return Ok(had.path);
                }
                let found = digest_of(path).map_err(wrap(path))?.0;
                return if found == pinned.sha256 {
                    Ok(path.clone())
                } else {
                    let (url, found) = (path.display().to_string(), found.to_string());
                    Err(FetchError::Digest { url, wanted: pinned.sha256, found })
                };
            }
        };
        let filename = url_filename(&url).unwrap_or_else(|| pinned.sha256.hex());
        let (filename, source, sha256) = (filename.as_str(), &Origin::Url(url), Some(pinned.sha256));
        Ok(self.upstream(&Upstream { name, filename, source, sha256, size: None })?.path)
    }

    /// Has a locked artifact; gives its path. A file that was put by hand into one of
    /// [`Fetcher::folders`] is taken where its digest is right.
    pub fn artifact(&self, artifact: &Artifact) -> Result<PathBuf, FetchError> {
        let file = Upstream::locked(artifact);
        let had = self.upstream(&file)?;
        match artifact.size {
            Some(stated) if stated != had.size => {
                let found = had.size;
                let reason =
                    format!("its digest is right, but it has {found} bytes and `size` states {stated}");
                Err(self.missing(&file, reason))
            }
            _ => Ok(had.path),
        }
    }

    /// Has several locked artifacts, some at a time; each result is at the place of its artifact.
    pub fn artifacts(&self, artifacts: &[&Artifact]) -> Vec<Result<PathBuf, FetchError>> {
        each(artifacts, PARALLEL, |artifact| self.artifact(artifact))
    }

    /// The same until one cannot be had; `None` for those that were not asked for after that.
    pub fn artifacts_or_stop(&self, artifacts: &[&Artifact]) -> Vec<Option<Result<PathBuf, FetchError>>> {
        let stop = AtomicBool::new(false);
        each(artifacts, PARALLEL, |artifact| {
            if stop.load(Ordering::Relaxed) {
                return None;
            }
            let had = self.artifact(artifact);
            stop.fetch_or(had.is_err(), Ordering::Relaxed);
            Some(had)
        })
    }

    /// Where a locked artifact is without asking anybody: in the cache, or put somewhere by hand.
    pub fn at_hand(&self, artifact: &Artifact) -> Result<Option<PathBuf>, FetchError> {
        let file = Upstream::locked(artifact);
        Ok(self.here(&file)?.filter(|had| artifact.size.is_none_or(|s| s == had.size)).map(|had| had.path))
    }

    /// Puts a file into the cache by its digest, which is taken anew from the bytes that arrive there.
    /// The file itself stays as it is.
    pub fn import(&self, from: &Path, sha256: &Digest, shelf: Shelf) -> Result<PathBuf, FetchError> {
        let mut input = fs::File::open(from).map_err(wrap(from))?;
        self.import_bytes(from, &mut input, sha256, shelf)
    }

    /// The same from anywhere; `from` names it in errors.
    pub fn import_bytes(
        &self,
        from: &Path,
        bytes: &mut dyn io::Read,
        sha256: &Digest,
        shelf: Shelf,
    ) -> Result<PathBuf, FetchError> {
        let to = self.shelved(shelf, sha256);
        let parts = self.cache.join("parts");
        fs::create_dir_all(&parts).map_err(wrap(&parts))?;
        let mut copy = atomic::begin_in(&parts, "import-").map_err(wrap(&parts))?;
        io::copy(bytes, &mut copy).map_err(wrap(from))?;
        let (found, _) = digest_of(copy.path()).map_err(wrap(copy.path()))?;
        if found != *sha256 {
            let (url, found) = (from.display().to_string(), found.to_string());
            return Err(FetchError::Digest { url, wanted: *sha256, found });
        }
        place(copy.path(), &to)?;
        Ok(to)
    }

    /// The cached file or the one that was put there by hand.
    fn here(&self, file: &Upstream<'_>) -> Result<Option<Had>, FetchError> {
        if let Some(sha256) = file.sha256 {
            let item = self.item(file);
            if self.cached(&item)? {
                let size = fs::metadata(&item.path).map_err(wrap(&item.path))?.len();
                return Ok(Some(Had { path: item.path, filename: file.filename.into(), sha256, size }));
            }
        }
        self.by_hand(file)
    }

    fn item(&self, file: &Upstream<'_>) -> Item {
        let path = file.sha256.map_or_else(|| self.hand_folder(), |sha256| self.artifact_path(&sha256));
        Item { name: file.name.to_owned(), sha256: file.sha256, size: file.size, urls: Vec::new(), path }
    }

    /// Has an upstream file from the cache, from someone's hand, or from the network.
    pub(super) fn upstream(&self, file: &Upstream<'_>) -> Result<Had, FetchError> {
        // Before the network: whoever put it there has a reason.
        if let Some(found) = self.here(file)? {
            return Ok(found);
        }
        if self.offline {
            return Err(self.missing(file, "`--offline` is set and the cache has it not".into()));
        }
        match file.source {
            Origin::Url(url) => self.first_of(&self.nearby.urls(url), file),
            Origin::Wheel(_) => self.wheel(file).map_err(|failure| match failure {
                Failure::Io(error) => error,
                failure => self.missing(file, failure.reason()),
            }),
        }
    }

    /// The file from the first address that has the right bytes. When none has, each says why.
    fn first_of(&self, urls: &[String], file: &Upstream<'_>) -> Result<Had, FetchError> {
        let task = self.progress.task(&format!("fetching {}", file.name), Unit::Bytes, file.size);
        let mut reasons = Vec::new();
        for url in urls {
            let item = Item { urls: vec![url.clone()], ..self.item(file) };
            match self.fetch(&item, &task) {
                Ok((path, sha256, size)) => {
                    return Ok(Had { path, filename: file.filename.into(), sha256, size });
                }
                Err(Failure::Io(error)) => return Err(error),
                Err(failure) if urls.len() == 1 => reasons.push(failure.reason()),
                Err(failure) => reasons.push(format!("`{url}`: {}", failure.reason())),
            }
        }
        Err(self.missing(file, reasons.join("; ")))
    }

    fn missing(&self, file: &Upstream<'_>, reason: String) -> FetchError {
        let filename = match file.source {
            Origin::Wheel(wheel) if file.filename.is_empty() => wheel.pattern(),
            _ => file.filename.to_owned(),
        };
        FetchError::Artifact(Box::new(MissingArtifact {
            name: file.name.to_owned(),
            filename,
            from: file.source.to_string(),
            sha256: file.sha256,
            folder: self.hand_folder(),
            reason: match self.nearby.folder() {
                Some(folder) if !folder.is_dir() => {
                    format!("{reason}; the folder `{}` of `[artifacts]` is not there", folder.display())
                }
                _ => reason,
            },
        }))
    }

    pub(super) fn artifact_path(&self, sha256: &Digest) -> PathBuf {
        let hex = sha256.hex();
        self.hand_folder().join(&hex[..2]).join(hex)
    }

    /// Where files are looked for that were put there by hand.
    pub fn folders(&self) -> Vec<PathBuf> {
        [Some(self.hand_folder()), self.nearby.folder().map(Path::to_owned)].into_iter().flatten().collect()
    }

    /// A file that someone put into a folder: by the folder's list of digests, by its name, or a wheel by
    /// its package and version.
    fn by_hand(&self, file: &Upstream<'_>) -> Result<Option<Had>, FetchError> {
        for folder in self.folders() {
            let mut names: Vec<String> = fs::read_dir(&folder)
                .into_iter()
                .flatten()
                .flatten()
                .filter_map(|entry| entry.file_name().into_string().ok())
                .filter(|name| file.names(name))
                .collect();
            names.sort();
            let listed = file.sha256.map(|sha256| nearby::listed(&folder, &sha256)).unwrap_or_default();
            names.retain(|name| !listed.contains(name));
            for name in listed.into_iter().chain(names) {
                let path = folder.join(&name);
                if !path.is_file() {
                    continue;
                }
                let (sha256, size) = digest_of(&path).map_err(wrap(&path))?;
                if file.sha256.is_none_or(|d| d == sha256) {
                    return Ok(Some(Had { path, filename: name, sha256, size }));
                }
                let shown = path.display();
                self.progress.say(&format!("`{shown}` is left alone: {sha256} is not what is wanted"));
            }
        }
        Ok(None)
    }

    fn wheel(&self, file: &Upstream<'_>) -> Result<Had, Failure> {
        let Origin::Wheel(wheel) = file.source else { return Err(Failure::Gone) };
        let parts = self.cache.join("parts");
        let io = |e: io::Error| Failure::Io(wrap(&parts)(e));
        fs::create_dir_all(&parts).map_err(io)?;
        let folder = tempfile::tempdir_in(&parts).map_err(io)?;
        let url = file.source.to_string();
        let given = wheel.download(folder.path()).map_err(|e| match e {
            PipError::Io(e) => io(e),
            e => Failure::Unreachable { url: url.clone(), reason: e.to_string() },
        })?;
        let (sha256, size) = digest_of(&given).map_err(io)?;
        if file.sha256.is_some_and(|d| d != sha256) {
            return Err(Failure::Digest { url, found: sha256.to_string() });
        }
        let path = self.artifact_path(&sha256);
        place(&given, &path).map_err(Failure::Io)?;
        let filename = given.file_name().unwrap_or_default().to_string_lossy().into_owned();
        Ok(Had { path, filename, sha256, size })
    }
}
