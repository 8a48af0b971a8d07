//! Packages that take the place of an older version of themselves, below in an imported root: what goes with that
//! version, and which configuration stays.
//! Must not know: in which order scripts run, what is new in a package.
//! Spec: Debian policy 6.6 and 6.8 (`upgrade`); dpkg's `src/main/configure.c` for configuration files. Where dpkg
//! would ask, what is there stays: it is what the image's maker wanted.

use md5::{Digest as _, Md5};

use super::InstallError;
use super::database::{self, Installed, place};
use super::sandbox::spec::Replaced;
use super::unpack::Package;
use crate::store::Store;
use crate::tree::{Inode, Tree, TreePath};

/// An upgrade that was begun.
pub(super) struct Upgrade {
    /// The new version, as in the names of its files.
    pub qualified: String,
    /// What its scripts are told and run by.
    pub replaced: Replaced,
    /// Configuration files that stay as they are, or stay away.
    kept: Vec<(TreePath, Option<Inode>)>,
}

/// Takes the files of the version below out of the tree, and what the database has of it.
pub(super) fn begin(
    tree: &mut Tree,
    store: &Store,
    package: &Package,
    old: &Installed,
) -> Result<Upgrade, InstallError> {
    let script = |name: &str| database::info(tree, store, &old.qualified, name);
    let replaced =
        Replaced { version: old.version.clone(), prerm: script("prerm")?, postrm: script("postrm")? };
    let hashes = hashes(old)?;
    let kept = kept(tree, store, package, &hashes)?;
    // Directories stay: other packages may have them too, and an empty one does no harm.
    for path in database::listed(tree, store, old)? {
        let conffile = hashes.iter().any(|(conffile, _)| *conffile == path);
        if !conffile && tree.get(&path).is_some_and(|inode| !inode.is_dir()) {
            tree.remove(&path);
        }
    }
    database::forget(tree, store, &old.qualified)?;
    Ok(Upgrade { qualified: package.qualified(), replaced, kept })
}

/// Puts configuration back that is not the package's to change. The package's own goes beside it.
pub(super) fn finish(tree: &mut Tree, upgrade: &Upgrade) -> Result<(), InstallError> {
    for (path, old) in &upgrade.kept {
        let new = tree.get(path).cloned();
        tree.remove(path);
        let Some(old) = old else { continue };
        tree.insert(path.clone(), old.clone())?;
        if let Some(new) = new.filter(|new| new.object() != old.object()) {
            tree.insert(place(&format!("{}.dpkg-dist", &path.to_string()[1..]))?, new)?;
        }
    }
    Ok(())
}

/// Configuration files that were changed or removed since the package brought them.
fn kept(
    tree: &Tree,
    store: &Store,
    package: &Package,
    hashes: &[(TreePath, String)],
) -> Result<Vec<(TreePath, Option<Inode>)>, InstallError> {
    let mut kept = Vec::new();
    let lines = String::from_utf8_lossy(package.control_file("conffiles").unwrap_or_default()).into_owned();
    for line in lines.lines().filter(|line| line.starts_with('/')) {
        let stated = place(line.trim())?;
        let path = tree.resolve(&stated, false).unwrap_or_else(|| stated.clone());
        let known = hashes.iter().find(|(conffile, _)| *conffile == path).map(|(_, hash)| hash);
        match (tree.get(&path), known) {
            (None, Some(_)) => kept.push((path, None)),
            (Some(inode), known) => {
                let bytes = inode.object().map(|object| store.read_object(object)).transpose()?;
                if bytes.map(|bytes| md5(&bytes)).as_ref() != known {
                    kept.push((path.clone(), Some(inode.clone())));
                }
            }
            (None, None) => {}
        }
    }
    Ok(kept)
}

/// What the field `Conffiles` says: `\n /etc/x md5`, and perhaps `obsolete` behind it.
fn hashes(old: &Installed) -> Result<Vec<(TreePath, String)>, InstallError> {
    let lines = old.fields.get("Conffiles").unwrap_or_default().lines();
    let words = lines.filter_map(|line| {
        let mut words = line.split_whitespace();
        Some((words.next()?, words.next()?))
    });
    words.map(|(path, hash)| Ok((place(path)?, hash.to_owned()))).collect()
}

/// As dpkg writes it.
pub(super) fn md5(bytes: &[u8]) -> String {
    Md5::digest(bytes).iter().map(|b| format!("{b:02x}")).collect()
}
