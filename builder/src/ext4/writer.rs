//! The second pass: encodes each piece of a layout, in order, and reads each file's bytes once.
//! Must not know: how places were chosen.
//! Spec: as the modules that encode; the resize inode as lib/ext2fs/res_gdt.c of e2fsprogs makes it.

use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::FileExt;

use super::checksum::Seed;
use super::content::{Body, Node, SHORT_LINK, node_index, node_ino};
use super::error::Ext4Error;
use super::feed::{self, Fault, Feed, Stop};
use super::format::{
    ADDRS_PER_BLOCK, BLOCK, BLOCK_SIZE, DESC, FsBlock, I_BLOCK, INODE, INODES_PER_BLOCK, Ino,
    SECTORS_PER_BLOCK, put, put32,
};
use super::group::{BLOCK_UNINIT, Bitmap, INODE_UNINIT};
use super::inode::{self, DiskTime, EXTENTS_FL, INDEX_FL, RawInode};
use super::layout::{Layout, Piece, What};
use super::superblock::{self, Counts, PRIMARY_OFFSET, SUPERBLOCK};
use crate::io::sink::ImageSink;
use crate::store::Store;
use crate::tree::{Object, TreePath};

/// Place of the block map's root of two levels in `i_block`.
const DOUBLE_INDIRECT: usize = 13;

type Written = Result<(), Stop<Ext4Error>>;

impl Layout<'_> {
    /// Writes the filesystem, exactly [`super::Options::size`] bytes, strictly front to back. File
    /// bytes come from `store`, each object opened once; a few MiB of them are in memory at a time.
    ///
    /// Fails with [`Ext4Error::Store`] or [`Ext4Error::Read`] for a file, [`Ext4Error::Write`] for
    /// the sink; what the sink has then is no filesystem.
    pub fn write(&self, store: &Store, sink: &mut dyn ImageSink) -> Result<(), Ext4Error> {
        let fill = |feed: &mut Feed| Writer::new(self, store).run(feed);
        feed::run(sink, fill).map_err(|fault| match fault {
            Fault::Source(error) => error,
            Fault::Sink(at, source) => Ext4Error::Write { at, source },
        })
    }
}

struct Writer<'a> {
    layout: &'a Layout<'a>,
    store: &'a Store,
    seed: Seed,
    /// All group descriptors.
    descriptors: Vec<u8>,
    counts: Counts,
    /// The file that was read last: its extents follow each other.
    open: Option<(Ino, File)>,
}

impl<'a> Writer<'a> {
    fn new(layout: &'a Layout<'a>, store: &'a Store) -> Writer<'a> {
        let seed = Seed::of_filesystem(&layout.options.uuid);
        let counts = Counts {
            free_blocks: layout.groups.iter().map(|group| u64::from(group.free_blocks)).sum(),
            free_inodes: layout.groups.iter().map(|group| group.free_inodes).sum(),
            journal: layout.plan.tree(Ino::JOURNAL).root(),
        };
        let mut writer = Writer { layout, store, seed, descriptors: Vec::new(), counts, open: None };
        writer.descriptors = writer.descriptors();
        writer
    }

    fn run(&mut self, feed: &mut Feed) -> Written {
        for piece in &self.layout.plan.pieces {
            feed.skip_to(piece.start.offset())?;
            self.piece(piece, feed)?;
        }
        Ok(feed.skip_to(self.layout.options.size)?)
    }

    fn piece(&mut self, piece: &Piece, feed: &mut Feed) -> Written {
        let layout = self.layout;
        match piece.what {
            What::Head(group) => self.head(group, feed)?,
            What::BlockBitmap(group) => _ = self.block_bitmap(group, feed.block()?),
            What::InodeBitmap(group) => _ = self.inode_bitmap(group, feed.block()?),
            What::InodeTable(group) => self.inode_table(group, feed)?,
            What::ResizeMap => self.resize_map(feed.block()?),
            What::Data(ino, extent) => self.data(ino, extent, feed)?,
            What::Tree(ino, nth) => {
                layout.plan.tree(ino).block(nth as usize, self.seed.of_inode(ino), feed.block()?);
            }
            What::Attributes(ino) => {
                if let Some(attributes) = &layout.nodes[node_index(ino)].attributes {
                    attributes.encode_block(self.seed, piece.start, feed.block()?);
                }
            }
        }
        Ok(())
    }

    fn descriptors(&self) -> Vec<u8> {
        let layout = self.layout;
        let mut all = vec![0; layout.groups.len() * DESC];
        for ((number, group), out) in (0..).zip(&layout.groups).zip(all.chunks_exact_mut(DESC)) {
            let mut bitmap = vec![0; BLOCK];
            let blocks = match group.flags & BLOCK_UNINIT {
                0 => self.block_bitmap(number, &mut bitmap),
                _ => 0,
            };
            bitmap.fill(0);
            let inodes = match group.flags & INODE_UNINIT {
                0 => self.inode_bitmap(number, &mut bitmap),
                _ => 0,
            };
            group.encode(self.seed, number, (blocks, inodes), out);
        }
        all
    }

    /// Superblock, descriptors, and in group 0 the lists of copies of descriptors to come. In other
    /// groups those copies are zero.
    fn head(&self, group: u32, feed: &mut Feed) -> Written {
        let layout = self.layout;
        let at = if group == 0 { PRIMARY_OFFSET } else { 0 };
        let out = &mut feed.block()?[at..at + SUPERBLOCK];
        superblock::encode(&layout.geometry, &layout.options, &self.counts, group, out);
        for part in self.descriptors.chunks(BLOCK) {
            put(feed.block()?, 0, part);
        }
        if group == 0 {
            for nth in 0..layout.geometry.reserved_desc_blocks {
                let out = feed.block()?;
                for (i, block) in self.reserved_copies(nth).enumerate() {
                    put32(out, i * 4, block.lo());
                }
            }
        }
        Ok(())
    }

    /// Where the copies of reserved descriptor block `nth` of group 0 are.
    fn reserved_copies(&self, nth: u64) -> impl Iterator<Item = FsBlock> {
        let geometry = &self.layout.geometry;
        let offset = 1 + geometry.desc_blocks + nth;
        // 8 TiB have 24 copies, and a block has room for 1024.
        geometry.superblock_groups().skip(1).map(move |group| FsBlock(geometry.group(group).start + offset))
    }

    /// The resize inode owns the descriptor blocks to come in group 0 as blocks of block numbers.
    fn resize_map(&self, out: &mut [u8]) {
        let geometry = &self.layout.geometry;
        for nth in 0..geometry.reserved_desc_blocks {
            let slot = (geometry.desc_blocks + nth) % ADDRS_PER_BLOCK;
            put32(out, slot as usize * 4, FsBlock(1 + geometry.desc_blocks + nth).lo());
        }
    }

    fn block_bitmap(&self, group: u32, out: &mut [u8]) -> u32 {
        let blocks = self.layout.geometry.group(group);
        // A group has 2^15 blocks.
        let bit = |block: u64| (block - blocks.start) as usize;
        let mut bitmap = Bitmap::new(out, bit(blocks.end));
        for used in self.layout.plan.space.used_in(blocks.clone()) {
            bitmap.set(bit(used.start)..bit(used.end));
        }
        bitmap.sum(self.seed, BLOCK * 8)
    }

    fn inode_bitmap(&self, group: u32, out: &mut [u8]) -> u32 {
        let all = self.layout.geometry.inodes_per_group as usize;
        let mut bitmap = Bitmap::new(out, all);
        bitmap.set(0..all - self.layout.groups[group as usize].free_inodes as usize);
        bitmap.sum(self.seed, all)
    }

    fn inode_table(&self, group: u32, feed: &mut Feed) -> Written {
        let geometry = &self.layout.geometry;
        let first = group * geometry.inodes_per_group + 1;
        let used = geometry.inodes_per_group - self.layout.groups[group as usize].free_inodes;
        for block in (first..first + used).step_by(INODES_PER_BLOCK as usize) {
            let out = feed.block()?;
            for (ino, out) in (block..first + used).zip(out.chunks_exact_mut(INODE)) {
                self.inode(Ino(ino), out);
            }
        }
        Ok(())
    }

    fn inode(&self, ino: Ino, out: &mut [u8]) {
        match ino {
            Ino::RESIZE => self.resize_inode().encode(self.seed, ino, out),
            Ino::JOURNAL => {
                let size = self.layout.geometry.journal_blocks * BLOCK_SIZE;
                let raw = RawInode {
                    sectors: self.layout.plan.of(ino).sectors(),
                    flags: EXTENTS_FL,
                    block: self.layout.plan.tree(ino).root(),
                    ..self.own_inode(size)
                };
                raw.encode(self.seed, ino, out);
            }
            _ if node_ino(node_index(ino)) != ino => inode::encode_unused(self.seed, ino, out),
            _ => self.node(ino, &self.layout.nodes[node_index(ino)], out),
        }
    }

    /// A file of the filesystem itself.
    fn own_inode(&self, size: u64) -> RawInode {
        RawInode {
            mode: 0o100_600,
            uid: 0,
            gid: 0,
            links: 1,
            size,
            sectors: 0,
            flags: 0,
            time: DiskTime::new(self.layout.options.time).unwrap_or_default(),
            block: [0; I_BLOCK],
            file_acl: FsBlock(0),
        }
    }

    fn resize_inode(&self) -> RawInode {
        let geometry = &self.layout.geometry;
        // All that a map of two levels can address: the kernel never reads it as a file.
        let size = (ADDRS_PER_BLOCK * ADDRS_PER_BLOCK + ADDRS_PER_BLOCK + 12) * BLOCK_SIZE;
        let heads = geometry.superblock_groups().count() as u64;
        let mut raw = self.own_inode(size);
        raw.sectors = (1 + geometry.reserved_desc_blocks * heads) * SECTORS_PER_BLOCK;
        put32(&mut raw.block, DOUBLE_INDIRECT * 4, self.layout.plan.resize_map.lo());
        raw
    }

    fn node(&self, ino: Ino, node: &Node<'_>, out: &mut [u8]) {
        let layout = self.layout;
        let placed = layout.plan.of(ino);
        let (size, flags, block) = match node.body {
            Body::Dir(listing) => {
                let dir = &layout.dirs[listing];
                let index = if dir.is_indexed() { INDEX_FL } else { 0 };
                let size = u64::from(dir.blocks) * BLOCK_SIZE;
                (size, EXTENTS_FL | index, layout.plan.tree(ino).root())
            }
            Body::File(object) => (object.size, EXTENTS_FL, layout.plan.tree(ino).root()),
            Body::Symlink(target) if target.len() < SHORT_LINK => {
                (target.len() as u64, 0, start_of_block(target))
            }
            Body::Symlink(target) => (target.len() as u64, EXTENTS_FL, layout.plan.tree(ino).root()),
            Body::Device(number) => (0, 0, start_of_block(&number)),
            Body::Empty => (0, 0, [0; I_BLOCK]),
        };
        if let Some(attributes) = &node.attributes {
            attributes.encode_in_inode(out);
        }
        let raw = RawInode {
            mode: node.mode,
            uid: node.uid,
            gid: node.gid,
            links: node.links,
            size,
            sectors: placed.sectors(),
            flags,
            time: node.time,
            block,
            file_acl: placed.file_acl,
        };
        raw.encode(self.seed, ino, out);
    }

    /// What an extent holds.
    fn data(&mut self, ino: Ino, extent: u32, feed: &mut Feed) -> Written {
        let layout = self.layout;
        let extent = &layout.plan.extents[extent as usize];
        let first = extent.logical as usize;
        if ino == Ino::JOURNAL {
            // The rest of the journal is zero.
            if first == 0 {
                superblock::encode_journal(&layout.geometry, &layout.options, feed.block()?);
            }
            return Ok(());
        }
        let node = &layout.nodes[node_index(ino)];
        match node.body {
            Body::Dir(listing) => {
                let seed = self.seed.of_inode(ino);
                for nth in first..first + usize::from(extent.len) {
                    layout.dirs[listing].block(nth, seed, feed.block()?);
                }
            }
            Body::Symlink(target) => put(feed.block()?, 0, target),
            Body::File(object) => {
                let start = u64::from(extent.logical) * BLOCK_SIZE;
                let end = (start + u64::from(extent.len) * BLOCK_SIZE).min(object.size);
                if let Some(path) = node.path {
                    self.file(ino, path, object, start..end, feed)?;
                }
            }
            Body::Device(_) | Body::Empty => {}
        }
        Ok(())
    }

    /// Copies bytes of a file.
    fn file(
        &mut self,
        ino: Ino,
        path: &TreePath,
        object: &Object,
        range: Range<u64>,
        feed: &mut Feed,
    ) -> Written {
        if self.open.as_ref().is_none_or(|(open, _)| *open != ino) {
            let opened = self.store.open_object(object);
            let file =
                opened.map_err(|source| Stop::Source(Ext4Error::Store { path: path.clone(), source }))?;
            self.open = Some((ino, file));
        }
        let Some((_, file)) = &self.open else { return Ok(()) };
        let mut at = range.start;
        while at < range.end {
            let room = feed.room()?;
            let len = usize::try_from(range.end - at).map_or(room.len(), |left| left.min(room.len()));
            file.read_exact_at(&mut room[..len], at)
                .map_err(|source| Stop::Source(Ext4Error::Read { path: path.clone(), at, source }))?;
            feed.took(len);
            at += len as u64;
        }
        Ok(())
    }
}

fn start_of_block(bytes: &[u8]) -> [u8; I_BLOCK] {
    let mut block = [0; I_BLOCK];
    put(&mut block, 0, bytes);
    block
}
