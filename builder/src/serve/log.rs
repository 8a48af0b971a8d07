//! What the server tells its owner, one line a step, on stderr.
//! Must not know: what happened; it is given the words.
//! Spec: design.md section 10.
//!
//! ```text
//! fenn       dhcp   discover, serial d2a7ebcf
//! fenn       tftp   start4.elf, 2.26 MB
//! ```

use std::collections::HashMap;
use std::io::Write;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use schemars::JsonSchema;
use serde::Serialize;

use super::lock;

/// The same complaint about the same sender is told again after this.
const AGAIN: Duration = Duration::from_secs(30);
/// Complaints that are remembered. More senders than that are a flood, which is told once.
const SENDERS: usize = 512;

/// One line for a machine.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Line<'a> {
    /// Milliseconds since 1970.
    time: u64,
    /// A node, an address or `serve`.
    who: &'a str,
    /// `dhcp`, `tftp`, `nfs` and so on.
    area: &'a str,
    /// What happened.
    text: &'a str,
}

/// Writes lines for people, or JSON lines for machines.
#[derive(Debug, Default)]
pub struct Log {
    json: bool,
    told: Mutex<HashMap<(String, String), (Instant, u64)>>,
}

impl Log {
    /// `json` for one JSON object a line.
    pub fn new(json: bool) -> Log {
        Log { json, told: Mutex::default() }
    }

    /// One line. `who` is a node, an address or `serve`; `area` a word such as `dhcp`.
    pub fn line(&self, who: &str, area: &str, text: &str) {
        let line = render(self.json, who, area, text);
        // With stderr closed there is nobody to tell; one write keeps lines whole.
        let _ = std::io::stderr().lock().write_all(line.as_bytes());
    }

    /// A line about something that may come a thousand times a second: told at once, and then once
    /// for each half minute with how often it came.
    pub fn complain(&self, who: &str, area: &str, text: &str) {
        if let Some(more) = self.due(who, area, Instant::now()) {
            let more = if more > 0 { format!(" (and {more} more)") } else { String::new() };
            self.line(who, area, &format!("{text}{more}"));
        }
    }

    /// How many complaints were kept back, if one is due.
    fn due(&self, who: &str, area: &str, now: Instant) -> Option<u64> {
        let mut told = lock(&self.told);
        if told.len() >= SENDERS {
            told.retain(|_, (last, _)| now.duration_since(*last) < AGAIN);
        }
        let flood = told.len() >= SENDERS;
        let key = if flood { ("many".into(), area.into()) } else { (who.into(), area.into()) };
        match told.get_mut(&key) {
            Some((last, more)) if now.duration_since(*last) < AGAIN => {
                *more += 1;
                None
            }
            Some(entry) => Some(std::mem::replace(entry, (now, 0)).1),
            None => {
                told.insert(key, (now, 0));
                Some(0)
            }
        }
    }
}

fn render(json: bool, who: &str, area: &str, text: &str) -> String {
    if json {
        let line = Line { time: super::wall_clock(), who, area, text };
        // A struct of texts and a number can always be written.
        return format!("{}\n", serde_json::to_string(&line).unwrap_or_default());
    }
    // Names come from packets too: no control character may reach a terminal.
    let clean = |text: &str| text.chars().map(|c| if c.is_control() { '?' } else { c }).collect::<String>();
    format!("{:<10} {:<6} {}\n", clean(who), area, clean(text))
}

/// Bytes for people: `2.26 MB`.
pub fn bytes(n: u64) -> String {
    indicatif::DecimalBytes(n).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_for_people_or_machines() {
        assert_eq!(render(false, "fenn", "dhcp", "discover"), "fenn       dhcp   discover\n");
        assert_eq!(render(false, "\x1b[2J", "tftp", "a\nb"), "?[2J       tftp   a?b\n");
        let json: serde_json::Value = serde_json::from_str(&render(true, "fenn", "tftp", "a\nb")).unwrap();
        assert_eq!((&json["who"], &json["text"]), (&"fenn".into(), &"a\nb".into()));
        assert!(json["time"].as_u64().unwrap() > 1_600_000_000_000);
    }

    #[test]
    fn complaints_are_told_once_and_then_counted() {
        let log = Log::default();
        let start = Instant::now();
        assert_eq!(log.due("fenn", "tftp", start), Some(0));
        assert_eq!(log.due("fenn", "tftp", start), None);
        assert_eq!(log.due("fenn", "nfs", start), Some(0));
        assert_eq!(log.due("jast", "tftp", start), Some(0));
        assert_eq!(log.due("fenn", "tftp", start + AGAIN), Some(1));
        for n in 0..5000 {
            log.due(&format!("10.0.{n}"), "tftp", start);
        }
        assert!(lock(&log.told).len() <= SENDERS + 4);
    }
}
