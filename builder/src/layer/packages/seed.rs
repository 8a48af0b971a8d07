//! Users and groups with fixed ids, written before any script runs, so that what packages create
//! has the same owner in every build.
//! Must not know: which packages create them.
//! Spec: passwd(5), group(5), shadow(5), gshadow(5); base-passwd's `passwd.master` and `group.master`.

use super::InstallError;
use super::database::{place, put};
use crate::store::Store;
use crate::tree::{Inode, Meta, Time, Tree};

/// Number of the group `nogroup` on every Debian: base-passwd's `group.master`.
const NOGROUP: u32 = 65_534;

/// Users and groups that shall have fixed ids.
#[derive(Debug, Clone, Default)]
pub struct Seed {
    /// Users.
    pub users: Vec<SeedUser>,
    /// Groups.
    pub groups: Vec<SeedGroup>,
}

/// One user.
#[derive(Debug, Clone)]
pub struct SeedUser {
    /// Login name.
    pub name: String,
    /// Its number.
    pub uid: u32,
    /// Number of its first group.
    pub gid: u32,
    /// Home directory.
    pub home: String,
    /// Login shell.
    pub shell: String,
    /// The comment field.
    pub comment: String,
}

/// One group.
#[derive(Debug, Clone)]
pub struct SeedGroup {
    /// Its name.
    pub name: String,
    /// Its number.
    pub gid: u32,
}

impl Seed {
    /// All fields, for the key of a cached layer.
    pub fn to_bytes(&self) -> Vec<u8> {
        format!("{self:?}").into_bytes()
    }
}

impl SeedUser {
    /// A user of a package, of whom nothing but the number is known, and perhaps the first group;
    /// else that is Debian's `nogroup`.
    pub fn pinned(name: &str, uid: u32, group: Option<u32>) -> SeedUser {
        let (home, shell) = ("/nonexistent".to_owned(), "/usr/sbin/nologin".to_owned());
        SeedUser {
            name: name.to_owned(),
            uid,
            gid: group.unwrap_or(NOGROUP),
            home,
            shell,
            comment: String::new(),
        }
    }
}

/// Adds what is missing of `seed` to the account files; those that do not exist yet begin as
/// base-passwd would begin them.
pub(super) fn write(tree: &mut Tree, store: &Store, seed: &Seed, epoch: i64) -> Result<(), InstallError> {
    if seed.users.is_empty() && seed.groups.is_empty() {
        return Ok(());
    }
    let day = epoch.div_euclid(86_400);
    let users: Vec<_> = seed.users.iter().map(|u| (u.name.as_str(), u)).collect();
    let groups: Vec<_> = seed.groups.iter().map(|g| (g.name.as_str(), g)).collect();
    let passwd =
        |u: &SeedUser, x: char| format!("{x}:{}:{}:{}:{}:{}", u.uid, u.gid, u.comment, u.home, u.shell);
    let shadowed = exists(tree, "etc/shadow")?;
    let hidden = if shadowed { 'x' } else { '*' };
    add(tree, store, "etc/passwd", "usr/share/base-passwd/passwd.master", epoch, &users, |u| {
        passwd(u, hidden)
    })?;
    let hidden = if exists(tree, "etc/gshadow")? { 'x' } else { '*' };
    add(tree, store, "etc/group", "usr/share/base-passwd/group.master", epoch, &groups, |g| {
        format!("{hidden}:{}:", g.gid)
    })?;
    if shadowed {
        add(tree, store, "etc/shadow", "", epoch, &users, |_| format!("!*:{day}::::::"))?;
    }
    if exists(tree, "etc/gshadow")? {
        add(tree, store, "etc/gshadow", "", epoch, &groups, |_| "!*::".into())?;
    }
    Ok(())
}

fn exists(tree: &Tree, path: &str) -> Result<bool, InstallError> {
    Ok(tree.get(&place(path)?).is_some())
}

fn add<T>(
    tree: &mut Tree,
    store: &Store,
    path: &str,
    template: &str,
    epoch: i64,
    entries: &[(&str, &T)],
    line: impl Fn(&T) -> String,
) -> Result<(), InstallError> {
    let old = tree.get(&place(path)?).or(tree.get(&place(template)?));
    let meta = old.map_or_else(|| Meta::root_owned(0o644, Time::seconds(epoch)), |i| i.meta.clone());
    let object = old.and_then(Inode::object);
    let bytes = object.map(|o| store.read_object(o)).transpose()?.unwrap_or_default();
    let mut text = String::from_utf8_lossy(&bytes).into_owned();
    for (name, entry) in entries {
        if !text.lines().any(|l| l.split(':').next() == Some(name)) {
            text.push_str(&format!("{name}:{}\n", line(entry)));
        }
    }
    put(tree, store, path, text.as_bytes(), meta)
}
