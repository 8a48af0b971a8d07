//! Runs maintainer scripts where they can touch nothing but the tree: the builder's side. The other
//! side is this same program, started anew with a hidden first argument.
//! Must not know: packages' relations, dpkg's files.
//! Spec: user_namespaces(7), newuidmap(1); design.md section 6.
//!
//! ```text
//! builder ── __sandbox outer: user, mount, net, ipc, uts namespaces; makes the files, reads them back
//!               └─ __sandbox init: process 1 of a pid namespace; mounts, then script after script
//! ```
//!
//! The files lie in a tmpfs inside the sandbox's own mount namespace, so they are gone with it,
//! however it ends: nothing owned by foreign ids is left to remove, and no sync waits for a disk.

mod binfmt;
mod init;
mod materialise;
mod mounts;
mod outer;
mod runner;
mod scan;
pub(crate) mod spec;
pub(super) mod stub;

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use rustix::process::{getgid, getuid};

use super::{InstallError, ScriptRun};
use crate::io::progress::Task;
use crate::store::Store;
use crate::tree::{Tree, dump};
use spec::{Event, Spec};

/// First argument of a process that is the sandbox.
const ARGUMENT: &str = "__sandbox";

/// Becomes the sandbox when this process was started as one, and then never returns. `main` calls it
/// before anything else, while there is one thread.
pub fn maybe_enter() {
    let mut args = std::env::args_os().skip(1);
    if args.next().is_none_or(|first| first != ARGUMENT) {
        return;
    }
    let (part, work) = (args.next().unwrap_or_default(), args.next().unwrap_or_default());
    let work = Path::new(&work);
    let result = match part.to_str() {
        Some("outer") => outer::run(work),
        Some("init") => init::run(work),
        _ => Ok(()),
    };
    let code = match result {
        Ok(()) => 0,
        Err(trouble) => {
            trouble.0.say();
            1
        }
    };
    // The one place that may leave at once: this process is nothing but the sandbox.
    std::process::exit(code)
}

/// What came of a run.
pub(super) struct Outcome {
    /// The tree that the scripts left.
    pub tree: Tree,
    /// What they printed.
    pub log: Vec<ScriptRun>,
    /// Calls of programs that only note them.
    pub calls: Vec<Vec<String>>,
}

/// Runs the jobs of `spec` on `tree`.
pub(super) fn run(store: &Store, tree: &Tree, spec: &Spec, task: &Task) -> Result<Outcome, InstallError> {
    let work = store.work_dir("sandbox")?;
    fs::write(work.path().join("tree"), dump::write(tree))
        .map_err(InstallError::sandbox("writing its input"))?;
    let json = serde_json::to_vec(spec).map_err(|e| InstallError::sandbox("writing its input")(e.into()))?;
    fs::write(work.path().join("spec"), json).map_err(InstallError::sandbox("writing its input"))?;
    let program = std::env::current_exe().map_err(InstallError::sandbox("finding this program"))?;
    let mut child = Command::new(program)
        .args([ARGUMENT, "outer"])
        .arg(work.path())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .map_err(InstallError::sandbox("starting it"))?;
    let (log, calls) = match listen(&mut child, spec, task) {
        Ok(heard) => heard,
        Err(e) => {
            // It may have ended already.
            let _ = child.kill();
            let _ = child.wait();
            return Err(e);
        }
    };
    child.wait().map_err(InstallError::sandbox("waiting for it"))?;
    let text = fs::read(work.path().join("result")).map_err(InstallError::sandbox("reading its result"))?;
    Ok(Outcome { tree: dump::read(&text)?, log, calls })
}

type Heard = (Vec<ScriptRun>, Vec<Vec<String>>);

fn listen(child: &mut Child, spec: &Spec, task: &Task) -> Result<Heard, InstallError> {
    let pid = child.id();
    let mut stdin = child.stdin.take();
    let stdout = child
        .stdout
        .take()
        .ok_or_else(|| InstallError::sandbox("talking to it")(std::io::ErrorKind::BrokenPipe.into()))?;
    let (mut log, mut noted) = (Vec::new(), Vec::new());
    for line in BufReader::new(stdout).lines() {
        let line = line.map_err(InstallError::sandbox("listening to it"))?;
        let event = serde_json::from_str(&line)
            .map_err(|e| InstallError::sandbox(format!("understanding `{line}`"))(e.into()))?;
        match event {
            Event::Mapped => {
                map_ids(pid)?;
                if let Some(mut pipe) = stdin.take() {
                    pipe.write_all(b"go\n").map_err(InstallError::sandbox("talking to it"))?;
                }
            }
            Event::Begin { what } => task.note(&what),
            Event::Took { what, millis } => {
                log.push(ScriptRun { script: what, millis, ..ScriptRun::default() });
            }
            Event::Ran { package, script, millis, cpu, output } => {
                task.advance(1);
                log.push(ScriptRun { package, script, millis, cpu, output });
            }
            Event::Script { package, script, status, output } => {
                return Err(InstallError::Script { package, script, status, output });
            }
            Event::Emulation { what } => {
                let architecture = spec.emulate.clone().unwrap_or_default();
                return Err(InstallError::Emulation { architecture, what });
            }
            Event::Failed { doing, what, errno } => {
                let source =
                    errno.map_or_else(|| std::io::Error::other(what), std::io::Error::from_raw_os_error);
                return Err(InstallError::Sandbox { doing, source });
            }
            Event::Calls { calls } => noted = calls,
            Event::Done => return Ok((log, noted)),
        }
    }
    Err(InstallError::sandbox("listening to it")(std::io::Error::other(
        "it ended without a word; was it killed?",
    )))
}

/// Gives the process its ids: as root the same ids as outside, as an ordinary user its own id as
/// root and the ids of /etc/subuid above.
fn map_ids(pid: u32) -> Result<(), InstallError> {
    if getuid().is_root() {
        for (file, own) in [("uid_map", "/proc/self/uid_map"), ("gid_map", "/proc/self/gid_map")] {
            let own = fs::read_to_string(own).map_err(InstallError::sandbox("reading this process's ids"))?;
            let path = format!("/proc/{pid}/{file}");
            fs::write(&path, identity(&own)).map_err(InstallError::sandbox(format!("writing {path}")))?;
        }
        return Ok(());
    }
    let user = user_name();
    for (file, program, own) in
        [("/etc/subuid", "newuidmap", getuid().as_raw()), ("/etc/subgid", "newgidmap", getgid().as_raw())]
    {
        let text = fs::read_to_string(file).unwrap_or_default();
        let start = sub_ids(&text, &user, getuid().as_raw()).ok_or_else(|| {
            let flag = if file == "/etc/subuid" { "uids" } else { "gids" };
            let hint = format!("run `sudo usermod --add-sub{flag} 100000-165535 {user}`");
            InstallError::SubIds { user: user.clone(), file, hint }
        })?;
        let args = [pid, 0, own, 1, 1, start, 65535].map(|n| n.to_string());
        let out = Command::new(program)
            .args(args)
            .output()
            .map_err(InstallError::sandbox(format!("running `{program}`")))?;
        if !out.status.success() {
            let said = String::from_utf8_lossy(&out.stderr).trim().to_owned();
            return Err(InstallError::sandbox(format!("running `{program}`"))(std::io::Error::other(said)));
        }
    }
    Ok(())
}

/// A map of each id to itself, from a process's own map: `inside outside count` a line.
fn identity(own: &str) -> String {
    own.lines()
        .filter_map(|line| {
            let mut words = line.split_whitespace();
            let (inside, _, count) = (words.next()?, words.next()?, words.next()?);
            Some(format!("{inside} {inside} {count}\n"))
        })
        .collect()
}

/// The first of at least 65535 ids that /etc/subuid or /etc/subgid gives to a user.
fn sub_ids(text: &str, user: &str, uid: u32) -> Option<u32> {
    text.lines().find_map(|line| {
        let mut words = line.trim().split(':');
        let (name, start, count) = (words.next()?, words.next()?.parse().ok()?, words.next()?);
        let ours = name == user || name.parse() == Ok(uid);
        (ours && count.parse::<u32>().ok()? >= 65535).then_some(start)
    })
}

fn user_name() -> String {
    let uid = getuid().as_raw();
    let text = fs::read_to_string("/etc/passwd").unwrap_or_default();
    let find = |line: &str| {
        let mut words = line.split(':');
        let name = words.next()?;
        (words.nth(1)?.parse() == Ok(uid)).then(|| name.to_owned())
    };
    text.lines().find_map(find).unwrap_or_else(|| uid.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_of_ids_are_found_by_name_or_number() {
        let text = "other:1:65536\nme:100000:65536\n\n1000:5:70000\nshort:9:10\n";
        for (user, uid, want) in
            [("me", 7, Some(100_000)), ("x", 1000, Some(5)), ("short", 8, None), ("nobody", 9, None)]
        {
            assert_eq!(sub_ids(text, user, uid), want, "{user}");
        }
    }

    #[test]
    fn an_identity_map_keeps_holes() {
        assert_eq!(identity("         0          0 4294967295\n"), "0 0 4294967295\n");
        assert_eq!(identity("0 1000 1\n1 100000 65536\n"), "0 0 1\n1 1 65536\n");
    }
}
