//! Upstream files: pinned bases, artifacts by URL, wheels, and files that were put there by hand.
//! Must not know: overlays, archives of packages.
//! Spec: design.md sections 5 and 11 (what a missing artifact is told with).

use std::fs;
use std::io;
use std::path::PathBuf;

use super::artifact::{Origin, PipError, url_filename};
use super::fetch::{Failure, FetchError, Fetcher, Item, MissingArtifact, wrap};
use super::lock::Artifact;
use super::part::{digest_of, place};
use super::{Location, Pinned};
use crate::digest::Digest;
use crate::io::progress::Unit;

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

impl Fetcher {
    /// Has a base's pinned file; gives its path. A file of this machine is checked where it is.
    pub fn pinned(&self, name: &str, pinned: &Pinned) -> Result<PathBuf, FetchError> {
        let url = match &pinned.location {
            Location::Url(url) => url.clone(),
            Location::Path(path) => {
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

    /// Has a locked artifact; gives its path. A file that was put by hand under its name into
    /// [`Fetcher::hand_folder`] is taken where its digest is right.
    pub fn artifact(&self, artifact: &Artifact) -> Result<PathBuf, FetchError> {
        let Artifact { name, filename, source, .. } = artifact;
        let (sha256, size) = (Some(artifact.sha256), Some(artifact.size));
        Ok(self.upstream(&Upstream { name, filename, source, sha256, size })?.path)
    }

    /// Has an upstream file from the cache, from someone's hand, or from the network.
    pub(super) fn upstream(&self, file: &Upstream<'_>) -> Result<Had, FetchError> {
        let name = file.name.to_owned();
        let mut item =
            Item { name, sha256: file.sha256, size: file.size, urls: Vec::new(), path: self.hand_folder() };
        if let Some(sha256) = file.sha256.filter(|_| !file.filename.is_empty()) {
            item.path = self.artifact_path(&sha256);
            if self.cached(&item)? {
                let size = fs::metadata(&item.path).map_err(wrap(&item.path))?.len();
                return Ok(Had { path: item.path, filename: file.filename.into(), sha256, size });
            }
        }
        // Before the network: whoever put it there has a reason.
        if let Some(found) = self.by_hand(file)? {
            return Ok(found);
        }
        if self.offline {
            return Err(self.missing(file, "`--offline` is set and the cache has it not".into()));
        }
        let had = match file.source {
            Origin::Url(url) => {
                item.urls.push(url.clone());
                let task = self.progress.task(&format!("fetching {}", file.name), Unit::Bytes, file.size);
                self.fetch(&item, &task).map(|(path, sha256, size)| Had {
                    path,
                    filename: file.filename.into(),
                    sha256,
                    size,
                })
            }
            Origin::Wheel(_) => self.wheel(file),
        };
        had.map_err(|failure| match failure {
            Failure::Gone => self.missing(file, "it is gone".into()),
            Failure::Unreachable { reason, .. } => self.missing(file, reason),
            Failure::Digest { found, .. } => self.missing(file, format!("it has other bytes ({found})")),
            Failure::Io(error) => error,
        })
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
            reason,
        }))
    }

    pub(super) fn artifact_path(&self, sha256: &Digest) -> PathBuf {
        let hex = sha256.hex();
        self.hand_folder().join(&hex[..2]).join(hex)
    }

    /// A file that someone put into the folder: by its name, or a wheel by its package and version.
    fn by_hand(&self, file: &Upstream<'_>) -> Result<Option<Had>, FetchError> {
        let folder = self.hand_folder();
        let mut names: Vec<_> =
            fs::read_dir(&folder).into_iter().flatten().flatten().map(|e| e.file_name()).collect();
        names.sort();
        for name in names {
            let fits = match file.source {
                Origin::Wheel(wheel) => wheel.names(&name),
                Origin::Url(_) => name == file.filename,
            };
            let path = folder.join(&name);
            let Some(name) = name.to_str().filter(|_| fits && path.is_file()) else { continue };
            let (sha256, size) = digest_of(&path).map_err(wrap(&path))?;
            if file.sha256.is_none_or(|d| d == sha256) {
                return Ok(Some(Had { path, filename: name.to_owned(), sha256, size }));
            }
            self.progress.say(&format!("`{}` is left alone: {sha256} is not what is wanted", path.display()));
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
