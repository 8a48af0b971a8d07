//! Refuses secrets in layers: an overlay is in git and in everything that is served, so a key in it
//! is a key published.
//! Must not know: where the layer came from.
//! Spec: design.md section 7; the forms are those of PEM (RFC 7468), AWS access keys, Vault and GitHub
//! tokens.

use crate::store::{Store, StoreError};
use crate::tree::TreePath;
use crate::tree::layer::Layer;

/// Files above this size are programs or data, not configuration.
const MAX: u64 = 1 << 20;

/// A layer could not be checked, or has a secret in it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LeakError {
    /// Something that looks like a secret.
    #[error("`{path}` holds what looks like {what}; state it under `[[secrets]]` and keep it in `secrets/`")]
    Secret {
        /// The file.
        path: TreePath,
        /// What it looks like.
        what: &'static str,
    },
    /// A file cannot be read.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Looks through all small files of the layer.
pub fn check(layer: &Layer, store: &Store) -> Result<(), LeakError> {
    for (path, _, inode) in layer.tree().iter() {
        let Some(object) = inode.object().filter(|o| o.size <= MAX) else { continue };
        if let Some(what) = secret_in(&store.read_object(object)?) {
            return Err(LeakError::Secret { path: path.clone(), what });
        }
    }
    Ok(())
}

/// What secret the bytes look like, if any.
fn secret_in(bytes: &[u8]) -> Option<&'static str> {
    let text = String::from_utf8_lossy(bytes);
    let begins = |word: &str, len: usize, ok: fn(char) -> bool| {
        text.match_indices(word).any(|(at, _)| {
            let free = text[..at].chars().next_back().is_none_or(|c| !c.is_alphanumeric());
            let rest = &text[at + word.len()..];
            free && rest.chars().take_while(|c| ok(*c)).count() >= len
        })
    };
    let upper = |c: char| c.is_ascii_uppercase() || c.is_ascii_digit();
    let word = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    if text.lines().any(|l| l.contains("-----BEGIN ") && l.contains("PRIVATE KEY-----")) {
        return Some("a private key");
    }
    if begins("AKIA", 16, upper) {
        return Some("an AWS access key");
    }
    if begins("hvs.", 24, word) {
        return Some("a Vault token");
    }
    if begins("ghp_", 36, word) {
        return Some("a GitHub token");
    }
    text.contains("AGE-SECRET-KEY-1").then_some("an age key")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_seen_and_words_like_them_are_not() {
        let key = format!("-----BEGIN {}PRIVATE KEY-----\nx\n", "OPENSSH ");
        for (text, secret) in [
            (key.as_str(), true),
            ("access = AKIAABCDEFGHIJKLMNOP\n", true),
            ("token: hvs.abcdefghijklmnopqrstuvwx", true),
            ("XAKIAABCDEFGHIJKLMNOP", false),
            ("AKIA in a sentence", false),
            ("-----BEGIN CERTIFICATE-----", false),
            ("", false),
        ] {
            assert_eq!(secret_in(text.as_bytes()).is_some(), secret, "{text}");
        }
    }
}
