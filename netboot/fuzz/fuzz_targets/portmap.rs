//! Invariant: no arguments panic the portmapper, and over UDP no reply is longer than its call.
//! Must not know: anything but the one function.
//! Spec: `gt_netboot::nfs::fuzz::portmap`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| gt_netboot::nfs::fuzz::portmap(data));
