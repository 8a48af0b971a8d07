//! Kernel modules: what depmod does, without running it and for any architecture.
//! Must not know: roles, the boot partition, initramfs.
//! Spec: modules.dep(5), depmod(8); kmod 34 with its built-in configuration (`search updates
//! built-in`). Files in `/etc/depmod.d` are not read.

pub mod depend;
pub mod elf;
pub mod index;
pub mod modinfo;
pub mod packed;
pub mod text;

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use crate::store::{Store, StoreError};
use crate::tree::{Inode, Kind, Meta, Object, PathError, Time, Tree, TreeError, TreePath, printable};
use index::IndexError;
use modinfo::{ModInfo, ModInfoError};
use packed::Packing;
use text::Module;

/// The modules of a kernel could not be indexed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KmodError {
    /// The tree has no directory of this kernel's modules.
    #[error(
        "there are no modules of kernel `{version}`: neither `/usr/lib/modules` nor `/lib/modules` has it"
    )]
    NoModules {
        /// The kernel.
        version: String,
    },
    /// A module cannot be unpacked.
    #[error("unpacking the module `{path}`")]
    Packed {
        /// The module.
        path: TreePath,
        /// What is wrong.
        source: std::io::Error,
    },
    /// A module's metadata cannot be read.
    #[error("reading the module `{path}`")]
    Module {
        /// The module.
        path: TreePath,
        /// What is wrong.
        source: ModInfoError,
    },
    /// The name of a module's file is not ASCII, which the indexes cannot hold.
    #[error("`{path}` cannot be indexed: its name is not ASCII")]
    Name {
        /// The module.
        path: TreePath,
    },
    /// Modules that need each other.
    #[error("no order of loading exists, these modules need each other: {}", names.join(", "))]
    Cycle {
        /// Names of modules in circles, and of those that need them.
        names: Vec<String>,
    },
    /// An index cannot hold what it should.
    #[error("indexing the modules of kernel `{version}`")]
    Index {
        /// The kernel.
        version: String,
        /// What is wrong.
        source: IndexError,
    },
    /// The store did not give or take bytes.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The files do not fit into the tree.
    #[error(transparent)]
    Tree(#[from] TreeError),
    /// The kernel's version gives no path.
    #[error(transparent)]
    Path(#[from] PathError),
}

/// Writes the files that depmod writes into the module directory of kernel `version`, owned by root,
/// mode 0644, with `epoch` (seconds since 1970) as their time.
pub fn depmod(tree: &mut Tree, store: &Store, version: &str, epoch: i64) -> Result<(), KmodError> {
    let dir = module_dir(tree, version)?;
    let mut files = find(tree, &dir)?;
    if let Some(order) = read_file(tree, store, &dir, "modules.order")? {
        sort_by_order(&mut files, &order);
    }
    let infos = read_all(store, &files)?;
    let modules: Vec<Module> = files
        .into_iter()
        .zip(infos)
        .map(|(found, info)| Module { name: found.name, file: found.file, info })
        .collect();
    let infos: Vec<&ModInfo> = modules.iter().map(|module| &module.info).collect();
    let dependencies = depend::dependencies(&infos).map_err(|cycle| KmodError::Cycle {
        names: cycle.0.iter().map(|&number| modules[number].name.clone()).collect(),
    })?;
    let builtin = read_file(tree, store, &dir, "modules.builtin")?;
    let builtin_modinfo = read_file(tree, store, &dir, "modules.builtin.modinfo")?;
    let outputs = text::outputs(&modules, &dependencies, builtin.as_deref(), builtin_modinfo.as_deref())
        .map_err(|source| KmodError::Index { version: version.into(), source })?;
    for (name, bytes) in outputs {
        let kind = Kind::File(store.put_bytes(&bytes)?);
        let meta = Meta::root_owned(0o644, Time::seconds(epoch));
        tree.insert(dir.join(name)?, Inode { meta, kind })?;
    }
    Ok(())
}

/// The directory of a kernel's modules: below `/usr/lib/modules`, or `/lib/modules` in a root where
/// `/lib` is a directory of its own.
pub fn module_dir(tree: &Tree, version: &str) -> Result<TreePath, KmodError> {
    for parent in ["usr/lib/modules", "lib/modules"] {
        let dir = TreePath::new(parent)?.join(version)?;
        let dir = tree.resolve(&dir, true).unwrap_or(dir);
        if tree.get(&dir).is_some_and(Inode::is_dir) {
            return Ok(dir);
        }
    }
    Err(KmodError::NoModules { version: version.into() })
}

/// The bytes of a file of the module directory, `None` where there is none.
pub fn read_file(
    tree: &Tree,
    store: &Store,
    dir: &TreePath,
    name: &str,
) -> Result<Option<Vec<u8>>, KmodError> {
    match tree.get(&dir.join(name)?).and_then(Inode::object) {
        Some(object) => Ok(Some(store.read_object(object)?)),
        None => Ok(None),
    }
}

/// A module's file and where its bytes are.
#[derive(Debug, Clone)]
struct Found {
    name: String,
    file: String,
    path: TreePath,
    packing: Packing,
    object: Object,
}

/// All modules below `dir`, by path.
fn find(tree: &Tree, dir: &TreePath) -> Result<Vec<Found>, KmodError> {
    let mut by_name: BTreeMap<String, Found> = BTreeMap::new();
    for (path, _, _) in tree.below(dir) {
        let Some(found) = module_at(tree, dir, path)? else { continue };
        match by_name.get(&found.name) {
            // Of two modules of one name the one below `updates` counts, else the first.
            Some(old) if !found.file.starts_with("updates/") || old.file.starts_with("updates/") => {}
            _ => _ = by_name.insert(found.name.clone(), found),
        }
    }
    let mut files: Vec<Found> = by_name.into_values().collect();
    files.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(files)
}

fn module_at(tree: &Tree, dir: &TreePath, path: &TreePath) -> Result<Option<Found>, KmodError> {
    let file = path.as_bytes().get(dir.as_bytes().len() + 1..).unwrap_or_default();
    let excluded = |name: &[u8]| name == b"build" || name == b"source";
    if file.split(|&b| b == b'/').any(excluded) {
        return Ok(None);
    }
    let target = tree.resolve(path, true).unwrap_or_else(|| path.clone());
    let Some(object) = tree.get(&target).and_then(Inode::object) else { return Ok(None) };
    let Some((packing, name)) = packed::module_name(path.name()) else { return Ok(None) };
    match std::str::from_utf8(file) {
        Ok(file) if file.is_ascii() => Ok(Some(Found {
            name,
            file: file.to_owned(),
            path: path.clone(),
            packing,
            object: object.clone(),
        })),
        _ => Err(KmodError::Name { path: path.clone() }),
    }
}

/// Sorts by `modules.order`, whose lines name the unpacked files. Both lists of one kernel agree on
/// directories, so the comparison is by path without extensions.
fn sort_by_order(files: &mut [Found], order: &[u8]) {
    let mut places: HashMap<String, usize> = HashMap::new();
    for (place, line) in order.split(|&b| b == b'\n').enumerate() {
        places.entry(printable(line)).or_insert(place);
    }
    files.sort_by_cached_key(|found| {
        let plain = found.file.rfind(".ko").map_or(&*found.file, |at| &found.file[..at + 3]);
        places.get(plain).copied().unwrap_or(usize::MAX)
    });
}

/// Unpacks and reads all modules, on all processors. The result does not depend on their number.
fn read_all(store: &Store, files: &[Found]) -> Result<Vec<ModInfo>, KmodError> {
    let threads = thread::available_parallelism().map_or(1, |n| n.get()).min(files.len().max(1));
    let next = AtomicUsize::new(0);
    let work = || {
        let mut done = Vec::new();
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            let Some(found) = files.get(number) else { return done };
            done.push((number, read_one(store, found)));
        }
    };
    let mut results: Vec<_> = thread::scope(|scope| {
        let others: Vec<_> = (1..threads).map(|_| scope.spawn(work)).collect();
        let mut results = work();
        for other in others {
            // A panic of a reader is a bug; it goes on to our caller as one.
            results.extend(other.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)));
        }
        results
    });
    results.sort_by_key(|(number, _)| *number);
    results.into_iter().map(|(_, result)| result).collect()
}

fn read_one(store: &Store, found: &Found) -> Result<ModInfo, KmodError> {
    let packed = store.read_object(&found.object)?;
    let path = || found.path.clone();
    let bytes = packed::unpack(found.packing, &packed)
        .map_err(|source| KmodError::Packed { path: path(), source })?;
    ModInfo::parse(&bytes).map_err(|source| KmodError::Module { path: path(), source })
}

#[cfg(test)]
mod tests;
