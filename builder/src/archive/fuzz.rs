//! One function for each parser of foreign bytes, for fuzzers and property tests alike: the bytes may
//! be anything, and the function only panics when a promise is broken.
//! Must not know: the fuzzer.
//! Spec: the promise of each function stands above it.

use std::io::Read;

use crate::archive::ar::ArReader;
use crate::archive::control::Paragraphs;
use crate::archive::{Decoder, deb, import, tar, tar_write};
use crate::store::Store;
use crate::tree::dump;

/// Decompressed bytes that a fuzzer waits for.
const ENOUGH: u64 = 4 << 20;

/// No bytes panic, and members lie inside the archive.
pub fn ar(data: &[u8]) {
    let Ok(mut reader) = ArReader::new(data) else { return };
    while let Ok(Some(member)) = reader.next_member() {
        assert!(member.at < data.len() as u64, "a member begins beyond the archive");
        let _ = std::io::copy(&mut reader, &mut std::io::sink());
        assert!(reader.position() <= data.len() as u64, "more was read than there is");
    }
}

/// No bytes panic, and after an error nothing more is given.
pub fn compress(data: &[u8]) {
    let Ok(mut decoder) = Decoder::new(data) else { return };
    if std::io::copy(&mut decoder.by_ref().take(ENOUGH), &mut std::io::sink()).is_err() {
        assert!(decoder.read(&mut [0; 16]).is_err(), "data after an error");
    }
}

/// No bytes panic, and a tree that comes of them is written and read back as it is.
pub fn tar(data: &[u8]) {
    let Some((_dir, store)) = scratch() else { return };
    let Ok(tree) = import::into_tree(&mut tar::Reader::new(data).file_limit(ENOUGH), &store) else { return };
    let mut bytes = Vec::new();
    if let Err(e) = tar_write::write(&tree, &store, &mut bytes) {
        // A broken promise: this is what a fuzzer looks for, here and below.
        panic!("a tree from an archive cannot be written: {e}");
    }
    match import::into_tree(&mut tar::Reader::new(&bytes[..]), &store) {
        Ok(again) => assert!(again == tree, "another tree is read back"),
        // As above.
        Err(e) => panic!("our own archive cannot be read: {e}"),
    }
}

/// No bytes panic, and what is read has a `control`.
pub fn deb(data: &[u8]) {
    let Some((_dir, store)) = scratch() else { return };
    if let Ok(deb) = deb::read_bounded(data, &store, ENOUGH) {
        assert!(deb.control_file("control").is_some(), "a package without `control`");
        let _ = deb.fields();
    }
}

/// No bytes panic, and paragraphs are written and read back as they are.
pub fn control(data: &[u8]) {
    for paragraph in Paragraphs::new(data).map_while(Result::ok) {
        let text = paragraph.to_string();
        match Paragraphs::new(text.as_bytes()).next() {
            Some(Ok(again)) => assert!(again == paragraph, "another paragraph is read back: {text:?}"),
            // As above.
            other => panic!("our own text cannot be read: {other:?}"),
        }
    }
}

/// No bytes panic, and a text that is taken is the one text of its tree.
pub fn dump(data: &[u8]) {
    if let Ok(tree) = dump::read(data) {
        assert!(dump::write(&tree).as_bytes() == data, "one tree has two texts");
    }
}

/// A store of its own, so that no run sees another's. `None` when the machine has no room.
fn scratch() -> Option<(tempfile::TempDir, Store)> {
    let dir = tempfile::tempdir().ok()?;
    let store = Store::open(dir.path()).ok()?;
    Some((dir, store))
}

#[cfg(test)]
mod tests {
    use crate::tree::tests::any_tree;
    use proptest::prelude::*;

    // Each parser's own tests drive the other functions with changed archives.
    proptest! {
        #[test]
        fn changed_dumps_never_panic(t in any_tree(), at: prop::sample::Index, bytes: [u8; 2], cut: prop::sample::Index) {
            let mut text = crate::tree::dump::write(&t).into_bytes();
            let start = at.index(text.len());
            let end = text.len().min(start + 2);
            text.splice(start..end, bytes);
            super::dump(&text);
            text.truncate(cut.index(text.len() + 1));
            super::dump(&text);
        }
    }
}
