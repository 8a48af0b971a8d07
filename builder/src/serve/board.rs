//! What the HTTP API asks of the server: the seam between its pages and the boots.
//! Must not know: HTTP, sockets.
//! Spec: design.md sections 7, 10 and 13.

use std::net::Ipv4Addr;

use gt_netboot::content::Content;
use tokio::sync::watch;

use super::status::Status;

/// The server as its HTTP API sees it. Calls are quick, but [`Board::ram_image`] may open a file, so
/// none belongs into a loop over requests that have not been limited.
pub trait Board: Send + Sync + 'static {
    /// Nodes, boots and strangers as they are now.
    fn status(&self) -> Status;

    /// A node that boots tells a step: `init`, `root`, `secrets`, `login`, or `failed` with why.
    /// `from` is the address that the request came from.
    fn step(&self, from: Ipv4Addr, node: &str, step: &str, detail: Option<&str>) -> Result<(), Refused>;

    /// The node's secrets, once for each boot. What the bytes are is between those who made them
    /// and the node; they are never logged.
    fn secrets(&self, from: Ipv4Addr, node: &str) -> Result<Vec<u8>, Refused>;

    /// The image of a node whose root is in memory.
    fn ram_image(&self, from: Ipv4Addr, node: &str) -> Result<Content, Refused>;

    /// Counters and gauges, in an order that stays.
    fn metrics(&self) -> Vec<Metric>;

    /// A number that grows with every change of [`Board::status`].
    fn changes(&self) -> watch::Receiver<u64>;
}

/// Why a request of a node gets nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Refused {
    /// No such node in the description.
    #[error("there is no such node")]
    NoNode,
    /// The request came from another address than the node's reservation.
    #[error("this address is not the node's")]
    Address,
    /// The node has not been seen to boot by DHCP, TFTP or MOUNT.
    #[error("the node is not booting")]
    NoBoot,
    /// What is given once for each boot was given already.
    #[error("it was given already in this boot")]
    Again,
    /// The time in which it is given has passed.
    #[error("the time for it has passed")]
    Late,
    /// The node's generation has none.
    #[error("the node's generation has none")]
    None,
    /// It should be there and could not be read; the log says why.
    #[error("it could not be read")]
    Broken,
}

/// One sample, as Prometheus's text format wants it.
#[derive(Clone, Debug, PartialEq)]
pub struct Metric {
    /// Name, beginning with `gt_`; those of counters end with `_total`.
    pub name: &'static str,
    /// One line of explanation; the same for all samples of a name.
    pub help: &'static str,
    /// True for what only grows, false for what goes up and down.
    pub counter: bool,
    /// Label names with their values, not yet escaped.
    pub labels: Vec<(&'static str, String)>,
    /// The sample.
    pub value: f64,
}
