//! Extended attributes: in the inode after its fields, in a block, and values that have an inode of their own.
//! Must not know: what attributes mean, but for access control lists, which have two forms.
//! Spec: Documentation/filesystems/ext4/attributes.rst; what names are shown is in fs/ext4/xattr.c.

use std::collections::BTreeMap;

use super::super::acl;
use super::bytes::{le16, le32};
use super::error::ReadError;
use super::inode::RawInode;
use super::map::block_of;
use super::superblock::{Shape, damaged};
use crate::io::at::ReadAt;

const MAGIC: u32 = 0xea02_0000;
/// An entry without its name.
const ENTRY: usize = 16;
/// Bytes of a block's header.
const HEADER: usize = 32;
/// The largest value: XATTR_SIZE_MAX.
const VALUE_MAX: u32 = 65_536;
/// The name of an inline file's further bytes, below `system.`.
const INLINE: &[u8] = b"data";

/// What an inode has.
#[derive(Debug, Default)]
pub(super) struct Attributes {
    /// By full name, as getxattr(2) gives them.
    pub shown: BTreeMap<Vec<u8>, Vec<u8>>,
    /// What of an inline file did not fit into `i_block`.
    pub inline: Vec<u8>,
}

/// Reads the attributes of an inode. `value_of` reads a value that is the content of another inode.
pub(super) fn read(
    device: &dyn ReadAt,
    shape: &Shape,
    inode: &RawInode,
    value_of: &dyn Fn(u32, u32) -> Result<Vec<u8>, ReadError>,
) -> Result<Attributes, ReadError> {
    let mut found = Attributes::default();
    let body_at = inode.at + shape.inode_size as u64 - inode.body.len() as u64;
    if le32(&inode.body, 0) == MAGIC {
        let place = format!("attributes of inode {}", inode.number);
        // Offsets of values count from the first entry.
        let entries = inode.body.get(4..).unwrap_or_default();
        Area { place: &place, at: body_at + 4, bytes: entries, first: 0 }.read(&mut found, value_of)?;
    }
    if inode.attributes != 0 {
        let block = inode.attributes;
        let bytes = block_of(device, shape, block, |what| inode.wrong(0x68, what))?;
        let (place, at) =
            (format!("attribute block of inode {}", inode.number), block * shape.block_size as u64);
        let wrong = |field: u64, what: String| damaged(&place, at + field, what);
        if le32(&bytes, 0) != MAGIC || le32(&bytes, 8) != 1 {
            return Err(wrong(0, format!("magic number {:#x}, {} blocks", le32(&bytes, 0), le32(&bytes, 8))));
        }
        if let Some(seed) = shape.seed {
            let mut blank = bytes.clone();
            blank[16..20].fill(0);
            if seed.with(&block.to_le_bytes()).with(&blank).sum() != le32(&bytes, 16) {
                return Err(wrong(16, "its checksum is wrong".into()));
            }
        }
        // Offsets of values count from the block's start.
        Area { place: &place, at, bytes: &bytes, first: HEADER }.read(&mut found, value_of)?;
    }
    Ok(found)
}

/// Entries from `first` on, and values, both in `bytes`.
struct Area<'a> {
    place: &'a str,
    at: u64,
    bytes: &'a [u8],
    first: usize,
}

impl Area<'_> {
    fn read(
        &self,
        found: &mut Attributes,
        value_of: &dyn Fn(u32, u32) -> Result<Vec<u8>, ReadError>,
    ) -> Result<(), ReadError> {
        let mut at = self.first;
        loop {
            let wrong = |what: String| damaged(self.place, self.at + at as u64, what);
            let Some(entry) = self.bytes.get(at..).filter(|rest| rest.len() >= 4) else {
                return Err(wrong("the last entry is cut off".into()));
            };
            // Four zero bytes end the list.
            if le32(entry, 0) == 0 {
                return Ok(());
            }
            let (name_len, index) = (usize::from(entry[0]), entry[1]);
            let Some(name) = entry.get(ENTRY..ENTRY + name_len) else {
                return Err(wrong("an entry reaches beyond its end".into()));
            };
            let (offset, own, size) = (usize::from(le16(entry, 2)), le32(entry, 4), le32(entry, 8));
            if size > VALUE_MAX {
                return Err(wrong(format!("a value of {size} bytes")));
            }
            let value = match own {
                0 => {
                    let end = offset + size as usize;
                    let value = self.bytes.get(offset..end);
                    value.ok_or_else(|| wrong("a value reaches beyond its end".into()))?.to_vec()
                }
                number => value_of(number, size)?,
            };
            self.take(index, name, value, found).map_err(wrong)?;
            at += ENTRY + name_len.next_multiple_of(4);
        }
    }

    fn take(&self, index: u8, name: &[u8], value: Vec<u8>, found: &mut Attributes) -> Result<(), String> {
        if name.contains(&0) {
            return Err("a name with a zero byte".into());
        }
        let (prefix, value): (&[u8], _) = match index {
            1 => (b"user.", value),
            2 => (b"system.posix_acl_access", acl::from_disk(&value).map_err(str::to_owned)?),
            3 => (b"system.posix_acl_default", acl::from_disk(&value).map_err(str::to_owned)?),
            4 => (b"trusted.", value),
            6 => (b"security.", value),
            7 if name == INLINE => {
                found.inline = value;
                return Ok(());
            }
            // Encryption's, Lustre's and others: the kernel does not show them either.
            _ => return Ok(()),
        };
        if matches!(index, 1 | 4 | 6) == name.is_empty() {
            return Err("a name that is none".into());
        }
        match found.shown.insert([prefix, name].concat(), value) {
            None => Ok(()),
            Some(_) => Err("an attribute that is there twice".into()),
        }
    }
}
