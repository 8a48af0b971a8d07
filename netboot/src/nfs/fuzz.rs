//! What the fuzz targets call: foreign bytes in, nothing but the invariants out.
//! Must not know: sockets.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use crate::nfs::memory::MemoryExport;
use crate::nfs::ops::Answer;
use crate::nfs::read;
use crate::nfs::service::{Door, HighPorts, Peer, Ports, Server};
use crate::nfs::types::RTMAX;
use crate::nfs::{Denied, Event, Export, ExportId, FileType, Host};
use crate::rpc::message;
use crate::rpc::portmap::Transport;
use crate::rpc::record::{MAX_RECORD, Records};
use crate::rpc::xdr::{Reader, Writer};
use crate::site::{Mac, Node, Serial, Site};

const NODE: Ipv4Addr = Ipv4Addr::new(10, 4, 0, 11);

struct OneNode(Arc<MemoryExport>);

impl Host for OneNode {
    fn site(&self) -> Arc<Site> {
        let fenn = Node { name: "fenn".to_owned(), address: NODE, mac: Mac([2; 6]), serial: Serial(1) };
        Arc::new(Site {
            server: Ipv4Addr::new(10, 4, 0, 10),
            netmask: Ipv4Addr::new(255, 255, 255, 0),
            gateway: None,
            dns: Vec::new(),
            domain: "goldentooth.net".to_owned(),
            nodes: vec![fenn],
        })
    }

    fn mount(&self, _node: &str) -> Result<Arc<dyn Export>, Denied> {
        Ok(Arc::<MemoryExport>::clone(&self.0))
    }

    fn export(&self, _node: &str, id: ExportId) -> Result<Arc<dyn Export>, Denied> {
        if id == self.0.id() { self.mount("") } else { Err(Denied::Gone) }
    }

    fn event(&self, _event: Event) {}
}

fn server() -> Arc<Server> {
    let mut export = MemoryExport::new(ExportId([1; 16]));
    for n in 0..20 {
        export.add(format!("/{n}"), FileType::Directory, 0o755);
    }
    export.add_symlink("/link", b"0");
    let ports = Ports { nfs: 2049, mount: 20048, portmap: 111 };
    Server::new(Arc::new(OneNode(Arc::new(export))), &[0; 32], ports, HighPorts::Trusted)
}

fn ask(server: &Server, door: Door, transport: Transport, message: &[u8]) -> Option<Vec<u8>> {
    let address = SocketAddr::from((NODE, 700));
    let peer = Peer { address, door, transport, told: AtomicBool::new(false) };
    let mut out = Vec::new();
    match server.answer(&peer, message, &mut out).ok()? {
        Answer::Done => {}
        Answer::Read(plan) => {
            assert!(plan.len <= RTMAX as usize, "READ is capped");
            read::finish(&plan, &Ok(()), &mut out);
        }
    }
    let repeated = out.iter().zip(message).take(4).all(|(a, b)| a == b);
    assert!(
        repeated && out.len() >= 20 && out.len().is_multiple_of(4),
        "a reply has the call's xid and whole words"
    );
    Some(out)
}

/// Streams: however they are cut, no message is over the limit; and each message is a call or is not.
pub fn rpc(data: &[u8]) {
    let mut records = Records::default();
    for chunk in data.chunks(97) {
        records.feed(chunk);
        while let Ok(Some(record)) = records.next_record() {
            assert!(record.len() <= MAX_RECORD.min(data.len()));
            let _ = message::call(record);
        }
    }
    let _ = message::call(data);
}

/// A call whose header is sound, so that the arguments are reached: the first byte is the procedure.
fn with_header(program: u32, version: u32, data: &[u8], handle: bool) -> Vec<u8> {
    let (procedure, arguments) = data.split_first().unwrap_or((&0, &[]));
    let mut message = Vec::new();
    for word in [7, 0, 2, program, version, u32::from(*procedure), 0, 0, 0, 0] {
        message.u32(word);
    }
    if handle {
        message.opaque(&crate::nfs::handle::Seal::new(&[0; 32]).seal(
            "fenn",
            ExportId([1; 16]),
            crate::nfs::FileId(1),
        ));
    }
    message.extend_from_slice(arguments);
    message
}

/// MOUNT of each version, over both transports.
pub fn mount(data: &[u8]) {
    let server = server();
    for version in [1, 3] {
        let message = with_header(super::mount::PROGRAM, version, data, false);
        for (door, transport) in [(Door::Mount, Transport::Udp), (Door::Nfs, Transport::Tcp)] {
            assert!(ask(&server, door, transport, &message).is_some(), "a call has a reply");
        }
    }
}

/// NFS and NFS_ACL: arguments as they are, arguments behind a good handle, and a whole message.
pub fn nfs(data: &[u8]) {
    let server = server();
    for (program, handle) in [(100_003, false), (100_003, true), (100_227, false), (100_227, true)] {
        let message = with_header(program, 3, data, handle);
        assert!(ask(&server, Door::Nfs, Transport::Tcp, &message).is_some(), "a call has a reply");
    }
    ask(&server, Door::Nfs, Transport::Tcp, data);
}

/// The portmapper: over UDP no reply is longer than the call that it answers.
pub fn portmap(data: &[u8]) {
    let server = server();
    let message = with_header(100_000, 2, data, false);
    let reply = ask(&server, Door::Portmap, Transport::Udp, &message);
    assert!(reply.is_some_and(|reply| reply.len() <= message.len()), "no amplification");
    assert!(ask(&server, Door::Portmap, Transport::Tcp, &message).is_some(), "a call has a reply");
    let _ = Reader::new(data).opaque(MAX_RECORD);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn no_bytes_panic(data in prop::collection::vec(any::<u8>(), 0..300)) {
            super::rpc(&data);
            super::mount(&data);
            super::nfs(&data);
            super::portmap(&data);
        }

        /// Small words reach further than random ones.
        #[test]
        fn no_small_words_panic(procedure in 0u8..24, words in prop::collection::vec(0u32..200, 0..20)) {
            let data: Vec<u8> = [procedure].into_iter().chain(words.iter().flat_map(|w| w.to_be_bytes())).collect();
            super::mount(&data);
            super::nfs(&data);
            super::portmap(&data);
        }
    }
}
