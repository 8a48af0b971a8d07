//! Users and groups in a tree: `/etc/passwd`, `group`, `shadow` and `gshadow`.
//! Must not know: home directories, keys, where accounts come from.
//! Spec: passwd(5), group(5), shadow(5), gshadow(5). Lines of others are kept byte for byte.

use super::view::View;
use super::{Meta, RenderError, Result, TreePath};
use crate::cluster::User;
use crate::overlay::Overlay;

/// An account does not fit those that are there.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AccountError {
    /// The name is there with another number.
    #[error("{noun} `{name}` should have number {wanted}, but the node has it with {found}")]
    OtherId {
        /// `user`, `group` or `the group of user`.
        noun: &'static str,
        /// The name.
        name: String,
        /// The number that is wanted.
        wanted: u32,
        /// The number that it has.
        found: u32,
    },
    /// The number is there with another name.
    #[error("{noun} `{name}` should have number {id}, but the node has given it to `{other}`")]
    Taken {
        /// `user` or `group`.
        noun: &'static str,
        /// The name that is wanted.
        name: String,
        /// The number.
        id: u32,
        /// Whose it is.
        other: String,
    },
    /// A user is to be in a group that is not there.
    #[error("group `{group}` of user `{user}` does not exist on the node")]
    NoGroup {
        /// The group.
        group: String,
        /// The user.
        user: String,
    },
}

/// A user to be added.
#[derive(Debug, Clone)]
pub struct NewUser<'a> {
    /// Login name.
    pub name: &'a str,
    /// Number.
    pub uid: u32,
    /// Name of the first group; `None` for one of the same name and number, added when missing.
    pub group: Option<&'a str>,
    /// Names of further groups.
    pub groups: Vec<&'a str>,
    /// Home directory.
    pub home: &'a str,
    /// Login shell.
    pub shell: &'a str,
    /// The gecos field.
    pub comment: &'a str,
    /// Password field of shadow(5).
    pub password: &'a str,
    /// What follows the day in shadow(5): ages and warnings.
    pub aging: &'a str,
}

const FILES: [(&str, u16); 4] =
    [("etc/passwd", 0o644), ("etc/group", 0o644), ("etc/shadow", 0o640), ("etc/gshadow", 0o640)];
const PASSWD: usize = 0;
const GROUP: usize = 1;
const SHADOW: usize = 2;
const GSHADOW: usize = 3;
const NAME: usize = 0;
const ID: usize = 2;
const USER_GROUP: usize = 3;

/// Locked, and no password can ever match: what systemd-sysusers writes.
const LOCKED: &str = "!*";

/// The four files; of each, lines of fields.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Accounts {
    files: [Vec<Vec<Vec<u8>>>; 4],
    changed: [bool; 4],
}

impl Accounts {
    /// Reads the texts of passwd, group, shadow and gshadow.
    pub fn parse(texts: [&[u8]; 4]) -> Accounts {
        let lines = |text: &[u8]| {
            let lines = text.split(|&b| b == b'\n').filter(|line| !line.is_empty());
            lines.map(|line| line.split(|&b| b == b':').map(<[u8]>::to_vec).collect()).collect()
        };
        Accounts { files: texts.map(lines), changed: [false; 4] }
    }

    /// The text of each file that was changed: its path, default mode and bytes.
    pub fn changes(&self) -> impl Iterator<Item = (&'static str, u16, Vec<u8>)> {
        let changed = (0..4).filter(|&i| self.changed[i]);
        changed.map(|i| {
            let lines = self.files[i].iter().map(|line| line.join(&b':'));
            let text = lines.flat_map(|line| line.into_iter().chain([b'\n'])).collect();
            (FILES[i].0, FILES[i].1, text)
        })
    }

    /// The number of a user.
    pub fn uid(&self, name: &str) -> Option<u32> {
        self.number(PASSWD, name, ID)
    }

    /// The number of a group.
    pub fn gid(&self, name: &str) -> Option<u32> {
        self.number(GROUP, name, ID)
    }

    /// Adds a group; one that is there with the same number stays as it is.
    pub fn add_group(&mut self, name: &str, gid: u32) -> std::result::Result<(), AccountError> {
        if self.check_new(GROUP, "group", name, gid)? {
            self.push(GROUP, &[name, "x", &gid.to_string(), ""]);
            if !self.files[GSHADOW].is_empty() {
                self.push(GSHADOW, &[name, LOCKED, "", ""]);
            }
        }
        Ok(())
    }

    /// Adds a user and its memberships; one that is there with the same numbers stays as it is.
    /// `epoch` gives the day of the last change of the password.
    pub fn add_user(&mut self, user: &NewUser<'_>, epoch: i64) -> std::result::Result<(), AccountError> {
        if user.group.is_none() {
            self.add_group(user.name, user.uid)?;
        }
        let no_group = |group: &str| AccountError::NoGroup { group: group.into(), user: user.name.into() };
        let group = user.group.unwrap_or(user.name);
        let gid = self.gid(group).ok_or_else(|| no_group(group))?;
        if self.check_new(PASSWD, "user", user.name, user.uid)? {
            let (uid, gid) = (user.uid.to_string(), gid.to_string());
            self.push(PASSWD, &[user.name, "x", &uid, &gid, user.comment, user.home, user.shell]);
        } else if let Some(found) = self.number(PASSWD, user.name, USER_GROUP).filter(|found| *found != gid) {
            let noun = "the group of user";
            return Err(AccountError::OtherId { noun, name: user.name.into(), wanted: gid, found });
        }
        if self.position(SHADOW, user.name).is_none() {
            let day = epoch.div_euclid(86_400).to_string();
            let line = [user.name, user.password, &day].into_iter().chain(user.aging.split(':'));
            self.push(SHADOW, &line.collect::<Vec<_>>());
        }
        for group in &user.groups {
            self.gid(group).ok_or_else(|| no_group(group))?;
            self.add_member(GROUP, group, user.name);
            self.add_member(GSHADOW, group, user.name);
        }
        Ok(())
    }

    /// True when the name is to be added; an error when name and number do not fit what is there.
    fn check_new(
        &self,
        file: usize,
        noun: &'static str,
        name: &str,
        id: u32,
    ) -> std::result::Result<bool, AccountError> {
        if let Some(found) = self.number(file, name, ID) {
            let error = AccountError::OtherId { noun, name: name.into(), wanted: id, found };
            return if found == id { Ok(false) } else { Err(error) };
        }
        let text = id.to_string();
        match self.files[file].iter().find(|line| line.get(ID).is_some_and(|f| f == text.as_bytes())) {
            Some(line) => {
                let other = String::from_utf8_lossy(&line[NAME]).into_owned();
                Err(AccountError::Taken { noun, name: name.into(), id, other })
            }
            None => Ok(true),
        }
    }

    fn add_member(&mut self, file: usize, group: &str, user: &str) {
        let Some(at) = self.position(file, group) else { return };
        let Some(members) = self.files[file][at].get_mut(3) else { return };
        if members.split(|&b| b == b',').any(|member| member == user.as_bytes()) {
            return;
        }
        if !members.is_empty() {
            members.push(b',');
        }
        members.extend_from_slice(user.as_bytes());
        self.changed[file] = true;
    }

    fn position(&self, file: usize, name: &str) -> Option<usize> {
        self.files[file].iter().position(|line| line[NAME] == name.as_bytes())
    }

    fn number(&self, file: usize, name: &str, field: usize) -> Option<u32> {
        let line = &self.files[file][self.position(file, name)?];
        std::str::from_utf8(line.get(field)?).ok()?.parse().ok()
    }

    fn push(&mut self, file: usize, line: &[&str]) {
        self.files[file].push(line.iter().map(|field| field.as_bytes().to_vec()).collect());
        self.changed[file] = true;
    }

    /// Adds an overlay's groups and users, each sorted by number. Errors name the overlay's line.
    pub fn add_overlay(&mut self, overlay: &Overlay, epoch: i64) -> Result<()> {
        let mut groups: Vec<_> = overlay.groups.iter().collect();
        groups.sort_by_key(|group| group.gid);
        for group in groups {
            let added = self.add_group(group.name.as_str(), group.gid);
            added.map_err(|source| RenderError::Account { place: group.place.clone(), source })?;
        }
        let mut users: Vec<_> = overlay.users.iter().collect();
        users.sort_by_key(|user| user.uid);
        for user in users {
            let new = NewUser {
                name: user.name.as_str(),
                uid: user.uid,
                group: user.group.as_ref().map(|group| group.as_str()),
                groups: user.groups.iter().map(|group| group.as_str()).collect(),
                home: &user.home,
                shell: &user.shell,
                comment: &user.comment,
                password: LOCKED,
                aging: ":::::",
            };
            let added = self.add_user(&new, epoch);
            added.map_err(|source| RenderError::Account { place: user.place.clone(), source })?;
        }
        Ok(())
    }

    /// Adds somebody who may log in. The ages are those of useradd(8) with Debian's login.defs.
    pub(super) fn add_person(&mut self, user: &User, epoch: i64) -> Result<()> {
        let home = user.home();
        let new = NewUser {
            name: user.name.as_str(),
            uid: user.uid,
            group: None,
            groups: user.groups.iter().map(|group| group.as_str()).collect(),
            home: &home,
            shell: &user.shell,
            comment: &user.comment,
            password: user.password_hash.as_deref().unwrap_or(LOCKED),
            aging: "0:99999:7:::",
        };
        let added = self.add_user(&new, epoch);
        added.map_err(|source| RenderError::Account { place: user.place.clone(), source })
    }

    pub(super) fn read(view: &View<'_>) -> Result<Accounts> {
        let mut texts = [const { Vec::new() }; 4];
        for (text, (path, _)) in texts.iter_mut().zip(FILES) {
            *text = view.read(&TreePath::new(path)?)?.unwrap_or_default();
        }
        let [passwd, group, shadow, gshadow] = &texts;
        Ok(Accounts::parse([passwd, group, shadow, gshadow]))
    }

    /// Puts what was changed into the layer, with the owner and mode that the files have.
    pub(super) fn write(&self, view: &mut View<'_>) -> Result<()> {
        for (path, mode, text) in self.changes() {
            let path = TreePath::new(path)?;
            let mut meta = view.get(&path, true).map_or_else(
                || Meta {
                    gid: if mode == 0o640 { self.gid("shadow").unwrap_or(0) } else { 0 },
                    mode,
                    ..Meta::default()
                },
                |inode| inode.meta.clone(),
            );
            meta.mtime = view.time();
            view.put_file(path, meta, &text)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn debian() -> Accounts {
        Accounts::parse([
            b"root:x:0:0:root:/root:/bin/bash\nwww-data:x:33:33:\xff:/var/www:/usr/sbin/nologin\n",
            b"root:x:0:\nadm:x:4:\nwww-data:x:33:\nshadow:x:42:a\n",
            b"root:*:1:0:99999:7:::\n",
            b"root:*::\nadm:*::\n",
        ])
    }

    fn user(name: &str, uid: u32) -> NewUser<'_> {
        NewUser {
            name,
            uid,
            group: None,
            groups: vec![],
            home: "/nonexistent",
            shell: "/usr/sbin/nologin",
            comment: "",
            password: LOCKED,
            aging: ":::::",
        }
    }

    fn changes(accounts: &Accounts) -> Vec<(&'static str, String)> {
        accounts
            .changes()
            .map(|(path, _, text)| (path, String::from_utf8_lossy(&text).into_owned()))
            .collect()
    }

    #[test]
    fn a_user_is_added_to_all_files_once() {
        let mut accounts = debian();
        let munge = NewUser { groups: vec!["adm", "shadow"], comment: "MUNGE", ..user("munge", 901) };
        accounts.add_user(&munge, 86_400 * 20_000 + 5).unwrap();
        let first = changes(&accounts);
        assert!(first[0].1.ends_with("munge:x:901:901:MUNGE:/nonexistent:/usr/sbin/nologin\n"), "{first:?}");
        assert!(first[1].1.contains("adm:x:4:munge\n") && first[1].1.contains("shadow:x:42:a,munge\n"));
        assert!(first[2].1.ends_with("munge:!*:20000::::::\n"));
        assert_eq!(first[2].1.lines().last().map(|l| l.matches(':').count()), Some(8));
        assert!(first[3].1.ends_with("adm:*::munge\nmunge:!*::\n"));
        accounts.add_user(&munge, 0).unwrap();
        assert_eq!(changes(&accounts), first);
    }

    #[test]
    fn what_is_there_stays_byte_for_byte() {
        let mut accounts = debian();
        accounts.add_user(&user("www-data", 33), 0).unwrap();
        let files: Vec<_> = accounts.changes().map(|c| c.0).collect();
        assert_eq!(files, ["etc/shadow"], "only the missing line of shadow is added");
        accounts.add_group("new", 900).unwrap();
        accounts.add_user(&user("new", 900), 0).unwrap();
        let passwd = accounts.changes().next().unwrap().2;
        assert!(passwd.windows(3).any(|w| w == b":\xff:"));
    }

    #[test]
    fn numbers_that_do_not_fit_name_both() {
        let mut accounts = debian();
        for (error, want) in [
            (
                accounts.add_user(&user("www-data", 34), 0),
                "group `www-data` should have number 34, but the node has it with 33",
            ),
            (accounts.add_group("adm", 5), "group `adm` should have number 5, but the node has it with 4"),
            (
                accounts.add_group("x", 4),
                "group `x` should have number 4, but the node has given it to `adm`",
            ),
            (
                accounts.add_user(&NewUser { group: Some("adm"), ..user("y", 33) }, 0),
                "user `y` should have number 33, but the node has given it to `www-data`",
            ),
            (
                accounts.add_user(&NewUser { group: Some("adm"), ..user("www-data", 33) }, 0),
                "the group of user `www-data` should have number 4, but the node has it with 33",
            ),
            (
                accounts.add_user(&NewUser { groups: vec!["gpio"], ..user("z", 900) }, 0),
                "group `gpio` of user `z` does not exist on the node",
            ),
        ] {
            assert_eq!(error.unwrap_err().to_string(), want);
        }
    }
}
