//! Writing a node's disk to a card, straight from its trees: what is there, what may be overwritten, write, read
//! back, and the partition table last.
//! Must not know: the command line, how generations are made.
//! Spec: design.md sections 11 and 13.
//!
//! ```text
//! marker in sector 0, old tables wiped ─► probe ─► data ─► read back ─► table: its backup, then sector 0
//! ```
//!
//! Until the last step the card has no table, so what was interrupted never boots half; the marker says how far it
//! came, and the next run goes on there.

pub mod cards;
pub mod compare;
pub mod device;
pub mod marker;
pub mod medium;
pub mod pieces;
mod probe;
pub mod refuse;
pub mod state;
pub mod writer;

use std::io;
use std::path::Path;
use std::time::Instant;

use anyhow::Context;

use self::compare::{Compare, Differs};
use self::marker::Marker;
use self::medium::{Buffer, Medium};
use self::pieces::{Bounds, Pieces, Table, Worker};
use self::writer::{Done, Writer, mark};
use crate::build::image::{Plan, Trees};
use crate::digest::{Digest, Key};
use crate::disk::Partition;
use crate::hint::Hint;
use crate::io::progress::{Progress, Task, Unit};

/// Bytes at either end of a medium where tables of others may be.
const ENDS: u64 = 1 << 20;

/// What goes on a card.
pub struct Content<'a> {
    /// Where everything lies.
    pub plan: &'a Plan,
    /// What the partitions hold.
    pub trees: Trees<'a>,
    /// Time of all that is made.
    pub epoch: i64,
    /// The partition that stays as it is.
    pub keep: Option<usize>,
}

impl Content<'_> {
    /// Gives `worker` in pieces, on a thread of its own, all bytes of a medium of `size` bytes but those outside of
    /// `bounds`. `path` names it in errors.
    ///
    /// # Errors
    /// What the worker says comes first: another error only follows from it.
    pub fn each<T: Send>(
        &self,
        (path, size): (&Path, u64),
        bounds: Bounds,
        worker: impl Worker<Done = T>,
        task: &Task,
    ) -> anyhow::Result<(T, Table)> {
        std::thread::scope(|scope| {
            let mut pieces = Pieces::start(scope, bounds, worker);
            let Content { plan, trees, epoch, keep } = self;
            let streamed = plan.stream(trees, *epoch, *keep, (path, size), &mut pieces, task);
            let done = pieces.finish()?;
            streamed.map(|()| done)
        })
    }
}

/// One card and what goes on it.
pub struct Job<'a> {
    /// Where to.
    pub medium: &'a Medium,
    /// What.
    pub content: Content<'a>,
    /// What all of this is made from, so that another run knows that it is the same.
    pub from: Digest,
    /// Read everything back before the table is written.
    pub verify: bool,
    /// Where progress is shown.
    pub progress: &'a Progress,
}

/// What was done.
#[derive(Debug, Clone, Copy)]
pub struct Outcome {
    /// Bytes that were written.
    pub written: u64,
    /// Bytes that an interrupted run had written.
    pub reused: u64,
    /// Bytes that were read back and are right.
    pub verified: u64,
    /// Seconds of writing.
    pub writing: f64,
    /// Seconds of reading back.
    pub reading: f64,
}

impl Job<'_> {
    /// Does it.
    ///
    /// # Errors
    /// The medium fails, lies about its size, or gives back something else than was written. It has no
    /// partition table then.
    pub fn run(&self) -> anyhow::Result<Outcome> {
        let bounds = self.bounds();
        let what = Key::new("flash 1")
            .with(self.from.bytes())
            .with(&self.medium.size.to_le_bytes())
            .with(&[u8::from(self.content.keep.is_some())])
            .finish();
        let mut buffer = Buffer::default();
        let begun = Marker::read(self.medium.read(0, marker::LEN, &mut buffer)?);
        let kept = self.kept().map(|part| (part.offset, part.spec.size));
        let marker = match begun.filter(|begun| begun.what == what) {
            Some(begun) => begun,
            None => self.clear(bounds, Marker { what, synced: 0, kept })?,
        };
        let begun = Instant::now();
        let writer = Writer::new(self.medium, marker);
        let (done, table) = self.each("writing", bounds, writer)?;
        let writing = begun.elapsed().as_secs_f64();
        let begun = Instant::now();
        let mut verified = 0;
        if self.verify {
            (verified, _) = self.each("reading back", bounds, Compare::new(self.medium))?;
        }
        self.finish(&table)?;
        let Done { written, reused } = done;
        Ok(Outcome { written, reused, verified, writing, reading: begun.elapsed().as_secs_f64() })
    }

    fn bounds(&self) -> Bounds {
        let partitions = &self.content.plan.layout().partitions;
        let size = self.medium.size;
        Bounds {
            first: partitions.first().map_or(size, |p| p.offset),
            end: partitions.last().map_or(size, |p| p.offset + p.spec.size),
        }
    }

    /// Takes away the tables that are there, and looks whether the card is as large as it says.
    fn clear(&self, bounds: Bounds, marker: Marker) -> anyhow::Result<Marker> {
        let Medium { size, path, .. } = self.medium;
        mark(self.medium, &marker)?;
        let head = (marker::LEN as u64, ENDS.min(bounds.first));
        // What is kept may reach to the end, or the disk may: the backup of a GPT has its place behind.
        let tail = (size.saturating_sub(ENDS).max(bounds.end).next_multiple_of(4096), *size);
        let mut buffer = Buffer::default();
        for (from, to) in [head, tail] {
            let Some(len) = to.checked_sub(from).and_then(|len| usize::try_from(len).ok()) else { continue };
            buffer.resize(len).fill(0);
            self.medium.write(from, &buffer)?;
        }
        self.medium.sync()?;
        if self.medium.device
            && let Some(real) = probe::real_size(self.medium, marker.kept)?
        {
            let hint = "do not use this card: what is written to it is lost";
            return Err(anyhow::anyhow!(
                "`{}` says that it has {size} bytes, and keeps no more than {real}",
                path.display()
            )
            .context(Hint(hint.into())));
        }
        Ok(marker)
    }

    /// The partition that stays.
    fn kept(&self) -> Option<&Partition> {
        self.content.plan.layout().partitions.get(self.content.keep?)
    }

    fn each<T: Send>(
        &self,
        doing: &str,
        bounds: Bounds,
        worker: impl Worker<Done = T>,
    ) -> anyhow::Result<(T, Table)> {
        let Medium { path, size, .. } = self.medium;
        let name = path.file_name().unwrap_or(path.as_os_str()).to_string_lossy();
        let task = self.progress.task(&format!("{doing} {name}"), Unit::Bytes, Some(*size));
        // What the medium says is an I/O error; what the trees lack is told as it is.
        let fault = |e: anyhow::Error| if e.is::<io::Error>() { self.fault(e) } else { e };
        self.content.each((path, *size), bounds, worker, &task).map_err(fault)
    }

    /// The table, from its end to sector 0, and a look at what came of it.
    fn finish(&self, table: &Table) -> anyhow::Result<()> {
        let mut buffer = Buffer::default();
        for (at, bytes) in table.iter().rev() {
            buffer.resize(0);
            buffer.push(bytes);
            self.medium
                .write(*at, &buffer)
                .and_then(|()| self.medium.sync())
                .map_err(|e| self.fault(e.into()))?;
        }
        for (at, bytes) in table.iter().filter(|_| self.verify) {
            if self.medium.read(*at, bytes.len(), &mut buffer)? != bytes {
                return Err(
                    self.fault(io::Error::other("the partition table is not what was written").into())
                );
            }
        }
        Ok(())
    }

    /// Says what a failing medium means.
    fn fault(&self, error: anyhow::Error) -> anyhow::Error {
        let path = self.medium.path.display();
        match differs(&error) {
            Some(Differs { at, .. }) => {
                let place = self.place(at);
                let text = format!("`{path}` gives back something else than was written, {place}");
                error.context(text).context(Hint("try again once; if it happens again the card is bad".into()))
            }
            None => error.context(format!("`{path}` cannot be written")).context(Hint(
                "put the card in again and run the same command: it goes on where it was; if it fails at the \
                 same place, the card is bad"
                    .into(),
            )),
        }
    }

    /// Where a byte lies, for people.
    fn place(&self, at: u64) -> String {
        let inside = |p: &&Partition| (p.offset..p.offset + p.spec.size).contains(&at);
        match self.content.plan.layout().partitions.iter().find(inside) {
            Some(p) => format!("in `{}`, {} bytes from its start", p.spec.name, at - p.offset),
            None => "in the partition table".into(),
        }
    }
}

/// The difference that an error is about.
pub fn differs(error: &anyhow::Error) -> Option<Differs> {
    error.chain().find_map(|cause| {
        let io = cause.downcast_ref::<io::Error>()?;
        io.get_ref()?.downcast_ref::<Differs>().copied()
    })
}

/// Opens a medium, and makes a new file as large as the plan wants it.
///
/// # Errors
/// What the kernel says, with what to do about it.
pub fn open(path: &Path, plan: &Plan) -> anyhow::Result<Medium> {
    let opened = Medium::open(path, true).map_err(|e| {
        let hint = match e.kind() {
            io::ErrorKind::PermissionDenied => Some("run it as root"),
            io::ErrorKind::ResourceBusy => Some("unmount it, and end what else uses it"),
            io::ErrorKind::NotFound => Some("make its folder, or run `gt-image flash` to see the cards"),
            _ => None,
        };
        let error = anyhow::Error::new(e).context(format!("opening `{}`", path.display()));
        match hint {
            Some(hint) => error.context(Hint(hint.into())),
            None => error,
        }
    });
    let mut medium = opened?;
    if !medium.device && medium.size == 0 {
        let size = plan.layout().size;
        medium.set_size(size).with_context(|| format!("making `{}`", path.display()))?;
    }
    Ok(medium)
}
