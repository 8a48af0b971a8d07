//! What is wrong with this machine, its network or what it serves, such that a Pi would not boot: checks
//! that are plain functions of what probes found.
//! Must not know: how findings are printed, where the description comes from.
//! Spec: each check names the habit of firmware or kernel that it rests on.
//!
//! [`examine`] runs all that need no Pi. [`dhcp::survey`] and [`crate::pi::boot::boot`] play one;
//! [`dhcp::judge`] and [`boot::judge`] say what their outcome means. [`files::check`] looks at a boot
//! tree, [`eeprom::check`] at a node's bootloader.

pub mod boot;
pub mod dhcp;
pub mod eeprom;
pub mod files;
pub mod firewall;
pub mod interface;
pub mod ports;
pub mod reach;

use std::net::Ipv4Addr;
use std::time::Duration;

/// What a check came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum State {
    /// As it should be.
    Good,
    /// It could not be looked at; `found` says why.
    Unchecked,
    /// It works, or may work, and a person should look.
    Advice,
    /// A Pi will not boot, or not well.
    Fault,
}

/// One result, as a person would want to read it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// What it came to.
    pub state: State,
    /// What was looked at: `UDP port 67`, `interface eth0`.
    pub subject: String,
    /// What there is.
    pub found: String,
    /// What should be; empty where `found` is that.
    pub expected: String,
    /// The command, or the edit, that mends it.
    pub hint: Option<String>,
}

impl Finding {
    /// As it should be.
    pub fn good(subject: impl Into<String>, found: impl Into<String>) -> Finding {
        let (subject, found) = (subject.into(), found.into());
        Finding { state: State::Good, subject, found, expected: String::new(), hint: None }
    }

    /// It could not be looked at, and why.
    pub fn unchecked(subject: impl Into<String>, why: impl Into<String>) -> Finding {
        Finding { state: State::Unchecked, ..Finding::good(subject, why) }
    }

    /// A Pi will not boot, or not well.
    pub fn fault(
        subject: impl Into<String>,
        found: impl Into<String>,
        expected: impl Into<String>,
        hint: impl Into<String>,
    ) -> Finding {
        Finding {
            state: State::Fault,
            expected: expected.into(),
            hint: Some(hint.into()),
            ..Finding::good(subject, found)
        }
    }

    /// A person should look.
    pub fn advice(
        subject: impl Into<String>,
        found: impl Into<String>,
        expected: impl Into<String>,
        hint: impl Into<String>,
    ) -> Finding {
        Finding { state: State::Advice, ..Finding::fault(subject, found, expected, hint) }
    }
}

/// Where the server is, or is to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subject {
    /// The server's address, as nodes are told it.
    pub server: Ipv4Addr,
    /// The interface that it serves on, if one was named.
    pub interface: Option<String>,
    /// The ports that it has, or wants.
    pub ports: Ports,
    /// The server's program name, as /proc shows it.
    pub program: String,
    /// How long each question waits for an answer.
    pub patience: Duration,
}

/// The server's ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ports {
    /// DHCP; `None` if it is off.
    pub dhcp: Option<u16>,
    /// TFTP.
    pub tftp: u16,
    /// Portmapper.
    pub portmap: u16,
    /// MOUNT.
    pub mount: u16,
    /// NFS.
    pub nfs: u16,
    /// HTTP.
    pub http: u16,
}

impl Default for Ports {
    fn default() -> Ports {
        Ports { dhcp: Some(67), tftp: 69, portmap: 111, mount: 2049, nfs: 2049, http: 8080 }
    }
}

/// Looks at this machine, and asks the server what every client asks first. It reads /proc, runs `ip` and
/// `nft`, and waits for each answer as long as `subject` says.
pub fn examine(subject: &Subject) -> Vec<Finding> {
    let wanted = ports::wanted(&subject.ports);
    let mut findings = match ports::look() {
        Ok(sockets) => ports::check(&wanted, &sockets, &subject.program),
        Err(e) => vec![Finding::unchecked("ports", format!("/proc/net: {e}"))],
    };
    let here = match interface::look() {
        Ok(interfaces) => {
            findings.extend(interface::check(&interfaces, subject.server, subject.interface.as_deref()));
            interfaces.iter().any(|interface| interface.has(subject.server))
        }
        Err(e) => {
            findings.push(Finding::unchecked("interfaces", format!("`ip`: {e}")));
            false
        }
    };
    if here {
        findings.extend(firewall::look().map_or_else(
            |why| vec![Finding::unchecked("firewall", why)],
            |ruleset| firewall::check(&ruleset, &wanted),
        ));
    }
    findings.extend(reach::check(subject));
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_without_a_server_is_told_so() {
        // A closed port of loopback for each service: none of these can be served here by chance, as
        // they were given back a moment ago.
        let free = || std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let nfs = free();
        let ports = Ports { dhcp: None, tftp: free(), portmap: free(), mount: nfs, nfs, http: free() };
        let subject = Subject {
            server: Ipv4Addr::LOCALHOST,
            interface: None,
            ports,
            program: "gt-image".into(),
            patience: Duration::from_millis(200),
        };
        let findings = examine(&subject);
        let faults: Vec<&str> = findings
            .iter()
            .filter(|finding| finding.state == State::Fault)
            .map(|finding| finding.subject.as_str())
            .collect();
        for service in ["TFTP", "portmapper", "NFS", "MOUNT", "HTTP"] {
            assert!(faults.iter().any(|subject| subject.starts_with(service)), "{service}: {findings:#?}");
        }
        for finding in findings.iter().filter(|finding| finding.state == State::Fault) {
            assert!(finding.hint.is_some() && !finding.expected.is_empty(), "{finding:?}");
        }
    }
}
