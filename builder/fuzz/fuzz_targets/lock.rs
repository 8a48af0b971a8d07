//! Invariant: no text panics the reader of locks, and a lock that is read is written and read the same.
//! Must not know: anything but the one function.
//! Spec: images/<base>.lock.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &str| {
    let Ok(lock) = gt_image::base::lock::Lock::parse("fuzzed.lock", data) else { return };
    let again = gt_image::base::lock::Lock::parse("fuzzed.lock", &lock.to_string());
    assert_eq!(again.ok(), Some(lock));
});
