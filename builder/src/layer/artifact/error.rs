//! What can be wrong with an artifact, or with what is wanted of it.
//! Must not know: how archives are read.

use std::io;

use crate::archive::ar::ArError;
use crate::archive::tar::TarError;
use crate::store::StoreError;
use crate::tree::{PathError, TreeError};

/// An artifact does not hold what is wanted of it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ArtifactError {
    /// The file cannot be read, or is not as it was compressed.
    #[error("reading `{file}`")]
    Io {
        /// The file.
        file: String,
        /// What the system or a decompressor said.
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
    /// The package is no ar archive that we can read.
    #[error("reading `{file}`")]
    Ar {
        /// The file.
        file: String,
        /// What is wrong.
        source: ArError,
    },
    /// An ar archive without the files of a package.
    #[error("`{file}` has no member `data.tar`: it is no Debian package")]
    NoData {
        /// The file.
        file: String,
    },
    /// What is wanted is not there.
    #[error("`{file}` has no {what} `{wanted}`{}", near.as_ref().map_or(String::new(), |n| format!("; it has `{n}`")))]
    Missing {
        /// The archive.
        file: String,
        /// A file or a folder.
        what: &'static str,
        /// What is wanted.
        wanted: String,
        /// A file of the same name elsewhere in the archive.
        near: Option<String>,
    },
    /// Something else than a file has the name.
    #[error("`{wanted}` in `{file}` is {found}, not a file")]
    NotFile {
        /// The archive.
        file: String,
        /// What is wanted.
        wanted: String,
        /// What it is, and what to write instead.
        found: String,
    },
    /// An entry's name or link leads out of the folder, or it is nothing that belongs into one.
    #[error("`{file}`: entry `{entry}` {fault}")]
    Entry {
        /// The archive.
        file: String,
        /// The entry's name, made printable.
        entry: String,
        /// What is wrong.
        fault: String,
    },
    /// It gives more than any honest artifact.
    #[error("`{file}` gives more than {limit} bytes")]
    TooLarge {
        /// The archive.
        file: String,
        /// The limit.
        limit: u64,
    },
    /// Two files go to one place, or one goes where none can be.
    #[error(transparent)]
    Tree(#[from] TreeError),
    /// A path that grew too long.
    #[error(transparent)]
    Path(#[from] PathError),
    /// The store has no room, for example.
    #[error(transparent)]
    Store(#[from] StoreError),
}
