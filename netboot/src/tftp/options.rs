//! Option negotiation: what the client asked for, what it gets, and the OACK that says so.
//! Must not know: sockets, files, which packet comes next.
//! Spec: RFC 2347 (OACK), 2348 (`blksize`), 2349 (`tsize`, `timeout`), 7440 (`windowsize`).

use std::time::Duration;

use super::packet::{Options, push_option};

/// RFC 1350: the size of a block if nothing else was agreed.
const DEFAULT_BLKSIZE: u16 = 512;

/// 1500 (Ethernet) - 20 (IPv4) - 8 (UDP) - 4 (TFTP), and what a Pi's firmware asks for since
/// 2022-10-03. Up to here the client's word is taken; beyond it every block might be two IP
/// fragments, and losing either costs the block, so the interface is asked.
const SAFE_BLKSIZE: u16 = 1468;

/// Headers of IPv4, UDP and DATA: what an MTU has more than the block.
const HEADERS: u32 = 32;

/// Gains end near 64 blocks (u-root#1966), and 64 blocks of 1468 bytes fit a socket's usual send
/// buffer of 208 KiB even as the kernel counts them, 2304 bytes each. A window that does not fit is
/// lost in part and costs a timeout.
const MAX_WINDOW: u16 = 64;

/// The same bound for large blocks, in bytes of content a window.
const MAX_WINDOW_BYTES: u16 = 65535;

/// A lower figure risks a duplicate DATA on a busy link, on which `start4.elf` hangs (firmware#1631).
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(1);

/// What holds for one transfer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Terms {
    /// Bytes of content in a block, 8 to 65464.
    pub blksize: u16,
    /// Blocks that may be on their way, from 1.
    pub windowsize: u16,
    /// How long to wait for an acknowledgement before sending again.
    pub timeout: Duration,
    /// The OACK packet, if options were asked for.
    pub oack: Option<Vec<u8>>,
}

/// The client's options that make sense, and their order, which the OACK keeps.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wishes {
    blksize: Option<u16>,
    timeout: Option<u8>,
    windowsize: Option<u16>,
    order: Vec<Kind>,
    /// There were options, sensible or not.
    any: bool,
}

impl Wishes {
    /// Takes options up or leaves them: unknown ones, values out of range, and second ones, which RFC 2347
    /// forbids.
    pub fn read(options: Options<'_>) -> Wishes {
        let mut wishes = Wishes { any: !options.is_empty(), ..Wishes::default() };
        for (name, value) in options.iter() {
            let kind = Kind::ALL.into_iter().find(|k| name.eq_ignore_ascii_case(k.name().as_bytes()));
            if let (Some(kind), Some(number)) = (kind, decimal(value)) {
                if !wishes.order.contains(&kind) && wishes.take(kind, number) {
                    wishes.order.push(kind);
                }
            }
        }
        wishes
    }

    fn take(&mut self, kind: Kind, number: u64) -> bool {
        match kind {
            // The client's own figure means nothing in a read.
            Kind::Tsize => true,
            Kind::Blksize => {
                self.blksize = u16::try_from(number).ok().filter(|n| (8..=65464).contains(n));
                self.blksize.is_some()
            }
            Kind::Timeout => {
                self.timeout = u8::try_from(number).ok().filter(|&n| n >= 1);
                self.timeout.is_some()
            }
            Kind::Windowsize => {
                self.windowsize = u16::try_from(number).ok().filter(|&n| n >= 1);
                self.windowsize.is_some()
            }
        }
    }

    /// Grants what can be granted. `tsize` is the length of what will be sent, in bytes, or nothing if it is
    /// not known (netascii; then `windowsize` is not taken up either). `mtu` asks for the largest
    /// packet in bytes that the way to the client takes whole; it is called for a large `blksize` only.
    ///
    /// A request that has options gets an OACK, even an empty one: a Pi 4 without OACK drops its
    /// `config.txt` in silence (firmware#1012), and a newer Pi 3 takes the file for absent (firmware#1913).
    pub fn grant(&self, tsize: Option<u64>, mtu: impl FnOnce() -> u32) -> Terms {
        let blksize = match self.blksize {
            Some(wanted) if wanted > SAFE_BLKSIZE => wanted.min(largest_block(mtu())),
            Some(wanted) => wanted,
            None => DEFAULT_BLKSIZE,
        };
        let window = self.windowsize.filter(|_| tsize.is_some());
        let windowsize = window.map_or(1, |w| w.min(MAX_WINDOW).min(MAX_WINDOW_BYTES / blksize).max(1));
        let timeout = self.timeout.map_or(DEFAULT_TIMEOUT, |s| Duration::from_secs(s.into()));

        let mut oack = vec![0, 6];
        for kind in &self.order {
            let answer = match kind {
                Kind::Blksize => Some(blksize.into()),
                Kind::Tsize => tsize,
                Kind::Timeout => Some(timeout.as_secs()),
                Kind::Windowsize => window.map(|_| windowsize.into()),
            };
            if let Some(answer) = answer {
                push_option(&mut oack, kind.name().as_bytes(), answer.to_string().as_bytes());
            }
        }
        Terms { blksize, windowsize, timeout, oack: self.any.then_some(oack) }
    }
}

fn largest_block(mtu: u32) -> u16 {
    let room = mtu.saturating_sub(HEADERS).clamp(DEFAULT_BLKSIZE.into(), 65464);
    // Cannot fail: clamped to what 16 bits hold.
    u16::try_from(room).unwrap_or(DEFAULT_BLKSIZE)
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Blksize,
    Tsize,
    Timeout,
    Windowsize,
}

impl Kind {
    const ALL: [Kind; 4] = [Kind::Blksize, Kind::Tsize, Kind::Timeout, Kind::Windowsize];

    fn name(self) -> &'static str {
        match self {
            Kind::Blksize => "blksize",
            Kind::Tsize => "tsize",
            Kind::Timeout => "timeout",
            Kind::Windowsize => "windowsize",
        }
    }
}

/// A number in decimal digits alone: `str::parse` would take `+8` as well.
fn decimal(value: &[u8]) -> Option<u64> {
    if value.is_empty() || !value.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(value).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::super::packet::Packet;
    use super::*;

    /// Negotiates what stands in `asked` (`name=value`, blanks between) for a file of 1540 bytes.
    fn terms(asked: &str, tsize: Option<u64>, mtu: u32) -> (Terms, Option<String>) {
        let mut packet = b"\0\x01f\0octet\0".to_vec();
        for pair in asked.split_whitespace() {
            let (name, value) = pair.split_once('=').unwrap();
            push_option(&mut packet, name.as_bytes(), value.as_bytes());
        }
        let Ok(Packet::Read(request)) = Packet::parse(&packet) else { panic!("{asked}") };
        let terms = Wishes::read(request.options).grant(tsize, || mtu);
        let oack = terms.oack.as_ref().map(|bytes| {
            let Ok(Packet::Oack(options)) = Packet::parse(bytes) else { panic!("{bytes:?}") };
            let pair = |(n, v)| format!("{}={}", String::from_utf8_lossy(n), String::from_utf8_lossy(v));
            options.iter().map(pair).collect::<Vec<_>>().join(" ")
        });
        (terms, oack)
    }

    #[test]
    fn each_option_is_answered_or_left_out() {
        for (asked, want) in [
            // The firmware's own, in the firmware's order.
            ("tsize=0", "tsize=1540"),
            ("tsize=0 blksize=1024", "tsize=1540 blksize=1024"),
            ("tsize=0 blksize=1468", "tsize=1540 blksize=1468"),
            ("blksize=1468 tsize=0", "blksize=1468 tsize=1540"),
            ("BlkSize=1024 TSIZE=0", "blksize=1024 tsize=1540"),
            // blksize: bounds of RFC 2348, and what the interface takes.
            ("blksize=8", "blksize=8"),
            ("blksize=7 tsize=0", "tsize=1540"),
            ("blksize=0", ""),
            ("blksize=1469", "blksize=1468"),
            ("blksize=65464", "blksize=1468"),
            ("blksize=65465 tsize=0", "tsize=1540"),
            ("blksize=99999999999999999999", ""),
            ("blksize=text tsize=0", "tsize=1540"),
            ("blksize=-8", ""),
            ("blksize=+8", ""),
            ("blksize=", ""),
            // Of a doubled option the first good one counts.
            ("blksize=1024 blksize=512", "blksize=1024"),
            ("blksize=1 blksize=512", "blksize=512"),
            // tsize is true, whatever the client believes.
            ("tsize=77", "tsize=1540"),
            ("tsize=none", ""),
            ("timeout=1", "timeout=1"),
            ("timeout=255", "timeout=255"),
            ("timeout=0", ""),
            ("timeout=256", ""),
            ("windowsize=1", "windowsize=1"),
            ("windowsize=16", "windowsize=16"),
            ("windowsize=65535", "windowsize=64"),
            ("windowsize=0", ""),
            ("windowsize=65536", ""),
            ("multicast= foo=bar", ""),
        ] {
            assert_eq!(terms(asked, Some(1540), 1500).1.as_deref(), Some(want), "given {asked}");
        }
        assert_eq!(terms("", Some(1540), 1500).1, None, "a request without options gets no OACK");
    }

    #[test]
    fn a_large_block_fits_the_interface() {
        for (blksize, mtu, want) in [
            (1468, 1400, 1468), // what every Pi asks for is never argued about
            (1469, 1400, 1368),
            (9000, 9000, 8968),
            (65464, 65536, 65464), // loopback
            (65464, 0, 512),       // no interface says such a thing; blocks stay usable
        ] {
            let (terms, _) = terms(&format!("blksize={blksize}"), Some(0), mtu);
            assert_eq!(terms.blksize, want, "{blksize} over {mtu}");
        }
    }

    #[test]
    fn a_window_fits_the_send_buffer() {
        for (blksize, want) in [(8, 64), (1024, 63), (1468, 44), (8192, 7), (65464, 1)] {
            let (terms, _) = terms(&format!("blksize={blksize} windowsize=1000"), Some(0), 65536);
            assert_eq!(terms.windowsize, want, "blocks of {blksize}");
        }
    }

    #[test]
    fn unknown_length_leaves_out_what_depends_on_it() {
        let (terms, oack) = terms("tsize=0 windowsize=16 timeout=3", None, 1500);
        assert_eq!((oack.as_deref(), terms.windowsize), (Some("timeout=3"), 1));
        assert_eq!(terms.timeout, Duration::from_secs(3));
    }
}
