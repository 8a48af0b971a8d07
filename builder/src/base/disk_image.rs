//! The base kind `disk-image`: an official image by place and digest, as a root and a boot tree.
//! Must not know: base definitions, locks, downloads.
//! Spec: design.md section 6: without root, mounts or loop devices. The image is decompressed once, into a file
//! without a name in the store's folder: an ext4 filesystem's directories come after the files that they name, so
//! it cannot be read from a stream. Runs of zero bytes take no space there.

use std::fs::File;
use std::io::{self, Read, Seek};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use super::tar::{self, Digesting, Trees};
use crate::archive::{CompressError, Decoder, Format};
use crate::digest::Digest;
use crate::disk::read::{Found, TableError, partitions};
use crate::ext4::read::{self as ext, ReadError};
use crate::fat::read::{self as fat, FatReadError};
use crate::io::at::Window;
use crate::io::progress::{Progress, Task, Unit};
use crate::store::{Store, StoreError};
use crate::tree::TreeError;

/// Bytes of an image at most, decompressed: a few bytes can stand for any number of zeros.
const SIZE_MAX: u64 = 64 << 30;
/// Bytes that are decompressed at a time; such a piece of zeros is not written.
const PIECE: usize = 64 * 1024;

/// An image that gives no base.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DiskImageError {
    /// The file could not be read, or there is no room to decompress it.
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
    /// The zip archive is bad, or has not exactly one image.
    #[error("`{}`: {what}", path.display())]
    Zip {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        what: String,
    },
    /// More bytes than any image has.
    #[error("`{}` has more than {SIZE_MAX} bytes when decompressed", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
    },
    /// The partition table is bad.
    #[error("`{}`: {source}", path.display())]
    Table {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: TableError,
    },
    /// There are no two partitions of which one is FAT and the other ext4.
    #[error("`{}` has no {what} partition: {found}", path.display())]
    Partition {
        /// The file.
        path: PathBuf,
        /// Which is missing.
        what: &'static str,
        /// What is there.
        found: String,
    },
    /// The boot partition cannot be read.
    #[error("`{}`, partition {number}", path.display())]
    Fat {
        /// The file.
        path: PathBuf,
        /// Which partition.
        number: u32,
        /// What is wrong.
        source: FatReadError,
    },
    /// The root partition cannot be read.
    #[error("`{}`, partition {number}", path.display())]
    Ext {
        /// The file.
        path: PathBuf,
        /// Which partition.
        number: u32,
        /// What is wrong.
        source: ReadError,
    },
    /// The trees do not fit each other.
    #[error("`{}`: {source}", path.display())]
    Tree {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: TreeError,
    },
    /// The store has no room, for example.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Reads an image, compressed or not, into the store. Nothing is handed out unless all of the file has the
/// digest `sha256`.
pub fn read(
    path: &Path,
    sha256: &Digest,
    store: &Store,
    progress: &Progress,
) -> Result<Trees, DiskImageError> {
    let io = |source| DiskImageError::Io { path: path.to_owned(), source };
    let file = File::open(path).map_err(io)?;
    let raw = unpack(path, file, sha256, store, progress)?;
    let size = raw.metadata().map_err(io)?.len();
    let table = partitions(&Window::new(&raw, 0, size))
        .map_err(|source| DiskImageError::Table { path: path.to_owned(), source })?;
    let mut windows = table.iter().map(|found| (found, Window::new(&raw, found.start, found.size)));
    let missing = |what| DiskImageError::Partition { path: path.to_owned(), what, found: listed(&table) };
    let (boot, window) = windows.next().ok_or_else(|| missing("boot"))?;
    let number = boot.number;
    let boot = fat::into_tree(&window, store).map_err(|source| DiskImageError::Fat {
        path: path.to_owned(),
        number,
        source,
    })?;
    let (root, window) = windows.next().ok_or_else(|| missing("root"))?;
    let task = progress.task("reading image", Unit::Bytes, None);
    let number = root.number;
    let root = ext::into_tree(&window, store, &task).map_err(|source| DiskImageError::Ext {
        path: path.to_owned(),
        number,
        source,
    })?;
    // The root keeps an empty `boot/firmware`: what was below it there was out of sight.
    let split = tar::split(root).map_err(|source| DiskImageError::Tree { path: path.to_owned(), source })?;
    Ok(Trees { boot, ..split })
}

fn listed(table: &[Found]) -> String {
    let lines: Vec<String> =
        table.iter().map(|p| format!("number {} of {} bytes at {}", p.number, p.size, p.start)).collect();
    if lines.is_empty() { "its partition table is empty".into() } else { lines.join(", ") }
}

/// The image as it is on a card: the file itself if it is not compressed.
fn unpack(
    path: &Path,
    mut file: File,
    sha256: &Digest,
    store: &Store,
    progress: &Progress,
) -> Result<File, DiskImageError> {
    let io = |source| DiskImageError::Io { path: path.to_owned(), source };
    let mut head = [0; 6];
    let len = file.read_at(&mut head, 0).map_err(io)?;
    let head = &head[..len];
    let task = progress.task("unpacking image", Unit::Bytes, None);
    let mut source = Digesting::new(&file);
    // An archive is read from its end, an image in any order: neither can be digested on the way.
    let unpacked = match (head.starts_with(b"PK\x03\x04"), Format::detect(head)) {
        (true, _) | (_, Ok(Format::Plain)) => None,
        _ => Some(
            Decoder::new(&mut source)
                .map_err(|e| packed(path, e))
                .and_then(|mut decoder| sparse(path, &mut decoder, store, &task)),
        ),
    };
    // Also after an error: a damaged download is told as such, not as what it happens to break.
    io::copy(&mut source, &mut io::sink()).map_err(io)?;
    let found = source.finish();
    if found != *sha256 {
        return Err(DiskImageError::Digest { path: path.to_owned(), found, wanted: *sha256 });
    }
    match unpacked {
        Some(unpacked) => unpacked,
        None if head.starts_with(b"PK") => {
            file.rewind().map_err(io)?;
            unzip(path, file, store, &task)
        }
        None => Ok(file),
    }
}

/// The one image of a zip archive.
fn unzip(path: &Path, file: File, store: &Store, task: &Task) -> Result<File, DiskImageError> {
    let wrong = |what: String| DiskImageError::Zip { path: path.to_owned(), what };
    let mut archive = zip::ZipArchive::new(file).map_err(|e| wrong(e.to_string()))?;
    let images: Vec<usize> = (0..archive.len())
        .filter(|index| matches!(archive.name_for_index(*index), Some(Ok(name)) if name.ends_with(".img")))
        .collect();
    let [image] = images[..] else {
        return Err(wrong(format!("{} files that end in `.img` in it, and one is wanted", images.len())));
    };
    let mut entry = archive.by_index(image).map_err(|e| wrong(e.to_string()))?;
    sparse(path, &mut entry, store, task)
}

/// Decompresses into a file without a name, which goes when it is closed, also by a kill.
pub fn sparse(path: &Path, from: &mut dyn Read, store: &Store, task: &Task) -> Result<File, DiskImageError> {
    let io = |source| DiskImageError::Io { path: path.to_owned(), source };
    let file = tempfile::tempfile_in(store.root().join("tmp")).map_err(io)?;
    let mut piece = vec![0; PIECE];
    let mut size = 0u64;
    loop {
        let mut len = 0;
        while len < PIECE {
            match from.read(&mut piece[len..]) {
                Ok(0) => break,
                Ok(got) => len += got,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(packed(path, e)),
            }
        }
        if len == 0 {
            file.set_len(size).map_err(io)?;
            return Ok(file);
        }
        let bytes = &piece[..len];
        if bytes.iter().any(|byte| *byte != 0) {
            file.write_all_at(bytes, size).map_err(io)?;
        }
        size += len as u64;
        if size > SIZE_MAX {
            return Err(DiskImageError::TooLarge { path: path.to_owned() });
        }
        task.advance(len as u64);
    }
}

fn packed(path: &Path, error: io::Error) -> DiskImageError {
    let path = path.to_owned();
    match error.downcast::<CompressError>() {
        Ok(source) => DiskImageError::Packed { path, source },
        Err(source) => DiskImageError::Io { path, source },
    }
}
