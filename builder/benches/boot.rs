//! A node's boot over the network, from its first DISCOVER to `login:`, beside what people put together
//! by hand: dnsmasq, nfs-ganesha and an initramfs of initramfs-tools. `peer` has the very same root, `stock`
//! has it without the overlay `quick-boot`: what Debian starts, it starts.
//! Must not know: private parts of the library.
//! Spec: docs/performance.md has the figures of the last run.
//!
//! `cargo bench -p gt-image --bench boot [ours] [peer] [stock] [explain]`, as root; `explain` shows where the
//! time went. The firmware is played, the machine is
//! QEMU's `virt` with two emulated cores, and both boots have the same root, network and command line but
//! for the words that say where the root is.

#![allow(clippy::unwrap_used, reason = "a benchmark that fails has no result")]

mod common;
#[path = "../../tests/support/mod.rs"]
mod support;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use gt_netboot::pi::boot::{Boot as Played, Loaded, Setup};
use support::net::{Net, SERVER};
use support::qemu::{BOOT, Boot, Machine, Network};
use support::server::{Node, Server, power_on};
use support::{gt_image, ok, repository, run};

const FENN: Node = Node { name: "fenn", mac: "d8:3a:dd:89:ef:61", serial: 0xd2a7_ebcf, address: "10.4.0.15" };
const ROUNDS: usize = 2;
/// As much as both boots are at ease with.
const MEMORY: u32 = 2048;

fn main() {
    let asked: Vec<String> = std::env::args().skip(1).filter(|a| !a.starts_with("--")).collect();
    let wanted = |name: &str| asked.is_empty() || asked.iter().any(|a| a == name);
    let site = Site::new("ours");
    println!("{:28} {:>9} {:>9} {:>9} {:>9}", "boot", "firmware", "kernel on", "login", "MB TFTP");
    for _ in 0..ROUNDS {
        if wanted("ours") {
            let net = Net::new("ours", &[FENN.mac]);
            let dir = site.dir.join("site");
            let server = Server::start(&net, &dir, &["--dhcp", "authoritative", "--allow-incomplete"]);
            let mut machine = boot("gt-image", &net, &site);
            let metrics = ok(net.command("curl").args(["-s", &format!("http://{SERVER}:8080/metrics")]));
            let calls = metrics.lines().filter(|line| line.starts_with("gt_nfs_calls"));
            let calls: f64 = calls.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum();
            println!("{calls:.0} NFS calls");
            if asked.iter().any(|a| a == "explain") {
                explain(&mut machine, &site);
            }
            server.kill();
        }
        for (name, title) in [("peer", "dnsmasq, ganesha"), ("stock", "the same, stock root")] {
            if !wanted(name) {
                continue;
            }
            let site = Site::new(name);
            site.make_peer();
            let net = Net::new(name, &[FENN.mac]);
            let _servers = Peer::start(&net, &site);
            let mut machine = boot(title, &net, &site);
            if asked.iter().any(|a| a == "explain") {
                explain(&mut machine, &site);
            }
        }
    }
}

/// One whole boot, told as a line.
fn boot(name: &str, net: &Net, site: &Site) -> Machine {
    net.card(0).plug(true);
    let begun = Instant::now();
    let played = power_on(net.card(0), &FENN.board(), &Setup::default());
    let firmware = begun.elapsed();
    net.card(0).plug(false);
    let bytes = played.bytes();
    let loaded = loaded(played);
    let at = |name: &str| site.dir.join(name);
    let (kernel, initramfs, console) = (at("kernel"), at("initramfs"), at("console.log"));
    fs::write(&kernel, &loaded.kernel.bytes).unwrap();
    fs::write(&initramfs, &loaded.initramfs.unwrap().bytes).unwrap();
    // As the kernel has it by itself.
    let cmdline = String::from_utf8(loaded.cmdline.unwrap().bytes).unwrap() + " kpti=on";
    let mut machine = Machine::start(&Boot {
        disks: &[],
        cores: 2,
        memory: MEMORY,
        network: Network::Tap { net, tap: "tap0", mac: FENN.mac, address: FENN.address },
        kernel: &kernel,
        initramfs: &initramfs,
        cmdline: &cmdline,
        console: &console,
    });
    machine.wait_for("login:", BOOT);
    let all = begun.elapsed();
    let [firmware, kernel, all] = [firmware, all - firmware, all].map(|d| d.as_secs_f64());
    println!("{name:28} {firmware:>7.1} s {kernel:>7.1} s {all:>7.1} s {:>9.1}", bytes as f64 / 1e6);
    machine
}

/// What systemd says of the boot.
fn explain(machine: &mut Machine, site: &Site) {
    let (identity, hosts) = (site.dir.join("identity"), site.dir.join("known_hosts"));
    fs::write(&hosts, ok(&mut site.gt_image(&["known-hosts"]))).unwrap();
    let script = "systemctl is-system-running --wait; systemd-analyze; systemd-analyze critical-chain serial-getty@ttyAMA0.service; systemd-analyze blame | head -40; \
                  dmesg | grep -E 'gt:|Queued'; systemctl --failed --no-legend";
    println!("{}", machine.ssh_ok(&identity, &hosts, FENN.name, script));
}

fn loaded(played: Played) -> Loaded {
    let requests = played.requests;
    played.result.unwrap_or_else(|e| panic!("{e}: {requests:#?}"))
}

/// Where everything of one contender lies: the description with its generation, and what a peer serves.
struct Site {
    dir: PathBuf,
}

impl Site {
    fn new(name: &str) -> Site {
        let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join("bench-boot").join(name);
        let ours = dir.join("site");
        fs::create_dir_all(ours.join("images")).unwrap();
        for name in ["cluster.toml", "overlays"] {
            run("cp", ["-a", repository().join(name).to_str().unwrap(), ours.to_str().unwrap()]);
        }
        for name in ["debian-trixie.toml", "debian-trixie.lock"] {
            fs::copy(repository().join("images").join(name), ours.join("images").join(name)).unwrap();
        }
        let site = Site { dir };
        let identity = site.dir.join("identity");
        if !identity.exists() {
            run("ssh-keygen", ["-q", "-t", "ed25519", "-N", "", "-f", identity.to_str().unwrap()]);
        }
        let cluster = fs::read_to_string(ours.join("cluster.toml")).unwrap();
        let key = fs::read_to_string(identity.with_extension("pub")).unwrap();
        let cluster = cluster.replacen("ssh_keys = []", &format!("ssh_keys = [\"{}\"]", key.trim()), 1);
        fs::write(ours.join("cluster.toml"), cluster).unwrap();
        if name == "stock" {
            let common = ours.join("overlays/common/overlay.toml");
            let text = fs::read_to_string(&common).unwrap();
            fs::write(&common, text.replace("    \"quick-boot\",\n", "")).unwrap();
        }
        ok(&mut site.gt_image(&["build", "--node", "fenn", "--raw", "--keep-going"]));
        site
    }

    fn gt_image(&self, args: &[&str]) -> Command {
        let mut command = gt_image();
        command.current_dir(self.dir.join("site")).arg("--cache").arg(repository().join("images/cache"));
        command.args(args);
        command
    }

    fn peer(&self, name: &str) -> PathBuf {
        self.dir.join("peer").join(name)
    }

    /// The image's root and boot partitions as folders, with the initramfs that Debian's own tool makes of
    /// them. Made again when the image is another one.
    fn make_peer(&self) {
        let manifest = fs::read(self.dir.join("site/images/out/fenn/manifest.json")).unwrap();
        let made = self.peer("manifest.json");
        if fs::read(&made).is_ok_and(|of| of == manifest) {
            return;
        }
        run("rm", ["-rf", self.dir.join("peer").to_str().unwrap()]);
        fs::create_dir_all(self.peer("mnt")).unwrap();
        let parsed: serde_json::Value = serde_json::from_slice(&manifest).unwrap();
        let root = parsed["partitions"].as_array().unwrap().iter().find(|p| p["label"] == "rootfs").unwrap();
        let (mnt, copy) = (self.peer("mnt"), self.peer("root"));
        let options = format!("ro,loop,offset={}", root["start"]);
        let image = self.dir.join("site/images/out/fenn/disk.img");
        run("mount", ["-o", &options, image.to_str().unwrap(), mnt.to_str().unwrap()]);
        run("cp", ["-a", mnt.to_str().unwrap(), copy.to_str().unwrap()]);
        run("umount", [mnt.to_str().unwrap()]);
        fs::write(copy.join("etc/fstab"), "").unwrap();
        let folder = self.peer(&format!("tftp/{:08x}", FENN.serial));
        fs::create_dir_all(folder.parent().unwrap()).unwrap();
        ok(&mut self.gt_image(&["export", "--node", "fenn", "--boot", folder.to_str().unwrap()]));
        let modules = fs::read_dir(copy.join("usr/lib/modules")).unwrap().next().unwrap().unwrap();
        let version = modules.file_name().into_string().unwrap();
        let make = format!(
            "mount --rbind /dev {0}/dev && mount -t proc proc {0}/proc && exec chroot {0} /usr/bin/env -i \
             PATH=/usr/sbin:/usr/bin:/sbin:/bin mkinitramfs -o /boot/initrd.img-{version} {version}",
            copy.display()
        );
        common::emulated(&make).unwrap();
        fs::copy(copy.join(format!("boot/vmlinuz-{version}")), folder.join("vmlinuz")).unwrap();
        fs::copy(copy.join(format!("boot/initrd.img-{version}")), folder.join("initrd.img")).unwrap();
        let config = "arm_64bit=1\nkernel=vmlinuz\ninitramfs initrd.img followkernel\n";
        fs::write(folder.join("config.txt"), config).unwrap();
        let ours = fs::read_to_string(folder.join("cmdline.netboot.txt")).unwrap();
        let kept = ours.split_whitespace().filter(|word| {
            !["gt.", "root=", "ro", "rw", "rootfstype="].iter().any(|stem| word.starts_with(stem))
        });
        let kept: Vec<&str> = kept.collect();
        let cmdline = format!(
            "{} root=/dev/nfs nfsroot={SERVER}:{},vers=3,tcp,nolock,port={NFS_PORT} rw ip=dhcp\n",
            kept.join(" "),
            copy.display()
        );
        fs::write(folder.join("cmdline.txt"), cmdline).unwrap();
        fs::write(made, manifest).unwrap();
    }
}

const NFS_PORT: u16 = 2049;

/// dnsmasq, and ganesha with its rpcbind; ended with the value.
struct Peer(Vec<Child>);

impl Peer {
    fn start(net: &Net, site: &Site) -> Peer {
        let mut peer = Peer(Vec::new());
        let mut dnsmasq = net.command("dnsmasq");
        dnsmasq.args(["--no-daemon", "--conf-file=/dev/null", "--port=0", "--pid-file=", "--user=root"]);
        dnsmasq.args(["--interface=br0", "--bind-interfaces", "--no-ping", "--dhcp-leasefile=/dev/null"]);
        dnsmasq.args(["--dhcp-range=10.4.0.0,static,255.255.240.0,1h", "--pxe-service=0,Raspberry Pi Boot"]);
        dnsmasq.arg(format!("--dhcp-host={},{},{}", FENN.mac, FENN.address, FENN.name));
        dnsmasq.arg("--enable-tftp").arg(format!("--tftp-root={}", site.peer("tftp").display()));
        peer.run(&mut dnsmasq);
        let config = site.peer("ganesha.conf");
        let text = format!(
            "NFS_CORE_PARAM {{ Protocols = 3; NFS_Port = {NFS_PORT}; Enable_NLM = false; Enable_RQUOTA = false;\n\
             Enable_UDP = false; }}\n\
             EXPORT {{ Export_Id = 1; Path = {0}; Pseudo = /x; Protocols = 3; Transports = TCP;\n\
             Access_Type = RW; Squash = No_Root_Squash; SecType = sys; FSAL {{ Name = VFS; }} }}\n",
            site.peer("root").display()
        );
        fs::write(&config, text).unwrap();
        let script = format!(
            "mount -t tmpfs tmpfs /run && rpcbind -f -w & sleep 2; exec ganesha.nfsd -F -f {} -L {} -p {}",
            config.display(),
            site.peer("ganesha.log").display(),
            site.peer("ganesha.pid").display()
        );
        // As the first process of its own, so that rpcbind ends with it.
        peer.run(net.command("unshare").args(["-m", "--pid", "--fork", "--kill-child", "sh", "-c", &script]));
        let url = format!("nfs://{SERVER}{}?version=3", site.peer("root").display());
        let begun = Instant::now();
        while !net.command("nfs-ls").arg(&url).output().unwrap().status.success() {
            let log = fs::read_to_string(site.peer("ganesha.log")).unwrap_or_default();
            assert!(begun.elapsed() < Duration::from_secs(60), "ganesha does not answer:\n{log}");
            std::thread::sleep(Duration::from_millis(200));
        }
        peer
    }

    fn run(&mut self, command: &mut Command) {
        let quiet = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        self.0.push(quiet.spawn().unwrap());
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        for child in self.0.iter_mut().rev() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
