//! A DHCP datagram, read: header, options, and the few values that every answer depends on.
//! Must not know: sites, nodes, what is answered.
//! Spec: RFC 2131 section 2 and 4.1, RFC 2132 section 9.3 (overload), RFC 3396 (long options).
//!
//! dhcproto's view reads the header and names codes and types. The walk over the options is ours, for
//! three reasons seen in dhcproto 0.15: it does not read option 52, so what lies in `file` and `sname`
//! is lost; it stops without a word at a length past the packet; and its typed reader asserts lengths
//! (option 94) and refuses text that is not UTF-8, where one odd option must not cost the packet.
#![deny(clippy::arithmetic_side_effects, clippy::as_conversions, clippy::indexing_slicing)]

use std::borrow::Cow;
use std::net::Ipv4Addr;

use dhcproto::v4::{MAGIC, borrowed};
pub use dhcproto::v4::{MessageType, Opcode, OptionCode};

use crate::site::Mac;

/// Where the option field starts, after the magic cookie.
const OPTIONS_AT: usize = 240;
const SNAME: std::ops::Range<usize> = 44..108;
const FILE: std::ops::Range<usize> = 108..236;

/// Why a datagram is no DHCP packet. `at` counts bytes from its start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PacketError {
    /// Not even a header and a cookie.
    #[error("{len} bytes are too few for a header, which takes {OPTIONS_AT}")]
    Short {
        /// Length of the datagram, bytes.
        len: usize,
    },
    /// BOOTP of before RFC 1497, or something else altogether.
    #[error("no DHCP magic cookie at byte 236")]
    Cookie,
    /// Neither a request nor a reply.
    #[error("op is {found}, where 1 is a request and 2 a reply")]
    Op {
        /// What stands there.
        found: u8,
    },
    /// Not Ethernet.
    #[error("hardware type {htype} with addresses of {hlen} bytes is not Ethernet")]
    Hardware {
        /// Hardware type; Ethernet is 1.
        htype: u8,
        /// Bytes of the hardware address; Ethernet has 6.
        hlen: u8,
    },
    /// An option says that it is longer than what is left of its field.
    #[error("option {code} at byte {at} says {len} bytes, and {left} are left")]
    Overrun {
        /// Where the option's code stands.
        at: usize,
        /// The option.
        code: u8,
        /// What it says, bytes; 0 if even the length byte is missing.
        len: usize,
        /// What is left, bytes.
        left: usize,
    },
    /// An option that decides the answer has a length it cannot have.
    #[error("option {code} has {got} bytes, not {want}")]
    Length {
        /// The option.
        code: u8,
        /// Bytes it must have.
        want: usize,
        /// Bytes it has, all its parts together.
        got: usize,
    },
    /// Plain BOOTP: no option 53.
    #[error("no message type (option 53)")]
    Untyped,
}

/// All options of one packet, in the order of their first part; the parts of one option are joined
/// (RFC 3396 section 7), wherever they stand. Pads are gone, and an END is not needed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Options<'a>(Vec<(u8, Cow<'a, [u8]>)>);

impl<'a> Options<'a> {
    /// The value of one option.
    pub fn get(&self, code: OptionCode) -> Option<&[u8]> {
        let code = u8::from(code);
        self.0.iter().find(|(c, _)| *c == code).map(|(_, value)| value.as_ref())
    }

    /// Every option: code and value.
    pub fn iter(&self) -> impl Iterator<Item = (u8, &[u8])> {
        self.0.iter().map(|(code, value)| (*code, value.as_ref()))
    }

    /// Reads the options of one field, which starts at byte `start` of the datagram.
    fn read(&mut self, field: &'a [u8], start: usize) -> Result<(), PacketError> {
        let mut rest = field;
        while let Some((&code, after)) = rest.split_first() {
            // Cannot overflow: both lengths are of one datagram.
            let at = start.saturating_add(field.len().saturating_sub(rest.len()));
            rest = after;
            match OptionCode::from(code) {
                OptionCode::Pad => continue,
                OptionCode::End => break,
                _ => {}
            }
            let Some((&len, after)) = rest.split_first() else {
                return Err(PacketError::Overrun { at, code, len: 0, left: 0 });
            };
            let len = usize::from(len);
            let Some((value, after)) = after.split_at_checked(len) else {
                return Err(PacketError::Overrun { at, code, len, left: after.len() });
            };
            self.add(code, value);
            rest = after;
        }
        Ok(())
    }

    fn add(&mut self, code: u8, value: &'a [u8]) {
        match self.0.iter_mut().find(|(c, _)| *c == code) {
            Some((_, whole)) => whole.to_mut().extend_from_slice(value),
            None => self.0.push((code, Cow::Borrowed(value))),
        }
    }

    /// The value of an option that has one size only.
    fn exact<const N: usize>(&self, code: OptionCode) -> Result<Option<[u8; N]>, PacketError> {
        let Some(value) = self.get(code) else { return Ok(None) };
        let wrong = |_| PacketError::Length { code: code.into(), want: N, got: value.len() };
        value.try_into().map(Some).map_err(wrong)
    }
}

/// One datagram from a client or a server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Packet<'a> {
    /// A request or a reply, never unknown.
    pub op: Opcode,
    /// What the client chose to tell its exchanges apart. Constant on a Pi 3.
    pub xid: u32,
    /// The flags; the highest bit asks for a broadcast reply.
    pub flags: u16,
    /// The address that the client has and uses.
    pub ciaddr: Ipv4Addr,
    /// The address that the server gives.
    pub yiaddr: Ipv4Addr,
    /// The next server of the boot.
    pub siaddr: Ipv4Addr,
    /// The relay agent, if one stands between.
    pub giaddr: Ipv4Addr,
    /// The client's card.
    pub mac: Mac,
    /// Option 53.
    pub kind: MessageType,
    /// Option 50.
    pub requested: Option<Ipv4Addr>,
    /// Option 54.
    pub server_id: Option<Ipv4Addr>,
    /// True if options were found in `file` or `sname`. A Pi never does it.
    pub overloaded: bool,
    /// Every option.
    pub options: Options<'a>,
}

impl<'a> Packet<'a> {
    /// Reads a datagram's payload. What follows an END is not looked at.
    ///
    /// # Errors
    /// The first thing that is wrong. An option of no weight (97 of another size, say) is no error.
    pub fn decode(bytes: &'a [u8]) -> Result<Packet<'a>, PacketError> {
        let short = PacketError::Short { len: bytes.len() };
        let header = borrowed::Message::new(bytes).map_err(|_| short)?;
        let (fixed, field) = bytes.split_at_checked(OPTIONS_AT).ok_or(short)?;
        if !fixed.ends_with(&MAGIC) {
            return Err(PacketError::Cookie);
        }
        let op = header.opcode();
        if let Opcode::Unknown(found) = op {
            return Err(PacketError::Op { found });
        }
        let (htype, hlen) = (u8::from(header.htype()), header.hlen());
        // The view's `chaddr` trusts `hlen`, so it is asked only for the one length there is.
        let card = if (htype, hlen) == (1, 6) { header.chaddr().try_into().ok() } else { None };
        let mac = Mac(card.ok_or(PacketError::Hardware { htype, hlen })?);

        let (options, overloaded) = read_options(fixed, field)?;
        let [kind] = options.exact(OptionCode::MessageType)?.ok_or(PacketError::Untyped)?;
        Ok(Packet {
            op,
            xid: header.xid(),
            flags: header.flags().into(),
            ciaddr: header.ciaddr(),
            yiaddr: header.yiaddr(),
            siaddr: header.siaddr(),
            giaddr: header.giaddr(),
            mac,
            kind: kind.into(),
            requested: options.exact::<4>(OptionCode::RequestedIpAddress)?.map(Ipv4Addr::from),
            server_id: options.exact::<4>(OptionCode::ServerIdentifier)?.map(Ipv4Addr::from),
            overloaded,
            options,
        })
    }

    /// True if the client cannot take unicast yet.
    pub fn broadcast(&self) -> bool {
        self.flags & 0x8000 != 0
    }

    /// The vendor class (option 60) as text for a person: at most 64 characters, nothing that moves a
    /// cursor, for the bytes are a stranger's.
    pub fn class(&self) -> String {
        let class = self.options.get(OptionCode::ClassIdentifier).unwrap_or_default();
        let text = String::from_utf8_lossy(class);
        text.chars().take(64).map(|c| if c.is_control() { '.' } else { c }).collect()
    }

    /// The longest reply that the client takes, bytes of UDP payload (option 57, less 28 of IP and UDP).
    /// Every host takes 576 (RFC 2131 section 2), and nobody gets more than an Ethernet frame.
    pub fn room(&self) -> usize {
        let said = match self.options.get(OptionCode::MaxMessageSize) {
            Some(&[high, low]) => usize::from(u16::from_be_bytes([high, low])),
            _ => 0,
        };
        said.clamp(576, 1500).saturating_sub(28)
    }
}

/// The option field first, then `file`, then `sname`, as option 52 says (RFC 2131 section 4.1). An
/// option 52 inside those two has no meaning.
fn read_options<'a>(fixed: &'a [u8], field: &'a [u8]) -> Result<(Options<'a>, bool), PacketError> {
    let mut options = Options(Vec::with_capacity(16));
    options.read(field, OPTIONS_AT)?;
    let overload = match options.get(OptionCode::OptionOverload) {
        Some(&[bits]) => bits,
        _ => 0,
    };
    for (bit, range) in [(1, FILE), (2, SNAME)] {
        if overload & bit != 0 {
            let start = range.start;
            options.read(fixed.get(range).unwrap_or_default(), start)?;
        }
    }
    Ok((options, overload & 3 != 0))
}
