//! What moved between two locks, as lines for people.
//! Must not know: how locks are made or stored.

use std::collections::BTreeMap;

use super::artifact::Origin;
use super::lock::{Artifact, Lock};

/// One line for each package and artifact that came, went or changed, sorted by name:
/// `munge 0.5.15 -> 0.5.16`, `+ foo 1.2`, `- bar 3`. Empty when the same bytes are locked.
pub fn between(old: Option<&Lock>, new: &Lock) -> Vec<String> {
    let mut names = BTreeMap::new();
    for (side, lock) in [old, Some(new)].into_iter().enumerate() {
        for (name, entry) in lock.map(entries).unwrap_or_default() {
            names.entry(name).or_insert([None, None])[side] = Some(entry);
        }
    }
    names.into_iter().filter_map(|(name, sides)| line(&name, &sides)).collect()
}

type Entry = (String, String);

/// Name, then what is shown and what tells two apart.
fn entries(lock: &Lock) -> BTreeMap<String, Entry> {
    let packages = lock.packages.iter().map(|p| (p.name.clone(), (p.version.clone(), p.sha256.hex())));
    let artifacts =
        lock.artifacts.iter().map(|a| (format!("{} (artifact)", a.name), (shown(a), a.sha256.hex())));
    packages.chain(artifacts).collect()
}

fn shown(artifact: &Artifact) -> String {
    match &artifact.source {
        Origin::Wheel(wheel) => wheel.version.clone(),
        Origin::Url(_) => artifact.filename.clone().unwrap_or_default(),
    }
}

fn line(name: &str, sides: &[Option<Entry>; 2]) -> Option<String> {
    match sides {
        [None, Some((new, _))] => Some(format!("+ {name} {new}")),
        [Some((old, _)), None] => Some(format!("- {name} {old}")),
        [Some(old), Some(new)] if old.1 != new.1 && old.0 == new.0 => {
            Some(format!("{name} {} has other bytes: {:.12} -> {:.12}", new.0, old.1, new.1))
        }
        [Some(old), Some(new)] if old != new => Some(format!("{name} {} -> {}", old.0, new.0)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::lock;
    use super::*;
    use crate::digest::Digest;

    #[test]
    fn what_moved_is_a_line_each() {
        let (old, mut new) = (lock(), lock());
        assert!(between(Some(&old), &new).is_empty());
        new.packages[0].version = "3.0.5".into();
        new.packages[0].sha256 = Digest::of(b"newer");
        new.packages[1].name = "slurmd".into();
        new.artifacts[0].sha256 = Digest::of(b"moved");
        let lines = between(Some(&old), &new);
        assert_eq!(lines[0], "apt 3.0.4 -> 3.0.5");
        assert!(lines[1].starts_with("consul (artifact) consul_1.21.zip has other bytes: "), "{lines:?}");
        assert_eq!(lines[2..], ["- munge 0.5.16-1", "+ slurmd 0.5.16-1"]);
    }

    #[test]
    fn a_first_lock_is_all_new() {
        let lines = between(None, &lock());
        assert_eq!(lines, ["+ apt 3.0.4", "+ consul (artifact) consul_1.21.zip", "+ munge 0.5.16-1"]);
    }
}
