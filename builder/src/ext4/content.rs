//! What a tree asks of a filesystem: its inodes with their numbers, and its directories. One pass
//! over the tree in canonical order.
//! Must not know: block numbers, sizes, how anything is encoded beyond one inode's fields.
//! Spec: inode numbers 1 to 10 are reserved; 11 is `lost+found` as mke2fs makes it.

use std::collections::HashMap;

use super::dir::{Entry, FT_DIR, Listing};
use super::error::Ext4Error;
use super::format::{BLOCK_SIZE, Ino, LINK_MAX};
use super::inode::{DiskTime, device};
use super::xattr::Attributes;
use crate::tree::{HOLE_GRAIN, Inode, InodeId, Kind, Meta, Object, Time, Tree, TreePath};

const LOST_AND_FOUND: &[u8] = b"lost+found";
/// `e2fsck` moves what it finds into blocks that are there already: 16 KiB, as mke2fs makes it.
const LOST_AND_FOUND_BLOCKS: u32 = 4;
/// A target shorter than this is in the inode.
pub(super) const SHORT_LINK: usize = 60;
/// A longer target would leave no zero byte in its block: the kernel's limit.
const LINK_TARGET_MAX: usize = 4095;

/// What an inode's blocks hold.
#[derive(Clone, Debug)]
pub(super) enum Body<'t> {
    /// Entries: the index is that of the listing.
    Dir(usize),
    /// Bytes from the store.
    File(&'t Object),
    /// A target.
    Symlink(&'t [u8]),
    /// No blocks: the start of `i_block`.
    Device([u8; 8]),
    /// No blocks.
    Empty,
}

/// One inode, checked: everything in it can be encoded.
#[derive(Clone, Debug)]
pub(super) struct Node<'t> {
    /// Its first name, for messages. `None` for a `lost+found` that the tree lacks.
    pub path: Option<&'t TreePath>,
    /// With the bits of its type.
    pub mode: u16,
    pub uid: u32,
    pub gid: u32,
    pub time: DiskTime,
    pub links: u16,
    pub attributes: Option<Box<Attributes<'t>>>,
    pub body: Body<'t>,
}

/// All that a tree asks for.
#[derive(Debug)]
pub(super) struct Content<'t> {
    /// By inode number: the root, then from 11 on.
    pub nodes: Vec<Node<'t>>,
    /// In canonical order of their directories, but the root and `lost+found` first.
    pub listings: Vec<Listing<'t>>,
}

/// The place of an inode in [`Content::nodes`], if it is one of the tree's.
pub(super) fn node_index(ino: Ino) -> usize {
    ino.0.saturating_sub(Ino::LOST_AND_FOUND.0 - 1) as usize
}

/// The reverse of [`node_index`].
pub(super) fn node_ino(index: usize) -> Ino {
    match index {
        0 => Ino::ROOT,
        // Inode ids of a tree have 32 bits; geometry refuses far fewer.
        _ => Ino(u32::try_from(index).unwrap_or(u32::MAX).saturating_add(Ino::LOST_AND_FOUND.0 - 1)),
    }
}

impl<'t> Content<'t> {
    /// Walks the tree. `made` is the time of a `lost+found` that the tree lacks. Fails on the first
    /// entry that ext4 cannot hold.
    pub fn gather(tree: &'t Tree, made: Time) -> Result<Content<'t>, Ext4Error> {
        let mut gatherer = Gatherer::new(made);
        for (path, id, inode) in tree.iter() {
            gatherer.add(path, id, inode, tree.links(id))?;
        }
        Ok(gatherer.finish())
    }

    /// The highest inode number in use.
    pub fn last_ino(&self) -> Ino {
        node_ino(self.nodes.len() - 1)
    }
}

struct Gatherer<'t> {
    content: Content<'t>,
    /// Directories above the entry to come: length of the path, and listing.
    open: Vec<(usize, usize)>,
    /// Inodes that more names may follow for.
    linked: HashMap<InodeId, Ino>,
    lost_and_found: bool,
}

impl<'t> Gatherer<'t> {
    fn new(made: Time) -> Gatherer<'t> {
        let node = |mode, listing| Node {
            path: None,
            mode,
            uid: 0,
            gid: 0,
            time: DiskTime::new(made).unwrap_or_default(),
            links: 2,
            attributes: None,
            body: Body::Dir(listing),
        };
        let listing =
            |ino, min_blocks| Listing { ino, parent: Ino::ROOT, subdirs: 0, min_blocks, entries: Vec::new() };
        let content = Content {
            nodes: vec![node(0o040_755, 0), node(0o040_700, 1)],
            listings: vec![listing(Ino::ROOT, 1), listing(Ino::LOST_AND_FOUND, LOST_AND_FOUND_BLOCKS)],
        };
        Gatherer { content, open: Vec::new(), linked: HashMap::new(), lost_and_found: false }
    }

    fn add(
        &mut self,
        path: &'t TreePath,
        id: InodeId,
        inode: &'t Inode,
        links: u32,
    ) -> Result<(), Ext4Error> {
        if path.is_root() {
            self.content.nodes[0] = node(path, inode, 1, 0)?;
            self.open.push((0, 0));
            return Ok(());
        }
        let bytes = path.as_bytes();
        let (parent_len, name) = match bytes.iter().rposition(|&b| b == b'/') {
            Some(slash) => (slash, &bytes[slash + 1..]),
            None => (0, bytes),
        };
        // In canonical order what is above an entry is above the entry before it, or is that entry.
        while self.open.last().is_some_and(|&(len, _)| len > parent_len) {
            self.open.pop();
        }
        let parent = self.open.last().map_or(0, |&(_, listing)| listing);
        let ino = match self.linked.get(&id) {
            Some(&ino) => ino,
            None => self.add_inode(path, id, inode, links, parent)?,
        };
        let listing = &mut self.content.listings[parent];
        listing.subdirs += u32::from(inode.is_dir());
        listing.entries.push(Entry { name, ino, kind: type_of(&inode.kind).1 });
        Ok(())
    }

    /// Gives an inode its number, and a directory its listing.
    fn add_inode(
        &mut self,
        path: &'t TreePath,
        id: InodeId,
        inode: &'t Inode,
        links: u32,
        parent: usize,
    ) -> Result<Ino, Ext4Error> {
        if path.as_bytes() == LOST_AND_FOUND {
            if !inode.is_dir() {
                return Err(Ext4Error::LostAndFound { found: inode.kind.noun() });
            }
            self.lost_and_found = true;
            self.open.push((path.as_bytes().len(), 1));
            self.content.nodes[1] = node(path, inode, links, 1)?;
            return Ok(Ino::LOST_AND_FOUND);
        }
        let ino = node_ino(self.content.nodes.len());
        let listing = self.content.listings.len();
        self.content.nodes.push(node(path, inode, links, listing)?);
        if inode.is_dir() {
            self.open.push((path.as_bytes().len(), listing));
            let parent = self.content.listings[parent].ino;
            let entries = Vec::new();
            self.content.listings.push(Listing { ino, parent, subdirs: 0, min_blocks: 1, entries });
        } else if links > 1 {
            self.linked.insert(id, ino);
        }
        Ok(ino)
    }

    fn finish(self) -> Content<'t> {
        let Content { mut nodes, mut listings } = self.content;
        if !self.lost_and_found {
            let root = &mut listings[0];
            let at = root.entries.partition_point(|entry| entry.name < LOST_AND_FOUND);
            root.subdirs += 1;
            root.entries.insert(at, Entry { name: LOST_AND_FOUND, ino: Ino::LOST_AND_FOUND, kind: FT_DIR });
        }
        for listing in &listings {
            // A name, `.`, and `..` of each subdirectory; 1 when that is too many to count
            // (`dir_nlink`).
            let links = listing.subdirs.saturating_add(2);
            nodes[node_index(listing.ino)].links =
                if links > LINK_MAX { 1 } else { u16::try_from(links).unwrap_or(1) };
        }
        Content { nodes, listings }
    }
}

/// Bits of the mode, and the type that directory entries tell.
fn type_of(kind: &Kind) -> (u16, u8) {
    match kind {
        Kind::File(_) => (0o100_000, 1),
        Kind::Dir => (0o040_000, FT_DIR),
        Kind::Char { .. } => (0o020_000, 3),
        Kind::Block { .. } => (0o060_000, 4),
        Kind::Fifo => (0o010_000, 5),
        Kind::Socket => (0o140_000, 6),
        Kind::Symlink(_) => (0o120_000, 7),
    }
}

fn node<'t>(path: &'t TreePath, inode: &'t Inode, links: u32, listing: usize) -> Result<Node<'t>, Ext4Error> {
    let Meta { mode, uid, gid, mtime, .. } = inode.meta;
    let time = DiskTime::new(mtime).ok_or_else(|| Ext4Error::Time { path: path.clone(), time: mtime })?;
    let links = u16::try_from(links)
        .ok()
        .filter(|&links| u32::from(links) <= LINK_MAX)
        .ok_or_else(|| Ext4Error::Links { path: path.clone(), links })?;
    Ok(Node {
        path: Some(path),
        mode: type_of(&inode.kind).0 | mode & 0o7777,
        uid,
        gid,
        time,
        links,
        attributes: Attributes::plan(path, &inode.meta)?,
        body: body(path, &inode.kind, listing)?,
    })
}

fn body<'t>(path: &TreePath, kind: &'t Kind, listing: usize) -> Result<Body<'t>, Ext4Error> {
    Ok(match kind {
        Kind::Dir => Body::Dir(listing),
        Kind::File(object) => {
            check_object(path, object)?;
            Body::File(object)
        }
        Kind::Symlink(target) => {
            if target.is_empty() || target.len() > LINK_TARGET_MAX || target.contains(&0) {
                return Err(Ext4Error::Symlink { path: path.clone() });
            }
            Body::Symlink(target)
        }
        &(Kind::Block { major, minor } | Kind::Char { major, minor }) => {
            Body::Device(device(major, minor).ok_or_else(|| Ext4Error::Device {
                path: path.clone(),
                major,
                minor,
            })?)
        }
        Kind::Fifo | Kind::Socket => Body::Empty,
    })
}

/// Extents need the file's blocks to be numbered with 32 bits and its holes to be in order.
fn check_object(path: &TreePath, object: &Object) -> Result<(), Ext4Error> {
    if object.size.div_ceil(BLOCK_SIZE) >= u64::from(u32::MAX) {
        return Err(Ext4Error::FileSize { path: path.clone(), size: object.size });
    }
    let mut end = 0;
    for hole in &object.holes {
        let next = hole
            .offset
            .checked_add(hole.len)
            .filter(|&next| next <= object.size && (next % HOLE_GRAIN == 0 || next == object.size));
        match next {
            Some(next) if hole.offset >= end && hole.offset % HOLE_GRAIN == 0 => end = next,
            _ => return Err(Ext4Error::Holes { path: path.clone(), at: hole.offset }),
        }
    }
    Ok(())
}

/// Runs of blocks of a file that hold data: first block, counted from the start of the file, and
/// how many. The object has been checked.
pub(super) fn data_runs(object: &Object) -> impl Iterator<Item = (u32, u64)> {
    let ends = object.holes.iter().map(|hole| hole.offset).chain([object.size]);
    let starts = std::iter::once(0).chain(object.holes.iter().map(|hole| hole.offset + hole.len));
    starts.zip(ends).filter_map(|(start, end)| {
        let first = start.div_ceil(BLOCK_SIZE);
        let count = end.div_ceil(BLOCK_SIZE).saturating_sub(first);
        // Checked: no file has 2^32 blocks.
        u32::try_from(first).ok().filter(|_| count > 0).map(|first| (first, count))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::digest::Digest;
    use crate::tree::Hole;
    use crate::tree::tests::{dir, file, path, symlink, tree};

    fn gather(tree: &Tree) -> Result<Content<'_>, Ext4Error> {
        Content::gather(tree, Time::seconds(5))
    }

    fn inode(kind: Kind) -> Inode {
        Inode { meta: Meta::root_owned(0o644, Time::default()), kind }
    }

    fn object(size: u64, holes: &[(u64, u64)]) -> Object {
        let holes = holes.iter().map(|&(offset, len)| Hole { offset, len }).collect();
        Object { digest: Digest::of(b""), size, holes }
    }

    #[test]
    fn inodes_are_numbered_in_canonical_order() {
        let mut t = tree(&[("a/x", file(b"1")), ("a.b", file(b"2")), ("z", dir())]);
        t.link(path("z/x"), t.id(&path("a/x")).unwrap()).unwrap();
        let content = gather(&t).unwrap();
        let names: Vec<_> =
            content.nodes.iter().map(|n| n.path.map_or("none".into(), |p| p.to_string())).collect();
        assert_eq!(names, ["/", "none", "/a", "/a/x", "/a.b", "/z"]);
        let entries = |listing: usize| {
            let entries = content.listings[listing].entries.iter();
            entries.map(|e| (e.name.escape_ascii().to_string(), e.ino.0, e.kind)).collect::<Vec<_>>()
        };
        let entry = |name: &str, ino, kind| (name.to_owned(), ino, kind);
        assert_eq!(
            entries(0),
            [entry("a", 12, 2), entry("a.b", 14, 1), entry("lost+found", 11, 2), entry("z", 15, 2)]
        );
        assert_eq!(entries(2), [entry("x", 13, 1)]);
        assert_eq!(entries(3), [entry("x", 13, 1)]);
        assert_eq!(content.last_ino(), Ino(15));
        let links: Vec<u16> = content.nodes.iter().map(|n| n.links).collect();
        assert_eq!(links, [5, 2, 2, 2, 1, 2]);
    }

    #[test]
    fn siblings_of_deep_directories_get_the_right_parent() {
        let t = tree(&[("a/b/c/d", dir()), ("a/b2", dir()), ("b/c", dir()), ("c", file(b""))]);
        let content = gather(&t).unwrap();
        for listing in &content.listings {
            let node = &content.nodes[node_index(listing.ino)];
            let Some(parent) = node.path.and_then(TreePath::parent) else { continue };
            let above = &content.nodes[node_index(listing.parent)];
            assert_eq!(above.path, Some(&parent), "{:?}", node.path);
        }
    }

    #[test]
    fn inode_numbers_and_places_are_each_other() {
        for index in [0, 1, 2, 1000] {
            assert_eq!(node_index(node_ino(index)), index);
        }
        for reserved in [1, 3, 7, 8, 10] {
            assert_ne!(node_ino(node_index(Ino(reserved))), Ino(reserved));
        }
    }

    #[test]
    fn what_ext4_cannot_hold_is_refused_by_name() {
        let timed = |sec, nsec| {
            let mut inode = file(b"");
            inode.meta.mtime = Time { sec, nsec };
            inode
        };
        let link = |target: Vec<u8>| inode(Kind::Symlink(target.into()));
        let bytes = |object| inode(Kind::File(object));
        for (inode, want) in [
            (timed(i64::MAX, 0), "the time of `/d/x`"),
            (timed(0, 1_000_000_000), "the time of `/d/x`"),
            (inode(Kind::Block { major: 4096, minor: 0 }), "the device number 4096:0 of `/d/x`"),
            (inode(Kind::Char { major: 0, minor: 1 << 20 }), "the device number 0:1048576 of `/d/x`"),
            (link(vec![]), "the target of the symbolic link `/d/x`"),
            (link(vec![b'x'; 4096]), "the target of the symbolic link `/d/x`"),
            (link(b"a\0b".to_vec()), "the target of the symbolic link `/d/x`"),
            (bytes(object(16 << 40, &[])), "`/d/x` has 17592186044416 bytes"),
            (bytes(object(8192, &[(4096, 8192)])), "the holes recorded for `/d/x`"),
            (bytes(object(1 << 20, &[(8192, 4096), (4096, 4096)])), "the holes recorded for `/d/x`"),
            (bytes(object(1 << 20, &[(1, 4096)])), "the holes recorded for `/d/x`"),
            (bytes(object(1 << 20, &[(0, 5)])), "the holes recorded for `/d/x`"),
            (bytes(object(1 << 20, &[(4096, u64::MAX)])), "the holes recorded for `/d/x`"),
        ] {
            let t = tree(&[("d/x", inode)]);
            let error = gather(&t).unwrap_err().to_string();
            assert!(error.starts_with(want), "{error}");
        }
        assert!(gather(&tree(&[("lost+found", symlink("x"))])).is_err());
    }

    #[test]
    fn names_of_a_file_are_counted() {
        let mut t = tree(&[("f", file(b""))]);
        let id = t.id(&path("f")).unwrap();
        for i in 1..LINK_MAX {
            t.link(path(&format!("{i}")), id).unwrap();
        }
        assert!(gather(&t).is_ok());
        t.link(path("one-more"), id).unwrap();
        assert!(matches!(gather(&t), Err(Ext4Error::Links { links: 65_001, .. })));
    }

    #[test]
    fn data_is_what_lies_between_holes() {
        let k = 4096;
        for (size, holes, want) in [
            (0, &[][..], &[][..]),
            (1, &[], &[(0, 1)]),
            (k * 3, &[], &[(0, 3)]),
            (k * 3 + 1, &[(0, k)], &[(1, 3)]),
            (k * 9, &[(k, k), (k * 4, k * 2)], &[(0, 1), (2, 2), (6, 3)]),
            (k * 9 + 7, &[(k * 2, k * 7 + 7)], &[(0, 2)]),
            (k + 7, &[(0, k + 7)], &[]),
        ] {
            let object = object(size, holes);
            check_object(&path("x"), &object).unwrap();
            assert_eq!(data_runs(&object).collect::<Vec<_>>(), want, "{object:?}");
        }
    }
}
