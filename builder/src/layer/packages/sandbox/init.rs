//! The sandbox's inner process: the first of its pid namespace. Arranges mounts, goes into the tmpfs
//! and runs the scripts.
//! Must not know: stores, trees.
//! Spec: pid_namespaces(7), pivot_root(2).

use std::path::Path;

use rustix::process::{
    Resource, Rlimit, Signal, pivot_root, set_parent_process_death_signal, setrlimit, umask,
};
use rustix::thread::{UnshareFlags, unshare_unsafe};

use super::outer::{TMPFS, read_spec};
use super::spec::Trouble;
use super::{binfmt, mounts, runner};

pub(super) fn run(work: &Path) -> Result<(), Trouble> {
    set_parent_process_death_signal(Some(Signal::KILL)).map_err(Trouble::errno("tying it to the builder"))?;
    let spec = read_spec(work)?;
    // SAFETY: a new mount namespace changes the meaning of no file descriptor.
    unsafe { unshare_unsafe(UnshareFlags::NEWNS) }.map_err(Trouble::errno("entering a mount namespace"))?;
    umask(rustix::fs::Mode::from_raw_mode(0o022));
    let top = work.join(TMPFS);
    if let Some(architecture) = &spec.emulate {
        binfmt::register(architecture, &top)?;
    }
    mounts::arrange(&spec, &top)?;
    leave(&top)?;
    limit()?;
    runner::run(spec, Path::new("/root"), Path::new("/log"))
}

/// Makes the tmpfs the root of all, so that no path leads to the machine's own files. Scripts run
/// with `/root` of it as their root: a script that asks `ischroot` is told yes, as under every other
/// bootstrap tool.
fn leave(top: &Path) -> Result<(), Trouble> {
    let doing = "leaving the machine's files";
    let old = top.join("old");
    std::fs::create_dir(&old).map_err(Trouble::io(doing))?;
    rustix::process::chdir(top).map_err(Trouble::errno(doing))?;
    pivot_root(".", "old").map_err(Trouble::errno(doing))?;
    rustix::process::chdir("/").map_err(Trouble::errno(doing))?;
    rustix::mount::unmount("/old", rustix::mount::UnmountFlags::DETACH).map_err(Trouble::errno(doing))
}

/// Generous limits against a script that runs wild.
fn limit() -> Result<(), Trouble> {
    for (resource, most) in [
        (Resource::Core, 0),
        (Resource::Nofile, 4096),
        // No file of a package script is larger.
        (Resource::Fsize, 4 << 30),
    ] {
        let hard = rustix::process::getrlimit(resource).maximum.unwrap_or(u64::MAX).min(most);
        let limit = Rlimit { current: Some(hard), maximum: Some(hard) };
        setrlimit(resource, limit).map_err(Trouble::errno("setting limits"))?;
    }
    Ok(())
}
