//! A network of its own for a test: a switch with the server on it, a tap for a machine in QEMU, and a
//! cable to each card that the simulated firmware, or another machine, has.
//! Must not know: what is served, what is tested.
//! Spec: ip-netns(8), veth(4).
//!
//! ```text
//! namespace gt<pid><name><n>-s                   namespaces gt<pid><name><n>-0, -1, ...
//!   br0 10.4.0.10/20 ── tap0 (QEMU)
//!        ├── cable0 ────────────────────────────── eth0
//!        └── cable1 ────────────────────────────── eth0
//! ```

use std::ffi::OsStr;
use std::fs::File;
use std::os::fd::AsFd;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use super::{run, which};

/// The server's address on this network; the real cluster's Allyrion has it too.
pub const SERVER: &str = "10.4.0.10";

/// One namespace for the server and one for each card; gone when dropped.
pub struct Net {
    server: String,
    cards: Vec<Card>,
}

/// A card on the switch, in a namespace of its own.
pub struct Card {
    namespace: String,
}

impl Net {
    /// `cards` are the MAC addresses of the cards.
    pub fn new(name: &str, cards: &[&str]) -> Net {
        // Tests run at once, and two may choose one name.
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let stem = format!("gt{}{name}{count}-", std::process::id());
        let card = |n| Card { namespace: format!("{stem}{n}") };
        let net = Net { server: format!("{stem}s"), cards: (0..cards.len()).map(card).collect() };
        let s = &net.server;
        ip(&format!("netns add {s}"));
        ip(&format!("-n {s} link set lo up"));
        ip(&format!("-n {s} link add br0 type bridge"));
        ip(&format!("-n {s} address add {SERVER}/20 dev br0"));
        ip(&format!("-n {s} link set br0 up"));
        net.add_tap("tap0");
        for (n, (mac, card)) in cards.iter().zip(&net.cards).enumerate() {
            let p = &card.namespace;
            ip(&format!("netns add {p}"));
            ip(&format!("-n {p} link set lo up"));
            ip(&format!("-n {s} link add cable{n} type veth peer name eth0 address {mac} netns {p}"));
            ip(&format!("-n {s} link set cable{n} master br0 up"));
            ip(&format!("-n {p} link set eth0 up"));
        }
        net
    }

    /// A tap for one more machine in QEMU.
    pub fn add_tap(&self, name: &str) {
        ip(&format!("-n {} tuntap add {name} mode tap", self.server));
        ip(&format!("-n {} link set {name} master br0 up", self.server));
    }

    /// Gives the server's address away: a machine on the switch has it in this test.
    pub fn move_to(&self, address: &str) {
        ip(&format!("-n {} address flush dev br0", self.server));
        ip(&format!("-n {} address add {address}/20 dev br0", self.server));
    }

    /// A program on the server's side.
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        inside(&self.server, program)
    }

    /// Puts card `n` behind card `router`, whose machine gets a second card `eth1` for the purpose and lets
    /// packets pass: `far` is its address there, `near` the one on the switch, both with a prefix.
    pub fn route(&self, n: usize, router: usize, far: &str, near: &str) {
        let (s, r) = (&self.server, &self.cards[router].namespace);
        ip(&format!("-n {s} link set cable{n} nomaster netns {r} name eth1"));
        ip(&format!("-n {r} address add {far} dev eth1"));
        ip(&format!("-n {r} link set eth1 up"));
        ip(&format!("-n {r} address add {near} dev eth0"));
        // The file is that of the network which the thread is in.
        self.cards[router].run(|| std::fs::write("/proc/sys/net/ipv4/ip_forward", "1").unwrap());
        let via = near.split('/').next().unwrap();
        let (network, _) = far.rsplit_once('.').unwrap();
        ip(&format!("-n {s} route add {network}.0/20 via {via}"));
    }

    /// A card by its place in the list that was given.
    pub fn card(&self, n: usize) -> &Card {
        &self.cards[n]
    }
}

impl Card {
    /// A program on the side of the card.
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        inside(&self.namespace, program)
    }

    /// Runs `play` on the side of the card; its threads and sockets are there too.
    pub fn run<R: Send>(&self, play: impl FnOnce() -> R + Send) -> R {
        let namespace = File::open(format!("/run/netns/{}", self.namespace)).unwrap();
        std::thread::scope(|scope| {
            let played = scope.spawn(move || {
                move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
                play()
            });
            played.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    /// Sets the card's address, as the firmware does with what DHCP gave it.
    pub fn configure(&self, address: &str) {
        ip(&format!("-n {} address replace {address}/20 dev eth0", self.namespace));
    }

    /// Sends what is for other networks to this router.
    pub fn gateway(&self, router: &str) {
        ip(&format!("-n {} route replace default via {router} dev eth0", self.namespace));
    }

    /// Has the card's machine at home at each address of a network, as if it were that many machines.
    pub fn crowd(&self, network: &str) {
        ip(&format!("-n {} route add local {network} dev lo", self.namespace));
    }

    /// Pulls or plugs the card, which loses its address: the machine in QEMU has the same one.
    pub fn plug(&self, plugged: bool) {
        ip(&format!("-n {} address flush dev eth0", self.namespace));
        ip(&format!("-n {} link set eth0 {}", self.namespace, if plugged { "up" } else { "down" }));
    }
}

fn ip(line: &str) {
    run("ip", line.split(' '));
}

fn inside(namespace: &str, program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new(which("ip").expect("checked by the tier"));
    command.args(["netns", "exec", namespace]).arg(program);
    command
}

impl Drop for Net {
    fn drop(&mut self) {
        for name in self.cards.iter().map(|card| &card.namespace).chain([&self.server]) {
            // A test that failed early has perhaps not made all.
            let _ = Command::new("ip").args(["netns", "del", name]).output();
        }
    }
}
