//! What an official image does once, at its first boot, is switched off: a node is made by the build, not by its
//! own first minutes, and is the same at every boot.
//! Must not know: nodes, overlays. Identity (machine id, host keys, host name) is the build's.
//! Spec: Raspberry Pi OS's pi-gen and raspberrypi-sys-mods, as its images of 2024 to 2026 have it; systemd.unit(5)
//! for masks, cloud-init's documentation for its switch.

use super::first_user;
use crate::store::{Store, StoreError};
use crate::tree::layer::Layer;
use crate::tree::{Inode, Kind, Meta, PathError, Tree, TreeError, TreePath};

/// Units that act at first boot, or change the card at each: each is masked where it is there.
const UNITS: &[&str] = &[
    // grows the root partition; ours has its size.
    "rpi-resize.service",
    // grows the root filesystem.
    "systemd-growfs-root.service",
    "resize2fs_once.service",
    // makes host keys; a node's are derived.
    "regenerate_ssh_host_keys.service",
    // turns SSH on by a file of the boot partition.
    "sshswitch.service",
    // asks for a user on the console, and waits.
    "userconfig.service",
    // asks for a locale and a password.
    "systemd-firstboot.service",
    // configures from the boot partition.
    "cloud-init-local.service",
    "cloud-init-main.service",
    "cloud-init-network.service",
    "cloud-init.service",
    "cloud-config.service",
    "cloud-final.service",
    // makes a swap file on the card.
    "dphys-swapfile.service",
    // swaps to the card.
    "rpi-zram-writeback.service",
    "rpi-setup-loop@var-swap.service",
    // writes the time to the card; the build's is the floor.
    "fake-hwclock.service",
];

/// Where systemd looks for units, the first that has one.
const PLACES: [&str; 3] = ["etc/systemd/system", "usr/lib/systemd/system", "lib/systemd/system"];

/// Where cloud-init has its configuration; a file there switches it off.
const CLOUD: &str = "etc/cloud";

/// Files that belong to one copy of the system. Identity is the build's, so these are gone or empty.
const REMOVED: &[&str] = &["var/lib/systemd/random-seed", "var/lib/NetworkManager/secret_key"];

/// The layer could not be made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SettleError {
    /// A name that no tree has.
    #[error(transparent)]
    Path(#[from] PathError),
    /// A file in the place of a directory.
    #[error(transparent)]
    Tree(#[from] TreeError),
    /// The store has no room, for example.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// A layer that switches off all of it, over the root of an imported image.
pub fn layer(root: &Tree, store: &Store) -> Result<Layer, SettleError> {
    let mtime = root.get(&TreePath::root()).map(|root| root.meta.mtime).unwrap_or_default();
    let mut layer = Layer::new();
    for unit in UNITS {
        let here =
            |place: &&str| TreePath::new(format!("{place}/{unit}")).is_ok_and(|p| root.get(&p).is_some());
        if PLACES.iter().any(here) {
            let meta = Meta { mode: 0o777, mtime, ..Meta::default() };
            let mask = Inode { meta, kind: Kind::Symlink(b"/dev/null".as_slice().into()) };
            layer.insert(TreePath::new(format!("{}/{unit}", PLACES[0]))?, mask)?;
        }
    }
    if root.get(&TreePath::new(CLOUD)?).is_some() {
        let meta = Meta::root_owned(0o644, mtime);
        let switch = Inode { meta, kind: Kind::File(store.put_bytes(b"")?) };
        layer.insert(TreePath::new(CLOUD)?.join("cloud-init.disabled")?, switch)?;
    }
    for path in REMOVED {
        let path = TreePath::new(path)?;
        if root.get(&path).is_some() {
            layer.remove(path);
        }
    }
    first_user::remove(root, store, &mut layer)?;
    Ok(layer)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tree::tests::{dir, file, path, tree};

    #[test]
    fn what_is_there_is_switched_off_and_nothing_else() {
        let scratch = tempfile::tempdir().unwrap();
        let store = Store::open(&scratch.path().join("store")).unwrap();
        let mut root = tree(&[
            ("usr/lib/systemd/system/rpi-resize.service", file(b"")),
            ("usr/lib/systemd/system/ssh.service", file(b"")),
            ("etc/systemd/system/dphys-swapfile.service", file(b"")),
            ("etc/cloud", dir()),
            ("var/lib/systemd/random-seed", file(b"x")),
        ]);
        layer(&root, &store).unwrap().merge_onto(&mut root).unwrap();
        let target = |name: &str| match root.get(&path(name)).map(|inode| inode.kind.clone()) {
            Some(Kind::Symlink(target)) => String::from_utf8(target.to_vec()).unwrap(),
            other => format!("{other:?}"),
        };
        for unit in ["rpi-resize", "dphys-swapfile"] {
            assert_eq!(target(&format!("etc/systemd/system/{unit}.service")), "/dev/null");
        }
        assert!(root.get(&path("etc/systemd/system/ssh.service")).is_none());
        assert!(root.get(&path("etc/systemd/system/userconfig.service")).is_none());
        assert!(root.get(&path("etc/cloud/cloud-init.disabled")).is_some());
        assert!(root.get(&path("var/lib/systemd/random-seed")).is_none());
        let plain = tree(&[("etc/fstab", file(b""))]);
        assert!(layer(&plain, &store).unwrap().tree().len() == 1);
    }
}
