use super::*;
use crate::tree::tests::{any_tree, tree};
use crate::tree::{Hole, Inode, Kind, Meta, Time};
use proptest::prelude::*;

fn store() -> (tempfile::TempDir, Store) {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(&dir.path().join("store")).unwrap();
    (dir, store)
}

#[test]
fn an_object_is_its_bytes() {
    let (_dir, store) = store();
    let object = store.put_bytes(b"hello").unwrap();
    assert_eq!((object.digest, object.size), (Digest::of(b"hello"), 5));
    assert_eq!(store.put_bytes(b"hello").unwrap(), object);
    assert_eq!(store.read_object(&object).unwrap(), b"hello");
    assert_eq!(fs::read_dir(store.root().join("tmp")).unwrap().count(), 0);
    let empty = store.put_bytes(b"").unwrap();
    assert_eq!(store.read_object(&empty).unwrap(), b"");
}

#[test]
fn objects_in_memory_are_read_and_never_written() {
    let (_dir, store) = store();
    let object = Object { digest: Digest::of(b"secret"), size: 6, holes: Box::default() };
    let private = store.with_memory(vec![b"secret".to_vec()]);
    assert_eq!(private.read_object(&object).unwrap(), b"secret");
    assert_eq!(fs::read_dir(store.root().join("objects")).unwrap().count(), 0);
    assert!(store.read_object(&object).is_err());
}

#[test]
fn holes_are_found_whatever_the_pieces() {
    let (_dir, store) = store();
    let mut bytes = vec![0u8; 3 << 20];
    bytes[100_000] = 1;
    bytes[1 << 20] = 2;
    let end = bytes.len() as u64;
    let want = [
        Hole { offset: 0, len: 98_304 },
        Hole { offset: 102_400, len: (1 << 20) - 102_400 },
        Hole { offset: (1 << 20) + 4096, len: end - (1 << 20) - 4096 },
    ];
    for piece in [999, 4096, 70_000, 1 << 22] {
        let mut writer = store.object_writer().unwrap();
        bytes.chunks(piece).for_each(|c| writer.write(c).unwrap());
        let object = writer.finish().unwrap();
        assert_eq!(*object.holes, want, "pieces of {piece}");
        assert_eq!(store.read_object(&object).unwrap(), bytes);
        fs::remove_file(store.object_path(&object.digest)).unwrap();
    }
}

#[test]
fn a_damaged_object_is_noticed_and_written_again() {
    let (_dir, store) = store();
    let object = store.put_bytes(b"hello").unwrap();
    let file = store.object_path(&object.digest);
    fs::remove_file(&file).unwrap();
    fs::write(&file, b"").unwrap();
    assert!(matches!(store.open_object(&object), Err(StoreError::Damaged { .. })));
    store.put_bytes(b"hello").unwrap();
    assert_eq!(store.read_object(&object).unwrap(), b"hello");
}

#[test]
fn trees_and_layers_are_found_again_and_damage_is_told() {
    let (_dir, store) = store();
    let object = store.put_bytes(b"x").unwrap();
    let inode = Inode { meta: Meta::root_owned(0o644, Time::default()), kind: Kind::File(object) };
    let t = tree(&[("a/b", inode)]);
    let digest = store.put_tree(&t).unwrap();
    assert_eq!(store.tree(&digest).unwrap(), t);
    let key = Digest::of(b"inputs");
    assert_eq!(store.layer(&key).unwrap(), None);
    store.put_layer(&key, &digest).unwrap();
    assert_eq!(store.layer(&key).unwrap(), Some(digest));
    let file = store.root().join("trees").join(digest.hex());
    fs::write(&file, b"junk").unwrap();
    assert!(matches!(store.tree(&digest), Err(StoreError::Damaged { .. })));
    fs::remove_file(&file).unwrap();
    assert_eq!(store.layer(&key).unwrap(), None, "a layer without its tree is no layer");
}

#[test]
fn work_directories_go_with_their_maker() {
    let (_dir, store) = store();
    let tmp = store.root().join("tmp");
    let work = store.work_dir("test").unwrap();
    fs::write(work.path().join("x"), b"").unwrap();
    assert_eq!(work::abandoned(&tmp).unwrap(), Vec::<PathBuf>::new());
    drop(work);
    assert_eq!(fs::read_dir(&tmp).unwrap().count(), 0);
    fs::create_dir(tmp.join("killed-1.d")).unwrap();
    assert_eq!(work::abandoned(&tmp).unwrap(), [tmp.join("killed-1.d")]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(20))]
    #[test]
    fn any_tree_comes_back_from_the_store(t in any_tree()) {
        let (_dir, store) = store();
        let digest = store.put_tree(&t).unwrap();
        prop_assert_eq!(store.tree(&digest).unwrap(), t);
    }
}
