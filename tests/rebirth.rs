//! What overlays run before their programs, in a node's root: identifiers, secrets as text, certificates in parts,
//! whom a Kubernetes server joins, and what Nomad, Consul and Vault are told.
//! Must not know: those programs; a script stands in for each. Spec: the scripts' own heads.

use std::path::{Path, PathBuf};

use gt_image::layer::identity::ClusterKey;
use gt_image::overlay::Description;
use libtest_mimic::Trial;
use serde_json::Value;

use crate::support::root::Root;
use crate::support::{Tier, repository, run, text, trial};

const SCRIPTS: &[Tier] = &[Tier::Root, Tier::Judge(&["unshare", "openssl", "shellcheck"])];

const UNITS: &[Tier] = &[Tier::Root, Tier::Judge(&["unshare", "systemd-analyze"])];

pub fn trials() -> Vec<Trial> {
    vec![
        trial("rebirth::identifiers_are_the_nodes_own_in_every_life", SCRIPTS, identifiers),
        trial("rebirth::a_kubernetes_server_founds_joins_or_goes_on", SCRIPTS, kubernetes),
        trial("rebirth::agents_are_told_what_no_image_holds", SCRIPTS, agents),
        trial("rebirth::scripts_have_no_fault", SCRIPTS, linted),
        trial("rebirth::systemd_finds_no_fault_in_the_units", UNITS, units),
    ]
}

fn root(name: &str, node: &str, overlay: &str) -> Root {
    roots(name, node, &[overlay])
}

fn roots(name: &str, node: &str, overlays: &[&str]) -> Root {
    let description = Description::load(&repository().join("cluster.toml")).unwrap();
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    std::fs::create_dir_all(&dir).unwrap();
    let (key, _) = ClusterKey::load_or_make(&dir.join("cluster.key")).unwrap();
    run("rm", ["-rf", dir.join(node).to_str().unwrap()]);
    Root::new(&dir.join(node), &description, &key, node, overlays)
}

/// What a script says on a life of its own.
fn says(root: &Root, script: &str) -> String {
    let output = root.run(&format!("set -e\nPATH=/usr/lib/goldentooth:$PATH\n{script}"));
    assert!(output.status.success(), "{script}: {}", text(&output));
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

fn identifiers() {
    let (fenn, jast) = (root("rebirth", "fenn", "rebirth"), root("rebirth", "jast", "rebirth"));
    let id = says(&fenn, "own id consul");
    assert_eq!(says(&fenn, "own id consul"), id, "in a second life");
    let parts: Vec<&str> = id.split('-').collect();
    assert_eq!(parts.iter().map(|p| p.len()).collect::<Vec<_>>(), [8, 4, 4, 4, 12], "{id}");
    assert!(parts[2].starts_with('8') && parts[3].starts_with('a'), "RFC 9562, version 8: {id}");
    let secret = says(&fenn, "own secret k3s");
    assert_eq!(secret.len(), 64);
    for other in
        [says(&jast, "own secret k3s"), says(&fenn, "own secret nomad"), says(&jast, "own id consul")]
    {
        assert!(other != secret && other != id);
    }
    // Another cluster key, another secret; and none without the seed, or without a machine-id.
    fenn.put("/etc/goldentooth/node-seed", &[7; 32], 0o400);
    assert_ne!(says(&fenn, "own secret k3s"), secret);
    assert!(!fenn.run("rm /etc/goldentooth/node-seed; /usr/lib/goldentooth/own secret k3s").status.success());
    assert!(!fenn.run(": >/etc/machine-id; /usr/lib/goldentooth/own id k3s").status.success());
    fenn.put("/secret", &[0, 255, 16, 10, 32, 65], 0o400);
    assert_eq!(says(&fenn, "secret-text /secret hex"), "00ff100a2041");
    assert_eq!(says(&fenn, "secret-text /secret base64"), "AP8QCiBB");
    fenn.put("/secret", b"K10ab::server:cd\n", 0o400);
    assert_eq!(says(&fenn, "secret-text /secret hex"), "K10ab::server:cd");
}

/// Says what k3s is started with, and what it would read.
const K3S: &[u8] = b"#!/bin/sh
echo \"k3s $*\"
for file in /run/goldentooth/k3s/* /etc/rancher/node/password; do
    grep -qxE '[0-9a-f]{64}' $file || echo \"$file is not in hex\"
done
";

fn kubernetes() {
    let start = |root: &Root, script: &str| {
        root.put("/usr/local/bin/k3s", K3S, 0o755);
        let unit = root.read("/etc/systemd/system/k3s.service");
        let line = unit.lines().find_map(|l| l.strip_prefix("ExecStart=")).unwrap().to_owned();
        let said = says(root, &format!("mkdir -p /run/goldentooth/k3s\nip link set lo up\n{script}\n{line}"));
        assert!(!said.contains("not in hex"), "{said}");
        said
    };
    let first = root("rebirth-k3s", "bettley", "k3s-server");
    let said = start(&first, "export K3S_FOUND_AFTER=0");
    assert!(said.ends_with("\nk3s server --cluster-init"), "{said}");
    let kept = "mkdir -p /var/lib/rancher/k3s/server/db/etcd/member/wal";
    assert_eq!(start(&first, kept), "k3s server");
    // A peer on this life's own loopback, which answers on the API's port.
    let peer = "ip address add 10.4.0.13/32 dev lo; busybox nc -ll -p 6443 -e true & sleep 1";
    let later = root("rebirth-k3s", "cargyll", "k3s-server");
    for root in [&first, &later] {
        let said = start(root, peer);
        assert!(said.ends_with("\nk3s server --server https://10.4.0.13:6443"), "{said}");
    }
    // Who is not the first founds nothing, however long nobody answers.
    let unit = later.read("/etc/systemd/system/k3s.service");
    let line = unit.lines().find_map(|l| l.strip_prefix("ExecStart=")).unwrap();
    let waits =
        later.run(&format!("mkdir -p /run/goldentooth/k3s; export K3S_FOUND_AFTER=0; timeout 6 {line}"));
    assert_eq!((waits.status.code(), text(&waits).as_str()), (Some(124), ""));
    let worker = root("rebirth-k3s", "fenn", "k3s-agent");
    assert_eq!(start(&worker, "test ! -e /etc/goldentooth/k3s/server-token"), "k3s agent");
}

/// A certificate with its key, and last the authority's, as an owner puts them together.
fn certificates(dir: &Path) -> (PathBuf, Vec<u8>, Vec<u8>) {
    std::fs::create_dir_all(dir).unwrap();
    let at = |name: &str| dir.join(name).to_str().unwrap().to_owned();
    let subject = |name: &str| format!("/CN={name}");
    let words = ["req", "-x509", "-newkey", "ed25519", "-nodes", "-days", "9", "-keyout"];
    run("openssl", words.iter().copied().chain([&*at("ca.key"), "-out", &at("ca"), "-subj", &subject("ca")]));
    let words = ["req", "-newkey", "ed25519", "-nodes", "-keyout"];
    run("openssl", words.iter().copied().chain([&*at("key"), "-out", &at("csr"), "-subj", &subject("node")]));
    let words = ["x509", "-req", "-days", "9", "-CAcreateserial", "-in"];
    let issued =
        [&*at("csr"), "-CA", &at("ca"), "-CAkey", &at("ca.key"), "-out", &at("cert")].map(str::to_owned);
    run("openssl", words.iter().map(|w| (*w).to_owned()).chain(issued));
    let read = |name: &str| std::fs::read(at(name)).unwrap();
    let ca = read("ca");
    (dir.to_owned(), [read("cert"), read("key"), ca.clone()].concat(), ca)
}

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|e| panic!("{e}: {text}"))
}

fn agents() {
    let (dir, whole, ca) = certificates(&Path::new(env!("CARGO_TARGET_TMPDIR")).join("rebirth-pem"));
    let same = |name: &str| std::fs::read_to_string(dir.join(name)).unwrap().trim().to_owned();

    let server = root("rebirth-agents", "bettley", "consul-server");
    server.put("/etc/goldentooth/consul/tls.pem", &whole, 0o400);
    server.put("/etc/goldentooth/consul/token", b"c0ffee\n", 0o400);
    let consul = "mkdir -p /run/consul /opt/consul; consul-prepare 10.4.0.11; cd /run/consul;";
    let told = |root: &Root, name: &str| json(&says(root, &format!("{consul} cat config/{name}.json")));
    assert_eq!(told(&server, "listen")["client_addr"], "127.0.0.1 10.4.0.11");
    assert_eq!(told(&server, "acl")["acl"]["tokens"]["agent"], "c0ffee");
    let tls = told(&server, "tls");
    assert_eq!(tls["tls"]["defaults"]["key_file"], "/run/consul/tls/key.pem");
    assert_eq!((&tls["auto_encrypt"]["allow_tls"], &tls["ports"]["https"]), (&true.into(), &8501.into()));
    for (part, file) in [("cert", "cert"), ("key", "key"), ("ca", "ca")] {
        assert_eq!(says(&server, &format!("{consul} cat tls/{part}.pem")), same(file));
    }
    let modes = says(&server, &format!("{consul} stat -c '%a %G' tls/key.pem config/gossip.json"));
    assert_eq!(modes, "640 consul\n640 consul");
    let client = root("rebirth-agents", "fenn", "consul-client");
    client.put("/etc/goldentooth/consul/tls.pem", &ca, 0o400);
    let tls = told(&client, "tls");
    assert_eq!((&tls["auto_encrypt"]["tls"], tls["tls"]["defaults"].get("cert_file")), (&true.into(), None));
    assert_eq!(told(&client, "listen")["client_addr"], "127.0.0.1");

    let nomad = "mkdir -p /run/nomad; nomad-prepare 10.4.0.15; cd /run/nomad;";
    let worker = root("rebirth-agents", "fenn", "nomad-client");
    let listen = json(&says(&worker, &format!("{nomad} cat config/listen.json")));
    assert_eq!(
        listen["addresses"]["http"], "127.0.0.1",
        "without certificates the API is for the node alone"
    );
    let ids = format!("{nomad} cat /opt/nomad/data/client/client-id /opt/nomad/data/client/secret-id");
    assert_eq!(says(&worker, &ids), says(&worker, &ids));
    assert!(says(&worker, &ids).lines().all(|id| id.len() == 36));
    worker.put("/etc/goldentooth/nomad/tls.pem", &whole, 0o400);
    worker.put("/etc/goldentooth/nomad/consul-token", b"c0ffee", 0o400);
    let tls = json(&says(&worker, &format!("{nomad} cat config/tls.json")));
    assert_eq!(
        (&tls["tls"]["verify_https_client"], &tls["addresses"]["http"]),
        (&true.into(), &"10.4.0.15".into())
    );
    assert_eq!(json(&says(&worker, &format!("{nomad} cat config/consul.json")))["consul"]["token"], "c0ffee");
    let leader = root("rebirth-agents", "bettley", "nomad-server");
    let gossip = json(&says(&leader, &format!("{nomad} cat config/gossip.json")));
    assert_eq!(gossip["server"]["encrypt"].as_str().unwrap().len(), 44, "32 bytes in base64");
    let kept = "mkdir -p /opt/nomad/data/server; cd /opt/nomad/data/server; echo old >serf.keyring; echo kept >node-id;";
    let left = says(
        &leader,
        &format!("{kept} {nomad} cd -; ls /opt/nomad/data/server; cat /opt/nomad/data/server/node-id"),
    );
    assert!(left.ends_with("node-id\nkept") && !left.contains("serf"), "{left}");

    let vault = root("rebirth-agents", "dalt", "vault");
    vault.put("/etc/goldentooth/vault/tls.pem", &whole, 0o400);
    let left = says(
        &vault,
        "mkdir -p /run/vault; vault-prepare; stat -c '%a %U %G' /run/vault/tls/key.pem /opt/vault/data/raft",
    );
    assert_eq!(left, "640 root vault\n750 vault vault");
}

fn linted() {
    let scripts = run("grep", ["-rl", "^#!/bin/sh", repository().join("overlays").to_str().unwrap()]);
    let scripts: Vec<&str> = scripts.lines().collect();
    assert!(scripts.len() >= 7, "{scripts:?}");
    run("shellcheck", scripts);
}

fn units() {
    for (node, overlays) in [
        ("bettley", &["consul-server", "nomad-server", "vault", "k3s-server", "envoy"][..]),
        ("fenn", &["consul-client", "nomad-client", "k3s-agent"]),
    ] {
        let root = roots("rebirth-units", node, overlays);
        for program in ["consul", "nomad", "vault", "k3s", "envoy"] {
            root.put(&format!("/usr/local/bin/{program}"), b"#!/bin/sh\n", 0o755);
        }
        let verify = "systemd-analyze verify --man=no";
        let units =
            "for u in consul nomad vault k3s envoy; do ls /etc/systemd/system/$u.service || true; done";
        let said = root.run(&format!("{verify} $({units} 2>/dev/null) 2>&1"));
        assert!(said.status.success() && said.stdout.is_empty(), "{node}: {}", text(&said));
        // A judge who finds fault with nothing would prove nothing.
        root.put("/etc/systemd/system/consul.service", b"[Service]\nExecStart=/none\nRestrt=always\n", 0o644);
        let said = root.run(&format!("{verify} /etc/systemd/system/consul.service"));
        assert!(text(&said).contains("Restrt"), "{}", text(&said));
    }
}
