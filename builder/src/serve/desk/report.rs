//! The desk as the HTTP API sees it.
//! Must not know: HTTP.
//! Spec: design.md sections 7 and 13.

use std::net::Ipv4Addr;

use gt_netboot::content::Content;
use tokio::sync::watch;

use super::{Desk, short};
use crate::serve::board::{Board, Metric, Refused};
use crate::serve::boots::Event;
use crate::serve::lock;
use crate::serve::status::{Node, Status};
use crate::serve::wall_clock;

impl Board for Desk {
    fn status(&self) -> Status {
        let site = Desk::site(self);
        let state = lock(&self.state);
        let nodes = site.nodes.iter().map(|node| {
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
        self.admit(from, node)?;
        Err(Refused::None)
    }

    fn ram_image(&self, from: Ipv4Addr, node: &str) -> Result<Content, Refused> {
        self.admit(from, node)?;
        Err(Refused::None)
    }

    fn metrics(&self) -> Vec<Metric> {
        let state = lock(&self.state);
        let metric = |((what, label), value): (&(&'static str, String), &u64)| {
            let (name, help) = named(what);
            let key = if *what == "malformed" { "protocol" } else { "node" };
            let labels = if label.is_empty() { Vec::new() } else { vec![(key, label.clone())] };
            #[expect(clippy::cast_precision_loss, reason = "Prometheus knows no other numbers")]
            let value = *value as f64;
            Metric { name, help, counter: true, labels, value }
        };
        state.counters.iter().map(metric).collect()
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

fn named(what: &str) -> (&'static str, &'static str) {
    match what {
        "boots" => ("gt_boots_total", "Boots that began."),
        "tftp_bytes" => ("gt_tftp_bytes_total", "Bytes of boot files that were sent whole."),
        "refused" => ("gt_refused_total", "Requests for what the asker may not have."),
        _ => ("gt_malformed_total", "Packets that were none of the protocol."),
    }
}
