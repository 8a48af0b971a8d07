//! `gt-image doctor`: what is wrong with this machine, its network or the store, such that a Pi would not
//! boot.
//! Must not know: what a finding rests on ([`gt_netboot::doctor`]), how it is printed ([`page`]).
//! Spec: design.md section 10.

mod page;

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::io;
use std::net::Ipv4Addr;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use clap::Args;
use gt_netboot::doctor::interface::{self, Interface};
use gt_netboot::doctor::{self, Finding, Subject, dhcp, eeprom, files};
use gt_netboot::pi::wire::PacketWire;
use gt_netboot::pi::{Board, Model, Pace};

use super::{Global, project::Project, report, reset, serve};
use crate::cluster::{self, Cluster, Dhcp, Network, Node};
use crate::store::{Reader, Store, StoreError};
use crate::tree::{Tree, TreePath};
pub use page::Report;

/// The server's program, as /proc shows it.
const PROGRAM: &str = "gt-image";
/// The client's port is fixed in every firmware, and so is the server's.
const DHCP_PORT: u16 = 67;
/// An answer within a network takes milliseconds.
const PATIENCE: Duration = Duration::from_secs(2);

/// Find out why a Pi does not boot from the network
///
/// Run it as root on the server's machine, with the ports that `serve` has:
/// looks at ports, interface and firewall, asks every service as a Pi does,
/// and looks through what the nodes would be given. Exit status 1 when there
/// is a fault. It takes no lease and changes nothing.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  sudo gt-image doctor
  sudo gt-image doctor --node fenn --dhcp-wait 40
  gt-image doctor --no-dhcp --json")]
pub struct Doctor {
    /// The network interface that the nodes are on [default: the one with the
    /// server's address, or another on the nodes' network]
    #[arg(long, value_name = "NAME")]
    interface: Option<String>,
    /// Ask by DHCP as this node, and look at its files alone [default: ask as
    /// the first, look at all]
    #[arg(long, value_name = "NAME")]
    node: Option<String>,
    /// The server's address [default: `network.server` of cluster.toml]
    #[arg(long, value_name = "ADDRESS")]
    server: Option<Ipv4Addr>,
    /// How long to listen for DHCP servers
    #[arg(long, value_name = "SECONDS", default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=300))]
    dhcp_wait: u64,
    /// Leave DHCP out, its port too
    #[arg(long)]
    no_dhcp: bool,
    #[command(flatten)]
    ports: serve::Ports,
    /// TCP port of the HTTP API
    #[arg(long, value_name = "PORT", default_value_t = crate::serve::http::PORT)]
    http_port: u16,
}

impl Doctor {
    pub(super) fn run(&self, global: &Global) -> anyhow::Result<ExitCode> {
        let project = Project::find(global)?;
        let cluster = project.load()?.cluster;
        let server = serve::server(self.server, &cluster.network, "--server")?;
        let netbooted = self.nodes(&cluster)?;
        let looks: [(&'static str, &dyn Fn() -> Vec<Finding>); 4] = [
            ("machine and server", &|| doctor::examine(&self.subject(&cluster.network, server))),
            ("DHCP", &|| self.ask_by_dhcp(&cluster, server)),
            ("boot files", &|| boot_files(&project, &netbooted)),
            ("bootloaders", &|| bootloaders(&netbooted)),
        ];
        let mut all = Report::default();
        for (group, look) in looks {
            let text = all.add(group, look());
            if !global.json {
                // At once: DHCP is waited for.
                report::print(&text)?;
            }
        }
        if global.json {
            report::json(&all)?;
        } else {
            report::print(&all.summary())?;
        }
        Ok(ExitCode::from(u8::from(all.has_faults())))
    }

    /// The nodes that boot from the network.
    fn nodes<'a>(&self, cluster: &'a Cluster) -> anyhow::Result<Vec<&'a Node>> {
        if let Some(name) = &self.node {
            cluster.node(name).with_context(|| format!("the cluster has no node `{name}`"))?;
        }
        let wanted = |node: &&Node| self.node.as_ref().is_none_or(|name| node.name.as_str() == name);
        Ok(cluster.nodes.iter().filter(wanted).filter(|node| reset::netboots(node)).collect())
    }

    fn subject(&self, network: &Network, server: Ipv4Addr) -> Subject {
        let off = self.no_dhcp || network.dhcp == Dhcp::Off;
        let ports = doctor::Ports {
            dhcp: (!off).then_some(self.ports.dhcp_port),
            tftp: self.ports.tftp_port,
            portmap: self.ports.portmap_port,
            mount: self.ports.mount_port,
            nfs: self.ports.nfs_port,
            http: self.http_port,
        };
        let program = PROGRAM.to_owned();
        Subject { server, interface: self.interface.clone(), ports, program, patience: PATIENCE }
    }

    /// Plays a node that asks by DHCP, and says who answers.
    fn ask_by_dhcp(&self, cluster: &Cluster, server: Ipv4Addr) -> Vec<Finding> {
        if self.no_dhcp {
            return vec![];
        }
        let Some(node) = self.plays(cluster) else { return vec![] };
        let subject = format!("DHCP, asked as node `{}`", node.name);
        let unchecked = |why: String, hint: &str| {
            vec![Finding { hint: Some(hint.to_owned()), ..Finding::unchecked(&subject, why) }]
        };
        if self.ports.dhcp_port != DHCP_PORT {
            let why = format!("the server is at UDP port {}", self.ports.dhcp_port);
            return unchecked(why, "a Pi asks at port 67 and no other");
        }
        let interfaces = interface::look().unwrap_or_default();
        let Some(on) = choose(&interfaces, self.interface.as_deref(), server, &cluster.network) else {
            return unchecked(
                "no interface of this machine is on the nodes' network".into(),
                "name one with `--interface`",
            );
        };
        let expected = dhcp::Expected { server, mode: mode(cluster.network.dhcp), known: true };
        match survey(node, on, on.has(server), Duration::from_secs(self.dhcp_wait)) {
            Ok(heard) => dhcp::judge(&heard, &expected),
            Err(e) if e.kind() == io::ErrorKind::PermissionDenied => {
                unchecked(format!("no right to send packets on `{}`", on.name), "run it as root, by `sudo`")
            }
            Err(e) => unchecked(format!("`{}`: {e}", on.name), "run `ip address` to see its state"),
        }
    }

    /// The node that is played: one that boots from the network, if there is one.
    fn plays<'a>(&self, cluster: &'a Cluster) -> Option<&'a Node> {
        let named = self.node.as_ref().and_then(|name| cluster.node(name));
        named.or(cluster.nodes.iter().find(|node| reset::netboots(node))).or(cluster.nodes.first())
    }
}

/// The named interface, or the one with the server's address, or one on the nodes' network.
fn choose<'a>(
    interfaces: &'a [Interface],
    named: Option<&str>,
    server: Ipv4Addr,
    network: &Network,
) -> Option<&'a Interface> {
    if let Some(name) = named {
        return interfaces.iter().find(|interface| interface.name == name);
    }
    let inside = |interface: &&Interface| interface.addresses.iter().any(|a| network.subnet.contains(*a));
    let holder = interfaces.iter().find(|interface| interface.has(server));
    holder.or_else(|| interfaces.iter().find(inside))
}

fn survey(node: &Node, on: &Interface, server_is_here: bool, window: Duration) -> io::Result<dhcp::Survey> {
    let board = board(node);
    let mut wire = PacketWire::open(&on.name, board.mac)?;
    if server_is_here {
        wire = wire.with_this_host(&on.name)?;
    }
    // Any number that is not another client's will do; the standard library's seeds are random.
    let xid = RandomState::new().hash_one(node.name.as_str()) as u32;
    dhcp::survey(&board, &mut wire, window, Pace::REAL, xid)
}

fn board(node: &Node) -> Board {
    let model = match node.model {
        // The stricter of the two that it may be.
        cluster::Model::Pi3 => Model::Pi3b,
        cluster::Model::Pi4 => Model::Pi4,
        cluster::Model::Pi5 => Model::Pi5,
    };
    Board::new(model, node.mac.into(), node.serial.into())
}

fn mode(dhcp: Dhcp) -> dhcp::Mode {
    match dhcp {
        Dhcp::Proxy => dhcp::Mode::Proxy,
        Dhcp::Authoritative => dhcp::Mode::Authoritative,
        Dhcp::Off => dhcp::Mode::Off,
    }
}

/// The boot tree of each node's current generation.
fn boot_files(project: &Project, nodes: &[&Node]) -> Vec<Finding> {
    if nodes.is_empty() {
        return vec![];
    }
    let unchecked = |why: String| {
        let hint =
            "run it where the store is, or name it with `--store DIR`; `gt-image build --all` makes one";
        vec![Finding { hint: Some(hint.into()), ..Finding::unchecked("boot files", why) }]
    };
    // Opening would make one.
    if !project.store.is_dir() {
        return unchecked(format!("there is no store `{}`", project.store.display()));
    }
    let opened = Store::open(&project.store).and_then(|store| Ok((store.reader()?, store)));
    match opened {
        Ok((reader, store)) => nodes.iter().flat_map(|node| node_files(&store, &reader, node)).collect(),
        Err(e) => unchecked(causes(&e)),
    }
}

fn node_files(store: &Store, reader: &Reader, node: &Node) -> Vec<Finding> {
    let (name, board) = (node.name.as_str(), board(node));
    match boot_tree(store, reader, name) {
        Ok(Some(tree)) => files::check(name, &board, &listed(&tree), &mut |file| {
            let object = tree.get(&TreePath::new(file).ok()?)?.object()?;
            store.read_object(object).ok()
        }),
        Ok(None) => files::check(name, &board, &[], &mut |_| None),
        Err(e) => vec![Finding::fault(
            format!("boot files of node `{name}`"),
            causes(&e),
            "a generation that can be read",
            format!("run `gt-image build --node {name}`"),
        )],
    }
}

fn boot_tree(store: &Store, reader: &Reader, node: &str) -> Result<Option<Tree>, StoreError> {
    let Some(current) = reader.current(node)? else { return Ok(None) };
    let summary = reader.generation(node, &current)?;
    summary.map(|summary| store.tree(&summary.boot)).transpose()
}

/// The firmware's names are text; a file with another name is none that it asks for.
fn listed(tree: &Tree) -> Vec<(String, u64)> {
    let file = |path: &TreePath, size| Some((std::str::from_utf8(path.as_bytes()).ok()?.to_owned(), size));
    tree.iter().filter_map(|(path, _, inode)| file(path, inode.object()?.size)).collect()
}

/// No node tells its settings: what its owner should look at, once for all. A Pi 3 has none.
fn bootloaders(nodes: &[&Node]) -> Vec<Finding> {
    let names: Vec<&str> =
        nodes.iter().filter(|n| n.model != cluster::Model::Pi3).map(|n| n.name.as_str()).collect();
    if names.is_empty() {
        return vec![];
    }
    // The name comes out between backticks.
    eeprom::check(&names.join("`, `"), eeprom::Bootloader::default(), true)
}

/// An error with all that caused it, on one line.
fn causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(next) = cause {
        text.push_str(&format!(": {next}"));
        cause = next.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::tests::{SAMPLE, load_text};
    use gt_netboot::doctor::State;

    fn interface(name: &str, address: [u8; 4]) -> Interface {
        Interface { name: name.into(), flags: vec!["UP".into()], addresses: vec![address.into()] }
    }

    #[test]
    fn the_interface_that_is_asked_on() {
        let network = load_text(SAMPLE).0.unwrap().network;
        let inside = network.subnet.address().octets();
        let inside = [inside[0], inside[1], inside[2], 77];
        let all =
            [interface("lo", [127, 0, 0, 1]), interface("eth0", inside), interface("eth1", [1, 2, 3, 4])];
        for (named, server, want) in [
            (None, [1, 2, 3, 4], Some("eth1")),
            (None, [9, 9, 9, 9], Some("eth0")),
            (Some("lo"), [1, 2, 3, 4], Some("lo")),
            (Some("eth7"), [1, 2, 3, 4], None),
        ] {
            let chosen = choose(&all, named, server.into(), &network);
            assert_eq!(chosen.map(|i| i.name.as_str()), want, "{named:?} {server:?}");
        }
        assert!(choose(&all[..1], None, [9, 9, 9, 9].into(), &network).is_none());
    }

    #[test]
    fn bootloaders_are_told_of_once_for_all_nodes_that_have_one() {
        let mut cluster = load_text(SAMPLE).0.unwrap();
        let mut second = cluster.nodes[0].clone();
        second.model = cluster::Model::Pi3;
        assert!(bootloaders(&[&second]).is_empty());
        cluster.nodes.push(second);
        let (first, last) = (&cluster.nodes[0], cluster.nodes.last().unwrap());
        let findings = bootloaders(&[first, first, last]);
        assert_eq!(findings.len(), 2);
        assert!(findings.iter().all(|finding| finding.state == State::Advice));
        assert_eq!(findings[0].subject, format!("bootloader of node `{0}`, `{0}`", first.name));
    }
}
