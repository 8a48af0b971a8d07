//! One node, from the layers it shares with others to its recorded generation and its disk image.
//! Must not know: how layers are made, file formats.
//! Spec: design.md sections 2, 5, 7 and 13.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::Instant;

use anyhow::Context;

use crate::base::Source;
use crate::base::lock::{BASE_SET, INITRAMFS_SET, Lock};
use crate::cluster::{Node, RootMode};
use crate::digest::{Digest, Key};
use crate::disk::Output;
use crate::manifest::{self, Manifest, Missing};
use crate::overlay::Overlay;
use crate::sbom;
use crate::store::Generation;

use super::base::PreparedBase;
use super::disk::{Disk, Owner};
use super::image::Sizes;
use super::{Built, Request, boot, image, node, output, ram};

/// Raised when the same generation gives another disk image.
const IMAGE_RECIPE: &str = "disk image 1";

/// One node on its way.
pub struct Build<'a> {
    /// What was asked for.
    pub request: &'a Request<'a>,
    /// The node.
    pub node: &'a Node,
    /// What it shares with others.
    pub base: &'a PreparedBase,
    /// Held while a disk image is written: compression has a worker per processor and 30 MB for each.
    pub writing: &'a Mutex<()>,
}

impl<'a> Build<'a> {
    /// Builds the node.
    pub fn run(&self) -> anyhow::Result<Built> {
        let begun = Instant::now();
        let Request { store, progress, description, .. } = *self.request;
        let cluster = description.cluster.name.as_str();
        let all = description.overlays.expand_node(self.node);
        let (incomplete, artifacts) = self.artifacts(&all);
        let left_out = |o: &&Overlay| incomplete.iter().any(|m| m.overlay == o.name.as_str());
        let overlays: Vec<&Overlay> = all.into_iter().filter(|o| !left_out(o)).collect();
        let set = self.base.sets.get(&self.node.package_set()).context("a node without its packages")?;
        let epoch = packages_epoch(&self.base.lock);
        let parts = node::Parts {
            description,
            node: self.node,
            overlays: &overlays,
            artifacts: &artifacts,
            official: matches!(self.base.base.source, Source::DiskImage(_)),
            epoch,
        };
        let made = node::root(&parts, set, store)?;
        let root = store.put_tree(&made.tree)?;
        let ram = match self.node.root {
            RootMode::Ram => Some(ram::store(&made.tree, &root, store, progress)?),
            _ => None,
        };
        let boot = boot::boot_tree(
            &boot::Parts {
                root: &made.tree,
                base: self.base,
                overlays: &overlays,
                cluster: &description.cluster,
                node: self.node,
                epoch,
            },
            ram.as_ref().map(|stored| stored.image.clone()),
            store,
            progress,
        )?;
        let owner = Owner { cluster, node: self.node, overlays: &overlays, key: self.request.key, epoch };
        let disk = Disk::new(&owner, &made.tree, &Sizes::default(), store)?;
        let mut manifest = self.manifest(&overlays, set.digest, epoch);
        manifest.root = root.to_string();
        manifest.boot = store.put_tree(&boot.tree)?.to_string();
        manifest.overlays = made.overlays;
        manifest.incomplete = incomplete;
        manifest.partitions = disk.plan.partitions();
        let secret = |p: &image::Private| {
            Some(manifest::Secret { path: p.path.to_string(), source: p.secret?.into() })
        };
        manifest.secrets = disk.private.iter().filter_map(secret).collect();
        let generation = self.record(&manifest, made.origins.to_bytes(), ram.map(|stored| stored.tree))?;
        let mut built = Built {
            node: self.node.name.to_string(),
            generation: generation.digest.to_string(),
            root: manifest.root,
            boot: manifest.boot,
            image: None,
            unchanged: false,
            mapped_bytes: 0,
            incomplete: manifest.incomplete,
            warnings: boot.warnings.into_iter().chain(disk.warnings.iter().cloned()).collect(),
            seconds: 0.0,
        };
        if let Some(out) = self.request.out {
            self.image(out, &generation, &disk, &disk.trees(&boot.tree), &mut built)?;
        }
        built.seconds = begun.elapsed().as_secs_f64();
        Ok(built)
    }

    /// What cannot be had, and the files of the other artifacts that these overlays want.
    fn artifacts(&self, overlays: &[&Overlay]) -> (Vec<Missing>, BTreeMap<String, PathBuf>) {
        let (mut missing, mut files) = (Vec::new(), BTreeMap::new());
        for overlay in overlays {
            for artifact in &overlay.artifacts {
                match self.base.artifacts.get(artifact.name.as_str()) {
                    Some(Ok(file)) => _ = files.insert(artifact.name.to_string(), file.clone()),
                    Some(Err(why)) => {
                        missing.push(Missing { overlay: overlay.name.to_string(), ..why.clone() });
                    }
                    None => {}
                }
            }
        }
        (missing, files)
    }

    /// All of the manifest that is known before the trees are recorded.
    fn manifest(&self, overlays: &[&Overlay], set: Digest, epoch: i64) -> Manifest {
        let base = self.base;
        let names = [BASE_SET.to_owned(), self.node.package_set(), INITRAMFS_SET.to_owned()];
        let mut packages: Vec<manifest::Package> = names
            .iter()
            .flat_map(|set| base.lock.packages_of(set))
            .map(|p| manifest::Package {
                name: p.name.clone(),
                version: p.version.clone(),
                architecture: p.architecture.clone(),
                sha256: p.sha256.hex(),
            })
            .collect();
        packages.sort_by(|a, b| a.name.cmp(&b.name));
        // One that the initramfs has by itself may be on the node too.
        packages.dedup_by(|a, b| a.name == b.name);
        // All have a digest: overlays with a file that is not here are left out.
        let artifacts = overlays.iter().flat_map(|o| &o.artifacts).filter_map(|a| {
            let (name, licence) = (a.name.to_string(), a.licence.clone());
            Some(manifest::Artifact { name, sha256: a.sha256?.hex(), licence })
        });
        let kind = match base.base.source {
            Source::Apt(_) => "apt",
            Source::Tar(_) => "tar",
            Source::DiskImage(_) => "disk-image",
        };
        Manifest {
            format: manifest::FORMAT,
            tool: concat!("gt-image ", env!("CARGO_PKG_VERSION")).into(),
            node: self.node.name.to_string(),
            cluster: self.request.description.cluster.name.to_string(),
            model: self.node.model.as_str().into(),
            roles: self.node.roles.iter().map(|r| r.value.to_string()).collect(),
            root_mode: self.node.root.as_str().into(),
            base: manifest::Base { name: base.base.name.clone(), kind: kind.into(), tree: set.to_string() },
            epoch,
            root: String::new(),
            boot: String::new(),
            overlays: Vec::new(),
            packages,
            artifacts: artifacts.collect(),
            incomplete: Vec::new(),
            secrets: Vec::new(),
            partitions: Vec::new(),
        }
    }

    fn record(
        &self,
        manifest: &Manifest,
        origins: Vec<u8>,
        ram: Option<Digest>,
    ) -> anyhow::Result<Generation> {
        let bytes = manifest.to_bytes();
        let generation = Generation {
            digest: Digest::of(&bytes),
            root: manifest.root.parse()?,
            boot: manifest.boot.parse()?,
            ram,
            sbom: sbom::write(manifest),
            manifest: bytes,
            origins,
        };
        self.request
            .store
            .put_generation(self.node.name.as_str(), &generation)
            .context("recording the generation")?;
        Ok(generation)
    }

    fn image(
        &self,
        out: &Path,
        generation: &Generation,
        disk: &Disk,
        trees: &image::Trees<'_>,
        built: &mut Built,
    ) -> anyhow::Result<()> {
        let folder = output::Folder::open(out, self.node.name.as_str())?;
        let (name, other) =
            if self.request.raw { ("disk.img", "disk.img.zst") } else { ("disk.img.zst", "disk.img") };
        let names = [name, "disk.bmap", "manifest.json", "sbom.spdx.json"];
        let mut key = Key::new(IMAGE_RECIPE).with(generation.digest.bytes()).with(name.as_bytes());
        for file in &disk.private {
            key = key.with(file.path.as_bytes()).with(Digest::of(&file.bytes).bytes());
        }
        let key = key.finish();
        let path = folder.path(name);
        built.image = Some(path.clone());
        if folder.is_current(&key, &names) {
            built.unchanged = true;
            return Ok(());
        }
        folder.prepare(&names, &[other])?;
        let output = if self.request.raw { Output::Raw(&path) } else { Output::Zstd(&path) };
        // A build that panicked while it wrote leaves nothing behind that this one reads.
        let turn = self.writing.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let (bmap, progress) = (folder.path("disk.bmap"), self.request.progress);
        let epoch = packages_epoch(&self.base.lock);
        let written = disk.plan.write(trees, epoch, output, &bmap, progress)?;
        drop(turn);
        built.mapped_bytes = written.mapped_bytes;
        folder.write("manifest.json", &generation.manifest)?;
        folder.write("sbom.spdx.json", &generation.sbom)?;
        folder.finish(&key, &names)
    }
}

/// Time of all that a build makes.
pub(super) fn packages_epoch(lock: &Lock) -> i64 {
    // A date beyond what fits is none that an archive has.
    i64::try_from(lock.epoch).unwrap_or(0)
}
