//! A node in QEMU: booted from its disk image with its own kernel, initramfs and command line, read
//! on its console, driven over SSH.
//! Must not know: what is tested.
//! Spec: QEMU's `virt` machine; the image carries virtio modules for this purpose.

use std::fs::File;
use std::io::Read;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use super::which;

/// How long a boot may take here: 50 s on a quiet machine of two cores, and CI is not quiet.
pub const BOOT: Duration = Duration::from_secs(420);

/// A running machine; ended when dropped.
pub struct Machine {
    child: Child,
    console: PathBuf,
    /// The host's port that leads to the node's SSH server.
    pub ssh_port: u16,
}

/// What a machine starts from.
pub struct Boot<'a> {
    /// A raw disk image; written to.
    pub disk: &'a Path,
    pub kernel: &'a Path,
    pub initramfs: &'a Path,
    /// The node's own command line; the console of this machine is added.
    pub cmdline: &'a str,
    /// Where the console's text goes.
    pub console: &'a Path,
}

impl Machine {
    pub fn start(boot: &Boot) -> Machine {
        // Asked for and given back: the only way to learn a free port. QEMU takes it at once.
        let ssh_port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        // The Pi's own consoles do not exist here, and the last `console=` is where init speaks.
        let cmdline: Vec<&str> =
            boot.cmdline.split_whitespace().filter(|w| !w.starts_with("console=")).collect();
        let log = File::create(boot.console).unwrap();
        let child = Command::new(which("qemu-system-aarch64").expect("checked by the tier"))
            .args(["-machine", "virt", "-cpu", "cortex-a72", "-smp", "2", "-m", "1024"])
            .args(["-display", "none", "-serial", "stdio", "-monitor", "none", "-no-reboot"])
            .arg("-kernel")
            .arg(boot.kernel)
            .arg("-initrd")
            .arg(boot.initramfs)
            .arg("-append")
            .arg(format!("{} console=ttyAMA0", cmdline.join(" ")))
            .arg("-drive")
            .arg(format!("if=none,id=d,format=raw,cache=unsafe,file={}", boot.disk.display()))
            .args(["-device", "virtio-blk-pci,drive=d"])
            .arg("-netdev")
            .arg(format!("user,id=n,hostfwd=tcp:127.0.0.1:{ssh_port}-:22"))
            .args(["-device", "virtio-net-pci,netdev=n", "-device", "virtio-rng-pci"])
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        Machine { child, console: boot.console.to_owned(), ssh_port }
    }

    /// All that the console has shown so far.
    pub fn text(&self) -> String {
        let mut bytes = Vec::new();
        File::open(&self.console).unwrap().read_to_end(&mut bytes).unwrap();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// Waits until the console shows `marker`; its whole text is in the panic when it does not.
    pub fn wait_for(&mut self, marker: &str, limit: Duration) {
        let begun = Instant::now();
        while !self.text().contains(marker) {
            let ended = self.child.try_wait().unwrap();
            assert!(ended.is_none(), "the machine ended before `{marker}`: {ended:?}\n{}", self.text());
            assert!(begun.elapsed() < limit, "no `{marker}` in {limit:?}:\n{}", self.text());
            std::thread::sleep(Duration::from_millis(200));
        }
    }

    /// Waits until the machine has powered off or reset itself.
    pub fn wait_for_end(&mut self, limit: Duration) {
        let begun = Instant::now();
        while self.child.try_wait().unwrap().is_none() {
            assert!(begun.elapsed() < limit, "still running after {limit:?}:\n{}", self.text());
            std::thread::sleep(Duration::from_millis(200));
        }
    }

    /// Runs a command on the node as root. The host key must be the one that `known_hosts` has.
    pub fn ssh(&self, identity: &Path, known_hosts: &Path, node: &str, command: &str) -> Output {
        Command::new(which("ssh").expect("openssh-client is installed"))
            .args(["-F", "none", "-o", "BatchMode=yes", "-o", "StrictHostKeyChecking=yes"])
            .args(["-o", "ConnectTimeout=20", "-o", "IdentitiesOnly=yes"])
            .arg("-o")
            .arg(format!("UserKnownHostsFile={}", known_hosts.display()))
            .arg("-o")
            .arg(format!("HostKeyAlias={node}"))
            .arg("-i")
            .arg(identity)
            .args(["-p", &self.ssh_port.to_string(), "root@127.0.0.1", command])
            .output()
            .unwrap()
    }

    /// Runs a command that must succeed, trying again while the SSH server is not up yet.
    pub fn ssh_ok(&mut self, identity: &Path, known_hosts: &Path, node: &str, command: &str) -> String {
        let begun = Instant::now();
        loop {
            let output = self.ssh(identity, known_hosts, node, command);
            if output.status.success() {
                return String::from_utf8_lossy(&output.stdout).into_owned();
            }
            // 255 is ssh's own failure; anything else is the command's.
            let retry = output.status.code() == Some(255) && begun.elapsed() < BOOT;
            assert!(
                retry,
                "`{command}`: {}\n{}\n--- console:\n{}",
                output.status,
                super::text(&output),
                self.text()
            );
            std::thread::sleep(Duration::from_secs(2));
        }
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
