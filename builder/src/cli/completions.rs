//! `gt-image completions` and `gt-image man`: generated from the command line's own description.
//! Must not know: what commands do.
//! Spec: clap_complete and clap_mangen; man(7).

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use clap::Args;

/// Print shell completions
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  gt-image completions bash > /etc/bash_completion.d/gt-image
  gt-image completions zsh > ~/.zfunc/_gt-image")]
pub struct Completions {
    /// The shell
    shell: clap_complete::Shell,
}

impl Completions {
    pub(super) fn run(&self) -> anyhow::Result<ExitCode> {
        let mut out = Vec::new();
        clap_complete::generate(self.shell, &mut super::command(), "gt-image", &mut out);
        std::io::stdout().lock().write_all(&out)?;
        Ok(ExitCode::SUCCESS)
    }
}

/// Print the manual page, or write one for each command
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  gt-image man | man -l -                  read it
  gt-image man --out /usr/local/share/man/man1
  gt-image man --markdown docs/reference   the pages of the docs")]
pub struct Man {
    /// Write gt-image.1, gt-image-build.1 and so on here
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Write a page of Markdown for each command, and an index, into this folder
    #[arg(long, value_name = "DIR", conflicts_with = "out")]
    markdown: Option<PathBuf>,
    /// With --markdown: write nothing, and end with 1 when a page is stale
    #[arg(long, requires = "markdown")]
    check: bool,
}

impl Man {
    pub(super) fn run(&self) -> anyhow::Result<ExitCode> {
        if let Some(folder) = &self.markdown {
            return super::reference::pages().keep(folder, self.check);
        }
        match &self.out {
            Some(dir) => {
                std::fs::create_dir_all(dir).with_context(|| format!("making `{}`", dir.display()))?;
                clap_mangen::generate_to(super::command(), dir)
                    .with_context(|| format!("writing manual pages to `{}`", dir.display()))?;
            }
            None => clap_mangen::Man::new(super::command()).render(&mut std::io::stdout().lock())?,
        }
        Ok(ExitCode::SUCCESS)
    }
}
