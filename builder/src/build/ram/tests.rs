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
fn what_is_stored_is_what_is_written() {
    let (_dir, store, tree) = site();
    let stored = super::store(&tree, &dump::digest(&tree), &store, &Progress::off()).unwrap();
    let mut sink = Plain::new(Vec::new());
    assert_eq!(ram_image(&tree, &store, &mut sink).unwrap(), stored.image.size);
    let bytes = sink.into_inner();
    assert_eq!((bytes.len() as u64, Digest::of(&bytes)), (stored.image.size, stored.image.digest));
    let kept = store.tree(&stored.tree).unwrap();
    let object = kept.get(&path(NAME)).unwrap().object().unwrap().clone();
    assert!(store.read_object(&object).unwrap() == bytes);
}

#[test]
fn another_tree_gives_another_image() {
    let (_dir, store, mut tree) = site();
    let digest =
        |tree: &Tree| super::store(tree, &dump::digest(tree), &store, &Progress::off()).unwrap().image.digest;
    let before = digest(&tree);
    assert_eq!(digest(&tree), before);
    tree.meta_mut(&path("file")).unwrap().mode = 0o600;
    assert_ne!(digest(&tree), before);
}
