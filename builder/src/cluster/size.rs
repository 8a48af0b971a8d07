//! Sizes as people write them: `4G`.
//! Must not know: what has the size.
//! Spec: the suffixes K, M, G and T (also as KiB, MiB, GiB, TiB) are powers of 1024, as in lsblk(8).

use std::fmt;
use std::str::FromStr;

use super::name::NameError;

/// A number of bytes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ByteSize(u64);

const UNITS: [(&str, u64); 4] = [("T", 1 << 40), ("G", 1 << 30), ("M", 1 << 20), ("K", 1 << 10)];

impl ByteSize {
    /// Bytes.
    pub fn bytes(self) -> u64 {
        self.0
    }
}

/// A whole number and a unit. `4GB` is refused: some mean 4,000,000,000 bytes by it.
impl FromStr for ByteSize {
    type Err = NameError;

    fn from_str(text: &str) -> Result<ByteSize, NameError> {
        let wrong = || {
            let wanted = "wanted is a whole number with K, M, G or T (powers of 1024), such as `4G`";
            NameError::new(text, "size", wanted)
        };
        let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
        let (number, unit) = text.split_at(end);
        let unit = unit.strip_suffix("iB").unwrap_or(unit);
        let (_, factor) = UNITS.iter().find(|(name, _)| *name == unit).ok_or_else(wrong)?;
        let number: u64 = number.parse().map_err(|_| wrong())?;
        number.checked_mul(*factor).filter(|n| *n > 0).map(ByteSize).ok_or_else(wrong)
    }
}

/// In the largest unit that gives a whole number.
impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match UNITS.iter().find(|(_, factor)| self.0.is_multiple_of(*factor)) {
            Some((unit, factor)) => write!(f, "{}{unit}", self.0 / factor),
            None => write!(f, "{}", self.0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        for (given, want) in [
            ("4G", Some(4 << 30)),
            ("512MiB", Some(512 << 20)),
            ("1T", Some(1 << 40)),
            ("64K", Some(65536)),
            ("4GB", None),
            ("4", None),
            ("4g", None),
            ("-4G", None),
            ("0G", None),
            ("1.5G", None),
            ("99999999999T", None),
            ("", None),
            ("G", None),
        ] {
            assert_eq!(given.parse::<ByteSize>().ok().map(ByteSize::bytes), want, "given {given:?}");
        }
        assert_eq!("1024M".parse::<ByteSize>().unwrap().to_string(), "1G");
        assert_eq!("1025M".parse::<ByteSize>().unwrap().to_string(), "1025M");
    }
}
