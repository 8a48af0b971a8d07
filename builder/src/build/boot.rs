//! A node's boot tree: kernel and initramfs made once for all nodes of a root, the rest per node.
//! Must not know: packages, overlays' files, disks.
//! Spec: design.md section 9.

use anyhow::Context;

use crate::boot::cmdline::RamImage;
use crate::boot::{self, Boot, BootNode, INITRAMFS, KERNEL, Payload, kernel, model::Model};
use crate::cluster;
use crate::digest::{Digest, Key};
use crate::initramfs;
use crate::io::progress::Progress;
use crate::overlay::Overlay;
use crate::store::Store;
use crate::tree::{Inode, Kind, Meta, Object, Time, Tree, TreePath};

use super::base::PreparedBase;
use super::image::DiskIds;

/// Raised when the same root gives another initramfs or packed kernel.
const RECIPE: &str = "boot payload 3";

/// What boot files are made of.
pub struct Parts<'a> {
    /// The node's root.
    pub root: &'a Tree,
    /// The base, with what it brings for the boot partition.
    pub base: &'a PreparedBase,
    /// The node's overlays in order.
    pub overlays: &'a [&'a Overlay],
    /// Its cluster, for disk ids and the server.
    pub cluster: &'a cluster::Cluster,
    /// The node.
    pub node: &'a cluster::Node,
    /// Time of all that is made here.
    pub epoch: i64,
}

/// Puts the boot tree together, with its warnings; `ram` is the node's image in memory, if it has one.
pub fn boot_tree(
    parts: &Parts,
    ram: Option<RamImage>,
    store: &Store,
    progress: &Progress,
) -> anyhow::Result<Boot> {
    let model = match parts.node.model {
        cluster::Model::Pi3 => Model::Pi3,
        cluster::Model::Pi4 => Model::Pi4,
        cluster::Model::Pi5 => Model::Pi5,
    };
    let (kernel, note) = kernel::choose(parts.root, &parts.base.kernels, model);
    let (payload, mut warnings) = match kernel {
        Some(kernel) => payload(parts, kernel, store, progress)?,
        None => (Payload::default(), Vec::new()),
    };
    let node = BootNode {
        model,
        config_txt: parts.overlays.iter().flat_map(|o| o.config_txt.iter().cloned()).collect(),
        cmdline: parts.overlays.iter().flat_map(|o| o.cmdline.iter().cloned()).collect(),
        disk_mode: parts.node.disk_mode().as_str().into(),
        partuuid: DiskIds::new(parts.cluster.name.as_str(), parts.node).partuuid("rootfs", 1),
        server: server(parts, ram),
        consoles: Vec::new(),
    };
    let mut made = boot::assemble(parts.root, &parts.base.boot, &node, &payload, store, parts.epoch)
        .context("putting the boot files together")?;
    warnings.extend(note);
    warnings.append(&mut made.warnings);
    Ok(Boot { tree: made.tree, warnings })
}

/// Every node can be served, whatever its own disk is for: that is how a broken one is reborn.
fn server(parts: &Parts, ram: Option<RamImage>) -> Option<boot::Server> {
    let address = parts.cluster.network.server?;
    let stated = [("gt-state", parts.node.state), ("gt-scratch", parts.node.scratch)];
    let partitions = stated.into_iter().filter_map(|(name, size)| size.map(|_| name)).collect();
    Some(boot::Server { address, node: parts.node.name.to_string(), ram, partitions })
}

/// Packed kernel and initramfs, from the store when this root's were made before.
fn payload(
    parts: &Parts,
    kernel: kernel::Kernel,
    store: &Store,
    progress: &Progress,
) -> anyhow::Result<(Payload, Vec<String>)> {
    let key = key(parts, &kernel)?;
    if let Some(found) = store.layer(&key)? {
        let tree = store.tree(&found)?;
        let object =
            |name: &str| -> Option<Object> { tree.get(&TreePath::new(name).ok()?)?.object().cloned() };
        if let (Some(image), initramfs) = (object(KERNEL), object(INITRAMFS)) {
            return Ok((Payload { kernel: Some((kernel, image)), initramfs }, Vec::new()));
        }
    }
    progress.say(&format!("making the initramfs of kernel {}", kernel.version));
    let image = kernel::pack(store, &kernel).context("packing the kernel")?;
    let busybox = parts.base.busybox.clone();
    let options = initramfs::Options { kernel: kernel.version.clone(), compression: None, busybox };
    let (initramfs, warnings) = match initramfs::build(parts.root, store, &options) {
        Ok((object, _)) => (Some(object), Vec::new()),
        // A root that brings a kernel and no busybox still builds: its own boot files may do.
        Err(e @ initramfs::InitramfsError::NoBusybox) => (None, vec![format!("no initramfs: {e}")]),
        Err(e) => return Err(e).context("making the initramfs"),
    };
    let mut tree = Tree::new(Meta::default());
    let files = [(KERNEL, Some(image.clone())), (INITRAMFS, initramfs.clone())];
    for (name, object) in files.into_iter().filter_map(|(name, object)| Some((name, object?))) {
        let meta = Meta::root_owned(0o644, Time::seconds(parts.epoch));
        tree.insert(TreePath::new(name)?, Inode { meta, kind: Kind::File(object) })?;
    }
    if initramfs.is_some() {
        store.put_layer(&key, &store.put_tree(&tree)?)?;
    }
    Ok((Payload { kernel: Some((kernel, image)), initramfs }, warnings))
}

/// All of the root that kernel and initramfs are made of.
fn key(parts: &Parts, kernel: &kernel::Kernel) -> anyhow::Result<Digest> {
    let mut key = Key::new(RECIPE)
        .with(initramfs::INIT.as_bytes())
        .with(kernel.version.as_bytes())
        .with(kernel.image.digest.bytes());
    if let Some(busybox) = &parts.base.busybox {
        key = key.with(busybox.digest.bytes());
    }
    for (name, text, _) in initramfs::PARTS {
        key = key.with(name.as_bytes()).with(text.as_bytes());
    }
    for place in ["usr/lib/modules", "lib/modules", "usr/bin/busybox", "bin/busybox", "boot"] {
        for (path, _, inode) in parts.root.below(&TreePath::new(place)?) {
            if let Some(object) = inode.object() {
                key = key.with(path.as_bytes()).with(object.digest.bytes());
            }
        }
    }
    Ok(key.finish())
}
