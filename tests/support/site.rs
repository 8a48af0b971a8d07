//! A cluster of a test's own: a description, overlays and a base in a temporary directory.
//! Must not know: what is tested.
//! Spec: design.md sections 4, 5 and 13.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::net::SERVER;
use super::server::Node;
use super::{gt_image, ok, run};

/// A directory with `cluster.toml`, `overlays/` and `images/`.
pub struct Site {
    dir: tempfile::TempDir,
}

/// One node `n1` with the role `role`, on a tarball base called `mini`.
pub const CLUSTER: &str = r#"
[cluster]
name = "test"
domain = "nodes.test"
timezone = "Etc/UTC"
base = "mini"

[network]
subnet = "10.9.0.0/24"
gateway = "10.9.0.1"
dns = ["10.9.0.1"]
server = "10.9.0.2"
dhcp = "proxy"

[vars]
greeting = "hello"

[[node]]
name = "n1"
roles = ["role"]
ip = "10.9.0.11"
mac = "d8:3a:dd:00:00:01"
serial = "00000001"
model = "pi4"
root = "disk"
"#;

impl Site {
    /// A site with [`CLUSTER`], an empty overlay `role` and a root tarball of a few files.
    pub fn new() -> Site {
        let site = Site { dir: tempfile::tempdir().unwrap() };
        site.write("cluster.toml", CLUSTER);
        site.write("overlays/role/overlay.toml", "description = \"A role for tests.\"\n");
        for (path, text) in [
            ("etc/passwd", "root:x:0:0:root:/root:/bin/sh\n"),
            ("etc/group", "root:x:0:\n"),
            ("etc/shadow", "root:*:19000:0:99999:7:::\n"),
            ("etc/gshadow", "root:*::\n"),
            ("usr/bin/tool", "#!/bin/sh\n"),
        ] {
            site.write(&format!("root/{path}"), text);
        }
        site.pack_base();
        site
    }

    /// A site of these nodes, whose base has a firmware and `payload` bytes each of kernel and initramfs.
    pub fn for_netboot(nodes: &[Node], payload: usize) -> Site {
        let site = Site::new();
        let (head, _) = CLUSTER.split_once("[[node]]").unwrap();
        let mut text = head.replace("10.9.0.0/24", "10.4.0.0/20").replace("10.9.0.1", "10.4.0.1");
        text = text.replace("10.9.0.2", SERVER);
        for Node { name, mac, serial, address } in nodes {
            text.push_str(&format!(
                "[[node]]\nname = \"{name}\"\nroles = [\"role\"]\nip = \"{address}\"\nmac = \"{mac}\"\n\
                 serial = \"{serial:08x}\"\nmodel = \"pi4\"\nroot = \"nfs\"\n\n"
            ));
        }
        site.write("cluster.toml", &text);
        let config = "kernel=kernel8.img\ninitramfs initramfs.img followkernel\n";
        site.write("root/boot/firmware/config.txt", config);
        for (name, bytes, seed) in [
            ("start4.elf", payload, 1),
            ("fixup4.dat", 5_405, 2),
            ("bcm2711-rpi-4-b.dtb", 55_000, 3),
            ("kernel8.img", payload, 4),
            ("initramfs.img", payload, 5),
        ] {
            site.write_bytes(&format!("root/boot/firmware/{name}"), &noise(seed, bytes));
        }
        site.pack_base();
        site
    }

    /// Packs `root/` as the base `mini`.
    pub fn pack_base(&self) {
        let root = self.path("root");
        let tar = self.path("images/mini.tar");
        fs::create_dir_all(self.path("images")).unwrap();
        let (root, file) = (root.to_str().unwrap(), tar.to_str().unwrap());
        run(
            "tar",
            ["--xattrs", "--sort=name", "--numeric-owner", "--format=pax", "-C", root, "-cf", file, "."],
        );
        let sum = run("sha256sum", [file]);
        let sha256 = sum.split(' ').next().unwrap();
        let base = format!("kind = \"tar\"\npath = \"mini.tar\"\nsha256 = \"{sha256}\"\n");
        self.write("images/mini.toml", &base);
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Writes a file, with the directories above it.
    pub fn write(&self, name: &str, text: &str) {
        self.write_bytes(name, text.as_bytes());
    }

    /// Writes a file of any bytes, with the directories above it.
    pub fn write_bytes(&self, name: &str, bytes: &[u8]) {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }

    /// Replaces a piece of a file that must be there.
    pub fn edit(&self, name: &str, old: &str, new: &str) {
        let text = fs::read_to_string(self.path(name)).unwrap();
        assert!(text.contains(old), "{name} has no {old:?}");
        self.write(name, &text.replacen(old, new, 1));
    }

    /// The program, at work on this site.
    pub fn gt_image<const N: usize>(&self, args: [&str; N]) -> Command {
        let mut command = gt_image();
        command.current_dir(self.dir.path()).args(args);
        command
    }

    /// Builds `n1` without an image and gives the canonical text of its root.
    pub fn dump(&self) -> String {
        ok(&mut self.gt_image(["build", "--node", "n1", "--no-image"]));
        ok(&mut self.gt_image(["export", "--node", "n1", "--dump", "-"]))
    }

    /// The line of a dump that is about `path`.
    pub fn line<'a>(dump: &'a str, path: &str) -> Option<&'a str> {
        dump.lines().find(|line| line.split(' ').next() == Some(path))
    }
}

/// Bytes that no two seeds share and that no packing shortens (xorshift64).
pub fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 32) as u8
    };
    (0..len).map(|_| next()).collect()
}

/// A file's SHA-256 as the foreign tool sees it.
pub fn sha256(path: &Path) -> String {
    run("sha256sum", [path]).split(' ').next().unwrap().to_owned()
}
