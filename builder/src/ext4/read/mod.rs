//! Reads an ext2, ext3 or ext4 filesystem out of an image, without mounting it.
//! Must not know: partition tables, what the files are for.
//! Spec: Documentation/filesystems/ext4 of the kernel; each module names its part.
//!
//! Nothing in an image is believed. Numbers are checked before they are followed, every loop ends because each
//! turn of it takes other bytes of the image, and checksums are checked where there are some. What the image
//! says of free space is not looked at. A journal that was not played back is refused: `e2fsck` does that.

mod bytes;
mod dir;
mod error;
mod import;
mod inode;
mod map;
mod superblock;
mod xattr;

pub use error::ReadError;
pub use import::into_tree;

use std::io;

use self::dir::Entry;
use self::inode::RawInode;
use self::map::Run;
use self::superblock::Shape;
use self::xattr::Attributes;
use crate::io::at::ReadAt;

/// The number of the root directory.
const ROOT: u32 = 2;
/// Longest directory: 65,536 names of 255 bytes, four times over.
const DIR_MAX: u64 = 64 << 20;
/// Longest target of a symbolic link, and the byte after it.
const LINK_MAX: u64 = 4096;

/// A filesystem of which the shape is known.
struct Filesystem<'d> {
    device: &'d dyn ReadAt,
    shape: Shape,
}

impl<'d> Filesystem<'d> {
    fn open(device: &'d dyn ReadAt) -> Result<Filesystem<'d>, ReadError> {
        Ok(Filesystem { device, shape: Shape::read(device)? })
    }

    /// The inode that `from` names.
    fn inode(&self, number: u32, from: &str) -> Result<RawInode, ReadError> {
        RawInode::read(self.device, &self.shape, number, from)
    }

    fn attributes(&self, inode: &RawInode) -> Result<Attributes, ReadError> {
        xattr::read(self.device, &self.shape, inode, &|number, size| {
            let from = format!("attributes of inode {}", inode.number);
            let value = self.inode(number, &from)?;
            if value.size != u64::from(size) || value.is_inline() {
                return Err(value.wrong(0x04, format!("a value of {size} bytes has {}", value.size)));
            }
            self.whole(&value, size.into())
        })
    }

    /// Bytes of a file, a piece at a time.
    fn content<'a>(
        &'a self,
        inode: &RawInode,
        attributes: &mut Attributes,
    ) -> Result<Content<'a>, ReadError> {
        if inode.is_inline() {
            let mut bytes = inode.block.to_vec();
            bytes.append(&mut attributes.inline);
            // What the file has beyond that are zeros: mke2fs makes such files, of nothing but a hole.
            bytes.truncate(usize::try_from(inode.size).unwrap_or(usize::MAX));
            return Ok(Content {
                fs: self,
                runs: Vec::new(),
                inline: bytes,
                size: inode.size,
                taken: 0,
                at: 0,
                run: 0,
            });
        }
        let (runs, taken) = map::runs(self.device, &self.shape, inode)?;
        Ok(Content { fs: self, runs, inline: Vec::new(), size: inode.size, taken, at: 0, run: 0 })
    }

    /// All bytes of a small file.
    fn whole(&self, inode: &RawInode, most: u64) -> Result<Vec<u8>, ReadError> {
        if inode.size > most {
            return Err(inode.wrong(0x04, format!("{} bytes, where {most} are the most", inode.size)));
        }
        let mut content = self.content(inode, &mut Attributes::default())?;
        let mut bytes = Vec::new();
        io::Read::read_to_end(&mut content, &mut bytes).map_err(|source| ReadError::Io {
            at: inode.at,
            len: 0,
            source,
        })?;
        Ok(bytes)
    }

    /// Where a link leads, and how many blocks that takes.
    fn target(&self, inode: &RawInode, attributes: &mut Attributes) -> Result<(Vec<u8>, u64), ReadError> {
        let (target, taken) = match inode.short_link() {
            Some(target) => (target.to_vec(), 0),
            None if inode.size >= LINK_MAX => {
                return Err(inode.wrong(0x04, format!("a link's target of {} bytes", inode.size)));
            }
            None => {
                let mut content = self.content(inode, attributes)?;
                let mut bytes = Vec::new();
                io::Read::read_to_end(&mut content, &mut bytes).map_err(|source| ReadError::Io {
                    at: inode.at,
                    len: 0,
                    source,
                })?;
                (bytes, content.taken)
            }
        };
        if target.is_empty() || target.contains(&0) {
            return Err(inode.wrong(0x28, "a symbolic link that leads nowhere"));
        }
        Ok((target, taken))
    }

    /// What is in a directory, and how many blocks that takes.
    fn entries(&self, inode: &RawInode, attributes: &Attributes) -> Result<(Vec<Entry>, u64), ReadError> {
        if inode.is_inline() {
            return Ok((dir::inline_entries(inode, &attributes.inline)?, 0));
        }
        let block = self.shape.block_size as u64;
        if !inode.size.is_multiple_of(block) || inode.size > DIR_MAX {
            return Err(inode.wrong(0x04, format!("a directory of {} bytes", inode.size)));
        }
        let (runs, taken) = map::runs(self.device, &self.shape, inode)?;
        let mut next = 0;
        for Run { logical, len, .. } in &runs {
            if *logical != next {
                break;
            }
            next += len;
        }
        if next < inode.size / block {
            return Err(inode.wrong(0x28, format!("a directory without its block {next}")));
        }
        let bytes = self.whole(inode, DIR_MAX)?;
        Ok((dir::entries(inode, &bytes, self.shape.block_size)?, taken))
    }
}

/// The bytes of a file in order, holes as zero bytes.
struct Content<'a> {
    fs: &'a Filesystem<'a>,
    runs: Vec<Run>,
    inline: Vec<u8>,
    size: u64,
    /// Blocks that belong to the inode.
    taken: u64,
    at: u64,
    /// The first run that does not end before `at`.
    run: usize,
}

impl Content<'_> {
    /// Where the content begins on the device: who reads in this order moves little.
    fn place(&self) -> u64 {
        self.runs.first().map_or(0, |run| run.physical)
    }

    /// Bytes that are no hole.
    fn mapped(&self) -> u64 {
        self.runs.iter().map(|run| run.len).sum::<u64>() * self.fs.shape.block_size as u64
    }
}

impl io::Read for Content<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = usize::try_from(self.size - self.at).unwrap_or(usize::MAX);
        let wanted = left.min(buffer.len());
        let buffer = &mut buffer[..wanted];
        if buffer.is_empty() {
            return Ok(0);
        }
        let inline = usize::try_from(self.at).ok().and_then(|at| self.inline.get(at..)).unwrap_or_default();
        if !inline.is_empty() {
            let len = buffer.len().min(inline.len());
            buffer[..len].copy_from_slice(&inline[..len]);
            self.at += len as u64;
            return Ok(len);
        }
        let block = self.fs.shape.block_size as u64;
        let bounds = |run: &Run| (run.logical * block, (run.logical + run.len) * block);
        while self.runs.get(self.run).is_some_and(|run| bounds(run).1 <= self.at) {
            self.run += 1;
        }
        let len = match self.runs.get(self.run) {
            Some(run) if bounds(run).0 <= self.at => {
                let (start, end) = bounds(run);
                let len = buffer.len().min(usize::try_from(end - self.at).unwrap_or(usize::MAX));
                self.fs.device.read_at(&mut buffer[..len], run.physical * block + (self.at - start))?;
                len
            }
            next => {
                let hole = next.map_or(u64::MAX, |run| bounds(run).0 - self.at);
                let len = buffer.len().min(usize::try_from(hole).unwrap_or(usize::MAX));
                buffer[..len].fill(0);
                len
            }
        };
        self.at += len as u64;
        Ok(len)
    }
}

#[cfg(test)]
mod tests;
