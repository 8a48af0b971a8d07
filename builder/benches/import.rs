//! Taking in an official image beside the tools that a user would take: `xz -dc` of it alone, and `debugfs rdump` of
//! its root.
//! Must not know: how images are read.
//! Spec: docs/performance.md. The image has Raspberry Pi OS Lite's measures: 2.6 GiB, 1.6 GiB used, 60,000 inodes.
//!
//! `cargo bench -p gt-image --bench import` needs mke2fs, mkfs.vfat, sfdisk and xz, 8 GB of disk and some minutes.

mod common;

use std::fs::{self, File};
use std::io::{Seek, SeekFrom, Write};
use std::path::Path;
use std::process::Command;
use std::time::Instant;

use common::Fallible;
use gt_image::base::disk_image;
use gt_image::digest::Digest;
use gt_image::ext4::read;
use gt_image::io::at::Window;
use gt_image::io::progress::{Progress, Unit};
use gt_image::store::Store;

const MIB: u64 = 1 << 20;
const BOOT: u64 = 8 * MIB;
const ROOT: u64 = 520 * MIB;
const ROOT_SIZE: u64 = 2144 * MIB;
const FILES: u64 = 55_000;
const USED: u64 = 1638 * MIB;

fn main() -> Fallible<()> {
    let dir = tempfile::Builder::new().prefix("gt-bench-import-").tempdir_in(env!("CARGO_TARGET_TMPDIR"))?;
    let path = |name: &str| dir.path().join(name);
    fill(&path("root"))?;
    image(dir.path())?;
    fs::remove_dir_all(path("root"))?;
    // Fast to make; the time to unpack it is nearly that of a slower level.
    run(Command::new("xz").args(["-1", "-T0", "-k"]).arg(path("image")))?;
    let packed = path("image.xz");
    let digest: Digest = Digest::of_reader(&mut File::open(&packed)?)?;
    println!("{:38} {:>9} {:>9} {:>7}", "work", "gt-image", "peer", "ratio");
    let (mut xz, mut ours) = (f64::INFINITY, f64::INFINITY);
    for round in 0..2 {
        xz = xz.min(timed(|| {
            run(Command::new("sh").arg("-c").arg(format!("xz -dc -T1 {} > /dev/null", packed.display())))
        })?);
        let store = Store::open(&path(&format!("store-{round}")))?;
        ours = ours.min(timed(|| {
            let trees = disk_image::read(&packed, &digest, &store, &Progress::off())?;
            assert!(trees.root.len() as u64 > FILES);
            Ok(())
        })?);
    }
    row("import of .img.xz, and xz -dc alone", ours, xz);
    let (mut dump, mut ours) = (f64::INFINITY, f64::INFINITY);
    let raw = File::open(path("image"))?;
    for round in 0..2 {
        let to = path(&format!("dump-{round}"));
        fs::create_dir(&to)?;
        let root = format!("{}?offset={ROOT}", path("image").display());
        dump = dump.min(timed(|| {
            run(Command::new("debugfs").arg("-R").arg(format!("rdump / {}", to.display())).arg(&root))
        })?);
        let store = Store::open(&path(&format!("tree-{round}")))?;
        ours = ours.min(timed(|| {
            let task = Progress::off().task("reading", Unit::Bytes, None);
            read::into_tree(&Window::new(&raw, ROOT, ROOT_SIZE), &store, &task)?;
            Ok(())
        })?);
        fs::remove_dir_all(to)?;
    }
    row("ext4 into the store, and debugfs rdump", ours, dump);
    let status = fs::read_to_string("/proc/self/status")?;
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap_or_default();
    println!("peak memory of all of it: {}", peak.trim());
    Ok(())
}

/// Files as a system has them: a few large, most small; programs and text, so that they pack to a third.
fn fill(root: &Path) -> Fallible<()> {
    let source = fs::read(std::env::current_exe()?)?;
    let mean = USED / FILES;
    let mut seed = 1u64;
    for n in 0..FILES {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        // Nine of ten have a third of the mean, the others the rest.
        let len = if n % 10 == 0 { mean * 7 } else { mean / 3 } + seed % 1000;
        let dir = root.join(format!("{:03}", n / 110));
        fs::create_dir_all(&dir)?;
        let at = usize::try_from(seed >> 16)? % source.len();
        let mut bytes: Vec<u8> =
            source[at..].iter().chain(&source).copied().take(usize::try_from(len)?).collect();
        // No two files are equal.
        bytes[..8].copy_from_slice(&n.to_le_bytes());
        fs::write(dir.join(format!("file-{n}")), bytes)?;
    }
    Ok(())
}

/// `image` in the official layout, of `root`.
fn image(dir: &Path) -> Fallible<()> {
    let (boot, root, whole) = (dir.join("boot.part"), dir.join("root.part"), dir.join("image"));
    File::create(&boot)?.set_len(ROOT - BOOT)?;
    run(Command::new("mkfs.vfat").args(["-F", "32", "-n", "bootfs"]).arg(&boot))?;
    File::create(&root)?.set_len(ROOT_SIZE)?;
    let form = ["-q", "-t", "ext4", "-N", "60000", "-O", "^64bit,^huge_file", "-L", "rootfs", "-d"];
    run(Command::new("mke2fs").args(form).arg(dir.join("root")).arg(&root))?;
    File::create(&whole)?.set_len(ROOT + ROOT_SIZE)?;
    let table = format!(
        "label: dos\nstart={}, size={}, type=c\nstart={}, type=83\n",
        BOOT / 512,
        (ROOT - BOOT) / 512,
        ROOT / 512
    );
    fs::write(dir.join("table"), table)?;
    run(Command::new("sh").arg("-c").arg(format!("sfdisk -q {0}/image < {0}/table", dir.display())))?;
    for (part, at) in [(&boot, BOOT), (&root, ROOT)] {
        let mut to = File::options().write(true).open(&whole)?;
        to.seek(SeekFrom::Start(at))?;
        std::io::copy(&mut File::open(part)?, &mut to)?;
        to.flush()?;
        fs::remove_file(part)?;
    }
    Ok(())
}

fn row(work: &str, ours: f64, peer: f64) {
    println!("{work:38} {ours:>7.2} s {peer:>7.2} s {:>7.2}", ours / peer);
}

fn timed(work: impl FnOnce() -> Fallible<()>) -> Fallible<f64> {
    let begun = Instant::now();
    work()?;
    Ok(begun.elapsed().as_secs_f64())
}

fn run(command: &mut Command) -> Fallible<()> {
    let path = std::env::var("PATH").unwrap_or_default() + ":/usr/sbin:/sbin";
    let output = command.env("PATH", path).output().map_err(|e| format!("{command:?}: {e}"))?;
    match output.status.success() {
        true => Ok(()),
        false => Err(format!("{command:?}: {}", String::from_utf8_lossy(&output.stderr)).into()),
    }
}
