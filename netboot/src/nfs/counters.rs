//! How often each procedure was called by a node, for metrics and for the cost of a boot.
//! Must not know: what a boot is. The difference of two sums is its cost.

use std::sync::atomic::{AtomicU64, Ordering};

const NFS: [&str; 22] = [
    "NULL",
    "GETATTR",
    "SETATTR",
    "LOOKUP",
    "ACCESS",
    "READLINK",
    "READ",
    "WRITE",
    "CREATE",
    "MKDIR",
    "SYMLINK",
    "MKNOD",
    "REMOVE",
    "RMDIR",
    "RENAME",
    "LINK",
    "READDIR",
    "READDIRPLUS",
    "FSSTAT",
    "FSINFO",
    "PATHCONF",
    "COMMIT",
];
const ACL: [&str; 3] = ["ACL_NULL", "GETACL", "SETACL"];
const COUNT: usize = NFS.len() + ACL.len();

/// The calls of one node since the server started. Calls of no known procedure are not counted.
#[derive(Debug, Default)]
pub struct Calls {
    counts: [AtomicU64; COUNT],
    bytes: AtomicU64,
}

impl Calls {
    /// One call of NFS.
    pub(crate) fn nfs(&self, procedure: u32) {
        self.count(usize::try_from(procedure).ok().filter(|p| *p < NFS.len()));
    }

    /// One call of NFS_ACL.
    pub(crate) fn acl(&self, procedure: u32) {
        self.count(usize::try_from(procedure).ok().filter(|p| *p < ACL.len()).map(|p| NFS.len() + p));
    }

    fn count(&self, at: Option<usize>) {
        if let Some(count) = at.and_then(|at| self.counts.get(at)) {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Content that READ is about to give.
    pub(crate) fn read(&self, bytes: usize) {
        self.bytes.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// Each procedure by its name in RFC 1813, those of NFS_ACL as `ACL_NULL`, `GETACL`, `SETACL`.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, u64)> {
        let names = NFS.into_iter().chain(ACL);
        names.zip(self.counts.iter().map(|count| count.load(Ordering::Relaxed)))
    }

    /// Calls of all procedures.
    pub fn total(&self) -> u64 {
        self.iter().map(|(_, count)| count).sum()
    }

    /// Bytes of content given by READ.
    pub fn bytes_read(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_are_counted_by_name() {
        let calls = Calls::default();
        for procedure in [1, 1, 6, 21, 22, u32::MAX] {
            calls.nfs(procedure);
        }
        for procedure in [1, 3] {
            calls.acl(procedure);
        }
        calls.read(5);
        let counted: Vec<_> = calls.iter().filter(|(_, count)| *count != 0).collect();
        assert_eq!(counted, [("GETATTR", 2), ("READ", 1), ("COMMIT", 1), ("GETACL", 1)]);
        assert_eq!((calls.total(), calls.bytes_read()), (5, 5));
    }
}
