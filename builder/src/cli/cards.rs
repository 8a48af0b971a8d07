//! `gt-image cards`: which card was flashed as which node.
//! Must not know: how cards are written.

use std::process::ExitCode;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use clap::Args;

use super::{Global, project::Project, report};
use crate::flash::cards::{Card, Registry};

/// Show which card was flashed as which node, when and how often
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  gt-image cards
  gt-image cards --json")]
pub struct Cards {}

impl Cards {
    pub(super) fn run(&self, global: &Global) -> anyhow::Result<ExitCode> {
        let cards = Registry::of(&Project::find(global)?.store).cards()?;
        if global.json {
            report::json(&cards)?;
        } else {
            let none = if cards.is_empty() { "no card was flashed yet\n" } else { "" };
            report::print(&cards.iter().map(line).chain([none.into()]).collect::<String>())?;
        }
        Ok(ExitCode::SUCCESS)
    }
}

fn line(card: &Card) -> String {
    let since =
        SystemTime::now().duration_since(UNIX_EPOCH + Duration::from_secs(card.at)).unwrap_or_default();
    format!(
        "{:12} {:>10}  {:19}  {} ago, {}x  {} {}\n",
        card.node,
        indicatif::HumanBytes(card.size).to_string(),
        card.generation.get(..19).unwrap_or(&card.generation),
        indicatif::HumanDuration(since),
        card.times,
        card.model,
        card.id,
    )
}
