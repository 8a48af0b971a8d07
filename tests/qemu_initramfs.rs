//! Boots the initramfs in QEMU's `virt` machine with a real kernel and a hand-made disk.
//! Must not know: our own writers of filesystems and partition tables; the disk is made by mke2fs and
//! sgdisk, so that a fault here is one of the initramfs.
//! Spec: style.md section 7, tier `qemu`. Kernel and busybox are those of fenn's packages.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use gt_image::store::Store;
use gt_image::tree::{Inode, Kind, Meta, Time, Tree, TreePath};
use gt_image::{initramfs, kmod};

const ROOT_GUID: &str = "0a1b2c3d-4e5f-6071-8293-a4b5c6d7e8f9";
/// Every test of this file with its name.
pub const ALL: &[(&str, fn())] = &[
    ("a_disk_keeps_what_is_written", a_disk_keeps_what_is_written),
    ("an_ephemeral_root_forgets_all_but_state", an_ephemeral_root_forgets_all_but_state),
    (
        "without_a_state_partition_the_console_says_what_is_lost",
        without_a_state_partition_the_console_says_what_is_lost,
    ),
    ("a_wrong_root_says_so_and_reboots", a_wrong_root_says_so_and_reboots),
];

const MIB: u64 = 1 << 20;

/// What the test system does: says what it finds, changes it, and powers off.
const NODE_INIT: &str = r#"#!/bin/busybox sh
b=/bin/busybox
say() { echo "node: $*"; }
say "mode $($b cat /run/gt/mode), root is $($b awk '$2 == "/" { print $3 }' /proc/mounts | $b tail -n 1)"
say "changed: $($b cat /changed 2>/dev/null)"
echo yes >/changed
say "kept: $($b cat /var/lib/kept/seed), $($b cat /var/lib/kept/count 2>/dev/null | $b wc -l) boots"
say "kept is $($b stat -c '%a %u:%g' /var/lib/kept)"
echo again >>/var/lib/kept/count
say "scratch: $($b ls /var/lib/scratch 2>/dev/null)"
say "scratch is $($b stat -c '%a %u:%g' /var/lib/scratch)"
$b touch /var/lib/scratch/leftover
$b touch /run/gt/lower/x 2>/dev/null && say "lower can be written"
say "dev $($b ls /dev/vda), words $*"
say "id $($b cat /etc/machine-id), key $($b readlink /etc/ssh/ssh_host_ed25519_key)"
say "secret $($b cat /etc/secret), $($b stat -c '%a %u:%g' /etc/secret)"
say "mounts $($b awk '{ printf "%s ", $2 }' /proc/mounts)"
say "boot $($b tr '\n' ' ' </run/gt/boot)"
$b sync
$b poweroff -f
"#;

/// A kernel, our initramfs and a disk, ready to boot.
pub struct Machine {
    dir: tempfile::TempDir,
    kernel: PathBuf,
}

impl Machine {
    /// With fenn's kernel and busybox.
    pub fn new() -> Machine {
        let root = crate::fenn::kernel_root();
        let dir = tempfile::tempdir().unwrap();
        let version = name_in(&root.join("usr/lib/modules"), "");
        let kernel = root.join("boot").join(format!("vmlinuz-{version}"));
        fs::write(dir.path().join("initramfs"), initramfs_of(&root, &version, dir.path())).unwrap();
        let machine = Machine { dir, kernel };
        machine.make_disk(&root);
        machine
    }

    /// A file of this machine: `rootfs` is its root filesystem.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// GPT with a root, `gt-state` with a filesystem and `gt-scratch` without one.
    fn make_disk(&self, kernel_root: &Path) {
        let root = self.path("root");
        for dir in ["bin", "sbin", "dev", "proc", "sys", "run", "etc/gt", "etc/ssh", "var/lib/kept"] {
            fs::create_dir_all(root.join(dir)).unwrap();
        }
        fs::copy(kernel_root.join("usr/bin/busybox"), root.join("bin/busybox")).unwrap();
        fs::write(root.join("sbin/init"), NODE_INIT).unwrap();
        for program in ["bin/busybox", "sbin/init"] {
            fs::set_permissions(root.join(program), fs::Permissions::from_mode(0o755)).unwrap();
        }
        fs::write(root.join("var/lib/kept/seed"), "seed").unwrap();
        fs::write(root.join("etc/gt/persist"), "# state\n0750 7 8 /var/lib/kept\n").unwrap();
        fs::write(root.join("etc/gt/secrets"), "0640 5 6 token /etc/secret\n").unwrap();
        fs::write(root.join("etc/gt/scratch"), "0711 3 4 /var/lib/scratch\n").unwrap();
        let disk = self.path("disk");
        fs::File::create(&disk).unwrap().set_len(96 * MIB).unwrap();
        run(Command::new("sgdisk")
            .arg("-n1:2048:+40M")
            .arg(format!("-u1:{ROOT_GUID}"))
            .args(["-n2:0:+16M", "-c2:gt-state", "-n3:0:+16M", "-c3:gt-scratch"])
            .arg(&disk));
        for (number, label, from) in [(1, "rootfs", Some(&root)), (2, "gt-state", None)] {
            let image = self.path(label);
            let mut mke2fs = Command::new("mke2fs");
            mke2fs.args(["-q", "-t", "ext4", "-L", label]);
            if let Some(from) = from {
                mke2fs.arg("-d").arg(from);
            }
            let (start, size) = if number == 1 { (MIB, 40 * MIB) } else { (41 * MIB, 16 * MIB) };
            run(mke2fs.arg(&image).arg(format!("{}k", size / 1024)));
            let bytes = fs::read(&image).unwrap();
            fs::File::options().write(true).open(&disk).unwrap().write_all_at(&bytes, start).unwrap();
        }
    }

    /// Replaces the GPT by an MBR with the root alone. Its PARTUUID is `01234567-01`.
    fn make_mbr(&self) {
        let disk = fs::File::options().write(true).open(self.path("disk")).unwrap();
        let mut sector = [0; 512];
        sector[440..444].copy_from_slice(&0x0123_4567_u32.to_le_bytes());
        sector[450] = 0x83;
        sector[454..458].copy_from_slice(&2048_u32.to_le_bytes());
        sector[458..462].copy_from_slice(&u32::try_from(40 * MIB / 512).unwrap().to_le_bytes());
        sector[510..].copy_from_slice(&[0x55, 0xaa]);
        disk.write_all_at(&sector, 0).unwrap();
        disk.write_all_at(&[0; 512], 512).unwrap();
        disk.write_all_at(&[0; 512], 96 * MIB - 512).unwrap();
    }

    /// Boots once; gives all that the console said. Ends at power-off, at a reboot or after `limit`.
    fn boot(&self, words: &str, limit: Duration) -> String {
        self.boot_on(&["-nic", "none"], words, limit)
    }

    /// The same with a network, in the words of QEMU's command line.
    pub fn boot_on(&self, network: &[&str], words: &str, limit: Duration) -> String {
        let drive = format!("if=none,id=d,format=raw,file={}", self.path("disk").display());
        let mut qemu = Command::new("qemu-system-aarch64")
            .args(["-M", "virt", "-cpu", "cortex-a72", "-m", "512", "-nographic", "-no-reboot"])
            .args(network)
            .arg("-kernel")
            .arg(&self.kernel)
            .arg("-initrd")
            .arg(self.path("initramfs"))
            .args(["-append", &format!("console=ttyAMA0 {words}")])
            .args(["-drive", &drive, "-device", "virtio-blk-pci,drive=d"])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .spawn()
            .unwrap();
        let mut console = qemu.stdout.take().unwrap();
        let reader = std::thread::spawn(move || {
            let mut bytes = Vec::new();
            console.read_to_end(&mut bytes).ok();
            String::from_utf8_lossy(&bytes).into_owned()
        });
        let begun = Instant::now();
        let mut ended = false;
        while !ended && begun.elapsed() < limit {
            ended = qemu.try_wait().unwrap().is_some();
            std::thread::park_timeout(Duration::from_millis(100));
        }
        qemu.kill().ok();
        qemu.wait().unwrap();
        let text = reader.join().unwrap();
        assert!(ended, "no end within {limit:?}:\n{text}");
        text
    }
}

/// A boot under emulation takes 10 s on a quiet machine; ours are not quiet.
pub const LIMIT: Duration = Duration::from_secs(240);

/// `ROOT=disk`: what is written stays, and so does state.
pub fn a_disk_keeps_what_is_written() {
    let machine = Machine::new();
    let words = format!("root=PARTUUID={ROOT_GUID} rootwait single");
    let first = machine.boot(&words, LIMIT);
    expect(
        &first,
        &["gt: Linux ", "node: mode disk, root is ext4", "node: kept: seed, 0 boots", "words single"],
    );
    expect(&first, &["node: kept is 750 7:8"]);
    refuse(&first, &["changed: yes", "cannot boot", "gt: warning"]);
    let second = machine.boot(&words, LIMIT);
    expect(&second, &["node: changed: yes", "node: kept: seed, 1 boots"]);
}

/// `ROOT=disk-ephemeral`: only state stays, and scratch space is empty at every boot.
pub fn an_ephemeral_root_forgets_all_but_state() {
    let machine = Machine::new();
    let words =
        format!("root=PARTUUID={} gt.root=disk-ephemeral gt.overlay_size=64m", ROOT_GUID.to_uppercase());
    for kept in ["node: kept: seed, 0 boots", "node: kept: seed, 1 boots", "node: kept: seed, 2 boots"] {
        let text = machine.boot(&words, LIMIT);
        expect(&text, &["node: mode disk-ephemeral, root is overlay", kept, "node: changed: \r"]);
        expect(&text, &["node: scratch: \r", "node: scratch is 711 3:4", "changes are kept in memory, 64m"]);
        refuse(&text, &["lower can be written", "cannot boot", "gt: warning"]);
    }
}

/// Without `gt-state` and with an MBR: boots all the same and says that state is lost.
pub fn without_a_state_partition_the_console_says_what_is_lost() {
    let machine = Machine::new();
    machine.make_mbr();
    let text = machine.boot("quiet root=PARTUUID=01234567-01 gt.root=disk-ephemeral", LIMIT);
    expect(&text, &["there is no partition gt-state: state will be lost", "node: kept: seed"]);
    expect(&text, &["scratch space is memory", "node: mode disk-ephemeral"]);
}

/// What cannot boot says why and reboots, within its deadline.
pub fn a_wrong_root_says_so_and_reboots() {
    let machine = Machine::new();
    for (words, want) in [
        (
            "root=PARTUUID=deadbeef-02 gt.timeout=3",
            "no partition is PARTUUID=deadbeef-02; found: vda1=0a1b2c3d-",
        ),
        ("gt.timeout=3", "the kernel's command line has no root="),
        ("gt.root=moon", "gt.root=moon is not known"),
        ("root=/dev/vda3 gt.timeout=3", "/dev/vda3 cannot be mounted as ext4"),
        ("root=/dev/vda1 init=/sbin/nothing", "the root has no /sbin/nothing"),
    ] {
        let text = machine.boot(&format!("quiet {words}"), LIMIT);
        expect(&text, &[&format!("gt: cannot boot: {want}"), "gt: rebooting in 10 seconds"]);
        refuse(&text, &["node:", "Kernel panic"]);
    }
}

pub fn expect(text: &str, wanted: &[&str]) {
    for want in wanted {
        assert!(text.contains(want), "`{want}` is missing:\n{text}");
    }
}

pub fn refuse(text: &str, unwanted: &[&str]) {
    for bad in unwanted {
        assert!(!text.contains(bad), "`{bad}` should not be there:\n{text}");
    }
}

fn run(command: &mut Command) {
    let output = command.output().unwrap();
    let all = [output.stdout, output.stderr].concat();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&all));
}

/// The first name in a directory that begins with `start`.
fn name_in(dir: &Path, start: &str) -> String {
    let names = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    names.filter(|name| name.starts_with(start)).min().unwrap()
}

/// Runs depmod and builds the initramfs, from the unpacked packages.
fn initramfs_of(root: &Path, version: &str, work: &Path) -> Vec<u8> {
    let store = Store::open(&work.join("store")).unwrap();
    let mut tree = Tree::new(Meta::root_owned(0o755, Time::default()));
    for part in ["usr/lib/modules", "usr/bin/busybox", &format!("boot/config-{version}")] {
        load(&mut tree, &store, root, Path::new(part));
    }
    kmod::depmod(&mut tree, &store, version, 0).unwrap();
    let options = initramfs::Options { kernel: version.into(), compression: None, busybox: None };
    let (object, notes) = initramfs::build(&tree, &store, &options).unwrap();
    writeln!(std::io::stderr(), "initramfs of {} bytes; notes: {notes:?}", object.size).ok();
    store.read_object(&object).unwrap()
}

fn load(tree: &mut Tree, store: &Store, root: &Path, name: &Path) {
    let real = root.join(name);
    if real.is_dir() {
        for entry in fs::read_dir(&real).unwrap() {
            load(tree, store, root, &name.join(entry.unwrap().file_name()));
        }
        return;
    }
    let path = TreePath::new(name.as_os_str().as_encoded_bytes()).unwrap();
    tree.make_parents(&path, &Meta::root_owned(0o755, Time::default())).unwrap();
    let kind = Kind::File(store.put_bytes(&fs::read(&real).unwrap()).unwrap());
    tree.insert(path, Inode { meta: Meta::root_owned(0o644, Time::default()), kind }).unwrap();
}
