//! `gt-image artifacts fetch`: upstream files into the cache, before a build needs them.
//! Must not know: mirrors, retries.
//! Spec: docs/artifacts.md.

use std::process::ExitCode;

use clap::Args;

use super::super::{Global, project::Project, report};
use super::list::Row;
use crate::base::fetch::FetchError;
use crate::base::lock;
use crate::overlay::Description;

/// Fetch artifacts into the cache; what broke off goes on where it ended
///
/// From the mirrors and the folder of `[artifacts]` in cluster.toml, then from
/// upstream. Ends with 1 and a list when some cannot be had.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  gt-image artifacts fetch               all that a node uses
  gt-image artifacts fetch consul vault --keep-going")]
pub struct Fetch {
    /// Which [default: all that a node uses]
    #[arg(value_name = "NAME")]
    names: Vec<String>,
    /// Go on with the others when one cannot be had
    #[arg(long)]
    keep_going: bool,
}

impl Fetch {
    pub(super) fn run(
        &self,
        global: &Global,
        project: &Project,
        description: &Description,
    ) -> anyhow::Result<ExitCode> {
        let fetcher = super::fetcher(global, project, description, false);
        let picked = super::pick(description, &self.names)?;
        let wanted: Vec<&lock::Artifact> = picked.iter().map(|used| &used.artifact).collect();
        let had: Vec<Option<_>> = if self.keep_going {
            fetcher.artifacts(&wanted).into_iter().map(Some).collect()
        } else {
            fetcher.artifacts_or_stop(&wanted)
        };
        let (mut missing, mut skipped) = (Vec::new(), 0);
        for had in had {
            match had {
                Some(Ok(_)) => {}
                Some(Err(FetchError::Artifact(file))) => missing.push(*file),
                Some(Err(error)) => return Err(error.into()),
                None => skipped += 1,
            }
        }
        if global.json || missing.is_empty() {
            let rows = picked.iter().map(|used| Row::new(used, &fetcher)).collect::<Result<Vec<_>, _>>()?;
            if global.json {
                report::json(&rows)?;
            } else {
                let path = |row: &Row| Some(format!("{}: {}\n", row.name, row.path.as_ref()?));
                report::print(&rows.iter().filter_map(path).collect::<String>())?;
            }
        }
        if missing.is_empty() {
            return Ok(ExitCode::SUCCESS);
        }
        if skipped > 0 {
            let told = format!("{skipped} more were not asked for; `--keep-going` asks for all");
            global.progress().say(&told);
        }
        Err(super::missing(wanted.len(), &missing))
    }
}
