//! How the firmware gets an address and the name of a TFTP server: which answers it waits for, how
//! long, and in which order.
//! Must not know: sockets, files.
//! Spec: RFC 2131 section 4.4 as far as the firmware follows it; the waits are those of the bootloader's
//! `DHCP_TIMEOUT` and `DHCP_REQ_TIMEOUT`.

use std::io;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::{Duration, Instant};

use super::firmware::{Kind, Reply};
use super::wire::Wire;
use super::{Board, Pace};
use crate::site::Mac;

/// `DHCP_TIMEOUT`: from the first DISCOVER to the ACK.
const PI4_WINDOW: Duration = Duration::from_secs(45);
/// `DHCP_REQ_TIMEOUT`: DISCOVER or REQUEST is sent again after this.
const PI4_RESEND: Duration = Duration::from_secs(4);
/// A Pi 3's ROM asks five times, then sleeps until it is switched off and on.
const PI3_WINDOW: Duration = Duration::from_secs(25);
const PI3_RESEND: Duration = Duration::from_secs(5);

/// One answer, as it came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Heard {
    /// Since the first DISCOVER.
    pub at: Duration,
    /// The sender's address.
    pub from: SocketAddrV4,
    /// The sender's card, where the wire tells.
    pub card: Option<Mac>,
    /// What the firmware reads of it.
    pub reply: Reply,
}

/// What DHCP gave.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lease {
    /// Our address.
    pub address: Ipv4Addr,
    /// Its network's mask.
    pub netmask: Option<Ipv4Addr>,
    /// The router.
    pub router: Option<Ipv4Addr>,
    /// Who gave the address (option 54).
    pub server: Option<Ipv4Addr>,
    /// For how many seconds.
    pub seconds: Option<u32>,
    /// Where the files are.
    pub tftp: Ipv4Addr,
    /// DISCOVERs and REQUESTs that were sent.
    pub sent: u32,
    /// From the first DISCOVER to the end.
    pub took: Duration,
    /// From the first DISCOVER to the first answer.
    pub first_answer: Duration,
}

/// Why there is no lease.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LeaseError {
    /// Nobody answered.
    #[error("no DHCP server answered {asked} DISCOVERs")]
    Silence {
        /// DISCOVERs that were sent.
        asked: u32,
    },
    /// Answers came, and none with the boot text.
    #[error("DHCP servers answered, none with `Raspberry Pi Boot` in option 43")]
    NoBootText,
    /// The boot text came, and no address.
    #[error("a server offers to boot, none gives an address")]
    NoAddress,
    /// The address was offered and never confirmed.
    #[error("no DHCP server confirmed {address}")]
    NotConfirmed {
        /// The address that was offered.
        address: Ipv4Addr,
    },
    /// An offer says to boot and names no server.
    #[error("the offer to boot names no TFTP server")]
    NoServer,
    /// The wire broke.
    #[error("DHCP")]
    Io(#[from] io::Error),
}

/// What to do after an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Go on listening.
    Wait,
    /// Send a REQUEST for this address to this server, by option 54.
    Request(Ipv4Addr, Ipv4Addr),
    /// An address and the boot text are here.
    Done,
    /// A NAK: all over again.
    Again,
}

/// What was learnt so far. A Pi takes an address from one offer and the boot text from the same or
/// another, in any order (seen with a router and a proxy on Pi 4 and Pi 5).
#[derive(Clone, Debug, Default)]
pub struct Negotiation {
    /// The first offer with an address; one with the boot text replaces one without, until the
    /// REQUEST is out.
    address: Option<Reply>,
    /// The first offer with the boot text.
    boot: Option<Reply>,
    requested: bool,
    confirmed: bool,
}

impl Negotiation {
    /// Takes one answer in.
    pub fn hear(&mut self, board: &Board, reply: &Reply) -> Step {
        match reply.kind {
            Kind::Offer => self.hear_offer(board, reply),
            // Another server's ACK, and one that was not asked for, are nothing.
            Kind::Ack | Kind::Nak if !self.requested || !self.is_chosen(reply) => Step::Wait,
            Kind::Ack => {
                self.confirmed = true;
                Step::Done
            }
            Kind::Nak => {
                *self = Negotiation::default();
                Step::Again
            }
        }
    }

    fn hear_offer(&mut self, board: &Board, reply: &Reply) -> Step {
        if self.requested {
            return Step::Wait;
        }
        if reply.boots_a_pi() && self.boot.is_none() {
            self.boot = Some(reply.clone());
        }
        if reply.yiaddr.is_some() && (self.address.is_none() || reply.boots_a_pi()) {
            self.address = Some(reply.clone());
        }
        let (Some(address), Some(_)) = (&self.address, &self.boot) else { return Step::Wait };
        if board.model.has_rom_dhcp() {
            return Step::Done; // A Pi 3 never confirms (firmware#1699).
        }
        match (address.yiaddr, address.server) {
            (Some(yiaddr), Some(server)) => {
                self.requested = true;
                Step::Request(yiaddr, server)
            }
            _ => Step::Wait,
        }
    }

    fn is_chosen(&self, reply: &Reply) -> bool {
        self.address.as_ref().is_some_and(|chosen| chosen.server == reply.server)
    }

    /// Where the files are: `TFTP_IP`, then option 66 and option 54 of the offer with the boot text.
    /// A Pi 4 reads siaddr too since 2019-10-08; its rank is not known, so it comes last, and a Pi 3
    /// never reads it (firmware#801).
    pub fn tftp_server(&self, board: &Board) -> Option<Ipv4Addr> {
        let boot = self.boot.as_ref()?;
        let siaddr = boot.siaddr.filter(|_| !board.model.has_rom_dhcp());
        board.tftp_ip.or(boot.tftp_address()).or(boot.server).or(siaddr)
    }

    fn failure(&self, heard: &[Heard], asked: u32) -> LeaseError {
        match (&self.address, &self.boot) {
            _ if heard.is_empty() => LeaseError::Silence { asked },
            (_, None) => LeaseError::NoBootText,
            (Some(Reply { yiaddr: Some(address), .. }), _) => LeaseError::NotConfirmed { address: *address },
            _ => LeaseError::NoAddress,
        }
    }
}

/// Asks by DHCP as `board` does, and gives up when it would. What was heard is told in `heard`, also of
/// those whose answer was of no use. `random` becomes the transaction id.
///
/// # Errors
/// Why the firmware would go on to its next boot mode.
pub fn negotiate(
    board: &Board,
    wire: &mut dyn Wire,
    pace: Pace,
    random: u32,
    heard: &mut Vec<Heard>,
) -> Result<Lease, LeaseError> {
    let (window, resend) =
        if board.model.has_rom_dhcp() { (PI3_WINDOW, PI3_RESEND) } else { (PI4_WINDOW, PI4_RESEND) };
    let (window, resend) = (pace.wait(window), pace.wait(resend));
    let discover = board.discover(random);
    let started = Instant::now();
    let mut known = Negotiation::default();
    let mut packet = discover.clone();
    let mut sent = 0;
    while started.elapsed() < window {
        wire.broadcast(&packet)?;
        sent += 1;
        let until = (started + window).min(Instant::now() + resend);
        while let Some(wait) = until.checked_duration_since(Instant::now()).filter(|w| !w.is_zero()) {
            let Some(answer) = wire.receive(wait)? else { continue };
            let Some(reply) = Reply::read(&answer.payload, board.xid(random), board.mac) else { continue };
            let step = known.hear(board, &reply);
            heard.push(Heard { at: started.elapsed(), from: answer.from, card: answer.card, reply });
            match step {
                Step::Wait => {}
                Step::Done => return finish(board, &known, heard, sent, started.elapsed()),
                Step::Request(address, server) => {
                    packet = board.request(random, address, server);
                    break;
                }
                Step::Again => {
                    packet.clone_from(&discover);
                    break;
                }
            }
        }
    }
    Err(known.failure(heard, sent))
}

fn finish(
    board: &Board,
    known: &Negotiation,
    heard: &[Heard],
    sent: u32,
    took: Duration,
) -> Result<Lease, LeaseError> {
    let given = known.address.as_ref().ok_or(LeaseError::NoAddress)?;
    Ok(Lease {
        address: given.yiaddr.ok_or(LeaseError::NoAddress)?,
        netmask: given.netmask,
        router: given.router,
        server: given.server,
        seconds: given.lease,
        tftp: known.tftp_server(board).ok_or(LeaseError::NoServer)?,
        sent,
        took,
        first_answer: heard.first().map_or(took, |first| first.at),
    })
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use super::*;
    use crate::pi::Model;
    use crate::pi::testing::vector;
    use crate::pi::wire::Datagram;
    use crate::site::Serial;

    const ROUTER: Ipv4Addr = Ipv4Addr::new(10, 4, 0, 1);
    const SERVER: Ipv4Addr = Ipv4Addr::new(10, 4, 0, 10);
    const NODE: Ipv4Addr = Ipv4Addr::new(10, 4, 0, 21);
    const XID: u32 = 0xd383_a6ac;

    fn pi4() -> Board {
        Board::new(Model::Pi4, Mac([0xdc, 0xa6, 0x32, 0x2e, 0xf8, 0xed]), Serial(0x5b15_4510))
    }

    fn reply(name: &str) -> Reply {
        Reply::read(&vector(name), XID, pi4().mac).unwrap()
    }

    fn router_offer() -> Reply {
        Reply {
            server: Some(ROUTER),
            siaddr: Some(ROUTER),
            tftp_server: None,
            vendor: None,
            ..reply("offer-full-pi4")
        }
    }

    #[test]
    fn one_server_gives_all() {
        let mut known = Negotiation::default();
        assert_eq!(known.hear(&pi4(), &reply("ack-full-pi4")), Step::Wait, "an ACK out of nowhere");
        assert_eq!(known.hear(&pi4(), &reply("offer-full-pi4")), Step::Request(NODE, SERVER));
        assert_eq!(known.hear(&pi4(), &reply("offer-full-pi4")), Step::Wait, "it comes twice");
        assert_eq!(known.hear(&pi4(), &reply("ack-full-pi4")), Step::Done);
        assert_eq!(known.tftp_server(&pi4()), Some(SERVER));
    }

    #[test]
    fn a_proxy_and_a_router_in_any_order() {
        for (first, second) in [
            (reply("offer-proxy-pi4"), router_offer()),
            (router_offer(), reply("offer-proxy-pi4-three-spaces")),
        ] {
            let mut known = Negotiation::default();
            assert_eq!(known.hear(&pi4(), &first), Step::Wait);
            assert_eq!(known.hear(&pi4(), &second), Step::Request(NODE, ROUTER));
            let proxy_ack = Reply { kind: Kind::Ack, ..reply("offer-proxy-pi4") };
            assert_eq!(known.hear(&pi4(), &proxy_ack), Step::Wait, "a proxy must not confirm");
            let ack = Reply { kind: Kind::Ack, ..router_offer() };
            assert_eq!(known.hear(&pi4(), &ack), Step::Done);
            assert_eq!(known.tftp_server(&pi4()), Some(SERVER), "rpi-eeprom#376: never the router's siaddr");
        }
    }

    #[test]
    fn a_pi_3_never_confirms() {
        let board = Board { model: Model::Pi3b, ..pi4() };
        let mut known = Negotiation::default();
        assert_eq!(known.hear(&board, &reply("offer-full-pi4")), Step::Done);
    }

    #[test]
    fn a_nak_begins_again() {
        let mut known = Negotiation::default();
        known.hear(&pi4(), &reply("offer-full-pi4"));
        let nak = Reply { kind: Kind::Nak, ..reply("offer-full-pi4") };
        let foreign = Reply { server: Some(ROUTER), ..nak.clone() };
        assert_eq!(known.hear(&pi4(), &foreign), Step::Wait, "another server's");
        assert_eq!(known.hear(&pi4(), &nak), Step::Again);
        assert_eq!(known.hear(&pi4(), &reply("offer-full-pi4")), Step::Request(NODE, SERVER));
    }

    #[test]
    fn which_server_has_the_files() {
        let other = Ipv4Addr::new(10, 4, 0, 66);
        let boot = reply("offer-full-pi4");
        let named = Reply { tftp_server: Some(b"10.4.0.66".to_vec()), ..boot.clone() };
        let bare = Reply { tftp_server: None, server: None, siaddr: Some(other), ..boot.clone() };
        let pi3 = Board { model: Model::Pi3bPlus, ..pi4() };
        let fixed = Board { tftp_ip: Some(ROUTER), ..pi4() };
        for (board, offer, want) in [
            (&pi4(), &named, Some(other)),
            (&pi4(), &Reply { tftp_server: Some(b"name".to_vec()), ..boot.clone() }, Some(SERVER)),
            (&pi4(), &Reply { tftp_server: None, siaddr: Some(other), ..boot.clone() }, Some(SERVER)),
            (&pi4(), &bare, Some(other)),
            (&pi3, &bare, None),
            (&fixed, &named, Some(ROUTER)),
        ] {
            let known = Negotiation { boot: Some(offer.clone()), ..Negotiation::default() };
            assert_eq!(known.tftp_server(board), want, "{offer:?}");
        }
    }

    /// A wire that answers each broadcast with the packets that are laid out for it.
    struct Script {
        sent: Vec<Vec<u8>>,
        answers: VecDeque<Vec<Vec<u8>>>,
        ready: VecDeque<Vec<u8>>,
    }

    impl Wire for Script {
        fn broadcast(&mut self, payload: &[u8]) -> io::Result<()> {
            self.sent.push(payload.to_vec());
            self.ready = self.answers.pop_front().unwrap_or_default().into();
            Ok(())
        }

        fn receive(&mut self, wait: Duration) -> io::Result<Option<Datagram>> {
            let Some(payload) = self.ready.pop_front() else {
                std::thread::park_timeout(wait);
                return Ok(None);
            };
            Ok(Some(Datagram { payload, from: SocketAddrV4::new(SERVER, 67), card: None }))
        }
    }

    fn play(board: &Board, answers: Vec<Vec<&str>>) -> (Result<Lease, LeaseError>, Vec<Vec<u8>>, usize) {
        let answers = answers.into_iter().map(|names| names.into_iter().map(vector).collect()).collect();
        let mut wire = Script { sent: vec![], answers, ready: VecDeque::new() };
        let mut heard = vec![];
        let lease = negotiate(board, &mut wire, Pace::faster(1000), XID, &mut heard);
        (lease, wire.sent, heard.len())
    }

    #[test]
    fn the_whole_talk() {
        let (lease, sent, heard) = play(&pi4(), vec![vec!["offer-full-pi4"], vec![], vec!["ack-full-pi4"]]);
        let lease = lease.unwrap();
        assert_eq!((lease.address, lease.tftp, lease.server), (NODE, SERVER, Some(SERVER)));
        assert_eq!((lease.seconds, lease.router, lease.sent, heard), (Some(3600), Some(ROUTER), 3, 2));
        let request = pi4().request(XID, NODE, SERVER);
        assert_eq!(sent, [pi4().discover(XID), request.clone(), request], "the REQUEST is repeated");
    }

    #[test]
    fn silence() {
        let (lease, sent, _) = play(&pi4(), vec![]);
        assert!(matches!(lease, Err(LeaseError::Silence { .. })));
        // 45 s hold twelve of 4 s, the last cut short; a busy machine may miss some, never add one.
        assert!((2..=12).contains(&sent.len()), "{}", sent.len());
        assert!(sent.iter().all(|packet| *packet == pi4().discover(XID)));
        let (_, sent, _) = play(&Board { model: Model::Pi3b, ..pi4() }, vec![]);
        assert!((2..=5).contains(&sent.len()), "{}", sent.len());
    }

    #[test]
    fn what_is_missing_is_named() {
        let (lease, ..) = play(&pi4(), vec![vec!["offer-proxy-pi4"]]);
        assert!(matches!(lease, Err(LeaseError::NoAddress)), "{lease:?}");
        let (lease, ..) = play(&pi4(), vec![vec!["offer-full-pi4"]]);
        assert!(matches!(lease, Err(LeaseError::NotConfirmed { address: NODE })), "{lease:?}");
        let known = Negotiation { address: Some(router_offer()), ..Negotiation::default() };
        let from = SocketAddrV4::new(ROUTER, 67);
        let heard = Heard { at: Duration::ZERO, from, card: None, reply: router_offer() };
        assert!(matches!(known.failure(&[heard], 1), LeaseError::NoBootText));
    }
}
