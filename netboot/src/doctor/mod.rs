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

use interface::Interface;

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

/// Where the doctor is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// On the machine with the server's address.
    Server,
    /// On another: somebody else has that address and answers.
    Elsewhere,
    /// Nobody has the address, or whoever has it is silent: this may be the machine that should have it.
    Unknown,
}

impl Place {
    fn of(interfaces: &[Interface], server: Ipv4Addr, answers: &[reach::Answer]) -> Place {
        match interfaces.iter().any(|interface| interface.has(server)) {
            true => Place::Server,
            false if reach::is_somebody(answers) => Place::Elsewhere,
            false => Place::Unknown,
        }
    }
}

/// Looks at this machine, and asks the server what every client asks first. It reads /proc, runs `ip` and
/// `nft`, and waits for each answer as long as `subject` says. On a machine that is not the server's it
/// says what cannot be told from there.
pub fn examine(subject: &Subject) -> Vec<Finding> {
    let answers = reach::ask(subject);
    let (interfaces, mut findings) = match interface::look() {
        Ok(interfaces) => (interfaces, vec![]),
        Err(e) => (vec![], vec![Finding::unchecked("interfaces", format!("`ip`: {e}"))]),
    };
    let place = Place::of(&interfaces, subject.server, &answers);
    if place == Place::Elsewhere {
        findings.push(elsewhere(subject.server));
        findings.extend(interface::check_far(&interfaces, subject.interface.as_deref()));
    } else {
        findings.extend(this_machine(subject, &interfaces, place));
    }
    findings.extend(reach::check(&answers, subject.server, place));
    findings
}

/// What is not looked at: this machine's ports, link and firewall keep no Pi from booting.
fn elsewhere(server: Ipv4Addr) -> Finding {
    let why = format!(
        "not the server: another has {server}. From here can be told whether its services and DHCP answer \
         over the network. Not: who has its ports, its interface and cable, its firewall's rules. Boot files \
         are those of this machine's store"
    );
    let hint = format!("run `sudo gt-image doctor` on {server} for the rest");
    Finding { hint: Some(hint), ..Finding::unchecked("this machine", why) }
}

/// The machine that is the server's, or should be.
fn this_machine(subject: &Subject, interfaces: &[Interface], place: Place) -> Vec<Finding> {
    let wanted = ports::wanted(&subject.ports);
    let mut findings = match ports::look() {
        Ok(sockets) => ports::check(&wanted, &sockets, &subject.program),
        Err(e) => vec![Finding::unchecked("ports", format!("/proc/net: {e}"))],
    };
    if !interfaces.is_empty() {
        findings.extend(interface::check(interfaces, subject.server, subject.interface.as_deref()));
    }
    if place == Place::Server {
        findings.extend(firewall::look().map_or_else(
            |why| vec![Finding::unchecked("firewall", why)],
            |ruleset| firewall::check(&ruleset, &wanted),
        ));
    }
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
        let tftp = findings.iter().find(|finding| finding.subject.starts_with("TFTP at")).unwrap();
        assert_eq!(tftp.found, "nobody listens", "a closed UDP port is no firewall");
        for finding in findings.iter().filter(|finding| finding.state == State::Fault) {
            assert!(finding.hint.is_some() && !finding.expected.is_empty(), "{finding:?}");
        }
    }

    #[test]
    fn where_the_doctor_is() {
        let server = Ipv4Addr::new(10, 4, 0, 10);
        let with = |address| vec![Interface { addresses: vec![address], ..Interface::default() }];
        let other = with(Ipv4Addr::new(10, 4, 0, 11));
        let answer = |reach| vec![reach::Answer { service: "HTTP", transport: "TCP", port: 8080, reach }];
        for (interfaces, reach, want) in [
            (&with(server), reach::Reach::Silent, Place::Server),
            (&other, reach::Reach::Answered, Place::Elsewhere),
            (&other, reach::Reach::Refused, Place::Elsewhere),
            (&other, reach::Reach::Silent, Place::Unknown),
            (&other, reach::Reach::Unreachable("no route".into()), Place::Unknown),
            (&vec![], reach::Reach::Silent, Place::Unknown),
        ] {
            assert_eq!(
                Place::of(interfaces, server, &answer(reach.clone())),
                want,
                "{interfaces:?} {reach:?}"
            );
        }
    }
}
