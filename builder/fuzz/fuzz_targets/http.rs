//! Invariant: no query of a request panics, and what comes of one is a known step and a short line that
//! cannot move a cursor.
//! Must not know: anything but the one function.
//! Spec: `gt_image::serve::http::query::fuzz`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &str| gt_image::serve::http::query::fuzz(data));
