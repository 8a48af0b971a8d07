//! Names on FAT: which are possible, which fit eight and three characters, and a short name for
//! each of those that do not.
//! Must not know: clusters, trees; it sees the names of one directory.
//! Spec: fatgen103, "FAT long directory entries", with its basis-name and numeric-tail algorithms.

use std::collections::{HashMap, HashSet};

/// The eleven bytes of a short entry, base and extension each padded with spaces.
pub(super) type Short = [u8; 11];

/// A name that FAT cannot spell.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NameError {
    /// Long names are UTF-16, so other bytes have no spelling.
    #[error("it is not UTF-8")]
    NotUtf8,
    /// A character that FAT keeps for itself.
    #[error("{found:?} is not allowed")]
    Forbidden {
        /// The first such character.
        found: char,
    },
    /// Readers drop spaces at both ends and dots at the end, so another name would be found.
    #[error("it begins with a space, or ends with a space or a dot")]
    Edge,
}

/// A possible name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Name<'t> {
    text: &'t str,
    /// The short name that differs from this one in case only.
    exact: Option<Short>,
}

impl<'t> Name<'t> {
    /// Checks a name of a tree.
    pub fn new(bytes: &'t [u8]) -> Result<Name<'t>, NameError> {
        let text = std::str::from_utf8(bytes).map_err(|_| NameError::NotUtf8)?;
        // U+FFFF pads the last long entry, where a reader would take it for the end.
        let bad = |c: &char| *c < ' ' || *c == '\u{ffff}' || "\"*/:<>?\\|".contains(*c);
        if let Some(found) = text.chars().find(bad) {
            return Err(NameError::Forbidden { found });
        }
        if text.starts_with(' ') || text.ends_with([' ', '.']) {
            return Err(NameError::Edge);
        }
        Ok(Name { text, exact: exact(text) })
    }

    /// The name as readers compare it: two names of a directory must differ in this.
    ///
    /// Letters are raised one by one, as the tables of Windows and Linux do; what would become two
    /// letters (ß) stays.
    pub fn folded(&self) -> String {
        self.text.chars().map(upper).collect()
    }

    /// The long name in UTF-16, empty when the short name says it all.
    pub fn long(&self) -> Vec<u16> {
        let plain = self.exact.is_some() && !self.text.bytes().any(|b| b.is_ascii_lowercase());
        if plain { Vec::new() } else { self.text.encode_utf16().collect() }
    }

    /// How many 32-byte entries the name takes: the short one and 13 units in each long one.
    pub fn entries(&self) -> u64 {
        1 + self.long().len().div_ceil(13) as u64
    }
}

fn upper(c: char) -> char {
    let mut raised = c.to_uppercase();
    match (raised.next(), raised.next()) {
        (Some(one), None) => one,
        _ => c,
    }
}

/// A short name for each name of one directory, in the same order.
///
/// A name that fits keeps itself in upper case, so that readers without long names (the mask ROM
/// looks for `RECOVERY.BIN`) find `recovery.bin`; the others get `BASE~1.EXT` with the lowest number
/// that is free. Names must differ in [`Name::folded`].
pub(super) fn short_names(names: &[Name<'_>]) -> Vec<Short> {
    // All exact names first: a tail must not take the name of one that comes later.
    let mut taken: HashSet<Short> = names.iter().filter_map(|n| n.exact).collect();
    let mut next = HashMap::new();
    names.iter().map(|n| n.exact.unwrap_or_else(|| with_tail(n.text, &mut taken, &mut next))).collect()
}

/// Next number to try for a tail of so many digits, after such a base and extension.
type Tails = HashMap<(usize, Vec<u8>, Vec<u8>), u32>;

fn with_tail(text: &str, taken: &mut HashSet<Short>, next: &mut Tails) -> Short {
    let (base, ext) = basis(text);
    for digits in 1..=6 {
        let stem = &base[..base.len().min(7 - digits)];
        // Without this memory a directory of 30,000 like names would try 450 million tails.
        let from = next.entry((digits, stem.to_vec(), ext.clone()));
        let number = from.or_insert(10u32.pow(u32::try_from(digits).unwrap_or(1) - 1));
        while number.to_string().len() == digits {
            let candidate = pack(&[stem, b"~", number.to_string().as_bytes()].concat(), &ext);
            *number += 1;
            if taken.insert(candidate) {
                return candidate;
            }
        }
    }
    // A directory has at most 65,536 entries, and six digits count to 999,999.
    unreachable!("a directory has fewer names than there are tails")
}

/// Base and extension in short letters, before a tail is added.
fn basis(text: &str) -> (Vec<u8>, Vec<u8>) {
    let text = text.trim_start_matches(['.', ' ']);
    let (base, ext) = text.rsplit_once('.').unwrap_or((text, ""));
    let short = |part: &str, limit: usize| -> Vec<u8> {
        part.chars().filter(|c| !matches!(c, ' ' | '.')).map(letter).take(limit).collect()
    };
    (short(base, 8), short(ext, 3))
}

/// The letter itself in upper case, or `_` for one that short names do not have.
fn letter(c: char) -> u8 {
    match u8::try_from(c.to_ascii_uppercase()) {
        Ok(b) if is_short(b) => b,
        _ => b'_',
    }
}

/// True for the bytes of short names: upper case, digits and some signs. Bytes over 0x7f mean
/// something else in every code page, so we have none.
fn is_short(b: u8) -> bool {
    b.is_ascii_uppercase() || b.is_ascii_digit() || b"!#$%&'()-@^_`{}~".contains(&b)
}

fn exact(text: &str) -> Option<Short> {
    let upper = text.to_ascii_uppercase();
    let (base, ext) = upper.split_once('.').unwrap_or((&upper, ""));
    let fits = (1..=8).contains(&base.len()) && ext.len() <= 3;
    (fits && base.bytes().chain(ext.bytes()).all(is_short)).then(|| pack(base.as_bytes(), ext.as_bytes()))
}

/// Base and extension side by side, cut to eight and three bytes.
fn pack(base: &[u8], ext: &[u8]) -> Short {
    let mut short = [b' '; 11];
    short.iter_mut().zip(base.iter().take(8)).for_each(|(to, from)| *to = *from);
    short[8..].iter_mut().zip(ext).for_each(|(to, from)| *to = *from);
    short
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn shorts(names: &[&str]) -> Vec<String> {
        let names: Vec<_> = names.iter().map(|n| Name::new(n.as_bytes()).unwrap()).collect();
        let show = |s: Short| String::from_utf8(s.to_vec()).unwrap();
        short_names(&names).into_iter().map(show).collect()
    }

    #[test]
    fn names_that_fit_keep_themselves() {
        for (given, short, long) in [
            ("CONFIG.TXT", "CONFIG  TXT", false),
            ("README", "README     ", false),
            ("A-B_{1}.~", "A-B_{1} ~  ", false),
            ("config.txt", "CONFIG  TXT", true),
            ("Start4.elf", "START4  ELF", true),
            ("bcm2711-rpi-4-b.dtb", "BCM271~1DTB", true),
            ("overlays.d", "OVERLAYSD  ", true),
            (".hidden", "HIDDEN~1   ", true),
            ("a.b.c", "AB~1    C  ", true),
            ("a b", "AB~1       ", true),
            ("file.html", "FILE~1  HTM", true),
            ("é", "_~1        ", true),
            ("naïve+[1].txt", "NA_VE_~1TXT", true),
            ("..a", "A~1        ", true),
        ] {
            assert_eq!(shorts(&[given]), [short], "given {given:?}");
            assert_eq!(!Name::new(given.as_bytes()).unwrap().long().is_empty(), long, "given {given:?}");
        }
    }

    #[test]
    fn tails_count_and_avoid_real_names() {
        assert_eq!(
            shorts(&["longname1", "longname2", "LONGNA~2", "longna~4", "longname3", "longname4"]),
            ["LONGNA~1   ", "LONGNA~3   ", "LONGNA~2   ", "LONGNA~4   ", "LONGNA~5   ", "LONGNA~6   "]
        );
        let many: Vec<String> = (0..30_000).map(|i| format!("module-{i:06}.ko")).collect();
        let many: Vec<&str> = many.iter().map(String::as_str).collect();
        let short = shorts(&many);
        assert_eq!((short[8].as_str(), short[9].as_str()), ("MODULE~9KO ", "MODUL~10KO "));
        assert_eq!(short.iter().collect::<HashSet<_>>().len(), many.len());
    }

    #[test]
    fn names_fat_cannot_spell_are_refused() {
        for (given, want) in [
            (&b"a:b"[..], NameError::Forbidden { found: ':' }),
            (b"tab\t", NameError::Forbidden { found: '\t' }),
            (b"a\\b", NameError::Forbidden { found: '\\' }),
            ("\u{ffff}".as_bytes(), NameError::Forbidden { found: '\u{ffff}' }),
            (b"\xff", NameError::NotUtf8),
            (b"a.", NameError::Edge),
            (b"a ", NameError::Edge),
            (b" a", NameError::Edge),
        ] {
            assert_eq!(Name::new(given), Err(want), "given {given:?}");
        }
    }

    #[test]
    fn folding_ignores_case_and_keeps_lengths() {
        let fold = |t: &str| Name::new(t.as_bytes()).unwrap().folded();
        assert_eq!(fold("Config.TXT"), fold("cONFIG.txt"));
        assert_eq!(fold("é"), fold("É"));
        assert_ne!(fold("ß"), fold("ss"));
    }

    proptest! {
        #[test]
        fn short_names_are_legal_and_unique(texts in proptest::collection::vec("[a-cA-C .~1é]{1,12}", 1..40)) {
            let mut names: Vec<Name<'_>> =
                texts.iter().filter_map(|t| Name::new(t.as_bytes()).ok()).collect();
            let mut seen = HashSet::new();
            names.retain(|n| seen.insert(n.folded()));
            let shorts = short_names(&names);
            prop_assert_eq!(shorts.iter().collect::<HashSet<_>>().len(), names.len());
            for short in &shorts {
                prop_assert!(short[0] != b' ' && short.iter().all(|&b| b == b' ' || is_short(b)));
            }
        }
    }
}
