//! A reply, written: header, options in a fixed order, the PXE part that starts a Pi's TFTP.
//! Must not know: why this reply and not another.
//! Spec: RFC 2131 table 3, RFC 2132, RFC 3046 (option 82 comes back), RFC 6842 (option 61 comes back),
//! RFC 4578; option 43 as the Pi's bootloader wants it.

use std::net::Ipv4Addr;
use std::time::Duration;

use dhcproto::Encodable;
use dhcproto::encoder::Encoder;
use dhcproto::error::EncodeResult;
use dhcproto::v4::{Flags, Message, MessageType, Opcode, OptionCode, encode_long_opt_bytes};

use super::packet::Packet;
use crate::site::{Node, Site};

/// Option 43 for every model: discovery control 3, a prompt that does not wait, a menu with one entry, an
/// inner end. The three spaces work round a string length fault of the Pi 3B's ROM, and no other model
/// minds them; without the inner end a Pi 3 does not boot.
pub const PI_BOOT: [u8; 35] = *b"\x06\x01\x03\x0a\x04\x00PXE\x09\x17\x00\x00\x14Raspberry Pi Boot   \xff";

/// RFC 1542 section 2.1: BOOTP has 300 bytes, and old relay agents drop what is shorter.
const SHORTEST: usize = 300;

/// Which options a reply carries beside type and server.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Contents<'a> {
    /// Lease time; none in a proxy's offer and in the answer to an INFORM.
    pub lease: Option<Duration>,
    /// The node whose network parameters are told.
    pub parameters: Option<&'a Node>,
    /// The PXE part.
    pub boot: bool,
    /// Renewal and rebinding times, asked for or not.
    pub times: bool,
    /// Option 56.
    pub message: Option<&'a str>,
}

/// The fields of the header in which replies differ.
#[derive(Debug, Clone, Copy)]
pub(super) struct Header {
    pub kind: MessageType,
    pub flags: u16,
    pub ciaddr: Ipv4Addr,
    pub yiaddr: Ipv4Addr,
    pub siaddr: Ipv4Addr,
}

/// Writes the reply to `request`.
#[expect(clippy::unwrap_used, reason = "proven where it stands")]
pub(super) fn write(request: &Packet<'_>, site: &Site, header: Header, contents: Contents<'_>) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(576);
    let mut out = Writer { out: Encoder::new(&mut bytes), request, room: request.room() };
    // Cannot fail: the encoder reports a number or text that does not fit its field, and each is given
    // as the bytes of the field, to a buffer that grows.
    out.reply(site, header, contents).unwrap();
    if bytes.len() < SHORTEST {
        bytes.resize(SHORTEST, 0);
    }
    bytes
}

struct Writer<'w, 'r> {
    out: Encoder<'w>,
    request: &'r Packet<'r>,
    room: usize,
}

impl Writer<'_, '_> {
    fn reply(&mut self, site: &Site, header: Header, contents: Contents<'_>) -> EncodeResult<()> {
        use OptionCode as O;
        self.header(header)?;
        self.put(O::MessageType, &[header.kind.into()])?;
        self.put(O::ServerIdentifier, &site.server.octets())?;
        if let Some(lease) = contents.lease {
            self.lease(lease, contents.times)?;
        }
        if let Some(node) = contents.parameters {
            self.put(O::SubnetMask, &site.netmask.octets())?;
            if let Some(gateway) = site.gateway {
                self.put(O::Router, &gateway.octets())?;
            }
            // The firmware takes its boot from the part that follows; what may be left out comes last.
            self.boot(site, contents.boot)?;
            self.echo(O::ClientIdentifier)?;
            self.names(site, node)?;
        } else {
            self.boot(site, contents.boot)?;
            if let Some(message) = contents.message {
                self.put(O::Message, message.as_bytes())?;
            }
            self.echo(O::ClientIdentifier)?;
        }
        self.echo(O::RelayAgentInformation)?; // RFC 3046 section 2.2: the last option.
        self.out.write_u8(O::End.into())
    }

    fn header(&mut self, header: Header) -> EncodeResult<()> {
        let Packet { xid, giaddr, mac, .. } = self.request;
        let mut message =
            Message::new_with_id(*xid, header.ciaddr, header.yiaddr, header.siaddr, *giaddr, &mac.0);
        message.set_opcode(Opcode::BootReply).set_flags(Flags::new(header.flags));
        message.encode(&mut self.out) // No options in it, so no END either.
    }

    fn put(&mut self, code: OptionCode, value: &[u8]) -> EncodeResult<()> {
        encode_long_opt_bytes(code, value, &mut self.out)
    }

    fn echo(&mut self, code: OptionCode) -> EncodeResult<()> {
        let request = self.request;
        request.options.get(code).map_or(Ok(()), |value| self.put(code, value))
    }

    /// True if the client asks for the option, or asks for nothing in particular (RFC 2131 section 4.3.1).
    fn wants(&self, code: OptionCode) -> bool {
        let list = self.request.options.get(OptionCode::ParameterRequestList);
        list.is_none_or(|list| list.contains(&code.into()))
    }

    /// Half and seven eighths of the lease, as RFC 2131 section 4.4.5 has it. The firmware never renews, and
    /// is told only if it asks.
    fn lease(&mut self, lease: Duration, times: bool) -> EncodeResult<()> {
        use OptionCode as O;
        let seconds = u32::try_from(lease.as_secs()).unwrap_or(u32::MAX);
        self.put(O::AddressLeaseTime, &seconds.to_be_bytes())?;
        for (code, time) in [(O::Renewal, seconds / 2), (O::Rebinding, seconds - seconds / 8)] {
            if times || self.wants(code) {
                self.put(code, &time.to_be_bytes())?;
            }
        }
        Ok(())
    }

    /// What makes a Pi go on to TFTP: class, server as text (some bootloaders take it from 66, some from
    /// 54), its own option 97 again, and the menu.
    fn boot(&mut self, site: &Site, boot: bool) -> EncodeResult<()> {
        if !boot {
            return Ok(());
        }
        self.put(OptionCode::ClassIdentifier, b"PXEClient")?;
        self.put(OptionCode::TFTPServerName, site.server.to_string().as_bytes())?;
        self.echo(OptionCode::ClientMachineIdentifier)?;
        self.put(OptionCode::VendorExtensions, &PI_BOOT)
    }

    fn names(&mut self, site: &Site, node: &Node) -> EncodeResult<()> {
        use OptionCode as O;
        let broadcast = Ipv4Addr::from(u32::from(node.address) | !u32::from(site.netmask));
        let dns: Vec<u8> = site.dns.iter().flat_map(Ipv4Addr::octets).collect();
        let options: [(O, &[u8]); 4] = [
            (O::Hostname, node.name.as_bytes()),
            (O::DomainName, site.domain.as_bytes()),
            (O::BroadcastAddr, &broadcast.octets()),
            (O::DomainNameServer, &dns),
        ];
        let relay = self.request.options.get(O::RelayAgentInformation).map_or(0, on_wire);
        for (code, value) in options {
            let fits = self.out.len_filled() + on_wire(value) + relay < self.room;
            if fits && self.wants(code) {
                self.put(code, value)?;
            }
        }
        Ok(())
    }
}

/// Bytes that a value takes as an option, or as several.
fn on_wire(value: &[u8]) -> usize {
    value.len() + 2 * value.len().div_ceil(255)
}
