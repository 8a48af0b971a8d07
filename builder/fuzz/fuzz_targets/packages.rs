//! Invariant: no bytes panic the Packages reader, and every stanza ends.
//! Must not know: anything but the one function.
//! Spec: the stanza reader of the archive's lists.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let mut input = data;
    while let Ok(Some(_)) = gt_image::base::packages::Stanza::read(&mut input) {}
});
