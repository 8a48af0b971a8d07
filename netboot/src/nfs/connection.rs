//! One TCP connection: calls in, replies out, one after another.
//! Must not know: what the calls are about.
//! Spec: RFC 5531 section 11.
//!
//! Calls may be sent ahead; they are answered in order. While a reply waits to be sent nothing more is
//! read, so a client that does not take its answers holds one reply and no more.

use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{error::Elapsed, timeout};
use tokio_util::sync::CancellationToken;

use crate::nfs::ops::Answer;
use crate::nfs::read::{self, ReadPlan};
use crate::nfs::service::{Door, Peer, Server};
use crate::rpc::portmap::Transport;
use crate::rpc::record::{Records, mark};

/// The kernel closes a connection after 5 minutes without a call and makes a new one when it needs it:
/// it always comes first, and what is closed here belongs to a node that is gone.
const IDLE: Duration = Duration::from_secs(10 * 60);
/// Buffers for big replies are given back after this long without a call.
const QUIET: Duration = Duration::from_secs(5);
/// For the rest of a message that has begun, and for a client to take a reply.
const STALLED: Duration = Duration::from_secs(60);

pub(crate) struct Connection {
    server: Arc<Server>,
    peer: Peer,
    stream: TcpStream,
    records: Records,
    reply: Reply,
}

/// Buffers of one reply, used again and again.
#[derive(Default)]
struct Reply {
    /// Record mark, RPC header, results.
    head: Vec<u8>,
    /// Data of READ, read straight to here. It only grows, so it is zeroed once.
    data: Vec<u8>,
    /// How much of `data` belongs to this reply.
    len: usize,
    padding: usize,
}

impl Connection {
    pub fn new(server: Arc<Server>, stream: TcpStream, address: SocketAddr, door: Door) -> Connection {
        // Without it a reply waits for the acknowledgement of the one before. Only a hint if it fails.
        let _ = stream.set_nodelay(true);
        let peer = Peer { address, door, transport: Transport::Tcp, told: AtomicBool::new(false) };
        Connection { server, peer, stream, records: Records::default(), reply: Reply::default() }
    }

    /// Serves until the client goes, breaks the rules or falls silent, or shutdown.
    pub async fn run(mut self, shutdown: CancellationToken) {
        let mut input = vec![0; 8 * 1024];
        while !shutdown.is_cancelled() {
            let read = tokio::select! {
                biased;
                read = self.receive(&mut input) => read,
                () = shutdown.cancelled() => return,
            };
            let Ok(Ok(len @ 1..)) = read else { return };
            self.records.feed(&input[..len]);
            if self.answer_all().await.is_none() {
                return;
            }
        }
    }

    async fn receive(&mut self, input: &mut [u8]) -> Result<io::Result<usize>, Elapsed> {
        if !self.records.at_boundary() {
            return timeout(STALLED, self.stream.read(input)).await;
        }
        if let Ok(read) = timeout(QUIET, self.stream.read(input)).await {
            return Ok(read);
        }
        self.records.shrink();
        self.reply = Reply::default();
        timeout(IDLE, self.stream.read(input)).await
    }

    /// `None` ends the connection.
    async fn answer_all(&mut self) -> Option<()> {
        loop {
            let Some(message) = self
                .records
                .next_record()
                .map_err(|e| self.server.malformed(&self.peer, e.to_string()))
                .ok()?
            else {
                return Some(());
            };
            let reply = &mut self.reply;
            reply.begin();
            let answer = self.server.answer(&self.peer, message, &mut reply.head).ok()?;
            if let Answer::Read(plan) = answer {
                reply.read(&self.server, plan).await;
            }
            timeout(STALLED, reply.send(&mut self.stream)).await.ok()?.ok()?;
        }
    }
}

impl Reply {
    fn begin(&mut self) {
        self.head.clear();
        self.head.extend_from_slice(&mark(0));
        (self.len, self.padding) = (0, 0);
    }

    /// Reads the data of a READ: at once if the page cache has it, for a hop to another thread costs
    /// more than the copy, and on the blocking pool otherwise.
    async fn read(&mut self, server: &Arc<Server>, plan: ReadPlan) {
        if self.data.len() < plan.len {
            self.data.resize(plan.len, 0);
        }
        let done = plan.read_cached(&server.files, &mut self.data[..plan.len]);
        let mut result = Ok(());
        let plan = Arc::new(plan);
        if done < plan.len {
            let (files, mut data) = (Arc::clone(&server.files), std::mem::take(&mut self.data));
            let waiting = Arc::clone(&plan);
            let work = move || (waiting.read_waiting(&files, &mut data[..waiting.len], done), data);
            // The pool fails if an export panics: that read is an I/O error, and the rest lives on.
            let failed = |e| (Err(io::Error::other(e)), Vec::new());
            (result, self.data) = tokio::task::spawn_blocking(work).await.unwrap_or_else(failed);
        }
        read::finish(&plan, &result, &mut self.head);
        if result.is_ok() {
            (self.len, self.padding) = (plan.len, read::pad(&plan));
        }
    }

    /// One write for the whole reply, as far as the socket takes it.
    async fn send(&mut self, stream: &mut TcpStream) -> io::Result<()> {
        let body = self.head.len() - 4 + self.len + self.padding;
        self.head[..4].copy_from_slice(&mark(body));
        let parts = &mut [
            IoSlice::new(&self.head),
            IoSlice::new(&self.data[..self.len]),
            IoSlice::new(&[0; 3][..self.padding]),
        ];
        let mut rest = &mut parts[..if self.len == 0 { 1 } else { 3 }];
        while !rest.is_empty() {
            match stream.write_vectored(rest).await? {
                0 => return Err(io::ErrorKind::WriteZero.into()),
                sent => IoSlice::advance_slices(&mut rest, sent),
            }
        }
        Ok(())
    }
}
