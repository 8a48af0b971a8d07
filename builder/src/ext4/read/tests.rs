//! Tests of the reader on what our own writer makes, whole and damaged; the judges in `tests/` have what others
//! make.

use proptest::prelude::*;

use super::*;
use crate::ext4::tests::{image, representable, store};
use crate::io::progress::{Progress, Unit};
use crate::store::Store;
use crate::tree::tests::{any_tree, dir, file, path, symlink, tree};
use crate::tree::{Inode, Kind, Meta, Tree};

const SIZE: u64 = 8 << 20;

fn import(bytes: &[u8], store: &Store) -> Result<Tree, ReadError> {
    into_tree(&bytes as &dyn ReadAt, store, &Progress::off().task("reading", Unit::Bytes, None))
}

/// A tree with everything that has a form of its own, a directory of so many names, and its image.
fn sample(store: &Store, names: usize) -> (Tree, Vec<u8>) {
    let mut sample = tree(&[
        ("dir/file", file(b"content")),
        ("dir/sub/deep", dir()),
        ("link", symlink("dir/file")),
        ("long", symlink(&"x".repeat(200))),
        ("device", Inode { kind: Kind::Block { major: 259, minor: 300 }, ..file(b"") }),
        ("fifo", Inode { kind: Kind::Fifo, ..file(b"") }),
    ]);
    let names: Vec<String> = (0..names).map(|n| format!("many/name-{n:03}-{}", "n".repeat(40))).collect();
    for name in &names {
        sample.make_parents(&path(name), &Meta::default()).unwrap();
        sample.insert(path(name), file(b"x")).unwrap();
    }
    let id = sample.id(&path("dir/file")).unwrap();
    sample.link(path("dir/hard"), id).unwrap();
    sample.meta_mut(&path("link")).unwrap().xattrs.insert(b"trusted.t".to_vec(), vec![7; 900]);
    sample.meta_mut(&path("dir")).unwrap().xattrs.insert(b"user.u".to_vec(), b"v".to_vec());
    let mut sample = representable(sample, store);
    // The writer makes it where it is not there.
    sample.insert(path("lost+found"), dir()).unwrap();
    let bytes = image(&sample, store, SIZE);
    (sample, bytes)
}

#[test]
fn what_was_written_is_read() {
    let (_dir, store) = store();
    let (sample, bytes) = sample(&store, 400);
    assert_eq!(import(&bytes, &store).unwrap(), sample);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]
    #[test]
    fn any_tree_comes_back(tree in any_tree()) {
        let (_dir, store) = store();
        let mut tree = representable(tree, &store);
        if tree.get(&path("lost+found")).is_none() {
            tree.insert(path("lost+found"), dir()).unwrap();
        }
        let Ok(layout) = crate::ext4::lay_out(&tree, &crate::ext4::tests::options(SIZE)) else { return Ok(()) };
        let mut sink = crate::io::sink::Plain::new(Vec::new());
        layout.write(&store, &mut sink).unwrap();
        prop_assert_eq!(import(&sink.into_inner(), &store).unwrap(), tree);
    }
}

/// Which bytes the reader looks at, but for those of files.
struct Watched<'a> {
    bytes: &'a [u8],
    seen: std::sync::Mutex<Vec<(u64, usize)>>,
}

impl ReadAt for Watched<'_> {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        self.seen.lock().unwrap().push((offset, buffer.len()));
        self.bytes.read_at(buffer, offset)
    }

    fn size(&self) -> u64 {
        self.bytes.len() as u64
    }
}

/// Every byte of metadata is turned over, one at a time: each is noticed, unless nothing depends on it.
#[test]
fn a_byte_that_was_turned_over_is_told_with_its_place() {
    let (_dir, store) = store();
    let (sample, mut bytes) = sample(&store, 400);
    let watched = Watched { bytes: &bytes, seen: Default::default() };
    let task = Progress::off().task("reading", Unit::Bytes, None);
    into_tree(&watched, &store, &task).unwrap();
    let mut seen = watched.seen.into_inner().unwrap();
    seen.sort_unstable();
    seen.dedup();
    let (mut told, mut same) = (0, 0);
    // A step that is no multiple of any structure's size meets each field sooner or later.
    let places: Vec<usize> =
        seen.iter().flat_map(|(at, len)| (*at as usize..*at as usize + len).step_by(61)).collect();
    for at in places {
        bytes[at] ^= 0x41;
        match import(&bytes, &store) {
            Err(_) => told += 1,
            // The content of files and links has no checksum in ext4.
            Ok(read) if read.len() == sample.len() => same += 1,
            Ok(_) => panic!("byte {at} was turned over, and another tree was read"),
        }
        bytes[at] ^= 0x41;
    }
    assert!(told > 500 && same < told / 5, "{told} told, {same} not");
}

#[test]
fn an_image_that_was_cut_is_refused() {
    let (_dir, store) = store();
    let (_, bytes) = sample(&store, 400);
    for len in [0, 1023, 2047, 4096, bytes.len() / 2, bytes.len() - 1] {
        assert!(import(&bytes[..len], &store).is_err(), "{len}");
    }
    assert!(matches!(import(&[0; 65_536], &store), Err(ReadError::Foreign { found: 0 })));
}

/// Sets a field of the superblock and makes its checksum right again.
fn with_field(bytes: &[u8], at: usize, value: &[u8]) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    bytes[1024 + at..1024 + at + value.len()].copy_from_slice(value);
    let sum = super::super::checksum::Seed::none().with(&bytes[1024..1024 + 0x3fc]).sum();
    bytes[1024 + 0x3fc..2048].copy_from_slice(&sum.to_le_bytes());
    bytes
}

#[test]
fn a_shape_that_cannot_be_is_refused_whatever_its_checksum() {
    let (_dir, store) = store();
    let (_, bytes) = sample(&store, 400);
    for (at, value, want) in [
        (0x18, &7u32.to_le_bytes()[..], "blocks of 2^17 bytes"),
        (0x04, &u32::MAX.to_le_bytes(), "blocks of 4096 bytes, but"),
        (0x150, &u32::MAX.to_le_bytes(), "bytes in all"),
        (0x00, &u32::MAX.to_le_bytes(), "inodes, but"),
        (0x20, &[0; 4], "0 blocks a group"),
        (0x28, &[0; 4], "0 inodes a group"),
        (0x28, &u32::MAX.to_le_bytes(), "inodes a group"),
        (0x58, &[3, 0], "inodes of 3 bytes"),
        (0x58, &[0, 0x80], "inodes of 32768 bytes"),
        (0xfe, &[33, 0], "group descriptors of 33 bytes"),
        (0x14, &u32::MAX.to_le_bytes(), "data begin at block"),
        (0x60, &[0xd2, 0x02], "feature `meta_bg`"),
        (0x60, &[0xc2, 0x02, 0x00, 0x80], "feature `0x80000000`"),
        (0x60, &[0xc6, 0x02], "e2fsck -fy"),
    ] {
        let error = import(&with_field(&bytes, at, value), &store).unwrap_err().to_string();
        assert!(error.contains(want), "{at:#x}: {error}");
    }
    let error = import(
        &{
            let mut b = bytes.clone();
            b[1024] ^= 1;
            b
        },
        &store,
    )
    .unwrap_err()
    .to_string();
    assert_eq!(error, "superblock, at byte 2044: its checksum is wrong");
}

/// The same filesystem without checksums, so that what a checksum would catch is met by the reader itself.
fn unchecked(bytes: &[u8]) -> Vec<u8> {
    let ro_compat = u32::from_le_bytes(bytes[1024 + 0x64..1024 + 0x68].try_into().unwrap());
    with_field(bytes, 0x64, &(ro_compat & !0x400).to_le_bytes())
}

#[test]
fn hostile_metadata_never_panics_and_always_ends() {
    let (_dir, store) = store();
    let (_, bytes) = sample(&store, 60);
    let bytes = unchecked(&bytes);
    let watched = Watched { bytes: &bytes, seen: Default::default() };
    let task = Progress::off().task("reading", Unit::Bytes, None);
    into_tree(&watched, &store, &task).unwrap();
    let mut seen = watched.seen.into_inner().unwrap();
    seen.sort_unstable();
    seen.dedup();
    let mut bytes = bytes.clone();
    let mut n = 0usize;
    for (at, len) in seen {
        for at in (at as usize..at as usize + len).step_by(53) {
            let old = bytes[at];
            // A multiplier that reaches all values, and those that are often a limit.
            n = n.wrapping_mul(31).wrapping_add(at);
            for value in [0, 0xff, (n % 256) as u8] {
                bytes[at] = value;
                let _ = import(&bytes, &store);
            }
            bytes[at] = old;
        }
    }
}

#[test]
fn a_directory_that_is_in_itself_is_told() {
    let (_dir, store) = store();
    let loops = representable(tree(&[("a/b/c", dir())]), &store);
    let mut bytes = unchecked(&image(&loops, &store, SIZE));
    // The entry of `c` is made to name `a`'s inode.
    let find = |bytes: &[u8], name: &[u8]| {
        bytes.windows(9).position(|w| w[6] == 1 && w[7] == 2 && w[8..] == *name).unwrap()
    };
    let (a, c) = (find(&bytes, b"a"), find(&bytes, b"c"));
    bytes.copy_within(a..a + 4, c);
    let error = import(&bytes, &store).unwrap_err().to_string();
    assert!(error.contains("a directory with the further name `/a/b/c`"), "{error}");
}
