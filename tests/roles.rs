//! The shipped overlays: every template on every node beside its golden, and the rendered configurations
//! before the programs that will read them.
//! Must not know: how a template is rendered or a layer built. Spec: docs/overlay-format.md.
//!
//! After a change that is meant: `GT_IMAGE_BLESS=1 ./do test roles::` writes the goldens, and the diff is
//! read.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use gt_image::layer::overlay::Context;
use gt_image::overlay::{Description, Overlay};
use libtest_mimic::Trial;

use crate::netboot::Site;
use crate::support::net::Net;
use crate::support::{Tier, ok, repository, run, text, trial, which};

const PROGRAMS: &[Tier] = &[
    Tier::Archive,
    Tier::Root,
    Tier::Judge(&["qemu-aarch64-static", "tar", "ssh-keygen", "ip", "curl", "busybox"]),
];

pub fn trials() -> Vec<Trial> {
    vec![
        trial("roles::every_template_renders_as_its_golden_on_all_nodes", &[], goldens),
        trial("roles::configurations_are_taken_by_their_programs", PROGRAMS, programs),
    ]
}

/// What one template becomes, and on which nodes.
type Renderings = BTreeMap<String, Vec<String>>;

fn goldens() {
    let description = Description::load(&repository().join("cluster.toml")).unwrap();
    let mut found: BTreeMap<String, Renderings> = BTreeMap::new();
    for node in &description.cluster.nodes {
        let context = Context::new(&description.cluster, &description.overlays, node);
        for overlay in description.overlays.expand_node(node) {
            for (name, text) in templates(overlay) {
                let rendered = context.render(&name, &text).unwrap_or_else(|e| panic!("{}: {e}", node.name));
                found.entry(name).or_default().entry(rendered).or_default().push(node.name.to_string());
            }
        }
    }
    let folder = repository().join("tests/golden");
    let mut wrong = Vec::new();
    for (name, renderings) in &found {
        let (path, text) = (folder.join(name), written(renderings));
        if std::env::var_os("GT_IMAGE_BLESS").is_some() {
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, &text).unwrap();
        }
        // One that is not there is an empty one: its first difference is its first line.
        let golden = fs::read_to_string(&path).unwrap_or_default();
        wrong.extend(difference(&golden, &text).map(|line| format!("{}: {line}", path.display())));
    }
    assert_eq!(wrong, Vec::<String>::new(), "GT_IMAGE_BLESS=1 writes them anew");
    let there = run("find", [folder.to_str().unwrap(), "-type", "f", "-not", "-path", "*/golden/cli/*"])
        .lines()
        .count();
    assert_eq!(there, found.len(), "a golden whose template is gone");
}

/// The templates of an overlay: `<overlay>/<path>` and text.
fn templates(overlay: &Overlay) -> Vec<(String, String)> {
    let of = |path| overlay.files.iter().any(|entry| entry.template && *entry.path.tree() == path);
    let sources = overlay.sources.iter().filter(|source| of(source.path.clone()));
    let read = |path: &Path| fs::read_to_string(path).unwrap();
    sources.map(|s| (format!("{}{}", overlay.name, s.path), read(&s.source))).collect()
}

/// Each rendering once, below the nodes that have it.
fn written(renderings: &Renderings) -> String {
    let mut sections: Vec<String> =
        renderings.iter().map(|(text, nodes)| format!("==== {}\n{text}", nodes.join(" "))).collect();
    sections.sort();
    sections.join("\n")
}

fn difference(golden: &str, text: &str) -> Option<String> {
    let (mut old, mut new) = (golden.lines(), text.lines());
    for number in 1.. {
        match (old.next(), new.next()) {
            (None, None) => return (golden != text).then(|| "the last line break".to_owned()),
            (a, b) if a != b => return Some(format!("line {number}: golden {a:?}, now {b:?}")),
            _ => {}
        }
    }
    None
}

/// The edge's own arm64 programs, from its own root, by the emulator for programs.
fn programs() {
    let site = Site::new("roles");
    ok(&mut site.command(&["build", "--node", "allyrion", "--no-image", "--keep-going"]));
    let (root, tar) = (site.dir.join("root"), site.dir.join("root.tar"));
    fs::create_dir_all(&root).unwrap();
    ok(site.command(&["export", "--node", "allyrion", "--tar"]).arg(&tar));
    run("tar", ["-C", root.to_str().unwrap(), "-xf", tar.to_str().unwrap()]);
    for words in [
        &["usr/sbin/haproxy", "-c", "-f", "/etc/haproxy/haproxy.cfg"][..],
        &["usr/bin/promtool", "check", "config", "/etc/prometheus/prometheus.yml"],
        &["usr/local/bin/envoy", "--mode", "validate", "--config-path", "/etc/envoy/envoy.yaml"],
    ] {
        ok(&mut inside(&root, words));
    }
    // A program that takes anything would prove nothing.
    fs::write(root.join("etc/haproxy/haproxy.cfg"), "frontend without\n    bind nowhere\n").unwrap();
    let refused = inside(&root, &["usr/sbin/haproxy", "-c", "-f", "/etc/haproxy/haproxy.cfg"]).output();
    assert!(!refused.unwrap().status.success());
    envoy_shares(&root);
}

/// The edge's Envoy on a network with two nodes: it answers for itself, and passes requests to those that are
/// there and not to the eight that are not.
fn envoy_shares(root: &Path) {
    let net = Net::new("envoy", &["d8:3a:dd:89:c1:0b", "d8:3a:dd:89:ef:61"]);
    let mut running = Vec::new();
    for (n, address) in ["10.4.0.11", "10.4.0.15"].iter().enumerate() {
        net.card(n).configure(address);
        let answer = format!("printf 'HTTP/1.0 200 OK\\r\\n\\r\\nmeasured on {address}'");
        let mut exporter = net.card(n).command("busybox");
        exporter.args(["nc", "-ll", "-p", "9100", "-e", "sh", "-c", &answer]);
        running.push(Killed(exporter.spawn().unwrap()));
    }
    let mut envoy = net.command(which("qemu-aarch64-static").unwrap());
    envoy.arg("-L").arg(root).arg(root.join("usr/local/bin/envoy"));
    envoy.args(["--config-path", "/etc/envoy/envoy.yaml", "--disable-hot-restart", "--log-level", "error"]);
    running.push(Killed(envoy.spawn().unwrap()));
    let get = |path: &str| {
        let mut curl = net.command("curl");
        curl.args(["-s", "--max-time", "20", "--retry", "30", "--retry-connrefused", "--retry-delay", "1"]);
        text(&curl.arg(format!("http://127.0.0.1:10000{path}")).output().unwrap())
    };
    assert_eq!(get("/healthz"), "allyrion\n");
    let begun = Instant::now();
    let mut seen = BTreeSet::new();
    while seen.len() < 2 {
        let answer = get("/metrics");
        seen.extend(answer.strip_prefix("measured on ").map(str::to_owned));
        assert!(begun.elapsed() < Duration::from_secs(300), "{seen:?}, and last {answer:?}");
    }
}

/// A process that ends with the test.
struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A program of the root, which sees the root's files first.
fn inside(root: &Path, words: &[&str]) -> Command {
    let mut command = Command::new(which("qemu-aarch64-static").expect("checked by the tier"));
    command.arg("-L").arg(root).arg(root.join(words[0])).args(&words[1..]);
    command
}
