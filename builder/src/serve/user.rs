//! Giving up rights once all sockets, files and directories are open.
//! Must not know: what is served.
//! Spec: capabilities(7), credentials(7), prctl(2) PR_SET_NO_NEW_PRIVS. Rights are a thread's: this is
//! called while there is one thread alone.

use std::fs;
use std::io;
use std::os::unix::fs::{MetadataExt, chown};
use std::path::Path;

use rustix::process::{Gid, Uid};
use rustix::thread::{self, CapabilitySet, CapabilitySets};

/// `nobody` and `nogroup`, everywhere.
const NOBODY: (u32, u32) = (65534, 65534);

/// Who the server is from now on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Became {
    /// It was not root: it stays who it was.
    Same,
    /// The owner of the store.
    Owner(u32),
    /// Nobody: the store is root's, everybody may read it, and there are no secrets to give out.
    Nobody,
    /// Root without any capability: the store or the secrets are root's alone, and somebody has to
    /// read them.
    BareRoot,
}

/// Gives up all capabilities, for none is needed once the sockets are bound, and the user root where
/// the store can be read without. `state` are the directories that must stay writable, `secrets` is
/// where the secrets lie, if there are any.
///
/// # Errors
/// If the kernel refuses; then nothing must be served.
pub fn drop_rights(store: &Path, state: &[&Path], secrets: &Path) -> io::Result<Became> {
    thread::set_no_new_privs(true)?;
    let became =
        if rustix::process::geteuid().is_root() { leave_root(store, state, secrets)? } else { Became::Same };
    let none = CapabilitySet::empty();
    thread::set_capabilities(None, CapabilitySets { effective: none, permitted: none, inheritable: none })?;
    Ok(became)
}

fn leave_root(store: &Path, state: &[&Path], secrets: &Path) -> io::Result<Became> {
    let owner = fs::metadata(store)?;
    let (became, (uid, gid)) = match owner.uid() {
        0 if !readable_by_all(store) || secrets.exists() => return Ok(Became::BareRoot),
        0 => (Became::Nobody, NOBODY),
        uid => (Became::Owner(uid), (uid, owner.gid())),
    };
    if !mapped("/proc/self/uid_map", uid) || !mapped("/proc/self/gid_map", gid) {
        // In a user namespace that has no such user; root there is an ordinary user outside.
        return Ok(Became::BareRoot);
    }
    for dir in state {
        give(dir, uid, gid, matches!(became, Became::Owner(_)))?;
    }
    // Groups first: without root they could not be left.
    if let Err(e) = thread::set_thread_groups(&[]) {
        // Namespaces of ordinary users forbid it, and there it has nothing to lose.
        tracing::debug!(error = %e, "supplementary groups are kept");
    }
    let (uid, gid) = (Uid::from_raw(uid), Gid::from_raw(gid));
    thread::set_thread_res_gid(gid, gid, gid)?;
    thread::set_thread_res_uid(uid, uid, uid)?;
    Ok(became)
}

/// The directory goes to the new user, so that files can be replaced in it. Its files go along to the
/// store's owner, who may start the next server himself; never to nobody, whom others are too.
fn give(dir: &Path, uid: u32, gid: u32, files: bool) -> io::Result<()> {
    chown(dir, Some(uid), Some(gid))?;
    for entry in fs::read_dir(dir)?.filter(|_| files) {
        let entry = entry?;
        if entry.file_type()?.is_file() {
            chown(entry.path(), Some(uid), Some(gid))?;
        }
    }
    Ok(())
}

fn readable_by_all(store: &Path) -> bool {
    let open = |name: &str| fs::metadata(store.join(name)).is_ok_and(|m| m.mode() & 0o005 == 0o005);
    ["objects", "trees", "generations"].iter().all(|name| open(name))
}

/// True if the user or group exists in this namespace: user_namespaces(7).
fn mapped(map: &str, id: u32) -> bool {
    let Ok(text) = fs::read_to_string(map) else { return true };
    text.lines().any(|line| {
        let mut numbers = line.split_whitespace().map_while(|n| n.parse::<u64>().ok());
        let (Some(first), Some(_), Some(count)) = (numbers.next(), numbers.next(), numbers.next()) else {
            return false;
        };
        (first..first.saturating_add(count)).contains(&u64::from(id))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_store_that_all_may_read_is_known() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["objects", "trees", "generations"] {
            fs::create_dir(dir.path().join(name)).unwrap();
            fs::set_permissions(dir.path().join(name), fs::Permissions::from_mode(0o755)).unwrap();
        }
        assert!(readable_by_all(dir.path()));
        fs::set_permissions(dir.path().join("trees"), fs::Permissions::from_mode(0o750)).unwrap();
        assert!(!readable_by_all(dir.path()));
        assert!(!readable_by_all(&dir.path().join("none")));
    }

    #[test]
    fn users_of_the_namespace_are_known() {
        let dir = tempfile::tempdir().unwrap();
        let map = dir.path().join("map");
        fs::write(&map, "         0       1000          1\n     1  100000  65536\n").unwrap();
        let map = map.to_str().unwrap();
        assert!(mapped(map, 0) && mapped(map, 65534) && !mapped(map, 65537));
        fs::write(map, "0 1000 1\n").unwrap();
        assert!(!mapped(map, 65534));
    }

    /// In a thread of its own, which takes its rights with it when it ends.
    #[test]
    fn rights_are_gone_for_good() {
        let dir = tempfile::tempdir().unwrap();
        let became = std::thread::spawn(move || {
            let became = drop_rights(dir.path(), &[], &dir.path().join("none")).unwrap();
            assert!(thread::no_new_privs().unwrap());
            let left = thread::capabilities(None).unwrap();
            assert!(left.effective.is_empty() && left.permitted.is_empty());
            became
        });
        let want = if rustix::process::geteuid().is_root() { Became::BareRoot } else { Became::Same };
        assert_eq!(became.join().unwrap(), want);
    }
}
