//! `gt-image known-hosts`: the nodes' SSH host keys, in the form of a `known_hosts` file.
//! Must not know: how keys are derived.
//! Spec: sshd(8), SSH_KNOWN_HOSTS FILE FORMAT.

use std::process::ExitCode;

use clap::Args;
use schemars::JsonSchema;
use serde::Serialize;

use super::{Global, project::Project, report};
use crate::cluster::Node;
use crate::layer::identity::ClusterKey;
use crate::overlay::Description;

/// Print the nodes' SSH host keys for ~/.ssh/known_hosts
///
/// The keys follow from the cluster key, so a reborn node has the key it had.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  gt-image known-hosts >> ~/.ssh/known_hosts
  gt-image known-hosts --node fenn")]
pub struct KnownHosts {
    /// Only this node; may be given several times
    #[arg(long, value_name = "NAME")]
    node: Vec<String>,
}

/// One node's key.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Row {
    /// Names and addresses of the node.
    hosts: Vec<String>,
    /// Type and base64.
    key: String,
    /// As `ssh-keygen -l` shows it.
    fingerprint: String,
}

impl KnownHosts {
    pub(super) fn run(&self, global: &Global) -> anyhow::Result<ExitCode> {
        let project = Project::find(global)?;
        let description = project.load()?;
        let nodes = super::Nodes { node: self.node.clone(), all: self.node.is_empty() };
        let picked = super::project::pick(&description, &nodes)?;
        let key = project.key()?;
        if global.json {
            report::json(&rows(&description, &picked, &key))?;
        } else {
            report::print(&lines(&description, &picked, &key))?;
        }
        Ok(ExitCode::SUCCESS)
    }
}

fn rows(description: &Description, nodes: &[&Node], key: &ClusterKey) -> Vec<Row> {
    let row = |node: &&Node| {
        let ssh = key.ssh_host_key(node.name.as_str());
        let hosts = vec![node.name.to_string(), description.cluster.fqdn(node), node.ip.to_string()];
        Row { hosts, key: ssh.public(), fingerprint: ssh.fingerprint() }
    };
    nodes.iter().map(row).collect()
}

/// The text of a `known_hosts` file with these nodes.
pub(super) fn lines(description: &Description, nodes: &[&Node], key: &ClusterKey) -> String {
    let rows = rows(description, nodes, key);
    rows.iter().map(|row| format!("{} {}\n", row.hosts.join(","), row.key)).collect()
}
