//! The whole program beside the tools that a user would take instead, in one run, as ratios.
//! Must not know: private parts of the library.
//! Spec: docs/performance.md says what the figures mean and has those of the last run.
//!
//! `cargo bench -p gt-image --bench peers [base] [image] [rebuild] [nodes]`; root, for mmdebstrap.

mod common;

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Instant;

use common::{Cost, Fallible, Site, emulated, run};

fn main() -> Fallible<()> {
    let asked: Vec<String> = std::env::args().skip(1).filter(|a| !a.starts_with("--")).collect();
    let wanted = |name: &str| asked.is_empty() || asked.iter().any(|a| a == name);
    let site = Site::new()?;
    site.gt_image(&["build", "--node", "fenn", "--no-image", "--keep-going"])?;
    println!("{:34} {:>9} {:>9} {:>7} {:>9}", "work", "gt-image", "peer", "ratio", "peak MiB");
    if wanted("rebuild") {
        rebuild(&site)?;
    }
    if wanted("nodes") {
        nodes(&site)?;
    }
    if wanted("image") {
        image(&site)?;
    }
    if wanted("base") {
        base(&site)?;
    }
    Ok(())
}

fn row(work: &str, ours: Cost, peer: Option<f64>) {
    let (peer, ratio) = match peer {
        Some(peer) => (format!("{peer:.2} s"), format!("{:.2}", ours.wall / peer)),
        None => ("-".into(), "-".into()),
    };
    println!("{work:34} {:>7.2} s {peer:>9} {ratio:>7} {:>9.0}", ours.wall, ours.peak);
}

fn rebuild(site: &Site) -> Fallible<()> {
    site.gt_image(&["build", "--node", "fenn", "--raw", "--keep-going"])?;
    let again = site.gt_image(&["build", "--node", "fenn", "--raw", "--keep-going"])?;
    row("nothing changed", again, None);
    let file = site.path("overlays/motd/files/etc/motd");
    let text = fs::read_to_string(&file)?;
    fs::write(&file, format!("{text}edited\n"))?;
    let edited = site.gt_image(&["build", "--node", "fenn", "--raw", "--keep-going"])?;
    fs::write(&file, text)?;
    row("one overlay file edited, --raw", edited, None);
    Ok(())
}

fn nodes(site: &Site) -> Fallible<()> {
    for node in ["allyrion", "bettley"] {
        site.gt_image(&["build", "--node", node, "--no-image", "--keep-going"])?;
    }
    let used = || -> Fallible<f64> {
        let out = Command::new("du").arg("-sk").arg(site.path("images/store")).output()?;
        Ok(String::from_utf8(out.stdout)?.split('\t').next().unwrap_or("0").parse::<f64>()? / 1024.0)
    };
    let before = used()?;
    let one = site.gt_image(&["build", "--node", "jast", "--no-image", "--keep-going"])?;
    let ten = site.gt_image(&["build", "--all", "--no-image", "--keep-going"])?;
    row("ten nodes, one node as the peer", ten, Some(one.wall));
    println!("store: {before:.0} MiB with one node of each role, {:.0} MiB with ten nodes", used()?);
    Ok(())
}

fn image(site: &Site) -> Fallible<()> {
    site.gt_image(&["build", "--node", "fenn", "--no-image", "--keep-going"])?;
    let ours = |raw: &[&str], out: &str| -> Fallible<Cost> {
        remove(&site.path(out))?;
        site.gt_image(&[&["build", "--node", "fenn", "--keep-going", "--out", out], raw].concat())
    };
    ours(&["--raw"], "raw")?;
    let (root, boot, tar) = (site.path("peer/root"), site.path("peer/input/boot"), site.path("root.tar"));
    fs::create_dir_all(&root)?;
    fs::create_dir_all(site.path("peer/input"))?;
    let paths = [&tar, &boot].map(|p| p.display().to_string());
    site.gt_image(&["export", "--node", "fenn", "--tar", &paths[0], "--boot", &paths[1]])?;
    run(Command::new("tar").arg("-C").arg(&root).args(["--numeric-owner", "--xattrs", "-xpf"]).arg(&tar))?;
    let size = |label: &str| -> Fallible<String> {
        let manifest: serde_json::Value =
            serde_json::from_slice(&fs::read(site.path("raw/fenn/manifest.json"))?)?;
        let partitions = manifest["partitions"].as_array().ok_or("no partitions")?;
        let partition = partitions.iter().find(|p| p["label"] == label).ok_or("no such partition")?;
        Ok(partition["size"].to_string())
    };
    let config = format!(
        "image boot.vfat {{\n vfat {{ files = {{ \"boot\" }} }}\n size = {}\n}}\n\
         image root.ext4 {{\n ext4 {{ use-mke2fs = true }}\n size = {}\n mountpoint = \"/\"\n}}\n\
         image disk.img {{\n hdimage {{ partition-table-type = gpt }}\n\
         partition bootfs {{ image = \"boot.vfat\" partition-type-uuid = F }}\n\
         partition rootfs {{ image = \"root.ext4\" partition-type-uuid = L }}\n}}\n",
        size("bootfs")?,
        size("rootfs")?
    );
    fs::write(site.path("peer/genimage.cfg"), config)?;
    let genimage = || -> Fallible<f64> {
        remove(&site.path("peer/out"))?;
        remove(&site.path("peer/tmp"))?;
        let begun = Instant::now();
        run(Command::new("genimage")
            .current_dir(site.path("peer"))
            .args(["--rootpath", "root", "--inputpath", "input", "--outputpath", "out", "--tmppath", "tmp"])
            .args(["--config", "genimage.cfg"]))?;
        Ok(begun.elapsed().as_secs_f64())
    };
    // In turn, and the best of each: what else the machine does comes and goes.
    let (mut raw, mut packed, mut peer) = (NEVER, NEVER, f64::INFINITY);
    for _ in 0..3 {
        peer = peer.min(genimage()?);
        raw = better(raw, ours(&["--raw"], "raw")?);
        packed = better(packed, ours(&[], "packed")?);
    }
    row("disk image, --raw, and genimage", raw, Some(peer));
    row("disk image, zstd, and genimage", packed, Some(peer));
    Ok(())
}

const NEVER: Cost = Cost { wall: f64::INFINITY, peak: 0.0 };

fn better(one: Cost, other: Cost) -> Cost {
    if other.wall < one.wall { other } else { one }
}

fn remove(dir: &Path) -> Fallible<()> {
    match fs::remove_dir_all(dir) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(e.into()),
        _ => Ok(()),
    }
}

/// The base layer alone from cached packages, beside mmdebstrap on the same package files.
fn base(site: &Site) -> Fallible<()> {
    // A role without packages makes a node of the base layer alone.
    let bare = Site::new()?;
    let cluster = fs::read_to_string(bare.path("cluster.toml"))?.replace("[\"worker\"]", "[\"bare\"]");
    fs::write(bare.path("cluster.toml"), cluster)?;
    fs::create_dir_all(bare.path("overlays/bare"))?;
    fs::write(bare.path("overlays/bare/overlay.toml"), "description = \"Nothing.\"\n")?;
    bare.gt_image(&["lock"])?;
    bare.gt_image(&["build", "--node", "fenn", "--no-image"])?;
    fs::remove_dir_all(bare.path("images/store"))?;
    let ours = bare.gt_image(&["build", "--node", "fenn", "--no-image", "--offline"])?;
    let inspect = Command::new(env!("CARGO_BIN_EXE_gt-image"))
        .current_dir(bare.dir.path())
        .args(["inspect", "fenn", "--json"])
        .output()?;
    let manifest: serde_json::Value = serde_json::from_slice(&inspect.stdout)?;
    let packages = manifest["packages"].as_array().ok_or("no packages")?;
    let repository = site.path("debs");
    fs::create_dir_all(&repository)?;
    let mut names = Vec::new();
    for package in packages {
        let field = |name: &str| package[name].as_str().unwrap_or_default().to_owned();
        let sha256 = field("sha256").replace("sha256:", "");
        let file = format!("images/cache/debs/{}/{sha256}.deb", &sha256[..2]);
        fs::copy(
            site.repository.join(file),
            repository.join(format!("{}_{}.deb", field("name"), field("architecture"))),
        )?;
        names.push(field("name"));
    }
    let index = Command::new("apt-ftparchive").current_dir(&repository).args(["packages", "."]).output()?;
    fs::write(repository.join("Packages"), index.stdout)?;
    let release = Command::new("apt-ftparchive").current_dir(&repository).args(["release", "."]).output()?;
    fs::write(repository.join("Release"), release.stdout)?;
    let begun = Instant::now();
    let script = format!(
        "exec mmdebstrap --quiet --mode=root --variant=custom \
         --architectures=arm64 --include={} '' {} 'deb [trusted=yes] copy:{} ./'",
        names.join(","),
        site.path("peer.tar").display(),
        repository.display()
    );
    emulated(&script)?;
    row("base layer, and mmdebstrap", ours, Some(begun.elapsed().as_secs_f64()));
    println!("({} packages)", packages.len());
    Ok(())
}
