//! The command or edit that mends an error, carried along with it as anyhow context.
//! Must not know: how errors are shown.
//! Spec: style.md section 5.

use std::fmt;

/// What the user can do; can be pasted where it names a command.
#[derive(Debug, Clone)]
pub struct Hint(pub String);

impl fmt::Display for Hint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "hint: {}", self.0)
    }
}
