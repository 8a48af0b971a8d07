//! kmod's binary indexes (`modules.*.bin`): a trie from a key to values with priorities.
//! Must not know: modules; what keys and values mean.
//! Spec: kmod 34, libkmod/libkmod-index.c and tools/depmod.c, index format 2.1. All numbers are
//! big-endian. Nodes lie in pre-order, so the same entries give the same bytes as kmod 34 writes;
//! kmod up to 33 lays the same nodes out in post-order, and readers take both.
//!
//! ```text
//! magic b007f457 | version 00020001 | offset and flags of the root node
//! node: [prefix, zero-ended] [first u8, last u8, offset and flags u32 per byte first..=last]
//!       [count u32, then per value: priority u32, text, zero]
//! ```

use std::collections::BTreeMap;

const INDEX_MAGIC: u32 = 0xB007_F457;
/// Major 2, minor 1.
const INDEX_VERSION: u32 = 0x0002_0001;
const NODE_PREFIX: u32 = 0x8000_0000;
const NODE_VALUES: u32 = 0x4000_0000;
const NODE_CHILDREN: u32 = 0x2000_0000;
/// Offsets have the 28 low bits of a word.
const MAX_SIZE: usize = 0x0fff_ffff;
const HEADER: usize = 12;

/// An index in the making.
#[derive(Debug, Clone, Default)]
pub struct Index {
    entries: BTreeMap<String, Vec<(u32, String)>>,
}

/// Entries that the format cannot hold.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum IndexError {
    /// Keys branch on 7 bits, and texts end at a zero byte.
    #[error("`{text}` has bytes that an index cannot hold")]
    BadText {
        /// The key or value, made printable.
        text: String,
    },
    /// The index would pass 256 MiB.
    #[error("the index would have {bytes} bytes, over the format's limit of 268435455")]
    TooLarge {
        /// Bytes wanted.
        bytes: usize,
    },
}

impl Index {
    /// Adds a value. Values of one key are read by ascending priority; of equal ones, the last that
    /// was added comes first, as in kmod.
    pub fn insert(&mut self, key: &str, value: &str, priority: u32) -> Result<(), IndexError> {
        for text in [key, value] {
            if !text.is_ascii() || text.contains('\0') {
                return Err(IndexError::BadText { text: crate::tree::printable(text.as_bytes()) });
            }
        }
        let values = self.entries.entry(key.to_owned()).or_default();
        let at = values.partition_point(|(p, _)| *p < priority);
        values.insert(at, (priority, value.to_owned()));
        Ok(())
    }

    /// The file's bytes.
    pub fn write(&self) -> Result<Vec<u8>, IndexError> {
        let nodes = lay_out(&self.entries);
        let mut offsets = Vec::with_capacity(nodes.len());
        let mut end = HEADER;
        for node in &nodes {
            offsets.push(end);
            end += node.size();
        }
        if end > MAX_SIZE {
            return Err(IndexError::TooLarge { bytes: end });
        }
        let mut out = Vec::with_capacity(end);
        for word in [INDEX_MAGIC, INDEX_VERSION, reference(&offsets, &nodes, 0)] {
            out.extend(word.to_be_bytes());
        }
        for node in &nodes {
            node.write(&mut out, |child| reference(&offsets, &nodes, child));
        }
        Ok(out)
    }
}

/// A key and its values, by ascending priority.
type Entry<'a> = (&'a [u8], &'a [(u32, String)]);

/// A node of the trie; `children` are numbers of nodes by the byte that leads to them.
struct Node<'a> {
    prefix: &'a [u8],
    children: BTreeMap<u8, usize>,
    values: &'a [(u32, String)],
}

impl Node<'_> {
    fn span(&self) -> Option<(u8, u8)> {
        Some((*self.children.first_key_value()?.0, *self.children.last_key_value()?.0))
    }

    fn flags(&self) -> u32 {
        let flag = |on: bool, bit: u32| if on { bit } else { 0 };
        flag(!self.prefix.is_empty(), NODE_PREFIX)
            | flag(!self.values.is_empty(), NODE_VALUES)
            | flag(!self.children.is_empty(), NODE_CHILDREN)
    }

    fn size(&self) -> usize {
        let prefix = if self.prefix.is_empty() { 0 } else { self.prefix.len() + 1 };
        let children = self.span().map_or(0, |(first, last)| 2 + 4 * (usize::from(last - first) + 1));
        let values: usize = self.values.iter().map(|(_, text)| 4 + text.len() + 1).sum();
        prefix + children + if self.values.is_empty() { 0 } else { 4 + values }
    }

    fn write(&self, out: &mut Vec<u8>, reference: impl Fn(usize) -> u32) {
        if !self.prefix.is_empty() {
            out.extend(self.prefix);
            out.push(0);
        }
        if let Some((first, last)) = self.span() {
            out.extend([first, last]);
            for byte in first..=last {
                let child = self.children.get(&byte).map_or(0, |&child| reference(child));
                out.extend(child.to_be_bytes());
            }
        }
        if !self.values.is_empty() {
            out.extend(word(self.values.len()).to_be_bytes());
            for (priority, text) in self.values {
                out.extend(priority.to_be_bytes());
                out.extend(text.as_bytes());
                out.push(0);
            }
        }
    }
}

fn reference(offsets: &[usize], nodes: &[Node], node: usize) -> u32 {
    word(offsets[node]) | nodes[node].flags()
}

/// Everything that is written as a word was compared with [`MAX_SIZE`] before.
fn word(value: usize) -> u32 {
    u32::try_from(value).unwrap_or(u32::MAX)
}

/// The nodes in pre-order. A node's prefix is all that the keys below it share, save for the root's,
/// which is empty as kmod never splits its root.
fn lay_out(entries: &BTreeMap<String, Vec<(u32, String)>>) -> Vec<Node<'_>> {
    let entries: Vec<Entry> =
        entries.iter().map(|(key, values)| (key.as_bytes(), values.as_slice())).collect();
    let mut nodes: Vec<Node> = Vec::new();
    // Which entries, how many bytes of their keys are used up, and who is above. Keys may be long,
    // so the stack is ours.
    let mut todo = vec![(0..entries.len(), 0, None)];
    while let Some((range, used, above)) = todo.pop() {
        let number = nodes.len();
        let mut group = &entries[range.clone()];
        let shared = if above.is_some() { shared_prefix(group, used) } else { 0 };
        let prefix = group.first().map_or(&[][..], |(key, _)| &key[used..used + shared]);
        let used = used + shared;
        let mut start = range.start;
        let mut values: &[_] = &[];
        // Sorted by bytes, a key that ends here comes before those that go on.
        if let Some((_, own)) = group.first().filter(|(key, _)| key.len() == used) {
            values = own;
            group = &group[1..];
            start += 1;
        }
        nodes.push(Node { prefix, children: BTreeMap::new(), values });
        if let Some((parent, byte)) = above {
            let parent: &mut Node = &mut nodes[parent];
            parent.children.insert(byte, number);
        }
        let mut below = Vec::new();
        while let Some((key, _)) = group.first() {
            let byte = key[used];
            let len = group.partition_point(|(key, _)| key[used] <= byte);
            below.push((start..start + len, used + 1, Some((number, byte))));
            start += len;
            group = &group[len..];
        }
        todo.extend(below.into_iter().rev());
    }
    nodes
}

/// How many bytes after `used` all keys share. They are sorted, so the first and the last tell.
fn shared_prefix(group: &[Entry], used: usize) -> usize {
    let (Some((first, _)), Some((last, _))) = (group.first(), group.last()) else { return 0 };
    first[used..].iter().zip(&last[used..]).take_while(|(a, b)| a == b).count()
}

#[cfg(test)]
mod tests;
