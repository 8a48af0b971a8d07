//! Archives that are honest, and archives that are not.

use super::*;
use crate::archive::tar_write;
use crate::digest::Digest;
use crate::tree::tests::{dir, file, path, symlink};

/// Builds archives entry by entry, in any order and with any names.
struct Maker(Vec<u8>);

impl Maker {
    fn new() -> Maker {
        Maker(Vec::new())
    }

    fn entry(mut self, flag: u8, name: &str, target: &str, mode: u16, bytes: &[u8]) -> Maker {
        let mut raw = [0; 512];
        let fields: [(usize, String); 5] = [
            (0, name.into()),
            (100, format!("{mode:07o}\0")),
            (124, format!("{:011o}\0", bytes.len())),
            (136, "00000000011\0".into()),
            (157, target.into()),
        ];
        for (at, text) in fields {
            raw[at..at + text.len()].copy_from_slice(text.as_bytes());
        }
        raw[156] = flag;
        raw[148..156].fill(b' ');
        let sum: u32 = raw.iter().map(|&b| u32::from(b)).sum();
        raw[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
        self.0.extend_from_slice(&raw);
        self.0.extend_from_slice(bytes);
        self.0.resize(self.0.len().next_multiple_of(512), 0);
        self
    }

    fn file(self, name: &str, bytes: &[u8]) -> Maker {
        self.entry(b'0', name, "", 0o644, bytes)
    }

    fn dir(self, name: &str, mode: u16) -> Maker {
        self.entry(b'5', name, "", mode, b"")
    }

    fn symlink(self, name: &str, target: &str) -> Maker {
        self.entry(b'2', name, target, 0o777, b"")
    }

    fn link(self, name: &str, target: &str) -> Maker {
        self.entry(b'1', name, target, 0, b"")
    }

    fn bytes(&self) -> Vec<u8> {
        [&self.0[..], &[0; 1024]].concat()
    }

    fn tree(&self) -> Result<Tree, ImportError> {
        let (_dir, store) = scratch();
        into_tree(&mut Reader::new(&self.bytes()[..]), &store)
    }

    fn layer(&self) -> Result<Layer, ImportError> {
        let (_dir, store) = scratch();
        into_layer(&mut Reader::new(&self.bytes()[..]), &store)
    }
}

fn scratch() -> (tempfile::TempDir, Store) {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(&dir.path().join("store")).unwrap();
    (dir, store)
}

fn digest(tree: &Tree, name: &str) -> Digest {
    tree.get(&path(name)).unwrap().object().unwrap().digest
}

#[test]
fn bytes_go_to_the_store_and_attributes_to_the_tree() {
    let (_dir, store) = scratch();
    let bytes = Maker::new().dir("./", 0o711).file("./etc/motd", b"hello").bytes();
    let tree = into_tree(&mut Reader::new(&bytes[..]), &store).unwrap();
    let inode = tree.get(&path("etc/motd")).unwrap();
    assert_eq!(store.read_object(inode.object().unwrap()).unwrap(), b"hello");
    assert_eq!((inode.meta.mode, inode.meta.mtime), (0o644, Time::seconds(9)));
    assert_eq!(tree.get(&TreePath::root()).unwrap().meta.mode, 0o711);
    let implied = &tree.get(&path("etc")).unwrap().meta;
    assert_eq!(*implied, Meta::root_owned(0o755, Time::seconds(9)));
}

#[test]
fn absolute_names_and_targets_are_inside_the_tree() {
    let tree =
        Maker::new().file("/etc/x", b"1").link("/y", "/etc/x").symlink("z", "../../out").tree().unwrap();
    assert_eq!(tree.id(&path("etc/x")), tree.id(&path("y")));
    // A symbolic link is only text; it is followed inside the tree, if at all.
    assert_eq!(tree.get(&path("z")).unwrap().kind, symlink("../../out").kind);
}

#[test]
fn later_entries_replace_earlier_ones() {
    let tree = Maker::new()
        .file("a", b"old")
        .link("b", "a")
        .file("a", b"new")
        .file("d/x", b"")
        .dir("d", 0o700)
        .symlink("s", "a")
        .dir("s", 0o750)
        .file("s/in", b"")
        .tree()
        .unwrap();
    assert_eq!((digest(&tree, "a"), digest(&tree, "b")), (Digest::of(b"new"), Digest::of(b"old")));
    assert_eq!(tree.get(&path("d")).unwrap().meta.mode, 0o700);
    assert!(tree.get(&path("d/x")).is_some() && tree.get(&path("s/in")).is_some());
}

#[test]
fn a_package_states_what_it_has_and_implies_the_rest() {
    let layer = Maker::new().dir("./usr/", 0o755).file("./usr/lib/x", b"").tree_and(Maker::layer);
    assert!(layer.is_implied(&path("usr/lib")) && !layer.is_implied(&path("usr")));
    let mut below = crate::tree::tests::tree(&[("usr/lib64", dir()), ("lib", symlink("usr/lib64"))]);
    let layer = Maker::new().file("./lib/ld.so", b"").layer().unwrap();
    layer.merge_onto(&mut below).unwrap();
    assert!(below.get(&path("usr/lib64/ld.so")).is_some());
}

impl Maker {
    /// The archive is good as a tree too.
    fn tree_and(self, then: fn(&Maker) -> Result<Layer, ImportError>) -> Layer {
        self.tree().unwrap();
        then(&self).unwrap()
    }
}

#[test]
fn dishonest_entries_are_refused_with_their_name_and_place() {
    let through = "its path leads through the symbolic link `/l` of the same archive";
    for (maker, want) in [
        (Maker::new().file("../x", b""), "offset 0, entry `../x`: path `../x` has a `..` component"),
        (Maker::new().file("a/../../x", b""), "offset 0, entry `a/../../x`: path"),
        (Maker::new().file("/../x", b""), "offset 0, entry `/../x`: path"),
        (Maker::new().symlink("l", "/etc").file("l/x", b""), &format!("offset 512, entry `l/x`: {through}")),
        (
            Maker::new().symlink("l", ".").file("./l/a/b", b""),
            &format!("offset 512, entry `./l/a/b`: {through}"),
        ),
        (Maker::new().symlink("l", ".").link("l/h", "l"), &format!("offset 512, entry `l/h`: {through}")),
        (
            Maker::new().link("h", "../../etc/shadow"),
            "offset 0, entry `h`: the hard link's target is bad: path",
        ),
        (
            Maker::new().link("h", "later").file("later", b""),
            "offset 0, entry `h`: a hard link to `/later`, which is not in the archive before it",
        ),
        (Maker::new().dir("d", 0o755).link("h", "d"), "offset 512, entry `h`: `/h` is a directory"),
        (Maker::new().file("f", b"").file("f/x", b""), "offset 512, entry `f/x`: `/f/x` cannot be made"),
        (
            Maker::new().file("d/x", b"").symlink("d", "e"),
            "offset 512, entry `d`: the directory `/d` cannot become",
        ),
        (Maker::new().symlink(".", "x"), "offset 0, entry `.`: the root of a tree must be a directory"),
    ] {
        for error in [maker.tree().map(drop).unwrap_err(), maker.layer().map(drop).unwrap_err()] {
            assert!(matches!(error, ImportError::Entry { .. }), "{error}");
            assert!(error.to_string().starts_with(want), "{error}\nwanted {want}");
        }
    }
}

#[test]
fn the_archive_s_own_faults_stay_typed() {
    let bytes = Maker::new().file("a", b"12345").bytes();
    let (_dir, store) = scratch();
    let error = into_tree(&mut Reader::new(&bytes[..600]), &store).unwrap_err();
    assert!(matches!(error, ImportError::Tar(_)), "{error}");
    assert_eq!(error.to_string(), "offset 600, entry `a`: the archive is cut off");
}

#[test]
fn a_tree_is_the_same_whatever_the_order_of_its_directories() {
    let (_dir, store) = scratch();
    let sample = crate::tree::tests::tree(&[("a", dir()), ("b", symlink("a"))]);
    let mut bytes = Vec::new();
    tar_write::write(&sample, &store, &mut bytes).unwrap();
    assert_eq!(into_tree(&mut Reader::new(&bytes[..]), &store).unwrap(), sample);
    let one = Maker::new().dir("a", 0o700).file("a/x", b"").tree().unwrap();
    let other = Maker::new().file("a/x", b"").dir("a", 0o700).tree().unwrap();
    assert_eq!(one, other);
    assert_ne!(one.get(&path("a/x")).unwrap().kind, file(b"x").kind);
}
