//! `gt-image serve` as its owner and systemd meet it: start, ready line, signals, ports that are taken.
//! Must not know: what packets look like. Spec: design.md sections 11 and 13.

use std::io::{BufRead, BufReader};
use std::net::{Ipv4Addr, SocketAddrV4, TcpListener, TcpStream};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use gt_netboot::doctor::reach::{self, Reach};
use libtest_mimic::Trial;
use rustix::process::{Pid, Signal, kill_process};

use crate::support::site::Site;
use crate::support::{Tier, fails, ok, run, trial, which};

pub fn trials() -> Vec<Trial> {
    const NFS: &[Tier] = &[Tier::Root, Tier::Judge(&["nfs-cat"])];
    const ACTIVATE: &[Tier] = &[Tier::Judge(&["systemd-socket-activate"])];
    vec![
        trial("serve::it_is_ready_and_ends_with_0", &[], ready_and_end),
        trial("serve::a_bad_description_keeps_the_old_one", &[Tier::Judge(&["curl"])], reload),
        trial("serve::a_taken_port_is_named_with_its_remedy", &[], taken),
        trial("serve::two_servers_do_not_share_a_record", &[], two_servers),
        trial("serve::systemd_is_told", &[], systemd_is_told),
        trial("serve::sockets_of_systemd_are_taken_over", ACTIVATE, activated),
        trial("serve::a_mounted_root_outlives_kill_9_publishing_and_gc", NFS, outlives),
    ]
}

/// All ports any, all on loopback.
const PORTS: [&str; 12] = [
    "serve",
    "--address",
    "127.0.0.1",
    "--http",
    "127.0.0.1:0",
    "--dhcp-port=0",
    "--tftp-port=0",
    "--nfs-port=0",
    "--mount-port=0",
    "--portmap-port=0",
    "--dhcp",
    "off",
];

/// A running server; killed when dropped.
struct Server {
    child: Child,
    ready: String,
    _out: BufReader<ChildStdout>,
    log: Receiver<String>,
}

impl Server {
    fn start(command: &mut Command) -> Server {
        Server::start_by(command, |_| ())
    }

    /// `ask` is given the log and makes whatever is started become the server.
    fn start_by(command: &mut Command, ask: impl FnOnce(&Receiver<String>)) -> Server {
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let (lines, log) = channel();
        let stderr = BufReader::new(child.stderr.take().unwrap());
        std::thread::spawn(move || {
            stderr.lines().map_while(Result::ok).try_for_each(|line| lines.send(line))
        });
        ask(&log);
        let mut out = BufReader::new(child.stdout.take().unwrap());
        let mut ready = String::new();
        out.read_line(&mut ready).unwrap();
        let mut server = Server { child, ready, _out: out, log };
        if !server.ready.contains("ready") {
            let log = server.end().1;
            panic!("no ready line but {:?}; log:\n{log}", server.ready);
        }
        server
    }

    /// Waits for a line of the log that holds `text`.
    fn until(&self, text: &str) {
        let mut seen = Vec::new();
        while !seen.last().is_some_and(|line: &String| line.contains(text)) {
            let line = self.log.recv_timeout(Duration::from_secs(60));
            seen.push(line.unwrap_or_else(|e| panic!("{e}: no {text:?} in {seen:#?}")));
        }
    }

    fn address(&self, name: &str) -> &str {
        let start = format!("{name}=");
        let found = self.ready.split_whitespace().find_map(|word| word.strip_prefix(start.as_str()));
        found.unwrap_or_else(|| panic!("no {name} in {:?}", self.ready))
    }

    fn port(&self, name: &str) -> u16 {
        self.address(name).rsplit(':').next().unwrap().parse().unwrap()
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// Waits for the end; its status and its log.
    fn end(&mut self) -> (Option<i32>, String) {
        let status = self.child.wait().unwrap();
        (status.code(), self.log.iter().collect::<Vec<_>>().join("\n"))
    }

    fn stop(mut self) -> String {
        self.signal(Signal::TERM);
        let (code, log) = self.end();
        assert_eq!(code, Some(0), "{log}");
        log
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A site whose node `n1` is at this machine's loopback address.
fn site() -> Site {
    let site = Site::new();
    site.edit("cluster.toml", "10.9.0.0/24", "127.0.0.0/24");
    site.edit("cluster.toml", "gateway = \"10.9.0.1\"", "gateway = \"127.0.0.254\"");
    site.edit("cluster.toml", "dns = [\"10.9.0.1\"]", "dns = [\"127.0.0.254\"]");
    site.edit("cluster.toml", "server = \"10.9.0.2\"", "server = \"127.0.0.1\"");
    site.edit("cluster.toml", "10.9.0.11", "127.0.0.1");
    site
}

fn ready_and_end() {
    let site = site();
    let server = Server::start(&mut site.gt_image(PORTS));
    for name in ["nfs", "mount", "portmap", "http"] {
        drop(TcpStream::connect(server.address(name)).unwrap());
    }
    assert!(!server.ready.contains("dhcp=") && server.port("tftp") != 0, "{}", server.ready);
    server.stop();
    let mut command = site.gt_image(PORTS);
    let server = Server::start(command.arg("--json"));
    let ready: serde_json::Value = serde_json::from_str(&server.ready).unwrap();
    assert!(ready["ready"]["nfs"].as_str().unwrap().starts_with("127.0.0.1:"), "{ready}");
    let log = server.stop();
    assert!(log.lines().all(|line| serde_json::from_str::<serde_json::Value>(line).is_ok()), "{log}");
}

fn reload() {
    let site = site();
    let server = Server::start(&mut site.gt_image(PORTS));
    site.edit("cluster.toml", "model =", "modle =");
    server.signal(Signal::HUP);
    server.until("keeps the old description");
    assert!(status(&server).contains("\"n1\""));
    site.edit("cluster.toml", "modle =", "model =");
    site.edit("cluster.toml", "name = \"n1\"", "name = \"n2\"");
    server.signal(Signal::HUP);
    server.until("reload 1 nodes");
    assert!(status(&server).contains("\"n2\""));
    server.stop();
}

fn status(server: &Server) -> String {
    run("curl", ["-sS", &format!("http://{}/status", server.address("http"))])
}

fn taken() {
    let site = site();
    let other = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = other.local_addr().unwrap().port();
    for flag in ["--nfs-port", "--mount-port", "--portmap-port"] {
        let args: Vec<String> = PORTS
            .iter()
            .map(|arg| if arg.starts_with(flag) { format!("{flag}={port}") } else { (*arg).to_owned() })
            .collect();
        let stderr = fails(site.gt_image([]).args(&args), 1);
        assert!(stderr.contains(&format!("port {port}")) && stderr.contains(flag), "{flag}: {stderr}");
        assert!(stderr.contains("hint: `ss -tlpn"), "{stderr}");
    }
}

fn two_servers() {
    let site = site();
    let server = Server::start(&mut site.gt_image(PORTS));
    let stderr = fails(&mut site.gt_image(PORTS), 1);
    assert!(stderr.contains("another `gt-image serve`"), "{stderr}");
    let mut command = site.gt_image(PORTS);
    let second = Server::start(command.args(["--state", site.path("other").to_str().unwrap()]));
    drop(second);
    server.stop();
    let key = std::fs::metadata(site.path("images/store/serve/handles.key")).unwrap();
    assert_eq!(std::os::unix::fs::PermissionsExt::mode(&key.permissions()) & 0o777, 0o600);
}

/// Readiness and stopping arrive at the socket that systemd would listen at.
fn systemd_is_told() {
    let site = site();
    let socket = site.path("notify");
    let listener = std::os::unix::net::UnixDatagram::bind(&socket).unwrap();
    // As systemd's is: the server is nobody by the time that it is ready.
    std::fs::set_permissions(&socket, std::os::unix::fs::PermissionsExt::from_mode(0o777)).unwrap();
    let mut command = site.gt_image(PORTS);
    let server = Server::start(command.env("NOTIFY_SOCKET", &socket));
    server.stop();
    let mut all = String::new();
    listener.set_nonblocking(true).unwrap();
    let mut buffer = [0; 512];
    while let Ok(n) = listener.recv(&mut buffer) {
        all.push_str(&String::from_utf8_lossy(&buffer[..n]));
    }
    assert!(all.contains("READY=1") && all.contains("STOPPING=1"), "{all}");
}

/// The tool binds, waits for a first client and becomes the server, which must answer that very client.
fn activated() {
    let site = site();
    // An address of loopback that is this process's alone, so that its ports are free.
    let [.., high, low] = std::process::id().to_be_bytes();
    let address = Ipv4Addr::new(127, 77, high, low);
    let activate = |sockets: &[&str], ask: &dyn Fn() -> Reach| {
        let mut command = Command::new(which("systemd-socket-activate").unwrap());
        let serve = site.gt_image(PORTS);
        command.args(sockets).arg(serve.get_program()).args(serve.get_args()).current_dir(site.path(""));
        let listening = sockets.iter().filter(|word| word.starts_with("--listen")).count();
        let server = Server::start_by(&mut command, |log| {
            let bound = log.iter().filter(|line| line.contains("Listening on"));
            assert_eq!(bound.take(listening).count(), listening, "systemd-socket-activate ended");
            assert_eq!(ask(), Reach::Answered);
        });
        let addresses = ["nfs", "http", "tftp"].map(|name| server.address(name).to_owned());
        server.stop();
        addresses
    };
    let patience = Duration::from_secs(60);
    let at = |port| SocketAddrV4::new(address, port);

    let listen = [2049, 8080].map(|port| format!("--listen={}", at(port)));
    let nfs = || reach::null_call(at(2049).into(), (100_003, 3), patience);
    let [nfs, http, tftp] = activate(&[&listen[0], &listen[1], "--fdname=nfs:http"], &nfs);
    assert_eq!((nfs, http), (at(2049).to_string(), at(8080).to_string()));
    assert!(tftp.starts_with("127.0.0.1:"), "what systemd has not is bound by us: {tftp}");

    let listen = format!("--listen={}", at(6969));
    let [nfs, _, tftp] =
        activate(&["--datagram", &listen, "--fdname=tftp"], &|| reach::ask_tftp(at(6969), patience));
    assert_eq!(tftp, at(6969).to_string());
    assert!(nfs.starts_with("127.0.0.1:"), "{nfs}");
}

/// As root, because NFS trusts user numbers from ports below 1024 alone.
fn outlives() {
    let site = site();
    site.write("overlays/role/files/etc/generation", "one\n");
    site.dump();
    let mut server = Server::start(&mut site.gt_image(PORTS));
    let read = |server: &Server| {
        let (nfs, mount) = (server.port("nfs"), server.port("mount"));
        let url = format!("nfs://127.0.0.1/n1/etc/generation?version=3&nfsport={nfs}&mountport={mount}");
        ok(Command::new(which("nfs-cat").unwrap()).arg(url))
    };
    assert_eq!(read(&server), "one\n");
    // The same ports again, for a client that is mounted.
    let ports: Vec<String> =
        ["nfs", "mount", "tftp", "portmap"].map(|name| format!("--{name}-port={}", server.port(name))).into();
    server.child.kill().unwrap();
    server.end();
    site.write("overlays/role/files/etc/generation", "two\n");
    site.dump();
    let freed = ok(&mut site.gt_image(["gc", "--keep", "1", "--json"]));
    assert!(freed.contains("\"generations\": 0"), "the pinned one stays: {freed}");
    let args: Vec<String> = PORTS
        .iter()
        .map(|arg| {
            let flag = arg.split('=').next().unwrap();
            let same = ports.iter().find(|port| port.split('=').next() == Some(flag));
            same.cloned().unwrap_or_else(|| (*arg).to_owned())
        })
        .collect();
    let server = Server::start(site.gt_image([]).args(&args));
    assert_eq!(read(&server), "two\n", "with DHCP off a mount is how a boot shows");
    let log = server.stop();
    assert!(log.contains("mount"), "{log}");
}
