//! Putting a node on a card beside the tools that a user would take: `bmaptool copy` and `dd` of its image, and the
//! bare writing of as many bytes at the same places.
//! Must not know: how cards are written.
//! Spec: docs/performance.md has the figures of the last run.
//!
//! `cargo bench -p gt-image --bench flash` as root: cards are loop devices, once over memory and once over a file
//! that takes 90 MB/s, as the best cards do. 10 GB of memory.

mod common;

use std::fs::{self, File};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use common::{Fallible, Site, run};

const CARD: u64 = 4 << 30;
const PIECE: usize = 4 << 20;
const ROUNDS: usize = 5;

fn main() -> Fallible<()> {
    let site = Site::new()?;
    site.gt_image(&["build", "--node", "fenn", "--raw", "--keep-going"])?;
    println!(
        "{:28} {:>8} {:>8} {:>8}   {:>8} {:>8} {:>7}",
        "seconds", "flash", "bmaptool", "ratio", "no-check", "bare", "ratio"
    );
    let memory = Card::new(None)?;
    measure("card of memory", &site, memory.path(), ROUNDS)?;
    drop(memory);
    let slow = Card::new(Some(90_000_000))?;
    measure("card of 90 MB/s", &site, slow.path(), 1)
}

/// All in turn, and the best of each: what else the machine does comes and goes.
fn measure(name: &str, site: &Site, card: &Path, rounds: usize) -> Fallible<()> {
    let out = site.path("images/out/fenn");
    let device = card.display().to_string();
    let flash = ["flash", "--node", "fenn", "--device", &device, "--yes", "--allow-incomplete"];
    let mut best = [f64::INFINITY; 5];
    for _ in 0..rounds {
        let took = [
            site.gt_image(&flash)?.wall,
            timed(|| {
                let mut bmaptool = Command::new("bmaptool");
                run(bmaptool.args(["copy", "--bmap"]).args([
                    &out.join("disk.bmap"),
                    &out.join("disk.img"),
                    card,
                ]))
            })?,
            site.gt_image(&[&flash[..], &["--no-verify"]].concat())?.wall,
            timed(|| bare(&out.join("disk.bmap"), card))?,
            timed(|| {
                let (from, to) = (out.join("disk.img"), card);
                let files = [format!("if={}", from.display()), format!("of={}", to.display())];
                run(Command::new("dd").args(files).args(["bs=4M", "oflag=direct", "conv=sparse,fsync"]))
            })?,
        ];
        for (best, took) in best.iter_mut().zip(took) {
            *best = best.min(took);
        }
    }
    let [verified, bmaptool, plain, bare, dd] = best;
    println!(
        "{name:28} {verified:>8.2} {bmaptool:>8.2} {:>8.2}   {plain:>8.2} {bare:>8.2} {:>7.2}   (dd {dd:.2})",
        verified / bmaptool,
        plain / bare
    );
    Ok(())
}

/// The mapped bytes from memory, past the page cache: nobody can be faster.
fn bare(bmap: &Path, card: &Path) -> Fallible<()> {
    let direct = i32::try_from(rustix::fs::OFlags::DIRECT.bits())?;
    let file = File::options().write(true).custom_flags(direct).open(card)?;
    let room = vec![0x5a; PIECE + 4096];
    let aligned = &room[room.as_ptr().align_offset(4096)..][..PIECE];
    let text = fs::read_to_string(bmap)?;
    // `<Range chksum="…"> 0-15 </Range>`
    for range in text.lines().filter_map(|line| line.trim().strip_prefix("<Range")?.split_once("> ")) {
        let blocks = range.1.split(' ').next().ok_or("no range")?;
        let (first, last) = blocks.split_once('-').unwrap_or((blocks, blocks));
        let (mut at, end) = (first.parse::<u64>()? * 4096, (last.parse::<u64>()? + 1) * 4096);
        while at < end {
            let piece = &aligned[..usize::try_from(end - at)?.min(PIECE)];
            file.write_all_at(piece, at)?;
            at += piece.len() as u64;
        }
    }
    Ok(file.sync_all()?)
}

fn timed(work: impl FnOnce() -> Fallible<()>) -> Fallible<f64> {
    let begun = Instant::now();
    work()?;
    Ok(begun.elapsed().as_secs_f64())
}

/// A loop device over memory, or over a slow file there.
struct Card {
    device: PathBuf,
    memory: tempfile::TempDir,
    slow: Option<Child>,
}

impl Card {
    /// `speed` in bytes a second, if it has one.
    fn new(speed: Option<u64>) -> Fallible<Card> {
        let memory = tempfile::Builder::new().prefix("gt-bench-card-").tempdir_in("/dev/shm")?;
        let mut file = memory.path().join("card");
        File::create(&file)?.set_len(CARD)?;
        let mut slow = None;
        if let Some(speed) = speed {
            let mount = memory.path().join("slow");
            fs::create_dir(&mount)?;
            let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/bad_disk.py");
            let mut command = Command::new("/usr/bin/python3");
            command.arg(script).args([&mount, &file]).arg(format!("slow={speed}")).stderr(Stdio::null());
            slow = Some(command.spawn()?);
            file = mount.join("disk");
            let begun = Instant::now();
            while !file.exists() {
                if begun.elapsed() > Duration::from_secs(20) {
                    return Err("the slow card does not come".into());
                }
                std::thread::sleep(Duration::from_millis(50));
            }
        }
        let output =
            Command::new("losetup").args(["--find", "--show", "--direct-io=on"]).arg(&file).output()?;
        let device = PathBuf::from(String::from_utf8(output.stdout)?.trim());
        Ok(Card { device, memory, slow })
    }

    fn path(&self) -> &Path {
        &self.device
    }
}

impl Drop for Card {
    fn drop(&mut self) {
        let _ = Command::new("losetup").arg("-d").arg(&self.device).status();
        if let Some(slow) = &mut self.slow {
            let _ = Command::new("umount").arg("-l").arg(self.memory.path().join("slow")).status();
            let _ = slow.kill();
            let _ = slow.wait();
        }
    }
}
