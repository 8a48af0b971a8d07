//! Invariant: no bytes panic the DHCP server; each reply can be read and is its request's; a proxy answers
//! only a DISCOVER.
//! Must not know: anything but the one function.
//! Spec: `gt_netboot::dhcp::fuzz`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| gt_netboot::dhcp::fuzz(data));
