//! Which clusters each directory and file of a tree gets. Pure: nothing is read or written.
//! Must not know: sinks, the store.
//! Spec: fatgen103; ours is the order: directories first, then files, both as a walk meets them, each
//! in one run, so that a reader finds all names in one place and never follows a broken chain.

use std::collections::HashMap;

use super::format::{self, Cluster, ENTRY, Identity};
use super::geometry::{self, Geometry};
use super::name::{Name, Short, short_names};
use super::{FatError, Options};
use crate::tree::{Kind, Object, Time, Tree, TreePath};

/// fatgen103: a directory has at most 65,536 entries; Linux and Windows refuse to grow further.
const MAX_ENTRIES: u64 = 65_536;

/// A tree with a place for everything in it; [`Layout::write`] emits it.
#[derive(Debug)]
pub struct Layout<'t> {
    pub(super) size: u64,
    pub(super) geometry: Geometry,
    pub(super) identity: Identity,
    pub(super) directories: Vec<Directory<'t>>,
    pub(super) files: Vec<File<'t>>,
    /// First cluster that nobody has.
    pub(super) free: Cluster,
}

#[derive(Debug)]
pub(super) struct Directory<'t> {
    pub path: &'t TreePath,
    pub mtime: Time,
    /// Index of the directory above; the root has itself.
    pub parent: usize,
    pub children: Vec<Child<'t>>,
    pub run: Run,
}

#[derive(Debug)]
pub(super) struct Child<'t> {
    pub path: &'t TreePath,
    pub name: Name<'t>,
    pub short: Short,
    pub node: Node,
}

/// Index into the layout's directories or files.
#[derive(Debug, Clone, Copy)]
pub(super) enum Node {
    Directory(usize),
    File(usize),
}

#[derive(Debug)]
pub(super) struct File<'t> {
    pub path: &'t TreePath,
    pub object: &'t Object,
    /// The object's size, known to fit.
    pub size: u32,
    pub mtime: Time,
    pub run: Run,
}

/// Clusters in a row; an empty file has none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Run {
    pub first: Cluster,
    pub count: u32,
}

const NOWHERE: Run = Run { first: Cluster::NONE, count: 0 };

/// Gives everything in `tree` its place on a volume. Errors name the path that FAT cannot hold, or
/// say that the volume is too small.
pub fn lay_out<'t>(tree: &'t Tree, options: &Options) -> Result<Layout<'t>, FatError> {
    let geometry = Geometry::new(options.size)?;
    let label =
        format::label(&options.label).ok_or_else(|| FatError::Label { label: options.label.clone() })?;
    let label = (!options.label.is_empty()).then_some(label);
    let Options { size, serial, hidden_sectors, .. } = *options;
    let identity = Identity { serial, label, hidden_sectors };
    let (mut directories, mut files) = gather(tree)?;

    let cluster = geometry.cluster_bytes();
    let needed = clusters(&directories, &files, cluster);
    if needed > u64::from(geometry.clusters) {
        let room = u64::from(geometry.clusters) * cluster;
        return Err(FatError::Full { needed: needed.saturating_mul(cluster), room, cluster });
    }
    let mut free = Cluster::FIRST;
    let mut place = |bytes: u64| {
        // Cannot fail: all counts together are below the volume's count, which is 32 bits.
        let count = u32::try_from(bytes.div_ceil(cluster)).unwrap_or(u32::MAX);
        let first = if count == 0 { Cluster::NONE } else { free };
        free = Cluster(free.0 + count);
        Run { first, count }
    };
    for directory in &mut directories {
        directory.run = place(directory.bytes());
    }
    for file in &mut files {
        file.run = place(u64::from(file.size));
    }
    Ok(Layout { size, geometry, identity, directories, files, free })
}

/// Bytes, in whole MiB, of the smallest volume that holds `tree` and has `free` bytes for more.
pub fn size_for(tree: &Tree, free: u64) -> Result<u64, FatError> {
    let (directories, files) = gather(tree)?;
    geometry::smallest(|cluster| {
        clusters(&directories, &files, cluster).saturating_add(free.div_ceil(cluster))
    })
}

fn clusters(directories: &[Directory<'_>], files: &[File<'_>], cluster: u64) -> u64 {
    let sizes = directories.iter().map(Directory::bytes).chain(files.iter().map(|f| u64::from(f.size)));
    sizes.map(|bytes| bytes.div_ceil(cluster)).fold(0, u64::saturating_add)
}

impl Directory<'_> {
    /// How many 32-byte entries: the root has the label, all others `.` and `..`. A root without a
    /// label has one to spare.
    fn entries(&self) -> u64 {
        let own = if self.path.is_root() { 1 } else { 2 };
        own + self.children.iter().map(|c| c.name.entries()).sum::<u64>()
    }

    fn bytes(&self) -> u64 {
        self.entries() * ENTRY as u64
    }
}

/// All directories and files in the order of a walk, not placed yet.
fn gather(tree: &Tree) -> Result<(Vec<Directory<'_>>, Vec<File<'_>>), FatError> {
    let mut directories: Vec<Directory<'_>> = Vec::new();
    let mut files = Vec::new();
    // Directories from the root to the entry at hand; the walk meets parents first.
    let mut above: Vec<usize> = Vec::new();
    for (path, _, inode) in tree.iter() {
        above.truncate(path.depth());
        let parent = above.last().copied().unwrap_or(0);
        let mtime = inode.meta.mtime;
        let node = match &inode.kind {
            Kind::Dir => {
                above.push(directories.len());
                directories.push(Directory { path, mtime, parent, children: Vec::new(), run: NOWHERE });
                Node::Directory(directories.len() - 1)
            }
            Kind::File(object) => {
                let size = u32::try_from(object.size)
                    .map_err(|_| FatError::FileSize { path: path.clone(), size: object.size })?;
                files.push(File { path, object, size, mtime, run: NOWHERE });
                Node::File(files.len() - 1)
            }
            other => return Err(FatError::Kind { path: path.clone(), found: other.noun() }),
        };
        if !path.is_root() {
            let name =
                Name::new(path.name()).map_err(|source| FatError::Name { path: path.clone(), source })?;
            directories[parent].children.push(Child { path, name, short: [0; 11], node });
        }
    }
    directories.iter_mut().try_for_each(name_children)?;
    Ok((directories, files))
}

/// Checks the names of a directory against each other and gives each its short name.
fn name_children(directory: &mut Directory<'_>) -> Result<(), FatError> {
    let entries = directory.entries();
    if entries > MAX_ENTRIES {
        return Err(FatError::DirectorySize { path: directory.path.clone(), entries });
    }
    let mut seen = HashMap::new();
    for child in &directory.children {
        if let Some(other) = seen.insert(child.name.folded(), child.path) {
            return Err(FatError::Duplicate { path: child.path.clone(), other: other.clone() });
        }
    }
    let names: Vec<Name<'_>> = directory.children.iter().map(|c| c.name).collect();
    for (child, short) in directory.children.iter_mut().zip(short_names(&names)) {
        child.short = short;
    }
    Ok(())
}
