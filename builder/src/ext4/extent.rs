//! Extents: which blocks of a file lie where, in the inode and in blocks of their own.
//! Must not know: how blocks are chosen, what is in them.
//! Spec: Documentation/filesystems/ext4/ifork.rst, "Extent Tree"; `struct ext4_extent` and
//! `ext4_extent_tail` in fs/ext4/ext4_extents.h.

use super::checksum::Seed;
use super::format::{BLOCK, FsBlock, I_BLOCK, put16, put32};

const MAGIC: u16 = 0xf30a;
const HEADER: usize = 12;
const ENTRY: usize = 12;
/// Entries in an inode: 60 bytes less the header.
const IN_INODE: usize = 4;
/// Entries in a block: 4096 bytes less header and checksum.
const IN_BLOCK: usize = 340;
/// Where the checksum of a block is: right after the last entry that fits.
const TAIL: usize = HEADER + IN_BLOCK * ENTRY;
/// Blocks of one extent at most. Longer lengths mark blocks that are allocated but unwritten.
pub(super) const EXTENT_MAX: u64 = 32_768;

/// A run of a file's blocks that lie next to each other on disk.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Extent {
    /// First block, counted from the start of the file.
    pub logical: u32,
    /// Blocks, 1 to [`EXTENT_MAX`].
    pub len: u16,
    /// Where the first block is.
    pub start: FsBlock,
}

/// How many blocks of index and leaves that many extents need outside of the inode.
pub(super) fn tree_blocks(extents: usize) -> usize {
    levels(extents).sum()
}

/// Blocks of each level outside of the inode, leaves first. Empty when all extents fit in the inode.
fn levels(extents: usize) -> impl Iterator<Item = usize> {
    let mut entries = extents;
    std::iter::from_fn(move || {
        let full = entries > IN_INODE;
        entries = entries.div_ceil(IN_BLOCK);
        full.then_some(entries)
    })
}

/// An extent tree, complete: extents by logical block, and where the tree's own blocks are, leaves
/// first, then each level above.
#[derive(Clone, Copy, Debug)]
pub(super) struct ExtentTree<'a> {
    /// Ascending by logical block.
    pub extents: &'a [Extent],
    /// As many as [`tree_blocks`] says.
    pub blocks: &'a [FsBlock],
}

impl ExtentTree<'_> {
    /// What the inode holds: a header and up to four entries.
    pub fn root(&self) -> [u8; I_BLOCK] {
        let mut out = [0; I_BLOCK];
        let top = levels(self.extents.len()).count();
        self.node(&mut out, top, 0, usize::MAX, IN_INODE);
        out
    }

    /// Block `nth` of the tree, in the order of `blocks`, with its checksum. `seed` is the inode's.
    pub fn block(&self, nth: usize, seed: Seed, out: &mut [u8]) {
        let mut first = 0;
        for (level, count) in levels(self.extents.len()).enumerate() {
            if nth < first + count {
                self.node(out, level, nth - first, 1, IN_BLOCK);
                let sum = seed.with(&out[..TAIL]).sum();
                put32(out, TAIL, sum);
                return;
            }
            first += count;
        }
    }

    /// Encodes one node: the entries that nodes `node` to `node + nodes` of this level hold. A root
    /// is all nodes of the level above the last one in one.
    fn node(&self, out: &mut [u8], level: usize, node: usize, nodes: usize, max: usize) {
        let first = node * IN_BLOCK;
        let end = nodes.saturating_mul(IN_BLOCK).saturating_add(first);
        let mut count = 0;
        if level == 0 {
            for extent in self.extents.iter().take(end).skip(first) {
                count += 1;
                leaf_entry(&mut out[count * ENTRY..], extent);
            }
        } else {
            let below: usize = levels(self.extents.len()).take(level - 1).sum();
            let width = levels(self.extents.len()).nth(level - 1).unwrap_or(0);
            // An entry stands for all extents below it: 340 for each level that lies between.
            let span = (1..level).fold(IN_BLOCK, |span, _| span.saturating_mul(IN_BLOCK));
            for child in first..width.min(end) {
                count += 1;
                let logical = self.extents[child * span].logical;
                index_entry(&mut out[count * ENTRY..], logical, self.blocks[below + child]);
            }
        }
        header(out, count, max, level);
    }
}

fn header(out: &mut [u8], entries: usize, max: usize, depth: usize) {
    // All three are at most 340; a tree of 2^32 extents has a depth of 4.
    let small = |n: usize| (n & 0xffff) as u16;
    put16(out, 0, MAGIC);
    put16(out, 2, small(entries));
    put16(out, 4, small(max));
    put16(out, 6, small(depth));
}

fn leaf_entry(out: &mut [u8], extent: &Extent) {
    put32(out, 0, extent.logical);
    put16(out, 4, extent.len);
    put16(out, 6, extent.start.hi());
    put32(out, 8, extent.start.lo());
}

fn index_entry(out: &mut [u8], logical: u32, block: FsBlock) {
    put32(out, 0, logical);
    put32(out, 4, block.lo());
    put16(out, 8, block.hi());
}

const _: () = assert!(TAIL + 4 == BLOCK && HEADER + IN_INODE * ENTRY == I_BLOCK);

#[cfg(test)]
mod tests {
    use super::*;

    fn extents(n: u32) -> Vec<Extent> {
        (0..n).map(|i| Extent { logical: i * 2, len: 1, start: FsBlock(1000 + u64::from(i) * 3) }).collect()
    }

    fn u16_at(bytes: &[u8], at: usize) -> u16 {
        u16::from_le_bytes([bytes[at], bytes[at + 1]])
    }

    fn u32_at(bytes: &[u8], at: usize) -> u32 {
        u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap())
    }

    /// Follows a tree as a reader does, from its bytes alone.
    fn read_back(tree: ExtentTree<'_>) -> Vec<Extent> {
        let mut found = Vec::new();
        let mut nodes = vec![(tree.root().to_vec(), None)];
        while let Some((node, depth)) = nodes.pop() {
            assert_eq!(u16_at(&node, 0), MAGIC);
            let level = u16_at(&node, 6);
            assert!(depth.is_none_or(|above: u16| level + 1 == above));
            assert!(u16_at(&node, 2) <= u16_at(&node, 4));
            for entry in node[HEADER..].chunks_exact(ENTRY).take(usize::from(u16_at(&node, 2))).rev() {
                if level == 0 {
                    let start = FsBlock(u64::from(u32_at(entry, 8)));
                    found.push(Extent { logical: u32_at(entry, 0), len: u16_at(entry, 4), start });
                } else {
                    let at = FsBlock(u64::from(u32_at(entry, 4)));
                    let nth = tree.blocks.iter().position(|&b| b == at).expect("a block of the tree");
                    let mut block = vec![0; BLOCK];
                    tree.block(nth, Seed::none(), &mut block);
                    assert_eq!(u32_at(&block, TAIL), Seed::none().with(&block[..TAIL]).sum());
                    let first = u32_at(&block, HEADER);
                    assert_eq!(first, u32_at(entry, 0), "an index entry names its first block");
                    nodes.push((block, Some(level)));
                }
            }
        }
        found.sort_by_key(|e| e.logical);
        found
    }

    #[test]
    fn trees_are_as_low_as_they_can_be() {
        for (extents, want) in [
            (0, 0),
            (4, 0),
            (5, 1),
            (340, 1),
            (341, 2),
            (1360, 4),
            (1361, 6),
            (340 * 340, 341),
            (4 * 340 * 340 + 1, 1361 + 5 + 1),
        ] {
            assert_eq!(tree_blocks(extents), want, "{extents} extents");
        }
    }

    #[test]
    fn what_is_written_is_what_is_read() {
        for n in [0, 1, 4, 5, 340, 341, 1360, 1361, 5000, 140_000] {
            let extents = extents(n);
            let blocks: Vec<FsBlock> =
                (0..tree_blocks(extents.len())).map(|i| FsBlock(1_000_000 + i as u64)).collect();
            let tree = ExtentTree { extents: &extents, blocks: &blocks };
            assert_eq!(read_back(tree), extents, "{n} extents");
        }
    }

    #[test]
    fn block_numbers_have_48_bits() {
        let extents = [Extent { logical: 7, len: 32_768, start: FsBlock(0x1234_5678_9abc) }];
        let root = ExtentTree { extents: &extents, blocks: &[] }.root();
        assert_eq!(&root[12..24], &[7, 0, 0, 0, 0, 0x80, 0x34, 0x12, 0xbc, 0x9a, 0x78, 0x56]);
    }
}
