//! The sockets of the DHCP server.
//! Must not know: what is said over them.
//! Spec: RFC 2131 section 4.1 (ports), socket(7).

use std::io;
use std::net::{Ipv4Addr, SocketAddrV4, UdpSocket};

use socket2::{Domain, Protocol, Socket, Type};

/// The ports of both sides.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ports {
    /// Of servers and relay agents.
    pub server: u16,
    /// Of clients.
    pub client: u16,
}

impl Ports {
    /// A server port and the next one, as 67 and 68 are.
    pub fn at(server: u16) -> Ports {
        Ports { server, client: server.wrapping_add(1) }
    }
}

impl Default for Ports {
    fn default() -> Ports {
        Ports::at(67)
    }
}

/// The bound sockets.
#[derive(Debug)]
pub struct Sockets {
    /// Receives requests and sends replies.
    pub server: UdpSocket,
    /// Overhears what other servers tell everyone, if that port could be had.
    pub client: Option<UdpSocket>,
}

/// Why the server's port could not be had.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BindError {
    /// Another program has it and does not share it.
    #[error(
        "UDP port {port} is in use; `ss -ulpn sport = :{port}` names the program: stop it, or choose another port"
    )]
    InUse {
        /// The port.
        port: u16,
    },
    /// A port below 1024 without the privilege.
    #[error(
        "not allowed to take UDP port {port}; run as root, or with CAP_NET_BIND_SERVICE, or choose one above 1023"
    )]
    Denied {
        /// The port.
        port: u16,
    },
    /// The address is not this machine's.
    #[error("{address} is no address of this machine; `ip -4 address` lists them")]
    Address {
        /// The address.
        address: Ipv4Addr,
    },
    /// The interface cannot be used.
    #[error("interface `{interface}` cannot be used; `ip link` lists them")]
    Interface {
        /// The interface.
        interface: String,
        /// What the kernel says.
        source: io::Error,
    },
    /// Something else.
    #[error("taking UDP port {port}")]
    Io {
        /// The port.
        port: u16,
        /// What the kernel says.
        source: io::Error,
    },
}

impl Sockets {
    /// Binds to `address`; with an interface, to that alone. A server that is to hear broadcasts needs
    /// `0.0.0.0` here, for Linux gives a broadcast only to sockets without an address.
    ///
    /// # Errors
    /// Those of the server's port. The client's is another program's by right (this machine may have a
    /// client of its own), so without it the server only hears less.
    pub fn bind(address: Ipv4Addr, ports: Ports, interface: Option<&str>) -> Result<Sockets, BindError> {
        let server = socket(SocketAddrV4::new(address, ports.server), interface)?;
        // Bound to the broadcast address it takes no unicast away from this machine's own client.
        let client = socket(SocketAddrV4::new(Ipv4Addr::BROADCAST, ports.client), interface);
        if let Err(error) = &client {
            tracing::debug!(%error, "offers of other servers are not overheard");
        }
        Ok(Sockets { server, client: client.ok() })
    }
}

fn socket(at: SocketAddrV4, interface: Option<&str>) -> Result<UdpSocket, BindError> {
    let port = at.port();
    let io = |source| BindError::Io { port, source };
    let socket = Socket::new(Domain::IPV4, Type::DGRAM, Some(Protocol::UDP)).map_err(io)?;
    socket.set_nonblocking(true).map_err(io)?;
    // A router's server on another interface of this machine may have the port too.
    socket.set_reuse_address(true).map_err(io)?;
    socket.set_broadcast(true).map_err(io)?;
    if let Some(name) = interface {
        let refused = |source| BindError::Interface { interface: name.to_owned(), source };
        socket.bind_device(Some(name.as_bytes())).map_err(refused)?;
    }
    socket.bind(&at.into()).map_err(|source| match source.kind() {
        io::ErrorKind::AddrInUse => BindError::InUse { port },
        io::ErrorKind::PermissionDenied => BindError::Denied { port },
        io::ErrorKind::AddrNotAvailable => BindError::Address { address: *at.ip() },
        _ => BindError::Io { port, source },
    })?;
    Ok(socket.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_that_is_taken_is_named_with_the_remedy() {
        let taken = UdpSocket::bind("127.0.0.1:0").unwrap();
        let port = taken.local_addr().unwrap().port();
        let error = Sockets::bind(Ipv4Addr::LOCALHOST, Ports::at(port), None).unwrap_err();
        assert!(matches!(error, BindError::InUse { port: p } if p == port), "{error:?}");
        assert!(error.to_string().contains(&format!("ss -ulpn sport = :{port}")), "{error}");
    }

    #[test]
    fn addresses_and_interfaces_that_are_not_here() {
        let elsewhere = Ipv4Addr::new(192, 0, 2, 1);
        let error = Sockets::bind(elsewhere, Ports { server: 0, client: 0 }, None).unwrap_err();
        assert!(matches!(error, BindError::Address { address } if address == elsewhere), "{error:?}");
        let error = Sockets::bind(Ipv4Addr::LOCALHOST, Ports { server: 0, client: 0 }, Some("no-such0"));
        assert!(matches!(error, Err(BindError::Interface { .. })), "{error:?}");
    }

    #[test]
    fn two_servers_that_share_may_have_one_port() {
        let first = Sockets::bind(Ipv4Addr::LOCALHOST, Ports { server: 0, client: 0 }, None).unwrap();
        let port = first.server.local_addr().unwrap().port();
        assert!(Sockets::bind(Ipv4Addr::LOCALHOST, Ports { server: port, client: 0 }, None).is_ok());
        assert!(first.server.broadcast().unwrap());
    }
}
