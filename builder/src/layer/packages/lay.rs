//! Lays the files of packages into a tree, as dpkg unpacks them.
//! Must not know: control archives, scripts.
//! Spec: dpkg's `src/main/archives.c`: a directory that exists keeps its owner and mode, links to
//! directories are followed, a file of another package is replaced only by one that `Replaces` it.

use std::collections::{BTreeMap, HashMap};

use super::order::relations;
use super::unpack::Package;
use super::{InstallError, Store, database};
use crate::tree::{Inode, InodeId, Kind, Tree, TreePath};

/// Lays all packages down, in the order given.
pub(super) fn lay(
    tree: &mut Tree,
    store: &Store,
    packages: &[&Package],
    installed: &[database::Installed],
) -> Result<(), InstallError> {
    let mut owners = database::owners(store, tree, installed)?;
    let replaces: HashMap<&str, Vec<&str>> = packages
        .iter()
        .map(|p| (p.name.as_str(), p.fields.get("Replaces").into_iter().flat_map(relations).collect()))
        .collect();
    let diverted = diversions(tree, store)?;
    for package in packages {
        lay_one(tree, package, &mut owners, &replaces, &diverted)?;
    }
    Ok(())
}

/// Where files go instead, by their path; the package that diverts keeps the path for itself.
type Diversions = HashMap<TreePath, (TreePath, String)>;

/// Reads `diversions`: three lines each, from, to, package. Those that scripts of this installation
/// make come too late for it; no package of Debian's base relies on one.
fn diversions(tree: &Tree, store: &Store) -> Result<Diversions, InstallError> {
    let path = database::place(&format!("{}/diversions", database::ADMIN))?;
    let Some(object) = tree.get(&path).and_then(Inode::object) else { return Ok(Diversions::new()) };
    let text = store.read_object(object)?;
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<&str> = text.lines().collect();
    let mut found = Diversions::new();
    for three in lines.chunks_exact(3) {
        found.insert(database::place(three[0])?, (database::place(three[1])?, three[2].into()));
    }
    Ok(found)
}

fn lay_one(
    tree: &mut Tree,
    package: &Package,
    owners: &mut BTreeMap<TreePath, String>,
    replaces: &HashMap<&str, Vec<&str>>,
    diverted: &Diversions,
) -> Result<(), InstallError> {
    let mut placed: HashMap<InodeId, InodeId> = HashMap::new();
    for (path, id, inode) in package.data.tree().iter() {
        let path = match diverted.get(path) {
            Some((to, by)) if *by != package.name => to,
            _ => path,
        };
        let wrong =
            |what: String| InstallError::Place { path: path.clone(), package: package.name.clone(), what };
        let target = tree.resolve(path, false).ok_or_else(|| wrong("links lead in a circle".into()))?;
        if inode.is_dir() {
            lay_dir(tree, &target, inode, package)?;
            continue;
        }
        if tree.get(&target).is_some_and(Inode::is_dir) {
            return Err(wrong(format!("a directory is where a {} must go", inode.kind.noun())));
        }
        if let Some(other) = owners.get(&target).filter(|other| **other != package.name) {
            let over = |a: &str, b: &str| replaces.get(a).is_some_and(|names| names.contains(&b));
            if over(other, &package.name) {
                // The other one came first and replaces this file: it stays.
                continue;
            }
            if !over(&package.name, other) {
                let (package, other) = (package.name.clone(), other.clone());
                return Err(InstallError::Clash { path: target, package, other });
            }
        }
        let lay = |source| InstallError::Lay { package: package.name.clone(), source };
        match placed.get(&id) {
            Some(&first) => tree.link(target.clone(), first).map_err(lay)?,
            None => _ = placed.insert(id, tree.insert(target.clone(), inode.clone()).map_err(lay)?),
        }
        owners.insert(target, package.name.clone());
    }
    Ok(())
}

fn lay_dir(tree: &mut Tree, target: &TreePath, inode: &Inode, package: &Package) -> Result<(), InstallError> {
    let in_the_way = match tree.get(target).map(|old| &old.kind) {
        Some(Kind::Dir) => None,
        None => {
            let lay = |source| InstallError::Lay { package: package.name.clone(), source };
            tree.insert(target.clone(), inode.clone()).map_err(lay)?;
            None
        }
        Some(Kind::Symlink(_)) => {
            let end = tree.resolve(target, true);
            let dir = end.and_then(|end| tree.get(&end)).is_some_and(Inode::is_dir);
            (!dir).then_some("symbolic link that leads to no directory")
        }
        Some(other) => Some(other.noun()),
    };
    match in_the_way {
        None => Ok(()),
        Some(noun) => Err(InstallError::Place {
            path: target.clone(),
            package: package.name.clone(),
            what: format!("a {noun} is where a directory must go"),
        }),
    }
}
