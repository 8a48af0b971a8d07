//! The desk as the HTTP API sees it.
//! Must not know: HTTP.
//! Spec: design.md sections 7 and 13.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use gt_netboot::content::Content;
use tokio::sync::watch;

use super::hosts::blocking;
use super::{Desk, describe, short};
use crate::digest::Digest;
use crate::serve::board::{Board, Metric, Refused};
use crate::serve::boots::Event;
use crate::serve::lock;
use crate::serve::metrics;
use crate::serve::secrets::neighbour;
use crate::serve::secrets::release::{self, Claim, Verdict};
use crate::serve::status::{Node, Status};
use crate::serve::wall_clock;

impl Board for Desk {
    fn status(&self) -> Status {
        let site = Desk::site(self);
        let state = lock(&self.state);
        let problems = state.problems.list();
        let nodes = site.nodes.iter().map(|node| {
            let own = problems.iter().filter(|trouble| trouble.node == node.name);
            let resolved = self.resolve(&node.name).ok().flatten();
            let boots = state.boots.of(&node.name);
            let pinned = state.boots.serving(&node.name).or(state.boots.asking(&node.name));
            Node {
                name: node.name.clone(),
                mac: node.mac.to_string(),
                serial: node.serial.to_string(),
                address: node.address.to_string(),
                generation: resolved.map(|r| r.pin.generation.to_string()),
                pinned: pinned.map(|row| row.pin.generation.to_string()),
                incomplete: resolved.is_some_and(|r| r.incomplete),
                problems: own.map(|trouble| trouble.problem.clone()).collect(),
                boots: boots.into_iter().map(|row| row.boot.clone()).collect(),
            }
        });
        Status {
            now: wall_clock(),
            nodes: nodes.collect(),
            strangers: state.strangers.list(),
            servers: state.servers.list(),
        }
    }

    fn step(&self, from: Ipv4Addr, node: &str, step: &str, detail: Option<&str>) -> Result<(), Refused> {
        self.admit(from, node)?;
        self.see(node, Event::Told { step, detail: detail.unwrap_or_default() });
        Ok(())
    }

    fn secrets(&self, from: Ipv4Addr, node: &str) -> Result<Vec<u8>, Refused> {
        let root = self.claim(from, node)?;
        // That they are given is on the disk before they are: a kill in between costs a boot, the
        // other way round somebody could have them twice.
        self.keeper.flush();
        blocking(|| (self.vault)(node, &root)).map_err(|e| {
            self.log.line(node, "secret", &format!("cannot be given: {e:#}"));
            Refused::Broken
        })
    }

    fn ram_image(&self, from: Ipv4Addr, node: &str) -> Result<Content, Refused> {
        self.admit(from, node)?;
        let pin = lock(&self.state).boots.serving(node).map(|row| row.pin).ok_or(Refused::NoBoot)?;
        let broken = |e: String| {
            self.log.complain(node, "store", &e);
            Refused::Broken
        };
        let boot = self.boot_tree(node, pin).map_err(|e| broken(describe(&e)))?;
        let line = self.trees.boot_file(&boot, b"cmdline.txt").map_err(|e| broken(e.to_string()))?;
        let (digest, size) = line.as_ref().and_then(ram_words).ok_or(Refused::None)?;
        let file = self.store.object(&digest, size).map_err(|e| broken(format!("RAM image: {e}")))?;
        self.see(node, Event::Image { bytes: size });
        Ok(Content::new(Arc::new(file), size))
    }

    fn metrics(&self) -> Vec<Metric> {
        let site = Desk::site(self);
        let counted: Vec<Metric> = lock(&self.counted).iter().flat_map(|count| count(&site)).collect();
        let state = lock(&self.state);
        let metric = |((what, label), value): (&(&'static str, String), &u64)| {
            let (name, help) = named(what);
            let key = if *what == "malformed" { "protocol" } else { "node" };
            let labels = if label.is_empty() { Vec::new() } else { vec![(key, label.clone())] };
            metrics::counter(name, help, labels, *value)
        };
        state.counters.iter().map(metric).chain(counted).collect()
    }

    fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }
}

impl Desk {
    /// A request of a node comes from the node's own address, and while it boots or runs.
    fn admit(&self, from: Ipv4Addr, node: &str) -> Result<(), Refused> {
        let address = self.address_of(node).ok_or(Refused::NoNode)?;
        if address != from {
            self.log.complain(&from.to_string(), "http", &format!("refused: asks in the name of {node}"));
            return Err(Refused::Address);
        }
        let state = lock(&self.state);
        let row = state.boots.serving(node).or(state.boots.asking(node)).ok_or(Refused::NoBoot)?;
        tracing::debug!(node, boot = row.boot.id, generation = short(&row.pin.generation), "admitted");
        Ok(())
    }
}

impl Desk {
    /// Decides about a claim to a node's secrets, and notes it. The root that the node boots.
    fn claim(&self, from: Ipv4Addr, node: &str) -> Result<Digest, Refused> {
        let site = Desk::site(self);
        let known = site.nodes.iter().find(|n| n.name == node).ok_or(Refused::NoNode)?;
        let cards = neighbour::of(from).unwrap_or_default();
        let mut state = lock(&self.state);
        let row = state.boots.serving(node).cloned();
        let boot = row.as_ref().map(|row| {
            let (began, heard) = state.boots.ages(row, self.now());
            release::Boot {
                id: row.boot.id,
                address: known.address,
                mac: known.mac,
                began: Duration::from_millis(began),
                heard: Duration::from_millis(heard),
                over: row.boot.outcome.is_final(),
            }
        });
        match (state.ledger.decide(&Claim { node, from, cards: &cards, boot }), row) {
            (Verdict::Give, Some(row)) => {
                let value = serde_json::to_vec(&(node, row.boot.id)).ok();
                self.keeper.put([(format!("given/{node}"), value)]);
                drop(state);
                self.see(node, Event::Told { step: "secrets", detail: "" });
                Ok(row.pin.root)
            }
            // A claim without a boot is always refused.
            (Verdict::Give, None) => Err(Refused::NoBoot),
            (Verdict::Refuse(why), _) => {
                drop(state);
                self.log.complain(&from.to_string(), "secret", &format!("{node}'s are refused: {why}"));
                if why.alarms() {
                    self.see(node, Event::Alarm(&format!("secrets refused: {why}")));
                }
                Err(why.into())
            }
        }
    }
}

/// Digest and size of a memory root, from the kernel's command line that the same boot tree holds:
/// `gt.ram=sha256:… gt.ram_size=…`.
fn ram_words(line: &Content) -> Option<(Digest, u64)> {
    // The kernel takes at most 2048 bytes of it (COMMAND_LINE_SIZE of arm64).
    let mut text = vec![0; 4096];
    let len = line.read_at(&mut text, 0).ok()?;
    let text = std::str::from_utf8(&text[..len]).ok()?;
    let word = |name: &str| text.split_whitespace().find_map(|word| word.strip_prefix(name));
    Some((word("gt.ram=")?.parse().ok()?, word("gt.ram_size=")?.parse().ok()?))
}

fn named(what: &str) -> (&'static str, &'static str) {
    match what {
        "boots" => ("gt_boots_total", "Boots that began."),
        "tftp_bytes" => ("gt_tftp_bytes_total", "Bytes of boot files that were sent whole."),
        "refused" => ("gt_refused_total", "Requests for what the asker may not have."),
        _ => ("gt_malformed_total", "Packets that were none of the protocol."),
    }
}
