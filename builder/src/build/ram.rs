//! The image of a root that a node has in memory: an ext4 filesystem of the root tree, with no room to
//! spare.
//! Must not know: nodes, HTTP, where the bytes go.
//! Spec: design.md section 9, `root = "ram"`. A function of the tree alone, so that the server can make
//! the very bytes whose digest was written to the command line at build time.

use std::io::{self, Write};

use anyhow::Context;
use sha2::{Digest as _, Sha256};

use crate::boot::cmdline::RamImage;
use crate::digest::{Digest, Key};
use crate::ext4;
use crate::io::progress::{Progress, Unit};
use crate::io::sink::{ImageSink, Plain};
use crate::store::Store;
use crate::tree::{Time, Tree, dump};

/// Writes the image of `root`, whose files are in `store`, and gives its size in bytes.
pub fn ram_image(root: &Tree, store: &Store, sink: &mut dyn ImageSink) -> anyhow::Result<u64> {
    Ok(compact(root, "rootfs", store, sink)?)
}

/// Size and digest of the image.
pub(super) fn measure(root: &Tree, store: &Store, progress: &Progress) -> anyhow::Result<RamImage> {
    let task = progress.task("measuring the root's image", Unit::Bytes, None);
    let mut digest = Sha256::new();
    let mut sink = Plain::new(Each(|bytes: &[u8]| {
        digest.update(bytes);
        task.advance(bytes.len() as u64);
        Ok(())
    }));
    let size = ram_image(root, store, &mut sink).context("laying out the root's image")?;
    Ok(RamImage { digest: Digest::from(<[u8; 32]>::from(digest.finalize())), size })
}

/// Writes the smallest filesystem that holds `tree`. Its ids and times follow from the tree.
pub(super) fn compact(
    tree: &Tree,
    label: &str,
    store: &Store,
    sink: &mut dyn ImageSink,
) -> Result<u64, ext4::Ext4Error> {
    let mut uuid = [0; 16];
    let key = Key::new("compact image 1").with(label.as_bytes()).with(dump::digest(tree).bytes());
    uuid.copy_from_slice(&key.finish().bytes()[..16]);
    let size = ext4::size_for(tree, 0)?;
    // The root directory's own time, which every tree has; ext4 knows none before 1970.
    let made = tree.get(&crate::tree::TreePath::root()).map_or(0, |root| root.meta.mtime.sec);
    let options = ext4::Options {
        size,
        uuid,
        hash_seed: uuid,
        label: label.into(),
        time: Time::seconds(made.max(0)),
        reserved_percent: 0,
    };
    ext4::lay_out(tree, &options)?.write(store, sink)?;
    Ok(size)
}

/// Hands all bytes to a function.
pub(super) struct Each<F>(pub F);

impl<F: FnMut(&[u8]) -> io::Result<()>> Write for Each<F> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        (self.0)(bytes)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests;
