//! The command line: arguments in, one command run, exit status out.
//! Must not know: how anything is built; each command is one file.
//! Spec: design.md section 11.

mod adopt;
mod artifacts;
mod build;
mod cache;
mod cards;
mod carry;
mod check;
mod completions;
mod diff;
mod doctor;
mod export;
mod flash;
mod gc;
mod inspect;
mod known_hosts;
mod lock;
mod overlays;
mod pages;
mod plan;
mod project;
mod reference;
mod report;
mod reset;
mod rollback;
mod select;
mod serve;
mod server;
mod status;
mod subject;
mod timeline;
mod verify;
mod why;

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, FromArgMatches, Parser, Subcommand, ValueEnum};

use crate::hint::Hint;
use crate::io::progress::{Mode, Progress};

/// Builds reproducible Raspberry Pi images, flashes them, serves them over the network.
///
/// A node is a pure function of cluster.toml, the overlays and the lock.
#[derive(Parser, Debug)]
#[command(name = "gt-image", version, max_term_width = 80, after_help = EXAMPLES)]
pub struct Cli {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: Command,
}

const EXAMPLES: &str = "Examples:
  gt-image plan --all              what each node would be
  gt-image build --node fenn       fenn's disk image, in images/out/fenn/
  gt-image why /etc/hosts --node fenn
  gt-image diff fenn jast          what differs between two nodes";

/// Options of every command.
#[derive(Args, Debug, Clone)]
#[command(next_help_heading = "Options of every command")]
pub struct Global {
    /// The cluster description [default: cluster.toml, here or in a directory above]
    #[arg(long, value_name = "FILE", global = true)]
    cluster: Option<PathBuf>,
    /// Where objects and trees are kept [default: images/store beside it]
    #[arg(long, value_name = "DIR", global = true)]
    store: Option<PathBuf>,
    /// Where downloads are kept [default: images/cache beside it]
    #[arg(long, value_name = "DIR", global = true)]
    cache: Option<PathBuf>,
    /// The cluster's secret key [default: secrets/cluster.key beside it]
    #[arg(long, value_name = "FILE", global = true)]
    key: Option<PathBuf>,
    /// Print the result as JSON on stdout
    #[arg(long, global = true)]
    json: bool,
    /// Say more, such as the output of package scripts
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    verbose: u8,
    /// When to use colours
    #[arg(long, value_name = "WHEN", global = true, default_value = "auto")]
    color: clap::ColorChoice,
    /// How to show progress
    #[arg(long, value_name = "HOW", global = true, default_value = "auto")]
    progress: HowProgress,
}

#[derive(ValueEnum, Clone, Copy, Debug)]
enum HowProgress {
    /// Bars on a terminal, else plain
    Auto,
    /// A line a task
    Plain,
    /// Nothing
    Off,
}

impl Global {
    #[cfg(test)]
    fn for_tests() -> Global {
        #[derive(Parser)]
        struct Only {
            #[command(flatten)]
            global: Global,
        }
        Only::parse_from(["gt-image"]).global
    }

    fn progress(&self) -> Progress {
        Progress::new(match self.progress {
            HowProgress::Auto => Mode::Auto,
            HowProgress::Plain => Mode::Plain,
            HowProgress::Off => Mode::Off,
        })
    }
}

#[derive(Subcommand, Debug)]
enum Command {
    Lock(lock::Lock),
    Plan(plan::Plan),
    Build(build::Build),
    Export(export::Export),
    Inspect(inspect::Inspect),
    Diff(diff::Diff),
    Why(why::Why),
    Artifacts(artifacts::Artifacts),
    Cache(cache::Cache),
    Flash(flash::Flash),
    Verify(verify::Verify),
    Cards(cards::Cards),
    Overlays(overlays::Overlays),
    Serve(serve::Serve),
    Status(status::Status),
    Doctor(doctor::Doctor),
    Adopt(adopt::Adopt),
    Rollback(rollback::Rollback),
    Reset(reset::Reset),
    Check(check::Check),
    KnownHosts(known_hosts::KnownHosts),
    Gc(gc::Gc),
    Completions(completions::Completions),
    Man(completions::Man),
}

/// Nodes as commands name them.
#[derive(Args, Debug, Clone)]
#[group(required = true, multiple = true)]
pub struct Nodes {
    /// The node; may be given several times
    #[arg(long, value_name = "NAME")]
    node: Vec<String>,
    /// Every node of the cluster
    #[arg(long, conflicts_with = "node")]
    all: bool,
}

/// Runs the program on the process's own arguments.
pub fn main() -> ExitCode {
    let color = color(std::env::args_os().skip(1));
    report::run(report::has_colours(color), || {
        let matches = command().color(color).try_get_matches();
        let cli = match matches.and_then(|matches| Cli::from_arg_matches(&matches)) {
            Ok(cli) => cli,
            Err(e) => return Ok(report::usage(&e)),
        };
        let global = &cli.global;
        match cli.command {
            Command::Lock(c) => c.run(global),
            Command::Plan(c) => c.run(global),
            Command::Build(c) => c.run(global),
            Command::Export(c) => c.run(global),
            Command::Inspect(c) => c.run(global),
            Command::Diff(c) => c.run(global),
            Command::Why(c) => c.run(global),
            Command::Artifacts(c) => c.run(global),
            Command::Cache(c) => c.run(global),
            Command::Flash(c) => c.run(global),
            Command::Verify(c) => c.run(global),
            Command::Cards(c) => c.run(global),
            Command::Overlays(c) => c.run(global),
            Command::Serve(c) => c.run(global),
            Command::Status(c) => c.run(global),
            Command::Doctor(c) => c.run(global),
            Command::Adopt(c) => c.run(global),
            Command::Rollback(c) => c.run(global),
            Command::Reset(c) => c.run(global),
            Command::Check(c) => c.run(global),
            Command::KnownHosts(c) => c.run(global),
            Command::Gc(c) => c.run(global),
            Command::Completions(c) => c.run(),
            Command::Man(c) => c.run(),
        }
    })
}

/// What `--color` says, looked for before the command line is understood: what there is to say about that has
/// colours too.
fn color(args: impl Iterator<Item = OsString>) -> clap::ColorChoice {
    let words: Vec<String> = args.map(|word| word.to_string_lossy().into_owned()).collect();
    let here = words.iter().zip(words.iter().skip(1).map(Some).chain([None]));
    let mut said = here.filter_map(|(word, next)| match word.strip_prefix("--color")? {
        "" => next?.parse().ok(),
        value => value.strip_prefix('=')?.parse().ok(),
    });
    said.next().unwrap_or_default()
}

/// The command line's own description, for completions, manual pages and docs.
pub fn command() -> clap::Command {
    <Cli as clap::CommandFactory>::command()
}

#[cfg(test)]
mod tests {
    use clap::ColorChoice;

    #[test]
    fn the_command_line_is_consistent() {
        super::command().debug_assert();
    }

    #[test]
    fn colours_are_chosen_before_anything_is_understood() {
        for (words, want) in [
            ("plan", ColorChoice::Auto),
            ("--color never plan", ColorChoice::Never),
            ("nonsense --color=always", ColorChoice::Always),
            ("plan --color", ColorChoice::Auto),
            ("plan --color maybe", ColorChoice::Auto),
        ] {
            assert_eq!(super::color(words.split(' ').map(Into::into)), want, "given {words:?}");
        }
    }
}
