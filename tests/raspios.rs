//! Raspberry Pi OS as the base: an image in its layout, made of Debian's own arm64 packages, with packages laid on
//! top, booted from disk and over NFS, and compared with what was imported.
//! Must not know: how anything is made. Spec: design.md sections 6, 8, 9 and 13.
//!
//! The stand-in is honest in what it can be: kernel, modules and device trees are Debian's, for Raspberry Pi's archive
//! is on no mirror of Debian. The kernel is where theirs is, and is known by what it tells of itself. Its release
//! of systemd is called an older one, as in an image that is some months old, so that packages bring upgrades.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use gt_image::archive::tar_write;
use gt_image::store::Store;
use libtest_mimic::Trial;
use serde_json::Value;

use crate::netboot::{self, Site};
use crate::support::net::Net;
use crate::support::official;
use crate::support::qemu::{BOOT, Boot, Machine, Network};
use crate::support::site::sha256;
use crate::support::{Tier, fails, ok, run, trial};
use crate::wire::FENN;

const WHOLE: &[Tier] = &[
    Tier::Archive,
    Tier::Root,
    Tier::Qemu,
    Tier::Judge(&["ip", "ssh", "tar", "sfdisk", "mkfs.vfat", "mcopy", "mke2fs", "dd", "gzip"]),
];

pub fn trials() -> Vec<Trial> {
    vec![trial("raspios::packages_on_top_boot_from_disk_and_over_nfs", WHOLE, whole)]
}

/// Sectors of the root partition: 1.5 GiB, of which the stand-in takes half.
const ROOT_SECTORS: u64 = 3 << 20;

/// The role of the node: a package with scripts and a user of its own, and what logging in needs.
const ROLE: &str = "description = \"A node on Raspberry Pi OS.\"\nincludes = [\"base-system\", \"quick-boot\", \"openssh\", \"munge\"]\n";

/// The base. Raspberry Pi's archive cannot be reached where only Debian's mirror is.
fn base_of(image: &Path) -> String {
    let name = image.file_name().unwrap().to_str().unwrap();
    format!("kind = \"disk-image\"\npath = \"{name}\"\nsha256 = \"{}\"\n", sha256(image))
}

fn whole() {
    let site = Site::new("raspios");
    site.edit(|cluster| {
        let nodes = cluster["node"].as_array_mut().unwrap();
        nodes.retain(|node| node["name"].as_str() == Some("fenn"));
        let fenn = nodes[0].as_table_mut().unwrap();
        fenn.insert("roles".into(), vec!["plain"].into());
        fenn.insert("root".into(), "disk".into());
    });
    write(&site.dir.join("overlays/plain/overlay.toml"), "description = \"Nothing.\"\n");
    write(&site.dir.join("overlays/on-raspios/overlay.toml"), ROLE);
    let image = site.dir.join("images/official.img");
    make(&site, &image);
    site.edit(|cluster| {
        let fenn = cluster["node"][0].as_table_mut().unwrap();
        fenn.insert("roles".into(), vec!["on-raspios"].into());
        fenn.insert("base".into(), "raspi".into());
    });
    locked(&site, &image);
    ok(site.command(&["build", "--node", "fenn", "--raw", "--locked"]).arg("-v"));
    boot_files(&site);
    explained(&site);
    carried(&site);
    boots_from_disk(&site);
    boots_over_nfs(&site);
}

fn write(path: &Path, text: &str) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, text).unwrap();
}

/// Makes the stand-in from the packages of the base `debian-trixie`.
fn make(site: &Site, image: &Path) {
    ok(&mut site.command(&["build", "--node", "fenn", "--no-image"]));
    let folder = site.dir.join("official");
    let (root, boot) = (folder.join("root"), folder.join("boot"));
    fs::create_dir_all(&root).unwrap();
    fs::create_dir_all(boot.join("overlays")).unwrap();
    unpack(site, &root);
    let version = kernel_version(&root);
    // As Raspberry Pi's kernels are published: packed, and the only copy is on the boot partition.
    let kernel = root.join("boot").join(format!("vmlinuz-{version}"));
    run("sh", ["-c", &format!("gzip -9nc {} > {}", kernel.display(), boot.join("kernel8.img").display())]);
    fs::remove_file(kernel).unwrap();
    let firmware = root.join("usr/lib/raspi-firmware");
    let trees = root.join(format!("usr/lib/linux-image-{version}/broadcom"));
    run(
        "sh",
        [
            "-c",
            &format!(
                "cp -r {0}/. {1}; cp {2}/bcm2*.dtb {1}",
                firmware.display(),
                boot.display(),
                trees.display()
            ),
        ],
    );
    // Nobody may start these bytes.
    write(&boot.join("initramfs8"), "the image's own initramfs");
    write(&boot.join("initramfs_2712"), "the image's own initramfs");
    write(&boot.join("cmdline.txt"), official::CMDLINE);
    write(&boot.join("config.txt"), official::CONFIG);
    settle_packages(&root);
    first_boot(&root);
    official::image(image, &boot, &root, ROOT_SECTORS);
    write(&site.dir.join("images/raspi.toml"), &(base_of(image) + "without = [\"raspberrypi\"]\n"));
    run("rm", ["-rf", folder.to_str().unwrap()]);
}

/// The tree of the base itself, as files.
fn unpack(site: &Site, root: &Path) {
    let store = Store::open(&site.dir.join("images/store")).unwrap();
    let digest = store.current("fenn").unwrap().unwrap();
    let generation = store.generation("fenn", &digest).unwrap().unwrap();
    let manifest: Value = serde_json::from_slice(&generation.manifest).unwrap();
    let tree = store.tree(&manifest["base"]["tree"].as_str().unwrap().parse().unwrap()).unwrap();
    let tar = root.with_extension("tar");
    tar_write::write(&tree, &store, &mut fs::File::create(&tar).unwrap()).unwrap();
    let flags = ["--xattrs", "--xattrs-include=*", "--numeric-owner", "-xpf", tar.to_str().unwrap()];
    run("tar", ["-C", root.to_str().unwrap()].into_iter().chain(flags));
    fs::remove_file(tar).unwrap();
}

fn kernel_version(root: &Path) -> String {
    let mut found = fs::read_dir(root.join("usr/lib/modules")).unwrap();
    found.next().unwrap().unwrap().file_name().into_string().unwrap()
}

/// What an official image has of packages, and has not.
fn settle_packages(root: &Path) {
    for package in ["busybox-static", "systemd-resolved", "systemd-timesyncd"] {
        purge(root, package);
    }
    let status = root.join("var/lib/dpkg/status");
    let text = fs::read_to_string(&status).unwrap();
    let systemd = text.split("\n\n").find(|p| p.starts_with("Package: systemd\n")).unwrap();
    let version = systemd.lines().find_map(|line| line.strip_prefix("Version: ")).unwrap();
    fs::write(&status, text.replace(version, "257.1-1")).unwrap();
    let apt = root.join("etc/apt");
    let key = "/usr/share/keyrings/debian-archive-keyring.gpg";
    write(
        &apt.join("sources.list.d/debian.sources"),
        &format!(
            "Types: deb\nURIs: http://mirror.debian.org/debian/\nSuites: trixie trixie-updates\n\
             Components: main contrib non-free non-free-firmware\nSigned-By: {key}\n"
        ),
    );
    let security = "http://mirror.debian.org/debian-security/ trixie-security main";
    write(&apt.join("sources.list"), &format!("deb [signed-by={key}] {security}\n"));
    let raspi = "/usr/share/keyrings/raspberrypi-archive-keyring.pgp";
    write(&root.join(&raspi[1..]), "their key");
    let uri = "http://archive.raspberrypi.com/debian/";
    let text = format!("Types: deb\nURIs: {uri}\nSuites: trixie\nComponents: main\nSigned-By: {raspi}\n");
    write(&apt.join("sources.list.d/raspi.sources"), &text);
}

/// As `dpkg --purge` leaves it, but for what scripts would do.
fn purge(root: &Path, package: &str) {
    let dpkg = root.join("var/lib/dpkg");
    let list = fs::read_to_string(dpkg.join(format!("info/{package}.list"))).unwrap();
    for path in list.lines().map(|line| root.join(&line[1..])) {
        if !path.is_dir() || path.is_symlink() {
            fs::remove_file(path).unwrap();
        }
    }
    for entry in fs::read_dir(dpkg.join("info")).unwrap() {
        let path = entry.unwrap().path();
        if path.file_stem().is_some_and(|stem| stem == package) {
            fs::remove_file(path).unwrap();
        }
    }
    let text = fs::read_to_string(dpkg.join("status")).unwrap();
    let head = format!("Package: {package}\n");
    let left: Vec<&str> = text.trim_end().split("\n\n").filter(|p| !p.starts_with(&head)).collect();
    fs::write(dpkg.join("status"), left.join("\n\n") + "\n").unwrap();
}

/// What the image would do at its first boot; each of its units fails when it is started.
fn first_boot(root: &Path) {
    let units = root.join("usr/lib/systemd/system");
    let wants = root.join("etc/systemd/system/multi-user.target.wants");
    fs::create_dir_all(&wants).unwrap();
    for unit in ["rpi-resize", "regenerate_ssh_host_keys", "userconfig", "sshswitch", "cloud-init-main"] {
        let text = "[Service]\nType=oneshot\nExecStart=/bin/false\n[Install]\nWantedBy=multi-user.target\n";
        write(&units.join(format!("{unit}.service")), text);
        symlink(format!("/usr/lib/systemd/system/{unit}.service"), wants.join(format!("{unit}.service")))
            .unwrap();
    }
    write(&root.join("etc/cloud/cloud.cfg"), "");
    write(&root.join("etc/fstab"), official::FSTAB);
    write(&root.join("etc/hostname"), "raspberrypi\n");
    fs::remove_file(root.join("etc/machine-id")).ok();
    write(&root.join("etc/machine-id"), "uninitialized\n");
    write(&root.join("home/pi/.bashrc"), "");
    for (file, line) in [
        ("passwd", "pi:x:1000:1000:,,,:/home/pi:/usr/sbin/nologin\n"),
        ("group", "pi:x:1000:\n"),
        ("shadow", "pi:!:20000:0:99999:7:::\n"),
        ("gshadow", "pi:!::\n"),
    ] {
        let path = root.join("etc").join(file);
        let text = fs::read_to_string(&path).unwrap();
        fs::write(path, text + line).unwrap();
    }
}

/// What is locked: the image, what is not in it, and nothing that is.
fn locked(site: &Site, image: &Path) {
    ok(&mut site.command(&["lock", "--base", "raspi"]));
    let text = fs::read_to_string(site.dir.join("images/raspi.lock")).unwrap();
    let lock: toml::Table = text.parse().unwrap();
    assert_eq!(lock["image"].as_str().unwrap(), sha256(image));
    assert_eq!(lock["without"].as_array().unwrap().len(), 1);
    let names: Vec<&str> =
        lock["package"].as_array().unwrap().iter().map(|p| p["name"].as_str().unwrap()).collect();
    for name in ["munge", "libmunge2", "systemd-resolved", "busybox-static", "systemd"] {
        assert!(names.contains(&name), "no {name} in {names:?}");
    }
    for name in ["libc6", "openssh-server", "raspi-firmware", "linux-image-arm64"] {
        assert!(!names.contains(&name), "{name} is in {names:?}");
    }
    assert!(!text.contains("unarchived"), "all is Debian's");
    let again = ok(&mut site.command(&["lock", "--base", "raspi", "--offline"]));
    assert!(again.contains("unchanged"), "{again}");
}

fn boot_files(site: &Site) {
    let boot = site.dir.join("boot-out");
    ok(site.command(&["export", "--node", "fenn", "--boot"]).arg(&boot));
    let text = |name: &str| fs::read_to_string(boot.join(name)).unwrap();
    let config = text("config.txt");
    let ours =
        "upstream_kernel=1\nbootloader_update=0\nkernel=kernel8.img\ninitramfs initramfs.img followkernel\n";
    assert!(config.contains("arm_boost=1") && config.contains(ours), "{config}");
    assert!(!config.contains("auto_initramfs"), "{config}");
    let cmdline = text("cmdline.txt");
    assert!(!cmdline.contains(official::DISK) && !cmdline.contains("resize"), "{cmdline}");
    run("rm", ["-rf", boot.to_str().unwrap()]);
}

/// Every difference from the imported image has its reason.
fn explained(site: &Site) {
    let rows = ok(&mut site.command(&["diff", "base:raspi", "fenn", "--why", "--json"]));
    let rows: Vec<Value> = serde_json::from_str(&rows).unwrap();
    let mut boot = Vec::new();
    for row in &rows {
        let path = row["path"].as_str().unwrap();
        if row["tree"] == "boot" {
            boot.push(format!("{} {path}", row["change"].as_str().unwrap()));
            continue;
        }
        let why = row["why"].as_array().map(Vec::as_slice).unwrap_or_default();
        let last = why.last().unwrap_or_else(|| panic!("nobody knows why: {row}"));
        assert_eq!(last["kind"], "layer", "{row}");
    }
    let want = [
        "added /cmdline.netboot.txt",
        "changed /cmdline.txt",
        "changed /config.txt",
        "added /initramfs.img",
        "removed /initramfs8",
        "removed /initramfs_2712",
    ];
    assert_eq!(boot, want, "what changed on the boot partition");
    let why_of = |path: &str| {
        let row = rows.iter().find(|row| row["tree"] == "root" && row["path"] == path);
        row.unwrap_or_else(|| panic!("{path} does not differ"))["why"].to_string()
    };
    assert!(why_of("/usr/sbin/munged").contains("\"munge\""));
    assert!(why_of("/etc/passwd").contains("packages of the node"));
    assert!(why_of("/etc/systemd/system/userconfig.service").contains("first boot"));
    assert!(why_of("/home/pi").contains("first boot") && why_of("/etc/hostname").contains("base-system"));
    let shown = ok(&mut site.command(&["why", "/home/pi", "--node", "fenn"]));
    assert!(shown.contains("first boot") && shown.contains("takes it away"), "{shown}");
    // What nobody touched is as it was, times and all.
    for path in
        ["/etc/apt/sources.list", "/var/log/dpkg.log", "/etc/machine-id", "/usr/bin/busybox", "/var/log"]
    {
        assert!(!rows.iter().any(|row| row["tree"] == "root" && row["path"] == path), "{path} differs");
    }
}

/// All that the lock needs goes to a machine without a network, and what was changed on the way is refused.
fn carried(site: &Site) {
    let tar = site.dir.join("keep.tar");
    ok(site.command(&["cache", "export", "--base", "raspi"]).arg(&tar));
    let listed = run("tar", ["-tf", tar.to_str().unwrap()]);
    assert!(listed.contains("-munge_") && listed.contains("-official.img"), "{listed}");
    let folder = site.dir.join("stick");
    fs::create_dir_all(&folder).unwrap();
    run("tar", ["-C", folder.to_str().unwrap(), "-xf", tar.to_str().unwrap()]);
    run("sh", ["-c", &format!("cd {} && sha256sum --quiet -c SHA256SUMS", folder.display())]);
    fs::remove_file(&tar).unwrap();
    let munge = run("sh", ["-c", &format!("ls {}/packages/*-munge_*", folder.display())]);
    let munge = PathBuf::from(munge.trim());
    let whole = fs::read(&munge).unwrap();
    fs::write(&munge, b"other bytes").unwrap();
    let cache = site.dir.join("elsewhere");
    let elsewhere = |args: &[&str]| {
        let mut command = crate::support::gt_image();
        command.current_dir(&site.dir).arg("--cache").arg(&cache).args(args);
        command
    };
    let told = fails(&mut elsewhere(&["cache", "import", "stick"]), 1);
    assert!(told.contains("1 file was refused") && told.contains("-munge_"), "{told}");
    fs::write(&munge, whole).unwrap();
    ok(&mut elsewhere(&["cache", "import", munge.to_str().unwrap()]));
    // From that cache alone, the image too, whose own path is gone: another store gets the same node, to the byte.
    let image = site.dir.join("images/official.img");
    fs::rename(&image, image.with_extension("away")).unwrap();
    let other = ["--store", "other-store"];
    let build = ["build", "--node", "fenn", "--no-image", "--locked", "--offline"];
    ok(&mut elsewhere(&[&other[..], &build].concat()));
    let dump = ["export", "--node", "fenn", "--dump", "-"];
    let (first, second) = (ok(&mut site.command(&dump)), ok(&mut elsewhere(&[&other[..], &dump].concat())));
    for (a, b) in first.lines().zip(second.lines()) {
        assert_eq!(a, b, "the first entry that differs");
    }
    fs::rename(image.with_extension("away"), image).unwrap();
    run("rm", ["-rf", site.dir.join("other-store").to_str().unwrap()]);
    run("rm", ["-rf", folder.to_str().unwrap(), cache.to_str().unwrap()]);
}

fn checks(site: &Site, machine: &mut Machine, known_hosts: &Path) {
    let mut ask =
        |command: &str| machine.ssh_ok(&site.identity, known_hosts, "fenn", command).trim().to_owned();
    let failed = ask("systemctl is-system-running --wait >/dev/null; systemctl --failed --no-legend --plain");
    assert_eq!(failed, "", "failed units");
    assert_eq!(ask("hostname"), "fenn");
    let checks = ask("/usr/lib/gt/check 2>&1 || true");
    assert!(checks.contains(" 0 failed"), "{checks}");
    let states = ask("dpkg --audit; dpkg-query -W -f '${Status} ${Package} ${Version}\\n' munge systemd");
    assert!(states.starts_with("install ok installed munge ") && !states.contains("257.1-1"), "{states}");
    assert_eq!(ask("id -u nathan; getent passwd pi || true"), "1000");
    assert_eq!(
        ask("uname -r; ls /usr/lib/modules").lines().collect::<std::collections::HashSet<_>>().len(),
        1
    );
}

fn boots_from_disk(site: &Site) {
    let at = |name: &str| site.dir.join(name);
    for (flag, name) in [("--kernel", "kernel"), ("--initramfs", "initramfs"), ("--cmdline", "cmdline")] {
        ok(site.command(&["export", "--node", "fenn", flag]).arg(at(name)));
    }
    let known_hosts = netboot::known_hosts(site);
    let disk = at("images/out/fenn/disk.img");
    let cmdline = fs::read_to_string(at("cmdline")).unwrap();
    let mut machine = Machine::start(&Boot {
        disks: &[&disk],
        cores: 2,
        memory: 1024,
        network: Network::User,
        kernel: &at("kernel"),
        initramfs: &at("initramfs"),
        cmdline: &cmdline,
        console: &at("console.log"),
    });
    machine.wait_for("login:", BOOT);
    checks(site, &mut machine, &known_hosts);
    let root = machine.ssh_ok(&site.identity, &known_hosts, "fenn", "findmnt -no FSTYPE /");
    assert_eq!(root.trim(), "ext4");
}

fn boots_over_nfs(site: &Site) {
    let known_hosts = netboot::known_hosts(site);
    let net = Net::new("rpi", &[FENN.mac]);
    let server = netboot::serve(&net, site);
    let (played, loaded) = netboot::power_on(net.card(0), &FENN, &server);
    let asked: Vec<&str> = played.requests.iter().map(|request| request.name.as_str()).collect();
    assert!(asked.iter().any(|file| file.ends_with("kernel8.img")), "{asked:?}");
    assert!(!asked.iter().any(|file| file.ends_with("initramfs8")), "{asked:?}");
    let mut machine = netboot::start(&net, site, &FENN, &loaded, 2048, &[]);
    checks(site, &mut machine, &known_hosts);
    netboot::wait_for_boot(&net, site, &FENN, |boot| boot["outcome"] == "login");
    let root = machine.ssh_ok(&site.identity, &known_hosts, "fenn", "findmnt -no FSTYPE /");
    assert_eq!(root.trim(), "overlay");
}
