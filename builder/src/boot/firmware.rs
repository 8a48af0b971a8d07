//! Firmware and device trees from where Debian's and Raspberry Pi OS's packages keep them, into the
//! boot tree.
//! Must not know: nodes, config.txt, kernels' bytes.
//! Spec: packages raspi-firmware (`/usr/lib/raspi-firmware`) and linux-image-*
//! (`/usr/lib/linux-image-<version>/broadcom`, in Raspberry Pi OS also `overlays` beside it); Debian's
//! hook `z50-raspi-firmware` copies the same files.

use super::model::Model;
use super::{BootError, BootTree};
use crate::tree::{Inode, Tree, TreePath};

/// Puts the firmware and the device trees of kernel `version` into `boot`, where it has no file of
/// that name yet. All variants go along: which of them the board loads depends on config.txt, such
/// as `start4cd.elf` with `gpu_mem=16`.
pub fn add(root: &Tree, version: Option<&str>, boot: &mut BootTree) -> Result<(), BootError> {
    add_dir(root, "usr/lib/raspi-firmware", |_| true, boot)?;
    if let Some(version) = version {
        let dir = format!("usr/lib/linux-image-{version}");
        let pi = |name: &[u8]| name.starts_with(b"bcm2") && name.ends_with(b".dtb");
        // A kernel of 64 bits sorts its device trees by maker.
        add_dir(root, &format!("{dir}/broadcom"), pi, boot)?;
        add_files(root, &format!("{dir}/overlays"), "overlays/", |_| true, boot)?;
    }
    Ok(())
}

/// The files of a directory and, one level down, of its directories: `overlays`.
fn add_dir(
    root: &Tree,
    dir: &str,
    wanted: impl Fn(&[u8]) -> bool + Copy,
    boot: &mut BootTree,
) -> Result<(), BootError> {
    add_files(root, dir, "", wanted, boot)?;
    add_files(root, &format!("{dir}/overlays"), "overlays/", wanted, boot)
}

fn add_files(
    root: &Tree,
    dir: &str,
    prefix: &str,
    wanted: impl Fn(&[u8]) -> bool,
    boot: &mut BootTree,
) -> Result<(), BootError> {
    let dir = TreePath::new(dir)?;
    for (path, _, _) in root.children(&dir).filter(|(path, _, _)| wanted(path.name())) {
        let target = root.resolve(path, true).unwrap_or_else(|| path.clone());
        if let Some(object) = root.get(&target).and_then(Inode::object) {
            let name = [prefix.as_bytes(), path.name()].concat();
            boot.add_missing(TreePath::new(name)?, object.clone())?;
        }
    }
    Ok(())
}

/// True when a kernel's device trees have upstream's names, which the firmware must be told.
/// Raspberry Pi's own kernels bring `bcm2710-*` for the Pi 3, upstream `bcm2837-*`. `boot` is what came with the
/// root for the boot partition, where an image may have the only copy.
pub fn is_upstream(root: &Tree, boot: &Tree, version: &str) -> bool {
    let dir = TreePath::new(format!("usr/lib/linux-image-{version}/broadcom"));
    let own = |tree: &Tree, dir: &TreePath| {
        tree.children(dir).any(|(path, _, _)| path.name().starts_with(b"bcm2710"))
    };
    !(dir.is_ok_and(|dir| own(root, &dir)) || own(boot, &TreePath::root()))
}

/// What a boot tree lacks for a model, in words; empty when nothing.
pub fn lacks(boot: &Tree, model: Model) -> Vec<String> {
    let has = |name: &str| TreePath::new(name).is_ok_and(|path| boot.get(&path).is_some());
    let mut lacks: Vec<String> = Vec::new();
    for name in model.firmware().iter().filter(|name| !has(name)) {
        lacks.push(format!("base has no `{name}`: a {} cannot start without it", model.name()));
    }
    let trees = model.device_trees();
    if !trees.iter().any(|name| has(name)) {
        let wanted = trees.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(" or ");
        lacks
            .push(format!("base has no device tree {wanted}: the kernel cannot start on a {}", model.name()));
    }
    lacks
}

/// True when a kernel has a driver for the chip that a Pi 5's Ethernet and USB hang on. Upstream has
/// one since 6.16; Debian's 6.12 has none.
pub fn drives_rp1(root: &Tree, version: &str) -> bool {
    let Ok(dir) = crate::kmod::module_dir(root, version) else { return false };
    root.below(&dir).any(|(path, _, _)| path.name().starts_with(b"rp1"))
}
