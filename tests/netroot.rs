//! The node's side of netboot, judged without our server: the scripts of the initramfs under a shell,
//! what a build writes for them, and boots in QEMU against a server of a few lines.
//! Must not know: DHCP, TFTP and NFS as our server speaks them.
//! Spec: design.md sections 7, 9 and 13; builder/src/initramfs/netboot.sh.
//!
//! QEMU's user network leases an address and leads 10.0.2.2 to this machine, so that no test here needs
//! root or a network of its own.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};

use gt_image::build::ram::ram_image;
use gt_image::io::sink::Plain;
use gt_image::store::Store;
use libtest_mimic::Trial;

use crate::qemu_initramfs::{LIMIT, Machine, expect, refuse};
use crate::support::site::{Site, sha256};
use crate::support::{Tier, ok, repository, run, trial};

const SHELL: &[Tier] = &[Tier::Judge(&["dash", "bash"])];
const AGE: &[Tier] = &[Tier::Judge(&["dash", "age", "age-keygen"])];
const EXT4: &[Tier] = &[Tier::Judge(&["e2fsck", "debugfs"])];
const XATTR: &[Tier] = &[Tier::Root, Tier::Judge(&["e2fsck", "debugfs", "setfattr"])];
const QEMU: &[Tier] = &[Tier::Archive, Tier::Qemu, Tier::Judge(&["mke2fs", "sgdisk", "dpkg-deb"])];

pub fn trials() -> Vec<Trial> {
    vec![
        trial("netroot::fstab_keeps_only_what_is_no_disk_of_a_card", SHELL, fstab),
        trial("netroot::secrets_are_copies_with_their_owners", SHELL, secrets),
        trial("netroot::state_is_wiped_once_for_each_wish", SHELL, wipes),
        trial("netroot::a_node_without_secrets_still_has_an_id", SHELL, no_secrets),
        trial("netroot::sealed_secrets_open_with_the_nodes_key_alone", AGE, sealed),
        trial("netroot::steps_are_urls_whatever_is_told", SHELL, steps),
        trial("netroot::a_lease_sets_address_and_route_for_good", SHELL, lease),
        trial("netroot::the_end_comes_only_after_the_signal", SHELL, end),
        trial("netroot::a_root_in_memory_is_the_image_that_was_announced", EXT4, ram),
        trial("netroot::file_capabilities_are_in_a_filesystem_of_their_own", XATTR, capabilities),
        trial("netroot::qemu_a_root_in_memory_boots", QEMU, qemu_ram),
        trial("netroot::qemu_what_cannot_boot_tells_the_server_why", QEMU, qemu_failures),
    ]
}

// --- The scripts under a shell -------------------------------------------------------------------

fn scripts() -> PathBuf {
    repository().join("builder/src/initramfs")
}

/// Runs `script` after netboot.sh and the named functions of init.sh, with a root and a `/run/gt` of its
/// own; gives what it printed.
fn shell(dir: &Path, functions: &[&str], script: &str) -> String {
    let init = fs::read_to_string(scripts().join("init.sh")).unwrap();
    let mut text =
        format!(". {}/netboot.sh\nroot={1}/root run={1}/run\n", scripts().display(), dir.display());
    text.push_str("warn() { echo \"warning: $*\"; }\nsay() { echo \"$*\"; }\n");
    for name in functions {
        let start = init.find(&format!("\n{name}() {{")).unwrap_or_else(|| panic!("init.sh has no {name}"));
        let len = init[start..].find("\n}\n").unwrap() + 3;
        text.push_str(&init[start..start + len]);
    }
    text.push_str(script);
    ok(Command::new("dash").args(["-c", &text]).env("PATH", format!("{}/bin:/usr/bin:/bin", dir.display())))
}

/// A directory with `root/` of these files, an empty `run/`, and `bin/` of these scripts.
fn place(files: &[(&str, &str)], programs: &[(&str, &str)]) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for (name, text) in files {
        let path = dir.path().join("root").join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    for part in ["root", "run", "bin"] {
        fs::create_dir_all(dir.path().join(part)).unwrap();
    }
    for (name, text) in programs {
        let path = dir.path().join("bin").join(name);
        fs::write(&path, format!("#!/bin/sh\n{text}\n")).unwrap();
        fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
    }
    dir
}

fn fstab() {
    let text = "# comment\n\
        PARTUUID=0a-01 /boot/firmware vfat defaults 0 2\n\
        PARTUUID=0a-02 / ext4 defaults,noatime 0 1\n\
        /dev/mmcblk0p3 none swap sw 0 0\n\
        LABEL=data /data ext4 defaults 0 2\n\
        LABEL=usb1 /mnt/usb1 ext4 nofail 0 2\n\
        tmpfs /scratch tmpfs size=1g 0 0\n\
        10.4.0.10:/export /mnt/nfs nfs defaults 0 0\n";
    let dir = place(&[("etc/fstab", text)], &[]);
    shell(dir.path(), &[], "plain_fstab");
    let kept = fs::read_to_string(dir.path().join("root/etc/fstab")).unwrap();
    assert_eq!(
        kept,
        "# comment\nLABEL=usb1 /mnt/usb1 ext4 nofail 0 2\ntmpfs /scratch tmpfs size=1g 0 0\n\
         10.4.0.10:/export /mnt/nfs nfs defaults 0 0\n"
    );
    let without = place(&[], &[]);
    shell(without.path(), &[], "plain_fstab");
    assert!(!without.path().join("root/etc/fstab").exists());
}

fn secrets() {
    let probe = tempfile::tempdir().unwrap();
    let (uid, gid) = (fs::metadata(probe.path()).unwrap().uid(), fs::metadata(probe.path()).unwrap().gid());
    let list = format!(
        "0640 {uid} {gid} token /etc/new/token\n0400 {uid} {gid} gone /etc/gone\n0400 {uid} {gid} token /link/x\n"
    );
    let dir = place(&[("etc/gt/secrets", &list), ("etc/new/token", "old")], &[]);
    std::os::unix::fs::symlink("/tmp", dir.path().join("root/link")).unwrap();
    fs::create_dir_all(dir.path().join("run/secrets/secrets/etc/new")).unwrap();
    fs::write(dir.path().join("run/secrets/secrets/etc/new/token"), "secret").unwrap();
    fs::create_dir_all(dir.path().join("run/secrets/secrets/link")).unwrap();
    fs::write(dir.path().join("run/secrets/secrets/link/x"), "secret").unwrap();
    let said = shell(dir.path(), &["inside"], "own_secrets");
    let path = dir.path().join("root/etc/new/token");
    assert_eq!(fs::read_to_string(&path).unwrap(), "secret");
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o640);
    expect(&said, &["the secret gone for /etc/gone did not come", "/link/x: the secret token cannot be"]);
    assert!(!dir.path().join("root/etc/gone").exists());
}

fn wipes() {
    let dir = place(&[], &[]);
    let at = |name: &str| dir.path().join("run").join(name);
    for folder in ["secrets", "state/persist/var"] {
        fs::create_dir_all(at(folder)).unwrap();
    }
    let boot = || shell(dir.path(), &["wipe_state"], "device=/dev/x\nwipe_state");
    boot();
    assert!(at("state/persist").exists(), "nobody asked");
    fs::write(at("state/node.age"), "the node's key").unwrap();
    for wish in ["1", "2"] {
        fs::create_dir_all(at("state/persist/var")).unwrap();
        fs::write(at("secrets/wipe-state"), format!("{wish}\n")).unwrap();
        expect(&boot(), &["wiping the state on /dev/x"]);
        assert!(!at("state/persist").exists());
        assert!(at("state/node.age").exists(), "without its key the node would get no secrets any more");
        fs::create_dir_all(at("state/persist/var")).unwrap();
        boot();
        assert!(at("state/persist").exists(), "the wish is told again and was granted already");
    }
}

fn no_secrets() {
    let dir =
        place(&[("etc/machine-id", "")], &[("wget", "echo 'server returned error: HTTP/1.1 403'; exit 1")]);
    let script = "boot_url=http://x node=fenn mac=d8:3a:dd:89:ef:61\nclaim\nidentity";
    let said = shell(dir.path(), &["inside"], script);
    expect(&said, &["the node's secrets did not come (server returned error: HTTP/1.1 403)"]);
    let id = fs::read_to_string(dir.path().join("root/etc/machine-id")).unwrap();
    assert!(id.len() == 33 && id.trim_end().bytes().all(|b| b.is_ascii_hexdigit()), "{id:?}");
    // The same node has the same id in its next boot, another node another.
    for (node, same) in [("fenn", true), ("jast", false)] {
        fs::remove_dir_all(dir.path().join("run/secrets")).unwrap();
        shell(dir.path(), &["inside"], &script.replace("fenn", node));
        let again = fs::read_to_string(dir.path().join("root/etc/machine-id")).unwrap();
        assert_eq!(again == id, same, "{node}");
    }
}

/// What stands in the way is told; only the right key opens.
fn sealed() {
    let mount = "for place; do :; done; [ ! -e \"$KEY\" ] || cp \"$KEY\" \"$place/node.age\"";
    // The root's own program, which has to find the key within the root.
    let chroot = "[ \"$2\" = /usr/bin/age ] && exec age --decrypt --identity \"$1$5\"";
    let dir = place(
        &[("usr/bin/age", "")],
        &[("mount", mount), ("chroot", chroot), ("umount", "rm -f \"$1/node.age\""), ("modprobe", "")],
    );
    let at = |name: &str| dir.path().join(name).display().to_string();
    for key in ["own", "other"] {
        run("age-keygen", ["-o", &at(key)]);
    }
    fs::write(at("secrets.tar"), tar(&[("machine-id", "0123")])).unwrap();
    let public = run("age-keygen", ["-y", &at("own")]);
    run("age", ["--encrypt", "-r", public.trim(), "-o", &at("sealed"), &at("secrets.tar")]);
    let open = |key: &str, partition: &str| {
        let _ = fs::remove_dir_all(at("run/secrets"));
        let script = format!(
            "export KEY={}; device=/dev/sda3\nwget() {{ cp {} $run/secrets.tar; }}\n\
             timeout() {{ shift; \"$@\"; }}\nfind_label_late() {{ {partition}; }}\nclaim",
            at(key),
            at("sealed")
        );
        shell(dir.path(), &[], &script)
    };
    fs::set_permissions(at("root/usr/bin/age"), fs::Permissions::from_mode(0o755)).unwrap();
    assert_eq!(open("own", "true"), "the secrets came sealed to the key on /dev/sda3\n");
    assert_eq!(fs::read_to_string(at("run/secrets/machine-id")).unwrap(), "0123");
    for (key, partition, why) in [
        ("own", "false", "there is no partition gt-state"),
        ("none", "true", "/dev/sda3 has no /node.age"),
        ("other", "true", "to another key than /dev/sda3 has: age: error: no identity matched"),
    ] {
        expect(&open(key, partition), &["warning: the node's secrets did not come (they are sealed to", why]);
        assert!(!Path::new(&at("run/secrets/machine-id")).exists());
    }
    for left in ["run/secrets.tar", "run/secrets.age", "root/run/node.age"] {
        assert!(!Path::new(&at(left)).exists(), "{left} is left behind");
    }
}

fn steps() {
    let dir = place(&[], &[("wget", "for url; do :; done; echo \"$url\" >&3")]);
    fs::write(dir.path().join("run/address"), "10.4.0.15\n").unwrap();
    let script = "exec 3>&1; boot_url=http://10.4.0.10:8080/boot/fenn\n\
                  tell init\ntell failed \"50% of /dev/sda1 & 'more'?\n#x\"";
    let said = shell(dir.path(), &[], script);
    assert_eq!(
        said,
        "http://10.4.0.10:8080/boot/fenn/step?name=init&detail=\n\
         http://10.4.0.10:8080/boot/fenn/step?name=failed&detail=50++of+/dev/sda1++++more++++x\n"
    );
    fs::remove_file(dir.path().join("run/address")).unwrap();
    assert_eq!(shell(dir.path(), &[], script), "", "nothing can be told before there is an address");
}

fn lease() {
    let dir = place(&[], &[("ip", "echo \"ip $*\"")]);
    // The script's own place for the address is the node's /run.
    let text = fs::read_to_string(scripts().join("netboot/lease")).unwrap();
    let text = text.replace("/run/gt", &dir.path().join("run").display().to_string());
    let lease = |event: &str| {
        ok(Command::new("dash")
            .args(["-c", &text, "lease", event])
            .env("PATH", format!("{}/bin:/usr/bin:/bin", dir.path().display()))
            .envs([
                ("interface", "eth0"),
                ("ip", "10.4.0.15"),
                ("mask", "20"),
                ("router", "10.4.0.1 10.4.0.2"),
            ]))
    };
    for event in ["deconfig", "nak", "leasefail"] {
        assert_eq!(lease(event), "", "{event} must not touch the address");
    }
    assert_eq!(
        lease("bound"),
        "ip -4 addr flush dev eth0\nip addr add 10.4.0.15/20 broadcast + dev eth0\n\
         ip route replace default via 10.4.0.1 dev eth0 proto 16 src 10.4.0.15 metric 1024\n"
    );
    assert_eq!(fs::read_to_string(dir.path().join("run/address")).unwrap(), "10.4.0.15\n");
}

/// bash, because dash's `read` has no deadline; busybox's has.
fn end() {
    let dir = place(&[], &[("busybox", "echo \"$*\"")]);
    let at = |name: &str| dir.path().join(name).display().to_string();
    run("mkfifo", [at("never")]);
    let text = fs::read_to_string(scripts().join("netboot/end")).unwrap();
    let text = text
        .replace("/run/gt/busybox", &at("bin/busybox"))
        .replace("/run/gt/never", &at("never"))
        .replace("/dev/kmsg", "/dev/stdout")
        .replace("\nread", "\necho waiting; read");
    let mut child = Command::new("bash")
        .args(["-c", &text, "end", "poweroff", "0.1"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
    assert_eq!(lines.next().unwrap(), "waiting");
    assert!(child.try_wait().unwrap().is_none(), "it waits for the signal");
    run("kill", ["-TERM", &child.id().to_string()]);
    let after: Vec<String> = lines.collect();
    assert_eq!(after.len(), 2, "{after:?}");
    assert!(after[0].contains("the system did not end within 0.1 seconds: poweroff"), "{after:?}");
    assert_eq!(after[1], "poweroff -n -f");
    assert!(child.wait().unwrap().success());
}

// --- What a build writes -------------------------------------------------------------------------

/// Exports the boot tree to a folder of this name, which must be new.
fn netboot_line(site: &Site, folder: &str) -> String {
    let boot = site.path(folder);
    ok(&mut site.gt_image(["export", "--node", "n1", "--boot", boot.to_str().unwrap()]));
    fs::read_to_string(boot.join("cmdline.netboot.txt")).unwrap()
}

fn ram() {
    let site = Site::new();
    ok(&mut site.gt_image(["build", "--node", "n1", "--no-image"]));
    let line = netboot_line(&site, "boot-nfs");
    expect(&line, &["gt.root=nfs gt.server=10.9.0.2 gt.node=n1 gt.http=8080 rw"]);
    refuse(&line, &["root=PARTUUID", "gt.ram"]);
    site.edit("cluster.toml", "root = \"disk\"", "root = \"ram\"");
    let json = ok(&mut site.gt_image(["--json", "build", "--node", "n1", "--no-image"]));
    let report: serde_json::Value = serde_json::from_str(&json).unwrap();
    let digest = report["nodes"][0]["root"].as_str().unwrap().parse().unwrap();
    let store = Store::open(&site.path("images/store")).unwrap();
    let image = site.path("root.img");
    let mut sink = Plain::new(fs::File::create(&image).unwrap());
    let size = ram_image(&store.tree(&digest).unwrap(), &store, &mut sink).unwrap();
    let announced = format!(" gt.ram=sha256:{} gt.ram_size={size} ", sha256(&image));
    expect(&netboot_line(&site, "boot-ram"), &["gt.root=ram ", &announced]);
    run("e2fsck", ["-fn", image.to_str().unwrap()]);
    let listing = run("debugfs", ["-R", "ls -l /usr/bin", image.to_str().unwrap()]);
    assert!(listing.contains("tool"), "{listing}");
}

fn capabilities() {
    let site = Site::new();
    assert_eq!(Site::line(&site.dump(), "/usr/lib/gt/xattrs.ext4"), None, "no attributes, no filesystem");
    let value = "0x0100000200200000000000000000000000000000";
    let tool = site.path("root/usr/bin/tool");
    run("setfattr", ["-n", "security.capability", "-v", value, tool.to_str().unwrap()]);
    site.pack_base();
    let dump = site.dump();
    let line = Site::line(&dump, "/usr/lib/gt/xattrs.ext4").expect("the filesystem is in the root");
    let digest = line.split("sha256:").nth(1).unwrap().split(' ').next().unwrap();
    let image = site.path("images/store/objects").join(&digest[..2]).join(&digest[2..]);
    let image = image.to_str().unwrap();
    run("e2fsck", ["-fn", image]);
    let attributes = run("debugfs", ["-R", "ea_get -x /usr/bin/tool security.capability", image]);
    let digits: String = attributes.split('=').nth(1).unwrap().split_whitespace().collect();
    assert_eq!(format!("0x{digits}"), value, "{attributes}");
    assert_eq!(run("debugfs", ["-R", "cat /usr/bin/tool", image]), "#!/bin/sh\n");
}

// --- Boots ---------------------------------------------------------------------------------------

/// What the nodes of these tests ask by HTTP: it answers, and remembers the requests.
struct Api {
    port: u16,
    requests: Arc<Mutex<Vec<String>>>,
}

impl Api {
    fn start(image: Vec<u8>, secrets: Vec<u8>) -> Api {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let requests = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&requests);
        // Ends with the process: it has no state that anybody would miss.
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let target = request(&stream);
                let body = match &target[..] {
                    target if target.ends_with("/root.img") => &image[..],
                    target if target.ends_with("/secrets") => &secrets,
                    _ => b"",
                };
                seen.lock().unwrap().push(target);
                answer(stream, body);
            }
        });
        Api { port, requests }
    }

    fn words(&self) -> String {
        format!("gt.server=10.0.2.2 gt.node=n1 gt.http={} gt.net_timeout=4", self.port)
    }

    fn requests(&self) -> Vec<String> {
        self.requests.lock().unwrap().clone()
    }
}

/// Method and target of a request without a body.
fn request(stream: &TcpStream) -> String {
    let mut lines = BufReader::new(stream).lines();
    let first = lines.next().and_then(Result::ok).unwrap_or_default();
    while lines.next().and_then(Result::ok).is_some_and(|line| !line.is_empty()) {}
    first.split(' ').take(2).collect::<Vec<_>>().join(" ")
}

fn answer(mut stream: TcpStream, body: &[u8]) {
    let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", body.len());
    // The node may be gone.
    let _ = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(body));
}

/// A tar archive of these files, by GNU tar.
fn tar(files: &[(&str, &str)]) -> Vec<u8> {
    let dir = tempfile::tempdir().unwrap();
    let mut command = Command::new("tar");
    command.args(["--format=ustar", "-C"]).arg(dir.path()).args(["-cf", "-"]);
    for (name, text) in files {
        let path = dir.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
        command.arg(name);
    }
    let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
    let mut bytes = Vec::new();
    child.stdout.take().unwrap().read_to_end(&mut bytes).unwrap();
    assert!(child.wait().unwrap().success());
    bytes
}

/// Without a boot ROM, which not every QEMU package brings.
const NIC: &[&str] = &["-netdev", "user,id=n", "-device", "virtio-net-pci,netdev=n,romfile="];

/// The image is fetched, checked and mounted; secrets and ids are in place; each step was told.
fn qemu_ram() {
    let machine = Machine::new();
    let image = machine.path("rootfs");
    let id = "0123456789abcdef0123456789abcdef";
    let api = Api::start(
        fs::read(&image).unwrap(),
        tar(&[("machine-id", id), ("ssh_host_ed25519_key", "key"), ("secrets/etc/secret", "hush")]),
    );
    let size = fs::metadata(&image).unwrap().len();
    let words = format!("{} gt.root=ram gt.ram=sha256:{} gt.ram_size={size}", api.words(), sha256(&image));
    let text = machine.boot_on(NIC, &words, LIMIT);
    expect(&text, &["gt: address 10.0.2.15, server 10.0.2.2", "gt: 100 % of the root"]);
    expect(&text, &["node: mode ram, root is overlay", "node: changed: \r", "node: kept: seed, 0 boots"]);
    expect(&text, &[&format!("node: id {id}, key /run/gt/ssh_host_ed25519_key")]);
    expect(&text, &["node: secret hush, 640 5:6", "GT_SERVER=10.0.2.2", "GT_NODE=n1"]);
    refuse(&text, &["gt: warning", "cannot boot", "/run/gt/lower"]);
    assert_eq!(
        api.requests(),
        [
            "POST /boot/n1/step?name=init&detail=",
            "GET /boot/n1/root.img",
            "POST /boot/n1/step?name=root&detail=",
            "POST /boot/n1/secrets",
            "POST /boot/n1/step?name=switch&detail=",
        ]
    );
}

/// Each says why on the console and to the server, within its deadline, and reboots.
fn qemu_failures() {
    let machine = Machine::new();
    let api = Api::start(b"another root".to_vec(), Vec::new());
    let ram = format!("gt.root=ram gt.ram=sha256:{} gt.ram_size", "0".repeat(64));
    for (nic, words, want, told) in [
        (NIC, format!("{ram}=8388608"), "the root's image cannot be had", true),
        (NIC, format!("{ram}=99999999999999"), "the root needs 95367495 MiB of memory", true),
        (NIC, "gt.root=nfs gt.nfs_port=9".to_owned(), "10.0.2.2:/n1 cannot be mounted", true),
        (&["-nic", "none"], "gt.root=nfs".to_owned(), "no wired network with a carrier; found: ", false),
        (NIC, "gt.root=nfs gt.server=".to_owned(), "gt.root=nfs needs gt.server= and gt.node=", false),
    ] {
        let before = api.requests().len();
        let text = machine.boot_on(nic, &format!("quiet {} {words}", api.words()), LIMIT);
        expect(&text, &[&format!("gt: cannot boot: {want}"), "gt: rebooting in 10 seconds"]);
        refuse(&text, &["node:", "Kernel panic"]);
        let steps = api.requests().split_off(before);
        let failed = steps.last().is_some_and(|step| step.contains("step?name=failed&detail="));
        assert_eq!(failed, told, "{words}: {steps:?}");
    }
}
