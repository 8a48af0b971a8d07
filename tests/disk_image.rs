//! Bases of kind `disk-image`: an image in the official layout, made with foreign tools, becomes a node.
//! Must not know: how images are read. Spec: design.md sections 6 and 13; the layout of the published images.

use std::fs;
use std::path::{Path, PathBuf};

use libtest_mimic::Trial;

use crate::support::official::{self, BOOT, ROOT, SECTOR};
use crate::support::site::{Site, sha256};
use crate::support::{Tier, fails, ok, run, trial};

const TOOLS: &[Tier] = &[Tier::Judge(&[
    "sfdisk",
    "mkfs.vfat",
    "mcopy",
    "mke2fs",
    "e2fsck",
    "fsck.vfat",
    "xz",
    "zstd",
    "python3",
])];

pub fn trials() -> Vec<Trial> {
    vec![
        trial("disk_image::every_packing_gives_the_same_node", TOOLS, every_packing),
        trial("disk_image::the_first_boot_is_switched_off", TOOLS, first_boot),
        trial("disk_image::bad_images_are_refused", TOOLS, bad_images),
    ]
}

const ROOT_SECTORS: u64 = 131_072;

/// Makes `images/official.img` of the site's root, in the official layout.
fn official(site: &Site) -> PathBuf {
    let image = site.path("images/official.img");
    site.write("boot/cmdline.txt", official::CMDLINE);
    site.write("boot/config.txt", official::CONFIG);
    site.write("boot/overlays/gpio-fan.dtbo", &"fan".repeat(40_000));
    site.write("boot/A file with a long name.txt", "x");
    official::image(&image, &site.path("boot"), &site.path("root"), ROOT_SECTORS);
    image
}

/// A site whose base is the image `file`.
fn with_base(site: &Site, file: &Path) {
    let name = file.file_name().unwrap().to_str().unwrap();
    let base = format!("kind = \"disk-image\"\npath = \"{name}\"\nsha256 = \"{}\"\n", sha256(file));
    site.write("images/mini.toml", &base);
}

fn site() -> Site {
    let site = Site::new();
    for unit in ["rpi-resize", "userconfig", "ssh"] {
        site.write(&format!("root/usr/lib/systemd/system/{unit}.service"), "[Service]\n");
    }
    site.write("root/etc/cloud/cloud.cfg", "");
    site.write("root/etc/fstab", official::FSTAB);
    site.write("root/var/lib/systemd/random-seed", "seed");
    site.write("root/boot/firmware/hidden", "below the mount point");
    site
}

fn every_packing() {
    let site = site();
    let image = official(&site);
    let path = |name: &str| site.path(&format!("images/{name}"));
    let at = |name: &str| path(name).to_str().unwrap().to_owned();
    run(
        "sh",
        ["-c", &format!("xz -0 -T0 -k {0} && gzip -1 -k {0} && zstd -q -1 -k {0}", at("official.img"))],
    );
    run("sh", ["-c", &format!("cd {} && python3 -m zipfile -c official.zip official.img", at(""))]);
    with_base(&site, &image);
    let dump = site.dump();
    for path in ["/etc/fstab", "/usr/bin/tool", "/lost+found", "/boot/firmware d"] {
        assert!(dump.contains(path), "{path} is not in\n{dump}");
    }
    assert!(!dump.contains("hidden"), "what is below the mount point is out of sight");
    for form in ["official.img.xz", "official.img.gz", "official.img.zst", "official.zip"] {
        with_base(&site, &path(form));
        ok(&mut site.gt_image(["gc", "--layers"]));
        assert_eq!(site.dump(), dump, "{form}");
    }
    ok(&mut site.gt_image(["export", "--node", "n1", "--boot", "boot-out"]));
    for name in ["overlays/gpio-fan.dtbo", "A file with a long name.txt"] {
        let (had, gave) = (site.path("boot").join(name), site.path("boot-out").join(name));
        assert_eq!(fs::read(had).unwrap(), fs::read(gave).unwrap(), "{name}");
    }
    ok(&mut site.gt_image(["build", "--node", "n1", "--raw"]));
    run("sfdisk", ["-V", site.path("images/out/n1/disk.img").to_str().unwrap()]);
    let manifest = fs::read_to_string(site.path("images/out/n1/manifest.json")).unwrap();
    assert!(manifest.contains("\"kind\": \"disk-image\"") || manifest.contains("\"kind\":\"disk-image\""));
    let cmdline = fs::read_to_string(site.path("boot-out/cmdline.txt")).unwrap();
    assert!(!cmdline.contains("041bba91") && !cmdline.contains("resize"), "{cmdline}");
}

fn first_boot() {
    let site = site();
    let image = official(&site);
    with_base(&site, &image);
    let dump = site.dump();
    let masked = |unit: &str| {
        let line = format!("/etc/systemd/system/{unit}.service l ");
        dump.lines().any(|l| l.starts_with(&line) && l.ends_with(" /dev/null"))
    };
    assert!(masked("rpi-resize") && masked("userconfig") && !masked("ssh"), "{dump}");
    assert!(dump.contains("/etc/cloud/cloud-init.disabled"));
    assert!(!dump.contains("random-seed"));
    let why = ok(&mut site.gt_image(["why", "/etc/systemd/system/rpi-resize.service", "--node", "n1"]));
    assert!(why.contains("first boot"), "{why}");
}

fn bad_images() {
    let site = site();
    let image = official(&site);
    with_base(&site, &image);
    let good = fs::read_to_string(site.path("images/mini.toml")).unwrap();
    let digest = sha256(&image);
    site.write("images/mini.toml", &good.replace(&digest, &"0".repeat(64)));
    let told = fails(&mut site.gt_image(["build", "--node", "n1", "--no-image"]), 1);
    assert!(told.contains("official.img") && told.contains(&digest), "{told}");
    let bytes = fs::read(&image).unwrap();
    for (name, change, want) in [
        (
            "cut.img",
            &(|b: &mut Vec<u8>| b.truncate(b.len() / 2)) as &dyn Fn(&mut Vec<u8>),
            "is the image whole?",
        ),
        ("none.img", &|b| b[510] = 0, "no partition table"),
        ("fat.img", &|b| b[(BOOT * SECTOR) as usize + 11] = 3, "partition 1"),
        ("ext.img", &|b| b[(ROOT * SECTOR) as usize + 1024 + 56] = 3, "no ext2, ext3 or ext4 filesystem"),
        ("sum.img", &|b| b[(ROOT * SECTOR) as usize + 1024 + 100] ^= 1, "its checksum is wrong"),
    ] {
        let mut bytes = bytes.clone();
        change(&mut bytes);
        let file = site.path("images").join(name);
        fs::write(&file, bytes).unwrap();
        with_base(&site, &file);
        let told = fails(&mut site.gt_image(["build", "--node", "n1", "--no-image"]), 1);
        assert!(told.contains(want) && told.contains(name), "{name}: {told}");
        fs::remove_file(file).unwrap();
    }
}
