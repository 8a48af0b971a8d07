//! DHCP side by side: our server in authoritative mode and dnsmasq with the same reservations.
//! Must not know: how either of them works.
//! Spec: RFC 2131 figure 3 (DISCOVER, OFFER, REQUEST, ACK); the bar is dnsmasq's answers a second.
//!
//! `cargo bench -p gt-netboot --bench dhcp` needs `unshare` and `ip`. The client is a relay agent, for a
//! relay's answers are unicast and need no card of their own. Nodes go through whole exchanges, one or
//! several at a time; the servers take turns, and the best of the rounds counts.

mod common;

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use common::{Namespace, Result, Running, ip, which};
use gt_netboot::dhcp::{Event, Host, Mode, Ports, Service, Settings, Sockets};
use gt_netboot::site::{Mac, Node, Serial, Site};
use tokio_util::sync::CancellationToken;

const EXCHANGES: u32 = 20_000;
const ROUNDS: usize = 5;
const NETMASK: Ipv4Addr = Ipv4Addr::new(255, 255, 0, 0);
const OURS: Ipv4Addr = Ipv4Addr::new(10, 4, 0, 1);
const THEIRS: Ipv4Addr = Ipv4Addr::new(10, 4, 0, 2);
const RELAY: Ipv4Addr = Ipv4Addr::new(10, 4, 0, 3);

const DISCOVER: u8 = 1;
const REQUEST: u8 = 3;

fn main() -> Result<()> {
    let args: Vec<String> = std::env::args().collect();
    if let [_, verb, count] = &args[..]
        && verb == "serve"
    {
        return serve(count.parse()?);
    }
    if !common::inside("")? {
        return Ok(());
    }
    let far = Far::new()?;
    println!(
        "{:<28} {:<10} {:>12} {:>20} {:>8}",
        "work", "server", "answers/s", "CPU µs an answer", "ours is"
    );
    for (count, window) in [(10, 1), (10, 10), (1000, 16)] {
        let servers = Server::all(count)?;
        let mut best = vec![(f64::INFINITY, f64::INFINITY); servers.len()];
        for _ in 0..ROUNDS {
            for (server, best) in servers.iter().zip(&mut best) {
                let (wall, cpu) = server.measure(&far, &nodes(count), window)?;
                *best = (best.0.min(wall), best.1.min(cpu));
            }
        }
        for (server, (wall, cpu)) in servers.iter().zip(&best) {
            let answers = f64::from(EXCHANGES) * 2.0;
            let title = format!("{count} nodes, {window} at a time");
            let (rate, each) = (answers / wall, cpu * 1e6 / answers);
            println!("{title:<28} {:<10} {rate:>12.0} {each:>20.1} {:>8.2} x", server.name, wall / best[0].0);
        }
    }
    Ok(())
}

/// The servers' side of a cable, for dnsmasq leases nothing on a loopback interface.
struct Far(Namespace);

impl Far {
    fn new() -> Result<Far> {
        let far = Namespace::new()?;
        let pid = far.pid();
        far.ip("link set lo up")?;
        ip(&format!("link add near type veth peer name far netns {pid}"))?;
        ip(&format!("address add {RELAY}/16 dev near"))?;
        ip("link set near up")?;
        for address in [OURS, THEIRS] {
            far.ip(&format!("address add {address}/16 dev far"))?;
        }
        far.ip("link set far up")?;
        Ok(Far(far))
    }
}

struct Server {
    name: &'static str,
    address: Ipv4Addr,
    program: PathBuf,
    args: Vec<String>,
}

impl Server {
    /// Ours first.
    fn all(count: u16) -> Result<Vec<Server>> {
        let program = std::env::current_exe()?;
        let ours = Server {
            name: "gt-image",
            address: OURS,
            program,
            args: vec!["serve".into(), count.to_string()],
        };
        let Some(program) = which("dnsmasq") else {
            println!("not run: dnsmasq: not on PATH");
            return Ok(vec![ours]);
        };
        let mut args: Vec<String> = format!(
            "--no-daemon --conf-file=/dev/null --port=0 --pid-file= --user=root --listen-address={THEIRS} \
             --bind-interfaces --no-ping --quiet-dhcp --dhcp-authoritative --dhcp-leasefile=/dev/null \
             --dhcp-range=10.4.0.0,static,{NETMASK},1h --dhcp-lease-max=5000"
        )
        .split(' ')
        .map(str::to_owned)
        .collect();
        args.push("--pxe-service=0,Raspberry Pi Boot".into());
        args.extend(nodes(count).iter().map(|n| format!("--dhcp-host={},{}", n.mac, n.address)));
        Ok(vec![ours, Server { name: "dnsmasq", address: THEIRS, program, args }])
    }

    /// Wall and processor seconds of all exchanges, `window` at a time.
    fn measure(&self, far: &Far, nodes: &[Node], window: usize) -> Result<(f64, f64)> {
        let child = Running::start_in(&far.0, &self.program, &self.args)?;
        let socket = UdpSocket::bind((RELAY, 67))?;
        let server = SocketAddr::from((self.address, 67));
        socket.set_read_timeout(Some(Duration::from_millis(200)))?;
        let until = Instant::now() + Duration::from_secs(10);
        let mut buffer = [0; 1500];
        loop {
            // A port that is not bound yet is an ICMP error at the next call.
            let _ = socket.send_to(&packet(&nodes[0], u32::MAX, DISCOVER, self.address), server);
            if socket.recv(&mut buffer).is_ok() {
                break;
            }
            if Instant::now() > until {
                return Err(format!("{} does not answer", self.name).into());
            }
        }
        socket.set_read_timeout(Some(Duration::from_secs(5)))?;
        let (cpu, start) = (child.cpu()?, Instant::now());
        let send = |xid: u32, kind| {
            let node = &nodes[xid as usize % nodes.len()];
            socket.send_to(&packet(node, xid, kind, self.address), server)
        };
        let (mut next, mut done) = (0, 0);
        while next < window as u32 {
            send(next, DISCOVER)?;
            next += 1;
        }
        while done < EXCHANGES {
            let len = socket.recv(&mut buffer).map_err(|e| format!("{}: {e}", self.name))?;
            let Some((xid, kind, address)) = read(&buffer[..len]).filter(|(xid, ..)| *xid != u32::MAX) else {
                continue;
            };
            if address != nodes[xid as usize % nodes.len()].address {
                return Err(format!("{}: {address} is another's", self.name).into());
            }
            match kind {
                2 => _ = send(xid, REQUEST)?,
                5 => {
                    done += 1;
                    if next < EXCHANGES {
                        send(next, DISCOVER)?;
                        next += 1;
                    }
                }
                other => return Err(format!("{}: message type {other}", self.name).into()),
            }
        }
        Ok((start.elapsed().as_secs_f64(), child.cpu()? - cpu))
    }
}

fn nodes(count: u16) -> Vec<Node> {
    let node = |n: u16| {
        let [high, low] = n.to_be_bytes();
        Node {
            name: format!("n{n}"),
            address: Ipv4Addr::new(10, 4, 4 + high, low),
            mac: Mac([0xd8, 0x3a, 0xdd, 0, high, low]),
            serial: Serial(n.into()),
        }
    };
    (1..=count).map(node).collect()
}

/// A Pi's DISCOVER or REQUEST as a relay agent passes it on.
fn packet(node: &Node, xid: u32, kind: u8, server: Ipv4Addr) -> Vec<u8> {
    let mut bytes = vec![1, 1, 6, 1];
    bytes.extend(xid.to_be_bytes());
    bytes.extend([0; 16]); // secs, flags, ciaddr, yiaddr, siaddr
    bytes.extend(RELAY.octets());
    bytes.extend(node.mac.0);
    bytes.extend([0; 10 + 64 + 128]);
    bytes.extend([99, 130, 83, 99, 53, 1, kind, 60, 32]);
    bytes.extend(b"PXEClient:Arch:00000:UNDI:002001");
    bytes.extend([55, 8, 1, 3, 43, 60, 66, 67, 128, 129]);
    if kind == REQUEST {
        bytes.extend([50, 4]);
        bytes.extend(node.address.octets());
        bytes.extend([54, 4]);
        bytes.extend(server.octets());
    }
    bytes.push(255);
    bytes
}

/// Transaction id, message type and yiaddr of a reply.
fn read(bytes: &[u8]) -> Option<(u32, u8, Ipv4Addr)> {
    let xid = u32::from_be_bytes(bytes.get(4..8)?.try_into().ok()?);
    let address: [u8; 4] = bytes.get(16..20)?.try_into().ok()?;
    let mut rest = bytes.get(240..)?;
    loop {
        match rest {
            [53, 1, kind, ..] => return Some((xid, *kind, address.into())),
            [0, tail @ ..] => rest = tail,
            [_, len, tail @ ..] => rest = tail.get(usize::from(*len)..)?,
            _ => return None,
        }
    }
}

/// Our server, as a process of its own.
fn serve(count: u16) -> Result<()> {
    let site = Site {
        server: OURS,
        netmask: NETMASK,
        gateway: None,
        dns: vec![],
        domain: "bench".into(),
        nodes: nodes(count),
    };
    let service = Service {
        sockets: Sockets::bind(OURS, Ports::default(), None)?,
        ports: Ports::default(),
        settings: Settings::new(Mode::Authoritative),
        link: None,
        probe: None,
        counters: Arc::default(),
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    Ok(runtime.block_on(service.run(Arc::new(Booting(Arc::new(site))), CancellationToken::new()))?)
}

struct Booting(Arc<Site>);

impl Host for Booting {
    fn site(&self) -> Arc<Site> {
        Arc::clone(&self.0)
    }

    fn can_boot(&self, _: &str) -> bool {
        true
    }

    fn event(&self, _: Event) {}
}
