//! Tests of the reader with hand-made blocks; those against other tars are with the writer.

use super::header::tests::block;
use super::pax::tests::line;
use super::*;
use proptest::prelude::*;

/// A header of the given type, name and size, with more fields by offset.
fn head(typeflag: u8, name: &str, size: usize, more: &[(usize, &[u8])]) -> Vec<u8> {
    let size = format!("{size:011o}\0");
    let flag = [typeflag];
    let mut fields: Vec<(usize, &[u8])> =
        vec![(0, name.as_bytes()), (100, b"0000644\0"), (124, size.as_bytes()), (156, &flag)];
    fields.extend(more);
    block(&fields).to_vec()
}

fn data(bytes: &[u8]) -> Vec<u8> {
    let mut out = bytes.to_vec();
    out.resize(out.len().next_multiple_of(BLOCK), 0);
    out
}

/// An entry with its data.
fn entry(typeflag: u8, name: &str, bytes: &[u8]) -> Vec<u8> {
    [head(typeflag, name, bytes.len(), &[]), data(bytes)].concat()
}

fn pax(records: &[(&str, &[u8])]) -> Vec<u8> {
    let bytes: Vec<u8> = records.iter().flat_map(|(k, v)| line(k, v)).collect();
    entry(b'x', "pax", &bytes)
}

fn archive(parts: &[Vec<u8>]) -> Vec<u8> {
    [parts.concat(), vec![0; 2 * BLOCK]].concat()
}

fn list(bytes: &[u8]) -> Result<Vec<(Entry, Vec<u8>)>, TarError> {
    let mut reader = Reader::new(bytes).file_limit(1 << 20);
    let mut all = Vec::new();
    while let Some(entry) = reader.next_entry()? {
        let content = reader.read_all(1 << 20)?;
        all.push((entry, content));
    }
    Ok(all)
}

fn one(parts: &[Vec<u8>]) -> (Entry, Vec<u8>) {
    list(&archive(parts)).unwrap().remove(0)
}

fn fault(parts: &[Vec<u8>]) -> Fault {
    list(&archive(parts)).unwrap_err().fault
}

#[test]
fn types_of_v7_and_ustar() {
    let ustar: &[(usize, &[u8])] = &[(257, b"ustar\x0000"), (329, b"0000010\0"), (337, b"0000003\0")];
    let target: &[(usize, &[u8])] = &[(157, b"to")];
    for (part, want) in [
        (head(0, "f", 0, &[]), EntryKind::File),
        (head(0, "d/", 0, &[]), EntryKind::Dir),
        (head(b'0', "f", 0, ustar), EntryKind::File),
        (head(b'7', "f", 0, ustar), EntryKind::File),
        (head(b'1', "h", 0, target), EntryKind::HardLink(b"to".to_vec())),
        (head(b'2', "l", 0, target), EntryKind::Symlink(b"to".to_vec())),
        (head(b'3', "c", 0, ustar), EntryKind::Char(8, 3)),
        (head(b'4', "b", 0, ustar), EntryKind::Block(8, 3)),
        // POSIX lets a directory's size be a hint for its allocation: no data follows.
        (head(b'5', "d", 4096, ustar), EntryKind::Dir),
        (head(b'6', "p", 0, ustar), EntryKind::Fifo),
    ] {
        assert_eq!(one(&[part]).0.kind, want);
    }
}

#[test]
fn data_is_read_or_skipped_and_offsets_told() {
    let bytes = archive(&[entry(0, "a", b"abc"), entry(0, "b", &[7; 1000]), entry(0, "c", b"")]);
    let all = list(&bytes).unwrap();
    assert_eq!(
        all.iter().map(|(e, d)| (e.at, e.size, d.len())).collect::<Vec<_>>(),
        [(0, 3, 3), (1024, 1000, 1000), (2560, 0, 0)]
    );
    let mut reader = Reader::new(&bytes[..]);
    let names = std::iter::from_fn(|| reader.next_entry().unwrap()).map(|e| e.name);
    assert_eq!(names.collect::<Vec<_>>(), [b"a", b"b", b"c"]);
    assert!(reader.next_entry().unwrap().is_none());
}

#[test]
fn gnu_long_names_and_targets() {
    let long = "x/".repeat(150);
    let name = [long.as_bytes(), b"\0"].concat();
    let (entry, _) =
        one(&[entry(b'L', "././@LongLink", &name), entry(b'K', "k", &name), head(b'2', "cut", 0, &[])]);
    assert_eq!(entry.name, long.as_bytes());
    assert_eq!(entry.kind, EntryKind::Symlink(long.into_bytes()));
}

#[test]
fn extended_headers_win_and_global_ones_last() {
    let records: &[(&str, &[u8])] = &[
        ("path", b"long"),
        ("size", b"3"),
        ("mtime", b"1.5"),
        ("uid", b"3000000"),
        ("SCHILY.xattr.user.a", b"1"),
    ];
    let global = entry(b'g', "g", &line("gid", b"7"));
    let bytes = archive(&[
        global,
        pax(records),
        [head(b'0', "short", 0, &[]), data(b"abc")].concat(),
        head(b'0', "plain", 0, &[]),
    ]);
    let all = list(&bytes).unwrap();
    let (first, content) = &all[0];
    assert_eq!((&first.name[..], &content[..], first.size), (&b"long"[..], &b"abc"[..], 3));
    assert_eq!((first.meta.uid, first.meta.gid), (3_000_000, 7));
    assert_eq!(first.meta.mtime, Time { sec: 1, nsec: 500_000_000 });
    assert_eq!(first.meta.xattrs[&b"user.a"[..]], b"1");
    assert_eq!((&all[1].0.name[..], all[1].0.meta.gid, all[1].0.meta.uid), (&b"plain"[..], 7, 0));
    assert!(all[1].0.meta.xattrs.is_empty());
}

#[test]
fn sparse_files_of_all_forms_are_filled_with_zeros() {
    let mut want = vec![0; 3000];
    want[512..515].copy_from_slice(b"abc");
    want[2000..2002].copy_from_slice(b"de");
    let old = head(
        b'S',
        "s",
        5,
        &[
            (257, b"ustar  \0"),
            (386, b"00000001000\x0000000000003\0"),
            (482, b"\x01"),
            (483, b"00000005670\0"),
        ],
    );
    let mut extension = vec![0; BLOCK];
    extension[..24].copy_from_slice(b"00000003720\x0000000000002\0");
    let size: (&str, &[u8]) = ("GNU.sparse.size", b"3000");
    let form0 = [
        size,
        ("GNU.sparse.offset", b"512"),
        ("GNU.sparse.numbytes", b"3"),
        ("GNU.sparse.offset", b"2000"),
        ("GNU.sparse.numbytes", b"2"),
    ];
    let form1 = [size, ("GNU.sparse.name", b"s"), ("GNU.sparse.map", b"512,3,2000,2")];
    let form2 = [
        ("GNU.sparse.major", &b"1"[..]),
        ("GNU.sparse.minor", b"0"),
        ("GNU.sparse.name", b"s"),
        ("GNU.sparse.realsize", b"3000"),
    ];
    let mapped = [data(b"2\n512\n3\n2000\n2\n"), b"abcde".to_vec()].concat();
    for parts in [
        vec![old.clone(), extension.clone(), data(b"abcde")],
        vec![pax(&form0), entry(b'0', "s", b"abcde")],
        vec![pax(&form1), entry(b'0', "other", b"abcde")],
        vec![pax(&form2), entry(b'0', "other", &mapped)],
    ] {
        let (entry, content) = one(&[parts.concat(), entry(0, "next", b"")]);
        assert_eq!((&entry.name[..], entry.size), (&b"s"[..], 3000));
        assert!(content == want);
    }
    let short = pax(&[("GNU.sparse.size", b"3000"), ("GNU.sparse.map", b"512,3")]);
    assert!(matches!(fault(&[short, entry(b'0', "s", b"abcde")]), Fault::Corrupt(_)));
    let huge = pax(&[("GNU.sparse.size", b"9000000000000"), ("GNU.sparse.map", b"0,0")]);
    assert!(matches!(fault(&[huge, entry(b'0', "s", b"")]), Fault::TooLarge { what: "file", .. }));
    let count = pax(&form2);
    assert!(matches!(fault(&[count, entry(b'0', "s", &data(b"99999999\n"))]), Fault::Corrupt(_)));
}

#[test]
fn each_fault_has_its_variant() {
    let huge = |flag, size: &[u8]| head(flag, "huge", 0, &[(124, size)]);
    let global = |keyword: &str, value: &[u8]| entry(b'g', "g", &line(keyword, value));
    for (parts, want) in [
        (
            vec![huge(b'x', b"00004000001\0")],
            "the extended header has 1048577 bytes, at most 1048576 are allowed",
        ),
        (vec![huge(b'L', b"00000010005\0")], "the long name has 4101 bytes, at most 4100 are allowed"),
        (vec![huge(b'0', b"00004000001\0")], "the file has 1048577 bytes, at most 1048576 are allowed"),
        (
            vec![huge(b'0', b"\x80\0\0\0\x7f\xff\xff\xff\xff\xff\xff\xff")],
            "a size of 9223372036854775807 bytes",
        ),
        (vec![huge(b'0', b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff")], "the field size is"),
        (vec![head(b'0', "", 0, &[])], "an entry without a name"),
        (vec![head(b'1', "h", 5, &[(157, b"to")])], "a hard link with data of its own is not supported"),
        (vec![head(b'1', "h", 0, &[])], "a hard link without a target"),
        (vec![head(b'2', "l", 0, &[])], "a link target of 0 bytes"),
        (vec![head(b'3', "c", 0, &[])], "a device in a header of v7, which has no device numbers"),
        (vec![head(b'M', "m", 0, &[])], "an entry of type `M` is not supported"),
        (vec![pax(&[("path", b"x")])], "an extended header without an entry"),
        (vec![pax(&[]), pax(&[])], "a second extended header for one entry"),
        (vec![global("path", b"x")], "a global header with one file's name or size is not supported"),
        (
            vec![pax(&[("SCHILY.devmajor", b"4096"), ("SCHILY.devminor", b"0")]), head(b'3', "c", 0, &[])],
            "the device number 4096:0 is not supported",
        ),
    ] {
        let found = fault(&parts).to_string();
        assert!(found.starts_with(want), "{found}");
    }
}

#[test]
fn errors_name_offset_and_entry() {
    let mut bytes = archive(&[entry(0, "./first", b"abc"), entry(b'M', "./se\ncond", b"")]);
    let error = list(&bytes).unwrap_err();
    assert_eq!(
        error.to_string(),
        "offset 1024, entry `./se\\x0acond`: an entry of type `M` is not supported"
    );
    bytes[1024] = b'!';
    let error = list(&bytes).unwrap_err();
    assert!(error.to_string().starts_with("offset 1024: the header's checksum is not"), "{error}");
    let error = list(&bytes[..700]).unwrap_err();
    assert_eq!(error.to_string(), "offset 700, entry `./first`: the archive is cut off");
    assert!(matches!(list(&bytes[..1024]).unwrap_err().fault, Fault::Truncated), "no end marker");
    assert!(matches!(list(b"").unwrap_err().fault, Fault::Truncated));
}

#[test]
fn only_zero_bytes_may_follow_the_end() {
    let good = archive(&[entry(0, "a", b"abc")]);
    assert!(list(&[&good[..], &[0; 10_000]].concat()).is_ok());
    assert!(list(&good[..good.len() - BLOCK]).is_ok(), "one zero block is taken as the end");
    let hidden = [good, archive(&[entry(0, "hidden", b"")])].concat();
    assert!(matches!(list(&hidden).unwrap_err().fault, Fault::Corrupt(_)));
}

#[test]
fn faults_of_the_stream_below_keep_their_type() {
    let packed = crate::archive::compress::tests::xz(&archive(&[entry(0, "a", &[7; 5000])]));
    let cut = &packed[..packed.len() / 2];
    let mut reader = Reader::new(crate::archive::Decoder::new(cut).unwrap());
    let error = loop {
        match reader.next_entry() {
            Ok(entry) => assert!(entry.is_some(), "the end"),
            Err(e) => break e,
        }
    };
    assert!(matches!(error.fault, Fault::Packed(CompressError::Truncated { .. })), "{error}");
}

/// An archive with every kind of header, for mutation.
fn rich() -> Vec<u8> {
    archive(&[
        entry(b'g', "g", &line("comment", b"x")),
        pax(&[("path", b"dir/"), ("mtime", b"-1.5"), ("SCHILY.xattr.user.x", b"v")]),
        head(b'5', "d", 0, &[(257, b"ustar\x0000")]),
        entry(b'L', "L", b"dir/long\0"),
        entry(0, "f", b"content"),
        head(b'1', "h", 0, &[(157, b"dir/long")]),
        head(
            b'S',
            "s",
            5,
            &[(257, b"ustar  \0"), (386, b"00000001000\x0000000000005\0"), (483, b"00000005670\0")],
        ),
        data(b"abcde"),
    ])
}

#[test]
fn the_archive_for_mutation_is_good() {
    assert_eq!(list(&rich()).unwrap().len(), 4);
    crate::archive::fuzz::tar(&rich());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn changed_archives_never_panic(
        changes in proptest::collection::vec((0usize..6200, any::<u8>()), 0..4),
        splice in (0usize..12, 0usize..12), cut in 0usize..14_000, reseal: bool,
    ) {
        let mut bytes = rich();
        for (at, byte) in changes {
            if let Some(b) = bytes.get_mut(at) {
                *b = byte;
            }
        }
        // A block moved elsewhere keeps its checksum, and one with a new checksum gets further.
        let (from, to) = (splice.0 * BLOCK, splice.1 * BLOCK);
        let moved: Vec<u8> = bytes[from..from + BLOCK].to_vec();
        bytes.splice(to..to, moved);
        if reseal {
            for chunk in bytes.chunks_exact_mut(BLOCK) {
                let mut raw = [0; BLOCK];
                raw.copy_from_slice(chunk);
                if raw[148..156] != [0; 8] {
                    chunk.copy_from_slice(&header::tests::seal(raw));
                }
            }
        }
        bytes.truncate(cut);
        crate::archive::fuzz::tar(&bytes);
    }
}
