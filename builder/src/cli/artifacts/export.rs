//! `gt-image artifacts export`: a folder with all that a machine without a network needs.
//! Must not know: networks.
//! Spec: docs/artifacts.md; `sha256sum -c` reads the list that is written.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use clap::Args;
use schemars::JsonSchema;
use serde::Serialize;

use super::super::carry::{self, File};
use super::super::{Global, project::Project, report};
use crate::base::artifact::Origin;
use crate::base::fetch::FetchError;
use crate::base::lock::Artifact;
use crate::io::progress::Progress;
use crate::overlay::Description;

/// Copy artifacts that are here into a folder, for another machine
///
/// With a list SHA256SUMS. The folder can be imported there, or stated as
/// `folder` of `[artifacts]` in cluster.toml.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  gt-image artifacts export /media/usb
  gt-image artifacts export folder consul --keep-going")]
pub struct Export {
    /// The folder, made when it is not there
    #[arg(value_name = "DIR")]
    folder: PathBuf,
    /// Which [default: all that a node uses]
    #[arg(value_name = "NAME")]
    names: Vec<String>,
    /// Leave out those that are not here
    #[arg(long)]
    keep_going: bool,
}

/// One file in the folder.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Row {
    artifact: String,
    file: String,
    /// SHA-256, 64 hex digits.
    sha256: String,
}

impl Export {
    pub(super) fn run(
        &self,
        global: &Global,
        project: &Project,
        description: &Description,
    ) -> anyhow::Result<ExitCode> {
        let fetcher = super::fetcher(global, project, description, true);
        let picked = super::pick(description, &self.names)?;
        let (mut here, mut missing) = (Vec::new(), Vec::new());
        for used in &picked {
            match fetcher.artifact(&used.artifact) {
                Ok(path) => here.push((&used.artifact, path)),
                Err(FetchError::Artifact(file)) => missing.push(*file),
                Err(error) => return Err(error.into()),
            }
        }
        if !missing.is_empty() && !self.keep_going {
            return Err(super::missing(picked.len(), &missing));
        }
        let rows = self
            .write(&here, &global.progress())
            .with_context(|| format!("filling `{}`", self.folder.display()))?;
        if global.json {
            report::json(&rows)?;
        } else {
            let lines = rows.iter().map(|row| format!("{}: {}\n", row.artifact, row.file));
            report::print(&lines.collect::<String>())?;
        }
        Ok(ExitCode::SUCCESS)
    }

    /// Copies the files, each under a name of its own.
    fn write(&self, here: &[(&Artifact, PathBuf)], progress: &Progress) -> anyhow::Result<Vec<Row>> {
        let (mut rows, mut files, mut taken) = (Vec::new(), Vec::new(), BTreeSet::new());
        for (artifact, from) in here {
            let mut name = filename(artifact);
            if !taken.insert(name.clone()) {
                name = format!("{}-{name}", artifact.name);
                taken.insert(name.clone());
            }
            let sha256 = artifact.sha256;
            let file = self.folder.join(&name).display().to_string();
            rows.push(Row { artifact: artifact.name.clone(), file, sha256: sha256.hex() });
            files.push(File { name, sha256, from: from.clone() });
        }
        carry::fill(&self.folder, &files, progress)?;
        Ok(rows)
    }
}

/// The name upstream; one like it for a wheel, whose full name only pip knows.
pub(in crate::cli) fn filename(artifact: &Artifact) -> String {
    match (&artifact.filename, &artifact.source) {
        (Some(name), _) => name.clone(),
        (None, Origin::Wheel(wheel)) => {
            let package = wheel.package.replace(['-', '.'], "_").to_ascii_lowercase();
            format!("{package}-{}-{}.whl", wheel.version, wheel.platform)
        }
        (None, Origin::Url(_)) => artifact.name.clone(),
    }
}
