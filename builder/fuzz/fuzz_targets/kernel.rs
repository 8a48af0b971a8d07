//! Invariant: no bytes panic the look for a kernel's version, and a version is a name of one directory.
//! Must not know: anything but the one function.
//! Spec: Linux, `init/version.c`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    if let Some(version) = gt_image::boot::kernel::version_of(data) {
        assert!(version.starts_with(|c: char| c.is_ascii_digit()) && !version.contains('/'));
    }
});
