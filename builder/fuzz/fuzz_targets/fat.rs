//! Invariant: no bytes panic the reader of FAT volumes, nor keep it for ever.
//! Must not know: anything but the one function.
//! Spec: fatgen103.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| gt_image::disk::fuzz::fat(data));
