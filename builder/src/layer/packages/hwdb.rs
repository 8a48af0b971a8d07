//! What `systemd-hwdb update` does, natively: the hardware database, 13 MB, 10 to 50 s emulated.
//! Must not know: what its properties mean.
//! Spec: systemd 257: `src/libsystemd/sd-hwdb/hwdb-internal.h` (the file), `src/shared/hwdb-util.c`
//! (the text and the order of all parts), `src/basic/strbuf.c`. The judge is the target's own
//! program: the bytes are the same.

mod trie;

use std::collections::BTreeMap;

use super::InstallError;
use super::database::{place, put, read};
use crate::store::Store;
use crate::tree::{Inode, Meta, Time, Tree};
use trie::{Property, Trie};

/// Does what the calls of `systemd-hwdb` ask for: several ask for the same.
pub(super) fn apply(
    tree: &mut Tree,
    store: &Store,
    calls: &[Vec<String>],
    time: Time,
) -> Result<(), InstallError> {
    let mut updates = calls.iter().filter(|call| {
        call.first().is_some_and(|name| name == "systemd-hwdb") && call.iter().any(|w| w == "update")
    });
    let Some(call) = updates.next_back() else { return Ok(()) };
    let usr = call.iter().any(|w| w == "--usr");
    let dirs = if usr { &["usr/lib/udev/hwdb.d"][..] } else { &["etc/udev/hwdb.d", "usr/lib/udev/hwdb.d"] };
    let path = if usr { "usr/lib/udev/hwdb.bin" } else { "etc/udev/hwdb.bin" };
    // The first folder wins where two have a file of one name.
    let mut files: BTreeMap<Vec<u8>, String> = BTreeMap::new();
    for dir in dirs {
        for (file, _, _) in tree.children(&place(dir)?) {
            if file.as_bytes().ends_with(b".hwdb") {
                files.entry(file.name().to_vec()).or_insert_with(|| file.to_string());
            }
        }
    }
    let mut trie = Trie::new();
    for (number, file) in files.values().enumerate() {
        let end = tree.resolve(&place(file)?, true);
        if let Some(object) = end.and_then(|end| tree.get(&end)).and_then(Inode::object) {
            let priority = u16::try_from(number + 1).unwrap_or(u16::MAX);
            import(&mut trie, &store.read_object(object)?, file, priority);
        }
    }
    let bytes = trie.write(version(store, tree)?);
    put(tree, store, path, &bytes, Meta::root_owned(0o444, time))
}

/// The number of systemd's release, which the file names as its maker.
fn version(store: &Store, tree: &Tree) -> Result<u64, InstallError> {
    let installed = read(store, tree)?;
    let udev = installed.iter().find(|package| package.name == "udev");
    let digits: String =
        udev.map(|udev| udev.version.chars().take_while(char::is_ascii_digit).collect()).unwrap_or_default();
    Ok(digits.parse().unwrap_or_default())
}

/// Reads one file: lines of matches, then of properties that begin with a space, then an empty one.
/// What is out of place is passed over, as systemd does with a warning.
fn import(trie: &mut Trie, text: &[u8], file: &str, priority: u16) {
    let mut matches: Vec<&[u8]> = Vec::new();
    let mut data = false;
    for (number, line) in text.split(|&b| b == b'\n').enumerate() {
        if line.first() == Some(&b'#') {
            continue;
        }
        let line = line.split(|&b| b == b'#').next().unwrap_or_default();
        let end = line.iter().rposition(|&b| !is_space(b)).map_or(0, |at| at + 1);
        let line = &line[..end];
        let property = line.first() == Some(&b' ');
        match (matches.is_empty(), line.is_empty(), property) {
            (_, true, _) => {
                matches.clear();
                data = false;
            }
            (true, _, true) => {}
            (false, _, true) => {
                data = true;
                let line_number = u32::try_from(number + 1).unwrap_or(u32::MAX);
                insert(trie, &matches, line, file, priority, line_number);
            }
            // A match behind properties without an empty line between: the record is dropped.
            (false, _, false) if data => {
                matches.clear();
                data = false;
            }
            _ => matches.push(line),
        }
    }
}

fn is_space(b: u8) -> bool {
    matches!(b, b' ' | b'\t' | b'\n' | 0x0b | 0x0c | b'\r')
}

fn insert(trie: &mut Trie, matches: &[&[u8]], line: &[u8], file: &str, priority: u16, line_number: u32) {
    let Some(equals) = line.iter().position(|&b| b == b'=') else { return };
    let (mut key, value) = (&line[..equals], &line[equals + 1..]);
    let blank = |b: Option<&u8>| matches!(b, Some(b' ' | b'\t'));
    while blank(key.first()) && blank(key.get(1)) {
        key = &key[1..];
    }
    if key.len() < 2 {
        return;
    }
    for search in matches {
        trie.insert(search, &Property { key, value, file: file.as_bytes(), priority, line_number });
    }
}

#[cfg(test)]
mod tests;
