//! What a card has in `gt-state`, and whether a new disk can leave it where it is.
//! Must not know: how anything is written.
//! Spec: the superblock in Documentation/filesystems/ext4 of the kernel.

use super::device::label;
use super::marker::{self, Marker};
use super::medium::Medium;
use crate::build::image::{Plan, STATE};
use crate::disk::read::partitions;
use crate::io::at::ReadAt;

/// What is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// The plan's partition of this index has its filesystem already.
    Stays(usize),
    /// There is one, which the new disk would be written over.
    InTheWay {
        /// Bytes from the start.
        start: u64,
        /// Bytes.
        size: u64,
    },
    /// There is none.
    None,
}

/// Looks for the state of a node. It is found without a partition table too, for a flash that was interrupted
/// has left none: where the plan has it, or where that flash found it.
pub fn find(medium: &Medium, plan: &Plan) -> State {
    let parts = &plan.layout().partitions;
    if let Some(index) = parts.iter().position(|p| p.spec.name == STATE) {
        let place = &parts[index];
        if plan.filesystem(index).is_some_and(|id| is_ours(medium, place.offset, place.spec.size, id)) {
            return State::Stays(index);
        }
    }
    let mut head = [0; marker::LEN];
    let marker = medium.read_at(&mut head, 0).ok().and_then(|()| Marker::read(&head));
    let kept = marker.and_then(|marker| marker.kept);
    let old = partitions(medium).unwrap_or_default();
    let mut places = old.iter().map(|part| (part.start, part.size)).chain(kept);
    let state = places.find(|(start, _)| label(medium, *start).is_some_and(|name| name == STATE));
    state.map_or(State::None, |(start, size)| State::InTheWay { start, size })
}

/// True for an ext filesystem with our label and this id that fills its partition. Its own count of
/// blocks is asked, for a filesystem that is longer would be cut.
fn is_ours(medium: &Medium, start: u64, size: u64, id: &[u8; 16]) -> bool {
    let mut block = [0; 1024];
    let Some(at) = start.checked_add(1024) else { return false };
    if medium.read_at(&mut block, at).is_err() || block[0x38..0x3a] != [0x53, 0xef] {
        return false;
    }
    let word = |at: usize| block[at..at + 4].iter().rev().fold(0, |n, byte| n << 8 | u64::from(*byte));
    let shift = 10 + word(0x18);
    let blocks = word(0x4) | word(0x150) << 32;
    let bytes = if shift < 17 { blocks.checked_mul(1 << shift) } else { None };
    let name = &block[0x78..0x88];
    bytes == Some(size) && block[0x68..0x78] == id[..] && name.starts_with(STATE.as_bytes())
}
