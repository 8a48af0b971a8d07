//! Invariant: no bytes panic the ar reader, and members lie inside the archive.
//! Must not know: anything but the one function.
//! Spec: `gt_image::archive::fuzz::ar`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| gt_image::archive::fuzz::ar(data));
