//! `gt-image adopt`: a machine that the server saw becomes a node of `cluster.toml`.
//! Must not know: how the file is edited ([`crate::cluster::adopt`]).
//! Spec: design.md sections 4 and 10.

use std::collections::BTreeSet;
use std::fs;
use std::io::Write as _;
use std::net::Ipv4Addr;
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context, bail};
use clap::Args;
use schemars::JsonSchema;
use serde::Serialize;

use super::server::Which;
use super::{Global, Hint, project::Project, report};
use crate::cluster::adopt::{AdoptError, NewNode, next_free};
use crate::cluster::{Cluster, MacAddr, Model, NodeName, OverlayName, Serial};
use crate::io::atomic;
use crate::overlay::Description;
use crate::serve::status::{Status, Stranger};

/// Make a stranger a node: write it into cluster.toml
///
/// Format and comments of the file stay. The server is asked for what is not given; with --mac, --serial
/// and --model it need not run.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  gt-image adopt d8:3a:dd:00:00:01 --name karst --role worker
  gt-image adopt 89abcdef --dry-run      what would be written
  gt-image adopt d8:3a:dd:00:00:01 --serial 89abcdef --model pi4")]
pub struct Adopt {
    /// The machine: its MAC address or its serial number, as `status` shows
    #[arg(value_name = "MAC|SERIAL")]
    who: String,
    /// Its name [default: pi-SERIAL]
    #[arg(long, value_name = "NAME")]
    name: Option<NodeName>,
    /// Its address [default: the one after the last node's]
    #[arg(long, value_name = "ADDRESS")]
    ip: Option<Ipv4Addr>,
    /// A role; may be given several times
    #[arg(long, value_name = "ROLE")]
    role: Vec<OverlayName>,
    /// Its MAC address, where the server does not say
    #[arg(long, value_name = "MAC")]
    mac: Option<MacAddr>,
    /// Its serial number, where the server does not say
    #[arg(long, value_name = "SERIAL")]
    serial: Option<Serial>,
    /// Its model, where the server does not say
    #[arg(long, value_name = "MODEL", value_parser = ["pi3", "pi4", "pi5"])]
    model: Option<String>,
    /// Show the change and write nothing
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    server: Which,
}

/// The new node.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Adopted {
    /// Host name.
    name: String,
    /// Wired card.
    mac: String,
    /// Eight hex digits.
    serial: String,
    /// Reservation.
    address: String,
    /// `pi3`, `pi4` or `pi5`.
    model: String,
    /// Roles, in order.
    roles: Vec<String>,
    /// The file that was written, or would be.
    file: String,
    /// False with `--dry-run`.
    written: bool,
}

/// What is known of the machine; the rest is asked for.
#[derive(Debug, Default, Clone, Copy, PartialEq)]
struct Facts {
    mac: Option<MacAddr>,
    serial: Option<Serial>,
    model: Option<Model>,
}

impl Adopt {
    pub(super) fn run(&self, global: &Global) -> anyhow::Result<ExitCode> {
        let project = Project::find(global)?;
        let description = project.load()?;
        let given = self.given()?;
        refuse_known(&description.cluster, given)?;
        let facts = match given {
            Facts { mac: Some(_), serial: Some(_), model: Some(_) } => given,
            _ => {
                let hint = "start `gt-image serve` there, or give `--mac`, `--serial` and `--model`: then no server is asked";
                let status = self.server.find(global)?.status(0).context(Hint(hint.into()))?;
                given.completed(&status, &self.who)?
            }
        };
        refuse_known(&description.cluster, facts)?;
        let node = self.node(facts, &description)?;
        let name = project.file.display().to_string();
        let text = fs::read_to_string(&project.file).with_context(|| format!("reading `{name}`"))?;
        let changed = node.add_to(&text).map_err(with_hint)?;
        validate(&project.file, &changed)?;
        if !self.dry_run {
            replace(&project.file, &changed).with_context(|| format!("writing `{name}`"))?;
        }
        if global.json {
            report::json(&adopted(&node, name, !self.dry_run))?;
        } else {
            report::print(&said(&node, &name, added(&text, &changed), self.dry_run))?;
        }
        Ok(ExitCode::SUCCESS)
    }

    /// What the command line says.
    fn given(&self) -> anyhow::Result<Facts> {
        let (mac, serial) = (self.who.parse::<MacAddr>().ok(), self.who.parse::<Serial>().ok());
        if mac.is_none() && serial.is_none() {
            let wanted =
                "wanted are the six groups of a MAC address or the eight hex digits of a serial number";
            bail!(
                anyhow::anyhow!("`{}` names no machine: {wanted}", self.who)
                    .context(Hint("run `gt-image status` to see the strangers".into()))
            );
        }
        let model = match self.model.as_deref() {
            Some("pi3") => Some(Model::Pi3),
            Some("pi5") => Some(Model::Pi5),
            Some(_) => Some(Model::Pi4),
            None => None,
        };
        Ok(Facts { mac: mac.or(self.mac), serial: serial.or(self.serial), model })
    }

    fn node(&self, facts: Facts, description: &Description) -> anyhow::Result<NewNode> {
        let missing = |what: &str, flag: &str| {
            anyhow::anyhow!("the server did not see the {what} of `{}`", self.who)
                .context(Hint(format!("give it with `{flag}`")))
        };
        let serial = facts.serial.ok_or_else(|| missing("serial number", "--serial SERIAL"))?;
        let cluster = &description.cluster;
        let ip = self
            .ip
            .or_else(|| next_free(cluster))
            .with_context(|| format!("the subnet `{}` has no free address", cluster.network.subnet))?;
        Ok(NewNode {
            // A serial number is eight hex digits, so this is a name.
            name: self.name.clone().map_or_else(|| format!("pi-{serial}").parse(), Ok)?,
            roles: self.role.clone(),
            ip,
            mac: facts.mac.ok_or_else(|| missing("MAC address", "--mac MAC"))?,
            serial,
            model: facts.model.ok_or_else(|| missing("model", "--model MODEL"))?,
        })
    }
}

impl Facts {
    /// With what the server saw of the machine. What was said by hand stands.
    fn completed(self, status: &Status, who: &str) -> anyhow::Result<Facts> {
        let is_it = |s: &&Stranger| {
            let (mac, serial) = (s.mac.parse().ok(), s.serial.as_deref().and_then(|text| text.parse().ok()));
            (self.mac.is_some() && self.mac == mac) || (self.serial.is_some() && self.serial == serial)
        };
        let Some(stranger) = status.strangers.iter().find(is_it) else {
            let hint =
                "run `gt-image status` to see the strangers; a machine is seen when it asks for an address";
            return Err(anyhow::anyhow!("the server has seen no stranger `{who}`").context(Hint(hint.into())));
        };
        let revision = stranger.revision.as_deref().map(|text| text.trim_start_matches("0x"));
        let revision = revision.and_then(|text| u32::from_str_radix(text, 16).ok());
        Ok(Facts {
            mac: self.mac.or_else(|| stranger.mac.parse().ok()),
            serial: self.serial.or_else(|| stranger.serial.as_deref()?.parse().ok()),
            model: self.model.or_else(|| revision.and_then(Model::from_revision)),
        })
    }
}

/// A machine that is in the description already is not adopted a second time.
fn refuse_known(cluster: &Cluster, facts: Facts) -> anyhow::Result<()> {
    let same =
        |node: &&crate::cluster::Node| Some(node.mac) == facts.mac || Some(node.serial) == facts.serial;
    let Some(node) = cluster.nodes.iter().find(same) else { return Ok(()) };
    let what = if Some(node.mac) == facts.mac {
        format!("MAC address `{}`", node.mac)
    } else {
        format!("serial number `{}`", node.serial)
    };
    let hint = format!("where a board was swapped, edit the entry of `{}` at {}", node.name, node.place);
    Err(anyhow::anyhow!("{what} is that of node `{}` already", node.name).context(Hint(hint)))
}

fn with_hint(error: AdoptError) -> anyhow::Error {
    match error {
        AdoptError::NotTables => {
            let hint = "write each node as a table `[[node]]`, then run this again";
            anyhow::Error::new(error).context(Hint(hint.into()))
        }
        _ => anyhow::Error::new(error),
    }
}

/// The normal loader reads the new text from beside the old one, where it finds the same overlays and
/// key files.
fn validate(file: &Path, text: &str) -> anyhow::Result<()> {
    let mut beside = atomic::begin(file).context("trying the new description")?;
    beside.write_all(text.as_bytes()).context("trying the new description")?;
    let loaded = Description::load(beside.path());
    loaded.map(|_| ()).map_err(|report| {
        let here =
            report.to_string().replace(&beside.path().display().to_string(), &file.display().to_string());
        anyhow::anyhow!("{here}")
            .context("the description would not be right with this node; it is left as it was")
    })
}

/// Replaces what the name leads to, and keeps its permissions.
fn replace(file: &Path, text: &str) -> std::io::Result<()> {
    let target = file.canonicalize()?;
    let mut new = atomic::begin(&target)?;
    new.as_file().set_permissions(fs::metadata(&target)?.permissions())?;
    new.write_all(text.as_bytes())?;
    atomic::finish(new, &target)
}

/// The lines that `new` has more: all that was added is in one place.
fn added<'a>(old: &str, new: &'a str) -> &'a str {
    let same = old.lines().zip(new.lines()).take_while(|(a, b)| a == b).count();
    let more = new.lines().count().saturating_sub(old.lines().count());
    let start = new.split_inclusive('\n').take(same).map(str::len).sum::<usize>();
    let end = start + new[start..].split_inclusive('\n').take(more).map(str::len).sum::<usize>();
    &new[start..end]
}

fn adopted(node: &NewNode, file: String, written: bool) -> Adopted {
    Adopted {
        name: node.name.to_string(),
        mac: node.mac.to_string(),
        serial: node.serial.to_string(),
        address: node.ip.to_string(),
        model: node.model.as_str().into(),
        roles: node.roles.iter().map(ToString::to_string).collect(),
        file,
        written,
    }
}

fn said(node: &NewNode, file: &str, added: &str, dry: bool) -> String {
    let did = if dry { "would add to" } else { "added to" };
    let lines: String = added.trim_matches('\n').lines().map(|line| format!("  {line}\n")).collect();
    let roles: BTreeSet<&str> = node.roles.iter().map(OverlayName::as_str).collect();
    let bare = if roles.is_empty() { "it has no role yet: add `roles` there\n" } else { "" };
    let next = format!(
        "then `gt-image build --node {}`, and tell the server: `systemctl reload gt-image`\n",
        node.name
    );
    format!("{did} `{file}`:\n\n{lines}\n{bare}{}", if dry { "" } else { &next })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::serve::status::tests::example;

    #[test]
    fn a_stranger_is_found_by_either_name() {
        let (mac, serial) = ("dc:a6:32:01:36:c2".parse().ok(), "5b154510".parse().ok());
        let want = Facts { mac, serial, model: Some(Model::Pi4) };
        for given in [Facts { mac, ..Facts::default() }, Facts { serial, ..Facts::default() }] {
            assert_eq!(given.completed(&example(), "x").unwrap(), want);
        }
        let other =
            Facts { mac: "dc:a6:32:00:00:00".parse().ok(), model: Some(Model::Pi5), ..Facts::default() };
        assert!(other.completed(&example(), "x").is_err());
        let by_hand = Facts { serial, model: Some(Model::Pi5), ..Facts::default() };
        assert_eq!(by_hand.completed(&example(), "x").unwrap().model, Some(Model::Pi5));
    }

    #[test]
    fn what_was_added_is_found() {
        assert_eq!(added("a\nb\n", "a\nb\n\nnew\n"), "\nnew\n");
        assert_eq!(added("a\nb\n", "a\nnew\n\nb\n"), "new\n\n");
        assert_eq!(added("", "new\n"), "new\n");
        assert_eq!(added("a", "a\nnew\n"), "new\n");
    }
}
