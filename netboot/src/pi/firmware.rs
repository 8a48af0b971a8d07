//! The firmware's DHCP packets, and how it reads the answers.
//! Must not know: sockets, time, files.
//! Spec: RFC 2131 (header), 2132, 3396 (split options), 4578 (93, 94, 97); the bytes are those of
//! published captures, kept as test vectors in `tests/fixtures/pi-netboot-vectors.txt`.

use std::net::Ipv4Addr;

use super::{Board, GuidForm, Model};
use crate::site::Mac;

/// Every Pi 3 sends this transaction id: two that are powered on together can take each other's
/// broadcast offer (firmware#1303), which is why the card in `chaddr` must be looked at.
pub const PI3_XID: u32 = 0x26f3_0339;

/// What option 43 must hold for a Pi to take the offer.
pub const BOOT_TEXT: &str = "Raspberry Pi Boot";

const COOKIE: [u8; 4] = [99, 130, 83, 99];
/// Offset of the options: 236 bytes of header, four of cookie.
const OPTIONS: usize = 240;
/// x86 BIOS, and UNDI 2.1: the firmware takes the identity of a PC (rpi-eeprom#182).
const CLASS: &[u8] = b"PXEClient:Arch:00000:UNDI:002001";

impl Board {
    /// Option 97: a zero, then 16 bytes.
    pub fn guid(&self) -> [u8; 17] {
        let serial = self.serial.0.to_le_bytes();
        let own = |family: &[u8; 4], mac: [u8; 4]| [*family, self.revision.to_le_bytes(), mac, serial];
        let Mac([_, _, m2, m3, m4, m5]) = self.mac;
        let mac = if self.guid == GuidForm::ZeroMac { [0; 4] } else { [m2, m3, m4, m5] };
        let parts = match (self.guid, self.model) {
            (GuidForm::SerialTimesFour, _) | (_, Model::Pi3bPlus) => [serial; 4],
            (_, Model::Pi3b) => [[0x44; 4]; 4],
            (_, Model::Pi4Old | Model::Pi4) => own(b"RPi4", mac),
            (_, Model::Pi5) => own(b"RPi5", mac),
        };
        let mut guid = [0; 17];
        guid[1..].copy_from_slice(&parts.concat());
        guid
    }

    /// The DISCOVER: 320 bytes on a Pi 3B, 322 on the others. A Pi 3 ignores `xid` and sends its own.
    pub fn discover(&self, xid: u32) -> Vec<u8> {
        let mut packet = self.header(xid);
        packet.extend([53, 1, 1]);
        self.pxe_options(&mut packet, true);
        packet
    }

    /// The REQUEST for `address` of `server`; a Pi 3 sends none. Nobody published its bytes, so the
    /// order of its options is ours.
    pub fn request(&self, xid: u32, address: Ipv4Addr, server: Ipv4Addr) -> Vec<u8> {
        let mut packet = self.header(xid);
        packet.extend([53, 1, 3, 50, 4]);
        packet.extend(address.octets());
        packet.extend([54, 4]);
        packet.extend(server.octets());
        self.pxe_options(&mut packet, self.class_in_request);
        packet
    }

    /// The transaction id that the firmware would use where it draws `random`.
    pub fn xid(&self, random: u32) -> u32 {
        if self.model.has_rom_dhcp() { PI3_XID } else { random }
    }

    fn header(&self, xid: u32) -> Vec<u8> {
        let mut packet = vec![0; OPTIONS];
        packet[..4].copy_from_slice(&[1, 1, 6, 0]);
        packet[4..8].copy_from_slice(&self.xid(xid).to_be_bytes());
        packet[28..34].copy_from_slice(&self.mac.0);
        packet[236..].copy_from_slice(&COOKIE);
        packet
    }

    fn pxe_options(&self, packet: &mut Vec<u8>, class: bool) {
        let wanted: &[u8] = match self.model {
            Model::Pi3b => &[43, 60, 67, 128, 129, 130, 131, 132, 133, 134, 135, 66],
            Model::Pi3bPlus => &[43, 60, 67, 128, 129, 130, 131, 132, 133, 134, 135, 66, 1, 3],
            _ => &[1, 3, 43, 60, 66, 67, 128, 129, 130, 131, 132, 133, 134, 135],
        };
        let class: &[u8] = if class { CLASS } else { &[] };
        for (code, value) in [(55, wanted), (93, &[0, 0]), (94, &[1, 2, 1]), (97, &self.guid()), (60, class)]
        {
            if !value.is_empty() {
                packet.push(code);
                // Cannot fail: the longest value has 32 bytes.
                packet.push(u8::try_from(value.len()).unwrap_or(0));
                packet.extend(value);
            }
        }
        packet.push(255);
    }
}

/// Kinds of answer (option 53).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// DHCPOFFER
    Offer,
    /// DHCPACK
    Ack,
    /// DHCPNAK
    Nak,
}

/// What the firmware reads of an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    /// Option 53.
    pub kind: Kind,
    /// The address for us, if there is one: a proxy gives none.
    pub yiaddr: Option<Ipv4Addr>,
    /// The next server in the header.
    pub siaddr: Option<Ipv4Addr>,
    /// Option 54: who answers.
    pub server: Option<Ipv4Addr>,
    /// Option 51, seconds.
    pub lease: Option<u32>,
    /// Option 1.
    pub netmask: Option<Ipv4Addr>,
    /// Option 3, the first.
    pub router: Option<Ipv4Addr>,
    /// Option 66, as it came.
    pub tftp_server: Option<Vec<u8>>,
    /// Option 60.
    pub class: Option<Vec<u8>>,
    /// Option 97.
    pub guid: Option<Vec<u8>>,
    /// Option 43, its parts joined.
    pub vendor: Option<Vec<u8>>,
    /// True if the broadcast flag is set.
    pub broadcast: bool,
}

impl Reply {
    /// Reads an answer to transaction `xid` of card `mac`. `None` for all else: requests, other
    /// machines' answers, packets that are cut. Pads are skipped, split options joined, a missing END
    /// is taken.
    pub fn read(packet: &[u8], xid: u32, mac: Mac) -> Option<Reply> {
        let ours = packet.get(4..8)? == xid.to_be_bytes() && packet.get(28..34)? == mac.0;
        if packet.first() != Some(&2) || !ours || packet.get(236..OPTIONS)? != COOKIE {
            return None;
        }
        let options = packet.get(OPTIONS..)?;
        let kind = match *options_joined(options, 53)??.first()? {
            2 => Kind::Offer,
            5 => Kind::Ack,
            6 => Kind::Nak,
            _ => return None,
        };
        let header_address = |at: usize| address(packet.get(at..)?).filter(|a| !a.is_unspecified());
        // Cannot fail: the first walk over the same bytes above went to the end.
        let option = |code| options_joined(options, code).flatten();
        let option_address = |code| option(code).and_then(|value| address(&value));
        Some(Reply {
            kind,
            yiaddr: header_address(16),
            siaddr: header_address(20),
            server: option_address(54),
            lease: option_address(51).map(u32::from),
            netmask: option_address(1),
            router: option_address(3),
            tftp_server: option(66),
            class: option(60),
            guid: option(97),
            vendor: option(43),
            broadcast: packet[10] & 0x80 != 0,
        })
    }

    /// True if option 43 holds the text. A Pi looks for a sub-string: what comes before and after is
    /// ignored (since 2019-10-16; seen with `~~Raspberry Pi Boot~~`, rpi-eeprom#376).
    pub fn boots_a_pi(&self) -> bool {
        let text = BOOT_TEXT.as_bytes();
        self.vendor.as_ref().is_some_and(|vendor| vendor.windows(text.len()).any(|part| part == text))
    }

    /// Option 66 where it is an address in dotted text; the firmware resolves no names.
    pub fn tftp_address(&self) -> Option<Ipv4Addr> {
        std::str::from_utf8(self.tftp_server.as_ref()?).ok()?.parse().ok()
    }
}

/// The four bytes that `bytes` begins with.
fn address(bytes: &[u8]) -> Option<Ipv4Addr> {
    bytes.first_chunk::<4>().copied().map(Ipv4Addr::from)
}

/// All parts of option `code` joined (RFC 3396), `Some(None)` if there is none; `None` if an option's
/// length leads out of the packet.
fn options_joined(mut options: &[u8], code: u8) -> Option<Option<Vec<u8>>> {
    let mut found: Option<Vec<u8>> = None;
    loop {
        match options {
            [] | [255, ..] => return Some(found),
            [0, rest @ ..] => options = rest,
            [this, len, rest @ ..] => {
                let (value, rest) = rest.split_at_checked(usize::from(*len))?;
                if *this == code {
                    found.get_or_insert_default().extend(value);
                }
                options = rest;
            }
            [_] => return None,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::pi::testing::vector;
    use crate::site::Serial;

    fn pi4() -> Board {
        Board::new(Model::Pi4, Mac([0xdc, 0xa6, 0x32, 0x2e, 0xf8, 0xed]), Serial(0x5b15_4510))
    }

    fn pi5() -> Board {
        Board::new(Model::Pi5, Mac([0xd8, 0x3a, 0xdd, 0x98, 0x09, 0x77]), Serial(0xbe51_2421))
    }

    fn pi3b() -> Board {
        Board::new(Model::Pi3b, Mac([0xb8, 0x27, 0xeb, 0x28, 0xf6, 0x6d]), Serial(0))
    }

    #[test]
    fn guids() {
        let times_four = Board { guid: GuidForm::SerialTimesFour, ..pi4() };
        let plus = Board::new(Model::Pi3bPlus, pi3b().mac, Serial(0xb66c_4c16));
        for (board, name) in [
            (pi4(), "guid-pi4"),
            (pi5(), "guid-pi5"),
            (pi3b(), "guid-pi3b-rom"),
            (plus, "guid-serial-x4"),
            (Board { guid: GuidForm::ZeroMac, ..pi4() }, "guid-pi4-zero-mac"),
        ] {
            assert_eq!(board.guid().as_slice(), vector(name), "{name}");
        }
        assert_eq!(times_four.guid()[1..5], 0x5b15_4510u32.to_le_bytes());
    }

    #[test]
    fn discovers() {
        let times_four = Board { guid: GuidForm::SerialTimesFour, ..pi4() };
        for (board, xid, name) in [
            (pi3b(), 0, "discover-pi3b-rom"),
            (pi4(), 0xd383_a6ac, "discover-pi4"),
            (Board { model: Model::Pi4Old, ..pi4() }, 0xd383_a6ac, "discover-pi4"),
            (times_four, 0xd383_a6ac, "discover-pi4-serial-guid"),
            (pi5(), 0x0a48_5863, "discover-pi5"),
        ] {
            assert_eq!(board.discover(xid), vector(name), "{name}");
        }
        assert_eq!(pi4().discover(1)[OPTIONS..], vector("discover-pi4-opts"));
        let plus = Board { model: Model::Pi3bPlus, ..pi3b() };
        assert_eq!(plus.discover(7).len(), 322, "two more wanted options than the ROM of the 3B");
        assert_eq!(plus.discover(7)[4..8], PI3_XID.to_be_bytes());
    }

    #[test]
    fn a_foreign_codec_reads_what_is_sent() {
        use dhcproto::v4::{DhcpOption, Message, MessageType, OptionCode};
        use dhcproto::{Decodable, Decoder};
        let request = pi4().request(9, Ipv4Addr::new(10, 4, 0, 21), Ipv4Addr::new(10, 4, 0, 10));
        let message = Message::decode(&mut Decoder::new(&request)).unwrap();
        let option = |code| message.opts().get(code);
        assert_eq!(option(OptionCode::MessageType), Some(&DhcpOption::MessageType(MessageType::Request)));
        let address = Ipv4Addr::new(10, 4, 0, 21);
        assert_eq!(option(OptionCode::RequestedIpAddress), Some(&DhcpOption::RequestedIpAddress(address)));
        let server = Ipv4Addr::new(10, 4, 0, 10);
        assert_eq!(option(OptionCode::ServerIdentifier), Some(&DhcpOption::ServerIdentifier(server)));
        assert!(option(OptionCode::ClassIdentifier).is_some());
        assert_eq!((message.xid(), message.chaddr()), (9, &pi4().mac.0[..]));

        let old = Board { class_in_request: false, ..pi4() };
        let message = old.request(9, address, server);
        let message = Message::decode(&mut Decoder::new(&message)).unwrap();
        assert_eq!(message.opts().get(OptionCode::ClassIdentifier), None);
    }

    #[test]
    fn a_full_offer() {
        let reply = Reply::read(&vector("offer-full-pi4"), 0xd383_a6ac, pi4().mac).unwrap();
        let server = Ipv4Addr::new(10, 4, 0, 10);
        assert_eq!(reply.kind, Kind::Offer);
        assert_eq!(reply.yiaddr, Some(Ipv4Addr::new(10, 4, 0, 21)));
        assert_eq!(
            (reply.siaddr, reply.server, reply.tftp_address()),
            (Some(server), Some(server), Some(server))
        );
        assert_eq!(reply.lease, Some(3600));
        assert_eq!(reply.netmask, Some(Ipv4Addr::new(255, 255, 255, 0)));
        assert_eq!(reply.router, Some(Ipv4Addr::new(10, 4, 0, 1)));
        assert_eq!(reply.class.as_deref(), Some(&b"PXEClient"[..]));
        assert_eq!(reply.guid.as_deref(), Some(&pi4().guid()[..]));
        assert!(reply.boots_a_pi());
        let ack = Reply::read(&vector("ack-full-pi4"), 0xd383_a6ac, pi4().mac).unwrap();
        assert_eq!(ack, Reply { kind: Kind::Ack, ..reply });
    }

    #[test]
    fn offers_of_a_proxy_and_to_a_pi_3() {
        for name in ["offer-proxy-pi4", "offer-proxy-pi4-three-spaces"] {
            let reply = Reply::read(&vector(name), 0xd383_a6ac, pi4().mac).unwrap();
            assert_eq!((reply.yiaddr, reply.lease, reply.tftp_address()), (None, None, None));
            assert!(reply.boots_a_pi() && reply.broadcast, "{name}");
        }
        let reply = Reply::read(&vector("offer-full-pi3b"), PI3_XID, pi3b().mac).unwrap();
        assert!(reply.boots_a_pi());
        assert_eq!(reply.tftp_server, None);
    }

    #[test]
    fn what_is_not_for_us_is_not_read() {
        let offer = vector("offer-full-pi4");
        let (xid, mac) = (0xd383_a6ac, pi4().mac);
        assert_eq!(Reply::read(&offer, xid + 1, mac), None, "another transaction");
        assert_eq!(Reply::read(&offer, xid, pi5().mac), None, "another card");
        assert_eq!(Reply::read(&pi4().discover(xid), xid, mac), None, "a request");
        for len in 0..OPTIONS + 3 {
            assert_eq!(Reply::read(&offer[..len], xid, mac), None, "cut to {len}");
        }
        // The last option's length leads out of the packet.
        assert_eq!(Reply::read(&offer[..offer.len() - 2], xid, mac), None);
        // A missing END is taken.
        assert!(Reply::read(&offer[..offer.len() - 1], xid, mac).is_some());
    }

    #[test]
    fn option_43_is_judged_by_its_text() {
        let mut reply = Reply::read(&vector("offer-full-pi4"), 0xd383_a6ac, pi4().mac).unwrap();
        for (vendor, want) in [
            (Some(vector("opt43-standard")), true),
            (Some(vector("opt43-three-spaces")), true),
            (Some(b"~~Raspberry Pi Boot~~".to_vec()), true),
            (Some(b"Raspberry Pi boot".to_vec()), false),
            (Some(b"Raspberry Pi".to_vec()), false),
            (Some(vec![]), false),
            (None, false),
        ] {
            reply.vendor = vendor;
            assert_eq!(reply.boots_a_pi(), want, "{:?}", reply.vendor);
        }
        for (text, want) in [(&b"10.4.0.10"[..], true), (b"10.4.0.10\0", false), (b"server.lan", false)] {
            reply.tftp_server = Some(text.to_vec());
            assert_eq!(reply.tftp_address().is_some(), want, "{text:?}");
        }
    }

    #[test]
    fn split_options_are_joined_and_pads_skipped() {
        let options = [43, 2, b'a', b'b', 0, 0, 53, 1, 2, 43, 1, b'c', 255, 43, 9];
        assert_eq!(options_joined(&options, 43), Some(Some(b"abc".to_vec())));
        assert_eq!(options_joined(&options, 12), Some(None));
        assert_eq!(options_joined(&[43], 43), None);
        assert_eq!(options_joined(&[43, 2, 1], 43), None);
    }

    proptest! {
        #[test]
        fn no_bytes_panic(mut packet in proptest::collection::vec(any::<u8>(), 0..600), frame in any::<bool>()) {
            if frame && packet.len() > OPTIONS {
                packet[..OPTIONS].copy_from_slice(&vector("offer-full-pi4")[..OPTIONS]);
            }
            if let Some(reply) = Reply::read(&packet, 0xd383_a6ac, pi4().mac) {
                let _ = (reply.boots_a_pi(), reply.tftp_address());
            }
        }
    }
}
