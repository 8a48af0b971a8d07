//! What the benchmarks share: a place where arm64 programs run.
//! Must not know: what is measured.
//! Spec: user_namespaces(7), Documentation/admin-guide/binfmt-misc.rst.

#![allow(dead_code, reason = "each benchmark uses its own part of this")]

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};

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
