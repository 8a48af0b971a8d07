//! Bases that are imported, a tarball or a disk image: once into the store, and then found there.
//! Must not know: nodes, package layers, what is in the trees.
//! Spec: design.md section 6.

use anyhow::Context;

use crate::base::fetch::Fetcher;
use crate::base::root_apt::{self, Ground};
use crate::base::{Base, Pinned, Source, disk_image, tar};
use crate::digest::{Digest, Key};
use crate::hint::Hint;
use crate::io::progress::Progress;
use crate::store::Store;
use crate::tree::Tree;

/// The trees of an imported base.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Imported {
    /// The root filesystem.
    pub root: Digest,
    /// The boot partition.
    pub boot: Digest,
}

/// Imports the file of a base, unless the store has its trees: then the file is neither fetched nor read.
pub fn import(
    base: &Base,
    pinned: &Pinned,
    fetcher: &Fetcher,
    store: &Store,
    progress: &Progress,
) -> anyhow::Result<Imported> {
    if let Some(found) = find(base, store)? {
        return Ok(found);
    }
    let file = fetcher.pinned(&base.name, pinned)?;
    let trees = match base.source {
        Source::DiskImage(_) => {
            disk_image::read(&file, &pinned.sha256, store, progress).context("importing the base")?
        }
        _ => tar::read(&file, &pinned.sha256, store).context("importing the base")?,
    };
    let imported = Imported { root: store.put_tree(&trees.root)?, boot: store.put_tree(&trees.boot)? };
    store.put_layer(&key(base, pinned, "root"), &imported.root)?;
    store.put_layer(&key(base, pinned, "boot"), &imported.boot)?;
    Ok(imported)
}

/// The trees of a base that was imported before; `None` also for one that is none.
pub fn find(base: &Base, store: &Store) -> anyhow::Result<Option<Imported>> {
    let Some(pinned) = base.pinned() else { return Ok(None) };
    let layer = |part| store.layer(&key(base, pinned, part));
    Ok(layer("root")?.zip(layer("boot")?).map(|(root, boot)| Imported { root, boot }))
}

/// What packages are resolved on, on top of the imported root of a base: `None` where none can be.
pub fn ground(base: &Base, root: &Tree, store: &Store) -> anyhow::Result<Option<Ground>> {
    let Some(image) = base.image() else { return Ok(None) };
    root_apt::read(root, store, image, &base.file.display().to_string()).map_err(|e| {
        let hint = Hint(e.hint());
        anyhow::Error::new(e)
            .context(hint)
            .context(format!("reading apt's sources of the base `{}`", base.name))
    })
}

fn key(base: &Base, pinned: &Pinned, part: &str) -> Digest {
    let recipe = if matches!(base.source, Source::Tar(_)) { "tar base 1" } else { "disk image base 1" };
    Key::new(recipe).with(part.as_bytes()).with(pinned.sha256.bytes()).finish()
}
