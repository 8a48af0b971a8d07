//! stub
use super::InstallError;
use crate::store::Store;
use crate::tree::Tree;
pub(super) fn update(_: &mut Tree, _: &Store, _: i64) -> Result<(), InstallError> { Ok(()) }
