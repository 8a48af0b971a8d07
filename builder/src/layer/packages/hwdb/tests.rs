//! The foreign program's own bytes, and records that it would pass over.

use super::*;

fn made(text: &str) -> Vec<u8> {
    let mut trie = Trie::new();
    import(&mut trie, text.as_bytes(), "/f", 1);
    trie.write(257)
}

#[test]
fn what_is_out_of_place_is_passed_over() {
    let good = made("a:*\n K=v\n");
    for text in ["# comment\na:*\n K=v # why\n", "\n\na:*\n K=v\n\n", " LOST=1\na:*\n   K=v\n"] {
        let other = made(text);
        assert_eq!(other.len(), good.len(), "{text:?}");
    }
    assert_eq!(made("a:*\n\n").len(), made("").len(), "no property");
    assert_eq!(made("a:*\n =v\n").len(), made("").len(), "no key");
    assert_eq!(made("a:*\n K\n").len(), made("").len(), "no value");
    assert_eq!(made("a:*\n K=v\nb:*\n L=w\n").len(), good.len(), "no empty line between");
}

/// Kept by hand: point it at a root in which the target's own program has run.
#[test]
fn the_bytes_are_those_of_systemd() {
    let Some(root) = std::env::var_os("GT_IMAGE_HWDB_ROOT") else {
        eprintln!("not run: judge: GT_IMAGE_HWDB_ROOT names no root");
        return;
    };
    let dir = std::path::Path::new(&root).join("usr/lib/udev");
    let mut names: Vec<_> =
        std::fs::read_dir(dir.join("hwdb.d")).unwrap().map(|e| e.unwrap().file_name()).collect();
    names.sort();
    let mut trie = Trie::new();
    for (n, name) in names.iter().enumerate() {
        let text = std::fs::read(dir.join("hwdb.d").join(name)).unwrap();
        let file = format!("/usr/lib/udev/hwdb.d/{}", name.display());
        import(&mut trie, &text, &file, u16::try_from(n + 1).unwrap());
    }
    let found = trie.write(257);
    let want = std::fs::read(dir.join("hwdb.bin")).unwrap();
    let first = found.iter().zip(&want).position(|(a, b)| a != b);
    assert_eq!((found.len(), first), (want.len(), None));
}
