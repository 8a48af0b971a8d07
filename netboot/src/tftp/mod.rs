//! A TFTP server for Pi firmware: read-only, one view per node.
//! Must not know: images, how files are stored. It asks its [`Host`] for content and tells it what it
//! sent.
//! Spec: RFC 1350, 2347, 2348, 2349, 7440.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use crate::content::Content;
use crate::site::Site;

/// What the TFTP server asks of the half that knows images and boots. Calls are quick; opening one
/// local file is the slowest.
pub trait Host: Send + Sync + 'static {
    /// The site as it is now.
    fn site(&self) -> Arc<Site>;
    /// The file at `path` (components joined by `/`, no prefix, neither empty nor `..`) of what
    /// `node` boots. The first request of a node begins a boot.
    fn boot_file(&self, node: &str, path: &[u8]) -> Option<Content>;
    /// Something was seen.
    fn event(&self, event: Event);
}

/// Steps of a transfer.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event {
    /// A node has a whole file.
    Sent {
        /// The node.
        node: String,
        /// The file as [`Host::boot_file`] was asked for it.
        path: Vec<u8>,
        /// Bytes of content.
        bytes: u64,
        /// From the request to the last acknowledgement.
        took: Duration,
        /// Packets sent again.
        resent: u32,
    },
    /// The client ended the transfer (the firmware's probe does so after reading the size).
    Stopped {
        /// The node.
        node: String,
        /// The file.
        path: Vec<u8>,
    },
    /// The client fell silent.
    TimedOut {
        /// The node.
        node: String,
        /// The file.
        path: Vec<u8>,
        /// Bytes that were acknowledged.
        bytes: u64,
    },
    /// A node asked for what its boot tree has not; firmware does so all the time.
    Missing {
        /// The node.
        node: String,
        /// The file.
        path: Vec<u8>,
    },
    /// Someone asked for what it may not have.
    Refused {
        /// Who asked.
        from: Ipv4Addr,
        /// The name as it was asked for.
        name: Vec<u8>,
        /// Why, for the log.
        reason: &'static str,
    },
    /// A packet that is no TFTP, counted and dropped.
    Malformed {
        /// Who sent it.
        from: SocketAddr,
        /// What is wrong, for the log.
        reason: String,
    },
}
