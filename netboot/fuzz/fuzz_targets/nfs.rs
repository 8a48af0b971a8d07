//! Invariant: no arguments panic NFS or NFS_ACL, each call has a reply, and READ is capped.
//! Must not know: anything but the one function.
//! Spec: `gt_netboot::nfs::fuzz::nfs`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| gt_netboot::nfs::fuzz::nfs(data));
