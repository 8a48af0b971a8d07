//! The whole way: simulated firmware fetches what a Pi would, the kernel in QEMU boots exactly those
//! bytes, mounts its root over NFS, comes up, is written to, reboots, and is pristine again.
//! Must not know: how anything is served. Spec: design.md sections 9, 10 and 13.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use gt_netboot::pi::boot::{Boot as Played, Loaded, Setup};
use libtest_mimic::Trial;

use crate::fenn::{Fenn, second};
use crate::support::net::{Card, Net};
use crate::support::qemu::{BOOT, Boot, Machine, Network};
use crate::support::server::{self, Node, Server};
use crate::support::{Tier, gt_image, ok, run, trial};
use crate::wire::FENN;

const WHOLE: &[Tier] = &[
    Tier::Archive,
    Tier::Root,
    Tier::Qemu,
    Tier::Judge(&["ip", "ssh", "getcap", "age-keygen", "sgdisk", "mke2fs"]),
];

pub fn trials() -> Vec<Trial> {
    vec![
        trial("netboot::a_node_is_reborn_over_nfs", WHOLE, reborn),
        trial("netboot::a_node_in_memory_outlives_its_server", WHOLE, outlives),
    ]
}

/// Asks every file of the root by itself: what stands in the way of one is then told.
const CAPABILITIES: &str = "find / -xdev -type f -print0 | xargs -0 /usr/sbin/getcap 2>&1 | sort";

/// A site with a store of its own, beginning as the one that all tests of fenn share.
pub struct Site {
    pub dir: PathBuf,
    pub identity: PathBuf,
}

impl Site {
    pub fn new(name: &str) -> Site {
        let fenn = Fenn::get();
        let dir = second(fenn, name);
        // Objects never change and all else is replaced whole, so hard links will do.
        let store = fenn.dir.join("images/store");
        run("cp", ["-al", store.to_str().unwrap(), dir.join("images").to_str().unwrap()]);
        run("rm", ["-rf", dir.join("images/store/serve").to_str().unwrap()]);
        // But for generations: their times say which is the newest, and a link shares them.
        let generations = dir.join("images/store/generations");
        run("rm", ["-rf", generations.to_str().unwrap()]);
        run("cp", ["-a", store.join("generations").to_str().unwrap(), generations.to_str().unwrap()]);
        let site = Site { dir, identity: fenn.identity.clone() };
        site.add_capability();
        site
    }

    /// A program with `cap_net_raw=ep`, as getxattr(2) gives it: NFSv3 carries no such thing.
    fn add_capability(&self) {
        let overlay = self.dir.join("overlays/motd");
        let program = overlay.join("files/usr/local/bin/capable");
        fs::create_dir_all(program.parent().unwrap()).unwrap();
        fs::write(&program, "#!/bin/sh\n").unwrap();
        let text = fs::read_to_string(overlay.join("overlay.toml")).unwrap();
        let file = "\n[[files]]\npath = \"/usr/local/bin/capable\"\nmode = \"0755\"\n\
                    xattrs = { \"security.capability\" = \"base64:AQAAAgAgAAAAAAAAAAAAAAAAAAA=\" }\n";
        fs::write(overlay.join("overlay.toml"), text + file).unwrap();
    }

    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = gt_image();
        let cache = crate::support::repository().join("images/cache");
        command.current_dir(&self.dir).arg("--cache").arg(cache).args(args);
        command
    }

    fn build(&self) {
        ok(&mut self.command(&["build", "--node", "fenn", "--no-image", "--keep-going"]));
    }

    /// Changes a line of `cluster.toml`.
    pub fn edit(&self, change: impl FnOnce(&mut toml::Table)) {
        let file = self.dir.join("cluster.toml");
        let mut cluster: toml::Table = fs::read_to_string(&file).unwrap().parse().unwrap();
        change(&mut cluster);
        fs::write(file, toml::to_string(&cluster).unwrap()).unwrap();
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            let _ = fs::remove_dir_all(&self.dir);
        }
    }
}

/// With NFS elsewhere than init looks by itself: a machine that exports its own disks has the usual port.
pub fn serve(net: &Net, site: &Site) -> Server {
    let elsewhere = ["--dhcp", "authoritative", "--allow-incomplete", "--nfs-port", "12049"];
    Server::start(net, &site.dir, &elsewhere)
}

/// Waits until the newest boot is as wanted.
pub fn wait_for_boot(
    net: &Net,
    site: &Site,
    node: &Node,
    wanted: impl Fn(&serde_json::Value) -> bool,
) -> serde_json::Value {
    let begun = Instant::now();
    loop {
        let found = server::node_status(net, &site.dir, node);
        if wanted(&found["boots"][0]) {
            return found;
        }
        assert!(begun.elapsed() < Duration::from_secs(120), "{found:#}");
        std::thread::sleep(Duration::from_millis(500));
    }
}

/// Plays the firmware on a card; gives the boot as it went and what a kernel gets.
pub fn power_on(card: &Card, node: &Node, server: &Server) -> (Played, Loaded) {
    card.plug(true);
    let played = server::power_on(card, &node.board(), &Setup::default());
    card.plug(false);
    server.whole(played)
}

/// Starts the machine with exactly the bytes that the firmware has.
pub fn start(net: &Net, site: &Site, node: &Node, loaded: &Loaded, memory: u32, disks: &[&Path]) -> Machine {
    let at = |name: &str| site.dir.join(name);
    fs::write(at("kernel"), &loaded.kernel.bytes).unwrap();
    fs::write(at("initramfs"), &loaded.initramfs.as_ref().unwrap().bytes).unwrap();
    let cmdline = String::from_utf8(loaded.cmdline.as_ref().unwrap().bytes.clone()).unwrap();
    let (kernel, initramfs, console) = (at("kernel"), at("initramfs"), at("console.log"));
    let mut machine = Machine::start(&Boot {
        disks,
        cores: 2,
        memory,
        network: Network::Tap { net, tap: "tap0", mac: node.mac, address: node.address },
        kernel: &kernel,
        initramfs: &initramfs,
        cmdline: &cmdline,
        console: &console,
    });
    machine.wait_for("login:", BOOT);
    machine
}

pub fn known_hosts(site: &Site) -> PathBuf {
    let path = site.dir.join("known_hosts");
    fs::write(&path, ok(&mut site.command(&["known-hosts"]))).unwrap();
    path
}

pub fn reboot(machine: &mut Machine, ask: impl Fn(&mut Machine, &str) -> String) {
    ask(machine, "systemd-run --on-active=1 systemctl reboot");
    machine.wait_for_end(Duration::from_secs(240));
}

/// A disk with `gt-state` and a key of the node on it, whose public half the server knows.
fn disk_with_key(site: &Site) -> PathBuf {
    let (disk, state, key) =
        (site.dir.join("state.img"), site.dir.join("state"), site.dir.join("state/node.age"));
    fs::create_dir_all(&state).unwrap();
    run("age-keygen", ["-o", key.to_str().unwrap()]);
    let nodes = site.dir.join("secrets/nodes");
    fs::create_dir_all(&nodes).unwrap();
    fs::write(nodes.join("fenn.age.pub"), run("age-keygen", ["-y", key.to_str().unwrap()])).unwrap();
    let file = fs::File::create(&disk).unwrap();
    file.set_len(64 << 20).unwrap();
    run("sgdisk", ["-n1:2048:+48M", "-c1:gt-state", disk.to_str().unwrap()]);
    let words = ["-q", "-t", "ext4", "-E", "offset=1048576", "-d", state.to_str().unwrap()];
    run("mke2fs", words.into_iter().chain([disk.to_str().unwrap(), "48M"]));
    disk
}

fn reborn() {
    let site = Site::new("netboot");
    site.build();
    let known_hosts = known_hosts(&site);
    let disk = disk_with_key(&site);
    let net = Net::new("nfs", &[FENN.mac]);
    let server = serve(&net, &site);
    let (played, loaded) = power_on(net.card(0), &FENN, &server);
    assert!(played.bytes() <= 20_000_000, "{} bytes by TFTP: {:#?}", played.bytes(), played.requests);
    assert!(played.requests.iter().all(|r| r.duplicates == 0), "{:#?}", played.requests);

    let mut machine = start(&net, &site, &FENN, &loaded, 2048, &[&disk]);
    let ask = |machine: &mut Machine, command: &str| {
        machine.ssh_ok(&site.identity, &known_hosts, FENN.name, command)
    };
    let checks = ask(&mut machine, "/usr/lib/gt/check 2>&1 || true");
    assert!(checks.contains(" 0 failed"), "{checks}\n--- console:\n{}", machine.text());
    assert_eq!(ask(&mut machine, "systemctl --failed --no-legend --plain").trim(), "", "failed units");
    // SSH took its host key, so what was sealed was opened.
    assert!(machine.text().contains("sealed to the key on /dev/vda1"), "{}", machine.text());
    assert_eq!(ask(&mut machine, "hostname").trim(), "fenn");
    assert_eq!(ask(&mut machine, "findmnt -no FSTYPE /").trim(), "overlay");
    let capabilities = ask(&mut machine, CAPABILITIES);
    assert_eq!(capabilities, capabilities_of(&site), "file capabilities are those of the tree");
    assert_eq!(ask(&mut machine, BEFOREHAND), "", "what the initramfs did in systemd's place");
    let first = wait_for_boot(&net, &site, &FENN, |boot| boot["outcome"] == "login");
    ask(&mut machine, "echo gone > /etc/written && sync");

    // Another generation and another life of the server leave a running node alone.
    let motd = site.dir.join("overlays/motd/files/etc/motd");
    let text = fs::read_to_string(&motd).unwrap();
    fs::write(&motd, format!("{text}second generation\n")).unwrap();
    site.build();
    server.kill();
    let server = serve(&net, &site);
    let seen = ask(
        &mut machine,
        "echo 3 > /proc/sys/vm/drop_caches; cat /etc/motd /etc/written; ls -R /usr/share | wc -l",
    );
    assert!(seen.contains("gone") && !seen.contains("second generation"), "{seen}\n{}", server.text());
    assert_eq!(server::node_status(&net, &site.dir, &FENN)["pinned"], first["pinned"]);
    reboot(&mut machine, ask);

    let (_, loaded) = power_on(net.card(0), &FENN, &server);
    let mut machine = start(&net, &site, &FENN, &loaded, 2048, &[&disk]);
    let seen = ask(&mut machine, "test -e /etc/written && echo there || echo reborn; cat /etc/motd");
    assert!(seen.contains("reborn") && seen.contains("second generation"), "{seen}");
    let second = wait_for_boot(&net, &site, &FENN, |boot| boot["outcome"] == "login");
    assert_ne!(second["pinned"], first["pinned"]);
    assert!(second["boots"].as_array().unwrap().len() == 2, "{second:#}");

    ok(&mut site.command(&["rollback", "--node", "fenn"]));
    reboot(&mut machine, ask);
    power_on(net.card(0), &FENN, &server);
    let third = server::node_status(&net, &site.dir, &FENN);
    assert_eq!(third["pinned"], first["pinned"], "{third:#}");
}

/// What differs once systemd's own programs do what the initramfs has done for them.
const BEFOREHAND: &str = r#"
    exec 2>&1
    udevadm settle
    nodes() { find /dev -xdev -exec stat -c '%n %F %a %U:%G %t:%T' {} + | sort; }
    nodes >/run/nodes
    mkdir -p /run/tmpfiles.d
    kmod static-nodes --format=tmpfiles --output=/run/tmpfiles.d/static-nodes.conf
    systemd-tmpfiles --prefix=/dev --create --boot
    # As in a boot: udev comes after, and gives a device the mode that its driver asks for (/dev/autofs).
    udevadm trigger --type=devices --action=add --subsystem-match=misc --settle
    nodes | diff /run/nodes -
    [ "$(grep -c '^c' /run/tmpfiles.d/static-nodes.conf)" -ge 10 ] || cat /run/tmpfiles.d/static-nodes.conf
    shown() { findmnt -no FSTYPE,OPTIONS "$1" | sed 's/size=[0-9]*k,//'; }
    for unit in tmp run-lock dev-hugepages dev-mqueue; do
        systemctl --quiet is-active "$unit.mount" || echo "$unit is not mounted"
        file=/usr/lib/systemd/system/$unit.mount
        of() { sed -n "s/%%/%/g; s/^$1=//p" "$file"; }
        mkdir -p /run/judge
        mount -t "$(of Type)" -o "$(of Options)" "$(of What)" /run/judge
        [ "$(shown /run/judge)" = "$(shown "$(of Where)")" ] || { echo "$unit:"; shown /run/judge; shown "$(of Where)"; }
        [ "$(stat -c %a:%u:%g /run/judge)" = "$(stat -c %a:%u:%g "$(of Where)")" ] || echo "$unit has other rights"
        umount /run/judge
    done
    systemctl --quiet is-active serial-getty@ttyAMA0.service || echo "no prompt"
    systemctl show -P BindsTo serial-getty@ttyAMA0.service | grep . && echo "the prompt waits for udev"
    true
"#;

/// `getcap -r /` as the tree's attributes tell it.
fn capabilities_of(site: &Site) -> String {
    let tar = site.dir.join("root.tar");
    ok(site.command(&["export", "--node", "fenn", "--tar"]).arg(&tar));
    let root = site.dir.join("root");
    fs::create_dir_all(&root).unwrap();
    let flags = ["--xattrs", "--xattrs-include=*", "--numeric-owner", "-xpf", tar.to_str().unwrap()];
    run("tar", ["-C", root.to_str().unwrap()].into_iter().chain(flags));
    let found = run("getcap", ["-r", root.to_str().unwrap()]);
    let mut lines: Vec<String> =
        found.lines().map(|line| format!("{}\n", line.replacen(root.to_str().unwrap(), "", 1))).collect();
    lines.sort();
    assert!(lines.iter().any(|line| line.contains("/usr/local/bin/capable cap_net_raw=ep")), "{lines:?}");
    remove(&root);
    remove(&tar);
    lines.concat()
}

pub fn remove(path: &Path) {
    run("rm", ["-rf", path.to_str().unwrap()]);
}

fn outlives() {
    let site = Site::new("netboot-ram");
    site.edit(|cluster| {
        let nodes = cluster["node"].as_array_mut().unwrap();
        let fenn = nodes.iter_mut().find(|n| n["name"].as_str() == Some("fenn")).unwrap();
        fenn.as_table_mut().unwrap().insert("root".into(), "ram".into());
    });
    site.build();
    let known_hosts = known_hosts(&site);
    let net = Net::new("ram", &[FENN.mac]);
    let server = serve(&net, &site);
    let (_, loaded) = power_on(net.card(0), &FENN, &server);
    let mut machine = start(&net, &site, &FENN, &loaded, 3072, &[]);
    wait_for_boot(&net, &site, &FENN, |boot| boot["outcome"] == "login");
    server.kill();
    let ask = |machine: &mut Machine, command: &str| {
        machine.ssh_ok(&site.identity, &known_hosts, FENN.name, command)
    };
    let seen = ask(
        &mut machine,
        "echo 3 > /proc/sys/vm/drop_caches; ls -R /usr | wc -l; systemctl --failed --no-legend --plain | wc -l",
    );
    let numbers: Vec<u64> = seen.split_whitespace().map(|n| n.parse().unwrap()).collect();
    assert!(numbers[0] > 10_000 && numbers[1] == 0, "{seen}");
    let capabilities = ask(&mut machine, CAPABILITIES);
    assert_eq!(capabilities, capabilities_of(&site));
    reboot(&mut machine, ask);
}
