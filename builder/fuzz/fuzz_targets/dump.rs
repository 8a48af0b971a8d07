//! Invariant: no bytes panic the dump reader, and a text that is taken is the one text of its tree.
//! Must not know: anything but the one function.
//! Spec: `gt_image::archive::fuzz::dump`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| gt_image::archive::fuzz::dump(data));
