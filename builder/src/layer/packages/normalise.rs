//! Takes away what differs from one installation to the next, and what only a running machine needs.
//! Must not know: which packages are installed.
//! Spec: design.md section 6; machine-id(5) for an image: the file is there and empty.

use super::database::put;
use super::{CHANGED, InstallError};
use crate::store::Store;
use crate::tree::{Inode, Kind, Meta, Time, Tree, TreePath};

/// Files and folders that go, with all below.
const REMOVED: [&str; 26] = [
    // Random: made anew at the first boot or given by the node's identity.
    "var/lib/systemd/random-seed",
    "var/lib/systemd/credential.secret",
    "var/lib/urandom/random-seed",
    "etc/munge/munge.key",
    "etc/iscsi/initiatorname.iscsi",
    // Copies that programs keep of what they changed.
    "etc/passwd-",
    "etc/group-",
    "etc/shadow-",
    "etc/gshadow-",
    "etc/subuid-",
    "etc/subgid-",
    "etc/.pwd.lock",
    "etc/ca-certificates.conf.dpkg-old",
    "var/lib/dpkg/status-old",
    "var/lib/dpkg/diversions-old",
    "var/lib/dpkg/statoverride-old",
    "var/lib/dpkg/available-old",
    "var/lib/dpkg/lock",
    "var/lib/dpkg/lock-frontend",
    "var/lib/dpkg/triggers/Lock",
    "var/cache/debconf/config.dat-old",
    "var/cache/debconf/templates.dat-old",
    "var/cache/debconf/passwords.dat",
    // Holds inode numbers and times of the building machine.
    "var/cache/ldconfig/aux-cache",
    "var/lib/dbus/machine-id",
    "var/lib/dpkg/tmp.ci",
];

/// Folders whose entries go; the folder stays.
const EMPTIED: [&str; 4] = ["tmp", "run", "var/tmp", "root/.cache"];

/// Folders whose files go, at any depth: the folders in them belong to packages.
const WITHOUT_FILES: [&str; 5] =
    ["var/log/", "var/lib/apt/lists/", "var/cache/apt/", "var/cache/man/", "var/backups/"];

/// Makes the tree the same in every build. Times that a script set become `epoch`, in seconds, as do
/// later ones.
pub(super) fn normalise(tree: &mut Tree, store: &Store, epoch: i64) -> Result<(), InstallError> {
    for path in REMOVED {
        remove(tree, path);
    }
    for dir in EMPTIED {
        let doomed: Vec<TreePath> = match TreePath::new(dir) {
            Ok(dir) => tree.children(&dir).map(|(path, _, _)| path.clone()).collect(),
            Err(_) => continue,
        };
        for path in doomed {
            tree.remove(&path);
        }
    }
    remove_matching(tree);
    let time = Time::seconds(epoch);
    if TreePath::new("etc/machine-id").is_ok_and(|path| tree.get(&path).is_some()) {
        put(tree, store, "etc/machine-id", b"", Meta::root_owned(0o444, time))?;
    }
    shadow(tree, store, epoch)?;
    let paths: Vec<TreePath> = tree.iter().map(|(path, _, _)| path.clone()).collect();
    for path in paths {
        if let Some(meta) = tree.meta_mut(&path).filter(|m| m.mtime == CHANGED || m.mtime > time) {
            meta.mtime = time;
        }
    }
    Ok(())
}

fn remove(tree: &mut Tree, path: &str) {
    if let Some(path) = TreePath::new(path).ok().filter(|p| tree.get(p).is_some()) {
        tree.remove(&path);
    }
}

/// Logs, caches and host keys.
fn remove_matching(tree: &mut Tree) {
    let doomed = |path: &TreePath, inode: &Inode| {
        let bytes = path.as_bytes();
        let cache = WITHOUT_FILES.iter().any(|dir| bytes.starts_with(dir.as_bytes()));
        let cache = cache && matches!(inode.kind, Kind::File(_));
        let name = path.name();
        let key = bytes.starts_with(b"etc/ssh/ssh_host_")
            && (name.ends_with(b"_key") || name.ends_with(b"_key.pub"));
        cache || key
    };
    let paths: Vec<TreePath> =
        tree.iter().filter(|(path, _, inode)| doomed(path, inode)).map(|(path, _, _)| path.clone()).collect();
    for path in paths {
        tree.remove(&path);
    }
}

/// The day of the last change of each password becomes that of the epoch: shadow(5), third field.
/// Tools that heed SOURCE_DATE_EPOCH write it already.
fn shadow(tree: &mut Tree, store: &Store, epoch: i64) -> Result<(), InstallError> {
    let Some(inode) = TreePath::new("etc/shadow").ok().and_then(|path| tree.get(&path)) else {
        return Ok(());
    };
    let Some(object) = inode.object() else { return Ok(()) };
    let meta = inode.meta.clone();
    let old = store.read_object(object)?;
    let day = epoch.div_euclid(86_400).to_string();
    let mut new = String::with_capacity(old.len());
    for line in String::from_utf8_lossy(&old).lines() {
        let mut fields: Vec<&str> = line.split(':').collect();
        if let Some(field) = fields.get_mut(2).filter(|field| !field.is_empty()) {
            *field = &day;
        }
        new.push_str(&fields.join(":"));
        new.push('\n');
    }
    if new.as_bytes() != old {
        put(tree, store, "etc/shadow", new.as_bytes(), meta)?;
    }
    Ok(())
}
