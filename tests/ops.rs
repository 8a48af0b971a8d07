//! The commands that operate a cluster, against a server of the test's own, and the units that run one.
//! Must not know: how the real server finds its answers. Spec: design.md sections 10, 11 and 13.

use std::collections::VecDeque;
use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, UdpSocket};
use std::sync::{Arc, Mutex};

use libtest_mimic::Trial;
use serde_json::{Value, json};

use crate::support::site::Site;
use crate::support::{Tier, fails, gt_image, ok, repository, run, trial};

pub fn trials() -> Vec<Trial> {
    vec![
        trial("ops::a_server_that_is_down_is_named", &[], a_server_that_is_down_is_named),
        trial("ops::status_is_shown", &[], status_is_shown),
        trial("ops::status_is_watched", &[], status_is_watched),
        trial("ops::adopt_writes_a_stranger", &[], adopt_writes_a_stranger),
        trial("ops::adopt_refuses", &[], adopt_refuses),
        trial("ops::rollback_moves_a_pointer", &[], rollback_moves_a_pointer),
        trial("ops::reset_reboots_and_waits", &[], reset_reboots_and_waits),
        trial("ops::reset_refuses", &[], reset_refuses),
        trial("ops::state_is_wiped_once_and_only_when_said", &[], state_is_wiped_once_and_only_when_said),
        trial("ops::doctor_names_who_has_a_port", &[], doctor_names_who_has_a_port),
        trial("ops::systemd_takes_the_units", &[Tier::Judge(&["systemd-analyze"])], systemd_takes_the_units),
    ]
}

/// Answers every request with the next of some statuses, then with the last again and again. The thread
/// ends with the test's process.
fn server(statuses: &[Value]) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let left: Arc<Mutex<VecDeque<Value>>> = Arc::new(Mutex::new(statuses.iter().cloned().collect()));
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let (mut stream, mut head) = (stream.unwrap(), Vec::new());
            while !head.ends_with(b"\r\n\r\n") {
                let mut byte = [0];
                if stream.read(&mut byte).unwrap_or(0) == 0 {
                    break;
                }
                head.push(byte[0]);
            }
            let mut left = left.lock().unwrap();
            let status = if left.len() > 1 { left.pop_front() } else { left.front().cloned() }.unwrap();
            let events = head.starts_with(b"GET /events");
            let body = if events {
                format!(": hi\n\nevent: status\ndata: {status}\n\n")
            } else {
                status.to_string()
            };
            let answer = format!(
                "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{body}",
                body.len()
            );
            stream.write_all(answer.as_bytes()).ok();
        }
    });
    format!("http://{address}")
}

/// The site's node `n1`, whose last boot is number `id`, and one stranger.
fn status(id: u64, outcome: &str) -> Value {
    let digest = format!("sha256:{}", "ab".repeat(32));
    json!({
        "now": 1_700_000_060_000_u64,
        "nodes": [{
            "name": "n1", "mac": "d8:3a:dd:00:00:01", "serial": "00000001", "address": "10.9.0.11",
            "generation": digest, "pinned": digest, "incomplete": false,
            "boots": [{
                "id": id, "began": 1_700_000_000_000_u64, "generation": digest, "ended": null, "outcome": outcome,
                "steps": [{ "step": "discover", "at_ms": 0 }, { "step": outcome, "at_ms": 31_200 }],
            }],
        }],
        "strangers": [{
            "mac": "dc:a6:32:01:36:c2", "serial": "5b154510", "revision": "c03111",
            "seen": { "first": 1_700_000_000_000_u64, "last": 1_700_000_000_000_u64, "count": 2 },
        }],
        "servers": [],
    })
}

fn a_server_that_is_down_is_named() {
    // Bound and closed again: nobody listens there.
    let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let url = format!("http://{address}");
    let stderr = fails(gt_image().args(["status", "--server", &url]), 1);
    assert!(stderr.starts_with(&format!("error: asking the server at `{url}`\n")), "{stderr}");
    assert!(stderr.contains("hint: start it there with `gt-image serve`"), "{stderr}");
    let site = Site::new();
    site.edit("cluster.toml", "server = \"10.9.0.2\"\n", "");
    let stderr = fails(&mut site.gt_image(["status"]), 1);
    assert!(stderr.contains("hint: add `server` to `[network]`, or name it with `--server URL`"), "{stderr}");
}

fn status_is_shown() {
    let url = server(&[status(7, "login")]);
    let text = ok(gt_image().args(["status", "--server", &url]));
    let want = "\
NODE  ADDRESS          GENERATION     LAST BOOT
n1    10.9.0.11        abababababab   login 1 min ago, took 31.200 s

strangers: they asked and are not in cluster.toml
  dc:a6:32:01:36:c2  serial 5b154510  c03111 (pi4)    2 times, last 1 min ago
  `gt-image adopt MAC --name NAME` makes one a node

n1: boot 7 of generation abababababab, login
  began 2023-11-14 22:13:20 UTC, 1 min ago; 0 B sent
     0.000 s  discover
    31.200 s  login
";
    assert_eq!(text, want);
    let json: Value =
        serde_json::from_str(&ok(gt_image().args(["status", "--server", &url, "--json"]))).unwrap();
    assert_eq!(json["nodes"][0]["boots"][0]["id"], 7);
    assert_eq!(json["strangers"][0]["seen"]["count"], 2);
    let stderr = fails(gt_image().args(["status", "--server", &url, "--node", "n2"]), 1);
    assert!(
        stderr.contains("the server has no node `n2`") && stderr.contains("did you mean `n1`?"),
        "{stderr}"
    );
}

fn status_is_watched() {
    let url = server(&[status(7, "booting"), status(7, "login")]);
    let mut command = gt_image();
    command.args(["status", "--server", &url, "--watch", "--json"]).stdout(std::process::Stdio::piped());
    let mut child = command.spawn().unwrap();
    let lines = std::io::BufRead::lines(std::io::BufReader::new(child.stdout.take().unwrap()));
    // The stream of this server ends after each event, so the second is one of a second connection.
    let seen: Vec<Value> = lines.take(2).map(|line| serde_json::from_str(&line.unwrap()).unwrap()).collect();
    child.kill().unwrap();
    child.wait().unwrap();
    let outcomes: Vec<&Value> =
        seen.iter().map(|status| &status["nodes"][0]["boots"][0]["outcome"]).collect();
    assert_eq!(outcomes, ["booting", "login"]);
}

/// The test itself has two of the server's ports.
fn doctor_names_who_has_a_port() {
    let site = Site::new();
    site.edit("cluster.toml", "root = \"disk\"", "root = \"nfs\"");
    let (nfs, tftp) = (TcpListener::bind("127.0.0.1:0").unwrap(), UdpSocket::bind("127.0.0.1:0").unwrap());
    let (nfs, tftp) =
        (nfs.local_addr().map(|a| (nfs, a.port())), tftp.local_addr().map(|a| (tftp, a.port())));
    let ((_nfs, nfs), (_tftp, tftp)) = (nfs.unwrap(), tftp.unwrap());
    let (nfs_port, tftp_port) = (nfs.to_string(), tftp.to_string());
    let doctor = || {
        let mut command = site.gt_image(["doctor", "--no-dhcp", "--server", "127.0.0.1"]);
        command.args(["--nfs-port", &nfs_port, "--tftp-port", &tftp_port]);
        command
    };
    let said = |command: &mut std::process::Command| {
        let output = command.output().unwrap();
        assert_eq!(output.status.code(), Some(1), "{}", crate::support::text(&output));
        String::from_utf8(output.stdout).unwrap()
    };
    let process = std::process::id();
    let name = fs::read_to_string(format!("/proc/{process}/comm")).unwrap();
    let held = format!("held by `{}` (process {process}) on 127.0.0.1", name.trim_end());

    let report: Value = serde_json::from_str(&said(doctor().arg("--json"))).unwrap();
    let findings = report["findings"].as_array().unwrap();
    for subject in [format!("TCP port {nfs} (NFS)"), format!("UDP port {tftp} (TFTP)")] {
        let finding = findings.iter().find(|finding| finding["subject"] == subject.as_str()).unwrap();
        assert_eq!((&finding["state"], &finding["found"]), (&json!("fault"), &json!(held)), "{finding}");
    }
    // Nothing answers there, nothing was built, and what was not asked is not told of.
    let silent =
        findings.iter().find(|f| f["subject"] == format!("TFTP at 127.0.0.1, UDP port {tftp}").as_str());
    assert_eq!(silent.unwrap()["state"], "fault");
    let files: Vec<&Value> = findings.iter().filter(|f| f["group"] == "boot files").collect();
    assert_eq!((files.len(), &files[0]["state"]), (1, &json!("unchecked")), "{files:?}");
    assert!(findings.iter().all(|f| !f["subject"].as_str().unwrap().contains("DHCP")), "{findings:?}");
    let faults = findings.iter().filter(|f| f["state"] == "fault").count();
    assert_eq!(report["counts"]["fault"], faults);

    let text = said(&mut doctor());
    assert!(text.starts_with("machine and server\n"), "{text}");
    assert!(
        text.contains(&format!("\n  fault      TCP port {nfs} (NFS)\n             found     held by `")),
        "{text}"
    );
    assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
    assert!(text.lines().last().unwrap().starts_with(&format!("{faults} faults, ")), "{text}");
    let stderr = fails(site.gt_image(["doctor"]).args(["--node", "n9"]), 1);
    assert!(stderr.contains("the cluster has no node `n9`"), "{stderr}");
    // An empty store is one that can be looked at.
    fs::create_dir_all(site.path("images/store")).unwrap();
    let text = said(&mut doctor());
    assert!(text.contains("  fault      boot files of node `n1`\n             found     none\n"), "{text}");
}

fn adopt_writes_a_stranger() {
    let site = Site::new();
    let url = server(&[status(7, "login")]);
    site.edit("cluster.toml", "dhcp = \"proxy\"", "dhcp   = 'proxy'  # beside the router");
    let before = fs::read_to_string(site.path("cluster.toml")).unwrap();
    let arguments = ["adopt", "5b154510", "--name", "n2", "--role", "role", "--server", &url];
    let added = "\n[[node]]\nname = \"n2\"\nroles = [\"role\"]\nip = \"10.9.0.12\"\nmac = \"dc:a6:32:01:36:c2\"\n\
                 serial = \"5b154510\"\nmodel = \"pi4\"\n";
    let text = ok(site.gt_image(arguments).arg("--dry-run"));
    assert!(text.starts_with("would add to `cluster.toml`:\n\n  [[node]]\n  name = \"n2\"\n"), "{text}");
    assert_eq!(fs::read_to_string(site.path("cluster.toml")).unwrap(), before, "a dry run wrote");
    let said: Value = serde_json::from_str(&ok(site.gt_image(arguments).arg("--json"))).unwrap();
    assert_eq!(
        (&said["address"], &said["model"], &said["written"]),
        (&json!("10.9.0.12"), &json!("pi4"), &json!(true))
    );
    assert_eq!(fs::read_to_string(site.path("cluster.toml")).unwrap(), format!("{before}{added}"));
    // Without a server, all facts by hand, into a file that a link leads to.
    fs::rename(site.path("cluster.toml"), site.path("real.toml")).unwrap();
    std::os::unix::fs::symlink("real.toml", site.path("cluster.toml")).unwrap();
    let by_hand =
        ["adopt", "d8:3a:dd:00:00:03", "--serial", "00000003", "--model", "pi5", "--ip", "10.9.0.77"];
    let text = ok(&mut site.gt_image(by_hand));
    assert!(text.contains("name = \"pi-00000003\"") && text.contains("it has no role yet"), "{text}");
    assert!(fs::symlink_metadata(site.path("cluster.toml")).unwrap().is_symlink());
    ok(&mut site.gt_image(["plan", "--node", "pi-00000003"]));
}

fn adopt_refuses() {
    let site = Site::new();
    let url = server(&[status(7, "login")]);
    let before = fs::read(site.path("cluster.toml")).unwrap();
    let facts = ["--mac", "d8:3a:dd:00:00:09", "--model", "pi4"];
    for (arguments, want) in [
        (&["adopt", "nonsense"][..], "`nonsense` names no machine"),
        (&["adopt", "d8:3a:dd:00:00:01"], "MAC address `d8:3a:dd:00:00:01` is that of node `n1` already"),
        (
            &["adopt", "00000001", facts[0], facts[1], facts[2], facts[3]],
            "serial number `00000001` is that of node `n1`",
        ),
        (&["adopt", "00000009", "--server", &url], "the server has seen no stranger `00000009`"),
        (
            &["adopt", "5b154510", "--server", &url, "--name", "n1"],
            "name `n1` is taken already at cluster.toml:19:8",
        ),
        (
            &["adopt", "5b154510", "--server", &url, "--role", "rol"],
            "unknown role `rol`; did you mean `role`?",
        ),
        (
            &["adopt", "5b154510", "--server", &url, "--ip", "10.9.1.1"],
            "address `10.9.1.1` is outside the subnet",
        ),
        (&["adopt", "5b154510", "--server", &url, "--name", "N 2"], "no node name"),
        (&["adopt", "5b154510", "--server", "http://127.0.0.1:9"], "asking the server"),
    ] {
        let stderr = fails(site.gt_image([]).args(arguments), 1);
        assert!(stderr.contains(want), "{arguments:?}: {stderr}");
        assert!(!stderr.contains(".gt-image-"), "{arguments:?} names a temporary file: {stderr}");
        assert_eq!(fs::read(site.path("cluster.toml")).unwrap(), before, "{arguments:?} wrote");
    }
    assert_eq!(
        fs::read_dir(site.path(""))
            .unwrap()
            .filter(|e| { e.as_ref().unwrap().file_name().to_string_lossy().starts_with(".gt-image-") })
            .count(),
        0,
        "a temporary file stays"
    );
}

/// The current generation of `n1`.
fn current(site: &Site) -> String {
    let rows: Value =
        serde_json::from_str(&ok(&mut site.gt_image(["inspect", "--node", "n1", "--json"]))).unwrap();
    let rows = rows.as_array().unwrap();
    rows.iter().find(|row| row["current"] == true).unwrap()["generation"].as_str().unwrap().to_owned()
}

fn rollback_moves_a_pointer() {
    let site = Site::new();
    let stderr = fails(&mut site.gt_image(["rollback", "--node", "n1"]), 1);
    assert!(stderr.contains("hint: run `gt-image build --node n1`"), "{stderr}");
    site.dump();
    let first = current(&site);
    let stderr = fails(&mut site.gt_image(["rollback", "--node", "n1"]), 1);
    assert!(stderr.contains("has no generation before the current one"), "{stderr}");
    site.write("overlays/role/files/etc/motd", "second\n");
    site.dump();
    let second = current(&site);
    assert_ne!(first, second);
    ok(&mut site.gt_image(["rollback", "--node", "n1", "--dry-run"]));
    assert_eq!(current(&site), second, "a dry run moved it");
    let text = ok(&mut site.gt_image(["rollback", "--node", "n1"]));
    assert_eq!(current(&site), first);
    let want = format!("{}  current before\n{}  current now\n", &second[..19], &first[..19]);
    assert!(text.starts_with(&want) && text.contains("at its next boot"), "{text}");
    let rows = ok(&mut site.gt_image(["rollback", "--node", "n1", "--to", &second[7..19], "--json"]));
    assert_eq!(current(&site), second);
    assert_eq!(serde_json::from_str::<Value>(&rows).unwrap().as_array().unwrap().len(), 2, "one was deleted");
    let stderr = fails(&mut site.gt_image(["rollback", "--node", "n1", "--to", "feed"]), 1);
    assert!(stderr.contains("there is no generation `n1@feed`"), "{stderr}");
}

/// A site whose `n1` boots from the network and is reset by making a file.
fn resettable() -> Site {
    let site = Site::new();
    site.edit("cluster.toml", "root = \"disk\"", "root = \"nfs\"");
    site.edit(
        "cluster.toml",
        "dhcp = \"proxy\"",
        "dhcp = \"proxy\"\nreset = [\"touch\", \"was-{{ node.name }}\"]",
    );
    site
}

fn reset_reboots_and_waits() {
    let site = resettable();
    let url = server(&[status(7, "login"), status(7, "login"), status(8, "booting"), status(8, "login")]);
    let output = site.gt_image(["reset", "--node", "n1", "--wait", "--server", &url]).output().unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{stderr}");
    assert!(site.path("was-n1").exists(), "the command was not run");
    assert!(stderr.contains("n1: boot 8 began\n     0.000 s  discover\n"), "{stderr}");
    assert!(!stderr.contains("boot 7"), "the boot before is none of ours: {stderr}");
    let url = server(&[status(8, "login"), status(9, "failed")]);
    let stderr = fails(&mut site.gt_image(["reset", "--node", "n1", "--wait", "--server", &url]), 1);
    assert!(stderr.contains("node `n1` did not come up: failed"), "{stderr}");
    let url = server(&[status(9, "failed")]);
    let stderr =
        fails(&mut site.gt_image(["reset", "--node", "n1", "--wait", "--timeout", "0", "--server", &url]), 1);
    assert!(stderr.contains("was not up after 0 s"), "{stderr}");
}

fn reset_refuses() {
    let site = resettable();
    let down = "http://127.0.0.1:9";
    let stderr = fails(&mut site.gt_image(["reset", "--node", "n1", "--server", down]), 1);
    assert!(stderr.contains("error: this reset is refused\n  cause: the server does not answer"), "{stderr}");
    assert!(stderr.contains("`--force`") && !site.path("was-n1").exists(), "{stderr}");
    ok(&mut site.gt_image(["reset", "--node", "n1", "--server", down, "--force"]));
    assert!(site.path("was-n1").exists());
    site.edit("cluster.toml", "\"touch\", ", "\"false\", ");
    let stderr = fails(&mut site.gt_image(["reset", "--node", "n1", "--server", down, "--force"]), 1);
    assert!(stderr.contains("`false was-n1` ended with exit status: 1"), "{stderr}");
    assert!(stderr.contains("hint: try the command by hand"), "{stderr}");
}

fn state_is_wiped_once_and_only_when_said() {
    let site = resettable();
    let url = server(&[status(7, "login")]);
    let wish = site.path("images/store/wipe/n1");
    let arguments = ["reset", "--node", "n1", "--state", "--server", &url];
    let mut asked = site.gt_image(arguments);
    let stderr = fails(asked.stdin(std::process::Stdio::null()), 1);
    assert!(
        stderr.contains("`n1` loses all that outlives a reboot") && stderr.contains("add `--yes`"),
        "{stderr}"
    );
    assert!(!wish.exists() && !site.path("was-n1").exists(), "it was done without a yes");
    ok(site.gt_image(arguments).arg("--yes"));
    let number: u64 = fs::read_to_string(&wish).unwrap().trim().parse().unwrap();
    assert!(number > 1_600_000_000_000, "{number}");
    // A node that did not reboot must not be wiped at some later boot.
    site.edit("cluster.toml", "\"touch\", ", "\"false\", ");
    fails(site.gt_image(arguments).arg("--yes"), 1);
    assert!(!wish.exists());
}

/// systemd reads them as it would, with a program that exists in place of ours.
fn systemd_takes_the_units() {
    let dir = tempfile::tempdir().unwrap();
    let mut units = Vec::new();
    for entry in fs::read_dir(repository().join("dist/systemd")).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|e| e == "service" || e == "socket") {
            let text = fs::read_to_string(&path).unwrap();
            let copy = dir.path().join(path.file_name().unwrap());
            fs::write(&copy, text.replace("ExecStart=gt-image ", "ExecStart=/bin/true ")).unwrap();
            units.push(copy);
        }
    }
    assert_eq!(units.len(), 9, "one service and eight sockets");
    let verify = || {
        let arguments = ["--man=no", "--recursive-errors=no", "verify"].map(Into::into);
        run("systemd-analyze", arguments.into_iter().chain(units.iter().map(|u| u.clone().into_os_string())))
    };
    verify();
    let service = dir.path().join("gt-image.service");
    // Above 2.0 a line of the hardening is gone; systemd itself calls this scale "exposure".
    run(
        "systemd-analyze",
        ["security", "--offline=true", "--threshold=20", "--no-pager", service.to_str().unwrap()],
    );
    // With what the edge's overlay adds.
    let added = repository().join("overlays/gt-image/files/etc/systemd/system");
    for folder in ["gt-image.service.d", "gt-image-.socket.d"] {
        let name = "50-goldentooth.conf";
        let text = fs::read_to_string(added.join(folder).join(name)).unwrap();
        fs::create_dir(dir.path().join(folder)).unwrap();
        fs::write(dir.path().join(folder).join(name), text.replace("/usr/bin/gt-image ", "/bin/true "))
            .unwrap();
    }
    assert_eq!(verify(), "");
}
