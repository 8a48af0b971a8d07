//! Whether the server's address is on the right interface, and whether that has a cable.
//! Must not know: ports, packets.
//! Spec: `ip -o link` and `ip -o -4 addr` of iproute2, ip-link(8). /sys is not asked: it may show another
//! network namespace's interfaces.

use std::io;
use std::net::Ipv4Addr;
use std::process::Command;

use super::Finding;

/// One interface.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Interface {
    /// Its name.
    pub name: String,
    /// Its flags, such as `UP` and `LOWER_UP`.
    pub flags: Vec<String>,
    /// Its IPv4 addresses.
    pub addresses: Vec<Ipv4Addr>,
}

impl Interface {
    /// True if it has this address.
    pub fn has(&self, address: Ipv4Addr) -> bool {
        self.addresses.contains(&address)
    }

    fn flag(&self, name: &str) -> bool {
        self.flags.iter().any(|flag| flag == name)
    }
}

/// Asks `ip`.
///
/// # Errors
/// If it cannot be run.
pub fn look() -> io::Result<Vec<Interface>> {
    let run = |arguments: &[&str]| {
        let output = Command::new("ip").args(arguments).output()?;
        Ok::<_, io::Error>(String::from_utf8_lossy(&output.stdout).into_owned())
    };
    Ok(read(&run(&["-o", "link"])?, &run(&["-o", "-4", "addr"])?))
}

/// Reads `2: eth0: <BROADCAST,UP,LOWER_UP> …` and `2: eth0    inet 10.4.0.10/20 …`.
pub fn read(links: &str, addresses: &str) -> Vec<Interface> {
    let mut interfaces: Vec<Interface> = links.lines().filter_map(read_link).collect();
    for line in addresses.lines() {
        let words: Vec<&str> = line.split_ascii_whitespace().collect();
        let [_, name, "inet", address, ..] = words.as_slice() else { continue };
        let address: Option<Ipv4Addr> = address.split('/').next().and_then(|address| address.parse().ok());
        if let Some(interface) = interfaces.iter_mut().find(|interface| interface.name == *name) {
            interface.addresses.extend(address);
        }
    }
    interfaces
}

fn read_link(line: &str) -> Option<Interface> {
    let (_, rest) = line.split_once(": ")?;
    let (name, rest) = rest.split_once(": <")?;
    let (flags, _) = rest.split_once('>')?;
    // `eth0@if7` is one end of a pair.
    let name = name.split('@').next()?.to_owned();
    Some(Interface { name, flags: flags.split(',').map(str::to_owned).collect(), addresses: vec![] })
}

/// On a machine that is not the server's: all that counts is the interface that was named, if one was.
pub fn check_far(interfaces: &[Interface], named: Option<&str>) -> Vec<Finding> {
    let Some(name) = named else { return vec![] };
    let found = interfaces.iter().find(|interface| interface.name == name);
    vec![found.map_or_else(|| no_such(interfaces, name), check_link)]
}

fn no_such(interfaces: &[Interface], name: &str) -> Finding {
    let names: Vec<&str> = interfaces.iter().map(|interface| interface.name.as_str()).collect();
    let hint = "name one of these with `--interface`";
    let subject = format!("interface `{name}`");
    Finding::fault(subject, format!("none of {names:?}"), "an interface of this machine", hint)
}

/// The server's address is here, on the interface that was named, which is up and has a carrier.
pub fn check(interfaces: &[Interface], server: Ipv4Addr, named: Option<&str>) -> Vec<Finding> {
    let mut findings = vec![];
    let holder = interfaces.iter().find(|interface| interface.has(server));
    let named = named.map(|name| (name, interfaces.iter().find(|interface| interface.name == name)));
    if let Some((name, None)) = named {
        return vec![no_such(interfaces, name)];
    }
    let subject = format!("the server's address {server}");
    match (holder, named) {
        (None, named) => {
            let on = named.map_or("INTERFACE", |(name, _)| name);
            let hint = format!(
                "where another machine is the server, switch it on and run `gt-image doctor` there; else run `sudo ip address add {server}/PREFIX dev {on}`, or mend `server` under `[network]` in `cluster.toml`"
            );
            let found = "on no interface of this machine, and no other answers there";
            findings.push(Finding::fault(subject, found, "on one", hint));
        }
        (Some(holder), Some((name, _))) if holder.name != name => {
            let hint = format!("run `gt-image serve --interface {}`", holder.name);
            let found = format!("on `{}`, and `{name}` is served", holder.name);
            findings.push(Finding::fault(subject, found, "on the interface that is served", hint));
        }
        (Some(holder), _) => findings.push(Finding::good(subject, format!("on `{}`", holder.name))),
    }
    let served = named.and_then(|(_, interface)| interface).or(holder);
    findings.extend(served.map(check_link));
    findings
}

fn check_link(interface: &Interface) -> Finding {
    let name = &interface.name;
    let subject = format!("interface `{name}`");
    if !interface.flag("UP") {
        let hint = format!("run `sudo ip link set {name} up`");
        return Finding::fault(subject, "down", "up", hint);
    }
    if !interface.flag("LOWER_UP") {
        let hint = format!("plug the cable of `{name}` in at both ends, and look at the switch's light");
        return Finding::fault(subject, "up, without carrier", "up, with carrier", hint);
    }
    if interface.flag("LOOPBACK") {
        return Finding::advice(
            subject,
            "loopback: no Pi is there",
            "the wired interface of the nodes' network",
            "set `server` under `[network]` in `cluster.toml` to this machine's address on that network",
        );
    }
    Finding::good(subject, "up, with carrier")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::State;

    const LINKS: &str = "\
1: lo: <LOOPBACK,UP,LOWER_UP> mtu 65536 qdisc noqueue state UNKNOWN mode DEFAULT group default qlen 1000\\    link/loopback
2: eth0: <BROADCAST,MULTICAST,UP,LOWER_UP> mtu 1500 qdisc mq state UP mode DEFAULT group default qlen 1000\\    link/ether
3: eth1@if9: <NO-CARRIER,BROADCAST,MULTICAST,UP> mtu 1500 qdisc mq state DOWN mode DEFAULT group default qlen 1000\\    link/ether
4: wlan0: <BROADCAST,MULTICAST> mtu 1500 qdisc noop state DOWN mode DEFAULT group default qlen 1000\\    link/ether
";
    const ADDRESSES: &str = "\
1: lo    inet 127.0.0.1/8 scope host lo\\       valid_lft forever preferred_lft forever
2: eth0    inet 10.4.0.10/20 brd 10.4.15.255 scope global eth0\\       valid_lft forever preferred_lft forever
3: eth1    inet 10.5.0.1/24 scope global eth1\\       valid_lft forever preferred_lft forever
4: wlan0    inet 10.6.0.1/24 scope global wlan0\\       valid_lft forever preferred_lft forever
";

    #[test]
    fn what_is_wrong_is_named() {
        let interfaces = read(LINKS, ADDRESSES);
        assert_eq!(
            interfaces.iter().map(|i| i.name.as_str()).collect::<Vec<_>>(),
            ["lo", "eth0", "eth1", "wlan0"]
        );
        for (server, named, want) in [
            ("10.4.0.10", None, None),
            ("10.4.0.10", Some("eth0"), None),
            ("10.4.0.10", Some("eth1"), Some("gt-image serve --interface eth0")),
            ("10.4.0.11", None, Some("ip address add 10.4.0.11/PREFIX dev INTERFACE")),
            ("10.4.0.11", Some("eth0"), Some("dev eth0")),
            ("10.4.0.10", Some("eth7"), Some("--interface")),
            ("10.5.0.1", None, Some("cable of `eth1`")),
            ("10.6.0.1", None, Some("ip link set wlan0 up")),
        ] {
            let findings = check(&interfaces, server.parse().unwrap(), named);
            let faults: Vec<_> = findings.iter().filter(|f| f.state == State::Fault).collect();
            match want {
                None => assert!(faults.is_empty(), "{server} {named:?}: {faults:?}"),
                Some(want) => assert!(
                    faults.iter().any(|f| f.hint.as_ref().unwrap().contains(want)),
                    "{server} {named:?}: {faults:?}"
                ),
            }
        }
        let far = |named| check_far(&interfaces, named).iter().map(|f| f.state).collect::<Vec<_>>();
        assert_eq!(far(None), []);
        assert_eq!(far(Some("eth0")), [State::Good]);
        assert_eq!((far(Some("eth1")), far(Some("eth7"))), (vec![State::Fault], vec![State::Fault]));
        let loopback = check(&interfaces, Ipv4Addr::LOCALHOST, None);
        assert!(loopback.iter().any(|finding| finding.state == State::Advice));
    }

    #[test]
    fn odd_lines_are_left_out() {
        assert_eq!(read("1: x\n\n2: y: <UP", "5: z inet\n6: q inet nonsense/8"), []);
    }
}
