//! Packages made here, whole and broken; real ones are measured, not tested, for want of a network.

use super::*;
use crate::archive::ar::tests::ar;
use crate::archive::compress::tests::{Pack, gzip, xz, zst};
use crate::archive::tar_write;
use crate::tree::tests::{path, tree};
use crate::tree::{Inode, Kind, Meta, Time};
use proptest::prelude::*;

const CONTROL: &[u8] = b"Package: hello\nVersion: 1.0-1\nArchitecture: arm64\n";

fn scratch() -> (tempfile::TempDir, Store) {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(&dir.path().join("store")).unwrap();
    (dir, store)
}

/// A tar archive of the given files.
fn tarball(files: &[(&str, &[u8], u16)]) -> Vec<u8> {
    let (_dir, store) = scratch();
    let mut t = tree(&[]);
    for (name, bytes, mode) in files {
        let kind = Kind::File(store.put_bytes(bytes).unwrap());
        t.make_parents(&path(name), &Meta::root_owned(0o755, Time::default())).unwrap();
        t.insert(path(name), Inode { meta: Meta::root_owned(*mode, Time::seconds(7)), kind }).unwrap();
    }
    let mut out = Vec::new();
    tar_write::write(&t, &store, &mut out).unwrap();
    out
}

fn control() -> Vec<u8> {
    tarball(&[("control", CONTROL, 0o644), ("postinst", b"#!/bin/sh\n", 0o755)])
}

fn data() -> Vec<u8> {
    tarball(&[("usr/bin/hello", b"\x7fELF", 0o755)])
}

fn unpack(bytes: &[u8]) -> Result<Deb, DebFault> {
    let (_dir, store) = scratch();
    read_from(bytes, &store)
}

#[test]
fn a_package_of_any_compression_is_unpacked() {
    let pack: [(&str, Pack); 4] = [("", <[u8]>::to_vec), (".gz", gzip), (".xz", xz), (".zst", zst)];
    for (ending, pack) in pack {
        let bytes = ar(&[
            ("debian-binary", b"2.0\n"),
            (&format!("control.tar{ending}"), &pack(&control())),
            ("_gpgorigin", b"signature"),
            (&format!("data.tar{ending}"), &pack(&data())),
            ("_gpgbuilder", b"signature"),
        ]);
        let deb = unpack(&bytes).unwrap();
        let names: Vec<_> = deb.control.iter().map(|f| (f.name.as_str(), f.mode)).collect();
        assert_eq!(names, [("control", 0o644), ("postinst", 0o755)]);
        assert_eq!(deb.control_file("control").unwrap().bytes, CONTROL);
        assert_eq!(deb.fields().unwrap().get("package"), Some("hello"));
        assert_eq!(deb.data.tree().get(&path("usr/bin/hello")).unwrap().meta.mode, 0o755);
    }
}

#[test]
fn members_out_of_place_are_refused() {
    let (c, d) = (control(), data());
    let version: (&str, &[u8]) = ("debian-binary", b"2.0\n");
    let control: (&str, &[u8]) = ("control.tar", &c);
    let data: (&str, &[u8]) = ("data.tar", &d);
    for (members, want) in [
        (vec![], "it has no member `debian-binary`"),
        (vec![version], "it has no member `control.tar`"),
        (vec![version, control], "it has no member `data.tar`"),
        (vec![control, version, data], "offset 8: member `control.tar` stands where `debian-binary` must"),
        (vec![("_x", b""), version], "offset 8: member `_x` stands where `debian-binary` must"),
        (vec![version, data, control], "offset 72: member `data.tar` stands where `control.tar` must"),
        (vec![version, ("x", b""), control], "offset 72: member `x` stands where `control.tar` must"),
        (vec![version, ("control.tarx", b""), data], "offset 72: member `control.tarx` stands where"),
        (vec![version, control, data, data], "stands where `the end` must"),
        (vec![("debian-binary", b"3.0\n")], "format version `3.0` is not supported: 2.x is"),
        (vec![("debian-binary", b"")], "format version `` is not supported: 2.x is"),
        (vec![version, ("control.tar.xz", &c)], "member `control.tar.xz` is compressed with no compression"),
        (vec![version, ("control.tar.bz2", &c)], "member `control.tar.bz2`: compressed with bzip2"),
        (vec![version, ("control.tar", &d)], "member `control.tar`: `./usr/` is not a plain file"),
    ] {
        let found = unpack(&ar(&members)).unwrap_err().to_string();
        assert!(found.contains(want), "{found}\nwanted {want}");
    }
    let empty = tarball(&[("postinst", b"", 0o755)]);
    let found = unpack(&ar(&[version, ("control.tar", &empty), data])).unwrap_err();
    assert_eq!(found.to_string(), "member `control.tar`: it has no file `control`");
}

#[test]
fn broken_files_are_told_by_name_and_layer() {
    let (dir, store) = scratch();
    let packed = xz(&data());
    let bytes =
        ar(&[("debian-binary", b"2.0\n"), ("control.tar.gz", &gzip(&control())), ("data.tar.xz", &packed)]);
    let file = dir.path().join("hello.deb");
    let fault = |bytes: &[u8]| {
        std::fs::write(&file, bytes).unwrap();
        let error = read(&file, &store).unwrap_err();
        assert!(error.to_string().contains("hello.deb`: "), "{error}");
        *error.fault
    };
    assert!(matches!(
        fault(&bytes[..bytes.len() - 40]),
        DebFault::Ar(ArError::Truncated { missing: 40, .. })
    ));
    assert!(matches!(fault(&bytes[..100]), DebFault::Ar(ArError::Truncated { .. })));
    assert!(matches!(fault(b"<html>"), DebFault::Ar(ArError::Magic { .. })));
    let mut bad = bytes.clone();
    let middle = bad.len() - packed.len() / 2;
    bad[middle] ^= 0x55;
    let found = fault(&bad);
    let DebFault::Data { member, source: ImportError::Tar(TarError { fault: Fault::Packed(_), .. }) } =
        &found
    else {
        panic!("{found:?}");
    };
    assert_eq!(member, "data.tar.xz");
    let short = ar(&[("debian-binary", b"2.0\n"), ("control.tar", &control()[..700]), ("data.tar", b"")]);
    let found = fault(&short);
    assert!(matches!(found, DebFault::Control { .. }), "{found:?}");
    assert!(matches!(*read(&dir.path().join("no.deb"), &store).unwrap_err().fault, DebFault::Io(_)));
}

#[test]
fn unpacking_can_move_between_threads() {
    fn is_send<T: Send>() {}
    is_send::<Deb>();
    is_send::<DebError>();
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    #[test]
    fn changed_packages_never_panic(at in 0usize..3000, bytes: [u8; 2], cut in 0usize..60_000, pack: bool) {
        let (c, d) = if pack { (gzip(&control()), xz(&data())) } else { (control(), data()) };
        let names = if pack { ["control.tar.gz", "data.tar.xz"] } else { ["control.tar", "data.tar"] };
        let mut deb = ar(&[("debian-binary", b"2.0\n"), (names[0], &c), (names[1], &d)]);
        deb.truncate(cut);
        let at = at % deb.len().max(1);
        for (i, byte) in bytes.into_iter().enumerate() {
            if let Some(b) = deb.get_mut(at + i) {
                *b = byte;
            }
        }
        crate::archive::fuzz::deb(&deb);
    }
}
