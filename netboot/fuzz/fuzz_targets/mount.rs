//! Invariant: no arguments panic MOUNT, and each call has a reply of whole words with its xid.
//! Must not know: anything but the one function.
//! Spec: `gt_netboot::nfs::fuzz::mount`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| gt_netboot::nfs::fuzz::mount(data));
