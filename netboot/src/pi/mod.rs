//! A Raspberry Pi's firmware as a client: what it asks by DHCP and TFTP, byte for byte and in its
//! timing habits. `doctor` plays it against a network, and the tests against the server.
//! Must not know: images, nodes of a description, our own servers and their codecs: a server and a
//! client that share a codec share its misreadings.
//! Spec: published captures, release notes and issues of raspberrypi/firmware and
//! raspberrypi/rpi-eeprom, named where a habit rests on one.
//!
//! It is blocking on purpose. The firmware is one sequence of questions, a network namespace belongs
//! to a thread, and a thousand Pis are a thousand small threads.
//!
//! [`boot::boot`] runs a whole boot; [`lease::negotiate`] and [`tftp_client::Client`] are its halves.

pub mod boot;
pub mod config;
pub mod firmware;
pub mod impair;
pub mod lease;
pub mod overlay_map;
pub mod tftp_client;
pub mod wire;

#[cfg(test)]
pub(crate) mod testing;

use std::time::Duration;

use crate::site::{Mac, Serial};

/// Whose firmware is played.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Model {
    /// Pi 3B with its boot ROM.
    Pi3b,
    /// Pi 3B+, whose ROM is mended.
    Pi3bPlus,
    /// Pi 4 with a bootloader of before 2022-10-03: blocks of 1024 bytes.
    Pi4Old,
    /// Pi 4 with a later bootloader: blocks of 1468 bytes.
    Pi4,
    /// Pi 5.
    Pi5,
}

impl Model {
    /// True for a Pi 3, whose DHCP is the boot ROM's.
    pub fn has_rom_dhcp(self) -> bool {
        matches!(self, Model::Pi3b | Model::Pi3bPlus)
    }
}

/// What option 97 says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GuidForm {
    /// The model's own form: `RPi4` or `RPi5`, revision, card, serial. A Pi 3B says 16 times 0x44, a Pi
    /// 3B+ its serial four times.
    Own,
    /// The serial four times: `DHCP_OPTION97=0`.
    SerialTimesFour,
    /// As [`GuidForm::Own`] with the card's part zero: the bootloader of 2020-03-04.
    ZeroMac,
}

/// The directory that comes before every file name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Prefix {
    /// `5b154510/`
    Serial,
    /// `dc-a6-32-01-36-c2/`: `TFTP_PREFIX=2`.
    Mac,
    /// `TFTP_PREFIX_STR`, with the slash if one is wanted.
    Text(String),
}

/// One board with its settings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Board {
    /// Its firmware.
    pub model: Model,
    /// Its wired card.
    pub mac: Mac,
    /// Its serial number's low half.
    pub serial: Serial,
    /// Board revision, as in /proc/cpuinfo.
    pub revision: u32,
    /// What option 97 says.
    pub guid: GuidForm,
    /// The directory it asks in.
    pub prefix: Prefix,
    /// `TFTP_IP`: overrides every offer.
    pub tftp_ip: Option<std::net::Ipv4Addr>,
    /// False for the bootloaders of 2020, whose REQUEST had no option 60 (rpi-eeprom#82, #87).
    pub class_in_request: bool,
    /// When the bootloader was last updated, in seconds since 1970: a newer `pieeprom.sig` is applied.
    pub updated: u64,
}

impl Board {
    /// A board of this model with factory settings.
    pub fn new(model: Model, mac: Mac, serial: Serial) -> Board {
        let revision = match model {
            Model::Pi3b => 0x00a0_2082,
            Model::Pi3bPlus => 0x00a0_20d3,
            Model::Pi4Old | Model::Pi4 => 0x00a0_3111,
            Model::Pi5 => 0x00d0_4170,
        };
        Board {
            model,
            mac,
            serial,
            revision,
            guid: GuidForm::Own,
            prefix: Prefix::Serial,
            tftp_ip: None,
            class_in_request: true,
            updated: u64::MAX,
        }
    }

    /// The directory that this board asks in, with its slash.
    pub fn directory(&self) -> String {
        match &self.prefix {
            Prefix::Serial => format!("{}/", self.serial),
            Prefix::Mac => format!("{}/", self.mac.to_string().replace(':', "-")),
            Prefix::Text(text) => text.clone(),
        }
    }
}

/// How fast the firmware's clock runs: every wait of the firmware is divided by it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pace(u32);

impl Pace {
    /// The firmware's own waits.
    pub const REAL: Pace = Pace(1);

    /// Waits that are `factor` times shorter; 0 counts as 1.
    pub fn faster(factor: u32) -> Pace {
        Pace(factor.max(1))
    }

    /// What is left of one of the firmware's waits.
    pub fn wait(self, firmware: Duration) -> Duration {
        firmware / self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn directories() {
        let mut board = Board::new(Model::Pi4, Mac([0xdc, 0xa6, 0x32, 1, 0x36, 0xc2]), Serial(0x0b15_4510));
        for (prefix, want) in [
            (Prefix::Serial, "0b154510/"),
            (Prefix::Mac, "dc-a6-32-01-36-c2/"),
            (Prefix::Text("lab/".into()), "lab/"),
        ] {
            board.prefix = prefix;
            assert_eq!(board.directory(), want);
        }
    }

    #[test]
    fn a_pace_shortens_waits_and_never_divides_by_zero() {
        assert_eq!(Pace::REAL.wait(Duration::from_secs(4)), Duration::from_secs(4));
        assert_eq!(Pace::faster(0), Pace::REAL);
        assert_eq!(Pace::faster(40).wait(Duration::from_secs(4)), Duration::from_millis(100));
    }
}
