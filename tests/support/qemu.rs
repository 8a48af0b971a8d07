//! A node in QEMU: booted from its disk image with its own kernel, initramfs and command line, read
//! on its console, driven over SSH.
//! Must not know: what is tested.
//! Spec: QEMU's `virt` machine; the image carries virtio modules for this purpose.

use std::fs::File;
use std::io::Read;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use super::net::Net;
use super::which;

/// How long a boot may take here: 50 s on a quiet machine of two cores, 320 s beside two others on a slow one.
pub const BOOT: Duration = Duration::from_secs(720);

/// Words for this machine. Beside others on a busy host udev took longer than the 90 s that systemd waits for a device,
/// and the console, or the boot partition, was given up.
const HERE: &str = "systemd.default_device_timeout_sec=300 console=ttyAMA0";

/// The kernel would change its page tables at each entry because its address is random, and the emulator forgets its
/// own with each change: more than a quarter of a boot. Not on a command line that has its own word about it.
const FASTER: &str = " kpti=off";

/// A running machine; ended when dropped.
pub struct Machine {
    child: Child,
    console: PathBuf,
    /// How its SSH server is reached.
    ssh: Ssh,
    /// The connection that all commands share.
    master: Mutex<Option<Child>>,
    /// Where its socket is.
    sockets: TempDir,
}

/// How a node is reached over SSH.
enum Ssh {
    /// By a port of this host.
    Port(u16),
    /// From a network namespace, by its address: the command up to `ssh`, and the address.
    From(Vec<String>, String),
}

/// How a machine is connected.
pub enum Network<'a> {
    /// To this host alone, by QEMU's own user-mode network.
    User,
    /// To the switch of a test's network by this tap, with this card and this address.
    Tap { net: &'a Net, tap: &'a str, mac: &'a str, address: &'a str },
}

/// What a machine starts from.
pub struct Boot<'a> {
    /// Raw disk images; written to.
    pub disks: &'a [&'a Path],
    /// Processor cores.
    pub cores: u32,
    /// MiB of memory.
    pub memory: u32,
    /// Its network.
    pub network: Network<'a>,
    pub kernel: &'a Path,
    pub initramfs: &'a Path,
    /// The node's own command line; the console of this machine is added.
    pub cmdline: &'a str,
    /// Where the console's text goes.
    pub console: &'a Path,
}

impl Machine {
    pub fn start(boot: &Boot) -> Machine {
        // The Pi's own consoles do not exist here, and the last `console=` is where init speaks.
        let cmdline: Vec<&str> =
            boot.cmdline.split_whitespace().filter(|w| !w.starts_with("console=")).collect();
        let faster = if boot.cmdline.contains("kpti=") { "" } else { FASTER };
        let log = File::create(boot.console).unwrap();
        let qemu = which("qemu-system-aarch64").expect("checked by the tier");
        let (mut command, netdev, ssh) = match &boot.network {
            Network::User => {
                // Asked for and given back: the only way to learn a free port. QEMU takes it at once.
                let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
                let netdev = format!("user,id=n,hostfwd=tcp:127.0.0.1:{port}-:22");
                (Command::new(qemu), netdev, Ssh::Port(port))
            }
            Network::Tap { net, tap, address, .. } => {
                let command = net.command("ssh");
                let words = command.get_args().map(|word| word.to_str().unwrap().to_owned()).collect();
                let netdev = format!("tap,id=n,ifname={tap},script=no,downscript=no");
                (net.command(qemu.to_str().unwrap()), netdev, Ssh::From(words, (*address).to_owned()))
            }
        };
        let card = match boot.network {
            // No boot ROM: its package is only recommended by QEMU's, and nothing boots from it here.
            Network::Tap { mac, .. } => format!("virtio-net-pci,netdev=n,romfile=,mac={mac}"),
            Network::User => "virtio-net-pci,netdev=n,romfile=".to_owned(),
        };
        command
            .args(["-machine", "virt", "-cpu", "cortex-a72"])
            .args(["-smp", &boot.cores.to_string(), "-m", &boot.memory.to_string()])
            .args(["-display", "none", "-serial", "stdio", "-monitor", "none", "-no-reboot"])
            .arg("-kernel")
            .arg(boot.kernel)
            .arg("-initrd")
            .arg(boot.initramfs)
            .arg("-append")
            .arg(format!("{} {HERE}{faster}", cmdline.join(" ")))
            .args(["-netdev", &netdev, "-device", &card, "-device", "virtio-rng-pci"]);
        for (n, disk) in boot.disks.iter().enumerate() {
            let drive = format!("if=none,id=d{n},format=raw,cache=unsafe,file={}", disk.display());
            command.args(["-drive", &drive, "-device", &format!("virtio-blk-pci,drive=d{n}")]);
        }
        let child =
            command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log).spawn().unwrap();
        let (master, sockets) = (Mutex::new(None), tempfile::tempdir().unwrap());
        Machine { child, console: boot.console.to_owned(), ssh, master, sockets }
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
        let words = self.ssh_words(identity, known_hosts.to_str().unwrap(), node);
        let control = self.connect(&words);
        let (target, options) = words[1..].split_last().unwrap();
        Command::new(&words[0]).args(options).arg("-S").arg(control).args([target, command]).output().unwrap()
    }

    /// Opens the connection that commands share, unless it is open; gives its socket. A login takes an emulated node
    /// seconds of a processor, for systemd starts a manager for the user, and a command without a connection logs in
    /// by itself.
    fn connect(&self, words: &[String]) -> PathBuf {
        let socket = self.sockets.path().join("ssh");
        let mut master = self.master.lock().unwrap();
        let open = |child: &mut Child| child.try_wait().unwrap().is_none();
        if !master.as_mut().is_some_and(open) {
            let (target, options) = words[1..].split_last().unwrap();
            let mut command = Command::new(&words[0]);
            command.args(options).args(["-N", "-M", "-S"]).arg(&socket).arg(target);
            command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
            let mut child = command.spawn().unwrap();
            while open(&mut child) && !socket.exists() {
                std::thread::sleep(Duration::from_millis(100));
            }
            *master = Some(child);
        }
        socket
    }

    /// The same for a command that reads a file of this host.
    pub fn ssh_with(&self, identity: &Path, known_hosts: &Path, node: &str, input: &Path, command: &str) {
        let words = self.ssh_words(identity, known_hosts.to_str().unwrap(), node);
        let mut ssh = Command::new(&words[0]);
        super::ok(ssh.args(&words[1..]).arg(command).stdin(File::open(input).unwrap()));
    }

    /// Program and arguments that reach the node, up to the command.
    fn ssh_words(&self, identity: &Path, known_hosts: &str, node: &str) -> Vec<String> {
        let (mut words, target, port) = match &self.ssh {
            Ssh::Port(port) => {
                let ssh = which("ssh").expect("openssh-client is installed");
                (vec![ssh.to_str().unwrap().to_owned()], "root@127.0.0.1".to_owned(), *port)
            }
            Ssh::From(words, address) => {
                let ip = which("ip").expect("checked by the tier");
                let ip = ip.to_str().unwrap().to_owned();
                ([vec![ip], words.clone()].concat(), format!("root@{address}"), 22)
            }
        };
        let options = "-F none -o BatchMode=yes -o StrictHostKeyChecking=yes -o ConnectTimeout=20 -o IdentitiesOnly=yes";
        words.extend(options.split(' ').map(str::to_owned));
        for option in [format!("UserKnownHostsFile={known_hosts}"), format!("HostKeyAlias={node}")] {
            words.extend(["-o".to_owned(), option]);
        }
        words.extend(["-i".to_owned(), identity.to_str().unwrap().to_owned()]);
        words.extend(["-p".to_owned(), port.to_string(), target]);
        words
    }

    /// Writes the description `from` to `to` with a `[network] check` that reaches this machine, and all others on its
    /// network, so that `gt-image --cluster TO check --node NODE` runs their checks.
    pub fn checkable(&self, identity: &Path, from: &Path, to: &Path) {
        let mut words = self.ssh_words(identity, "{{ known_hosts }}", "{{ node.name }}");
        if let Ssh::From(..) = self.ssh {
            *words.last_mut().unwrap() = "root@{{ node.ip }}".to_owned();
        }
        words.extend(["/usr/lib/gt/check", "each"].map(str::to_owned));
        let mut cluster: toml::Table = std::fs::read_to_string(from).unwrap().parse().unwrap();
        cluster["network"].as_table_mut().unwrap().insert("check".into(), words.into());
        std::fs::write(to, toml::to_string(&cluster).unwrap()).unwrap();
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
        // They may have ended by themselves.
        for child in self.master.get_mut().unwrap().iter_mut().chain([&mut self.child]) {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
