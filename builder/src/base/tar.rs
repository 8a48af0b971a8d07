//! The base kind `tar`: a root filesystem tarball by path and digest, as a root and a boot tree.
//! Must not know: base definitions, locks, downloads.
//! Spec: design.md sections 6 and 13: what the tarball has in `boot/firmware` is the boot tree; the
//! root keeps the empty directory as the place where the node mounts it. All attributes are kept.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use sha2::{Digest as _, Sha256};

use crate::archive::import::{self, ImportError};
use crate::archive::tar::Reader;
use crate::archive::{CompressError, Decoder};
use crate::digest::Digest;
use crate::store::Store;
use crate::tree::{Inode, Meta, Tree, TreeError, TreePath};

/// Where Debian and Raspberry Pi OS mount the boot partition.
const BOOT: &str = "boot/firmware";

/// The trees of a base.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trees {
    /// The root filesystem, with `boot/firmware` empty.
    pub root: Tree,
    /// What is in `boot/firmware`; its root is that directory.
    pub boot: Tree,
}

/// A tarball that gives no base.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TarBaseError {
    /// The file could not be read.
    #[error("reading `{}`", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The file is not the one that was pinned. Other faults of such a file are not told.
    #[error("`{}` has the digest {found}, and {wanted} is pinned", path.display())]
    Digest {
        /// The file.
        path: PathBuf,
        /// Its digest.
        found: Digest,
        /// The digest that was asked for.
        wanted: Digest,
    },
    /// The compressed stream is bad.
    #[error("`{}`: {source}", path.display())]
    Packed {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: CompressError,
    },
    /// The archive is bad or holds what cannot be in a tree.
    #[error("`{}`: {source}", path.display())]
    Archive {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: ImportError,
    },
    /// `boot/firmware` is there and cannot be a mount point.
    #[error("`{}`: {source}", path.display())]
    Boot {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: TreeError,
    },
}

/// Reads a tarball, compressed or not, into the store. The file is read once; nothing is handed out
/// unless all of it has the digest `sha256`.
pub fn read(path: &Path, sha256: &Digest, store: &Store) -> Result<Trees, TarBaseError> {
    let io = |source| TarBaseError::Io { path: path.to_owned(), source };
    let file = File::open(path).map_err(io)?;
    let mut source = Digesting::new(file);
    let tree = read_tree(&mut source, path, store);
    // Also after an error: a damaged download is told as such, not as what it happens to break.
    io::copy(&mut source, &mut io::sink()).map_err(io)?;
    let found = source.finish();
    if found != *sha256 {
        return Err(TarBaseError::Digest { path: path.to_owned(), found, wanted: *sha256 });
    }
    split(tree?).map_err(|source| TarBaseError::Boot { path: path.to_owned(), source })
}

fn read_tree(source: &mut Digesting<File>, path: &Path, store: &Store) -> Result<Tree, TarBaseError> {
    let decoder = Decoder::new(source).map_err(|e| match e.downcast::<CompressError>() {
        Ok(source) => TarBaseError::Packed { path: path.to_owned(), source },
        Err(source) => TarBaseError::Io { path: path.to_owned(), source },
    })?;
    let tree = import::into_tree(&mut Reader::new(decoder), store);
    tree.map_err(|source| TarBaseError::Archive { path: path.to_owned(), source })
}

/// Takes what is below `boot/firmware` out of the root. A root without the directory gets one,
/// `root:root 0755`: the node's fstab mounts there.
pub fn split(mut root: Tree) -> Result<Trees, TreeError> {
    let mount_point = TreePath::new(BOOT)?;
    let made = Meta::root_owned(0o755, root.get(&TreePath::root()).map(|r| r.meta.mtime).unwrap_or_default());
    root.make_parents(&mount_point, &made)?;
    let meta = match root.get(&mount_point) {
        Some(inode) if inode.is_dir() => inode.meta.clone(),
        None => made,
        Some(inode) => {
            let found = inode.kind.noun();
            return Err(TreeError::NotDir {
                path: mount_point.join("config.txt")?,
                parent: mount_point,
                found,
            });
        }
    };
    let mut boot = Tree::new(meta.clone());
    let mut first = std::collections::HashMap::new();
    for (path, id, inode) in root.below(&mount_point).filter(|(path, ..)| **path != mount_point) {
        let path = TreePath::new(&path.as_bytes()[BOOT.len()..])?;
        match first.get(&id) {
            Some(&first) => boot.link(path, first)?,
            None => _ = first.insert(id, boot.insert(path, inode.clone())?),
        }
    }
    root.remove(&mount_point);
    root.insert(mount_point, Inode::dir(meta))?;
    Ok(Trees { root, boot })
}

/// Digests what is read through it.
pub(super) struct Digesting<R> {
    inner: R,
    hasher: Sha256,
}

impl<R: Read> Digesting<R> {
    pub fn new(inner: R) -> Digesting<R> {
        Digesting { inner, hasher: Sha256::new() }
    }

    /// The digest of all that was read.
    pub fn finish(self) -> Digest {
        Digest::from(<[u8; 32]>::from(self.hasher.finalize()))
    }
}

impl<R: Read> Read for Digesting<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let got = self.inner.read(buffer)?;
        self.hasher.update(&buffer[..got]);
        Ok(got)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::archive::compress::tests::{gzip, xz, zst};
    use crate::archive::tar_write;
    use crate::tree::tests::{any_tree, dir, file, path, symlink, tree};
    use crate::tree::{Kind, Time};
    use proptest::prelude::*;

    fn scratch() -> (tempfile::TempDir, Store) {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("store")).unwrap();
        (dir, store)
    }

    /// A root with boot files, and its tarball.
    fn sample(store: &Store) -> (Tree, Vec<u8>) {
        let object = store.put_bytes(b"arm_64bit=1\n").unwrap();
        let config = Inode { meta: Meta::root_owned(0o755, Time::seconds(5)), kind: Kind::File(object) };
        let mut root = tree(&[
            ("boot/firmware/overlays", dir()),
            ("boot/firmware/config.txt", config.clone()),
            ("etc/config", config),
        ]);
        root.meta_mut(&path("boot/firmware")).unwrap().mode = 0o700;
        let config = root.id(&path("boot/firmware/config.txt")).unwrap();
        root.link(path("boot/firmware/copy.txt"), config).unwrap();
        root.link(path("outside"), config).unwrap();
        let mut bytes = Vec::new();
        tar_write::write(&root, store, &mut bytes).unwrap();
        (root, bytes)
    }

    #[test]
    fn a_tarball_of_any_compression_gives_two_trees() {
        let (dir, store) = scratch();
        let (root, bytes) = sample(&store);
        for (name, bytes) in
            [("a.tar", bytes.clone()), ("a.gz", gzip(&bytes)), ("a.xz", xz(&bytes)), ("a.zst", zst(&bytes))]
        {
            let file = dir.path().join(name);
            std::fs::write(&file, &bytes).unwrap();
            let got = read(&file, &Digest::of(&bytes), &store).unwrap();
            assert_eq!(got, split(root.clone()).unwrap(), "{name}");
        }
    }

    #[test]
    fn boot_files_move_and_the_mount_point_stays() {
        let (_dir, store) = scratch();
        let Trees { root, boot } = split(sample(&store).0).unwrap();
        let names = |t: &Tree| t.iter().map(|(p, ..)| p.to_string()).collect::<Vec<_>>();
        assert_eq!(names(&boot), ["/", "/config.txt", "/copy.txt", "/overlays"]);
        assert_eq!(names(&root), ["/", "/boot", "/boot/firmware", "/etc", "/etc/config", "/outside"]);
        assert_eq!(boot.id(&path("config.txt")), boot.id(&path("copy.txt")));
        assert_eq!(boot.get(&TreePath::root()).unwrap().meta.mode, 0o700);
        assert_eq!(root.get(&path(BOOT)).unwrap().meta.mode, 0o700);
        let made = split(tree(&[("etc", dir())])).unwrap();
        assert_eq!(made.root.get(&path(BOOT)).unwrap().meta, Meta::root_owned(0o755, Time::seconds(7)));
        assert_eq!(made.boot.len(), 1);
        for other in [file(b""), symlink("../boot2")] {
            assert!(matches!(split(tree(&[(BOOT, other.clone())])), Err(TreeError::NotDir { .. })));
            assert!(split(tree(&[("boot", other)])).is_err());
        }
    }

    #[test]
    fn another_file_is_refused_whatever_else_is_wrong_with_it() {
        let (dir, store) = scratch();
        let (_, bytes) = sample(&store);
        let good = Digest::of(&bytes);
        let file = dir.path().join("root.tar");
        let cut = &bytes[..bytes.len() / 2];
        for other in [&b"<html>not found</html>"[..], b"", cut, &[bytes.as_slice(), b"x"].concat()] {
            std::fs::write(&file, other).unwrap();
            assert!(matches!(read(&file, &good, &store), Err(TarBaseError::Digest { .. })));
        }
        // With the digest that it has, the archive's own fault is told.
        std::fs::write(&file, cut).unwrap();
        let error = read(&file, &Digest::of(cut), &store).unwrap_err().to_string();
        assert!(error.contains("root.tar`: offset") && error.ends_with("the archive is cut off"), "{error}");
        std::fs::write(&file, b"BZh91AY&SY").unwrap();
        let error = read(&file, &Digest::of(b"BZh91AY&SY"), &store).unwrap_err();
        assert!(matches!(error, TarBaseError::Packed { .. }), "{error}");
        assert!(matches!(read(&dir.path().join("no"), &good, &store), Err(TarBaseError::Io { .. })));
    }

    proptest! {
        #[test]
        fn nothing_is_lost_by_the_split(t in any_tree()) {
            let before = t.len();
            let had = t.get(&path("boot")).is_some();
            let Ok(Trees { root, boot }) = split(t) else { return Ok(()) };
            // Both trees have a root; `boot` and `boot/firmware` may be new.
            prop_assert_eq!(root.len() + boot.len() - 1, before + if had { 1 } else { 2 });
        }
    }
}
