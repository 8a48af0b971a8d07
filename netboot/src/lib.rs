//! The protocol servers that let a Raspberry Pi boot from the network: DHCP, TFTP and NFSv3.
//! Must not know: images, roles, overlays, the store. It is given who may boot and what each may
//! read, as values and trait objects.
//! Spec: RFC 2131 and 2132 (DHCP), RFC 1350 and 2347 to 2349 (TFTP), RFC 1813 (NFSv3).
//!
//! Nothing is served yet. The crate exists so that the direction of the dependency, builder to
//! netboot and never back, holds from the first day.
