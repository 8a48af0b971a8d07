//! Adapters to the outside world: the file system of the machine that builds.
//! Must not know: trees, roles, filesystem formats.

pub mod at;
pub mod atomic;
pub mod progress;
pub mod sink;
