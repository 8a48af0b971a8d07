//! Tests of the tree itself, and the trees that other tests build on.

use super::*;
use proptest::prelude::*;

pub(crate) fn path(text: &str) -> TreePath {
    TreePath::new(text).unwrap()
}

pub(crate) fn file(bytes: &[u8]) -> Inode {
    let object = Object { digest: Digest::of(bytes), size: bytes.len() as u64, holes: Box::default() };
    Inode { meta: Meta::root_owned(0o644, Time::seconds(7)), kind: Kind::File(object) }
}

pub(crate) fn dir() -> Inode {
    Inode::dir(Meta::root_owned(0o755, Time::seconds(7)))
}

pub(crate) fn symlink(target: &str) -> Inode {
    Inode { meta: Meta::root_owned(0o777, Time::seconds(7)), kind: Kind::Symlink(target.as_bytes().into()) }
}

/// A tree of the given entries; directories above them are made.
pub(crate) fn tree(entries: &[(&str, Inode)]) -> Tree {
    let mut tree = Tree::new(Meta::root_owned(0o755, Time::seconds(7)));
    for (name, inode) in entries {
        tree.make_parents(&path(name), &Meta::root_owned(0o755, Time::seconds(7))).unwrap();
        tree.insert(path(name), inode.clone()).unwrap();
    }
    tree
}

fn any_meta() -> impl Strategy<Value = Meta> {
    let xattrs = proptest::collection::btree_map(
        proptest::collection::vec(1u8..=255, 1..20),
        proptest::collection::vec(any::<u8>(), 0..40),
        0..3,
    );
    (0u16..0o10000, any::<u32>(), any::<u32>(), any::<i64>(), 0u32..1_000_000_000, xattrs).prop_map(
        |(mode, uid, gid, sec, nsec, xattrs)| Meta { mode, uid, gid, mtime: Time { sec, nsec }, xattrs },
    )
}

fn any_kind() -> impl Strategy<Value = Kind> {
    prop_oneof![
        4 => Just(Kind::Dir),
        4 => proptest::collection::vec(any::<u8>(), 0..30).prop_map(|b| file(&b).kind),
        2 => proptest::collection::vec(1u8..=255, 1..30).prop_map(|t| Kind::Symlink(t.into())),
        1 => (0u32..4096, 0u32..1 << 20).prop_map(|(major, minor)| Kind::Block { major, minor }),
        1 => (0u32..4096, 0u32..1 << 20).prop_map(|(major, minor)| Kind::Char { major, minor }),
        1 => Just(Kind::Fifo),
        1 => Just(Kind::Socket),
    ]
}

/// Any tree: odd names, all types, hard links.
pub(crate) fn any_tree() -> impl Strategy<Value = Tree> {
    let name = proptest::collection::vec(prop_oneof![Just(b'/'), Just(b'a'), any::<u8>()], 1..8);
    let entry = (name, any_meta(), any_kind(), any::<bool>());
    (any_meta(), proptest::collection::vec(entry, 0..25)).prop_map(|(root, entries)| {
        let mut tree = Tree::new(root);
        let mut last = None;
        for (name, meta, kind, link) in entries {
            let Ok(path) = TreePath::new(&name) else { continue };
            if tree.make_parents(&path, &Meta::default()).is_err() {
                continue;
            }
            match last.filter(|&id: &InodeId| link && tree.inodes[id.0 as usize].is_some()) {
                Some(id) => _ = tree.link(path, id),
                None => last = tree.insert(path, Inode { meta, kind }).ok(),
            }
        }
        tree
    })
}

#[test]
fn a_tree_stays_a_tree() {
    let mut t = tree(&[("a/f", file(b"x")), ("l", symlink("a"))]);
    let missing = TreeError::Missing { path: path("no") };
    assert_eq!(t.insert(path("no/x"), dir()), Err(missing));
    assert!(matches!(t.insert(path("a/f/x"), dir()), Err(TreeError::NotDir { .. })));
    assert!(matches!(t.insert(path("l/x"), dir()), Err(TreeError::NotDir { .. })));
    assert!(matches!(t.insert(path("a"), file(b"")), Err(TreeError::Occupied { .. })));
    assert!(matches!(t.insert(TreePath::root(), file(b"")), Err(TreeError::Root { .. })));
    let a = t.id(&path("a")).unwrap();
    assert!(matches!(t.link(path("b"), a), Err(TreeError::LinkedDir { .. })));
    t.insert(path("a"), Inode::dir(Meta::root_owned(0o700, Time::default()))).unwrap();
    assert!(t.get(&path("a/f")).is_some(), "a directory in place of a directory keeps its entries");
}

#[test]
fn hard_links_share_and_outlive_each_other() {
    let mut t = tree(&[("a", file(b"x"))]);
    let id = t.id(&path("a")).unwrap();
    t.link(path("b"), id).unwrap();
    t.link(path("b"), id).unwrap();
    assert_eq!(t.links(id), 2);
    t.meta_mut(&path("b")).unwrap().mode = 0o600;
    assert_eq!(t.get(&path("a")).unwrap().meta.mode, 0o600);
    t.insert(path("a"), file(b"y")).unwrap();
    assert_eq!(t.links(id), 1);
    assert_eq!(t.get(&path("b")).unwrap().object().unwrap().digest, Digest::of(b"x"));
    t.remove(&path("b"));
    assert!(t.inodes[id.0 as usize].is_none());
}

#[test]
fn children_are_the_direct_entries_only() {
    let t = tree(&[("a/b/c", file(b"")), ("a/d", file(b"")), ("a.x", file(b"")), ("ab", dir())]);
    let names = |d: &str| {
        let d = path(d);
        t.children(&d).map(|(p, _, _)| p.to_string()).collect::<Vec<_>>()
    };
    assert_eq!(names(""), ["/a", "/a.x", "/ab"]);
    assert_eq!(names("a"), ["/a/b", "/a/d"]);
    assert_eq!(t.below(&path("a")).count(), 4);
}

#[test]
fn removing_takes_all_below_and_spares_the_root() {
    let mut t = tree(&[("a/b/c", file(b"")), ("ab", file(b""))]);
    assert_eq!(t.remove(&path("a")), 3);
    assert_eq!(t.remove(&TreePath::root()), 1);
    assert_eq!(t.len(), 1);
}

#[test]
fn links_are_followed_inside_the_tree_only() {
    let t = tree(&[
        ("usr/bin/sh", file(b"")),
        ("bin", symlink("usr/bin")),
        ("abs", symlink("/usr/../../bin")),
        ("loop", symlink("loop")),
        ("out", symlink("../../etc")),
    ]);
    let follow = |p: &str, last| t.resolve(&path(p), last).map(|p| p.to_string());
    assert_eq!(follow("bin/sh", false).unwrap(), "/usr/bin/sh");
    assert_eq!(follow("abs/sh", false).unwrap(), "/usr/bin/sh");
    assert_eq!(follow("bin", false).unwrap(), "/bin");
    assert_eq!(follow("bin", true).unwrap(), "/usr/bin");
    assert_eq!(follow("out/passwd", true).unwrap(), "/etc/passwd");
    assert_eq!(follow("new/x", true).unwrap(), "/new/x");
    assert_eq!(follow("loop/x", false), None);
}

proptest! {
    #[test]
    fn any_sequence_of_changes_leaves_a_tree(t in any_tree()) {
        for (p, id, _) in t.iter() {
            if let Some(parent) = p.parent() {
                prop_assert!(t.get(&parent).unwrap().is_dir());
            }
            let names = t.iter().filter(|(_, other, _)| *other == id).count();
            prop_assert_eq!(names as u32, t.links(id));
        }
        prop_assert_eq!(&t.clone(), &t);
    }
}
