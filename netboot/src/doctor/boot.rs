//! What the outcome of a played boot means.
//! Must not know: our own server's code.
//! Spec: the firmware's habits as in [`crate::pi::boot`].

use std::time::Duration;

use super::Finding;
use crate::pi::boot::{Boot, Fault, Outcome};
use crate::pi::lease::LeaseError;
use crate::pi::tftp_client::Answer;

/// `TFTP_FILE_TIMEOUT`; with ten nodes at once a file takes longer than here.
const SLOW: Duration = Duration::from_secs(10);

/// One finding for the whole boot, and one for each habit of the server that real firmware stumbles over.
pub fn judge(node: &str, boot: &Boot) -> Vec<Finding> {
    let subject = format!("a boot of node `{node}`, played");
    let mut findings = vec![match &boot.result {
        Ok(loaded) => Finding::good(
            &subject,
            format!(
                "{} requests, {} KiB, kernel `{}`",
                boot.requests.len(),
                boot.bytes() >> 10,
                loaded.kernel.name
            ),
        ),
        Err(fault) => {
            let (expected, hint) = remedy(node, fault);
            Finding::fault(&subject, fault.to_string(), expected, hint)
        }
    }];
    for request in &boot.requests {
        let name = format!("`{}` by TFTP", request.name);
        if !request.oack && matches!(request.outcome, Outcome::Read(_)) && request.name != "bootcode.bin" {
            let (found, expected) = ("no OACK", "one: without it a Pi drops `config.txt` (firmware#1012)");
            findings.push(Finding::fault(&name, found, expected, "replace the TFTP server"));
        }
        if request.tries > 1 || request.duplicates > 0 {
            let found = format!("asked {} times, {} packets came twice", request.tries, request.duplicates);
            let expected = "each packet once: `start4.elf` may hang on one that comes twice (firmware#1631)";
            findings.push(Finding::advice(
                &name,
                found,
                expected,
                "look for a bad cable or an overloaded switch",
            ));
        }
        if request.took > SLOW {
            let found = format!("{} s", request.took.as_secs());
            let expected = "well under 30 s, with all nodes booting";
            findings.push(Finding::advice(
                &name,
                found,
                expected,
                "set `TFTP_FILE_TIMEOUT=300000` on the node",
            ));
        }
    }
    findings
}

fn remedy(node: &str, fault: &Fault) -> (&'static str, String) {
    let build = format!("run `gt-image build --node {node}`");
    match fault {
        Fault::Lease(LeaseError::NoAddress) => {
            ("an address from the router", "turn the router's DHCP server on".into())
        }
        Fault::Lease(LeaseError::Silence { .. } | LeaseError::NoBootText) => (
            "an offer to boot",
            "run `gt-image serve`, then `gt-image status` to see whether the DISCOVER arrived".into(),
        ),
        Fault::Lease(LeaseError::NotConfirmed { address }) => {
            ("an ACK", format!("look for a reservation of {address} that belongs to another machine"))
        }
        Fault::Transfer { answer: Answer::Silent, .. } => (
            "an answer from UDP port 69",
            "run `sudo nft list ruleset` on the server and accept UDP port 69".into(),
        ),
        Fault::Transfer { .. } => {
            ("a whole file", "run `gt-image status` on the server and read its log".into())
        }
        Fault::RomLocked { .. } => {
            ("an offer after one second or more", "delay offers to a Pi 3B by two seconds".into())
        }
        Fault::Io(_) => ("a network", "run `ip address`".into()),
        _ => ("all files of the boot", build),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::State;
    use crate::pi::boot::Request;

    fn request(name: &str) -> Request {
        Request {
            name: name.into(),
            outcome: Outcome::Read(10),
            at: Duration::ZERO,
            took: Duration::ZERO,
            duplicates: 0,
            tries: 1,
            oack: true,
        }
    }

    #[test]
    fn what_is_said_of_a_boot() {
        let requests = vec![
            request("P/good"),
            Request { oack: false, ..request("P/plain") },
            Request { oack: false, ..request("bootcode.bin") },
            Request { duplicates: 1, ..request("P/twice") },
            Request { took: Duration::from_secs(20), ..request("P/slow") },
        ];
        let result = Err(Fault::NoKernel(vec!["kernel8.img".into()]));
        let findings = judge("fenn", &Boot { lease: None, heard: vec![], requests, result });
        let said: Vec<(State, &str)> = findings.iter().map(|f| (f.state, f.subject.as_str())).collect();
        assert_eq!(
            said,
            [
                (State::Fault, "a boot of node `fenn`, played"),
                (State::Fault, "`P/plain` by TFTP"),
                (State::Advice, "`P/twice` by TFTP"),
                (State::Advice, "`P/slow` by TFTP"),
            ]
        );
        assert_eq!(findings[0].found, "no kernel: [\"kernel8.img\"]");
        assert_eq!(findings[0].hint.as_deref(), Some("run `gt-image build --node fenn`"));
    }

    #[test]
    fn every_fault_has_its_own_remedy() {
        for (fault, want) in [
            (Fault::Lease(LeaseError::NoAddress), "router"),
            (Fault::Lease(LeaseError::NoBootText), "gt-image serve"),
            (
                Fault::Lease(LeaseError::NotConfirmed { address: [10, 4, 0, 21].into() }),
                "reservation of 10.4.0.21",
            ),
            (Fault::Transfer { name: "a".into(), answer: Answer::Silent }, "UDP port 69"),
            (Fault::Transfer { name: "a".into(), answer: Answer::Hung { block: 1 } }, "log"),
            (Fault::RomLocked { offer: Duration::ZERO }, "two seconds"),
            (Fault::NoDeviceTree("x".into()), "gt-image build --node fenn"),
        ] {
            assert!(remedy("fenn", &fault).1.contains(want), "{fault:?}");
        }
    }
}
