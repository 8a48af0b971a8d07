//! Installs packages into a tree: unpacks them natively, lets emulation run only their scripts, in
//! a sandbox, and makes the result the same every time.
//! Must not know: archives and locks, overlays, nodes.
//! Spec: Debian policy chapters 6 and 7; design.md section 6.

mod certificates;
mod database;
mod error;
mod hwdb;
mod lay;
mod normalise;
mod order;
mod plan;
pub mod sandbox;
mod seed;
mod templates;
mod triggers;
mod units;
mod unpack;

use std::path::PathBuf;

use crate::digest::Digest;
use crate::io::progress::{Progress, Unit};
use crate::store::Store;
use crate::tree::{Time, Tree};

pub use error::InstallError;
pub use seed::{Seed, SeedGroup, SeedUser};

/// The time of an entry that a script changed, until `normalise` gives it the epoch: earlier than
/// any file's.
pub(crate) const CHANGED: Time = Time { sec: i64::MIN, nsec: 0 };

/// A package file that was verified and lies on this machine.
#[derive(Debug, Clone)]
pub struct LocalDeb {
    /// The package's name.
    pub name: String,
    /// Its version as Debian writes it.
    pub version: String,
    /// `arm64`, `all`.
    pub architecture: String,
    /// Of the whole file.
    pub sha256: Digest,
    /// Where the file is.
    pub path: PathBuf,
    /// True when every other package may rely on it.
    pub essential: bool,
}

/// What to install, and into what.
#[derive(Debug)]
pub struct Install<'a> {
    /// Takes the files' bytes.
    pub store: &'a Store,
    /// The tree to install into; an empty one for a base.
    pub below: &'a Tree,
    /// All packages, dependencies included, in any order. Those that are in `below` in the same
    /// version are passed over.
    pub debs: &'a [LocalDeb],
    /// Users and groups with fixed ids.
    pub seed: &'a Seed,
    /// Seconds since 1970: no time in the result that the scripts made is later.
    pub epoch: i64,
    /// Debian's name of the target's architecture.
    pub architecture: &'a str,
    /// Where progress is shown.
    pub progress: &'a Progress,
}

/// One script that ran, or a step of the sandbox when `package` is empty.
#[derive(Debug, Clone, Default)]
pub struct ScriptRun {
    /// The package.
    pub package: String,
    /// The script with its arguments.
    pub script: String,
    /// How long it took, in milliseconds.
    pub millis: u64,
    /// Processor time that it used, in milliseconds; 0 for a step.
    pub cpu: u64,
    /// All that it printed.
    pub output: String,
}

/// The tree with all packages configured, and what each script printed and how long it took.
pub fn install(request: &Install) -> Result<(Tree, Vec<ScriptRun>), InstallError> {
    let Install { store, below, progress, .. } = *request;
    let installed = database::read(store, below)?;
    let wanted = not_yet_installed(request.debs, &installed)?;
    let packages = unpack::load_all(store, &wanted, progress)?;
    let ordered: Vec<&unpack::Package> =
        order::order(&packages).into_iter().map(|at| &packages[at]).collect();

    let mut tree = below.clone();
    lay::lay(&mut tree, store, &ordered, &installed)?;
    database::write(&mut tree, store, &ordered, Time::seconds(request.epoch))?;
    templates::shorten(&mut tree, store, &ordered, Time::seconds(request.epoch))?;
    seed::write(&mut tree, store, request.seed, request.epoch)?;

    let spec = plan::plan(request, &tree, &ordered, &installed)?;
    let scripts = spec.jobs.iter().map(|job| u64::from(job.preinst) + u64::from(job.postinst)).sum();
    let task = progress.task("configuring", Unit::Items, Some(scripts));
    let sandbox::Outcome { mut tree, log, calls } = sandbox::run(store, &tree, &spec, &task)?;
    drop(task);
    let time = Time::seconds(request.epoch);
    templates::restore(&mut tree, store, &ordered, time)?;
    units::apply(&mut tree, store, &calls, time)?;
    hwdb::apply(&mut tree, store, &calls, time)?;

    if plan::certificates_are_ours(&tree) {
        certificates::update(&mut tree, store, request.epoch)?;
    }
    normalise::normalise(&mut tree, store, request.epoch)?;
    Ok((tree, log))
}

/// The packages that `below` does not have. Another version there is an error: one lock resolves all
/// layers of a node together, so it cannot come from a lock.
fn not_yet_installed(
    debs: &[LocalDeb],
    installed: &[database::Installed],
) -> Result<Vec<LocalDeb>, InstallError> {
    let mut wanted = Vec::new();
    for deb in debs {
        let same = |i: &&database::Installed| {
            i.name == deb.name && (i.architecture == deb.architecture || i.qualified == i.name)
        };
        match installed.iter().find(same) {
            None => wanted.push(deb.clone()),
            Some(old) if old.version == deb.version => {}
            Some(old) => {
                let (package, found, wanted) = (deb.name.clone(), old.version.clone(), deb.version.clone());
                return Err(InstallError::Upgrade { package, found, wanted });
            }
        }
    }
    Ok(wanted)
}

#[cfg(test)]
mod tests;
