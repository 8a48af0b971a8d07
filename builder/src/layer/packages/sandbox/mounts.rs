//! What is mounted over the tree while scripts run: /proc, a minimal /dev, empty /run, /tmp and
//! /sys, and programs that do nothing over those that must not run.
//! Must not know: scripts.
//! Spec: Debian policy 9.3 and the usual container's set of devices.

use std::fs::{self, File, Permissions};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

use rustix::mount::{MountFlags, mount, mount_bind};

use super::spec::{Spec, Trouble};
use super::stub;
use crate::tree::{Tree, TreePath};

/// Folders that are mounted over.
const POINTS: [&str; 5] = ["dev", "proc", "run", "sys", "tmp"];
/// The machine's devices that scripts may use; none of them reaches anything.
const DEVICES: [&str; 6] = ["null", "zero", "full", "random", "urandom", "tty"];

/// Entries that must exist for mounting and are not in the tree: folders, then files.
#[derive(Debug, Default)]
pub(super) struct Places {
    pub dirs: Vec<TreePath>,
    pub files: Vec<TreePath>,
}

impl Places {
    pub fn contains(&self, path: &TreePath) -> bool {
        self.dirs.contains(path) || self.files.contains(path)
    }
}

/// Which places the tree lacks.
pub(super) fn places(spec: &Spec, tree: &Tree) -> Places {
    let path = |text: &str| TreePath::new(text).ok();
    let missing = |p: &TreePath| tree.get(p).is_none();
    let files = spec.stubs.iter().filter(|stub| stub.create).filter_map(|stub| path(&stub.path));
    Places {
        dirs: POINTS.iter().filter_map(|p| path(p)).filter(missing).collect(),
        files: files.filter(missing).collect(),
    }
}

/// Mounts everything below `top/root`.
pub(super) fn arrange(spec: &Spec, top: &Path) -> Result<(), Trouble> {
    let root = top.join("root");
    let doing = |what: &str| Trouble::errno(format!("mounting {what}"));
    let none = MountFlags::empty();
    let quiet = MountFlags::NOSUID | MountFlags::NODEV;
    mount("proc", root.join("proc"), "proc", quiet | MountFlags::NOEXEC, None).map_err(doing("/proc"))?;
    for (point, options) in
        [("dev", c"mode=0755"), ("run", c"mode=0755"), ("tmp", c"mode=1777"), ("sys", c"mode=0555")]
    {
        let flags = if point == "dev" { none } else { quiet };
        mount("gt-image", root.join(point), "tmpfs", flags, options).map_err(doing(point))?;
    }
    devices(&root.join("dev"))?;
    let lock = root.join("run/lock");
    fs::create_dir(&lock)
        .and_then(|()| fs::set_permissions(&lock, Permissions::from_mode(0o1777)))
        .map_err(Trouble::io("making /run/lock"))?;
    // World-writable, as the programs that note their calls may run as anybody.
    let calls = root.join(&stub::CALLS[1..]);
    File::create(&calls)
        .and_then(|file| file.set_permissions(Permissions::from_mode(0o666)))
        .map_err(Trouble::io("making the list of calls"))?;
    stubs(spec, top, &root)
}

fn devices(dev: &Path) -> Result<(), Trouble> {
    let doing = |what: &str| Trouble::errno(format!("mounting /dev/{what}"));
    let io = || Trouble::io("making /dev");
    for name in DEVICES {
        let place = dev.join(name);
        File::create(&place).map_err(io())?;
        mount_bind(format!("/dev/{name}"), &place).map_err(doing(name))?;
    }
    for name in ["pts", "shm"] {
        fs::create_dir(dev.join(name)).map_err(io())?;
    }
    let options = c"newinstance,ptmxmode=0666,mode=0620";
    mount("devpts", dev.join("pts"), "devpts", MountFlags::NOSUID, options).map_err(doing("pts"))?;
    mount("gt-image", dev.join("shm"), "tmpfs", MountFlags::NOSUID, c"mode=1777").map_err(doing("shm"))?;
    for (name, target) in [
        ("ptmx", "pts/ptmx"),
        ("fd", "/proc/self/fd"),
        ("stdin", "/proc/self/fd/0"),
        ("stdout", "/proc/self/fd/1"),
        ("stderr", "/proc/self/fd/2"),
    ] {
        symlink(target, dev.join(name)).map_err(io())?;
    }
    Ok(())
}

fn stubs(spec: &Spec, top: &Path, root: &Path) -> Result<(), Trouble> {
    let dir = top.join("stubs");
    fs::create_dir(&dir).map_err(Trouble::io("making a folder"))?;
    for found in &spec.stubs {
        let program = dir.join(format!("{:?}", found.program));
        if !program.exists() {
            fs::write(&program, stub::program(found.program))
                .and_then(|()| fs::set_permissions(&program, Permissions::from_mode(0o755)))
                .map_err(Trouble::io("writing a program that does nothing"))?;
        }
        mount_bind(&program, root.join(&found.path))
            .map_err(Trouble::errno(format!("mounting over /{}", found.path)))?;
    }
    Ok(())
}
