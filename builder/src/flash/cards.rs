//! Which card was flashed as which node: a file in the store that people can read.
//! Must not know: how cards are written.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::Context;
use rustix::fs::{FlockOperation, flock};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::io::atomic;

/// One card.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Card {
    /// Its CID or serial number; a file's path.
    pub id: String,
    /// What it calls itself.
    pub model: String,
    /// Bytes.
    pub size: u64,
    /// The node that it was made for last.
    pub node: String,
    /// That node's generation.
    pub generation: String,
    /// When, in seconds since 1970.
    pub at: u64,
    /// How often this card was flashed.
    pub times: u64,
}

/// The file.
#[derive(Debug, Clone)]
pub struct Registry(PathBuf);

impl Registry {
    /// That of a store.
    pub fn of(store: &Path) -> Registry {
        Registry(store.join("cards.json"))
    }

    /// All cards, by node and id.
    ///
    /// # Errors
    /// The file cannot be read, or is none of ours.
    pub fn cards(&self) -> anyhow::Result<Vec<Card>> {
        let reading = || format!("reading `{}`", self.0.display());
        match fs::read(&self.0) {
            Ok(bytes) => serde_json::from_slice(&bytes).with_context(reading),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
            Err(e) => Err(e).with_context(reading),
        }
    }

    /// Notes that a card was flashed; its time and count are found here.
    ///
    /// # Errors
    /// The file cannot be read or written.
    pub fn note(&self, card: Card) -> anyhow::Result<()> {
        let writing = || format!("writing `{}`", self.0.display());
        let lock = self.0.with_extension("lock");
        let file =
            File::options().create(true).truncate(false).write(true).open(&lock).with_context(writing)?;
        flock(&file, FlockOperation::LockExclusive).with_context(writing)?;
        let mut cards = self.cards()?;
        let times = cards.iter().find(|c| c.id == card.id).map_or(0, |c| c.times);
        cards.retain(|c| c.id != card.id);
        let at = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        cards.push(Card { at, times: times + 1, ..card });
        cards.sort_by(|a, b| (&a.node, &a.id).cmp(&(&b.node, &b.id)));
        let text = serde_json::to_string_pretty(&cards)? + "\n";
        atomic::write(&self.0, text.as_bytes()).with_context(writing)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_card_is_counted_and_has_its_last_node() {
        let dir = tempfile::tempdir().unwrap();
        let registry = Registry::of(dir.path());
        assert_eq!(registry.cards().unwrap(), []);
        let card = |id: &str, node: &str| Card {
            id: id.into(),
            model: "SD32G".into(),
            size: 1,
            node: node.into(),
            generation: "sha256:0".into(),
            at: 0,
            times: 0,
        };
        for (id, node) in [("a", "fenn"), ("b", "jast"), ("a", "gardener")] {
            registry.note(card(id, node)).unwrap();
        }
        let cards = registry.cards().unwrap();
        let seen: Vec<_> = cards.iter().map(|c| (c.node.as_str(), c.id.as_str(), c.times)).collect();
        assert_eq!(seen, [("gardener", "a", 2), ("jast", "b", 1)]);
        assert!(cards[0].at > 1_700_000_000);
        fs::write(dir.path().join("cards.json"), "?").unwrap();
        assert!(registry.cards().is_err());
    }
}
