//! Invariant: no bytes panic the record cutter or the reader of calls, and no record is over the limit.
//! Must not know: anything but the one function.
//! Spec: `gt_netboot::nfs::fuzz::rpc`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| gt_netboot::nfs::fuzz::rpc(data));
