//! Reading the store by handles that were opened early: what a server does after it gave up the
//! rights to open paths. No lock is held, so that gc need not wait for a server that runs for
//! months; the server says in `serve/pins` what gc must leave.
//! Must not know: protocols, boots.
//! Spec: openat(2): a path is resolved from the directory that the handle names.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{Mode, OFlags};

use super::{Result, Store, StoreError, fail};
use crate::digest::Digest;

/// The directories of a store, open. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Reader {
    dirs: Arc<Dirs>,
}

#[derive(Debug)]
struct Dirs {
    root: PathBuf,
    objects: OwnedFd,
    trees: OwnedFd,
    generations: OwnedFd,
}

/// What a server needs to know of a generation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Summary {
    /// The digest of its manifest, which names it.
    pub generation: Digest,
    /// The root filesystem.
    pub root: Digest,
    /// What the firmware reads.
    pub boot: Digest,
    /// The manifest's bytes (JSON).
    pub manifest: Vec<u8>,
}

impl Store {
    /// Opens the directories for reading. They stay readable after this store is dropped.
    pub fn reader(&self) -> Result<Reader> {
        let open = |name: &str| {
            let path = self.root().join(name);
            std::fs::create_dir_all(&path).map_err(|e| fail("making", &path, e))?;
            let flags = OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC;
            rustix::fs::open(&path, flags, Mode::empty()).map_err(|e| fail("opening", &path, e.into()))
        };
        let (objects, trees, generations) = (open("objects")?, open("trees")?, open("generations")?);
        let root = self.root().to_path_buf();
        Ok(Reader { dirs: Arc::new(Dirs { root, objects, trees, generations }) })
    }
}

impl Reader {
    /// The digest of a node's current generation.
    pub fn current(&self, node: &str) -> Result<Option<Digest>> {
        self.digest(&Path::new(node).join("current"))
    }

    /// A recorded generation, with its manifest checked against its name.
    pub fn generation(&self, node: &str, digest: &Digest) -> Result<Option<Summary>> {
        let dir = Path::new(node).join(digest.hex());
        let (Some(root), Some(boot)) = (self.digest(&dir.join("root"))?, self.digest(&dir.join("boot"))?)
        else {
            return Ok(None);
        };
        let path = dir.join("manifest.json");
        let mut manifest = Vec::new();
        open_beneath(&self.dirs.generations, &path)
            .and_then(|mut file| file.read_to_end(&mut manifest))
            .map_err(|e| self.fail("generations", &path, e))?;
        if Digest::of(&manifest) != *digest {
            let what = "its manifest's digest is not its name".into();
            return Err(StoreError::Damaged { path: self.path("generations", &dir), what });
        }
        Ok(Some(Summary { generation: *digest, root, boot, manifest }))
    }

    /// Opens an object of `size` bytes. Checks its length, not its digest.
    pub fn object(&self, digest: &Digest, size: u64) -> io::Result<File> {
        let hex = digest.hex();
        let file = open_beneath(&self.dirs.objects, &Path::new(&hex[..2]).join(&hex[2..]))?;
        let len = file.metadata()?.len();
        if len != size {
            let what = format!("object {digest} has {len} bytes instead of {size}");
            return Err(io::Error::new(io::ErrorKind::InvalidData, what));
        }
        Ok(file)
    }

    /// Opens a tree's canonical text, packed with zstd.
    pub fn tree(&self, digest: &Digest) -> Result<File> {
        let name = PathBuf::from(digest.hex());
        open_beneath(&self.dirs.trees, &name).map_err(|e| self.fail("trees", &name, e))
    }

    /// Where a tree is, for messages.
    pub fn tree_path(&self, digest: &Digest) -> PathBuf {
        self.path("trees", Path::new(&digest.hex()))
    }

    fn digest(&self, path: &Path) -> Result<Option<Digest>> {
        let mut text = String::new();
        // A digest has 71 bytes; whatever is longer is none, and need not be read to its end.
        let read = |file: File| file.take(200).read_to_string(&mut text);
        match open_beneath(&self.dirs.generations, path).and_then(read) {
            Ok(_) => text.trim().parse().map(Some).map_err(|e| StoreError::Damaged {
                path: self.path("generations", path),
                what: format!("{e}"),
            }),
            Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => Ok(None),
            Err(e) => Err(self.fail("generations", path, e)),
        }
    }

    fn path(&self, dir: &str, name: &Path) -> PathBuf {
        self.dirs.root.join(dir).join(name)
    }

    fn fail(&self, dir: &str, name: &Path, e: io::Error) -> StoreError {
        fail("reading", &self.path(dir, name), e)
    }
}

fn open_beneath(dir: &OwnedFd, path: &Path) -> io::Result<File> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NONBLOCK;
    Ok(File::from(rustix::fs::openat(dir, path, flags, Mode::empty())?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Generation;
    use crate::tree::tests::tree;
    use crate::tree::{Inode, Kind, Meta};
    use std::fs;

    #[test]
    fn what_was_recorded_is_read_without_the_store() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("store")).unwrap();
        let object = store.put_bytes(b"hello").unwrap();
        let inode = Inode { meta: Meta::default(), kind: Kind::File(object.clone()) };
        let root = store.put_tree(&tree(&[("a", inode)])).unwrap();
        let manifest = b"{}".to_vec();
        let digest = Digest::of(&manifest);
        let reader = store.reader().unwrap();
        assert_eq!(reader.current("fenn").unwrap(), None);
        let generation =
            Generation { digest, root, boot: root, ram: None, manifest, sbom: vec![], origins: vec![] };
        store.put_generation("fenn", &generation).unwrap();
        drop(store);
        // gc need not wait for a reader.
        drop(Store::open_alone(&dir.path().join("store")).unwrap());
        // The handles lead there whatever becomes of the path.
        fs::rename(dir.path().join("store"), dir.path().join("moved")).unwrap();
        assert_eq!(reader.current("fenn").unwrap(), Some(digest));
        let found = reader.generation("fenn", &digest).unwrap().unwrap();
        assert_eq!((found.root, found.boot, &found.manifest[..]), (root, root, &b"{}"[..]));
        assert_eq!(reader.generation("jast", &digest).unwrap(), None);
        let mut text = String::new();
        reader.object(&object.digest, 5).unwrap().read_to_string(&mut text).unwrap();
        assert_eq!(text, "hello");
        assert_eq!(reader.object(&object.digest, 6).unwrap_err().kind(), io::ErrorKind::InvalidData);
        assert!(reader.tree(&root).is_ok());
    }

    #[test]
    fn damage_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let reader = store.reader().unwrap();
        let node = dir.path().join("generations/fenn");
        fs::create_dir_all(&node).unwrap();
        fs::write(node.join("current"), "x".repeat(1000)).unwrap();
        assert!(matches!(reader.current("fenn"), Err(StoreError::Damaged { .. })));
    }
}
