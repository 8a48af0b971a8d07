//! Package files to packages: fields, control files and data, read once ever and kept in the store.
//! Must not know: other packages, trees below.
//! Spec: deb-control(5); the kept form is a tree of our own with `control/…` and `data/…`.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::{InstallError, LocalDeb};
use crate::archive::control::{Paragraph, Paragraphs};
use crate::archive::deb;
use crate::digest::{Digest, Key};
use crate::io::progress::{Progress, Unit};
use crate::store::Store;
use crate::tree::layer::Layer;
use crate::tree::{Inode, Kind, Meta, Time, Tree, TreeError, TreePath};

/// Marks a directory that the package does not state itself, in the kept form only.
const IMPLIED: &[u8] = b"user.gt-image.implied";

/// A package ready to be laid down.
#[derive(Debug)]
pub(super) struct Package {
    pub name: String,
    pub architecture: String,
    /// `Multi-Arch: same`: its files in dpkg's database carry the architecture.
    pub same: bool,
    pub essential: bool,
    pub fields: Paragraph,
    /// Members of the control archive: name, content, mode.
    pub control: Vec<(String, Vec<u8>, u16)>,
    pub data: Layer,
}

impl Package {
    /// How dpkg names the package where the architecture matters: `libc6:arm64`, `adduser`.
    pub fn qualified(&self) -> String {
        if self.same { format!("{}:{}", self.name, self.architecture) } else { self.name.clone() }
    }

    /// A member of the control archive.
    pub fn control_file(&self, name: &str) -> Option<&[u8]> {
        self.control.iter().find(|(n, _, _)| n == name).map(|(_, bytes, _)| bytes.as_slice())
    }

    fn new(
        deb: &LocalDeb,
        control: Vec<(String, Vec<u8>, u16)>,
        data: Layer,
    ) -> Result<Package, InstallError> {
        let text = control.iter().find(|(n, _, _)| n == "control").map_or(&b""[..], |(_, b, _)| b);
        let fields = Paragraphs::new(text).next().transpose().map_err(InstallError::control(&deb.name))?;
        let fields = fields.unwrap_or_default();
        for (field, wanted) in
            [("Package", &deb.name), ("Version", &deb.version), ("Architecture", &deb.architecture)]
        {
            let found = fields.get(field).unwrap_or_default();
            if found != wanted {
                let what = format!("`{field}: {found}`, and the lock says `{wanted}`");
                return Err(InstallError::Field { package: deb.name.clone(), what });
            }
        }
        Ok(Package {
            name: deb.name.clone(),
            architecture: deb.architecture.clone(),
            same: fields.get("Multi-Arch") == Some("same"),
            essential: deb.essential || fields.get("Essential") == Some("yes"),
            fields,
            control,
            data,
        })
    }
}

/// Reads all packages, in the order given; as many at once as there are processors.
pub(super) fn load_all(
    store: &Store,
    debs: &[LocalDeb],
    progress: &Progress,
) -> Result<Vec<Package>, InstallError> {
    let task = progress.task("unpacking", Unit::Items, Some(debs.len() as u64));
    let next = AtomicUsize::new(0);
    let slots: Vec<Mutex<Option<Result<Loaded, InstallError>>>> =
        debs.iter().map(|_| Mutex::new(None)).collect();
    let workers = std::thread::available_parallelism().map_or(1, usize::from).min(debs.len().max(1));
    std::thread::scope(|scope| {
        for _ in 0..workers {
            scope.spawn(|| {
                loop {
                    let at = next.fetch_add(1, Ordering::Relaxed);
                    let Some(deb) = debs.get(at) else { break };
                    let loaded = load(store, deb);
                    if let Ok(mut slot) = slots[at].lock() {
                        *slot = Some(loaded);
                    }
                    task.advance(1);
                }
            });
        }
    });
    let mut packages = Vec::with_capacity(debs.len());
    for (slot, deb) in slots.into_iter().zip(debs) {
        // A worker that panicked has been joined by the scope, which panics too.
        let Some(loaded) = slot.into_inner().ok().flatten() else { continue };
        let Loaded { package, kept } = loaded?;
        // Trees are recorded after all objects are written: recording syncs the file system, and
        // the first sync then does the work of all.
        if let Some(tree) = kept {
            let digest = store.put_tree(&tree)?;
            store.put_layer(&cache_key(deb), &digest)?;
        }
        packages.push(package);
    }
    Ok(packages)
}

struct Loaded {
    package: Package,
    /// The form to keep, when it is not kept yet.
    kept: Option<Tree>,
}

fn cache_key(deb: &LocalDeb) -> Digest {
    Key::new("unpacked package 1").with(deb.sha256.bytes()).finish()
}

fn load(store: &Store, deb: &LocalDeb) -> Result<Loaded, InstallError> {
    if let Some(digest) = store.layer(&cache_key(deb))?
        && let Ok(tree) = store.tree(&digest)
        && objects_present(store, &tree)
    {
        let (control, data) = from_kept(store, &tree)?;
        return Ok(Loaded { package: Package::new(deb, control, data)?, kept: None });
    }
    let raw = deb::read(&deb.path, store)?;
    let control: Vec<_> = raw.control.into_iter().map(|c| (c.name, c.bytes, c.mode)).collect();
    let kept = to_kept(store, &control, &raw.data)?;
    Ok(Loaded { package: Package::new(deb, control, raw.data)?, kept: Some(kept) })
}

/// A power cut may lose objects of a tree that was recorded by another file system's rules; looking
/// costs 20 ms for a base.
fn objects_present(store: &Store, tree: &Tree) -> bool {
    tree.iter().filter_map(|(_, _, inode)| inode.object()).all(|object| {
        std::fs::metadata(store.object_path(&object.digest)).is_ok_and(|m| m.len() == object.size)
    })
}

fn to_kept(store: &Store, control: &[(String, Vec<u8>, u16)], data: &Layer) -> Result<Tree, InstallError> {
    let zero = Time::seconds(0);
    let mut tree = Tree::new(Meta::root_owned(0o755, zero));
    let place = |name: &str| TreePath::new(name).map_err(TreeError::from);
    for name in ["control", "data"] {
        tree.insert(place(name)?, Inode::dir(Meta::root_owned(0o755, zero)))?;
    }
    for (name, bytes, mode) in control {
        let object = store.put_bytes(bytes)?;
        let inode = Inode { meta: Meta::root_owned(*mode & 0o7777, zero), kind: Kind::File(object) };
        tree.insert(place("control")?.join(name).map_err(TreeError::from)?, inode)?;
    }
    let mut placed = std::collections::HashMap::new();
    for (path, id, inode) in data.tree().iter() {
        let to = place("data")?.join(path.as_bytes()).map_err(TreeError::from)?;
        if let Some(&first) = placed.get(&id) {
            tree.link(to, first)?;
            continue;
        }
        let mut inode = inode.clone();
        if data.is_implied(path) {
            inode.meta.xattrs.insert(IMPLIED.to_vec(), b"1".to_vec());
        }
        placed.insert(id, tree.insert(to, inode)?);
    }
    Ok(tree)
}

type ControlFiles = Vec<(String, Vec<u8>, u16)>;

fn from_kept(store: &Store, tree: &Tree) -> Result<(ControlFiles, Layer), InstallError> {
    let mut control = Vec::new();
    let mut data = Layer::new();
    let mut placed = std::collections::HashMap::new();
    for (path, id, inode) in tree.iter() {
        if let Some(name) = path.as_bytes().strip_prefix(b"control/") {
            if let Some(object) = inode.object() {
                let name = String::from_utf8_lossy(name).into_owned();
                control.push((name, store.read_object(object)?, inode.meta.mode));
            }
        } else if let Some(rest) = path.as_bytes().strip_prefix(b"data") {
            if inode.meta.xattrs.contains_key(IMPLIED) {
                continue;
            }
            let to = TreePath::new(rest).map_err(TreeError::from)?;
            match placed.get(&id) {
                Some(&first) => data.link(to, first)?,
                None => _ = placed.insert(id, data.insert(to, inode.clone())?),
            }
        }
    }
    Ok((control, data))
}
