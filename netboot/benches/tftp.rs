//! TFTP side by side: our server, the crate `tftpd` 1.0 and dnsmasq, with one and the same client.
//! Must not know: how any of them works.
//! Spec: the bars of docs/performance.md: as fast as `tftpd` and twice dnsmasq with one client, twice dnsmasq's
//! aggregate and less processor time a megabyte with ten.
//!
//! `cargo bench -p gt-netboot --bench tftp` needs `unshare` (for port 69 without privilege) and takes two
//! minutes; a part of a title behind `--` chooses some of the works. Peers that cannot be had are named and left out. All servers read the same file from the page
//! cache; the servers take turns, and the best of the rounds counts, for noise only ever adds time.

mod common;

use std::fs::{self, File};
use std::io;
use std::net::{Ipv4Addr, SocketAddrV4, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use common::{Result, Running, which};
use gt_netboot::content::Content;
use gt_netboot::site::{Mac, Node, Serial, Site};
use gt_netboot::tftp::{self, Config, Event, Host};
use tokio_util::sync::CancellationToken;

/// Ten of these make the same total as one file of 100 MB.
const LEN: usize = 100_000_000;
const ROUNDS: usize = 3;

fn main() -> Result<()> {
    let args: Vec<String> = std::env::args().collect();
    if let [_, verb, root] = &args[..]
        && verb == "serve"
    {
        return serve(Path::new(root));
    }
    if !common::inside(&tftpd_folder())? {
        return Ok(());
    }
    let only = args.get(1).filter(|arg| !arg.starts_with('-')).map_or("", String::as_str);
    compare(only)
}

/// One line of the table.
struct Work {
    title: &'static str,
    clients: usize,
    blksize: u16,
    file: &'static str,
    len: usize,
}

/// Does the works whose title has `only` in it.
fn compare(only: &str) -> Result<()> {
    let root = Scratch::new()?;
    let bytes: Vec<u8> = (0..LEN).map(|i| (i ^ (i >> 9)) as u8).collect();
    fs::write(root.0.join("large"), &bytes)?;
    fs::write(root.0.join("tenth"), &bytes[..LEN / 10])?;
    let works = [
        Work { title: "1 client, blksize 1428", clients: 1, blksize: 1428, file: "large", len: LEN },
        Work { title: "1 client, blksize 1468", clients: 1, blksize: 1468, file: "large", len: LEN },
        Work { title: "1 client, blksize 1024", clients: 1, blksize: 1024, file: "large", len: LEN },
        Work { title: "10 clients, blksize 1468", clients: 10, blksize: 1468, file: "tenth", len: LEN / 10 },
        Work { title: "10 clients, blksize 1024", clients: 10, blksize: 1024, file: "tenth", len: LEN / 10 },
    ];
    let servers = Server::all(&root.0);
    println!("{:<28} {:<10} {:>8} {:>16} {:>10}", "work", "server", "MB/s", "CPU s a 100 MB", "ours is");
    for work in works.into_iter().filter(|work| work.title.contains(only)) {
        let run = |server: &Server| server.measure(|port| download(&work, port, &bytes[..work.len]));
        report(work.title, &servers, run)?;
    }
    let title = "curl, blksize 1428";
    if title.contains(only) {
        report(title, &servers, |server| server.measure(|port| curl(port, &bytes)))?;
    }
    Ok(())
}

/// Seconds, and seconds of the server's processor time.
#[derive(Clone, Copy)]
struct Figures {
    wall: f64,
    cpu: f64,
}

fn report(title: &str, servers: &[Server], run: impl Fn(&Server) -> Result<Figures>) -> Result<()> {
    let mut best = vec![Figures { wall: f64::INFINITY, cpu: f64::INFINITY }; servers.len()];
    for _ in 0..ROUNDS {
        for (server, best) in servers.iter().zip(&mut best) {
            let found = run(server)?;
            *best = Figures { wall: best.wall.min(found.wall), cpu: best.cpu.min(found.cpu) };
        }
    }
    for (server, found) in servers.iter().zip(&best) {
        let rate = LEN as f64 / 1e6 / found.wall;
        let ratio = found.wall / best[0].wall;
        println!("{title:<28} {:<10} {rate:>8.1} {:>16.2} {ratio:>8.2} x", server.name, found.cpu);
    }
    Ok(())
}

/// A server that can be started.
struct Server {
    name: &'static str,
    port: u16,
    program: PathBuf,
    args: Vec<String>,
}

impl Server {
    /// Ours first.
    fn all(root: &Path) -> Vec<Server> {
        let dir = root.display();
        let mut all = Vec::new();
        if let Ok(program) = std::env::current_exe() {
            all.push(Server {
                name: "gt-image",
                port: 6900,
                program,
                args: vec!["serve".into(), dir.to_string()],
            });
        }
        match which("tftpd") {
            Some(program) => {
                let args = format!("-i 127.0.0.1 -p 6901 -r -d {dir}");
                let args = args.split(' ').map(String::from).collect();
                all.push(Server { name: "tftpd", port: 6901, program, args });
            }
            None => println!("not run: tftpd: not on PATH, and cargo cannot install it"),
        }
        match which("dnsmasq") {
            Some(program) => {
                let args = format!(
                    "--no-daemon --conf-file=/dev/null --port=0 --pid-file= --user=root \
                     --listen-address=127.0.0.1 --bind-interfaces --enable-tftp --tftp-root={dir} --quiet-tftp"
                );
                let args = args.split(' ').map(String::from).collect();
                all.push(Server { name: "dnsmasq", port: 69, program, args });
            }
            None => println!("not run: dnsmasq: not on PATH"),
        }
        all
    }

    fn measure(&self, work: impl Fn(u16) -> Result<()>) -> Result<Figures> {
        let child = Running::start(&self.program, &self.args)?;
        let until = Instant::now() + Duration::from_secs(5);
        while !answers(self.port)? {
            if Instant::now() > until {
                return Err(format!("{} does not answer", self.name).into());
            }
        }
        let (cpu, start) = (child.cpu()?, Instant::now());
        work(self.port)?;
        Ok(Figures { wall: start.elapsed().as_secs_f64(), cpu: child.cpu()? - cpu })
    }
}

/// Gets the peer, while there is a network, unless it is here; kept beside cargo's other output.
fn tftpd_folder() -> String {
    let root = concat!(env!("CARGO_TARGET_TMPDIR"), "/tftpd-1.0.0");
    if which("tftpd").is_none() && !Path::new(root).join("bin/tftpd").exists() {
        // Without it the table says that it is missing.
        let _ = Command::new("cargo")
            .args(["install", "--quiet", "tftpd", "--version", "1.0.0", "--root", root])
            .status();
    }
    format!("{root}/bin")
}

/// A refusal is an answer too.
fn answers(port: u16) -> Result<bool> {
    let socket = UdpSocket::bind("127.0.0.2:0")?;
    socket.set_read_timeout(Some(Duration::from_millis(50)))?;
    socket.send_to(b"\0\x01none\0octet\0", (Ipv4Addr::LOCALHOST, port))?;
    Ok(socket.recv(&mut [0; 100]).is_ok())
}

/// One simulated Pi: lock step, one packet in flight.
struct Pi<'a> {
    socket: UdpSocket,
    server: SocketAddrV4,
    blksize: u16,
    want: &'a [u8],
    connected: bool,
    got: usize,
    block: u16,
}

impl<'a> Pi<'a> {
    fn new(index: usize, work: &Work, port: u16, want: &'a [u8]) -> Result<Pi<'a>> {
        let socket = UdpSocket::bind((Ipv4Addr::new(127, 0, 0, 2 + index as u8), 0))?;
        let server = SocketAddrV4::new(Ipv4Addr::LOCALHOST, port);
        let request = format!("\0\x01{}\0octet\0tsize\x000\0blksize\0{}\0", work.file, work.blksize);
        socket.send_to(request.as_bytes(), server)?;
        Ok(Pi { socket, server, blksize: work.blksize, want, connected: false, got: 0, block: 0 })
    }

    /// Takes one packet, if there is one, and answers it; true when the file is complete.
    fn turn(&mut self, buffer: &mut [u8]) -> Result<bool> {
        let received = self.socket.recv_from(buffer);
        let (len, from) = match received {
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(false),
            received => received?,
        };
        if !self.connected {
            if buffer[..2] != [0, 6] {
                return Err(format!("no OACK from {}: {:?}", self.server, &buffer[..20]).into());
            }
            self.socket.connect(from)?;
            self.connected = true;
            self.socket.send(&[0, 4, 0, 0])?;
            return Ok(false);
        }
        let next = self.block.wrapping_add(1);
        let [high, low] = next.to_be_bytes();
        if buffer[..4] != [0, 3, high, low] {
            return Err(format!("not block {next}: {:?}", &buffer[..4]).into());
        }
        let content = &buffer[4..len];
        if self.want.get(self.got..self.got + content.len()) != Some(content) {
            return Err(format!("block {next} has wrong content").into());
        }
        self.got += content.len();
        self.block = next;
        self.socket.send(&[0, 4, high, low])?;
        Ok(content.len() < usize::from(self.blksize))
    }
}

/// Runs all clients of `work` in one thread, so that the other core is the server's.
fn download(work: &Work, port: u16, want: &[u8]) -> Result<()> {
    let mut pis: Vec<Pi> = (0..work.clients).map(|i| Pi::new(i, work, port, want)).collect::<Result<_>>()?;
    let mut buffer = vec![0; 2048];
    // Firmware waits awake; and a client that sleeps would measure how quickly it is woken.
    for pi in &pis {
        pi.socket.set_nonblocking(true)?;
    }
    let until = Instant::now() + Duration::from_secs(60);
    while !pis.is_empty() {
        if Instant::now() > until {
            return Err("a server has fallen silent".into());
        }
        let mut at = 0;
        while at < pis.len() {
            match pis[at].turn(&mut buffer) {
                Ok(true) => complete(&pis.swap_remove(at))?,
                Ok(false) => at += 1,
                Err(e) => return Err(e),
            }
        }
    }
    Ok(())
}

fn complete(pi: &Pi<'_>) -> Result<()> {
    if pi.got == pi.want.len() { Ok(()) } else { Err("the file is too short".into()) }
}

fn curl(port: u16, want: &[u8]) -> Result<()> {
    let url = format!("tftp://127.0.0.1:{port}/large");
    let out = Command::new("curl")
        .args(["--silent", "--show-error", "--tftp-blksize", "1428", "--interface", "127.0.0.2", &url])
        .output()?;
    if out.stdout != want {
        return Err(format!("curl: {}", String::from_utf8_lossy(&out.stderr)).into());
    }
    Ok(())
}

/// Our server, as a process of its own.
fn serve(root: &Path) -> Result<()> {
    let workers = std::env::var("GT_BENCH_WORKERS").ok().and_then(|n| n.parse().ok());
    let config = Config { workers: workers.unwrap_or(Config::default().workers), ..Config::default() };
    let socket = tftp::bind(SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, 6900))?;
    let host = Arc::new(Folder { root: root.to_owned(), site: Arc::new(site()) });
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    Ok(runtime.block_on(tftp::serve(socket, host, config, CancellationToken::new()))?)
}

fn site() -> Site {
    let node = |last: u8| Node {
        name: format!("n{last}"),
        address: Ipv4Addr::new(127, 0, 0, last),
        mac: Mac([2, 0, 0, 0, 0, last]),
        serial: Serial(last.into()),
    };
    Site {
        server: Ipv4Addr::LOCALHOST,
        netmask: Ipv4Addr::new(255, 0, 0, 0),
        gateway: None,
        dns: vec![],
        domain: "bench".into(),
        nodes: (2..20).map(node).collect(),
    }
}

struct Folder {
    root: PathBuf,
    site: Arc<Site>,
}

impl Host for Folder {
    fn site(&self) -> Arc<Site> {
        Arc::clone(&self.site)
    }

    fn boot_file(&self, _node: &str, path: &[u8]) -> Option<Content> {
        let file = File::open(self.root.join(std::str::from_utf8(path).ok()?)).ok()?;
        let len = file.metadata().ok()?.len();
        Some(Content::new(Arc::new(file), len))
    }

    fn event(&self, _event: Event) {}
}

/// A folder that goes away with its scope.
struct Scratch(PathBuf);

impl Scratch {
    fn new() -> io::Result<Scratch> {
        let path = std::env::temp_dir().join(format!("gt-bench-tftp-{}", std::process::id()));
        fs::create_dir(&path)?;
        Ok(Scratch(path))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}
