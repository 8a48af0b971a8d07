//! A status as a person reads it, in 80 columns: nodes, strangers, and one boot step by step.
//! Must not know: where the status comes from.
//! Spec: design.md section 10; nothing is told by colour.

use std::fmt::Write as _;

use indicatif::HumanBytes;

use crate::cluster::Model;
use crate::sbom::utc;
use crate::serve::status::{Boot, Node, Outcome, Seen, Status, Step};

/// Widest name of a node that keeps the table in 80 columns.
const NAME: usize = 16;
/// Digits of a digest: as many as `inspect` shows.
const DIGEST: usize = 12;
/// Widest detail of a step.
const DETAIL: usize = 42;
/// Widest text of a problem.
const PROBLEM: usize = 76;

/// The whole page: all nodes, or one, and the last boot of them.
pub fn page(status: &Status, only: Option<&str>) -> String {
    let nodes: Vec<&Node> =
        status.nodes.iter().filter(|node| only.is_none_or(|name| node.name == name)).collect();
    let mut out = table(status.now, &nodes);
    out.push_str(&problems(status.now, &nodes));
    if only.is_none() {
        out.push_str(&others(status));
    }
    let last = nodes.iter().filter_map(|node| Some((*node, node.boots.first()?)));
    if let Some((node, boot)) = last.max_by_key(|(_, boot)| boot.id) {
        out.push('\n');
        out.push_str(&timeline(&node.name, boot, status.now));
    }
    out
}

fn table(now: u64, nodes: &[&Node]) -> String {
    let width = nodes.iter().map(|node| node.name.chars().count()).max().unwrap_or(0).clamp(4, NAME);
    let mut out = format!("{:width$}  {:15}  {:13}  LAST BOOT\n", "NODE", "ADDRESS", "GENERATION");
    let (mut behind, mut incomplete) = (false, false);
    for node in nodes {
        let mark = match (&node.generation, &node.pinned) {
            _ if node.incomplete => "!",
            (next, Some(runs)) if next.as_ref() != Some(runs) => "*",
            _ => "",
        };
        behind |= mark == "*";
        incomplete |= mark == "!";
        let digest = node.generation.as_deref().map_or("none", short);
        let (name, address) = (cut(&node.name, width), cut(&node.address, 15));
        let boot = node.boots.first().map_or("never seen".into(), |boot| summary(boot, now));
        // Writing to a String cannot fail, here and below.
        let _ = writeln!(out, "{name:width$}  {address:15}  {:13}  {boot}", format!("{digest}{mark}"));
    }
    if behind {
        out.push_str("* runs another: it gets this one at its next boot, `gt-image reset --node NODE`\n");
    }
    if incomplete {
        out.push_str("! incomplete: artifacts are missing, see `gt-image inspect --node NODE`\n");
    }
    out
}

fn problems(now: u64, nodes: &[&Node]) -> String {
    let mut out = String::new();
    for node in nodes {
        for problem in &node.problems {
            let (name, kind) = (cut(&node.name, NAME), problem.kind.as_str());
            let _ = writeln!(out, "  {name:NAME$}  {kind:7}  {}", times(problem.seen, now));
            let _ = writeln!(out, "    {}", cut(&problem.detail, PROBLEM));
        }
    }
    if out.is_empty() { out } else { format!("\nproblems: a node is not as cluster.toml has it\n{out}") }
}

fn summary(boot: &Boot, now: u64) -> String {
    let ago = age(now.saturating_sub(boot.began));
    match (boot.outcome, boot.until("login")) {
        (Outcome::Login, Some(at)) => format!("login {ago} ago, took {}", seconds(at)),
        (outcome, _) => format!("{}, begun {ago} ago", outcome.as_str()),
    }
}

fn others(status: &Status) -> String {
    let mut out = String::new();
    if !status.strangers.is_empty() {
        out.push_str("\nstrangers: they asked and are not in cluster.toml\n");
        for s in &status.strangers {
            let serial = s.serial.as_deref().map_or("unknown".into(), |serial| cut(serial, 8));
            let model = s.revision.as_deref().map_or(String::new(), board);
            let _ = writeln!(
                out,
                "  {:17}  serial {serial:8}  {model:14}  {}",
                cut(&s.mac, 17),
                times(s.seen, status.now)
            );
        }
        out.push_str("  `gt-image adopt MAC --name NAME` makes one a node\n");
    }
    if !status.servers.is_empty() {
        out.push_str("\nother DHCP servers\n");
        for server in &status.servers {
            let mac = server.mac.as_deref().map_or(String::new(), |mac| cut(mac, 17));
            let _ = writeln!(
                out,
                "  {:15}  {mac:17}  {}",
                cut(&server.address, 15),
                times(server.seen, status.now)
            );
        }
    }
    out
}

/// A revision code with the model that it stands for.
fn board(revision: &str) -> String {
    let code = u32::from_str_radix(revision.trim_start_matches("0x"), 16).ok();
    match code.and_then(Model::from_revision) {
        Some(model) => format!("{} ({})", cut(revision, 8), model.as_str()),
        None => cut(revision, 8),
    }
}

fn times(seen: Seen, now: u64) -> String {
    format!("{} times, last {} ago", seen.count, age(now.saturating_sub(seen.last)))
}

/// One boot, a line a step.
pub fn timeline(node: &str, boot: &Boot, now: u64) -> String {
    let began = i64::try_from(boot.began / 1000).unwrap_or(i64::MAX);
    let ago = age(now.saturating_sub(boot.began));
    let mut out = format!(
        "{}: boot {} of generation {}, {}\n  began {}, {ago} ago; {} sent\n",
        cut(node, 32),
        boot.id,
        short(&boot.generation),
        boot.outcome.as_str(),
        utc(began).replace('T', " ").replace('Z', " UTC"),
        HumanBytes(boot.bytes()),
    );
    steps(&boot.steps).for_each(|line| out.push_str(&line));
    out
}

/// Lines for steps. Files that are not there come in rows, as firmware looks for what most nodes have
/// not, and are one line.
pub fn steps(steps: &[Step]) -> impl Iterator<Item = String> {
    steps.chunk_by(|a, b| a.step == "missing" && b.step == "missing").map(|group| {
        // chunk_by gives no empty groups.
        let first = &group[0];
        let detail = match group.len() {
            1 => cut(&first.detail, DETAIL),
            n => {
                let names: Vec<&str> = group.iter().map(|step| step.detail.as_str()).collect();
                cut(&format!("{n} files: {}", names.join(", ")), DETAIL)
            }
        };
        let bytes = if first.bytes > 0 { HumanBytes(first.bytes).to_string() } else { String::new() };
        let at = seconds(first.at_ms);
        let line = format!("  {at:>10}  {:9}  {detail:DETAIL$}  {bytes:>10}", cut(&first.step, 9));
        format!("{}\n", line.trim_end())
    })
}

/// The first digits of a digest.
fn short(digest: &str) -> &str {
    let hex = digest.strip_prefix("sha256:").unwrap_or(digest);
    hex.get(..DIGEST).unwrap_or(hex)
}

fn seconds(ms: u64) -> String {
    if ms < 60_000 {
        format!("{}.{:03} s", ms / 1000, ms % 1000)
    } else {
        format!("{} min {:02} s", ms / 60_000, ms / 1000 % 60)
    }
}

/// The largest unit alone: nobody needs the seconds of a day.
fn age(ms: u64) -> String {
    match ms / 1000 {
        s @ 0..60 => format!("{s} s"),
        s @ 60..3600 => format!("{} min", s / 60),
        s @ 3600..86_400 => format!("{} h", s / 3600),
        s => format!("{} d", s / 86_400),
    }
}

/// At most so many characters, the last a mark when there were more. What came over the network must
/// not move the cursor.
fn cut(text: &str, most: usize) -> String {
    let clean = |c: char| if c.is_control() { '\u{fffd}' } else { c };
    if text.chars().count() <= most {
        return text.chars().map(clean).collect();
    }
    text.chars().map(clean).take(most - 1).chain(['…']).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::serve::status::tests::example;

    #[test]
    fn a_page_reads_like_this() {
        let want = "\
NODE  ADDRESS          GENERATION     LAST BOOT
fenn  10.9.0.15        abababababab   login 2 min ago, took 31.200 s
jast  10.9.0.19        none           never seen

problems: a node is not as cluster.toml has it
  jast              serial   3 times, last 1 min ago
    refused: its card came with serial 5b154510, not 00000013

strangers: they asked and are not in cluster.toml
  dc:a6:32:01:36:c2  serial 5b154510  c03111 (pi4)    3 times, last 1 min ago
  `gt-image adopt MAC --name NAME` makes one a node

other DHCP servers
  10.9.0.1                            3 times, last 1 min ago

fenn: boot 9 of generation abababababab, login
  began 2023-11-14 22:13:20 UTC, 2 min ago; 2.15 MiB sent
     0.000 s  discover
     1.204 s  file       start4.elf                                    2.15 MiB
     9.870 s  mount      /fenn
    31.200 s  login
";
        assert_eq!(page(&example(), None), want);
        let jast = page(&example(), Some("jast"));
        assert!(!jast.contains("fenn") && !jast.contains("strangers"), "{jast}");
        assert!(jast.contains("problems") && !page(&example(), Some("fenn")).contains("problems"), "{jast}");
    }

    #[test]
    fn marks_are_explained_where_they_are() {
        let mut status = example();
        status.nodes[0].pinned = Some(format!("sha256:{}", "cd".repeat(32)));
        status.nodes[1].incomplete = true;
        let text = page(&status, None);
        assert!(text.contains("abababababab*  login") && text.contains("\n* runs another"), "{text}");
        assert!(text.contains("none!") && text.contains("\n! incomplete"), "{text}");
    }

    #[test]
    fn files_that_are_not_there_are_one_line() {
        let step =
            |step: &str, detail: &str| Step { step: step.into(), at_ms: 5, detail: detail.into(), bytes: 0 };
        let given = [
            step("missing", "a"),
            step("missing", "b"),
            step("file", "c"),
            step("file", "d"),
            step("missing", "e"),
        ];
        let lines: Vec<String> =
            steps(&given).map(|l| l.split_whitespace().skip(2).collect::<Vec<_>>().join(" ")).collect();
        assert_eq!(lines, ["missing 2 files: a, b", "file c", "file d", "missing e"]);
    }

    #[test]
    fn nothing_is_wider_than_a_terminal_or_moves_its_cursor() {
        let mut status = example();
        status.now = u64::MAX;
        let long = "x\u{1b}[2J".repeat(40);
        status.nodes[0].name = long.clone();
        status.nodes[0].address = "255.255.255.255".into();
        status.nodes[0].boots[0].outcome = Outcome::Superseded;
        status.nodes[0].boots[0].steps.push(Step {
            step: long.clone(),
            at_ms: 3_599_999,
            detail: long.clone(),
            bytes: u64::MAX,
        });
        status.nodes[1].problems[0].detail = long.clone();
        status.strangers[0].serial = Some(long.clone());
        status.strangers[0].revision = Some(long.clone());
        status.servers[0].mac = Some(long.clone());
        status.servers[0].address = long;
        let text = page(&status, None);
        for line in text.lines() {
            assert!(line.chars().count() <= 96 && !line.contains(char::is_control), "{line:?}");
        }
        // Ages of this server's clock are a few digits, and then it is 80.
        status.now = example().now;
        for line in page(&status, None).lines() {
            assert!(line.chars().count() <= 80, "{} columns: {line}", line.chars().count());
        }
    }

    #[test]
    fn times_are_short() {
        for (ms, want) in
            [(0, "0 s"), (59_999, "59 s"), (60_000, "1 min"), (3_600_000, "1 h"), (200_000_000, "2 d")]
        {
            assert_eq!(age(ms), want);
        }
        assert_eq!((seconds(59_999), seconds(61_500)), ("59.999 s".into(), "1 min 01 s".into()));
    }
}
