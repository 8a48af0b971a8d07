//! Whether a machine that asks for a node's secrets gets them: once in each boot, to the node's own
//! address and card, within seconds of what was just seen of its boot.
//! Must not know: what the secrets are, clocks, the network.
//! Spec: design.md section 7; docs/security.md, "Trust on boot".

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::time::Duration;

use gt_netboot::site::Mac;

use crate::serve::board::Refused;

/// From the last DHCP, TFTP or MOUNT exchange to the claim. A Pi 4 needs 6 to 10 s from the last file of
/// the firmware to our initramfs, whose own DHCP counts again; an emulated one needs 20.
pub const WINDOW: Duration = Duration::from_secs(30);

/// From the first request of a boot to the claim, however much is heard of it: who can forge a node's
/// packets could else keep the window open for ever. A switch port with spanning tree costs a boot two
/// minutes, a slow card in front of the network a third.
pub const WHOLE: Duration = Duration::from_secs(600);

/// A request for secrets, and what is known of who asks.
#[derive(Debug, Clone, Copy)]
pub struct Claim<'a> {
    /// The node whose secrets are wanted.
    pub node: &'a str,
    /// Where the request came from.
    pub from: Ipv4Addr,
    /// The cards that the kernel's neighbour table has for that address; none when it is behind a
    /// router, or this machine itself.
    pub cards: &'a BTreeSet<Mac>,
    /// The node's boot, if one is under way.
    pub boot: Option<Boot>,
}

/// What the record has of a boot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Boot {
    /// Its number.
    pub id: u64,
    /// The address that it was given.
    pub address: Ipv4Addr,
    /// The card that it began with.
    pub mac: Mac,
    /// How long ago it began.
    pub began: Duration,
    /// How long ago its last DHCP, TFTP or MOUNT exchange was.
    pub heard: Duration,
    /// The node said that it can be logged in to, that it failed, or nothing for too long.
    pub over: bool,
}

/// What to do about a claim.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Give them. It is noted already that they are given: an answer that is lost is lost, and the node
    /// has to boot again.
    Give,
    /// Give nothing.
    Refuse(Why),
}

/// Why a claim gets nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Why {
    /// The node is not booting.
    #[error("the node is not booting")]
    NoBoot,
    /// The claim came from elsewhere.
    #[error("the claim came from {0}, which is not the node's address")]
    Address(Ipv4Addr),
    /// The address is the node's, the card is another's.
    #[error("the claim came from card {0}, which is not the node's")]
    Card(Mac),
    /// They were given in this boot already: then or now, somebody else asked.
    #[error("a second claim in one boot: the first may have been another machine's")]
    Again,
    /// Nothing was seen of the boot for too long.
    #[error("the boot was last heard of {} s ago", .0.as_secs())]
    Late(Duration),
}

impl Why {
    /// True for what no healthy node does: it belongs into the boot's record, where `status` shows it.
    pub fn alarms(&self) -> bool {
        matches!(self, Why::Address(_) | Why::Card(_) | Why::Again)
    }
}

impl From<Why> for Refused {
    fn from(why: Why) -> Refused {
        match why {
            Why::NoBoot => Refused::NoBoot,
            Why::Address(_) | Why::Card(_) => Refused::Address,
            Why::Again => Refused::Again,
            Why::Late(_) => Refused::Late,
        }
    }
}

/// Which boots got their secrets.
#[derive(Debug, Default)]
pub struct Ledger {
    /// The boot of each node that was the last to get them. Older ones cannot come back: numbers grow.
    given: BTreeMap<String, u64>,
}

impl Ledger {
    /// Takes over from the record, after a restart, that a boot got its secrets.
    pub fn restore(&mut self, node: &str, boot: u64) {
        let last = self.given.entry(node.to_owned()).or_insert(boot);
        *last = boot.max(*last);
    }

    /// Decides about a claim. A claim that is refused changes nothing: nobody can use up a node's turn.
    pub fn decide(&mut self, claim: &Claim) -> Verdict {
        match self.objection(claim) {
            Ok(boot) => {
                self.restore(claim.node, boot);
                Verdict::Give
            }
            Err(why) => Verdict::Refuse(why),
        }
    }

    fn objection(&self, claim: &Claim) -> Result<u64, Why> {
        let boot = claim.boot.ok_or(Why::NoBoot)?;
        if claim.from != boot.address {
            return Err(Why::Address(claim.from));
        }
        // Two entries for one address, on two interfaces, are no proof of either.
        if let Some(other) = claim.cards.iter().find(|card| **card != boot.mac) {
            return Err(Why::Card(*other));
        }
        if self.given.get(claim.node).is_some_and(|last| *last >= boot.id) {
            return Err(Why::Again);
        }
        if boot.over {
            return Err(Why::NoBoot);
        }
        if boot.heard > WINDOW || boot.began > WHOLE {
            return Err(Why::Late(boot.heard));
        }
        Ok(boot.id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const HOME: Ipv4Addr = Ipv4Addr::new(10, 9, 0, 15);
    const AWAY: Ipv4Addr = Ipv4Addr::new(10, 9, 0, 66);
    const OWN: Mac = Mac([0xd8, 0x3a, 0xdd, 0, 0, 1]);
    const OTHER: Mac = Mac([2, 0, 0, 0, 0, 66]);

    fn boot(id: u64) -> Boot {
        let (began, heard) = (Duration::from_secs(20), Duration::from_secs(2));
        Boot { id, address: HOME, mac: OWN, began, heard, over: false }
    }

    fn ask(ledger: &mut Ledger, from: Ipv4Addr, cards: &[Mac], boot: Option<Boot>) -> Verdict {
        let cards = cards.iter().copied().collect();
        ledger.decide(&Claim { node: "fenn", from, cards: &cards, boot })
    }

    #[test]
    fn the_node_itself_gets_them_once_in_each_boot() {
        let mut ledger = Ledger::default();
        assert_eq!(ask(&mut ledger, HOME, &[OWN], Some(boot(1))), Verdict::Give);
        assert_eq!(ask(&mut ledger, HOME, &[OWN], Some(boot(1))), Verdict::Refuse(Why::Again));
        assert_eq!(ask(&mut ledger, HOME, &[OWN], Some(boot(2))), Verdict::Give);
        assert_eq!(ask(&mut ledger, HOME, &[OWN], Some(boot(1))), Verdict::Refuse(Why::Again));
        let jast = Claim { node: "jast", from: HOME, cards: &BTreeSet::new(), boot: Some(boot(2)) };
        assert_eq!(ledger.decide(&jast), Verdict::Give, "another node's turn is its own");
    }

    #[test]
    fn everything_else_gets_nothing() {
        let late = WINDOW + Duration::from_millis(1);
        let long = WHOLE + Duration::from_millis(1);
        for (what, from, cards, given, want, alarms) in [
            ("no boot", HOME, &[OWN][..], None, Why::NoBoot, false),
            ("another address", AWAY, &[OWN], Some(boot(1)), Why::Address(AWAY), true),
            ("another card", HOME, &[OTHER], Some(boot(1)), Why::Card(OTHER), true),
            ("two cards", HOME, &[OWN, OTHER], Some(boot(1)), Why::Card(OTHER), true),
            ("silence", HOME, &[OWN], Some(Boot { heard: late, ..boot(1) }), Why::Late(late), false),
            (
                "kept open",
                HOME,
                &[OWN],
                Some(Boot { began: long, ..boot(1) }),
                Why::Late(boot(1).heard),
                false,
            ),
            ("after login", HOME, &[OWN], Some(Boot { over: true, ..boot(1) }), Why::NoBoot, false),
        ] {
            let mut ledger = Ledger::default();
            assert_eq!(ask(&mut ledger, from, cards, given), Verdict::Refuse(want), "{what}");
            assert_eq!(want.alarms(), alarms, "{what}");
            assert_eq!(
                ask(&mut ledger, HOME, &[OWN], Some(boot(1))),
                Verdict::Give,
                "{what} used up the turn"
            );
        }
        // A node behind a router is in no neighbour table of ours.
        assert_eq!(ask(&mut Ledger::default(), HOME, &[], Some(boot(1))), Verdict::Give);
        assert_eq!(
            ask(&mut Ledger::default(), HOME, &[], Some(Boot { heard: WINDOW, ..boot(1) })),
            Verdict::Give
        );
    }

    #[test]
    fn a_restart_does_not_give_a_second_time() {
        let mut ledger = Ledger::default();
        ledger.restore("fenn", 4);
        ledger.restore("fenn", 3);
        assert_eq!(ask(&mut ledger, HOME, &[OWN], Some(boot(4))), Verdict::Refuse(Why::Again));
        assert_eq!(ask(&mut ledger, HOME, &[OWN], Some(boot(5))), Verdict::Give);
    }

    #[test]
    fn a_claim_after_the_first_is_an_alarm_also_when_late_or_over() {
        for second in [Boot { heard: WHOLE, ..boot(1) }, Boot { over: true, ..boot(1) }] {
            let mut ledger = Ledger::default();
            assert_eq!(ask(&mut ledger, HOME, &[OWN], Some(boot(1))), Verdict::Give);
            assert_eq!(ask(&mut ledger, HOME, &[OWN], Some(second)), Verdict::Refuse(Why::Again));
        }
    }

    proptest! {
        /// Whatever is asked in whatever order: each boot gives at most once, and only to its own
        /// address and card in time.
        #[test]
        fn at_most_once(
            asks in prop::collection::vec((1u64..4, any::<bool>(), any::<bool>(), 0u64..60, 0u64..900, any::<bool>()), 1..40),
        ) {
            let mut ledger = Ledger::default();
            let mut given = BTreeSet::new();
            for (id, home, own, heard, began, over) in asks {
                let (heard, began) = (Duration::from_secs(heard), Duration::from_secs(began));
                let (from, card) = (if home { HOME } else { AWAY }, if own { OWN } else { OTHER });
                if ask(&mut ledger, from, &[card], Some(Boot { heard, began, over, ..boot(id) })) == Verdict::Give {
                    prop_assert!(given.insert(id), "boot {id} gave twice");
                    prop_assert!(home && own && !over && heard <= WINDOW && began <= WHOLE);
                }
            }
        }
    }
}
