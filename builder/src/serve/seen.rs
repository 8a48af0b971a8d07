//! What is seen beside boots: strangers that asked, other DHCP servers, what is wrong with a node. Bounded,
//! for anybody can make up cards.
//! Must not know: what is done about them.
//! Spec: design.md sections 10 and 13.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize, de::DeserializeOwned};

use super::record::Entry;
use super::status::{Problem, Seen, Server, Stranger};

/// So many of each kind are remembered; the longest unseen make room.
const MOST: usize = 128;
/// A time that is younger than this is not worth a write to the card.
const WORTH_A_WRITE: u64 = 60_000;

/// What is listed.
pub trait Sighting: Clone + Serialize + DeserializeOwned {
    /// Names it among its kind.
    fn key(&self) -> String;
    /// When it was seen.
    fn seen(&mut self) -> &mut Seen;
}

impl Sighting for Stranger {
    fn key(&self) -> String {
        self.mac.clone()
    }
    fn seen(&mut self) -> &mut Seen {
        &mut self.seen
    }
}

impl Sighting for Server {
    fn key(&self) -> String {
        self.address.clone()
    }
    fn seen(&mut self) -> &mut Seen {
        &mut self.seen
    }
}

/// A problem with the node that has it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trouble {
    /// The node.
    pub node: String,
    /// What is wrong.
    pub problem: Problem,
}

impl Trouble {
    /// The key of a problem of this kind.
    pub fn key_of(node: &str, kind: super::status::Fault) -> String {
        format!("{node}/{}", kind.as_str())
    }
}

impl Sighting for Trouble {
    fn key(&self) -> String {
        Trouble::key_of(&self.node, self.problem.kind)
    }
    fn seen(&mut self) -> &mut Seen {
        &mut self.problem.seen
    }
}

/// A bounded list, with what of it has to be recorded.
#[derive(Debug)]
pub struct Sightings<T> {
    /// With the time that was recorded last.
    all: BTreeMap<String, (T, u64)>,
}

impl<T> Default for Sightings<T> {
    fn default() -> Sightings<T> {
        Sightings { all: BTreeMap::new() }
    }
}

/// What a sighting means for record and log.
#[derive(Debug, PartialEq, Eq)]
pub struct Noted {
    /// It was never seen before.
    pub new: bool,
    /// Keys whose entries are to be written or removed.
    pub dirty: Vec<String>,
}

impl<T: Sighting> Sightings<T> {
    /// Takes over what was recorded.
    pub fn restore(all: impl IntoIterator<Item = T>) -> Sightings<T> {
        let all = all.into_iter().take(MOST);
        Sightings {
            all: all
                .map(|mut t| {
                    let last = t.seen().last;
                    (t.key(), (t, last))
                })
                .collect(),
        }
    }

    /// Notes that it was seen at `now`, milliseconds since 1970. What it tells of itself is kept as it
    /// tells it last.
    pub fn note(&mut self, mut what: T, now: u64) -> Noted {
        let key = what.key();
        let old = self.all.get_mut(&key);
        let new = old.is_none();
        let (first, count, recorded) = match old {
            Some((old, recorded)) => (old.seen().first, old.seen().count, *recorded),
            None => (now, 0, 0),
        };
        *what.seen() = Seen { first, last: now, count: count.saturating_add(1) };
        let write = now.saturating_sub(recorded) >= WORTH_A_WRITE;
        self.all.insert(key.clone(), (what, if write { now } else { recorded }));
        let mut dirty = if write { vec![key] } else { Vec::new() };
        while self.all.len() > MOST {
            let oldest = self.all.iter_mut().map(|(key, (t, _))| (t.seen().last, key.clone())).min();
            let Some((_, key)) = oldest else { break };
            self.all.remove(&key);
            dirty.push(key);
        }
        Noted { new, dirty }
    }

    /// The value to record under a key, or none if it is gone.
    fn value(&self, key: &str) -> Option<Vec<u8>> {
        self.all.get(key).and_then(|(t, _)| serde_json::to_vec(t).ok())
    }

    /// What of it is to be recorded under `prefix`.
    pub fn entries(&self, prefix: &str, noted: &Noted) -> Vec<Entry> {
        noted.dirty.iter().map(|key| (format!("{prefix}/{key}"), self.value(key))).collect()
    }

    /// Removes one, such as a stranger that became a node.
    pub fn forget(&mut self, key: &str) -> bool {
        self.all.remove(key).is_some()
    }

    /// All, last seen first.
    pub fn list(&self) -> Vec<T> {
        let mut list: Vec<T> = self.all.values().map(|(t, _)| t.clone()).collect();
        list.sort_by_key(|t| std::cmp::Reverse(t.clone().seen().last));
        list
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stranger(n: usize) -> Stranger {
        Stranger {
            mac: format!("02:00:00:00:00:{n:02x}"),
            serial: None,
            revision: None,
            seen: Seen::default(),
        }
    }

    #[test]
    fn first_last_and_count_are_kept_and_writes_are_few() {
        let mut list = Sightings::default();
        let noted = list.note(stranger(1), 1_000_000);
        assert!(noted.new && noted.dirty.len() == 1);
        let noted = list.note(Stranger { serial: Some("00000001".into()), ..stranger(1) }, 1_004_000);
        assert_eq!(noted, Noted { new: false, dirty: vec![] });
        assert_eq!(list.note(stranger(1), 1_060_000).dirty.len(), 1);
        list.note(stranger(2), 1_070_000);
        let all = list.list();
        assert_eq!(all[0].mac, stranger(2).mac, "last seen first");
        assert_eq!(all[1].seen, Seen { first: 1_000_000, last: 1_060_000, count: 3 });
        let again = Sightings::restore(all.clone());
        assert_eq!(again.list(), all);
        assert!(list.forget(&stranger(1).mac) && list.value(&stranger(1).mac).is_none());
    }

    #[test]
    fn made_up_cards_push_out_the_oldest_alone() {
        let mut list = Sightings::default();
        for n in 0..1000 {
            list.note(stranger(n), 1_000_000 + n as u64);
        }
        let all = list.list();
        assert_eq!(all.len(), MOST);
        assert_eq!(all[0].mac, stranger(999).mac);
    }
}
