//! A generation's trees as the protocols want them: a root as an NFS export, a boot tree as files by
//! path. Trees are loaded when first needed, shared by all that have the same digest, and gone with
//! the last that needs them.
//! Must not know: which node may have what.
//! Spec: design.md sections 2 and 10.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, BufReader, Read, Write};
use std::sync::{Arc, Mutex, Weak};

use gt_netboot::content::Content;
use gt_netboot::nfs::{Attributes, Export, ExportId, FileId};
use rustix::fs::{MemfdFlags, memfd_create};
use sha2::{Digest as _, Sha256};

use super::inodes::Inodes;
use super::lock;
use crate::boot::CMDLINE_NETBOOT;
use crate::boot::cmdline::MAX_FILE;
use crate::digest::Digest;
use crate::store::{Reader, StoreError};
use crate::tree::dump::Lines;

/// The kernel's line for a boot from the network.
const NETBOOT: &[u8] = CMDLINE_NETBOOT.as_bytes();

/// The trees that are in memory.
#[derive(Debug)]
pub struct Trees {
    store: Reader,
    /// Words of the kernel's line that are this server's to say, such as `gt.http=8080`.
    words: Vec<String>,
    loaded: Mutex<HashMap<Digest, Arc<Mutex<Weak<Inodes>>>>>,
}

impl Trees {
    /// None yet.
    pub fn new(store: Reader) -> Trees {
        Trees { store, words: Vec::new(), loaded: Mutex::default() }
    }

    /// The same, for a server that is where these words say. A generation is made with the description's
    /// address and the usual ports; who runs the server may have chosen others.
    pub fn telling(self, words: Vec<String>) -> Trees {
        Trees { words, ..self }
    }

    /// A tree, from memory or from the store. Loading takes some tenths of a second for a whole root;
    /// whoever comes meanwhile for the same one waits.
    pub fn get(&self, digest: &Digest) -> Result<Arc<Inodes>, StoreError> {
        let slot = {
            let mut loaded = lock(&self.loaded);
            // A slot that someone is filling is held by him too.
            loaded.retain(|_, slot| Arc::strong_count(slot) > 1 || lock(slot).strong_count() > 0);
            loaded.entry(*digest).or_default().clone()
        };
        let mut slot = lock(&slot);
        if let Some(tree) = slot.upgrade() {
            return Ok(tree);
        }
        let tree = Arc::new(self.load(digest)?);
        *slot = Arc::downgrade(&tree);
        Ok(tree)
    }

    /// How many trees are in memory.
    pub fn len(&self) -> usize {
        lock(&self.loaded).values().filter(|slot| slot.try_lock().is_ok_and(|s| s.strong_count() > 0)).count()
    }

    /// True when no tree is in memory.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The root of `node` with this digest as an export.
    pub fn export(&self, node: &str, digest: &Digest) -> Result<Arc<dyn Export>, StoreError> {
        let id = export_id(node, digest);
        Ok(Arc::new(Root { id, inodes: self.get(digest)?, store: self.store.clone() }))
    }

    /// The file at `path` of a boot tree, or `None`. Errors are those of the store.
    pub fn boot_file(&self, boot: &Inodes, path: &[u8]) -> io::Result<Option<Content>> {
        let Some(file) = find_boot_file(boot, path).and_then(|file| boot.file(file)) else {
            return Ok(None);
        };
        let opened = self.store.object(&file.digest, file.size)?;
        let content = Content::new(Arc::new(opened), file.size);
        let ours = is_cmdline(path) && find(boot, NETBOOT).is_some();
        Ok(Some(if ours { self.told(content)? } else { content }))
    }

    /// The kernel's line with this server's words in it.
    fn told(&self, line: Content) -> io::Result<Content> {
        let mut bytes = vec![0; usize::try_from(line.len()).unwrap_or(0).min(MAX_FILE)];
        line.read_at(&mut bytes, 0)?;
        let text = String::from_utf8(bytes).map_err(io::Error::other)?;
        let key = |word: &str| word.split('=').next().map(str::to_owned);
        let before: Vec<&str> = text.split_whitespace().collect();
        let mut words = before.clone();
        for ours in &self.words {
            match words.iter_mut().find(|word| key(word) == key(ours)) {
                Some(word) => *word = ours,
                None => words.push(ours),
            }
        }
        if words == before {
            return Ok(line);
        }
        let told = words.join(" ") + "\n";
        let mut file = File::from(memfd_create("cmdline.txt", MemfdFlags::CLOEXEC)?);
        file.write_all(told.as_bytes())?;
        Ok(Content::new(Arc::new(file), told.len() as u64))
    }

    fn load(&self, digest: &Digest) -> Result<Inodes, StoreError> {
        let path = self.store.tree_path(digest);
        let damaged = |what: String| StoreError::Damaged { path: path.clone(), what };
        let file = self.store.tree(digest)?;
        let text = zstd::Decoder::new(file).map_err(|e| damaged(e.to_string()))?;
        let hashing = Hashing { inner: text, hasher: Sha256::new() };
        let mut lines = Lines::new(BufReader::with_capacity(256 * 1024, hashing));
        let inodes = Inodes::read(&mut lines).map_err(|e| damaged(e.to_string()))?;
        // The digest is that of all text, and the lines were read to the end of it.
        let found: [u8; 32] = lines.into_inner().into_inner().hasher.finalize().into();
        if found != *digest.bytes() {
            return Err(damaged("its digest is not its name".into()));
        }
        Ok(inodes)
    }
}

/// Names a root tree as given to one node: the first half of SHA-256 over both. The same after a
/// restart and on every server, and no two nodes share one, though they may share the tree.
pub fn export_id(node: &str, tree: &Digest) -> ExportId {
    let mut bytes = node.as_bytes().to_vec();
    // No node name holds a zero byte, so no two pairs give the same bytes.
    bytes.push(0);
    bytes.extend_from_slice(tree.bytes());
    let digest = Digest::of(&bytes);
    let mut id = [0; 16];
    id.copy_from_slice(&digest.bytes()[..16]);
    ExportId(id)
}

/// Finds a file as the firmware names it. Names are asked for exactly as they are; FAT, for which
/// boot files are made, does not tell cases apart, so another case will do where there is no exact
/// one. `cmdline.txt` of a disk names that disk's root: a boot from the network gets the other one
/// where the boot tree has it.
fn find_boot_file(boot: &Inodes, path: &[u8]) -> Option<FileId> {
    let netboot = is_cmdline(path).then(|| find(boot, NETBOOT));
    netboot.flatten().or_else(|| find(boot, path))
}

fn is_cmdline(path: &[u8]) -> bool {
    path.eq_ignore_ascii_case(b"cmdline.txt")
}

fn find(tree: &Inodes, path: &[u8]) -> Option<FileId> {
    path.split(|&b| b == b'/').try_fold(FileId(1), |dir, name| {
        tree.lookup(dir, name).or_else(|| {
            let mut entries = (0..).map_while(|position| tree.entry(dir, position));
            entries.find(|(other, _)| other.eq_ignore_ascii_case(name)).map(|(_, file)| file)
        })
    })
}

/// One node's root.
#[derive(Debug)]
struct Root {
    id: ExportId,
    inodes: Arc<Inodes>,
    store: Reader,
}

impl Export for Root {
    fn id(&self) -> ExportId {
        self.id
    }

    fn attributes(&self, file: FileId) -> Option<Attributes> {
        self.inodes.attributes(file)
    }

    fn lookup(&self, dir: FileId, name: &[u8]) -> Option<FileId> {
        self.inodes.lookup(dir, name)
    }

    fn parent(&self, dir: FileId) -> Option<FileId> {
        self.inodes.parent(dir)
    }

    fn entry(&self, dir: FileId, position: u64) -> Option<(&[u8], FileId)> {
        self.inodes.entry(dir, position)
    }

    fn link_target(&self, file: FileId) -> Option<&[u8]> {
        self.inodes.link_target(file)
    }

    fn open(&self, file: FileId) -> io::Result<Content> {
        let file = self.inodes.file(file).ok_or(io::ErrorKind::InvalidInput)?;
        let opened = self.store.object(&file.digest, file.size)?;
        Ok(Content::new(Arc::new(opened), file.size))
    }

    fn xattr(&self, file: FileId, name: &[u8]) -> Option<&[u8]> {
        self.inodes.xattr(file, name)
    }

    fn inodes(&self) -> u64 {
        self.inodes.count()
    }

    fn bytes(&self) -> u64 {
        self.inodes.bytes()
    }
}

/// Digests what passes through.
struct Hashing<R> {
    inner: R,
    hasher: Sha256,
}

impl<R: Read> Read for Hashing<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let n = self.inner.read(buf)?;
        self.hasher.update(&buf[..n]);
        Ok(n)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Store;
    use crate::tree::tests::tree;
    use crate::tree::{Inode, Kind, Meta, Tree};

    fn store(entries: &[(&str, &str)]) -> (tempfile::TempDir, Store, Tree) {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let inode = |text: &str| {
            let object = store.put_bytes(text.as_bytes()).unwrap();
            Inode { meta: Meta::default(), kind: Kind::File(object) }
        };
        let entries: Vec<_> = entries.iter().map(|(path, text)| (*path, inode(text))).collect();
        let t = tree(&entries);
        (dir, store, t)
    }

    fn text(content: Option<Content>) -> Option<String> {
        let content = content?;
        let mut bytes = vec![0; usize::try_from(content.len()).unwrap()];
        assert_eq!(content.read_at(&mut bytes, 0).unwrap(), bytes.len());
        Some(String::from_utf8(bytes).unwrap())
    }

    #[test]
    fn a_tree_is_loaded_once_and_shared_by_nodes_until_nobody_needs_it() {
        let (_dir, store, t) = store(&[("etc/motd", "hello")]);
        let digest = store.put_tree(&t).unwrap();
        let trees = Trees::new(store.reader().unwrap());
        let (fenn, jast) = (trees.export("fenn", &digest).unwrap(), trees.export("jast", &digest).unwrap());
        assert_ne!(fenn.id(), jast.id(), "a handle of one node is none of another's");
        assert_eq!(trees.len(), 1);
        let file = fenn.lookup(fenn.lookup(FileId(1), b"etc").unwrap(), b"motd").unwrap();
        assert_eq!(text(fenn.open(file).ok()).as_deref(), Some("hello"));
        assert!(fenn.open(FileId(1)).is_err());
        drop(fenn);
        assert_eq!(trees.len(), 1);
        drop(jast);
        assert!(trees.is_empty());
        assert_eq!(trees.export("fenn", &digest).unwrap().id(), export_id("fenn", &digest), "as before");
    }

    #[test]
    fn a_damaged_tree_is_told_and_not_served() {
        let (dir, store, t) = store(&[("a", "b")]);
        let digest = store.put_tree(&t).unwrap();
        let file = dir.path().join("trees").join(digest.hex());
        let other = crate::tree::dump::write(&tree(&[]));
        std::fs::write(&file, zstd::encode_all(other.as_bytes(), 0).unwrap()).unwrap();
        let trees = Trees::new(store.reader().unwrap());
        assert!(matches!(trees.get(&digest), Err(StoreError::Damaged { .. })));
        std::fs::write(&file, "junk").unwrap();
        assert!(matches!(trees.get(&digest), Err(StoreError::Damaged { .. })));
        std::fs::remove_file(&file).unwrap();
        assert!(matches!(trees.get(&digest), Err(StoreError::Io { .. })));
    }

    #[test]
    fn boot_files_are_found_as_the_firmware_names_them() {
        let (_dir, store, t) = store(&[
            ("cmdline.txt", "disk"),
            ("cmdline.netboot.txt", "netboot"),
            ("start4.elf", "elf"),
            ("overlays/README", "exact"),
            ("overlays/Readme", "other"),
        ]);
        let digest = store.put_tree(&t).unwrap();
        let trees = Trees::new(store.reader().unwrap());
        let boot = trees.get(&digest).unwrap();
        for (path, want) in [
            ("start4.elf", Some("elf")),
            ("START4.ELF", Some("elf")),
            ("cmdline.txt", Some("netboot")),
            ("CMDLINE.TXT", Some("netboot")),
            ("overlays/README", Some("exact")),
            ("overlays/Readme", Some("other")),
            ("Overlays/readme", Some("exact")),
            ("overlays", None),
            ("", None),
            ("start4.elf/x", None),
            ("x/cmdline.txt", None),
        ] {
            let found = trees.boot_file(&boot, path.as_bytes()).unwrap();
            assert_eq!(text(found).as_deref(), want, "{path}");
        }
    }

    #[test]
    fn the_kernels_line_says_where_this_server_is() {
        let line = "console=tty1 gt.root=nfs gt.server=10.4.0.10 gt.node=fenn gt.http=8080 rw\n";
        let (_dir, store, t) = store(&[("cmdline.txt", "gt.http=1 disk"), ("cmdline.netboot.txt", line)]);
        let digest = store.put_tree(&t).unwrap();
        let told = |words: &[&str]| {
            let words = words.iter().map(|word| (*word).to_owned()).collect();
            let trees = Trees::new(store.reader().unwrap()).telling(words);
            let boot = trees.get(&digest).unwrap();
            text(trees.boot_file(&boot, b"cmdline.txt").unwrap()).unwrap()
        };
        assert_eq!(told(&[]), line);
        assert_eq!(told(&["gt.server=10.4.0.10", "gt.http=8080"]), line);
        assert_eq!(
            told(&["gt.server=10.4.0.2", "gt.http=18080", "gt.nfs_port=12049"]),
            "console=tty1 gt.root=nfs gt.server=10.4.0.2 gt.node=fenn gt.http=18080 rw gt.nfs_port=12049\n"
        );
    }
}
