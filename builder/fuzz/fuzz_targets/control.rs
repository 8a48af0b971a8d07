//! Invariant: no bytes panic the deb822 reader, and paragraphs are written and read back as they are.
//! Must not know: anything but the one function.
//! Spec: `gt_image::archive::fuzz::control`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| gt_image::archive::fuzz::control(data));
