//! Disk images: a partition table, its partitions' contents, and a block map, in one pass from front
//! to back.
//! Must not know: what is in a partition, nodes, bases.
//! Spec: UEFI 2.10 chapter 5 (GPT), bmaptool's block map format 2.0, RFC 8878 (zstd).

mod bmap;
pub mod fuzz;
pub mod gpt;
mod hash;
mod image;
mod layout;
mod mbr;
mod output;
pub mod read;

use std::path::PathBuf;

pub use bmap::{BLOCK, Bmap, Range};
pub use image::{Blank, ContentError, Output, PartitionContent, Written, stream, write};
pub use layout::{ALIGN, DiskLayout, LayoutError, Partition, Role, Spec, Table, TableBytes, lay_out};
pub use output::Backend;

/// A disk image could not be written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DiskError {
    /// The partition table could not be made.
    #[error(transparent)]
    Layout(#[from] LayoutError),
    /// Not one content for each partition.
    #[error("{contents} contents for {partitions} partitions")]
    Contents {
        /// How many contents there are.
        contents: usize,
        /// How many partitions there are.
        partitions: usize,
    },
    /// A partition's content could not be written, or its bytes had no place in the file.
    #[error("writing partition `{name}`")]
    Content {
        /// The partition.
        name: String,
        /// What its content said.
        source: ContentError,
    },
    /// The image or the block map could not be written.
    #[error("writing `{}`", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
}
