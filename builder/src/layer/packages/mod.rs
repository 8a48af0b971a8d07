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
mod upgrade;

use std::collections::BTreeMap;
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
    /// version are passed over; one in another version is upgraded.
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
    let wanted = not_yet_installed(request.debs, &installed);
    let packages = unpack::load_all(store, &wanted, progress)?;
    let ordered: Vec<&unpack::Package> =
        order::order(&packages).into_iter().map(|at| &packages[at]).collect();

    let mut tree = below.clone();
    let mut upgrades = Upgrades::new();
    for package in &ordered {
        let old =
            installed.iter().find(|old| old.is_there && old.is_of(&package.name, &package.architecture));
        if let Some(old) = old {
            upgrades.insert(old.qualified.clone(), upgrade::begin(&mut tree, store, package, old)?);
        }
    }
    lay::lay(&mut tree, store, &ordered, &installed)?;
    upgrades.values().try_for_each(|upgrade| upgrade::finish(&mut tree, upgrade))?;
    database::write(&mut tree, store, &ordered, Time::seconds(request.epoch))?;
    templates::shorten(&mut tree, store, &ordered, Time::seconds(request.epoch))?;
    seed::write(&mut tree, store, request.seed, request.epoch)?;

    let spec = plan::plan(request, &tree, &ordered, &installed, &upgrades)?;
    let scripts = spec.jobs.iter().map(|job| u64::from(job.preinst) + u64::from(job.postinst)).sum();
    let task = progress.task("configuring", Unit::Items, Some(scripts));
    let sandbox::Outcome { mut tree, log, calls } = sandbox::run(store, &tree, &spec, &task)?;
    drop(task);
    let time = Time::seconds(request.epoch);
    templates::restore(&mut tree, store, &ordered, time)?;
    units::apply(&mut tree, store, &calls, time)?;
    hwdb::apply(&mut tree, store, &calls, time)?;

    // Those of an imported root are as its own maker left them, unless there are new ones.
    if plan::certificates_are_ours(&tree) && certificates::have_changed(below, &tree)? {
        certificates::update(&mut tree, store, request.epoch)?;
    }
    normalise::normalise(&mut tree, below, store, request.epoch)?;
    Ok((tree, log))
}

/// Upgrades by the qualified name of what was below.
type Upgrades = BTreeMap<String, upgrade::Upgrade>;

/// The packages that `below` does not have, or has in another version.
fn not_yet_installed(debs: &[LocalDeb], installed: &[database::Installed]) -> Vec<LocalDeb> {
    let same = |deb: &&LocalDeb| {
        let there = |old: &database::Installed| {
            old.is_there && old.is_of(&deb.name, &deb.architecture) && old.version == deb.version
        };
        !installed.iter().any(there)
    };
    debs.iter().filter(same).cloned().collect()
}

#[cfg(test)]
mod tests;
