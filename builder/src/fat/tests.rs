use std::io;

use super::*;
use crate::io::sink::{ImageSink, Plain};
use crate::store::Store;
use crate::tree::tests::{dir, file, path, symlink, tree};
use crate::tree::{Inode, Kind, Object, Tree};

const MIB: u64 = 1 << 20;

fn options() -> Options {
    Options { size: 40 * MIB, serial: 0x1234_abcd, label: "bootfs".into(), hidden_sectors: 16_384 }
}

pub(super) fn store_with(bytes: &[&[u8]]) -> (tempfile::TempDir, Store) {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(&dir.path().join("store")).unwrap();
    bytes.iter().for_each(|b| _ = store.put_bytes(b).unwrap());
    (dir, store)
}

pub(super) fn image(tree: &Tree, store: &Store) -> Vec<u8> {
    let mut sink = Plain::new(Vec::new());
    lay_out(tree, &options()).unwrap().write(store, &mut sink).unwrap();
    sink.into_inner()
}

/// A file of this size whose bytes nobody has.
fn sized(size: u64) -> Inode {
    let mut inode = file(b"");
    inode.kind = Kind::File(Object { size, ..inode.object().unwrap().clone() });
    inode
}

#[test]
fn what_fat_cannot_hold_is_refused_by_path() {
    let error = |entries: &[(&str, Inode)]| lay_out(&tree(entries), &options()).unwrap_err();
    let at = |e: FatError, want: &str| {
        let text = e.to_string();
        assert!(text.contains(want), "{text}");
        e
    };
    assert!(matches!(at(error(&[("a/l", symlink("x"))]), "`/a/l`"), FatError::Kind { .. }));
    assert!(matches!(at(error(&[("a/b:c", dir())]), "`/a/b:c`"), FatError::Name { .. }));
    let twice = error(&[("a/Foo", dir()), ("a/foo", dir())]);
    assert!(matches!(at(twice, "`/a/foo` and `/a/Foo`"), FatError::Duplicate { .. }));
    assert!(matches!(at(error(&[("big", sized(1 << 32))]), "4294967296"), FatError::FileSize { .. }));
    assert!(matches!(error(&[("big", sized(u64::from(u32::MAX)))]), FatError::Full { .. }));
    assert!(matches!(error(&[("big", sized(39 * MIB + MIB / 2))]), FatError::Full { .. }));
}

#[test]
fn directories_end_at_65536_entries() {
    let full = |count: usize| {
        let names: Vec<String> = (0..count).map(|i| format!("d/{i:X}")).collect();
        tree(&names.iter().map(|n| (n.as_str(), file(b""))).collect::<Vec<_>>())
    };
    assert!(lay_out(&full(65_534), &options()).is_ok());
    let error = lay_out(&full(65_535), &options()).unwrap_err();
    assert!(matches!(error, FatError::DirectorySize { entries: 65_537, .. }), "{error}");
}

#[test]
fn labels_and_sizes_are_checked() {
    let t = tree(&[]);
    let with = |change: fn(&mut Options)| {
        let mut options = options();
        change(&mut options);
        lay_out(&t, &options).unwrap_err()
    };
    assert!(matches!(with(|o| o.label = "much too long".into()), FatError::Label { .. }));
    assert!(matches!(with(|o| o.size = 20 * MIB), FatError::Volume { .. }));
    assert!(matches!(with(|o| o.size += 1), FatError::Volume { .. }));
}

#[test]
fn the_size_for_a_tree_holds_it_and_the_free_space() {
    for (content, free) in [(0, 0), (1, 0), (30 * MIB, 0), (50 * MIB + 1, 10 * MIB), (900 * MIB, 200 * MIB)] {
        let t = tree(&[("d/file", sized(content))]);
        let size = size_for(&t, free).unwrap();
        let layout = lay_out(&t, &Options { size, ..options() }).unwrap();
        let left =
            u64::from(layout.geometry.clusters - (layout.free.0 - 2)) * layout.geometry.cluster_bytes();
        assert!(left >= free, "{content} and {free}: {left} left in {size}");
        assert_eq!(size % MIB, 0);
    }
}

#[test]
fn the_image_holds_what_the_layout_says() {
    let (_dir, store) = store_with(&[b"hello", b""]);
    let t = tree(&[("CONFIG.TXT", file(b"hello")), ("sub/empty", file(b""))]);
    let image = image(&t, &store);
    assert_eq!(image.len() as u64, 40 * MIB);
    let layout = lay_out(&t, &options()).unwrap();
    let data = usize::try_from(layout.geometry.data_start()).unwrap();
    let fat = &image[32 * 512..32 * 512 + 24];
    let entries: Vec<u32> = fat.chunks(4).map(|c| u32::from_le_bytes(c.try_into().unwrap())).collect();
    // The root, the directory and the file have one cluster each; the empty file has none.
    assert_eq!(entries, [0x0fff_fff8, 0x0fff_ffff, 0x0fff_ffff, 0x0fff_ffff, 0x0fff_ffff, 0]);
    assert_eq!(&image[data..data + 12], b"bootfs     \x08");
    assert_eq!(&image[data + 32..data + 44], b"CONFIG  TXT\x20");
    assert_eq!(&image[data + 512..data + 524], b".          \x10");
    assert_eq!(&image[data + 1024..data + 1029], b"hello");
    assert_eq!(&image[..512], &image[6 * 512..7 * 512], "the boot sector has a copy at 6");
    let second = 32 * 512 + usize::try_from(layout.geometry.fat_bytes()).unwrap();
    assert_eq!(&image[32 * 512..second], &image[second..data], "the FATs are equal");
}

#[test]
fn only_free_clusters_are_skipped() {
    struct Marks(u64, Vec<(u64, u64)>);
    impl ImageSink for Marks {
        fn data(&mut self, bytes: &[u8]) -> io::Result<()> {
            self.0 += bytes.len() as u64;
            Ok(())
        }
        fn skip(&mut self, len: u64) -> io::Result<()> {
            self.1.push((self.0, len));
            self.0 += len;
            Ok(())
        }
        fn position(&self) -> u64 {
            self.0
        }
    }
    let zeros = vec![0; 300_000];
    let (_dir, store) = store_with(&[&zeros]);
    let object = store.put_bytes(&zeros).unwrap();
    let t = tree(&[("zeros", Inode { kind: Kind::File(object), ..file(b"") })]);
    let layout = lay_out(&t, &options()).unwrap();
    let mut sink = Marks(0, Vec::new());
    layout.write(&store, &mut sink).unwrap();
    let used = layout.geometry.data_start() + 512 + 300_000u64.next_multiple_of(512);
    assert_eq!(sink.1, [(used, 40 * MIB - used)]);
}

#[test]
fn hard_links_are_two_files_and_the_bytes_are_the_same_twice() {
    let (_dir, store) = store_with(&[b"hello"]);
    let mut t = tree(&[("a", file(b"hello"))]);
    t.link(path("b"), t.id(&path("a")).unwrap()).unwrap();
    let layout = lay_out(&t, &options()).unwrap();
    assert_ne!(layout.files[0].run.first, layout.files[1].run.first);
    assert_eq!(image(&t, &store), image(&t, &store));
}

#[test]
fn a_missing_object_and_a_full_sink_are_told_apart() {
    let (_dir, store) = store_with(&[]);
    let t = tree(&[("a", file(b"nobody has this"))]);
    let layout = lay_out(&t, &options()).unwrap();
    let error = layout.write(&store, &mut Plain::new(Vec::new())).unwrap_err();
    assert!(matches!(error, FatError::Store { .. }), "{error}");
    let mut small = [0u8; 20_000];
    let error = layout.write(&store, &mut Plain::new(&mut small[..])).unwrap_err();
    assert!(matches!(error, FatError::Sink { at: 16_400, .. }), "{error}");
}
