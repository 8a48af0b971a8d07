//! Replies, byte by byte: against the vectors, and against what each client asked for.
//! Must not know: sockets.

use super::*;
use crate::dhcp::{PI_BOOT, To};

/// Splits the options of a reply, and puts them back without one of them.
fn without(bytes: &[u8], code: u8) -> Vec<u8> {
    let mut kept = bytes[..240].to_vec();
    let mut rest = &bytes[240..];
    while let [c, len, after @ ..] = rest {
        let (value, next) = after.split_at(usize::from(*len));
        if *c != code {
            kept.extend([*c, *len]);
            kept.extend(value);
        }
        rest = next;
        if rest[0] == 255 {
            break;
        }
    }
    kept.extend(rest);
    kept
}

#[test]
fn the_offer_to_a_pi_4_is_the_vector() {
    let mut bench = Bench::new(Mode::Authoritative);
    let reply = bench.ask(&vector("discover-pi4")).reply.unwrap();
    assert_eq!(reply.bytes, vector("offer-full-pi4"));
    assert_eq!(reply.to, To::Card { address: FENN, mac: FENN_MAC });
    assert_eq!(reply.delay, Duration::ZERO);
}

#[test]
fn the_ack_that_closes_the_exchange_is_the_vector() {
    // With the PXE options, and as a Pi 4 of 2020 did, without option 60 and all else (rpi-eeprom#82).
    let mut full = vector("discover-pi4");
    full[242] = REQUEST;
    full.truncate(full.len() - 1);
    full.extend([54, 4, 10, 4, 0, 10, 50, 4, 10, 4, 0, 21, 255]);
    let mut bench = Bench::new(Mode::Authoritative);
    bench.ask(&vector("discover-pi4"));
    let reply = bench.ask(&full).reply.unwrap();
    assert_eq!(reply.bytes, vector("ack-full-pi4"));

    let xid = 0xd383_a6ac;
    let bare =
        Ask { xid, ..Ask::new(REQUEST) }.address(54, SERVER).address(50, FENN).with(55, [1, 3, 43, 66]);
    let reply = bench.ask(&bare.bytes()).reply.unwrap();
    assert_eq!(reply.bytes[..300], without(&vector("ack-full-pi4"), 97)[..300]);
    // Another exchange of the same card is not the firmware's.
    let system = Ask { xid: 7, ..bare.clone() };
    assert_eq!(option(&bench.ask(&system.bytes()).reply.unwrap().bytes, 43), None);
    // A REQUEST that names neither server nor address belongs to the exchange it is in.
    let barer = Ask { xid, ..Ask::new(REQUEST) };
    assert_eq!(kind(&bench.ask(&barer.bytes()).reply.unwrap().bytes), ACK);
    bench.later(61);
    assert_eq!(bench.ask(&barer.bytes()).reply, None, "long after the exchange");
}

#[test]
fn the_offer_of_a_proxy_is_the_vector_and_option_66() {
    let mut bench = Bench::new(Mode::Proxy);
    let reply = bench.ask(&vector("discover-pi4")).reply.unwrap();
    assert_eq!(reply.to, To::Broadcast);
    assert_eq!(option(&reply.bytes, 66).unwrap(), b"10.4.0.10");
    assert_eq!(without(&reply.bytes, 66), vector("offer-proxy-pi4-three-spaces"));
}

#[test]
fn option_43_is_the_padded_form() {
    assert_eq!(PI_BOOT.as_slice(), vector("opt43-three-spaces"));
    // The sub-options cover it exactly, and the inner END is there.
    let mut rest = PI_BOOT.as_slice();
    let mut found = vec![];
    while let [code, len, after @ ..] = rest {
        found.push(*code);
        rest = &after[usize::from(*len)..];
    }
    assert_eq!((found, rest), (vec![6, 10, 9], &[255][..]));
}

#[test]
fn every_model_is_told_the_same_server_three_times() {
    for (name, address) in [("discover-pi3b-rom", 23), ("discover-pi4", 21), ("discover-pi5", 22)] {
        for mode in [Mode::Proxy, Mode::Authoritative] {
            let request = vector(name);
            let reply = Bench::new(mode).ask(&request).reply.unwrap().bytes;
            let message = reread(&reply);
            assert_eq!(message.siaddr(), SERVER, "{name} {mode:?}");
            assert_eq!(option(&reply, 54).unwrap(), SERVER.octets());
            assert_eq!(option(&reply, 66).unwrap(), b"10.4.0.10");
            assert_eq!(option(&reply, 60).unwrap(), b"PXEClient");
            assert_eq!(option(&reply, 43).unwrap(), PI_BOOT);
            assert_eq!(option(&reply, 97), option(&request, 97), "{name}: it must come back as it was");
            assert_eq!(option(&reply, 67), None);
            let yiaddr = if mode == Mode::Proxy { NONE } else { Ipv4Addr::new(10, 4, 0, address) };
            assert_eq!((message.yiaddr(), message.ciaddr(), message.giaddr()), (yiaddr, NONE, NONE));
            assert_eq!(message.flags().broadcast(), mode == Mode::Proxy);
        }
    }
}

#[test]
fn a_system_gets_what_it_asks_for_and_nothing_to_boot() {
    let own = [1, 0xdc, 0xa6, 0x32, 0x2e, 0xf8, 0xed];
    for (what, ask, want) in [
        // Nothing asked for: everything.
        ("kernel", Ask::new(DISCOVER), vec![53, 54, 51, 58, 59, 1, 3, 12, 15, 28, 6]),
        (
            "klibc",
            Ask::new(DISCOVER).with(60, b"Linux ipconfig").with(55, [1, 3, 6, 12, 15, 17, 26, 28, 40, 119]),
            vec![53, 54, 51, 58, 59, 1, 3, 12, 15, 28, 6],
        ),
        (
            "udhcpc",
            Ask::new(DISCOVER).with(60, b"udhcp 1.37").with(61, own).with(55, [1, 3, 6, 12, 28, 42]),
            vec![53, 54, 51, 58, 59, 1, 3, 61, 12, 28, 6],
        ),
        (
            "networkd",
            Ask::new(DISCOVER).with(61, [255, 9, 9]).with(55, [1, 3, 15, 120]),
            vec![53, 54, 51, 58, 59, 1, 3, 61, 15],
        ),
    ] {
        let reply = Bench::new(Mode::Authoritative).ask(&ask.bytes()).reply.unwrap().bytes;
        assert_eq!(codes(&reply), want, "{what}");
        assert!(reply.len() >= 300, "{what}: RFC 1542");
        assert_eq!(reread(&reply).yiaddr(), FENN, "{what}: one address for all clients of a node");
    }
}

#[test]
fn parameters_are_the_sites() {
    let reply = Bench::new(Mode::Authoritative).ask(&Ask::new(DISCOVER).bytes()).reply.unwrap().bytes;
    for (code, want) in [
        (51, vec![0, 0, 0x0e, 0x10]),
        (58, vec![0, 0, 0x07, 0x08]),
        (59, vec![0, 0, 0x0c, 0x4e]),
        (1, vec![255, 255, 255, 0]),
        (3, vec![10, 4, 0, 1]),
        (6, vec![10, 4, 0, 1, 9, 9, 9, 9]),
        (12, b"fenn".to_vec()),
        (15, b"nodes.example".to_vec()),
        (28, vec![10, 4, 0, 255]),
    ] {
        assert_eq!(option(&reply, code).unwrap(), want, "option {code}");
    }
}

#[test]
fn what_a_site_does_not_have_is_not_told() {
    let mut bench = Bench::new(Mode::Authoritative);
    bench.site = Site { gateway: None, dns: vec![], domain: String::new(), ..bench.site };
    let reply = bench.ask(&Ask::new(DISCOVER).bytes()).reply.unwrap().bytes;
    assert_eq!(codes(&reply), [53, 54, 51, 58, 59, 1, 12, 28]);
}

#[test]
fn a_reply_fits_the_client() {
    let mut bench = Bench::new(Mode::Authoritative);
    bench.site.dns = vec![ROUTER; 80];
    let relay = [1, 4, b'e', b't', b'h', b'0'];
    let small = Ask::new(DISCOVER).with(82, relay);
    let reply = bench.ask(&small.bytes()).reply.unwrap().bytes;
    assert!(reply.len() <= 548, "{} bytes", reply.len());
    assert_eq!(option(&reply, 6), None, "what does not fit is left out whole");
    assert_eq!(option(&reply, 12).unwrap(), b"fenn");
    assert_eq!(*codes(&reply).last().unwrap(), 82);
    let large = small.with(57, 1500u16.to_be_bytes());
    let reply = bench.ask(&large.bytes()).reply.unwrap().bytes;
    assert_eq!(option(&reply, 6).unwrap().len(), 320, "split and joined (RFC 3396)");
}

#[test]
fn the_answer_to_an_inform_has_no_lease() {
    let ask = Ask { ciaddr: FENN, ..Ask::new(INFORM) };
    let reply = Bench::new(Mode::Authoritative).ask(&ask.bytes()).reply.unwrap();
    assert_eq!(reply.to, To::Address(FENN));
    assert_eq!(codes(&reply.bytes), [53, 54, 1, 3, 12, 15, 28, 6]);
    let message = reread(&reply.bytes);
    assert_eq!((kind(&reply.bytes), message.yiaddr(), message.ciaddr()), (ACK, NONE, FENN));
}

#[test]
fn a_nak_says_why_and_nothing_else() {
    let wrong = Ask::new(REQUEST).address(54, SERVER).address(50, ROUTER).with(61, [1, 2]);
    let reply = Bench::new(Mode::Authoritative).ask(&wrong.bytes()).reply.unwrap();
    assert_eq!(codes(&reply.bytes), [53, 54, 56, 61]);
    let message = reread(&reply.bytes);
    assert_eq!((kind(&reply.bytes), message.yiaddr(), message.siaddr()), (NAK, NONE, NONE));
    assert_eq!(reply.to, To::Broadcast);
}
