//! TFTP packets: bytes to borrowed values and back.
//! Must not know: sockets, files, who may read what, which value of an option is sensible.
//! Spec: RFC 1350 section 5 (packets), RFC 2347 (options and OACK).
//!
//! ```text
//! RRQ, WRQ  0001 | 0002   name 00  mode 00  (option 00  value 00)*
//! DATA      0003          block  payload
//! ACK       0004          block
//! ERROR     0005          code  message 00
//! OACK      0006          (option 00  value 00)*
//! ```

use thiserror::Error;

/// One packet, borrowed from the datagram that it came in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Packet<'a> {
    /// Opcode 1, RRQ.
    Read(Request<'a>),
    /// Opcode 2, WRQ.
    Write(Request<'a>),
    /// Opcode 3.
    Data {
        /// Number of the block; the first is 1, and 65535 is followed by 0.
        block: u16,
        /// Content; shorter than `blksize` in the last block, perhaps empty.
        payload: &'a [u8],
    },
    /// Opcode 4.
    Ack {
        /// The block that has arrived; 0 acknowledges an OACK.
        block: u16,
    },
    /// Opcode 5.
    Error {
        /// What kind.
        code: ErrorCode,
        /// For people.
        message: &'a [u8],
    },
    /// Opcode 6.
    Oack(Options<'a>),
}

/// What RRQ and WRQ carry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Request<'a> {
    /// File name as it was sent: any bytes but NUL, perhaps none.
    pub name: &'a [u8],
    /// Mode in the client's own letter case.
    pub mode: &'a [u8],
    /// Options in the client's order.
    pub options: Options<'a>,
}

/// Options as they lie on the wire; every one is known to have a name and a value.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Options<'a>(&'a [u8]);

impl<'a> Options<'a> {
    /// Names and values in their order.
    pub fn iter(self) -> impl Iterator<Item = (&'a [u8], &'a [u8])> {
        let mut rest = self.0;
        std::iter::from_fn(move || {
            let (name, after) = cut(rest)?;
            let (value, after) = cut(after)?;
            rest = after;
            Some((name, value))
        })
    }

    /// True if there are none.
    pub fn is_empty(self) -> bool {
        self.0.is_empty()
    }

    /// Checks the tail of a packet. Zeros behind the last option are padding: firmware that fills
    /// short frames does not always say so in the UDP length.
    fn parse(bytes: &'a [u8]) -> Result<Options<'a>, PacketError> {
        let mut rest = bytes;
        loop {
            if rest.iter().all(|&b| b == 0) {
                return Ok(Options(&bytes[..bytes.len() - rest.len()]));
            }
            let (name, after) = cut(rest).ok_or(PacketError::Unterminated { field: "option" })?;
            if name.is_empty() {
                return Err(PacketError::OptionWithoutName);
            }
            let (_, after) = match cut(after) {
                Some(found) => found,
                None if after.is_empty() => return Err(PacketError::OptionWithoutValue),
                None => return Err(PacketError::Unterminated { field: "option value" }),
            };
            rest = after;
        }
    }
}

/// Error codes of RFC 1350 and 2347.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ErrorCode(pub u16);

impl ErrorCode {
    /// Not defined; the message says more.
    pub const OTHER: ErrorCode = ErrorCode(0);
    /// File not found.
    pub const NOT_FOUND: ErrorCode = ErrorCode(1);
    /// Access violation.
    pub const ACCESS: ErrorCode = ErrorCode(2);
    /// Illegal operation.
    pub const ILLEGAL: ErrorCode = ErrorCode(4);
    /// Unknown transfer ID: the packet came from a port that has no part in the transfer.
    pub const UNKNOWN_TID: ErrorCode = ErrorCode(5);
}

/// Why a datagram is no TFTP packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum PacketError {
    /// It ends before its fixed fields do.
    #[error("the packet has {got} bytes, its fixed fields need {want}")]
    Truncated {
        /// Bytes there are.
        got: usize,
        /// Bytes needed.
        want: usize,
    },
    /// The first two bytes name no operation.
    #[error("opcode {0} is not defined")]
    Opcode(u16),
    /// A string has no NUL behind it.
    #[error("the {field} does not end in NUL")]
    Unterminated {
        /// Which.
        field: &'static str,
    },
    /// An option name stands last.
    #[error("the last option has no value")]
    OptionWithoutValue,
    /// An option's name is empty.
    #[error("an option has no name")]
    OptionWithoutName,
}

impl<'a> Packet<'a> {
    /// Reads one datagram. Bytes behind an ACK and zeros behind options are ignored: a Pi 5 pads its
    /// frames (firmware#1898). An ERROR counts without its closing NUL too, for it must end the
    /// transfer whatever its sender thinks of strings.
    pub fn parse(datagram: &'a [u8]) -> Result<Packet<'a>, PacketError> {
        let (opcode, rest) = word(datagram)?;
        match opcode {
            1 => Ok(Packet::Read(Request::parse(rest)?)),
            2 => Ok(Packet::Write(Request::parse(rest)?)),
            3..=5 => {
                let short = PacketError::Truncated { got: datagram.len(), want: 4 };
                let (field, rest) = word(rest).map_err(|_| short)?;
                Ok(match opcode {
                    3 => Packet::Data { block: field, payload: rest },
                    4 => Packet::Ack { block: field },
                    _ => {
                        let message = cut(rest).map_or(rest, |(message, _)| message);
                        Packet::Error { code: ErrorCode(field), message }
                    }
                })
            }
            6 => Ok(Packet::Oack(Options::parse(rest)?)),
            other => Err(PacketError::Opcode(other)),
        }
    }

    /// Appends the packet. Strings that are not from [`Packet::parse`] must have no NUL in them.
    pub fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Packet::Read(request) => request.encode(1, out),
            Packet::Write(request) => request.encode(2, out),
            Packet::Data { block, payload } => {
                out.extend_from_slice(&data_header(*block));
                out.extend_from_slice(payload);
            }
            Packet::Ack { block } => words(out, 4, *block),
            Packet::Error { code, message } => {
                words(out, 5, code.0);
                string(out, message);
            }
            Packet::Oack(options) => {
                out.extend_from_slice(&[0, 6]);
                out.extend_from_slice(options.0);
            }
        }
    }
}

impl<'a> Request<'a> {
    fn parse(bytes: &'a [u8]) -> Result<Request<'a>, PacketError> {
        let (name, rest) = cut(bytes).ok_or(PacketError::Unterminated { field: "file name" })?;
        let (mode, rest) = cut(rest).ok_or(PacketError::Unterminated { field: "mode" })?;
        Ok(Request { name, mode, options: Options::parse(rest)? })
    }

    fn encode(&self, opcode: u8, out: &mut Vec<u8>) {
        out.extend_from_slice(&[0, opcode]);
        string(out, self.name);
        string(out, self.mode);
        out.extend_from_slice(self.options.0);
    }
}

/// Appends one option to a request or an OACK. Neither string may hold a NUL.
pub fn push_option(out: &mut Vec<u8>, name: &[u8], value: &[u8]) {
    string(out, name);
    string(out, value);
}

/// The four bytes before a block's content.
pub fn data_header(block: u16) -> [u8; 4] {
    let [high, low] = block.to_be_bytes();
    [0, 3, high, low]
}

/// An ERROR packet.
pub fn error(code: ErrorCode, message: &str) -> Vec<u8> {
    let mut out = Vec::with_capacity(5 + message.len());
    Packet::Error { code, message: message.as_bytes() }.encode(&mut out);
    out
}

fn words(out: &mut Vec<u8>, opcode: u16, field: u16) {
    out.extend_from_slice(&opcode.to_be_bytes());
    out.extend_from_slice(&field.to_be_bytes());
}

fn string(out: &mut Vec<u8>, bytes: &[u8]) {
    out.extend_from_slice(bytes);
    out.push(0);
}

fn word(bytes: &[u8]) -> Result<(u16, &[u8]), PacketError> {
    match bytes.split_first_chunk() {
        Some((head, rest)) => Ok((u16::from_be_bytes(*head), rest)),
        None => Err(PacketError::Truncated { got: bytes.len(), want: 2 }),
    }
}

/// The bytes before the first NUL and those behind it.
fn cut(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let end = bytes.iter().position(|&b| b == 0)?;
    Some((&bytes[..end], &bytes[end + 1..]))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(bytes: &[u8]) -> (Vec<u8>, Vec<u8>, Vec<(String, String)>) {
        let Ok(Packet::Read(request)) = Packet::parse(bytes) else { panic!("no RRQ: {bytes:?}") };
        let text = |b: &[u8]| String::from_utf8_lossy(b).into_owned();
        let options = request.options.iter().map(|(n, v)| (text(n), text(v))).collect();
        (request.name.to_vec(), request.mode.to_vec(), options)
    }

    /// What the firmware's stages send; bytes as captured or built after captures (rpi-eeprom#74).
    #[test]
    fn requests_of_every_firmware_stage_are_read() {
        let pair = |n: &str, v: &str| (n.to_owned(), v.to_owned());
        let cases: [(&[u8], &str, Vec<(String, String)>); 4] = [
            (b"\0\x01bootcode.bin\0octet\0", "bootcode.bin", vec![]),
            (
                b"\0\x0189ebb9b9/start.elf\0octet\0tsize\x000\0",
                "89ebb9b9/start.elf",
                vec![pair("tsize", "0")],
            ),
            (
                b"\0\x015b154510/start4.elf\0octet\0tsize\x000\0blksize\x001024\0",
                "5b154510/start4.elf",
                vec![pair("tsize", "0"), pair("blksize", "1024")],
            ),
            (
                b"\0\x01dc-a6-32-01-36-c2/start4.elf\0octet\0tsize\x000\0blksize\x001468\0",
                "dc-a6-32-01-36-c2/start4.elf",
                vec![pair("tsize", "0"), pair("blksize", "1468")],
            ),
        ];
        for (bytes, name, options) in cases {
            assert_eq!(read(bytes), (name.as_bytes().to_vec(), b"octet".to_vec(), options));
        }
    }

    #[test]
    fn each_fault_has_its_name() {
        let cases: [(&[u8], PacketError); 12] = [
            (b"", PacketError::Truncated { got: 0, want: 2 }),
            (b"\0", PacketError::Truncated { got: 1, want: 2 }),
            (b"\0\x04\0", PacketError::Truncated { got: 3, want: 4 }),
            (b"\0\x05", PacketError::Truncated { got: 2, want: 4 }),
            (b"\0\x07\0\0", PacketError::Opcode(7)),
            (b"\0\0\0\0", PacketError::Opcode(0)),
            (b"\0\x01name", PacketError::Unterminated { field: "file name" }),
            (b"\0\x01name\0octet", PacketError::Unterminated { field: "mode" }),
            (b"\0\x01n\0octet\0tsize", PacketError::Unterminated { field: "option" }),
            (b"\0\x01n\0octet\0tsize\x000", PacketError::Unterminated { field: "option value" }),
            (b"\0\x01n\0octet\0tsize\0", PacketError::OptionWithoutValue),
            (b"\0\x01n\0octet\0\x005\0", PacketError::OptionWithoutName),
        ];
        for (bytes, want) in cases {
            assert_eq!(Packet::parse(bytes), Err(want), "given {bytes:?}");
        }
    }

    #[test]
    fn padding_is_no_fault() {
        assert_eq!(Packet::parse(b"\0\x04\0\x07\0\0\0\0\0\0\0\0"), Ok(Packet::Ack { block: 7 }));
        assert_eq!(read(b"\0\x01a\0octet\0\0\0\0").2, []);
        assert_eq!(read(b"\0\x01a\0octet\0tsize\x000\0\0\0").2.len(), 1);
        let unterminated = Packet::Error { code: ErrorCode::OTHER, message: b"Early terminate" };
        assert_eq!(Packet::parse(b"\0\x05\0\0Early terminate"), Ok(unterminated));
        assert_eq!(Packet::parse(b"\0\x05\0\0Early terminate\0"), Ok(unterminated));
    }

    #[test]
    fn answers_are_the_published_bytes() {
        assert_eq!(error(ErrorCode::NOT_FOUND, "File not found"), b"\0\x05\0\x01File not found\0");
        assert_eq!(data_header(65535), [0, 3, 0xff, 0xff]);
        assert_eq!(data_header(0), [0, 3, 0, 0]);
        let mut oack = vec![0, 6];
        push_option(&mut oack, b"tsize", b"2965216");
        assert_eq!(oack, b"\0\x06tsize\x002965216\0");
    }

    proptest! {
        #[test]
        fn what_parses_is_written_and_read_the_same(
            opcode in 0u8..8, bytes in proptest::collection::vec(prop_oneof![Just(0u8), any::<u8>()], 0..200)
        ) {
            let mut datagram = vec![0, opcode];
            datagram.extend(bytes);
            if let Ok(packet) = Packet::parse(&datagram) {
                let mut again = Vec::new();
                packet.encode(&mut again);
                prop_assert_eq!(Packet::parse(&again), Ok(packet));
            }
        }
    }
}
