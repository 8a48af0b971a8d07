//! Archives of others: ar, tar and deb, their compressions, and deb822 text.
//! Must not know: roles, package relations, filesystem images.
//! Spec: each module names its own.

pub mod ar;
pub mod compress;
pub mod control;
pub mod deb;
pub mod fuzz;
pub mod import;
pub mod tar;
pub mod tar_write;

pub use compress::{CompressError, Decoder, Format};
pub use deb::{Deb, DebError};
pub use import::ImportError;
pub use tar::TarError;
