//! RPC messages: the header of a call with the caller's identity, and the header of each reply.
//! Must not know: programs.
//! Spec: RFC 5531 sections 8 and 9, appendix A (AUTH_SYS).

use crate::rpc::xdr::{Reader, Writer, XdrError};

const CALL: u32 = 0;
const REPLY: u32 = 1;
const RPC_VERSION: u32 = 2;
/// RFC 5531 section 8.2: the body of a credential or verifier.
const MAX_AUTH: usize = 400;
/// Appendix A: machine name and supplementary groups of AUTH_SYS.
const MAX_MACHINE: usize = 255;
const MAX_GROUPS: usize = 16;

/// Bytes that are no call. They get no answer: there may be nobody to whom it would make sense.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NoCall {
    /// The header ends too early, or has a length over its limit.
    #[error("no RPC header: {0}")]
    Xdr(#[from] XdrError),
    /// The message is a reply or of no known type.
    #[error("message type {0} where a call is due")]
    Type(u32),
}

/// Who says to be calling. Nothing proves it: the address that the connection comes from decides
/// what may be seen at all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Credential {
    /// AUTH_NONE.
    None,
    /// AUTH_SYS.
    Sys {
        /// User.
        uid: u32,
        /// Group.
        gid: u32,
        /// Supplementary groups.
        gids: Groups,
    },
}

/// Up to 16 group numbers, kept in place: a call allocates nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Groups {
    ids: [u32; MAX_GROUPS],
    len: usize,
}

impl Groups {
    /// The first 16 of `ids`.
    pub fn new(ids: &[u32]) -> Groups {
        let mut groups = Groups { len: ids.len().min(MAX_GROUPS), ..Groups::default() };
        groups.ids[..groups.len].copy_from_slice(&ids[..groups.len]);
        groups
    }

    /// The numbers.
    pub fn as_slice(&self) -> &[u32] {
        &self.ids[..self.len]
    }
}

/// A call's header; the arguments are what follows it.
#[derive(Clone, Debug)]
pub struct Call<'a> {
    /// Chosen by the caller, repeated in the reply.
    pub xid: u32,
    /// Program number.
    pub program: u32,
    /// Its version.
    pub version: u32,
    /// Procedure of that version.
    pub procedure: u32,
    /// Who calls.
    pub credential: Credential,
    /// The arguments.
    pub arguments: Reader<'a>,
}

/// Why a call is not done (RFC 5531: accept_stat without SUCCESS, reject_stat, auth_stat).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Refusal {
    /// RPC_MISMATCH: another version of RPC itself.
    RpcMismatch,
    /// AUTH_ERROR, AUTH_BADCRED: a flavour that is not AUTH_NONE or AUTH_SYS, or a broken AUTH_SYS.
    BadCredential,
    /// PROG_UNAVAIL
    NoProgram,
    /// PROG_MISMATCH with the lowest and the highest version that is served.
    Versions(u32, u32),
    /// PROC_UNAVAIL
    NoProcedure,
    /// GARBAGE_ARGS
    Garbage,
}

impl From<XdrError> for Refusal {
    fn from(_: XdrError) -> Refusal {
        Refusal::Garbage
    }
}

/// Reads the header. The inner error is to be answered, with the call's xid.
pub fn call(message: &[u8]) -> Result<Result<Call<'_>, (u32, Refusal)>, NoCall> {
    let mut input = Reader::new(message);
    let xid = input.u32()?;
    match input.u32()? {
        CALL => {}
        other => return Err(NoCall::Type(other)),
    }
    // What follows the version is defined by the version: it is judged before more is read.
    if input.u32()? != RPC_VERSION {
        return Ok(Err((xid, Refusal::RpcMismatch)));
    }
    let (program, version, procedure) = (input.u32()?, input.u32()?, input.u32()?);
    let credential = match (input.u32()?, input.opaque(MAX_AUTH)?) {
        (0, _) => Some(Credential::None),
        (1, body) => auth_sys(body).ok(),
        _ => None,
    };
    // The verifier of both flavours is AUTH_NONE and says nothing.
    let _ = (input.u32()?, input.opaque(MAX_AUTH)?);
    Ok(match credential {
        Some(credential) => Ok(Call { xid, program, version, procedure, credential, arguments: input }),
        None => Err((xid, Refusal::BadCredential)),
    })
}

fn auth_sys(body: &[u8]) -> Result<Credential, XdrError> {
    let mut input = Reader::new(body);
    let _stamp = input.u32()?;
    let _machine = input.opaque(MAX_MACHINE)?;
    let (uid, gid) = (input.u32()?, input.u32()?);
    let found = input.u32()?;
    let mut gids = Groups { len: usize::try_from(found).unwrap_or(usize::MAX), ..Groups::default() };
    if gids.len > MAX_GROUPS {
        return Err(XdrError::TooLong { at: body.len(), found, limit: MAX_GROUPS });
    }
    for id in &mut gids.ids[..gids.len] {
        *id = input.u32()?;
    }
    Ok(Credential::Sys { uid, gid, gids })
}

/// The header of the reply to a call that is done; its results follow.
pub fn accept(out: &mut Vec<u8>, xid: u32) {
    accepted(out, xid, 0);
}

/// The whole reply to a call that is not done.
pub fn refuse(out: &mut Vec<u8>, xid: u32, refusal: Refusal) {
    match refusal {
        Refusal::NoProgram => accepted(out, xid, 1),
        Refusal::Versions(low, high) => {
            accepted(out, xid, 2);
            out.u32(low);
            out.u32(high);
        }
        Refusal::NoProcedure => accepted(out, xid, 3),
        Refusal::Garbage => accepted(out, xid, 4),
        Refusal::RpcMismatch => words(out, &[xid, REPLY, 1, 0, RPC_VERSION, RPC_VERSION]),
        Refusal::BadCredential => words(out, &[xid, REPLY, 1, 1, 1]),
    }
}

/// MSG_ACCEPTED with an empty verifier.
fn accepted(out: &mut Vec<u8>, xid: u32, stat: u32) {
    words(out, &[xid, REPLY, 0, 0, 0, stat]);
}

fn words(out: &mut Vec<u8>, words: &[u32]) {
    for word in words {
        out.u32(*word);
    }
}

#[cfg(test)]
mod tests {
    use nfs3_types::rpc::{
        accept_stat_data, auth_unix, call_body, msg_body, opaque_auth, rejected_reply, reply_body, rpc_msg,
    };
    use nfs3_types::xdr_codec::{Opaque, Pack, Unpack};
    use proptest::prelude::*;

    use super::*;

    fn foreign(cred: opaque_auth<'_>, rpcvers: u32) -> Vec<u8> {
        let verf = opaque_auth::default();
        let body = call_body { rpcvers, prog: 100_003, vers: 3, proc: 6, cred, verf };
        let mut out = Vec::new();
        rpc_msg { xid: 0xfeed, body: msg_body::CALL(body) }.pack(&mut out).unwrap();
        out.extend_from_slice(b"args");
        out
    }

    fn sys(gids: Vec<u32>) -> Vec<u8> {
        let machinename = Opaque::owned(b"fenn".to_vec());
        foreign(opaque_auth::auth_unix(&auth_unix { stamp: 9, machinename, uid: 5, gid: 6, gids }), 2)
    }

    #[test]
    fn a_foreign_call_is_read() {
        let message = sys((1..=16).collect());
        let call = call(&message).unwrap().unwrap();
        assert_eq!((call.xid, call.program, call.version, call.procedure), (0xfeed, 100_003, 3, 6));
        let gids = Groups::new(&(1..=16).collect::<Vec<_>>());
        assert_eq!(call.credential, Credential::Sys { uid: 5, gid: 6, gids });
        assert_eq!(call.arguments.rest(), b"args");
    }

    #[test]
    fn what_cannot_be_trusted_is_refused() {
        let many = sys((1..=17).collect());
        let mut short = sys(vec![]);
        short[31] -= 4; // the body ends before its last word, and the verifier begins with that
        let other = foreign(
            opaque_auth { flavor: nfs3_types::rpc::auth_flavor::AUTH_DES, body: Opaque::borrowed(b"") },
            2,
        );
        let old = foreign(opaque_auth::default(), 1);
        for (message, want) in [
            (&many[..], Refusal::BadCredential),
            (&short, Refusal::BadCredential),
            (&other, Refusal::BadCredential),
            (&old, Refusal::RpcMismatch),
            (&old[..12], Refusal::RpcMismatch),
        ] {
            assert_eq!(call(message).unwrap().unwrap_err(), (0xfeed, want), "given {message:?}");
        }
        let good = foreign(opaque_auth::default(), 2);
        assert_eq!(call(&good).unwrap().unwrap().credential, Credential::None);
        for end in 0..good.len() - 4 {
            assert!(call(&good[..end]).is_err(), "cut at {end}");
        }
        let mut reply = good.clone();
        reply[7] = 1;
        assert_eq!(call(&reply).unwrap_err(), NoCall::Type(1));
        let mut long = good;
        long[30] = 2; // a credential of 512 bytes
        assert!(matches!(call(&long), Err(NoCall::Xdr(XdrError::TooLong { limit: 400, .. }))));
    }

    #[test]
    fn a_foreign_client_reads_each_reply() {
        type Check = fn(&reply_body<'_>) -> bool;
        let cases: [(Refusal, Check); 6] = [
            (Refusal::NoProgram, |r| accepted_as(r, |d| matches!(d, accept_stat_data::PROG_UNAVAIL))),
            (Refusal::Versions(1, 3), |r| {
                accepted_as(r, |d| matches!(d, accept_stat_data::PROG_MISMATCH { low: 1, high: 3 }))
            }),
            (Refusal::NoProcedure, |r| accepted_as(r, |d| matches!(d, accept_stat_data::PROC_UNAVAIL))),
            (Refusal::Garbage, |r| accepted_as(r, |d| matches!(d, accept_stat_data::GARBAGE_ARGS))),
            (Refusal::RpcMismatch, |r| {
                matches!(r, reply_body::MSG_DENIED(rejected_reply::RPC_MISMATCH { low: 2, high: 2 }))
            }),
            (Refusal::BadCredential, |r| {
                use nfs3_types::rpc::auth_stat::AUTH_BADCRED;
                matches!(r, reply_body::MSG_DENIED(rejected_reply::AUTH_ERROR(AUTH_BADCRED)))
            }),
        ];
        for (refusal, check) in cases {
            let mut out = Vec::new();
            refuse(&mut out, 77, refusal);
            let (message, len) = rpc_msg::unpack(&mut &out[..]).unwrap();
            assert_eq!((message.xid, len), (77, out.len()), "{refusal:?}");
            let msg_body::REPLY(reply) = message.body else { panic!("{refusal:?} is no reply") };
            assert!(check(&reply), "{refusal:?} is read as {reply:?}");
        }
        let mut out = Vec::new();
        accept(&mut out, 77);
        let (message, len) = rpc_msg::unpack(&mut &out[..]).unwrap();
        assert_eq!((message.xid, len), (77, 24));
        let msg_body::REPLY(reply) = message.body else { panic!("no reply") };
        assert!(accepted_as(&reply, |d| matches!(d, accept_stat_data::SUCCESS)));
    }

    fn accepted_as(reply: &reply_body<'_>, check: fn(&accept_stat_data) -> bool) -> bool {
        matches!(reply, reply_body::MSG_ACCEPTED(accepted) if check(&accepted.reply_data))
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
            let _ = call(&bytes);
        }

        /// One word changed in a good call: the parts behind the header are reached.
        #[test]
        fn no_change_panics(at in 0usize..30, word: u32) {
            let mut message = sys(vec![1, 2, 3]);
            let at = (at * 4).min(message.len() - 4);
            message[at..at + 4].copy_from_slice(&word.to_be_bytes());
            let _ = call(&message);
        }
    }
}
