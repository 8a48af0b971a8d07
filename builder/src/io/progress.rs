//! Progress on long work, on stderr: bars on a terminal, a line now and then in a log, or nothing.
//! Must not know: what the work is.
//! Spec: style.md: data goes to stdout, talk to stderr.

use std::io::{IsTerminal, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use indicatif::{HumanBytes, MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};

/// How progress is shown: `--progress`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Mode {
    /// Bars on a terminal, plain lines elsewhere.
    #[default]
    Auto,
    /// One line when a task begins and one when it ends.
    Plain,
    /// Nothing.
    Off,
}

/// What a task counts.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Unit {
    /// Bytes, shown as KiB, MiB and so on with a rate.
    Bytes,
    /// Things: files, packages.
    Items,
}

/// The place where tasks show themselves. Cheap to clone and usable from any thread.
#[derive(Clone, Debug)]
pub struct Progress {
    mode: Mode,
    bars: MultiProgress,
}

impl Progress {
    /// Progress on stderr.
    pub fn new(mode: Mode) -> Progress {
        let terminal = std::io::stderr().is_terminal();
        let mode = match mode {
            Mode::Auto if !terminal => Mode::Plain,
            mode => mode,
        };
        let target =
            if mode == Mode::Auto { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
        Progress { mode, bars: MultiProgress::with_draw_target(target) }
    }

    /// No progress at all, for tests and `--progress off`.
    pub fn off() -> Progress {
        Progress::new(Mode::Off)
    }

    /// Prints a line above all bars.
    pub fn say(&self, line: &str) {
        match self.mode {
            Mode::Off => {}
            // A closed stderr must not end a build.
            Mode::Plain => _ = writeln!(std::io::stderr(), "{line}"),
            Mode::Auto => _ = self.bars.println(line),
        }
    }

    /// Begins a task of `total` units; `None` when the amount is unknown.
    pub fn task(&self, label: &str, unit: Unit, total: Option<u64>) -> Task {
        let bar = self.bars.add(ProgressBar::new(total.unwrap_or(0)));
        bar.set_style(style(unit, total.is_some()));
        bar.set_prefix(label.to_owned());
        if self.mode == Mode::Plain {
            self.say(&format!("{label} …"));
        }
        let begun = Instant::now();
        let task = Inner { progress: self.clone(), bar, label: label.into(), unit, begun, count: 0.into() };
        Task(Arc::new(task))
    }
}

fn style(unit: Unit, known: bool) -> ProgressStyle {
    let template = match (unit, known) {
        (Unit::Bytes, true) => {
            "{prefix:24} {bar:24} {bytes:>10} of {total_bytes} {bytes_per_sec} {eta} {msg}"
        }
        (Unit::Bytes, false) => "{prefix:24} {spinner} {bytes:>10} {bytes_per_sec} {msg}",
        (Unit::Items, true) => "{prefix:24} {bar:24} {pos:>6} of {len} {eta} {msg}",
        (Unit::Items, false) => "{prefix:24} {spinner} {pos:>6} {elapsed} {msg}",
    };
    // The templates are constants, and the tests read each of them.
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar())
}

/// A piece of work that is going on. It ends when all its clones are dropped.
#[derive(Clone, Debug)]
pub struct Task(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    progress: Progress,
    bar: ProgressBar,
    label: String,
    unit: Unit,
    begun: Instant,
    count: AtomicU64,
}

impl Task {
    /// So many more units are done.
    pub fn advance(&self, units: u64) {
        self.0.count.fetch_add(units, Ordering::Relaxed);
        self.0.bar.inc(units);
    }

    /// So many more units are to come, where the amount was not known.
    pub fn expect(&self, units: u64) {
        self.0.bar.set_style(style(self.0.unit, true));
        self.0.bar.set_length(self.0.bar.position().saturating_add(units));
    }

    /// What is being done just now, such as a file name.
    pub fn note(&self, text: &str) {
        self.0.bar.set_message(text.to_owned());
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
        let seconds = self.begun.elapsed().as_secs_f64();
        let count = self.count.load(Ordering::Relaxed);
        if self.progress.mode != Mode::Off && seconds >= 0.5 {
            let amount = match self.unit {
                Unit::Bytes => HumanBytes(count).to_string(),
                Unit::Items => count.to_string(),
            };
            self.progress.say(&format!("{:24} {amount}, {seconds:.1} s", self.label));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_template_is_one() {
        for unit in [Unit::Bytes, Unit::Items] {
            for total in [None, Some(10)] {
                let task = Progress::off().task("x", unit, total);
                task.advance(3);
                task.note("y");
                assert_eq!(task.0.count.load(Ordering::Relaxed), 3);
                style(unit, total.is_some());
            }
        }
    }
}
