//! `cluster.toml` as it is written: names and types, not yet checked. The texts here are what
//! editors show, by way of `docs/schema/cluster.schema.json`.
//! Must not know: what makes a description right; that is in the module above.
//! Spec: design.md section 4.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Deserialize;

use super::{Dhcp, Model, PartitionTable, RootMode};
use crate::diagnostic::At;

/// The description of a cluster: its network, its users and its nodes.
#[derive(Debug, Deserialize, JsonSchema)]
#[schemars(title = "cluster.toml", deny_unknown_fields)]
pub(crate) struct File {
    #[schemars(required)]
    pub cluster: Option<Cluster>,
    #[schemars(required)]
    pub network: Option<Network>,
    /// What this site has nearer than upstream.
    #[serde(default)]
    pub artifacts: Artifacts,
    /// Free variables for templates: `{{ vars.greeting }}`.
    #[serde(default)]
    #[schemars(with = "BTreeMap<String, serde_json::Value>")]
    pub vars: toml::Table,
    /// People who may log in to every node, by login name. `root` may have keys and nothing else.
    #[serde(default)]
    pub users: BTreeMap<At<String>, User>,
    /// The nodes. Their order is the order of `nodes` in templates.
    #[serde(default)]
    pub node: Vec<Node>,
}

/// What all nodes share.
#[derive(Debug, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub(crate) struct Cluster {
    /// The cluster's name, such as `goldentooth`.
    #[schemars(required)]
    pub name: Option<At<String>>,
    /// The DNS domain of the nodes, such as `nodes.goldentooth.net`.
    #[schemars(required)]
    pub domain: Option<At<String>>,
    /// A time zone by its IANA name; `UTC` when left out.
    pub timezone: Option<At<String>>,
    /// The base of all nodes that name none: a file `images/<base>.toml`.
    pub base: Option<At<String>>,
}

/// The network that the nodes are on.
#[derive(Debug, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub(crate) struct Network {
    /// Such as `10.4.0.0/20`.
    #[schemars(required)]
    pub subnet: Option<At<String>>,
    /// The router's address.
    pub gateway: Option<At<String>>,
    /// Addresses of name servers.
    #[serde(default)]
    pub dns: Vec<At<String>>,
    /// The address at which `gt-image serve` runs. Outside the subnet where there is a gateway, whose network
    /// then needs a DHCP relay agent.
    pub server: Option<At<String>>,
    /// `proxy` when left out.
    pub dhcp: Option<Dhcp>,
    /// The command by which `gt-image reset` has a running node reboot, word by word; each word is a
    /// template. `ssh -o BatchMode=yes -o ConnectTimeout=10 root@{{ node.ip }} systemctl reboot` when left
    /// out.
    pub reset: Option<Vec<At<String>>>,
    /// The command by which `gt-image check` runs a node's checks on it, word by word; each word is a template,
    /// and `known_hosts` is a file of the nodes' host keys. When left out, `ssh` as root runs
    /// `/usr/lib/gt/check each` and takes no other host key.
    pub check: Option<Vec<At<String>>>,
}

/// Where upstream files, which overlays pin by digest, are looked for before upstream.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default)]
#[schemars(deny_unknown_fields)]
pub(crate) struct Artifacts {
    /// Prefixes of addresses and what stands in their place, such as
    /// `"https://github.com/" = "https://mirror.lan/github/"`. The longest prefix is tried first, upstream last.
    pub mirrors: BTreeMap<At<String>, At<String>>,
    /// A folder of files, relative to `cluster.toml`: what `gt-image artifacts export` made, or any files
    /// under their upstream names.
    pub folder: Option<At<String>>,
}

/// Somebody who may log in.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default)]
#[schemars(deny_unknown_fields, extend("x-refused" = {
    "password": "a plain password must not be in a description: use `ssh_keys`, or `password_hash` with what `openssl passwd -6` prints"
}))]
pub(crate) struct User {
    /// Fixed number; when left out, the next free one from 1000 on in the order of the names.
    pub uid: Option<At<u32>>,
    /// Further groups, which must exist on the node.
    pub groups: Vec<At<String>>,
    /// May become root: `true` with the password, `"nopasswd"` without.
    pub sudo: Option<Sudo>,
    /// Lines as in `authorized_keys`.
    pub ssh_keys: Vec<At<String>>,
    /// Files with such lines, relative to `cluster.toml`, so that keys need not be in it.
    pub ssh_key_files: Vec<At<String>>,
    /// `/bin/bash` when left out.
    pub shell: Option<At<String>>,
    /// The person's name.
    pub comment: Option<At<String>>,
    /// A crypt(5) string, as `openssl passwd -6` prints it; locked when left out.
    pub password_hash: Option<At<String>>,
}

/// `true`, `false` or `"nopasswd"`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Sudo(pub super::Sudo);

impl<'de> Deserialize<'de> for Sudo {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Sudo, D::Error> {
        // The schema lets these three values through and no other.
        Ok(Sudo(match toml::Value::deserialize(d)? {
            toml::Value::Boolean(true) => super::Sudo::Password,
            toml::Value::String(_) => super::Sudo::NoPassword,
            _ => super::Sudo::None,
        }))
    }
}

impl JsonSchema for Sudo {
    fn inline_schema() -> bool {
        true
    }
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Sudo".into()
    }
    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({ "enum": [true, false, "nopasswd"] })
    }
}

/// One Raspberry Pi.
#[derive(Debug, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub(crate) struct Node {
    /// The host name.
    #[schemars(required)]
    pub name: Option<At<String>>,
    /// The overlays that make it what it is.
    #[serde(default)]
    pub roles: Vec<At<String>>,
    /// Its IPv4 address in the subnet.
    #[schemars(required)]
    pub ip: Option<At<String>>,
    /// The Ethernet address of its wired network.
    #[schemars(required)]
    pub mac: Option<At<String>>,
    /// The last eight hex digits of its serial number.
    #[schemars(required)]
    pub serial: Option<At<String>>,
    /// `pi4` when left out.
    pub model: Option<Model>,
    /// Where its root filesystem is; `nfs` when left out.
    pub root: Option<RootMode>,
    /// A base of its own.
    pub base: Option<At<String>>,
    /// `gpt` when left out.
    pub partition_table: Option<PartitionTable>,
    /// Size of the root filesystem, such as `4G`; when left out, what it needs and some room.
    pub size: Option<At<String>>,
    /// Size of the partition `gt-state`, for what outlives a reset; none when left out.
    pub state: Option<At<String>>,
    /// Size of the partition `gt-scratch`, wiped at each boot; none when left out.
    pub scratch: Option<At<String>>,
    /// Its memory, such as `8G`, for templates.
    pub ram: Option<At<String>>,
    /// Its number for templates; its position, from 0 on, when left out.
    pub index: Option<At<u32>>,
    /// Free variables, laid over those of the cluster.
    #[serde(default)]
    #[schemars(with = "BTreeMap<String, serde_json::Value>")]
    pub vars: toml::Table,
}
