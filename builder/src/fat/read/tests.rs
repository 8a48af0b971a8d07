use super::*;
use crate::fat::tests::{image, store_with};
use crate::tree::tests::{dir, file, path, tree};

fn import(bytes: &[u8], store: &Store) -> Result<Tree, FatReadError> {
    into_tree(&bytes as &dyn ReadAt, store)
}

/// What FAT keeps of a tree.
fn kept(given: &Tree) -> Tree {
    let even = |sec: i64| Time::seconds(sec.clamp(315_532_800, 4_354_819_198) / 2 * 2);
    let mut kept = Tree::new(Meta::root_owned(MODE, Time::default()));
    for (path, _, inode) in given.iter().skip(1) {
        let meta = Meta::root_owned(MODE, even(inode.meta.mtime.sec));
        kept.insert(path.clone(), Inode { meta, kind: inode.kind.clone() }).unwrap();
    }
    kept
}

fn sample(store: &Store) -> (Tree, Vec<u8>) {
    let large: Vec<u8> = (0..70_001u32).map(|n| (n % 251) as u8).collect();
    let held = |bytes: &[u8]| Inode { kind: Kind::File(store.put_bytes(bytes).unwrap()), ..file(b"") };
    let mut given = tree(&[
        ("config.txt", held(b"arm_64bit=1\n")),
        ("EMPTY", held(b"")),
        ("overlays/gpio-fan.dtbo", held(&large)),
        ("overlays/A name that is long, é and 🦷 too.txt", held(b"x")),
        ("deep/er/and/deeper", dir()),
    ]);
    for n in 0..300 {
        let name = path(&format!("many/{n:03}-of-three-hundred.dtb"));
        given.make_parents(&name, &Meta::default()).unwrap();
        given.insert(name, held(&[n as u8])).unwrap();
    }
    given.meta_mut(&path("config.txt")).unwrap().mtime = Time::seconds(1_700_000_001);
    let bytes = image(&given, store);
    (given, bytes)
}

#[test]
fn what_was_written_is_read() {
    let (_dir, store) = store_with(&[]);
    let (given, bytes) = sample(&store);
    assert_eq!(import(&bytes, &store).unwrap(), kept(&given));
}

#[test]
fn turned_bytes_never_panic_and_always_end() {
    let (_dir, store) = store_with(&[]);
    let (_, mut bytes) = sample(&store);
    let geometry = super::super::geometry::Geometry::new(bytes.len() as u64).unwrap();
    let fats = u64::from(geometry.reserved) * 512;
    let data = fats + 2 * u64::from(geometry.fat_sectors) * 512;
    let places = (0..512).step_by(3).chain(fats..fats + 3000).chain((data..data + 40_000).step_by(37));
    for at in places.map(|at| at as usize) {
        let old = bytes[at];
        for value in [0, 0xff, old ^ 0x15] {
            bytes[at] = value;
            let _ = import(&bytes, &store);
        }
        bytes[at] = old;
    }
}

#[test]
fn chains_that_cannot_be_are_told_by_path() {
    let (_dir, store) = store_with(&[]);
    let (_, good) = sample(&store);
    let geometry = super::super::geometry::Geometry::new(good.len() as u64).unwrap();
    let fat = usize::from(geometry.reserved) * 512;
    let find = |name: &[u8]| good.windows(11).position(|w| w == name).unwrap();
    let first = |entry: usize| usize::from(u16::from_le_bytes([good[entry + 26], good[entry + 27]]));
    let set = |cluster: usize, next: u32| {
        let mut bytes = good.clone();
        bytes[fat + 4 * cluster..fat + 4 * cluster + 4].copy_from_slice(&next.to_le_bytes());
        import(&bytes, &store).unwrap_err().to_string()
    };
    // mtools writes short names in capitals; so do we.
    let (fan, many) = (find(b"GPIO-F~1DTB"), find(b"MANY       "));
    let told = set(first(fan), 0x0fff_ffff);
    assert!(told.contains("gpio-fan.dtbo") && told.contains("bytes before the file"), "{told}");
    let told = set(first(fan), 0x0fff_fff0);
    assert!(told.contains("is none"), "{told}");
    let told = set(first(many), first(many) as u32);
    assert!(told.contains("more than") || told.contains("twice"), "{told}");
    let told = import(&[0; 4096], &store).unwrap_err().to_string();
    assert!(told.contains("no FAT volume"), "{told}");
    assert!(
        import(&good[..good.len() / 2], &store).unwrap_err().to_string().contains("sectors, but there are")
    );
}

#[test]
fn a_long_name_counts_only_with_all_its_parts() {
    let short = *b"THEQUI~1FOX";
    let units: Vec<u16> = "The quick brown.fox".encode_utf16().collect();
    let mut bytes = Vec::new();
    super::super::format::put_long_entries(&mut bytes, &units, &short);
    let mut entry = vec![0; ENTRY];
    entry[..11].copy_from_slice(&short);
    bytes.extend(&entry);
    let names = |bytes: &[u8]| -> Vec<String> {
        entries(&TreePath::root(), bytes).unwrap().into_iter().map(|e| e.name).collect()
    };
    assert_eq!(names(&bytes), ["The quick brown.fox"]);
    assert_eq!(names(&bytes[ENTRY..]), ["THEQUI~1.FOX"], "the last part is missing");
    let mut other = bytes.clone();
    other[13] ^= 1;
    assert_eq!(names(&other), ["THEQUI~1.FOX"], "another name's part");
    entry[..11].copy_from_slice(b"KERNEL8 IMG");
    entry[12] = 0x18;
    assert_eq!(names(&entry), ["kernel8.img"]);
    entry[0] = 0xe5;
    assert!(names(&entry).is_empty());
}
