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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tree::Time;
    use crate::tree::tests::path;

    fn meta(xattrs: &[(&str, &[u8])]) -> Meta {
        let mut meta = Meta::root_owned(0o644, Time::default());
        meta.xattrs = xattrs.iter().map(|(name, value)| (name.as_bytes().to_vec(), value.to_vec())).collect();
        meta
    }

    fn u32_at(bytes: &[u8], at: usize) -> u32 {
        u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap())
    }

    /// Index, name and value of all entries from `first` on, offsets counted from the start.
    fn read(region: &[u8], first: usize) -> Vec<(u8, Vec<u8>, Vec<u8>)> {
        let (mut at, mut found) = (first, Vec::new());
        while u32_at(region, at) != 0 {
            let len = usize::from(region[at]);
            let value = usize::from(u16::from_le_bytes([region[at + 2], region[at + 3]]));
            let size = u32_at(region, at + 8) as usize;
            assert!(size == 0 || value >= at + ENTRY + len, "a value lies in the entries");
            let name = region[at + ENTRY..at + ENTRY + len].to_vec();
            found.push((region[at + 1], name, region[value..value + size].to_vec()));
            at += ENTRY + len.next_multiple_of(4);
        }
        found
    }

    fn both(meta: &Meta) -> (Vec<u8>, Vec<u8>) {
        let path = path("x");
        let plan = Attributes::plan(&path, meta).unwrap().unwrap();
        let (mut inode, mut block) = (vec![0; INODE], vec![0; BLOCK]);
        plan.encode_in_inode(&mut inode);
        plan.encode_block(Seed::none(), FsBlock(77), &mut block);
        (inode, block)
    }

    #[test]
    fn small_attributes_are_in_the_inode() {
        let (inode, block) = both(&meta(&[("user.a", b"one"), ("security.b", b""), ("trusted.c", b"four")]));
        assert_eq!(u32_at(&inode, BODY), MAGIC);
        let found = read(&inode[IN_INODE..], 0);
        let entry = |index, name: &str, value: &[u8]| (index, name.as_bytes().to_vec(), value.to_vec());
        assert_eq!(found, [entry(1, "a", b"one"), entry(4, "c", b"four"), entry(6, "b", b"")]);
        assert_eq!(read(&block, IN_BLOCK), []);
    }

    #[test]
    fn what_does_not_fit_there_is_in_a_sorted_block() {
        let large = [7; 1000];
        let (inode, block) = both(&meta(&[
            ("user.zz", &large),
            ("user.b", &large),
            ("user.small", b"x"),
            ("trusted.a", &large),
        ]));
        assert_eq!(read(&inode[IN_INODE..], 0).len(), 1);
        let found = read(&block, IN_BLOCK);
        let names: Vec<_> = found.iter().map(|(index, name, _)| (*index, name.as_slice())).collect();
        assert_eq!(names, [(1, &b"b"[..]), (1, b"zz"), (4, b"a")]);
        assert!(found.iter().all(|(_, _, value)| value == &large));
        let mut zeroed = block.clone();
        put32(&mut zeroed, BLOCK_CHECKSUM, 0);
        assert_eq!(u32_at(&block, BLOCK_CHECKSUM), Seed::none().of_block(FsBlock(77)).with(&zeroed).sum());
    }

    #[test]
    fn the_last_byte_can_be_filled_and_no_more() {
        let path = path("x");
        // An entry of 16 bytes and a name of 4.
        for (room, fits) in [(88 - 20, true), (88 - 19, false)] {
            let meta = meta(&[("user.name", &vec![1; room])]);
            let plan = Attributes::plan(&path, &meta).unwrap().unwrap();
            assert_eq!(!plan.need_block(), fits, "{room} bytes in the inode");
        }
        for (room, fits) in [(4060 - 20, true), (4060 - 19, false)] {
            let meta = meta(&[("user.name", &vec![1; room])]);
            assert_eq!(Attributes::plan(&path, &meta).is_ok(), fits, "{room} bytes in a block");
        }
    }

    #[test]
    fn names_that_ext4_cannot_keep_are_refused() {
        let path = path("x");
        let long = format!("user.{}", "n".repeat(251));
        for name in
            ["user.", "user", "os2.x", "system.data", "system.posix_acl_accessx", "", "user.a\0b", &long]
        {
            let meta = meta(&[(name, b"")]);
            let found = Attributes::plan(&path, &meta);
            assert!(matches!(found, Err(Ext4Error::XattrName { .. })), "name {name:?}");
        }
        let meta = meta(&[("system.posix_acl_access", b"no list")]);
        assert!(matches!(Attributes::plan(&path, &meta), Err(Ext4Error::Acl { .. })));
    }

    #[test]
    fn hashes_are_those_of_the_kernel() {
        // Worked out by hand from ext4_xattr_hash_entry: a name alone, then with one word of value.
        assert_eq!(hash(b"a", b""), 0x61);
        assert_eq!(hash(b"ab", b""), 0x61 << 5 ^ 0x62);
        assert_eq!(hash(b"a", &[1, 0, 0, 0]), 0x61 << 16 ^ 1);
    }
}
