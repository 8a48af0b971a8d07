//! Makes layers and trees: packages with their scripts, overlays, node identity.
//! Must not know: filesystem images, disks, the command line.

pub mod artifact;
pub mod identity;
pub mod leak;
pub mod overlay;
pub mod packages;
