//! A network of its own for a test: a switch with the server on it, a tap for a machine in QEMU, and a
//! cable to a card that the simulated firmware plays.
//! Must not know: what is served, what is tested.
//! Spec: ip-netns(8), veth(4).
//!
//! ```text
//! namespace gt<pid><name>s                       namespace gt<pid><name>p
//!   br0 10.4.0.10/20 ── tap0 (QEMU)
//!        └── cable ─────────────────────────────── eth0 (the node's card)
//! ```

use std::fs::File;
use std::os::fd::AsFd;
use std::process::Command;

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use super::{run, which};

/// The server's address on this network; the real cluster's Allyrion has it too.
pub const SERVER: &str = "10.4.0.10";

/// Two namespaces; gone when dropped.
pub struct Net {
    server: String,
    pi: String,
}

impl Net {
    /// `card` is the MAC address of the card that firmware plays.
    pub fn new(name: &str, card: &str) -> Net {
        let stem = format!("gt{}{name}", std::process::id());
        let net = Net { server: format!("{stem}s"), pi: format!("{stem}p") };
        let ip = |line: &str| run("ip", line.split(' '));
        let (s, p) = (&net.server, &net.pi);
        ip(&format!("netns add {s}"));
        ip(&format!("netns add {p}"));
        ip(&format!("-n {s} link set lo up"));
        ip(&format!("-n {p} link set lo up"));
        ip(&format!("-n {s} link add br0 type bridge"));
        ip(&format!("-n {s} address add {SERVER}/20 dev br0"));
        ip(&format!("-n {s} tuntap add tap0 mode tap"));
        ip(&format!("-n {s} link add cable type veth peer name eth0 address {card} netns {p}"));
        for port in ["tap0", "cable"] {
            ip(&format!("-n {s} link set {port} master br0"));
            ip(&format!("-n {s} link set {port} up"));
        }
        ip(&format!("-n {s} link set br0 up"));
        ip(&format!("-n {p} link set eth0 up"));
        net
    }

    /// A program on the server's side.
    pub fn command(&self, program: &str) -> Command {
        let mut command = Command::new(which("ip").expect("checked by the tier"));
        command.args(["netns", "exec", &self.server, program]);
        command
    }

    /// Runs `play` on the side of the card; its threads and sockets are there too.
    pub fn on_the_card<R: Send>(&self, play: impl FnOnce() -> R + Send) -> R {
        let namespace = File::open(format!("/run/netns/{}", self.pi)).unwrap();
        std::thread::scope(|scope| {
            let played = scope.spawn(move || {
                move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
                play()
            });
            played.join().unwrap()
        })
    }

    /// Sets the card's address, as the firmware does with what DHCP gave it.
    pub fn configure(&self, address: &str) {
        run("ip", ["-n", &self.pi, "address", "replace", &format!("{address}/20"), "dev", "eth0"]);
    }

    /// Pulls or plugs the card: the machine in QEMU has the same one.
    pub fn plug(&self, plugged: bool) {
        run("ip", ["-n", &self.pi, "address", "flush", "dev", "eth0"]);
        run("ip", ["-n", &self.pi, "link", "set", "eth0", if plugged { "up" } else { "down" }]);
    }
}

impl Drop for Net {
    fn drop(&mut self) {
        for name in [&self.server, &self.pi] {
            // A test that failed early has perhaps made only one.
            let _ = Command::new("ip").args(["netns", "del", name]).output();
        }
    }
}
