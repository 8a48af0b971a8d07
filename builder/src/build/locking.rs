//! What a lock must hold for this cluster, and the rule of when it is made anew.
//! Must not know: how anything is resolved or fetched.
//! Spec: design.md section 6: as cargo does.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::Context;

use crate::base::fetch::Fetcher;
use crate::base::fit::{Locked, Misfit};
use crate::base::lock;
use crate::base::mirror::Mirrors;
use crate::base::nearby::Nearby;
use crate::base::resolve::{self, Renew, Request};
use crate::base::root_apt::Ground;
use crate::base::{Base, Want, Wanted, WantedArtifact, WantedSet, artifact};
use crate::hint::Hint;
use crate::io::progress::Progress;
use crate::overlay::{self, Description};
use crate::store::Store;

use super::import;

/// How a lock is come by.
#[derive(Debug, Clone, Copy)]
pub struct Options<'a> {
    /// The folder of bases and locks.
    pub images: &'a Path,
    /// The store, which an image is imported into to see what packages it has.
    pub store: &'a Store,
    /// The cache of downloads.
    pub cache: &'a Path,
    /// Where upstream files are looked for before upstream.
    pub nearby: &'a Nearby,
    /// A lock that does not fit is an error.
    pub locked: bool,
    /// No mirror is asked.
    pub offline: bool,
    /// Artifacts that cannot be had are left out.
    pub keep_going: bool,
    /// What is renewed although the lock fits.
    pub renew: Renew,
}

/// A lock that fits the description, and what was done to have it.
#[derive(Debug)]
pub struct Found {
    /// The base that it is of.
    pub base: Base,
    /// The lock.
    pub lock: lock::Lock,
    /// What moved.
    pub changes: Vec<String>,
    /// Artifacts that could not be had.
    pub missing: Vec<String>,
}

/// All package sets of the nodes that have this base.
pub fn wanted_sets(base: &str, description: &Description) -> Vec<WantedSet> {
    let mut sets: BTreeMap<String, Vec<Want>> = BTreeMap::new();
    for node in description.cluster.nodes.iter().filter(|n| n.base.as_str() == base) {
        let overlays = description.overlays.expand_node(node);
        sets.entry(node.package_set()).or_insert_with(|| {
            let packages = overlays.iter().flat_map(|o| &o.packages);
            let wants =
                packages.map(|p| (p.value.to_string(), p.place.to_string())).collect::<BTreeMap<_, _>>();
            wants.into_iter().map(|(package, origin)| Want { package, origin }).collect()
        });
    }
    sets.into_iter().map(|(name, wants)| WantedSet { name, wants }).collect()
}

/// All artifacts of the overlays that these nodes have, without those that are made here.
pub fn wanted_artifacts(base: &str, description: &Description) -> Vec<WantedArtifact> {
    let nodes = description.cluster.nodes.iter().filter(|n| n.base.as_str() == base);
    let artifacts = nodes.flat_map(|n| description.overlays.expand_node(n)).flat_map(|o| &o.artifacts);
    let by_name: BTreeMap<String, WantedArtifact> =
        artifacts.filter_map(wanted_artifact).map(|wanted| (wanted.name.clone(), wanted)).collect();
    by_name.into_values().collect()
}

/// An overlay's artifact as the base's modules know it. `None` for a file that is made here: it is the overlay's
/// own, as those in `files/` are, so it is neither locked nor fetched.
pub fn wanted_artifact(a: &overlay::Artifact) -> Option<WantedArtifact> {
    let source = match &a.origin {
        overlay::Origin::Local { .. } => return None,
        overlay::Origin::Url(url) => artifact::Origin::Url(url.clone()),
        overlay::Origin::Wheel { package, version, platform } => artifact::Origin::Wheel(artifact::Wheel {
            package: package.clone(),
            version: version.clone(),
            platform: platform.clone(),
        }),
    };
    Some(WantedArtifact {
        name: a.name.to_string(),
        source,
        sha256: a.sha256,
        size: a.size,
        licence: a.licence.clone(),
        origin: a.place.to_string(),
    })
}

/// Gives a lock of `base` that fits, making it anew where that is allowed and needed.
pub fn lock(
    base: &str,
    description: &Description,
    options: &Options,
    progress: &Progress,
) -> anyhow::Result<Found> {
    let file = options.images.join(format!("{base}.toml"));
    let base = Base::load(&file).with_context(|| format!("reading the base `{base}`"))?;
    let path = options.images.join(format!("{}.lock", base.name));
    let sets = wanted_sets(&base.name, description);
    let artifacts = wanted_artifacts(&base.name, description);
    let wanted = Wanted { base: &base, sets: &sets, artifacts: &artifacts };
    let old = lock::Lock::read(&path)?;
    if options.locked {
        let Some(old) = old else {
            return Err(anyhow::anyhow!(
                "there is no `{}`, and `--locked` forbids a new one",
                path.display()
            )
            .context(Hint(format!("run `gt-image lock --base {}`", base.name))));
        };
        let lock = Locked::new(old, &wanted).map_err(|misfits| unfit(&path, &base, &misfits))?;
        return Ok(Found { lock: lock.lock().clone(), base, changes: Vec::new(), missing: Vec::new() });
    }
    let mut request = Request {
        wanted,
        ground: None,
        cache: options.cache,
        nearby: options.nearby,
        old: old.as_ref(),
        renew: options.renew,
        keep_going: options.keep_going,
        offline: options.offline,
        progress,
    };
    let ground = if request.kept().is_none() { ground(&base, options, progress)? } else { None };
    request.ground = ground.as_ref();
    let outcome = resolve::lock(&request).map_err(|e| {
        let hint = Hint(e.hint().to_owned());
        anyhow::Error::new(e).context(hint).context(format!("locking the base `{}`", base.name))
    })?;
    if outcome.lock.write(&path)? {
        progress.say(&format!("wrote `{}`", path.display()));
        // A first lock would list every package there is.
        if old.is_some() {
            outcome.changes.iter().for_each(|line| progress.say(&format!("  {line}")));
        }
    }
    let missing = outcome.missing.iter().map(ToString::to_string).collect();
    Ok(Found { base, lock: outcome.lock, changes: outcome.changes, missing })
}

/// What the packages of a base are resolved on.
fn ground(base: &Base, options: &Options, progress: &Progress) -> anyhow::Result<Option<Ground>> {
    if let Some(apt) = base.apt() {
        return Ok(Some(Ground { apt: apt.clone(), status: Vec::new() }));
    }
    let Some(image) = base.image() else { return Ok(None) };
    let fetcher =
        Fetcher::new(options.cache, Mirrors::default(), options.offline, progress).near(options.nearby);
    let imported = import::import(base, &image.pinned, &fetcher, options.store, progress)
        .with_context(|| format!("looking at the packages of the base `{}`", base.name))?;
    import::ground(base, &options.store.tree(&imported.root)?, options.store)
}

fn unfit(path: &Path, base: &Base, misfits: &[Misfit]) -> anyhow::Error {
    let lines: Vec<String> = misfits.iter().map(ToString::to_string).collect();
    anyhow::anyhow!("{}", lines.join("\n"))
        .context(Hint(format!("run `gt-image lock --base {}`", base.name)))
        .context(format!("`{}` does not fit, and `--locked` forbids a new one", path.display()))
}
