//! The thread that runs live transfers: it waits for any of their sockets and serves those that are ready.
//! Must not know: the well-known port, who may read what.
//! Spec: none; the measurements below.
//!
//! Lock step is one packet in, one packet out, so what counts is system calls and wake-ups a block. A task
//! on tokio pays recv, send, a recv that finds nothing, and a wait, each block; here the epoll is
//! level-triggered, so the empty recv falls away, and with ten clients one wait serves several. A
//! blocking thread for each transfer, as in the crate `tftpd`, saves the wait too, but switches threads each
//! block. Ten clients, 100 MB in all, blksize 1468, two cores that others used too, the better of two runs of
//! `benches/tftp.rs`:
//!
//! | | MB/s | processor seconds |
//! |---|---|---|
//! | this, one worker | 128 | 0.36 |
//! | this, two workers | 130 | 0.44 |
//! | `tftpd` 1.0, a thread each | 91 | 0.62 |
//! | dnsmasq 2.90, one poll loop | 121 | 0.43 |
//!
//! 0.36 s are 5 µs a block, nearly all of it the kernel's. Connected sockets were tried (0.32 and 0.37 s) and
//! left: the kernel then answers foreign ports by itself, and ERROR 5 is lost. A wait without a timeout was
//! tried too and changed nothing that could be told from noise.

use std::collections::HashMap;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use rustix::event::{EventfdFlags, Timespec, epoll, eventfd};
use tokio::runtime::Handle;
use tokio::sync::{mpsc as later, oneshot};

use super::Host;
use super::live::{Buffers, End, Flow, Granted, Live};
use super::service::Asked;
use super::source::{Chunk, Load};
use super::table::{Id, Table};

/// The mailbox's place among the ids of transfers, which begin at 1.
const MAILBOX: Id = 0;

/// Sockets looked at in one go. With more ready ones the rest come next.
const BATCH: usize = 64;

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
        buffers: Buffers::default(),
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
    live: HashMap<Id, Live>,
    buffers: Buffers,
    /// No deadline is earlier. It is not moved when deadlines move on with every packet, so timers
    /// cost one look at all transfers a second, and nothing a block.
    next_check: Option<Instant>,
    drain_until: Option<Instant>,
    /// The last sleep was shorter than [`PROMPT`].
    prompt: bool,
}

impl Worker {
    fn run(mut self) {
        let mut ready = Vec::with_capacity(BATCH);
        loop {
            let now = Instant::now();
            if self.next_check.is_some_and(|at| at <= now) {
                self.check_deadlines(now);
            }
            if let Some(until) = self.drain_until
                && (self.live.is_empty() || until <= now)
            {
                return self.abort_all();
            }
            self.wait(&mut ready, now);
            let now = Instant::now();
            for event in &ready {
                match event.data.u64() {
                    MAILBOX => self.read_mail(now),
                    id => drop(self.receive(id, now)),
                }
            }
        }
    }

    /// Waits until something is ready. While clients have been answering within [`PROMPT`], it looks for
    /// that long before it sleeps: to wake a sleeping thread costs more than a block does.
    fn wait(&mut self, ready: &mut Vec<epoll::Event>, now: Instant) {
        ready.clear();
        let poll = |ready: &mut Vec<epoll::Event>, wait: Option<&Timespec>| {
            // The one error of a good epoll is a signal; then nothing is ready.
            let _ = epoll::wait(&self.epoll, rustix::buffer::spare_capacity(ready), wait);
        };
        if self.prompt && !self.live.is_empty() {
            while ready.is_empty() && now.elapsed() < PROMPT {
                poll(ready, Some(&Timespec { tv_sec: 0, tv_nsec: 0 }));
            }
            if !ready.is_empty() {
                return;
            }
        }
        let wait = self.next_check.into_iter().chain(self.drain_until).min();
        let wait = wait.map(|at| timespec(at.saturating_duration_since(now)));
        let asleep = Instant::now();
        poll(ready, wait.as_ref());
        self.prompt = asleep.elapsed() < PROMPT;
    }

    /// Takes one packet of a transfer. One a turn is right for lock step and spares the call that
    /// would say that there is no second one. `None`: there was none, or there is no such transfer.
    fn receive(&mut self, id: Id, now: Instant) -> Option<()> {
        let flow = self.live.get_mut(&id)?.receive(&mut self.buffers, now)?;
        self.follow(id, flow);
        Some(())
    }

    fn read_mail(&mut self, now: Instant) {
        let mut counter = [0; 8];
        let _ = rustix::io::read(&*self.mailbox.wake, &mut counter);
        while let Ok(message) = self.inbox.try_recv() {
            match message {
                Message::Start(granted) => self.start(*granted, now),
                Message::Repeat(id, asked) => self.repeat(id, asked, now),
                Message::Cancel(id) => {
                    // Its last acknowledgement may have come just before.
                    while self.receive(id, now).is_some() {}
                    if self.live.contains_key(&id) {
                        self.end(id, End::Outcome(super::transfer::Outcome::Stopped));
                    }
                }
                Message::Loaded(id, chunk) => {
                    if let Some(live) = self.live.get_mut(&id) {
                        let flow = live.loaded(chunk, &mut self.buffers, now);
                        self.follow(id, flow);
                    }
                }
                Message::Drain(until) => self.drain_until = Some(until),
            }
        }
    }

    fn start(&mut self, granted: Granted, now: Instant) {
        let id = granted.id;
        if !self.shared.table.is_current(granted.client, id) {
            return; // Replaced while its file was opened.
        }
        let (live, flow) = Live::start(granted, &mut self.buffers, now);
        let data = epoll::EventData::new_u64(id);
        let added = epoll::add(&self.epoll, live.socket(), data, epoll::EventFlags::IN);
        self.live.insert(id, live);
        match added {
            Ok(()) => self.follow(id, flow),
            Err(e) => self.end(id, End::Failed(format!("waiting for the socket: {e}"))),
        }
    }

    fn repeat(&mut self, id: Id, asked: Asked, now: Instant) {
        // An ERROR that ends the transfer may have come just before: then this request is a new one.
        while self.receive(id, now).is_some() {}
        if let Some(live) = self.live.get_mut(&id) {
            let flow = live.repeated(&mut self.buffers, now);
            self.follow(id, flow);
        }
        if !self.shared.table.is_current(asked.from, id) {
            let _ = self.shared.again.send(asked);
        }
    }

    fn follow(&mut self, id: Id, flow: Flow) {
        match flow {
            Flow::End(end) => return self.end(id, end),
            Flow::Load(load) => self.load(id, load),
            Flow::Idle => {}
        }
        if let Some(deadline) = self.live.get(&id).and_then(Live::deadline) {
            self.next_check = Some(self.next_check.map_or(deadline, |at| at.min(deadline)));
        }
    }

    fn load(&self, id: Id, load: Load) {
        let mailbox = self.mailbox.clone();
        self.shared.runtime.spawn_blocking(move || mailbox.send(Message::Loaded(id, load.run())));
    }

    fn end(&mut self, id: Id, end: End) {
        // The socket closes with it, which takes it out of the epoll too.
        if let Some(live) = self.live.remove(&id) {
            if let End::Failed(reason) = &end {
                live.abort(reason);
            }
            self.shared.table.remove(live.client(), id);
            self.shared.host.event(live.event(end));
        }
    }

    fn check_deadlines(&mut self, now: Instant) {
        self.next_check = None;
        let ids: Vec<Id> = self.live.keys().copied().collect();
        for id in ids {
            if let Some(live) = self.live.get_mut(&id)
                && live.deadline().is_some()
            {
                let flow = live.tick(&mut self.buffers, now);
                self.follow(id, flow);
            }
        }
    }

    /// A client that is told fails now and asks again; one that is not waits for its own timeout.
    fn abort_all(mut self) {
        let ids: Vec<Id> = self.live.keys().copied().collect();
        for id in ids {
            self.end(id, End::Failed("the server is stopping".into()));
        }
    }
}

/// Rounded up by one nanosecond, so that the deadline has passed at the wake-up.
fn timespec(wait: Duration) -> Timespec {
    let wait = wait + Duration::from_nanos(1);
    let secs = wait.as_secs().try_into().unwrap_or(i64::MAX);
    Timespec { tv_sec: secs, tv_nsec: wait.subsec_nanos().into() }
}
