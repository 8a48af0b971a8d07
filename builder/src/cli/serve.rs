//! `gt-image serve`: the netboot server.
//! Must not know: protocols.
//! Spec: design.md sections 10, 11 and 13.

use std::collections::BTreeMap;
use std::io::Write;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use clap::{Args, ValueEnum};
use schemars::JsonSchema;
use serde::Serialize;

use super::{Global, Hint, project::Project};
use crate::cluster::{Dhcp, Network};
use crate::digest::Digest;
use crate::serve::run::{self, Settings};
use crate::serve::sockets::Wanted;
use crate::serve::{secrets, site, wipe};
use crate::store::Store;

/// Serve all nodes: DHCP, TFTP and NFS
///
/// Prints one line that begins with `ready` when every socket is bound, then
/// a line for each step of each boot on stderr. SIGTERM ends it, SIGHUP has it
/// read cluster.toml again. New generations need no signal: a node gets them
/// at its next boot.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  sudo gt-image serve --interface eth0
  sudo gt-image serve --interface eth0 --dhcp authoritative
  gt-image serve --dhcp off --tftp-port 6969 --portmap-port 0 --mount-port 0")]
pub struct Serve {
    /// The network interface that the nodes are on
    #[arg(long, value_name = "NAME")]
    interface: Option<String>,
    /// The address to listen at and to tell nodes [default: listen at all,
    /// tell `network.server` of cluster.toml]
    #[arg(long, value_name = "ADDRESS")]
    address: Option<Ipv4Addr>,
    /// Where the HTTP API listens [default: port 8080 at --address]
    #[arg(long, value_name = "ADDRESS:PORT")]
    http: Option<SocketAddr>,
    /// How to take part in DHCP [default: `network.dhcp` of cluster.toml]
    #[arg(long, value_name = "HOW")]
    dhcp: Option<HowDhcp>,
    #[command(flatten)]
    ports: Ports,
    /// Where boots are recorded [default: serve/ in the store]
    #[arg(long, value_name = "DIR")]
    state: Option<PathBuf>,
    /// Serve generations that lack overlays, too
    #[arg(long)]
    allow_incomplete: bool,
}

/// The server's ports.
#[derive(Args, Debug, Clone, Copy)]
pub struct Ports {
    /// UDP port of DHCP; clients are answered at the next one
    #[arg(long, value_name = "PORT", default_value_t = 67)]
    pub dhcp_port: u16,
    /// UDP port of TFTP; 0 is any, here and below
    #[arg(long, value_name = "PORT", default_value_t = 69)]
    pub tftp_port: u16,
    /// TCP port of NFS
    #[arg(long, value_name = "PORT", default_value_t = 2049)]
    pub nfs_port: u16,
    /// TCP and UDP port of MOUNT
    #[arg(long, value_name = "PORT", default_value_t = 20048)]
    pub mount_port: u16,
    /// TCP and UDP port of the portmapper
    #[arg(long, value_name = "PORT", default_value_t = 111)]
    pub portmap_port: u16,
}

/// All sockets are bound.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Ready {
    /// Addresses with ports, by service: `dhcp`, `http`, `mount`, `nfs`, `portmap`, `tftp`.
    ready: BTreeMap<String, String>,
}

#[derive(ValueEnum, Clone, Copy, Debug)]
enum HowDhcp {
    /// Beside a router that gives the addresses
    Proxy,
    /// Gives the addresses itself
    Authoritative,
    /// Not at all
    Off,
}

impl From<HowDhcp> for Dhcp {
    fn from(how: HowDhcp) -> Dhcp {
        match how {
            HowDhcp::Proxy => Dhcp::Proxy,
            HowDhcp::Authoritative => Dhcp::Authoritative,
            HowDhcp::Off => Dhcp::Off,
        }
    }
}

impl Serve {
    pub(super) fn run(&self, global: &Global) -> anyhow::Result<ExitCode> {
        let project = Project::find(global)?;
        let network = project.load()?.cluster.network;
        let given = self.address.filter(|address| !address.is_unspecified());
        let server = server(given, &network, "--address")?;
        let settings = self.settings(&network, server, &project, global.json);
        let json = global.json;
        let place = project.clone();
        let load = move || Ok(site::site(&place.load()?.cluster, server));
        let vault = move |node: &str, root: &Digest| secrets_of(&project, node, root);
        run::serve(&settings, Box::new(load), Box::new(vault), |addresses| {
            print_ready(addresses, json).context("printing the `ready` line")
        })?;
        Ok(ExitCode::SUCCESS)
    }

    fn settings(&self, network: &Network, server: Ipv4Addr, project: &Project, json: bool) -> Settings {
        let dhcp = self.dhcp.map_or(network.dhcp, Dhcp::from);
        let address = self.address.unwrap_or(Ipv4Addr::UNSPECIFIED);
        let wanted = Wanted {
            address,
            interface: self.interface.clone(),
            dhcp: (dhcp != Dhcp::Off).then_some(self.ports.dhcp_port),
            tftp: self.ports.tftp_port,
            nfs: self.ports.nfs_port,
            mount: self.ports.mount_port,
            portmap: self.ports.portmap_port,
            http: self.http.unwrap_or(SocketAddr::new(IpAddr::V4(address), 8080)),
        };
        let (store, state) = (project.store.clone(), self.state.clone());
        let secrets = project.secrets().to_path_buf();
        Settings { wanted, dhcp, server, store, secrets, state, incomplete: self.allow_incomplete, json }
    }
}

/// The address that nodes are told: as given by `option`, or as the description says.
pub(super) fn server(given: Option<Ipv4Addr>, network: &Network, option: &str) -> anyhow::Result<Ipv4Addr> {
    given.or(network.server).ok_or_else(|| {
        let hint = format!("set `server` under `[network]` in `cluster.toml`, or give `{option}`");
        anyhow::anyhow!("the nodes must be told this server's address, and it is nowhere").context(Hint(hint))
    })
}

/// Reads the description, the key and the owner's files anew, so that nothing secret is kept in the
/// memory of a server that runs for months.
fn secrets_of(project: &Project, node: &str, root: &Digest) -> anyhow::Result<Vec<u8>> {
    let description = project.load()?;
    let this = description.cluster.node(node).context("the node is no longer in the description")?;
    let key = project.key()?;
    let store = Store::open(&project.store).context("opening the store")?;
    let tree = store.tree(root).context("reading the node's root")?;
    let overlays = description.overlays.expand_node(this);
    let folder = project.secrets();
    let wipe = wipe::open(&project.store, &this.name).context("looking for a wish to wipe state")?;
    let parts =
        secrets::Parts { node, overlays: &overlays, key: &key, folder, root: &tree, store: &store, wipe };
    Ok(secrets::bundle(&parts)?.bytes)
}

/// `ready dhcp=0.0.0.0:67 tftp=…`, or the same as one JSON object on one line.
fn print_ready(addresses: &[(&str, SocketAddr)], json: bool) -> anyhow::Result<()> {
    let line = if json {
        let ready = addresses.iter().map(|(name, address)| (name.to_string(), address.to_string())).collect();
        serde_json::to_string(&Ready { ready })?
    } else {
        let all: Vec<String> = addresses.iter().map(|(name, address)| format!("{name}={address}")).collect();
        format!("ready {}", all.join(" "))
    };
    let mut out = std::io::stdout().lock();
    writeln!(out, "{line}")?;
    Ok(out.flush()?)
}
