//! Which boot each node is in, and what was seen of it: a machine of states that is told what the
//! protocols saw and decides when a boot begins, which generation it is pinned to, and how it ends.
//! Must not know: sockets, clocks, disks, how a boot is recorded.
//! Spec: design.md sections 10 and 13; habits of the firmware: rpi-eeprom's issues where named.
//!
//! A node has up to three boots that count:
//!
//! ```text
//! asking    begun by a DISCOVER, which anybody can forge: nothing depends on it yet
//! current   asked for a file, mounted or told a step: what the node is doing
//! held      the one before, mounted: its root stays readable until the current one mounts
//! ```
//!
//! So a DISCOVER from anyone never disturbs a running node, and neither does a request for a file.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use serde::{Deserialize, Serialize};

use super::status::{Boot, Outcome, Step};
use crate::digest::Digest;

/// Firmware asks every 4 s (Pi 4, Pi 5) or 5 s (Pi 3) while nobody answers, and its second stage asks
/// again within 2 s of the first; a board that was switched off needs longer to be back than this
/// only by chance, and then joins a boot that has fetched next to nothing.
const ASKS_AGAIN: u64 = 10_000;
/// Longest silence between two requests for files of one boot. A file may take 30 s before a Pi gives
/// up (TFTP_FILE_TIMEOUT), and a transfer is silent here until its end.
const FETCHES_ON: u64 = 60_000;
/// While the firmware fetched something so recently, a DISCOVER of the same card was not its own: a
/// board needs longer from power to its first file.
const BUSY: u64 = 2_000;
/// A DISCOVER that nothing followed is forgotten after this: firmware gives up after 45 s.
const ASKED_IN_VAIN: u64 = 60_000;
/// A boot of which nothing was heard for so long is given up. A switch port with spanning tree costs
/// two minutes, an fsck of a state partition some more.
const GIVEN_UP: u64 = 900_000;
/// Boots of a node that are remembered.
const PAST: usize = 16;
/// Steps of a boot that are remembered: a boot has about 40. What comes after is not: a firmware that
/// loops must not fill the memory.
const STEPS: usize = 200;
/// Longest detail, in bytes: paths of boot files and short messages fit.
const DETAIL: usize = 300;

/// A moment on two clocks, both in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Now {
    /// Since 1970; may jump, for a Pi has no battery. For people alone.
    pub wall: u64,
    /// Since some moment before this process began; never jumps. All decisions rest on it.
    pub steady: u64,
}

/// The generation that a boot is pinned to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pin {
    /// The generation.
    pub generation: Digest,
    /// Its root tree.
    pub root: Digest,
    /// Its boot tree.
    pub boot: Digest,
}

/// Which of a node's boots this is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Slot {
    /// Over.
    Past,
    /// Its root may still be in use.
    Held,
    /// What the node is doing.
    Current,
    /// Only a DISCOVER so far.
    Asking,
}

/// A boot with all that must outlive a restart.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Row {
    /// The node.
    pub node: String,
    /// What it boots.
    pub pin: Pin,
    /// Which of the node's boots it is.
    pub slot: Slot,
    /// The firmware has the kernel, so it will not ask for an address again in this boot.
    pub kernel: bool,
    /// The root was mounted.
    pub mounted: bool,
    /// Milliseconds from its beginning to what was heard last.
    pub heard: u64,
    /// What people see.
    pub boot: Boot,
    /// Its beginning on the steady clock; negative when that was before this process.
    #[serde(skip)]
    steady: i64,
}

/// What was seen of a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event<'a> {
    /// Its firmware asked for an address.
    Discover(&'a str),
    /// We offered one, or boot information.
    Offer,
    /// It took its address; the client that did.
    Lease(&'a str),
    /// It asked for a boot file.
    Request,
    /// It has a whole boot file.
    Sent {
        /// The file.
        path: &'a str,
        /// Bytes.
        bytes: u64,
    },
    /// It asked for a boot file that there is not.
    Missing(&'a str),
    /// It mounts its root. `alone`: no DHCP or TFTP of ours may have gone before.
    Mount {
        /// DHCP is someone else's.
        alone: bool,
    },
    /// It fetched its root as one image.
    Image {
        /// Bytes.
        bytes: u64,
    },
    /// It told a step itself.
    Told {
        /// The step.
        step: &'a str,
        /// What else it said.
        detail: &'a str,
    },
    /// Something that no healthy node does.
    Alarm(&'a str),
}

/// What an event changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// A boot began.
    Began {
        /// The boot.
        id: u64,
        /// What it is pinned to.
        pin: Pin,
    },
    /// A step that was not seen before in this boot.
    Step {
        /// The boot.
        id: u64,
        /// The step.
        step: Step,
    },
    /// The boot stands differently.
    Outcome {
        /// The boot.
        id: u64,
        /// How.
        outcome: Outcome,
    },
    /// Something that is only recorded: a time, a count, a slot.
    Touched {
        /// The boot.
        id: u64,
    },
    /// The boot is no longer remembered.
    Forgotten {
        /// The boot.
        id: u64,
    },
}

impl Change {
    /// The boot that changed.
    pub fn id(&self) -> u64 {
        match self {
            Change::Began { id, .. }
            | Change::Step { id, .. }
            | Change::Outcome { id, .. }
            | Change::Touched { id }
            | Change::Forgotten { id } => *id,
        }
    }
}

/// All boots of all nodes.
#[derive(Debug, Default)]
pub struct Boots {
    nodes: BTreeMap<String, Node>,
    last_id: u64,
}

#[derive(Debug, Default)]
struct Node {
    asking: Option<Row>,
    current: Option<Row>,
    held: Option<Row>,
    /// Newest last.
    past: VecDeque<Row>,
}

impl Boots {
    /// Takes over what was recorded. Boots that were under way go on: the server was away, not they.
    pub fn restore(rows: impl IntoIterator<Item = Row>, now: Now) -> Boots {
        let mut boots = Boots::default();
        let mut rows: Vec<Row> = rows.into_iter().collect();
        rows.sort_by_key(|row| row.boot.id);
        for mut row in rows {
            boots.last_id = boots.last_id.max(row.boot.id);
            let age = now.wall.saturating_sub(row.boot.began);
            row.steady = signed(now.steady) - signed(age);
            // What the clock says of the time that we were away may be wrong; silence begins anew.
            row.heard = row.heard.max(age);
            let node = boots.nodes.entry(row.node.clone()).or_default();
            let slot = match row.slot {
                Slot::Asking => &mut node.asking,
                Slot::Current => &mut node.current,
                Slot::Held => &mut node.held,
                Slot::Past => {
                    node.past.push_back(row);
                    continue;
                }
            };
            // Two rows in one slot can only be a record that was cut off: the newer is right.
            if let Some(old) = slot.replace(row) {
                node.past.push_back(Row { slot: Slot::Past, ..old });
            }
        }
        boots
    }

    /// Takes in an event. `current` gives the generation that a boot which begins now gets; without
    /// one none begins.
    pub fn apply(
        &mut self,
        now: Now,
        node: &str,
        event: Event,
        current: &dyn Fn() -> Option<Pin>,
    ) -> Vec<Change> {
        let next = self.last_id + 1;
        let known = self.nodes.entry(node.to_owned()).or_default();
        let mut work = Work { name: node, node: known, now, next, current, changes: Vec::new() };
        work.event(event);
        let changes = work.changes;
        if changes.iter().any(|change| change.id() == next) {
            self.last_id = next;
        }
        changes
    }

    /// Lets time pass: what is late is marked, what is hopeless ends.
    pub fn tick(&mut self, now: Now) -> Vec<(String, Change)> {
        let mut all = Vec::new();
        for (name, node) in &mut self.nodes {
            let mut work = Work { name, node, now, next: 0, current: &|| None, changes: Vec::new() };
            work.tick();
            all.extend(work.changes.into_iter().map(|change| (name.clone(), change)));
        }
        all
    }

    /// The boot that a request for a file would belong to, without one beginning.
    pub fn serving(&self, node: &str) -> Option<&Row> {
        self.nodes.get(node)?.current.as_ref()
    }

    /// The boot that was begun by a DISCOVER and not followed up yet.
    pub fn asking(&self, node: &str) -> Option<&Row> {
        self.nodes.get(node)?.asking.as_ref()
    }

    /// What the node's handles may lead to: the root of its current boot, and of the one before while
    /// that may still be running.
    pub fn readable(&self, node: &str) -> impl Iterator<Item = Pin> {
        let node = self.nodes.get(node);
        node.into_iter().flat_map(|node| node.current.iter().chain(&node.held)).map(|row| row.pin)
    }

    /// All generations that must stay.
    pub fn pins(&self) -> BTreeSet<(String, Digest)> {
        let live = |node: &Node| {
            let rows = [&node.asking, &node.current, &node.held].into_iter().flatten();
            rows.map(|row| (row.node.clone(), row.pin.generation)).collect::<Vec<_>>()
        };
        self.nodes.values().flat_map(live).collect()
    }

    /// All boots of a node, newest first.
    pub fn of(&self, node: &str) -> Vec<&Row> {
        let mut rows: Vec<&Row> = self.nodes.get(node).into_iter().flat_map(Node::rows).collect();
        rows.sort_by_key(|row| std::cmp::Reverse(row.boot.id));
        rows
    }

    /// The boot with this number.
    pub fn row(&self, node: &str, id: u64) -> Option<&Row> {
        self.nodes.get(node)?.rows().find(|row| row.boot.id == id)
    }

    /// How long ago a boot began, and how long ago it was last heard of, in milliseconds.
    pub fn ages(&self, row: &Row, now: Now) -> (u64, u64) {
        let age = row.age(now);
        (age, age.saturating_sub(row.heard))
    }
}

impl Node {
    fn rows(&self) -> impl Iterator<Item = &Row> {
        self.past.iter().chain(&self.held).chain(&self.current).chain(&self.asking)
    }
}

impl Row {
    fn age(&self, now: Now) -> u64 {
        u64::try_from(signed(now.steady) - self.steady).unwrap_or(0)
    }

    fn silent(&self, now: Now) -> u64 {
        self.age(now).saturating_sub(self.heard)
    }

    /// The firmware is at work and will go on fetching.
    fn in_firmware(&self) -> bool {
        self.boot.outcome == Outcome::Booting && !self.kernel && !self.mounted
    }

    /// Nothing but a request for an address was seen.
    fn lone(&self) -> bool {
        self.boot.steps.iter().all(|s| matches!(s.step.as_str(), "discover" | "offer" | "late"))
    }
}

/// Times in milliseconds are far below 2^63.
fn signed(millis: u64) -> i64 {
    i64::try_from(millis).unwrap_or(i64::MAX)
}

/// One event at one node.
struct Work<'a> {
    name: &'a str,
    node: &'a mut Node,
    now: Now,
    next: u64,
    current: &'a dyn Fn() -> Option<Pin>,
    changes: Vec<Change>,
}

impl Work<'_> {
    fn event(&mut self, event: Event) {
        match event {
            Event::Discover(detail) => self.discover(detail),
            Event::Offer => self.asked_step("offer", ""),
            Event::Lease(client) => self.lease(client),
            Event::Request => self.request(),
            Event::Sent { path, bytes } => self.sent(path, bytes),
            Event::Missing(path) => self.step("missing", path, 0),
            Event::Mount { alone } => self.mount(alone),
            Event::Image { bytes } => {
                self.step("image", "", bytes);
                self.mounted();
            }
            Event::Told { step, detail } => self.told(step, detail),
            Event::Alarm(what) => self.step("alarm", what, 0),
        }
    }

    fn discover(&mut self, detail: &str) {
        let now = self.now;
        let joins = |row: &&mut Row| row.silent(now) < ASKS_AGAIN;
        let asking = self.node.asking.as_mut().filter(joins).is_some();
        let current = self.node.current.as_mut().filter(|row| row.in_firmware()).filter(joins).is_some();
        if !asking && !current && !self.ask() {
            return;
        }
        self.asked_step("discover", detail);
    }

    /// Begins a boot on which nothing depends yet.
    fn ask(&mut self) -> bool {
        let Some(row) = self.new_row(Slot::Asking) else { return false };
        if let Some(old) = self.node.asking.replace(row) {
            self.retire(old);
        }
        true
    }

    fn lease(&mut self, client: &str) {
        // A running node renews its lease; only one of which nothing is known may begin here, such
        // as a machine that got its kernel elsewhere.
        if self.node.current.is_none() && self.node.asking.is_none() {
            self.ask();
        }
        self.asked_step("lease", client);
    }

    fn request(&mut self) {
        let now = self.now;
        let busy = |row: &Row| row.kernel && !row.mounted && row.silent(now) < BUSY;
        if self.node.asking.is_some() && !self.node.current.as_ref().is_some_and(busy) {
            self.promote();
        }
        let goes_on =
            |row: &Row| row.boot.outcome == Outcome::Booting && !row.mounted && row.silent(now) < FETCHES_ON;
        if !self.node.current.as_ref().is_some_and(goes_on) {
            self.begin();
        }
        if let Some(row) = &mut self.node.current {
            row.heard = row.age(now);
        }
    }

    fn sent(&mut self, path: &str, bytes: u64) {
        self.step("file", path, bytes);
        if let Some(row) = self.node.current.as_mut().filter(|_| is_kernel(path)) {
            row.kernel = true;
        }
    }

    fn mount(&mut self, alone: bool) {
        let has_kernel = self.node.current.as_ref().is_some_and(|row| row.kernel && !row.mounted);
        if self.node.asking.is_some() && !has_kernel {
            self.promote();
        }
        match &self.node.current {
            None if alone => _ = self.begin(),
            // Where we see nothing before the mount, a mount is how a boot shows. A node that mounts
            // once more while it runs keeps what it had: the boot before is held.
            Some(row) if alone && row.mounted && (self.current)().is_some_and(|pin| pin != row.pin) => {
                _ = self.begin();
                self.step("mount", "", 0);
                if let Some(row) = &mut self.node.current {
                    row.mounted = true;
                }
                return;
            }
            _ => {}
        }
        self.step("mount", "", 0);
        self.mounted();
    }

    /// From here on the node needs nothing of the boot before.
    fn mounted(&mut self) {
        let Some(row) = &mut self.node.current else { return };
        row.mounted = true;
        let id = row.boot.id;
        let revived = row.boot.outcome == Outcome::TimedOut;
        self.changes.push(Change::Touched { id });
        if revived {
            self.outcome(Outcome::Booting);
        }
        if let Some(held) = self.node.held.take() {
            self.retire(held);
        }
    }

    fn told(&mut self, step: &str, detail: &str) {
        let has_kernel = self.node.current.as_ref().is_some_and(|row| row.kernel || row.mounted);
        if self.node.asking.is_some() && !has_kernel {
            self.promote();
        }
        self.step(step, detail, 0);
        let Some(row) = &self.node.current else { return };
        match (step, row.boot.outcome) {
            ("login", _) => self.outcome(Outcome::Login),
            ("switch", Outcome::Booting | Outcome::TimedOut) => self.outcome(Outcome::Running),
            ("fail", Outcome::Booting | Outcome::Running) => self.outcome(Outcome::Failed),
            _ => {}
        }
    }

    /// What was asked for becomes what the node is doing.
    fn promote(&mut self) {
        let Some(row) = self.node.asking.take() else { return };
        self.replace_current(Row { slot: Slot::Current, ..row });
    }

    fn begin(&mut self) -> bool {
        let Some(row) = self.new_row(Slot::Current) else { return false };
        self.replace_current(row);
        true
    }

    fn replace_current(&mut self, row: Row) {
        self.changes.push(Change::Touched { id: row.boot.id });
        let Some(old) = self.node.current.replace(row) else { return };
        if !old.mounted {
            self.retire(old);
            return;
        }
        self.changes.push(Change::Touched { id: old.boot.id });
        if let Some(older) = self.node.held.replace(Row { slot: Slot::Held, ..old }) {
            self.retire(older);
        }
    }

    fn new_row(&mut self, slot: Slot) -> Option<Row> {
        let pin = (self.current)()?;
        let id = self.next;
        self.changes.push(Change::Began { id, pin });
        let boot = Boot {
            id,
            began: self.now.wall,
            generation: pin.generation.to_string(),
            steps: Vec::new(),
            ended: None,
            outcome: Outcome::Booting,
        };
        let (node, steady) = (self.name.to_owned(), signed(self.now.steady));
        Some(Row { node, pin, slot, kernel: false, mounted: false, heard: 0, boot, steady })
    }

    /// The boot is over.
    fn retire(&mut self, mut row: Row) {
        row.slot = Slot::Past;
        let id = row.boot.id;
        if row.boot.outcome == Outcome::Booting {
            let outcome = if row.mounted { Outcome::Running } else { Outcome::Superseded };
            row.boot.outcome = outcome;
            self.changes.push(Change::Outcome { id, outcome });
        }
        row.boot.ended.get_or_insert(self.now.wall);
        self.changes.push(Change::Touched { id });
        // A storm of DISCOVERs must not push real boots out of the memory: of those that nothing
        // followed only the last is kept.
        let last_lone = self.node.past.back().is_some_and(Row::lone);
        if row.lone() && last_lone {
            self.node.past.pop_back().inspect(|old| self.changes.push(Change::Forgotten { id: old.boot.id }));
        }
        self.node.past.push_back(row);
        while self.node.past.len() > PAST {
            self.node
                .past
                .pop_front()
                .inspect(|old| self.changes.push(Change::Forgotten { id: old.boot.id }));
        }
    }

    /// A step of the boot that asks, or else of the current one.
    fn asked_step(&mut self, step: &str, detail: &str) {
        let row = self.node.asking.as_mut().or(self.node.current.as_mut());
        add_step(row, self.now, step, detail, 0, &mut self.changes);
    }

    fn step(&mut self, step: &str, detail: &str, bytes: u64) {
        add_step(self.node.current.as_mut(), self.now, step, detail, bytes, &mut self.changes);
    }

    fn outcome(&mut self, outcome: Outcome) {
        let Some(row) = self.node.current.as_mut().filter(|row| row.boot.outcome != outcome) else { return };
        row.boot.outcome = outcome;
        row.boot.ended = outcome.is_final().then_some(self.now.wall);
        self.changes.push(Change::Outcome { id: row.boot.id, outcome });
    }

    fn tick(&mut self) {
        let now = self.now;
        if let Some(row) = self.node.asking.take_if(|row| row.silent(now) > ASKED_IN_VAIN) {
            let mut row = row;
            row.boot.outcome = Outcome::TimedOut;
            self.changes.push(Change::Outcome { id: row.boot.id, outcome: Outcome::TimedOut });
            self.retire(row);
        }
        let Some(row) = &mut self.node.current else { return };
        let silent = row.silent(now);
        if row.boot.outcome == Outcome::Booting && silent > GIVEN_UP {
            return self.outcome(Outcome::TimedOut);
        }
        if let Some(what) = overdue(row, silent) {
            let heard = row.heard;
            self.step("late", what, 0);
            // A mark is nothing that was heard.
            if let Some(row) = &mut self.node.current {
                row.heard = heard;
            }
        }
    }
}

/// What should have been seen by now, once for each boot.
fn overdue(row: &Row, silent: u64) -> Option<&'static str> {
    let (what, after) = match row.boot.outcome {
        Outcome::Booting if row.mounted => ("login", 180_000),
        Outcome::Running => ("login", 180_000),
        Outcome::Booting if row.kernel => ("mount", 60_000),
        Outcome::Booting => ("kernel", 30_000),
        _ => return None,
    };
    let marked = row.boot.steps.iter().any(|s| s.step == "late" && s.detail == what);
    (silent > after && !marked).then_some(what)
}

fn add_step(
    row: Option<&mut Row>,
    now: Now,
    step: &str,
    detail: &str,
    bytes: u64,
    changes: &mut Vec<Change>,
) {
    let Some(row) = row else { return };
    let at_ms = row.age(now);
    row.heard = at_ms;
    let id = row.boot.id;
    let end = detail.char_indices().map(|(at, c)| at + c.len_utf8()).take_while(|end| *end <= DETAIL).last();
    let detail = &detail[..end.unwrap_or(0)];
    let seen = row.boot.steps.iter_mut().find(|s| s.step == step && s.detail == detail);
    if let Some(seen) = seen {
        // config.txt is read four to seven times (rpi-eeprom#74); each boot shows it once.
        seen.bytes = seen.bytes.saturating_add(bytes);
        changes.push(Change::Touched { id });
    } else if row.boot.steps.len() < STEPS {
        let step = Step { step: step.to_owned(), at_ms, detail: detail.to_owned(), bytes };
        row.boot.steps.push(step.clone());
        changes.push(Change::Step { id, step });
    }
}

/// True for the file after which firmware hands over to the kernel: `kernel8.img`, `kernel_2712.img`,
/// `vmlinuz`, `Image.gz`.
fn is_kernel(path: &str) -> bool {
    let name = path.rsplit('/').next().unwrap_or(path);
    ["kernel", "vmlinuz", "Image"].iter().any(|stem| name.starts_with(stem))
}

#[cfg(test)]
#[path = "boots_tests.rs"]
mod tests;
