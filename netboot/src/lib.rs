//! The protocol servers that let a Raspberry Pi boot from the network: DHCP, TFTP and NFSv3.
//! Must not know: images, roles, overlays, the store. It is given who may boot and what each may
//! read, as values ([`site::Site`]) and trait objects ([`tftp::Host`], [`nfs::Host`]).
//! Spec: RFC 2131 and 2132 (DHCP), RFC 1350 and 2347 to 2349 (TFTP), RFC 1813 (NFSv3).
//!
//! Each server takes bound sockets and a shutdown token from outside; each decision is a plain
//! function of the site, the packet and the time, tested without a socket.

pub mod content;
pub mod dhcp;
pub mod doctor;
pub mod nfs;
pub mod pi;
pub mod rpc;
pub mod site;
pub mod tftp;
