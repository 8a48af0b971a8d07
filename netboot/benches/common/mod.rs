//! What the benchmarks share: a network namespace of their own, and servers that end with their scope.
//! Must not know: any protocol.
//! Spec: unshare(1), nsenter(1), proc_pid_stat(5).

#![allow(dead_code, reason = "each benchmark uses its own part of this")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

pub type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

/// Set in the process that runs inside the namespace.
const INSIDE: &str = "GT_BENCH_INSIDE";

/// Runs this program again as root of a network namespace of its own, where every port is free, with
/// `path` searched for programs too; true in that second run.
pub fn inside(path: &str) -> Result<bool> {
    if std::env::var_os(INSIDE).is_some() {
        return Ok(true);
    }
    let status = Command::new("unshare")
        .args(["-Urn", "sh", "-c", "ip link set lo up && exec \"$0\" \"$@\""])
        .arg(std::env::current_exe()?)
        .args(std::env::args().skip(1))
        .env(INSIDE, "1")
        .env("PATH", [std::env::var("PATH").unwrap_or_default(), path.to_owned()].join(":"))
        .status()?;
    if status.success() { Ok(false) } else { Err("the run in a network namespace failed".into()) }
}

/// Where a program is, if it is installed.
pub fn which(name: &str) -> Option<PathBuf> {
    let path = std::env::var("PATH").unwrap_or_default() + ":/usr/sbin";
    path.split(':').map(|dir| Path::new(dir).join(name)).find(|file| file.is_file())
}

/// Runs `ip` with these words.
pub fn ip(line: &str) -> Result<()> {
    succeed(Command::new("ip").args(line.split(' ')))
}

fn succeed(command: &mut Command) -> Result<()> {
    let status = command.status()?;
    if status.success() { Ok(()) } else { Err(format!("{command:?}: {status}").into()) }
}

/// A second network namespace, kept by a process that ends with its scope.
pub struct Namespace(Child);

impl Namespace {
    pub fn new() -> Result<Namespace> {
        let mut keeper = Command::new("unshare");
        keeper.args(["-n", "sh", "-c", "echo; exec cat"]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = keeper.spawn()?;
        // The line comes from inside: until then the process may still be in ours.
        let mut line = child.stdout.take().ok_or("no stdout")?;
        std::io::Read::read_exact(&mut line, &mut [0])?;
        Ok(Namespace(child))
    }

    pub fn pid(&self) -> u32 {
        self.0.id()
    }

    /// Runs `ip` there.
    pub fn ip(&self, line: &str) -> Result<()> {
        succeed(
            Command::new("nsenter").args(["-t", &self.pid().to_string(), "-n", "ip"]).args(line.split(' ')),
        )
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A process that ends with its scope.
pub struct Running(Child);

impl Running {
    /// Starts a program that says nothing.
    pub fn start(program: &Path, args: &[String]) -> Result<Running> {
        let mut command = Command::new(program);
        command.args(args).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        Ok(Running(command.spawn().map_err(|e| format!("{}: {e}", program.display()))?))
    }

    /// As [`Running::start`], in another network namespace.
    pub fn start_in(place: &Namespace, program: &Path, args: &[String]) -> Result<Running> {
        let into = ["-t".into(), place.pid().to_string(), "-n".into(), program.display().to_string()];
        Running::start(Path::new("nsenter"), &[&into[..], args].concat())
    }

    /// Processor seconds so far, of all threads. Linux counts hundredths for every program.
    pub fn cpu(&self) -> Result<f64> {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.0.id()))?;
        let (_, fields) = stat.rsplit_once(") ").ok_or("no stat")?;
        let ticks: u64 = fields.split(' ').skip(11).take(2).map(|n| n.parse().unwrap_or(0u64)).sum();
        Ok(ticks as f64 / 100.0)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
