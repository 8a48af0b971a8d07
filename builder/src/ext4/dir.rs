//! Directories: one block in canonical order where that is enough, else an index of hashes over
//! blocks in hash order.
//! Must not know: where blocks lie, which inodes exist.
//! Spec: Documentation/filesystems/ext4/directory.rst; `struct dx_root`, `dx_node` and `dx_tail` in
//! fs/ext4/namei.c, which also sets the depth of two levels without the `largedir` feature.

use super::checksum::Seed;
use super::format::{BLOCK, Ino, lo32, put, put16, put32};
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
/// The index in the first block, after the dots and `struct dx_root_info`.
const ROOT: Table = Table::at(DOTS + 8);
/// The index in other blocks, after an entry that covers the whole block.
const NODE: Table = Table::at(8);

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
    let nodes = if leaves > ROOT.limit { leaves.div_ceil(NODE.limit) } else { 0 };
    let blocks = u32::try_from(1 + nodes + leaves).ok();
    blocks.filter(|_| nodes <= ROOT.limit)
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
        if self.leaves.len() > ROOT.limit { self.leaves.len().div_ceil(NODE.limit) } else { 0 }
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
        let step = if nodes == 0 { 1 } else { NODE.limit };
        ROOT.encode(self.leaves.iter().step_by(step), 1, seed, out);
    }

    fn node(&self, node: usize, seed: Seed, out: &mut [u8]) {
        put16(out, 4, BLOCK as u16);
        let first = node * NODE.limit;
        let leaves = self.leaves.iter().skip(first).take(NODE.limit);
        NODE.encode(leaves, 1 + self.nodes() + first, seed, out);
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

/// Pairs of hash and block in one block of the index.
struct Table {
    /// Where they begin.
    at: usize,
    /// How many there is room for, with 8 bytes of checksum at the block's end.
    limit: usize,
}

impl Table {
    const fn at(at: usize) -> Table {
        Table { at, limit: (BLOCK - 8 - at) / 8 }
    }

    /// Writes a pair for each of `leaves`, the first one's block being `block` and each next one's
    /// the next, and the checksum, which covers the pairs in use.
    fn encode<'a>(&self, leaves: impl Iterator<Item = &'a Leaf>, block: usize, seed: Seed, out: &mut [u8]) {
        let mut count = 0;
        for leaf in leaves {
            let pair = self.at + count * 8;
            put32(out, pair, leaf.hash);
            // `index_blocks` has checked that all block numbers of a directory have 32 bits.
            put32(out, pair + 4, lo32((block + count) as u64));
            count += 1;
        }
        // The first pair's hash is known from the level above: limit and count take its place.
        put16(out, self.at, self.limit as u16);
        put16(out, self.at + 2, count as u16);
        let sum = seed.with(&out[..self.at + count * 8]).with(&[0; 8]).sum();
        put32(out, self.at + self.limit * 8 + 4, sum);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    const HASH: [u8; 16] = [3; 16];

    fn listing(names: &[Vec<u8>]) -> Listing<'_> {
        let entries = names.iter().zip(100..).map(|(name, ino)| Entry { name, ino: Ino(ino), kind: 1 });
        Listing { ino: Ino(12), parent: Ino(2), subdirs: 0, min_blocks: 1, entries: entries.collect() }
    }

    fn names(count: usize, len: usize) -> Vec<Vec<u8>> {
        (0..count).map(|i| format!("{i:0>len$}").into_bytes()).collect()
    }

    fn blocks(dir: &Dir<'_>) -> Vec<Vec<u8>> {
        let block = |nth| {
            let mut out = vec![0; BLOCK];
            dir.block(nth, Seed::none(), &mut out);
            out
        };
        (0..dir.blocks as usize).map(block).collect()
    }

    fn u16_at(bytes: &[u8], at: usize) -> usize {
        usize::from(u16::from_le_bytes([bytes[at], bytes[at + 1]]))
    }

    fn u32_at(bytes: &[u8], at: usize) -> u32 {
        u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap())
    }

    /// Entries of a block as a reader without knowledge of indexes finds them.
    fn read(block: &[u8]) -> Vec<(u32, Vec<u8>)> {
        let (mut at, mut found) = (0, Vec::new());
        while at < BLOCK {
            let (len, name) = (u16_at(block, at + 4), usize::from(block[at + 6]));
            assert!(len >= 8 + name && len % 4 == 0, "entry of {len} bytes at {at}");
            if u32_at(block, at) != 0 {
                found.push((u32_at(block, at), block[at + 8..at + 8 + name].to_vec()));
            }
            at += len;
        }
        assert_eq!(at, BLOCK);
        found
    }

    #[test]
    fn a_small_directory_is_in_canonical_order() {
        let names = [b"a".to_vec(), b"a.b".to_vec(), vec![b'x'; 255]];
        let dir = Dir::plan(listing(&names), &HashSeed::new(&HASH)).unwrap();
        assert_eq!((dir.blocks, dir.is_indexed()), (1, false));
        let block = &blocks(&dir)[0];
        let found: Vec<Vec<u8>> = read(block).into_iter().map(|(_, name)| name).collect();
        assert_eq!(found[..2], [b".".to_vec(), b"..".to_vec()]);
        assert_eq!(found[2..], names);
        assert_eq!(u32_at(block, BLOCK - 4), Seed::none().with(&block[..ROOM]).sum());
    }

    #[test]
    fn an_empty_directory_and_more_blocks_than_needed_are_whole() {
        let empty = Listing { min_blocks: 4, ..listing(&[]) };
        let dir = Dir::plan(empty, &HashSeed::new(&HASH)).unwrap();
        let found: Vec<usize> = blocks(&dir).iter().map(|block| read(block).len()).collect();
        assert_eq!(found, [2, 0, 0, 0]);
    }

    #[test]
    fn a_full_block_stays_without_index() {
        // 24 bytes of dots and 4060 in entries of 20.
        let (fits, more) = (names(203, 12), names(204, 12));
        let seed = HashSeed::new(&HASH);
        assert!(!Dir::plan(listing(&fits), &seed).unwrap().is_indexed());
        assert!(Dir::plan(listing(&more), &seed).unwrap().is_indexed());
    }

    /// Follows the index to every name by its hash, as the kernel does.
    #[test]
    fn every_name_is_where_its_hash_leads() {
        let seed = HashSeed::new(&HASH);
        for (count, len, levels) in [(300, 12, 0), (12_000, 20, 0), (9000, 255, 1)] {
            let names = names(count, len);
            let dir = Dir::plan(listing(&names), &seed).unwrap();
            let blocks = blocks(&dir);
            assert_eq!(blocks[0][30], levels, "{count} names of {len} bytes");
            for name in &names {
                let hash = seed.hash(name).0;
                let mut block = find(&blocks[0], ROOT.at, hash);
                if levels == 1 {
                    block = find(&blocks[block], NODE.at, hash);
                }
                assert!(read(&blocks[block]).iter().any(|(_, found)| found == name));
            }
            let all: BTreeSet<u32> = blocks.iter().flat_map(|b| read(b)).map(|(ino, _)| ino).collect();
            assert_eq!(all.len(), count + 2, "each entry once, and the dots");
        }
    }

    fn find(block: &[u8], at: usize, hash: u32) -> usize {
        let count = u16_at(block, at + 2);
        let pair = |i: usize| (u32_at(block, at + i * 8), u32_at(block, at + i * 8 + 4));
        let last = (1..count).take_while(|&i| pair(i).0 <= hash).last().unwrap_or(0);
        pair(last).1 as usize
    }

    #[test]
    fn the_bound_holds_for_every_seed_and_is_near() {
        for (count, len) in [(1, 1), (203, 12), (204, 12), (5000, 9), (700, 255), (9000, 250)] {
            let names = names(count, len);
            let bound = listing(&names).blocks_bound().unwrap();
            for seed in 0..5 {
                let dir = Dir::plan(listing(&names), &HashSeed::new(&[seed; 16])).unwrap();
                assert!(dir.blocks <= bound, "{} of {bound} blocks", dir.blocks);
                assert!(bound - dir.blocks <= bound / 12 + 2, "{} of {bound} blocks", dir.blocks);
            }
        }
    }

    #[test]
    fn two_levels_reach_so_far() {
        assert_eq!((ROOT.limit, NODE.limit), (507, 510));
        assert_eq!(index_blocks(507), Some(508));
        assert_eq!(index_blocks(508), Some(1 + 1 + 508));
        assert_eq!(index_blocks(507 * 510), Some(1 + 507 + 507 * 510));
        assert_eq!(index_blocks(507 * 510 + 1), None);
    }
}
