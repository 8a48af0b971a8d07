//! Where each path of a node's root came from: `gt-image why`.
//! Must not know: how layers are made; it is told which layer laid which path.
//! Spec: design.md section 5; dpkg's `info/*.list` files for packages.

use std::collections::{BTreeMap, HashMap};
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::store::{Store, StoreError};
use crate::tree::{Tree, TreePath};

/// How a layer is noted that took a path away.
const REMOVES: &str = " (takes it away)";

/// Which layer gave each path that did not come from the base: path to layer, in text form.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Origins(BTreeMap<String, Vec<String>>);

/// Why a path is there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, schemars::JsonSchema)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum Origin {
    /// A package of the base's archive lists it.
    Package {
        /// Its name.
        name: String,
    },
    /// A layer of ours laid it: an overlay, an artifact, the node's own files.
    Layer {
        /// `overlay NAME`, `artifact NAME of overlay NAME`, `node`.
        name: String,
    },
    /// Nothing lists it: a script of a package made it, or the imported base had it.
    Base,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Origin::Package { name } => write!(f, "package {name}"),
            Origin::Layer { name } => f.write_str(name),
            Origin::Base => f.write_str("the base: an imported file, or made by a package's script"),
        }
    }
}

impl Origins {
    /// Notes that `layer` laid `path`, over whatever was there.
    pub fn note(&mut self, path: &TreePath, layer: &str) {
        let layers = self.0.entry(path.to_string()).or_default();
        if layers.last().is_none_or(|last| last != layer) {
            layers.push(layer.to_owned());
        }
    }

    /// Notes that `layer` took `path` away, with all below it.
    pub fn note_removed(&mut self, path: &TreePath, layer: &str) {
        self.note(path, &format!("{layer}{REMOVES}"));
    }

    /// Who took away a path that is not there, itself or with a directory above it: the layers that had a part in
    /// it, lowest first. Empty for what never was.
    fn why_not(&self, path: &TreePath) -> Vec<Origin> {
        let above = std::iter::successors(Some(path.clone()), TreePath::parent);
        let removed = |path: TreePath| {
            let layers = self.0.get(&path.to_string())?;
            layers.last().filter(|last| last.ends_with(REMOVES)).map(|_| layers.clone())
        };
        let layers = above.into_iter().find_map(removed).unwrap_or_default();
        layers.into_iter().map(|name| Origin::Layer { name }).collect()
    }

    /// The JSON form that a generation keeps.
    pub fn to_bytes(&self) -> Vec<u8> {
        // A map of strings has nothing that JSON refuses.
        serde_json::to_vec(&self.0).unwrap_or_default()
    }

    /// Reads whose files the packages of a root say they are.
    pub fn of<'a>(&'a self, root: &'a Tree, store: &Store) -> Result<Explained<'a>, StoreError> {
        Ok(Explained { origins: self, root, packages: packages(root, store)? })
    }
}

/// Origins together with the root that they are of.
#[derive(Debug)]
pub struct Explained<'a> {
    origins: &'a Origins,
    root: &'a Tree,
    packages: HashMap<TreePath, Vec<String>>,
}

impl Explained<'_> {
    /// All that had a part in `path`, lowest first: the last one gave what is there now, or took it away. Empty for
    /// what never was.
    pub fn why(&self, path: &TreePath) -> Vec<Origin> {
        if self.root.get(path).is_none() {
            return self.origins.why_not(path);
        }
        let packages = self.packages.get(path).into_iter().flatten();
        let mut found: Vec<Origin> = packages.map(|name| Origin::Package { name: name.clone() }).collect();
        let layers = self.origins.0.get(&path.to_string()).cloned().unwrap_or_default();
        found.extend(layers.into_iter().map(|name| Origin::Layer { name }));
        if found.is_empty() {
            found.push(Origin::Base);
        }
        found
    }
}

/// Packages by the paths of their file lists, as written and by way of Debian's merged directories.
fn packages(root: &Tree, store: &Store) -> Result<HashMap<TreePath, Vec<String>>, StoreError> {
    let mut found: HashMap<TreePath, Vec<String>> = HashMap::new();
    let Ok(info) = TreePath::new("var/lib/dpkg/info") else { return Ok(found) };
    for (list, _, inode) in root.below(&info) {
        let Some(name) = list.name().strip_suffix(b".list") else { continue };
        let Some(object) = inode.object() else { continue };
        let name = String::from_utf8_lossy(name).split(':').next().unwrap_or_default().to_owned();
        for line in store.read_object(object)?.split(|&b| b == b'\n').filter(|line| !line.is_empty()) {
            let Ok(listed) = TreePath::new(line) else { continue };
            let resolved = root.resolve(&listed, false).filter(|resolved| *resolved != listed);
            for path in [Some(listed), resolved].into_iter().flatten() {
                let names = found.entry(path).or_default();
                if names.last() != Some(&name) {
                    names.push(name.clone());
                }
            }
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tree::tests::{path, symlink, tree};
    use crate::tree::{Inode, Kind, Meta};

    #[test]
    fn packages_layers_and_the_base_are_named() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let list = store.put_bytes(b"/.\n/bin\n/bin/tool\n/etc/x\n").unwrap();
        let list = Inode { meta: Meta::default(), kind: Kind::File(list) };
        let root = tree(&[
            ("var/lib/dpkg/info/tool:arm64.list", list.clone()),
            ("usr/bin/tool", list.clone()),
            ("etc/x", list),
            ("bin", symlink("usr/bin")),
        ]);
        let mut origins = Origins::default();
        origins.note(&path("etc/x"), "overlay a");
        origins.note(&path("etc/x"), "overlay b");
        origins.note(&path("etc/x"), "overlay b");
        let why = |p: &str| origins.of(&root, &store).unwrap().why(&path(p));
        assert_eq!(why("usr/bin/tool"), [Origin::Package { name: "tool".into() }]);
        assert_eq!(
            why("etc/x"),
            [
                Origin::Package { name: "tool".into() },
                Origin::Layer { name: "overlay a".into() },
                Origin::Layer { name: "overlay b".into() }
            ]
        );
        assert_eq!(why("etc"), [Origin::Base]);
        assert_eq!(why("etc/y"), [], "it never was");
        origins.note_removed(&path("var/lib/seed"), "overlay a");
        let gone = [Origin::Layer { name: "overlay a (takes it away)".into() }];
        assert_eq!(origins.why_not(&path("var/lib/seed/below")), gone);
        assert_eq!(origins.why_not(&path("var/lib")), []);
        assert_eq!(serde_json::from_slice::<Origins>(&origins.to_bytes()).unwrap(), origins);
    }
}
