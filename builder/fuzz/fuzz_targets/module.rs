//! Invariant: no bytes panic the reader of kernel modules.
//! Must not know: anything but the one function.
//! Spec: ELF-64 and `.modinfo`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let _ = gt_image::kmod::modinfo::ModInfo::parse(data);
});
