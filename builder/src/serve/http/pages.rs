//! The pages: each request becomes one question to the [`Board`], and its answer a response.
//! Must not know: connections, where answers come from.
//! Spec: docs/http-api.md; design.md sections 7, 10 and 13.
//!
//! What belongs to a node is answered to the address of that node while it boots. Everybody else gets
//! the same 404 as for a page that does not exist, whatever the reason, so that it teaches nothing.

use std::convert::Infallible;
use std::net::{IpAddr, Ipv4Addr};
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use axum::body::{Body, Bytes};
use axum::extract::{Path, RawQuery, Request, State};
use axum::http::header::{
    ACCEPT_RANGES, CACHE_CONTROL, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, HeaderMap, RANGE, RETRY_AFTER,
};
use axum::http::{Extensions, StatusCode};
use axum::middleware::{self, Next};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use futures_util::Stream;
use futures_util::stream::unfold;
use gt_netboot::content::Content;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio_util::sync::CancellationToken;

use super::super::board::{Board, Refused};
use super::super::{metrics, secrets};
use super::query;
use super::range::{Wanted, wanted};

/// The machine that a request came from.
#[derive(Debug, Clone, Copy)]
pub struct Peer(pub IpAddr);

/// Longest target: the longest of ours is a step with a detail of 300 characters, nine bytes each.
const TARGET_MAX: usize = 4096;
/// No page wants a body; a form of some clients for "none" is still let through.
const BODY_MAX: u64 = 4096;
/// Boots of each node when `?boots=` does not say.
const BOOTS: usize = 5;
/// One answer's piece of a file: large enough for one read to be cheap, small enough for a hundred
/// clients at once.
const PIECE: u64 = 256 * 1024;
/// Watchers at once, each of which costs one status at each change.
const WATCHERS: usize = 32;
/// Shortest time between two events: a boot has forty files in three seconds, and no eye follows that.
const EVENT_PAUSE: Duration = Duration::from_millis(250);
/// A comment for proxies and for us, to notice that a watcher has gone.
const KEEP_ALIVE: Duration = Duration::from_secs(15);
/// Shortest time between two log lines about refused requests: anybody can make them.
const REFUSED_PAUSE: Duration = Duration::from_secs(1);

#[derive(Clone)]
struct Api {
    board: Arc<dyn Board>,
    shutdown: CancellationToken,
    watchers: Arc<Semaphore>,
    refused: Arc<Mutex<RefusedLog>>,
}

/// All pages.
pub fn router(board: Arc<dyn Board>, shutdown: CancellationToken) -> Router {
    let watchers = Arc::new(Semaphore::new(WATCHERS));
    let api = Api { board, shutdown, watchers, refused: Arc::default() };
    Router::new()
        .route("/healthz", get(async || "ok\n"))
        .route("/status", get(status))
        .route("/events", get(events))
        .route("/metrics", get(metrics))
        .route("/boot/{node}/step", get(step).post(step))
        .route("/boot/{node}/secrets", post(node_secrets))
        .route("/boot/{node}/root.img", get(root_image))
        .fallback(async || not_found())
        .layer(middleware::from_fn(bounded))
        .with_state(api)
}

/// Refuses what is too long before any page sees it.
async fn bounded(request: Request, next: Next) -> Response {
    if request.uri().path_and_query().is_some_and(|target| target.as_str().len() > TARGET_MAX) {
        return (StatusCode::URI_TOO_LONG, "too long\n").into_response();
    }
    let length = request.headers().get(CONTENT_LENGTH).and_then(|v| v.to_str().ok()?.parse::<u64>().ok());
    if length.is_some_and(|length| length > BODY_MAX) {
        return (StatusCode::PAYLOAD_TOO_LARGE, "too large\n").into_response();
    }
    next.run(request).await
}

fn not_found() -> Response {
    (StatusCode::NOT_FOUND, "not found\n").into_response()
}

async fn status(State(api): State<Api>, RawQuery(query): RawQuery) -> Response {
    let boots = query::boots(&query.unwrap_or_default(), BOOTS);
    ([(CACHE_CONTROL, "no-store")], Json(api.board.status().with_boots(boots))).into_response()
}

async fn metrics(State(api): State<Api>) -> Response {
    match metrics::text(api.board.metrics(), &api.board.status()) {
        Ok(page) => ([(CONTENT_TYPE, metrics::CONTENT_TYPE)], page).into_response(),
        // Writing to memory does not fail; were it to, this page alone would be gone.
        Err(_) => (StatusCode::INTERNAL_SERVER_ERROR, "no metrics\n").into_response(),
    }
}

/// A status at once and after each change.
async fn events(State(api): State<Api>, RawQuery(query): RawQuery) -> Response {
    let Ok(permit) = api.watchers.clone().try_acquire_owned() else {
        let later = [(RETRY_AFTER, "10")];
        return (StatusCode::SERVICE_UNAVAILABLE, later, "too many watchers\n").into_response();
    };
    let boots = query::boots(&query.unwrap_or_default(), 1);
    let keep_alive = KeepAlive::new().interval(KEEP_ALIVE);
    Sse::new(changes(api, boots, permit)).keep_alive(keep_alive).into_response()
}

/// One watcher's stream. It ends with the server, which could not drain otherwise.
fn changes(
    api: Api,
    boots: usize,
    permit: OwnedSemaphorePermit,
) -> impl Stream<Item = Result<Event, Infallible>> {
    let mut seen = api.board.changes();
    seen.mark_changed();
    unfold((api, seen, permit, false), move |(api, mut seen, permit, begun)| async move {
        tokio::select! {
            more = changed(&mut seen, begun) => more?,
            () = api.shutdown.cancelled() => return None,
        }
        let event = Event::default().event("status");
        let event = event.json_data(api.board.status().with_boots(boots)).ok()?;
        Some((Ok(event), (api, seen, permit, true)))
    })
}

/// Waits for a change, not sooner than a pause after the last event; `None` when there will be none.
async fn changed(seen: &mut watch::Receiver<u64>, begun: bool) -> Option<()> {
    if begun {
        tokio::time::sleep(EVENT_PAUSE).await;
    }
    seen.changed().await.ok()
}

/// What all pages of a node begin with: the node's name, and the address that asks.
fn asker(path: Result<Path<String>, impl Sized>, extensions: &Extensions) -> Option<(String, Ipv4Addr)> {
    let Path(node) = path.ok()?;
    match extensions.get::<Peer>()?.0 {
        IpAddr::V4(from) => Some((node, from)),
        // Nodes are IPv4 machines: cluster.toml has no other addresses.
        IpAddr::V6(_) => None,
    }
}

type Node = Result<Path<String>, axum::extract::rejection::PathRejection>;

async fn step(
    State(api): State<Api>,
    node: Node,
    RawQuery(query): RawQuery,
    extensions: Extensions,
) -> Response {
    let Some((node, from)) = asker(node, &extensions) else { return not_found() };
    let Some(step) = query::Step::parse(&query.unwrap_or_default()) else {
        return (StatusCode::BAD_REQUEST, "bad step\n").into_response();
    };
    match api.board.step(from, &node, step.name, step.detail.as_deref()) {
        Ok(()) => "ok\n".into_response(),
        Err(why) => api.refuse("step", from, &node, why),
    }
}

async fn node_secrets(State(api): State<Api>, node: Node, extensions: Extensions) -> Response {
    let Some((node, from)) = asker(node, &extensions) else { return not_found() };
    match api.board.secrets(from, &node) {
        Ok(bytes) => {
            let kind = secrets::content_type(&bytes);
            ([(CONTENT_TYPE, kind), (CACHE_CONTROL, "no-store")], bytes).into_response()
        }
        Err(why) => api.refuse("secrets", from, &node, why),
    }
}

async fn root_image(
    State(api): State<Api>,
    node: Node,
    headers: HeaderMap,
    extensions: Extensions,
) -> Response {
    let Some((node, from)) = asker(node, &extensions) else { return not_found() };
    match api.board.ram_image(from, &node) {
        Ok(content) => file(&content, headers.get(RANGE).and_then(|value| value.to_str().ok())),
        Err(why) => api.refuse("root.img", from, &node, why),
    }
}

/// A file, or the part that is asked for. `HEAD` comes here too; axum leaves the body away.
fn file(content: &Content, range: Option<&str>) -> Response {
    let len = content.len();
    let (status, range) = match wanted(range, len) {
        Wanted::Whole => (StatusCode::OK, 0..len),
        Wanted::Part(range) => (StatusCode::PARTIAL_CONTENT, range),
        Wanted::Nothing => {
            let all = [(CONTENT_RANGE, format!("bytes */{len}"))];
            return (StatusCode::RANGE_NOT_SATISFIABLE, all).into_response();
        }
    };
    let mut response = Response::builder()
        .status(status)
        .header(CONTENT_TYPE, "application/octet-stream")
        .header(ACCEPT_RANGES, "bytes")
        .header(CONTENT_LENGTH, range.end - range.start);
    if status == StatusCode::PARTIAL_CONTENT {
        let part = format!("bytes {}-{}/{len}", range.start, range.end - 1);
        response = response.header(CONTENT_RANGE, part);
    }
    let body = Body::from_stream(pieces(content.clone(), range));
    response.body(body).unwrap_or_else(|_| StatusCode::INTERNAL_SERVER_ERROR.into_response())
}

/// The bytes of a part, read piece by piece as the connection takes them. A file that ends early ends
/// the connection, and the client sees that bytes are missing.
fn pieces(content: Content, range: Range<u64>) -> impl Stream<Item = std::io::Result<Bytes>> {
    unfold((content, range), |(content, range)| async move {
        if range.is_empty() {
            return None;
        }
        // At most `PIECE`, which is far below any `usize`.
        let size = usize::try_from((range.end - range.start).min(PIECE)).ok()?;
        let (from, start) = (content.clone(), range.start);
        let read = tokio::task::spawn_blocking(move || {
            let mut piece = vec![0; size];
            let found = from.read_at(&mut piece, start)?;
            if found == size { Ok(Bytes::from(piece)) } else { Err(std::io::ErrorKind::UnexpectedEof.into()) }
        });
        let piece = read.await.unwrap_or_else(|_| Err(std::io::ErrorKind::Other.into()));
        let next = if piece.is_ok() { start + size as u64..range.end } else { range.end..range.end };
        Some((piece, (content, next)))
    })
}

impl Api {
    /// The log has the reason, the asker has not; unless it is us who failed.
    fn refuse(&self, what: &str, from: Ipv4Addr, node: &str, why: Refused) -> Response {
        let mut log = self.refused.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(unsaid) = log.due(Instant::now()) {
            let node: String = node.chars().filter(|c| !c.is_control()).take(63).collect();
            tracing::warn!(%from, node, %why, unsaid, "refused {what}");
        }
        match why {
            Refused::Broken => (StatusCode::INTERNAL_SERVER_ERROR, "broken\n").into_response(),
            _ => not_found(),
        }
    }
}

/// When refused requests were last logged, and how many were not since.
#[derive(Debug, Default)]
struct RefusedLog {
    last: Option<Instant>,
    unsaid: u64,
}

impl RefusedLog {
    /// `Some` with the number of those that were passed over, when it is time for a line.
    fn due(&mut self, now: Instant) -> Option<u64> {
        if self.last.is_some_and(|last| now.saturating_duration_since(last) < REFUSED_PAUSE) {
            self.unsaid += 1;
            return None;
        }
        self.last = Some(now);
        Some(std::mem::take(&mut self.unsaid))
    }
}

#[cfg(test)]
pub(super) mod tests;
