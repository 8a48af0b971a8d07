//! The server's life: sockets, rights, services, signals, end.
//! Must not know: what is decided about any packet.
//! Spec: design.md sections 10 and 13; sd_notify(3), signal(7).

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use gt_netboot::nfs::service::HighPorts;
use gt_netboot::site::Site;
use gt_netboot::{dhcp, nfs, tftp};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use sd_notify::NotifyState;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::desk::{Desk, Parts, Past, Vault};
use super::http;
use super::keeper::{Keeper, PinsDir};
use super::log::Log;
use super::record::{Redb, handle_key};
use super::sockets::{self, Sockets, Wanted};
use super::user::{self, Became};
use super::{events, metrics};
use crate::cluster::Dhcp;
use crate::hint::Hint;
use crate::store::{PINS, Store};

/// Threads that answer packets. NFS of ten nodes that boot at once fills one core of a Pi; more than
/// two only take turns.
const WORKERS: usize = 2;
/// How often the desk looks for what is late.
const TICK: Duration = Duration::from_secs(1);
/// How long services may take to end. systemd kills after 90 s.
const DRAIN: Duration = Duration::from_secs(10);

/// All that the owner may say.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Sockets.
    pub wanted: Wanted,
    /// How it takes part in DHCP.
    pub dhcp: Dhcp,
    /// The address that nodes are told.
    pub server: Ipv4Addr,
    /// The store.
    pub store: PathBuf,
    /// Where the secrets lie, if there are any.
    pub secrets: PathBuf,
    /// Where boots are recorded, if not in the store.
    pub state: Option<PathBuf>,
    /// Serve generations that lack overlays, too.
    pub incomplete: bool,
    /// JSON lines on both outputs.
    pub json: bool,
}

/// Gives the site of the description as it is now, for a reload.
pub type Load = Box<dyn Fn() -> anyhow::Result<Site> + Send + Sync>;

/// Serves until SIGTERM or SIGINT. `ready` is given all addresses once every socket is bound.
///
/// # Errors
/// What keeps it from starting, or the end of a service that should not have ended.
pub fn serve(
    settings: &Settings,
    load: Load,
    vault: Vault,
    ready: impl FnOnce(&[(&'static str, SocketAddr)]) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let site = load()?;
    let log = Arc::new(Log::new(settings.json));
    events::tell(log.clone());
    if let Err(e) = raise_descriptors() {
        log.line("serve", "limits", &format!("keeps its number of descriptors: {e}"));
    }
    let bound = sockets::bind(&settings.wanted).map_err(|error| match error.hint() {
        Some(hint) => anyhow::Error::new(error).context(Hint(hint)),
        None => anyhow::Error::new(error),
    })?;
    let link = link(settings, &site, &bound, &log);
    // Closed again when its directories are open: gc must not wait for a server that runs for months.
    let store = Store::open(&settings.store).context("opening the store")?;
    let reader = store.reader().context("opening the store")?;
    let root = store.root().to_path_buf();
    drop(store);
    let beside = root.join(PINS).parent().map(Path::to_path_buf).unwrap_or_else(|| root.clone());
    let state = settings.state.clone().unwrap_or_else(|| beside.clone());
    let record = Redb::open(&state).context("opening the boot record")?;
    let key = handle_key(&state).context("opening the boot record")?;
    std::fs::create_dir_all(&beside).with_context(|| format!("making `{}`", beside.display()))?;
    let pins = PinsDir::open(&beside).with_context(|| format!("opening `{}`", beside.display()))?;
    let past = Past::read(&record).context("reading the boot record")?;
    let mut dirs = vec![beside.as_path()];
    if state != beside {
        dirs.push(&state);
    }
    match user::drop_rights(&root, &dirs, &settings.secrets).context("giving up rights")? {
        Became::BareRoot => {
            log.line("serve", "user", "stays root, without capabilities: the store is root's")
        }
        Became::Owner(uid) => {
            log.line("serve", "user", &format!("is user {uid} from now on, the store's owner"))
        }
        Became::Nobody => log.line("serve", "user", "is nobody from now on"),
        Became::Same => {}
    }
    let keeper = Keeper::start(Box::new(record), Some(pins), log.clone()).context("starting the record")?;
    let alone = settings.dhcp == Dhcp::Off;
    let incomplete = settings.incomplete;
    let words = words(settings.server, &bound.addresses().context("asking for the sockets' addresses")?);
    let desk = Desk::new(Parts {
        site,
        store: reader,
        words,
        past,
        keeper,
        log: log.clone(),
        vault,
        alone,
        incomplete,
    });
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(WORKERS).enable_all().build();
    let runtime = runtime.context("starting threads")?;
    let addresses = bound.addresses().context("asking for the sockets' addresses")?;
    let life = Life { desk, log, key, load, mode: settings.dhcp, dhcp_port: settings.wanted.dhcp, link };
    let ended = runtime.block_on(life.run(bound, move || ready(&addresses)));
    // Reads of a disk that does not answer must not keep the process.
    runtime.shutdown_timeout(Duration::from_secs(1));
    ended
}

/// Where init looks for NFS when it is told nothing.
const NFS_PORT: u16 = 2049;

/// What the kernel's line of a node must say of this server.
fn words(server: Ipv4Addr, addresses: &[(&'static str, SocketAddr)]) -> Vec<String> {
    let port = |name: &str| addresses.iter().find(|(other, _)| *other == name).map(|(_, a)| a.port());
    let mut words = vec![format!("gt.server={server}")];
    words.extend(port("http").map(|port| format!("gt.http={port}")));
    // Init asks for MOUNT at the same port: it answers there too.
    words.extend(port("nfs").filter(|port| *port != NFS_PORT).map(|port| format!("gt.nfs_port={port}")));
    words
}

/// Raises the soft limit of descriptors to the hard one, which under systemd is 524,288 against 1,024:
/// each TFTP transfer and each file that NFS has open holds one.
fn raise_descriptors() -> io::Result<()> {
    let limit = getrlimit(Resource::Nofile);
    Ok(setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit })?)
}

/// What DHCP needs of the interface beside its socket; without the right to it the server does with
/// less, and says so.
fn link(
    settings: &Settings,
    site: &Site,
    bound: &Sockets,
    log: &Log,
) -> (Option<dhcp::Link>, Option<dhcp::Arp>) {
    let routes = || std::fs::read_to_string("/proc/net/route").unwrap_or_default();
    let name = settings.wanted.interface.clone().or_else(|| interface_towards(&routes(), site));
    let Some(name) = name.as_ref().filter(|_| bound.dhcp.is_some()) else {
        return (None, None);
    };
    let opened = dhcp::Interface::named(name)
        .and_then(|interface| Ok((dhcp::Link::open(&interface)?, dhcp::Arp::open(&interface)?)));
    match opened {
        Ok((link, arp)) => (Some(link), Some(arp)),
        Err(e) => {
            let text = format!("answers by broadcast alone and checks no address ({name}: {e})");
            log.line("serve", "dhcp", &text);
            (None, None)
        }
    }
}

/// The interface that the nodes' network is on, by the kernel's table of routes: the name, then
/// destination, gateway, …, mask in the eighth column, addresses as the machine's own numbers.
fn interface_towards(routes: &str, site: &Site) -> Option<String> {
    let address = |text: &str| Some(Ipv4Addr::from(u32::from_str_radix(text, 16).ok()?.to_ne_bytes()));
    routes.lines().find_map(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let (name, to, mask) = (fields.first()?, address(fields.get(1)?)?, address(fields.get(7)?)?);
        (mask == site.netmask && to == site.server & site.netmask).then(|| (*name).to_owned())
    })
}

struct Life {
    desk: Arc<Desk>,
    log: Arc<Log>,
    key: [u8; 32],
    load: Load,
    mode: Dhcp,
    dhcp_port: Option<u16>,
    link: (Option<dhcp::Link>, Option<dhcp::Arp>),
}

impl Life {
    async fn run(mut self, bound: Sockets, ready: impl FnOnce() -> anyhow::Result<()>) -> anyhow::Result<()> {
        // Before anything is told: whoever reads `ready` may send a signal at once.
        let mut signals = Signals::new().context("listening for signals")?;
        let shutdown = CancellationToken::new();
        let mut services = self.services(bound, &shutdown)?;
        self.desk.keep_warm();
        ready()?;
        notify(&[NotifyState::Ready]);
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let failed = loop {
            tokio::select! {
                _ = tick.tick() => self.desk.tick(),
                _ = signals.hangup.recv() => self.reload(),
                _ = signals.terminate.recv() => break None,
                _ = signals.interrupt.recv() => break None,
                Some(ended) = services.join_next() => break Some(ended),
            }
        };
        notify(&[NotifyState::Stopping]);
        shutdown.cancel();
        let drained = async { while services.join_next().await.is_some() {} };
        tokio::select! {
            ended = tokio::time::timeout(DRAIN, drained) => {
                if ended.is_err() {
                    self.log.line("serve", "end", "some transfers did not end in time and were cut off");
                }
            }
            // Whoever asks twice is in a hurry.
            _ = signals.terminate.recv() => {}
            _ = signals.interrupt.recv() => {}
        }
        self.desk.flush();
        match failed {
            None => Ok(()),
            Some(Ok((name, Err(e)))) => Err(e.context(format!("serving {name}"))),
            Some(Ok((name, Ok(())))) => anyhow::bail!("{name} has ended by itself"),
            Some(Err(e)) => Err(anyhow::Error::new(e).context("a service has ended")),
        }
    }

    fn services(&mut self, bound: Sockets, shutdown: &CancellationToken) -> anyhow::Result<Services> {
        let mut services = JoinSet::new();
        let ports = nfs::Ports {
            nfs: bound.nfs.local_addr()?.port(),
            mount: bound.mount.local_addr()?.port(),
            portmap: bound.portmap.local_addr()?.port(),
        };
        let mode = match self.mode {
            Dhcp::Proxy => Some(dhcp::Mode::Proxy),
            Dhcp::Authoritative => Some(dhcp::Mode::Authoritative),
            Dhcp::Off => None,
        };
        if let (Some(sockets), Some(mode)) = (bound.dhcp, mode) {
            let (link, arp) = std::mem::take(&mut self.link);
            let probe = arp.map(dhcp::Arp::probe).transpose().context("listening for ARP")?;
            let port =
                self.dhcp_port.filter(|port| *port != 0).unwrap_or(sockets.server.local_addr()?.port());
            let service = dhcp::Service {
                sockets,
                ports: dhcp::Ports::at(port),
                settings: dhcp::Settings::new(mode),
                link,
                probe: probe.map(|probe| Box::new(probe) as Box<dyn dhcp::Probe>),
                counters: Arc::default(),
            };
            let counters = service.counters.clone();
            self.desk.count_also(move |_| metrics::dhcp(&counters));
            let (host, token) = (self.desk.clone(), shutdown.clone());
            services.spawn(async move { ("DHCP", service.run(host, token).await.map_err(Into::into)) });
        }
        let (host, token) = (self.desk.clone(), shutdown.clone());
        services.spawn(async move {
            let served = tftp::serve(bound.tftp, host, tftp::Config::default(), token).await;
            ("TFTP", served.map_err(Into::into))
        });
        let server = nfs::Server::new(self.desk.clone(), &self.key, ports, HighPorts::Nobody);
        // The server holds the desk.
        let counted = Arc::downgrade(&server);
        self.desk.count_also(move |site| match counted.upgrade() {
            Some(server) => {
                site.nodes.iter().flat_map(|n| metrics::nfs(&n.name, &server.calls(&n.name))).collect()
            }
            None => Vec::new(),
        });
        let sockets = nfs::Sockets {
            nfs: vec![listener(bound.nfs)?],
            mount: vec![listener(bound.mount)?],
            mount_udp: vec![datagrams(bound.mount_udp)?],
            portmap: vec![listener(bound.portmap)?],
            portmap_udp: vec![datagrams(bound.portmap_udp)?],
        };
        let token = shutdown.clone();
        services.spawn(async move {
            server.run(sockets, token).await;
            ("NFS", Ok(()))
        });
        let (http, board, token) = (listener(bound.http)?, self.desk.clone(), shutdown.clone());
        services.spawn(async move {
            http::serve(http, board, token).await;
            ("HTTP", Ok(()))
        });
        Ok(services)
    }

    /// A description that is wrong changes nothing.
    fn reload(&self) {
        let now = NotifyState::monotonic_usec_now();
        notify(&[NotifyState::Reloading]);
        if let Ok(now) = now {
            notify(&[now]);
        }
        match (self.load)() {
            Ok(site) => {
                self.log.line("serve", "reload", &format!("{} nodes", site.nodes.len()));
                self.desk.set_site(site);
            }
            Err(e) => {
                let text = format!("{e:#}").replace('\n', "; ");
                self.log.line("serve", "reload", &format!("keeps the old description: {text}"));
            }
        }
        notify(&[NotifyState::Ready]);
    }
}

type Services = JoinSet<(&'static str, anyhow::Result<()>)>;

struct Signals {
    hangup: Signal,
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn new() -> io::Result<Signals> {
        Ok(Signals {
            hangup: signal(SignalKind::hangup())?,
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }
}

fn listener(socket: std::net::TcpListener) -> io::Result<tokio::net::TcpListener> {
    socket.set_nonblocking(true)?;
    tokio::net::TcpListener::from_std(socket)
}

fn datagrams(socket: std::net::UdpSocket) -> io::Result<tokio::net::UdpSocket> {
    socket.set_nonblocking(true)?;
    tokio::net::UdpSocket::from_std(socket)
}

/// Tells systemd, if it is there.
fn notify(state: &[NotifyState]) {
    if let Err(e) = sd_notify::notify(state) {
        tracing::debug!(error = %e, "systemd was not told");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn descriptors_are_raised_to_the_hard_limit() {
        raise_descriptors().unwrap();
        let limit = getrlimit(Resource::Nofile);
        assert_eq!(limit.current, limit.maximum);
    }

    #[test]
    fn the_interface_of_the_nodes_is_found_by_its_route() {
        let number = |address: [u8; 4]| format!("{:08X}", u32::from_ne_bytes(address));
        let line = |name: &str, to: [u8; 4], mask: [u8; 4]| {
            format!("{name}\t{}\t00000000\t0001\t0\t0\t0\t{}\t0\t0\t0\n", number(to), number(mask))
        };
        let routes = [
            "Iface\tDestination\tGateway\tFlags\tRefCnt\tUse\tMetric\tMask\tMTU\tWindow\tIRTT\n".into(),
            line("wlan0", [0, 0, 0, 0], [0, 0, 0, 0]),
            line("eth1", [10, 4, 0, 0], [255, 255, 255, 0]),
            line("eth0", [10, 4, 0, 0], [255, 255, 240, 0]),
        ];
        let site = Site {
            server: Ipv4Addr::new(10, 4, 0, 10),
            netmask: Ipv4Addr::new(255, 255, 240, 0),
            gateway: None,
            dns: vec![],
            domain: String::new(),
            nodes: vec![],
        };
        assert_eq!(interface_towards(&routes.concat(), &site).as_deref(), Some("eth0"));
        assert_eq!(interface_towards("nonsense\n", &site), None);
    }
}
