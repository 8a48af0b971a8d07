//! What can go wrong with an archive, and how apt's messages tell it.
//! Must not know: how apt is run.
//! Spec: none; the messages are those of apt 2.6.2 (Debian 12) in the fixed locale, and the words of
//! `sqv`, which apt 3.0 (Debian 13) calls in place of `gpgv`.

use std::io;
use std::path::PathBuf;

use super::index::Index;
use super::mirror::NoMirror;
use super::tool::ToolError;
use super::{Want, diagnose};

/// The archive could not be resolved. Texts of apt are its own lines, without colour.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AptError {
    /// apt is not installed, or does not start.
    #[error(transparent)]
    Tool(#[from] ToolError),
    /// Nothing is known to download from.
    #[error(transparent)]
    NoMirror(#[from] NoMirror),
    /// The keyring is not there.
    #[error("the keyring `{}` is missing, so the archive cannot be verified", path.display())]
    NoKeyring {
        /// Where it should be.
        path: PathBuf,
    },
    /// A Release file is not signed by a key of the keyring, or was changed after it was signed.
    #[error("the archive's signature is not valid:\n{detail}")]
    Signature {
        /// apt's words.
        detail: String,
    },
    /// A Release file is older than it may be, or from the future.
    #[error("the archive's Release file is out of date:\n{detail}")]
    Expired {
        /// apt's words.
        detail: String,
    },
    /// An index does not fit the signed Release file, or cannot be read.
    #[error("an index of the archive is corrupt: {detail}")]
    Corrupt {
        /// What is wrong.
        detail: String,
    },
    /// No mirror answered.
    #[error("no mirror could be reached; the last one said:\n{detail}")]
    Unreachable {
        /// apt's words.
        detail: String,
    },
    /// The archive has no such package.
    #[error("{origin}: package `{package}` is not in the archive{}", near_text(near.as_deref()))]
    UnknownPackage {
        /// What was wanted.
        package: String,
        /// Who wanted it.
        origin: String,
        /// A package with a similar name.
        near: Option<String>,
    },
    /// The packages cannot be installed together.
    #[error("the packages of set `{set}` do not go together:\n{detail}")]
    Unsatisfiable {
        /// Name of the set.
        set: String,
        /// apt's words.
        detail: String,
    },
    /// A file of the private root could not be read or written.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

fn near_text(near: Option<&str>) -> String {
    near.map_or(String::new(), |n| format!("; did you mean `{n}`?"))
}

impl AptError {
    /// What the user can do about it.
    pub fn hint(&self) -> &'static str {
        match self {
            AptError::Tool(_) => "run `apt-get install apt` or build on a Debian-like machine",
            AptError::NoMirror(_) => "add the URL of a Debian mirror to `mirrors` in the base's file",
            AptError::NoKeyring { .. } => {
                "run `apt-get install debian-archive-keyring`, or set `keyring` in the base's file"
            }
            AptError::Signature { .. } => {
                "check `keyring` and `mirrors` in the base's file; a newer `debian-archive-keyring` may be needed"
            }
            AptError::Expired { .. } => {
                "check this machine's clock, or name another mirror in the base's file"
            }
            AptError::Corrupt { .. } => "try again later, or name another mirror in the base's file",
            AptError::Unreachable { .. } => "check the network, or use the locked bytes with `--offline`",
            AptError::UnknownPackage { .. } => {
                "correct the name, or add the suite that has it to the base's file"
            }
            AptError::Unsatisfiable { .. } => "take one of the packages out of its overlay",
            AptError::Io { .. } => "check the cache folder, or name another with `--cache`",
        }
    }
}

/// Which error apt's messages of an update mean. They are English, as the locale is fixed.
pub(super) fn update_error(said: &str) -> AptError {
    let has = |words: &[&str]| words.iter().any(|w| said.contains(w));
    let detail = complaints(said);
    if has(&[
        "NO_PUBKEY",
        "BADSIG",
        "EXPKEYSIG",
        "REVKEYSIG",
        "is not signed",
        "invalid signature",
        "Clearsigned file",
        "signatures couldn't be verified",
        "signatures were invalid",
        "gpgv",
        "sqv",
    ]) {
        AptError::Signature { detail }
    } else if has(&["is expired", "is not valid yet"]) {
        AptError::Expired { detail }
    } else if has(&["Hash Sum mismatch", "unexpected size", "sync in progress"]) {
        AptError::Corrupt { detail }
    } else {
        AptError::Unreachable { detail }
    }
}

/// Which error apt's messages of an installation mean. `wants` knows who asked for a package.
pub(super) fn install_error(set: &str, said: &str, wants: &[Want], index: &Index) -> AptError {
    let after = |words: &str| said.split_once(words).map(|(_, rest)| rest);
    let located = after("Unable to locate package ").and_then(|r| r.split_whitespace().next());
    let candidate = after("E: Package '").and_then(|r| r.split('\'').next());
    let named = located.or(candidate).and_then(|n| wants.iter().find(|w| w.package == n));
    match named {
        Some(want) => {
            let names = index.names.iter().map(String::as_str);
            let near = diagnose::nearest(&want.package, names.filter(|n| *n != want.package));
            let (package, origin) = (want.package.clone(), want.origin.clone());
            AptError::UnknownPackage { package, origin, near: near.map(str::to_owned) }
        }
        None => AptError::Unsatisfiable { set: set.to_owned(), detail: complaints(said) },
    }
}

/// At most twenty lines of what apt said, without its progress.
fn complaints(said: &str) -> String {
    said.lines().filter(|l| !l.starts_with("N: ")).take(20).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_told_apart() {
        for (said, want) in [
            ("W: GPG error: http://m trixie InRelease: NO_PUBKEY 1", "Signature"),
            ("E: The repository 'http://m trixie InRelease' is not signed.", "Signature"),
            ("E: Release file for http://m/InRelease is expired (invalid since 1d)", "Expired"),
            ("E: Failed to fetch http://m/Packages.xz  Hash Sum mismatch", "Corrupt"),
            ("E: Failed to fetch http://m/InRelease  Could not resolve 'm'", "Unreachable"),
        ] {
            assert!(format!("{:?}", update_error(said)).starts_with(want), "{said}");
        }
    }

    #[test]
    fn an_unknown_package_is_told_with_its_origin() {
        let mut index = Index::default();
        index.names.extend(["munge".to_owned(), "nano".to_owned()]);
        let want = Want { package: "mungo".into(), origin: "overlays/slurm/overlay.toml:3:13".into() };
        for said in ["E: Unable to locate package mungo", "E: Package 'mungo' has no installation candidate"]
        {
            let error = install_error("worker", said, std::slice::from_ref(&want), &index);
            assert_eq!(
                error.to_string(),
                "overlays/slurm/overlay.toml:3:13: package `mungo` is not in the archive; did you mean `munge`?"
            );
        }
        let other = install_error("worker", "E: Unable to correct problems", &[], &index);
        assert!(matches!(other, AptError::Unsatisfiable { .. }));
    }
}
