//! Invariant: no bytes panic a decompressor, none takes more memory than its limit, and after an error no data comes.
//! Must not know: anything but the one function.
//! Spec: `gt_image::archive::fuzz::compress`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| gt_image::archive::fuzz::compress(data));
