//! The database's two tries: of match strings, and of the endings of all strings, which share bytes.
//! Must not know: the text format.
//! Spec: systemd 257: `src/shared/hwdb-util.c`, `src/basic/strbuf.c`; all numbers little-endian.
//!
//! ```text
//! header  80 bytes   signature, version, file size, sizes of header, node, child, value (u64 each),
//!                    offset of the root node, bytes of all nodes, bytes of all strings
//! nodes              children first: prefix offset u64, children u8, 7 zero bytes, values u64;
//!                    then 16 bytes a child: its byte, 7 zero bytes, its offset;
//!                    then 32 bytes a value: offsets of key, value and file, line u32, priority u16, 0 u16
//! strings            each ended by a zero byte
//! ```

use std::collections::BTreeMap;

const SIGNATURE: &[u8; 8] = b"KSLPHHRH";
const HEADER: u64 = 80;
const NODE: u64 = 24;
const CHILD: u64 = 16;
const VALUE: u64 = 32;

/// What one line says, for one match string.
pub(super) struct Property<'a> {
    /// With the space in front.
    pub key: &'a [u8],
    pub value: &'a [u8],
    pub file: &'a [u8],
    /// Number of the file, from 1, in the order of reading.
    pub priority: u16,
    pub line_number: u32,
}

/// Offset of a string among all strings.
type StringAt = usize;
/// Index of a node; nodes are never removed.
type NodeAt = usize;

#[derive(Default)]
struct Node {
    prefix: StringAt,
    children: BTreeMap<u8, NodeAt>,
    values: Vec<Value>,
}

struct Value {
    key: StringAt,
    value: StringAt,
    file: StringAt,
    line_number: u32,
    priority: u16,
}

/// The database while it is made.
pub(super) struct Trie {
    nodes: Vec<Node>,
    strings: Strings,
}

impl Trie {
    /// A database without matches.
    pub fn new() -> Trie {
        Trie { nodes: vec![Node::default()], strings: Strings::new() }
    }

    /// Adds one property for one match string; a later one takes the place of an earlier.
    pub fn insert(&mut self, search: &[u8], property: &Property) {
        let mut node = 0;
        let mut i = 0;
        loop {
            let prefix = self.strings.get(self.nodes[node].prefix).to_vec();
            let common =
                prefix.iter().zip(&search[i.min(search.len())..]).take_while(|(a, b)| a == b).count();
            if common < prefix.len() {
                self.split(node, &prefix, common);
            }
            i += common;
            let Some(&c) = search.get(i) else { return self.add_value(node, property) };
            i += 1;
            node = match self.nodes[node].children.get(&c) {
                Some(&child) => child,
                None => {
                    let prefix = self.strings.add(&search[i..]);
                    self.nodes.push(Node { prefix, ..Node::default() });
                    let child = self.nodes.len() - 1;
                    self.nodes[node].children.insert(c, child);
                    return self.add_value(child, property);
                }
            };
        }
    }

    /// Cuts a node's prefix before byte `at`: what follows moves into a new child.
    fn split(&mut self, node: NodeAt, prefix: &[u8], at: usize) {
        let old = std::mem::take(&mut self.nodes[node]);
        let child = Node { prefix: old.prefix + at + 1, ..old };
        self.nodes.push(child);
        let child = self.nodes.len() - 1;
        let start = self.strings.add(&prefix[..at]);
        self.nodes[node].prefix = start;
        self.nodes[node].children.insert(prefix[at], child);
    }

    fn add_value(&mut self, node: NodeAt, property: &Property) {
        let key = self.strings.add(property.key);
        let value = self.strings.add(property.value);
        let file = self.strings.add(property.file);
        let Property { line_number, priority, .. } = *property;
        let new = Value { key, value, file, line_number, priority };
        // Equal strings have one offset, so the key can be compared by it only when both end alike;
        // the bytes decide.
        let strings = &self.strings;
        let values = &mut self.nodes[node].values;
        match values.binary_search_by(|v| strings.get(v.key).cmp(property.key)) {
            Ok(at) => values[at] = Value { key: values[at].key, ..new },
            Err(at) => values.insert(at, new),
        }
    }

    /// The whole file.
    pub fn write(&self, version: u64) -> Vec<u8> {
        let children: u64 = self.nodes.iter().map(|n| n.children.len() as u64).sum();
        let values: u64 = self.nodes.iter().map(|n| n.values.len() as u64).sum();
        let nodes = self.nodes.len() as u64 * NODE + children * CHILD + values * VALUE;
        let strings_at = HEADER + nodes;
        let mut body = Vec::new();
        let root = self.write_nodes(&mut body, strings_at);
        let strings = &self.strings.bytes;
        let size = strings_at + strings.len() as u64;
        let mut out = SIGNATURE.to_vec();
        for number in [version, size, HEADER, NODE, CHILD, VALUE, root, nodes, strings.len() as u64] {
            out.extend_from_slice(&number.to_le_bytes());
        }
        out.extend_from_slice(&body);
        out.extend_from_slice(strings);
        out
    }

    /// Writes every node behind its children; gives the offset of the root.
    fn write_nodes(&self, body: &mut Vec<u8>, strings_at: u64) -> u64 {
        let mut offsets = vec![0; self.nodes.len()];
        // A list instead of recursion: the second visit of a node comes after its children's.
        let mut todo = vec![(0, false)];
        while let Some((at, seen)) = todo.pop() {
            let node = &self.nodes[at];
            if !seen {
                todo.push((at, true));
                todo.extend(node.children.values().rev().map(|&child| (child, false)));
                continue;
            }
            offsets[at] = HEADER + body.len() as u64;
            let put = |body: &mut Vec<u8>, number: u64| body.extend_from_slice(&number.to_le_bytes());
            put(body, strings_at + node.prefix as u64);
            // At most 255 bytes can follow, as zero ends a string.
            put(body, node.children.len() as u64);
            put(body, node.values.len() as u64);
            for (&c, &child) in &node.children {
                put(body, u64::from(c));
                put(body, offsets[child]);
            }
            for value in &node.values {
                for string in [value.key, value.value, value.file] {
                    put(body, strings_at + string as u64);
                }
                body.extend_from_slice(&value.line_number.to_le_bytes());
                body.extend_from_slice(&value.priority.to_le_bytes());
                body.extend_from_slice(&[0, 0]);
            }
        }
        offsets[0]
    }
}

/// All strings behind each other. One that another ends with is not stored again.
struct Strings {
    bytes: Vec<u8>,
    /// A trie of the strings read backwards; each node knows one string that ends so.
    nodes: Vec<Ending>,
}

#[derive(Default)]
struct Ending {
    at: StringAt,
    len: usize,
    children: BTreeMap<u8, usize>,
}

impl Strings {
    fn new() -> Strings {
        // The empty string is at 0.
        Strings { bytes: vec![0], nodes: vec![Ending::default()] }
    }

    fn get(&self, at: StringAt) -> &[u8] {
        let rest = &self.bytes[at..];
        &rest[..rest.iter().position(|&b| b == 0).unwrap_or(rest.len())]
    }

    fn add(&mut self, string: &[u8]) -> StringAt {
        if string.is_empty() {
            return 0;
        }
        let mut node = 0;
        for &c in string.iter().rev() {
            let Ending { at, len, .. } = self.nodes[node];
            if len >= string.len() && self.bytes[at..at + len].ends_with(string) {
                return at + len - string.len();
            }
            match self.nodes[node].children.get(&c) {
                Some(&child) => node = child,
                None => {
                    let at = self.bytes.len();
                    self.bytes.extend_from_slice(string);
                    self.bytes.push(0);
                    self.nodes.push(Ending { at, len: string.len(), ..Ending::default() });
                    let child = self.nodes.len() - 1;
                    self.nodes[node].children.insert(c, child);
                    return at;
                }
            }
        }
        // Every byte led on: what stands here ends with the string.
        let Ending { at, len, .. } = self.nodes[node];
        at + len - string.len()
    }
}
