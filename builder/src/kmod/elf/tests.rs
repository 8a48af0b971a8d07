//! Tests of the ELF reader, and the object files that other tests build on.

use super::*;
use proptest::prelude::*;

/// Builds small object files: sections one after another, then the section headers.
#[derive(Default)]
pub(crate) struct TestElf {
    sections: Vec<(String, u32, u32, Vec<u8>)>,
}

impl TestElf {
    pub(crate) fn new() -> TestElf {
        TestElf { sections: vec![(String::new(), 0, 0, Vec::new())] }
    }

    pub(crate) fn section(mut self, name: &str, bytes: &[u8]) -> TestElf {
        self.sections.push((name.into(), 1, 0, bytes.into()));
        self
    }

    pub(crate) fn symbols(mut self, symbols: &[(&str, bool)]) -> TestElf {
        let (mut strings, mut rows) = (vec![0], vec![0; SYM_SIZE]);
        for (name, defined) in symbols {
            rows.extend(u32::try_from(strings.len()).unwrap().to_le_bytes());
            rows.extend([0x10, 0, u8::from(*defined), 0]);
            rows.extend([0; 16]);
            strings.extend(name.as_bytes());
            strings.push(0);
        }
        let link = u32::try_from(self.sections.len()).unwrap().wrapping_add(1);
        self.sections.push((".symtab".into(), SHT_SYMTAB, link, rows));
        self.sections.push((".strtab".into(), 3, 0, strings));
        self
    }

    #[expect(clippy::arithmetic_side_effects, reason = "a few small sections")]
    pub(crate) fn bytes(mut self) -> Vec<u8> {
        let mut names = vec![0];
        let mut at = Vec::new();
        self.sections.push((".shstrtab".into(), 3, 0, Vec::new()));
        for (name, ..) in &self.sections {
            at.push(u32::try_from(names.len()).unwrap());
            names.extend(name.as_bytes());
            names.push(0);
        }
        self.sections.last_mut().unwrap().3 = names;
        let mut bytes = vec![0; 64];
        let mut headers = Vec::new();
        for ((_, sh_type, link, data), name) in self.sections.iter().zip(at) {
            let mut header = [0; 64];
            header[..4].copy_from_slice(&name.to_le_bytes());
            header[4..8].copy_from_slice(&sh_type.to_le_bytes());
            header[24..32].copy_from_slice(&offset(bytes.len()).to_le_bytes());
            header[32..40].copy_from_slice(&offset(data.len()).to_le_bytes());
            header[40..44].copy_from_slice(&link.to_le_bytes());
            headers.extend(header);
            bytes.extend(data);
        }
        let shnum = u16::try_from(self.sections.len()).unwrap();
        bytes[..6].copy_from_slice(b"\x7fELF\x02\x01");
        let shoff = offset(bytes.len());
        bytes[40..48].copy_from_slice(&shoff.to_le_bytes());
        bytes[58..60].copy_from_slice(&64u16.to_le_bytes());
        bytes[60..62].copy_from_slice(&shnum.to_le_bytes());
        bytes[62..64].copy_from_slice(&(shnum - 1).to_le_bytes());
        bytes.extend(headers);
        bytes
    }
}

/// A module with a bit of everything.
pub(crate) fn bytes_of_a_module() -> Vec<u8> {
    module(
        b"alias=pci:v1*\0alias=fs-x\0softdep=pre: crc\0firmware=x.bin\0",
        &["x_open"],
        &["printk", "y_read"],
    )
}

/// A module with these `.modinfo` bytes that exports and needs these symbols.
pub(crate) fn module(modinfo: &[u8], exports: &[&str], needs: &[&str]) -> Vec<u8> {
    let crcs: Vec<String> = exports.iter().map(|name| format!("__crc_{name}")).collect();
    let mut symbols: Vec<(&str, bool)> = crcs.iter().map(|name| (name.as_str(), true)).collect();
    symbols.extend(needs.iter().map(|name| (*name, false)));
    TestElf::new().section(".modinfo", modinfo).symbols(&symbols).bytes()
}

#[test]
fn sections_and_symbols_are_found() {
    let bytes = TestElf::new().section(".a", b"x").section(".b", b"yz").symbols(&[("s", true)]).bytes();
    let elf = Elf::parse(&bytes).unwrap();
    assert_eq!(elf.section(".a"), Some(&b"x"[..]));
    assert_eq!(elf.section(".b"), Some(&b"yz"[..]));
    assert_eq!(elf.section(".c"), None);
    assert_eq!(elf.symbols().unwrap(), [Symbol { name: b"s", defined: true }]);
}

#[test]
fn one_wrong_field_gives_its_own_error() {
    type Check = fn(&ElfError) -> bool;
    let cases: [(usize, &[u8], Check); 8] = [
        (0, b"\x7eELF", |e| matches!(e, ElfError::Corrupt { at: 0, .. })),
        (4, &[1], |e| matches!(e, ElfError::Unsupported { at: 4, .. })),
        (5, &[2], |e| matches!(e, ElfError::Unsupported { at: 5, .. })),
        (40, &[0xff; 8], |e| matches!(e, ElfError::Corrupt { .. } | ElfError::Truncated { .. })),
        (40, &[0, 0, 0, 1], |e| matches!(e, ElfError::Truncated { at: 0x0100_0004, want: 4, .. })),
        (58, &[40], |e| matches!(e, ElfError::Corrupt { at: 58, .. })),
        (60, &[0, 0], |e| matches!(e, ElfError::Unsupported { at: 60, .. })),
        (62, &[99, 0], |e| matches!(e, ElfError::Corrupt { at: 62, .. })),
    ];
    for (at, change, check) in cases {
        let mut bytes = bytes_of_a_module();
        bytes[at..at.saturating_add(change.len())].copy_from_slice(change);
        let error = Elf::parse(&bytes).unwrap_err();
        assert!(check(&error), "change at {at}: {error:?}");
    }
}

#[test]
fn only_programs_with_a_loader_are_dynamic() {
    let mut bytes = vec![0; 64 + 56];
    bytes[..6].copy_from_slice(b"\x7fELF\x02\x01");
    assert_eq!(is_dynamic(&bytes), Ok(false));
    bytes[32] = 64;
    bytes[56] = 1;
    bytes[64] = 1;
    assert_eq!(is_dynamic(&bytes), Ok(false));
    bytes[64] = 3;
    assert_eq!(is_dynamic(&bytes), Ok(true));
    bytes[56] = 2;
    bytes[64] = 1;
    assert!(matches!(is_dynamic(&bytes), Err(ElfError::Truncated { at: 120, .. })));
}

proptest! {
    #[test]
    fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        let mut bytes = bytes;
        is_dynamic(&bytes).ok();
        if bytes.len() > 6 {
            bytes[..6].copy_from_slice(b"\x7fELF\x02\x01");
        }
        is_dynamic(&bytes).ok();
        if let Ok(elf) = Elf::parse(&bytes) {
            elf.section(".modinfo");
            elf.symbols().ok();
        }
    }
}
