//! Bytes of one URL from an offset on, over http, https and file.
//! Must not know: digests, packages, retries. It says whether trying again may help.
//! Spec: RFC 9110 section 14 (ranges), RFC 8089 (file URLs).

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::time::Duration;

use ureq::tls::{Certificate, PemItem, RootCerts, TlsConfig, parse_pem};

use super::mirror::unescape;

/// Where Debian keeps the certificates that this machine trusts.
const SYSTEM_CERTIFICATES: &str = "/etc/ssl/certs/ca-certificates.crt";
/// A host that takes no connection for so long is not there: where firewalls drop packets nothing else ends
/// the waiting, and TCP's own tries (1, 2 and 4 s apart) are through by then.
const CONNECT: Duration = Duration::from_secs(10);
/// A mirror that says nothing for so long is left.
const SILENCE: Duration = Duration::from_secs(30);

/// Makes requests; keeps connections open between them. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Client {
    agent: ureq::Agent,
}

/// The body of an answer.
pub(super) struct Reply {
    /// Offset of its first byte: what was asked for, or 0 from a server without ranges.
    pub from: u64,
    /// Bytes that are to come, where the server says so.
    pub left: Option<u64>,
    /// The bytes.
    pub body: Box<dyn Read>,
}

/// Why there are no bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum NoReply {
    /// The server has no such file: 404 or 410.
    Gone,
    /// The offset is behind the file's end: 416.
    Range,
    /// Time-outs, broken connections, 5xx: may be better in a moment.
    Transient(String),
    /// The host refused the connection, as a mirror that reloads does for a moment.
    Unconnected(String),
    /// The host has no address, or no way leads to it. A resolver tries again by itself, for 10 s as a
    /// rule (resolv.conf(5): `timeout`, `attempts`), so asking again soon is of no use.
    Nowhere(String),
    /// Anything else.
    Refused(String),
}

impl Client {
    /// A client. `proxy` is the one that apt uses; without it the environment's is taken.
    pub(super) fn new(proxy: Option<&str>) -> Client {
        let mut config = ureq::Agent::config_builder()
            .http_status_as_error(false)
            // Bytes are wanted as the digest counts them, not unpacked on the way.
            .accept_encoding("identity")
            .user_agent(concat!("gt-image/", env!("CARGO_PKG_VERSION")))
            .max_idle_connections_per_host(8)
            .timeout_connect(Some(CONNECT))
            .timeout_recv_response(Some(SILENCE))
            .timeout_per_read(Some(SILENCE));
        if let Some(proxy) = proxy.and_then(|p| ureq::Proxy::new(p).ok()) {
            config = config.proxy(Some(proxy));
        }
        if let Some(roots) = system_roots() {
            config = config.tls_config(TlsConfig::builder().root_certs(roots).build());
        }
        Client { agent: config.build().new_agent() }
    }

    /// Asks for `url` from byte `from` on.
    pub(super) fn get(&self, url: &str, from: u64) -> Result<Reply, NoReply> {
        if let Some(path) = url.strip_prefix("file://") {
            return open(path, from);
        }
        let mut request = self.agent.get(url);
        if from > 0 {
            request = request.header("Range", format!("bytes={from}-"));
        }
        let response = request.call().map_err(|e| sort(&e))?;
        let status = response.status().as_u16();
        let from = match status {
            200 => 0,
            206 => range_start(&response).ok_or_else(|| {
                NoReply::Refused("an answer with a part does not say which (`Content-Range`)".into())
            })?,
            404 | 410 => return Err(NoReply::Gone),
            416 => return Err(NoReply::Range),
            // RFC 9110 and RFC 6585: these say "later", the other 4xx say "no".
            408 | 425 | 429 | 500..=599 => return Err(NoReply::Transient(format!("status {status}"))),
            _ => return Err(NoReply::Refused(format!("status {status}"))),
        };
        let left = response.body().content_length();
        Ok(Reply { from, left, body: Box::new(response.into_body().into_reader()) })
    }
}

/// `Content-Range: bytes 100-199/200` gives 100.
fn range_start<B>(response: &ureq::http::Response<B>) -> Option<u64> {
    let value = response.headers().get("content-range")?.to_str().ok()?;
    value.strip_prefix("bytes ")?.split_once('-')?.0.parse().ok()
}

fn open(path: &str, from: u64) -> Result<Reply, NoReply> {
    let path = unescape(path).ok_or_else(|| NoReply::Refused("the URL has a broken escape".into()))?;
    let mut file = File::open(path).map_err(|e| match e.kind() {
        io::ErrorKind::NotFound => NoReply::Gone,
        _ => NoReply::Refused(e.to_string()),
    })?;
    file.seek(SeekFrom::Start(from)).map_err(|e| NoReply::Refused(e.to_string()))?;
    let left = file.metadata().ok().map(|meta| meta.len().saturating_sub(from));
    Ok(Reply { from, left, body: Box::new(file) })
}

fn sort(error: &ureq::Error) -> NoReply {
    use io::ErrorKind::{ConnectionRefused, HostUnreachable, NetworkUnreachable};
    use ureq::Timeout::{Connect, Resolve};
    let text = error.to_string();
    match error {
        ureq::Error::HostNotFound | ureq::Error::Timeout(Connect | Resolve) => NoReply::Nowhere(text),
        ureq::Error::Io(e) if matches!(e.kind(), HostUnreachable | NetworkUnreachable) => {
            NoReply::Nowhere(text)
        }
        // The standard library gives getaddrinfo's errors no kind; this text is all there is.
        ureq::Error::Io(e) if e.to_string().starts_with("failed to lookup address information") => {
            NoReply::Nowhere(
                text.replace("io: failed to lookup address information", "its name has no address"),
            )
        }
        ureq::Error::Io(e) if e.kind() == ConnectionRefused => NoReply::Unconnected(text),
        ureq::Error::ConnectionFailed => NoReply::Unconnected(text),
        ureq::Error::Io(_) | ureq::Error::Timeout(_) => NoReply::Transient(text),
        _ => NoReply::Refused(text),
    }
}

/// This machine's certificates: what apt and pip trust here too. `SSL_CERT_FILE` names another file,
/// as for OpenSSL. Without any, the web's common roots are used.
fn system_roots() -> Option<RootCerts> {
    let file = std::env::var_os("SSL_CERT_FILE").unwrap_or_else(|| SYSTEM_CERTIFICATES.into());
    let pem = std::fs::read(file).ok()?;
    let certificates: Vec<Certificate<'static>> = parse_pem(&pem)
        .filter_map(|item| match item {
            Ok(PemItem::Certificate(certificate)) => Some(certificate),
            _ => None,
        })
        .collect();
    (!certificates.is_empty()).then(|| RootCerts::from(certificates))
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Server, Trick};
    use super::*;

    fn text(reply: Reply) -> String {
        let Reply { mut body, .. } = reply;
        let mut text = String::new();
        body.read_to_string(&mut text).unwrap();
        text
    }

    #[test]
    fn http_gives_bytes_from_an_offset() {
        let server = Server::new(&[("/a", b"0123456789")]);
        let client = Client::new(None);
        let url = server.url("/a");
        assert_eq!(text(client.get(&url, 0).unwrap()), "0123456789");
        let reply = client.get(&url, 7).unwrap();
        assert_eq!((reply.from, text(reply).as_str()), (7, "789"));
        assert_eq!(client.get(&url, 10).err(), Some(NoReply::Range));
        assert_eq!(client.get(&server.url("/b"), 0).err(), Some(NoReply::Gone));
    }

    #[test]
    fn odd_servers_are_told_apart() {
        let client = Client::new(None);
        for (trick, from, want) in [
            (Trick::NoRanges, 3, Ok(0)),
            (Trick::Status(503), 0, Err(NoReply::Transient("status 503".into()))),
            (Trick::Status(403), 0, Err(NoReply::Refused("status 403".into()))),
        ] {
            let server = Server::tricky(&[("/a", b"0123456789")], trick.clone());
            let got = client.get(&server.url("/a"), from).map(|r| r.from);
            assert_eq!(got, want, "{trick:?}");
        }
    }

    #[test]
    fn a_file_url_is_a_file() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("a+b c"), "0123").unwrap();
        let client = Client::new(None);
        let url = format!("file://{}/a%2bb%20c", dir.path().display());
        assert_eq!(text(client.get(&url, 2).unwrap()), "23");
        assert_eq!(client.get(&format!("{url}x"), 0).err(), Some(NoReply::Gone));
        assert!(matches!(client.get("file:///%zz", 0).err(), Some(NoReply::Refused(_))));
    }

    #[test]
    fn nobody_there_and_no_such_place_are_told_apart() {
        let client = Client::new(None);
        // Port 1 of the loopback is not listened on in any test environment.
        let error = client.get("http://127.0.0.1:1/a", 0).err();
        assert!(matches!(error, Some(NoReply::Unconnected(_))), "{error:?}");
        // RFC 6761: no resolver has this name.
        let error = client.get("http://gt-image.invalid/a", 0).err();
        let Some(NoReply::Nowhere(text)) = error else { panic!("{error:?}") };
        assert!(text.starts_with("its name has no address"), "{text}");
    }
}
