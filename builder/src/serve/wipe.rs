//! A wish that outlives a command: at its next boot, and then once, a node makes its partition `gt-state`
//! anew. `gt-image reset --state` writes it, the server tells it with the node's secrets.
//! Must not know: boots, how a node is told.
//! Spec: the root is wiped by every boot, state by a second, louder command only.
//!
//! ```text
//! <store>/wipe/<node>     milliseconds since 1970 at which it was asked for, in decimal
//! ```
//!
//! The number is the wish's identity. The node keeps it on the partition that it has wiped, so a wish that
//! is told again is granted already, and a server that has given up its rights need remove nothing.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use crate::cluster::NodeName;
use crate::io::atomic;

/// Asks for it. A wish that is there already is replaced by this one.
pub fn ask(store: &Path, node: &NodeName) -> io::Result<()> {
    // A clock before 1970 gives 0, and then two such wishes are one.
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
    atomic::write(&file(store, node), format!("{now}\n").as_bytes())
}

/// Takes it back, or off the list when it was honoured. None is fine too.
pub fn forget(store: &Path, node: &NodeName) -> io::Result<()> {
    match fs::remove_file(file(store, node)) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
        _ => Ok(()),
    }
}

/// The number of the wish that is open. A file that is no number is none: nothing is wiped on a guess.
pub fn open(store: &Path, node: &NodeName) -> io::Result<Option<u64>> {
    match fs::read_to_string(file(store, node)) {
        Ok(text) => Ok(text.trim().parse().ok()),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(e),
    }
}

fn file(store: &Path, node: &NodeName) -> PathBuf {
    store.join("wipe").join(node.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wish_is_one_nodes_and_can_be_taken_back() {
        let dir = tempfile::tempdir().unwrap();
        let (fenn, jast): (NodeName, NodeName) = ("fenn".parse().unwrap(), "jast".parse().unwrap());
        assert_eq!(open(dir.path(), &fenn).unwrap(), None);
        ask(dir.path(), &fenn).unwrap();
        assert!(open(dir.path(), &fenn).unwrap().is_some_and(|number| number > 0));
        assert_eq!(open(dir.path(), &jast).unwrap(), None);
        forget(dir.path(), &fenn).unwrap();
        forget(dir.path(), &fenn).unwrap();
        assert_eq!(open(dir.path(), &fenn).unwrap(), None);
    }

    #[test]
    fn nothing_is_wiped_on_a_guess() {
        let dir = tempfile::tempdir().unwrap();
        let fenn = "fenn".parse().unwrap();
        for text in ["", "yes", "-1", "1 2"] {
            atomic::write(&file(dir.path(), &fenn), text.as_bytes()).unwrap();
            assert_eq!(open(dir.path(), &fenn).unwrap(), None, "{text:?}");
        }
    }
}
