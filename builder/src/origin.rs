//! Where each path of a node's root came from: `gt-image why`.
//! Must not know: how layers are made; it is told which layer laid which path.
//! Spec: design.md section 5; dpkg's `info/*.list` files for packages.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::store::{Store, StoreError};
use crate::tree::{Tree, TreePath};

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

impl Origins {
    /// Notes that `layer` laid `path`, over whatever was there.
    pub fn note(&mut self, path: &TreePath, layer: &str) {
        let layers = self.0.entry(path.to_string()).or_default();
        if layers.last().is_none_or(|last| last != layer) {
            layers.push(layer.to_owned());
        }
    }

    /// The JSON form that a generation keeps.
    pub fn to_bytes(&self) -> Vec<u8> {
        // A map of strings has nothing that JSON refuses.
        serde_json::to_vec(&self.0).unwrap_or_default()
    }

    /// All that had a part in `path`, lowest first: the last one gave what is there now.
    pub fn why(&self, path: &TreePath, root: &Tree, store: &Store) -> Result<Vec<Origin>, StoreError> {
        let mut found: Vec<Origin> =
            packages_with(path, root, store)?.into_iter().map(|name| Origin::Package { name }).collect();
        let layers = self.0.get(&path.to_string()).cloned().unwrap_or_default();
        found.extend(layers.into_iter().map(|name| Origin::Layer { name }));
        if found.is_empty() {
            found.push(Origin::Base);
        }
        Ok(found)
    }
}

/// Packages whose file list has the path, as written or by way of Debian's merged directories.
fn packages_with(path: &TreePath, root: &Tree, store: &Store) -> Result<Vec<String>, StoreError> {
    let Ok(info) = TreePath::new("var/lib/dpkg/info") else { return Ok(Vec::new()) };
    let mut found = Vec::new();
    for (list, _, inode) in root.below(&info) {
        let Some(name) = list.name().strip_suffix(b".list") else { continue };
        let Some(object) = inode.object() else { continue };
        let text = store.read_object(object)?;
        let has = text.split(|&b| b == b'\n').any(|line| {
            let Ok(listed) = TreePath::new(line) else { return false };
            listed == *path
                || (listed.name() == path.name() && root.resolve(&listed, false).as_ref() == Some(path))
        });
        if has {
            let name = String::from_utf8_lossy(name).into_owned();
            found.push(name.split(':').next().unwrap_or_default().to_owned());
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
        let why = |p: &str| origins.why(&path(p), &root, &store).unwrap();
        assert_eq!(why("usr/bin/tool"), [Origin::Package { name: "tool".into() }]);
        assert_eq!(
            why("etc/x"),
            [
                Origin::Package { name: "tool".into() },
                Origin::Layer { name: "overlay a".into() },
                Origin::Layer { name: "overlay b".into() }
            ]
        );
        assert_eq!(why("etc/y"), [Origin::Base]);
        assert_eq!(serde_json::from_slice::<Origins>(&origins.to_bytes()).unwrap(), origins);
    }
}
