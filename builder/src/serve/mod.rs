//! `gt-image serve`: the only place where images and protocols meet. The protocol servers of
//! `gt-netboot` ask who may boot and what each may read; the answers come from the cluster
//! description, the store and the boot record, which are joined here.
//! Must not know: how an image is built, what a packet looks like.
//! Spec: design.md sections 10 and 13.

pub mod board;
pub mod http;
pub mod metrics;
pub mod secrets;
pub mod status;
pub mod wipe;
