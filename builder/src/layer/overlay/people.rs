//! The cluster's users on a node: accounts, homes, keys and the right to become root.
//! Must not know: other accounts.
//! Spec: sshd(8) (authorized_keys and its modes), sudoers(5); adduser.conf(5) of Debian 13: DIR_MODE 0700.

use super::accounts::Accounts;
use super::view::View;
use super::{Inode, Meta, Result, TreePath};
use crate::cluster::{Sudo, User};

/// Adds them all.
pub(super) fn add(users: &[User], view: &mut View<'_>) -> Result<()> {
    let mut accounts = Accounts::read(view)?;
    for user in users.iter().filter(|user| user.uid != 0) {
        accounts.add_person(user, view.epoch)?;
    }
    accounts.write(view)?;
    for user in users {
        if user.uid != 0 {
            add_home(user, view)?;
            add_sudo(user, view)?;
        }
        add_keys(user, view)?;
    }
    Ok(())
}

/// The home directory with what /etc/skel has.
fn add_home(user: &User, view: &mut View<'_>) -> Result<()> {
    let home = TreePath::new(user.home())?;
    view.layer.insert(home.clone(), Inode::dir(own(user, 0o700, view)))?;
    let skel = TreePath::new("etc/skel")?;
    let Some(real) = view.below.resolve(&skel, true) else { return Ok(()) };
    for (path, _, inode) in view.below.below(&real).filter(|(path, ..)| **path != real) {
        let rest = path.as_bytes().get(real.as_bytes().len()..).unwrap_or_default();
        let meta = Meta { uid: user.uid, gid: user.uid, mtime: view.time(), ..inode.meta.clone() };
        view.layer.insert(home.join(rest)?, Inode { meta, kind: inode.kind.clone() })?;
    }
    Ok(())
}

/// A name of digits, letters, `-` and `_` is one that sudo reads; it skips those with a `.`.
fn add_sudo(user: &User, view: &mut View<'_>) -> Result<()> {
    let name = &user.name;
    let rule = match user.sudo {
        Sudo::None => return Ok(()),
        Sudo::Password => format!("{name} ALL=(ALL:ALL) ALL\n"),
        Sudo::NoPassword => format!("{name} ALL=(ALL:ALL) NOPASSWD: ALL\n"),
    };
    view.put_text(&format!("etc/sudoers.d/90-gt-{name}"), 0o440, &rule)
}

fn add_keys(user: &User, view: &mut View<'_>) -> Result<()> {
    if user.ssh_keys.is_empty() {
        return Ok(());
    }
    let dir = TreePath::new(user.home())?.join(".ssh")?;
    view.layer.insert(dir.clone(), Inode::dir(own(user, 0o700, view)))?;
    let text: String = user.ssh_keys.iter().map(|key| format!("{key}\n")).collect();
    let meta = own(user, 0o600, view);
    view.put_file(dir.join("authorized_keys")?, meta, text.as_bytes())
}

fn own(user: &User, mode: u16, view: &View<'_>) -> Meta {
    Meta { uid: user.uid, gid: user.uid, ..Meta::root_owned(mode, view.time()) }
}
