//! Times the ext4 writer against `mke2fs -d` on the same files, and against the floor: reading
//! those files and writing the same bytes. Prints a table. As root, or mke2fs keeps the wrong owners.
//! Must not know: the writer's inner parts.
//! Spec: design.md section 8: a quarter of mke2fs's CPU time, twice the floor's wall time.
//!
//! `TMPDIR` says where; everything is read once before it is timed.

use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use gt_image::ext4::{self, Options};
use gt_image::io::sink::ImageSink;
use gt_image::store::Store;
use gt_image::tree::{Inode, Kind, Meta, Time, Tree, TreePath};

const FILES: u64 = 50_000;
/// Two gibibytes hold the 1.2 GiB of files, for both writers.
const SIZE: u64 = 2 << 30;
const ROUNDS: usize = 5;

struct SparseFile {
    file: File,
    position: u64,
}

impl ImageSink for SparseFile {
    fn data(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.position += bytes.len() as u64;
        self.file.write_all(bytes)
    }

    fn skip(&mut self, len: u64) -> io::Result<()> {
        self.position += len;
        self.file.seek(SeekFrom::Start(self.position)).map(|_| ())
    }

    fn position(&self) -> u64 {
        self.position
    }
}

/// Wall and CPU time of one way to do it.
#[derive(Clone, Copy)]
struct Cost {
    wall: Duration,
    cpu: Duration,
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let dir = tempfile::tempdir()?;
    let store = Store::open(&dir.path().join("store"))?;
    let files = dir.path().join("files");
    let tree = make(&store, &files)?;
    let image = dir.path().join("image");
    println!("{FILES} files in {}", dir.path().display());

    let floor = best(ROUNDS, || floor(&store, &tree, &image))?;
    let ours = best(ROUNDS, || ours(&store, &tree, &image))?;
    let memory = fs::read_to_string("/proc/self/status")?;
    let memory = memory.lines().find(|line| line.starts_with("VmHWM")).unwrap_or_default().to_owned();
    let theirs = best(1, || mke2fs(&files, &image))?;

    println!("{:24}{:>10}{:>10}{:>16}{:>16}", "", "wall s", "CPU s", "wall / floor", "CPU / mke2fs");
    for (name, cost) in [("read and write only", floor), ("gt-image", ours), ("mke2fs -d", theirs)] {
        let (wall, cpu) = (cost.wall.as_secs_f64(), cost.cpu.as_secs_f64());
        let over_floor = wall / floor.wall.as_secs_f64();
        let over_theirs = cpu / theirs.cpu.as_secs_f64();
        println!("{name:24}{wall:10.2}{cpu:10.2}{over_floor:16.2}{over_theirs:16.3}");
    }
    println!("{memory}");
    Ok(())
}

/// Makes the tree in the store and as files: a directory of 12,000 files, one of 3,000, and others
/// of 100, most files of a few KiB and some of a few MiB, all of different bytes.
fn make(store: &Store, files: &Path) -> Result<Tree, Box<dyn std::error::Error>> {
    let mut tree = Tree::new(Meta::root_owned(0o755, Time::seconds(1)));
    let mut state = 88_172_645_463_325_252_u64;
    let mut total = 0;
    for i in 0..FILES {
        let name = match i {
            0..12_000 => format!("var/many/file-{i}"),
            12_000..15_000 => format!("usr/bin/tool-{i}"),
            _ => format!("usr/share/{}/part-{i}", i / 100),
        };
        let len = match i % 500 {
            7 => 7 << 20,
            n => 512 + n * 43,
        };
        let mut bytes = Vec::with_capacity(len as usize + 8);
        while (bytes.len() as u64) < len {
            // Xorshift: different bytes in each file, the same in each run.
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            bytes.extend(state.to_le_bytes());
        }
        total += bytes.len();
        let file = files.join(&name);
        fs::create_dir_all(file.parent().unwrap_or(files))?;
        fs::write(&file, &bytes)?;
        let path = TreePath::new(&name)?;
        tree.make_parents(&path, &Meta::root_owned(0o755, Time::seconds(1)))?;
        let kind = Kind::File(store.put_bytes(&bytes)?);
        tree.insert(path, Inode { meta: Meta::root_owned(0o644, Time::seconds(1)), kind })?;
    }
    println!("{} MiB, {} names", total >> 20, tree.len());
    store.sync()?;
    Ok(tree)
}

/// The quickest of some rounds after one that is not counted.
fn best(
    rounds: usize,
    mut run: impl FnMut() -> Result<(), Box<dyn std::error::Error>>,
) -> Result<Cost, Box<dyn std::error::Error>> {
    if rounds > 1 {
        run()?;
    }
    let mut costs = Vec::new();
    for _ in 0..rounds {
        let (start, cpu) = (Instant::now(), cpu_time()?);
        run()?;
        costs.push(Cost { wall: start.elapsed(), cpu: cpu_time()? - cpu });
    }
    let wall = costs.iter().map(|cost| cost.wall).min().unwrap_or_default();
    let cpu = costs.iter().map(|cost| cost.cpu).min().unwrap_or_default();
    Ok(Cost { wall, cpu })
}

/// CPU time of this process and of children that have ended.
fn cpu_time() -> Result<Duration, Box<dyn std::error::Error>> {
    let stat = fs::read_to_string("/proc/self/stat")?;
    let fields = stat.rsplit(')').next().unwrap_or_default().split_ascii_whitespace();
    // proc_pid_stat(5): utime, stime, cutime and cstime are fields 14 to 17, in ticks of 10 ms; what
    // follows the name begins with field 3.
    let ticks: u64 = fields.skip(11).take(4).map(|ticks| ticks.parse::<u64>().unwrap_or(0)).sum();
    Ok(Duration::from_millis(ticks * 10))
}

fn ours(store: &Store, tree: &Tree, image: &Path) -> Result<(), Box<dyn std::error::Error>> {
    let options = Options {
        size: SIZE,
        uuid: [1; 16],
        hash_seed: [2; 16],
        label: "bench".into(),
        time: Time::seconds(1),
        reserved_percent: 0,
    };
    let mut sink = SparseFile { file: File::create(image)?, position: 0 };
    ext4::lay_out(tree, &options)?.write(store, &mut sink)?;
    sink.file.set_len(SIZE)?;
    Ok(())
}

/// Reads every file in order and writes all bytes, without a filesystem around them.
fn floor(store: &Store, tree: &Tree, image: &Path) -> Result<(), Box<dyn std::error::Error>> {
    let mut out = File::create(image)?;
    let mut buffer = Vec::with_capacity(9 << 20);
    for (_, _, inode) in tree.iter() {
        let Some(object) = inode.object() else { continue };
        let mut file = store.open_object(object)?;
        if buffer.len() + object.size as usize > 1 << 20 {
            out.write_all(&buffer)?;
            buffer.clear();
        }
        file.by_ref().take(object.size).read_to_end(&mut buffer)?;
    }
    out.write_all(&buffer)?;
    Ok(())
}

fn mke2fs(files: &Path, image: &Path) -> Result<(), Box<dyn std::error::Error>> {
    File::create(image)?.set_len(SIZE)?;
    let status = Command::new("/sbin/mke2fs")
        .args(["-q", "-t", "ext4", "-m", "0", "-E", "lazy_itable_init=0,nodiscard", "-d"])
        .arg(files)
        .arg(image)
        .status()?;
    if !status.success() {
        return Err(format!("mke2fs: {status}").into());
    }
    Ok(())
}
