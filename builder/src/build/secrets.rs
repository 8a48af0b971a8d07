//! The secrets that a node's own disk gets: found beside the cluster key, or derived from it.
//! Must not know: disk images.
//! Spec: design.md section 7.

use std::fs;
use std::io;
use std::path::Path;

use anyhow::Context;

use super::image::Private;
use crate::layer::identity::ClusterKey;
use crate::layer::overlay::accounts::Accounts;
use crate::overlay::{Overlay, Owner, Secret};
use crate::store::Store;
use crate::tree::{Inode, Tree, TreePath};

/// Secrets that are had, and warnings about those that are not.
#[derive(Debug, Default)]
pub struct Secrets {
    /// Files for the image.
    pub files: Vec<Private>,
    /// What the image goes without.
    pub warnings: Vec<String>,
}

/// Collects the secrets of a node's overlays. `folder` is where the cluster key lies: the owner's
/// files are `<folder>/<node>/<name>` or, for all nodes, `<folder>/<name>`.
pub fn collect(
    node: &str,
    overlays: &[&Overlay],
    folder: &Path,
    key: &ClusterKey,
    accounts: &Accounts,
) -> anyhow::Result<Secrets> {
    let mut found = Secrets::default();
    for secret in overlays.iter().flat_map(|o| &o.secrets) {
        let name = secret.name.as_str();
        let own = read(&folder.join(node).join(name))?.or(read(&folder.join(name))?);
        let (bytes, source) = match (own, secret.derive) {
            (Some(bytes), _) => (bytes, "file"),
            // One value for the whole cluster: what derives is what nodes must share.
            (None, Some(len)) => (key.derive(&["secret", name], usize::from(len)), "derived"),
            (None, None) if secret.optional => continue,
            (None, None) => {
                let file = folder.join(name);
                let warning =
                    format!("secret `{name}` is not in `{}`: the image goes without it", file.display());
                found.warnings.push(warning);
                continue;
            }
        };
        found.files.push(private(secret, bytes, source, accounts)?);
    }
    Ok(found)
}

fn private(
    secret: &Secret,
    bytes: Vec<u8>,
    source: &'static str,
    accounts: &Accounts,
) -> anyhow::Result<Private> {
    let id = |owner: &Owner, named: &dyn Fn(&str) -> Option<u32>| match owner {
        Owner::Number(id) => Ok(*id),
        Owner::Name(name) => named(name.as_str())
            .with_context(|| format!("{}: the node has no user or group `{name}`", secret.file.place)),
    };
    let uid = id(&secret.file.owner, &|name| accounts.uid(name))?;
    let gid = id(&secret.file.group, &|name| accounts.gid(name))?;
    Ok(Private {
        path: secret.file.path.tree().clone(),
        bytes,
        mode: secret.file.mode.bits(),
        owner: (uid, gid),
        secret: Some(source),
    })
}

/// The users and groups of a root.
pub fn accounts(root: &Tree, store: &Store) -> anyhow::Result<Accounts> {
    let mut texts = [const { Vec::new() }; 4];
    for (text, name) in texts.iter_mut().zip(["passwd", "group", "shadow", "gshadow"]) {
        let path = TreePath::new(format!("etc/{name}"))?;
        if let Some(object) = root.get(&path).and_then(Inode::object) {
            *text = store.read_object(object)?;
        }
    }
    Ok(Accounts::parse([&texts[0], &texts[1], &texts[2], &texts[3]]))
}

fn read(path: &Path) -> anyhow::Result<Option<Vec<u8>>> {
    match fs::read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => Ok(None),
        Err(e) => Err(e).with_context(|| format!("reading the secret `{}`", path.display())),
    }
}
