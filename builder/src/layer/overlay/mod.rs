//! Renders an overlay for a node into a layer, and what belongs to the node as a whole.
//! Must not know: packages, artifacts, boot files; they have layers of their own.
//! Spec: docs/overlay-format.md; nothing here depends on umask, clock or the order of a directory.

pub mod accounts;
mod context;
mod node_files;
mod people;
mod units;
mod view;

use std::io;
use std::path::PathBuf;

use accounts::{AccountError, Accounts};
pub use context::Context;
pub use node_files::{check_files, node_files};
pub use units::UnitError;
use view::View;

use crate::diagnostic::Place;
use crate::overlay::{Content, FileEntry, FileKind, FileSource, Overlay, Owner};
use crate::store::{Store, StoreError};
use crate::tree::layer::Layer;
use crate::tree::{Inode, Kind, Meta, PathError, Time, Tree, TreeError, TreePath};

/// An overlay that was read without a finding does not fit this node or this base.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RenderError {
    /// A template cannot be rendered, for an undefined variable mostly.
    #[error("{place}: template: {what}")]
    Template {
        /// The line of the template.
        place: Place,
        /// What is wrong.
        what: String,
    },
    /// A user or a group by name that the node does not have.
    #[error("{place}: {noun} `{name}` does not exist on the node")]
    UnknownOwner {
        /// The line that names it.
        place: Place,
        /// `user` or `group`.
        noun: &'static str,
        /// The name.
        name: String,
    },
    /// An account does not fit those that the tree has.
    #[error("{place}: {source}")]
    Account {
        /// The line of the account.
        place: Place,
        /// Why.
        source: AccountError,
    },
    /// A unit cannot be enabled or disabled.
    #[error("{place}: {source}")]
    Unit {
        /// The line of the unit.
        place: Place,
        /// Why.
        source: UnitError,
    },
    /// The tree has time zones, but not the cluster's.
    #[error("time zone `{zone}` is not in `/usr/share/zoneinfo` of the node")]
    TimeZone {
        /// The cluster's.
        zone: String,
    },
    /// A file of the overlay could not be read.
    #[error("reading `{}`", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A path is malformed.
    #[error(transparent)]
    Path(#[from] PathError),
    /// The layer would be no tree: a file where a directory is needed.
    #[error(transparent)]
    Tree(#[from] TreeError),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

type Result<T> = std::result::Result<T, RenderError>;

/// The layer of one overlay on one node: accounts, files, templates, sysctl and module lists, units.
/// `below` is the tree with the base, the packages and all lower overlays; `epoch` is the time of
/// all that is made, in seconds since 1970.
pub fn render(
    overlay: &Overlay,
    context: &Context,
    below: &Tree,
    store: &Store,
    epoch: i64,
) -> Result<Layer> {
    let mut view = View::new(below, store, epoch);
    for path in &overlay.remove {
        view.layer.remove(path.tree().clone());
    }
    let accounts = overlay_accounts(overlay, &mut view)?;
    let owners = Owners { accounts: &accounts, context };
    for source in &overlay.sources {
        let entry = overlay.files.iter().find(|entry| *entry.path.tree() == source.path);
        let inode = render_source(source, entry, &owners, &view)?;
        view.layer.insert(source.path.clone(), inode)?;
    }
    for entry in overlay.files.iter().filter(|entry| entry.kind != FileKind::File) {
        let kind = match &entry.target {
            Some(target) => Kind::Symlink(target.as_bytes().into()),
            None => Kind::Dir,
        };
        let mode = if kind == Kind::Dir { 0o755 } else { 0o777 };
        let inode = Inode { meta: owners.meta(Some(entry), mode, &view)?, kind };
        view.layer.insert(entry.path.tree().clone(), inode)?;
    }
    let name = &overlay.name;
    if !overlay.sysctl.is_empty() {
        let lines: String = overlay.sysctl.iter().map(|(key, value)| format!("{key} = {value}\n")).collect();
        view.put_text(&format!("etc/sysctl.d/50-gt-{name}.conf"), 0o644, &lines)?;
    }
    if !overlay.modules.is_empty() {
        let lines: String = overlay.modules.iter().map(|module| format!("{module}\n")).collect();
        view.put_text(&format!("etc/modules-load.d/50-gt-{name}.conf"), 0o644, &lines)?;
    }
    units::apply(overlay, &mut view)?;
    Ok(view.layer)
}

fn overlay_accounts(overlay: &Overlay, view: &mut View<'_>) -> Result<Accounts> {
    let mut accounts = Accounts::read(view)?;
    accounts.add_overlay(overlay, view.epoch)?;
    accounts.write(view)?;
    Ok(accounts)
}

fn render_source(
    source: &FileSource,
    entry: Option<&FileEntry>,
    owners: &Owners<'_>,
    view: &View<'_>,
) -> Result<Inode> {
    let executable = match &source.content {
        Content::Symlink(target) => {
            let kind = Kind::Symlink(target.as_slice().into());
            return Ok(Inode { meta: owners.meta(entry, 0o777, view)?, kind });
        }
        Content::File { executable } => *executable,
    };
    let meta = owners.meta(entry, if executable { 0o755 } else { 0o644 }, view)?;
    let io = |e| RenderError::Io { path: source.source.clone(), source: e };
    let object = if entry.is_some_and(|entry| entry.template) {
        let text = std::fs::read_to_string(&source.source).map_err(io)?;
        let name = source.source.display().to_string();
        view.store.put_bytes(owners.context.render(&name, &text)?.as_bytes())?
    } else {
        view.store.put_reader(&mut std::fs::File::open(&source.source).map_err(io)?)?
    };
    Ok(Inode { meta, kind: Kind::File(object) })
}

/// Numbers for the names of users and groups: the tree's own, this overlay's, and the cluster's
/// users, whose accounts are written last because their groups may come from any overlay.
struct Owners<'a> {
    accounts: &'a Accounts,
    context: &'a Context,
}

impl Owners<'_> {
    fn meta(&self, entry: Option<&FileEntry>, mode: u16, view: &View<'_>) -> Result<Meta> {
        let Some(entry) = entry else { return Ok(Meta::root_owned(mode, view.time())) };
        let mut meta = Meta::root_owned(entry.mode.map_or(mode, |mode| mode.bits()), view.time());
        meta.uid = self.uid(&entry.owner, &entry.place)?;
        meta.gid = self.gid(&entry.group, &entry.place)?;
        meta.xattrs = entry.xattrs.iter().map(|(k, v)| (k.clone().into_bytes(), v.0.clone())).collect();
        Ok(meta)
    }

    fn uid(&self, owner: &Owner, place: &Place) -> Result<u32> {
        self.id(owner, "user", |name| self.accounts.uid(name), place)
    }

    fn gid(&self, owner: &Owner, place: &Place) -> Result<u32> {
        self.id(owner, "group", |name| self.accounts.gid(name), place)
    }

    fn id(
        &self,
        owner: &Owner,
        noun: &'static str,
        find: impl Fn(&str) -> Option<u32>,
        place: &Place,
    ) -> Result<u32> {
        let name = match owner {
            Owner::Number(number) => return Ok(*number),
            Owner::Name(name) => name.as_str(),
        };
        // Root is 0 also in a tree that has no /etc/passwd.
        let root = (name == "root").then_some(0);
        let person = || self.context.users().iter().find(|u| u.name.as_str() == name).map(|u| u.uid);
        find(name).or(root).or_else(person).ok_or_else(|| RenderError::UnknownOwner {
            place: place.clone(),
            noun,
            name: name.into(),
        })
    }
}

#[cfg(test)]
mod tests;
