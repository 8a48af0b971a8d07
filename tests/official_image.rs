//! Raspberry Pi's own image, as it is published, wherever it and its archives can be fetched: locked, taken in, with
//! packages on top. What a stand-in cannot show is whether the real one is as it is believed to be.
//! Must not know: how an image is read. Spec: docs/raspberry-pi-os.md; images/raspios-lite.toml names it.

use std::fs;

use libtest_mimic::Trial;
use serde_json::Value;

use crate::netboot::Site;
use crate::support::{Tier, ok, run, trial};

const REAL: &[Tier] =
    &[Tier::Archive, Tier::Root, Tier::Official, Tier::Judge(&["sfdisk", "e2fsck", "fsck.vfat", "dd"])];

pub fn trials() -> Vec<Trial> {
    vec![trial("official_image::raspberry_pi_os_lite_becomes_a_node", REAL, becomes_a_node)]
}

const ROLE: &str =
    "description = \"A node.\"\nincludes = [\"base-system\", \"quick-boot\", \"openssh\", \"munge\"]\n";

fn becomes_a_node() {
    let site = Site::new("raspios-lite");
    let overlay = site.dir.join("overlays/on-raspios");
    fs::create_dir_all(&overlay).unwrap();
    fs::write(overlay.join("overlay.toml"), ROLE).unwrap();
    site.edit(|cluster| {
        let nodes = cluster["node"].as_array_mut().unwrap();
        nodes.retain(|node| node["name"].as_str() == Some("fenn"));
        let fenn = nodes[0].as_table_mut().unwrap();
        fenn.insert("roles".into(), vec!["on-raspios"].into());
        fenn.insert("base".into(), "raspios-lite".into());
    });
    ok(&mut site.command(&["lock", "--base", "raspios-lite"]));
    let text = fs::read_to_string(site.dir.join("images/raspios-lite.lock")).unwrap();
    let lock: toml::Table = text.parse().unwrap();
    let packages = lock["package"].as_array().unwrap();
    assert!(packages.iter().any(|package| package["name"].as_str() == Some("munge")), "{text}");
    ok(&mut site.command(&["build", "--node", "fenn", "--raw", "--locked"]));
    explained(&site);
    // The kernel that the Pi 4 takes, from the image.
    let boot = site.dir.join("boot-out");
    ok(site.command(&["export", "--node", "fenn", "--boot"]).arg(&boot));
    let config = fs::read_to_string(boot.join("config.txt")).unwrap();
    assert!(config.contains("kernel=kernel8.img\ninitramfs initramfs.img followkernel\n"), "{config}");
    for file in ["kernel8.img", "initramfs.img", "start4.elf", "fixup4.dat", "bcm2711-rpi-4-b.dtb"] {
        assert!(boot.join(file).metadata().is_ok_and(|meta| meta.len() > 0), "{file}");
    }
    judged(&site);
}

/// Each path that differs from the official image was changed by a layer that says why.
fn explained(site: &Site) {
    let rows = ok(&mut site.command(&["diff", "base:raspios-lite", "fenn", "--why", "--json"]));
    let rows: Vec<Value> = serde_json::from_str(&rows).unwrap();
    assert!(rows.len() > 100, "{} paths differ", rows.len());
    for row in rows.iter().filter(|row| row["tree"] == "root") {
        let why = row["why"].as_array().map(Vec::as_slice).unwrap_or_default();
        let last = why.last().unwrap_or_else(|| panic!("nobody knows why: {row}"));
        assert_eq!(last["kind"], "layer", "{row}");
    }
}

fn judged(site: &Site) {
    let image = site.dir.join("images/out/fenn/disk.img");
    let image = image.to_str().unwrap();
    run("sfdisk", ["--verify", image]);
    let manifest = fs::read(site.dir.join("images/out/fenn/manifest.json")).unwrap();
    let manifest: Value = serde_json::from_slice(&manifest).unwrap();
    for (index, check) in [(0, &["fsck.vfat", "-n"][..]), (1, &["e2fsck", "-fn"])] {
        let partition = &manifest["partitions"][index];
        let mib = |key: &str| partition[key].as_u64().unwrap() >> 20;
        let part = site.dir.join("partition");
        let part = part.to_str().unwrap();
        let (from, to) = (format!("if={image}"), format!("of={part}"));
        let (skip, count) = (format!("skip={}", mib("start")), format!("count={}", mib("size")));
        run("dd", [&from, &to, "bs=1M", &skip, &count, "conv=sparse"]);
        run(check[0], [check[1], part]);
    }
}
