//! Reading: vectors, one field corrupted at a time, and bytes of no sense at all.
//! Must not know: what is answered.

use proptest::prelude::*;

use super::*;
use crate::dhcp::{Client, Guid, Identity, OptionCode, PacketError, Sender};

#[test]
fn every_vector_is_read() {
    for (name, mac, identity) in [
        ("discover-pi3b-rom", "b8:27:eb:28:f6:6d", None),
        ("discover-pi4", "dc:a6:32:2e:f8:ed", Some((0x5b15_4510, Some(0x00a0_3111)))),
        ("discover-pi5", "d8:3a:dd:98:09:77", Some((0xbe51_2421, Some(0x00d0_4170)))),
        ("discover-pi4-serial-guid", "dc:a6:32:2e:f8:ed", Some((0x5b15_4510, None))),
    ] {
        let bytes = vector(name);
        let packet = Packet::decode(&bytes).unwrap();
        assert_eq!(packet.mac.to_string(), mac, "{name}");
        assert_eq!(packet.class(), "PXEClient:Arch:00000:UNDI:002001", "{name}");
        let sender = Sender::of(&packet, false);
        assert_eq!((sender.client, sender.pi), (Client::Firmware, true), "{name}");
        let found = sender.guid.identity().map(|identity| (identity.serial.0, identity.revision));
        assert_eq!(found, identity, "{name}");
        assert_eq!(sender.pi3, name.contains("pi3"), "{name}");
    }
}

#[test]
fn option_97_as_each_model_writes_it() {
    let mac = FENN_MAC;
    let tail = Some([0x32, 0x2e, 0xf8, 0xed]);
    let board =
        |serial, revision, mac_tail| Guid::Board(Identity { serial: Serial(serial), revision, mac_tail });
    let mut own_prefix = vector("guid-pi4");
    own_prefix[1..5].copy_from_slice(b"MINE");
    let mut own_prefix_other_card = own_prefix.clone();
    own_prefix_other_card[9] ^= 1;
    let mut other_type = vector("guid-pi4");
    other_type[0] = 1;
    let of_pi4 = board(0x5b15_4510, Some(0x00a0_3111), tail);
    for (what, value, want) in [
        ("guid-pi4", vector("guid-pi4"), of_pi4),
        (
            "guid-pi5",
            vector("guid-pi5"),
            board(0xbe51_2421, Some(0x00d0_4170), Some([0xdd, 0x98, 0x09, 0x77])),
        ),
        ("guid-serial-x4", vector("guid-serial-x4"), board(0xb66c_4c16, None, None)),
        ("guid-pi3b-rom", vector("guid-pi3b-rom"), Guid::Pi3Rom),
        ("guid-pi4-zero-mac", vector("guid-pi4-zero-mac"), board(0x5b15_4510, Some(0x00a0_3111), None)),
        ("own prefix", own_prefix, of_pi4),
        ("own prefix, other card", own_prefix_other_card, Guid::Other),
        (
            "a PC's UUID",
            b"\0\x4c\x4c\x45\x44\0\x51\x44\x10\x80\x53\xb5\xc0\x4f\x50\x4d\x32".to_vec(),
            Guid::Other,
        ),
        ("a board without UUID", vec![0; 17], Guid::Other),
        ("another without UUID", [&[0][..], &[0xff; 16]].concat(), Guid::Other),
        ("another type", other_type, Guid::Other),
        ("too short", vector("guid-pi4")[..16].to_vec(), Guid::Other),
        ("too long", [vector("guid-pi4"), vec![0]].concat(), Guid::Other),
        ("empty", vec![], Guid::Other),
    ] {
        assert_eq!(Guid::decode(&value, mac), want, "{what}");
    }
}

#[test]
fn who_asks() {
    let pxe = b"PXEClient:Arch:00000:UNDI:002001";
    let plain = Ask::new(DISCOVER);
    let on = |mac| Ask { mac, ..Ask::new(DISCOVER) };
    for (what, ask, known, want) in [
        (
            "Pi without a good option 97",
            plain.clone().with(60, pxe).with(93, [0, 0]).with(97, [0]),
            false,
            Client::Firmware,
        ),
        ("Pi with a card of a new block", on(PC_MAC).with(60, pxe).with(93, [0, 0]), true, Client::Firmware),
        ("PC with BIOS", on(PC_MAC).with(60, pxe).with(93, [0, 0]), false, Client::Pxe),
        (
            "PC with UEFI",
            on(PC_MAC).with(60, b"PXEClient:Arch:00007:UNDI:003016").with(93, [0, 7]),
            false,
            Client::Pxe,
        ),
        (
            "UEFI on a node",
            plain.clone().with(60, b"PXEClient:Arch:00011:UNDI:003016").with(93, [0, 11]),
            true,
            Client::Pxe,
        ),
        (
            "UEFI HTTP boot",
            on(PC_MAC).with(60, b"HTTPClient:Arch:00016").with(93, [0, 16]),
            false,
            Client::Pxe,
        ),
        ("kernel", plain.clone(), true, Client::System),
        ("klibc", plain.clone().with(60, b"Linux ipconfig"), true, Client::System),
        ("udhcpc", plain.clone().with(60, b"udhcp 1.37.0").with(61, [1, 2, 3]), true, Client::System),
        ("networkd", plain.with(61, [255, 1, 2, 3]), true, Client::System),
    ] {
        let bytes = ask.bytes();
        assert_eq!(Sender::of(&Packet::decode(&bytes).unwrap(), known).client, want, "{what}");
    }
}

#[test]
fn one_field_corrupted_is_one_error() {
    let good = vector("discover-pi4");
    let set = |at: usize, to: u8| {
        let mut bytes = good.clone();
        bytes[at] = to;
        bytes
    };
    let tail = good.len() - 1; // the END; option 60 before it has 32 bytes
    for (what, bytes, want) in [
        ("empty", vec![], PacketError::Short { len: 0 }),
        ("header cut", good[..239].to_vec(), PacketError::Short { len: 239 }),
        ("op", set(0, 3), PacketError::Op { found: 3 }),
        ("hardware type", set(1, 6), PacketError::Hardware { htype: 6, hlen: 6 }),
        ("address length", set(2, 255), PacketError::Hardware { htype: 1, hlen: 255 }),
        ("cookie", set(239, 0), PacketError::Cookie),
        (
            "option 53 longer",
            [&good[..241], &[2, 1, 1], &good[243..]].concat(),
            PacketError::Length { code: 53, want: 1, got: 2 },
        ),
        ("no option 53", set(240, 12), PacketError::Untyped),
        ("no options", good[..240].to_vec(), PacketError::Untyped),
        (
            "option past the packet",
            set(tail - 33, 34),
            PacketError::Overrun { at: tail - 34, code: 60, len: 34, left: 33 },
        ),
        (
            "option cut",
            good[..tail - 1].to_vec(),
            PacketError::Overrun { at: tail - 34, code: 60, len: 32, left: 31 },
        ),
        ("length cut", good[..244].to_vec(), PacketError::Overrun { at: 243, code: 55, len: 0, left: 0 }),
        (
            "option 50",
            Ask::new(REQUEST).with(50, [10, 4, 0]).bytes(),
            PacketError::Length { code: 50, want: 4, got: 3 },
        ),
        (
            "option 54",
            Ask::new(REQUEST).with(54, []).bytes(),
            PacketError::Length { code: 54, want: 4, got: 0 },
        ),
    ] {
        assert_eq!(Packet::decode(&bytes).unwrap_err(), want, "{what}");
    }
}

#[test]
fn what_is_odd_but_harmless() {
    let good = vector("discover-pi4");
    let want = Packet::decode(&good).unwrap();
    let end = good.len() - 1;
    for (what, bytes) in [
        ("no END", good[..end].to_vec()),
        ("bytes after END", [&good[..], &[53, 200, 7]].concat()),
        ("pads before", [&good[..240], &[0; 9], &good[240..]].concat()),
        ("pads after", [&good[..end], &[0; 60]].concat()),
    ] {
        assert_eq!(Packet::decode(&bytes).unwrap(), want, "{what}");
    }
    // dhcproto's typed reader drops the packet, or stops, at each of these.
    for (code, value) in
        [(12, &b"\xff\xfe"[..]), (94, &[1]), (81, &[0]), (97, &[1, 2]), (82, &[1]), (80, &[9])]
    {
        let bytes = Ask::new(DISCOVER).with(code, value).with(60, "udhcp").bytes();
        assert_eq!(Packet::decode(&bytes).unwrap().class(), "udhcp", "option {code}");
    }
}

#[test]
fn parts_of_an_option_are_joined() {
    let ask = Ask::new(DISCOVER).with(43, [1; 255]).with(60, b"PXE").with(43, [2; 45]).with(60, b"Client");
    let bytes = ask.bytes();
    let packet = Packet::decode(&bytes).unwrap();
    let whole = packet.options.get(OptionCode::VendorExtensions).unwrap();
    assert_eq!(whole, [[1; 255].as_slice(), &[2; 45]].concat());
    assert_eq!(packet.class(), "PXEClient");
}

#[test]
fn options_in_file_and_sname_are_read_in_that_order() {
    let place = |overload: &[u8], file: &[u8], sname: &[u8]| {
        let mut bytes = Ask::new(DISCOVER).with(52, overload).with(60, b"A").bytes();
        bytes[108..108 + file.len()].copy_from_slice(file);
        bytes[44..44 + sname.len()].copy_from_slice(sname);
        bytes
    };
    for (overload, want) in [(&[0][..], "A"), (&[1], "AB"), (&[2], "AC"), (&[3], "ABC"), (&[1, 1], "A")] {
        let bytes = place(overload, &[60, 1, b'B', 255, 60, 9], &[0, 60, 1, b'C', 52, 1, 1]);
        let packet = Packet::decode(&bytes).unwrap();
        assert_eq!(packet.class(), want, "overload {overload:?}");
        assert_eq!(packet.overloaded, want.len() > 1);
    }
    let mut file = [0; 128];
    file[120..123].copy_from_slice(&[12, 7, b'x']);
    let error = Packet::decode(&place(&[1], &file, &[])).unwrap_err();
    assert_eq!(error, PacketError::Overrun { at: 228, code: 12, len: 7, left: 6 });
}

#[test]
fn the_class_of_a_stranger_cannot_move_the_cursor() {
    let bytes = Ask::new(DISCOVER).with(60, [b"\x1b[2J\xff".as_slice(), &[b'x'; 100]].concat()).bytes();
    let class = Packet::decode(&bytes).unwrap().class();
    assert!(class.starts_with(".[2J\u{fffd}x"), "{class}");
    assert_eq!(class.chars().count(), 64);
}

#[test]
fn room_for_the_reply() {
    for (said, want) in [
        (None, 548),
        (Some(vec![0, 0]), 548),
        (Some(vec![0x02, 0x40]), 548),
        (Some(vec![0x04, 0xb0]), 1172),
        (Some(vec![0xff, 0xff]), 1472),
        (Some(vec![9]), 548),
    ] {
        let mut ask = Ask::new(DISCOVER);
        ask.options.extend(said.clone().map(|value| (57, value)));
        assert_eq!(Packet::decode(&ask.bytes()).unwrap().room(), want, "{said:?}");
    }
}

proptest! {
    #[test]
    fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
        crate::dhcp::fuzz(&bytes);
    }

    #[test]
    fn no_options_panic(options in proptest::collection::vec(any::<u8>(), 0..300), at in 0usize..240, to: u8) {
        for name in ["discover-pi4", "discover-pi3b-rom", "offer-full-pi4"] {
            let mut bytes = vector(name);
            bytes.truncate(243);
            bytes[at] = to;
            bytes.extend(&options);
            crate::dhcp::fuzz(&bytes);
        }
    }

    /// Options that are written one way or another are read as they were meant.
    #[test]
    fn options_come_back(parts in proptest::collection::vec((1u8..=254, proptest::collection::vec(any::<u8>(), 0..20)), 0..20)) {
        let parts: Vec<_> = parts.into_iter().filter(|(code, _)| ![50, 52, 53, 54].contains(code)).collect();
        let mut ask = Ask::new(DISCOVER);
        ask.options.clone_from(&parts);
        let bytes = ask.bytes();
        let packet = Packet::decode(&bytes).unwrap();
        for (code, value) in packet.options.iter().skip(1) {
            let whole: Vec<u8> = parts.iter().filter(|(c, _)| *c == code).flat_map(|(_, v)| v.clone()).collect();
            prop_assert_eq!(value, whole);
        }
        let distinct: std::collections::BTreeSet<_> = parts.iter().map(|(code, _)| *code).collect();
        prop_assert_eq!(packet.options.iter().count(), distinct.len() + 1);
    }
}
