//! Invariant: no bytes panic the package reader, and what is read has a `control`.
//! Must not know: anything but the one function.
//! Spec: `gt_image::archive::fuzz::deb`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| gt_image::archive::fuzz::deb(data));
