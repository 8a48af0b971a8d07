//! Which transfers there are: one for each address and port, and no more than the limits allow.
//! Must not know: sockets, packets, what is sent.
//! Spec: RFC 1350 section 4 (a transfer is named by its two ports).

use std::collections::HashMap;
use std::net::SocketAddrV4;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Names one transfer for the life of the server.
pub type Id = u64;

/// How much is served at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Transfers in all. Each has a socket, an open file and at most 64 KiB. A request beyond it gets no
    /// answer; a Pi repeats it 15 times, 2 s apart, and a boot has files of a few hundred milliseconds.
    pub transfers: usize,
    /// Transfers of one address. Firmware has one at a time and now and then one that it forgot.
    pub per_address: usize,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits { transfers: 1024, per_address: 16 }
    }
}

/// The transfers, from their request to their end.
#[derive(Debug)]
pub struct Table {
    limits: Limits,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    last_id: Id,
    by_client: HashMap<SocketAddrV4, Entry>,
}

#[derive(Debug)]
struct Entry {
    id: Id,
    request: Vec<u8>,
}

/// What a request is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admission {
    /// The first of a transfer.
    New(Id),
    /// The one that began the transfer `Id`, once more.
    Repeat(Id),
    /// Another one from the port of transfer `stale`, which is over.
    Replace {
        /// The transfer that the client has left.
        stale: Id,
        /// The one that begins.
        id: Id,
    },
    /// One too many.
    Full,
}

impl Table {
    /// An empty table.
    pub fn new(limits: Limits) -> Table {
        Table { limits, state: Mutex::default() }
    }

    /// Enters a request.
    pub fn admit(&self, client: SocketAddrV4, request: &[u8]) -> Admission {
        let mut state = self.lock();
        let id = state.last_id + 1;
        if let Some(entry) = state.by_client.get_mut(&client) {
            if entry.request == request {
                return Admission::Repeat(entry.id);
            }
            let stale = std::mem::replace(&mut entry.id, id);
            request.clone_into(&mut entry.request);
            state.last_id = id;
            return Admission::Replace { stale, id };
        }
        let of_address = state.by_client.keys().filter(|other| other.ip() == client.ip()).count();
        if state.by_client.len() >= self.limits.transfers || of_address >= self.limits.per_address {
            return Admission::Full;
        }
        state.last_id = id;
        state.by_client.insert(client, Entry { id, request: request.to_vec() });
        Admission::New(id)
    }

    /// True while `id` is the transfer of `client`: not ended, not replaced.
    pub fn is_current(&self, client: SocketAddrV4, id: Id) -> bool {
        self.lock().by_client.get(&client).is_some_and(|entry| entry.id == id)
    }

    /// Takes a transfer out, unless another one has its place by now.
    pub fn remove(&self, client: SocketAddrV4, id: Id) {
        let mut state = self.lock();
        if state.by_client.get(&client).is_some_and(|entry| entry.id == id) {
            state.by_client.remove(&client);
        }
    }

    /// Nothing between `lock` and its drop can leave the map half changed.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(last: u8, port: u16) -> SocketAddrV4 {
        SocketAddrV4::new([10, 4, 0, last].into(), port)
    }

    #[test]
    fn a_port_has_one_transfer() {
        let table = Table::new(Limits::default());
        assert_eq!(table.admit(client(1, 1000), b"a"), Admission::New(1));
        assert_eq!(table.admit(client(1, 1000), b"a"), Admission::Repeat(1));
        assert_eq!(table.admit(client(1, 1001), b"a"), Admission::New(2), "another port");
        assert_eq!(table.admit(client(2, 1000), b"a"), Admission::New(3), "another address");
        assert_eq!(table.admit(client(1, 1000), b"b"), Admission::Replace { stale: 1, id: 4 });
        assert!(!table.is_current(client(1, 1000), 1) && table.is_current(client(1, 1000), 4));
        table.remove(client(1, 1000), 1);
        assert_eq!(table.admit(client(1, 1000), b"b"), Admission::Repeat(4), "1 had no place any more");
        table.remove(client(1, 1000), 4);
        assert_eq!(table.admit(client(1, 1000), b"b"), Admission::New(5), "after its end it is new");
    }

    #[test]
    fn limits_hold_in_all_and_for_each_address() {
        let table = Table::new(Limits { transfers: 3, per_address: 2 });
        assert_eq!(table.admit(client(1, 1), b"a"), Admission::New(1));
        assert_eq!(table.admit(client(1, 2), b"a"), Admission::New(2));
        assert_eq!(table.admit(client(1, 3), b"a"), Admission::Full);
        assert_eq!(table.admit(client(2, 1), b"a"), Admission::New(3));
        assert_eq!(table.admit(client(3, 1), b"a"), Admission::Full);
        assert_eq!(
            table.admit(client(1, 2), b"b"),
            Admission::Replace { stale: 2, id: 4 },
            "no more than before"
        );
        table.remove(client(1, 1), 1);
        assert_eq!(table.admit(client(3, 1), b"a"), Admission::New(5));
    }
}
