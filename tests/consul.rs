//! The overlays of Consul before a real agent: three servers and a client, each with its node's files, users and
//! secrets in a network of the test's, form a cluster, whoever is reset is taken back, and the node's resolver knows
//! the catalogue's names.
//! Must not know: how overlays are laid on a node. Spec: overlays/consul; docs/affordances.md.
//!
//! The agent is Debian's last, 1.8.7: the release that the overlay pins is not in any archive of Debian's. The resolver
//! is the nodes' own release.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use gt_image::layer::identity::ClusterKey;
use gt_image::overlay::Description;
use libtest_mimic::Trial;

use crate::support::dnsmasq::Dnsmasq;
use crate::support::net::Net;
use crate::support::root::{Life, Root, Shell};
use crate::support::{Tier, ok, repository, run, stand_in, text, trial};
use crate::wire::{ROUTER, router_with};

const AGENT: &[Tier] =
    &[Tier::Archive, Tier::Root, Tier::Judge(&["ip", "unshare", "setpriv", "dpkg-deb", "gpgv", "dnsmasq"])];

pub fn trials() -> Vec<Trial> {
    vec![
        trial("consul::the_configuration_of_every_node_is_taken", AGENT, validated),
        trial("consul::servers_form_a_cluster_give_names_and_take_back_who_was_reset", AGENT, cluster),
    ]
}

/// Blocks of the shipped configuration that came after 1.8.7, left out for it here: `ui_config` is of 1.9. With
/// certificates there is also `tls`, of 1.12, which no test here has.
const LATER: &[&str] = &["ui_config"];

/// How long gossip, an election and autopilot may take on a busy machine.
const SOON: Duration = Duration::from_secs(180);

fn description() -> Description {
    Description::load(&repository().join("cluster.toml")).unwrap()
}

fn folder(name: &str) -> PathBuf {
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    run("rm", ["-rf", dir.to_str().unwrap()]);
    fs::create_dir_all(&dir).unwrap();
    dir
}

/// A node's root with Consul's overlay, as it is shipped but for [`LATER`].
fn root(dir: &Path, description: &Description, node: &str, overlay: &str) -> Root {
    let (key, _) = ClusterKey::load_or_make(&dir.join("cluster.key")).unwrap();
    let mut root = Root::new(&dir.join(node), description, &key, node, &[overlay]);
    root.bind(&stand_in::consul(None), "/usr/local/bin/consul");
    if overlay == "consul-server" {
        let file = "/etc/consul.d/server.hcl";
        root.put(file, known(&root.read(file)).as_bytes(), 0o644);
    }
    root
}

/// A server's configuration without what 1.8.7 does not know.
pub fn known(server: &str) -> String {
    LATER.iter().fold(server.to_owned(), |text, block| without(&text, block))
}

/// A configuration without one of its blocks, which must be there.
fn without(text: &str, block: &str) -> String {
    let start = text.find(&format!("\n{block} {{\n")).unwrap_or_else(|| panic!("no {block} in {text}"));
    let end = start + text[start..].find("\n}\n").unwrap();
    format!("{}\n{}", &text[..start], &text[end + 3..])
}

fn validated() {
    let (description, dir) = (description(), folder("consul-validate"));
    for node in &description.cluster.nodes {
        let names = description.overlays.expand_node(node);
        let has = |name: &str| names.iter().any(|o| o.name.as_str() == name);
        let overlay = if has("consul-server") { "consul-server" } else { "consul-client" };
        assert!(has(overlay), "{} has no Consul", node.name);
        let root = root(&dir, &description, node.name.as_str(), overlay);
        let script = format!(
            "mkdir -p /run/consul /opt/consul && /usr/lib/goldentooth/consul-prepare {} && \
             consul validate /etc/consul.d /run/consul/config",
            node.ip
        );
        let said = root.run(&script);
        assert!(said.status.success(), "{}: {}", node.name, text(&said));
        assert!(text(&said).contains("Configuration is valid"), "{}", text(&said));
        // A program that takes anything would prove nothing.
        root.put("/etc/consul.d/more.hcl", b"datacentre = \"dc1\"\n", 0o644);
        assert!(!root.run(&script).status.success());
    }
}

/// A node of the cluster: what it is made of, what it keeps, and its present life.
struct Member {
    name: String,
    root: Root,
    state: PathBuf,
    log: PathBuf,
    life: Option<Life>,
}

struct Cluster {
    net: Net,
    members: Vec<Member>,
}

fn cluster() {
    let (description, dir) = (description(), folder("consul"));
    let with = |overlay: &str| {
        let has = |node: &&gt_image::cluster::Node| {
            description.overlays.expand_node(node).iter().any(|o| o.name.as_str() == overlay)
        };
        description.cluster.nodes.iter().filter(has).collect::<Vec<_>>()
    };
    let servers = with("consul-server");
    let worker = with("consul-client").into_iter().find(|n| n.ip.to_string() != crate::support::net::SERVER);
    let nodes: Vec<_> = servers.iter().copied().chain(worker).collect();
    let macs: Vec<String> = nodes.iter().map(|n| n.mac.to_string()).chain([ROUTER.mac.to_owned()]).collect();
    let net = Net::new("consul", &macs.iter().map(String::as_str).collect::<Vec<_>>());
    let mut members = Vec::new();
    for (n, node) in nodes.iter().enumerate() {
        net.card(n).configure(&node.ip.to_string());
        let name = node.name.to_string();
        let overlay = if n < servers.len() { "consul-server" } else { "consul-client" };
        let mut root = root(&dir, &description, &name, overlay);
        let state = dir.join(&name).join("state");
        root.bind(&state, "/opt/consul");
        // Each name that it is asked for is in its log then.
        root.put("/etc/consul.d/log.hcl", b"log_level = \"debug\"\n", 0o644);
        let log = dir.join(&name).join("log");
        members.push(Member { name, root, state, log, life: None });
    }
    let mut cluster = Cluster { net, members };
    for n in 0..cluster.members.len() {
        cluster.wipe(n);
        cluster.boot(n);
    }
    let client = cluster.members.len() - 1;
    cluster.is_whole(client);
    let serf = cluster.ask(client, &["info"]);
    assert!(serf.contains("encrypted = true"), "{serf}");
    // What the client's node serves is in the servers' catalogue, from its own overlays.
    let slurmd = |services: &str| services.lines().any(|l| l.trim() == "slurmd");
    cluster.until(0, &["catalog", "services"], "the worker's service is told", slurmd);
    let mut names = Names::new(&cluster, client, &description, &dir);
    names.are_known(&cluster);
    cluster.write(client, "before");

    // One reset with its state kept, a metadata file too old for a start among it.
    let ids = cluster.ids(client);
    cluster.power_off(0, client);
    cluster.write(client, "meanwhile");
    let metadata = cluster.members[0].state.join("server_metadata.json");
    fs::write(&metadata, "{\"last_seen_unix\":1}").unwrap();
    run("touch", ["--date", "200 hours ago", metadata.to_str().unwrap()]);
    cluster.boot(0);
    cluster.is_whole(client);
    assert!(!metadata.exists(), "Consul 1.15 and later refuse to start with it");
    cluster.knows(0, "meanwhile");

    // Another with nothing left at all, and the client likewise.
    cluster.power_off(1, client);
    cluster.write(client, "again");
    cluster.wipe(1);
    cluster.boot(1);
    cluster.is_whole(client);
    cluster.knows(1, "again");
    cluster.power_off(client, 0);
    names.of_others_need_no_agent();
    cluster.wipe(client);
    cluster.boot(client);
    cluster.is_whole(client);
    cluster.knows(client, "again");
    assert_eq!(cluster.ids(client), ids, "who was reset is who he was");
    names.are_known(&cluster);

    // A younger metadata file is the agent's own business.
    fs::write(&metadata, "{\"last_seen_unix\":1}").unwrap();
    cluster.power_off(0, client);
    cluster.boot(0);
    cluster.is_whole(client);
    assert!(metadata.exists());
}

/// The resolver of a member's node, beside its agent, and the router with the names of all others.
struct Names {
    member: usize,
    own: String,
    shell: Shell,
    router: Dnsmasq,
}

impl Names {
    fn new(cluster: &Cluster, member: usize, description: &Description, dir: &Path) -> Names {
        let (node, card) = (&cluster.members[member].name, cluster.net.card(member));
        let far = cluster.net.card(cluster.members.len());
        let own = description.cluster.nodes.iter().find(|n| n.name.as_str() == node).unwrap();
        let lease = format!("--dhcp-host={},{}", own.mac, own.ip);
        // Its lease names no server of names: the description does.
        let more = "--dhcp-option=6 --port=53 --no-resolv --no-hosts --log-queries --address=/ordinary.example/10.9.9.9 \
                    --address=/printer.nodes.goldentooth.net/10.9.9.8";
        let more: Vec<&str> = more.split_whitespace().chain([&*lease]).collect();
        let router = router_with(far, &dir.join("leases"), &[], &more);
        let (key, _) = ClusterKey::load_or_make(&dir.join("cluster.key")).unwrap();
        let overlays = ["base-system", "mdns", "consul-client"];
        let at = dir.join("resolver");
        let root = Root::over(&stand_in::resolver(), &at, description, &key, node, &overlays);
        // The cable of a test is no hardware.
        let file = "/etc/systemd/network/10-wired.network";
        let text = root.read(file);
        assert!(text.contains("\nKind=!*\n"), "{text}");
        root.put(file, text.replace("\nKind=!*\n", "\n").as_bytes(), 0o644);
        // Read-only, so that networkd waits for no udev.
        let script = "mount -t sysfs -o ro sys /sys\nmkdir -p /run/systemd\n\
                      for program in networkd resolved; do /usr/lib/systemd/systemd-$program 2>/run/$program & done";
        Names { member, own: own.ip.to_string(), shell: root.shell(card, script), router }
    }

    fn address(&mut self, name: &str) -> Option<String> {
        let (said, status) = self.shell.ask(&format!("timeout 4 getent hosts {name}"));
        (status == 0).then(|| said.split_whitespace().next().unwrap_or_default().to_owned())
    }

    fn until(&mut self, name: &str, wanted: &[&str]) {
        let begun = Instant::now();
        loop {
            let found = self.address(name);
            if found.as_deref().is_some_and(|found| wanted.contains(&found)) {
                return;
            }
            let logs = "cat /run/networkd /run/resolved /run/systemd/resolve/resolv.conf";
            assert!(begun.elapsed() < SOON, "{name}: {found:?}\n{}", self.shell.ask(logs).0);
            std::thread::sleep(Duration::from_millis(500));
        }
    }

    /// The catalogue's names come from the agent, all others from the router, and neither is asked for the other's.
    fn are_known(&mut self, cluster: &Cluster) {
        self.until("consul.service.consul", &["10.4.0.11", "10.4.0.12", "10.4.0.13"]);
        self.until("bettley.node.consul", &["10.4.0.11"]);
        self.until("ordinary.example", &["10.9.9.9"]);
        self.until("printer", &["10.9.9.8"]);
        let before = self.router.log().lines().count();
        let own = self.own.clone();
        self.until(&format!("{}.node.consul", cluster.members[self.member].name), &[&own]);
        for name in ["ordinary.example", "printer", "no-such.example"] {
            self.address(name);
        }
        let told = fs::read_to_string(&cluster.members[self.member].log).unwrap();
        assert!(told.contains("name=consul.service.consul."), "the agent tells what it is asked: {told}");
        for name in ["ordinary", "printer", "no-such"] {
            assert!(!told.contains(&format!("name={name}")), "the agent was asked for {name}: {told}");
        }
        let asked: Vec<String> = self.router.log().lines().skip(before).map(str::to_owned).collect();
        assert!(asked.iter().any(|line| line.contains("no-such.example")), "{asked:#?}");
        // glibc tries names with the search domain behind them, and those are the router's.
        assert!(!asked.iter().any(|line| line.contains(".consul from")), "{asked:#?}");
        // What containers are given (k3s reads this file) knows no port, and so no agent.
        let (uplink, _) = self.shell.ask("cat /run/systemd/resolve/resolv.conf");
        let servers: Vec<&str> = uplink.lines().filter(|line| line.starts_with("nameserver ")).collect();
        assert_eq!(servers, ["nameserver 10.4.0.1"]);
    }

    /// Without the agent its names are unknown, and nobody else's.
    fn of_others_need_no_agent(&mut self) {
        assert_eq!(self.address("consul.service.consul"), None);
        self.until("ordinary.example", &["10.9.9.9"]);
        self.until("printer", &["10.9.9.8"]);
    }
}

impl Cluster {
    /// As `reset --state`, or a node without gt-state.
    fn wipe(&self, n: usize) {
        let state = self.members[n].state.to_str().unwrap();
        run("rm", ["-rf", state]);
        fs::create_dir_all(state).unwrap();
        // The mode and owner that the overlay's `persist` states.
        run("chown", ["904:904", state]);
    }

    fn boot(&mut self, n: usize) {
        let member = &mut self.members[n];
        member.life = Some(member.root.start(self.net.card(n), "consul.service", &member.log));
    }

    /// Cuts the power, and waits until another has noticed.
    fn power_off(&mut self, n: usize, witness: usize) {
        self.members[n].life = None;
        let name = self.members[n].name.clone();
        let failed = move |members: &str| {
            members.lines().any(|l| l.starts_with(&format!("{name} ")) && l.contains(" failed "))
        };
        self.until(witness, &["members"], "its failure is seen", failed);
    }

    /// All are alive, and all servers have a vote and a leader.
    fn is_whole(&self, witness: usize) {
        let (all, servers) = (self.members.len(), self.members.len() - 1);
        let alive = |members: &str| members.lines().filter(|l| l.contains(" alive ")).count() == all;
        self.until(witness, &["members"], "all are alive", alive);
        let peers = |peers: &str| {
            let votes = peers.lines().filter(|l| l.contains(" true ")).count();
            votes == servers && peers.lines().filter(|l| l.contains(" leader ")).count() == 1
        };
        self.until(witness, &["operator", "raft", "list-peers"], "all servers vote", peers);
    }

    /// Two of three are enough, once they have agreed who leads.
    fn write(&self, n: usize, value: &str) {
        self.until(n, &["kv", "put", "written", value], "it is written", |said| said.contains("Success"));
    }

    /// The node itself has what was written while it was away, without asking the leader.
    fn knows(&self, n: usize, value: &str) {
        self.until(n, &["kv", "get", "-stale", "written"], "the value came", |said| said.trim() == value);
    }

    /// Names and ids of all members.
    fn ids(&self, witness: usize) -> Vec<String> {
        let nodes = self.ask(witness, &["catalog", "nodes", "-detailed"]);
        nodes.lines().map(|l| l.split_whitespace().take(2).collect::<Vec<_>>().join(" ")).collect()
    }

    fn consul(&self, n: usize, words: &[&str]) -> Command {
        let mut command = self.net.card(n).command(stand_in::consul(None));
        command.args(words);
        command
    }

    fn ask(&self, n: usize, words: &[&str]) -> String {
        ok(&mut self.consul(n, words))
    }

    fn until(&self, n: usize, words: &[&str], what: &str, wanted: impl Fn(&str) -> bool) {
        let begun = Instant::now();
        loop {
            let said = text(&self.consul(n, words).output().unwrap());
            if wanted(&said) {
                return;
            }
            assert!(begun.elapsed() < SOON, "{what}: not so in\n{said}\n--- logs:\n{}", self.logs());
            std::thread::sleep(Duration::from_millis(500));
        }
    }

    /// The end of each member's log.
    fn logs(&self) -> String {
        let tail = |m: &Member| {
            let log = fs::read_to_string(&m.log).unwrap_or_default();
            let lines: Vec<&str> = log.lines().rev().take(25).collect();
            format!("{}:\n{}\n", m.name, lines.into_iter().rev().collect::<Vec<_>>().join("\n"))
        };
        self.members.iter().map(tail).collect()
    }
}
