//! The pages over a board that a test holds in its hand; no sockets.

use std::io::Write;
use std::sync::Mutex;

use axum::http::Method;
use http_body_util::BodyExt;
use tower::ServiceExt;

use super::*;
use crate::serve::board::Metric;
use crate::serve::status::Status;
use crate::serve::status::tests::example;

const HOME: Ipv4Addr = Ipv4Addr::new(10, 9, 0, 15);

/// A server whose only node is `fenn` at [`HOME`], and which remembers what it was told.
pub struct Fake {
    pub steps: Mutex<Vec<(String, Option<String>)>>,
    pub refusal: Mutex<Option<Refused>>,
    pub secret: Vec<u8>,
    pub image: Vec<u8>,
    pub changes: watch::Sender<u64>,
}

impl Fake {
    pub fn new() -> Arc<Fake> {
        let image = (0..600_000u32).map(|n| (n % 251) as u8).collect();
        let (steps, refusal) = (Mutex::default(), Mutex::default());
        Arc::new(Fake { steps, refusal, secret: b"a tar".to_vec(), image, changes: watch::Sender::new(0) })
    }

    fn allow(&self, from: Ipv4Addr, node: &str) -> Result<(), Refused> {
        match (*self.refusal.lock().unwrap(), node, from) {
            (Some(why), ..) => Err(why),
            (_, "fenn", HOME) => Ok(()),
            (_, "fenn", _) => Err(Refused::Address),
            _ => Err(Refused::NoNode),
        }
    }
}

impl Board for Fake {
    fn status(&self) -> Status {
        Status { now: *self.changes.borrow(), ..example() }
    }
    fn step(&self, from: Ipv4Addr, node: &str, step: &str, detail: Option<&str>) -> Result<(), Refused> {
        self.allow(from, node)?;
        self.steps.lock().unwrap().push((step.into(), detail.map(Into::into)));
        Ok(())
    }
    fn secrets(&self, from: Ipv4Addr, node: &str) -> Result<Vec<u8>, Refused> {
        self.allow(from, node)?;
        Ok(self.secret.clone())
    }
    fn ram_image(&self, from: Ipv4Addr, node: &str) -> Result<Content, Refused> {
        self.allow(from, node)?;
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&self.image).unwrap();
        Ok(Content::new(Arc::new(file), self.image.len() as u64))
    }
    fn metrics(&self) -> Vec<Metric> {
        vec![Metric { name: "gt_x_total", help: "X", counter: true, labels: vec![], value: 1.0 }]
    }
    fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }
}

/// An answer: status, headers, body.
struct Answer {
    status: u16,
    headers: HeaderMap,
    body: Vec<u8>,
}

impl Answer {
    fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }
    fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }
}

async fn ask(board: &Arc<Fake>, method: &str, target: &str, from: &str, headers: &[(&str, &str)]) -> Answer {
    let mut request = Request::builder().method(method.parse::<Method>().unwrap()).uri(target);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let mut request = request.body(Body::empty()).unwrap();
    request.extensions_mut().insert(Peer(from.parse().unwrap()));
    let response = router(board.clone(), CancellationToken::new()).oneshot(request).await.unwrap();
    let (status, headers) = (response.status().as_u16(), response.headers().clone());
    let body = response.into_body().collect().await.unwrap().to_bytes().to_vec();
    Answer { status, headers, body }
}

#[tokio::test]
async fn anybody_may_see_status_metrics_and_health() {
    let board = Fake::new();
    let status = ask(&board, "GET", "/status?boots=1", "10.9.0.200", &[]).await;
    assert_eq!((status.status, status.header("content-type")), (200, "application/json"));
    let seen: Status = serde_json::from_slice(&status.body).unwrap();
    assert_eq!((seen.nodes.len(), seen.nodes[0].boots.len()), (2, 1));
    let all: Status =
        serde_json::from_slice(&ask(&board, "GET", "/status", "10.9.0.200", &[]).await.body).unwrap();
    assert_eq!(all.nodes[0].boots.len(), 2);
    let page = ask(&board, "GET", "/metrics", "::1", &[]).await;
    assert!(page.header("content-type").starts_with("application/openmetrics-text"), "{:?}", page.headers);
    assert!(
        page.text().contains("gt_x_total 1.0") && page.text().contains("gt_nodes 2.0"),
        "{}",
        page.text()
    );
    assert_eq!(ask(&board, "GET", "/healthz", "10.9.0.200", &[]).await.text(), "ok\n");
}

#[tokio::test]
async fn a_node_tells_its_steps() {
    let board = Fake::new();
    for (method, query) in
        [("GET", "name=init"), ("POST", "name=root&detail=nfs"), ("GET", "name=failed&why=no%20link")]
    {
        let answer = ask(&board, method, &format!("/boot/fenn/step?{query}"), "10.9.0.15", &[]).await;
        assert_eq!((answer.status, answer.text()), (200, "ok\n"), "{query}");
    }
    let told = |step: &str, detail: Option<&str>| (step.to_owned(), detail.map(str::to_owned));
    let want = [told("init", None), told("root", Some("nfs")), told("failed", Some("no link"))];
    assert_eq!(*board.steps.lock().unwrap(), want);
    let unknown = ask(&board, "GET", "/boot/fenn/step?name=dance", "10.9.0.15", &[]).await;
    assert_eq!(unknown.status, 400);
}

#[tokio::test]
async fn nobody_learns_why_there_is_nothing() {
    let board = Fake::new();
    let nothing = ask(&board, "GET", "/no/such/page", "10.9.0.15", &[]).await;
    let mut answers = Vec::new();
    for (method, page) in
        [("GET", "step?name=init"), ("POST", "secrets"), ("GET", "root.img"), ("HEAD", "root.img")]
    {
        for (node, from) in [
            ("fenn", "10.9.0.16"),
            ("fenn", "::1"),
            ("jast", "10.9.0.15"),
            ("FENN", "10.9.0.15"),
            ("fenn%00", "10.9.0.15"),
            ("%ff", "10.9.0.15"),
            ("..", "10.9.0.15"),
        ] {
            answers.push((
                method,
                format!("{node}/{page} from {from}"),
                ask(&board, method, &format!("/boot/{node}/{page}"), from, &[]).await,
            ));
        }
        for why in [Refused::NoNode, Refused::NoBoot, Refused::Again, Refused::Late, Refused::None] {
            *board.refusal.lock().unwrap() = Some(why);
            let answer = ask(&board, method, &format!("/boot/fenn/{page}"), "10.9.0.15", &[]).await;
            answers.push((method, format!("{page}: {why}"), answer));
        }
        *board.refusal.lock().unwrap() = None;
    }
    for (method, what, answer) in answers {
        assert_eq!(answer.status, 404, "{method} {what}");
        let body: &[u8] = if method == "HEAD" { b"" } else { &nothing.body };
        assert_eq!(answer.body, body, "{method} {what}");
        assert_eq!(answer.headers, nothing.headers, "{method} {what}");
    }
    assert!(board.steps.lock().unwrap().is_empty());
}

#[tokio::test]
async fn our_own_fault_is_no_404() {
    let board = Fake::new();
    *board.refusal.lock().unwrap() = Some(Refused::Broken);
    assert_eq!(ask(&board, "POST", "/boot/fenn/secrets", "10.9.0.15", &[]).await.status, 500);
}

#[tokio::test]
async fn secrets_say_what_they_are_and_are_not_kept() {
    let mut board = Fake::new();
    let plain = ask(&board, "POST", "/boot/fenn/secrets", "10.9.0.15", &[]).await;
    assert_eq!((plain.status, plain.text()), (200, "a tar"));
    assert_eq!(
        (plain.header("content-type"), plain.header("cache-control")),
        ("application/x-tar", "no-store")
    );
    Arc::get_mut(&mut board).unwrap().secret = b"age-encryption.org/v1\n-> X25519".to_vec();
    let sealed = ask(&board, "POST", "/boot/fenn/secrets", "10.9.0.15", &[]).await;
    assert_eq!(sealed.header("content-type"), "application/x-age");
    // Nothing that fetches ahead may take the one turn.
    for method in ["GET", "HEAD", "PUT"] {
        assert_eq!(ask(&board, method, "/boot/fenn/secrets", "10.9.0.15", &[]).await.status, 405, "{method}");
    }
}

#[tokio::test]
async fn images_come_whole_in_parts_and_not_at_all() {
    let board = Fake::new();
    let len = board.image.len();
    for (range, status, want) in [
        ("", 200, 0..len),
        ("bytes=0-0", 206, 0..1),
        ("bytes=262143-262144", 206, 262_143..262_145),
        ("bytes=599999-", 206, 599_999..len),
        ("bytes=-300001", 206, len - 300_001..len),
        ("bytes=0-1,3-4", 200, 0..len),
    ] {
        let headers: &[(&str, &str)] = if range.is_empty() { &[] } else { &[("range", range)] };
        let part = ask(&board, "GET", "/boot/fenn/root.img", "10.9.0.15", headers).await;
        assert_eq!(part.status, status, "{range}");
        assert!(part.body == board.image[want.clone()], "{range}: other bytes");
        assert_eq!(part.header("content-length"), want.len().to_string(), "{range}");
        let place = format!("bytes {}-{}/{len}", want.start, want.end - 1);
        assert_eq!(part.header("content-range"), if status == 206 { &place } else { "" }, "{range}");
    }
    let head = ask(&board, "HEAD", "/boot/fenn/root.img", "10.9.0.15", &[]).await;
    assert_eq!((head.status, head.header("content-length"), head.body.len()), (200, "600000", 0));
    let beyond = ask(&board, "GET", "/boot/fenn/root.img", "10.9.0.15", &[("range", "bytes=600000-")]).await;
    assert_eq!((beyond.status, beyond.header("content-range")), (416, "bytes */600000"));
}

#[tokio::test]
async fn a_file_that_ends_early_is_an_error_and_not_a_short_file() {
    let content = Content::new(Arc::new(tempfile::tempfile().unwrap()), 10);
    assert!(file(&content, None).into_body().collect().await.is_err());
}

#[tokio::test]
async fn what_is_too_long_is_refused() {
    let board = Fake::new();
    let long = format!("/status?{}", "x".repeat(TARGET_MAX));
    assert_eq!(ask(&board, "GET", &long, "10.9.0.15", &[]).await.status, 414);
    let body = [("content-length", "5000")];
    assert_eq!(ask(&board, "POST", "/boot/fenn/secrets", "10.9.0.15", &body).await.status, 413);
    assert_eq!(ask(&board, "POST", "/healthz", "10.9.0.15", &[]).await.status, 405);
}

/// The next event of a stream, without its frame.
async fn next(body: &mut Body) -> Option<Status> {
    let frame = body.frame().await?.unwrap().into_data().unwrap();
    let text = std::str::from_utf8(&frame).unwrap();
    let data = text.strip_prefix("event: status\ndata: ").unwrap_or_else(|| panic!("{text}"));
    Some(serde_json::from_str(data.trim_end()).unwrap())
}

#[tokio::test(start_paused = true)]
async fn watchers_see_each_change_until_the_server_ends() {
    let board = Fake::new();
    let shutdown = CancellationToken::new();
    let request = Request::builder().uri("/events").body(Body::empty()).unwrap();
    let response = router(board.clone(), shutdown.clone()).oneshot(request).await.unwrap();
    assert_eq!(response.headers()["content-type"], "text/event-stream");
    let mut body = response.into_body();
    assert_eq!(next(&mut body).await.unwrap().now, 0);
    board.changes.send_replace(1);
    assert_eq!(next(&mut body).await.unwrap().now, 1);
    // Changes that come quicker than events are one event with the last of them.
    board.changes.send_replace(2);
    board.changes.send_replace(3);
    assert_eq!(next(&mut body).await.unwrap().now, 3);
    shutdown.cancel();
    assert!(next(&mut body).await.is_none());
}

#[tokio::test]
async fn watchers_are_few() {
    let board = Fake::new();
    let pages = router(board, CancellationToken::new());
    let watch = || pages.clone().oneshot(Request::builder().uri("/events").body(Body::empty()).unwrap());
    let mut open = Vec::new();
    for _ in 0..WATCHERS {
        open.push(watch().await.unwrap());
    }
    assert_eq!(watch().await.unwrap().status(), 503);
    open.pop();
    assert_eq!(watch().await.unwrap().status(), 200);
}

#[test]
fn refused_requests_do_not_fill_the_log() {
    let (mut log, now) = (RefusedLog::default(), Instant::now());
    assert_eq!(log.due(now), Some(0));
    assert_eq!(log.due(now), None);
    assert_eq!(log.due(now + REFUSED_PAUSE / 2), None);
    assert_eq!(log.due(now + REFUSED_PAUSE), Some(2));
}
