//! The thread that runs live transfers: it waits for any of their sockets and serves those that are ready.
//! Must not know: the well-known port, who may read what.
//! Spec: none; the measurements below.
//!
//! Lock step is one packet in, one packet out, so what counts is system calls and wake-ups a block. Clients
//! share ports, so that one call takes what many have said; and while clients are prompt, nobody sleeps.
//! A task on tokio pays recv, send, a recv that finds nothing, and a wait, each block; a blocking thread
//! for each transfer, as in the crate `tftpd`, switches threads each block. `benches/tftp.rs` measures it.

use std::collections::HashMap;
use std::io;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::fd::OwnedFd;
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use rustix::event::{EventfdFlags, Timespec, epoll, eventfd};
use tokio::runtime::Handle;
use tokio::sync::{mpsc as later, oneshot};
use tracing::warn;

use super::Host;
use super::live::{End, Flow, Granted, Live, Out};
use super::packet::{self, ErrorCode, Packet};
use super::port::{Incoming, Outgoing, Port};
use super::service::Asked;
use super::source::{Chunk, Load};
use super::table::{Id, Table};

/// The mailbox's name in the epoll; ports are named by their place in the list.
const MAILBOX: u64 = u64::MAX;

/// Sockets looked at in one go. With more ready ones the rest come next.
const READY: usize = 16;

/// Ports for each address of ours. A client's transfers take turns at them, so that a packet that the
/// network brings late, of a transfer that is over, does not reach the client's next one.
const PORTS: usize = 4;

/// Batches of a port that are taken in one go before others have their turn.
const TURNS: usize = 4;

/// How quick a client must be to be waited for awake.
const PROMPT: Duration = Duration::from_micros(60);

/// What a worker is told.
#[derive(Debug)]
pub enum Message {
    /// Begin.
    Start(Box<Granted>),
    /// The request of this transfer came once more.
    Repeat(Id, Asked),
    /// The client has left this transfer.
    Cancel(Id),
    /// Bytes of a file are there.
    Loaded(Id, io::Result<Chunk>),
    /// Finish what is under way until then, and end.
    Drain(Instant),
}

/// Where to send [`Message`]s.
#[derive(Clone, Debug)]
pub struct Mailbox {
    messages: mpsc::Sender<Message>,
    wake: Arc<OwnedFd>,
}

impl Mailbox {
    /// Sends, and wakes the worker. One that has ended takes no more messages, nor needs any.
    pub fn send(&self, message: Message) {
        if self.messages.send(message).is_ok() {
            // Fails only when the counter is full, and then the worker is about to wake anyway.
            let _ = rustix::io::write(&*self.wake, &1u64.to_ne_bytes());
        }
    }
}

/// What workers share with the service.
#[derive(Clone)]
pub struct Shared {
    /// Who is told what was seen.
    pub host: Arc<dyn Host>,
    /// The live transfers.
    pub table: Arc<Table>,
    /// Where waiting reads are run.
    pub runtime: Handle,
    /// Requests that turned out to be new ones.
    pub again: later::UnboundedSender<Asked>,
}

/// Starts a worker; the receiver hears when it has ended.
///
/// # Errors
/// Those of making an epoll, an eventfd and a thread.
pub fn spawn(shared: Shared) -> io::Result<(Mailbox, oneshot::Receiver<()>)> {
    let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
    let wake = Arc::new(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?);
    epoll::add(&epoll, &*wake, epoll::EventData::new_u64(MAILBOX), epoll::EventFlags::IN)?;
    let (messages, inbox) = mpsc::channel();
    let mailbox = Mailbox { messages, wake };
    let (ended, end) = oneshot::channel();
    let worker = Worker {
        shared,
        epoll,
        inbox,
        mailbox: mailbox.clone(),
        live: HashMap::new(),
        ports: Vec::new(),
        places: HashMap::new(),
        turns: HashMap::new(),
        next_check: None,
        drain_until: None,
        prompt: false,
    };
    thread::Builder::new().name("tftp".into()).spawn(move || {
        worker.run();
        drop(ended);
    })?;
    Ok((mailbox, end))
}

struct Worker {
    shared: Shared,
    epoll: OwnedFd,
    inbox: mpsc::Receiver<Message>,
    mailbox: Mailbox,
    live: HashMap<Id, (Live, usize)>,
    ports: Vec<Port>,
    /// Where an address of ours has its [`PORTS`] in the list.
    places: HashMap<Ipv4Addr, Vec<usize>>,
    /// How many transfers an address has had. Only nodes have transfers, so it is no longer than the site.
    turns: HashMap<Ipv4Addr, usize>,
    /// No deadline is earlier. It is not moved when deadlines move on with every packet, so timers
    /// cost one look at all transfers a second, and nothing a block.
    next_check: Option<Instant>,
    drain_until: Option<Instant>,
    /// The last sleep was shorter than [`PROMPT`].
    prompt: bool,
}

/// Packets on their way. They stay in the thread: the kernel is given their addresses.
struct Packets {
    incoming: Incoming,
    outgoing: Outgoing,
}

impl Worker {
    fn run(mut self) {
        let mut packets = Packets { incoming: Incoming::new(), outgoing: Outgoing::new() };
        let mut ready = Vec::with_capacity(READY);
        loop {
            let now = Instant::now();
            if self.next_check.is_some_and(|at| at <= now) {
                self.check_deadlines(&mut packets, now);
            }
            if let Some(until) = self.drain_until
                && (self.live.is_empty() || until <= now)
            {
                return self.abort_all(&mut packets);
            }
            if self.prompt && self.look(&mut packets, now) {
                continue;
            }
            self.sleep(&mut ready, now);
            let now = Instant::now();
            for event in &ready {
                match event.data.u64() {
                    MAILBOX => {
                        let _ = rustix::io::read(&*self.mailbox.wake, &mut [0; 8]);
                    }
                    place => _ = self.receive(place as usize, &mut packets, now),
                }
            }
            self.read_mail(&mut packets, now);
        }
    }

    /// Looks for packets without sleeping, [`PROMPT`] long at most: to wake a sleeping thread costs more than
    /// a block does. True if there was something.
    fn look(&mut self, packets: &mut Packets, begun: Instant) -> bool {
        let mut now = begun;
        while !self.live.is_empty() && now - begun < PROMPT {
            let mut found = self.read_mail(packets, now);
            for place in 0..self.ports.len() {
                if !self.ports[place].by_client.is_empty() {
                    found |= self.receive(place, packets, now) > 0;
                }
            }
            if found {
                return true;
            }
            now = Instant::now();
        }
        false
    }

    /// Sleeps until something is ready or due.
    fn sleep(&mut self, ready: &mut Vec<epoll::Event>, now: Instant) {
        ready.clear();
        let until = self.next_check.into_iter().chain(self.drain_until).min();
        let wait = until.map(|at| timespec(at.saturating_duration_since(now)));
        // The one error of a good epoll is a signal; then nothing is ready.
        let _ = epoll::wait(&self.epoll, rustix::buffer::spare_capacity(ready), wait.as_ref());
        self.prompt = now.elapsed() < PROMPT;
    }

    /// Takes one batch of a port's packets, and answers them; gives their number.
    fn receive(&mut self, place: usize, packets: &mut Packets, now: Instant) -> usize {
        let Packets { incoming, outgoing } = packets;
        let Some(port) = self.ports.get(place) else { return 0 };
        let count = incoming.receive(port);
        for (from, datagram) in incoming.packets() {
            let port = &self.ports[place];
            let packet = Packet::parse(datagram);
            match (port.by_client.get(&from).copied(), packet) {
                (Some(id), Ok(packet)) => {
                    let Some((live, _)) = self.live.get_mut(&id) else { continue };
                    let flow = live.packet(&packet, &mut Out { port, outgoing }, now);
                    self.follow(id, flow, outgoing);
                }
                // RFC 1350 section 4: the stranger is told, the transfer goes on. An ERROR is not
                // answered, or two servers could keep each other busy for ever.
                (None, packet) if !matches!(packet, Ok(Packet::Error { .. })) && !port.knew(from) => {
                    let answer = packet::error(ErrorCode::UNKNOWN_TID, "Unknown transfer ID");
                    outgoing.push(port, from, [&answer, &[]]);
                }
                _ => {}
            }
        }
        outgoing.send(&self.ports[place]);
        count
    }

    /// True if there was some.
    fn read_mail(&mut self, packets: &mut Packets, now: Instant) -> bool {
        let mut some = false;
        while let Ok(message) = self.inbox.try_recv() {
            some = true;
            match message {
                Message::Start(granted) => self.start(*granted, packets, now),
                Message::Repeat(id, asked) => self.repeat(id, asked, packets, now),
                Message::Cancel(id) => {
                    // Its last acknowledgement may have come just before.
                    self.catch_up(id, packets, now);
                    if self.live.contains_key(&id) {
                        let end = End::Outcome(super::transfer::Outcome::Stopped);
                        self.end(id, end, &mut packets.outgoing);
                    }
                }
                Message::Loaded(id, chunk) => {
                    self.with(id, packets, |live, out| live.loaded(chunk, out, now));
                }
                Message::Drain(until) => self.drain_until = Some(until),
            }
        }
        some
    }

    fn start(&mut self, granted: Granted, packets: &mut Packets, now: Instant) {
        let (id, client) = (granted.id, granted.client);
        if !self.shared.table.is_current(client, id) {
            return; // Replaced while its file was opened.
        }
        let place = match self.place(granted.local, client) {
            Ok(place) => place,
            Err(e) => {
                // Out of descriptors, or the address has gone: the client asks again.
                warn!("TFTP: a port on {} for {client}: {e}", granted.local);
                return self.shared.table.remove(client, id);
            }
        };
        let port = &mut self.ports[place];
        port.by_client.insert(client, id);
        let mut out = Out { port, outgoing: &mut packets.outgoing };
        let (live, flow) = Live::start(granted, &mut out, now);
        self.live.insert(id, (live, place));
        self.follow(id, flow, &mut packets.outgoing);
        packets.outgoing.send(&self.ports[place]);
    }

    /// The port that is next for this client.
    fn place(&mut self, local: Ipv4Addr, client: SocketAddrV4) -> io::Result<usize> {
        let turn = self.turns.entry(*client.ip()).or_default();
        *turn = turn.wrapping_add(1);
        let places = self.places.entry(local).or_default();
        if let Some(place) = places.get(*turn % PORTS) {
            return Ok(*place);
        }
        let (port, place) = (Port::open(local)?, self.ports.len());
        epoll::add(
            &self.epoll,
            port.socket(),
            epoll::EventData::new_u64(place as u64),
            epoll::EventFlags::IN,
        )?;
        self.ports.push(port);
        places.push(place);
        Ok(place)
    }

    fn repeat(&mut self, id: Id, asked: Asked, packets: &mut Packets, now: Instant) {
        // An ERROR that ends the transfer may have come just before: then this request is a new one.
        self.catch_up(id, packets, now);
        self.with(id, packets, |live, out| live.repeated(out, now));
        if !self.shared.table.is_current(asked.from, id) {
            let _ = self.shared.again.send(asked);
        }
    }

    /// Takes what has come for a transfer before the message that is at hand.
    fn catch_up(&mut self, id: Id, packets: &mut Packets, now: Instant) {
        let Some(place) = self.live.get(&id).map(|(_, place)| *place) else { return };
        for _ in 0..TURNS {
            if self.receive(place, packets, now) == 0 {
                return;
            }
        }
    }

    /// Has a transfer do something, and sends what comes of it.
    fn with(&mut self, id: Id, packets: &mut Packets, work: impl FnOnce(&mut Live, &mut Out<'_>) -> Flow) {
        let Some((live, place)) = self.live.get_mut(&id) else { return };
        let place = *place;
        let flow = work(live, &mut Out { port: &self.ports[place], outgoing: &mut packets.outgoing });
        self.follow(id, flow, &mut packets.outgoing);
        packets.outgoing.send(&self.ports[place]);
    }

    fn follow(&mut self, id: Id, flow: Flow, outgoing: &mut Outgoing) {
        match flow {
            Flow::End(end) => return self.end(id, end, outgoing),
            Flow::Load(load) => self.load(id, load),
            Flow::Idle => {}
        }
        if let Some(deadline) = self.live.get(&id).and_then(|(live, _)| live.deadline()) {
            self.next_check = Some(self.next_check.map_or(deadline, |at| at.min(deadline)));
        }
    }

    fn load(&self, id: Id, load: Load) {
        let mailbox = self.mailbox.clone();
        self.shared.runtime.spawn_blocking(move || mailbox.send(Message::Loaded(id, load.run())));
    }

    fn end(&mut self, id: Id, end: End, outgoing: &mut Outgoing) {
        let Some((live, place)) = self.live.remove(&id) else { return };
        let port = &mut self.ports[place];
        port.end(live.client(), id);
        if let End::Failed(reason) = &end {
            live.abort(reason, &mut Out { port, outgoing });
        }
        self.shared.table.remove(live.client(), id);
        self.shared.host.event(live.event(end));
    }

    fn check_deadlines(&mut self, packets: &mut Packets, now: Instant) {
        self.next_check = None;
        let ids: Vec<Id> = self.live.keys().copied().collect();
        for id in ids {
            if self.live.get(&id).is_some_and(|(live, _)| live.deadline().is_some()) {
                self.with(id, packets, |live, out| live.tick(out, now));
            }
        }
    }

    /// A client that is told fails now and asks again; one that is not waits for its own timeout.
    fn abort_all(mut self, packets: &mut Packets) {
        let all: Vec<(Id, usize)> = self.live.iter().map(|(id, (_, place))| (*id, *place)).collect();
        for (id, place) in all {
            self.end(id, End::Failed("the server is stopping".into()), &mut packets.outgoing);
            packets.outgoing.send(&self.ports[place]);
        }
    }
}

/// Rounded up by one nanosecond, so that the deadline has passed at the wake-up.
fn timespec(wait: Duration) -> Timespec {
    let wait = wait + Duration::from_nanos(1);
    let secs = wait.as_secs().try_into().unwrap_or(i64::MAX);
    Timespec { tv_sec: secs, tv_nsec: wait.subsec_nanos().into() }
}
