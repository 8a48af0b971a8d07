//! READ: what may be read, and the bytes, without waiting where the page cache has them.
//! Must not know: sockets.
//! Spec: RFC 1813 section 3.3.6.

use std::collections::HashMap;
use std::io::{self, IoSliceMut};
use std::sync::{Arc, Mutex, PoisonError};

use rustix::io::{Errno, ReadWriteFlags, preadv2};

use crate::content::Content;
use crate::nfs::access::{EXECUTE, READ};
use crate::nfs::ops::{Context, Inode, fail};
use crate::nfs::types::{HANDLE_MAX, RTMAX, Status};
use crate::nfs::{Export, ExportId, FileId, FileType};
use crate::rpc::xdr::{Reader, Writer, XdrError, padding};

/// A READ that is allowed.
pub(crate) struct ReadPlan {
    inode: Inode,
    offset: u64,
    /// Bytes that are there to be read: no more than asked, than rtmax, than the file has.
    pub len: usize,
}

/// Checks a call; a failure is written to `out`.
pub(crate) fn plan(
    cx: &Context<'_>,
    arguments: &mut Reader<'_>,
    out: &mut Vec<u8>,
) -> Result<Option<ReadPlan>, XdrError> {
    let handle = arguments.opaque(HANDLE_MAX)?;
    let (offset, count) = (arguments.u64()?, arguments.u32()?);
    let inode = match cx.resolve(handle) {
        Ok(inode) => inode,
        Err(status) => {
            fail(out, status, None);
            return Ok(None);
        }
    };
    if let Err(status) = may_read(cx, &inode) {
        fail(out, status, Some(&inode));
        return Ok(None);
    }
    let left = inode.attributes.size.saturating_sub(offset);
    // Cannot be cut: rtmax is a mebibyte.
    let len = usize::try_from(left.min(count.min(RTMAX).into())).unwrap_or(0);
    Ok(Some(ReadPlan { inode, offset, len }))
}

/// A program that may be executed and not read is paged in by READ, and the owner who opened a file
/// and then took its permissions away reads on: the client's kernel has decided both. nfsd does so too.
fn may_read(cx: &Context<'_>, inode: &Inode) -> Result<(), Status> {
    match inode.attributes.kind {
        FileType::Regular => {}
        FileType::Directory => return Err(Status::IsDir),
        _ => return Err(Status::Inval),
    }
    let allowed = cx.caller.owns(&inode.attributes) || inode.granted(&cx.caller) & (READ | EXECUTE) != 0;
    if allowed { Ok(()) } else { Err(Status::Acces) }
}

impl ReadPlan {
    /// Fills `buf`, whose length is the plan's, if that needs no disk: the file is open, and the page
    /// cache has it. Says how many bytes it got.
    pub fn read_cached(&self, files: &OpenFiles, buf: &mut [u8]) -> usize {
        let Some(content) = files.get(self.key()) else { return 0 };
        let mut done = 0;
        while done < buf.len() {
            let rest = &mut [IoSliceMut::new(&mut buf[done..])];
            let offset = self.offset.saturating_add(done as u64);
            match preadv2(content.file(), rest, offset, ReadWriteFlags::NOWAIT) {
                Ok(0) => break,
                Ok(n) => done += n,
                Err(Errno::INTR) => {}
                // AGAIN: it would wait. OPNOTSUPP: this filesystem cannot say. Others show again.
                Err(_) => break,
            }
        }
        done
    }

    /// Fills `buf` from byte `done` on, opening the file if need be. It waits for the disk.
    pub fn read_waiting(&self, files: &OpenFiles, buf: &mut [u8], done: usize) -> io::Result<()> {
        let content = files.get_or_open(self.key(), self.inode.export.as_ref())?;
        let read = content.read_at(&mut buf[done..], self.offset.saturating_add(done as u64))?;
        // The tree knows the file to be longer: the store is damaged. A short answer would say that
        // the file ends here.
        if done + read < buf.len() { Err(io::ErrorKind::UnexpectedEof.into()) } else { Ok(()) }
    }

    fn key(&self) -> (ExportId, FileId) {
        (self.inode.export.id(), self.inode.id)
    }
}

/// Appends the result up to the data, which the caller has in a buffer of the plan's length.
pub(crate) fn finish(plan: &ReadPlan, data: &io::Result<()>, out: &mut Vec<u8>) {
    if data.is_err() {
        return fail(out, Status::Io, Some(&plan.inode));
    }
    out.u32(Status::Ok.code());
    plan.inode.post_op(out);
    // Cannot be cut: rtmax is a mebibyte.
    let count = u32::try_from(plan.len).unwrap_or(u32::MAX);
    out.u32(count);
    out.bool(plan.offset.saturating_add(u64::from(count)) >= plan.inode.attributes.size);
    out.u32(count);
}

/// Bytes behind the data.
pub(crate) fn pad(plan: &ReadPlan) -> usize {
    padding(plan.len)
}

/// Files that were read lately, kept open: a server that opened and closed one per READ gave 2 MB/s
/// (rclone issue 9251).
pub(crate) struct OpenFiles {
    inner: Mutex<Kept>,
    limit: usize,
}

#[derive(Default)]
struct Kept {
    files: HashMap<(ExportId, FileId), (Content, u64)>,
    /// Counts uses; the file with the lowest count was used longest ago.
    clock: u64,
}

impl OpenFiles {
    pub fn new(limit: usize) -> OpenFiles {
        OpenFiles { inner: Mutex::default(), limit }
    }

    fn get(&self, key: (ExportId, FileId)) -> Option<Content> {
        // A map of open files cannot be left half changed.
        let mut kept = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        kept.clock += 1;
        let now = kept.clock;
        let (content, used) = kept.files.get_mut(&key)?;
        *used = now;
        Some(content.clone())
    }

    fn get_or_open(&self, key: (ExportId, FileId), export: &dyn Export) -> io::Result<Content> {
        if let Some(content) = self.get(key) {
            return Ok(content);
        }
        let content = export.open(key.1)?;
        let mut kept = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.files.len() >= self.limit {
            // A look at each entry, beside an open() that costs more.
            let oldest = kept.files.iter().min_by_key(|(_, (_, used))| *used).map(|(key, _)| *key);
            oldest.map(|oldest| kept.files.remove(&oldest));
        }
        let now = kept.clock;
        kept.files.insert(key, (content.clone(), now));
        Ok(content)
    }

    /// Files open now.
    #[cfg(test)]
    fn len(&self) -> usize {
        self.inner.lock().unwrap().files.len()
    }
}

/// Shared by all connections.
pub(crate) type Files = Arc<OpenFiles>;

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::os::unix::fs::FileExt;

    use super::*;
    use crate::nfs::ops::tests::{Rig, args};

    fn read(rig: &Rig, path: &str, offset: u64, count: u32) -> Result<(Vec<u8>, Vec<u8>), Vec<u8>> {
        let arguments = args(|out| {
            out.opaque(&rig.handle(path));
            out.u64(offset);
            out.u32(count);
        });
        let mut out = Vec::new();
        let Some(plan) = plan(&rig.context(), &mut Reader::new(&arguments), &mut out).unwrap() else {
            return Err(out);
        };
        let files = OpenFiles::new(4);
        let mut data = vec![0; plan.len];
        let done = plan.read_cached(&files, &mut data);
        let result = plan.read_waiting(&files, &mut data, done);
        finish(&plan, &result, &mut out);
        result.map(|()| (out[92..].to_vec(), data)).map_err(|_| out)
    }

    /// count, eof, length of the data.
    fn tail(count: u32, eof: bool) -> Vec<u8> {
        args(|out| {
            out.u32(count);
            out.bool(eof);
            out.u32(count);
        })
    }

    #[test]
    fn eof_is_exact() {
        let rig = Rig::new();
        for (offset, count, want, eof) in [
            (0, 4, &b"fenn"[..], false),
            (0, 5, b"fenn\n", true),
            (0, 6, b"fenn\n", true),
            (4, 1, b"\n", true),
            (3, 1, b"n", false),
            (5, 1, b"", true),
            (6, 10, b"", true),
            (u64::MAX, u32::MAX, b"", true),
            (0, 0, b"", false),
            (5, 0, b"", true),
        ] {
            let (head, data) = read(&rig, "/etc/hostname", offset, count).unwrap();
            assert_eq!((&data[..], head), (want, tail(want.len() as u32, eof)), "{count} at {offset}");
        }
    }

    #[test]
    fn count_is_capped_and_offsets_have_64_bits() {
        let rig = Rig::with(|export| {
            let big = File::from(rustix::fs::memfd_create("big", rustix::fs::MemfdFlags::CLOEXEC).unwrap());
            big.write_all_at(b"the end", 5 << 30).unwrap();
            export.add_content("/big", 0o644, Content::new(Arc::new(big), (5 << 30) + 7));
        });
        let (head, data) = read(&rig, "/big", 0, u32::MAX).unwrap();
        assert_eq!((data.len(), head), (1 << 20, tail(1 << 20, false)));
        let (head, data) = read(&rig, "/big", 5 << 30, u32::MAX).unwrap();
        assert_eq!((&data[..], head), (&b"the end"[..], tail(7, true)));
    }

    #[test]
    fn only_files_that_may_be_read_are_read() {
        let mut rig = Rig::with(|export| {
            export.attributes_mut("/etc/shadow").uid = 7;
            export.add_file("/bin/secret-program", 0o711, b"ELF").unwrap();
        });
        let status = |found: Result<_, Vec<u8>>| found.map(|_| 0).unwrap_or_else(|out| out[3]);
        assert_eq!(status(read(&rig, "/etc", 0, 1)), Status::IsDir.code() as u8);
        assert_eq!(status(read(&rig, "/dev/null", 0, 1)), Status::Inval.code() as u8);
        assert_eq!(status(read(&rig, "/bin/link", 0, 1)), Status::Inval.code() as u8);
        for (uid, path, want) in [
            (0, "/etc/shadow", Status::Ok),
            (7, "/etc/shadow", Status::Ok),
            (8, "/etc/shadow", Status::Acces),
            (8, "/bin/secret-program", Status::Ok),
            (8, "/etc/hostname", Status::Ok),
        ] {
            rig.uid = uid;
            assert_eq!(status(read(&rig, path, 0, 1)), want.code() as u8, "{path} as {uid}");
        }
    }

    #[test]
    fn a_damaged_store_is_an_error_and_no_end_of_file() {
        let rig = Rig::with(|export| export.attributes_mut("/etc/hostname").size = 100);
        let out = read(&rig, "/etc/hostname", 0, 100).unwrap_err();
        assert_eq!(out[..8], [0, 0, 0, 5, 0, 0, 0, 1], "NFS3ERR_IO and attributes");
        let rig = Rig::with(|export| {
            export.add("/etc/lost", FileType::Regular, 0o644);
            export.attributes_mut("/etc/lost").size = 1;
        });
        assert_eq!(read(&rig, "/etc/lost", 0, 100).unwrap_err()[3], 5);
    }

    #[test]
    fn the_files_used_last_stay_open() {
        let rig = Rig::with(|export| {
            for n in 0..6 {
                export.add_file(format!("/f{n}"), 0o644, b"x").unwrap();
            }
        });
        let (files, export) = (OpenFiles::new(3), &*rig.export);
        let key = |n: u32| (export.id(), export.at(format!("/f{n}")));
        for n in [0, 1, 2, 0, 3, 0, 4, 0] {
            files.get_or_open(key(n), export).unwrap();
        }
        assert_eq!(files.len(), 3);
        for (n, open) in [(0, true), (1, false), (2, false), (3, true), (4, true)] {
            assert_eq!(files.get(key(n)).is_some(), open, "file {n}");
        }
    }
}
