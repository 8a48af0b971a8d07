//! Whether a lock holds what is wanted now, and the type of one that does.
//! Must not know: how locks are made, stored or mended.
//! Spec: design.md section 6; style.md habit 9: what moved is a line that names who wants it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use super::lock::{Artifact, BASE_SET, Lock};
use super::{Apt, Want, Wanted, WantedArtifact};

/// One way in which a lock does not hold what is wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Misfit {
    /// It is the lock of another base.
    Base {
        /// The base that it is for.
        locked: String,
    },
    /// The base names other suites now.
    Suites,
    /// The base is another image now, or leaves other archives of it out.
    Image,
    /// No set has this name.
    Set {
        /// The set.
        set: String,
    },
    /// A package is wanted that the set was not resolved with.
    Package {
        /// The package.
        package: String,
        /// Who wants it.
        origin: String,
    },
    /// A package was resolved into the set that nothing wants any more.
    Surplus {
        /// The package.
        package: String,
        /// The set.
        set: String,
    },
    /// A package that the base excludes is locked.
    Excluded {
        /// The package.
        package: String,
    },
    /// An artifact is wanted that the lock has not, or has from elsewhere or with other bytes.
    Artifact {
        /// The artifact.
        name: String,
        /// Who wants it.
        origin: String,
    },
}

impl fmt::Display for Misfit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Misfit::Base { locked } => write!(f, "the lock is for the base `{locked}`"),
            Misfit::Suites => write!(f, "the base names other suites than the lock"),
            Misfit::Image => write!(f, "the base is another image, or has other archives, than the lock"),
            Misfit::Set { set } => write!(f, "the lock has no package set `{set}`"),
            Misfit::Package { package, origin } => {
                write!(f, "{origin}: package `{package}` is wanted, the lock has none")
            }
            Misfit::Surplus { package, set } => {
                write!(f, "package `{package}` is locked for `{set}`, but nothing wants it")
            }
            Misfit::Excluded { package } => {
                write!(f, "package `{package}` is locked, but the base excludes it")
            }
            Misfit::Artifact { name, origin } => {
                write!(f, "{origin}: artifact `{name}` is wanted, the lock has none or another one")
            }
        }
    }
}

impl Lock {
    /// Whether the lock holds all that is wanted and nothing that would not be. Sets and artifacts
    /// that are not asked for are no misfit: one lock serves many calls.
    pub fn fits(&self, wanted: &Wanted<'_>) -> Result<(), Vec<Misfit>> {
        let mut misfits = Vec::new();
        if self.base != wanted.base.name {
            misfits.push(Misfit::Base { locked: self.base.clone() });
        }
        let (base, image) = (wanted.base, wanted.base.image());
        // An image's suites are written in the image, so its digest answers for them.
        if image.is_none() && self.suites != base.apt().map(Apt::suite_lines).unwrap_or_default() {
            misfits.push(Misfit::Suites);
        }
        let without = image.map(|image| image.without.as_slice()).unwrap_or_default();
        if self.image != image.map(|image| image.pinned.sha256) || self.without != without {
            misfits.push(Misfit::Image);
        }
        // Locked before it was excluded.
        let excluded = base.exclude().iter().filter(|p| self.package(p).is_some());
        misfits.extend(excluded.map(|p| Misfit::Excluded { package: p.clone() }));
        self.fit_set(BASE_SET, base.packages(), &mut misfits);
        for set in wanted.sets {
            self.fit_set(&set.name, &set.wants, &mut misfits);
        }
        for artifact in wanted.artifacts {
            let fits = self.artifact(&artifact.name).is_some_and(|locked| locked.fits(artifact));
            if !fits {
                let (name, origin) = (artifact.name.clone(), artifact.origin.clone());
                misfits.push(Misfit::Artifact { name, origin });
            }
        }
        if misfits.is_empty() { Ok(()) } else { Err(misfits) }
    }

    fn fit_set(&self, name: &str, wants: &[Want], misfits: &mut Vec<Misfit>) {
        let Some(set) = self.set(name) else {
            // A set that wants nothing needs no entry.
            if !wants.is_empty() {
                misfits.push(Misfit::Set { set: name.to_owned() });
            }
            return;
        };
        let wanted: BTreeMap<&str, &str> =
            wants.iter().map(|w| (w.package.as_str(), w.origin.as_str())).collect();
        let locked: BTreeSet<&str> = set.wants.iter().map(String::as_str).collect();
        for (package, origin) in wanted.iter().filter(|(p, _)| !locked.contains(*p)) {
            misfits.push(Misfit::Package { package: (*package).into(), origin: (*origin).into() });
        }
        for package in locked.iter().filter(|p| !wanted.contains_key(*p)) {
            misfits.push(Misfit::Surplus { package: (*package).into(), set: name.into() });
        }
    }
}

impl Artifact {
    /// Whether this is what is asked for.
    pub(super) fn fits(&self, wanted: &WantedArtifact) -> bool {
        self.source == wanted.source
            && self.licence == wanted.licence
            && wanted.sha256.is_none_or(|d| d == self.sha256)
            && wanted.size.is_none_or(|s| Some(s) == self.size)
    }
}

/// A lock that was seen to fit what is wanted. Builds take only this.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Locked(Lock);

impl Locked {
    /// Checks that the lock fits.
    pub fn new(lock: Lock, wanted: &Wanted<'_>) -> Result<Locked, Vec<Misfit>> {
        lock.fits(wanted)?;
        Ok(Locked(lock))
    }

    /// The lock.
    pub fn lock(&self) -> &Lock {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{lock, wanted_artifact, wants};
    use super::super::{Base, Source, WantedSet};
    use super::*;
    use crate::digest::Digest;

    fn base() -> Base {
        let file = "images/b.toml".into();
        let source = Source::Apt(super::super::testing::apt(&["apt"]));
        Base { name: "b".into(), file, ids: BTreeMap::new(), groups: BTreeMap::new(), source }
    }

    #[test]
    fn a_lock_that_fits_is_locked() {
        let sets = [WantedSet { name: "worker".into(), wants: wants(&["munge"]) }];
        let artifacts = [wanted_artifact()];
        let (base, lock) = (base(), lock());
        let wanted = Wanted { base: &base, sets: &sets, artifacts: &artifacts };
        assert_eq!(Locked::new(lock.clone(), &wanted).unwrap().lock(), &lock);
    }

    #[test]
    fn every_misfit_is_told() {
        let mut base = base();
        let sets = [
            WantedSet { name: "worker".into(), wants: wants(&["slurmd"]) },
            WantedSet { name: "edge".into(), wants: wants(&["haproxy"]) },
            WantedSet { name: "plain".into(), wants: vec![] },
        ];
        let mut artifact = wanted_artifact();
        artifact.sha256 = Some(Digest::of(b"other"));
        let artifacts = [artifact];
        if let Source::Apt(apt) = &mut base.source {
            apt.suites[0].suite = "forky".into();
            apt.exclude.push("munge".into());
        }
        base.name = "c".into();
        let wanted = Wanted { base: &base, sets: &sets, artifacts: &artifacts };
        let told: Vec<_> = lock().fits(&wanted).unwrap_err().iter().map(ToString::to_string).collect();
        let want = [
            "the lock is for the base `b`",
            "the base names other suites than the lock",
            "package `munge` is locked, but the base excludes it",
            "overlays/x/overlay.toml:1:1: package `slurmd` is wanted, the lock has none",
            "package `munge` is locked for `worker`, but nothing wants it",
            "the lock has no package set `edge`",
            "overlays/consul/overlay.toml:9:1: artifact `consul` is wanted, the lock has none or another one",
        ];
        assert_eq!(told, want);
    }
}
