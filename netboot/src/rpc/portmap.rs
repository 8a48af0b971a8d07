//! The portmapper's answers: which port a program listens on.
//! Must not know: sockets, what the programs do.
//! Spec: RFC 1833 section 3 (version 2). Read-only: SET and UNSET are answered with false, and CALLIT,
//! which lets strangers call through us, is not there.

use crate::rpc::message::Refusal;
use crate::rpc::xdr::{Reader, Writer};

/// The portmapper's program number.
pub const PROGRAM: u32 = 100_000;
/// The one version that is served. Clients that ask version 3 or 4 first are told so and ask again.
pub const VERSION: u32 = 2;

/// How a message came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// In a connection: the sender's address is proven.
    Tcp,
    /// In a datagram: the sender's address may be forged, so no answer may be much longer than its
    /// call.
    Udp,
}

impl Transport {
    /// IPPROTO_TCP or IPPROTO_UDP.
    fn protocol(self) -> u32 {
        match self {
            Transport::Tcp => 6,
            Transport::Udp => 17,
        }
    }
}

/// One program's port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mapping {
    /// Program number.
    pub program: u32,
    /// Version of the program.
    pub version: u32,
    /// How it is called.
    pub transport: Transport,
    /// Where it listens.
    pub port: u16,
}

/// Appends the result of a procedure of [`VERSION`].
pub fn answer(
    mappings: &[Mapping],
    transport: Transport,
    procedure: u32,
    mut arguments: Reader<'_>,
    out: &mut Vec<u8>,
) -> Result<(), Refusal> {
    match (procedure, transport) {
        (0, _) => {}
        (1 | 2, _) => out.bool(false),
        (3, _) => {
            let (program, version, protocol) = (arguments.u32()?, arguments.u32()?, arguments.u32()?);
            let asked =
                |m: &&Mapping| (m.program, m.version, m.transport.protocol()) == (program, version, protocol);
            out.u32(mappings.iter().find(asked).map_or(0, |m| m.port.into()));
        }
        // DUMP makes 200 bytes of 40: over UDP that is a gift to whoever forges addresses.
        (4, Transport::Tcp) => {
            for m in mappings {
                out.bool(true);
                for word in [m.program, m.version, m.transport.protocol(), m.port.into()] {
                    out.u32(word);
                }
            }
            out.bool(false);
        }
        _ => return Err(Refusal::NoProcedure),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use nfs3_types::portmap::{mapping, pmaplist};
    use nfs3_types::xdr_codec::{Pack, Unpack};
    use proptest::prelude::*;

    use super::*;

    const MAPPINGS: [Mapping; 3] = [
        Mapping { program: PROGRAM, version: 2, transport: Transport::Udp, port: 111 },
        Mapping { program: 100_003, version: 3, transport: Transport::Tcp, port: 2049 },
        Mapping { program: 100_005, version: 1, transport: Transport::Udp, port: 20048 },
    ];

    fn ask(transport: Transport, procedure: u32, arguments: &[u8]) -> Result<Vec<u8>, Refusal> {
        let mut out = Vec::new();
        answer(&MAPPINGS, transport, procedure, Reader::new(arguments), &mut out).map(|()| out)
    }

    fn getport(prog: u32, vers: u32, prot: u32) -> u32 {
        let mut arguments = Vec::new();
        mapping { prog, vers, prot, port: 0 }.pack(&mut arguments).unwrap();
        let found = ask(Transport::Udp, 3, &arguments).unwrap();
        assert_eq!(found, ask(Transport::Tcp, 3, &arguments).unwrap(), "both transports say the same");
        u32::unpack(&mut &found[..]).unwrap().0
    }

    #[test]
    fn getport_is_exact() {
        for (program, version, protocol, want) in [
            (100_003, 3, 6, 2049),
            (100_003, 3, 17, 0),
            (100_003, 4, 6, 0),
            (100_003, 2, 6, 0),
            (100_005, 1, 17, 20048),
            (100_000, 2, 17, 111),
            (100_021, 4, 6, 0),
            (100_003, 3, 0, 0),
        ] {
            assert_eq!(getport(program, version, protocol), want, "{program} {version} {protocol}");
        }
        assert_eq!(ask(Transport::Tcp, 3, &[0; 8]), Err(Refusal::Garbage));
    }

    #[test]
    fn dump_is_for_connections() {
        let found = ask(Transport::Tcp, 4, &[]).unwrap();
        let (list, len) = pmaplist::unpack(&mut &found[..]).unwrap();
        assert_eq!(len, found.len());
        let ports: Vec<_> = list.into_inner().iter().map(|m| (m.prog, m.vers, m.prot, m.port)).collect();
        assert_eq!(ports, [(100_000, 2, 17, 111), (100_003, 3, 6, 2049), (100_005, 1, 17, 20048)]);
        assert_eq!(ask(Transport::Udp, 4, &[]), Err(Refusal::NoProcedure));
    }

    #[test]
    fn nothing_can_be_changed_or_called_through() {
        for transport in [Transport::Tcp, Transport::Udp] {
            assert_eq!(ask(transport, 0, &[]), Ok(vec![]));
            assert_eq!(ask(transport, 1, &[0; 16]), Ok(vec![0; 4]));
            assert_eq!(ask(transport, 2, &[0; 16]), Ok(vec![0; 4]));
            assert_eq!(ask(transport, 5, &[0; 16]), Err(Refusal::NoProcedure));
            assert_eq!(ask(transport, 6, &[]), Err(Refusal::NoProcedure));
        }
    }

    proptest! {
        /// Over UDP no answer is longer than the call: its arguments and 40 bytes of header.
        #[test]
        fn no_amplification(procedure in 0u32..8, bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            if let Ok(result) = ask(Transport::Udp, procedure, &bytes) {
                prop_assert!(24 + result.len() <= 40 + bytes.len());
            }
        }
    }
}
