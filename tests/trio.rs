//! An edge, a leader and a worker on one network, the first from its card and the others served, beside a router:
//! what they do for each other.
//! Must not know: how an image is made. Spec: docs/overlay-format.md, checks; overlays/README.md.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use libtest_mimic::Trial;

use crate::consul;
use crate::fenn;
use crate::netboot::{Site, known_hosts, power_on};
use crate::support::net::Net;
use crate::support::qemu::{BOOT, Boot, Machine, Network};
use crate::support::server::{Node, Server};
use crate::support::site::sha256;
use crate::support::{Tier, ok, run, stand_in, trial};
use crate::wire::{BETTLEY as LEADER, FENN as WORKER, ROUTER, router};

const WHOLE: &[Tier] = &[
    Tier::Archive,
    Tier::Root,
    Tier::Qemu,
    Tier::Judge(&["ip", "ssh", "dnsmasq", "mke2fs", "dpkg-deb", "gpgv", "tar"]),
];

/// The only boots of an edge and a leader, and of a worker from its own disk, and the programs of the roles before the
/// shipped configuration: what one boot of three shows is not booted for again elsewhere.
pub fn trials() -> Vec<Trial> {
    vec![trial("trio::an_edge_a_leader_and_a_worker_serve_each_other", WHOLE, together)]
}

pub const EDGE: Node = Node { name: "allyrion", mac: "d8:3a:dd:8a:7d:aa", serial: 0, address: "10.4.0.10" };
/// Where the server is, `0a040002` in hexadecimal: the edge has its own address.
const HOST: &str = "10.4.0.2";

/// How long a program on one node may take to see what happened on another.
const SOON: Duration = Duration::from_secs(240);

/// The cores of each machine.
const CORES: u32 = 1;

struct Trio {
    site: Site,
    known_hosts: PathBuf,
    machines: Vec<(Node, Machine)>,
    server: Server,
}

fn together() {
    let site = Site::new("trio");
    // As the machines are, for Slurm takes no node that has less than is stated.
    site.edit(|cluster| {
        for node in cluster["node"].as_array_mut().unwrap() {
            let node = node.as_table_mut().unwrap();
            node.insert("ram".into(), "1G".into());
            if node["name"].as_str() == Some(WORKER.name) {
                node.insert("roles".into(), vec!["worker", "chart-images"].into());
            }
            // One leader is started, and Consul waits for as many servers as there are leaders.
            if ["cargyll", "dalt"].contains(&node["name"].as_str().unwrap()) {
                node.insert("roles".into(), vec!["worker"].into());
            }
        }
    });
    as_the_machines_are(&site);
    chart_images(&site);
    stand_in_for_consul(&site);
    let net = Net::new("trio", &[ROUTER.mac, LEADER.mac, WORKER.mac]);
    net.move_to(HOST);
    let _router = router(net.card(0), &site.dir.join("leases"), &[&EDGE, &LEADER, &WORKER]);
    let stick = stick(&site);
    let known_hosts = known_hosts(&site);
    build(&site, &EDGE);
    for node in [LEADER, WORKER] {
        ok(&mut site.command(&["build", "--node", node.name, "--no-image", "--keep-going"]));
    }
    let edge = start(&site, &net, &EDGE, "tap0", &[stick.as_path()]);
    let server = Server::start_at(&net, &site.dir, HOST, &["--dhcp", "proxy", "--allow-incomplete"]);
    let mut machines = vec![(EDGE, edge)];
    for (card, node) in [(1, LEADER), (2, WORKER)] {
        let tap = format!("tap{card}");
        net.add_tap(&tap);
        machines.push((node, served(&site, &net, &server, &node, card, &tap)));
    }
    let mut trio = Trio { site, known_hosts, machines, server };
    for (_, machine) in &mut trio.machines {
        machine.wait_for("login:", BOOT);
    }
    for node in [LEADER, WORKER] {
        // The console has its prompt before the last service has started.
        trio.server.until_within(&format!("{:10} node   login\n", node.name), BOOT);
    }
    trio.shared_folder();
    trio.names();
    trio.load_balancer();
    trio.measurements();
    trio.proxy();
    trio.members();
    trio.catalogue();
    trio.job();
    trio.containers();
    trio.checks();
    trio.judges();
    trio.alone(&net);
}

/// An overlay of the owner's that brings images of containers, as docs/affordances.md says it, with an image of the
/// test's: the base's own busybox.
fn chart_images(site: &Site) {
    let overlay = site.dir.join("overlays/chart-images");
    let image = overlay.join("image");
    fs::create_dir_all(&image).unwrap();
    let at = |name: &str| image.join(name).to_str().unwrap().to_owned();
    fs::copy(fenn::kernel_root().join("usr/bin/busybox"), at("busybox")).unwrap();
    run("tar", ["-C", &at(""), "--owner=0", "--group=0", "-cf", &at("layer.tar"), "busybox"]);
    let layer = sha256(&image.join("layer.tar"));
    let config = format!(
        r#"{{"architecture":"arm64","os":"linux","config":{{}},
            "rootfs":{{"type":"layers","diff_ids":["sha256:{layer}"]}}}}"#
    );
    fs::write(at("config.json"), config).unwrap();
    let manifest = r#"[{"Config":"config.json","RepoTags":["example.test/chart:1"],"Layers":["layer.tar"]}]"#;
    fs::write(at("manifest.json"), manifest).unwrap();
    let archive = overlay.join("charts.tar");
    let words =
        ["-C", &at(""), "-cf", archive.to_str().unwrap(), "manifest.json", "config.json", "layer.tar"];
    run("tar", words);
    let text = "[[artifacts]]\nname = \"chart-images\"\npath = \"charts.tar\"\nmake = \"./images\"\n\
                licence = \"GPL-2.0-only\"\n\
                extract = [{ to = \"/var/lib/rancher/k3s/agent/images/charts.tar\" }]\n";
    fs::write(overlay.join("overlay.toml"), text).unwrap();
}

/// Slurm takes no node that has fewer cores than are stated.
fn as_the_machines_are(site: &Site) {
    let file = site.dir.join("overlays/slurm-config/files/etc/slurm/slurm.conf");
    let text = fs::read_to_string(&file).unwrap();
    assert!(text.contains("CPUs=4 ") && text.contains("CoresPerSocket=4 "), "{text}");
    let cores = format!("CPUs={CORES} ");
    let own =
        text.replace("CPUs=4 ", &cores).replace("CoresPerSocket=4 ", &format!("CoresPerSocket={CORES} "));
    fs::write(&file, own).unwrap();
}

/// Puts Debian's last Consul in the place of the one that the overlay pins, and in the lock, lest all packages be
/// resolved anew.
fn stand_in_for_consul(site: &Site) {
    let program = stand_in::consul(Some("arm64"));
    let edit = |file: &str, artifacts: &str, change: &dyn Fn(&mut toml::Table)| {
        let path = site.dir.join(file);
        let mut table: toml::Table = fs::read_to_string(&path).unwrap().parse().unwrap();
        let artifacts = table.get_mut(artifacts).and_then(toml::Value::as_array_mut);
        for artifact in artifacts.into_iter().flatten().filter_map(toml::Value::as_table_mut) {
            if artifact["name"].as_str() == Some("consul") {
                artifact.insert("url".into(), format!("file://{}", program.display()).into());
                artifact.insert("sha256".into(), sha256(&program).into());
                change(artifact);
            }
        }
        fs::write(path, toml::to_string(&table).unwrap()).unwrap();
    };
    edit("overlays/consul/overlay.toml", "artifacts", &|artifact| {
        let whole = toml::Table::from_iter([
            ("to".to_owned(), "/usr/local/bin/consul".into()),
            ("mode".to_owned(), "0755".into()),
        ]);
        artifact.insert("extract".into(), vec![whole].into());
        artifact.remove("size");
    });
    edit("images/debian-trixie.lock", "artifact", &|artifact| {
        artifact.insert("filename".into(), "consul".into());
        if artifact.contains_key("size") {
            let size = i64::try_from(fs::metadata(&program).unwrap().len()).unwrap();
            artifact.insert("size".into(), size.into());
        }
    });
    let server = site.dir.join("overlays/consul-server/files/etc/consul.d/server.hcl");
    fs::write(&server, consul::known(&fs::read_to_string(&server).unwrap())).unwrap();
}

/// The stick that the edge shares, with an empty filesystem of the label that it looks for.
pub fn stick(site: &Site) -> PathBuf {
    let stick = site.dir.join("stick.img");
    run("mke2fs", ["-q", "-t", "ext4", "-L", "usb1", stick.to_str().unwrap(), "64M"]);
    stick
}

/// Builds a node's image, and what a machine starts it with.
pub fn build(site: &Site, node: &Node) {
    ok(&mut site.command(&["build", "--node", node.name, "--raw", "--keep-going"]));
    for part in ["kernel", "initramfs", "cmdline"] {
        let file = site.dir.join(format!("{}.{part}", node.name));
        ok(site.command(&["export", "--node", node.name, &format!("--{part}")]).arg(file));
    }
}

/// Starts a machine with a node's image as it is now.
pub fn start(site: &Site, net: &Net, node: &Node, tap: &str, more: &[&Path]) -> Machine {
    let disk = disk(site, node);
    let disks: Vec<&Path> = [disk.as_path()].into_iter().chain(more.iter().copied()).collect();
    machine(site, net, node, tap, &disks)
}

fn disk(site: &Site, node: &Node) -> PathBuf {
    site.dir.join("images/out").join(node.name).join("disk.img")
}

/// Starts a machine without a disk, with what its firmware fetched from the server; the router gave the address.
fn served(site: &Site, net: &Net, server: &Server, node: &Node, card: usize, tap: &str) -> Machine {
    let (_, loaded) = power_on(net.card(card), node, server);
    for (part, file) in
        [("kernel", Some(loaded.kernel)), ("initramfs", loaded.initramfs), ("cmdline", loaded.cmdline)]
    {
        fs::write(site.dir.join(format!("{}.{part}", node.name)), file.unwrap().bytes).unwrap();
    }
    machine(site, net, node, tap, &[])
}

/// Starts a machine with the kernel, the initramfs and the command line that lie there for it.
fn machine(site: &Site, net: &Net, node: &Node, tap: &str, disks: &[&Path]) -> Machine {
    let at = |name: &str| site.dir.join(format!("{}.{name}", node.name));
    Machine::start(&Boot {
        disks,
        cores: CORES,
        memory: 1536,
        network: Network::Tap { net, tap, mac: node.mac, address: node.address },
        kernel: &at("kernel"),
        initramfs: &at("initramfs"),
        cmdline: &fs::read_to_string(at("cmdline")).unwrap(),
        console: &at("console.log"),
    })
}

impl Trio {
    fn ask(&mut self, node: &Node, command: &str) -> String {
        let (_, machine) = self.machines.iter_mut().find(|(n, _)| n.name == node.name).unwrap();
        machine.ssh_ok(&self.site.identity, &self.known_hosts, node.name, command)
    }

    /// Asks again until the answer is as wanted.
    fn until(&mut self, node: &Node, command: &str, wanted: &str) {
        let begun = Instant::now();
        loop {
            let answer = self.ask(node, &format!("{command} 2>&1 || true"));
            if answer.contains(wanted) {
                return;
            }
            assert!(begun.elapsed() < SOON, "{}: `{command}`: no {wanted:?} in {answer:?}", node.name);
            std::thread::sleep(Duration::from_secs(2));
        }
    }

    /// The edge exports, the worker mounts, and both see one file.
    fn shared_folder(&mut self) {
        self.until(&EDGE, "findmnt -no FSTYPE /mnt/usb1", "ext4");
        self.ask(&EDGE, "echo from-the-edge > /mnt/usb1/file");
        self.until(&WORKER, "cat /mnt/nfs/file", "from-the-edge");
    }

    /// A node is found by its mDNS name, which no server has: `hosts` knows only the full one.
    fn names(&mut self) {
        self.until(&WORKER, "getent hosts bettley.local", LEADER.address);
    }

    /// Whoever listens on a leader's API port is reached by the edge's.
    fn load_balancer(&mut self) {
        self.ask(&LEADER, "systemd-run --quiet busybox nc -ll -p 6443 -e echo the-api-of-bettley");
        let through = format!("timeout 10 bash -c 'cat < /dev/tcp/{}/6443'", EDGE.address);
        self.until(&WORKER, &through, "the-api-of-bettley");
    }

    /// Prometheus on the edge has a measurement from the worker.
    fn measurements(&mut self) {
        let query = "query=up%7Binstance=%22fenn%22,job=%22node%22%7D";
        let ask = format!("busybox wget -q -O - 'http://127.0.0.1:9090/api/v1/query?{query}'");
        self.until(&EDGE, &ask, ",\"1\"]");
    }

    /// Envoy on the edge answers for itself, and shares requests among the nodes that are there; seven are not.
    fn proxy(&mut self) {
        let get = |path: &str| format!("busybox wget -T 20 -q -O - http://{}:10000{path}", EDGE.address);
        self.until(&WORKER, &get("/healthz"), "allyrion");
        let ask = format!("{} | grep -m 1 ^node_uname_info", get("/metrics"));
        for node in [LEADER, WORKER] {
            self.until(&LEADER, &ask, &format!("nodename=\"{}\"", node.name));
        }
    }

    /// The leader's Consul and the two clients know each other, encrypted with the key that each was given.
    fn members(&mut self) {
        self.until(&WORKER, "consul members | grep -c ' alive '", "3\n");
        assert!(self.ask(&WORKER, "consul info").contains("encrypted = true"));
        self.until(&WORKER, "consul catalog nodes -service nfs", EDGE.address);
        self.until(&EDGE, "consul catalog nodes | grep -c ' 10\\.4\\.0\\.'", "3\n");
    }

    /// Every program of a node finds who is in the catalogue by name.
    fn catalogue(&mut self) {
        self.until(&WORKER, "getent hosts consul.service.consul", LEADER.address);
        self.until(&LEADER, "getent hosts nfs.service.consul", EDGE.address);
        self.until(&EDGE, "getent hosts fenn.node.consul", WORKER.address);
    }

    /// What lies where k3s looks for images is what containerd takes, which is what k3s loads them with.
    fn containers(&mut self) {
        let image = "/var/lib/rancher/k3s/agent/images/charts.tar";
        let runs = "ctr run --rm example.test/chart:1 chart /busybox echo out-of-the-image";
        let said = self.ask(&WORKER, &format!("ctr images import {image} >/dev/null && {runs}"));
        assert_eq!(said, "out-of-the-image\n");
    }

    /// The checks of all overlays of all three, asked as their owner asks.
    fn checks(&mut self) {
        let (_, machine) = &self.machines[0];
        let to = self.site.dir.join("checked.toml");
        machine.checkable(&self.site.identity, &self.site.dir.join("cluster.toml"), &to);
        let nodes = self.machines.iter().flat_map(|(node, _)| ["--node", node.name]);
        let words: Vec<&str> = ["--cluster", "checked.toml", "check"].into_iter().chain(nodes).collect();
        let said = ok(&mut self.site.command(&words));
        for (node, _) in &self.machines {
            let own = said.lines().filter(|line| line.split_whitespace().next() == Some(node.name));
            let own: Vec<&str> = own.collect();
            assert!(own.len() > 10 && own.iter().all(|line| line.contains("  ok  ")), "{said}");
        }
    }

    /// The edge's checks have these programs judge their configuration. One that takes anything would prove nothing.
    fn judges(&mut self) {
        let refused = |command: &str| format!("! {command} >/dev/null 2>&1");
        for command in [
            "haproxy -c -f /etc/hostname",
            "promtool check config /etc/hostname",
            "envoy --mode validate --config-path /etc/consul.d/consul.hcl",
        ] {
            self.ask(&EDGE, &refused(command));
        }
    }

    /// The worker starts alone from its own disk, too, and what it writes there is gone with it.
    fn alone(&mut self, net: &Net) {
        for node in [LEADER, WORKER] {
            // The layer below is mounted where only the kernel sees it.
            let root = self.ask(&node, "findmnt -no FSTYPE /; grep ^v3 /proc/fs/nfsfs/servers");
            assert!(root.starts_with("overlay\n") && root.contains(" 0a040002 "), "{root}");
        }
        self.machines.clear();
        build(&self.site, &WORKER);
        let disk = disk(&self.site, &WORKER);
        let before = sha256(&disk);
        let mut machine = start(&self.site, net, &WORKER, "tap2", &[]);
        machine.wait_for("login:", BOOT);
        self.machines.push((WORKER, machine));
        self.ask(&WORKER, "echo gone > /etc/written && sync && cat /etc/written");
        self.ask(&WORKER, "systemd-run --on-active=1 systemctl poweroff");
        let (_, machine) = &mut self.machines[0];
        machine.wait_for_end(Duration::from_secs(240));
        assert_eq!(sha256(&disk), before, "a life leaves no byte on the disk");
    }

    /// The leader's controller, whose state is on the edge's stick, runs a job on the worker.
    fn job(&mut self) {
        self.until(&LEADER, "timeout 60 srun --immediate=50 -w fenn hostname", "fenn\n");
    }
}
