//! `gt-image check` with a command of the test's own in the place of ssh.
//! Must not know: how a node runs its checks. Spec: docs/operating.md, "Checks".

use std::fs;
use std::time::{Duration, Instant};

use gt_image::layer::identity::ClusterKey;
use libtest_mimic::Trial;
use serde_json::Value;

use crate::support::site::Site;
use crate::support::{fails, ok, trial};

pub fn trials() -> Vec<Trial> {
    vec![
        trial("check::all_pass", &[], all_pass),
        trial("check::a_failed_check_names_its_overlay", &[], a_failed_check_names_its_overlay),
        trial("check::a_node_that_does_not_answer_is_told", &[], a_node_that_does_not_answer_is_told),
        trial("check::nodes_are_checked_at_once", &[], nodes_are_checked_at_once),
    ]
}

/// Two nodes whose role has two checks; each node's answer is the output of `NODE.sh`.
fn site() -> Site {
    let site = Site::new();
    let cluster = fs::read_to_string(site.path("cluster.toml")).unwrap();
    let (_, node) = cluster.split_once("[[node]]").unwrap();
    let second =
        node.replace("n1", "node2").replace(".11", ".12").replace("00:01", "00:02").replace("0001", "0002");
    site.write("cluster.toml", &format!("{cluster}\n[[node]]{second}"));
    site.edit(
        "cluster.toml",
        "dhcp = \"proxy\"",
        "dhcp = \"proxy\"\ncheck = [\"sh\", \"{{ node.name }}.sh\", \"{{ known_hosts }}\"]",
    );
    let below = "[[checks]]\nname = \"it is: up\"\ncommand = \"true\"\n";
    site.write("overlays/below/overlay.toml", below);
    let role = "includes = [\"below\"]\n[[checks]]\nname = \"it answers\"\ncommand = \"true\"\n";
    site.write("overlays/role/overlay.toml", role);
    site.write(
        "n1.sh",
        "echo ok 01-below-it-is-up it is: up; echo ok 02-role-it-answers it answers
                         echo gt-check: 2 passed, 0 failed; cp \"$1\" hosts\n",
    );
    ClusterKey::load_or_make(&site.path("secrets/cluster.key")).unwrap();
    site
}

fn all_pass() {
    let site = site();
    let text = ok(&mut site.gt_image(["check", "--node", "n1"]));
    assert_eq!(text, "n1  ok      below: it is: up\nn1  ok      role: it answers\n");
    let hosts = fs::read_to_string(site.path("hosts")).unwrap();
    assert_eq!(hosts, ok(&mut site.gt_image(["known-hosts", "--node", "n1"])));
    assert!(hosts.starts_with("n1,n1.nodes.test,10.9.0.11 ssh-ed25519 "), "{hosts}");
}

fn a_failed_check_names_its_overlay() {
    let site = site();
    site.write(
        "node2.sh",
        "echo ok 01-below-it-is-up it is: up; echo FAILED 02-role-it-answers it answers; echo '| why'; echo '| ok'
         echo gt-check: 1 passed, 1 failed; exit 1\n",
    );
    let output = site.gt_image(["check", "--node", "node2"]).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let (out, err) = (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap());
    let want = "node2  ok      below: it is: up\nnode2  FAILED  role: it answers\n               why\n               ok\n";
    assert_eq!(out, want);
    assert!(
        err.contains("error: 1 of 2 checks failed\n  cause: node `node2`, overlay `role`: it answers\n"),
        "{err}"
    );
    assert!(err.contains("hint: run `sh -x /usr/lib/gt/checks/02-role-it-answers` on `node2`"), "{err}");
    let output = site.gt_image(["check", "--all", "--json"]).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let rows: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(rows[0]["checks"].as_array().unwrap().len(), 2);
    let failed = &rows[1]["checks"][1];
    assert_eq!(
        (&failed["overlay"], &failed["passed"], &failed["output"]),
        (&"role".into(), &false.into(), &"why\nok\n".into())
    );
    // What a node says that was built before its checks had files to name.
    site.write(
        "node2.sh",
        "echo 'FAILED it is: up: late'; echo later; echo ok it answers; echo gt-check: 1 passed, 1 failed; exit 1\n",
    );
    let stderr = fails(&mut site.gt_image(["check", "--node", "node2"]), 1);
    assert!(stderr.contains("node `node2`, overlay `below`: it is: up\n"), "{stderr}");
}

fn a_node_that_does_not_answer_is_told() {
    let site = site();
    site.write("node2.sh", "echo connection refused >&2; exit 255\n");
    let stderr = fails(&mut site.gt_image(["check", "--node", "node2"]), 1);
    for want in [
        "connection refused",
        "error: not every check was run",
        "ended with exit status: 255",
        "[network] check",
    ] {
        assert!(stderr.contains(want), "no {want} in\n{stderr}");
    }
    site.write("node2.sh", "echo ok 01-below-it-is-up it is: up; exec sleep 60\n");
    let began = Instant::now();
    let stderr = fails(&mut site.gt_image(["check", "--node", "node2", "--timeout", "1"]), 1);
    assert!(stderr.contains("node `node2`: its checks were not done after 1 s"), "{stderr}");
    assert!(began.elapsed() < Duration::from_secs(30), "it was waited for");
    site.edit("cluster.toml", "[\"sh\", \"{{ node.name }}.sh\"", "[\"no-such-program\"");
    let stderr = fails(&mut site.gt_image(["check", "--node", "n1"]), 1);
    assert!(stderr.contains("running `no-such-program"), "{stderr}");
    site.edit("cluster.toml", "[\"no-such-program\"", "[\" \"");
    let stderr = fails(&mut site.gt_image(["check", "--node", "n1"]), 1);
    assert!(stderr.contains("the first word of `check` must be a program"), "{stderr}");
}

fn nodes_are_checked_at_once() {
    let site = site();
    // Each waits for the other's file.
    for (own, other) in [("n1", "node2"), ("node2", "n1")] {
        site.write(
            &format!("{own}.sh"),
            &format!(
                "touch {own}.here; until [ -e {other}.here ]; do sleep 0.1; done
                 echo ok 01-below-it-is-up it is: up; echo gt-check: 1 passed, 0 failed\n"
            ),
        );
    }
    let text = ok(&mut site.gt_image(["check", "--all", "--timeout", "60"]));
    let mut lines: Vec<&str> = text.lines().collect();
    lines.sort();
    assert_eq!(lines, ["n1     ok      below: it is: up", "node2  ok      below: it is: up"]);
}
