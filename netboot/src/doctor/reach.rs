//! Whether the server answers the first question of each kind of client.
//! Must not know: what it serves, our own server's code.
//! Spec: RFC 5531 (RPC; NULL is procedure 0 of every program), RFC 1350.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpStream, UdpSocket};
use std::time::Duration;

use nix::sys::socket::{setsockopt, sockopt::Ipv4RecvErr};

use super::{Finding, Place, Subject};

const PORTMAP: (u32, u32) = (100_000, 2);
const NFS: (u32, u32) = (100_003, 3);
const MOUNT: (u32, u32) = (100_005, 3);
/// Any number does; it comes back in the reply.
const XID: u32 = 0x6774_0001;
/// No server has it: what matters is that an answer comes.
const NO_SUCH_FILE: &[u8] = b"\0\x01gt-image-doctor\0octet\0tsize\x000\0blksize\x001468\0";

/// How a question ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reach {
    /// As it should.
    Answered,
    /// Nobody listens there.
    Refused,
    /// Nothing came.
    Silent,
    /// An answer that is none: what it is.
    Wrong(String),
    /// There is no way there.
    Unreachable(String),
}

impl From<io::Error> for Reach {
    fn from(error: io::Error) -> Reach {
        use io::ErrorKind::{ConnectionRefused, ConnectionReset, TimedOut, UnexpectedEof, WouldBlock};
        match error.kind() {
            ConnectionRefused => Reach::Refused,
            TimedOut | WouldBlock => Reach::Silent,
            UnexpectedEof | ConnectionReset => Reach::Wrong("the connection was closed".into()),
            _ => Reach::Unreachable(error.to_string()),
        }
    }
}

impl Reach {
    /// An error on a connection that was made: whoever took it is there, and no firewall is to blame.
    fn from_open(error: io::Error) -> Reach {
        match Reach::from(error) {
            Reach::Silent => Reach::Wrong("it takes the connection and says nothing".into()),
            other => other,
        }
    }
}

/// One service, and how the question to it ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// `TFTP`.
    pub service: &'static str,
    /// `UDP` or `TCP`.
    pub transport: &'static str,
    /// Its port.
    pub port: u16,
    /// How it ended.
    pub reach: Reach,
}

/// Asks TFTP, the portmapper, NFS, MOUNT and HTTP.
pub fn ask(subject: &Subject) -> Vec<Answer> {
    let ports = &subject.ports;
    let at = |port| SocketAddr::from((subject.server, port));
    let rpc = |port, program| null_call(at(port), program, subject.patience);
    [
        (
            "TFTP",
            "UDP",
            ports.tftp,
            ask_tftp(SocketAddrV4::new(subject.server, ports.tftp), subject.patience),
        ),
        ("portmapper", "TCP", ports.portmap, rpc(ports.portmap, PORTMAP)),
        ("NFS", "TCP", ports.nfs, rpc(ports.nfs, NFS)),
        ("MOUNT", "TCP", ports.mount, rpc(ports.mount, MOUNT)),
        ("HTTP", "TCP", ports.http, connect(at(ports.http), subject.patience)),
    ]
    .into_iter()
    .map(|(service, transport, port, reach)| Answer { service, transport, port, reach })
    .collect()
}

/// True if a machine has the address: even a closed port is one that said so.
pub fn is_somebody(answers: &[Answer]) -> bool {
    answers.iter().any(|a| matches!(a.reach, Reach::Answered | Reach::Refused | Reach::Wrong(_)))
}

/// Every service answers.
pub fn check(answers: &[Answer], server: Ipv4Addr, place: Place) -> Vec<Finding> {
    answers.iter().map(|answer| describe(answer, server, place)).collect()
}

fn describe(answer: &Answer, server: Ipv4Addr, place: Place) -> Finding {
    let Answer { service, transport, port, reach } = answer;
    let subject = format!("{service} at {server}, {transport} port {port}");
    let expected = "an answer";
    let here = place == Place::Server;
    match reach {
        // Over loopback, which shows neither a cable nor, mostly, a firewall.
        Reach::Answered if here => Finding::good(subject, "answers this machine itself"),
        Reach::Answered => Finding::good(subject, "answers over the network"),
        Reach::Refused => Finding::fault(
            subject,
            if here { "nobody listens" } else { "nobody listens, or a firewall rejects it" },
            expected,
            format!("run `gt-image serve` on {server}"),
        ),
        Reach::Silent => Finding::fault(
            subject,
            if here {
                "no answer: a firewall drops it"
            } else {
                "no answer: a firewall drops it, or the server is off"
            },
            expected,
            format!("run `sudo nft list ruleset` on {server} and accept {transport} port {port}"),
        ),
        Reach::Wrong(what) => Finding::fault(
            subject,
            format!("something else: {what}"),
            expected,
            format!("run `sudo ss -lntup sport = :{port}` on {server} to see who is there"),
        ),
        Reach::Unreachable(why) => {
            Finding::fault(subject, why.clone(), expected, format!("run `ip route get {server}`"))
        }
    }
}

fn connect(server: SocketAddr, patience: Duration) -> Reach {
    TcpStream::connect_timeout(&server, patience).map_or_else(Reach::from, |_| Reach::Answered)
}

/// Asks for a file that is not there; RFC 1350 wants an ERROR, and the firmware would ask for 30 s.
pub fn ask_tftp(server: SocketAddrV4, patience: Duration) -> Reach {
    let ask = || {
        // Not connected: a TFTP server answers from a new port, and only the address can be compared.
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
        // ip(7): without this such a socket never hears of an ICMP error, and a closed port would be as
        // silent as one behind a firewall.
        setsockopt(&socket, Ipv4RecvErr, &true)?;
        socket.set_read_timeout(Some(patience))?;
        socket.send_to(NO_SUCH_FILE, server)?;
        let mut answer = [0; 512];
        loop {
            let (len, from) = socket.recv_from(&mut answer)?;
            if from.ip() == *server.ip() {
                return Ok::<_, io::Error>(answer[..len].to_vec());
            }
        }
    };
    match ask() {
        Ok(answer) if answer.starts_with(&[0, 5]) => Reach::Answered,
        Ok(answer) => Reach::Wrong(format!("it answers {:02x?}", &answer[..answer.len().min(4)])),
        Err(e) => Reach::from(e),
    }
}

/// Calls procedure 0 of a program over TCP.
pub fn null_call(server: SocketAddr, program: (u32, u32), patience: Duration) -> Reach {
    let call = || {
        let mut stream = TcpStream::connect_timeout(&server, patience)?;
        stream.set_read_timeout(Some(patience))?;
        stream.set_write_timeout(Some(patience))?;
        stream.write_all(&null_message(program))?;
        let mut head = [0; 4];
        if let Err(e) = stream.read_exact(&mut head) {
            return Ok(Err(Reach::from_open(e)));
        }
        let len = usize::try_from(u32::from_be_bytes(head) & 0x7fff_ffff).map_err(io::Error::other)?;
        // A reply to NULL has 24 bytes; one that refuses has 28 at most.
        let mut reply = vec![0; len.min(64)];
        Ok::<_, io::Error>(stream.read_exact(&mut reply).map(|()| reply).map_err(Reach::from_open))
    };
    match call() {
        Ok(Ok(reply)) => read_reply(&reply),
        Ok(Err(reach)) => reach,
        Err(e) => Reach::from(e),
    }
}

/// One record: mark with the last-fragment bit, xid, CALL, RPC version 2, program, version, procedure 0, no
/// credentials, no verifier.
fn null_message((program, version): (u32, u32)) -> Vec<u8> {
    [0x8000_0000 | 40, XID, 0, 2, program, version, 0, 0, 0, 0, 0]
        .iter()
        .flat_map(|word: &u32| word.to_be_bytes())
        .collect()
}

/// RFC 5531 section 9: xid, REPLY (1), MSG_ACCEPTED (0), verifier, SUCCESS (0).
fn read_reply(reply: &[u8]) -> Reach {
    let word = |at: usize| reply.get(at..)?.first_chunk::<4>().map(|four| u32::from_be_bytes(*four));
    if (word(0), word(4)) != (Some(XID), Some(1)) {
        return Reach::Wrong("no RPC".into());
    }
    let status = word(16).and_then(|len| word(20usize.checked_add(usize::try_from(len).ok()?)?));
    match (word(8), status) {
        (Some(0), Some(0)) => Reach::Answered,
        (Some(0), Some(1)) => Reach::Wrong("an RPC server without this program".into()),
        (Some(0), Some(2)) => Reach::Wrong("an RPC server with other versions of this program".into()),
        _ => Reach::Wrong("an RPC server that refuses the call".into()),
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use proptest::prelude::*;

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(5);

    /// A server that reads a NULL call and sends these bytes.
    fn serve(answer: Vec<u8>) -> Reach {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let server = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut call = [0; 44];
            stream.read_exact(&mut call).unwrap();
            stream.write_all(&answer).unwrap();
            call
        });
        let reach = null_call(address, NFS, PATIENCE);
        let call = server.join().unwrap();
        assert_eq!(call[..4], [0x80, 0, 0, 40]);
        assert_eq!(call[16..24], [0, 1, 0x86, 0xa3, 0, 0, 0, 3], "program 100003, version 3");
        reach
    }

    fn words(list: &[u32]) -> Vec<u8> {
        list.iter().flat_map(|word| word.to_be_bytes()).collect()
    }

    #[test]
    fn null_calls() {
        let head = 0x8000_0018;
        assert_eq!(serve(words(&[head, XID, 1, 0, 0, 0, 0])), Reach::Answered);
        assert_eq!(serve(words(&[0x8000_001c, XID, 1, 0, 1, 4, 9, 0])), Reach::Answered, "with a verifier");
        for (answer, want) in [
            (words(&[head, XID, 1, 0, 0, 0, 1]), "without this program"),
            (words(&[head, XID, 1, 0, 0, 0, 2, 3, 4]), "other versions"),
            (words(&[head, XID, 1, 1, 0, 0, 0]), "refuses"),
            (words(&[head, XID, 1, 0, 0, u32::MAX, 0]), "refuses"),
            (words(&[head, 1, 1, 0, 0, 0, 0]), "no RPC"),
            (b"HTTP/1.1 400 Bad Request\r\n\r\n".repeat(4), "no RPC"),
            (vec![], "closed"),
        ] {
            assert!(matches!(serve(answer), Reach::Wrong(what) if what.contains(want)), "{want}");
        }
        let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        assert_eq!(null_call(free, NFS, PATIENCE), Reach::Refused);
        // The kernel takes the connection for it; nobody reads.
        let mute = TcpListener::bind("127.0.0.1:0").unwrap();
        let reach = null_call(mute.local_addr().unwrap(), NFS, Duration::from_millis(20));
        assert!(matches!(reach, Reach::Wrong(what) if what.contains("says nothing")));
    }

    #[test]
    fn tftp() {
        let answer = |bytes: &'static [u8]| {
            let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
            let SocketAddr::V4(address) = socket.local_addr().unwrap() else { unreachable!() };
            let server = std::thread::spawn(move || {
                let mut request = [0; 100];
                let (_, from) = socket.recv_from(&mut request).unwrap();
                UdpSocket::bind("127.0.0.1:0").unwrap().send_to(bytes, from).unwrap();
            });
            let reach = ask_tftp(address, PATIENCE);
            server.join().unwrap();
            reach
        };
        assert_eq!(answer(b"\0\x05\0\x01no\0"), Reach::Answered);
        assert!(matches!(answer(b"hello"), Reach::Wrong(_)));
        let silent = UdpSocket::bind("127.0.0.1:0").unwrap();
        let SocketAddr::V4(address) = silent.local_addr().unwrap() else { unreachable!() };
        assert_eq!(ask_tftp(address, Duration::from_millis(20)), Reach::Silent);
        drop(silent);
        assert_eq!(ask_tftp(address, PATIENCE), Reach::Refused, "a closed port is no firewall");
    }

    proptest! {
        #[test]
        fn no_bytes_panic(reply in proptest::collection::vec(any::<u8>(), 0..80)) {
            read_reply(&reply);
            let mut framed = words(&[XID, 1, 0]);
            framed.extend(reply);
            read_reply(&framed);
        }
    }
}
