//! Invariant: no text panics either reader of apt's sources, and an entry that is given has all that a source has.
//! Must not know: anything but the two functions.
//! Spec: sources.list(5).

#![no_main]

use gt_image::base::sources::{deb822, one_line};

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    for entry in deb822(data).into_iter().chain(one_line(&String::from_utf8_lossy(data))).flatten() {
        assert!(entry.line > 0 && !entry.uris.is_empty() && !entry.suites.is_empty());
    }
});
