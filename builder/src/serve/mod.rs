//! `gt-image serve`: the only place where images and protocols meet. The protocol servers of
//! `gt-netboot` ask who may boot and what each may read; the answers come from the cluster
//! description, the store and the boot record, which are joined here.
//! Must not know: how an image is built, what a packet looks like.
//! Spec: design.md sections 10 and 13.
//!
//! ```text
//! dhcp, tftp, nfs, http ─► desk ─► boots (pure), export ─► inodes, store
//!                               └► keeper ─► record
//! ```

pub mod board;
pub mod boots;
pub mod desk;
pub mod events;
pub mod export;
pub mod http;
pub mod inodes;
pub mod keeper;
pub mod log;
pub mod metrics;
pub mod record;
pub mod run;
pub mod secrets;
pub mod seen;
pub mod site;
pub mod sockets;
pub mod status;
pub mod user;
pub mod wipe;

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

/// Locks. A panic elsewhere has been reported already; what it left is still the best there is.
fn lock<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Milliseconds since 1970, for people.
fn wall_clock() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    // Before 1970 a clock is as good as none.
    since.map_or(0, |d| u64::try_from(d.as_millis()).unwrap_or(u64::MAX))
}
