//! The map of a sparse file: which pieces of it are in the archive; the rest reads as zero bytes.
//! Must not know: where the map was written, header blocks other than the old GNU form's.
//! Spec: GNU tar manual, appendix "Storing Sparse Files" (old GNU, 0.0, 0.1, 1.0).

use super::Fault;
use super::header::{Block, unsigned};

/// More pieces than any real file has, in 16 MiB of memory.
pub(crate) const PIECES_MAX: usize = 1 << 20;

/// A checked map and the place in it.
#[derive(Debug)]
pub(crate) struct Sparse {
    pieces: std::vec::IntoIter<(u64, u64)>,
    current: Option<(u64, u64)>,
    real_size: u64,
    at: u64,
}

/// What comes next in the file, with its length in bytes.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Step {
    Zeros(u64),
    Data(u64),
    End,
}

impl Sparse {
    /// Checks that the pieces ascend, fit the file, and are together what is `stored`.
    pub fn new(pieces: Vec<(u64, u64)>, real_size: u64, stored: u64) -> Result<Sparse, Fault> {
        let mut end = 0;
        let mut sum = 0u64;
        for &(offset, len) in &pieces {
            let next = offset.checked_add(len).filter(|&next| offset >= end && next <= real_size);
            end = next.ok_or_else(|| Fault::Corrupt("the sparse map is out of order or too long".into()))?;
            // Cannot overflow: pieces are apart and end below `real_size`.
            sum = sum.wrapping_add(len);
        }
        if sum != stored {
            let what = format!("the sparse map has {sum} bytes of data, the archive {stored}");
            return Err(Fault::Corrupt(what));
        }
        let mut pieces = pieces.into_iter();
        Ok(Sparse { current: pieces.next(), pieces, real_size, at: 0 })
    }

    /// Length of the file in bytes, holes included.
    pub fn real_size(&self) -> u64 {
        self.real_size
    }

    pub fn step(&mut self) -> Step {
        while self.current.is_some_and(|(offset, len)| self.at >= offset.saturating_add(len)) {
            self.current = self.pieces.next();
        }
        match self.current {
            Some((offset, _)) if self.at < offset => Step::Zeros(offset - self.at),
            Some((offset, len)) => Step::Data(offset.saturating_add(len) - self.at),
            None if self.at < self.real_size => Step::Zeros(self.real_size - self.at),
            None => Step::End,
        }
    }

    /// Goes on by what was taken of a step.
    pub fn advance(&mut self, taken: u64) {
        self.at = self.at.saturating_add(taken);
    }
}

/// Pairs from a flat list.
pub(crate) fn pairs(flat: &[u64]) -> Result<Vec<(u64, u64)>, Fault> {
    if !flat.len().is_multiple_of(2) {
        return Err(Fault::Corrupt("the sparse map has an odd count of numbers".into()));
    }
    Ok(flat.chunks_exact(2).map(|pair| (pair[0], pair[1])).collect())
}

/// The pieces in an old GNU header (at 386, four of them) or a block that extends it (at 0, 21 of
/// them), and whether another block follows. Empty places are skipped.
pub(crate) fn old_gnu(block: &Block, extension: bool) -> Result<(Vec<(u64, u64)>, bool), Fault> {
    let (table, more) = if extension { (&block[..504], block[504]) } else { (&block[386..482], block[482]) };
    let mut pieces = Vec::new();
    for slot in table.chunks_exact(24).filter(|slot| slot[0] != 0) {
        pieces.push((unsigned("sparse offset", &slot[..12])?, unsigned("sparse length", &slot[12..])?));
    }
    Ok((pieces, more != 0))
}

/// The file's length in an old GNU header.
pub(crate) fn old_gnu_size(block: &Block) -> Result<u64, Fault> {
    unsigned("real size", &block[483..495])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn steps(mut sparse: Sparse) -> Vec<Step> {
        let mut all = Vec::new();
        loop {
            let step = sparse.step();
            match step {
                Step::Zeros(n) | Step::Data(n) => sparse.advance(n),
                Step::End => return all,
            }
            all.push(step);
        }
    }

    #[test]
    fn holes_are_between_before_and_after_the_pieces() {
        let sparse = Sparse::new(vec![(10, 5), (15, 5), (30, 0), (40, 1)], 50, 11).unwrap();
        use Step::{Data, Zeros};
        assert_eq!(steps(sparse), [Zeros(10), Data(5), Data(5), Zeros(10), Zeros(10), Data(1), Zeros(9)]);
        assert_eq!(steps(Sparse::new(vec![], 3, 0).unwrap()), [Zeros(3)]);
        assert_eq!(steps(Sparse::new(vec![(0, 3)], 3, 3).unwrap()), [Data(3)]);
        assert_eq!(steps(Sparse::new(vec![], 0, 0).unwrap()), []);
    }

    #[test]
    fn maps_that_contradict_themselves_are_refused() {
        for (pieces, real, stored) in [
            (vec![(0, 10), (5, 10)], 20, 20),
            (vec![(10, 5), (0, 5)], 20, 10),
            (vec![(0, 21)], 20, 21),
            (vec![(u64::MAX, 2)], u64::MAX, 2),
            (vec![(0, 10)], 20, 9),
        ] {
            assert!(Sparse::new(pieces.clone(), real, stored).is_err(), "{pieces:?}");
        }
        assert!(pairs(&[1, 2, 3]).is_err());
        assert_eq!(pairs(&[1, 2, 3, 4]).unwrap(), [(1, 2), (3, 4)]);
    }

    #[test]
    fn old_headers_hold_four_pieces_and_extensions_21() {
        let mut block = [0; 512];
        block[386..410].copy_from_slice(b"00000000000\x0000000000017\0");
        block[482] = 1;
        block[483..495].copy_from_slice(b"00000000100\0");
        assert_eq!(old_gnu(&block, false).unwrap(), (vec![(0, 15)], true));
        assert_eq!(old_gnu_size(&block).unwrap(), 64);
        let mut block = [0; 512];
        block[480..504].copy_from_slice(b"00000000001\x0000000000002\0");
        assert_eq!(old_gnu(&block, true).unwrap(), (vec![(1, 2)], false));
        block[480] = b'9';
        assert!(old_gnu(&block, true).is_err());
    }
}
