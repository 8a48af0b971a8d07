//! Judges of the ext4 reader: filesystems that mke2fs and the kernel made, in every form that an image may
//! have, compared with the kernel's own mount of them.
//! Must not know: the reader's inner parts.
//! Spec: design.md section 6: what an image has is kept, all of it.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use gt_image::ext4::read::{self, ReadError};
use gt_image::io::at::{ReadAt, Window};
use gt_image::io::progress::{Progress, Unit};
use gt_image::store::Store;
use gt_image::tree::{Tree, TreePath};

use crate::judge_ext4::{Bench, Mount, compare_mounted, e2fsck, nasty, options, run, succeed};

/// Every test of this file with its name.
pub const ALL: &[(&str, fn())] = &[
    ("every_form_is_read_as_the_kernel_reads_it", every_form_is_read_as_the_kernel_reads_it),
    ("what_the_kernel_has_written_is_read", what_the_kernel_has_written_is_read),
    ("a_journal_that_was_not_played_back_is_refused", a_journal_that_was_not_played_back_is_refused),
    ("large_values_have_inodes_of_their_own", large_values_have_inodes_of_their_own),
];

const GIB: u64 = 1 << 30;

fn import(image: &Path, store: &Store) -> Result<Tree, ReadError> {
    let file = File::open(image).unwrap();
    let size = file.metadata().unwrap().len();
    let task = Progress::off().task("reading", Unit::Bytes, None);
    let window = Window::new(&file, 0, size);
    read::into_tree(&window as &dyn ReadAt, store, &task)
}

fn make(image: &Path, form: &[&str], from: Option<&Path>, size: u64) {
    // Another file than before: mount(8) takes a loop device that still has it, with what that remembers.
    let _ = fs::remove_file(image);
    File::create_new(image).unwrap().set_len(size).unwrap();
    let mut command = Command::new("mke2fs");
    command.args(["-q", "-F", "-E", "root_owner=0:0"]).args(form);
    if let Some(from) = from {
        command.arg("-d").arg(from);
    }
    succeed(command.arg(image));
}

/// The forms that images have had, and those that mke2fs can make today.
const FORMS: &[&[&str]] = &[
    &["-t", "ext4"],
    // What Raspberry Pi OS's build asks for.
    &["-t", "ext4", "-O", "^64bit,^huge_file"],
    &["-t", "ext4", "-O", "^metadata_csum,uninit_bg"],
    &["-t", "ext4", "-O", "^flex_bg,^has_journal"],
    &["-t", "ext4", "-b", "1024"],
    &["-t", "ext4", "-I", "1024", "-O", "inline_data"],
    &["-t", "ext4", "-O", "bigalloc", "-C", "65536"],
    &["-t", "ext4", "-O", "metadata_csum_seed,orphan_file"],
    &["-t", "ext3"],
    &["-t", "ext2", "-b", "1024", "-I", "256"],
];

fn every_form_is_read_as_the_kernel_reads_it() {
    let bench = Bench::new();
    let tree = nasty(&bench);
    let full = bench.image("source", &tree, &options(GIB));
    let full = Mount::new(&full, bench.dir.path().join("full"), "loop,ro");
    // A block of 1024 bytes holds neither such a target nor such attributes; and large directories are the
    // same in most forms.
    let mut small_tree = tree.clone();
    for name in ["link/4095", "xattr/block", "many", "long"] {
        assert!(small_tree.remove(&TreePath::new(name).unwrap()) > 0);
    }
    let small = bench.image("small", &small_tree, &options(GIB));
    let small = Mount::new(&small, bench.dir.path().join("small-mnt"), "loop,ro");
    let image = bench.dir.path().join("image");
    for (n, form) in FORMS.iter().enumerate() {
        let (source, tree) = if n < 2 { (&full, &tree) } else { (&small, &small_tree) };
        make(&image, form, Some(&source.at), 2 * GIB);
        let imported = import(&image, &bench.store).unwrap_or_else(|e| panic!("{form:?}: {e}"));
        // ext2 and ext3 are the kernel's ext4 driver's too.
        let mount = Mount::new(&image, bench.dir.path().join("mnt"), "loop,ro");
        compare_mounted(&imported, &mount.at);
        drop(mount);
        assert_eq!(imported.len(), tree.len() + 1, "{form:?}: all entries and lost+found");
    }
}

fn what_the_kernel_has_written_is_read() {
    let bench = Bench::new();
    let tree = nasty(&bench);
    let source = bench.image("source", &tree, &options(GIB));
    let source = Mount::new(&source, bench.dir.path().join("source-mnt"), "loop,ro");
    for form in [&["-t", "ext4"][..], &["-t", "ext4", "-O", "^extent,^64bit,^metadata_csum"]] {
        let image = bench.dir.path().join("image");
        make(&image, form, None, 2 * GIB);
        let mount = Mount::new(&image, bench.dir.path().join("mnt"), "loop");
        succeed(Command::new("cp").arg("-a").arg(source.at.join(".")).arg(&mount.at));
        // Directories that have shrunk, and blocks that are reserved but not written.
        for n in 0..11_000 {
            fs::remove_file(mount.at.join(format!("many/file-{n:05}"))).unwrap();
        }
        // Old maps cannot reserve.
        if form.len() == 2 {
            succeed(Command::new("fallocate").args(["-l", "9M"]).arg(mount.at.join("reserved")));
            fs::write(mount.at.join("beyond"), "x").unwrap();
            succeed(Command::new("fallocate").args(["-n", "-l", "9M"]).arg(mount.at.join("beyond")));
        }
        drop(mount);
        e2fsck(&image);
        let imported = import(&image, &bench.store).unwrap_or_else(|e| panic!("{form:?}: {e}"));
        let mount = Mount::new(&image, bench.dir.path().join("mnt"), "loop,ro");
        compare_mounted(&imported, &mount.at);
    }
}

fn a_journal_that_was_not_played_back_is_refused() {
    let bench = Bench::new();
    let image = bench.dir.path().join("image");
    make(&image, &["-t", "ext4"], None, GIB / 4);
    let mount = Mount::new(&image, bench.dir.path().join("mnt"), "loop");
    fs::write(mount.at.join("file"), "x").unwrap();
    succeed(&mut Command::new("sync"));
    // As a card that was pulled: the copy is of a filesystem in use.
    let pulled: PathBuf = bench.dir.path().join("pulled");
    fs::copy(&image, &pulled).unwrap();
    drop(mount);
    let error = import(&pulled, &bench.store).unwrap_err();
    assert!(matches!(error, ReadError::Journal), "{error}");
    let mended = run(Command::new("e2fsck").arg("-fy").arg(&pulled));
    assert!(mended.status.code().is_some_and(|code| code <= 1));
    assert_eq!(import(&pulled, &bench.store).unwrap().len(), 3);
}

fn large_values_have_inodes_of_their_own() {
    let bench = Bench::new();
    let image = bench.dir.path().join("image");
    make(&image, &["-t", "ext4", "-O", "ea_inode"], None, GIB / 4);
    let mount = Mount::new(&image, bench.dir.path().join("mnt"), "loop");
    let file = mount.at.join("file");
    fs::write(&file, "x").unwrap();
    rustix::fs::lsetxattr(&file, "user.large", &[7; 60_000], rustix::fs::XattrFlags::empty()).unwrap();
    rustix::fs::lsetxattr(&file, "user.small", b"s", rustix::fs::XattrFlags::empty()).unwrap();
    drop(mount);
    let imported = import(&image, &bench.store).unwrap();
    let mount = Mount::new(&image, bench.dir.path().join("mnt"), "loop,ro");
    compare_mounted(&imported, &mount.at);
}
