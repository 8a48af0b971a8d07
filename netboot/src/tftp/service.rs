//! The well-known port: requests in, each one ignored, refused, or handed to a worker as a transfer.
//! Must not know: blocks, acknowledgements, timers.
//! Spec: RFC 1350 section 4; RFC 1123 section 4.2.3.6 (requests sent to a broadcast address are ignored).

use std::io::{self, IoSliceMut};
use std::net::{Ipv4Addr, SocketAddrV4, UdpSocket};
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::libc;
use nix::sys::socket::{
    ControlMessageOwned, MsgFlags, SockaddrIn, recvmsg, setsockopt, sockopt::Ipv4PacketInfo,
};
use thiserror::Error;
use tokio::io::Interest;
use tokio::runtime::Handle;
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::warn;

use super::live::Granted;
use super::packet::{self, ErrorCode};
use super::request::{Decision, NOT_FOUND, Open, decide};
use super::source::Source;
use super::table::{Admission, Id, Limits, Table};
use super::worker::{self, Mailbox, Message, Shared};
use super::{Event, Host};

/// Files opened at once; more would only make threads, for they all wait for the same disk.
const OPENERS: usize = 8;

/// Settings of the service.
#[derive(Clone, Copy, Debug)]
pub struct Config {
    /// How much is served at once.
    pub limits: Limits,
    /// How long running transfers may go on after shutdown was asked for.
    pub drain: Duration,
    /// Threads that run transfers, at least 1.
    pub workers: usize,
}

impl Default for Config {
    /// One worker: a second one made ten lock-step clients no faster on two cores, and cost a fifth more
    /// processor time, for fewer packets were found ready at each wake-up.
    fn default() -> Config {
        Config { limits: Limits::default(), drain: Duration::from_secs(5), workers: 1 }
    }
}

/// Why the port could not be had.
#[derive(Debug, Error)]
#[error("binding TFTP to UDP {address}")]
pub struct BindError {
    /// What was wanted.
    pub address: SocketAddrV4,
    /// What the kernel said.
    #[source]
    pub source: io::Error,
}

/// Why the service ended by itself.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ServeError {
    /// The socket cannot be used, or a thread not be made.
    #[error("setting up TFTP")]
    SetUp(#[from] io::Error),
    /// A worker has ended that should not have: a bug.
    #[error("a TFTP worker has ended")]
    WorkerEnded,
}

/// A datagram at the well-known port.
#[derive(Clone, Debug)]
pub struct Asked {
    /// Who sent it.
    pub from: SocketAddrV4,
    /// The address that it was sent to; the answer comes from there.
    pub to: Ipv4Addr,
    /// Its bytes.
    pub datagram: Vec<u8>,
    /// When it was read.
    pub at: Instant,
}

/// Opens the well-known port.
///
/// # Errors
/// [`BindError`] if the address is taken, not this machine's, or not allowed.
pub fn bind(address: SocketAddrV4) -> Result<UdpSocket, BindError> {
    let failed = |source| BindError { address, source };
    let socket = UdpSocket::bind(address).map_err(failed)?;
    // Room for the requests of a thousand nodes that are switched on together; with less, some ask twice.
    let _ = socket2::SockRef::from(&socket).set_recv_buffer_size(1 << 20);
    // Here already, for the kernel notes the address when a packet comes, not when it is read.
    setsockopt(&socket, Ipv4PacketInfo, &true).map_err(|e| failed(e.into()))?;
    Ok(socket)
}

/// Serves requests at `socket` (any bound UDP socket over IPv4) until `shutdown`; then it takes no
/// new ones and lets running transfers go on for [`Config::drain`].
///
/// # Errors
/// [`ServeError`]; no packet brings it about.
pub async fn serve(
    socket: UdpSocket,
    host: Arc<dyn Host>,
    config: Config,
    shutdown: CancellationToken,
) -> Result<(), ServeError> {
    setsockopt(&socket, Ipv4PacketInfo, &true).map_err(io::Error::from)?;
    socket.set_nonblocking(true)?;
    let socket = tokio::net::UdpSocket::from_std(socket)?;
    let (again, mut repeats) = mpsc::unbounded_channel();
    let table = Arc::new(Table::new(config.limits));
    let shared = Shared { host, table, runtime: Handle::current(), again };
    let (crew, mut ends) = Crew::muster(&shared, config.workers.max(1))?;
    let listener =
        Listener { shared, crew, opening: TaskTracker::new(), openers: Arc::new(Semaphore::new(OPENERS)) };

    let mut buffer = vec![0; 2048];
    loop {
        let asked = tokio::select! {
            () = shutdown.cancelled() => break,
            _ = ends.join_next() => return Err(ServeError::WorkerEnded),
            Some(asked) = repeats.recv() => Some(asked),
            asked = socket.async_io(Interest::READABLE, || receive(&socket, &mut buffer)) => {
                match asked {
                    Ok(asked) => asked,
                    Err(e) => {
                        // No packet causes this; a machine out of memory may, and comes out of it.
                        warn!("TFTP: receiving: {e}");
                        tokio::time::sleep(Duration::from_millis(100)).await;
                        None
                    }
                }
            }
        };
        if let Some(asked) = asked {
            listener.handle(asked).await;
        }
    }
    drop(socket);
    listener.opening.close();
    listener.opening.wait().await;
    listener.crew.drain(Instant::now() + config.drain);
    while ends.join_next().await.is_some() {}
    Ok(())
}

/// One datagram. Nothing if it came to a broadcast or multicast address.
fn receive(socket: &tokio::net::UdpSocket, buffer: &mut [u8]) -> io::Result<Option<Asked>> {
    let mut control = nix::cmsg_space!(libc::in_pktinfo);
    let mut into = [IoSliceMut::new(buffer)];
    let message =
        recvmsg::<SockaddrIn>(socket.as_raw_fd(), &mut into, Some(&mut control), MsgFlags::MSG_DONTWAIT)?;
    let info = message.cmsgs()?.find_map(|part| match part {
        ControlMessageOwned::Ipv4PacketInfo(info) => Some(info),
        _ => None,
    });
    let (Some(from), Some(info)) = (message.address, info) else { return Ok(None) };
    let address = |raw: libc::in_addr| Ipv4Addr::from(u32::from_be(raw.s_addr));
    // The second is the address to answer from: the same, unless that is no single machine's. It is unset
    // for a packet that came before the option, to a socket that the service manager has opened.
    let (sent_to, to) = (address(info.ipi_addr), address(info.ipi_spec_dst));
    let to = if to.is_unspecified() { sent_to } else { to };
    let len = message.bytes;
    let from = SocketAddrV4::new(from.ip(), from.port());
    Ok((sent_to == to).then(|| Asked { from, to, datagram: buffer[..len].to_vec(), at: Instant::now() }))
}

/// The workers. Dropping it ends them, so that no thread outlives a service that was dropped.
struct Crew(Vec<Mailbox>);

impl Crew {
    fn muster(shared: &Shared, size: usize) -> io::Result<(Crew, JoinSet<()>)> {
        let mut crew = Crew(Vec::new());
        let mut ends = JoinSet::new();
        for _ in 0..size {
            let (mailbox, end) = worker::spawn(shared.clone())?;
            crew.0.push(mailbox);
            // The sender is dropped with the worker, which is the news.
            ends.spawn(async move { drop(end.await) });
        }
        Ok((crew, ends))
    }

    /// All transfers of an address are one worker's, so what concerns a transfer finds it. The
    /// addresses of a cluster mostly follow one another and spread evenly.
    fn of(&self, client: SocketAddrV4) -> &Mailbox {
        &self.0[u32::from(*client.ip()) as usize % self.0.len()]
    }

    fn drain(&self, until: Instant) {
        for mailbox in &self.0 {
            mailbox.send(Message::Drain(until));
        }
    }
}

impl Drop for Crew {
    fn drop(&mut self) {
        self.drain(Instant::now());
    }
}

struct Listener {
    shared: Shared,
    crew: Crew,
    opening: TaskTracker,
    openers: Arc<Semaphore>,
}

impl Listener {
    async fn handle(&self, asked: Asked) {
        let site = self.shared.host.site();
        match decide(&site, asked.from, &asked.datagram) {
            Decision::Ignore(event) => {
                if let Some(event) = event {
                    self.shared.host.event(event);
                }
            }
            Decision::Refuse(code, message, event) => {
                refuse(&asked, code, message);
                self.shared.host.event(event);
            }
            Decision::Open(open) => self.admit(asked, open).await,
        }
    }

    async fn admit(&self, asked: Asked, open: Open) {
        let mailbox = self.crew.of(asked.from);
        let id = match self.shared.table.admit(asked.from, &asked.datagram) {
            Admission::New(id) => id,
            Admission::Repeat(id) => return mailbox.send(Message::Repeat(id, asked)),
            Admission::Replace { stale, id } => {
                mailbox.send(Message::Cancel(stale));
                id
            }
            // Silence: it asks again in 2 s, when there may be room.
            Admission::Full => return,
        };
        // Cannot fail: the semaphore is never closed.
        let permit = Arc::clone(&self.openers).acquire_owned().await;
        let (shared, mailbox) = (self.shared.clone(), mailbox.clone());
        self.opening.spawn_blocking(move || {
            begin(&shared, &mailbox, &asked, open, id);
            drop(permit);
        });
    }
}

/// Opens the file and hands the transfer to its worker, or says that there is no file.
fn begin(shared: &Shared, mailbox: &Mailbox, asked: &Asked, open: Open, id: Id) {
    let Open { node, path, netascii, wishes } = open;
    let Some(content) = shared.host.boot_file(&node, &path) else {
        shared.table.remove(asked.from, id);
        refuse(asked, ErrorCode::NOT_FOUND, NOT_FOUND);
        return shared.host.event(Event::Missing { node, path });
    };
    let octet = !netascii;
    let terms = wishes.grant(octet.then(|| content.len()), || mtu_to(asked).unwrap_or(1500));
    let source = Source::new(content, terms.blksize, netascii);
    let (client, local, since) = (asked.from, asked.to, asked.at);
    let granted = Granted { id, client, local, node, path, terms, source, octet, since };
    mailbox.send(Message::Start(Box::new(granted)));
}

/// A refusal comes from a port of its own, and from the address that was asked.
fn answering_socket(local: Ipv4Addr) -> io::Result<UdpSocket> {
    let socket = UdpSocket::bind((local, 0))?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}

fn refuse(asked: &Asked, code: ErrorCode, message: &str) {
    let sent = answering_socket(asked.to).and_then(|s| s.send_to(&packet::error(code, message), asked.from));
    if let Err(e) = sent {
        warn!("TFTP: answering {} from {}: {e}", asked.from, asked.to);
    }
}

/// The largest packet, in bytes, that the way to the client takes whole.
fn mtu_to(asked: &Asked) -> io::Result<u32> {
    let probe = answering_socket(asked.to)?;
    probe.connect(asked.from)?;
    Ok(rustix::net::sockopt::ip_mtu(&probe)?)
}

#[cfg(test)]
#[path = "service_tests.rs"]
mod tests;
