//! The people who may log in to every node, checked.
//! Must not know: how accounts are written to a tree, which groups a base has.
//! Spec: sshd(8) (authorized_keys), crypt(5); uids from 1000 on as in adduser.conf(5).

use std::collections::{BTreeMap, BTreeSet};

use super::check::Checker;
use super::{AccountName, wire};
use crate::diagnostic::{At, Place};

/// Debian gives people the numbers from 1000 to 59999; 60000 on are for others.
const FIRST_UID: u32 = 1000;
const LAST_UID: u32 = 59_999;

/// Whether and how somebody may become root.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Sudo {
    /// Not at all.
    #[default]
    None,
    /// With the own password.
    Password,
    /// Without one.
    NoPassword,
}

/// Somebody who may log in. `root` has keys alone, and the number 0.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    /// The login name.
    pub name: AccountName,
    /// The number of the user and of the group of the same name.
    pub uid: u32,
    /// Further groups.
    pub groups: Vec<AccountName>,
    /// May become root.
    pub sudo: Sudo,
    /// Lines of `authorized_keys`, without repetition, in the order written.
    pub ssh_keys: Vec<String>,
    /// The login shell.
    pub shell: String,
    /// The person's name, or nothing.
    pub comment: String,
    /// A crypt(5) string; the password is locked without one.
    pub password_hash: Option<String>,
    /// Where the name is written.
    pub place: Place,
}

impl User {
    /// The home directory.
    pub fn home(&self) -> String {
        if self.name.as_str() == "root" { "/root".into() } else { format!("/home/{}", self.name) }
    }
}

impl Checker<'_> {
    /// Checks all users and gives numbers to those that have none, by the order of their names.
    pub(super) fn users(&mut self, raw: &BTreeMap<At<String>, wire::User>) -> Vec<User> {
        let mut taken: BTreeMap<u32, &str> = BTreeMap::new();
        for (name, uid) in raw.iter().filter_map(|(name, user)| Some((name.get(), user.uid.as_ref()?))) {
            if !(FIRST_UID..=LAST_UID).contains(uid.get()) {
                let message =
                    format!("uid {} is not from {FIRST_UID} to {LAST_UID}, the numbers of people", uid.get());
                self.add(uid, message);
            }
            if let Some(other) = taken.insert(*uid.get(), name) {
                self.add(uid, format!("uid {} is that of `{other}` too", uid.get()));
            }
        }
        let taken: BTreeSet<u32> = taken.into_keys().collect();
        let mut free = (FIRST_UID..=LAST_UID).filter(|uid| !taken.contains(uid));
        let mut users = Vec::new();
        for (name, user) in raw {
            let is_root = name.get() == "root";
            let uid = match &user.uid {
                _ if is_root => Some(0),
                Some(uid) => Some(*uid.get()),
                None => free.next(),
            };
            if is_root {
                self.root_has_keys_alone(name, user);
            }
            let user = self.user(name, uid.unwrap_or(LAST_UID), user);
            users.extend(user);
        }
        users
    }

    fn root_has_keys_alone(&mut self, name: &At<String>, user: &wire::User) {
        let wire::User { uid, groups, sudo, shell, comment, password_hash, .. } = user;
        let more = uid.is_some() || sudo.is_some() || shell.is_some() || !groups.is_empty();
        if more || comment.is_some() || password_hash.is_some() {
            self.add(name, "`root` may have `ssh_keys` and `ssh_key_files`, and nothing else");
        }
    }

    fn user(&mut self, name: &At<String>, uid: u32, raw: &wire::User) -> Option<User> {
        let name = self.source.parse::<AccountName>(name, self.report);
        let groups = self.source.parse_all::<AccountName>(&raw.groups, self.report);
        let shell = raw.shell.as_ref().map_or("/bin/bash", |s| s.get());
        if let Some(at) = raw.shell.as_ref().filter(|_| !shell.starts_with('/') || !is_field(shell)) {
            self.add(at, format!("shell `{shell}` is no absolute path"));
        }
        if let Some(comment) = raw.comment.as_ref().filter(|c| !is_field(c.get())) {
            self.add(comment, "a comment cannot hold `:` or a line break");
        }
        if let Some(hash) = raw.password_hash.as_ref().filter(|h| !is_crypt(h.get())) {
            let message = "this is no crypt(5) string, such as `openssl passwd -6` prints";
            self.add(hash, message);
        }
        let ssh_keys = self.keys(raw);
        let name = name?;
        Some(User {
            name: name.value,
            uid,
            groups: groups.into_iter().map(|g| g.value).collect(),
            sudo: raw.sudo.map_or(Sudo::None, |s| s.0),
            ssh_keys,
            shell: shell.into(),
            comment: raw.comment.as_ref().map_or(String::new(), |c| c.get().clone()),
            password_hash: raw.password_hash.as_ref().map(|h| h.get().clone()),
            place: name.place,
        })
    }

    fn keys(&mut self, raw: &wire::User) -> Vec<String> {
        let mut keys = Vec::new();
        for key in &raw.ssh_keys {
            if is_public_key(key.get()) {
                keys.push(key.get().trim().to_owned());
            } else {
                self.add(key, "this is no line of `authorized_keys`, such as `ssh-ed25519 AAAA… name`");
            }
        }
        for file in &raw.ssh_key_files {
            match (self.read_keys)(file.get()) {
                Ok(text) => {
                    let lines = text.lines().map(str::trim).filter(|l| !l.is_empty() && !l.starts_with('#'));
                    for line in lines {
                        if is_public_key(line) {
                            keys.push(line.to_owned());
                        } else {
                            self.add(file, format!("`{}` holds a line that is no public key", file.get()));
                        }
                    }
                }
                Err(e) => {
                    let message = format!("key file `{}`: {}", file.get(), e.to_string().to_lowercase());
                    self.add(file, message);
                }
            }
        }
        let mut seen = BTreeSet::new();
        keys.retain(|key| seen.insert(key.clone()));
        keys
    }
}

/// A field of passwd(5): `:` and line breaks would end it.
pub(crate) fn is_field(text: &str) -> bool {
    !text.contains(|c: char| c == ':' || c.is_control())
}

/// `$id$…` with the characters that crypt(5) allows. A hash without `$` is of the old DES form,
/// which nobody should bring along.
fn is_crypt(text: &str) -> bool {
    let legal = |c: char| c.is_ascii_graphic() && !":;*!\\".contains(c);
    text.len() >= 20 && text.starts_with('$') && text.chars().all(legal)
}

/// Options may stand before the type; the type's name stands inside the key too, so a private key,
/// a cut or a swapped one is noticed.
fn is_public_key(line: &str) -> bool {
    use base64::Engine as _;
    let words: Vec<&str> = line.split_whitespace().collect();
    !line.trim().contains(|c: char| c.is_control() && c != '\t')
        && words.windows(2).any(|pair| {
            let [kind, key] = pair else { return false };
            let Ok(bytes) = base64::engine::general_purpose::STANDARD.decode(key) else { return false };
            let Some((length, rest)) = bytes.split_first_chunk::<4>() else { return false };
            usize::try_from(u32::from_be_bytes(*length)) == Ok(kind.len())
                && rest.starts_with(kind.as_bytes())
                && rest.len() > kind.len()
        })
}
