//! Invariant: no text panics the reader of overlay.toml.
//! Must not know: anything but the one function.
//! Spec: the TOML front end.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &str| {
    let source = gt_image::diagnostic::Source::new("overlay.toml", data);
    let mut report = gt_image::diagnostic::Report::new();
    let Ok(name) = "fuzzed".parse() else { return };
    gt_image::overlay::parse(name, &source, Vec::new(), std::path::Path::new("fuzzed"), &mut report);
});
