//! Tests of depmod as a whole, on made-up modules, and on real ones where a directory is named.

use super::elf::tests::module;
use super::*;
use crate::tree::tests::path;

fn store() -> (tempfile::TempDir, Store) {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    (dir, store)
}

fn put(tree: &mut Tree, store: &Store, name: &str, bytes: &[u8]) {
    let meta = Meta::root_owned(0o755, Time::default());
    tree.make_parents(&path(name), &meta).unwrap();
    let kind = Kind::File(store.put_bytes(bytes).unwrap());
    tree.insert(path(name), Inode { meta: Meta::root_owned(0o644, Time::default()), kind }).unwrap();
}

fn kernel(store: &Store, files: &[(&str, Vec<u8>)]) -> Tree {
    let mut tree = Tree::new(Meta::root_owned(0o755, Time::default()));
    for (name, bytes) in files {
        put(&mut tree, store, &format!("usr/lib/modules/6.1/{name}"), bytes);
    }
    tree
}

fn text(tree: &Tree, store: &Store, name: &str) -> String {
    let dir = module_dir(tree, "6.1").unwrap();
    String::from_utf8(read_file(tree, store, &dir, name).unwrap().unwrap()).unwrap()
}

#[test]
fn modules_are_listed_in_the_kernels_order_and_others_after_them() {
    let (_dir, store) = store();
    let mut tree = kernel(
        &store,
        &[
            ("kernel/a.ko", module(b"license=GPL\0", &[], &["z_fn"])),
            ("kernel/z.ko.zst", zstd::encode_all(&module(b"alias=z\0", &["z_fn"], &[])[..], 1).unwrap()),
            ("extra/m.ko", module(b"license=GPL\0", &[], &["z_fn"])),
            ("modules.order", b"kernel/z.ko\nkernel/gone.ko\nkernel/a.ko\n".to_vec()),
        ],
    );
    depmod(&mut tree, &store, "6.1", 5).unwrap();
    assert_eq!(
        text(&tree, &store, "modules.dep"),
        "kernel/z.ko.zst:\nkernel/a.ko: kernel/z.ko.zst\nextra/m.ko: kernel/z.ko.zst\n"
    );
    let inode = tree.get(&path("usr/lib/modules/6.1/modules.alias")).unwrap();
    assert_eq!(inode.meta, Meta::root_owned(0o644, Time::seconds(5)));
    let again = tree.clone();
    depmod(&mut tree, &store, "6.1", 5).unwrap();
    assert_eq!(tree, again);
}

#[test]
fn updates_win_and_headers_are_left_out() {
    let (_dir, store) = store();
    let mut tree = kernel(
        &store,
        &[
            ("kernel/a.ko", module(b"alias=old\0", &[], &[])),
            ("updates/a.ko", module(b"alias=new\0", &[], &[])),
            ("build/b.ko", b"no module at all".to_vec()),
        ],
    );
    depmod(&mut tree, &store, "6.1", 0).unwrap();
    assert_eq!(text(&tree, &store, "modules.dep"), "updates/a.ko:\n");
    assert!(text(&tree, &store, "modules.alias").ends_with("alias new a\n"));
}

#[test]
fn every_fault_names_its_module() {
    let (_dir, store) = store();
    let fault = |files: &[(&str, Vec<u8>)]| {
        depmod(&mut kernel(&store, files), &store, "6.1", 0).unwrap_err().to_string()
    };
    assert_eq!(
        fault(&[("kernel/a.ko", b"x".to_vec())]),
        "reading the module `/usr/lib/modules/6.1/kernel/a.ko`"
    );
    assert_eq!(
        fault(&[("kernel/a.ko.xz", b"x".to_vec())]),
        "unpacking the module `/usr/lib/modules/6.1/kernel/a.ko.xz`"
    );
    let circle = [("a.ko", module(b"x=\0", &["a"], &["b"])), ("b.ko", module(b"x=\0", &["b"], &["a"]))];
    assert_eq!(fault(&circle), "no order of loading exists, these modules need each other: a, b");
    let mut tree = Tree::new(Meta::default());
    assert!(matches!(depmod(&mut tree, &store, "6.1", 0), Err(KmodError::NoModules { .. })));
}

#[test]
fn an_old_root_keeps_its_modules_in_lib() {
    let (_dir, store) = store();
    let mut tree = Tree::new(Meta::default());
    put(&mut tree, &store, "lib/modules/6.1/a.ko", &module(b"x=\0", &[], &[]));
    depmod(&mut tree, &store, "6.1", 0).unwrap();
    assert!(tree.get(&path("lib/modules/6.1/modules.dep")).is_some());
}
