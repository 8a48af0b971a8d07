//! Tests of the image's bytes; e2fsck and the kernel judge its form in tests/netroot.rs.

use super::*;
use crate::tree::{Inode, Kind, Meta, tests::path};

fn site() -> (tempfile::TempDir, Store, Tree) {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    let mut tree = Tree::new(Meta::root_owned(0o755, Time::seconds(1_700_000_000)));
    let kind = Kind::File(store.put_bytes(b"content").unwrap());
    tree.insert(path("file"), Inode { meta: Meta::root_owned(0o644, Time::default()), kind }).unwrap();
    (dir, store, tree)
}

#[test]
fn what_is_measured_is_what_is_written() {
    let (_dir, store, tree) = site();
    let measured = measure(&tree, &store, &Progress::off()).unwrap();
    let mut sink = Plain::new(Vec::new());
    assert_eq!(ram_image(&tree, &store, &mut sink).unwrap(), measured.size);
    let bytes = sink.into_inner();
    assert_eq!((bytes.len() as u64, Digest::of(&bytes)), (measured.size, measured.digest));
}

#[test]
fn another_tree_gives_another_image() {
    let (_dir, store, mut tree) = site();
    let before = measure(&tree, &store, &Progress::off()).unwrap();
    assert_eq!(measure(&tree, &store, &Progress::off()).unwrap(), before);
    tree.meta_mut(&path("file")).unwrap().mode = 0o600;
    assert_ne!(measure(&tree, &store, &Progress::off()).unwrap().digest, before.digest);
}
