//! An HTTP server of files on the loopback, with ranges, whose files and faults a test may change while it runs.
//! Must not know: what is tested. Spec: RFC 9110 section 14.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

/// How the server misbehaves.
#[derive(Clone, Copy, Debug, Default)]
pub enum Fault {
    /// It does not.
    #[default]
    None,
    /// So many answers end after so many bytes.
    Cut { after: usize, times: usize },
}

#[derive(Default)]
struct State {
    files: BTreeMap<String, Vec<u8>>,
    fault: Fault,
    log: Vec<(String, Option<u64>)>,
    stopped: bool,
}

/// The server; it stops when dropped.
pub struct Files {
    address: SocketAddr,
    state: Arc<Mutex<State>>,
}

impl Files {
    pub fn new(files: &[(&str, Vec<u8>)]) -> Files {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let files = files.iter().map(|(path, bytes)| ((*path).to_owned(), bytes.clone())).collect();
        let server = Files {
            address: listener.local_addr().unwrap(),
            state: Arc::new(Mutex::new(State { files, ..State::default() })),
        };
        let state = Arc::clone(&server.state);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                if state.lock().unwrap().stopped {
                    break;
                }
                let state = Arc::clone(&state);
                // A client that leaves early is its own affair.
                std::thread::spawn(move || serve(&stream.unwrap(), &state).ok());
            }
        });
        server
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://{}/{path}", self.address)
    }

    pub fn bytes(&self, path: &str) -> Vec<u8> {
        self.state.lock().unwrap().files[path].clone()
    }

    pub fn replace(&self, path: &str, bytes: Vec<u8>) {
        self.state.lock().unwrap().files.insert(path.to_owned(), bytes);
    }

    pub fn remove(&self, path: &str) {
        self.state.lock().unwrap().files.remove(path);
    }

    pub fn fault(&self, fault: Fault) {
        self.state.lock().unwrap().fault = fault;
    }

    /// Paths that were asked for, each with the offset that a range began at.
    pub fn log(&self) -> Vec<(String, Option<u64>)> {
        self.state.lock().unwrap().log.clone()
    }
}

impl Drop for Files {
    fn drop(&mut self) {
        self.state.lock().unwrap().stopped = true;
        TcpStream::connect(self.address).ok();
    }
}

fn serve(stream: &TcpStream, state: &Mutex<State>) -> std::io::Result<()> {
    let mut lines = BufReader::new(stream).lines();
    let first = lines.next().unwrap_or(Ok(String::new()))?;
    let path = first.split(' ').nth(1).unwrap_or_default().trim_start_matches('/').to_owned();
    let mut from = None;
    for line in lines {
        let line = line?.to_ascii_lowercase();
        if line.is_empty() {
            break;
        }
        if let Some(range) = line.strip_prefix("range: bytes=") {
            from = range.trim_end_matches('-').parse::<u64>().ok();
        }
    }
    let (bytes, cut) = {
        let mut state = state.lock().unwrap();
        state.log.push((path.clone(), from));
        let bytes = state.files.get(&path).cloned();
        let left = bytes.as_ref().map_or(0, Vec::len).saturating_sub(from.unwrap_or(0) as usize);
        let cut = match &mut state.fault {
            Fault::Cut { after, times } if *times > 0 && left > *after => {
                *times -= 1;
                Some(*after)
            }
            _ => None,
        };
        (bytes, cut)
    };
    let mut out = stream;
    let Some(bytes) = bytes else {
        return write!(out, "HTTP/1.1 404 x\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
    };
    let start = usize::try_from(from.unwrap_or(0)).unwrap();
    if start > bytes.len() {
        return write!(out, "HTTP/1.1 416 x\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
    }
    let (status, body) = (if from.is_some() { 206 } else { 200 }, &bytes[start..]);
    write!(out, "HTTP/1.1 {status} x\r\nContent-Length: {}\r\nConnection: close\r\n", body.len())?;
    if from.is_some() {
        write!(out, "Content-Range: bytes {start}-{}/{}\r\n", bytes.len().max(1) - 1, bytes.len())?;
    }
    write!(out, "\r\n")?;
    out.write_all(&body[..cut.unwrap_or(body.len()).min(body.len())])
}
