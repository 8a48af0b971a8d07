//! Foreign programs that a base is made with: run with a known environment, output taken whole.
//! Must not know: what the programs say.

use std::io;
use std::process::{Command, Output, Stdio};

/// A foreign program could not be run.
#[derive(Debug, thiserror::Error)]
#[error("`{tool}` cannot be run: {source}")]
pub struct ToolError {
    /// The program.
    pub tool: String,
    /// Why.
    pub source: io::Error,
}

/// Environment that reaches the program: how to find programs, homes and the network. The locale is
/// fixed, since messages are read.
const KEPT: [&str; 10] = [
    "PATH",
    "HOME",
    "TMPDIR",
    "http_proxy",
    "https_proxy",
    "ftp_proxy",
    "all_proxy",
    "no_proxy",
    "HTTPS_PROXY",
    "NO_PROXY",
];

/// A command with a clean environment, no input and an English voice.
pub(super) fn command(tool: &str) -> Command {
    let mut command = Command::new(tool);
    command.env_clear().stdin(Stdio::null()).env("LC_ALL", "C.UTF-8").env("TZ", "UTC");
    for name in KEPT {
        if let Some(value) = std::env::var_os(name) {
            command.env(name, value);
        }
    }
    command
}

/// Runs a command to its end and takes its output.
pub(super) fn output(command: &mut Command) -> Result<Output, ToolError> {
    let tool = command.get_program().to_string_lossy().into_owned();
    command.output().map_err(|source| ToolError { tool, source })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_tool_is_named() {
        let error = output(&mut command("gt-image-no-such-tool")).unwrap_err();
        assert!(error.to_string().starts_with("`gt-image-no-such-tool` cannot be run: "), "{error}");
    }

    #[test]
    fn the_environment_is_ours() {
        let out = output(command("env").env("X", "1")).unwrap();
        let text = String::from_utf8(out.stdout).unwrap();
        assert!(text.contains("LC_ALL=C.UTF-8\n") && text.contains("X=1\n"), "{text}");
        assert!(!text.contains("CARGO_"), "{text}");
    }
}
