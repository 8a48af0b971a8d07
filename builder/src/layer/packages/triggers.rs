//! Triggers: what a package wants to hear of and what it tells, from its control archive and in
//! dpkg's database.
//! Must not know: when scripts run.
//! Spec: deb-triggers(5); dpkg's `doc/triggers.txt`: `triggers/File`, `triggers/NAME`.

use std::collections::BTreeMap;

use super::InstallError;
use super::unpack::Package;
use crate::store::Store;
use crate::tree::{Inode, Kind, Tree, TreePath};

/// The `triggers` file of one package.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Declared {
    /// Names and absolute paths that it reacts to, and whether the one who activates need not wait.
    pub interests: Vec<(String, bool)>,
    /// Names that it activates whenever it is unpacked or configured.
    pub activates: Vec<String>,
}

impl Declared {
    /// Reads the file; lines of an unknown kind are ignored, as dpkg refuses them when a package
    /// is built.
    pub fn read(bytes: &[u8]) -> Declared {
        let mut declared = Declared::default();
        for line in String::from_utf8_lossy(bytes).lines() {
            let line = line.split('#').next().unwrap_or_default();
            let mut words = line.split_whitespace();
            let (Some(kind), Some(name)) = (words.next(), words.next()) else { continue };
            match kind {
                "interest" | "interest-await" => declared.interests.push((name.into(), false)),
                "interest-noawait" => declared.interests.push((name.into(), true)),
                "activate" | "activate-await" | "activate-noawait" => declared.activates.push(name.into()),
                _ => {}
            }
        }
        declared
    }

    /// What `package` declares.
    pub fn of(package: &Package) -> Declared {
        Declared::read(package.control_file("triggers").unwrap_or_default())
    }
}

/// Gives each file below `triggers/` that new lines go to, with those lines.
pub(super) fn write(
    packages: &[&Package],
    mut append: impl FnMut(&str, &str) -> Result<(), InstallError>,
) -> Result<(), InstallError> {
    let mut files: BTreeMap<String, String> = BTreeMap::new();
    for package in packages {
        for (trigger, noawait) in Declared::of(package).interests {
            let end = if noawait { "/noawait" } else { "" };
            let (file, line) = if trigger.starts_with('/') {
                ("File".into(), format!("{trigger} {}{end}\n", package.qualified()))
            } else {
                (trigger, format!("{}{end}\n", package.qualified()))
            };
            files.entry(file).or_default().push_str(&line);
        }
    }
    files.iter().try_for_each(|(name, lines)| append(name, lines))
}

/// Takes the lines of a package out of the files below `triggers/`: each ends with its name, and perhaps `/noawait`.
pub(super) fn forget(
    tree: &mut Tree,
    store: &Store,
    dir: &TreePath,
    qualified: &str,
) -> Result<(), InstallError> {
    let files: Vec<TreePath> = tree.children(dir).map(|(path, _, _)| path.clone()).collect();
    for path in files {
        let Some((meta, object)) = tree.get(&path).and_then(|inode| Some((&inode.meta, inode.object()?)))
        else {
            continue;
        };
        let (meta, bytes) = (meta.clone(), store.read_object(object)?);
        let text = String::from_utf8_lossy(&bytes);
        let others = text.split_inclusive('\n').filter(|line| {
            let last = line.split_whitespace().next_back().unwrap_or_default();
            last.strip_suffix("/noawait").unwrap_or(last) != qualified
        });
        let others: String = others.collect();
        if others.len() != bytes.len() {
            let kind = Kind::File(store.put_bytes(others.as_bytes())?);
            tree.insert(path, Inode { meta, kind })?;
        }
    }
    Ok(())
}

/// Which interested packages hear of which trigger: trigger to packages.
#[derive(Debug, Default)]
pub(super) struct Interests(BTreeMap<String, Vec<String>>);

impl Interests {
    /// Adds what one package wants to hear of.
    pub fn add(&mut self, qualified: &str, declared: &Declared) {
        for (trigger, _) in &declared.interests {
            self.0.entry(trigger.clone()).or_default().push(qualified.into());
        }
    }

    /// Triggers by name, with those who hear of them.
    pub fn into_map(self) -> BTreeMap<String, Vec<String>> {
        self.0
    }

    /// File triggers that a new file at `path` (absolute) activates: those on it and above it.
    pub fn on_path<'a>(&'a self, path: &'a str) -> impl Iterator<Item = &'a str> {
        path.match_indices('/')
            .map(|(at, _)| &path[..at])
            .chain([path])
            .filter(|p| !p.is_empty())
            .filter_map(|p| self.0.get_key_value(p).map(|(trigger, _)| trigger.as_str()))
    }
}
