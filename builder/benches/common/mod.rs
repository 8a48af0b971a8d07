//! What the benchmarks share: a place where arm64 programs run, and a project of their own.
//! Must not know: what is measured.
//! Spec: user_namespaces(7), Documentation/admin-guide/binfmt-misc.rst.

#![allow(dead_code, reason = "each benchmark uses its own part of this")]

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

pub type Fallible<T> = Result<T, Box<dyn std::error::Error>>;

/// Runs a script as root of a user and mount namespace of its own, in which arm64 programs run under
/// emulation and which takes its registration of the emulator along when it goes. unshare's own
/// `--map-users` asks newuidmap, which wants an entry in /etc/subuid.
pub fn emulated(script: &str) -> Fallible<()> {
    let script = format!(
        "echo ready; read go; mount -t binfmt_misc none /proc/sys/fs/binfmt_misc && printf '%s' '{BINFMT}' \
         > /proc/sys/fs/binfmt_misc/register && {{ {script}; }}"
    );
    let mut child = Command::new("unshare")
        .args(["--user", "--mount", "--pid", "--fork", "sh", "-c", &script])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?;
    let (mut input, output) =
        (child.stdin.take().ok_or("no stdin")?, child.stdout.take().ok_or("no stdout")?);
    let mut output = BufReader::new(output);
    output.read_line(&mut String::new())?;
    for map in ["uid_map", "gid_map"] {
        fs::write(format!("/proc/{}/{map}", child.id()), "0 0 65536")?;
    }
    input.write_all(b"go\n")?;
    std::io::copy(&mut output, &mut std::io::stderr())?;
    let status = child.wait()?;
    if status.success() { Ok(()) } else { Err(format!("under emulation: {status}").into()) }
}

/// The registration that Debian's qemu-user-static makes for arm64.
const BINFMT: &str = r":qemu-aarch64:M::\x7fELF\x02\x01\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02\x00\xb7\x00:\xff\xff\xff\xff\xff\xff\xff\x00\xff\xff\xff\xff\xff\xff\xff\xff\xfe\xff\xff\xff:/usr/bin/qemu-aarch64-static:F";

/// A copy of the repository's description with a store of its own and the shared cache.
pub struct Site {
    pub dir: tempfile::TempDir,
    pub repository: PathBuf,
}

/// Wall seconds and peak memory in MiB.
#[derive(Clone, Copy)]
pub struct Cost {
    pub wall: f64,
    pub peak: f64,
}

impl Site {
    pub fn new() -> Fallible<Site> {
        let repository = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").canonicalize()?;
        let dir = tempfile::Builder::new().prefix("gt-bench-").tempdir_in(repository.join("target"))?;
        for name in ["cluster.toml", "overlays"] {
            run(Command::new("cp").arg("-a").arg(repository.join(name)).arg(dir.path()))?;
        }
        fs::create_dir(dir.path().join("images"))?;
        for name in ["debian-trixie.toml", "debian-trixie.lock"] {
            fs::copy(repository.join("images").join(name), dir.path().join("images").join(name))?;
        }
        Ok(Site { dir, repository })
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Runs the program here and says what it cost.
    pub fn gt_image(&self, args: &[&str]) -> Fallible<Cost> {
        let log = self.path("time");
        let mut command = Command::new("/usr/bin/time");
        command.args(["-f", "%M", "-o"]).arg(&log).arg(env!("CARGO_BIN_EXE_gt-image"));
        command.args(["--progress", "off", "--cache"]).arg(self.repository.join("images/cache"));
        let begun = Instant::now();
        run(command.current_dir(self.dir.path()).args(args))?;
        let wall = begun.elapsed().as_secs_f64();
        let peak = fs::read_to_string(log)?.trim().parse::<f64>()? / 1024.0;
        Ok(Cost { wall, peak })
    }
}

pub fn run(command: &mut Command) -> Fallible<()> {
    let output = command.output()?;
    if output.status.success() {
        return Ok(());
    }
    Err(format!("{command:?}: {}\n{}", output.status, String::from_utf8_lossy(&output.stderr)).into())
}
