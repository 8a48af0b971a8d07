//! Which resets are refused, and what is run.

use super::*;
use crate::serve::status::Step;

/// Nodes of the test's site: three leaders (one of which leads by way of another overlay), a worker that boots from its disk, and
/// the edge, which runs the server.
const NODES: [(&str, &str, &str, u8); 5] = [
    ("edge", "worker", "disk", 10),
    ("a", "leader", "nfs", 11),
    ("b", "chief", "nfs", 12),
    ("c", "leader", "disk", 13),
    ("w", "worker", "ram", 14),
];

fn site(reset: &str) -> Description {
    let dir = tempfile::tempdir().unwrap();
    for (name, text) in [
        ("leader", "[[persist]]\npath = \"/var/lib/etcd\"\n"),
        ("chief", "includes = [\"leader\"]\n"),
        ("worker", ""),
    ] {
        let folder = dir.path().join("overlays").join(name);
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(folder.join("overlay.toml"), text).unwrap();
    }
    let mut text = format!(
        "[cluster]\nname = \"t\"\ndomain = \"t.net\"\nbase = \"b\"\n[network]\nsubnet = \"10.9.0.0/24\"\nserver = \"10.9.0.10\"\n{reset}\n"
    );
    for (name, role, root, last) in NODES {
        text.push_str(&format!(
            "[[node]]\nname = \"{name}\"\nroles = [\"{role}\"]\nip = \"10.9.0.{last}\"\nmac = \"d8:3a:dd:00:00:{last}\"\nserial = \"000000{last}\"\nroot = \"{root}\"\n"
        ));
    }
    let file = dir.path().join("cluster.toml");
    std::fs::write(&file, text).unwrap();
    Description::load(&file).unwrap_or_else(|report| panic!("{report}"))
}

fn boot(id: u64, outcome: Outcome, steps: usize) -> Boot {
    let step = |n: usize| Step { step: "file".into(), at_ms: n as u64, detail: format!("f{n}"), bytes: 0 };
    let steps = (0..steps).map(step).collect();
    Boot { id, began: 0, generation: "sha256:ab".into(), steps, ended: None, outcome }
}

/// All nodes with a generation; those named here have booted.
fn status(boots: &[(&str, Outcome)]) -> Status {
    let node = |name: &str| status::Node {
        name: name.into(),
        generation: Some("sha256:ab".into()),
        boots: boots.iter().filter(|(n, _)| *n == name).map(|(_, o)| boot(1, *o, 0)).collect(),
        ..status::Node::default()
    };
    Status { nodes: NODES.iter().map(|(name, ..)| node(name)).collect(), ..Status::default() }
}

fn ask(names: &[&str], status: Option<&Status>) -> Vec<String> {
    let description = site("");
    let nodes: Vec<&Node> = names.iter().map(|name| description.cluster.node(name).unwrap()).collect();
    objections(&description, &nodes, status)
}

#[test]
fn two_leaders_are_never_down_at_once() {
    use Outcome::{Booting, Failed, Login, Running, TimedOut};
    let with = |a, b| status(&[("a", a), ("b", b)]);
    // `c` boots from its own disk: the server does not see it, and cannot speak against it.
    assert_eq!(ask(&["a"], Some(&with(Login, Login))), [""; 0]);
    assert_eq!(ask(&["c"], Some(&with(Login, Login))), [""; 0]);
    for (other, why) in [
        (Booting, "is booting"),
        (Running, "is booting"),
        (Failed, "did not come up at its last boot"),
        (TimedOut, "did not come up at its last boot"),
    ] {
        let want = [format!("`a` is a leader, and leader `b` {why}")];
        assert_eq!(ask(&["a"], Some(&with(Login, other))), want);
        assert_eq!(ask(&["w"], Some(&with(Login, other))), [""; 0], "a worker costs no quorum");
    }
    assert_eq!(
        ask(&["b"], Some(&status(&[("b", Login)]))),
        ["`b` is a leader, and leader `a` was never seen to boot"]
    );
    assert_eq!(
        ask(&["b", "w", "c"], Some(&with(Login, Login))),
        ["`b`, `c` are leaders: one at a time, or the quorum is lost"]
    );
}

#[test]
fn a_node_must_have_something_to_boot() {
    assert_eq!(ask(&["w"], None), ["the server does not answer: `w` could not boot"]);
    assert_eq!(ask(&["w"], Some(&Status::default())), ["the server does not know `w`"]);
    let mut empty = status(&[]);
    empty.nodes[4].generation = None;
    assert_eq!(ask(&["w"], Some(&empty)), ["`w` has no generation: there is nothing to boot"]);
    // The edge boots from its disk.
    assert_eq!(ask(&["edge"], None), [""; 0]);
    let mut description = site("");
    description.cluster.nodes[0].root = RootMode::Nfs;
    let edge = description.cluster.nodes[0].clone();
    let found = objections(&description, &[&edge], Some(&status(&[])));
    assert_eq!(found, ["`edge` runs the server: nothing could boot from it, itself neither"]);
    assert_eq!(ask(&["a"], None).len(), 3, "no server: nothing to boot, and no word about two leaders");
}

#[test]
fn the_owners_command_is_rendered_for_the_node() {
    let description = site("reset = [\"ipmi\", \"--host={{ node.name }}\", \"{{ node.ip }}\"]");
    let w = description.cluster.node("w").unwrap();
    assert_eq!(command(&description, w).unwrap(), ["ipmi", "--host=w", "10.9.0.14"]);
    let description = site("");
    let words = command(&description, description.cluster.node("w").unwrap()).unwrap();
    assert_eq!(words[5..], ["root@10.9.0.14", "systemctl", "reboot"]);
    let description = site("reset = [\"x\", \"{{ nod.ip }}\"]");
    let error = command(&description, description.cluster.node("w").unwrap()).unwrap_err();
    assert!(format!("{error:#}").contains("nod"), "{error:#}");
}

#[test]
fn commands_that_fail_are_shown_as_they_were_run() {
    let words = |text: &str| text.split(' ').map(str::to_owned).collect::<Vec<_>>();
    assert!(run(&words("true")).is_ok());
    let error = format!("{:#}", run(&words("sh -c false")).unwrap_err());
    assert!(error.contains("`sh -c false` ended with exit status: 1") && error.contains("hint: "), "{error}");
    let error = format!("{:#}", run(&words("/no/such/program x")).unwrap_err());
    assert!(error.starts_with("running `/no/such/program x`"), "{error}");
}

#[test]
fn what_wiping_means_is_said() {
    let description = site("");
    let text = loss(&description, description.cluster.node("b").unwrap());
    assert!(text.contains("  /var/lib/etcd (overlay leader)\n"), "{text}");
    for line in text.lines() {
        assert!(line.chars().count() <= 80, "{line}");
    }
}

#[test]
fn each_step_is_shown_once() {
    let mut shown = None;
    let lines = |boot: &Boot, shown: &mut Option<(u64, usize)>| {
        news("w", boot, shown)
            .lines()
            .map(|l| l.split_whitespace().last().unwrap().to_owned())
            .collect::<Vec<_>>()
    };
    assert_eq!(lines(&boot(2, Outcome::Booting, 0), &mut shown), ["began"]);
    assert_eq!(lines(&boot(2, Outcome::Booting, 0), &mut shown), [""; 0]);
    assert_eq!(lines(&boot(2, Outcome::Booting, 2), &mut shown), ["f0", "f1"]);
    assert_eq!(lines(&boot(2, Outcome::Login, 3), &mut shown), ["f2"]);
    // A second boot begins at its first step.
    assert_eq!(lines(&boot(3, Outcome::Booting, 1), &mut shown), ["began", "f0"]);
}

#[test]
fn only_a_boot_after_the_reset_counts() {
    let node = status::Node { boots: vec![boot(5, Outcome::Login, 0)], ..status::Node::default() };
    assert!(newer(&node, Some(5)).is_none());
    assert_eq!(newer(&node, Some(4)).map(|boot| boot.id), Some(5));
    assert_eq!(newer(&node, None).map(|boot| boot.id), Some(5));
    assert!(newer(&status::Node::default(), None).is_none());
}
