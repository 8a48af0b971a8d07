//! The first pass: gives every inode's content its blocks, and lists all that must be written in
//! the order of blocks. Pure: reads the tree, writes nothing.
//! Must not know: the store, how anything is encoded.
//! Spec: none for the order; it is in [`crate::ext4`].

use super::content::{Body, Content, Node, SHORT_LINK, data_runs, node_index, node_ino};
use super::dir::Dir;
use super::error::Ext4Error;
use super::extent::{EXTENT_MAX, Extent, ExtentTree, tree_blocks};
use super::format::{BLOCK_SIZE, FsBlock, Ino, SECTORS_PER_BLOCK};
use super::geometry::{BLOCKS_MAX, BLOCKS_MIN, Geometry};
use super::group::{BLOCK_UNINIT, Group, INODE_UNINIT, ITABLE_ZEROED};
use super::hash::HashSeed;
use super::inode::DiskTime;
use super::space::{Full, Space};
use super::{Options, SIZE_STEP};
use crate::tree::Tree;

/// Bytes of the largest filesystem.
const SIZE_MAX: u64 = BLOCKS_MAX * BLOCK_SIZE;

/// A filesystem of which everything is decided: [`Layout::write`] writes it.
#[derive(Debug)]
pub struct Layout<'t> {
    pub(super) options: Options,
    pub(super) geometry: Geometry,
    pub(super) nodes: Vec<Node<'t>>,
    pub(super) dirs: Vec<Dir<'t>>,
    pub(super) plan: Placement,
    pub(super) groups: Vec<Group>,
}

/// Something that lies in blocks of its own.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum What {
    /// Superblock and descriptors of a group.
    Head(u32),
    /// A group's bitmap of blocks.
    BlockBitmap(u32),
    /// A group's bitmap of inodes.
    InodeBitmap(u32),
    /// A group's inodes, up to the last used one.
    InodeTable(u32),
    /// Map of the resize inode.
    ResizeMap,
    /// An extent of an inode's content, by its place in the extents of all inodes.
    Data(Ino, u32),
    /// A block of an inode's extent tree, by its place in that tree.
    Tree(Ino, u32),
    /// An inode's attributes.
    Attributes(Ino),
}

/// [`What`] lies where.
#[derive(Clone, Copy, Debug)]
pub(super) struct Piece {
    /// Its first block.
    pub start: FsBlock,
    pub what: What,
}

/// Where one inode's blocks are.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Placed {
    /// First and number of its extents in [`Placement::extents`].
    extents: (usize, usize),
    /// First and number of its tree's blocks in [`Placement::tree_blocks`].
    tree: (usize, usize),
    /// Its attribute block, 0 when there is none.
    pub file_acl: FsBlock,
    /// All its blocks.
    blocks: u64,
}

impl Placed {
    /// All its blocks in the unit of `i_blocks`.
    pub fn sectors(&self) -> u64 {
        self.blocks * SECTORS_PER_BLOCK
    }
}

/// Where everything is.
#[derive(Debug)]
pub(super) struct Placement {
    pub space: Space,
    pub extents: Vec<Extent>,
    tree_blocks: Vec<FsBlock>,
    /// In the order of inode numbers.
    placed: Vec<Placed>,
    journal: Placed,
    pub resize_map: FsBlock,
    /// By first block when complete.
    pub pieces: Vec<Piece>,
}

/// Decides everything about the filesystem of `tree`.
///
/// Fails when the options are out of their ranges, when an entry cannot be kept by ext4 (the
/// variants of [`Ext4Error`] that name a path), or with [`Ext4Error::TooSmall`].
pub fn lay_out<'t>(tree: &'t Tree, options: &Options) -> Result<Layout<'t>, Ext4Error> {
    check(options)?;
    let content = Content::gather(tree, options.time)?;
    fit(content, options).map_err(|error| match error {
        Fit::Error(error) => error,
        Fit::Full => match size_for_tree(tree) {
            Ok(wanted) => Ext4Error::TooSmall { size: options.size, wanted },
            Err(error) => error,
        },
    })
}

fn size_for_tree(tree: &Tree) -> Result<u64, Ext4Error> {
    super::size_for(tree, 0)
}

enum Fit {
    Error(Ext4Error),
    Full,
}

impl From<Full> for Fit {
    fn from(_: Full) -> Fit {
        Fit::Full
    }
}

fn fit<'t>(content: Content<'t>, options: &Options) -> Result<Layout<'t>, Fit> {
    let geometry = Geometry::new(options.size / BLOCK_SIZE, content.last_ino())?;
    let seed = HashSeed::new(&options.hash_seed);
    let Content { nodes, listings } = content;
    let mut dirs = Vec::with_capacity(listings.len());
    for listing in listings {
        let (ino, entries) = (listing.ino, listing.entries.len());
        let dir = Dir::plan(listing, &seed).ok_or_else(|| Fit::Error(too_many(&nodes, ino, entries)))?;
        dirs.push(dir);
    }
    let blocks: Vec<u32> = dirs.iter().map(|dir| dir.blocks).collect();
    let mut plan = Placement::new(&geometry, &nodes, &blocks)?;
    let groups = groups(&geometry, &nodes, &plan.space);
    plan.add_tables(&geometry, &groups);
    Ok(Layout { options: options.clone(), geometry, nodes, dirs, plan, groups })
}

fn too_many(nodes: &[Node<'_>], ino: Ino, entries: usize) -> Ext4Error {
    let path = nodes.get(node_index(ino)).and_then(|node| node.path).cloned().unwrap_or_default();
    Ext4Error::DirSize { path, entries }
}

fn check(options: &Options) -> Result<(), Ext4Error> {
    let size = options.size;
    if size % BLOCK_SIZE != 0 {
        return Err(Ext4Error::Size { size, why: "it is no multiple of 4096 bytes" });
    }
    if size > SIZE_MAX {
        return Err(Ext4Error::Size { size, why: "it is over 8 TiB" });
    }
    let option = |name, found: String, wanted| Err(Ext4Error::Option { name, found, wanted });
    if options.label.len() > 16 || options.label.contains('\0') {
        return option("label", format!("`{}`", options.label), "labels have at most 16 bytes");
    }
    if options.reserved_percent > 50 {
        let found = options.reserved_percent.to_string();
        return option("share of reserved blocks", found, "at most 50 percent can be reserved");
    }
    if options.time.sec < 0 || DiskTime::new(options.time).is_none() {
        return option("time", options.time.sec.to_string(), "times reach from 1970 to 2446");
    }
    Ok(())
}

/// See [`super::size_for`].
pub(super) fn size_for(content: &Content<'_>, free: u64) -> Result<u64, Ext4Error> {
    let mut blocks = Vec::with_capacity(content.listings.len());
    for listing in &content.listings {
        let bound = listing.blocks_bound();
        blocks.push(bound.ok_or_else(|| too_many(&content.nodes, listing.ino, listing.entries.len()))?);
    }
    // No filesystem can be smaller than what it holds.
    let least = demand(&content.nodes, &blocks).saturating_mul(BLOCK_SIZE).saturating_add(free);
    let mut size = least.clamp(BLOCKS_MIN * BLOCK_SIZE, SIZE_MAX + 1).next_multiple_of(SIZE_STEP);
    while size <= SIZE_MAX {
        let placed = Geometry::new(size / BLOCK_SIZE, content.last_ino())
            .and_then(|geometry| Placement::new(&geometry, &content.nodes, &blocks));
        let short = match placed {
            Err(full) => full.short * BLOCK_SIZE,
            Ok(plan) => match free.checked_sub(plan.space.free() * BLOCK_SIZE) {
                None | Some(0) => return Ok(size),
                Some(short) => short,
            },
        };
        // What is added can at most be free altogether, but for a last group that was left out
        // before and may be free then: hence a step less.
        size += short.saturating_sub(SIZE_STEP).next_multiple_of(SIZE_STEP).max(SIZE_STEP);
    }
    Err(Ext4Error::Size { size, why: "the tree and what shall be free do not fit into 8 TiB" })
}

/// Blocks that the tree needs at least: all but those of extent trees.
fn demand(nodes: &[Node<'_>], dir_blocks: &[u32]) -> u64 {
    let content = |node: &Node<'_>| match node.body {
        Body::Dir(listing) => u64::from(dir_blocks[listing]),
        Body::File(object) => data_runs(object).map(|(_, count)| count).sum(),
        Body::Symlink(target) => u64::from(target.len() >= SHORT_LINK),
        Body::Device(_) | Body::Empty => 0,
    };
    nodes.iter().map(|node| content(node) + u64::from(node.needs_attribute_block())).sum()
}

impl Placement {
    /// Takes blocks for everything that the geometry does not place, in the order of the image.
    fn new(geometry: &Geometry, nodes: &[Node<'_>], dir_blocks: &[u32]) -> Result<Placement, Full> {
        let mut plan = Placement {
            space: geometry.space(),
            extents: Vec::with_capacity(nodes.len()),
            tree_blocks: Vec::new(),
            placed: vec![Placed::default(); nodes.len()],
            journal: Placed::default(),
            resize_map: FsBlock(0),
            pieces: Vec::with_capacity(nodes.len() + 64),
        };
        let demand = demand(nodes, dir_blocks) + geometry.journal_blocks + 1;
        if let Some(short) = demand.checked_sub(plan.space.free()).filter(|&short| short > 0) {
            return Err(Full { short });
        }
        plan.resize_map = plan.block(What::ResizeMap)?;
        plan.journal = plan.extents(Ino::JOURNAL, [(0, geometry.journal_blocks)])?;
        plan.directories(nodes, dir_blocks)?;
        plan.small_blocks(nodes)?;
        for (i, node) in nodes.iter().enumerate() {
            if let Body::File(object) = node.body {
                let file_acl = plan.placed[i].file_acl;
                plan.placed[i] = plan.extents(node_ino(i), data_runs(object))?.with_acl(file_acl);
            }
        }
        Ok(plan)
    }

    fn directories(&mut self, nodes: &[Node<'_>], dir_blocks: &[u32]) -> Result<(), Full> {
        for (i, node) in nodes.iter().enumerate() {
            if let Body::Dir(listing) = node.body {
                self.placed[i] = self.extents(node_ino(i), [(0, u64::from(dir_blocks[listing]))])?;
            }
        }
        Ok(())
    }

    /// Attribute blocks and long links.
    fn small_blocks(&mut self, nodes: &[Node<'_>]) -> Result<(), Full> {
        for (i, node) in nodes.iter().enumerate() {
            if matches!(node.body, Body::Symlink(target) if target.len() >= SHORT_LINK) {
                self.placed[i] = self.extents(node_ino(i), [(0, 1)])?;
            }
            if node.needs_attribute_block() {
                let block = self.block(What::Attributes(node_ino(i)))?;
                self.placed[i] = self.placed[i].with_acl(block);
            }
        }
        Ok(())
    }

    /// Takes one block.
    fn block(&mut self, what: What) -> Result<FsBlock, Full> {
        let (start, _) = self.space.take(1)?;
        self.pieces.push(Piece { start, what });
        Ok(start)
    }

    /// Takes blocks for runs of an inode's content, and then for its extent tree.
    fn extents(&mut self, ino: Ino, runs: impl IntoIterator<Item = (u32, u64)>) -> Result<Placed, Full> {
        let (first, first_tree) = (self.extents.len(), self.tree_blocks.len());
        let mut blocks = 0;
        for (mut logical, mut count) in runs {
            while count > 0 {
                let (start, got) = self.space.take(count.min(EXTENT_MAX))?;
                // Both fit: an extent has at most 2^15 blocks and no file 2^32.
                let (len, next) = ((got & 0xffff) as u16, (got & 0xffff_ffff) as u32);
                let nth = u32::try_from(self.extents.len()).map_err(|_| Full { short: count })?;
                self.extents.push(Extent { logical, len, start });
                self.pieces.push(Piece { start, what: What::Data(ino, nth) });
                logical = logical.saturating_add(next);
                count -= got;
                blocks += got;
            }
        }
        let count = self.extents.len() - first;
        for nth in 0..tree_blocks(count) {
            // A tree of 2^32 blocks would need as many extents first.
            let block = self.block(What::Tree(ino, (nth & 0xffff_ffff) as u32))?;
            self.tree_blocks.push(block);
            blocks += 1;
        }
        let tree = (first_tree, self.tree_blocks.len() - first_tree);
        Ok(Placed { extents: (first, count), tree, file_acl: FsBlock(0), blocks })
    }

    /// Adds what the geometry has placed, unless it is not written, and brings all in order.
    fn add_tables(&mut self, geometry: &Geometry, groups: &[Group]) {
        for group in geometry.superblock_groups() {
            let start = FsBlock(geometry.group(group).start);
            self.pieces.push(Piece { start, what: What::Head(group) });
        }
        for (number, group) in (0..).zip(groups) {
            let tables = group.tables;
            if group.flags & BLOCK_UNINIT == 0 {
                self.pieces.push(Piece { start: tables.block_bitmap, what: What::BlockBitmap(number) });
            }
            if group.flags & INODE_UNINIT == 0 {
                self.pieces.push(Piece { start: tables.inode_bitmap, what: What::InodeBitmap(number) });
                self.pieces.push(Piece { start: tables.inode_table, what: What::InodeTable(number) });
            }
        }
        self.pieces.sort_unstable_by_key(|piece| piece.start);
    }

    /// Where the blocks of an inode are: one of the tree's, or the journal.
    pub fn of(&self, ino: Ino) -> &Placed {
        if ino == Ino::JOURNAL { &self.journal } else { &self.placed[node_index(ino)] }
    }

    /// The extents of an inode with their tree.
    pub fn tree(&self, ino: Ino) -> ExtentTree<'_> {
        let Placed { extents: (first, count), tree: (first_block, blocks), .. } = *self.of(ino);
        ExtentTree {
            extents: &self.extents[first..first + count],
            blocks: &self.tree_blocks[first_block..first_block + blocks],
        }
    }
}

impl Placed {
    fn with_acl(self, file_acl: FsBlock) -> Placed {
        let more = u64::from(file_acl != FsBlock(0));
        Placed { file_acl, blocks: self.blocks + more, ..self }
    }
}

impl Node<'_> {
    fn needs_attribute_block(&self) -> bool {
        self.attributes.as_ref().is_some_and(|attributes| attributes.need_block())
    }
}

/// Counts what is free in each group.
fn groups(geometry: &Geometry, nodes: &[Node<'_>], space: &Space) -> Vec<Group> {
    let per_group = geometry.inodes_per_group;
    let mut dirs = vec![0; geometry.tables.len()];
    for (i, _) in nodes.iter().enumerate().filter(|(_, node)| matches!(node.body, Body::Dir(_))) {
        dirs[((node_ino(i).0 - 1) / per_group) as usize] += 1;
    }
    let last_ino = node_ino(nodes.len() - 1).0;
    let describe = |(number, (tables, used_dirs)): (u32, (_, u32))| {
        let blocks = geometry.group(number);
        let len = blocks.end - blocks.start;
        let used: u64 = space.used_in(blocks).map(|used| used.end - used.start).sum();
        let used_inodes = last_ino.saturating_sub(number * per_group).min(per_group);
        let mut flags = ITABLE_ZEROED;
        if used_inodes == 0 {
            flags |= INODE_UNINIT;
        }
        // The kernel makes such a bitmap by itself from the group's own head, and knows no other
        // blocks in it. The last group's end is not in its view either.
        let last = number + 1 == geometry.group_count();
        if used == geometry.head_blocks(number) && number > 0 && !last {
            flags |= BLOCK_UNINIT;
        }
        Group {
            tables,
            // At most 2^15.
            free_blocks: ((len - used) & 0xffff) as u32,
            free_inodes: per_group - used_inodes,
            used_dirs,
            unused_inodes: per_group - used_inodes,
            flags,
        }
    };
    (0..).zip(geometry.tables.iter().copied().zip(dirs)).map(describe).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tree::tests::{dir, file, path, tree};
    use crate::tree::{Inode, Kind, Meta, Object, Time};

    fn options(size: u64) -> Options {
        Options {
            size,
            uuid: [1; 16],
            hash_seed: [2; 16],
            label: String::new(),
            time: Time::seconds(1),
            reserved_percent: 0,
        }
    }

    fn large(size: u64) -> Inode {
        let object = Object { size, ..file(b"").object().unwrap().clone() };
        Inode { meta: Meta::default(), kind: Kind::File(object) }
    }

    #[test]
    fn options_out_of_range_are_refused() {
        let t = tree(&[]);
        let good = options(8 << 20);
        assert!(lay_out(&t, &good).is_ok());
        for (what, bad) in [
            ("is no multiple of 4096", Options { size: (8 << 20) + 1, ..good.clone() }),
            ("is over 8 TiB", Options { size: (8 << 40) + 4096, ..good.clone() }),
            ("the label", Options { label: "seventeen bytes !".into(), ..good.clone() }),
            ("the label", Options { label: "a\0b".into(), ..good.clone() }),
            ("the share of reserved", Options { reserved_percent: 51, ..good.clone() }),
            ("the time", Options { time: Time::seconds(-1), ..good.clone() }),
            ("the time", Options { time: Time::seconds(1 << 40), ..good.clone() }),
            ("needs a filesystem of 8388608 bytes", Options { size: 4 << 20, ..good.clone() }),
        ] {
            let error = lay_out(&t, &bad).unwrap_err().to_string();
            assert!(error.contains(what), "{error}");
        }
    }

    #[test]
    fn pieces_are_in_order_and_apart() {
        let t = tree(&[("a", large(700 << 20)), ("d/b", large(1 << 30)), ("c", large(12_345)), ("e", dir())]);
        let layout = lay_out(&t, &options(size_for_tree(&t).unwrap())).unwrap();
        let len = |piece: &Piece| match piece.what {
            What::Head(group) => layout.geometry.head_blocks(group),
            What::InodeTable(_) => layout.geometry.table_blocks,
            What::Data(_, extent) => u64::from(layout.plan.extents[extent as usize].len),
            _ => 1,
        };
        let pieces = &layout.plan.pieces;
        for pair in pieces.windows(2) {
            assert!(pair[0].start.0 + len(&pair[0]) <= pair[1].start.0, "{pair:?}");
        }
        let last = pieces.last().unwrap();
        assert!(last.start.0 + len(last) <= layout.geometry.blocks);
    }

    #[test]
    fn files_follow_each_other_in_canonical_order() {
        let t = tree(&[("b/x", large(5000)), ("a", large(1)), ("b.c", large(4096)), ("empty", large(0))]);
        let layout = lay_out(&t, &options(16 << 20)).unwrap();
        let start = |name: &str| {
            let p = path(name);
            let index = layout.nodes.iter().position(|node| node.path == Some(&p)).unwrap();
            layout.plan.tree(node_ino(index)).extents.first().map(|extent| extent.start.0)
        };
        let first = start("a").unwrap();
        assert_eq!(start("b/x"), Some(first + 1));
        assert_eq!(start("b.c"), Some(first + 3));
        assert_eq!(start("empty"), None);
        assert_eq!(layout.plan.space.clone().take(1).unwrap().0, FsBlock(first + 4));
    }

    #[test]
    fn extents_are_as_long_as_they_can_be() {
        let t = tree(&[("f", large(3 << 30))]);
        let layout = lay_out(&t, &options(4 << 30)).unwrap();
        let extents = layout.plan.tree(node_ino(2)).extents;
        // 24 are needed for 3 GiB; each copy of the superblock on the way may cut one.
        assert!(extents.len() <= 24 + 6, "{} extents", extents.len());
        let mut logical = 0;
        for extent in extents {
            assert_eq!(u64::from(extent.logical), logical);
            logical += u64::from(extent.len);
        }
        assert_eq!(logical, (3 << 30) / BLOCK_SIZE);
    }

    #[test]
    fn the_smallest_size_fits_and_a_step_less_does_not() {
        for bytes in [0, 1, 100 << 20, 128 << 20, 1 << 30, 10 << 30] {
            let t = tree(&[("f", large(bytes))]);
            for free in [0, 1 << 20, 1 << 30] {
                let size = super::super::size_for(&t, free).unwrap();
                let layout = lay_out(&t, &options(size)).unwrap();
                assert!(layout.plan.space.free() * BLOCK_SIZE >= free);
                if size > 8 << 20 {
                    let less = lay_out(&t, &options(size - SIZE_STEP));
                    let enough = less.is_ok_and(|l| l.plan.space.free() * BLOCK_SIZE >= free);
                    assert!(!enough, "{bytes} bytes, {free} free: less than {size} is enough");
                }
            }
        }
    }

    #[test]
    fn what_cannot_fit_is_told() {
        let t = tree(&[("f", large(9 << 40))]);
        assert!(matches!(super::super::size_for(&t, 0), Err(Ext4Error::Size { .. })));
        let t = tree(&[("f", large(100 << 20))]);
        let wanted = super::super::size_for(&t, 0).unwrap();
        let error = lay_out(&t, &options(64 << 20)).unwrap_err();
        assert!(matches!(error, Ext4Error::TooSmall { wanted: w, size: 67_108_864 } if w == wanted));
        assert!(super::super::size_for(&t, u64::MAX).is_err());
    }
}
