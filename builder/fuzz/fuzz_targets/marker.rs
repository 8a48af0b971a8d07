//! Invariant: no bytes of a card panic the reader of a flash's marker, and what it reads it would write the same.
//! Must not know: anything but the one type.
//! Spec: `flash::marker`.

#![no_main]

use gt_image::digest::Digest;
use gt_image::flash::marker::Marker;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let same = |marker: Marker| assert_eq!(Marker::read(&marker.write()), Some(marker));
    Marker::read(data).map(same);
    // A check of 32 bytes is in the way: the same bytes with the right one.
    let Some(head) = data.get(..72) else { return };
    let mut whole = head.to_vec();
    whole.extend_from_slice(Digest::of(head).bytes());
    Marker::read(&whole).map(same);
});
