//! Invariant: no bytes panic the reader of partition tables, nor keep it for ever.
//! Must not know: anything but the one function.
//! Spec: UEFI 2.10 chapter 5.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| gt_image::disk::fuzz::table(data));
