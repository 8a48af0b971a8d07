//! The image of a root that a node has in memory: an ext4 filesystem of the root tree, with no room to
//! spare.
//! Must not know: nodes, HTTP, where the bytes go.
//! Spec: design.md section 9, `root = "ram"`. A function of the tree alone, so that it is made
//! once for all nodes that have the same tree.

use std::io::{self, Write};

use anyhow::Context;

use crate::boot::cmdline::RamImage;
use crate::digest::{Digest, Key};
use crate::ext4;
use crate::io::progress::{Progress, Unit};
use crate::io::sink::{ImageSink, Plain};
use crate::store::Store;
use crate::tree::{Inode, Kind, Meta, Time, Tree, TreePath, dump};

/// Raised when the same tree gives another image.
const RECIPE: &str = "root in memory 1";

/// Writes the image of `root`, whose files are in `store`, and gives its size in bytes.
pub fn ram_image(root: &Tree, store: &Store, sink: &mut dyn ImageSink) -> anyhow::Result<u64> {
    Ok(compact(root, "rootfs", store, sink)?)
}

/// The image's name in its tree.
const NAME: &str = "root.img";

/// An image in the store.
pub struct Stored {
    /// Size and digest, for the command line.
    pub image: RamImage,
    /// The tree that has it as its only file.
    pub tree: Digest,
}

/// Puts the image of `root` into the store, once for each tree. A server then sends it as it sends any
/// file: it makes nothing, and needs no right to write.
pub(super) fn store(
    root: &Tree,
    digest: &Digest,
    store: &Store,
    progress: &Progress,
) -> anyhow::Result<Stored> {
    let key = Key::new(RECIPE).with(digest.bytes()).finish();
    let name = TreePath::new(NAME)?;
    if let Some(tree) = store.layer(&key)?
        && let Some(object) = store.tree(&tree)?.get(&name).and_then(Inode::object)
    {
        return Ok(Stored { image: RamImage { digest: object.digest, size: object.size }, tree });
    }
    let task = progress.task("making the image of a root in memory", Unit::Bytes, None);
    let mut writer = store.object_writer()?;
    let mut sink = Plain::new(Each(|bytes: &[u8]| {
        task.advance(bytes.len() as u64);
        writer.write(bytes).map_err(io::Error::other)
    }));
    ram_image(root, store, &mut sink).context("laying out the image of a root in memory")?;
    let object = writer.finish()?;
    let image = RamImage { digest: object.digest, size: object.size };
    let mut tree = Tree::new(Meta::default());
    tree.insert(name, Inode { meta: Meta::root_owned(0o444, Time::default()), kind: Kind::File(object) })?;
    let tree = store.put_tree(&tree)?;
    store.put_layer(&key, &tree)?;
    Ok(Stored { image, tree })
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
    let made = tree.get(&TreePath::root()).map_or(0, |root| root.meta.mtime.sec);
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
