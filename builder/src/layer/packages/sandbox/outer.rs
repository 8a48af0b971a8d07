//! The sandbox's outer process: enters the namespaces, makes the files of the tree, has the scripts
//! run, and reads back what they changed.
//! Must not know: packages.
//! Spec: namespaces(7); a process with one thread may enter a new user namespace.

use std::fs;
use std::io::{BufRead, stdin};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

use rustix::mount::{MountFlags, MountPropagationFlags, mount, mount_change};
use rustix::process::{Signal, set_parent_process_death_signal, umask};
use rustix::thread::{UnshareFlags, set_thread_groups, unshare_unsafe};

use super::spec::{Event, Spec, Trouble};
use super::{materialise, mounts, scan};
use crate::store::Store;
use crate::tree::dump;

/// Where in the work directory the tmpfs is; the tree's files are in its `root`.
pub(super) const TMPFS: &str = "t";

pub(super) fn run(work: &Path) -> Result<(), Trouble> {
    enter()?;
    let spec = read_spec(work)?;
    let text = fs::read(work.join("tree")).map_err(Trouble::io("reading the tree"))?;
    let tree = dump::read(&text).map_err(|e| Trouble::other("reading the tree")(&e))?;
    let store = Store::open(&spec.store).map_err(|e| Trouble::other("opening the store")(&e))?;
    let top = work.join(TMPFS);
    let root = top.join("root");
    let begun = Instant::now();
    make_tmpfs(&top)?;
    let ours = mounts::places(&spec, &tree);
    let before = materialise::tree(&tree, &store, &root, &ours)?;
    took("making files", begun);
    run_init(work)?;
    let begun = Instant::now();
    let after = scan::tree(&tree, &before, &store, &root, &ours)?;
    fs::write(work.join("result"), dump::write(&after)).map_err(Trouble::io("writing the result"))?;
    took("reading files back", begun);
    Event::Done.say();
    Ok(())
}

pub(super) fn took(what: &str, begun: Instant) {
    let millis = u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX);
    Event::Took { what: what.into(), millis }.say();
}

pub(super) fn read_spec(work: &Path) -> Result<Spec, Trouble> {
    let json = fs::read(work.join("spec")).map_err(Trouble::io("reading the spec"))?;
    serde_json::from_slice(&json).map_err(|e| Trouble::other("reading the spec")(&e))
}

/// Enters new namespaces, always a user namespace among them, so that root and ordinary users go
/// one way and the machine's own mounts, network and binfmt_misc are out of reach.
fn enter() -> Result<(), Trouble> {
    let all = UnshareFlags::NEWUSER
        | UnshareFlags::NEWNS
        | UnshareFlags::NEWPID
        | UnshareFlags::NEWNET
        | UnshareFlags::NEWIPC
        | UnshareFlags::NEWUTS;
    // SAFETY: CLONE_FILES is not among the flags, so no file descriptor changes its meaning.
    unsafe { unshare_unsafe(all) }.map_err(Trouble::errno(
        "entering namespaces; if they are switched off, run `sudo sysctl kernel.unprivileged_userns_clone=1 \
         user.max_user_namespaces=10000 kernel.apparmor_restrict_unprivileged_userns=0`, or build as root",
    ))?;
    // Not before: new credentials take the signal away again (commit_creds in kernel/cred.c).
    set_parent_process_death_signal(Some(Signal::KILL)).map_err(Trouble::errno("tying it to the builder"))?;
    Event::Mapped.say();
    let mut line = String::new();
    stdin().lock().read_line(&mut line).map_err(Trouble::io("waiting for ids"))?;
    if line != "go\n" {
        return Err(Trouble::io("waiting for ids")(std::io::ErrorKind::UnexpectedEof.into()));
    }
    // Supplementary groups of the builder would let scripts read what only they may.
    set_thread_groups(&[]).map_err(Trouble::errno("dropping groups"))?;
    umask(rustix::fs::Mode::from_raw_mode(0o022));
    let private = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
    mount_change("/", private).map_err(Trouble::errno("making mounts private"))?;
    rustix::system::sethostname(b"localhost").map_err(Trouble::errno("setting the host name"))
}

fn make_tmpfs(top: &Path) -> Result<(), Trouble> {
    fs::create_dir(top).map_err(Trouble::io("making a folder"))?;
    // A base has 16,000 entries and 450 MB; pages of holes are not allocated.
    let options = c"mode=0755,size=80%,nr_inodes=0";
    mount("gt-image", top, "tmpfs", MountFlags::empty(), options).map_err(Trouble::errno("mounting a tmpfs"))
}

/// Runs the inner process, the first of its pid namespace: when it ends, all that it started ends.
fn run_init(work: &Path) -> Result<(), Trouble> {
    let mut init = Command::new("/proc/self/exe")
        .args([super::ARGUMENT, "init"])
        .arg(work)
        .stdin(Stdio::null())
        .spawn()
        .map_err(Trouble::io("starting the inner process"))?;
    let status = init.wait().map_err(Trouble::io("waiting for the inner process"))?;
    if status.success() {
        return Ok(());
    }
    // It has said why, unless it was killed.
    Err(Trouble::io("running scripts")(std::io::Error::other(format!("the inner process: {status}"))))
}
