//! The HTTP server: connections in, bounded in number, size and time; pages are in [`pages`].
//! Must not know: what a boot is, where answers come from ([`Board`]).
//! Spec: RFC 9112 (HTTP/1.1); docs/http-api.md.
//!
//! Anybody on the network can connect, so a connection costs a known amount: at most
//! [`CONNECTIONS`] at once and [`FROM_ONE`] from one address; a request's head must be there within
//! [`HEAD_TIME`] and fit [`HEAD_BYTES`]; bodies are not read at all; and one that takes no bytes for
//! [`STALL`] is cut off by the kernel.

pub mod pages;
pub mod query;
mod range;

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::{Extension, Router};
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::board::Board;
use pages::Peer;

/// Ten nodes that boot, Prometheus and some operators need twenty; a thousand simulated nodes may
/// wait for their turn.
const CONNECTIONS: usize = 256;
/// A browser opens six to one server; a node one.
const FROM_ONE: usize = 16;
/// From the first byte of a request, or from the last answer, to the end of the next head.
const HEAD_TIME: Duration = Duration::from_secs(10);
/// Our own clients send 200 bytes, a browser 2,000; hyper takes no less than this.
const HEAD_BYTES: usize = 8192;
/// Lines of a head.
const HEADERS: usize = 64;
/// Longest that the kernel waits for an acknowledgement, or for room at the other side.
const STALL: Duration = Duration::from_secs(30);
/// At the end, how long answers on their way may take.
const DRAIN: Duration = Duration::from_secs(5);
/// After `accept` failed, which it does again at once while file descriptors are short.
const BREATH: Duration = Duration::from_millis(100);

/// Answers requests until `shutdown`, then lets those on their way end. The listener may wait already.
pub async fn serve(listener: TcpListener, board: Arc<dyn Board>, shutdown: CancellationToken) {
    let pages = pages::router(board, shutdown.clone());
    let (gate, tasks) = (Gate::default(), TaskTracker::new());
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = shutdown.cancelled() => break,
        };
        match accepted {
            Ok((stream, peer)) => {
                let peer = peer.ip().to_canonical();
                // Beyond the bound the connection is closed without a word: a word would have to wait.
                let Some(pass) = gate.admit(peer) else { continue };
                let connection = connection(stream, peer, pages.clone(), shutdown.clone());
                tasks.spawn(async move {
                    let _pass = pass;
                    connection.await;
                });
            }
            Err(error) => {
                tracing::warn!(%error, "taking an HTTP connection");
                tokio::time::sleep(BREATH).await;
            }
        }
    }
    tasks.close();
    tasks.wait().await;
}

/// Answers the requests of one connection.
async fn connection(stream: TcpStream, peer: IpAddr, pages: Router, shutdown: CancellationToken) {
    if let Err(error) = set_up(&stream) {
        tracing::debug!(%peer, %error, "setting up an HTTP connection");
    }
    let service = TowerToHyperService::new(pages.layer(Extension(Peer(peer))));
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIME)
        .max_buf_size(HEAD_BYTES)
        .max_headers(HEADERS)
        .serve_connection(TokioIo::new(stream), service);
    let mut connection = std::pin::pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = shutdown.cancelled() => {
            connection.as_mut().graceful_shutdown();
            // What is not sent by then is lost: the client asks again, with a range.
            tokio::time::timeout(DRAIN, connection).await.unwrap_or(Ok(()))
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%peer, %error, "an HTTP connection ended early");
    }
}

/// TCP_USER_TIMEOUT: bytes that nobody takes end the connection, also when the other side keeps saying
/// that it has no room (Linux 5.11 and later). Without it a client that stops to read keeps its place.
fn set_up(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let stall = u32::try_from(STALL.as_millis()).unwrap_or(u32::MAX);
    Ok(rustix::net::sockopt::set_tcp_user_timeout(stream, stall)?)
}

/// Counts connections, in all and for each address.
#[derive(Debug, Default, Clone)]
struct Gate(Arc<Mutex<HashMap<IpAddr, usize>>>);

/// One connection's place; given back when dropped.
#[derive(Debug)]
struct Pass {
    gate: Gate,
    peer: IpAddr,
}

impl Gate {
    /// A place for one more connection of `peer`, if there is one.
    fn admit(&self, peer: IpAddr) -> Option<Pass> {
        // Nothing panics while the counts are held.
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let all: usize = counts.values().sum();
        let own = counts.get(&peer).copied().unwrap_or(0);
        if all >= CONNECTIONS || own >= FROM_ONE {
            return None;
        }
        counts.insert(peer, own + 1);
        Some(Pass { gate: self.clone(), peer })
    }
}

impl Drop for Pass {
    fn drop(&mut self) {
        let mut counts = self.gate.0.lock().unwrap_or_else(PoisonError::into_inner);
        match counts.get_mut(&self.peer) {
            Some(count) if *count > 1 => *count -= 1,
            _ => _ = counts.remove(&self.peer),
        }
    }
}

/// The address to ask a server at, for messages and clients: `http://10.4.0.10:8080`.
pub fn url(address: SocketAddr) -> String {
    format!("http://{address}")
}

/// The port of the HTTP API when nothing else is said.
pub const PORT: u16 = 8080;

#[cfg(test)]
mod tests;
