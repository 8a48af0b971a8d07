//! dnsmasq in a test's network: a foreign server of addresses, of files or of names.
//! Must not know: what is tested.
//! Spec: dnsmasq(8).

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};

/// A dnsmasq that is ready; killed when dropped.
pub struct Dnsmasq {
    child: Child,
    log: Arc<Mutex<Vec<String>>>,
}

impl Dnsmasq {
    /// `command` runs it where it is to be; it is ready when its log has `ready`. Names are served where the arguments
    /// have a `--port`.
    pub fn start(mut command: Command, args: &[&str], ready: &str) -> Dnsmasq {
        let mut child = command
            .args(["--no-daemon", "--conf-file=/dev/null", "--user=root"])
            .args((!args.iter().any(|word| word.starts_with("--port="))).then_some("--port=0"))
            .args(args)
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines().map_while(Result::ok);
        let dnsmasq = Dnsmasq { child, log: Arc::default() };
        let mut seen = Vec::new();
        while !seen.last().is_some_and(|line: &String| line.contains(ready)) {
            seen.push(lines.next().unwrap_or_else(|| panic!("dnsmasq ended: {seen:#?}")));
        }
        // Whoever writes to a pipe that nobody reads is held up, or killed.
        let log = Arc::clone(&dnsmasq.log);
        std::thread::spawn(move || lines.for_each(|line| log.lock().unwrap().push(line)));
        dnsmasq
    }

    /// What it has logged since it was ready.
    pub fn log(&self) -> String {
        self.log.lock().unwrap().join("\n")
    }

    /// `ip netns exec` becomes the program, so this is its process.
    pub fn process(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Dnsmasq {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
