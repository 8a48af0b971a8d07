//! Tests of what goes into the filesystem of extended attributes.

use super::*;
use crate::tree::tests::path;

const CAPABILITY: &[u8] = b"security.capability";

fn meta(mode: u16, names: &[&[u8]]) -> Meta {
    let mut meta = Meta::root_owned(mode, Time::seconds(7));
    meta.xattrs = names.iter().map(|name| (name.to_vec(), vec![1, 0, 0, 2])).collect();
    meta
}

/// A root with a program of each kind.
fn root(store: &Store) -> Tree {
    let mut tree = Tree::new(meta(0o755, &[]));
    tree.insert(path("usr"), Inode::dir(meta(0o750, &[]))).unwrap();
    tree.insert(path("usr/bin"), Inode::dir(meta(0o711, &[]))).unwrap();
    for (name, names) in [
        ("usr/bin/ping", &[CAPABILITY][..]),
        ("usr/bin/plain", &[]),
        ("usr/bin/acl", &[b"system.posix_acl_access"]),
        ("usr/bin/label", &[b"security.selinux"]),
    ] {
        let kind = Kind::File(store.put_bytes(name.as_bytes()).unwrap());
        tree.insert(path(name), Inode { meta: meta(0o755, names), kind }).unwrap();
    }
    tree
}

fn names(tree: &Tree) -> Vec<String> {
    tree.iter().map(|(path, _, _)| path.to_string()).collect()
}

#[test]
fn only_what_nfs_cannot_carry_goes_in_below_directories_as_they_are() {
    let dir = tempfile::tempdir().unwrap();
    let mut root = root(&Store::open(dir.path()).unwrap());
    let ping = root.id(&path("usr/bin/ping")).unwrap();
    root.link(path("usr/bin/ping4"), ping).unwrap();
    let part = part_with_attributes(&root).unwrap().unwrap();
    assert_eq!(names(&part), ["/", "/usr", "/usr/bin", "/usr/bin/ping", "/usr/bin/ping4"]);
    for at in ["usr", "usr/bin", "usr/bin/ping"] {
        assert_eq!(part.get(&path(at)), root.get(&path(at)), "{at}");
    }
    assert_eq!(part.links(part.id(&path("usr/bin/ping")).unwrap()), 2);
}

#[test]
fn a_directory_with_attributes_goes_in_without_its_files() {
    let dir = tempfile::tempdir().unwrap();
    let mut root = root(&Store::open(dir.path()).unwrap());
    root.remove(&path("usr/bin/ping"));
    assert!(part_with_attributes(&root).unwrap().is_none());
    root.meta_mut(&path("usr/bin")).unwrap().xattrs.insert(b"user.note".to_vec(), vec![9]);
    assert_eq!(names(&part_with_attributes(&root).unwrap().unwrap()), ["/", "/usr", "/usr/bin"]);
}

#[test]
fn the_layer_is_one_file_that_only_root_reads_and_the_same_every_time() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    let root = root(&store);
    let layer = layer(&root, &store, 5).unwrap().unwrap();
    let inode = layer.tree().get(&path(IMAGE)).unwrap();
    assert_eq!((inode.meta.mode, inode.meta.mtime), (0o600, Time::seconds(5)));
    let again = super::layer(&root, &store, 5).unwrap().unwrap();
    assert_eq!(again.tree().get(&path(IMAGE)), Some(inode));
    // The superblock's magic number (fs/ext4/ext4.h), little-endian at byte 1024 + 56.
    let bytes = store.read_object(inode.object().unwrap()).unwrap();
    assert_eq!(bytes[1080..1082], [0x53, 0xef]);
}
