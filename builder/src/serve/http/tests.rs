//! The server on loopback: foreign clients, and clients that mean harm.

use std::net::Ipv4Addr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::JoinHandle;

use super::pages::tests::Fake;
use super::*;

struct Running {
    address: SocketAddr,
    shutdown: CancellationToken,
    task: JoinHandle<()>,
}

async fn start() -> Running {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    let shutdown = CancellationToken::new();
    let task = tokio::spawn(serve(listener, Fake::new(), shutdown.clone()));
    Running { address, shutdown, task }
}

/// Sends `bytes` and reads to the end of the connection.
async fn talk(address: SocketAddr, bytes: &[u8]) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(bytes).await.unwrap();
    let mut answer = Vec::new();
    // A connection that is reset is at its end too.
    let _ = stream.read_to_end(&mut answer).await;
    String::from_utf8_lossy(&answer).into_owned()
}

#[tokio::test]
async fn curl_is_served_and_the_server_drains() {
    let server = start().await;
    let url = url(server.address);
    let fetch = tokio::task::spawn_blocking(move || {
        let curl = |args: &[&str], page: &str| {
            let out = std::process::Command::new("curl")
                .args(["-sS", "-i", "--noproxy", "*", "-m", "10"])
                .args(args)
                .arg(format!("{url}{page}"))
                .output();
            String::from_utf8(out.expect("curl is installed").stdout).unwrap()
        };
        [
            curl(&[], "/status"),
            curl(&["-X", "POST", "-d", ""], "/boot/fenn/secrets"),
            curl(&["--path-as-is"], "/boot/../boot/fenn/root.img"),
        ]
    });
    let [status, secrets, path] = fetch.await.unwrap();
    assert!(status.starts_with("HTTP/1.1 200 OK") && status.contains("\"strangers\""), "{status}");
    // Loopback is not the node's address.
    assert!(secrets.starts_with("HTTP/1.1 404") && secrets.ends_with("not found\n"), "{secrets}");
    assert!(path.starts_with("HTTP/1.1 404") && path.ends_with("not found\n"), "{path}");
    let mut watcher = TcpStream::connect(server.address).await.unwrap();
    watcher.write_all(b"GET /events HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
    let mut head = [0; 12];
    watcher.read_exact(&mut head).await.unwrap();
    assert_eq!(&head, b"HTTP/1.1 200");
    server.shutdown.cancel();
    server.task.await.unwrap();
    let mut rest = Vec::new();
    watcher.read_to_end(&mut rest).await.unwrap();
}

/// Time is stopped, and runs on only while every task waits for it: nobody sleeps here.
#[tokio::test(start_paused = true)]
async fn slow_heads_and_idle_connections_are_cut_off() {
    let server = start().await;
    for begun in
        ["", "GET /sta", "GET /status HTTP/1.1\r\nHost: x\r\nX-", "POST /healthz HTTP/1.1\r\nContent-"]
    {
        let answer = talk(server.address, begun.as_bytes()).await;
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 408"), "{begun:?}: {answer}");
    }
    let idle = talk(server.address, b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n").await;
    assert!(idle.starts_with("HTTP/1.1 200") && idle.ends_with("ok\n"), "{idle}");
    server.shutdown.cancel();
    server.task.await.unwrap();
}

#[tokio::test]
async fn large_heads_and_nonsense_are_refused() {
    let server = start().await;
    let many = format!("GET / HTTP/1.1\r\n{}\r\n", "X: y\r\n".repeat(HEADERS + 1));
    let long = format!("GET / HTTP/1.1\r\nX: {}\r\n\r\n", "y".repeat(2 * HEAD_BYTES));
    for request in [many.as_str(), &long, "\0\u{1}\u{2}\r\n\r\n", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"] {
        let answer = talk(server.address, request.as_bytes()).await;
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 4"), "{request:.40?}: {answer}");
    }
    let close = b"GET /healthz HTTP/1.1\r\nConnection: close\r\n\r\n";
    assert!(talk(server.address, close).await.ends_with("ok\n"), "the server is gone");
    server.shutdown.cancel();
    server.task.await.unwrap();
}

#[test]
fn connections_are_counted() {
    let gate = Gate::default();
    let address = |n: usize| IpAddr::from(Ipv4Addr::from_bits(0x0a09_0000 + n as u32));
    let mut own: Vec<Pass> = (0..FROM_ONE).map_while(|_| gate.admit(address(0))).collect();
    assert_eq!(own.len(), FROM_ONE);
    assert!(gate.admit(address(0)).is_none(), "one address has all it may");
    own.pop();
    assert!(gate.admit(address(0)).is_some(), "a place that was given back");
    let others: Vec<Pass> = (1..2 * CONNECTIONS).map_while(|n| gate.admit(address(n))).collect();
    assert_eq!(own.len() + others.len(), CONNECTIONS);
    drop((own, others));
    assert!(gate.0.lock().unwrap().is_empty(), "an address that left is forgotten");
}
