use std::process::Command;

use super::*;
use crate::layer::overlay::tests::{World, world};

const SSH: &str = "[Unit]\nWantedBy=not.target\n[Install]\n# WantedBy=no.target\nWantedBy=multi-user.target \\\n  a.target\nAlias=sshd.service\n";

fn given() -> World {
    world(&[
        ("usr/lib/systemd/system/ssh.service", SSH),
        ("usr/lib/systemd/system/getty@.service", "[Install]\nWantedBy=getty.target\nDefaultInstance=tty1\n"),
        ("usr/lib/systemd/system/plain@.service", "[Install]\nWantedBy=a.target\nAlias=other@.service\n"),
        ("usr/lib/systemd/system/static.service", "[Service]\nExecStart=/bin/true\n"),
        ("usr/lib/systemd/system/pair.service", "[Install]\nAlso=pair.socket gone.socket pair.service\n"),
        ("usr/lib/systemd/system/pair.socket", "[Install]\nRequiredBy=%N-x.target\nUpheldBy=b.target\n"),
        ("usr/lib/systemd/system/odd.service", "[Install]\nWantedBy=%H.target\n"),
        (
            "usr/lib/systemd/system/reset.service",
            "[Install]\nWantedBy=a.target\nWantedBy=\nWantedBy=b.target\n",
        ),
        ("usr/lib/systemd/system/drop.service", "[Unit]\n"),
        ("etc/systemd/system/drop.service.d/10.conf", "[Install]\nWantedBy=etc.target\n"),
        ("usr/lib/systemd/system/drop.service.d/10.conf", "[Install]\nWantedBy=usr.target\n"),
        ("usr/lib/systemd/system/drop.service.d/20.conf", "[Install]\nWantedBy=two.target\n"),
        ("etc/systemd/system/own.service", "[Install]\nWantedBy=a.target\n"),
        ("@etc/systemd/system/masked.service", "/dev/null"),
        ("@usr/lib/systemd/system/alias.service", "ssh.service"),
        ("@etc/systemd/system/multi-user.target.wants/ssh.service", "/usr/lib/systemd/system/ssh.service"),
        ("@etc/systemd/system/sshd.service", "/usr/lib/systemd/system/ssh.service"),
        (
            "@etc/systemd/system/getty.target.wants/getty@tty1.service",
            "/usr/lib/systemd/system/getty@.service",
        ),
        ("@etc/systemd/system/sockets.target.wants/pair.socket", "/usr/lib/systemd/system/pair.socket"),
        ("usr/lib/systemd/system/gone.timer", ""),
    ])
}

fn shown(unit: &str) -> String {
    let world = given();
    let view = View::new(&world.tree, &world.store, 0);
    match enabled_links(unit, &view).unwrap() {
        Ok(links) => {
            let shown = |(path, target): (TreePath, String)| {
                let path = path.to_string().replace("/etc/systemd/system/", "");
                format!("{path} {}", target.replace("/usr/lib/systemd/system/", "~"))
            };
            links.into_iter().map(shown).collect::<Vec<_>>().join(", ")
        }
        Err(e) => e.to_string(),
    }
}

#[test]
fn enabling_makes_the_links_that_systemctl_makes() {
    for (unit, want) in [
        (
            "ssh.service",
            "sshd.service ~ssh.service, multi-user.target.wants/ssh.service ~ssh.service, \
             a.target.wants/ssh.service ~ssh.service",
        ),
        ("getty@.service", "getty.target.wants/getty@tty1.service ~getty@.service"),
        ("getty@ttyS0.service", "getty.target.wants/getty@ttyS0.service ~getty@.service"),
        (
            "plain@x.service",
            "other@x.service ~plain@.service, a.target.wants/plain@x.service ~plain@.service",
        ),
        (
            "pair.service",
            "pair-x.target.requires/pair.socket ~pair.socket, b.target.upholds/pair.socket ~pair.socket",
        ),
        ("reset.service", "b.target.wants/reset.service ~reset.service"),
        (
            "drop.service",
            "etc.target.wants/drop.service ~drop.service, two.target.wants/drop.service ~drop.service",
        ),
        ("own.service", "a.target.wants/own.service /etc/systemd/system/own.service"),
        ("plain@.service", "unit `plain@.service` is a template without a default instance: "),
        ("static.service", "unit `static.service` has nothing in [Install]"),
        ("none.service", "unit `none.service` does not exist on the node"),
        ("masked.service", "unit `masked.service` is masked by `/etc/systemd/system/masked.service`"),
        ("alias.service", "`alias.service` is an alias of unit `ssh.service`"),
        ("odd.service", "unit `odd.service` has `%H.target` in [Install]"),
    ] {
        let found = shown(unit);
        assert!(found == want || (found.starts_with(want) && !want.contains('~')), "{unit}: {found}");
    }
}

#[test]
fn disabling_takes_all_links_of_a_unit() {
    let world = given();
    let view = View::new(&world.tree, &world.store, 0);
    let place = crate::diagnostic::Place::at("o.toml", 3, 1);
    let links = |unit: &str| {
        let links = disabled_links(&unit.parse().unwrap(), &place, &view).map_err(|e| e.to_string());
        links.map(|l| l.iter().map(|p| p.to_string().replace("/etc/systemd/system/", "")).collect::<Vec<_>>())
    };
    assert_eq!(links("ssh.service").unwrap(), ["multi-user.target.wants/ssh.service", "sshd.service"]);
    assert_eq!(links("getty@.service").unwrap(), ["getty.target.wants/getty@tty1.service"]);
    assert_eq!(links("pair.service").unwrap(), ["sockets.target.wants/pair.socket"]);
    assert_eq!(links("masked.service").unwrap(), Vec::<String>::new());
    assert_eq!(
        links("none.service").unwrap_err(),
        "o.toml:3:1: unit `none.service` does not exist on the node"
    );
}

/// A machine with systemd is asked what it would have done with the same files: all its links are
/// ours and all ours are its.
#[test]
fn judge_systemctl_makes_the_same_links() {
    let Ok(version) = Command::new("systemctl").arg("--version").output() else {
        let required = std::env::var("GT_IMAGE_REQUIRE").unwrap_or_default();
        assert!(!required.split(',').any(|t| t == "judge"), "judge is required here: no systemctl");
        return;
    };
    let version = String::from_utf8_lossy(&version.stdout).into_owned();
    let version: u32 = version.split_whitespace().nth(1).and_then(|v| v.parse().ok()).unwrap_or(0);
    let units = ["ssh.service", "getty@.service", "getty@ttyS0.service", "plain@x.service", "reset.service"];
    for unit in units.into_iter().chain(["pair.service", "drop.service", "own.service"]) {
        let mut world = given();
        for path in ["multi-user.target.wants", "getty.target.wants", "sockets.target.wants", "sshd.service"]
        {
            world.tree.remove(&TreePath::new(format!("{CONFIG}/{path}")).unwrap());
        }
        let root = tempfile::tempdir().unwrap();
        world.unpack(root.path());
        let before = links_below(root.path());
        let option = format!("--root={}", root.path().display());
        let run = Command::new("systemctl").args([&option, "enable", unit]).output().unwrap();
        let made: BTreeSet<_> = links_below(root.path()).difference(&before).cloned().collect();
        let view = View::new(&world.tree, &world.store, 0);
        let ours = enabled_links(unit, &view).unwrap().unwrap();
        // systemd knows UpheldBy= since version 254.
        let ours =
            ours.into_iter().filter(|(path, _)| version >= 254 || !path.to_string().contains(".upholds"));
        let ours: BTreeSet<_> = ours.map(|(path, target)| (path.to_string(), target)).collect();
        assert_eq!(ours, made, "{unit}: {run:?}");
    }
}

/// All links below the configuration's directory, with their targets.
fn links_below(root: &std::path::Path) -> BTreeSet<(String, String)> {
    let mut todo = vec![root.join(CONFIG)];
    let mut found = BTreeSet::new();
    while let Some(dir) = todo.pop() {
        for path in std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()) {
            if let Ok(target) = path.read_link() {
                let path = path.strip_prefix(root).unwrap().display().to_string();
                found.insert((format!("/{path}"), target.display().to_string()));
            } else if path.is_dir() {
                todo.push(path);
            }
        }
    }
    found
}
