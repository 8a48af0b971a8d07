//! Tests of depmod as a whole, on made-up modules, and on real ones where a directory is named.

use super::elf::tests::module;
use super::*;
use crate::tree::tests::path;
use std::io::Write;
use std::path::Path;

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

/// `GT_IMAGE_MODULES` names a directory `<version>` of a real kernel's modules, in which kmod's own
/// depmod has run. Every file of ours must equal depmod's.
#[test]
fn a_real_kernel_is_indexed_as_depmod_does() {
    let Some(real) = std::env::var_os("GT_IMAGE_MODULES") else {
        writeln!(std::io::stderr(), "not run: judge: GT_IMAGE_MODULES is not set").ok();
        return;
    };
    let (_dir, store) = store();
    let (mut tree, real) = (Tree::new(Meta::default()), Path::new(&real).to_owned());
    load(&mut tree, &store, &real, "usr/lib/modules/6.1");
    let begun = std::time::Instant::now();
    depmod(&mut tree, &store, "6.1", 0).unwrap();
    writeln!(std::io::stderr(), "{:?} for all modules", begun.elapsed()).ok();
    let dir = module_dir(&tree, "6.1").unwrap();
    for (path, _, inode) in tree.children(&dir).filter(|(_, _, inode)| !inode.is_dir()) {
        let name = String::from_utf8_lossy(path.name()).into_owned();
        let ours = store.read_object(inode.object().unwrap()).unwrap();
        let theirs = std::fs::read(real.join(&name)).unwrap();
        let sorted = |bytes: &[u8]| {
            let mut lines: Vec<Vec<u8>> = bytes.split(|&b| b == b'\n').map(<[u8]>::to_vec).collect();
            lines.sort();
            lines
        };
        let equal = ours == theirs || name == "modules.symbols" && sorted(&ours) == sorted(&theirs);
        assert!(equal, "{name} differs from depmod's");
    }
}

/// As above: changes single bytes of real modules and reads them. Nothing may panic, and nothing
/// may hang.
#[test]
fn damaged_real_modules_never_panic() {
    let Some(real) = std::env::var_os("GT_IMAGE_MODULES") else {
        writeln!(std::io::stderr(), "not run: judge: GT_IMAGE_MODULES is not set").ok();
        return;
    };
    let mut random = 1_u64;
    let mut draw = |below: usize| {
        // Knuth's MMIX generator: the same changes on every run.
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(random >> 33).unwrap() % below
    };
    for name in
        ["kernel/fs/ext4/ext4.ko.xz", "kernel/lib/crc16.ko.xz", "kernel/drivers/usb/storage/uas.ko.xz"]
    {
        let packed = std::fs::read(Path::new(&real).join(name)).unwrap();
        let good = packed::unpack(Packing::Xz, &packed).unwrap();
        let mut refused = 0;
        for round in 0..300 {
            let mut bytes = good.clone();
            // The headers at both ends decide most; half the changes go there.
            for _ in 0..1 + round % 5 {
                let at =
                    [draw(64), bytes.len() - 1 - draw(4096.min(bytes.len())), draw(bytes.len())][draw(3)];
                bytes[at] = u8::try_from(draw(256)).unwrap();
            }
            refused += u32::from(ModInfo::parse(&bytes).is_err());
            let mut packed = packed.clone();
            let at = draw(packed.len());
            packed[at] ^= 1 << draw(8);
            packed::unpack(Packing::Xz, &packed).ok();
        }
        assert!(refused > 10, "{name}: only {refused} changes were noticed");
    }
}

fn load(tree: &mut Tree, store: &Store, real: &Path, name: &str) {
    for entry in std::fs::read_dir(real).unwrap() {
        let entry = entry.unwrap();
        let name = format!("{name}/{}", entry.file_name().to_str().unwrap());
        if entry.file_type().unwrap().is_dir() {
            load(tree, store, &entry.path(), &name);
        } else {
            put(tree, store, &name, &std::fs::read(entry.path()).unwrap());
        }
    }
}
