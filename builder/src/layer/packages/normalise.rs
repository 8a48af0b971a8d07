//! Takes away what differs from one installation to the next, and what only a running machine needs. What
//! was there before the installation stays, or becomes again, as it was: it may be somebody else's.
//! Must not know: which packages are installed.
//! Spec: design.md section 6; machine-id(5) for an image: the file is there and empty.

use std::collections::HashSet;

use super::database::{place, put};
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

/// Makes what packages made over `below` the same in every build. Times that a script set become `epoch`, in
/// seconds, as do later ones.
pub(super) fn normalise(
    tree: &mut Tree,
    below: &Tree,
    store: &Store,
    epoch: i64,
) -> Result<(), InstallError> {
    for path in REMOVED {
        take_back(tree, below, &place(path)?)?;
    }
    for dir in EMPTIED {
        let dir = place(dir)?;
        // Of both: what a script has removed comes back.
        let children: Vec<TreePath> =
            [&*tree, below].iter().flat_map(|t| t.children(&dir)).map(|(path, _, _)| path.clone()).collect();
        for path in children {
            take_back(tree, below, &path)?;
        }
    }
    take_back_matching(tree, below)?;
    let time = Time::seconds(epoch);
    let path = place("etc/machine-id")?;
    if below.get(&path).is_some() {
        take_back(tree, below, &path)?;
    } else if tree.get(&path).is_some() {
        put(tree, store, "etc/machine-id", b"", Meta::root_owned(0o444, time))?;
    }
    shadow(tree, below, store, epoch)?;
    times(tree, below, time);
    Ok(())
}

fn times(tree: &mut Tree, below: &Tree, time: Time) {
    let paths: Vec<(TreePath, Option<Time>)> = tree
        .iter()
        .filter(|(_, _, inode)| inode.meta.mtime == CHANGED || inode.meta.mtime > time)
        .map(|(path, _, inode)| {
            let old = below
                .get(path)
                .filter(|old| old.meta.mtime == inode.meta.mtime || same_names(tree, below, path));
            (path.clone(), old.map(|old| old.meta.mtime))
        })
        .collect();
    for (path, old) in paths {
        if let Some(meta) = tree.meta_mut(&path) {
            meta.mtime = old.unwrap_or(time);
        }
    }
}

/// Whether a directory has the entries that it had: then what a script did in it is gone again, or was about an
/// entry of its own.
fn same_names(tree: &Tree, below: &Tree, path: &TreePath) -> bool {
    let names = |t: &Tree| t.children(path).map(|(path, _, _)| path.clone()).collect::<Vec<_>>();
    let dir = |t: &Tree| t.get(path).is_some_and(Inode::is_dir);
    dir(tree) && dir(below) && names(tree) == names(below)
}

/// Makes an entry, with all below it, what it was before the installation: it goes when there was none.
fn take_back(tree: &mut Tree, below: &Tree, path: &TreePath) -> Result<(), InstallError> {
    if tree.below(path).map(|(path, _, inode)| (path, inode)).eq(below.below(path).map(|(p, _, i)| (p, i))) {
        return Ok(());
    }
    tree.remove(path);
    if path.parent().is_some_and(|parent| tree.get(&parent).is_some_and(Inode::is_dir)) {
        for (path, _, inode) in below.below(path) {
            tree.insert(path.clone(), inode.clone())?;
        }
    }
    Ok(())
}

/// Logs, caches and host keys.
fn take_back_matching(tree: &mut Tree, below: &Tree) -> Result<(), InstallError> {
    let doomed = |path: &TreePath, inode: &Inode| {
        let bytes = path.as_bytes();
        let cache = WITHOUT_FILES.iter().any(|dir| bytes.starts_with(dir.as_bytes()));
        let cache = cache && matches!(inode.kind, Kind::File(_));
        let name = path.name();
        let key = bytes.starts_with(b"etc/ssh/ssh_host_")
            && (name.ends_with(b"_key") || name.ends_with(b"_key.pub"));
        cache || key
    };
    let both = [&*tree, below].into_iter().flat_map(Tree::iter);
    let paths: Vec<TreePath> =
        both.filter(|(path, _, inode)| doomed(path, inode)).map(|(path, _, _)| path.clone()).collect();
    paths.iter().try_for_each(|path| take_back(tree, below, path))
}

/// The day of the last change of each password becomes that of the epoch: shadow(5), third field.
/// Tools that heed SOURCE_DATE_EPOCH write it already. Lines of before stay.
fn shadow(tree: &mut Tree, below: &Tree, store: &Store, epoch: i64) -> Result<(), InstallError> {
    let path = place("etc/shadow")?;
    let Some((meta, object)) = tree.get(&path).and_then(|inode| Some((&inode.meta, inode.object()?))) else {
        return Ok(());
    };
    let (meta, old) = (meta.clone(), store.read_object(object)?);
    let before = below.get(&path).and_then(Inode::object).map(|object| store.read_object(object));
    let before = before.transpose()?.unwrap_or_default();
    let before: HashSet<&[u8]> = before.split(|&b| b == b'\n').collect();
    let day = epoch.div_euclid(86_400).to_string();
    let mut new = String::with_capacity(old.len());
    for line in String::from_utf8_lossy(&old).lines() {
        if before.contains(line.as_bytes()) {
            new.push_str(line);
            new.push('\n');
            continue;
        }
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
