//! `gt-image serve` on the switch of a test's network, and the firmware that is played against it.
//! Must not know: what is tested.
//! Spec: design.md sections 10 and 13.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use gt_netboot::pi::boot::{Boot, Fault, Loaded, Setup, boot};
use gt_netboot::pi::wire::PacketWire;
use gt_netboot::pi::{Board, Model};
use gt_netboot::site::{Mac, Serial};
use serde_json::Value;

use super::net::{Card, Net, SERVER};
use super::{binary, ok};

/// A node of a description as the tests play it.
#[derive(Clone, Copy, Debug)]
pub struct Node {
    pub name: &'static str,
    pub mac: &'static str,
    pub serial: u32,
    pub address: &'static str,
}

impl Node {
    pub fn board(&self) -> Board {
        let octets: Vec<u8> = self.mac.split(':').map(|o| u8::from_str_radix(o, 16).unwrap()).collect();
        Board::new(Model::Pi4, Mac(octets.try_into().unwrap()), Serial(self.serial))
    }
}

/// A server; killed when dropped.
pub struct Server {
    child: Child,
    log: PathBuf,
}

impl Server {
    /// Starts it with the site in `dir` and waits until it is ready.
    pub fn start(net: &Net, dir: &Path, args: &[&str]) -> Server {
        Server::start_at(net, dir, SERVER, args)
    }

    /// The same where the server has another address.
    pub fn start_at(net: &Net, dir: &Path, address: &str, args: &[&str]) -> Server {
        let log = dir.join("serve.log");
        let errors = fs::File::options().create(true).append(true).open(&log).unwrap();
        let mut child = net
            .command(binary())
            .current_dir(dir)
            .args(["serve", "--interface", "br0", "--address", address])
            .args(args)
            .stdout(Stdio::piped())
            .stderr(errors)
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let server = Server { child, log };
        assert!(line.starts_with("ready "), "{line:?}\n{}", server.text());
        server
    }

    /// Its log, with that of the servers before it.
    pub fn text(&self) -> String {
        fs::read_to_string(&self.log).unwrap()
    }

    /// Waits for a line of the log that holds `text`.
    pub fn until(&self, text: &str) {
        self.until_within(text, Duration::from_secs(60));
    }

    /// The same for what may take longer.
    pub fn until_within(&self, text: &str, limit: Duration) {
        let begun = Instant::now();
        while !self.text().contains(text) {
            assert!(begun.elapsed() < limit, "no {text:?} in {limit:?}:\n{}", self.text());
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Bytes of memory that it occupies.
    pub fn resident(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        line.trim().strip_suffix(" kB").unwrap().parse::<u64>().unwrap() * 1024
    }

    /// As `kill -9` or a power cut of the server.
    pub fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// What a kernel gets of a boot that must have come to its end.
    pub fn whole(&self, mut played: Boot) -> (Boot, Loaded) {
        let result = std::mem::replace(&mut played.result, Err(Fault::NoKernel(Vec::new())));
        let loaded = result.unwrap_or_else(|e| panic!("{e}: {:#?}\n{}", played.requests, self.text()));
        (played, loaded)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Plays the firmware of `board` on a card.
pub fn power_on(card: &Card, board: &Board, setup: &Setup) -> Boot {
    card.run(|| {
        let mut wire = PacketWire::open("eth0", board.mac).unwrap();
        boot(board, &mut wire, setup, |lease| {
            card.configure(&lease.address.to_string());
            if let Some(router) = lease.router {
                card.gateway(&router.to_string());
            }
            Ok(lease.address)
        })
    })
}

/// What the server's status says.
pub fn status(net: &Net, dir: &Path) -> Value {
    let mut command = net.command(binary());
    command.current_dir(dir).args(["status", "--json", "--server"]);
    serde_json::from_str(&ok(command.arg(format!("http://{SERVER}:8080")))).unwrap()
}

/// What a person reads of the server's status.
pub fn status_page(net: &Net, dir: &Path) -> String {
    let mut command = net.command(binary());
    ok(command.current_dir(dir).args(["status", "--server", &format!("http://{SERVER}:8080")]))
}

/// What the server's status says of a node.
pub fn node_status(net: &Net, dir: &Path, node: &Node) -> Value {
    let status = status(net, dir);
    let nodes = status["nodes"].as_array().unwrap();
    nodes.iter().find(|n| n["name"] == node.name).unwrap().clone()
}
