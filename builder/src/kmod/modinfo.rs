//! What one kernel module says about itself: name, aliases, exported and needed symbols.
//! Must not know: trees, other modules, compression.
//! Spec: the kernel's include/linux/{module,export}.h and scripts/mod/modpost.c; read as kmod 34
//! reads it (libkmod-elf.c), whose rules are noted where they surprise.

use super::elf::{Elf, ElfError};

/// One module's metadata. Texts are ASCII: the indexes can hold nothing else.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ModInfo {
    /// `alias=` values in file order: what hardware or name it answers to.
    pub aliases: Vec<String>,
    /// `softdep=` values in file order, such as `pre: crypto-crc32c`.
    pub softdeps: Vec<String>,
    /// `weakdep=` values in file order.
    pub weakdeps: Vec<String>,
    /// `firmware=` values in file order: files it may ask for.
    pub firmware: Vec<String>,
    /// Symbols that other modules may use.
    pub exports: Vec<String>,
    /// Symbols that the kernel or other modules must have, in the order of the symbol table.
    pub needs: Vec<String>,
}

/// A module whose metadata cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ModInfoError {
    /// No object file, or a broken one.
    #[error(transparent)]
    Elf(#[from] ElfError),
    /// An object file, but not a kernel module.
    #[error("there is no section `.modinfo`: this is no kernel module")]
    NoModInfo,
    /// A value that the indexes cannot hold: they branch on 7 bits.
    #[error("`{value}` in `{key}` is not ASCII")]
    NotAscii {
        /// Which field.
        key: &'static str,
        /// What it holds, made printable.
        value: String,
    },
}

impl ModInfo {
    /// Reads the metadata of an uncompressed module (`.ko`).
    pub fn parse(bytes: &[u8]) -> Result<ModInfo, ModInfoError> {
        let elf = Elf::parse(bytes)?;
        let mut info = ModInfo::default();
        let fields = elf.section(".modinfo").ok_or(ModInfoError::NoModInfo)?;
        for (key, value) in pairs(fields) {
            let (list, key) = match key {
                b"alias" => (&mut info.aliases, "alias"),
                b"softdep" => (&mut info.softdeps, "softdep"),
                b"weakdep" => (&mut info.weakdeps, "weakdep"),
                b"firmware" => (&mut info.firmware, "firmware"),
                _ => continue,
            };
            list.push(ascii(key, value)?);
        }
        info.read_symbols(&elf)?;
        Ok(info)
    }

    fn read_symbols(&mut self, elf: &Elf) -> Result<(), ModInfoError> {
        for symbol in elf.symbols()? {
            if !symbol.defined {
                if !symbol.name.is_empty() {
                    self.needs.push(ascii("symbol", symbol.name)?);
                }
            } else if let Some(name) = symbol.name.strip_prefix(b"__crc_") {
                self.exports.push(ascii("symbol", name)?);
            }
        }
        // Kernels without CONFIG_MODVERSIONS have no `__crc_*` symbols.
        if self.exports.is_empty() {
            let strings = elf.section("__ksymtab_strings").unwrap_or_default();
            for name in strings.split(|&b| b == 0).filter(|name| !name.is_empty()) {
                self.exports.push(ascii("symbol", name)?);
            }
        }
        Ok(())
    }
}

/// The `key=value` entries of a `.modinfo` section, which are ended by zero bytes and may have more
/// zero bytes between them. An entry without `=` has an empty value.
pub fn pairs(section: &[u8]) -> impl Iterator<Item = (&[u8], &[u8])> {
    section.split(|&b| b == 0).filter(|entry| !entry.is_empty()).map(|entry| {
        match entry.iter().position(|&b| b == b'=') {
            Some(at) => (&entry[..at], &entry[at + 1..]),
            None => (entry, &[][..]),
        }
    })
}

fn ascii(key: &'static str, value: &[u8]) -> Result<String, ModInfoError> {
    match std::str::from_utf8(value) {
        Ok(text) if text.is_ascii() => Ok(text.to_owned()),
        _ => Err(ModInfoError::NotAscii { key, value: crate::tree::printable(value) }),
    }
}

#[cfg(test)]
mod tests {
    use super::super::elf::tests::{TestElf, bytes_of_a_module};
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_module_tells_its_fields_and_symbols() {
        let info = ModInfo::parse(&bytes_of_a_module()).unwrap();
        assert_eq!(info.aliases, ["pci:v1*", "fs-x"]);
        assert_eq!(info.softdeps, ["pre: crc"]);
        assert_eq!(info.firmware, ["x.bin"]);
        assert_eq!(info.exports, ["x_open"]);
        assert_eq!(info.needs, ["printk", "y_read"]);
    }

    #[test]
    fn exports_come_from_the_strings_when_there_are_no_checksums() {
        let elf = TestElf::new()
            .section(".modinfo", b"license=GPL\0")
            .section("__ksymtab_strings", b"\0\0one\0two\0")
            .symbols(&[("need", false), ("own", true)]);
        let info = ModInfo::parse(&elf.bytes()).unwrap();
        assert_eq!(info.exports, ["one", "two"]);
        assert_eq!(info.needs, ["need"]);
    }

    #[test]
    fn what_is_no_module_is_refused_by_name() {
        let bare = TestElf::new().section(".text", b"x").bytes();
        assert_eq!(ModInfo::parse(&bare), Err(ModInfoError::NoModInfo));
        let odd = TestElf::new().section(".modinfo", b"alias=\xc3\xa4\0author=\xc3\xa4\0").bytes();
        let want = ModInfoError::NotAscii { key: "alias", value: "ä".into() };
        assert_eq!(ModInfo::parse(&odd), Err(want));
        assert!(matches!(ModInfo::parse(b"text"), Err(ModInfoError::Elf(_))));
    }

    #[test]
    fn entries_may_be_padded_and_lack_a_value() {
        let got: Vec<_> = pairs(b"\0\0a=1\0\0b\0c==\0d=").collect();
        let want: [(&[u8], &[u8]); 4] = [(b"a", b"1"), (b"b", b""), (b"c", b"="), (b"d", b"")];
        assert_eq!(got, want);
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            ModInfo::parse(&bytes).ok();
        }

        #[test]
        fn a_damaged_module_never_panics(
            changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
            cut in any::<prop::sample::Index>(),
        ) {
            let mut bytes = bytes_of_a_module();
            for (at, value) in changes {
                let at = at.index(bytes.len());
                bytes[at] = value;
            }
            ModInfo::parse(&bytes).ok();
            bytes.truncate(cut.index(bytes.len()));
            ModInfo::parse(&bytes).ok();
        }
    }
}
