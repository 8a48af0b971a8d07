//! ONC RPC: XDR, record marking on TCP, calls and replies, and the portmapper.
//! Must not know: NFS, nodes.
//! Spec: RFC 4506 (XDR), RFC 5531 (RPC version 2), RFC 1833 (portmapper version 2).

pub mod message;
pub mod portmap;
pub mod record;
pub mod xdr;
