//! Package layers: the base's packages, and those of each set of roles on top, each made once and
//! then found in the store.
//! Must not know: nodes, overlays' files, images.
//! Spec: design.md section 6.

use anyhow::Context;

use crate::archive::deb;
use crate::base::fetch::Fetcher;
use crate::base::lock::{BASE_SET, INITRAMFS_SET, Lock, Package};
use crate::base::resolve::BUSYBOX;
use crate::digest::{Digest, Key};
use crate::initramfs;
use crate::io::progress::Progress;
use crate::kmod;
use crate::layer::packages::{Install, LocalDeb, Seed, install};
use crate::store::Store;
use crate::tree::{Meta, Object, Time, Tree, TreePath, dump};

/// Raised when the same packages give other trees: every cached package layer is made anew.
const RECIPE: &str = "package layer 2";

/// What package layers are made with.
#[derive(Clone, Copy)]
pub struct Maker<'a> {
    /// Where layers are found and kept.
    pub store: &'a Store,
    /// Where packages come from.
    pub fetcher: &'a Fetcher,
    /// What is installed.
    pub lock: &'a Lock,
    /// Debian's name of the architecture.
    pub architecture: &'a str,
    /// Where progress is shown.
    pub progress: &'a Progress,
    /// Shows what package scripts print.
    pub verbose: bool,
}

impl Maker<'_> {
    /// The tree with the base's packages, over what was imported, or over nothing.
    pub fn base(&self, imported: Option<Digest>, seed: &Seed) -> anyhow::Result<Digest> {
        if let Some(imported) = imported {
            return self.set(&imported, BASE_SET, seed);
        }
        let empty = Tree::new(Meta::root_owned(0o755, Time::seconds(self.epoch())));
        let digest = dump::digest(&empty);
        self.layer(&digest, || Ok(empty), BASE_SET, seed).context("making the base layer")
    }

    /// The tree with a set's packages over another.
    pub fn set(&self, below: &Digest, name: &str, seed: &Seed) -> anyhow::Result<Digest> {
        if self.lock.packages_of(name).is_empty() {
            return Ok(*below);
        }
        self.layer(below, || Ok(self.store.tree(below)?), name, seed)
            .with_context(|| format!("making the package layer of `{name}`"))
    }

    /// The busybox that is locked for the initramfs alone, taken out of its package once.
    pub fn busybox(&self) -> anyhow::Result<Option<Object>> {
        let packages = self.lock.packages_of(INITRAMFS_SET);
        let Some(package) = packages.iter().find(|p| p.name == BUSYBOX) else { return Ok(None) };
        let key = Key::new("busybox 1").with(package.sha256.bytes()).finish();
        let tree = match self.store.layer(&key)? {
            Some(found) => self.store.tree(&found)?,
            None => {
                let files = self.fetcher.packages(&[package], self.lock.epoch)?;
                let file = files.first().context("a package without its file")?;
                let tree = deb::read(file, self.store).context("unpacking a busybox")?.data.tree().clone();
                self.store.put_layer(&key, &self.store.put_tree(&tree)?)?;
                tree
            }
        };
        let found = initramfs::find_busybox(&tree).map(|(_, object)| object.clone());
        Ok(Some(found.with_context(|| format!("the package `{BUSYBOX}` has no busybox"))?))
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
            architecture: self.architecture,
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
            .with(self.architecture.as_bytes())
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
