//! dpkg's database of installed packages: read from the tree below, written into the tree above, so
//! that dpkg and apt on the node find what is installed.
//! Must not know: how files get into the tree, in which order scripts run.
//! Spec: dpkg's `lib/dpkg/{parse,dump,dbdir}.c`: `status`, `info/NAME[:ARCH].*`, `triggers/*`; the
//! order of fields is that of `fieldinfos` in `lib/dpkg/parse.c` (1.22).

use std::collections::BTreeMap;

use super::unpack::Package;
use super::upgrade::md5;
use super::{InstallError, triggers};
use crate::archive::control::{Paragraph, Paragraphs};
use crate::store::Store;
use crate::tree::{Inode, Kind, Meta, Time, Tree, TreeError, TreePath};

pub(super) const ADMIN: &str = "var/lib/dpkg";

/// Fields in the order in which dpkg writes them; others follow as the package has them.
const FIELD_ORDER: [&str; 27] = [
    "Package",
    "Essential",
    "Protected",
    "Status",
    "Priority",
    "Section",
    "Installed-Size",
    "Origin",
    "Maintainer",
    "Bugs",
    "Architecture",
    "Multi-Arch",
    "Source",
    "Version",
    "Config-Version",
    "Replaces",
    "Provides",
    "Depends",
    "Pre-Depends",
    "Recommends",
    "Suggests",
    "Breaks",
    "Conflicts",
    "Enhances",
    "Conffiles",
    "Description",
    "Triggers-Pending",
];

/// A package of the tree below.
#[derive(Debug)]
pub(super) struct Installed {
    pub name: String,
    pub architecture: String,
    pub version: String,
    /// As in the names of its files: `libc6:arm64`, `adduser`.
    pub qualified: String,
    /// False for one that was removed and left its configuration.
    pub is_there: bool,
    pub fields: Paragraph,
}

impl Installed {
    /// Whether it is this package. One that only one architecture of can be there may change from or to `all`.
    pub fn is_of(&self, name: &str, architecture: &str) -> bool {
        self.name == name && (self.architecture == architecture || self.qualified == self.name)
    }
}

/// Packages of the tree below, also what is left of removed ones; none when it has no database.
pub(super) fn read(store: &Store, tree: &Tree) -> Result<Vec<Installed>, InstallError> {
    let path = place(&format!("{ADMIN}/status"))?;
    let Some(object) = tree.get(&path).and_then(Inode::object) else { return Ok(Vec::new()) };
    let text = store.read_object(object)?;
    let mut found = Vec::new();
    for fields in Paragraphs::new(&text[..]) {
        let fields = fields.map_err(|source| InstallError::Control { of: format!("`{path}`"), source })?;
        let get = |name: &str| fields.get(name).unwrap_or_default().to_owned();
        let (name, architecture) = (get("Package"), get("Architecture"));
        let same = fields.get("Multi-Arch") == Some("same");
        let qualified = if same { format!("{name}:{architecture}") } else { name.clone() };
        // `deinstall ok config-files`, or `not-installed`.
        let is_there = !matches!(get("Status").rsplit(' ').next(), Some("config-files" | "not-installed"));
        found.push(Installed { name, architecture, version: get("Version"), qualified, is_there, fields });
    }
    Ok(found)
}

/// A file of the database in the tree.
pub(super) fn info(
    tree: &Tree,
    store: &Store,
    qualified: &str,
    kind: &str,
) -> Result<Option<Vec<u8>>, InstallError> {
    let path = place(&format!("{ADMIN}/info/{qualified}.{kind}"))?;
    let object = tree.get(&path).and_then(Inode::object);
    Ok(object.map(|object| store.read_object(object)).transpose()?)
}

/// Who has which file in the tree below.
pub(super) fn owners(
    store: &Store,
    tree: &Tree,
    installed: &[Installed],
) -> Result<BTreeMap<TreePath, String>, InstallError> {
    let mut owners = BTreeMap::new();
    for package in installed {
        let listed = listed(tree, store, package)?;
        owners.extend(listed.into_iter().map(|path| (path, package.name.clone())));
    }
    Ok(owners)
}

/// The paths that a package of the tree below has, as they are in the tree.
pub(super) fn listed(tree: &Tree, store: &Store, package: &Installed) -> Result<Vec<TreePath>, InstallError> {
    let list = info(tree, store, &package.qualified, "list")?.unwrap_or_default();
    let lines = list.split(|&b| b == b'\n').filter(|line| !line.is_empty());
    Ok(lines.filter_map(|line| tree.resolve(&TreePath::new(line).ok()?, false)).collect())
}

/// Takes away what the database has of a package, but for its paragraph in `status`.
pub(super) fn forget(tree: &mut Tree, store: &Store, qualified: &str) -> Result<(), InstallError> {
    let dir = place(&format!("{ADMIN}/info"))?;
    let ours = |path: &TreePath| {
        let rest = path.name().strip_prefix(qualified.as_bytes()).and_then(|rest| rest.strip_prefix(b"."));
        // `libc6.list`, and not `libc6.1.list`: names of packages have dots too.
        rest.is_some_and(|kind| !kind.contains(&b'.'))
    };
    let doomed: Vec<TreePath> =
        tree.children(&dir).map(|(path, _, _)| path.clone()).filter(|path| ours(path)).collect();
    doomed.iter().for_each(|path| _ = tree.remove(path));
    triggers::forget(tree, store, &place(&format!("{ADMIN}/triggers"))?, qualified)
}

/// Writes what dpkg knows of `packages` into the tree, all but `status`.
pub(super) fn write(
    tree: &mut Tree,
    store: &Store,
    packages: &[&Package],
    time: Time,
) -> Result<(), InstallError> {
    let mut out = Writer { tree, store, time };
    for dir in ["info", "triggers", "updates", "parts", "alternatives"] {
        out.dir(&format!("{ADMIN}/{dir}"))?;
    }
    out.file(&format!("{ADMIN}/info/format"), b"1\n", 0o644)?;
    for name in ["diversions", "statoverride"] {
        let path = format!("{ADMIN}/{name}");
        if out.tree.get(&place(&path)?).is_none() {
            out.file(&path, b"", 0o644)?;
        }
    }
    for package in packages {
        let stem = format!("{ADMIN}/info/{}", package.qualified());
        out.file(&format!("{stem}.list"), &list(package), 0o644)?;
        for (name, bytes, mode) in package.control.iter().filter(|(name, _, _)| name != "control") {
            // dpkg keeps the mode of the archive: 0755 for scripts, 0644 for the rest.
            out.file(&format!("{stem}.{name}"), bytes, mode & 0o777)?;
        }
    }
    triggers::write(packages, |name, lines| {
        let path = format!("{ADMIN}/triggers/{name}");
        let old = out.tree.get(&place(&path)?).and_then(Inode::object);
        let mut bytes = old.map(|object| store.read_object(object)).transpose()?.unwrap_or_default();
        bytes.extend_from_slice(lines.as_bytes());
        out.file(&path, &bytes, 0o644)
    })
}

/// The package's own paths as dpkg lists them: with leading slashes, the root as `/.`.
fn list(package: &Package) -> Vec<u8> {
    let mut out = Vec::new();
    for (path, _, _) in package.data.tree().iter().filter(|(p, _, _)| !package.data.is_implied(p)) {
        out.push(b'/');
        out.extend_from_slice(if path.is_root() { b"." } else { path.as_bytes() });
        out.push(b'\n');
    }
    out
}

/// The paragraph of `status` for a package of this installation, as if it were configured.
pub(super) fn paragraph(package: &Package, store: &Store) -> Result<Paragraph, InstallError> {
    let wrong = || InstallError::field(&package.name);
    let mut fields = package.fields.clone();
    fields.set("Status", "install ok installed").map_err(wrong())?;
    let conffiles = conffiles(package, store)?;
    if !conffiles.is_empty() {
        fields.set("Conffiles", &conffiles).map_err(wrong())?;
    }
    let mut ordered = Paragraph::new();
    let known = FIELD_ORDER.iter().filter_map(|&name| Some((name, fields.get(name)?)));
    let other = |name: &str| !FIELD_ORDER.iter().any(|known| known.eq_ignore_ascii_case(name));
    for (name, value) in known.chain(fields.iter().filter(|(name, _)| other(name))) {
        ordered.set(name, value).map_err(wrong())?;
    }
    Ok(ordered)
}

/// `"\n /etc/x md5\n /etc/y md5"`: the hashes by which dpkg later tells whether the owner of the
/// machine changed a file.
fn conffiles(package: &Package, store: &Store) -> Result<String, InstallError> {
    let mut out = String::new();
    let lines = package.control_file("conffiles").unwrap_or_default();
    for line in String::from_utf8_lossy(lines).lines().map(str::trim).filter(|l| !l.is_empty()) {
        let Some(path) = line.strip_prefix('/') else {
            // `remove-on-upgrade /etc/x` names a file that is not in the package.
            if let Some(path) = line.strip_prefix("remove-on-upgrade ") {
                out.push_str(&format!("\n {path} newconffile remove-on-upgrade"));
            }
            continue;
        };
        let object = package.data.tree().get(&place(path)?).and_then(Inode::object);
        let object = object.ok_or_else(|| InstallError::Field {
            package: package.name.clone(),
            what: format!("a configuration file `{line}` that it does not contain"),
        })?;
        let hash = md5(&store.read_object(object)?);
        out.push_str(&format!("\n {line} {hash}"));
    }
    Ok(out)
}

struct Writer<'a> {
    tree: &'a mut Tree,
    store: &'a Store,
    time: Time,
}

impl Writer<'_> {
    fn dir(&mut self, path: &str) -> Result<(), InstallError> {
        let path = place(path)?;
        let meta = Meta::root_owned(0o755, self.time);
        if self.tree.get(&path).is_none() {
            self.tree.make_parents(&path, &meta)?;
            self.tree.insert(path, Inode::dir(meta))?;
        }
        Ok(())
    }

    fn file(&mut self, path: &str, bytes: &[u8], mode: u16) -> Result<(), InstallError> {
        put(self.tree, self.store, path, bytes, Meta::root_owned(mode, self.time))
    }
}

/// Puts a file into the tree; directories above it are made.
pub(super) fn put(
    tree: &mut Tree,
    store: &Store,
    path: &str,
    bytes: &[u8],
    meta: Meta,
) -> Result<(), InstallError> {
    let path = place(path)?;
    tree.make_parents(&path, &Meta::root_owned(0o755, meta.mtime))?;
    let object = store.put_bytes(bytes)?;
    tree.insert(path, Inode { meta, kind: Kind::File(object) })?;
    Ok(())
}

pub(super) fn place(path: &str) -> Result<TreePath, InstallError> {
    Ok(TreePath::new(path).map_err(TreeError::from)?)
}
