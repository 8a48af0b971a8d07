//! Which machine asks: option 97 read as a Pi writes it, and the kinds of client there are.
//! Must not know: sites, what is answered.
//! Spec: RFC 4578 (options 93, 94, 97); the Pi's forms of option 97 as its bootloader's configuration
//! (`DHCP_OPTION97`) and logs show them. No vendor document gives the layout.
#![deny(clippy::arithmetic_side_effects, clippy::as_conversions, clippy::indexing_slicing)]

use super::Identity;
use super::packet::{OptionCode, Packet};
use crate::site::{Mac, Serial};

/// The transaction id of every Pi 3, ROM and `bootcode.bin` alike.
const PI3_XID: u32 = 0x26f3_0339;

/// First three bytes of the cards on boards of Raspberry Pi. New ones appear, so this list tells only
/// how a stranger is shown; a node is known by its whole address.
const PI_OUIS: [[u8; 3]; 7] = [
    [0xb8, 0x27, 0xeb],
    [0xdc, 0xa6, 0x32],
    [0xe4, 0x5f, 0x01],
    [0x28, 0xcd, 0xc1],
    [0xd8, 0x3a, 0xdd],
    [0x2c, 0xcf, 0x67],
    [0x88, 0xa2, 0x9e],
];

/// What option 97 says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Guid {
    /// A Pi that tells its serial.
    Board(Identity),
    /// The boot ROM of a Pi 3B: a constant that names nobody.
    Pi3Rom,
    /// Absent, of a wrong size, or another maker's.
    Other,
}

impl Guid {
    /// Reads the value of option 97 that came with card `mac`.
    pub fn decode(value: &[u8], mac: Mac) -> Guid {
        // 17 bytes, the first 0: the only type that RFC 4578 section 2.3 has.
        let Ok([0, words @ ..]) = <[u8; 17]>::try_from(value) else { return Guid::Other };
        if words == [0x44; 16] {
            return Guid::Pi3Rom;
        }
        let (chunks, _) = words.as_chunks::<4>();
        let &[prefix, revision, tail, serial] = chunks else { return Guid::Other };
        let serial_number = Serial(u32::from_le_bytes(serial));
        let [_, _, mac_tail @ ..] = mac.0;
        // A board without a UUID sends zeros or ones; no Pi has such a serial.
        let blank = serial == [0; 4] || serial == [0xff; 4];
        if !blank && [prefix, revision, tail] == [serial; 3] {
            return Guid::Board(Identity { serial: serial_number, revision: None, mac_tail: None });
        }
        // A prefix of the owner's choice (`DHCP_OPTION97`) proves itself by the card that follows it.
        if !prefix.starts_with(b"RPi") && tail != mac_tail {
            return Guid::Other;
        }
        Guid::Board(Identity {
            serial: serial_number,
            revision: Some(u32::from_le_bytes(revision)),
            // The bootloader of 2020-03-04 left it zero (mended 2020-03-16): nothing said, no mismatch.
            mac_tail: (tail != [0; 4]).then_some(tail),
        })
    }

    /// The identity, where there is one.
    pub fn identity(self) -> Option<Identity> {
        match self {
            Guid::Board(identity) => Some(identity),
            Guid::Pi3Rom | Guid::Other => None,
        }
    }
}

/// Who asks, as far as one packet tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Client {
    /// The firmware of a Raspberry Pi.
    Firmware,
    /// A PXE client that is no Pi firmware: a PC, or UEFI on whatever board.
    Pxe,
    /// A running system or an initramfs: the kernel, klibc, udhcpc, networkd.
    System,
}

/// What one request says of its sender.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sender {
    /// Who asks.
    pub client: Client,
    /// Option 97.
    pub guid: Guid,
    /// True for a Pi of the third generation, which takes the offered address and never confirms it
    /// (raspberrypi/firmware#1699).
    pub pi3: bool,
    /// True if anything says that it is a Raspberry Pi, running or booting.
    pub pi: bool,
}

impl Sender {
    /// Reads a request. `known` is true for the card of a node: makers get new address blocks, and a
    /// node's firmware is a Pi's under any of them.
    ///
    /// Order matters: a Pi's option 93 says "x86 BIOS" (raspberrypi/rpi-eeprom#182), so a Pi is looked
    /// for before option 93 is believed. UEFI on a Pi has another architecture and is no firmware of ours.
    pub fn of(packet: &Packet<'_>, known: bool) -> Sender {
        let guid = packet
            .options
            .get(OptionCode::ClientMachineIdentifier)
            .map_or(Guid::Other, |value| Guid::decode(value, packet.mac));
        let [a, b, c, ..] = packet.mac.0;
        let pi_card = PI_OUIS.contains(&[a, b, c]);
        let pxe_class = packet
            .options
            .get(OptionCode::ClassIdentifier)
            .is_some_and(|class| class.starts_with(b"PXEClient"));
        let bios =
            !matches!(packet.options.get(OptionCode::ClientSystemArchitecture), Some(arch) if arch != [0, 0]);
        let client = if guid != Guid::Other || (pxe_class && bios && (known || pi_card)) {
            Client::Firmware
        } else if pxe_class || packet.options.get(OptionCode::ClientSystemArchitecture).is_some() {
            Client::Pxe
        } else {
            Client::System
        };
        let firmware = client == Client::Firmware;
        Sender {
            client,
            guid,
            pi3: firmware && (guid == Guid::Pi3Rom || packet.xid == PI3_XID),
            pi: firmware || pi_card,
        }
    }
}
