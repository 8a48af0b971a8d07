//! The desk at which all protocols ask: who may boot, what each may read, what was seen. It joins the
//! description, the store, the boots and their record, and decides nothing by itself.
//! Must not know: packets, sockets.
//! Spec: design.md section 10.

mod hosts;
mod report;

use std::collections::{BTreeMap, HashMap};
use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Instant;

use gt_netboot::nfs::{Export, ExportId};
use gt_netboot::site::Site;
use tokio::sync::watch;

use super::board::Metric;
use super::boots::{Boots, Change, Event, Now, Pin};
use super::export::Trees;
use super::inodes::Inodes;
use super::keeper::Keeper;
use super::log::{self, Log};
use super::record::{Record, RecordError};
use super::secrets::release::Ledger;
use super::seen::{Sightings, Trouble};
use super::status::{Fault, Server, Stranger};
use super::{lock, wall_clock};
use crate::digest::Digest;
use crate::manifest::Manifest;
use crate::store::{Reader, StoreError};

/// Puts together the secrets of a node that boots the root tree of this digest.
pub type Vault = Box<dyn Fn(&str, &Digest) -> anyhow::Result<Vec<u8>> + Send + Sync>;

/// Gives counters of a protocol server for the nodes of a site.
type Count = Box<dyn Fn(&Site) -> Vec<Metric> + Send + Sync>;

/// What the desk is made of.
pub struct Parts {
    /// The nodes.
    pub site: Site,
    /// The images.
    pub store: Reader,
    /// Words of the kernel's line that say where this server is.
    pub words: Vec<String>,
    /// What was recorded.
    pub past: Past,
    /// Writes the record.
    pub keeper: Keeper,
    /// Tells the owner.
    pub log: Arc<Log>,
    /// Gives out secrets; who may have them is decided here.
    pub vault: Vault,
    /// DHCP is someone else's, so that a boot may first be seen by its MOUNT.
    pub alone: bool,
    /// Serve generations that lack overlays, too.
    pub incomplete: bool,
}

/// What a record holds.
#[derive(Debug, Default)]
pub struct Past {
    rows: Vec<super::boots::Row>,
    strangers: Vec<Stranger>,
    servers: Vec<Server>,
    problems: Vec<Trouble>,
    /// Nodes with the boots that got their secrets.
    given: Vec<(String, u64)>,
}

impl Past {
    /// Reads a record. Entries of a later version that cannot be read are left alone.
    ///
    /// # Errors
    /// If the record itself cannot be read.
    pub fn read(record: &dyn Record) -> Result<Past, RecordError> {
        fn all<T: serde::de::DeserializeOwned>(
            record: &dyn Record,
            prefix: &str,
        ) -> Result<Vec<T>, RecordError> {
            let entries = record.read(prefix)?;
            Ok(entries.iter().filter_map(|(_, value)| serde_json::from_slice(value).ok()).collect())
        }
        Ok(Past {
            rows: all(record, "boot/")?,
            strangers: all(record, "stranger/")?,
            servers: all(record, "server/")?,
            problems: all(record, "problem/")?,
            given: all(record, "given/")?,
        })
    }
}

/// The desk.
pub struct Desk {
    site: RwLock<Arc<Site>>,
    store: Reader,
    trees: Trees,
    state: Mutex<State>,
    /// Exports of pinned boots, by node: what NFS asks for thousands of times a second.
    exports: RwLock<HashMap<String, Vec<Served>>>,
    /// Last generation of each node that was looked at.
    resolved: Mutex<HashMap<String, Resolved>>,
    keeper: Keeper,
    log: Arc<Log>,
    /// What protocol servers count themselves.
    counted: Mutex<Vec<Count>>,
    started: Instant,
    vault: Vault,
    alone: bool,
    incomplete: bool,
    changes: watch::Sender<u64>,
    warm: std::sync::mpsc::Sender<()>,
    cold: Mutex<Option<std::sync::mpsc::Receiver<()>>>,
}

#[derive(Debug)]
struct State {
    boots: Boots,
    strangers: Sightings<Stranger>,
    servers: Sightings<Server>,
    problems: Sightings<Trouble>,
    ledger: Ledger,
    counters: BTreeMap<(&'static str, String), u64>,
    pins: String,
}

/// An export and the boot tree beside it, kept in memory while a boot is pinned to them.
struct Served {
    pin: Pin,
    export: Arc<dyn Export>,
    boot: Arc<Inodes>,
}

impl std::fmt::Debug for Served {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Served").field("pin", &self.pin).finish_non_exhaustive()
    }
}

#[derive(Debug, Clone, Copy)]
struct Resolved {
    pin: Pin,
    incomplete: bool,
}

impl State {
    fn is_pinned(&self, node: &str, pin: &Pin) -> bool {
        let asking = self.boots.asking(node).map(|row| row.pin);
        self.boots.readable(node).chain(asking).any(|live| live == *pin)
    }
}

impl Desk {
    /// Takes up what was recorded. No tree is loaded yet: see [`Desk::keep_warm`].
    pub fn new(parts: Parts) -> Arc<Desk> {
        let started = Instant::now();
        let Parts { site, store, words, past, keeper, log, vault, alone, incomplete } = parts;
        let mut ledger = Ledger::default();
        past.given.iter().for_each(|(node, boot)| ledger.restore(node, *boot));
        let boots = Boots::restore(past.rows, clock(started));
        let (warm, cold) = std::sync::mpsc::channel();
        let state = State {
            boots,
            strangers: Sightings::restore(past.strangers),
            servers: Sightings::restore(past.servers),
            problems: Sightings::restore(past.problems),
            ledger,
            counters: BTreeMap::new(),
            pins: String::new(),
        };
        let desk = Arc::new(Desk {
            site: RwLock::new(Arc::new(site)),
            trees: Trees::new(store.clone()).telling(words),
            store,
            state: Mutex::new(state),
            exports: RwLock::default(),
            resolved: Mutex::default(),
            keeper,
            log,
            counted: Mutex::default(),
            started,
            vault,
            alone,
            incomplete,
            changes: watch::channel(0).0,
            warm,
            cold: Mutex::new(Some(cold)),
        });
        desk.publish_pins(&mut lock(&desk.state));
        desk
    }

    /// Loads the trees of pinned boots as they begin, until the desk is gone. A thread of its own, for a root takes some tenths of a second.
    pub fn keep_warm(self: &Arc<Desk>) {
        let Some(cold) = lock(&self.cold).take() else { return };
        let desk = Arc::downgrade(self);
        let _ = self.warm.send(());
        std::thread::spawn(move || {
            while cold.recv().is_ok() {
                while cold.try_recv().is_ok() {}
                let Some(desk) = desk.upgrade() else { return };
                desk.load_pinned();
            }
        });
    }

    /// Has `count` add to the metrics.
    pub fn count_also(&self, count: impl Fn(&Site) -> Vec<Metric> + Send + Sync + 'static) {
        lock(&self.counted).push(Box::new(count));
    }

    /// The nodes, as of the last good description.
    pub fn site(&self) -> Arc<Site> {
        self.site.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Takes a new description. Strangers that it names are strangers no more, and what was wrong with a
    /// node that it changes has to be seen anew.
    pub fn set_site(&self, site: Site) {
        let old = self.site();
        let mut state = lock(&self.state);
        for node in old.nodes.iter().filter(|node| !site.nodes.contains(node)) {
            self.settle(&mut state, &node.name, &[Fault::Serial, Fault::Card, Fault::Address]);
        }
        for node in &site.nodes {
            let mac = node.mac.to_string();
            if state.strangers.forget(&mac) {
                self.keeper.put([(format!("stranger/{mac}"), None)]);
            }
        }
        *self.site.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(site);
        self.changed();
    }

    /// Lets time pass; to be called every second or so.
    pub fn tick(&self) {
        let mut state = lock(&self.state);
        let changes = state.boots.tick(self.now());
        let mut nodes: BTreeMap<String, Vec<Change>> = BTreeMap::new();
        for (node, change) in changes {
            nodes.entry(node).or_default().push(change);
        }
        for (node, changes) in nodes {
            self.take_in(&mut state, &node, &changes);
        }
    }

    /// Waits until all that was seen is recorded.
    pub fn flush(&self) {
        self.keeper.flush();
    }

    fn now(&self) -> Now {
        clock(self.started)
    }

    /// Something was seen of a node of the description.
    fn see(&self, node: &str, event: Event) {
        if !self.site().nodes.iter().any(|n| n.name == node) {
            return;
        }
        let current = || self.current(node);
        let mut state = lock(&self.state);
        let changes = state.boots.apply(self.now(), node, event, &current);
        self.take_in(&mut state, node, &changes);
    }

    /// Records and tells what changed.
    fn take_in(&self, state: &mut State, node: &str, changes: &[Change]) {
        if changes.is_empty() {
            return;
        }
        for change in changes {
            self.tell(state, node, change);
        }
        let entry = |id: u64| {
            let row = state.boots.row(node, id);
            let value = row.and_then(|row| serde_json::to_vec(row).ok());
            // Zeros in front, so that the order of keys is that of numbers.
            (format!("boot/{node}/{id:012}"), value)
        };
        let ids: std::collections::BTreeSet<u64> = changes.iter().map(Change::id).collect();
        let entries: Vec<_> = ids.into_iter().map(entry).collect();
        self.publish_pins(state);
        self.keeper.put(entries);
        self.changed();
    }

    /// Tells gc what is in use, and the loader what to load, if that is not what it was.
    fn publish_pins(&self, state: &mut State) {
        let pins = state.boots.pins();
        let text: String = pins.iter().map(|(node, digest)| format!("{node} {digest}\n")).collect();
        if text != state.pins {
            state.pins.clone_from(&text);
            self.keeper.pins(text);
            self.let_go(state);
            let _ = self.warm.send(());
        }
    }

    /// Forgets the trees of boots that are over. At once: what is in memory is served.
    fn let_go(&self, state: &State) {
        let mut exports = self.exports.write().unwrap_or_else(PoisonError::into_inner);
        for (node, served) in exports.iter_mut() {
            served.retain(|served| state.is_pinned(node, &served.pin));
        }
        exports.retain(|_, served| !served.is_empty());
    }

    fn changed(&self) {
        self.changes.send_modify(|n| *n = n.wrapping_add(1));
    }

    fn count(&self, state: &mut State, what: &'static str, node: &str, by: u64) {
        let counter = state.counters.entry((what, node.to_owned())).or_default();
        *counter = counter.saturating_add(by);
    }

    fn tell(&self, state: &mut State, node: &str, change: &Change) {
        match change {
            Change::Began { id, pin } => {
                self.count(state, "boots", node, 1);
                let generation = &pin.generation.hex()[..12];
                self.log.line(node, "boot", &format!("number {id} begins, generation {generation}"));
            }
            Change::Step { step, .. } => {
                let area = match step.step.as_str() {
                    "discover" | "offer" | "lease" => "dhcp",
                    "file" | "missing" => "tftp",
                    "mount" => "nfs",
                    "late" | "alarm" => "boot",
                    _ => "node",
                };
                let text = match (step.step.as_str(), step.detail.as_str()) {
                    ("file", path) => format!("{path}, {}", log::bytes(step.bytes)),
                    ("late", what) => format!("late: no {what} yet"),
                    ("missing", path) => format!("{path} is not there"),
                    (step, "") => step.to_owned(),
                    (step, detail) => format!("{step}, {detail}"),
                };
                self.log.line(node, area, &text);
            }
            Change::Outcome { id, outcome } => {
                let age = state.boots.row(node, *id).map(|row| state.boots.ages(row, self.now()).0);
                let after = age.map(|ms| format!(" after {}.{} s", ms / 1000, ms % 1000 / 100));
                let text = format!("number {id}: {}{}", outcome.as_str(), after.unwrap_or_default());
                self.log.line(node, "boot", &text);
            }
            Change::Touched { .. } | Change::Forgotten { .. } => {}
        }
    }

    /// What a boot of `node` that begins now gets: its current generation, unless that may not be
    /// served. Four small files are read when it changed, else one.
    fn current(&self, node: &str) -> Option<Pin> {
        match self.resolve(node) {
            Ok(Some(found)) if !found.incomplete || self.incomplete => Some(found.pin),
            Ok(Some(_)) => {
                let text = "its generation lacks overlays and is not served without `--allow-incomplete`";
                self.log.complain(node, "boot", text);
                None
            }
            Ok(None) => {
                self.log.complain(node, "boot", "has no generation: run `gt-image build`");
                None
            }
            Err(e) => {
                self.log.complain(node, "store", &describe(&e));
                None
            }
        }
    }

    fn resolve(&self, node: &str) -> Result<Option<Resolved>, StoreError> {
        let Some(digest) = self.store.current(node)? else { return Ok(None) };
        if let Some(known) = lock(&self.resolved).get(node).filter(|known| known.pin.generation == digest) {
            return Ok(Some(*known));
        }
        let Some(found) = self.store.generation(node, &digest)? else { return Ok(None) };
        // A manifest of another version that cannot be read is no proof of anything missing.
        let manifest = serde_json::from_slice::<Manifest>(&found.manifest).ok();
        let incomplete = manifest.is_some_and(|m| !m.incomplete.is_empty());
        let pin = Pin { generation: digest, root: found.root, boot: found.boot };
        let resolved = Resolved { pin, incomplete };
        lock(&self.resolved).insert(node.to_owned(), resolved);
        Ok(Some(resolved))
    }

    /// What is kept in memory for a node and a pin, loaded if it is not yet.
    fn served(&self, node: &str, pin: Pin) -> Result<(Arc<dyn Export>, Arc<Inodes>), StoreError> {
        let find = |served: &HashMap<String, Vec<Served>>| {
            let found = served.get(node)?.iter().find(|served| served.pin == pin)?;
            Some((found.export.clone(), found.boot.clone()))
        };
        if let Some(found) = find(&self.exports.read().unwrap_or_else(PoisonError::into_inner)) {
            return Ok(found);
        }
        let boot = self.trees.get(&pin.boot)?;
        let export = self.trees.export(node, &pin.root)?;
        // The lock on the boots is held until the entry is in: a boot that ended meanwhile must not
        // leave its root behind. Whoever needs both locks takes them in this order.
        let state = lock(&self.state);
        let mut exports = self.exports.write().unwrap_or_else(PoisonError::into_inner);
        if state.is_pinned(node, &pin) && find(&exports).is_none() {
            let served = Served { pin, export: export.clone(), boot: boot.clone() };
            exports.entry(node.to_owned()).or_default().push(served);
        }
        Ok((export, boot))
    }

    /// The boot tree alone: firmware is not kept waiting while the root is loaded.
    fn boot_tree(&self, node: &str, pin: Pin) -> Result<Arc<Inodes>, StoreError> {
        let exports = self.exports.read().unwrap_or_else(PoisonError::into_inner);
        let known = exports.get(node).and_then(|all| all.iter().find(|served| served.pin == pin));
        match known.map(|served| served.boot.clone()) {
            Some(boot) => Ok(boot),
            None => {
                drop(exports);
                self.trees.get(&pin.boot)
            }
        }
    }

    fn load_pinned(&self) {
        let wanted: Vec<(String, Pin)> = {
            let state = lock(&self.state);
            let site = self.site();
            let pins = |name: &String| {
                let asking = state.boots.asking(name).map(|row| row.pin);
                let all: Vec<Pin> = state.boots.readable(name).chain(asking).collect();
                all.into_iter().map(|pin| (name.clone(), pin)).collect::<Vec<_>>()
            };
            site.nodes.iter().map(|node| node.name.clone()).flat_map(|name| pins(&name)).collect()
        };
        for (node, pin) in &wanted {
            if let Err(e) = self.served(node, *pin) {
                self.log.complain(node, "store", &describe(&e));
            }
        }
    }

    /// The pin of a node's boot that has this export.
    fn pinned_export(&self, node: &str, id: ExportId) -> Option<Pin> {
        let state = lock(&self.state);
        state.boots.readable(node).find(|pin| super::export::export_id(node, &pin.root) == id)
    }

    fn address_of(&self, node: &str) -> Option<Ipv4Addr> {
        self.site().nodes.iter().find(|n| n.name == node).map(|n| n.address)
    }
}

fn clock(started: Instant) -> Now {
    let steady = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
    Now { wall: wall_clock(), steady }
}

/// An error with its causes on one line.
fn describe(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        text.push_str(&format!(": {cause}"));
        next = cause.source();
    }
    text
}

/// The digest that a generation is known by, for people.
fn short(digest: &Digest) -> String {
    digest.hex()[..12].to_owned()
}

#[cfg(test)]
mod tests;
