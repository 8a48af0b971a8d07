//! The NFS service: sockets in, calls to the programs, replies out, with limits for everyone.
//! Must not know: what the programs answer.
//! Spec: RFC 5531 (dispatch), RFC 1833 (the ports that are announced).

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::net::{TcpListener, UdpSocket};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::nfs::access::Caller;
use crate::nfs::connection::Connection;
use crate::nfs::handle::Seal;
use crate::nfs::ops::{self, Answer, Context};
use crate::nfs::read::{Files, OpenFiles};
use crate::nfs::{Calls, Event, Host, acl, mount, types};
use crate::rpc::message::{self, Call, Credential, NoCall, Refusal};
use crate::rpc::portmap::{self, Mapping, Transport};

/// Connections of one address: the kernel's `nconnect` allows 16, and those of the boot before may
/// still be open.
const PER_ADDRESS: usize = 32;
/// Connections of all addresses that are no node's: nobody but `doctor` needs one.
const STRANGERS: usize = 32;
/// Files kept open. The usual soft limit of a process is 1,024 descriptors.
const OPEN_FILES: usize = 256;
/// Longest datagram that is looked at: MNT with the longest path and credentials.
const DATAGRAM: usize = 4096;
/// How long shutdown waits for replies that are on their way.
const DRAIN: Duration = Duration::from_secs(2);

/// The service's sockets, bound. Each list may be empty.
#[derive(Debug, Default)]
pub struct Sockets {
    /// NFS, NFS_ACL, and MOUNT for those who ask it there.
    pub nfs: Vec<TcpListener>,
    /// MOUNT.
    pub mount: Vec<TcpListener>,
    /// MOUNT over UDP.
    pub mount_udp: Vec<UdpSocket>,
    /// The portmapper.
    pub portmap: Vec<TcpListener>,
    /// The portmapper over UDP.
    pub portmap_udp: Vec<UdpSocket>,
}

/// The ports that the portmapper tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ports {
    /// NFS and NFS_ACL over TCP.
    pub nfs: u16,
    /// MOUNT over TCP and UDP.
    pub mount: u16,
    /// The portmapper itself.
    pub portmap: u16,
}

/// Whether the user numbers in calls from ports of 1024 and more are believed. Only root binds a port
/// below, so with `Nobody` a node's users cannot speak to the server past their kernel and read what
/// only root may read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HighPorts {
    /// As any other call.
    Trusted,
    /// Such a caller is nobody (65534), whatever it says.
    Nobody,
}

/// Which programs a socket serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Door {
    Nfs,
    Mount,
    Portmap,
}

/// The other end of a connection, or the sender of a datagram.
pub(crate) struct Peer {
    pub address: SocketAddr,
    pub door: Door,
    pub transport: Transport,
    pub told: AtomicBool,
}

impl Peer {
    /// The IPv4 address. Nodes have no other; 0.0.0.0, which is nobody's, stands for one.
    fn ip(&self) -> Ipv4Addr {
        match self.address.ip().to_canonical() {
            IpAddr::V4(ip) => ip,
            IpAddr::V6(_) => Ipv4Addr::UNSPECIFIED,
        }
    }
}

/// The service.
pub struct Server {
    host: Arc<dyn Host>,
    seal: Seal,
    mappings: Vec<Mapping>,
    high_ports: HighPorts,
    calls: Mutex<HashMap<String, Arc<Calls>>>,
    connections: Mutex<HashMap<IpAddr, usize>>,
    pub(crate) files: Files,
}

impl Server {
    /// `key` seals handles: the same after a restart, or every mounted root is lost.
    pub fn new(host: Arc<dyn Host>, key: &[u8; 32], ports: Ports, high_ports: HighPorts) -> Arc<Server> {
        Arc::new(Server {
            host,
            seal: Seal::new(key),
            mappings: mappings(ports),
            high_ports,
            calls: Mutex::default(),
            connections: Mutex::default(),
            files: Arc::new(OpenFiles::new(OPEN_FILES)),
        })
    }

    /// The calls of a node since the start.
    pub fn calls(&self, node: &str) -> Arc<Calls> {
        let mut calls = self.calls.lock().unwrap_or_else(PoisonError::into_inner);
        match calls.get(node) {
            Some(found) => Arc::clone(found),
            None => Arc::clone(calls.entry(node.to_owned()).or_default()),
        }
    }

    /// Serves until shutdown, and then lets replies that are on their way go out.
    pub async fn run(self: Arc<Self>, sockets: Sockets, shutdown: CancellationToken) {
        let tasks = TaskTracker::new();
        let doors =
            [(sockets.nfs, Door::Nfs), (sockets.mount, Door::Mount), (sockets.portmap, Door::Portmap)];
        for (listeners, door) in doors {
            for listener in listeners {
                tasks.spawn(Arc::clone(&self).accept(listener, door, shutdown.clone(), tasks.clone()));
            }
        }
        for (sockets, door) in [(sockets.mount_udp, Door::Mount), (sockets.portmap_udp, Door::Portmap)] {
            for socket in sockets {
                tasks.spawn(Arc::clone(&self).datagrams(socket, door, shutdown.clone()));
            }
        }
        shutdown.cancelled().await;
        tasks.close();
        let _ = tokio::time::timeout(DRAIN, tasks.wait()).await;
    }

    async fn accept(
        self: Arc<Self>,
        listener: TcpListener,
        door: Door,
        shutdown: CancellationToken,
        tasks: TaskTracker,
    ) {
        loop {
            let accepted = tokio::select! {
                () = shutdown.cancelled() => return,
                accepted = listener.accept() => accepted,
            };
            match accepted {
                Ok((stream, address)) => {
                    let Some(permit) = Permit::take(&self, address.ip()) else { continue };
                    let connection = Connection::new(Arc::clone(&self), stream, address, door);
                    let shutdown = shutdown.clone();
                    tasks.spawn(async move {
                        connection.run(shutdown).await;
                        drop(permit);
                    });
                }
                // A client that left before, or no descriptor to be had: the second lasts, and asking
                // again at once would take a core.
                Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
            }
        }
    }

    async fn datagrams(self: Arc<Self>, socket: UdpSocket, door: Door, shutdown: CancellationToken) {
        let (mut input, mut out) = (vec![0; DATAGRAM], Vec::new());
        loop {
            let received = tokio::select! {
                () = shutdown.cancelled() => return,
                received = socket.recv_from(&mut input) => received,
            };
            // An error here is an ICMP message about an earlier answer.
            let Ok((len, address)) = received else { continue };
            let peer = Peer { address, door, transport: Transport::Udp, told: AtomicBool::new(false) };
            out.clear();
            if let Ok(Answer::Done) = self.answer(&peer, &input[..len], &mut out) {
                // A lost answer is asked for again; a full socket must not hold up the next.
                let _ = socket.try_send_to(&out, address);
            }
        }
    }

    /// Appends the reply to a message, or says what is left to do for it.
    pub(crate) fn answer(&self, peer: &Peer, message: &[u8], out: &mut Vec<u8>) -> Result<Answer, NoCall> {
        let start = out.len();
        let call = match message::call(message) {
            Ok(call) => call,
            Err(no_call) => {
                self.malformed(peer, no_call.to_string());
                return Err(no_call);
            }
        };
        let (xid, result) = match call {
            Ok(call) => {
                message::accept(out, call.xid);
                (call.xid, self.dispatch(peer, call, out))
            }
            Err((xid, refusal)) => (xid, Err(refusal)),
        };
        Ok(result.unwrap_or_else(|refusal| {
            out.truncate(start);
            message::refuse(out, xid, refusal);
            Answer::Done
        }))
    }

    fn dispatch(&self, peer: &Peer, mut call: Call<'_>, out: &mut Vec<u8>) -> Result<Answer, Refusal> {
        let (site, from) = (self.host.site(), peer.ip());
        let node = site.by_address(from).map(|node| &node.name[..]);
        let cx = Context {
            host: &*self.host,
            seal: &self.seal,
            from,
            node,
            caller: self.caller(peer, &call.credential),
            told: &peer.told,
        };
        let (version, procedure, arguments) = (call.version, call.procedure, &mut call.arguments);
        let calls = || node.map(|node| self.calls(node));
        match (call.program, peer.door) {
            (types::PROGRAM, Door::Nfs) => {
                served(version, (types::VERSION, types::VERSION))?;
                let calls = calls();
                calls.iter().for_each(|calls| calls.nfs(procedure));
                let answer = ops::call(&cx, procedure, arguments, out)?;
                if let (Answer::Read(plan), Some(calls)) = (&answer, calls) {
                    calls.read(plan.len);
                }
                return Ok(answer);
            }
            (acl::PROGRAM, Door::Nfs) => {
                served(version, (types::VERSION, types::VERSION))?;
                calls().iter().for_each(|calls| calls.acl(procedure));
                acl::call(&cx, procedure, arguments, out)?;
            }
            (mount::PROGRAM, Door::Nfs | Door::Mount) => {
                served(version, mount::VERSIONS)?;
                mount::call(&cx, version, procedure, arguments, out)?;
            }
            (portmap::PROGRAM, Door::Portmap) => {
                served(version, (portmap::VERSION, portmap::VERSION))?;
                portmap::answer(&self.mappings, peer.transport, procedure, arguments.clone(), out)?;
            }
            // NLM (100021) among them: nodes mount with `nolock`.
            _ => return Err(Refusal::NoProgram),
        }
        Ok(Answer::Done)
    }

    fn caller(&self, peer: &Peer, credential: &Credential) -> Caller {
        match self.high_ports {
            HighPorts::Nobody if peer.address.port() >= 1024 => Caller::new(&Credential::None),
            _ => Caller::new(credential),
        }
    }

    pub(crate) fn malformed(&self, peer: &Peer, reason: String) {
        self.host.event(Event::Malformed { from: peer.address, reason });
    }
}

fn served(version: u32, (low, high): (u32, u32)) -> Result<(), Refusal> {
    if (low..=high).contains(&version) { Ok(()) } else { Err(Refusal::Versions(low, high)) }
}

fn mappings(ports: Ports) -> Vec<Mapping> {
    use Transport::{Tcp, Udp};
    let list = [
        (portmap::PROGRAM, portmap::VERSION, Tcp, ports.portmap),
        (portmap::PROGRAM, portmap::VERSION, Udp, ports.portmap),
        (mount::PROGRAM, 1, Tcp, ports.mount),
        (mount::PROGRAM, 1, Udp, ports.mount),
        (mount::PROGRAM, 3, Tcp, ports.mount),
        (mount::PROGRAM, 3, Udp, ports.mount),
        (types::PROGRAM, types::VERSION, Tcp, ports.nfs),
        (acl::PROGRAM, types::VERSION, Tcp, ports.nfs),
    ];
    list.map(|(program, version, transport, port)| Mapping { program, version, transport, port }).to_vec()
}

/// A place among the connections, given back when it is dropped. Nodes have theirs whatever strangers
/// do.
struct Permit {
    server: Arc<Server>,
    /// The node's address; all strangers share one.
    place: IpAddr,
}

impl Permit {
    fn take(server: &Arc<Server>, ip: IpAddr) -> Option<Permit> {
        let node = match ip.to_canonical() {
            IpAddr::V4(ip) => server.host.site().by_address(ip).map(|node| IpAddr::V4(node.address)),
            IpAddr::V6(_) => None,
        };
        let place = node.unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED));
        let limit = if node.is_some() { PER_ADDRESS } else { STRANGERS };
        let mut connections = server.connections.lock().unwrap_or_else(PoisonError::into_inner);
        let open = connections.entry(place).or_default();
        (*open < limit).then(|| {
            *open += 1;
            Permit { server: Arc::clone(server), place }
        })
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let mut connections = self.server.connections.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(open) = connections.get_mut(&self.place) {
            *open = open.saturating_sub(1);
        }
    }
}
