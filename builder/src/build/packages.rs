//! Package layers: the base's packages, and those of each set of roles on top, each made once and
//! then found in the store.
//! Must not know: nodes, overlays' files, images.
//! Spec: design.md section 6.

use anyhow::Context;

use crate::base::fetch::Fetcher;
use crate::base::lock::{BASE_SET, Lock, Package};
use crate::base::{Apt, Base};
use crate::digest::{Digest, Key};
use crate::io::progress::Progress;
use crate::kmod;
use crate::layer::packages::{Install, LocalDeb, Seed, install};
use crate::store::Store;
use crate::tree::{Meta, Time, Tree, TreePath, dump};

/// Raised when the same packages give other trees: every cached package layer is made anew.
const RECIPE: &str = "package layer 1";

/// What package layers are made with.
#[derive(Clone, Copy)]
pub struct Maker<'a> {
    /// Where layers are found and kept.
    pub store: &'a Store,
    /// Where packages come from.
    pub fetcher: &'a Fetcher,
    /// What is installed.
    pub lock: &'a Lock,
    /// The base's own settings.
    pub base: &'a Base,
    /// Its archive.
    pub apt: &'a Apt,
    /// Where progress is shown.
    pub progress: &'a Progress,
    /// Shows what package scripts print.
    pub verbose: bool,
}

impl Maker<'_> {
    /// The tree with the base's packages.
    pub fn base(&self, seed: &Seed) -> anyhow::Result<Digest> {
        let empty = Tree::new(Meta::root_owned(0o755, Time::seconds(self.epoch())));
        let digest = dump::digest(&empty);
        self.layer(&digest, || Ok(empty), BASE_SET, seed).context("making the base layer")
    }

    /// The tree with a set's packages over that of the base.
    pub fn set(&self, base: &Digest, name: &str, seed: &Seed) -> anyhow::Result<Digest> {
        if self.lock.packages_of(name).is_empty() {
            return Ok(*base);
        }
        self.layer(base, || Ok(self.store.tree(base)?), name, seed)
            .with_context(|| format!("making the package layer of `{name}`"))
    }

    /// The newest time in any tree: that of the archive's state when it was locked.
    pub fn epoch(&self) -> i64 {
        // Seconds since 1970 fit until the sun burns out.
        i64::try_from(self.lock.epoch).unwrap_or(i64::MAX)
    }

    /// `digest` is that of the tree that `below` reads, which a layer that is there already does not
    /// need.
    fn layer(
        &self,
        digest: &Digest,
        below: impl FnOnce() -> anyhow::Result<Tree>,
        set: &str,
        seed: &Seed,
    ) -> anyhow::Result<Digest> {
        let packages = self.lock.packages_of(set);
        let key = self.key(digest, &packages, seed);
        if let Some(found) = self.store.layer(&key)? {
            return Ok(found);
        }
        let below = below()?;
        let files = self.fetcher.packages(&packages, self.lock.epoch)?;
        let debs: Vec<LocalDeb> = packages
            .iter()
            .zip(files)
            .map(|(p, path)| LocalDeb {
                name: p.name.clone(),
                version: p.version.clone(),
                architecture: p.architecture.clone(),
                sha256: p.sha256,
                path,
                essential: p.essential,
            })
            .collect();
        let (mut tree, log) = install(&Install {
            store: self.store,
            below: &below,
            debs: &debs,
            seed,
            epoch: self.epoch(),
            architecture: &self.apt.architecture,
            progress: self.progress,
        })?;
        if self.verbose {
            for run in &log {
                let seconds = run.millis as f64 / 1000.0;
                self.progress.say(&format!(
                    "{} {}: {seconds:.1} s\n{}",
                    run.package,
                    run.script,
                    run.output.trim_end()
                ));
            }
        }
        for version in new_kernels(&below, &tree)? {
            kmod::depmod(&mut tree, self.store, &version, self.epoch()).context("indexing kernel modules")?;
        }
        let digest = self.store.put_tree(&tree)?;
        self.store.put_layer(&key, &digest)?;
        Ok(digest)
    }

    fn key(&self, below: &Digest, packages: &[&Package], seed: &Seed) -> Digest {
        let mut key = Key::new(RECIPE)
            .with(below.bytes())
            .with(&self.epoch().to_le_bytes())
            .with(self.apt.architecture.as_bytes())
            .with(&seed.to_bytes());
        for package in packages {
            key = key
                .with(package.name.as_bytes())
                .with(package.sha256.bytes())
                .with(&[u8::from(package.essential)]);
        }
        key.finish()
    }
}

/// Kernels whose modules are not those of the tree below, so that their indexes must be made.
fn new_kernels(below: &Tree, tree: &Tree) -> anyhow::Result<Vec<String>> {
    let modules = TreePath::new("usr/lib/modules")?;
    let mut found = Vec::new();
    for (path, _, _) in tree.children(&modules) {
        let kernel = path.join("kernel")?;
        let same =
            below.below(&kernel).map(|(p, _, i)| (p, i)).eq(tree.below(&kernel).map(|(p, _, i)| (p, i)));
        if tree.get(&kernel).is_some() && !same {
            found.push(String::from_utf8_lossy(path.name()).into_owned());
        }
    }
    Ok(found)
}
