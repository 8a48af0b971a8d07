//! `gt-image status`: what the running server knows of the nodes.
//! Must not know: how it is known, how it is laid out ([`super::timeline`]).
//! Spec: design.md section 13, "Status".

use std::io::{self, IsTerminal, Write};
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;

use super::server::{Server, Which};
use super::{Global, Hint, report, timeline};
use crate::diagnostic::nearest;
use crate::serve::status::Status as Seen;

/// Between two tries to reach a server that ended while it was watched.
const AGAIN: Duration = Duration::from_secs(2);
/// Clears a terminal and goes to its first line (ECMA-48: ED 2, CUP).
const CLEAR: &str = "\x1b[2J\x1b[H";

/// Show nodes, strangers and the last boot, as the server sees them
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  gt-image status                  all nodes, strangers and problems
  gt-image status --node fenn      fenn's last boot, step by step
  gt-image status --watch")]
pub struct Status {
    #[command(flatten)]
    server: Which,
    /// Only this node, and its last boot
    #[arg(long, value_name = "NAME")]
    node: Option<String>,
    /// Show every change until interrupted
    #[arg(long)]
    watch: bool,
    /// How many boots of each node `--json` gives
    #[arg(long, value_name = "N", default_value_t = 5)]
    boots: usize,
}

impl Status {
    pub(super) fn run(&self, global: &Global) -> anyhow::Result<ExitCode> {
        let server = self.server.find(global)?;
        if self.watch {
            return self.watch(&server, global);
        }
        let status = self.pick(server.status(if global.json { self.boots } else { 1 })?)?;
        if global.json {
            report::json(&status)?;
        } else {
            report::print(&timeline::page(&status, self.node.as_deref()))?;
        }
        Ok(ExitCode::SUCCESS)
    }

    /// With `--json` a line for each change; on a terminal a page that stays in its place; else a page
    /// for each change.
    fn watch(&self, server: &Server, global: &Global) -> anyhow::Result<ExitCode> {
        let clear = if io::stdout().is_terminal() { CLEAR } else { "" };
        loop {
            for status in server.events(if global.json { self.boots } else { 1 })? {
                // A stream that breaks is begun anew; a server that is gone ends the loop above.
                let Ok(status) = status else { break };
                let status = self.pick(status)?;
                let text = if global.json {
                    format!("{}\n", serde_json::to_string(&status)?)
                } else {
                    format!("{clear}{}\n", timeline::page(&status, self.node.as_deref()))
                };
                report::print(&text)?;
                io::stdout().flush()?;
            }
            std::thread::sleep(AGAIN);
        }
    }

    /// The node that was asked for, or all.
    fn pick(&self, mut status: Seen) -> anyhow::Result<Seen> {
        let Some(name) = &self.node else { return Ok(status) };
        if status.node(name).is_none() {
            let near = nearest(name, status.nodes.iter().map(|node| node.name.as_str()));
            let hint = match near {
                Some(near) => format!("did you mean `{near}`? `gt-image status` shows all nodes"),
                None => "run `gt-image status` to see all nodes".into(),
            };
            return Err(anyhow::anyhow!("the server has no node `{name}`").context(Hint(hint)));
        }
        status.nodes.retain(|node| node.name == *name);
        Ok(status)
    }
}
