//! All sockets of the server, bound before anything else is done: by us, or by systemd.
//! Must not know: what is said over them.
//! Spec: design.md sections 11 and 13; sd_listen_fds(3) for names: `dhcp`, `tftp`, `nfs`, `mount`,
//! `mount-udp`, `portmap`, `portmap-udp`, `http`.

use std::collections::BTreeMap;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpListener, UdpSocket};
use std::os::fd::OwnedFd;

use gt_netboot::dhcp;
use rustix::process::{Pid, PidfdFlags, PidfdGetfdFlags};

/// Which sockets are wanted. Port 0 is any that is free.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    /// Where TFTP, NFS, MOUNT, portmapper and HTTP listen. DHCP listens everywhere, for broadcasts
    /// come to no socket with an address.
    pub address: Ipv4Addr,
    /// The interface that DHCP is bound to.
    pub interface: Option<String>,
    /// DHCP's port; none for no DHCP.
    pub dhcp: Option<u16>,
    /// TFTP's port.
    pub tftp: u16,
    /// NFS's port.
    pub nfs: u16,
    /// MOUNT's port, TCP and UDP.
    pub mount: u16,
    /// The portmapper's port, TCP and UDP.
    pub portmap: u16,
    /// The HTTP API.
    pub http: SocketAddr,
}

/// The bound sockets.
#[derive(Debug)]
pub struct Sockets {
    /// DHCP.
    pub dhcp: Option<dhcp::Sockets>,
    /// TFTP.
    pub tftp: UdpSocket,
    /// NFS.
    pub nfs: TcpListener,
    /// MOUNT.
    pub mount: TcpListener,
    /// MOUNT over UDP.
    pub mount_udp: UdpSocket,
    /// Portmapper.
    pub portmap: TcpListener,
    /// Portmapper over UDP.
    pub portmap_udp: UdpSocket,
    /// The HTTP API.
    pub http: TcpListener,
}

/// A socket that could not be had.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SocketError {
    /// Another program has the port.
    #[error("{protocol} port {port}, for {what}, is in use by another program")]
    InUse {
        /// `TCP` or `UDP`.
        protocol: &'static str,
        /// The port.
        port: u16,
        /// What it is for.
        what: &'static str,
    },
    /// A port below 1024 without the right to it.
    #[error("{protocol} port {port}, for {what}, needs the right to take ports below 1024")]
    Denied {
        /// `TCP` or `UDP`.
        protocol: &'static str,
        /// The port.
        port: u16,
        /// What it is for.
        what: &'static str,
    },
    /// Another reason.
    #[error("taking {protocol} {address} for {what}")]
    Io {
        /// `TCP` or `UDP`.
        protocol: &'static str,
        /// The address.
        address: SocketAddr,
        /// What it is for.
        what: &'static str,
        /// What the system says.
        source: io::Error,
    },
    /// DHCP's socket.
    #[error("taking the port for DHCP")]
    Dhcp(#[source] dhcp::BindError),
    /// systemd's sockets cannot be taken over.
    #[error("taking over the sockets of systemd")]
    Systemd(#[source] io::Error),
}

impl SocketError {
    /// What the owner can do: who usually has the port, and the option that moves ours.
    pub fn hint(&self) -> Option<String> {
        let (protocol, port, what, in_use) = match self {
            SocketError::InUse { protocol, port, what } => (protocol, port, what, true),
            SocketError::Denied { protocol, port, what } => (protocol, port, what, false),
            SocketError::Dhcp(_) => {
                return Some("`--dhcp-port N` moves it, `--dhcp off` leaves it out".into());
            }
            SocketError::Io { .. } => return Some("`ip -4 address` lists this machine's addresses".into()),
            SocketError::Systemd(_) => return None,
        };
        let flag = match *what {
            "TFTP" => "--tftp-port N",
            "NFS" => "--nfs-port N",
            "MOUNT" => "--mount-port N",
            "the portmapper" => "--portmap-port N",
            _ => "--http ADDRESS:PORT",
        };
        if !in_use {
            return Some(format!("run as root or with CAP_NET_BIND_SERVICE, or move it with `{flag}`"));
        }
        let owner = match (*what, port) {
            ("the portmapper", 111) => "`systemctl disable --now rpcbind.socket rpcbind.service`",
            ("TFTP", 69) => "`systemctl disable --now tftpd-hpa`, or `dnsmasq` without `enable-tftp`",
            ("NFS", 2049) => "`systemctl disable --now nfs-server`",
            _ => "stop that program",
        };
        let letter = if *protocol == "UDP" { 'u' } else { 't' };
        Some(format!("`ss -{letter}lpn sport = :{port}` names it: {owner}, or move ours with `{flag}`"))
    }
}

/// Takes what systemd gives and binds the rest.
///
/// # Errors
/// [`SocketError`] for the first that cannot be had.
pub fn bind(wanted: &Wanted) -> Result<Sockets, SocketError> {
    let mut given = Given(from_systemd().map_err(SocketError::Systemd)?);
    let at = |port| SocketAddr::V4(SocketAddrV4::new(wanted.address, port));
    let dhcp = match (wanted.dhcp, given.udp("dhcp")) {
        (None, _) => None,
        (Some(_), Some(server)) => Some(dhcp::Sockets { server, client: None }),
        (Some(port), None) => {
            let ports = dhcp::Ports::at(port);
            let bound = dhcp::Sockets::bind(Ipv4Addr::UNSPECIFIED, ports, wanted.interface.as_deref());
            Some(bound.map_err(SocketError::Dhcp)?)
        }
    };
    let tftp = given.udp("tftp").map_or_else(|| udp(at(wanted.tftp), "TFTP"), Ok)?;
    let nfs = given.tcp("nfs").map_or_else(|| tcp(at(wanted.nfs), "NFS"), Ok)?;
    let (mount, mount_udp) = both(&mut given, ["mount", "mount-udp"], at(wanted.mount), "MOUNT")?;
    let names = ["portmap", "portmap-udp"];
    let (portmap, portmap_udp) = both(&mut given, names, at(wanted.portmap), "the portmapper")?;
    let http = given.tcp("http").map_or_else(|| tcp(wanted.http, "the HTTP API"), Ok)?;
    Ok(Sockets { dhcp, tftp, nfs, mount, mount_udp, portmap, portmap_udp, http })
}

impl Sockets {
    /// Every socket's name and address, for the `ready` line.
    ///
    /// # Errors
    /// Those of getsockname(2).
    pub fn addresses(&self) -> io::Result<Vec<(&'static str, SocketAddr)>> {
        let mut all = Vec::new();
        if let Some(dhcp) = &self.dhcp {
            all.push(("dhcp", dhcp.server.local_addr()?));
        }
        all.extend([
            ("tftp", self.tftp.local_addr()?),
            ("nfs", self.nfs.local_addr()?),
            ("mount", self.mount.local_addr()?),
            ("portmap", self.portmap.local_addr()?),
            ("http", self.http.local_addr()?),
        ]);
        Ok(all)
    }
}

fn udp(address: SocketAddr, what: &'static str) -> Result<UdpSocket, SocketError> {
    UdpSocket::bind(address).map_err(|source| failed("UDP", address, what, source))
}

fn tcp(address: SocketAddr, what: &'static str) -> Result<TcpListener, SocketError> {
    TcpListener::bind(address).map_err(|source| failed("TCP", address, what, source))
}

/// The same port for TCP and UDP, for a portmapper names one for both.
fn both(
    given: &mut Given,
    names: [&str; 2],
    address: SocketAddr,
    what: &'static str,
) -> Result<(TcpListener, UdpSocket), SocketError> {
    let mut last = None;
    // Any free TCP port may be taken for UDP, but hardly eight of them.
    for _ in 0..8 {
        let listener = given.tcp(names[0]).map_or_else(|| tcp(address, what), Ok)?;
        let at = listener.local_addr().map_err(|source| failed("TCP", address, what, source))?;
        let same = SocketAddr::new(address.ip(), at.port());
        match given.udp(names[1]).map_or_else(|| udp(same, what), Ok) {
            Ok(socket) => return Ok((listener, socket)),
            Err(error) if address.port() != 0 => return Err(error),
            Err(error) => last = Some(error),
        }
    }
    // The loop ran, so there was an error.
    Err(last.unwrap_or_else(|| failed("UDP", address, what, io::ErrorKind::AddrInUse.into())))
}

fn failed(protocol: &'static str, address: SocketAddr, what: &'static str, source: io::Error) -> SocketError {
    let port = address.port();
    match source.kind() {
        io::ErrorKind::AddrInUse => SocketError::InUse { protocol, port, what },
        io::ErrorKind::PermissionDenied => SocketError::Denied { protocol, port, what },
        _ => SocketError::Io { protocol, address, what, source },
    }
}

/// Sockets of systemd, by name.
struct Given(BTreeMap<String, OwnedFd>);

impl Given {
    fn udp(&mut self, name: &str) -> Option<UdpSocket> {
        self.0.remove(name).map(UdpSocket::from)
    }

    fn tcp(&mut self, name: &str) -> Option<TcpListener> {
        self.0.remove(name).map(TcpListener::from)
    }
}

fn from_systemd() -> io::Result<BTreeMap<String, OwnedFd>> {
    let mut all = BTreeMap::new();
    let Ok(passed) = sd_notify::listen_fds_with_names() else { return Ok(all) };
    let Some(this) = Pid::from_raw(std::process::id().cast_signed()) else { return Ok(all) };
    for (fd, name) in passed {
        // A bare number cannot be owned without `unsafe`; the kernel gives another one for the same
        // socket, which is ours.
        let process = rustix::process::pidfd_open(this, PidfdFlags::empty())?;
        all.insert(name, rustix::process::pidfd_getfd(process, fd, PidfdGetfdFlags::empty())?);
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    pub(crate) fn wanted() -> Wanted {
        Wanted {
            address: Ipv4Addr::LOCALHOST,
            interface: None,
            dhcp: Some(0),
            tftp: 0,
            nfs: 0,
            mount: 0,
            portmap: 0,
            http: "127.0.0.1:0".parse().unwrap(),
        }
    }

    #[test]
    fn any_port_is_a_real_one_and_tcp_and_udp_agree() {
        let sockets = bind(&wanted()).unwrap();
        let addresses = sockets.addresses().unwrap();
        assert!(addresses.iter().all(|(_, address)| address.port() != 0), "{addresses:?}");
        assert_eq!(addresses.len(), 6);
        for (tcp, udp) in [(&sockets.mount, &sockets.mount_udp), (&sockets.portmap, &sockets.portmap_udp)] {
            assert_eq!(tcp.local_addr().unwrap().port(), udp.local_addr().unwrap().port());
        }
        assert!(bind(&Wanted { dhcp: None, ..wanted() }).unwrap().dhcp.is_none());
    }

    #[test]
    fn a_port_in_use_is_told_with_what_moves_ours() {
        let other = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = other.local_addr().unwrap().port();
        let error = bind(&Wanted { nfs: port, ..wanted() }).unwrap_err();
        assert!(error.to_string().contains(&format!("TCP port {port}, for NFS")), "{error}");
        let hint = error.hint().unwrap();
        assert!(hint.contains("--nfs-port") && hint.contains("ss -tlpn"), "{hint}");
        let other = UdpSocket::bind("127.0.0.1:0").unwrap();
        let port = other.local_addr().unwrap().port();
        let error = bind(&Wanted { tftp: port, ..wanted() }).unwrap_err();
        assert!(error.hint().unwrap().contains("--tftp-port"), "{error}");
        let error = bind(&Wanted { address: Ipv4Addr::new(192, 0, 2, 1), ..wanted() }).unwrap_err();
        assert!(matches!(error, SocketError::Io { .. }), "{error}");
    }
}
