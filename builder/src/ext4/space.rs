//! Free blocks, given out from the front: what is not reserved for the filesystem itself.
//! Must not know: what blocks are reserved or taken for.
//! Spec: none.

use std::ops::Range;

use super::format::FsBlock;

/// Blocks are missing: at least `short` of them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Full {
    pub short: u64,
}

/// The blocks of a filesystem. All before a certain one are in use; after it only reserved ones.
#[derive(Clone, Debug)]
pub(super) struct Space {
    /// Ascending, neither empty nor touching each other.
    reserved: Vec<Range<u64>>,
    /// First reserved range that ends after `at`.
    next: usize,
    /// No block before this one is free.
    at: u64,
    /// Blocks of the filesystem.
    end: u64,
}

impl Space {
    /// All blocks below `end` but the reserved ones, which come in any order without overlap.
    pub fn new(end: u64, mut reserved: Vec<Range<u64>>) -> Space {
        reserved.retain(|range| !range.is_empty());
        reserved.sort_unstable_by_key(|range| range.start);
        reserved.dedup_by(|next, last| {
            let touch = next.start <= last.end;
            if touch {
                last.end = last.end.max(next.end);
            }
            touch
        });
        Space { reserved, next: 0, at: 0, end }
    }

    /// Takes the next free blocks that lie together, `want` at most: where they begin and how many.
    pub fn take(&mut self, want: u64) -> Result<(FsBlock, u64), Full> {
        while let Some(range) = self.reserved.get(self.next).filter(|range| range.start <= self.at) {
            self.at = range.end.max(self.at);
            self.next += 1;
        }
        let limit = self.reserved.get(self.next).map_or(self.end, |range| range.start);
        let got = want.min(limit.saturating_sub(self.at));
        if got == 0 {
            return Err(Full { short: want });
        }
        let start = FsBlock(self.at);
        self.at += got;
        Ok((start, got))
    }

    /// Blocks that are still free.
    pub fn free(&self) -> u64 {
        self.end - self.used_in(0..self.end).map(|range| range.end - range.start).sum::<u64>()
    }

    /// The parts of `range` that are in use, ascending; the first may be empty.
    pub fn used_in(&self, range: Range<u64>) -> impl Iterator<Item = Range<u64>> {
        let taken = range.start..self.at.clamp(range.start, range.end);
        let rest = taken.end..range.end;
        let first = self.reserved.partition_point(|reserved| reserved.end <= rest.start);
        let reserved = self.reserved[first..].iter();
        let reserved = reserved.take_while({
            let end = range.end;
            move |reserved| reserved.start < end
        });
        std::iter::once(taken)
            .chain(reserved.map(move |used| used.start.max(rest.start)..used.end.min(rest.end)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn blocks_come_in_order_around_what_is_reserved() {
        let mut space = Space::new(20, vec![8..10, 0..2, 10..12, 5..5]);
        assert_eq!(space.free(), 14);
        assert_eq!(space.take(4), Ok((FsBlock(2), 4)));
        assert_eq!(space.take(4), Ok((FsBlock(6), 2)));
        assert_eq!(space.take(4), Ok((FsBlock(12), 4)));
        assert_eq!(space.free(), 4);
        assert_eq!(space.take(9), Ok((FsBlock(16), 4)));
        assert_eq!(space.take(9), Err(Full { short: 9 }));
        assert_eq!(space.free(), 0);
    }

    #[test]
    fn used_parts_are_those_taken_and_those_reserved() {
        let mut space = Space::new(20, vec![0..2, 8..12, 18..19]);
        space.take(3).unwrap();
        let used = |range| space.used_in(range).filter(|r| !r.is_empty()).collect::<Vec<_>>();
        assert_eq!(used(0..20), [0..5, 8..12, 18..19]);
        assert_eq!(used(4..10), [4..5, 8..10]);
        assert_eq!(used(12..18), []);
    }

    proptest! {
        #[test]
        fn every_block_is_given_out_once_unless_reserved(
            cuts in proptest::collection::btree_set(0u64..200, 0..20),
            wants in proptest::collection::vec(1u64..40, 0..60),
        ) {
            let cuts: Vec<u64> = cuts.into_iter().collect();
            let reserved: Vec<_> = cuts.chunks_exact(2).map(|c| c[0]..c[1]).collect();
            let mut space = Space::new(200, reserved.clone());
            let mut taken = [false; 200];
            let mut left = space.free();
            for want in wants {
                let Ok((start, got)) = space.take(want) else { break };
                for block in start.0..start.0 + got {
                    prop_assert!(!reserved.iter().any(|r| r.contains(&block)));
                    prop_assert!(!std::mem::replace(&mut taken[block as usize], true));
                }
                left -= got;
                prop_assert_eq!(space.free(), left);
            }
        }
    }
}
