//! `gt-image check`: the checks of a node's overlays, run on the node while it runs.
//! Must not know: how a command gets onto a node: the owner says so in `[network] check`.
//! Spec: docs/operating.md, "Checks"; design.md section 5.

mod run;
mod said;
#[cfg(test)]
mod tests;

use std::io::Write;
use std::process::ExitCode;
use std::sync::mpsc;
use std::time::Duration;

use anyhow::Context;
use clap::Args;
use schemars::JsonSchema;
use serde::Serialize;

use super::{Global, Hint, Nodes, known_hosts, project::Project, report};
use crate::cluster::Node;
use crate::layer::overlay::{Context as Values, check_files};
use crate::overlay::Description;

use run::{Event, Job};

/// Run the checks of a node's overlays on the node
///
/// By the command of `[network] check` in cluster.toml: ssh as root, unless you say otherwise. Host keys are
/// those that follow from the cluster key. Ends with 1 when a check failed.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  gt-image check --node fenn
  gt-image check --all --json > checks.json")]
pub struct Check {
    #[command(flatten)]
    nodes: Nodes,
    /// How long to wait for all checks of a node
    #[arg(long, value_name = "SECONDS", default_value_t = 900)]
    timeout: u64,
}

/// What one node said.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Row {
    /// The node.
    node: String,
    /// Its checks in the order in which they ran.
    checks: Vec<Checked>,
    /// Why not all of them ran.
    error: Option<String>,
}

/// One check.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Checked {
    /// The overlay that states it; none when the node runs a generation whose overlays are no longer here.
    overlay: Option<String>,
    /// What is true when it passes.
    name: String,
    /// The file in `/usr/lib/gt/checks` of the node.
    file: Option<String>,
    /// It passed.
    passed: bool,
    /// What a failed one said.
    output: String,
}

impl Check {
    pub(super) fn run(&self, global: &Global) -> anyhow::Result<ExitCode> {
        let project = Project::find(global)?;
        let description = project.load()?;
        let nodes = super::project::pick(&description, &self.nodes)?;
        let key = project.key()?;
        // A file of our own: the user's has other keys for nodes that lived before this cluster did.
        let mut hosts = tempfile::NamedTempFile::new().context("making a file for host keys")?;
        hosts
            .write_all(known_hosts::lines(&description, &nodes, &key).as_bytes())
            .context("writing the host keys")?;
        let shown = hosts.path().to_string_lossy().into_owned();
        let jobs: Vec<Job> =
            nodes.iter().map(|node| job(&description, node, &shown)).collect::<Result<_, _>>()?;
        let rows = self.all(&jobs, global.json)?;
        if global.json {
            report::json(&rows)?;
        }
        verdict(&rows)
    }

    /// All nodes at once, for a check mostly waits; lines are printed as they come.
    fn all(&self, jobs: &[Job], quiet: bool) -> anyhow::Result<Vec<Row>> {
        let mut rows: Vec<Row> =
            jobs.iter().map(|job| Row { node: job.node.clone(), checks: Vec::new(), error: None }).collect();
        let timeout = Duration::from_secs(self.timeout);
        std::thread::scope(|scope| {
            let (sender, events) = mpsc::channel();
            for (at, job) in jobs.iter().enumerate() {
                let sender = sender.clone();
                scope.spawn(move || job.run(timeout, &mut |event| _ = sender.send((at, event))));
            }
            drop(sender);
            let width = jobs.iter().map(|job| job.node.len()).max().unwrap_or(0);
            for (at, event) in events {
                let Some(row) = rows.get_mut(at) else { continue };
                if !quiet {
                    report::print(&line(&row.node, width, &event))?;
                }
                match event {
                    Event::Checked(checked) => row.checks.push(checked),
                    Event::Failed(why) => row.error = Some(why),
                    Event::Finished => {}
                }
            }
            anyhow::Ok(())
        })?;
        Ok(rows)
    }
}

/// What is run for a node. An owner's command is a list of templates, and may use `known_hosts`.
fn job(description: &Description, node: &Node, known_hosts: &str) -> anyhow::Result<Job> {
    let values =
        Values::new(&description.cluster, &description.overlays, node).with("known_hosts", known_hosts);
    let words = description.cluster.network.check.iter();
    let command: Result<Vec<String>, _> = words.map(|word| values.render("[network] check", word)).collect();
    let rendering = || format!("rendering the command that checks node `{}`", node.name);
    let overlays = description.overlays.expand_node(node);
    let files = check_files(&overlays).into_iter();
    let expected = files.map(|(file, overlay, check)| (file, overlay.name.to_string(), check.name.clone()));
    let known = description.overlays.names().iter().map(|name| name.to_string()).collect();
    Ok(Job {
        node: node.name.to_string(),
        command: command.with_context(rendering)?,
        expected: expected.collect(),
        overlays: known,
    })
}

fn line(node: &str, width: usize, event: &Event) -> String {
    match event {
        Event::Checked(checked) => {
            let state = if checked.passed { "ok    " } else { "FAILED" };
            let overlay = checked.overlay.as_deref().unwrap_or("?");
            let mut text = format!("{node:width$}  {state}  {overlay}: {}\n", checked.name);
            for output in checked.output.lines() {
                text.push_str(&format!("{:width$}          {output}\n", ""));
            }
            text
        }
        Event::Failed(why) => format!("{node:width$}  ERROR   {why}\n"),
        Event::Finished => String::new(),
    }
}

/// Status 1 with all that is wrong, each with the overlay that it belongs to.
fn verdict(rows: &[Row]) -> anyhow::Result<ExitCode> {
    let failed = |row: &Row| row.checks.iter().filter(|c| !c.passed).cloned().collect::<Vec<_>>();
    let total: usize = rows.iter().map(|row| row.checks.len()).sum();
    let mut lines = Vec::new();
    let (mut bad, mut hint) = (0, None);
    for row in rows {
        for checked in failed(row) {
            bad += 1;
            let overlay = checked.overlay.as_deref().unwrap_or("?");
            lines.push(format!("node `{}`, overlay `{overlay}`: {}", row.node, checked.name));
            let file = checked.file.unwrap_or_default();
            hint.get_or_insert(format!("run `sh -x /usr/lib/gt/checks/{file}` on `{}`", row.node));
        }
        if let Some(why) = &row.error {
            lines.push(format!("node `{}`: {why}", row.node));
        }
    }
    if lines.is_empty() {
        return Ok(ExitCode::SUCCESS);
    }
    let fallback = "try the command of `[network] check` by hand, or see `gt-image status`";
    let error = anyhow::anyhow!("{}", lines.join("\n"));
    let error = error.context(Hint(hint.unwrap_or_else(|| fallback.into())));
    Err(match bad {
        0 => error.context("not every check was run"),
        _ => error.context(format!("{bad} of {total} checks failed")),
    })
}
