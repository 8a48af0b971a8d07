//! What a netbooted node gets at boot and never over TFTP or NFS: its machine-id, its SSH host key and
//! the secrets that its overlays ask for, as one tar archive, sealed to the node's own key if it has one.
//! Must not know: HTTP, boots; who may have it is decided in [`release`].
//! Spec: design.md section 7; ustar (POSIX.1-2017); age-encryption.org/v1.
//!
//! ```text
//! machine-id                  0444
//! ssh_host_ed25519_key        0600
//! ssh_host_ed25519_key.pub    0644
//! secrets/<target path>       owner and mode as its overlay says
//! ```
//!
//! The archive is unpacked in a directory that only root can enter. Directories below `secrets/` are
//! those of the node's root; an archive brings none but `secrets/` itself and those that lead to a file.

pub mod neighbour;
pub mod release;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::archive::tar_write;
use crate::build::secrets;
use crate::digest::Digest;
use crate::layer::identity::ClusterKey;
use crate::overlay::Overlay;
use crate::store::Store;
use crate::tree::layer::Layer;
use crate::tree::{Inode, Kind, Meta, Object, Time, Tree, TreePath};

/// A binary age file begins with this line; no tar archive does.
const AGE: &[u8] = b"age-encryption.org/v1\n";

/// What a node's secrets are made of.
#[derive(Debug, Clone, Copy)]
pub struct Parts<'a> {
    /// The node's name.
    pub node: &'a str,
    /// Its overlays, in order.
    pub overlays: &'a [&'a Overlay],
    /// The cluster key.
    pub key: &'a ClusterKey,
    /// Where the cluster key lies, and with it the owner's files: `secrets/`.
    pub folder: &'a Path,
    /// The root that the node boots: its users and groups are meant by the overlays' names.
    pub root: &'a Tree,
    /// Where the root's files are.
    pub store: &'a Store,
    /// The number of the owner's wish to wipe the node's state ([`super::wipe`]), if there is one.
    pub wipe: Option<u64>,
}

/// A node's secrets, ready to be sent. Never shown, never written to a file.
pub struct Bundle {
    /// A tar archive, or an age file with one.
    pub bytes: Vec<u8>,
    /// What the node goes without.
    pub warnings: Vec<String>,
}

/// Never shows a secret.
impl std::fmt::Debug for Bundle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Bundle").field("warnings", &self.warnings).finish_non_exhaustive()
    }
}

/// A node's own key is registered and is none.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NodeKeyError {
    /// The file is there and cannot be read.
    #[error("reading the node key `{}`", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The file has no line that is an age recipient.
    #[error("the node key `{}` must be a line `age1…`", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
    },
}

/// The public half of a key whose other half never leaves the node's `gt-state` partition.
#[derive(Debug, Clone)]
pub struct NodeKey(age::x25519::Recipient);

impl NodeKey {
    /// Reads `<folder>/nodes/<node>.age.pub`, which `flash` writes; `None` when there is no such file.
    /// One that cannot be used is an error: its node must not fall back to trust on boot.
    pub fn load(folder: &Path, node: &str) -> Result<Option<NodeKey>, NodeKeyError> {
        let path = folder.join("nodes").join(format!("{node}.age.pub"));
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(NodeKeyError::Io { path, source }),
        };
        let mut lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
        let key = lines.next().and_then(|line| line.parse().ok());
        key.map(|key| Some(NodeKey(key))).ok_or(NodeKeyError::Malformed { path })
    }

    /// A new key: its public half is registered by [`NodeKey::register`], the other one is a file for the
    /// node's `gt-state` alone.
    pub fn generate() -> (NodeKey, String) {
        let identity = age::x25519::Identity::generate();
        let secret = age::secrecy::ExposeSecret::expose_secret(&identity.to_string()).to_owned();
        (NodeKey(identity.to_public()), secret + "\n")
    }

    /// Notes that this is the node's key from now on.
    pub fn register(&self, folder: &Path, node: &str) -> io::Result<()> {
        let path = folder.join("nodes").join(format!("{node}.age.pub"));
        crate::io::atomic::write(&path, format!("{}\n", self.0).as_bytes())
    }

    fn seal(&self, bytes: &[u8]) -> anyhow::Result<Vec<u8>> {
        Ok(age::encrypt(&self.0, bytes)?)
    }
}

/// Puts a node's secrets together, and seals them when the node has a key of its own.
pub fn bundle(parts: &Parts) -> anyhow::Result<Bundle> {
    let node_key = NodeKey::load(parts.folder, parts.node)?;
    let accounts = secrets::accounts(parts.root, parts.store)?;
    let found = secrets::collect(parts.node, parts.overlays, parts.folder, parts.key, &accounts)?;
    let ssh = parts.key.ssh_host_key(parts.node);
    let comment = format!("root@{}", parts.node);
    let mut files = Files::new()?;
    files.add("machine-id", format!("{}\n", parts.key.machine_id(parts.node)).into_bytes(), 0o444, (0, 0))?;
    files.add("ssh_host_ed25519_key", ssh.private(&comment).into_bytes(), 0o600, (0, 0))?;
    let public = format!("{} {comment}\n", ssh.public());
    files.add("ssh_host_ed25519_key.pub", public.into_bytes(), 0o644, (0, 0))?;
    if let Some(wish) = parts.wipe {
        files.add("wipe-state", format!("{wish}\n").into_bytes(), 0o600, (0, 0))?;
    }
    for file in found.files {
        let path = [b"secrets/", file.path.as_bytes()].concat();
        files.add(path, file.bytes, file.mode, file.owner)?;
    }
    let tar = files.tar(parts.store)?;
    let bytes = match node_key {
        Some(key) => key.seal(&tar)?,
        None => tar,
    };
    Ok(Bundle { bytes, warnings: found.warnings })
}

/// What the bytes of a [`Bundle`] are, for the header `Content-Type`.
pub fn content_type(bytes: &[u8]) -> &'static str {
    if bytes.starts_with(AGE) { "application/x-age" } else { "application/x-tar" }
}

/// Files that are in memory alone.
struct Files {
    layer: Layer,
    contents: Vec<Vec<u8>>,
}

impl Files {
    fn new() -> anyhow::Result<Files> {
        let mut layer = Layer::from_tree(Tree::new(Meta::root_owned(0o700, Time::default())));
        layer.insert(TreePath::new("secrets")?, Inode::dir(Meta::root_owned(0o700, Time::default())))?;
        Ok(Files { layer, contents: Vec::new() })
    }

    fn add(
        &mut self,
        path: impl AsRef<[u8]>,
        bytes: Vec<u8>,
        mode: u16,
        (uid, gid): (u32, u32),
    ) -> anyhow::Result<()> {
        let object = Object { digest: Digest::of(&bytes), size: bytes.len() as u64, holes: Box::default() };
        // No time: the same secrets are the same bytes.
        let meta = Meta { uid, gid, ..Meta::root_owned(mode, Time::default()) };
        self.layer.insert(TreePath::new(path)?, Inode { meta, kind: Kind::File(object) })?;
        self.contents.push(bytes);
        Ok(())
    }

    fn tar(self, store: &Store) -> anyhow::Result<Vec<u8>> {
        let mut out = Vec::new();
        tar_write::write(self.layer.tree(), &store.with_memory(self.contents), &mut out)?;
        Ok(out)
    }
}

#[cfg(test)]
mod tests;
