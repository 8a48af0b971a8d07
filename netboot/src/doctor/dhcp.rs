//! Who answers a Pi's DISCOVER, and what those answers mean for it.
//! Must not know: our own server's code.
//! Spec: the firmware's habits as in [`crate::pi::lease`]; IEEE 802.1D for the 30 s of a port that is not
//! an edge port.

use std::io;
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use super::Finding;
use crate::pi::firmware::{Kind, Reply};
use crate::pi::lease::Heard;
use crate::pi::wire::Wire;
use crate::pi::{Board, Pace};

/// A Pi 4 asks again after this.
const RESEND: Duration = Duration::from_secs(4);
/// Listening and learning take 15 s each by default (802.1D): an answer that is this late, to a client
/// that asked all the time, came through a port that was shut.
const LATE: Duration = Duration::from_secs(20);

/// How the description says that addresses are given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// The router gives addresses, our server adds what a Pi needs to boot.
    Proxy,
    /// Our server does both.
    Authoritative,
    /// Our server does neither.
    Off,
}

/// Who is expected to answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Expected {
    /// Our server.
    pub server: Ipv4Addr,
    /// How it does DHCP.
    pub mode: Mode,
    /// True if the board that asks is in the description; our server answers no other.
    pub known: bool,
}

/// What [`survey`] found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Survey {
    /// Each answer, with its time since the first DISCOVER.
    pub heard: Vec<Heard>,
    /// DISCOVERs that were sent.
    pub asked: u32,
}

/// Sends DISCOVERs of `board` for `window` as a Pi 4 does and collects every offer. It never sends a
/// REQUEST, so that no lease is taken.
///
/// # Errors
/// What the kernel says of the wire.
pub fn survey(
    board: &Board,
    wire: &mut dyn Wire,
    window: Duration,
    pace: Pace,
    xid: u32,
) -> io::Result<Survey> {
    let started = Instant::now();
    let (window, resend) = (pace.wait(window), pace.wait(RESEND));
    let question = question(board, xid);
    let mut survey = Survey::default();
    while started.elapsed() < window {
        wire.broadcast(&question)?;
        survey.asked += 1;
        let until = (started + window).min(Instant::now() + resend);
        while let Some(wait) = until.checked_duration_since(Instant::now()).filter(|wait| !wait.is_zero()) {
            let Some(answer) = wire.receive(wait)? else { continue };
            if let Some(reply) = Reply::read(&answer.payload, board.xid(xid), board.mac) {
                let at = started.elapsed();
                survey.heard.push(Heard { at, from: answer.from, card: answer.card, reply });
            }
        }
    }
    Ok(survey)
}

/// The DISCOVER of `board`, but answered by broadcast (RFC 2131 section 2, the B bit in octet 10). A Pi leaves
/// it to the server; an offer that dnsmasq or a router sends to the board's own card would stop at this
/// machine's, which has another address, and a rival would go unseen.
fn question(board: &Board, xid: u32) -> Vec<u8> {
    let mut packet = board.discover(xid);
    if let Some(flags) = packet.get_mut(10) {
        *flags |= 0x80;
    }
    packet
}

/// One server of those that answered.
struct Server<'a> {
    address: Ipv4Addr,
    first: &'a Heard,
    gives_address: bool,
    boots: bool,
}

fn servers(heard: &[Heard]) -> Vec<Server<'_>> {
    let mut servers: Vec<Server<'_>> = vec![];
    for offer in heard.iter().filter(|heard| heard.reply.kind == Kind::Offer) {
        let address = offer.reply.server.unwrap_or(*offer.from.ip());
        let (gives_address, boots) = (offer.reply.yiaddr.is_some(), offer.reply.boots_a_pi());
        match servers.iter_mut().find(|server| server.address == address) {
            Some(known) => {
                known.gives_address |= gives_address;
                known.boots |= boots;
            }
            None => servers.push(Server { address, first: offer, gives_address, boots }),
        }
    }
    servers
}

impl Server<'_> {
    /// `10.4.0.1 (dc:a6:32:…), offers 10.4.0.7, without option 43`
    fn describe(&self) -> String {
        let card = self.first.card.map(|card| format!(" ({card})")).unwrap_or_default();
        let address = self.first.reply.yiaddr.map_or("no address".into(), |address| address.to_string());
        let boots = if self.boots { "with" } else { "without" };
        format!("{}{card}, offers {address}, {boots} `Raspberry Pi Boot` in option 43", self.address)
    }
}

/// Our server answers, the router too where it should, and nobody else.
pub fn judge(survey: &Survey, expected: &Expected) -> Vec<Finding> {
    let servers = servers(&survey.heard);
    let (ours, others): (Vec<&Server<'_>>, Vec<_>) =
        servers.iter().partition(|server| server.address == expected.server);
    let mut findings = vec![];
    if expected.known && expected.mode != Mode::Off {
        findings.push(judge_ours(ours.first().copied(), survey, expected));
    }
    let gives_address =
        |servers: &[&Server<'_>]| servers.iter().filter(|server| server.gives_address).count();
    if expected.mode == Mode::Proxy || expected.mode == Mode::Off {
        findings.push(match gives_address(&others) {
            0 => Finding::fault(
                "the router's DHCP server",
                format!("no address was offered to {} DISCOVERs", survey.asked),
                "one server that gives addresses",
                "turn the router's DHCP server on, or set `dhcp = \"authoritative\"` under `[network]` in `cluster.toml`",
            ),
            1 => Finding::good("the router's DHCP server", gives(&others)),
            _ => Finding::fault(
                "the router's DHCP server",
                gives(&others),
                "one server that gives addresses",
                "turn all but one of these DHCP servers off",
            ),
        });
    }
    findings.extend(others.iter().filter_map(|server| judge_rival(server, expected)));
    findings.extend(judge_delay(survey));
    findings
}

fn gives(servers: &[&Server<'_>]) -> String {
    let list: Vec<String> =
        servers.iter().filter(|server| server.gives_address).map(|server| server.describe()).collect();
    list.join("; ")
}

fn judge_ours(ours: Option<&Server<'_>>, survey: &Survey, expected: &Expected) -> Finding {
    let subject = format!("DHCP of our server {}", expected.server);
    let complete = "an offer with `Raspberry Pi Boot` in option 43";
    match ours {
        None => {
            let found = match survey.heard.len() {
                0 => format!("nobody answered {} DISCOVERs", survey.asked),
                _ => format!("no answer to {} DISCOVERs; others did answer", survey.asked),
            };
            let hint = format!(
                "run `gt-image serve` on {}, then `gt-image status` to see whether the DISCOVER arrived",
                expected.server
            );
            Finding::fault(subject, found, complete, hint)
        }
        Some(server) if !server.boots => {
            let hint = "run `gt-image build --node NODE`: a node without a generation is not told to boot";
            Finding::fault(subject, server.describe(), complete, hint)
        }
        Some(server) if expected.mode == Mode::Authoritative && !server.gives_address => Finding::fault(
            subject,
            server.describe(),
            "an offer with the node's address",
            "run `gt-image serve --dhcp authoritative`",
        ),
        Some(server) => Finding::good(subject, server.describe()),
    }
}

/// A second boot server takes Pis away; a second server of addresses gives them wrong ones.
fn judge_rival(server: &Server<'_>, expected: &Expected) -> Option<Finding> {
    let subject = format!("another DHCP server, {}", server.address);
    let stop = |what: &str| format!("turn {what} off on the machine with card {}", card(server));
    if server.boots {
        return Some(Finding::fault(
            subject,
            server.describe(),
            "nobody but our server tells a Pi to boot",
            stop("network boot (dnsmasq's `pxe-service`, piserver)"),
        ));
    }
    let rival = server.gives_address && expected.mode == Mode::Authoritative;
    rival.then(|| {
        Finding::fault(
            subject,
            server.describe(),
            "nobody but our server gives addresses",
            format!(
                "{}, or set `dhcp = \"proxy\"` under `[network]` in `cluster.toml`",
                stop("the DHCP server")
            ),
        )
    })
}

fn card(server: &Server<'_>) -> String {
    server.first.card.map_or_else(|| "unknown".to_owned(), |card| card.to_string())
}

/// A port with spanning tree forwards nothing for 30 s after the link came up.
fn judge_delay(survey: &Survey) -> Option<Finding> {
    let first = survey.heard.first()?;
    (first.at >= LATE && survey.asked > 1).then(|| {
        Finding::fault(
            "the switch",
            format!("the first answer came after {} s, and {} DISCOVERs", first.at.as_secs(), survey.asked),
            "an answer to the first DISCOVER: a Pi 3 gives up after 25 s, a Pi 4 after 45 s",
            "switch spanning tree off on the nodes' ports, or make them edge ports (`spanning-tree portfast`)",
        )
    })
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddrV4;

    use super::*;
    use crate::doctor::State;
    use crate::pi::Model;
    use crate::site::{Mac, Serial};

    const OURS: Ipv4Addr = Ipv4Addr::new(10, 4, 0, 10);
    const ROUTER: Ipv4Addr = Ipv4Addr::new(10, 4, 0, 1);
    const RIVAL: Ipv4Addr = Ipv4Addr::new(10, 4, 0, 66);

    fn offer(server: Ipv4Addr, gives: bool, boots: bool, at: u64) -> Heard {
        let reply = Reply {
            kind: Kind::Offer,
            yiaddr: gives.then_some(Ipv4Addr::new(10, 4, 0, 21)),
            siaddr: None,
            server: Some(server),
            lease: None,
            netmask: None,
            router: None,
            tftp_server: None,
            class: None,
            guid: None,
            vendor: boots.then(|| b"\x09\x14\0\0\x11Raspberry Pi Boot\xff".to_vec()),
            broadcast: false,
        };
        let card = Some(Mac([2, 0, 0, 0, 0, server.octets()[3]]));
        Heard { at: Duration::from_secs(at), from: SocketAddrV4::new(server, 67), card, reply }
    }

    fn faults(heard: &[Heard], mode: Mode, known: bool) -> Vec<String> {
        let survey = Survey { heard: heard.to_vec(), asked: 11 };
        let findings = judge(&survey, &Expected { server: OURS, mode, known });
        assert!(!findings.is_empty() || (mode, known) == (Mode::Authoritative, false));
        findings
            .into_iter()
            .filter(|finding| finding.state == State::Fault)
            .map(|finding| format!("{}: {} -> {}", finding.subject, finding.found, finding.hint.unwrap()))
            .collect()
    }

    #[test]
    fn networks_as_they_should_be() {
        for (heard, mode, known) in [
            (vec![offer(OURS, false, true, 0), offer(ROUTER, true, false, 1)], Mode::Proxy, true),
            (vec![offer(ROUTER, true, false, 1)], Mode::Proxy, false),
            (vec![offer(OURS, true, true, 0), offer(OURS, true, true, 4)], Mode::Authoritative, true),
            (vec![], Mode::Authoritative, false),
            (vec![offer(ROUTER, true, false, 1)], Mode::Off, true),
        ] {
            assert_eq!(faults(&heard, mode, known), [] as [String; 0], "{mode:?} {known}");
        }
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (heard, mode, wants) in [
            (vec![], Mode::Authoritative, &["nobody answered 11 DISCOVERs -> run `gt-image serve`"][..]),
            (vec![], Mode::Proxy, &["nobody answered", "no address was offered"]),
            (vec![offer(ROUTER, true, false, 0)], Mode::Proxy, &["others did answer"]),
            (vec![offer(OURS, false, true, 0)], Mode::Proxy, &["no address was offered"]),
            (vec![offer(OURS, true, false, 0)], Mode::Authoritative, &["without `Raspberry Pi Boot`"]),
            (vec![offer(OURS, false, true, 0)], Mode::Authoritative, &["serve --dhcp authoritative"]),
            (
                vec![offer(OURS, true, true, 0), offer(RIVAL, true, false, 0)],
                Mode::Authoritative,
                &["another DHCP server, 10.4.0.66: 10.4.0.66 (02:00:00:00:00:42), offers 10.4.0.21"],
            ),
            (
                vec![
                    offer(OURS, false, true, 0),
                    offer(ROUTER, true, false, 0),
                    offer(RIVAL, false, true, 0),
                ],
                Mode::Proxy,
                &["another DHCP server, 10.4.0.66"],
            ),
            (
                vec![
                    offer(OURS, false, true, 0),
                    offer(ROUTER, true, false, 0),
                    offer(RIVAL, true, false, 0),
                ],
                Mode::Proxy,
                &["turn all but one"],
            ),
            (
                vec![offer(OURS, true, true, 32)],
                Mode::Authoritative,
                &["the switch: the first answer came after 32 s"],
            ),
        ] {
            let faults = faults(&heard, mode, true);
            assert_eq!(faults.len(), wants.len(), "{faults:?}");
            for (fault, want) in faults.iter().zip(wants) {
                assert!(fault.contains(want), "{fault}\nlacks {want}");
            }
        }
    }

    #[test]
    fn a_survey_collects_and_never_requests() {
        use crate::pi::testing::dhcp_server;
        use crate::pi::wire::UdpWire;
        let board = Board::new(Model::Pi4, Mac([0xdc, 0xa6, 0x32, 0x2e, 0xf8, 0xed]), Serial(0x5b15_4510));
        let server = dhcp_server(&board, Ipv4Addr::LOCALHOST, Duration::ZERO);
        let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let mut wire = UdpWire::new(socket, server.address());
        let survey = survey(&board, &mut wire, Duration::from_secs(12), Pace::faster(40), 9).unwrap();
        assert!((1..=3).contains(&survey.asked), "{}", survey.asked);
        assert!(!survey.heard.is_empty() && survey.heard.len() <= survey.asked as usize);
        assert!(survey.heard.iter().all(|heard| heard.reply.kind == Kind::Offer));
        let asked = question(&board, 9);
        let asked = crate::dhcp::Packet::decode(&asked).unwrap();
        assert!(asked.broadcast(), "offers to the board's card would not be heard");
    }
}
