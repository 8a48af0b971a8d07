//! Invariant: no bytes panic the TFTP codec or a transfer; what is read is written and read the same; no name
//! leads out of its node's files; no transfer sends a block that its file has not.
//! Must not know: anything but the one function.
//! Spec: `gt_netboot::tftp::fuzz`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| gt_netboot::tftp::fuzz(data));
