//! A tree in the form that it is served in: dense arrays, about 90 bytes an entry, made straight from
//! the canonical text. A [`crate::tree::Tree`] takes five times as much, and ten nodes of 60,000
//! entries must fit into a small server.
//! Must not know: the store, nodes, NFS calls.
//! Spec: design.md section 10 (canonical order); the text is [`crate::tree::dump`]'s.
//!
//! Inodes are numbered by their first names in the order of a walk, the root being 1, so the numbers
//! follow from the tree alone and are the same after a restart and on every server.

use std::collections::BTreeMap;
use std::io::BufRead;
use std::ops::Range;

use gt_netboot::nfs::{Attributes, FileId, FileType};

use crate::digest::Digest;
use crate::tree::dump::{DumpError, Line, Lines};
use crate::tree::{Inode, Kind, Meta, Object, TreePath};

/// Size that a directory is said to have, and the grain of what files take: a block of ext4, where
/// the same tree would be on a disk.
const BLOCK: u64 = 4096;

/// All inodes of one tree.
#[derive(Debug)]
pub struct Inodes {
    nodes: Box<[Node]>,
    dirs: Box<[Dir]>,
    /// Grouped by directory, in each by the bytes of the name.
    entries: Box<[Entry]>,
    names: Texts,
    files: Box<[File]>,
    targets: Texts,
    devices: Box<[(u32, u32)]>,
    xattrs: BTreeMap<u32, BTreeMap<Vec<u8>, Vec<u8>>>,
    bytes: u64,
}

/// The bytes of a regular file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct File {
    /// SHA-256 of all bytes.
    pub digest: Digest,
    /// Bytes.
    pub size: u64,
    used: u64,
}

/// Field order leaves no padding: 32 bytes.
#[derive(Debug)]
struct Node {
    sec: i64,
    nsec: u32,
    uid: u32,
    gid: u32,
    nlink: u32,
    /// Index into the array of the type.
    content: u32,
    mode: u16,
    kind: Tag,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
enum Tag {
    Dir,
    File,
    Symlink,
    Block,
    Char,
    Fifo,
    Socket,
}

#[derive(Debug)]
struct Dir {
    first: u32,
    count: u32,
    /// Index of the inode of the directory above; the root is its own.
    parent: u32,
}

#[derive(Debug, Clone, Copy)]
struct Entry {
    name: u32,
    inode: u32,
}

/// Byte strings one after another.
#[derive(Debug, Default)]
struct Texts {
    bytes: Vec<u8>,
    ends: Vec<u32>,
}

impl Texts {
    fn push(&mut self, text: &[u8]) -> Result<u32, String> {
        let index = index(self.ends.len())?;
        self.bytes.extend_from_slice(text);
        self.ends.push(self::index(self.bytes.len())?);
        Ok(index)
    }

    fn get(&self, at: u32) -> &[u8] {
        let at = at as usize;
        let start = at.checked_sub(1).map_or(0, |before| self.ends[before]);
        &self.bytes[start as usize..self.ends[at] as usize]
    }

    fn shrink(&mut self) {
        self.bytes.shrink_to_fit();
        self.ends.shrink_to_fit();
    }

    #[cfg(test)]
    fn heap(&self) -> usize {
        self.bytes.capacity() + self.ends.capacity() * size_of::<u32>()
    }
}

/// A tree with more than 2^32 of anything is refused rather than wrapped.
fn index(n: usize) -> Result<u32, String> {
    u32::try_from(n).map_err(|_| "the tree is too big to be served".into())
}

impl Inodes {
    /// Reads a tree's canonical text to its end. Whether the text is the right one is for the caller,
    /// who knows its digest.
    pub fn read(lines: &mut Lines<impl BufRead>) -> Result<Inodes, DumpError> {
        let mut build = Build::default();
        while let Some((path, line)) = lines.next().transpose()? {
            build.line(&path, line).map_err(|what| lines.fail(what))?;
        }
        build.finish().map_err(|what| lines.fail(what))
    }

    /// What GETATTR tells.
    pub fn attributes(&self, file: FileId) -> Option<Attributes> {
        let node = self.node(file)?;
        let (size, used) = match node.kind {
            Tag::Dir => (BLOCK, BLOCK),
            Tag::File => {
                let file = &self.files[node.content as usize];
                (file.size, file.used)
            }
            Tag::Symlink => (self.targets.get(node.content).len() as u64, 0),
            _ => (0, 0),
        };
        Some(Attributes {
            kind: self.kind(node),
            mode: node.mode,
            nlink: node.nlink,
            uid: node.uid,
            gid: node.gid,
            size,
            used,
            mtime: (node.sec, node.nsec),
        })
    }

    /// The entry `name` of a directory.
    pub fn lookup(&self, dir: FileId, name: &[u8]) -> Option<FileId> {
        let entries = &self.entries[self.range(dir)?];
        let at = entries.binary_search_by(|e| self.names.get(e.name).cmp(name)).ok()?;
        Some(file_id(entries[at].inode))
    }

    /// The directory above a directory.
    pub fn parent(&self, dir: FileId) -> Option<FileId> {
        self.dir(dir).map(|dir| file_id(dir.parent))
    }

    /// The entry at a position of a directory, counted from 0.
    pub fn entry(&self, dir: FileId, position: u64) -> Option<(&[u8], FileId)> {
        let entries = &self.entries[self.range(dir)?];
        let entry = entries.get(usize::try_from(position).ok()?)?;
        Some((self.names.get(entry.name), file_id(entry.inode)))
    }

    /// The target of a symbolic link.
    pub fn link_target(&self, file: FileId) -> Option<&[u8]> {
        let node = self.node(file).filter(|node| node.kind == Tag::Symlink)?;
        Some(self.targets.get(node.content))
    }

    /// The content of a regular file.
    pub fn file(&self, file: FileId) -> Option<&File> {
        let node = self.node(file).filter(|node| node.kind == Tag::File)?;
        self.files.get(node.content as usize)
    }

    /// The value of an extended attribute.
    pub fn xattr(&self, file: FileId, name: &[u8]) -> Option<&[u8]> {
        let inode = u32::try_from(file.0.checked_sub(1)?).ok()?;
        self.xattrs.get(&inode)?.get(name).map(Vec::as_slice)
    }

    /// Inodes in all.
    pub fn count(&self) -> u64 {
        self.nodes.len() as u64
    }

    /// Bytes of all files; hard links count once.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    fn node(&self, file: FileId) -> Option<&Node> {
        self.nodes.get(usize::try_from(file.0.checked_sub(1)?).ok()?)
    }

    fn dir(&self, dir: FileId) -> Option<&Dir> {
        let node = self.node(dir).filter(|node| node.kind == Tag::Dir)?;
        self.dirs.get(node.content as usize)
    }

    fn range(&self, dir: FileId) -> Option<Range<usize>> {
        let dir = self.dir(dir)?;
        Some(dir.first as usize..dir.first as usize + dir.count as usize)
    }

    fn kind(&self, node: &Node) -> FileType {
        let device = || self.devices[node.content as usize];
        match node.kind {
            Tag::Dir => FileType::Directory,
            Tag::File => FileType::Regular,
            Tag::Symlink => FileType::Symlink,
            Tag::Block => FileType::Block(device().0, device().1),
            Tag::Char => FileType::Char(device().0, device().1),
            Tag::Fifo => FileType::Fifo,
            Tag::Socket => FileType::Socket,
        }
    }

    /// Bytes of memory that the arrays take.
    #[cfg(test)]
    fn heap(&self) -> usize {
        size_of_val(&*self.nodes)
            + size_of_val(&*self.dirs)
            + size_of_val(&*self.entries)
            + size_of_val(&*self.files)
            + size_of_val(&*self.devices)
            + self.names.heap()
            + self.targets.heap()
    }
}

fn file_id(inode: u32) -> FileId {
    FileId(u64::from(inode) + 1)
}

/// A tree that is being read: entries still in the order of the walk.
#[derive(Default)]
struct Build {
    nodes: Vec<Node>,
    dirs: Vec<Dir>,
    names: Texts,
    /// For each name: the directory that it is in (an index of `dirs`), and its inode.
    entries: Vec<(u32, u32)>,
    files: Vec<File>,
    targets: Texts,
    devices: Vec<(u32, u32)>,
    xattrs: BTreeMap<u32, BTreeMap<Vec<u8>, Vec<u8>>>,
    /// Names whose inode is known once all names are in place.
    links: Vec<(usize, TreePath)>,
    /// The directories above the next entry, the root first, with their indices of `dirs`.
    above: Vec<(TreePath, u32)>,
    bytes: u64,
}

impl Build {
    fn line(&mut self, path: &TreePath, line: Line) -> Result<(), String> {
        let depth = path.depth();
        self.above.truncate(depth);
        let parent = match (depth.checked_sub(1), self.above.last()) {
            (None, _) => None,
            (Some(at), Some((dir, index))) if at + 1 == self.above.len() && path.starts_with(dir) => {
                Some(*index)
            }
            _ => return Err(format!("`{path}` is in no directory")),
        };
        let inode = match line {
            Line::Inode(inode) => self.inode(path, parent, inode)?,
            Line::Link(first) => {
                self.links.push((self.entries.len(), first));
                // Mended in `finish`.
                u32::MAX
            }
        };
        if let Some(parent) = parent {
            self.names.push(path.name())?;
            self.entries.push((parent, inode));
        }
        Ok(())
    }

    fn inode(&mut self, path: &TreePath, parent: Option<u32>, inode: Inode) -> Result<u32, String> {
        let number = index(self.nodes.len())?;
        let Inode { meta: Meta { mode, uid, gid, mtime, xattrs }, kind } = inode;
        if !xattrs.is_empty() {
            self.xattrs.insert(number, xattrs);
        }
        let mut nlink = 1;
        let (kind, content) = match kind {
            Kind::Dir => {
                nlink = 2;
                (Tag::Dir, self.directory(path, parent, number)?)
            }
            _ if parent.is_none() => return Err("the first entry must be the root directory".into()),
            Kind::File(object) => (Tag::File, self.file(&object)?),
            Kind::Symlink(target) => (Tag::Symlink, self.targets.push(&target)?),
            Kind::Block { major, minor } => (Tag::Block, self.device(major, minor)?),
            Kind::Char { major, minor } => (Tag::Char, self.device(major, minor)?),
            Kind::Fifo => (Tag::Fifo, 0),
            Kind::Socket => (Tag::Socket, 0),
        };
        self.nodes.push(Node { sec: mtime.sec, nsec: mtime.nsec, uid, gid, nlink, content, mode, kind });
        Ok(number)
    }

    fn directory(&mut self, path: &TreePath, parent: Option<u32>, number: u32) -> Result<u32, String> {
        let this = index(self.dirs.len())?;
        // Its inode is that of the directory above; a subdirectory's `..` is one more name of it.
        let mut above = number;
        if let Some(parent) = parent {
            above = self.above_inode(parent);
            self.nodes[above as usize].nlink += 1;
        }
        self.dirs.push(Dir { first: number, count: 0, parent: above });
        self.above.push((path.clone(), this));
        Ok(this)
    }

    /// Until `finish`, `first` of a directory is its own inode.
    fn above_inode(&self, dir: u32) -> u32 {
        self.dirs[dir as usize].first
    }

    fn file(&mut self, object: &Object) -> Result<u32, String> {
        let holes: u64 = object.holes.iter().map(|hole| hole.len).sum();
        let used = object.size.saturating_sub(holes).div_ceil(BLOCK).saturating_mul(BLOCK);
        self.bytes = self.bytes.saturating_add(object.size);
        self.files.push(File { digest: object.digest, size: object.size, used });
        index(self.files.len() - 1)
    }

    fn device(&mut self, major: u32, minor: u32) -> Result<u32, String> {
        self.devices.push((major, minor));
        index(self.devices.len() - 1)
    }

    /// Groups the entries by directory. The walk met the entries of each in byte order of their
    /// names, and the grouping keeps that order.
    fn finish(mut self) -> Result<Inodes, String> {
        if self.nodes.is_empty() {
            return Err("no root directory".into());
        }
        let mut next = 0;
        for dir in &mut self.dirs {
            dir.count = 0;
        }
        for (parent, _) in &self.entries {
            self.dirs[*parent as usize].count += 1;
        }
        for dir in &mut self.dirs {
            dir.first = next;
            next += dir.count;
        }
        let mut free: Vec<u32> = self.dirs.iter().map(|dir| dir.first).collect();
        let mut place = vec![0; self.entries.len()];
        let mut entries = vec![Entry { name: 0, inode: 0 }; self.entries.len()];
        for (name, (parent, inode)) in self.entries.iter().enumerate() {
            let at = &mut free[*parent as usize];
            entries[*at as usize] = Entry { name: index(name)?, inode: *inode };
            place[name] = *at as usize;
            *at += 1;
        }
        for list in [&mut self.names, &mut self.targets] {
            list.shrink();
        }
        let links = std::mem::take(&mut self.links);
        let mut inodes = Inodes {
            nodes: self.nodes.into(),
            dirs: self.dirs.into(),
            entries: entries.into(),
            names: self.names,
            files: self.files.into(),
            targets: self.targets,
            devices: self.devices.into(),
            xattrs: self.xattrs,
            bytes: self.bytes,
        };
        for (name, first) in links {
            inodes.link(place[name], &first)?;
        }
        Ok(inodes)
    }
}

impl Inodes {
    fn link(&mut self, entry: usize, first: &TreePath) -> Result<(), String> {
        let mut found = Some(FileId(1));
        for name in first.components() {
            found = found.and_then(|dir| self.lookup(dir, name));
        }
        let inode = found.and_then(|file| u32::try_from(file.0 - 1).ok());
        let node = inode.and_then(|inode| self.nodes.get_mut(inode as usize));
        match (inode, node) {
            (Some(inode), Some(node)) if node.kind != Tag::Dir => {
                node.nlink += 1;
                self.entries[entry].inode = inode;
                Ok(())
            }
            _ => Err(format!("`{first}` does not exist or is a directory")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tree::tests::{any_tree, dir, file, path, symlink, tree};
    use crate::tree::{Time, Tree, dump};
    use proptest::prelude::*;
    use std::collections::HashMap;

    fn inodes(tree: &Tree) -> Inodes {
        Inodes::read(&mut Lines::new(dump::write(tree).as_bytes())).unwrap()
    }

    fn find(inodes: &Inodes, path: &TreePath) -> Option<FileId> {
        path.components().try_fold(FileId(1), |dir, name| inodes.lookup(dir, name))
    }

    /// Every attribute, name and number, against the tree itself.
    fn compare(t: &Tree) -> Result<(), TestCaseError> {
        let inodes = inodes(t);
        let mut numbers = HashMap::new();
        for (path, id, inode) in t.iter() {
            let file = find(&inodes, path).expect("every path is found");
            let next = numbers.len() as u64 + 1;
            prop_assert_eq!(*numbers.entry(id).or_insert(next), file.0, "in order of first names");
            let found = inodes.attributes(file).unwrap();
            let meta = &inode.meta;
            prop_assert_eq!((found.mode, found.uid, found.gid), (meta.mode, meta.uid, meta.gid));
            prop_assert_eq!(found.mtime, (meta.mtime.sec, meta.mtime.nsec));
            for (name, value) in &meta.xattrs {
                prop_assert_eq!(inodes.xattr(file, name), Some(&value[..]));
            }
            match &inode.kind {
                Kind::Dir => compare_dir(t, &inodes, path, file)?,
                kind => {
                    prop_assert_eq!(found.nlink, t.links(id));
                    prop_assert_eq!(inodes.parent(file), None);
                    compare_content(&inodes, kind, file)?;
                }
            }
        }
        prop_assert_eq!(inodes.count(), numbers.len() as u64);
        prop_assert_eq!(inodes.attributes(FileId(inodes.count() + 1)), None);
        prop_assert_eq!(inodes.attributes(FileId(0)), None);
        Ok(())
    }

    fn compare_dir(t: &Tree, inodes: &Inodes, path: &TreePath, file: FileId) -> Result<(), TestCaseError> {
        let found = inodes.attributes(file).unwrap();
        let names: Vec<&[u8]> = t.children(path).map(|(p, _, _)| p.name()).collect();
        let subdirectories = t.children(path).filter(|(_, _, i)| i.is_dir()).count();
        prop_assert_eq!(found.nlink as usize, 2 + subdirectories);
        for (position, name) in names.iter().enumerate() {
            let (at, child) = inodes.entry(file, position as u64).unwrap();
            prop_assert_eq!((at, Some(child)), (*name, inodes.lookup(file, name)));
        }
        prop_assert!(inodes.entry(file, names.len() as u64).is_none());
        prop_assert!(inodes.entry(file, u64::MAX).is_none());
        let above = path.parent().unwrap_or_default();
        prop_assert_eq!(inodes.parent(file), find(inodes, &above));
        Ok(())
    }

    fn compare_content(inodes: &Inodes, kind: &Kind, file: FileId) -> Result<(), TestCaseError> {
        let found = inodes.attributes(file).unwrap();
        let want = match kind {
            Kind::Dir => FileType::Directory,
            Kind::File(object) => {
                prop_assert_eq!(inodes.file(file).unwrap().digest, object.digest);
                prop_assert_eq!(found.size, object.size);
                FileType::Regular
            }
            Kind::Symlink(target) => {
                prop_assert_eq!(inodes.link_target(file), Some(&target[..]));
                prop_assert_eq!(found.size, target.len() as u64);
                FileType::Symlink
            }
            Kind::Block { major, minor } => FileType::Block(*major, *minor),
            Kind::Char { major, minor } => FileType::Char(*major, *minor),
            Kind::Fifo => FileType::Fifo,
            Kind::Socket => FileType::Socket,
        };
        prop_assert_eq!(found.kind, want);
        prop_assert_eq!(inodes.entry(file, 0).is_none(), kind != &Kind::Dir);
        Ok(())
    }

    #[test]
    fn hard_links_and_subdirectories_are_counted() {
        let mut t = tree(&[("a/x", file(b"x")), ("a/b/c", dir()), ("l", symlink("a/x"))]);
        let id = t.id(&path("a/x")).unwrap();
        t.link(path("z"), id).unwrap();
        compare(&t).unwrap();
        let inodes = inodes(&t);
        assert_eq!(find(&inodes, &path("z")), find(&inodes, &path("a/x")));
        assert_eq!(inodes.bytes(), 1);
    }

    #[test]
    fn texts_that_are_no_tree_are_refused() {
        let good = dump::write(&tree(&[("a/f", file(b"x")), ("b", dir())]));
        for (find, replace) in [
            ("/ d 0755", "/ p 0755"),
            ("/a d 0755 0 0 7.000000000 -\n", ""),
            ("/a/f f", "/a/f/g f"),
            ("/b d 0755 0 0 7.000000000 -", "/b h /none"),
            ("/b d 0755 0 0 7.000000000 -", "/b h /a"),
        ] {
            let bad = good.replacen(find, replace, 1);
            assert_ne!(bad, good);
            assert!(Inodes::read(&mut Lines::new(bad.as_bytes())).is_err(), "{bad}");
        }
        assert!(Inodes::read(&mut Lines::new(&b"gt-tree 1\n"[..])).is_err());
    }

    /// Ten nodes of 60,000 entries have to fit into 150 MB with all else; this is what the trees may
    /// take of it.
    #[test]
    fn an_entry_takes_about_ninety_bytes() {
        let mut t = Tree::new(Meta::default());
        for n in 0..6000 {
            let dir = path(&format!("usr/lib/package-{n}"));
            t.make_parents(&dir.join("x").unwrap(), &Meta::default()).unwrap();
            for k in 0..9 {
                let content = file(format!("{n} {k}").as_bytes());
                t.insert(dir.join(format!("module-{k}.so.1")).unwrap(), content).unwrap();
            }
        }
        let inodes = inodes(&t);
        let each = inodes.heap() / t.len();
        assert!((70..=110).contains(&each), "{each} bytes an entry");
        assert_eq!(size_of::<Node>(), 32);
        assert_eq!(t.get(&path("usr")).unwrap().meta.mtime, Time::default());
    }

    proptest! {
        #[test]
        fn any_tree_is_served_as_it_is(t in any_tree()) {
            compare(&t)?;
        }

        #[test]
        fn no_text_panics(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let mut text = b"gt-tree 1\n/ d 0755 0 0 7.000000000 -\n".to_vec();
            text.extend(bytes);
            let _ = Inodes::read(&mut Lines::new(&text[..]));
        }
    }
}
