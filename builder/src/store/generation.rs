//! Generations: what each build of a node gave, which one is current, and the removal of what no
//! generation needs.
//! Must not know: how a generation is made, what its manifest says.
//! Spec: design.md section 2.
//!
//! ```text
//! generations/<node>/<digest>/    root, boot, perhaps ram: digests of trees; manifest.json; …
//! generations/<node>/current      the digest of the newest
//! ```

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use super::{Result, Store, StoreError, fail, work};
use crate::digest::Digest;

/// Which generations running nodes use, a node and a digest a line; written by `gt-image serve`.
pub const PINS: &str = "serve/pins";

/// One build of one node. The digest is that of the manifest, which names both trees.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Generation {
    /// Identity: the digest of `manifest`.
    pub digest: Digest,
    /// The root filesystem.
    pub root: Digest,
    /// What the firmware reads.
    pub boot: Digest,
    /// A tree with the image of the root, for a node that has its root in memory.
    pub ram: Option<Digest>,
    /// The manifest's bytes (JSON).
    pub manifest: Vec<u8>,
    /// The software bill of materials (SPDX 2.3, JSON).
    pub sbom: Vec<u8>,
    /// Which layer gave each path (JSON), for `why`.
    pub origins: Vec<u8>,
}

/// What gc removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize, schemars::JsonSchema)]
pub struct Freed {
    /// Objects.
    pub objects: u64,
    /// Trees.
    pub trees: u64,
    /// Generations.
    pub generations: u64,
    /// Records of cached layers.
    pub layers: u64,
    /// Bytes on disk.
    pub bytes: u64,
}

impl Store {
    /// Records a generation and makes it the current one of `node`.
    pub fn put_generation(&self, node: &str, generation: &Generation) -> Result<()> {
        let dir = self.generation_dir(node).join(generation.digest.hex());
        if !dir.join("root").exists() {
            let (root, boot) = (generation.root.to_string(), generation.boot.to_string());
            let files: [(&str, &[u8]); 5] = [
                ("boot", boot.as_bytes()),
                ("manifest.json", &generation.manifest),
                ("sbom.spdx.json", &generation.sbom),
                ("origins.json", &generation.origins),
                // Last: a generation is there when this file is.
                ("root", root.as_bytes()),
            ];
            if let Some(ram) = &generation.ram {
                self.write(&dir.join("ram"), ram.to_string().as_bytes())?;
            }
            for (name, bytes) in files {
                self.write(&dir.join(name), bytes)?;
            }
        } else {
            // Made again, so it is the newest again.
            let path = dir.join("root");
            let touched = fs::File::open(&path).and_then(|f| f.set_modified(SystemTime::now()));
            touched.map_err(|e| fail("dating", &path, e))?;
        }
        self.set_current(node, &generation.digest)
    }

    /// Makes a recorded generation the current one.
    pub fn set_current(&self, node: &str, digest: &Digest) -> Result<()> {
        self.write(&self.generation_dir(node).join("current"), format!("{digest}\n").as_bytes())
    }

    /// The digest of a node's current generation.
    pub fn current(&self, node: &str) -> Result<Option<Digest>> {
        read_digest(&self.generation_dir(node).join("current"))
    }

    /// Reads a recorded generation.
    pub fn generation(&self, node: &str, digest: &Digest) -> Result<Option<Generation>> {
        let dir = self.generation_dir(node).join(digest.hex());
        let (Some(root), Some(boot)) = (read_digest(&dir.join("root"))?, read_digest(&dir.join("boot"))?)
        else {
            return Ok(None);
        };
        let read = |name: &str| {
            let path = dir.join(name);
            fs::read(&path).map_err(|e| fail("reading", &path, e))
        };
        let manifest = read("manifest.json")?;
        if Digest::of(&manifest) != *digest {
            let what = "its manifest's digest is not its name".into();
            return Err(StoreError::Damaged { path: dir, what });
        }
        let (sbom, origins) = (read("sbom.spdx.json")?, read("origins.json")?);
        let ram = read_digest(&dir.join("ram"))?;
        Ok(Some(Generation { digest: *digest, root, boot, ram, manifest, sbom, origins }))
    }

    /// All generations of a node, newest first.
    pub fn generations(&self, node: &str) -> Result<Vec<Digest>> {
        let mut found: Vec<(SystemTime, Digest)> = Vec::new();
        for path in list(&self.generation_dir(node))? {
            let digest = path.file_name().and_then(|n| n.to_str()).and_then(|n| n.parse().ok());
            let time = fs::metadata(path.join("root")).and_then(|m| m.modified());
            if let (Some(digest), Ok(time)) = (digest, time) {
                found.push((time, digest));
            }
        }
        found.sort_by(|a, b| b.cmp(a));
        Ok(found.into_iter().map(|(_, digest)| digest).collect())
    }

    /// All nodes that have generations, by name.
    pub fn nodes(&self) -> Result<Vec<String>> {
        let paths = list(&self.root().join("generations"))?;
        Ok(paths.iter().filter_map(|p| Some(p.file_name()?.to_str()?.to_owned())).collect())
    }

    /// Says which generations are being served to running nodes: gc leaves them. The file is read
    /// by gc alone, so that gc needs no part of the server.
    pub fn pins(&self) -> Result<BTreeSet<(String, Digest)>> {
        let path = self.root().join(PINS);
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(BTreeSet::new()),
            Err(e) => return Err(fail("reading", &path, e)),
        };
        let line = |line: &str| {
            let (node, digest) = line.split_once(' ')?;
            Some((node.to_owned(), digest.parse().ok()?))
        };
        let pins: Option<BTreeSet<_>> = text.lines().map(line).collect();
        pins.ok_or_else(|| StoreError::Damaged { path, what: "wanted is a node and a digest a line".into() })
    }

    /// Removes generations beyond the newest `keep` of each node (the current one and those that
    /// are being served always stay), then all trees, cached layers and objects that nothing needs any
    /// more. The store must have been opened with [`Store::open_alone`].
    pub fn gc(&self, keep: usize, keep_layers: bool) -> Result<Freed> {
        let mut freed = Freed::default();
        for path in work::abandoned(&self.root().join("tmp"))? {
            freed.bytes += remove(&path)?;
        }
        let mut trees = BTreeSet::new();
        let pins = self.pins()?;
        for node in self.nodes()? {
            let current = self.current(&node)?;
            freed.bytes += self.remove_unfinished(&node)?;
            for (age, digest) in self.generations(&node)?.into_iter().enumerate() {
                let dir = self.generation_dir(&node).join(digest.hex());
                let pinned = pins.contains(&(node.clone(), digest));
                if age >= keep && current != Some(digest) && !pinned {
                    freed.bytes += remove(&dir)?;
                    freed.generations += 1;
                    continue;
                }
                for part in ["root", "boot", "ram"] {
                    trees.extend(read_digest(&dir.join(part))?);
                }
            }
        }
        for path in list(&self.root().join("layers"))? {
            // As for `layer`, a record that cannot be read is as good as absent.
            match read_digest(&path).ok().flatten().filter(|tree| keep_layers && self.has_tree(tree)) {
                Some(tree) => _ = trees.insert(tree),
                None => {
                    freed.bytes += remove(&path)?;
                    freed.layers += 1;
                }
            }
        }
        self.sweep(&trees, &mut freed)?;
        Ok(freed)
    }

    /// Removes what a killed build left among a node's generations. Returns the bytes freed.
    fn remove_unfinished(&self, node: &str) -> Result<u64> {
        let whole = |path: &Path| path.join("root").exists() || path.ends_with("current");
        let left = list(&self.generation_dir(node))?.into_iter().filter(|path| !whole(path));
        left.map(|path| remove(&path)).sum()
    }

    fn sweep(&self, trees: &BTreeSet<Digest>, freed: &mut Freed) -> Result<()> {
        let mut objects = BTreeSet::new();
        for path in list(&self.root().join("trees"))? {
            let digest = path.file_name().and_then(|n| n.to_str()).and_then(|n| n.parse::<Digest>().ok());
            if let Some(digest) = digest.filter(|d| trees.contains(d)) {
                objects
                    .extend(self.tree(&digest)?.iter().filter_map(|(_, _, i)| i.object().map(|o| o.digest)));
            } else {
                freed.bytes += remove(&path)?;
                freed.trees += 1;
            }
        }
        for dir in list(&self.root().join("objects"))? {
            for path in list(&dir)? {
                let name =
                    |p: &Path| p.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
                let digest = format!("{}{}", name(&dir), name(&path)).parse::<Digest>();
                if !digest.is_ok_and(|d| objects.contains(&d)) {
                    freed.bytes += remove(&path)?;
                    freed.objects += 1;
                }
            }
        }
        Ok(())
    }

    fn generation_dir(&self, node: &str) -> PathBuf {
        self.root().join("generations").join(node)
    }
}

fn read_digest(path: &Path) -> Result<Option<Digest>> {
    match fs::read_to_string(path) {
        Ok(text) => match text.trim().parse() {
            Ok(digest) => Ok(Some(digest)),
            Err(e) => Err(StoreError::Damaged { path: path.into(), what: format!("{e}") }),
        },
        Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => Ok(None),
        Err(e) => Err(fail("reading", path, e)),
    }
}

/// The entries of a directory in byte order; none when it does not exist.
fn list(dir: &Path) -> Result<Vec<PathBuf>> {
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(e) => return Err(fail("reading", dir, e)),
    };
    let paths: io::Result<Vec<PathBuf>> = entries.map(|entry| Ok(entry?.path())).collect();
    let mut paths = paths.map_err(|e| fail("reading", dir, e))?;
    paths.sort();
    Ok(paths)
}

/// Removes a file or directory and says how many bytes of disk it took.
fn remove(path: &Path) -> Result<u64> {
    use std::os::unix::fs::MetadataExt;
    let meta = match fs::symlink_metadata(path) {
        Ok(meta) => meta,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(0),
        Err(e) => return Err(fail("reading", path, e)),
    };
    if meta.is_dir() {
        let mut bytes = 0;
        for entry in list(path)? {
            bytes += remove(&entry)?;
        }
        fs::remove_dir(path).map_err(|e| fail("removing", path, e))?;
        return Ok(bytes);
    }
    fs::remove_file(path).map_err(|e| fail("removing", path, e))?;
    Ok(meta.blocks() * 512)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tree::tests::tree;
    use crate::tree::{Inode, Kind, Meta};

    fn generation(store: &Store, content: &str) -> Generation {
        let object = store.put_bytes(content.as_bytes()).unwrap();
        let inode = Inode { meta: Meta::default(), kind: Kind::File(object) };
        let root = store.put_tree(&tree(&[("a", inode)])).unwrap();
        let manifest = format!("{{\"root\": \"{root}\"}}").into_bytes();
        let digest = Digest::of(&manifest);
        Generation {
            digest,
            root,
            boot: root,
            ram: None,
            manifest,
            sbom: b"{}".to_vec(),
            origins: b"{}".to_vec(),
        }
    }

    #[test]
    fn generations_are_found_again_and_gc_keeps_what_they_need() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        assert_eq!(store.current("fenn").unwrap(), None);
        let (a, b) = (generation(&store, "one"), generation(&store, "two"));
        store.put_generation("fenn", &a).unwrap();
        store.put_generation("fenn", &b).unwrap();
        store.put_layer(&Digest::of(b"key"), &b.root).unwrap();
        fs::create_dir(dir.path().join("tmp/killed-1.d")).unwrap();
        // A kill between making a file and naming it; the last is a generation without its root.
        for left in ["layers/.gt-image-x", "generations/fenn/.gt-image-x"] {
            fs::write(dir.path().join(left), "").unwrap();
        }
        let half = dir.path().join("generations/fenn").join(Digest::of(b"half").hex());
        fs::create_dir(&half).unwrap();
        fs::write(half.join("boot"), a.boot.to_string()).unwrap();
        assert_eq!(store.current("fenn").unwrap(), Some(b.digest));
        assert_eq!(store.generation("fenn", &a.digest).unwrap().as_ref(), Some(&a));
        drop(store);

        let store = Store::open_alone(dir.path()).unwrap();
        let freed = store.gc(9, true).unwrap();
        assert_eq!((freed.generations, freed.trees, freed.objects, freed.layers), (0, 0, 0, 1));
        assert!(!half.exists());
        assert_eq!(list(&dir.path().join("generations/fenn")).unwrap().len(), 3);
        let freed = store.gc(1, true).unwrap();
        assert_eq!((freed.generations, freed.trees, freed.objects, freed.layers), (1, 1, 1, 0));
        assert_eq!(store.generation("fenn", &a.digest).unwrap(), None);
        assert_eq!(store.generation("fenn", &b.digest).unwrap().as_ref(), Some(&b));
        assert_eq!(store.tree(&b.root).unwrap().len(), 2);
        assert!(!dir.path().join("tmp/killed-1.d").exists());
    }

    #[test]
    fn gc_leaves_what_a_running_node_uses() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let all = ["one", "two", "three"].map(|content| generation(&store, content));
        all.iter().for_each(|g| store.put_generation("fenn", g).unwrap());
        fs::create_dir(dir.path().join("serve")).unwrap();
        fs::write(dir.path().join(PINS), format!("fenn {}\njast {}\n", all[0].digest, all[1].digest))
            .unwrap();
        drop(store);
        let store = Store::open_alone(dir.path()).unwrap();
        assert_eq!(store.gc(1, true).unwrap().generations, 1);
        assert!(store.generation("fenn", &all[0].digest).unwrap().is_some());
        assert!(store.generation("fenn", &all[1].digest).unwrap().is_none(), "another node's pin is none");
        assert!(store.tree(&all[0].root).is_ok());
        fs::write(dir.path().join(PINS), "fenn\n").unwrap();
        assert!(store.gc(1, true).is_err(), "a pin that cannot be read is no leave to remove");
    }

    #[test]
    fn a_changed_manifest_is_noticed() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let g = generation(&store, "one");
        store.put_generation("fenn", &g).unwrap();
        let file = dir.path().join("generations/fenn").join(g.digest.hex()).join("manifest.json");
        fs::write(file, "{}").unwrap();
        assert!(matches!(store.generation("fenn", &g.digest), Err(StoreError::Damaged { .. })));
    }
}
