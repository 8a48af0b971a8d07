//! The cluster description: nodes, network and users of `cluster.toml`, checked.
//! Must not know: what an overlay holds, bases, how anything is built.
//! Spec: design.md section 4.

pub mod adopt;
mod check;
mod name;
mod net;
mod size;
mod users;
pub(crate) mod wire;

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use schemars::JsonSchema;
use serde::Deserialize;

use crate::diagnostic::{self, Placed, Report, Source};

pub use name::{
    AccountName, BaseName, ClusterName, DomainName, ModuleName, NameError, NodeName, OverlayName,
    PackageName, SysctlKey, ThingName, TimeZone, UnitName,
};
pub use net::{MacAddr, Serial, Subnet};
pub use size::ByteSize;
pub(crate) use users::is_field;
pub use users::{Sudo, User};

/// A checked description: names, addresses and numbers are unique and fit each other.
#[derive(Clone, Debug, PartialEq)]
pub struct Cluster {
    /// The cluster's name.
    pub name: ClusterName,
    /// The DNS domain of the nodes.
    pub domain: DomainName,
    /// The nodes' time zone.
    pub timezone: TimeZone,
    /// The network that they are on.
    pub network: Network,
    /// What this site has nearer than upstream.
    pub artifacts: Artifacts,
    /// `[vars]`.
    pub vars: toml::Table,
    /// The users of every node, by name.
    pub users: Vec<User>,
    /// The nodes in the order of the file.
    pub nodes: Vec<Node>,
}

impl Cluster {
    /// The node of this name.
    pub fn node(&self, name: &str) -> Option<&Node> {
        self.nodes.iter().find(|node| node.name.as_str() == name)
    }

    /// The node's name with the domain.
    pub fn fqdn(&self, node: &Node) -> String {
        format!("{}.{}", node.name, self.domain)
    }
}

/// Where upstream files are looked for before upstream; it changes no byte of a node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Artifacts {
    /// Prefixes of addresses and what stands in their place.
    pub mirrors: BTreeMap<String, String>,
    /// A folder of files, as written: relative to `cluster.toml`, or absolute.
    pub folder: Option<PathBuf>,
}

/// The network of the nodes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Network {
    /// All nodes' addresses are in it.
    pub subnet: Subnet,
    /// The router.
    pub gateway: Option<Ipv4Addr>,
    /// Name servers.
    pub dns: Vec<Ipv4Addr>,
    /// Where `gt-image serve` runs; may be a node's own address, or one beyond the gateway.
    pub server: Option<Ipv4Addr>,
    /// How the server takes part in DHCP.
    pub dhcp: Dhcp,
    /// Program and arguments that have a running node reboot, each a template; never empty.
    pub reset: Vec<String>,
    /// Program and arguments that run the checks of a node on it, each a template; never empty.
    pub check: Vec<String>,
}

/// `[network] reset` when it is left out: nobody is there to type a password or to confirm a key, so ssh
/// must not ask, and a node that is gone must not be waited for.
pub const RESET: [&str; 8] =
    ["ssh", "-o", "BatchMode=yes", "-o", "ConnectTimeout=10", "root@{{ node.ip }}", "systemctl", "reboot"];

/// `[network] check` when it is left out. The host key is judged by the keys that follow from the cluster key, so
/// that nobody is asked and a stranger at the node's address is not believed; a node that vanishes meanwhile
/// must not be waited for.
pub const CHECK: [&str; 14] = [
    "ssh",
    "-o",
    "BatchMode=yes",
    "-o",
    "ConnectTimeout=10",
    "-o",
    "ServerAliveInterval=15",
    "-o",
    "StrictHostKeyChecking=yes",
    "-o",
    "UserKnownHostsFile={{ known_hosts }}",
    "root@{{ node.ip }}",
    "/usr/lib/gt/check",
    "each",
];

/// How the server takes part in DHCP.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Dhcp {
    /// Beside a router that gives the addresses.
    #[default]
    Proxy,
    /// Gives the addresses itself.
    Authoritative,
    /// Not at all.
    Off,
}

/// A checked node.
#[derive(Clone, Debug, PartialEq)]
pub struct Node {
    /// The host name.
    pub name: NodeName,
    /// The overlays that it is given, in the order written.
    pub roles: Vec<Placed<OverlayName>>,
    /// Its address.
    pub ip: Ipv4Addr,
    /// Its wired network card.
    pub mac: MacAddr,
    /// Its serial number.
    pub serial: Serial,
    /// Which Raspberry Pi it is.
    pub model: Model,
    /// Where its root filesystem is.
    pub root: RootMode,
    /// Its base, its own or the cluster's.
    pub base: BaseName,
    /// The form of its disk's partition table.
    pub partition_table: PartitionTable,
    /// Size of the root filesystem, when it is fixed.
    pub size: Option<ByteSize>,
    /// Size of the partition `gt-state`.
    pub state: Option<ByteSize>,
    /// Size of the partition `gt-scratch`.
    pub scratch: Option<ByteSize>,
    /// Its memory.
    pub ram: Option<ByteSize>,
    /// Its number for templates.
    pub index: u32,
    /// `[node.vars]`, not yet laid over the cluster's.
    pub vars: toml::Table,
    /// Where its name is written.
    pub place: diagnostic::Place,
}

impl Node {
    /// How the node's own disk is used when it boots from that: kept only where the description says
    /// `disk`.
    pub fn disk_mode(&self) -> RootMode {
        if self.root == RootMode::Disk { RootMode::Disk } else { RootMode::DiskEphemeral }
    }

    /// Name of the node's package set in the lock: its roles, sorted and joined by `+`.
    pub fn package_set(&self) -> String {
        let roles: BTreeSet<&str> = self.roles.iter().map(|role| role.value.as_str()).collect();
        roles.into_iter().collect::<Vec<_>>().join("+")
    }
}

/// Which Raspberry Pi.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Model {
    /// Raspberry Pi 3 Model B or B+.
    Pi3,
    /// Raspberry Pi 4 Model B.
    #[default]
    Pi4,
    /// Raspberry Pi 5.
    Pi5,
}

impl Model {
    /// The word used in `cluster.toml` and in templates.
    pub fn as_str(self) -> &'static str {
        match self {
            Model::Pi3 => "pi3",
            Model::Pi4 => "pi4",
            Model::Pi5 => "pi5",
        }
    }

    /// The model of a board by its revision code, as the firmware tells it in DHCP option 97: bit 23 marks
    /// the new style, bits 4 to 11 are the type. `None` for boards that no model here stands for.
    /// Source: Raspberry Pi documentation, "New-style revision codes".
    pub fn from_revision(code: u32) -> Option<Model> {
        if code & 1 << 23 == 0 {
            return None;
        }
        match code >> 4 & 0xff {
            0x08 | 0x0d => Some(Model::Pi3),
            0x11 => Some(Model::Pi4),
            0x17 => Some(Model::Pi5),
            _ => None,
        }
    }
}

/// Where a node's root filesystem is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum RootMode {
    /// On the server, read-only, with a memory layer above: pristine at each boot.
    #[default]
    Nfs,
    /// In memory, fetched whole at boot: survives the loss of the server.
    Ram,
    /// On the card, kept.
    Disk,
    /// On the card, read-only, with a memory layer above: pristine at each boot.
    DiskEphemeral,
}

impl RootMode {
    /// The word used in `cluster.toml` and in templates.
    pub fn as_str(self) -> &'static str {
        match self {
            RootMode::Nfs => "nfs",
            RootMode::Ram => "ram",
            RootMode::Disk => "disk",
            RootMode::DiskEphemeral => "disk-ephemeral",
        }
    }
}

/// The form of a disk's partition table.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum PartitionTable {
    /// GUID partition table.
    #[default]
    Gpt,
    /// Master boot record, in the official layout, for older boards.
    Mbr,
}

/// Reads `cluster.toml` with the key files it names. `roles` are the overlays that exist. All
/// findings go to the report; the value is of use only when there are none.
pub fn load(path: &Path, roles: &BTreeSet<OverlayName>, report: &mut Report) -> Option<Cluster> {
    let source = Source::read(path, report)?;
    let folder = path.parent().unwrap_or(Path::new(""));
    let mut read_keys = |file: &str| std::fs::read_to_string(folder.join(file));
    parse(&source, roles, &mut read_keys, report)
}

/// Reads the text of a description; `read_keys` gives the text of a key file. Never panics, whatever
/// the text.
pub fn parse(
    source: &Source,
    roles: &BTreeSet<OverlayName>,
    read_keys: &mut dyn FnMut(&str) -> std::io::Result<String>,
    report: &mut Report,
) -> Option<Cluster> {
    let file: wire::File = diagnostic::load(source, report)?;
    check::Checker { source, roles, read_keys, report }.cluster(file)
}

#[cfg(test)]
pub(crate) mod tests;
