//! dnsmasq in a test's network: a foreign server of addresses or of files.
//! Must not know: what is tested.
//! Spec: dnsmasq(8).

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

/// A dnsmasq that is ready; killed when dropped.
pub struct Dnsmasq(Child);

impl Dnsmasq {
    /// `command` runs it where it is to be; it is ready when its log has `ready`.
    pub fn start(mut command: Command, args: &[&str], ready: &str) -> Dnsmasq {
        let mut child = command
            .args(["--no-daemon", "--conf-file=/dev/null", "--port=0", "--user=root"])
            .args(args)
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut log = BufReader::new(child.stderr.take().unwrap()).lines();
        let dnsmasq = Dnsmasq(child);
        let mut seen = Vec::new();
        while !seen.last().is_some_and(|line: &String| line.contains(ready)) {
            seen.push(log.next().unwrap_or_else(|| panic!("dnsmasq ended: {seen:#?}")).unwrap());
        }
        // Whoever writes to a pipe that nobody reads is held up, or killed.
        std::thread::spawn(move || log.for_each(drop));
        dnsmasq
    }

    /// `ip netns exec` becomes the program, so this is its process.
    pub fn process(&self) -> u32 {
        self.0.id()
    }
}

impl Drop for Dnsmasq {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
