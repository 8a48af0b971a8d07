//! `gt-image reset`: a running node reboots, and with that is what its current generation says.
//! Must not know: how a node reboots: the owner says so in `[network] reset`.
//! Spec: design.md sections 1 and 11: never two leaders at once.

use std::io::{self, BufRead, IsTerminal, Write};
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use clap::Args;
use schemars::JsonSchema;
use serde::Serialize;

use super::server::{Server, Which};
use super::{Global, Hint, project::Project, report, timeline};
use crate::cluster::{Node, RootMode};
use crate::layer::overlay::Context as Values;
use crate::overlay::Description;
use crate::serve::status::{self, Boot, Outcome, Status};
use crate::serve::wipe;

/// The role of which a quorum must stay.
const LEADER: &str = "leader";
/// Between two looks at the status while a node boots.
const LOOK: Duration = Duration::from_secs(1);

/// Reboot a node, so that it is again what its generation says
///
/// Runs the command of `[network] reset` in cluster.toml: ssh as root, unless you say otherwise. Refuses
/// what would cost a quorum or leave the node without anything to boot.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  gt-image reset --node fenn       reboot it, and show the boot
  gt-image reset --node fenn --state     wipe gt-state too; asks first")]
pub struct Reset {
    /// The node; may be given several times
    #[arg(long, value_name = "NAME", required = true)]
    node: Vec<String>,
    /// Wipe what outlives a reboot too (gt-state)
    #[arg(long)]
    state: bool,
    /// Do it in spite of every objection
    #[arg(long)]
    force: bool,
    /// Do not ask whether state may be wiped
    #[arg(long)]
    yes: bool,
    /// Wait for login and show the boot [default on a terminal]
    #[arg(long, conflicts_with = "no_wait")]
    wait: bool,
    /// Do not wait
    #[arg(long)]
    no_wait: bool,
    /// How long to wait for each node
    #[arg(long, value_name = "SECONDS", default_value_t = 300)]
    timeout: u64,
    #[command(flatten)]
    server: Which,
}

/// What was done with one node.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Row {
    /// The node.
    node: String,
    /// What was run.
    command: Vec<String>,
    /// Its next boot wipes `gt-state`.
    state: bool,
    /// The boot that was waited for.
    boot: Option<Boot>,
}

impl Reset {
    pub(super) fn run(&self, global: &Global) -> anyhow::Result<ExitCode> {
        let project = Project::find(global)?;
        let description = project.load()?;
        let names = super::Nodes { node: self.node.clone(), all: false };
        let nodes = super::project::pick(&description, &names)?;
        let server = self.server.find(global);
        let status = server.as_ref().ok().and_then(|server| server.status(1).ok());
        if !self.force {
            refuse(objections(&description, &nodes, status.as_ref()))?;
        }
        let commands: Vec<Vec<String>> =
            nodes.iter().map(|node| command(&description, node)).collect::<Result<_, _>>()?;
        if self.state {
            self.confirm(&description, &nodes)?;
        }
        let wait = self.wait || (!self.no_wait && io::stdout().is_terminal() && !global.json);
        let mut rows = Vec::new();
        for (node, command) in nodes.into_iter().zip(commands) {
            let last = status.as_ref().and_then(|s| s.node(node.name.as_str())?.boots.first()).map(|b| b.id);
            self.reboot(&project, node, &command)?;
            let boot = match &server {
                Ok(server) if wait => Some(self.follow(server, node, last, global.json)?),
                _ => None,
            };
            rows.push(Row { node: node.name.to_string(), command, state: self.state, boot });
        }
        if global.json {
            report::json(&rows)?;
        }
        Ok(ExitCode::SUCCESS)
    }

    /// Says what is lost, and asks.
    fn confirm(&self, description: &Description, nodes: &[&Node]) -> anyhow::Result<()> {
        let mut out = io::stderr().lock();
        for node in nodes {
            write!(out, "{}", loss(description, node))?;
        }
        if self.yes {
            return Ok(());
        }
        if !io::stdin().is_terminal() {
            bail!(
                anyhow::anyhow!("state is wiped only when somebody says so")
                    .context(Hint("add `--yes`, or run it on a terminal".into()))
            );
        }
        write!(out, "wipe it? Type the name of the first node: ")?;
        out.flush()?;
        let mut answer = String::new();
        io::stdin().lock().read_line(&mut answer)?;
        if answer.trim() != self.node[0] {
            bail!("nothing was done");
        }
        Ok(())
    }

    fn reboot(&self, project: &Project, node: &Node, command: &[String]) -> anyhow::Result<()> {
        let name = &node.name;
        if self.state {
            wipe::ask(&project.store, name)
                .with_context(|| format!("noting that the state of `{name}` goes"))?;
        }
        let done = run(command).with_context(|| format!("resetting node `{name}`"));
        if done.is_err() && self.state {
            // It is not rebooting, so its next boot is one that nobody thinks of now.
            wipe::forget(&project.store, name)?;
        }
        done
    }

    /// Shows a boot newer than `last` while it goes on, until it came to something.
    fn follow(&self, server: &Server, node: &Node, last: Option<u64>, quiet: bool) -> anyhow::Result<Boot> {
        let name = node.name.as_str();
        let (deadline, mut shown) = (Instant::now() + Duration::from_secs(self.timeout), None);
        let mut err = io::stderr().lock();
        while Instant::now() < deadline {
            // A server that does not answer now may do so in a second; it keeps what it saw.
            let status = server.status(1).ok();
            let boot = status.as_ref().and_then(|s| s.node(name)).and_then(|node| newer(node, last));
            if let Some(boot) = boot {
                if !quiet {
                    write!(err, "{}", news(name, boot, &mut shown))?;
                }
                if boot.outcome == Outcome::Login {
                    return Ok(boot.clone());
                }
                if boot.outcome.is_final() && boot.outcome != Outcome::Superseded {
                    bail!(
                        anyhow::anyhow!("node `{name}` did not come up: {}", boot.outcome.as_str())
                            .context(Hint(format!("run `gt-image status --node {name}` for its steps")))
                    );
                }
            }
            std::thread::sleep(LOOK);
        }
        let hint = format!("run `gt-image status --node {name} --watch`, or wait longer with `--timeout`");
        Err(anyhow::anyhow!("node `{name}` was not up after {} s", self.timeout).context(Hint(hint)))
    }
}

fn refuse(objections: Vec<String>) -> anyhow::Result<()> {
    if objections.is_empty() {
        return Ok(());
    }
    let error = anyhow::anyhow!("{}", objections.join("\n"));
    let hint = "wait until `gt-image status` shows them up, or add `--force` if you know better";
    Err(error.context(Hint(hint.into())).context("this reset is refused"))
}

/// Why these nodes should not be reset now, all reasons at once.
fn objections(description: &Description, nodes: &[&Node], status: Option<&Status>) -> Vec<String> {
    let mut out = Vec::new();
    for node in nodes {
        let name = &node.name;
        if description.cluster.network.server == Some(node.ip) && netboots(node) {
            out.push(format!("`{name}` runs the server: nothing could boot from it, itself neither"));
        } else if netboots(node) {
            match status.map(|s| s.node(name.as_str())) {
                None => out.push(format!("the server does not answer: `{name}` could not boot")),
                Some(None) => out.push(format!("the server does not know `{name}`")),
                Some(Some(seen)) if seen.generation.is_none() => {
                    out.push(format!("`{name}` has no generation: there is nothing to boot"));
                }
                Some(Some(_)) => {}
            }
        }
    }
    out.extend(quorum(description, nodes, status));
    out
}

/// Never two leaders at once: three make a quorum of two.
fn quorum(description: &Description, nodes: &[&Node], status: Option<&Status>) -> Vec<String> {
    let is_leader = |node: &&Node| {
        let overlays = description.overlays.expand_node(node);
        overlays.iter().any(|overlay| overlay.name.as_str() == LEADER)
    };
    let going: Vec<&str> = nodes.iter().copied().filter(is_leader).map(|n| n.name.as_str()).collect();
    let Some(first) = going.first() else { return Vec::new() };
    if going.len() > 1 {
        return vec![format!("{} are leaders: one at a time, or the quorum is lost", quoted(&going))];
    }
    let all = description.cluster.nodes.iter();
    let others = all.filter(is_leader).filter(|node| node.name.as_str() != *first);
    let why = |node: &Node| {
        Some(format!("`{first}` is a leader, and leader `{}` {}", node.name, absence(node, status)?))
    };
    others.filter_map(why).collect()
}

/// Why a leader cannot be counted on. One that boots from its own disk is not seen by the server; of one
/// that was seen, the last boot counts.
fn absence(node: &Node, status: Option<&Status>) -> Option<&'static str> {
    let Some(status) = status else { return Some("may be down: the server does not answer") };
    let boot = status.node(node.name.as_str()).and_then(|seen| seen.boots.first());
    match boot.map(|boot| boot.outcome) {
        Some(Outcome::Login) => None,
        Some(Outcome::Booting | Outcome::Running) => Some("is booting"),
        Some(_) => Some("did not come up at its last boot"),
        None if netboots(node) => Some("was never seen to boot"),
        None => None,
    }
}

/// True for a node that the server gives its root.
pub(super) fn netboots(node: &Node) -> bool {
    matches!(node.root, RootMode::Nfs | RootMode::Ram)
}

fn quoted(names: &[&str]) -> String {
    names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
}

/// What `--state` means for a node.
fn loss(description: &Description, node: &Node) -> String {
    let mut out = format!("`{}` loses all that outlives a reboot, its partition gt-state:\n", node.name);
    for overlay in description.overlays.expand_node(node) {
        for dir in &overlay.persist {
            out.push_str(&format!("  {} (overlay {})\n", dir.path, overlay.name));
        }
    }
    out.push_str("  and its node key, if it has one: it gets secrets again after the next flash\n");
    out.push_str("a member of a quorum (etcd, Consul, Vault, Nomad) must be removed from it first\n");
    out
}

/// The owner's command for this node.
fn command(description: &Description, node: &Node) -> anyhow::Result<Vec<String>> {
    let values = Values::new(&description.cluster, &description.overlays, node);
    let words = description.cluster.network.reset.iter();
    let rendered: Result<Vec<String>, _> = words.map(|word| values.render("[network] reset", word)).collect();
    rendered.with_context(|| format!("rendering the command that resets node `{}`", node.name))
}

/// Runs it with its output on our stderr: stdout is for data.
fn run(command: &[String]) -> anyhow::Result<()> {
    let shown = command.join(" ");
    // The loader lets no empty command through.
    let (program, arguments) = command.split_first().context("the command is empty")?;
    let hint =
        || Hint("try the command by hand, or set another as `reset` in `[network]` of cluster.toml".into());
    let mut child = Command::new(program);
    child.args(arguments).stdin(Stdio::null()).stdout(io::stderr());
    let status = child.status().with_context(hint).with_context(|| format!("running `{shown}`"))?;
    if !status.success() {
        return Err(anyhow::anyhow!("`{shown}` ended with {status}").context(hint()));
    }
    Ok(())
}

/// The node's last boot, if it is another than `last`.
fn newer(node: &status::Node, last: Option<u64>) -> Option<&Boot> {
    node.boots.first().filter(|boot| last.is_none_or(|last| boot.id > last))
}

/// The lines that were not shown yet. `shown` is the boot and how many of its steps were.
fn news(name: &str, boot: &Boot, shown: &mut Option<(u64, usize)>) -> String {
    let from = match *shown {
        Some((id, steps)) if id == boot.id => steps.min(boot.steps.len()),
        _ => 0,
    };
    let head = if from == 0 && shown.is_none_or(|(id, _)| id != boot.id) {
        format!("{name}: boot {} began\n", boot.id)
    } else {
        String::new()
    };
    *shown = Some((boot.id, boot.steps.len()));
    head + &timeline::steps(&boot.steps[from..]).collect::<String>()
}

#[cfg(test)]
mod tests;
