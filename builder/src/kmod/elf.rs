//! The few parts of an ELF file that a kernel module's metadata is in: sections and symbols.
//! Must not know: modules, files, compression. It sees the bytes of one object file.
//! Spec: System V ABI, chapters 4 (object files, sections) and 5 (symbol table); ELF-64 layout.

#![deny(clippy::arithmetic_side_effects, clippy::as_conversions)]

use std::ops::Range;

/// Size of `Elf64_Ehdr` in bytes.
const EHDR_SIZE: u64 = 64;
/// Size of `Elf64_Shdr` in bytes.
const SHDR_SIZE: u64 = 64;
/// Size of `Elf64_Phdr` in bytes.
const PHDR_SIZE: u64 = 56;
/// Size of `Elf64_Sym` in bytes.
const SYM_SIZE: usize = 24;
/// `sh_type` of a section without bytes in the file.
const SHT_NOBITS: u32 = 8;
/// `sh_type` of the full symbol table.
const SHT_SYMTAB: u32 = 2;
/// `p_type` of the name of the dynamic loader: only dynamically linked programs have one.
const PT_INTERP: u32 = 3;
/// `st_shndx` of a symbol that another object defines.
const SHN_UNDEF: u16 = 0;

/// Bytes that are no object file we can read. `at` counts bytes from the start of the file.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ElfError {
    /// The file ends before what its headers promise.
    #[error("at byte {at}: {want} bytes are wanted, the file has {got}")]
    Truncated {
        /// Where the missing bytes begin.
        at: u64,
        /// How many are wanted.
        want: u64,
        /// Length of the file.
        got: u64,
    },
    /// A field contradicts the format or another field.
    #[error("at byte {at}: {what}")]
    Corrupt {
        /// Where the field is.
        at: u64,
        /// What is wrong.
        what: &'static str,
    },
    /// A kind of ELF file that no Raspberry Pi kernel of 64 bits has.
    #[error("at byte {at}: {what} is not supported")]
    Unsupported {
        /// Where the field is.
        at: u64,
        /// What it asks for.
        what: &'static str,
    },
}

/// One section header, with its bytes checked to be inside the file.
#[derive(Debug, Clone)]
struct Section {
    name: u32,
    sh_type: u32,
    link: u32,
    range: Range<usize>,
}

/// A symbol: its name and whether this object defines it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Symbol<'a> {
    /// The name, without the ending zero byte; may be empty.
    pub name: &'a [u8],
    /// False when another object must define it.
    pub defined: bool,
}

/// An object file whose headers have been checked.
#[derive(Debug, Clone)]
pub struct Elf<'a> {
    bytes: &'a [u8],
    sections: Vec<Section>,
    names: usize,
}

impl<'a> Elf<'a> {
    /// Reads the headers. Never allocates more than the section headers that are there.
    pub fn parse(bytes: &'a [u8]) -> Result<Elf<'a>, ElfError> {
        check_ident(bytes)?;
        let shoff = u64_at(bytes, 40)?;
        let shentsize = u16_at(bytes, 58)?;
        let shnum = u16_at(bytes, 60)?;
        let shstrndx = usize::from(u16_at(bytes, 62)?);
        if u64::from(shentsize) != SHDR_SIZE {
            return Err(ElfError::Corrupt { at: 58, what: "section headers are not 64 bytes each" });
        }
        // A count of 0 with a table means that the real count does not fit 16 bits. No module has
        // 65,280 sections.
        if shnum == 0 {
            return Err(ElfError::Unsupported { at: 60, what: "a file without section headers" });
        }
        let mut sections = Vec::with_capacity(usize::from(shnum));
        for index in 0..u64::from(shnum) {
            let at = index.checked_mul(SHDR_SIZE).and_then(|skip| shoff.checked_add(skip));
            let at = at.ok_or(ElfError::Corrupt { at: 40, what: "the section headers overflow" })?;
            sections.push(section(bytes, at)?);
        }
        if shstrndx >= sections.len() {
            return Err(ElfError::Corrupt { at: 62, what: "the section of names does not exist" });
        }
        Ok(Elf { bytes, sections, names: shstrndx })
    }

    /// The bytes of the first section of this name; `None` when there is none.
    pub fn section(&self, name: &str) -> Option<&'a [u8]> {
        let names = self.data(self.sections.get(self.names)?);
        let found = self.sections.iter().find(|s| string_at(names, s.name) == Some(name.as_bytes()))?;
        Some(self.data(found))
    }

    /// All symbols but the first, which is a placeholder, in the order of the table. Empty when the
    /// file has no full symbol table.
    pub fn symbols(&self) -> Result<Vec<Symbol<'a>>, ElfError> {
        let Some(table) = self.sections.iter().find(|s| s.sh_type == SHT_SYMTAB) else {
            return Ok(Vec::new());
        };
        let at = offset(table.range.start);
        let strings = usize::try_from(table.link).ok().and_then(|link| self.sections.get(link));
        let strings = strings.ok_or(ElfError::Corrupt { at, what: "the symbols' names do not exist" })?;
        let (rows, strings) = (self.data(table), self.data(strings));
        if rows.len() % SYM_SIZE != 0 {
            return Err(ElfError::Corrupt { at, what: "the symbol table is no multiple of 24 bytes" });
        }
        let mut symbols = Vec::with_capacity(rows.len() / SYM_SIZE);
        for row in rows.chunks_exact(SYM_SIZE).skip(1) {
            let name = string_at(strings, u32_at(row, 0)?);
            let name = name.ok_or(ElfError::Corrupt { at, what: "a symbol's name is outside its table" })?;
            symbols.push(Symbol { name, defined: u16_at(row, 6)? != SHN_UNDEF });
        }
        Ok(symbols)
    }

    fn data(&self, section: &Section) -> &'a [u8] {
        // `section` was checked against the length when it was read.
        self.bytes.get(section.range.clone()).unwrap_or_default()
    }
}

/// True for a program that needs a dynamic loader; false for a static one.
pub fn is_dynamic(bytes: &[u8]) -> Result<bool, ElfError> {
    check_ident(bytes)?;
    let phoff = u64_at(bytes, 32)?;
    let phnum = u16_at(bytes, 56)?;
    for index in 0..u64::from(phnum) {
        let at = index.checked_mul(PHDR_SIZE).and_then(|skip| phoff.checked_add(skip));
        let at = at.ok_or(ElfError::Corrupt { at: 32, what: "the program headers overflow" })?;
        if u32_at(bytes, at)? == PT_INTERP {
            return Ok(true);
        }
    }
    Ok(false)
}

fn check_ident(bytes: &[u8]) -> Result<(), ElfError> {
    let got = offset(bytes.len());
    let ident = bytes.get(..16).ok_or(ElfError::Truncated { at: 0, want: EHDR_SIZE, got })?;
    match ident {
        [0x7f, b'E', b'L', b'F', 2, 1, ..] => Ok(()),
        [0x7f, b'E', b'L', b'F', 2, ..] => Err(ElfError::Unsupported { at: 5, what: "big-endian ELF" }),
        [0x7f, b'E', b'L', b'F', ..] => Err(ElfError::Unsupported { at: 4, what: "ELF of 32 bits" }),
        _ => Err(ElfError::Corrupt { at: 0, what: "this is no ELF file" }),
    }
}

fn section(bytes: &[u8], at: u64) -> Result<Section, ElfError> {
    let field = |skip: u64| at.checked_add(skip).ok_or(ElfError::Corrupt { at, what: "offset overflows" });
    let sh_type = u32_at(bytes, field(4)?)?;
    let (sh_offset, sh_size) = (u64_at(bytes, field(24)?)?, u64_at(bytes, field(32)?)?);
    let range = match sh_type {
        SHT_NOBITS => 0..0,
        _ => range(bytes, sh_offset, sh_size)?,
    };
    Ok(Section { name: u32_at(bytes, at)?, sh_type, link: u32_at(bytes, field(40)?)?, range })
}

fn range(bytes: &[u8], at: u64, want: u64) -> Result<Range<usize>, ElfError> {
    let short = || ElfError::Truncated { at, want, got: offset(bytes.len()) };
    let end = at.checked_add(want).ok_or_else(short)?;
    let range = usize::try_from(at).map_err(|_| short())?..usize::try_from(end).map_err(|_| short())?;
    if range.end > bytes.len() { Err(short()) } else { Ok(range) }
}

fn fixed<const N: usize>(bytes: &[u8], at: u64) -> Result<[u8; N], ElfError> {
    let want = offset(N);
    let short = ElfError::Truncated { at, want, got: offset(bytes.len()) };
    let range = range(bytes, at, want)?;
    bytes.get(range).and_then(|b| b.try_into().ok()).ok_or(short)
}

fn u16_at(bytes: &[u8], at: u64) -> Result<u16, ElfError> {
    Ok(u16::from_le_bytes(fixed(bytes, at)?))
}

fn u32_at(bytes: &[u8], at: u64) -> Result<u32, ElfError> {
    Ok(u32::from_le_bytes(fixed(bytes, at)?))
}

fn u64_at(bytes: &[u8], at: u64) -> Result<u64, ElfError> {
    Ok(u64::from_le_bytes(fixed(bytes, at)?))
}

/// The zero-ended string at `at` of a string table, without the zero.
fn string_at(table: &[u8], at: u32) -> Option<&[u8]> {
    let rest = table.get(usize::try_from(at).ok()?..)?;
    let end = rest.iter().position(|&b| b == 0)?;
    rest.get(..end)
}

/// Lengths of slices fit 64 bits on every machine that Rust knows.
fn offset(len: usize) -> u64 {
    u64::try_from(len).unwrap_or(u64::MAX)
}

#[cfg(test)]
pub(crate) mod tests;
