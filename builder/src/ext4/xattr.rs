//! Extended attributes: which go into the inode, which into a block, and both encodings.
//! Must not know: where the block lies, directories.
//! Spec: Documentation/filesystems/ext4/attributes.rst; hashes as `ext4_xattr_hash_entry` and
//! `ext4_xattr_rehash` in fs/ext4/xattr.c compute them.

use std::borrow::Cow;

use super::acl;
use super::checksum::Seed;
use super::error::Ext4Error;
use super::format::{BLOCK, FsBlock, INODE, put, put16, put32};
use super::inode::BODY;
use crate::tree::{Meta, TreePath};

const MAGIC: u32 = 0xea02_0000;
/// An entry without its name.
const ENTRY: usize = 16;
/// A zero word after the last entry.
const END: usize = 4;
/// Where entries begin in an inode: after the magic number. Offsets of values count from there.
const IN_INODE: usize = BODY + 4;
/// Where entries begin in a block, after its header. Offsets of values count from the block's start.
const IN_BLOCK: usize = 32;
const BLOCK_CHECKSUM: usize = 16;

/// Name spaces by index, as in fs/ext4/xattr.h: prefix, index, and whether a name must follow.
/// `system.` in general has an index too, but the kernel shows nothing below it but these two.
const PREFIXES: [(&[u8], u8, bool); 5] = [
    (b"user.", 1, true),
    (b"system.posix_acl_access", 2, false),
    (b"system.posix_acl_default", 3, false),
    (b"trusted.", 4, true),
    (b"security.", 6, true),
];

/// One attribute as ext4 keeps it.
#[derive(Clone, Debug)]
struct Attribute<'t> {
    /// Stands for the name's prefix.
    index: u8,
    /// The rest of the name, at most 255 bytes.
    name: &'t [u8],
    value: Cow<'t, [u8]>,
}

impl Attribute<'_> {
    /// Bytes of entry and value together.
    fn size(&self) -> usize {
        ENTRY + self.name.len().next_multiple_of(4) + self.value.len().next_multiple_of(4)
    }
}

/// The attributes of one inode that has some. Both lists are sorted as the kernel searches them.
#[derive(Clone, Debug, Default)]
pub(super) struct Attributes<'t> {
    inode: Vec<Attribute<'t>>,
    block: Vec<Attribute<'t>>,
}

impl<'t> Attributes<'t> {
    /// Takes each attribute in the order of names into the inode while it fits there, else into
    /// the block. `None` when there are no attributes.
    pub fn plan(path: &'t TreePath, meta: &'t Meta) -> Result<Option<Box<Attributes<'t>>>, Ext4Error> {
        if meta.xattrs.is_empty() {
            return Ok(None);
        }
        let mut plan = Attributes::default();
        let (mut inode_left, mut block_left) = (INODE - IN_INODE - END, BLOCK - IN_BLOCK - END);
        for (full_name, value) in &meta.xattrs {
            let attribute = attribute(path, full_name, value)?;
            let size = attribute.size();
            if let Some(left) = inode_left.checked_sub(size) {
                inode_left = left;
                plan.inode.push(attribute);
            } else if let Some(left) = block_left.checked_sub(size) {
                block_left = left;
                plan.block.push(attribute);
            } else {
                return Err(Ext4Error::XattrSpace { path: path.clone(), name: full_name.clone() });
            }
        }
        for list in [&mut plan.inode, &mut plan.block] {
            list.sort_by(|a, b| (a.index, a.name.len(), a.name).cmp(&(b.index, b.name.len(), b.name)));
        }
        Ok(Some(Box::new(plan)))
    }

    /// True when some are outside of the inode.
    pub fn need_block(&self) -> bool {
        !self.block.is_empty()
    }

    /// Writes those of the inode into its 256 bytes.
    pub fn encode_in_inode(&self, inode: &mut [u8]) {
        if !self.inode.is_empty() {
            put32(inode, BODY, MAGIC);
            encode(&self.inode, 0, &mut inode[IN_INODE..]);
        }
    }

    /// Writes those of the block, which will lie at `at`, into `out`, one block of zero bytes.
    pub fn encode_block(&self, seed: Seed, at: FsBlock, out: &mut [u8]) {
        let hash = encode(&self.block, IN_BLOCK, out);
        put32(out, 0, MAGIC);
        put32(out, 4, 1); // h_refcount
        put32(out, 8, 1); // h_blocks
        put32(out, 12, hash);
        let sum = seed.of_block(at).with(out).sum();
        put32(out, BLOCK_CHECKSUM, sum);
    }
}

fn attribute<'t>(path: &TreePath, full_name: &'t [u8], value: &'t [u8]) -> Result<Attribute<'t>, Ext4Error> {
    let found = PREFIXES.iter().find_map(|&(prefix, index, more)| {
        let name = full_name.strip_prefix(prefix)?;
        (name.is_empty() != more).then_some((index, name))
    });
    // XATTR_NAME_MAX is 255 for the whole name, so that of the rest is less.
    let (index, name) = found
        .filter(|_| full_name.len() <= 255 && !full_name.contains(&0))
        .ok_or_else(|| Ext4Error::XattrName { path: path.clone(), name: full_name.to_vec() })?;
    let value = match index {
        2 | 3 => Cow::Owned(acl::to_disk(value).map_err(|why| Ext4Error::Acl {
            path: path.clone(),
            name: full_name.to_vec(),
            why,
        })?),
        _ => Cow::Borrowed(value),
    };
    Ok(Attribute { index, name, value })
}

/// Writes entries from `first` on and values from the end backwards; returns the hash of all.
/// Everything fits, because [`Attributes::plan`] has added it up; no number is over 4096.
fn encode(list: &[Attribute<'_>], first: usize, out: &mut [u8]) -> u32 {
    let (mut at, mut values, mut all) = (first, out.len(), 0u32);
    for attribute in list {
        let len = attribute.value.len();
        values -= len.next_multiple_of(4);
        put(out, values, &attribute.value);
        let hash = hash(attribute.name, &out[values..values + len.next_multiple_of(4)]);
        out[at] = attribute.name.len() as u8;
        out[at + 1] = attribute.index;
        put16(out, at + 2, if len == 0 { 0 } else { values as u16 });
        put32(out, at + 8, len as u32);
        put32(out, at + 12, hash);
        put(out, at + ENTRY, attribute.name);
        at += ENTRY + attribute.name.len().next_multiple_of(4);
        all = all.rotate_left(16) ^ hash;
    }
    all
}

/// The hash of an entry: its name, and its value with the bytes that fill it up.
fn hash(name: &[u8], value: &[u8]) -> u32 {
    let name = name.iter().fold(0u32, |hash, &byte| hash.rotate_left(5) ^ u32::from(byte));
    value.chunks_exact(4).fold(name, |hash, word| {
        hash.rotate_left(16) ^ u32::from_le_bytes([word[0], word[1], word[2], word[3]])
    })
}
