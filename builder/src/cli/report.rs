//! How the program ends: messages on stderr, and the exit status.
//! Must not know: commands.
//! Spec: style.md section 5: 0 done, 1 the user can mend it, 2 a bug of ours.

use std::io::{self, IsTerminal, Write};
use std::panic::{self, AssertUnwindSafe};
use std::process::ExitCode;

use clap::ColorChoice;

const BUGS: &str = "https://github.com/goldentooth/gt-image/issues";

/// Whether messages have colours: on a terminal, unless `NO_COLOR` (no-color.org) or the user says otherwise.
pub fn has_colours(choice: ColorChoice) -> bool {
    let unwanted = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    let dumb = std::env::var_os("TERM").is_none_or(|term| term == "dumb");
    match choice {
        ColorChoice::Always => true,
        ColorChoice::Never => false,
        ColorChoice::Auto => io::stderr().is_terminal() && !unwanted && !dumb,
    }
}

/// Runs `body` and maps its end to an exit status; a panic is a bug and ends with 2.
pub fn run(colours: bool, body: impl FnOnce() -> anyhow::Result<ExitCode>) -> ExitCode {
    match panic::catch_unwind(AssertUnwindSafe(body)) {
        Ok(Ok(code)) => code,
        Ok(Err(error)) => {
            // A reader such as `head` that has seen enough is no fault.
            let closed = error.chain().any(|cause| {
                cause.downcast_ref::<io::Error>().is_some_and(|e| e.kind() == io::ErrorKind::BrokenPipe)
            });
            if closed {
                return ExitCode::SUCCESS;
            }
            let text = describe(&error);
            say(&if colours { coloured(&text) } else { text });
            ExitCode::from(1)
        }
        Err(_) => {
            say(&format!("error: internal: this is a bug in gt-image\n\nhint: report it at {BUGS}\n"));
            ExitCode::from(2)
        }
    }
}

/// Prints what clap has to say. Help and version are no errors; clap's own status for usage errors
/// would be 2, which is ours for bugs.
pub fn usage(error: &clap::Error) -> ExitCode {
    // A closed terminal must not hide the exit status.
    let _ = error.print();
    if error.use_stderr() { ExitCode::from(1) } else { ExitCode::SUCCESS }
}

/// The error, its causes from outer to inner, then the hint.
fn describe(error: &anyhow::Error) -> String {
    let mut text = String::new();
    let mut seen = String::new();
    let mut hint = None;
    for cause in error.chain().map(ToString::to_string) {
        if let Some(found) = cause.strip_prefix("hint: ") {
            hint.get_or_insert_with(|| found.to_owned());
            continue;
        }
        // Some libraries repeat their source in their own message.
        if !seen.is_empty() && seen.ends_with(&cause) {
            continue;
        }
        let label = if text.is_empty() { "error: " } else { "  cause: " };
        let indent = format!("\n{}", " ".repeat(label.len()));
        text.push_str(label);
        text.push_str(&cause.trim_end().replace('\n', &indent));
        text.push('\n');
        seen = cause;
    }
    if let Some(hint) = hint {
        text.push_str(&format!("\nhint: {hint}\n"));
    }
    text
}

/// The same with its labels in clap's colours, so that both kinds of errors look alike.
fn coloured(text: &str) -> String {
    let styles = clap::builder::Styles::styled();
    let paint = |line: &str, label: &str, style: &clap::builder::styling::Style| {
        line.strip_prefix(label).map(|rest| format!("{style}{label}{style:#}{rest}\n"))
    };
    let line = |line: &str| {
        let error = paint(line, "error:", styles.get_error());
        error.or_else(|| paint(line, "hint:", styles.get_valid())).unwrap_or_else(|| format!("{line}\n"))
    };
    text.lines().map(line).collect()
}

fn say(text: &str) {
    // With stderr closed there is nobody to tell.
    let _ = io::stderr().write_all(text.as_bytes());
}

/// Prints data for a machine: one JSON value and a line end, on stdout.
pub fn json(value: &impl serde::Serialize) -> anyhow::Result<()> {
    let mut out = io::stdout().lock();
    serde_json::to_writer_pretty(&mut out, value)?;
    Ok(out.write_all(b"\n")?)
}

/// Prints data for a person on stdout.
pub fn print(text: &str) -> anyhow::Result<()> {
    Ok(io::stdout().lock().write_all(text.as_bytes())?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hint::Hint;
    use anyhow::Context;

    #[test]
    fn causes_go_from_outer_to_inner_and_the_hint_is_last() {
        let error = Err::<(), _>(anyhow::anyhow!("no such package"))
            .context(Hint("run `gt-image lock`".into()))
            .context("building node `fenn`")
            .unwrap_err();
        assert_eq!(
            describe(&error),
            "error: building node `fenn`\n  cause: no such package\n\nhint: run `gt-image lock`\n"
        );
    }

    #[test]
    fn messages_of_several_lines_keep_their_shape() {
        let error = anyhow::anyhow!("a:1: x\na:2: y").context("loading");
        assert_eq!(describe(&error), "error: loading\n  cause: a:1: x\n         a:2: y\n");
    }

    #[test]
    fn labels_alone_have_colours() {
        let plain = "error: x\n  cause: error: y\n\nhint: z\n";
        let text = coloured(plain);
        assert!(
            text.starts_with("\u{1b}[1m\u{1b}[31merror:\u{1b}[0m x\n  cause: error: y\n\n\u{1b}["),
            "{text:?}"
        );
        assert!(text.ends_with("hint:\u{1b}[0m z\n"), "{text:?}");
    }

    #[test]
    fn a_panic_is_status_2() {
        let quiet = panic::take_hook();
        panic::set_hook(Box::new(|_| {}));
        let code = run(false, || panic!("a bug"));
        panic::set_hook(quiet);
        assert_eq!(format!("{code:?}"), format!("{:?}", ExitCode::from(2)));
    }
}
