//! Finds cards that say they are larger than they are.
//! Must not know: what will be written.
//!
//! Such a card takes writes beyond its end and either drops them or puts them over earlier ones (address bits
//! that lead nowhere). Both show when every place has a mark of its own and all are read back. Marks lie at
//! powers of two, between them and at the end, a few dozen in all: a second, where a test of every block takes
//! hours.

use std::io;

use super::medium::{Buffer, Medium};
use crate::digest::Key;

/// Bytes of a mark.
const MARK: u64 = 4096;
/// The first place. Nobody makes cards of less.
const FIRST: u64 = 64 << 20;

/// What the card really has, if that is less than it says.
///
/// # Errors
/// What the device says.
pub fn real_size(medium: &Medium, keep: Option<(u64, u64)>) -> io::Result<Option<u64>> {
    let kept = |at: u64| keep.is_some_and(|(start, size)| at + MARK > start && at < start + size);
    let places: Vec<u64> = places(medium.size).into_iter().filter(|at| !kept(*at)).collect();
    let mut buffer = Buffer::default();
    for at in &places {
        buffer.resize(0);
        buffer.push(&mark(*at));
        medium.write(*at, &buffer)?;
    }
    medium.sync()?;
    // A place that holds another's mark is that place, seen again: the card's size goes into their distance.
    let mut size: Option<u64> = None;
    let mut good = 0;
    let mut all = true;
    for at in &places {
        let found = medium.read(*at, mark(*at).len(), &mut buffer).ok();
        if found.is_some_and(|found| found == mark(*at)) {
            good = at + MARK;
            continue;
        }
        all = false;
        if let Some(other) = places.iter().find(|other| found.is_some_and(|found| found == mark(**other))) {
            size = Some(gcd(size.unwrap_or(0), other.abs_diff(*at)));
        }
    }
    Ok((!all).then(|| size.unwrap_or(good)))
}

fn gcd(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { gcd(b, a % b) }
}

/// Powers of two and the middles between them, and the last block.
fn places(size: u64) -> Vec<u64> {
    let mut places: Vec<u64> = std::iter::successors(Some(FIRST), |at| at.checked_mul(2))
        .flat_map(|at| [at, at + at / 2])
        .take_while(|at| *at + MARK <= size)
        .collect();
    if let Some(last) = size.checked_sub(MARK).map(|at| at / MARK * MARK)
        && places.last().is_none_or(|at| at + MARK <= last)
    {
        places.push(last);
    }
    places
}

/// Different for each place.
fn mark(at: u64) -> Vec<u8> {
    let digest = Key::new("flash probe").with(&at.to_le_bytes()).finish();
    digest.bytes().repeat(usize::try_from(MARK).unwrap_or(0) / 32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_apart_and_reach_the_end() {
        for size in [0, 4095, 4096, 100 << 20, 8 << 30, (8 << 30) + 4096, 63_864_569_856] {
            let places = places(size);
            assert!(places.windows(2).all(|two| two[0] + MARK <= two[1]), "{size}: {places:?}");
            assert!(places.iter().all(|at| at + MARK <= size && at % MARK == 0));
            assert!(size < 4096 || places.last().is_some_and(|at| size - at < 2 * MARK), "{size}");
            assert!(places.len() < 64);
        }
    }

    #[test]
    fn an_honest_medium_is_believed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("card");
        std::fs::File::create(&path).unwrap().set_len(300 << 20).unwrap();
        let medium = Medium::open(&path, true).unwrap();
        assert_eq!(real_size(&medium, Some((64 << 20, 1 << 20))).unwrap(), None);
        let mut kept = Buffer::default();
        assert!(medium.read(64 << 20, 4096, &mut kept).unwrap().iter().all(|b| *b == 0), "left alone");
    }
}
