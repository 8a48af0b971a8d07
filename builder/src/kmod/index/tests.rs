use super::*;
use proptest::prelude::*;

type Entries = Vec<(String, u32, String)>;

/// Reads an index as libkmod does: by following offsets from the root.
fn read(bytes: &[u8]) -> Entries {
    let word = |at: usize| u32::from_be_bytes(bytes[at..at + 4].try_into().unwrap());
    assert_eq!((word(0), word(4)), (INDEX_MAGIC, INDEX_VERSION));
    let mut found = Vec::new();
    let mut todo = vec![(String::new(), word(8))];
    while let Some((mut key, reference)) = todo.pop() {
        let mut at = (reference & 0x0fff_ffff) as usize;
        let text = |at: &mut usize| {
            let end = *at + bytes[*at..].iter().position(|&b| b == 0).unwrap();
            let text = String::from_utf8(bytes[*at..end].to_vec()).unwrap();
            *at = end + 1;
            text
        };
        if reference & NODE_PREFIX != 0 {
            key += &text(&mut at);
        }
        if reference & NODE_CHILDREN != 0 {
            let (first, last) = (bytes[at], bytes[at + 1]);
            at += 2;
            for byte in first..=last {
                if word(at) != 0 {
                    todo.push((format!("{key}{}", char::from(byte)), word(at)));
                }
                at += 4;
            }
        }
        if reference & NODE_VALUES != 0 {
            let count = word(at);
            at += 4;
            for _ in 0..count {
                let priority = word(at);
                at += 4;
                found.push((key.clone(), priority, text(&mut at)));
            }
        }
    }
    found.sort_by(|a, b| (&a.0, a.1).cmp(&(&b.0, b.1)));
    found
}

fn index(entries: &[(&str, &str, u32)]) -> Index {
    let mut index = Index::default();
    for (key, value, priority) in entries {
        index.insert(key, value, *priority).unwrap();
    }
    index
}

#[test]
fn an_empty_index_is_a_header_and_a_root_without_anything() {
    let bytes = Index::default().write().unwrap();
    assert_eq!(bytes, [0xb0, 0x07, 0xf4, 0x57, 0, 2, 0, 1, 0, 0, 0, 12]);
}

/// Checked by hand against `depmod` of kmod 34 on a tree of two modules.
#[test]
fn keys_that_share_a_beginning_share_a_node() {
    let bytes = index(&[("abc", "x", 1), ("abd", "y", 2)]).write().unwrap();
    let mut want = vec![0xb0, 0x07, 0xf4, 0x57, 0, 2, 0, 1, 0x20, 0, 0, 12];
    want.extend(b"aa\xa0\0\0\x12"); // root: one child at byte 18, with prefix and children
    want.extend(b"b\0cd\x40\0\0\x1e\x40\0\0\x28"); // "b", then c at 30 and d at 40
    want.extend(b"\0\0\0\x01\0\0\0\x01x\0");
    want.extend(b"\0\0\0\x01\0\0\0\x02y\0");
    assert_eq!(bytes, want);
}

#[test]
fn values_are_ordered_by_priority_and_the_later_of_equals_first() {
    let bytes = index(&[("k", "b", 5), ("k", "a", 1), ("k", "c", 5), ("", "root", 0)]).write().unwrap();
    let values: Vec<String> = read(&bytes).into_iter().map(|(_, _, v)| v).collect();
    assert_eq!(values, ["root", "a", "c", "b"]);
}

#[test]
fn texts_that_do_not_fit_are_refused() {
    for bad in ["ä", "a\0b"] {
        assert!(matches!(Index::default().insert(bad, "v", 0), Err(IndexError::BadText { .. })));
        assert!(matches!(Index::default().insert("k", bad, 0), Err(IndexError::BadText { .. })));
    }
}

#[test]
fn a_key_of_any_length_needs_no_deep_stack() {
    let mut index = Index::default();
    for len in 0..3000 {
        index.insert(&"x".repeat(len), "v", 0).unwrap();
    }
    assert_eq!(read(&index.write().unwrap()).len(), 3000);
}

proptest! {
    #[test]
    fn what_is_written_is_read_back(
        entries in proptest::collection::vec(("[a-d:]{0,6}", 0u32..4, "[x-z]{0,3}"), 0..40),
    ) {
        let mut index = Index::default();
        let mut want: Entries = Vec::new();
        for (key, priority, value) in entries {
            index.insert(&key, &value, priority).unwrap();
            want.push((key, priority, value));
        }
        let mut got = read(&index.write().unwrap());
        want.sort();
        got.sort();
        prop_assert_eq!(got, want);
    }

    #[test]
    fn the_order_of_distinct_keys_changes_nothing(keys in proptest::collection::btree_set("[ab]{0,5}", 0..12)) {
        let write = |keys: Vec<&String>| {
            let mut index = Index::default();
            keys.iter().for_each(|key| index.insert(key, "v", 7).unwrap());
            index.write().unwrap()
        };
        prop_assert_eq!(write(keys.iter().collect()), write(keys.iter().rev().collect()));
    }
}
