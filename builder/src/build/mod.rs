//! A build: which steps, in which order, and what need not be done again.
//! Must not know: file formats, protocols; every step is a module of its own.
//! Spec: design.md sections 2, 6, 11 and 13.

pub mod boot;
pub mod image;
pub mod locking;
pub mod node;
mod output;
pub mod packages;
pub mod secrets;

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::Context;
use schemars::JsonSchema;
use serde::Serialize;

use crate::base::fetch::{FetchError, Fetcher};
use crate::base::lock::Lock;
use crate::base::mirror::Mirrors;
use crate::base::resolve::Renew;
use crate::base::{Base, Source, tar};
use crate::cluster::Node;
use crate::digest::{Digest, Key};
use crate::disk::Output;
use crate::hint::Hint;
use crate::io::progress::Progress;
use crate::layer::identity::ClusterKey;
use crate::layer::packages::{Seed, SeedGroup, SeedUser};
use crate::manifest::{self, Manifest, Missing};
use crate::overlay::{Description, Overlay};
use crate::sbom;
use crate::store::{Generation, Store};
use crate::tree::{Meta, Time, Tree};

/// Raised when the same generation gives another disk image.
const IMAGE_RECIPE: &str = "disk image 1";

/// What to build, and how.
pub struct Request<'a> {
    /// The whole description.
    pub description: &'a Description,
    /// The nodes, in order.
    pub nodes: Vec<&'a Node>,
    /// How locks are come by, and where files are.
    pub locking: locking::Options<'a>,
    /// The open store.
    pub store: &'a Store,
    /// The cluster key and its folder.
    pub key: (&'a ClusterKey, &'a Path),
    /// Where images go: `<out>/<node>/`; `None` for generations only.
    pub out: Option<&'a Path>,
    /// `disk.img` in place of `disk.img.zst`.
    pub raw: bool,
    /// Where progress is shown.
    pub progress: &'a Progress,
    /// Shows what package scripts print.
    pub verbose: bool,
}

/// What a build did.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct Report {
    /// One row a node, in the order of the description.
    pub nodes: Vec<Built>,
    /// What moved in locks, one line each.
    pub lock_changes: Vec<String>,
    /// How long it took.
    pub seconds: f64,
}

/// What was built of one node.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct Built {
    /// The node.
    pub node: String,
    /// The generation's digest.
    pub generation: String,
    /// Digest of the root tree.
    pub root: String,
    /// Digest of the boot tree.
    pub boot: String,
    /// The disk image, when one was asked for.
    pub image: Option<PathBuf>,
    /// Whether the image was there already, from the same inputs.
    pub unchanged: bool,
    /// Bytes of the image that are no holes; 0 when none was written.
    pub mapped_bytes: u64,
    /// What was left out.
    pub incomplete: Vec<Missing>,
    /// What will not work, or needs attention.
    pub warnings: Vec<String>,
    /// How long this node took, shared layers aside.
    pub seconds: f64,
}

/// Builds all nodes of the request.
pub fn build(request: &Request) -> anyhow::Result<Report> {
    let begun = Instant::now();
    let mut report = Report { nodes: Vec::new(), lock_changes: Vec::new(), seconds: 0.0 };
    let mut bases: BTreeMap<&str, PreparedBase> = BTreeMap::new();
    for node in &request.nodes {
        let name = node.base.as_str();
        if !bases.contains_key(name) {
            let prepared = prepare(name, request, &mut report.lock_changes)?;
            bases.insert(name, prepared);
        }
    }
    for node in &request.nodes {
        let Some(base) = bases.get_mut(node.base.as_str()) else { continue };
        let building = || format!("building node `{}`", node.name);
        let one = Build { request, node, overlays: request.description.overlays.expand_node(node) };
        report.nodes.push(one.run(base).with_context(building)?);
    }
    report.seconds = begun.elapsed().as_secs_f64();
    Ok(report)
}

/// A base with its lock, and the trees that its nodes share.
struct PreparedBase {
    base: Base,
    lock: Lock,
    fetcher: Fetcher,
    /// The root without packages of roles, and what the base brings for the boot partition.
    root: Digest,
    boot: Tree,
    /// Trees of package sets, by name.
    sets: HashMap<String, (Digest, Tree)>,
    /// Artifacts that were asked for: the file, or why it cannot be had.
    artifacts: BTreeMap<String, Result<PathBuf, Missing>>,
}

fn prepare(name: &str, request: &Request, changes: &mut Vec<String>) -> anyhow::Result<PreparedBase> {
    let mut options = request.locking;
    // Twice at most: a locked package that has left every mirror is resolved anew once.
    loop {
        let found = locking::lock(name, request.description, &options, request.progress)?;
        changes.extend(found.changes.iter().cloned());
        match try_prepare(found.base, found.lock, request) {
            Err(e) if options.renew != Renew::Packages && is_gone(&e) => {
                if request.locking.locked || request.locking.offline {
                    return Err(e.context(Hint(format!("run `gt-image lock --base {name}`"))));
                }
                request.progress.say("a locked package has left every mirror: resolving anew");
                options.renew = Renew::Packages;
            }
            done => return done,
        }
    }
}

fn is_gone(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| matches!(cause.downcast_ref(), Some(FetchError::Gone { .. })))
}

fn try_prepare(base: Base, lock: Lock, request: &Request) -> anyhow::Result<PreparedBase> {
    let locking = &request.locking;
    let mirrors = match base.apt() {
        Some(apt) => Mirrors::of(apt).context("finding the archive's mirrors")?,
        None => Mirrors::default(),
    };
    let fetcher = Fetcher::new(locking.cache, mirrors, locking.offline, request.progress);
    let empty = Tree::new(Meta::root_owned(0o755, Time::default()));
    let (root, boot) = match &base.source {
        Source::Apt(apt) => {
            let maker = packages::Maker {
                store: request.store,
                fetcher: &fetcher,
                lock: &lock,
                base: &base,
                apt,
                progress: request.progress,
                verbose: request.verbose,
            };
            (maker.base(&base_seed(&base))?, empty)
        }
        Source::Tar(pinned) => {
            let file = fetcher.pinned(&base.name, pinned)?;
            let trees = tar_base(&file, &pinned.sha256, request.store)?;
            (trees.0, request.store.tree(&trees.1)?)
        }
    };
    Ok(PreparedBase { base, lock, fetcher, root, boot, sets: HashMap::new(), artifacts: BTreeMap::new() })
}

/// A tarball's two trees, imported once.
fn tar_base(file: &Path, sha256: &Digest, store: &Store) -> anyhow::Result<(Digest, Digest)> {
    let key = |part: &str| Key::new("tar base 1").with(part.as_bytes()).with(sha256.bytes()).finish();
    if let (Some(root), Some(boot)) = (store.layer(&key("root"))?, store.layer(&key("boot"))?) {
        return Ok((root, boot));
    }
    let trees = tar::read(file, sha256, store).context("importing the base")?;
    let (root, boot) = (store.put_tree(&trees.root)?, store.put_tree(&trees.boot)?);
    store.put_layer(&key("root"), &root)?;
    store.put_layer(&key("boot"), &boot)?;
    Ok((root, boot))
}

/// Fixed numbers that the base states for what its packages create.
fn base_seed(base: &Base) -> Seed {
    let user = |(name, id): (&String, &u32)| SeedUser::pinned(name, *id, base.groups.get(name).copied());
    let group = |(name, gid): (&String, &u32)| SeedGroup { name: name.clone(), gid: *gid };
    Seed { users: base.ids.iter().map(user).collect(), groups: base.groups.iter().map(group).collect() }
}

/// Users and groups that overlays fix, written before any script of their packages runs.
fn set_seed(overlays: &[&Overlay]) -> Seed {
    let mut seed = Seed::default();
    let groups = || overlays.iter().flat_map(|o| &o.groups);
    seed.groups.extend(groups().map(|g| SeedGroup { name: g.name.to_string(), gid: g.gid }));
    for user in overlays.iter().flat_map(|o| &o.users) {
        let named = user.group.as_ref().and_then(|name| groups().find(|g| g.name == *name));
        if user.group.is_none() {
            seed.groups.push(SeedGroup { name: user.name.to_string(), gid: user.uid });
        }
        seed.users.push(SeedUser {
            name: user.name.to_string(),
            uid: user.uid,
            gid: named.map_or(user.uid, |g| g.gid),
            home: user.home.clone(),
            shell: user.shell.clone(),
            comment: user.comment.clone(),
        });
    }
    seed
}

/// One node on its way.
struct Build<'a> {
    request: &'a Request<'a>,
    node: &'a Node,
    overlays: Vec<&'a Overlay>,
}

impl Build<'_> {
    fn run(mut self, base: &mut PreparedBase) -> anyhow::Result<Built> {
        let begun = Instant::now();
        let Request { store, progress, description, .. } = *self.request;
        let cluster = description.cluster.name.as_str();
        let (incomplete, artifacts) = self.artifacts(base)?;
        let all = self.overlays.clone();
        self.overlays.retain(|o| !incomplete.iter().any(|m| m.overlay == o.name.as_str()));
        let (set, below) = self.package_set(base, &all)?;
        let epoch = packages_epoch(&base.lock);
        let parts = node::Parts {
            description,
            node: self.node,
            overlays: &self.overlays,
            artifacts: &artifacts,
            epoch,
        };
        let made = node::root(&parts, &below, store)?;
        let boot = boot::boot_tree(
            &boot::Parts {
                root: &made.tree,
                base_boot: &base.boot,
                overlays: &self.overlays,
                cluster,
                node: self.node,
                epoch,
            },
            store,
            progress,
        )?;
        let accounts = secrets::accounts(&made.tree, store)?;
        let (key, folder) = self.request.key;
        let mut private = image::private_files(cluster, self.node, key, &made.tree, store)?;
        let secrets = secrets::collect(self.node.name.as_str(), &self.overlays, folder, key, &accounts)?;
        private.extend(secrets.files);
        let (disk_root, disk_store) = image::with_private(&made.tree, &private, epoch, store)?;
        let plan = image::plan(cluster, self.node, &disk_root)?;
        let mut manifest = self.manifest(base, set, epoch);
        manifest.root = store.put_tree(&made.tree)?.to_string();
        manifest.boot = store.put_tree(&boot.tree)?.to_string();
        manifest.overlays = made.overlays;
        manifest.incomplete = incomplete;
        manifest.partitions = plan.partitions();
        let secret = |p: &image::Private| {
            Some(manifest::Secret { path: p.path.to_string(), source: p.secret?.into() })
        };
        manifest.secrets = private.iter().filter_map(secret).collect();
        let generation = self.record(&manifest, made.origins.to_bytes())?;
        let warnings = boot.warnings.into_iter().chain(secrets.warnings).collect();
        let mut built = Built {
            node: self.node.name.to_string(),
            generation: generation.digest.to_string(),
            root: manifest.root.clone(),
            boot: manifest.boot.clone(),
            image: None,
            unchanged: false,
            mapped_bytes: 0,
            incomplete: manifest.incomplete.clone(),
            warnings,
            seconds: 0.0,
        };
        if let Some(out) = self.request.out {
            let trees = image::Trees { boot: &boot.tree, root: &disk_root, store: disk_store };
            self.image(out, &generation, &private, &plan, &trees, epoch, &mut built)?;
        }
        built.seconds = begun.elapsed().as_secs_f64();
        Ok(built)
    }

    /// Files of the artifacts that this node's overlays want, and overlays to be left out.
    fn artifacts(
        &self,
        base: &mut PreparedBase,
    ) -> anyhow::Result<(Vec<Missing>, BTreeMap<String, PathBuf>)> {
        let (mut missing, mut files) = (Vec::new(), BTreeMap::new());
        for overlay in &self.overlays {
            for artifact in &overlay.artifacts {
                let name = artifact.name.as_str();
                if !base.artifacts.contains_key(name) {
                    let had = self.artifact(base, overlay.name.as_str(), name, &artifact.sha256)?;
                    base.artifacts.insert(name.to_owned(), had);
                }
                match base.artifacts.get(name) {
                    Some(Ok(file)) => _ = files.insert(name.to_owned(), file.clone()),
                    Some(Err(why)) => {
                        missing.push(Missing { overlay: overlay.name.to_string(), ..why.clone() })
                    }
                    None => {}
                }
            }
        }
        Ok((missing, files))
    }

    fn artifact(
        &self,
        base: &PreparedBase,
        overlay: &str,
        name: &str,
        sha256: &Digest,
    ) -> anyhow::Result<Result<PathBuf, Missing>> {
        let missing = |source: String| Missing {
            overlay: overlay.to_owned(),
            artifact: name.to_owned(),
            source,
            sha256: sha256.hex(),
        };
        // With `--keep-going` the lock has no entry for what could not be had.
        let Some(locked) = base.lock.artifact(name) else {
            return Ok(Err(missing("not in the lock".into())));
        };
        match base.fetcher.artifact(locked) {
            Ok(file) => Ok(Ok(file)),
            Err(_) if self.request.locking.keep_going => Ok(Err(missing(locked.source.to_string()))),
            Err(e) => {
                let hint = Hint(e.hint().to_owned());
                Err(anyhow::Error::new(e)
                    .context(hint)
                    .context(format!("overlay `{overlay}` wants artifact `{name}`")))
            }
        }
    }

    /// The tree below the overlays.
    fn package_set(&self, base: &mut PreparedBase, overlays: &[&Overlay]) -> anyhow::Result<(Digest, Tree)> {
        let name = self.node.package_set();
        let Request { store, progress, .. } = *self.request;
        if let Some(found) = base.sets.get(&name) {
            return Ok(found.clone());
        }
        let digest = match &base.base.source {
            Source::Apt(apt) => {
                let maker = packages::Maker {
                    store,
                    fetcher: &base.fetcher,
                    lock: &base.lock,
                    base: &base.base,
                    apt,
                    progress,
                    verbose: self.request.verbose,
                };
                maker.set(&base.root, &name, &set_seed(overlays))?
            }
            _ => base.root,
        };
        let found = (digest, store.tree(&digest)?);
        base.sets.insert(name, found.clone());
        Ok(found)
    }

    /// All of the manifest that is known before the trees are recorded.
    fn manifest(&self, base: &PreparedBase, set: Digest, epoch: i64) -> Manifest {
        let names = [crate::base::lock::BASE_SET.to_owned(), self.node.package_set()];
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
        let artifacts = self.overlays.iter().flat_map(|o| &o.artifacts).map(|a| manifest::Artifact {
            name: a.name.to_string(),
            sha256: a.sha256.hex(),
            licence: a.licence.clone().unwrap_or_default(),
        });
        let kind = match base.base.source {
            Source::Apt(_) => "apt",
            Source::Tar(_) => "tar",
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

    fn record(&self, manifest: &Manifest, origins: Vec<u8>) -> anyhow::Result<Generation> {
        let bytes = manifest.to_bytes();
        let generation = Generation {
            digest: Digest::of(&bytes),
            root: manifest.root.parse()?,
            boot: manifest.boot.parse()?,
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

    #[expect(clippy::too_many_arguments, reason = "the last step joins all that the others made")]
    fn image(
        &self,
        out: &Path,
        generation: &Generation,
        private: &[image::Private],
        plan: &image::Plan,
        trees: &image::Trees,
        epoch: i64,
        built: &mut Built,
    ) -> anyhow::Result<()> {
        let folder = output::Folder::open(out, self.node.name.as_str())?;
        let (name, other) =
            if self.request.raw { ("disk.img", "disk.img.zst") } else { ("disk.img.zst", "disk.img") };
        let names = [name, "disk.bmap", "manifest.json", "sbom.spdx.json"];
        let mut key = Key::new(IMAGE_RECIPE).with(generation.digest.bytes()).with(name.as_bytes());
        for file in private {
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
        let written = plan.write(trees, epoch, output, &folder.path("disk.bmap"), self.request.progress)?;
        built.mapped_bytes = written.mapped_bytes;
        folder.write("manifest.json", &generation.manifest)?;
        folder.write("sbom.spdx.json", &generation.sbom)?;
        folder.finish(&key, &names)
    }
}

fn packages_epoch(lock: &Lock) -> i64 {
    // A date beyond what fits is none that an archive has.
    i64::try_from(lock.epoch).unwrap_or(0)
}
