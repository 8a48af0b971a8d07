//! The edge's image as a netboot server: booted from its card, with the arm64 program of the package under the
//! package's own units, it serves a played Pi from the store on its state partition.
//! Must not know: how an image is made, how anything is served. Spec: docs/operating.md, "A server that is a
//! Raspberry Pi".

use std::fs;
use std::time::Duration;

use gt_netboot::pi::boot::Setup;
use libtest_mimic::Trial;

use crate::netboot::{Site, known_hosts};
use crate::support::net::{Net, SERVER};
use crate::support::qemu::{BOOT, Machine};
use crate::support::server::power_on;
use crate::support::{Tier, binary, ok, repository, run, text, trial};
use crate::trio::{EDGE, build, start, stick};
use crate::wire::{BETTLEY, MEBIBYTE, ROUTER, built, dir, right_bytes, router};

const WHOLE: &[Tier] = &[
    Tier::Archive,
    Tier::Root,
    Tier::Qemu,
    Tier::Judge(&["ip", "ssh", "dnsmasq", "mke2fs", "nfs-cat", "tar"]),
];

/// Two boots of an emulated machine, and a package that takes minutes to compile: asked for by `./do together`.
pub fn trials() -> Vec<Trial> {
    if std::env::var_os("GT_IMAGE_TOGETHER").is_none() {
        return Vec::new();
    }
    vec![trial("edge::its_image_serves", WHOLE, serves)]
}

/// Where the edge's server is, as its overlay says.
const PORTS: [&str; 6] = ["--nfs-port", "12049", "--mount-port", "12048", "--portmap-port", "10111"];

fn serves() {
    let package = repository().join("overlays/gt-image/gt-image_arm64.deb");
    assert!(package.exists(), "{} is not there: `./do deb arm64` makes it", package.display());
    let site = Site::new("edge");
    let known_hosts = known_hosts(&site);
    // What it serves: one node with a firmware and a kernel of noise, built here.
    let small = built(1, MEBIBYTE);
    let net = Net::new("edge", &[ROUTER.mac, BETTLEY.mac]);
    net.move_to("10.4.0.2");
    let _router = router(net.card(0), &site.dir.join("leases"), &[&EDGE, &BETTLEY]);
    let stick = stick(&site);
    build(&site, &EDGE);

    // The first life has nothing to serve, and nothing of it has failed.
    let mut machine = life(&site, &net, &stick);
    let ask = |machine: &mut Machine, command: &str| {
        machine.ssh_ok(&site.identity, &known_hosts, EDGE.name, command)
    };
    assert!(ask(&mut machine, "gt-image --version && uname -m").contains("aarch64"));
    let checks = ask(&mut machine, "/usr/lib/gt/check 2>&1 || true");
    assert!(checks.contains(" 0 failed"), "{checks}\n--- console:\n{}", machine.text());
    assert_eq!(ask(&mut machine, "systemctl --failed --no-legend --plain").trim(), "");
    assert_eq!(ask(&mut machine, "systemctl is-active gt-image || true").trim(), "inactive");
    bring(&site, &known_hosts, &small, &machine);
    ask(&mut machine, "systemctl start gt-image && systemctl is-active gt-image");
    let checks = ask(&mut machine, "/usr/lib/gt/check 2>&1 || true");
    assert!(checks.contains(" 0 failed"), "{checks}\n{}", ask(&mut machine, "journalctl -u gt-image"));
    ask(&mut machine, "systemd-run --on-active=1 systemctl reboot");
    machine.wait_for_end(Duration::from_secs(240));

    // The second one serves by itself what the first was given.
    let mut machine = life(&site, &net, &stick);
    ask(
        &mut machine,
        "for i in $(seq 120); do systemctl is-active -q gt-image && exit 0; sleep 1; done; exit 1",
    );
    let played = power_on(net.card(1), &BETTLEY.board(), &Setup::default());
    let log = |machine: &mut Machine| ask(machine, "journalctl -u gt-image --no-pager");
    let loaded =
        played.result.unwrap_or_else(|e| panic!("{e}: {:#?}\n{}", played.requests, log(&mut machine)));
    right_bytes(&small, &loaded);
    let line = String::from_utf8(loaded.cmdline.unwrap().bytes).unwrap();
    assert!(line.contains("gt.nfs_port=12049"), "{line}");
    let read = || {
        let url = format!("nfs://{SERVER}/bettley/etc/passwd?version=3&nfsport=12049&mountport=12048");
        net.card(1).command("nfs-cat").arg(url).output().unwrap()
    };
    let want = fs::read(small.path("root/etc/passwd")).unwrap();
    let answer = read();
    assert!(answer.stdout == want, "{}\n{}", text(&answer), log(&mut machine));
    // A restart of the server leaves a running node its root.
    ask(&mut machine, "systemctl restart gt-image");
    let answer = read();
    assert!(answer.stdout == want, "{}\n{}", text(&answer), log(&mut machine));
    // The kernel's own server is where it was.
    ask(&mut machine, "grep -q '+4.2' /proc/fs/nfsd/versions && exportfs -v | grep -q /mnt/usb1");
    let mut doctor = net.command(binary());
    doctor.current_dir(dir(&small)).args(["doctor", "--interface", "br0", "--no-dhcp"]).args(PORTS);
    ok(&mut doctor);
    assert_eq!(ask(&mut machine, "systemctl --failed --no-legend --plain").trim(), "");
}

/// Boots the edge from its card as that is now.
fn life(site: &Site, net: &Net, stick: &std::path::Path) -> Machine {
    let mut machine = start(site, net, &EDGE, "tap0", &[stick]);
    machine.wait_for("login:", BOOT);
    machine
}

/// Brings description, key and store to the edge, as its owner does (docs/operating.md).
fn bring(site: &Site, known_hosts: &std::path::Path, small: &crate::support::site::Site, machine: &Machine) {
    let (tar, from) = (site.dir.join("brought.tar"), dir(small));
    let words = ["-C", from.to_str().unwrap(), "-cf", tar.to_str().unwrap()];
    run("tar", words.into_iter().chain(["cluster.toml", "overlays", "secrets", "images/store"]));
    let take = "tar -C /srv/gt-image -x && chown -R gt-image: /srv/gt-image";
    machine.ssh_with(&site.identity, known_hosts, EDGE.name, &tar, take);
}
