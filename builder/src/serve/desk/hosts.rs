//! The desk as each protocol server sees it.
//! Must not know: how a boot is decided or recorded.
//! Spec: the traits of `gt-netboot`.

use std::sync::Arc;

use gt_netboot::content::Content;
use gt_netboot::dhcp::Identity;
use gt_netboot::nfs::{Denied, Export, ExportId};
use gt_netboot::site::Site;
use gt_netboot::{dhcp, nfs, tftp};
use tokio::runtime::{Handle, RuntimeFlavor};

use super::{Desk, State, describe};
use crate::serve::boots::Event;
use crate::serve::lock;
use crate::serve::seen::{Sighting, Sightings, Trouble};
use crate::serve::status::{Fault, Problem, Seen, Server, Stranger};
use crate::serve::wall_clock;

impl dhcp::Host for Desk {
    fn site(&self) -> Arc<Site> {
        Desk::site(self)
    }

    fn can_boot(&self, node: &str) -> bool {
        self.current(node).is_some()
    }

    fn event(&self, event: dhcp::Event) {
        use dhcp::Event as E;
        match event {
            E::Discover { node, identity } => {
                if let Some(identity) = identity {
                    self.right_board(&node, identity);
                }
                let detail = identity.map(|i| format!("serial {}", i.serial)).unwrap_or_default();
                self.see(&node, Event::Discover(&detail));
            }
            E::Offered { node } => {
                self.settle(&mut lock(&self.state), &node, &[Fault::Address]);
                self.see(&node, Event::Offer);
            }
            E::Leased { node, client } => self.see(&node, Event::Lease(&client)),
            E::Stranger { mac, identity, .. } => {
                let stranger = Stranger {
                    mac: mac.to_string(),
                    serial: identity.map(|i| i.serial.to_string()),
                    revision: identity.and_then(|i| i.revision).map(|r| format!("{r:x}")),
                    seen: Seen::default(),
                };
                self.stranger(stranger);
                let site = Desk::site(self);
                if let Some(node) = identity.and_then(|i| site.by_serial(i.serial)) {
                    let text = format!("refused: its board came with card {mac}, not {}", node.mac);
                    self.problem(&node.name, Fault::Card, text);
                }
            }
            E::Mismatch { node, expected, found } => {
                // DHCP tells of it once for each five minutes; a complaint of another kind must not
                // swallow it.
                let text = format!("refused: its card came with serial {found}, not {expected}");
                self.see(&node, Event::Alarm(&text));
                self.problem(&node, Fault::Serial, text);
            }
            E::CardMismatch { node, found: [a, b, c, d] } => {
                let text = format!("option 97 names another card, ending in {a:02x}:{b:02x}:{c:02x}:{d:02x}");
                self.problem(&node, Fault::Card, text);
            }
            E::ForeignServer { server, mac } => {
                let mac = mac.map(|mac| mac.to_string());
                self.foreign(Server { address: server.to_string(), mac, seen: Seen::default() });
            }
            E::Conflict { node, address, holder } => {
                let holder = holder.map_or_else(|| "another machine".to_owned(), |mac| mac.to_string());
                let text = format!("its address {address} is in use by {holder}");
                self.see(&node, Event::Alarm(&text));
                self.problem(&node, Fault::Address, text);
            }
            E::Malformed { from, reason } => self.malformed("dhcp", &from.ip().to_string(), &reason),
            other => self.log.complain("serve", "dhcp", &format!("{other:?}")),
        }
    }
}

impl tftp::Host for Desk {
    fn site(&self) -> Arc<Site> {
        Desk::site(self)
    }

    fn boot_file(&self, node: &str, path: &[u8]) -> Option<Content> {
        let serving = || lock(&self.state).boots.serving(node).map(|row| (row.boot.id, row.pin));
        let before = serving();
        self.see(node, Event::Request);
        let now = serving();
        let (_, pin) = now?;
        if now != before {
            // The rest of this boot's files must be of the same generation after a kill.
            self.keeper.flush();
        }
        let found = self.boot_tree(node, pin).map_err(|e| describe(&e)).and_then(|tree| {
            self.trees.boot_file(&tree, path).map_err(|e| format!("{}: {e}", path.escape_ascii()))
        });
        found.unwrap_or_else(|e| {
            self.log.complain(node, "store", &e);
            None
        })
    }

    fn event(&self, event: tftp::Event) {
        use tftp::Event as E;
        let text = |path: &[u8]| crate::tree::printable(path);
        match event {
            E::Sent { node, path, bytes, .. } => {
                self.count(&mut lock(&self.state), "tftp_bytes", &node, bytes);
                self.see(&node, Event::Sent { path: &text(&path), bytes });
            }
            E::Missing { node, path } => self.see(&node, Event::Missing(&text(&path))),
            E::TimedOut { node, path, bytes } => {
                let text = format!("{}: silence after {bytes} bytes", text(&path));
                self.log.complain(&node, "tftp", &text);
            }
            // The firmware's probe for a size ends so, once or twice for each file.
            E::Stopped { .. } => {}
            E::Refused { from, name, reason } => {
                self.count(&mut lock(&self.state), "refused", "", 1);
                self.log.complain(&from.to_string(), "tftp", &format!("{}: {reason}", text(&name)));
            }
            E::Malformed { from, reason } => self.malformed("tftp", &from.ip().to_string(), &reason),
            other => self.log.complain("serve", "tftp", &format!("{other:?}")),
        }
    }
}

impl nfs::Host for Desk {
    fn site(&self) -> Arc<Site> {
        Desk::site(self)
    }

    fn mount(&self, node: &str) -> Result<Arc<dyn Export>, Denied> {
        self.see(node, Event::Mount { alone: self.alone });
        let pin = lock(&self.state).boots.serving(node).map(|row| row.pin).ok_or(Denied::NoBoot)?;
        blocking(|| {
            let served = self.served(node, pin);
            // The handle that is given out now must be good after a kill.
            self.keeper.flush();
            served.map(|(export, _)| export).map_err(|e| {
                self.log.complain(node, "store", &describe(&e));
                Denied::Gone
            })
        })
    }

    fn export(&self, node: &str, id: ExportId) -> Result<Arc<dyn Export>, Denied> {
        let known = {
            let exports = self.exports.read().unwrap_or_else(std::sync::PoisonError::into_inner);
            let served = exports.get(node).and_then(|all| all.iter().find(|s| s.export.id() == id));
            served.map(|s| s.export.clone())
        };
        if let Some(export) = known {
            return Ok(export);
        }
        let Some(pin) = self.pinned_export(node, id) else {
            let booted = lock(&self.state).boots.serving(node).is_some();
            return Err(if booted { Denied::Gone } else { Denied::NoBoot });
        };
        // After a restart, until the loader has been here.
        let served = blocking(|| self.served(node, pin));
        served.map(|(export, _)| export).map_err(|e| {
            self.log.complain(node, "store", &describe(&e));
            Denied::Gone
        })
    }

    fn event(&self, event: nfs::Event) {
        use nfs::Event as E;
        match event {
            // `mount` has told of it.
            E::Mounted { .. } => {}
            E::Refused { from, what } => {
                self.count(&mut lock(&self.state), "refused", "", 1);
                self.log.complain(&from.to_string(), "nfs", &format!("refused: {what}"));
            }
            E::Malformed { from, reason } => self.malformed("nfs", &from.ip().to_string(), &reason),
            other => self.log.complain("serve", "nfs", &format!("{other:?}")),
        }
    }
}

impl Desk {
    fn malformed(&self, area: &'static str, from: &str, reason: &str) {
        self.count(&mut lock(&self.state), "malformed", area, 1);
        self.log.complain(from, area, &format!("malformed: {reason}"));
    }

    fn stranger(&self, stranger: Stranger) {
        let (mac, serial) = (stranger.mac.clone(), stranger.serial.clone().unwrap_or("unknown".into()));
        if self.note(|state| &mut state.strangers, "stranger", stranger) {
            let text = format!("asks to boot, serial {serial}: `gt-image adopt {mac}` makes it a node");
            self.log.complain(&mac, "dhcp", &text);
        }
        self.changed();
    }

    fn foreign(&self, server: Server) {
        let text = match &server.mac {
            Some(mac) => format!("another DHCP server, card {mac}"),
            None => "another DHCP server".to_owned(),
        };
        let address = server.address.clone();
        if self.note(|state| &mut state.servers, "server", server) {
            self.log.line(&address, "dhcp", &text);
            self.changed();
        }
    }

    /// Something of a node does not fit. It gets a place of its own beside the boots: a node that is
    /// refused has none.
    fn problem(&self, node: &str, kind: Fault, detail: String) {
        self.log.line(node, "dhcp", &detail);
        let problem = Problem { kind, detail, seen: Seen::default() };
        self.note(|state| &mut state.problems, "problem", Trouble { node: node.to_owned(), problem });
        self.changed();
    }

    /// Puts a sighting on its list and into the record, under `prefix`. True if it is new.
    fn note<T: Sighting>(
        &self,
        list: impl FnOnce(&mut State) -> &mut Sightings<T>,
        prefix: &str,
        sighting: T,
    ) -> bool {
        let mut state = lock(&self.state);
        let list = list(&mut state);
        let noted = list.note(sighting, wall_clock());
        let entries = list.entries(prefix, &noted);
        drop(state);
        self.keeper.put(entries);
        noted.new
    }

    /// These do not stand in the way of a node any more.
    pub(super) fn settle(&self, state: &mut State, node: &str, kinds: &[Fault]) {
        for kind in kinds {
            let key = Trouble::key_of(node, *kind);
            if state.problems.forget(&key) {
                self.keeper.put([(format!("problem/{key}"), None)]);
                self.changed();
            }
        }
    }

    /// The node's card came with the node's serial.
    fn right_board(&self, node: &str, identity: Identity) {
        let site = Desk::site(self);
        let Some(node) = site.nodes.iter().find(|n| n.name == node) else { return };
        let [_, _, tail @ ..] = node.mac.0;
        let card = identity.mac_tail.is_none_or(|said| said == tail);
        let settled = if card { &[Fault::Serial, Fault::Card][..] } else { &[Fault::Serial] };
        self.settle(&mut lock(&self.state), &node.name, settled);
    }
}

/// Runs what may wait for a disk, without holding up the tasks of this thread.
pub(super) fn blocking<T>(work: impl FnOnce() -> T) -> T {
    let many = Handle::try_current().is_ok_and(|h| h.runtime_flavor() == RuntimeFlavor::MultiThread);
    if many { tokio::task::block_in_place(work) } else { work() }
}
