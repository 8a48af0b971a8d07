//! `gt-image cache`: what locks need, carried from one machine's cache to another's.
//! Must not know: how a file is fetched.
//! Spec: docs/artifacts.md.

pub(super) mod export;
pub(super) mod import;

use std::path::Path;
use std::process::ExitCode;

use clap::{Args, Subcommand};

use super::{Global, project::Project};
use crate::base::fetch::Shelf;
use crate::digest::Digest;

/// Carry what a lock needs: packages, artifacts, images
///
/// The files are plain and named by their sha256, which is checked on the way
/// in. An archive may drop what a lock has; an export of the cache keeps it.
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub struct Cache {
    #[command(subcommand)]
    command: Command,
}

const EXAMPLES: &str = "Examples:
  gt-image cache export /media/usb         all that the locks of all nodes need
  gt-image cache export keep.tar --base raspios-lite
  gt-image cache import /media/usb keep.tar";

#[derive(Subcommand, Debug)]
enum Command {
    Export(export::Export),
    Import(import::Import),
}

impl Cache {
    pub(super) fn run(&self, global: &Global) -> anyhow::Result<ExitCode> {
        let project = Project::find(global)?;
        match &self.command {
            Command::Export(c) => c.run(global, &project),
            Command::Import(c) => c.run(global, &project),
        }
    }
}

const SHELVES: [(&str, Shelf); 2] = [("packages", Shelf::Packages), ("artifacts", Shelf::Artifacts)];

/// What a carried file is called: `packages/<64 hex digits>-munge_0.5_arm64.deb`.
fn name(shelf: Shelf, sha256: &Digest, filename: &str) -> String {
    let folder = SHELVES.iter().find(|(_, s)| *s == shelf).map_or("", |(folder, _)| folder);
    format!("{folder}/{}-{filename}", sha256.hex())
}

/// What a carried file says that it is.
fn of_name(path: &Path) -> Option<(Shelf, Digest)> {
    let folder = path.parent()?.file_name()?.to_str()?;
    let (_, shelf) = SHELVES.iter().find(|(name, _)| *name == folder)?;
    let (hex, _) = path.file_name()?.to_str()?.split_once('-')?;
    Some((*shelf, hex.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_says_what_the_file_is() {
        let digest = Digest::of(b"x");
        for (_, shelf) in SHELVES {
            let name = name(shelf, &digest, "a-b_1.deb");
            assert_eq!(of_name(&Path::new("/media/usb").join(&name)), Some((shelf, digest)));
            assert_eq!(of_name(&Path::new(".").join(&name)), Some((shelf, digest)));
        }
        for bad in ["", "/", "packages", "packages/x-y", "other/0-x", "packages/-"] {
            assert_eq!(of_name(Path::new(bad)), None, "{bad}");
        }
    }
}
