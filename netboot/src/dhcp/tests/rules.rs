//! Who is answered, when, and what is told of it.
//! Must not know: sockets, and the bytes of a reply beyond its type.

use super::*;
use crate::dhcp::{Sender, To};

fn answer(decision: &Decision) -> Option<u8> {
    decision.reply.as_ref().map(|reply| kind(&reply.bytes))
}

#[test]
fn the_four_states_of_a_request() {
    let ask = || Ask::new(REQUEST);
    let bound = |ciaddr| Ask { ciaddr, ..ask() };
    let other = Ipv4Addr::new(10, 4, 0, 99);
    let elsewhere = Ipv4Addr::new(192, 168, 7, 7);
    for (state, ask, want, to) in [
        (
            "SELECTING",
            ask().address(54, SERVER).address(50, FENN),
            Some(ACK),
            Some(To::Card { address: FENN, mac: FENN_MAC }),
        ),
        (
            "SELECTING another address",
            ask().address(54, SERVER).address(50, other),
            Some(NAK),
            Some(To::Broadcast),
        ),
        ("SELECTING another server", ask().address(54, ROUTER).address(50, FENN), None, None),
        ("SELECTING another server and address", ask().address(54, ROUTER).address(50, other), None, None),
        ("SELECTING no address", ask().address(54, SERVER), None, None),
        ("INIT-REBOOT", ask().address(50, FENN), Some(ACK), Some(To::Card { address: FENN, mac: FENN_MAC })),
        ("INIT-REBOOT another address", ask().address(50, other), Some(NAK), Some(To::Broadcast)),
        ("INIT-REBOOT another network", ask().address(50, elsewhere), Some(NAK), Some(To::Broadcast)),
        ("RENEWING", bound(FENN), Some(ACK), Some(To::Address(FENN))),
        ("RENEWING another address", bound(other), Some(NAK), Some(To::Broadcast)),
        ("REBINDING", Ask { flags: 0x8000, ..bound(FENN) }, Some(ACK), Some(To::Address(FENN))),
        ("REBINDING another network", bound(elsewhere), Some(NAK), Some(To::Broadcast)),
        ("nothing", ask(), None, None),
    ] {
        let decision = Bench::new(Mode::Authoritative).ask(&ask.bytes());
        assert_eq!(answer(&decision), want, "{state}");
        assert_eq!(decision.reply.map(|reply| reply.to), to, "{state}");
        // Beside a router none of it is ours.
        assert_eq!(Bench::new(Mode::Proxy).ask(&ask.bytes()).reply, None, "{state}");
    }
}

#[test]
fn a_proxy_answers_nothing_but_a_firmwares_discover() {
    for kind in [REQUEST, DECLINE, RELEASE, INFORM, OFFER, ACK, 13, 200] {
        let mut request = vector("discover-pi4");
        request[242] = kind;
        assert_eq!(Bench::new(Mode::Proxy).ask(&request).reply, None, "type {kind}");
    }
    let decision = Bench::new(Mode::Proxy).ask(&Ask::new(DISCOVER).bytes());
    assert_eq!(decision, Decision::default(), "a system gets its address from the router");
}

#[test]
fn strangers_are_told_of_and_not_answered() {
    let pi = Ask { mac: Mac([0xdc, 0xa6, 0x32, 9, 9, 9]), ..Ask::new(DISCOVER) };
    let pc = Ask { mac: PC_MAC, ..Ask::new(DISCOVER) };
    let pxe = pc.clone().with(60, b"PXEClient:Arch:00007").with(93, [0, 7]);
    let uuid = [0, 0x52, 0x50, 0x69, 0x34, 1, 2, 3, 4, 0x32, 9, 9, 9, 0x78, 0x56, 0x34, 0x12];
    for (what, ask, proxy, authoritative, is_pi) in [
        ("a Pi that boots", pi.clone().with(60, b"PXEClient").with(97, uuid), true, true, true),
        ("a Pi that runs", pi, true, true, true),
        ("a PC that boots", pxe, true, true, false),
        ("a telephone", pc.clone(), false, true, false),
        (
            "a telephone that takes the router's offer",
            Ask { kind: REQUEST, ..pc.clone() },
            false,
            false,
            false,
        ),
        ("a telephone with an address", Ask { kind: INFORM, ..pc }, false, false, false),
    ] {
        for (mode, want) in [(Mode::Proxy, proxy), (Mode::Authoritative, authoritative)] {
            let mut bench = Bench::new(mode);
            let decision = bench.ask(&ask.bytes());
            assert_eq!((decision.reply, decision.probe), (None, None), "{what} {mode:?}");
            match decision.events.as_slice() {
                [] => assert!(!want, "{what} {mode:?}"),
                [Event::Stranger { mac, pi, .. }] => {
                    assert_eq!((*mac, *pi, true), (ask.mac, is_pi, want), "{what}")
                }
                other => panic!("{what} {mode:?}: {other:?}"),
            }
            // Once, however often it asks; again when its owner may have forgotten.
            assert_eq!(bench.ask(&ask.bytes()).events, [], "{what} {mode:?}");
            bench.later(300);
            assert_eq!(bench.ask(&ask.bytes()).events.len(), usize::from(want), "{what} {mode:?}");
        }
    }
}

#[test]
fn a_stranger_is_named_by_its_serial() {
    let mut discover = vector("discover-pi5");
    discover[33] ^= 1; // another card
    let events = Bench::new(Mode::Proxy).ask(&discover).events;
    let [Event::Stranger { identity: Some(identity), pi: true, .. }] = events.as_slice() else {
        panic!("{events:?}")
    };
    assert_eq!(identity.serial.to_string(), "be512421");
}

#[test]
fn a_flood_of_strangers_is_told_of_in_part_and_hides_no_pi() {
    let mut bench = Bench::new(Mode::Authoritative);
    let mut told = 0;
    for n in 0..5000u16 {
        let [a, b] = n.to_be_bytes();
        let ask = Ask { mac: Mac([2, 0, 0, 0, a, b]), ..Ask::new(DISCOVER) };
        told += bench.ask(&ask.bytes()).events.len();
    }
    assert_eq!(told, 64);
    let pi = Ask { mac: Mac([0xe4, 0x5f, 1, 9, 9, 9]), ..Ask::new(DISCOVER) };
    assert_eq!(bench.ask(&pi.bytes()).events.len(), 1);
    assert!(answer(&bench.ask(&vector("discover-pi4"))).is_some());
}

#[test]
fn another_board_with_a_nodes_card_gets_nothing() {
    let mut bench = Bench::new(Mode::Authoritative);
    bench.site.nodes[0].serial = Serial(0x1111_2222);
    for mode in [Mode::Authoritative, Mode::Proxy] {
        bench.settings.mode = mode;
        for name in ["discover-pi4", "discover-pi4-serial-guid"] {
            assert_eq!(bench.ask(&vector(name)).reply, None, "{name} {mode:?}");
        }
        bench.later(10);
    }
    let mut request = vector("discover-pi4");
    request[242] = REQUEST;
    assert_eq!(bench.ask(&request).reply, None);
    bench.later(300);
    let want =
        Event::Mismatch { node: "fenn".into(), expected: Serial(0x1111_2222), found: Serial(0x5b15_4510) };
    assert_eq!(bench.ask(&vector("discover-pi4")).events, [want]);
    assert_eq!(bench.ask(&vector("discover-pi4")).events, [], "once");
}

#[test]
fn what_was_settled_and_comes_again_is_told_of_again() {
    let mut bench = Bench::new(Mode::Authoritative);
    let good = vector("discover-pi4");
    let bad = |bench: &mut Bench| {
        let serial = std::mem::replace(&mut bench.site.nodes[0].serial, Serial(0x1111_2222));
        let events = bench.ask(&good).events;
        bench.site.nodes[0].serial = serial;
        events.len()
    };
    assert_eq!((bad(&mut bench), bad(&mut bench)), (1, 0), "once");
    assert!(bench.ask(&good).reply.is_some());
    assert_eq!(bad(&mut bench), 1, "the right board was here in between");

    bench.settings.probe = true;
    let conflict = |bench: &mut Bench| {
        bench.later(60);
        bench.memory.heard(&bench.site, FENN, PC_MAC, bench.now);
        bench.ask(&good).events.len()
    };
    assert_eq!((conflict(&mut bench), conflict(&mut bench)), (1, 0), "once");
    bench.later(60);
    bench.memory.probed(&bench.site, FENN, bench.now);
    assert!(bench.ask(&good).reply.is_some());
    assert_eq!(conflict(&mut bench), 1, "the address was free in between");
}

#[test]
fn another_card_in_option_97_is_told_of_and_answered() {
    let mut discover = vector("discover-pi4");
    let at = discover.windows(4).rposition(|four| four == [0x32, 0x2e, 0xf8, 0xed]).unwrap();
    discover[at + 3] ^= 1;
    let decision = Bench::new(Mode::Proxy).ask(&discover);
    assert_eq!(answer(&decision), Some(OFFER));
    let want = Event::CardMismatch { node: "fenn".into(), found: [0x32, 0x2e, 0xf8, 0xec] };
    assert_eq!(decision.events[0], want);
    // The bootloader of 2020-03-04 says nothing there, and that is no mismatch.
    discover[at..at + 4].fill(0);
    let decision = Bench::new(Mode::Proxy).ask(&discover);
    assert_eq!(answer(&decision), Some(OFFER));
    assert!(!decision.events.iter().any(|event| matches!(event, Event::CardMismatch { .. })));
}

#[test]
fn a_boot_is_told_step_by_step_and_once() {
    let mut bench = Bench::new(Mode::Authoritative);
    let discover = bench.ask(&vector("discover-pi4"));
    let identity =
        Packet::decode(&vector("discover-pi4")).map(|packet| Sender::of(&packet, true).guid.identity());
    let node = || "fenn".to_owned();
    let want =
        [Event::Discover { node: node(), identity: identity.unwrap() }, Event::Offered { node: node() }];
    assert_eq!(discover.events, want);
    bench.later(4);
    let again = bench.ask(&vector("discover-pi4"));
    assert_eq!((answer(&again), again.events), (Some(OFFER), vec![]), "a repetition is answered, not told");
    let request = Ask { xid: 0xd383_a6ac, ..Ask::new(REQUEST) }.address(54, SERVER).address(50, FENN);
    let leased = bench.ask(&request.clone().with(60, "PXEClient").bytes());
    assert_eq!(leased.events, [Event::Leased { node: node(), client: "PXEClient".into() }]);
    bench.later(30);
    assert_eq!(bench.ask(&vector("discover-pi4")).events, want, "it boots again");
}

#[test]
fn a_pi_3_never_confirms_and_its_rom_is_given_time() {
    let mut bench = Bench::new(Mode::Authoritative);
    let decision = bench.ask(&vector("discover-pi3b-rom"));
    assert_eq!(decision.reply.unwrap().delay, Duration::from_millis(1500));
    assert!(matches!(
        decision.events.as_slice(),
        [Event::Discover { .. }, Event::Offered { .. }, Event::Leased { .. }]
    ));
    bench.settings.pi3_delay = Duration::from_secs(60);
    assert_eq!(bench.ask(&vector("discover-pi3b-rom")).reply.unwrap().delay, Duration::from_secs(3));
    // A 3B+ has the transaction id but not the fault.
    let later = Ask { xid: 0x26f3_0339, ..Ask::new(DISCOVER) }
        .with(60, "PXEClient")
        .with(97, [&[0][..], &[0x10, 0x45, 0x15, 0x5b].repeat(4)].concat());
    let decision = bench.ask(&later.bytes());
    assert_eq!(decision.reply.unwrap().delay, Duration::ZERO);
    assert!(matches!(decision.events.last(), Some(Event::Leased { .. })));
}

#[test]
fn a_node_with_nothing_to_boot_still_has_its_address() {
    let mut bench = Bench::new(Mode::Authoritative);
    bench.can_boot = false;
    let offer = bench.ask(&vector("discover-pi4")).reply.unwrap().bytes;
    assert_eq!(codes(&offer), [53, 54, 51, 1, 3]);
    assert_eq!(reread(&offer).yiaddr(), FENN);
    bench.settings.mode = Mode::Proxy;
    bench.later(60);
    let decision = bench.ask(&vector("discover-pi4"));
    assert_eq!(decision.reply, None);
    assert!(matches!(decision.events.as_slice(), [Event::Discover { .. }]), "but it is seen");
}

#[test]
fn uefi_on_a_node_has_an_address_and_no_pi_boot() {
    let ask = Ask::new(DISCOVER).with(60, b"PXEClient:Arch:00011:UNDI:003016").with(93, [0, 11]);
    let reply = Bench::new(Mode::Authoritative).ask(&ask.bytes()).reply.unwrap().bytes;
    assert!(!codes(&reply).iter().any(|code| [43, 60, 66, 97].contains(code)));
    assert_eq!(Bench::new(Mode::Proxy).ask(&ask.bytes()).reply, None);
}

#[test]
fn the_broadcast_flag_is_obeyed() {
    let ask = Ask { flags: 0x8000, ..Ask::new(DISCOVER) };
    let reply = Bench::new(Mode::Authoritative).ask(&ask.bytes()).reply.unwrap();
    assert_eq!(reply.to, To::Broadcast);
    assert!(reread(&reply.bytes).flags().broadcast());
}

#[test]
fn relay_agents() {
    let near = Ipv4Addr::new(10, 4, 0, 254);
    let far = Ipv4Addr::new(10, 5, 0, 254);
    let mark = [1, 2, b'a', b'b', 2, 1, 9];
    let mut discover = vector("discover-pi4");
    discover.truncate(discover.len() - 1);
    discover.extend([&[82, 7][..], &mark, &[255]].concat());
    for (mode, giaddr, want) in [
        (Mode::Authoritative, near, Some(OFFER)),
        (Mode::Authoritative, far, None), // the reservation is no address of that network
        (Mode::Proxy, near, Some(OFFER)),
        (Mode::Proxy, far, Some(OFFER)), // the address is the router's matter
    ] {
        discover[24..28].copy_from_slice(&giaddr.octets());
        let mut bench = Bench::new(mode);
        bench.settings.probe = true; // ARP does not go through a relay agent
        let decision = bench.ask(&discover);
        assert_eq!((answer(&decision), decision.probe), (want, None), "{mode:?} {giaddr}");
        let Some(reply) = decision.reply else { continue };
        assert_eq!(reply.to, To::Relay(giaddr));
        assert_eq!(reread(&reply.bytes).giaddr(), giaddr);
        assert_eq!(option(&reply.bytes, 82).unwrap(), mark);
        assert_eq!(*codes(&reply.bytes).last().unwrap(), 82, "RFC 3046 section 2.2");
    }
    // Behind an agent, the flag has it broadcast a NAK.
    let wrong = Ask { giaddr: near, ..Ask::new(REQUEST) }.address(54, SERVER).address(50, ROUTER);
    let reply = Bench::new(Mode::Authoritative).ask(&wrong.bytes()).reply.unwrap();
    assert_eq!((kind(&reply.bytes), reply.to), (NAK, To::Relay(near)));
    assert!(reread(&reply.bytes).flags().broadcast());
}

#[test]
fn an_address_is_checked_before_it_is_offered() {
    let other = Mac([2, 2, 2, 2, 2, 2]);
    for (what, claims, free) in [
        ("nobody answers", vec![], true),
        ("the node itself answers", vec![FENN_MAC], true),
        ("another machine answers", vec![other], false),
        ("both answer", vec![other, FENN_MAC], false),
        ("both answer, the other way round", vec![FENN_MAC, other], false),
    ] {
        let mut bench = Bench::new(Mode::Authoritative);
        bench.settings.probe = true;
        let discover = vector("discover-pi4");
        let first = bench.ask(&discover);
        assert_eq!(first, Decision { probe: Some(FENN), ..Decision::default() }, "{what}");
        for card in claims {
            bench.memory.heard(&bench.site, FENN, card, bench.now);
        }
        bench.memory.probed(&bench.site, FENN, bench.now);
        let second = bench.ask(&discover);
        assert_eq!((answer(&second), second.probe), (free.then_some(OFFER), None), "{what}");
        assert_eq!(conflicts(&second), usize::from(!free), "{what}");
        if !free {
            let want = Event::Conflict { node: "fenn".into(), address: FENN, holder: Some(other) };
            assert_eq!(second.events, [want]);
            assert_eq!(bench.ask(&discover).events, [], "told once");
            bench.later(10);
            assert_eq!(bench.ask(&discover).probe, Some(FENN), "and checked again soon");
        }
        bench.later(60);
        assert_eq!(bench.ask(&discover).probe, Some(FENN), "{what}: nothing is believed for ever");
    }
}

#[test]
fn a_check_serves_a_whole_boot() {
    let mut bench = Bench::new(Mode::Authoritative);
    bench.settings.probe = true;
    bench.memory.probed(&bench.site, FENN, bench.now);
    for ask in
        [vector("discover-pi4"), Ask::new(DISCOVER).bytes(), Ask { xid: 9, ..Ask::new(DISCOVER) }.bytes()]
    {
        let decision = bench.ask(&ask);
        assert_eq!((answer(&decision), decision.probe), (Some(OFFER), None));
        bench.later(15);
    }
}

#[test]
fn who_runs_on_an_address_keeps_it_and_who_comes_back_asks_anew() {
    let mut bench = Bench::new(Mode::Authoritative);
    bench.settings.probe = true;
    bench.memory.heard(&bench.site, FENN, Mac([2; 6]), bench.now);
    let renewing = Ask { ciaddr: FENN, ..Ask::new(REQUEST) };
    assert_eq!(answer(&bench.ask(&renewing.bytes())), Some(ACK));
    let rebooted = Ask::new(REQUEST).address(50, FENN);
    let decision = bench.ask(&rebooted.bytes());
    assert_eq!((answer(&decision), conflicts(&decision)), (Some(NAK), 1));
    bench.later(60);
    let decision = bench.ask(&rebooted.bytes());
    assert_eq!((answer(&decision), decision.probe), (None, Some(FENN)));
}

#[test]
fn a_declined_address_is_checked_before_it_is_offered_again() {
    let decline = Ask::new(DECLINE).address(54, SERVER).address(50, FENN);
    let discover = Ask { xid: 5, ..Ask::new(DISCOVER) }.bytes();
    for (what, ask, counts) in [
        ("ours", decline.clone(), true),
        ("without option 54", Ask::new(DECLINE).address(50, FENN), true),
        ("another server's", Ask::new(DECLINE).address(54, ROUTER).address(50, FENN), false),
        ("another address", Ask::new(DECLINE).address(54, SERVER).address(50, ROUTER), false),
        ("no address", Ask::new(DECLINE).address(54, SERVER), false),
    ] {
        let mut bench = Bench::new(Mode::Authoritative);
        bench.settings.probe = true;
        bench.memory.probed(&bench.site, FENN, bench.now);
        let decision = bench.ask(&ask.bytes());
        assert_eq!((decision.reply.is_none(), conflicts(&decision)), (true, usize::from(counts)), "{what}");
        assert_eq!(bench.ask(&discover).probe, counts.then_some(FENN), "{what}");
    }
    // Where nothing can be checked, it is held back for a while.
    let mut bench = Bench::new(Mode::Authoritative);
    bench.ask(&decline.bytes());
    assert_eq!(bench.ask(&discover).reply, None);
    bench.later(30);
    assert_eq!(answer(&bench.ask(&discover)), Some(OFFER));
}

#[test]
fn a_release_is_noted_and_not_answered() {
    let release = Ask { ciaddr: FENN, ..Ask::new(RELEASE) }.address(54, SERVER);
    for (what, ask, told) in [
        ("ours", release.clone(), true),
        ("another server's", Ask { ciaddr: FENN, ..Ask::new(RELEASE) }.address(54, ROUTER), false),
        ("another address", Ask { ciaddr: ROUTER, ..release }, false),
    ] {
        let decision = Bench::new(Mode::Authoritative).ask(&ask.bytes());
        assert_eq!(decision.reply, None, "{what}");
        assert_eq!(decision.events.len(), usize::from(told), "{what}");
    }
}

#[test]
fn an_inform_is_answered_within_the_network_only() {
    for (ciaddr, want) in [
        (FENN, Some(ACK)),
        (Ipv4Addr::new(10, 4, 0, 99), Some(ACK)),
        (NONE, None),
        (Ipv4Addr::new(8, 8, 8, 8), None),
    ] {
        let ask = Ask { ciaddr, ..Ask::new(INFORM) };
        assert_eq!(answer(&Bench::new(Mode::Authoritative).ask(&ask.bytes())), want, "{ciaddr}");
    }
    // Behind a relay agent the server's network is not the node's.
    let mut bench = Bench::new(Mode::Authoritative);
    bench.site.server = Ipv4Addr::new(10, 9, 0, 10);
    let ask = Ask { ciaddr: FENN, ..Ask::new(INFORM) };
    assert_eq!(answer(&bench.ask(&ask.bytes())), Some(ACK));
}

#[test]
fn foreign_servers_are_told_of() {
    let mut offer = vector("offer-full-pi4");
    let server_at = 245;
    assert_eq!(offer[server_at - 2..server_at + 4], [54, 4, 10, 4, 0, 10]);
    assert_eq!(Bench::new(Mode::Authoritative).ask(&offer), Decision::default(), "our own, come back");
    offer[server_at..server_at + 4].copy_from_slice(&ROUTER.octets());
    let taken = Ask { mac: PC_MAC, ..Ask::new(REQUEST) }.address(54, ROUTER).address(50, FENN);
    for (what, packet) in [("its offer", offer), ("a client that took its offer", taken.bytes())] {
        let want = [Event::ForeignServer { server: ROUTER, mac: None }];
        for (mode, again) in [(Mode::Authoritative, true), (Mode::Proxy, false)] {
            let mut bench = Bench::new(mode);
            let decision = bench.ask(&packet);
            assert_eq!((decision.reply, decision.events.as_slice()), (None, &want[..]), "{what} {mode:?}");
            assert_eq!(bench.ask(&packet).events, [], "{what} {mode:?}");
            bench.later(300);
            assert_eq!(
                bench.ask(&packet).events.len(),
                usize::from(again),
                "{what} {mode:?}: a router is expected"
            );
        }
    }
}

#[test]
fn a_client_in_a_loop_is_slowed_and_costs_nobody_a_boot() {
    let mut bench = Bench::new(Mode::Authoritative);
    let system = Ask::new(DISCOVER).bytes();
    let answered = (0..1000).filter(|_| bench.ask(&system).reply.is_some()).count();
    assert_eq!(answered, 8);
    assert_eq!(answer(&bench.ask(&vector("discover-pi4"))), Some(OFFER), "another exchange of the same node");
    // Under any number of transaction ids the node's own still has its turn, every four seconds.
    for round in 0..11 {
        for xid in 0..1000 {
            bench.ask(&Ask { xid: round * 1000 + xid, ..Ask::new(DISCOVER) }.bytes());
        }
        bench.later(4);
        assert_eq!(answer(&bench.ask(&vector("discover-pi4"))), Some(OFFER), "round {round}");
    }
}

#[test]
fn a_flood_under_a_nodes_card_is_told_of_in_part() {
    let mut bench = Bench::new(Mode::Authoritative);
    let told: usize =
        (0..1000).map(|xid| bench.ask(&Ask { xid, ..Ask::new(DISCOVER) }.bytes()).events.len()).sum();
    assert_eq!(told, 40);
}

#[test]
fn a_changed_description_is_obeyed_at_once() {
    let mut bench = Bench::new(Mode::Authoritative);
    bench.settings.probe = true;
    bench.memory.probed(&bench.site, FENN, bench.now);
    let moved = Ipv4Addr::new(10, 4, 0, 77);
    bench.site.nodes[0].address = moved;
    assert_eq!(
        bench.ask(&vector("discover-pi4")).probe,
        Some(moved),
        "what was known was of another address"
    );
    bench.site.nodes.remove(0);
    assert_eq!(bench.ask(&vector("discover-pi4")).reply, None);
}
