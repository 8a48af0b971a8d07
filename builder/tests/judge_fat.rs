//! FAT volumes as dosfstools and mtools see them: `fsck.vfat`, `mdir`, `mcopy`, `minfo`.
//! Must not know: how the writer works; it sees the public interface and the image.
//! Spec: style.md section 7, tier `judge`.

#![expect(clippy::unwrap_used, reason = "what goes wrong here is the test's result")]

use std::collections::BTreeMap;
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use gt_image::digest::Digest;
use gt_image::fat::{Options, lay_out, size_for};
use gt_image::io::sink::Plain;
use gt_image::store::Store;
use gt_image::tree::{Inode, Kind, Meta, Time, Tree, TreePath};
use proptest::prelude::*;
use proptest::test_runner::TestRunner;

const MIB: u64 = 1 << 20;

fn have(tools: &[&str]) -> bool {
    let found = |tool: &str| {
        let quiet =
            |c: &mut Command| c.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status();
        quiet(Command::new(tool).arg("--help")).is_ok()
    };
    let Some(missing) = tools.iter().find(|t| !found(t)) else { return true };
    let required = std::env::var("GT_IMAGE_REQUIRE").unwrap_or_default();
    assert!(!required.split(',').any(|t| t == "judge"), "judge is required here: no `{missing}`");
    writeln!(std::io::stderr(), "not run: judge: no `{missing}`").ok();
    false
}

/// Runs a tool that must succeed; its whole output is in the failure, and returned.
fn run(command: &mut Command) -> String {
    let out =
        command.env("MTOOLSRC", "/dev/null").env("TZ", "UTC").env("LC_ALL", "C.UTF-8").output().unwrap();
    let text = format!("{}{}", String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
    assert!(out.status.success(), "{command:?}: {}\n{text}", out.status);
    text
}

struct Bench {
    dir: tempfile::TempDir,
    store: Store,
}

impl Bench {
    fn new() -> Bench {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("store")).unwrap();
        Bench { dir, store }
    }

    /// A tree of files with these bytes; a name that ends with `/` is a directory.
    fn tree(&self, entries: &BTreeMap<String, Vec<u8>>, mtime: i64) -> Tree {
        let meta = |mode| Meta::root_owned(mode, Time::seconds(mtime));
        let mut tree = Tree::new(meta(0o755));
        for (name, bytes) in entries {
            let path = TreePath::new(name).unwrap();
            tree.make_parents(&path, &meta(0o755)).unwrap();
            let kind = match name.ends_with('/') {
                true => Kind::Dir,
                false => Kind::File(self.store.put_bytes(bytes).unwrap()),
            };
            tree.insert(path, Inode { meta: meta(0o644), kind }).unwrap();
        }
        tree
    }

    fn image(&self, tree: &Tree, size: u64) -> PathBuf {
        let options = Options { size, serial: 0xb2f0_82d2, label: "bootfs".into(), hidden_sectors: 16_384 };
        let path = self.dir.path().join("boot.img");
        let mut sink = Plain::new(std::io::BufWriter::new(fs::File::create(&path).unwrap()));
        lay_out(tree, &options).unwrap().write(&self.store, &mut sink).unwrap();
        sink.into_inner().flush().unwrap();
        path
    }

    /// Checks the volume and copies all of it out, by names relative to the root.
    fn read_back(&self, image: &Path) -> BTreeMap<String, Vec<u8>> {
        run(Command::new("fsck.vfat").args(["-n", "-v"]).arg(image));
        let out = self.dir.path().join("out");
        fs::remove_dir_all(&out).ok();
        fs::create_dir(&out).unwrap();
        let listing = run(Command::new("mdir").args(["-b", "-i"]).arg(image).arg("::/"));
        if !listing.trim().is_empty() {
            run(Command::new("mcopy").args(["-s", "-n", "-m", "-i"]).arg(image).arg("::*").arg(&out));
        }
        let mut found = BTreeMap::new();
        let mut todo = vec![out.clone()];
        while let Some(dir) = todo.pop() {
            for entry in fs::read_dir(dir).unwrap() {
                let path = entry.unwrap().path();
                let name = path.strip_prefix(&out).unwrap().to_str().unwrap().to_owned();
                if path.is_dir() {
                    found.insert(name + "/", Vec::new());
                    todo.push(path);
                } else {
                    found.insert(name, fs::read(path).unwrap());
                }
            }
        }
        found
    }
}

/// The entries with all directories above them.
fn with_parents(entries: &BTreeMap<String, Vec<u8>>) -> BTreeMap<String, Vec<u8>> {
    let mut all = entries.clone();
    for name in entries.keys() {
        for (at, _) in name.match_indices('/') {
            all.insert(name[..=at].to_owned(), Vec::new());
        }
    }
    all
}

/// Equal, or a failure that shows digests and not megabytes.
fn same(found: &BTreeMap<String, Vec<u8>>, want: &BTreeMap<String, Vec<u8>>) {
    let short = |all: &BTreeMap<String, Vec<u8>>| -> Vec<(String, usize, Digest)> {
        all.iter().map(|(name, bytes)| (name.clone(), bytes.len(), Digest::of(bytes))).collect()
    };
    assert_eq!(short(found), short(want));
}

fn entries(list: &[(&str, &[u8])]) -> BTreeMap<String, Vec<u8>> {
    list.iter().map(|(n, b)| ((*n).to_owned(), b.to_vec())).collect()
}

#[test]
fn a_boot_partition_is_clean_and_comes_back() {
    if !have(&["fsck.vfat", "mdir", "mcopy", "minfo"]) {
        return;
    }
    let bench = Bench::new();
    let kernel: Vec<u8> = (0..5_000_000u32).map(|i| ((i * 7) >> 3).to_le_bytes()[0]).collect();
    let want = entries(&[
        ("CONFIG.TXT", b"arm_64bit=1\n"),
        ("cmdline.txt", b"console=serial0\n"),
        ("kernel8.img", &kernel),
        ("bcm2711-rpi-4-b.dtb", &kernel[..50_000]),
        ("empty", b""),
        ("one.cluster", &[1; 512]),
        ("overlays/vc4-kms-v3d.dtbo", b"dtbo"),
        ("overlays/README", b"text"),
        ("empty.d/", b""),
        ("a/b/c/d/e/f", b"deep"),
        ("grüße € and more than one long entry.txt", b"umlauts"),
        (&"x".repeat(255), b"longest"),
    ]);
    let image = bench.image(&bench.tree(&want, 1_700_000_001), 512 * MIB);
    same(&bench.read_back(&image), &with_parents(&want));

    let info = run(Command::new("minfo").arg("-i").arg(&image).arg("::"));
    for line in
        ["sector size: 512 bytes", "cluster size: 1 sectors", "reserved (boot) sectors: 32", "fats: 2"]
    {
        assert!(info.contains(line), "`{line}` is wanted in\n{info}");
    }
    for line in
        ["media descriptor byte: 0xf8", "hidden sectors: 16384", "Big fatlen=8072", "backup boot sector=6"]
    {
        assert!(info.contains(line), "`{line}` is wanted in\n{info}");
    }
    let listing = run(Command::new("mdir").args(["-/", "-a", "-i"]).arg(&image).arg("::"));
    for text in ["Volume in drive : is bootfs", "Volume Serial Number is B2F0-82D2", "2023-11-14  22:13"] {
        assert!(listing.contains(text), "`{text}` is wanted in\n{listing}");
    }
    for text in ["CONFIG   TXT", "BCM271~1 DTB", "VC4-KM~1 DTB"] {
        assert!(listing.contains(text), "`{text}` is wanted in\n{listing}");
    }
    // mcopy -m keeps times: mtools read the even second that we wrote.
    let time = fs::metadata(bench.dir.path().join("out/CONFIG.TXT")).unwrap().modified().unwrap();
    let seconds = time.duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    assert_eq!(seconds, 1_700_000_000);
}

/// mtools 4.0.32 shows a surrogate as `_`, so a third reader judges those: the fatfs crate.
#[test]
fn names_of_surrogates_come_back() {
    let bench = Bench::new();
    let names = ["🍓", &"\u{1F353}".repeat(63), "13 units exa🍓", "grüße 🍓.txt", "plain.txt", "UPPER.TXT"];
    let want = names.map(|n| (n, n.as_bytes()));
    let image = bench.image(&bench.tree(&entries(&want), 1_700_000_000), 34 * MIB);
    let volume = fatfs::FileSystem::new(fs::File::open(image).unwrap(), fatfs::FsOptions::new()).unwrap();
    assert_eq!((volume.volume_id(), volume.volume_label().as_str()), (0xb2f0_82d2, "bootfs"));
    assert_eq!(volume.fat_type(), fatfs::FatType::Fat32);
    let mut found = BTreeMap::new();
    for entry in volume.root_dir().iter() {
        let entry = entry.unwrap();
        let mut bytes = Vec::new();
        std::io::Read::read_to_end(&mut entry.to_file(), &mut bytes).unwrap();
        found.insert(entry.file_name(), bytes);
    }
    same(&found, &entries(&want));
}

#[test]
fn the_parameters_are_those_of_mkfs() {
    if !have(&["mkfs.vfat"]) {
        return;
    }
    let bench = Bench::new();
    let tree = bench.tree(&BTreeMap::new(), 0);
    for (mib, sectors) in [(34, "1"), (512, "1"), (2048, "8"), (9000, "16")] {
        let options = Options { size: mib * MIB, serial: 1, label: String::new(), hidden_sectors: 0 };
        let mut head = Vec::new();
        let mut sink = Plain::new(&mut head);
        // Only the reserved sectors count here: a sink that ends after them.
        struct Head<'a>(&'a mut Plain<&'a mut Vec<u8>>);
        impl gt_image::io::sink::ImageSink for Head<'_> {
            fn data(&mut self, bytes: &[u8]) -> std::io::Result<()> {
                if self.position() > 0 { Err(std::io::Error::other("enough")) } else { self.0.data(bytes) }
            }
            fn skip(&mut self, len: u64) -> std::io::Result<()> {
                self.0.skip(len)
            }
            fn position(&self) -> u64 {
                self.0.position()
            }
        }
        let layout = lay_out(&tree, &options).unwrap();
        assert!(layout.write(&bench.store, &mut Head(&mut sink)).is_err());
        let theirs = bench.dir.path().join("theirs.img");
        fs::File::create(&theirs).unwrap().set_len(mib * MIB).unwrap();
        run(Command::new("mkfs.vfat")
            .args(["-F", "32", "-s", sectors, "-i", "1", "--invariant"])
            .arg(&theirs));
        let mut boot = [0; 512];
        std::io::Read::read_exact(&mut fs::File::open(&theirs).unwrap(), &mut boot).unwrap();
        // Geometry (24..28) is made up by both, mkfs rounds the size (32..36) to it and has an id of
        // its own (67..71) when invariant, and our FATs may have up to seven sectors more.
        for range in [11..24, 28..32, 40..67, 71..90, 510..512] {
            assert_eq!(&head[range.clone()], &boot[range.clone()], "{mib} MiB, bytes {range:?}");
        }
        let fat = |b: &[u8]| u32::from_le_bytes(b[36..40].try_into().unwrap());
        assert!((fat(&boot)..fat(&boot) + 8).contains(&fat(&head)), "{} and {}", fat(&head), fat(&boot));
    }
}

#[test]
fn large_clusters_and_large_directories_are_clean() {
    if !have(&["fsck.vfat", "mdir", "mcopy"]) {
        return;
    }
    let bench = Bench::new();
    let mut want = entries(&[("big", &[7; 100_000]), ("small", b"x")]);
    for i in 0..3000u32 {
        want.insert(format!("modules/module with a long name {i}.ko"), i.to_le_bytes().to_vec());
    }
    let tree = bench.tree(&want, -1);
    let image = bench.dir.path().join("boot.img");
    let options = Options { size: 1100 * MIB, serial: 1, label: String::new(), hidden_sectors: 0 };
    let mut sink = gap::Sparse::new(fs::File::create(&image).unwrap());
    lay_out(&tree, &options).unwrap().write(&bench.store, &mut sink).unwrap();
    sink.finish();
    same(&bench.read_back(&image), &with_parents(&want));
}

#[test]
fn a_volume_can_be_full_to_its_last_cluster() {
    if !have(&["fsck.vfat", "mdir", "mcopy"]) {
        return;
    }
    let bench = Bench::new();
    // 34 MiB have 32 + 2 x 536 sectors before the clusters; the root takes one of them.
    let room = 34 * MIB - (32 + 2 * 536) * 512 - 512;
    let bytes = vec![3; usize::try_from(room).unwrap()];
    let want = entries(&[("FULL", &bytes)]);
    let tree = bench.tree(&want, 0);
    assert_eq!(size_for(&tree, 0).unwrap(), 34 * MIB);
    same(&bench.read_back(&bench.image(&tree, 34 * MIB)), &want);
}

#[test]
fn any_names_and_trees_come_back() {
    if !have(&["fsck.vfat", "mdir", "mcopy"]) {
        return;
    }
    // Letters in both cases, letters outside the code page, dots, spaces and tildes; few of each,
    // so that names collide.
    let name = "[abAB1 .~+éÉß€]{1,16}";
    let entry = (proptest::collection::vec(name, 1..4), proptest::collection::vec(any::<u8>(), 0..1500));
    let mut runner =
        TestRunner::new(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(40) });
    let list = proptest::collection::vec(entry, 0..40);
    let outcome = runner.run(&list, |list| {
        let bench = Bench::new();
        let mut want: BTreeMap<String, Vec<u8>> = BTreeMap::new();
        let mut folded = BTreeMap::new();
        for (names, bytes) in list {
            let legal = |n: &String| !n.starts_with(' ') && !n.ends_with([' ', '.']);
            if !names.iter().all(legal) {
                continue;
            }
            // Of names that differ in case only, the first one is kept, directories included.
            let path = names.join("/");
            let fits = (1..=names.len()).all(|n| {
                let part = names[..n].join("/");
                let last = n == names.len();
                let old = folded.get(&part.to_uppercase());
                old.is_none_or(|(text, dir)| *text == part && *dir && !last)
            });
            if fits {
                for n in 1..=names.len() {
                    let part = names[..n].join("/");
                    folded.insert(part.to_uppercase(), (part, n < names.len()));
                }
                want.insert(path, bytes);
            }
        }
        let image = bench.image(&bench.tree(&want, 1_000_000_000), 34 * MIB);
        same(&bench.read_back(&image), &with_parents(&want));
        Ok(())
    });
    outcome.unwrap();
}

/// A file that keeps its holes, so that a large volume costs only its data.
mod gap {
    use std::fs::File;
    use std::io;
    use std::os::unix::fs::FileExt;

    pub struct Sparse(File, u64);

    impl Sparse {
        pub fn new(file: File) -> Sparse {
            Sparse(file, 0)
        }

        pub fn finish(self) {
            self.0.set_len(self.1).unwrap();
        }
    }

    impl gt_image::io::sink::ImageSink for Sparse {
        fn data(&mut self, bytes: &[u8]) -> io::Result<()> {
            self.0.write_all_at(bytes, self.1)?;
            self.1 += bytes.len() as u64;
            Ok(())
        }

        fn skip(&mut self, len: u64) -> io::Result<()> {
            self.1 += len;
            Ok(())
        }

        fn position(&self) -> u64 {
            self.1
        }
    }
}
