//! Invariant: no text panics the reader of cluster.toml; what is wrong is in the report.
//! Must not know: anything but the one function.
//! Spec: the TOML front end.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &str| {
    let source = gt_image::diagnostic::Source::new("cluster.toml", data);
    let mut report = gt_image::diagnostic::Report::new();
    let mut keys = |_: &str| Ok(String::new());
    let found = gt_image::cluster::parse(&source, &Default::default(), &mut keys, &mut report);
    assert!(found.is_some() || !report.is_clean(), "nothing was read, and nothing was said");
});
