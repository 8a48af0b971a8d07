//! Tests of the whole writer on trees that only this crate can make up; the judges in `tests/` have
//! the others.

use std::process::Command;

use proptest::prelude::*;

use super::*;
use crate::digest::Digest;
use crate::io::sink::Plain;
use crate::store::Store;
use crate::tree::tests::{any_tree, dir, file, path, symlink, tree};
use crate::tree::{Inode, Kind, TreePath};

pub(super) fn options(size: u64) -> Options {
    Options {
        size,
        uuid: *b"0123456789abcdef",
        hash_seed: *b"fedcba9876543210",
        label: "rootfs".into(),
        time: Time::seconds(1_760_000_000),
        reserved_percent: 0,
    }
}

pub(super) fn store() -> (tempfile::TempDir, Store) {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(&dir.path().join("store")).unwrap();
    (dir, store)
}

pub(super) fn image(tree: &Tree, store: &Store, size: u64) -> Vec<u8> {
    let mut sink = Plain::new(Vec::new());
    lay_out(tree, &options(size)).unwrap().write(store, &mut sink).unwrap();
    sink.into_inner()
}

/// Any tree, with what ext4 cannot hold brought into its limits, and bytes for its files.
pub(super) fn representable(mut tree: Tree, store: &Store) -> Tree {
    let paths: Vec<TreePath> = tree.iter().map(|(path, ..)| path.clone()).collect();
    for path in &paths {
        if let Some(Kind::File(object)) = tree.get(path).map(|inode| inode.kind.clone()) {
            let stored = store.put_bytes(&vec![b'x'; object.size as usize]).unwrap();
            let id = tree.id(path).unwrap();
            let mut inode = tree.inode(id).clone();
            inode.kind = Kind::File(stored);
            tree.insert(path.clone(), inode).unwrap();
        }
        let meta = tree.meta_mut(path).unwrap();
        meta.mtime.sec = meta.mtime.sec.rem_euclid((3 << 32) + (1 << 31));
        let xattrs = std::mem::take(&mut meta.xattrs);
        meta.xattrs =
            xattrs.into_iter().map(|(name, value)| ([b"user.", &name[..]].concat(), value)).collect();
    }
    tree
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]
    #[test]
    fn any_tree_that_ext4_can_hold_is_clean(t in any_tree()) {
        let (dir, store) = store();
        let t = representable(t, &store);
        let bytes = image(&t, &store, size_for(&t, 0).unwrap());
        let file = dir.path().join("image");
        std::fs::write(&file, bytes).unwrap();
        let Ok(output) = Command::new("/sbin/e2fsck").arg("-fn").arg(&file).output() else {
            let required = std::env::var("GT_IMAGE_REQUIRE").unwrap_or_default();
            prop_assert!(!required.contains("judge"), "no e2fsck here: apt-get install e2fsprogs");
            return Ok(());
        };
        prop_assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    }

    #[test]
    fn no_tree_makes_it_panic(t in any_tree(), size in 0u64..40_000) {
        let (_dir, store) = store();
        // Objects of this tree are in no store, so what can be laid out may still not be written.
        if let Ok(layout) = lay_out(&t, &options(size * 4096)) {
            let _ = layout.write(&store, &mut Plain::new(std::io::sink()));
        }
    }
}

/// A change here changes every image: name that in the changelog, then put the new digest here.
#[test]
fn the_bytes_of_a_small_image_are_pinned() {
    let (_dir, store) = store();
    let object = store.put_bytes(b"hello").unwrap();
    let mut hello = file(b"");
    hello.kind = Kind::File(object);
    hello.meta.xattrs.insert(b"user.x".to_vec(), b"y".to_vec());
    let t = tree(&[("etc/hello", hello), ("bin", symlink("usr/bin")), ("usr/bin", dir())]);
    let digest = Digest::of(&image(&t, &store, 8 << 20));
    assert_eq!(digest.hex(), "fa5520daa34257a021e5432aba6188ddd30fc87bfed61a96528962d26201eed4");
}

#[test]
fn a_missing_or_cut_object_is_told_by_path() {
    let (_dir, store) = store();
    let t = tree(&[("d/gone", file(b"never stored"))]);
    let layout = lay_out(&t, &options(8 << 20)).unwrap();
    let error = layout.write(&store, &mut Plain::new(std::io::sink())).unwrap_err();
    assert!(matches!(&error, Ext4Error::Store { path: p, .. } if *p == path("d/gone")), "{error}");
}

#[test]
fn a_sink_that_fails_ends_the_writing() {
    struct Full;
    impl std::io::Write for Full {
        fn write(&mut self, _: &[u8]) -> std::io::Result<usize> {
            Err(std::io::Error::other("full"))
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let (_dir, store) = store();
    let t = tree(&[]);
    let layout = lay_out(&t, &options(8 << 20)).unwrap();
    let error = layout.write(&store, &mut Plain::new(Full)).unwrap_err();
    assert!(matches!(error, Ext4Error::Write { at: 0, .. }), "{error}");
}

#[test]
fn an_image_can_begin_anywhere_in_a_sink() {
    let (_dir, store) = store();
    let t = tree(&[("a/b", dir())]);
    let alone = image(&t, &store, 8 << 20);
    let mut sink = Plain::new(Vec::new());
    crate::io::sink::ImageSink::data(&mut sink, &[7; 1000]).unwrap();
    lay_out(&t, &options(8 << 20)).unwrap().write(&store, &mut sink).unwrap();
    let both = sink.into_inner();
    assert_eq!(both[..1000], [7; 1000]);
    assert!(both[1000..] == alone);
}

#[test]
fn the_order_in_which_a_tree_was_made_does_not_matter() {
    let (_dir, store) = store();
    let names: Vec<String> = (0..400).map(|i| format!("d/{i}")).collect();
    let entries: Vec<(&str, Inode)> = names.iter().map(|name| (name.as_str(), dir())).collect();
    let reversed: Vec<(&str, Inode)> = entries.iter().rev().cloned().collect();
    let size = size_for(&tree(&entries), 0).unwrap();
    assert!(image(&tree(&entries), &store, size) == image(&tree(&reversed), &store, size));
}
