//! The owner's command for one node, and its lines as they come.
//! Must not know: what the command is.
//! Spec: docs/operating.md, "Checks".

use std::io::{BufRead, BufReader, Read};
use std::process::{Command, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::{Duration, Instant};

use super::Checked;
use super::said::Said;

/// Bytes of one line that are taken: a check that prints without end must not fill the memory.
const LINE_MAX: u64 = 64 << 10;

/// What is run for one node.
pub(super) struct Job {
    /// The node.
    pub node: String,
    /// Program and arguments.
    pub command: Vec<String>,
    /// File, overlay and name of each check, as the description has them.
    pub expected: Vec<(String, String, String)>,
    /// All overlays that there are.
    pub overlays: Vec<String>,
}

/// What happens while a job runs.
pub(super) enum Event {
    /// A check came to its end.
    Checked(Checked),
    /// Not all checks ran.
    Failed(String),
    /// The node said that it was through.
    Finished,
}

impl Job {
    /// Runs the command. What it says on stderr goes to ours.
    pub(super) fn run(&self, timeout: Duration, tell: &mut dyn FnMut(Event)) {
        match self.checks(timeout, tell) {
            Ok(()) => tell(Event::Finished),
            Err(why) => tell(Event::Failed(why)),
        }
    }

    fn checks(&self, timeout: Duration, tell: &mut dyn FnMut(Event)) -> Result<(), String> {
        let shown = self.command.join(" ");
        // The loader lets no empty command through.
        let (program, arguments) = self.command.split_first().ok_or("the command is empty")?;
        let mut command = Command::new(program);
        command.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped());
        let mut child = command.spawn().map_err(|e| format!("running `{shown}`: {e}"))?;
        let lines = child.stdout.take().map(lines).ok_or("it has no output")?;
        let (deadline, mut said) = (Instant::now() + timeout, Said::new(&self.expected, &self.overlays));
        let ended = loop {
            match lines.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(line) => said.line(&line).into_iter().for_each(|checked| tell(Event::Checked(checked))),
                Err(RecvTimeoutError::Disconnected) => break true,
                Err(RecvTimeoutError::Timeout) => break false,
            }
        };
        said.end().into_iter().for_each(|checked| tell(Event::Checked(checked)));
        if !ended {
            // It may have ended in this moment.
            child.kill().ok();
        }
        let status = child.wait().map_err(|e| format!("waiting for `{shown}`: {e}"))?;
        match (said.finished, ended) {
            // Its status repeats what the lines said.
            (true, _) => Ok(()),
            (false, true) => Err(format!("`{shown}` ended with {status} before all checks had run")),
            (false, false) => Err(format!("its checks were not done after {} s", timeout.as_secs())),
        }
    }
}

/// The lines of an output. Read by a thread of their own, so that waiting for one can end.
fn lines(output: impl Read + Send + 'static) -> mpsc::Receiver<String> {
    let (sender, receiver) = mpsc::channel();
    std::thread::spawn(move || {
        let mut output = BufReader::new(output);
        loop {
            let mut line = Vec::new();
            match output.by_ref().take(LINE_MAX).read_until(b'\n', &mut line) {
                Ok(0) | Err(_) => return,
                Ok(_) => {}
            }
            let text = String::from_utf8_lossy(&line);
            if sender.send(crate::tree::printable(text.trim_end_matches(['\n', '\r']).as_bytes())).is_err() {
                return;
            }
        }
    });
    receiver
}
