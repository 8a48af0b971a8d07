//! What an upstream file gives a node: the file itself, or files out of an archive.
//! Must not know: where artifacts come from, overlays' other parts.
//! Spec: POSIX tar; .ZIP File Format Specification (wheels are zip files, PEP 427).

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use crate::archive::Decoder;
use crate::archive::tar::{self, TarError};
use crate::store::{Store, StoreError};
use crate::tree::layer::Layer;
use crate::tree::{Inode, Kind, Meta, Time, TreeError, TreePath};

/// One file that is wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Extract {
    /// Its name in the archive; `None` for the whole file.
    pub from: Option<String>,
    /// Where it goes on the node.
    pub to: TreePath,
    /// Permissions.
    pub mode: u16,
}

/// An artifact does not hold what is wanted of it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ArtifactError {
    /// The file cannot be read.
    #[error("reading `{file}`")]
    Io {
        /// The file.
        file: String,
        /// What the system said.
        source: io::Error,
    },
    /// The archive is no tar that we can read.
    #[error("reading `{file}`")]
    Tar {
        /// The file.
        file: String,
        /// What is wrong.
        source: TarError,
    },
    /// The archive is no zip that we can read.
    #[error("reading `{file}`")]
    Zip {
        /// The file.
        file: String,
        /// What is wrong.
        source: zip::result::ZipError,
    },
    /// A file that is wanted is not there.
    #[error("`{file}` has no file `{wanted}`")]
    Missing {
        /// The archive.
        file: String,
        /// What is wanted.
        wanted: String,
    },
    /// Two files go to one place, or one goes where none can be.
    #[error(transparent)]
    Tree(#[from] TreeError),
    /// The store has no room, for example.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// A layer of the wanted files, owned by root, with the time `epoch`.
pub fn layer(file: &Path, wanted: &[Extract], epoch: i64, store: &Store) -> Result<Layer, ArtifactError> {
    let shown = file.display().to_string();
    let io = |source| ArtifactError::Io { file: shown.clone(), source };
    let mut layer = Layer::new();
    let mut missing: Vec<&Extract> = Vec::new();
    for extract in wanted {
        if extract.from.is_some() {
            missing.push(extract);
            continue;
        }
        let mut input = File::open(file).map_err(io)?;
        put(&mut layer, extract, &mut input, epoch, store)?;
    }
    if missing.is_empty() {
        return Ok(layer);
    }
    let mut magic = [0; 4];
    let mut input = File::open(file).map_err(io)?;
    input.read_exact(&mut magic).map_err(io)?;
    let input = File::open(file).map_err(io)?;
    if &magic == b"PK\x03\x04" {
        from_zip(&shown, input, &mut missing, &mut |e, r| put(&mut layer, e, r, epoch, store))?;
    } else {
        from_tar(&shown, input, &mut missing, &mut |e, r| put(&mut layer, e, r, epoch, store))?;
    }
    match missing.first().and_then(|e| e.from.clone()) {
        Some(wanted) => Err(ArtifactError::Missing { file: shown, wanted }),
        None => Ok(layer),
    }
}

type Put<'a> = dyn FnMut(&Extract, &mut dyn Read) -> Result<(), ArtifactError> + 'a;

fn put(
    layer: &mut Layer,
    extract: &Extract,
    input: &mut dyn Read,
    epoch: i64,
    store: &Store,
) -> Result<(), ArtifactError> {
    let object = store.put_reader(input)?;
    let meta = Meta::root_owned(extract.mode, Time::seconds(epoch));
    layer.insert(extract.to.clone(), Inode { meta, kind: Kind::File(object) })?;
    Ok(())
}

fn from_zip(
    shown: &str,
    input: File,
    missing: &mut Vec<&Extract>,
    put: &mut Put,
) -> Result<(), ArtifactError> {
    let zip = |source| ArtifactError::Zip { file: shown.to_owned(), source };
    let mut archive = zip::ZipArchive::new(input).map_err(zip)?;
    for extract in std::mem::take(missing) {
        let name = extract.from.as_deref().unwrap_or_default();
        match archive.by_name(name) {
            Ok(mut file) => put(extract, &mut file)?,
            Err(zip::result::ZipError::FileNotFound) => missing.push(extract),
            Err(e) => return Err(zip(e)),
        }
    }
    Ok(())
}

fn from_tar(
    shown: &str,
    input: File,
    missing: &mut Vec<&Extract>,
    put: &mut Put,
) -> Result<(), ArtifactError> {
    let tar = |source| ArtifactError::Tar { file: shown.to_owned(), source };
    let input = Decoder::new(input).map_err(|source| ArtifactError::Io { file: shown.to_owned(), source })?;
    let mut archive = tar::Reader::new(input);
    while let Some(entry) = archive.next_entry().map_err(tar)? {
        let Ok(path) = TreePath::new(&entry.name) else { continue };
        let same = |e: &&Extract| TreePath::new(e.from.as_deref().unwrap_or_default()).as_ref() == Ok(&path);
        if let Some(index) = missing.iter().position(same) {
            let extract = missing.remove(index);
            put(extract, &mut Data(&mut archive))?;
        }
    }
    Ok(())
}

/// The bytes of a tar archive's present file.
struct Data<'a, R>(&'a mut tar::Reader<R>);

impl<R: Read> Read for Data<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.read(buffer).map_err(io::Error::other)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn extract(from: Option<&str>, to: &str) -> Extract {
        Extract { from: from.map(str::to_owned), to: TreePath::new(to).unwrap(), mode: 0o755 }
    }

    /// What each form gives for `bin/tool`.
    fn content(name: &str, bytes: &[u8]) -> Vec<u8> {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("store")).unwrap();
        let file = dir.path().join(name);
        std::fs::write(&file, bytes).unwrap();
        let layer = layer(&file, &[extract(Some("bin/tool"), "/usr/local/bin/tool")], 7, &store).unwrap();
        let inode = layer.tree().get(&TreePath::new("usr/local/bin/tool").unwrap()).unwrap();
        assert_eq!((inode.meta.mode, inode.meta.mtime), (0o755, Time::seconds(7)));
        let gone = [extract(Some("bin/none"), "/x")];
        assert!(matches!(super::layer(&file, &gone, 7, &store), Err(ArtifactError::Missing { .. })));
        store.read_object(inode.object().unwrap()).unwrap()
    }

    fn tar() -> Vec<u8> {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("bin")).unwrap();
        std::fs::write(dir.path().join("bin/tool"), b"tool").unwrap();
        let out =
            std::process::Command::new("tar").arg("-C").arg(dir.path()).args(["-cf", "-", "./bin"]).output();
        out.unwrap().stdout
    }

    #[test]
    fn a_file_comes_out_of_every_form_of_archive() {
        let tar = tar();
        assert_eq!(content("a.tar", &tar), b"tool");
        assert_eq!(content("a.tar.zst", &zstd::encode_all(&tar[..], 3).unwrap()), b"tool");
        let mut zip = zip::ZipWriter::new(io::Cursor::new(Vec::new()));
        zip.start_file("bin/tool", zip::write::SimpleFileOptions::default()).unwrap();
        zip.write_all(b"tool").unwrap();
        assert_eq!(content("a.whl", &zip.finish().unwrap().into_inner()), b"tool");
    }

    #[test]
    fn a_bare_file_is_taken_whole_and_junk_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("store")).unwrap();
        let file = dir.path().join("tool");
        std::fs::write(&file, b"\x7fELF and so on").unwrap();
        let whole = layer(&file, &[extract(None, "/bin/tool")], 7, &store).unwrap();
        assert_eq!(whole.tree().len(), 3);
        assert!(layer(&file, &[extract(Some("x"), "/x")], 7, &store).is_err());
        std::fs::write(&file, b"PK\x03\x04 and nothing").unwrap();
        assert!(matches!(
            layer(&file, &[extract(Some("x"), "/x")], 7, &store),
            Err(ArtifactError::Zip { .. })
        ));
    }
}
