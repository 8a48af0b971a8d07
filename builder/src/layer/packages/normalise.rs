//! stub
use super::{CHANGED, InstallError};
use crate::store::Store;
use crate::tree::{Time, Tree};
pub(super) fn normalise(tree: &mut Tree, _: &Store, epoch: i64) -> Result<(), InstallError> {
    let paths: Vec<_> = tree.iter().map(|(p, _, _)| p.clone()).collect();
    for p in paths { if let Some(m) = tree.meta_mut(&p) { if m.mtime == CHANGED || m.mtime > Time::seconds(epoch) { m.mtime = Time::seconds(epoch); } } }
    Ok(())
}
