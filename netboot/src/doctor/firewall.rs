//! Whether this machine's own firewall lets the nodes' packets in.
//! Must not know: other machines; a switch that filters is found by its symptom alone (`reach`).
//! Spec: nft(8), the output of `nft list ruleset`. It is read as far as hand-written rules go: base chains
//! on the input hook, their policy, and rules that name a port or drop all. What it takes for shut is
//! worth a look, not proof.

use std::process::Command;

use super::Finding;
use super::ports::{Transport, Wanted};

/// Asks `nft`; says why it cannot.
///
/// # Errors
/// One line for a person.
pub fn look() -> Result<String, String> {
    let output = Command::new("nft").args(["list", "ruleset"]).output().map_err(|e| format!("`nft`: {e}"))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(format!("`nft list ruleset`: {}", said.lines().next().unwrap_or("it failed")))
}

/// What an input chain does with a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Open,
    Shut,
}

/// Each port passes every chain on the input hook.
pub fn check(ruleset: &str, wanted: &[Wanted]) -> Vec<Finding> {
    let chains = input_chains(ruleset);
    let shut: Vec<&Wanted> = wanted
        .iter()
        .filter(|wanted| chains.iter().any(|chain| verdict(chain, **wanted) == Verdict::Shut))
        .collect();
    if shut.is_empty() {
        let found = if chains.is_empty() { "no chain filters what comes in" } else { "lets all ports in" };
        return vec![Finding::good("firewall", found)];
    }
    shut.into_iter().map(|wanted| describe(*wanted)).collect()
}

fn describe(wanted: Wanted) -> Finding {
    let transport = transport(wanted);
    Finding::fault(
        format!("firewall, {transport} port {} ({})", wanted.port, wanted.service),
        "dropped by a chain on the input hook",
        "accepted from the nodes' network",
        format!("run `sudo nft insert rule TABLE CHAIN {transport} dport {} accept`", wanted.port),
    )
}

fn transport(wanted: Wanted) -> &'static str {
    if wanted.transport == Transport::Udp { "udp" } else { "tcp" }
}

/// The lines of each base chain on the input hook.
fn input_chains(ruleset: &str) -> Vec<Vec<&str>> {
    let mut chains = vec![];
    let mut chain: Option<Vec<&str>> = None;
    for line in ruleset.lines().map(str::trim) {
        if line.starts_with("chain ") {
            chain = Some(vec![]);
        } else if line == "}" {
            let ended: Option<Vec<&str>> = chain.take();
            chains.extend(ended.filter(|lines| lines.iter().any(|line| line.contains(" hook input "))));
        } else if let Some(lines) = &mut chain {
            lines.push(line);
        }
    }
    chains
}

/// The first rule that is about the port, or about everything, decides; else the policy.
fn verdict(chain: &[&str], wanted: Wanted) -> Verdict {
    for line in chain {
        let words: Vec<&str> =
            line.split([' ', ',', '{', '}', ';']).filter(|word| !word.is_empty()).collect();
        let about = words.iter().position(|word| *word == "dport").map(|at| {
            (at > 0 && [transport(wanted), "th"].contains(&words[at - 1]))
                .then(|| names_port(&words[at + 1..], wanted))
        });
        let shuts = words.iter().any(|word| matches!(*word, "drop" | "reject"));
        let opens = words.contains(&"accept");
        match about {
            None if line.contains(" hook input ") => {}
            // A rule without any condition: counters and the verdict alone.
            None if matches!(words.first(), Some(&("drop" | "reject" | "counter"))) && shuts => {
                return Verdict::Shut;
            }
            None if words.first() == Some(&"accept") => return Verdict::Open,
            Some(Some(true)) if shuts => return Verdict::Shut,
            Some(Some(true)) if opens => return Verdict::Open,
            _ => {}
        }
    }
    let drops = chain.iter().any(|line| line.contains("policy drop"));
    if drops { Verdict::Shut } else { Verdict::Open }
}

/// True if a list of ports, ranges and service names holds the port.
fn names_port(words: &[&str], wanted: Wanted) -> bool {
    let name = match wanted.service {
        "DHCP" => "bootps",
        "TFTP" => "tftp",
        "portmapper" => "sunrpc",
        "NFS" => "nfs",
        _ => "http-alt",
    };
    words.iter().any(|word| {
        let range = word.split_once('-').and_then(|(low, high)| Some(low.parse().ok()?..=high.parse().ok()?));
        *word == name
            || word.parse() == Ok(wanted.port)
            || range.is_some_and(|range: std::ops::RangeInclusive<u16>| range.contains(&wanted.port))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::{Ports, State, ports};

    fn shut(rules: &str) -> Vec<u16> {
        let ruleset = format!("table inet filter {{\n\tchain input {{\n\t\t{rules}\n\t}}\n}}\n");
        let wanted = ports::wanted(&Ports::default());
        let all = check(&ruleset, &wanted);
        wanted.iter().filter(|wanted| all.contains(&describe(**wanted))).map(|wanted| wanted.port).collect()
    }

    #[test]
    fn chains_as_people_write_them() {
        let hook = "type filter hook input priority filter; policy";
        for (rules, want) in [
            (format!("{hook} accept;"), &[][..]),
            (format!("{hook} drop;"), &[67, 69, 111, 111, 2049, 8080]),
            (
                format!(
                    "{hook} drop;\nct state established,related accept\nudp dport {{ 67, 69, 111 }} accept\ntcp dport {{ 111, 2049, 8000-9000 }} accept"
                ),
                &[],
            ),
            (
                format!(
                    "{hook} drop;\nudp dport {{ bootps, tftp, sunrpc }} accept\ntcp dport {{ sunrpc, nfs, http-alt }} accept"
                ),
                &[],
            ),
            (format!("{hook} drop;\nudp dport 67 accept\ntcp dport 1-65535 accept"), &[69, 111]),
            (format!("{hook} accept;\nudp dport 69 drop"), &[69]),
            (
                format!("{hook} accept;\nudp dport 69 accept\ncounter packets 3 bytes 4 drop"),
                &[67, 111, 111, 2049, 8080],
            ),
            (format!("{hook} accept;\nip saddr 10.9.0.0/16 drop"), &[]),
            ("type filter hook forward priority filter; policy drop;".to_owned(), &[]),
        ] {
            assert_eq!(shut(&rules), want, "{rules}");
        }
        let none = check("", &ports::wanted(&Ports::default()));
        assert_eq!((none.len(), none[0].state), (1, State::Good));
    }
}
