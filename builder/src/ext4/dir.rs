//! Directories: one block in canonical order where that is enough, else an index of hashes over
//! blocks in hash order.
//! Must not know: where blocks lie, which inodes exist.
//! Spec: Documentation/filesystems/ext4/directory.rst; `struct dx_root`, `dx_node` and `dx_tail` in
//! fs/ext4/namei.c, which also sets the depth of two levels without the `largedir` feature.

use super::checksum::Seed;
use super::format::{BLOCK, Ino, put, put16, put32};
use super::hash::HashSeed;

/// `file_type` of a directory's entry; see [`Entry::kind`].
pub(super) const FT_DIR: u8 = 2;
/// What entries have of a block: the rest is the checksum, dressed as an entry of a deleted file.
const ROOM: usize = BLOCK - TAIL;
const TAIL: usize = 12;
/// An entry without its name.
const ENTRY_HEADER: usize = 8;
/// `.` and `..`, which every directory begins with.
const DOTS: usize = 24;
/// Where the index begins in the first block, after the dots and `struct dx_root_info`.
const ROOT_INDEX: usize = DOTS + 8;
/// Where it begins in other blocks, after an entry that covers the whole block.
const NODE_INDEX: usize = 8;
/// Pairs of hash and block in the first block: 4096 bytes less what precedes and 8 of checksum.
const IN_ROOT: usize = (BLOCK - 8 - ROOT_INDEX) / 8;
/// The same in other blocks.
const IN_NODE: usize = (BLOCK - 8 - NODE_INDEX) / 8;

/// One name.
#[derive(Clone, Copy, Debug)]
pub(super) struct Entry<'t> {
    /// 1 to 255 bytes.
    pub name: &'t [u8],
    /// What it names.
    pub ino: Ino,
    /// 1 file, 2 directory, 3 and 4 character and block device, 5 fifo, 6 socket, 7 symbolic link.
    pub kind: u8,
}

impl Entry<'_> {
    /// Bytes in a directory block: a multiple of four.
    fn size(&self) -> usize {
        (ENTRY_HEADER + self.name.len()).next_multiple_of(4)
    }
}

/// What a directory holds, before it is decided how.
#[derive(Clone, Debug)]
pub(super) struct Listing<'t> {
    pub ino: Ino,
    pub parent: Ino,
    /// How many entries are directories.
    pub subdirs: u32,
    /// Blocks to make it even if fewer would do.
    pub min_blocks: u32,
    /// In canonical order.
    pub entries: Vec<Entry<'t>>,
}

impl Listing<'_> {
    /// Blocks at most, whatever the hash seed: `None` when it may not fit.
    ///
    /// A leaf is left when the next entry does not fit, so each but the last holds more bytes than
    /// a block has room for less the largest entry.
    pub fn blocks_bound(&self) -> Option<u32> {
        let bytes: usize = self.entries.iter().map(Entry::size).sum();
        if DOTS + bytes <= ROOM {
            return Some(self.min_blocks.max(1));
        }
        let largest = self.entries.iter().map(Entry::size).max().unwrap_or(0);
        index_blocks(bytes / (ROOM + 4 - largest) + 1)
    }
}

/// Blocks of a directory with that many leaves; `None` when two levels of index do not reach them.
fn index_blocks(leaves: usize) -> Option<u32> {
    let nodes = if leaves > IN_ROOT { leaves.div_ceil(IN_NODE) } else { 0 };
    let blocks = u32::try_from(1 + nodes + leaves).ok();
    blocks.filter(|_| nodes <= IN_ROOT)
}

/// Entries of one block below the index.
#[derive(Clone, Copy, Debug)]
struct Leaf {
    /// Lowest hash in it; bit 0 tells that the block before ends with the same hash.
    hash: u32,
    /// Its first entry.
    first: usize,
}

/// A directory of which every block is decided.
#[derive(Clone, Debug)]
pub(super) struct Dir<'t> {
    pub listing: Listing<'t>,
    /// Empty for a directory without index; else the listing is in hash order.
    leaves: Vec<Leaf>,
    /// Blocks of the whole directory.
    pub blocks: u32,
}

impl<'t> Dir<'t> {
    /// Decides. `None` when the directory is too large for an index of two levels.
    pub fn plan(mut listing: Listing<'t>, seed: &HashSeed) -> Option<Dir<'t>> {
        let bytes: usize = listing.entries.iter().map(Entry::size).sum();
        if DOTS + bytes <= ROOM {
            let blocks = listing.min_blocks.max(1);
            return Some(Dir { listing, leaves: Vec::new(), blocks });
        }
        let leaves = sort_into_leaves(&mut listing.entries, seed);
        let blocks = index_blocks(leaves.len())?;
        Some(Dir { listing, leaves, blocks })
    }

    /// True when it has an index.
    pub fn is_indexed(&self) -> bool {
        !self.leaves.is_empty()
    }

    /// Encodes block `nth` into `out`, one block of zero bytes. `seed` is the directory's own.
    ///
    /// The first block is the root of the index; then come its nodes, if any, then the leaves.
    pub fn block(&self, nth: usize, seed: Seed, out: &mut [u8]) {
        let nodes = self.nodes();
        match (self.is_indexed(), nth) {
            (false, 0) => {
                let at = self.dots(ENTRY_HEADER + 4, out);
                entries(&self.listing.entries, at, seed, out);
            }
            (false, _) => entries(&[], 0, seed, out),
            (true, 0) => self.root(nodes, seed, out),
            (true, _) if nth <= nodes => self.node(nth - 1, seed, out),
            (true, _) => {
                let leaf = nth - 1 - nodes;
                let first = self.leaves[leaf].first;
                let end = self.leaves.get(leaf + 1).map_or(self.listing.entries.len(), |next| next.first);
                entries(&self.listing.entries[first..end], 0, seed, out);
            }
        }
    }

    /// Blocks between root and leaves.
    fn nodes(&self) -> usize {
        if self.leaves.len() > IN_ROOT { self.leaves.len().div_ceil(IN_NODE) } else { 0 }
    }

    /// Writes `.` and `..`, the second `dotdot` bytes long; says where they end.
    fn dots(&self, dotdot: usize, out: &mut [u8]) -> usize {
        let dot = Entry { name: b".", ino: self.listing.ino, kind: FT_DIR };
        let parent = Entry { name: b"..", ino: self.listing.parent, kind: FT_DIR };
        entry(&dot, dot.size(), out);
        entry(&parent, dotdot, &mut out[dot.size()..]);
        dot.size() + dotdot
    }

    fn root(&self, nodes: usize, seed: Seed, out: &mut [u8]) {
        // To a kernel that knows no index, `..` fills the block and the index is not there.
        self.dots(BLOCK - DOTS / 2, out);
        out[DOTS + 4] = 1; // hash_version: half MD4; the superblock says how bytes are taken
        out[DOTS + 5] = 8; // info_length
        out[DOTS + 6] = u8::from(nodes > 0); // indirect_levels
        if nodes == 0 {
            index(&self.leaves, 1, 1, ROOT_INDEX, IN_ROOT, seed, out);
        } else {
            index(&self.leaves, IN_NODE, 1, ROOT_INDEX, IN_ROOT, seed, out);
        }
    }

    fn node(&self, node: usize, seed: Seed, out: &mut [u8]) {
        put16(out, 4, BLOCK as u16);
        let first = node * IN_NODE;
        let end = self.leaves.len().min(first + IN_NODE);
        let block = 1 + self.nodes() + first;
        index(&self.leaves[first..end], 1, block, NODE_INDEX, IN_NODE, seed, out);
    }
}

/// Sorts by hash and cuts where the next entry does not fit any more.
fn sort_into_leaves(list: &mut Vec<Entry<'_>>, seed: &HashSeed) -> Vec<Leaf> {
    let mut keyed: Vec<_> = list.iter().map(|entry| (seed.hash(entry.name), *entry)).collect();
    keyed.sort_unstable_by_key(|(hash, entry)| (*hash, entry.name));
    let mut leaves = vec![Leaf { hash: 0, first: 0 }];
    let mut used = 0;
    for (i, ((hash, _), entry)) in keyed.iter().enumerate() {
        if used + entry.size() > ROOM {
            let continued = keyed[i - 1].0.0 == *hash;
            leaves.push(Leaf { hash: hash | u32::from(continued), first: i });
            used = 0;
        }
        used += entry.size();
    }
    *list = keyed.into_iter().map(|(_, entry)| entry).collect();
    leaves
}

/// Writes entries from `at` to the end of the block, the last one stretched, and the checksum.
fn entries(list: &[Entry<'_>], mut at: usize, seed: Seed, out: &mut [u8]) {
    let mut last = at.saturating_sub(ENTRY_HEADER + 4);
    for item in list {
        entry(item, item.size(), &mut out[at..]);
        last = at;
        at += item.size();
    }
    // Without any entry this makes one of inode 0, which is none.
    put16(out, last + 4, (ROOM - last) as u16);
    put16(out, ROOM + 4, TAIL as u16);
    out[ROOM + 7] = 0xde;
    let sum = seed.with(&out[..ROOM]).sum();
    put32(out, ROOM + 8, sum);
}

/// Writes one entry. Its length is at most that of a block and its name's at most 255: a
/// [`crate::tree::TreePath`] has no longer names.
fn entry(item: &Entry<'_>, len: usize, out: &mut [u8]) {
    put32(out, 0, item.ino.0);
    put16(out, 4, len as u16);
    out[6] = item.name.len() as u8;
    out[7] = item.kind;
    put(out, ENTRY_HEADER, item.name);
}

/// Writes pairs of hash and block for every `step`th leaf, in blocks counted from `block`, and the
/// checksum, which covers the pairs in use. The first pair's hash is known from the level above, so
/// limit and count take its place.
fn index(leaves: &[Leaf], step: usize, block: usize, at: usize, limit: usize, seed: Seed, out: &mut [u8]) {
    let mut count = 0;
    for (leaf, block) in leaves.iter().step_by(step).zip(block..) {
        let pair = at + count * 8;
        put32(out, pair, leaf.hash);
        put32(out, pair + 4, block as u32);
        count += 1;
    }
    put16(out, at, limit as u16);
    put16(out, at + 2, count as u16);
    let sum = seed.with(&out[..at + count * 8]).with(&[0; 8]).sum();
    put32(out, at + limit * 8 + 4, sum);
}
