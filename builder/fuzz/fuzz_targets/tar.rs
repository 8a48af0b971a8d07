//! Invariant: no bytes panic the tar reader, and a tree that comes of them is written and read back as it is.
//! Must not know: anything but the one function.
//! Spec: `gt_image::archive::fuzz::tar`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| gt_image::archive::fuzz::tar(data));
