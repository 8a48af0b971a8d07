//! The store: objects, trees, layers and generations on disk, each under the digest of what it is.
//! Must not know: filesystem formats, how a layer is made.
//! Spec: design.md sections 2 and 6.
//!
//! ```text
//! lock                       held shared by every user of the store, alone by gc
//! objects/ab/cdef…           bytes of one file, mode 0444, never changed
//! trees/<digest>             a tree's canonical text, zstd
//! layers/<key>               digest of the tree that these inputs give
//! generations/               see `generation`
//! serve/                     the boot record of `gt-image serve`; `pins` names what gc must leave
//! tmp/                       files and directories that are being made
//! ```
//!
//! Everything is written under `tmp/` and renamed, so a reader sees whole things or nothing. Before
//! a tree is recorded the filesystem is synced, so a recorded tree has its objects also after a
//! power cut; an object whose length is wrong counts as absent and is written again.

mod generation;
mod object;
mod reader;
mod work;

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{self, Seek, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::digest::Digest;
use crate::io::atomic;
use crate::tree::{Object, Tree, dump};

pub use generation::{Freed, Generation, PINS};
pub use object::ObjectWriter;
pub use reader::{Reader, Summary};
pub use work::WorkDir;

/// The store could not do what was asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// A file of the store could not be read or written.
    #[error("{doing} `{}`", path.display())]
    Io {
        /// A gerund: reading, writing.
        doing: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Something recorded is no longer there or was changed by someone else.
    #[error("`{}` is damaged: {what}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        what: String,
    },
    /// The source of an object could not be read.
    #[error("reading the bytes of an object")]
    Source(#[source] io::Error),
}

type Result<T> = std::result::Result<T, StoreError>;

/// An open store. Cheap to clone; several processes may use one store at once.
#[derive(Debug, Clone)]
pub struct Store {
    root: PathBuf,
    // Held open so that gc waits for all users, and all users for gc.
    lock: Arc<File>,
    memory: Arc<HashMap<Digest, Vec<u8>>>,
}

impl Store {
    /// Opens the store at `root`, making it when there is none, and waits while gc has it.
    pub fn open(root: &Path) -> Result<Store> {
        Store::open_with(root, rustix::fs::FlockOperation::LockShared)
    }

    /// Opens the store for gc alone: waits until no other process uses it.
    pub fn open_alone(root: &Path) -> Result<Store> {
        Store::open_with(root, rustix::fs::FlockOperation::LockExclusive)
    }

    fn open_with(root: &Path, how: rustix::fs::FlockOperation) -> Result<Store> {
        for dir in ["objects", "trees", "layers", "tmp"] {
            let dir = root.join(dir);
            fs::create_dir_all(&dir).map_err(|e| fail("making", &dir, e))?;
        }
        let root = root.canonicalize().map_err(|e| fail("opening", root, e))?;
        let path = root.join("lock");
        let mut options = File::options();
        let lock = options.create(true).truncate(false).write(true).open(&path);
        let lock = lock.map_err(|e| fail("opening", &path, e))?;
        rustix::fs::flock(&lock, how).map_err(|e| fail("locking", &path, e.into()))?;
        Ok(Store { root, lock: Arc::new(lock), memory: Arc::default() })
    }

    /// Where the store is.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Where an object's bytes are, whether or not it exists.
    pub fn object_path(&self, digest: &Digest) -> PathBuf {
        let hex = digest.hex();
        self.root.join("objects").join(&hex[..2]).join(&hex[2..])
    }

    /// This store with some more objects that are in memory alone: a node's secrets, which go into its
    /// disk image and must never be written to the store.
    #[must_use]
    pub fn with_memory(&self, contents: Vec<Vec<u8>>) -> Store {
        let mut memory = (*self.memory).clone();
        memory.extend(contents.into_iter().map(|bytes| (Digest::of(&bytes), bytes)));
        Store { memory: Arc::new(memory), ..self.clone() }
    }

    /// Opens an object for reading. Checks its length, not its digest.
    pub fn open_object(&self, object: &Object) -> Result<File> {
        if let Some(bytes) = self.memory.get(&object.digest) {
            return in_memory(bytes).map_err(StoreError::Source);
        }
        let path = self.object_path(&object.digest);
        let file = File::open(&path).map_err(|e| fail("reading", &path, e))?;
        let len = file.metadata().map_err(|e| fail("reading", &path, e))?.len();
        if len != object.size {
            let what = format!("{len} bytes instead of {}", object.size);
            return Err(StoreError::Damaged { path, what });
        }
        Ok(file)
    }

    /// All bytes of a small object, such as a configuration file.
    pub fn read_object(&self, object: &Object) -> Result<Vec<u8>> {
        let mut bytes = Vec::new();
        let read = io::Read::read_to_end(&mut self.open_object(object)?, &mut bytes);
        read.map_err(|e| fail("reading", &self.object_path(&object.digest), e))?;
        Ok(bytes)
    }

    /// Starts a new object.
    pub fn object_writer(&self) -> Result<ObjectWriter> {
        ObjectWriter::new(self)
    }

    /// Stores all that `reader` gives as one object; never more than a buffer is in memory.
    pub fn put_reader(&self, reader: &mut dyn io::Read) -> Result<Object> {
        let mut writer = self.object_writer()?;
        let mut buffer = vec![0; 256 * 1024];
        loop {
            match reader.read(&mut buffer) {
                Ok(0) => return writer.finish(),
                Ok(n) => writer.write(&buffer[..n])?,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(StoreError::Source(e)),
            }
        }
    }

    /// Stores some bytes as one object.
    pub fn put_bytes(&self, bytes: &[u8]) -> Result<Object> {
        let mut writer = self.object_writer()?;
        writer.write(bytes)?;
        writer.finish()
    }

    /// Records a tree. All its objects must be in the store already.
    pub fn put_tree(&self, tree: &Tree) -> Result<Digest> {
        let text = dump::write(tree);
        let digest = Digest::of(text.as_bytes());
        let path = self.root.join("trees").join(digest.hex());
        if path.exists() {
            return Ok(digest);
        }
        self.sync()?;
        let packed = zstd::encode_all(text.as_bytes(), 3).map_err(|e| fail("packing", &path, e))?;
        self.write(&path, &packed)?;
        Ok(digest)
    }

    /// Reads a recorded tree and checks its digest.
    pub fn tree(&self, digest: &Digest) -> Result<Tree> {
        let path = self.root.join("trees").join(digest.hex());
        let packed = fs::read(&path).map_err(|e| fail("reading", &path, e))?;
        let damaged = |what: String| StoreError::Damaged { path: path.clone(), what };
        let text = zstd::decode_all(&packed[..]).map_err(|e| damaged(e.to_string()))?;
        if Digest::of(&text) != *digest {
            return Err(damaged("its digest is not its name".into()));
        }
        dump::parse(&text).map_err(|e| damaged(e.to_string()))
    }

    /// True when the tree is recorded.
    pub fn has_tree(&self, digest: &Digest) -> bool {
        self.root.join("trees").join(digest.hex()).exists()
    }

    /// The tree that was recorded for these inputs, unless it is gone.
    pub fn layer(&self, key: &Digest) -> Result<Option<Digest>> {
        let path = self.root.join("layers").join(key.hex());
        match fs::read_to_string(&path) {
            // A record that is no digest can only be a crash of the machine: as good as absent.
            Ok(text) => Ok(text.trim().parse().ok().filter(|tree| self.has_tree(tree))),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(fail("reading", &path, e)),
        }
    }

    /// Records which tree these inputs gave.
    pub fn put_layer(&self, key: &Digest, tree: &Digest) -> Result<()> {
        let path = self.root.join("layers").join(key.hex());
        self.write(&path, format!("{tree}\n").as_bytes())
    }

    /// A directory of our own under `tmp/`, removed when dropped, and by a later run when killed.
    pub fn work_dir(&self, purpose: &str) -> Result<WorkDir> {
        WorkDir::new(&self.root.join("tmp"), purpose)
    }

    /// Makes all that was written so far outlive a power cut.
    pub fn sync(&self) -> Result<()> {
        rustix::fs::syncfs(&self.lock).map_err(|e| fail("syncing", &self.root, e.into()))
    }

    /// Under `tmp/` first: a kill must leave nothing among the records, where gc would meet it.
    fn write(&self, path: &Path, bytes: &[u8]) -> Result<()> {
        let write = || {
            let mut file = atomic::begin_in(&self.root.join("tmp"), "record-")?;
            file.write_all(bytes)?;
            atomic::finish(file, path)
        };
        write().map_err(|e| fail("writing", path, e))
    }
}

/// A file that is nowhere on disk: memfd_create(2).
fn in_memory(bytes: &[u8]) -> io::Result<File> {
    let mut file = File::from(rustix::fs::memfd_create("object", rustix::fs::MemfdFlags::CLOEXEC)?);
    file.write_all(bytes)?;
    file.rewind()?;
    Ok(file)
}

fn fail(doing: &'static str, path: &Path, source: io::Error) -> StoreError {
    StoreError::Io { doing, path: path.into(), source }
}

#[cfg(test)]
mod tests;
