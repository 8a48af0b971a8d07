//! Judges of the ext4 writer: `e2fsck`, `dumpe2fs`, `debugfs`, `resize2fs` and the kernel's own
//! mount read what it wrote; their whole output is in the failure.
//! Must not know: the writer's inner parts.
//! Spec: style.md section 7, tiers `judge_*` (e2fsprogs) and `root_*` (loop devices, as root).

use std::collections::{BTreeMap, HashMap};
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use gt_image::digest::Digest;
use gt_image::ext4::{self, Ext4Error, Options};
use gt_image::io::sink::ImageSink;
use gt_image::store::Store;
use gt_image::tree::{Hole, Inode, Kind, Meta, Object, Time, Tree, TreePath};

/// Every judge of this file with its name.
pub const ALL: &[(&str, fn())] = &[
    ("e2fsck_accepts_a_nasty_tree", e2fsck_accepts_a_nasty_tree),
    ("debugfs_reads_what_was_written", debugfs_reads_what_was_written),
    ("dumpe2fs_shows_what_mke2fs_would_make", dumpe2fs_shows_what_mke2fs_would_make),
    ("resize2fs_grows_many_times_over", resize2fs_grows_many_times_over),
    ("the_same_bytes_come_twice", the_same_bytes_come_twice),
    ("every_size_is_clean", every_size_is_clean),
    ("the_size_asked_for_is_enough_and_hardly_more", the_size_asked_for_is_enough_and_hardly_more),
    ("subdirectories_are_counted_up_to_65000", subdirectories_are_counted_up_to_65000),
    ("many_small_inodes_get_their_tables", many_small_inodes_get_their_tables),
    ("a_lost_and_found_of_the_tree_is_used", a_lost_and_found_of_the_tree_is_used),
    ("holes_of_terabytes_are_clean", holes_of_terabytes_are_clean),
    ("names_are_found_by_their_hash", names_are_found_by_their_hash),
    ("root_kernel_mounts_reads_and_writes", root_kernel_mounts_reads_and_writes),
    ("root_kernel_grows_while_mounted", root_kernel_grows_while_mounted),
];

const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;

/// A store and images in a directory that goes with it.
pub struct Bench {
    pub dir: tempfile::TempDir,
    pub store: Store,
}

impl Bench {
    pub fn new() -> Bench {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("store")).unwrap();
        Bench { dir, store }
    }

    /// Writes a tree as the file `name`.
    pub fn image(&self, name: &str, tree: &Tree, options: &Options) -> PathBuf {
        let path = self.dir.path().join(name);
        let layout = ext4::lay_out(tree, options).unwrap();
        let mut sink = SparseFile { file: File::create(&path).unwrap(), position: 0 };
        layout.write(&self.store, &mut sink).unwrap();
        assert_eq!(sink.position, options.size);
        sink.file.set_len(sink.position).unwrap();
        path
    }

    fn file(&self, bytes: &[u8]) -> Kind {
        Kind::File(self.store.put_bytes(bytes).unwrap())
    }
}

/// A sink that leaves holes where bytes are skipped.
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

pub fn options(size: u64) -> Options {
    Options {
        size,
        uuid: *b"0123456789abcdef",
        hash_seed: *b"fedcba9876543210",
        label: "rootfs".into(),
        time: Time::seconds(1_760_000_000),
        reserved_percent: 0,
    }
}

fn path(text: impl AsRef<[u8]>) -> TreePath {
    TreePath::new(text).unwrap()
}

fn add(tree: &mut Tree, name: impl AsRef<[u8]>, kind: Kind) -> TreePath {
    let path = path(name);
    tree.make_parents(&path, &Meta::root_owned(0o755, Time::seconds(1))).unwrap();
    let meta = Meta::root_owned(0o644, Time { sec: 1_700_000_000, nsec: 123_456_789 });
    tree.insert(path.clone(), Inode { meta, kind }).unwrap();
    path
}

fn set(tree: &mut Tree, path: &TreePath, name: &str, value: &[u8]) {
    tree.meta_mut(path).unwrap().xattrs.insert(name.into(), value.into());
}

/// An access control list as getxattr(2) gives it: for the owner, user 4,000,000,000, the group,
/// group 7, the mask and others.
fn access_control_list() -> Vec<u8> {
    let mut list = vec![2, 0, 0, 0];
    let entries: [(u16, u16, u32); 6] =
        [(1, 6, !0), (2, 4, 4_000_000_000), (4, 4, !0), (8, 1, 7), (16, 7, !0), (32, 4, !0)];
    for (tag, permissions, id) in entries {
        list.extend(tag.to_le_bytes());
        list.extend(permissions.to_le_bytes());
        list.extend(id.to_le_bytes());
    }
    list
}

/// Gives pieces of `data` bytes that are not zero, each after `hole` zero bytes.
struct Pieces {
    left: usize,
    hole: u64,
    data: u64,
    at: u64,
}

impl Read for Pieces {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        if self.left == 0 {
            return Ok(0);
        }
        let (end, byte) = if self.at < self.hole { (self.hole, 0) } else { (self.hole + self.data, 0xa5) };
        let len = out.len().min((end - self.at) as usize);
        out[..len].fill(byte);
        self.at += len as u64;
        if self.at == self.hole + self.data {
            (self.at, self.left) = (0, self.left - 1);
        }
        Ok(len)
    }
}

/// Everything that a root filesystem may hold, and more.
pub fn nasty(bench: &Bench) -> Tree {
    let mut tree = Tree::new(Meta::root_owned(0o755, Time::seconds(1_600_000_000)));
    files(bench, &mut tree);
    names(bench, &mut tree);
    metadata(bench, &mut tree);
    for (name, kind) in [
        ("dev/sda", Kind::Block { major: 8, minor: 0 }),
        ("dev/nvme", Kind::Block { major: 259, minor: 0xf_ffff }),
        ("dev/null", Kind::Char { major: 1, minor: 3 }),
        ("dev/last", Kind::Char { major: 4095, minor: 256 }),
        ("dev/whiteout", Kind::Char { major: 0, minor: 0 }),
        ("run/fifo", Kind::Fifo),
        ("run/socket", Kind::Socket),
        ("link/short", Kind::Symlink(b"../x".as_slice().into())),
        ("link/59", Kind::Symlink(vec![b'y'; 59].into())),
        ("link/60", Kind::Symlink(vec![b'y'; 60].into())),
        ("link/1000", Kind::Symlink(vec![b'z'; 1000].into())),
        ("link/4095", Kind::Symlink(vec![b'/'; 4095].into())),
        ("empty", Kind::Dir),
    ] {
        add(&mut tree, name, kind);
    }
    tree
}

fn files(bench: &Bench, tree: &mut Tree) {
    for len in [0, 1, 4095, 4096, 4097, 100_000, 1 << 20, (1 << 20) + 1] {
        let bytes: Vec<u8> = (0..len).map(|i: u32| (i % 251) as u8 + 1).collect();
        add(tree, format!("file/{len}"), bench.file(&bytes));
    }
    // Several extents of 32768 blocks.
    let mut large = Pieces { left: 1, hole: 0, data: 150 * MIB + 77, at: 0 };
    add(tree, "file/large", Kind::File(bench.store.put_reader(&mut large).unwrap()));
    // A tree of extents of two levels.
    let mut holes = Pieces { left: 2000, hole: 65_536, data: 4096, at: 0 };
    let object = bench.store.put_reader(&mut holes).unwrap();
    assert_eq!(object.holes.len(), 2000);
    add(tree, "file/holes", Kind::File(object));
    let mut sparse = Pieces { left: 1, hole: 50 * MIB, data: 5000, at: 0 };
    add(tree, "file/sparse", Kind::File(bench.store.put_reader(&mut sparse).unwrap()));
    let mut hollow = vec![7; 4096];
    hollow.resize(300_001, 0);
    add(tree, "file/hole-at-end", bench.file(&hollow));
    add(tree, "file/only-hole", bench.file(&vec![0; 70_001]));
    let id = tree.id(&path("file/4097")).unwrap();
    for i in 0..19 {
        tree.link(path(format!("file/hard-{i}")), id).unwrap();
    }
}

fn names(bench: &Bench, tree: &mut Tree) {
    for i in 0..12_000 {
        add(tree, format!("many/file-{i:05}"), bench.file(format!("{i}\n").as_bytes()));
    }
    // Names of one inode: more leaves than the first block of an index knows.
    let kind = bench.file(b"linked");
    let first = add(tree, format!("long/{:0>255}", 0), kind);
    let id = tree.id(&first).unwrap();
    for i in 1..9000 {
        tree.link(path(format!("long/{i:0>255}")), id).unwrap();
    }
    for name in [&b"\xff\xfe\x80"[..], b"new\nline", b"caf\xc3\xa9", b"back\\slash", b" ", b"..."] {
        add(tree, [b"odd/", name].concat(), bench.file(name));
    }
    let deep = "d/".repeat(300);
    add(tree, format!("{deep}end"), bench.file(b"deep"));
}

fn metadata(bench: &Bench, tree: &mut Tree) {
    for (name, sec, nsec) in [
        ("before-1970", -1, 999_999_999),
        ("first", i64::from(i32::MIN), 1),
        ("beyond-2038", 1 << 31, 5),
        ("beyond-2106", 1 << 32, 999_999_999),
        ("last", (3 << 32) + (1 << 31) - 1, 7),
    ] {
        let path = add(tree, format!("time/{name}"), Kind::Fifo);
        tree.meta_mut(&path).unwrap().mtime = Time { sec, nsec };
    }
    for (mode, uid, gid) in [(0o7777, 4_000_000_000, 3), (0, 65_536, 65_535), (0o4755, 0, u32::MAX - 1)] {
        let path = add(tree, format!("owner/{uid}"), bench.file(b""));
        let meta = tree.meta_mut(&path).unwrap();
        (meta.mode, meta.uid, meta.gid) = (mode, uid, gid);
    }
    let file = add(tree, "xattr/inline", bench.file(b"x"));
    set(tree, &file, "user.a", b"inline");
    set(tree, &file, "user.empty", b"");
    let file = add(tree, "xattr/capability", bench.file(b"x"));
    set(tree, &file, "security.capability", b"\x01\0\0\x02\0\x20\0\0\0\0\0\0\0\0\0\0\0\0\0\0");
    let file = add(tree, "xattr/block", bench.file(&[1; 9000]));
    set(tree, &file, "user.large", &[9; 1800]);
    set(tree, &file, "trusted.t", b"t");
    set(tree, &file, "user.second", &[8; 1803]);
    set(tree, &file, &format!("user.{}", "n".repeat(250)), b"long name");
    let file = add(tree, "xattr/list", bench.file(b"x"));
    set(tree, &file, "system.posix_acl_access", &access_control_list());
    let dir = add(tree, "xattr/dir", Kind::Dir);
    tree.meta_mut(&dir).unwrap().mode = 0o755;
    set(tree, &dir, "system.posix_acl_access", &access_control_list());
    set(tree, &dir, "system.posix_acl_default", &access_control_list());
    set(tree, &dir, "user.x", &[5; 300]);
    let link = add(tree, "xattr/link", Kind::Symlink(vec![b'q'; 100].into()));
    set(tree, &link, "security.selinux", b"system_u:object_r:etc_t:s0");
    set(tree, &link, "trusted.large", &[3; 900]);
    let short = add(tree, "xattr/short-link", Kind::Symlink(b"x".as_slice().into()));
    set(tree, &short, "trusted.large", &[6; 700]);
    let device = add(tree, "xattr/device", Kind::Char { major: 5, minor: 1 });
    set(tree, &device, "trusted.large", &[4; 400]);
}

/// Runs a tool of e2fsprogs, or says that the tier cannot run.
pub fn run(command: &mut Command) -> Output {
    // e2fsprogs are in sbin, which is on no user's path in Debian.
    let path = std::env::var("PATH").unwrap_or_default() + ":/usr/sbin:/sbin";
    let output = command.env("PATH", path).env("LC_ALL", "C").output();
    output.unwrap_or_else(|e| panic!("{command:?}: {e}; apt-get install e2fsprogs mount"))
}

/// Runs a command that must succeed; returns what it printed.
pub fn succeed(command: &mut Command) -> String {
    let output = run(command);
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8_lossy(&text).into_owned();
    assert!(output.status.success(), "{command:?}: {}\n{text}", output.status);
    text
}

pub fn e2fsck(image: &Path) {
    succeed(Command::new("e2fsck").arg("-fn").arg(image));
}

fn debugfs(image: &Path, request: &str) -> String {
    succeed(Command::new("debugfs").arg("-R").arg(request).arg(image))
}

/// One line of what `dumpe2fs -h` prints.
fn header(image: &Path, name: &str) -> String {
    let text = succeed(Command::new("dumpe2fs").arg("-h").arg(image));
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    line.unwrap_or_else(|| panic!("no `{name}` in\n{text}")).trim().into()
}

fn e2fsck_accepts_a_nasty_tree() {
    let bench = Bench::new();
    let tree = nasty(&bench);
    let image = bench.image("image", &tree, &options(GIB));
    e2fsck(&image);
    // The same with hashes sorted anew: what e2fsck would do for an index that it does not like.
    let text = succeed(Command::new("e2fsck").arg("-fnv").arg(&image));
    assert!(!text.contains("could be") && !text.contains("Optimize"), "{text}");
}

fn debugfs_reads_what_was_written() {
    let bench = Bench::new();
    let tree = nasty(&bench);
    let image = bench.image("image", &tree, &options(GIB));
    let out = bench.dir.path().join("out");
    fs::create_dir(&out).unwrap();
    let text = debugfs(&image, &format!("rdump / {}", out.display()));
    let deep_or_special = |line: &str| line.contains("Operation not permitted");
    let complaints: Vec<&str> = text.lines().skip(1).filter(|line| !deep_or_special(line)).collect();
    assert!(complaints.is_empty(), "{complaints:#?}");
    for (path, _, inode) in tree.iter() {
        let there = out.join(OsStr::from_bytes(path.as_bytes()));
        match &inode.kind {
            Kind::File(object) => same_bytes(path, &there, object),
            Kind::Symlink(target) => {
                let found = fs::read_link(&there).unwrap();
                assert_eq!(found.as_os_str().as_bytes(), &**target, "{path}");
            }
            Kind::Dir => assert!(there.is_dir(), "{path}"),
            // rdump makes none of the others.
            _ => {}
        }
    }
    let stat = debugfs(&image, "stat /xattr/block");
    // 9000 bytes are three blocks, and one is of attributes: eight units of 512 bytes each.
    assert!(stat.contains("Blockcount: 32") && stat.contains("user.large (1800)"), "{stat}");
    let stat = debugfs(&image, "stat /dev/nvme");
    assert!(stat.contains("259:1048575") || stat.contains("259:1048575 (hex 103:fffff)"), "{stat}");
}

fn dumpe2fs_shows_what_mke2fs_would_make() {
    let bench = Bench::new();
    let tree = Tree::new(Meta::root_owned(0o755, Time::seconds(1)));
    let ours = bench.image("ours", &tree, &options(3 * GIB));
    let theirs = bench.dir.path().join("theirs");
    File::create(&theirs).unwrap().set_len(3 * GIB).unwrap();
    succeed(Command::new("mke2fs").args(["-q", "-t", "ext4", "-m", "0", "-L", "rootfs"]).arg(&theirs));
    for name in [
        "Filesystem volume name",
        "Filesystem features",
        "Default mount options",
        "Inode count",
        "Block count",
        "Reserved block count",
        "Overhead clusters",
        "Free blocks",
        "Free inodes",
        "Reserved GDT blocks",
        "Inodes per group",
        "Flex block group size",
        "Maximum mount count",
        "Inode size",
        "Required extra isize",
        "Default directory hash",
        "Journal backup",
        "Total journal blocks",
    ] {
        assert_eq!(header(&ours, name), header(&theirs, name), "{name}");
    }
    assert_eq!(header(&ours, "Filesystem flags"), "unsigned_directory_hash");
    assert_eq!(header(&ours, "Filesystem UUID"), "30313233-3435-3637-3839-616263646566");
}

fn resize2fs_grows_many_times_over() {
    let bench = Bench::new();
    let mut tree = Tree::new(Meta::root_owned(0o755, Time::seconds(1)));
    let file = add(&mut tree, "file", bench.file(&[7; 5 << 20]));
    for size in [16 * MIB, 200 * MIB, 2 * GIB] {
        let image = bench.image("image", &tree, &options(size));
        for factor in [2, 8, 40] {
            File::options().write(true).open(&image).unwrap().set_len(size * factor).unwrap();
            let text = succeed(Command::new("resize2fs").arg("-f").arg(&image));
            assert!(text.contains("is now"), "{text}");
            e2fsck(&image);
        }
        let blocks: u64 = header(&image, "Block count").parse().unwrap();
        assert!(blocks > size * 39 / 4096, "{blocks} blocks");
        let out = bench.dir.path().join("out");
        debugfs(&image, &format!("dump /file {}", out.display()));
        same_bytes(&file, &out, tree.get(&file).unwrap().object().unwrap());
    }
}

fn the_same_bytes_come_twice() {
    let digests = [0, 1].map(|_| {
        let bench = Bench::new();
        let tree = nasty(&bench);
        let size = ext4::size_for(&tree, 0).unwrap();
        digest_of(&bench.image("image", &tree, &options(size)))
    });
    assert_eq!(digests[0], digests[1]);
}

fn every_size_is_clean() {
    let bench = Bench::new();
    let mut tree = Tree::new(Meta::root_owned(0o755, Time::seconds(1)));
    add(&mut tree, "file", bench.file(b"hello"));
    for (what, size) in [
        ("the smallest", 8 * MIB),
        ("odd blocks", 16 * MIB + 4096),
        ("just under a group", 128 * MIB - 4096),
        ("a group", 128 * MIB),
        ("a last group left out", 128 * MIB + 4096),
        ("a last group left out, with a backup", 384 * MIB + 3 * MIB),
        ("a short last group", 256 * MIB + 40 * MIB),
        ("a flex group and one more", 2 * GIB + 128 * MIB),
        ("a card", 31_914_983_424 / 4096 * 4096),
        ("a disk", 500 * GIB),
        ("the largest", 8192 * GIB),
    ] {
        let image = bench.image("image", &tree, &options(size));
        assert_eq!(fs::metadata(&image).unwrap().len(), size, "{what}");
        e2fsck(&image);
    }
}

fn the_size_asked_for_is_enough_and_hardly_more() {
    let bench = Bench::new();
    let mut tree = nasty(&bench);
    for free in [0, 1, 100 * MIB, 3 * GIB] {
        let size = ext4::size_for(&tree, free).unwrap();
        assert_eq!(size % (4 * MIB), 0);
        let image = bench.image("image", &tree, &options(size));
        e2fsck(&image);
        let blocks: u64 = header(&image, "Free blocks").parse().unwrap();
        assert!(blocks * 4096 >= free, "{blocks} blocks free in {size}, {free} bytes wanted");
        // The bound for directories that only hashes decide, 5 % of them, is a margin of its own.
        assert!(blocks * 4096 < free + 6 * MIB, "{blocks} blocks free in {size}, {free} bytes wanted");
    }
    let size = ext4::size_for(&tree, 0).unwrap();
    let error = ext4::lay_out(&tree, &options(size - 8 * MIB)).unwrap_err();
    assert!(matches!(error, Ext4Error::TooSmall { wanted, .. } if wanted == size), "{error}");
    tree.remove(&TreePath::root());
    assert_eq!(ext4::size_for(&tree, 0).unwrap(), 8 * MIB);
}

fn subdirectories_are_counted_up_to_65000() {
    let bench = Bench::new();
    let mut tree = Tree::new(Meta::root_owned(0o755, Time::seconds(1)));
    // With `.` and the parent's name these are 65,000 links.
    for i in 0..64_998 {
        add(&mut tree, format!("d/{i}"), Kind::Dir);
    }
    for (links, more) in [("Links: 65000", "d/one-more"), ("Links: 1 ", "d/and-more")] {
        let size = ext4::size_for(&tree, 0).unwrap();
        let image = bench.image("image", &tree, &options(size));
        e2fsck(&image);
        let stat = debugfs(&image, "stat /d");
        assert!(stat.contains(links), "{stat}");
        add(&mut tree, more, Kind::Dir);
    }
}

fn many_small_inodes_get_their_tables() {
    let bench = Bench::new();
    let mut tree = Tree::new(Meta::root_owned(0o755, Time::seconds(1)));
    for i in 0..70_000 {
        add(&mut tree, format!("{}/{i}", i % 100), Kind::Fifo);
    }
    let size = ext4::size_for(&tree, 0).unwrap();
    let image = bench.image("image", &tree, &options(size));
    e2fsck(&image);
    let inodes: u64 = header(&image, "Inode count").parse().unwrap();
    assert!(inodes > 70_000 && inodes * 16_384 > size, "{inodes} inodes in {size} bytes");
}

fn a_lost_and_found_of_the_tree_is_used() {
    let bench = Bench::new();
    let mut tree = Tree::new(Meta::root_owned(0o755, Time::seconds(1)));
    let dir = add(&mut tree, "lost+found", Kind::Dir);
    tree.meta_mut(&dir).unwrap().mode = 0o750;
    add(&mut tree, "lost+found/kept", bench.file(b"x"));
    add(&mut tree, "lost+found.old", bench.file(b"x"));
    let image = bench.image("image", &tree, &options(16 * MIB));
    e2fsck(&image);
    let text = debugfs(&image, "stat <11>");
    assert!(text.contains("Mode:  0750") && text.contains("Size: 16384"), "{text}");
    assert!(debugfs(&image, "ls /lost+found").contains("kept"));
    let mut tree = Tree::new(Meta::default());
    add(&mut tree, "lost+found", Kind::Fifo);
    let error = ext4::lay_out(&tree, &options(16 * MIB)).unwrap_err();
    assert!(matches!(error, Ext4Error::LostAndFound { .. }), "{error}");
}

fn holes_of_terabytes_are_clean() {
    let bench = Bench::new();
    let mut tree = Tree::new(Meta::root_owned(0o755, Time::seconds(1)));
    // Never read: there is no data in it. 16 TiB less a block is the kernel's limit.
    let hollow = |size| {
        let holes = [Hole { offset: 0, len: size }].into();
        Kind::File(Object { digest: Digest::of(b""), size, holes })
    };
    add(&mut tree, "hollow", hollow((16 << 40) - 8192));
    e2fsck(&bench.image("image", &tree, &options(64 * MIB)));
    add(&mut tree, "hollow", hollow(16 << 40));
    let error = ext4::lay_out(&tree, &options(64 * MIB)).unwrap_err();
    assert!(matches!(error, Ext4Error::FileSize { .. }), "{error}");
}

/// debugfs does not read directories as the kernel does; the index is what `htree_dump` shows.
fn names_are_found_by_their_hash() {
    let bench = Bench::new();
    let tree = nasty(&bench);
    let image = bench.image("image", &tree, &options(GIB));
    for (dir, entries, levels) in [("many", 12_000, "levels: 0"), ("long", 9000, "levels: 1")] {
        let text = debugfs(&image, &format!("htree_dump /{dir}"));
        assert!(text.to_lowercase().contains(levels), "{}", &text[..text.len().min(2000)]);
        assert_eq!(text.matches(" 0x").count().min(entries), entries, "entries of {dir}");
    }
}

fn digest_of(path: &Path) -> Digest {
    use std::process::Stdio;
    // The whole image is larger than a test should hold in memory.
    let output = Command::new("sha256sum").arg(path).stderr(Stdio::inherit()).output().unwrap();
    String::from_utf8(output.stdout).unwrap()[..64].parse().unwrap()
}

fn same_bytes(path: &TreePath, there: &Path, object: &Object) {
    let len = fs::metadata(there).unwrap_or_else(|e| panic!("{path}: {e}")).len();
    assert_eq!(len, object.size, "{path}");
    if len > MIB {
        assert_eq!(digest_of(there), object.digest, "{path}");
    } else {
        assert_eq!(Digest::of(&fs::read(there).unwrap()), object.digest, "{path}");
    }
}

/// A mounted image, unmounted when dropped.
pub struct Mount {
    image: PathBuf,
    pub at: PathBuf,
}

impl Mount {
    pub fn new(image: &Path, at: PathBuf, options: &str) -> Mount {
        fs::create_dir_all(&at).unwrap();
        succeed(Command::new("mount").args(["-o", options]).arg(image).arg(&at));
        Mount { image: image.into(), at }
    }

    /// Unmounts, and then checks what the kernel has made of the image.
    pub fn check(self) {
        let image = self.image.clone();
        drop(self);
        e2fsck(&image);
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let output = run(Command::new("umount").arg(&self.at));
        if !output.status.success() && !std::thread::panicking() {
            panic!("umount {}: {}", self.at.display(), String::from_utf8_lossy(&output.stderr));
        }
        // A mount namespace that another test makes in this moment has a copy of the mount until it lets its old
        // root go, and only then is all written and the loop device free.
        let attached = || !run(Command::new("losetup").arg("-j").arg(&self.image)).stdout.is_empty();
        let begun = Instant::now();
        while attached() && begun.elapsed() < Duration::from_secs(60) {
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

fn root_kernel_mounts_reads_and_writes() {
    let bench = Bench::new();
    let tree = nasty(&bench);
    let image = bench.image("image", &tree, &options(GIB));
    let mount = Mount::new(&image, bench.dir.path().join("mnt"), "loop,ro");
    compare(&tree, &mount.at);
    mount.check();
    let mount = Mount::new(&image, bench.dir.path().join("mnt"), "loop");
    write_to(&mount.at);
    mount.check();
    let mount = Mount::new(&image, bench.dir.path().join("mnt"), "loop,ro");
    assert_eq!(fs::read(mount.at.join("many/new-0")).unwrap(), b"new");
    mount.check();
}

/// Makes directories split, files grow and holes fill.
fn write_to(root: &Path) {
    for i in 0..3000 {
        fs::write(root.join(format!("many/new-{i}")), "new").unwrap();
        fs::write(root.join(format!("long/{i:x>255}")), "new").unwrap();
        fs::remove_file(root.join(format!("many/file-{:05}", i * 3))).unwrap();
    }
    for i in 0..400 {
        fs::create_dir(root.join(format!("empty/{i}"))).unwrap();
    }
    let mut file = File::options().write(true).open(root.join("file/holes")).unwrap();
    for i in 0..500 {
        file.seek(SeekFrom::Start(i * 69_632 * 3 + 8192)).unwrap();
        file.write_all(&[1; 5000]).unwrap();
    }
    fs::write(root.join("file/more"), vec![3; 100 << 20]).unwrap();
    fs::remove_file(root.join("file/large")).unwrap();
    fs::remove_dir_all(root.join("d")).unwrap();
}

fn root_kernel_grows_while_mounted() {
    let bench = Bench::new();
    let mut tree = Tree::new(Meta::root_owned(0o755, Time::seconds(1)));
    add(&mut tree, "file", bench.file(&[7; 5 << 20]));
    let image = bench.image("image", &tree, &options(200 * MIB));
    File::options().write(true).open(&image).unwrap().set_len(5 * GIB).unwrap();
    let mount = Mount::new(&image, bench.dir.path().join("mnt"), "loop");
    let source = succeed(Command::new("findmnt").args(["-no", "SOURCE"]).arg(&mount.at));
    let text = succeed(Command::new("resize2fs").arg(source.trim()));
    assert!(text.contains("on-line resizing"), "{text}");
    compare(&tree, &mount.at);
    fs::write(mount.at.join("more"), vec![1; 300 << 20]).unwrap();
    mount.check();
    let blocks: u64 = header(&image, "Block count").parse().unwrap();
    assert_eq!(blocks, 5 * GIB / 4096);
}

/// Compares a filesystem that we wrote, mounted, with its tree: the time of change is ours too.
fn compare(tree: &Tree, root: &Path) {
    for (path, _, inode) in tree.iter() {
        let meta = fs::symlink_metadata(root.join(OsStr::from_bytes(path.as_bytes()))).unwrap();
        let Time { sec, nsec } = inode.meta.mtime;
        assert_eq!((meta.ctime(), meta.ctime_nsec()), (sec, i64::from(nsec)), "{path}");
        if let Kind::File(object) = &inode.kind {
            let holes: u64 = object.holes.iter().map(|hole| hole.len / 4096 * 4096).sum();
            // Data, a block of attributes, and one block of extents for 340.
            let most = object.size.next_multiple_of(4096) - holes + 4096 * 10;
            assert!(meta.blocks() * 512 <= most, "{path}: {} blocks", meta.blocks());
        }
    }
    compare_mounted(tree, root);
}

/// Compares a mounted filesystem with a tree, attribute by attribute.
pub fn compare_mounted(tree: &Tree, root: &Path) {
    let mut inodes = HashMap::new();
    let mut found = BTreeMap::<TreePath, usize>::new();
    for (path, id, inode) in tree.iter() {
        let there = root.join(OsStr::from_bytes(path.as_bytes()));
        let meta = fs::symlink_metadata(&there).unwrap_or_else(|e| panic!("{path}: {e}"));
        let Meta { mode, uid, gid, mtime, xattrs } = &inode.meta;
        assert_eq!(meta.mode() & 0o7777, u32::from(*mode), "{path}");
        assert_eq!((meta.uid(), meta.gid()), (*uid, *gid), "{path}");
        assert_eq!((meta.mtime(), meta.mtime_nsec()), (mtime.sec, i64::from(mtime.nsec)), "{path}");
        assert_eq!(*inodes.entry(id).or_insert(meta.ino()), meta.ino(), "{path}");
        if !inode.is_dir() {
            assert_eq!(meta.nlink(), u64::from(tree.links(id)), "{path}");
        }
        compare_kind(path, &there, &meta, &inode.kind);
        assert_eq!(read_xattrs(&there), *xattrs, "{path}");
        if let Some(parent) = path.parent() {
            *found.entry(parent).or_default() += 1;
        }
    }
    for (dir, entries) in found {
        let there = root.join(OsStr::from_bytes(dir.as_bytes()));
        let lost = usize::from(dir.is_root() && tree.get(&path("lost+found")).is_none());
        assert_eq!(fs::read_dir(there).unwrap().count(), entries + lost, "{dir}");
    }
}

fn compare_kind(path: &TreePath, there: &Path, meta: &fs::Metadata, kind: &Kind) {
    let kind_there = meta.file_type();
    match kind {
        Kind::Dir => assert!(kind_there.is_dir(), "{path}"),
        Kind::File(object) => {
            assert!(kind_there.is_file(), "{path}");
            same_bytes(path, there, object);
        }
        Kind::Symlink(target) => {
            assert_eq!(fs::read_link(there).unwrap().as_os_str().as_bytes(), &**target, "{path}");
        }
        Kind::Block { major, minor } | Kind::Char { major, minor } => {
            let is_block = matches!(kind, Kind::Block { .. });
            assert_eq!((kind_there.is_block_device(), kind_there.is_char_device()), (is_block, !is_block));
            assert_eq!(meta.rdev(), rustix::fs::makedev(*major, *minor), "{path}");
        }
        Kind::Fifo => assert!(kind_there.is_fifo(), "{path}"),
        Kind::Socket => assert!(kind_there.is_socket(), "{path}"),
    }
}

fn read_xattrs(path: &Path) -> BTreeMap<Vec<u8>, Vec<u8>> {
    let mut names = vec![0; 65_536];
    let len = rustix::fs::llistxattr(path, &mut names).unwrap();
    let names = names[..len].split(|&b| b == 0).filter(|name| !name.is_empty());
    let read = |name: &[u8]| {
        let mut value = vec![0; 65_536];
        let len = rustix::fs::lgetxattr(path, name, &mut value).unwrap();
        value.truncate(len);
        (name.to_vec(), value)
    };
    names.map(read).collect()
}
