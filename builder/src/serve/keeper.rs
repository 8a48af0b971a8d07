//! The thread that writes the record, so that no packet waits for a disk. What comes while it writes
//! is written next, together.
//! Must not know: what the entries mean.
//! Spec: design.md section 10; the pins are [`crate::store::PINS`].

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use rustix::fs::{Mode, OFlags};

use super::lock;
use super::log::Log;
use super::record::{Entry, Record};

/// Steps come several a second while a node boots; each write is a sync, which a card does in 10 to
/// 50 ms. Whoever needs it at once asks for it ([`Keeper::flush`]).
const GATHER: Duration = Duration::from_millis(250);
/// Longest that a mount waits for its boot to be on the disk.
const PATIENCE: Duration = Duration::from_secs(2);

/// The directory `serve/` of the store, for the list of pinned generations.
#[derive(Debug)]
pub struct PinsDir(OwnedFd);

impl PinsDir {
    /// Opens the directory.
    ///
    /// # Errors
    /// If it does not exist or may not be read.
    pub fn open(dir: &Path) -> io::Result<PinsDir> {
        let flags = OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC;
        Ok(PinsDir(rustix::fs::open(dir, flags, Mode::empty())?))
    }

    /// Replaces the list: a reader sees the old one or the new one.
    fn write(&self, text: &str) -> io::Result<()> {
        const NEW: &str = ".pins.new";
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let file = rustix::fs::openat(&self.0, NEW, flags, Mode::from_raw_mode(0o644))?;
        let mut file = File::from(file);
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        Ok(rustix::fs::renameat(&self.0, NEW, &self.0, "pins")?)
    }
}

/// Writes behind. Dropping it writes what is left.
#[derive(Debug)]
pub struct Keeper {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Shared {
    pending: Mutex<Pending>,
    /// There is something to write.
    wake: Condvar,
    /// Something was written.
    done: Condvar,
}

#[derive(Debug, Default)]
struct Pending {
    entries: BTreeMap<String, Option<Vec<u8>>>,
    pins: Option<String>,
    put: u64,
    written: u64,
    urgent: bool,
    closing: bool,
}

/// What is written at once.
struct Batch {
    entries: Vec<Entry>,
    list: Option<String>,
    put: u64,
    closing: bool,
}

impl Keeper {
    /// Starts the thread. It must be started after privileges were dropped, for they are a thread's.
    ///
    /// # Errors
    /// If no thread can be made.
    pub fn start(record: Box<dyn Record>, pins: Option<PinsDir>, log: Arc<Log>) -> io::Result<Keeper> {
        let shared = Arc::<Shared>::default();
        let theirs = shared.clone();
        let name = "record".to_owned();
        let work = move || theirs.work(&*record, pins.as_ref(), &log);
        let thread = std::thread::Builder::new().name(name).spawn(work)?;
        Ok(Keeper { shared, thread: Some(thread) })
    }

    /// Has these entries written soon. Later ones take the place of earlier ones with their key.
    pub fn put(&self, entries: impl IntoIterator<Item = Entry>) {
        let mut pending = lock(&self.shared.pending);
        pending.entries.extend(entries);
        pending.put += 1;
        self.shared.wake.notify_one();
    }

    /// Has the list of pinned generations replaced.
    pub fn pins(&self, text: String) {
        let mut pending = lock(&self.shared.pending);
        pending.pins = Some(text);
        pending.put += 1;
        pending.urgent = true;
        self.shared.wake.notify_one();
    }

    /// Waits until all that was put so far is on the disk, or the disk has had two seconds.
    pub fn flush(&self) {
        let mut pending = lock(&self.shared.pending);
        let want = pending.put;
        if pending.written >= want {
            return;
        }
        pending.urgent = true;
        self.shared.wake.notify_one();
        let waiting = self.shared.done.wait_timeout_while(pending, PATIENCE, |p| p.written < want);
        drop(waiting.unwrap_or_else(PoisonError::into_inner));
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        lock(&self.shared.pending).closing = true;
        self.shared.wake.notify_one();
        if let Some(thread) = self.thread.take() {
            // It panicked or it is done; both are the end.
            let _ = thread.join();
        }
    }
}

impl Shared {
    fn work(&self, record: &dyn Record, pins: Option<&PinsDir>, log: &Log) {
        loop {
            let Batch { entries, list, put, closing } = self.next();
            // The list first: a generation must be safe before anything says that it is used.
            if let (Some(dir), Some(list)) = (pins, &list)
                && let Err(e) = dir.write(list)
            {
                log.complain("serve", "record", &format!("cannot tell gc what is in use: {e}"));
            }
            if !entries.is_empty()
                && let Err(e) = record.write(&entries)
            {
                log.complain("serve", "record", &format!("boots are not recorded: {e}"));
            }
            lock(&self.pending).written = put;
            self.done.notify_all();
            if closing {
                return;
            }
        }
    }

    /// Waits for something to write, and a little for more of it.
    fn next(&self) -> Batch {
        let poison = PoisonError::into_inner;
        let idle = |p: &mut Pending| p.written == p.put && !p.closing;
        let pending = self.wake.wait_while(lock(&self.pending), idle).unwrap_or_else(poison);
        let calm = |p: &mut Pending| !p.urgent && !p.closing;
        let waited = self.wake.wait_timeout_while(pending, GATHER, calm);
        let (mut pending, _) = waited.unwrap_or_else(|e| e.into_inner());
        pending.urgent = false;
        Batch {
            entries: std::mem::take(&mut pending.entries).into_iter().collect(),
            list: pending.pins.take(),
            put: pending.put,
            closing: pending.closing,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::serve::record::Redb;
    use std::fs;

    #[test]
    fn what_was_put_is_written_at_flush_and_at_the_end() {
        let dir = tempfile::tempdir().unwrap();
        let pins = PinsDir::open(dir.path()).unwrap();
        let record = Redb::open(&dir.path().join("state")).unwrap();
        let keeper = Keeper::start(Box::new(record), Some(pins), Arc::default()).unwrap();
        keeper.flush();
        for n in 0..100 {
            keeper.put([("a".to_owned(), Some(vec![n]))]);
        }
        keeper.pins("fenn sha256:x\n".into());
        keeper.flush();
        assert_eq!(fs::read_to_string(dir.path().join("pins")).unwrap(), "fenn sha256:x\n");
        keeper.put([("b".to_owned(), Some(vec![1]))]);
        drop(keeper);
        let record = Redb::open(&dir.path().join("state")).unwrap();
        assert_eq!(record.read("").unwrap(), [("a".into(), vec![99]), ("b".into(), vec![1])]);
    }
}
