//! Indexes of a real kernel's modules, as kmod's own depmod and modprobe see them.
//! Must not know: how the indexes are made.
//! Spec: modules.dep(5), depmod(8), modprobe(8).

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use gt_image::kmod::modinfo::ModInfo;
use gt_image::kmod::packed::{Packing, unpack};
use gt_image::kmod::{self, module_dir};
use gt_image::store::Store;
use gt_image::tree::{Inode, Kind, Meta, Time, Tree, TreePath};

use crate::fenn;
use crate::support::{ok, run, which};

/// Every test of this file with its name.
pub const ALL: &[(&str, fn())] = &[
    ("modprobe_finds_with_our_indexes_what_it_finds_with_its_own", same_as_depmod),
    ("damaged_modules_never_panic", damaged),
];

fn version(root: &Path) -> String {
    let entry = fs::read_dir(root.join("usr/lib/modules")).unwrap().next().unwrap().unwrap();
    entry.file_name().into_string().unwrap()
}

fn load(tree: &mut Tree, store: &Store, root: &Path, name: &str) {
    for entry in fs::read_dir(root.join(name)).unwrap() {
        let entry = entry.unwrap();
        let name = format!("{name}/{}", entry.file_name().to_str().unwrap());
        if entry.file_type().unwrap().is_dir() {
            load(tree, store, root, &name);
        } else if entry.file_type().unwrap().is_file() {
            let path = TreePath::new(&name).unwrap();
            tree.make_parents(&path, &Meta::root_owned(0o755, Time::default())).unwrap();
            let kind = Kind::File(store.put_bytes(&fs::read(entry.path()).unwrap()).unwrap());
            tree.insert(path, Inode { meta: Meta::root_owned(0o644, Time::default()), kind }).unwrap();
        }
    }
}

fn same_as_depmod() {
    let root = fenn::kernel_root();
    let version = version(&root);
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(&dir.path().join("store")).unwrap();
    let mut tree = Tree::new(Meta::default());
    load(&mut tree, &store, &root, &format!("usr/lib/modules/{version}"));
    kmod::depmod(&mut tree, &store, &version, 0).unwrap();
    let (ours, theirs) = (dir.path().join("ours"), dir.path().join("theirs"));
    for place in [&ours, &theirs] {
        fs::create_dir_all(place.join("usr")).unwrap();
        std::os::unix::fs::symlink("usr/lib", place.join("lib")).unwrap();
        run("cp", ["-a", root.join("usr/lib").to_str().unwrap(), place.join("usr").to_str().unwrap()]);
    }
    run("depmod", ["-b", theirs.to_str().unwrap(), &version]);
    for (path, _, inode) in tree.children(&module_dir(&tree, &version).unwrap()) {
        if let Some(object) = inode.object() {
            let target = ours.join(path.to_string().trim_start_matches('/'));
            fs::write(target, store.read_object(object).unwrap()).unwrap();
        }
    }
    let lines = |place: &Path, name: &str| -> BTreeSet<String> {
        let text = fs::read_to_string(place.join("lib/modules").join(&version).join(name)).unwrap();
        text.lines().filter(|l| !l.starts_with('#')).map(str::to_owned).collect()
    };
    for name in ["modules.dep", "modules.alias", "modules.symbols"] {
        let (a, b) = (lines(&ours, name), lines(&theirs, name));
        let differing: Vec<_> = a.symmetric_difference(&b).take(5).collect();
        assert!(differing.is_empty(), "{name}: {differing:#?}");
    }
    for module in
        ["ext4", "nfsv3", "overlay", "genet", "br_netfilter", "virtio_net", "virtio:d00000001v00001AF4"]
    {
        let show = |place: &Path| {
            let mut command = std::process::Command::new(which("modprobe").unwrap());
            command.args(["-d", place.to_str().unwrap(), "-S", &version, "--show-depends", module]);
            ok(&mut command).replace(place.to_str().unwrap(), "")
        };
        assert_eq!(show(&ours), show(&theirs), "{module}");
    }
}

/// Single bytes of real modules are changed. Nothing may panic, and nothing may hang.
fn damaged() {
    let root = fenn::kernel_root();
    let modules = root.join("usr/lib/modules").join(version(&root));
    let mut random = 1_u64;
    let mut draw = |below: usize| {
        // Knuth's MMIX generator: the same changes on every run.
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(random >> 33).unwrap() % below
    };
    for name in ["kernel/fs/ext4/ext4.ko.xz", "kernel/drivers/usb/storage/uas.ko.xz"] {
        let packed = fs::read(modules.join(name)).unwrap();
        let good = unpack(Packing::Xz, &packed).unwrap();
        let mut refused = 0;
        for round in 0..200 {
            let mut bytes = good.clone();
            // The headers at both ends decide most; most changes go there.
            for _ in 0..1 + round % 5 {
                let places = [draw(64), bytes.len() - 1 - draw(4096.min(bytes.len())), draw(bytes.len())];
                bytes[places[draw(3)]] = u8::try_from(draw(256)).unwrap();
            }
            refused += u32::from(ModInfo::parse(&bytes).is_err());
            let mut packed = packed.clone();
            let at = draw(packed.len());
            packed[at] ^= 1 << draw(8);
            unpack(Packing::Xz, &packed).ok();
        }
        assert!(refused > 10, "{name}: only {refused} changes were noticed");
    }
}
