//! Findings as a person reads them, and as a program does.
//! Must not know: what was looked at.
//! Spec: style.md section 5: words, not colour alone; 80 columns.

use gt_netboot::doctor::{Finding, State};
use schemars::JsonSchema;
use serde::Serialize;

const WIDTH: usize = 80;
/// Where a finding's text begins, and that of its lines below.
const TEXT: usize = 13;
const BELOW: usize = TEXT + 10;

/// All that was found.
#[derive(Debug, Default, Serialize, JsonSchema)]
#[schemars(title = "output-doctor")]
pub struct Report {
    /// In the order in which things were looked at.
    findings: Vec<Row>,
    /// How many there are of each state.
    counts: Counts,
}

/// How many findings there are of each state.
#[derive(Debug, Default, Serialize, JsonSchema)]
struct Counts {
    /// A Pi will not boot, or not well.
    fault: usize,
    /// It works, or may work, and a person should look.
    advice: usize,
    /// As it should be.
    ok: usize,
    /// It could not be looked at.
    unchecked: usize,
}

/// One finding.
#[derive(Debug, Serialize, JsonSchema)]
struct Row {
    /// `machine and server`, `DHCP`, `boot files` or `bootloaders`.
    group: &'static str,
    /// What it came to.
    state: Word,
    /// What was looked at.
    subject: String,
    /// What there is; why not, if it is unchecked.
    found: String,
    /// What should be.
    #[serde(skip_serializing_if = "String::is_empty")]
    expected: String,
    /// The command, or the edit, that mends it.
    #[serde(skip_serializing_if = "Option::is_none")]
    hint: Option<String>,
}

/// What a finding came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
enum Word {
    /// As it should be.
    Ok,
    /// A Pi will not boot, or not well.
    Fault,
    /// It works, or may work, and a person should look.
    Advice,
    /// It could not be looked at.
    Unchecked,
}

impl From<State> for Word {
    fn from(state: State) -> Word {
        match state {
            State::Good => Word::Ok,
            State::Fault => Word::Fault,
            State::Advice => Word::Advice,
            State::Unchecked => Word::Unchecked,
        }
    }
}

impl Word {
    fn as_str(self) -> &'static str {
        match self {
            Word::Ok => "ok",
            Word::Fault => "fault",
            Word::Advice => "advice",
            Word::Unchecked => "unchecked",
        }
    }
}

impl Report {
    /// Takes a group's findings in and gives their lines.
    pub fn add(&mut self, group: &'static str, findings: Vec<Finding>) -> String {
        if findings.is_empty() {
            return String::new();
        }
        let mut text = format!("{group}\n");
        for finding in findings {
            let row = Row {
                group,
                state: finding.state.into(),
                subject: finding.subject,
                found: finding.found,
                expected: finding.expected,
                hint: finding.hint,
            };
            let counts = &mut self.counts;
            *match row.state {
                Word::Ok => &mut counts.ok,
                Word::Fault => &mut counts.fault,
                Word::Advice => &mut counts.advice,
                Word::Unchecked => &mut counts.unchecked,
            } += 1;
            text.push_str(&lines(&row));
            self.findings.push(row);
        }
        text.push('\n');
        text
    }

    /// True if a Pi will not boot, or not well.
    pub fn has_faults(&self) -> bool {
        self.counts.fault > 0
    }

    /// The last line.
    pub fn summary(&self) -> String {
        let Counts { fault, advice, ok, unchecked } = self.counts;
        let faults = if fault == 1 { "fault" } else { "faults" };
        format!("{fault} {faults}, {advice} advice, {ok} ok, {unchecked} unchecked\n")
    }
}

/// A line for what is as it should be; for the rest one more for each thing that there is to say.
fn lines(row: &Row) -> String {
    let head = format!("  {:<9}  ", row.state.as_str());
    let hint = row.hint.as_deref().map(|hint| ("hint", hint));
    let (subject, below) = match row.state {
        Word::Ok | Word::Unchecked => (format!("{}: {}", row.subject, row.found), vec![]),
        Word::Fault | Word::Advice => {
            (row.subject.clone(), vec![("found", row.found.as_str()), ("expected", &row.expected)])
        }
    };
    let mut out = wrapped(&head, TEXT, &subject);
    for (label, text) in below.into_iter().chain(hint) {
        out.push_str(&wrapped(&format!("{:TEXT$}{label:<10}", ""), BELOW, text));
    }
    out
}

/// `text` behind `head`, broken between words, each further line indented. Names of processes and
/// interfaces are others' text: no control character may reach a terminal.
fn wrapped(head: &str, indent: usize, text: &str) -> String {
    let clean: String = text.chars().map(|c| if c.is_control() { '?' } else { c }).collect();
    let (mut out, mut column) = (head.to_owned(), indent);
    for word in clean.split_ascii_whitespace() {
        let wide = word.chars().count();
        if column > indent && column + 1 + wide > WIDTH {
            out.push_str(&format!("\n{:indent$}", ""));
            column = indent;
        }
        if column > indent {
            out.push(' ');
            column += 1;
        }
        out.push_str(word);
        column += wide;
    }
    out.push('\n');
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn findings() -> Vec<Finding> {
        vec![
            Finding::good("UDP port 69 (TFTP)", "gt-image (process 812)"),
            Finding::fault(
                "TCP port 2049 (NFS)",
                "held by `ganesha.nfsd` (process 77) on 0.0.0.0",
                "free, or held by `gt-image`",
                "run `sudo systemctl disable --now nfs-ganesha`, or give the server another port",
            ),
            Finding::advice("interface `lo\x1b[2J`", "loopback: no Pi is there", "a wired one", "mend it"),
            Finding::unchecked("firewall", "`nft list ruleset`: Operation not permitted (you must be root)"),
            Finding { hint: Some("run it as root".into()), ..Finding::unchecked("DHCP", "no right") },
        ]
    }

    #[test]
    fn findings_as_a_person_reads_them() {
        let mut report = Report::default();
        assert_eq!(report.add("nothing", vec![]), "");
        assert_eq!(report.summary(), "0 faults, 0 advice, 0 ok, 0 unchecked\n");
        assert!(!report.has_faults());
        let want = "\
machine
  ok         UDP port 69 (TFTP): gt-image (process 812)
  fault      TCP port 2049 (NFS)
             found     held by `ganesha.nfsd` (process 77) on 0.0.0.0
             expected  free, or held by `gt-image`
             hint      run `sudo systemctl disable --now nfs-ganesha`, or give
                       the server another port
  advice     interface `lo?[2J`
             found     loopback: no Pi is there
             expected  a wired one
             hint      mend it
  unchecked  firewall: `nft list ruleset`: Operation not permitted (you must be
             root)
  unchecked  DHCP: no right
             hint      run it as root

";
        let text = report.add("machine", findings());
        assert_eq!(text, want);
        assert!(text.lines().all(|line| line.len() <= WIDTH));
        assert_eq!(report.summary(), "1 fault, 1 advice, 1 ok, 2 unchecked\n");
        assert!(report.has_faults());
    }

    #[test]
    fn a_word_that_is_too_long_stays_whole() {
        let long = "x".repeat(90);
        assert_eq!(wrapped("- ", 2, &format!("a {long} b")), format!("- a\n  {long}\n  b\n"));
        assert_eq!(wrapped("- ", 2, &"é".repeat(78)), format!("- {}\n", "é".repeat(78)));
    }

    #[test]
    fn findings_as_a_program_reads_them() {
        let mut report = Report::default();
        report.add("machine", findings());
        let json = serde_json::to_value(&report).unwrap();
        assert_eq!(json["counts"], serde_json::json!({"fault": 1, "advice": 1, "ok": 1, "unchecked": 2}));
        let (ok, fault) = (&json["findings"][0], &json["findings"][1]);
        assert_eq!((&ok["state"], ok.get("hint"), ok.get("expected")), (&"ok".into(), None, None));
        assert_eq!((&fault["group"], &fault["state"]), (&"machine".into(), &"fault".into()));
        assert_eq!(json["findings"][2]["subject"], "interface `lo\x1b[2J`", "JSON escapes by itself");
    }
}
