//! gt-image: reproducible Raspberry Pi images from a cluster description, overlays and a lock.
//! A node is a pure function of those three. Every module's header says what it owns and what it
//! must not know; arrows point down only: `cli → build → plan, layer, ext4, fat, disk → tree,
//! store, io`.

pub mod archive;
pub mod base;
pub mod boot;
pub mod build;
pub mod cli;
pub mod cluster;
pub mod diagnostic;
pub mod digest;
pub mod disk;
pub mod ext4;
pub mod fat;
pub mod flash;
pub mod hint;
pub mod initramfs;
pub mod io;
pub mod kmod;
pub mod layer;
pub mod manifest;
pub mod origin;
pub mod overlay;
pub mod plan;
pub mod sbom;
pub mod serve;
pub mod store;
pub mod tree;
