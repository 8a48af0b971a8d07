//! Who holds the server's ports on this machine.
//! Must not know: other machines.
//! Spec: proc(5), /proc/net/udp and /proc/net/tcp.

use std::fs;
use std::io;
use std::net::Ipv4Addr;

use super::{Finding, Ports};

/// UDP or TCP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// UDP
    Udp,
    /// TCP
    Tcp,
}

/// A port that the server needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// UDP or TCP.
    pub transport: Transport,
    /// The port.
    pub port: u16,
    /// What it is for.
    pub service: &'static str,
}

/// One socket of this machine that waits for packets or connections.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Socket {
    /// UDP or TCP.
    pub transport: Transport,
    /// Its address, where it is IPv4; unspecified for all of IPv6.
    pub address: Ipv4Addr,
    /// Its port.
    pub port: u16,
    /// Its inode, by which a process is found; 0 for the kernel's own.
    pub inode: u64,
    /// The process that has it.
    pub owner: Option<Owner>,
}

/// A process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Owner {
    /// Its id.
    pub pid: u32,
    /// Its name, cut to 15 bytes by the kernel.
    pub name: String,
}

/// All ports that the server needs.
pub fn wanted(ports: &Ports) -> Vec<Wanted> {
    use Transport::{Tcp, Udp};
    let mut wanted: Vec<Wanted> = [
        (Udp, ports.dhcp, "DHCP"),
        (Udp, Some(ports.tftp), "TFTP"),
        (Udp, Some(ports.portmap), "portmapper"),
        (Tcp, Some(ports.portmap), "portmapper"),
        (Tcp, Some(ports.nfs), "NFS"),
        (Tcp, Some(ports.mount).filter(|mount| *mount != ports.nfs), "MOUNT"),
        (Tcp, Some(ports.http), "HTTP"),
    ]
    .into_iter()
    .filter_map(|(transport, port, service)| Some(Wanted { transport, port: port?, service }))
    .collect();
    wanted.dedup();
    wanted
}

/// Every socket that waits, with its owner where this user may see it.
///
/// # Errors
/// If /proc/net/udp and /proc/net/tcp cannot be read; those of IPv6 may be missing.
pub fn look() -> io::Result<Vec<Socket>> {
    let mut sockets = vec![];
    for (name, transport, must) in [
        ("udp", Transport::Udp, true),
        ("tcp", Transport::Tcp, true),
        ("udp6", Transport::Udp, false),
        ("tcp6", Transport::Tcp, false),
    ] {
        // Of this thread's network namespace: /proc/net is that of the process's first thread.
        match fs::read_to_string(format!("/proc/thread-self/net/{name}")) {
            Ok(table) => sockets.extend(read(&table, transport)),
            Err(e) if must => return Err(e),
            Err(_) => {}
        }
    }
    find_owners(&mut sockets);
    Ok(sockets)
}

/// Reads a table of /proc/net. Of TCP only listeners (state 0A), of UDP all: 07 is not connected, 01 is
/// connected and keeps others from the port as well. Lines that are none are left out.
pub fn read(table: &str, transport: Transport) -> Vec<Socket> {
    table.lines().skip(1).filter_map(|line| read_line(line, transport)).collect()
}

fn read_line(line: &str, transport: Transport) -> Option<Socket> {
    let fields: Vec<&str> = line.split_ascii_whitespace().collect();
    let (address, port) = fields.get(1)?.split_once(':')?;
    let port = u16::from_str_radix(port, 16).ok()?;
    if transport == Transport::Tcp && *fields.get(3)? != "0A" {
        return None;
    }
    // The kernel prints the address as one number in the machine's own order.
    let address = match address.len() {
        8 => Ipv4Addr::from(u32::from_str_radix(address, 16).ok()?.to_ne_bytes()),
        _ => Ipv4Addr::UNSPECIFIED,
    };
    let inode = fields.get(9)?.parse().ok()?;
    Some(Socket { transport, address, port, inode, owner: None })
}

/// Looks through /proc/*/fd; other users' processes show theirs only to root.
fn find_owners(sockets: &mut [Socket]) {
    let Ok(processes) = fs::read_dir("/proc") else { return };
    for process in processes.flatten() {
        let Some(pid) = process.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        let Ok(files) = fs::read_dir(process.path().join("fd")) else { continue };
        for link in files.flatten().filter_map(|file| fs::read_link(file.path()).ok()) {
            let inode = link.to_str().and_then(socket_inode);
            for socket in sockets.iter_mut().filter(|socket| Some(socket.inode) == inode) {
                let name = fs::read_to_string(process.path().join("comm")).unwrap_or_default();
                socket.owner = Some(Owner { pid, name: name.trim_end().to_owned() });
            }
        }
    }
}

/// `socket:[1214]`
fn socket_inode(link: &str) -> Option<u64> {
    link.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok()
}

/// Each port that is wanted is free, or `program` has it.
pub fn check(wanted: &[Wanted], sockets: &[Socket], program: &str) -> Vec<Finding> {
    wanted.iter().map(|wanted| check_one(*wanted, sockets, program)).collect()
}

fn check_one(wanted: Wanted, sockets: &[Socket], program: &str) -> Finding {
    let transport = if wanted.transport == Transport::Udp { "UDP" } else { "TCP" };
    let subject = format!("{transport} port {} ({})", wanted.port, wanted.service);
    let holders: Vec<&Socket> = sockets
        .iter()
        .filter(|socket| (socket.transport, socket.port) == (wanted.transport, wanted.port))
        .collect();
    // The kernel keeps 15 bytes of a name.
    let short = program.get(..15).unwrap_or(program);
    let is_ours = |socket: &&&Socket| socket.owner.as_ref().is_some_and(|owner| owner.name == short);
    if let Some(owner) = holders.iter().find(is_ours).and_then(|socket| socket.owner.as_ref()) {
        return Finding::good(subject, format!("{} (process {})", owner.name, owner.pid));
    }
    let Some(holder) = holders.first() else { return Finding::good(subject, "free") };
    let expected = format!("free, or held by `{program}`");
    match &holder.owner {
        Some(Owner { pid, name }) => {
            let found = format!("held by `{name}` (process {pid}) on {}", holder.address);
            Finding::fault(subject, found, expected, remedy(name, *pid, wanted))
        }
        None if wanted.service == "NFS" && holder.inode == 0 => Finding::fault(
            subject,
            "held by the kernel's own NFS server",
            expected,
            "run `sudo systemctl disable --now nfs-server`",
        ),
        None => Finding::fault(
            subject,
            format!("held by a process that this user may not see, on {}", holder.address),
            expected,
            format!("run `sudo ss -lntup sport = :{}` to see whose it is", wanted.port),
        ),
    }
}

/// The command that frees a port from the programs that are known to hold it.
fn remedy(name: &str, pid: u32, wanted: Wanted) -> String {
    let units = match name {
        "systemd" => match wanted.service {
            "portmapper" => "rpcbind.socket rpcbind.service",
            _ => return format!("run `systemctl list-sockets` to see which unit has port {}", wanted.port),
        },
        "rpcbind" => "rpcbind.socket rpcbind.service",
        "in.tftpd" => "tftpd-hpa",
        "atftpd" => "atftpd",
        "dnsmasq" => "dnsmasq",
        "dhcpd" => "isc-dhcp-server",
        "kea-dhcp4" => "kea-dhcp4-server",
        "ganesha.nfsd" => "nfs-ganesha",
        _ => return format!("end process {pid} (`{name}`), or give the server another port"),
    };
    format!("run `sudo systemctl disable --now {units}`, or give the server another port")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::doctor::State;

    const UDP: &str = "\
   sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode ref pointer drops
  115: 00000000:0043 00000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 28411 2 0000000000000000 0
  204: 0A00040A:0045 00000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 30117 2 0000000000000000 0
";
    const TCP: &str = "\
  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 00000000:0801 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 0 1 0000 100 0 0 10 0
   1: 0100007F:982C 0100007F:1F90 01 00000000:00000000 03:000005B1 00000000     0        0 3 3 0000
";

    fn owned(mut socket: Socket, name: &str) -> Socket {
        socket.owner = Some(Owner { pid: 812, name: name.into() });
        socket
    }

    #[test]
    fn tables_of_the_kernel() {
        let udp = read(UDP, Transport::Udp);
        assert_eq!(
            udp.iter().map(|socket| (socket.port, socket.inode)).collect::<Vec<_>>(),
            [(67, 28411), (69, 30117)]
        );
        if cfg!(target_endian = "little") {
            assert_eq!(udp[1].address, Ipv4Addr::new(10, 4, 0, 10));
        }
        let tcp = read(TCP, Transport::Tcp);
        assert_eq!(tcp.len(), 1, "a connection is no listener");
        assert_eq!((tcp[0].port, tcp[0].inode), (2049, 0));
        let six = "head\n 0: 00000000000000000000000000000000:006F 00000000000000000000000000000000:0000 0A 0:0 00:0 0 0 0 77 1\n";
        assert_eq!(read(six, Transport::Tcp)[0].port, 111);
        assert_eq!(socket_inode("socket:[1214]"), Some(1214));
        assert_eq!(socket_inode("/dev/null"), None);
    }

    #[test]
    fn own_sockets_are_found_with_their_owner() {
        let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let port = socket.local_addr().unwrap().port();
        let found = look().unwrap();
        let ours = found.iter().find(|s| s.port == port && s.transport == Transport::Udp).unwrap();
        assert_eq!(ours.owner.as_ref().unwrap().pid, std::process::id());
        assert_eq!(ours.address, Ipv4Addr::LOCALHOST);
    }

    #[test]
    fn who_holds_what() {
        let udp = read(UDP, Transport::Udp);
        let tcp = read(TCP, Transport::Tcp);
        let dhcp = Wanted { transport: Transport::Udp, port: 67, service: "DHCP" };
        let nfs = Wanted { transport: Transport::Tcp, port: 2049, service: "NFS" };
        let tftp = Wanted { transport: Transport::Udp, port: 69, service: "TFTP" };
        for (wanted, sockets, state, found, hint) in [
            (dhcp, vec![], State::Good, "free", ""),
            (dhcp, vec![owned(udp[0].clone(), "gt-image")], State::Good, "gt-image (process 812)", ""),
            (
                dhcp,
                vec![owned(udp[0].clone(), "dnsmasq")],
                State::Fault,
                "held by `dnsmasq` (process 812)",
                "--now dnsmasq`",
            ),
            (dhcp, vec![udp[0].clone()], State::Fault, "may not see", "sudo ss -lntup"),
            (tftp, vec![owned(udp[1].clone(), "in.tftpd")], State::Fault, "in.tftpd", "tftpd-hpa"),
            (tftp, vec![owned(udp[1].clone(), "odd")], State::Fault, "odd", "end process 812"),
            (nfs, tcp.clone(), State::Fault, "kernel's own NFS", "nfs-server"),
            (tftp, vec![udp[0].clone()], State::Good, "free", ""),
        ] {
            let finding = &check(&[wanted], &sockets, "gt-image")[0];
            assert_eq!(finding.state, state, "{finding:?}");
            assert!(finding.found.contains(found), "{finding:?}");
            assert!(finding.hint.as_deref().unwrap_or_default().contains(hint), "{finding:?}");
        }
    }

    #[test]
    fn all_services_are_looked_at_once() {
        let all = wanted(&Ports::default());
        assert_eq!(all.len(), 6, "MOUNT shares NFS's port");
        let off = wanted(&Ports { dhcp: None, mount: 20048, ..Ports::default() });
        assert!(off.iter().all(|wanted| wanted.service != "DHCP"));
        assert!(off.iter().any(|wanted| wanted.service == "MOUNT"));
    }

    proptest! {
        #[test]
        fn no_text_panics(text in "(sl\n)?( *[0-9A-F:]{0,14} ?){0,14}\n.{0,40}") {
            read(&text, Transport::Udp);
            read(&text, Transport::Tcp);
        }
    }
}
