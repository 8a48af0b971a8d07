//! Invariant: no bytes panic the reader of ext4 filesystems, nor keep it for ever.
//! Must not know: anything but the one function.
//! Spec: the kernel's Documentation/filesystems/ext4.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| gt_image::disk::fuzz::ext4(data));
