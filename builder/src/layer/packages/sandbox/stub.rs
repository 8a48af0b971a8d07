//! Programs that do nothing, or only note that they were called, for this machine's processor: they
//! start in a millisecond where an emulated shell takes 25 and Perl with its modules 300.
//! Must not know: what they stand for.
//! Spec: ELF-64: a file header and one program header, then code; Linux's system calls on x86-64
//! (open 2, write 1, exit_group 231) and AArch64 (openat 56, write 64, exit_group 94).

use super::spec::Program;

/// Bytes before the code: 64 of the file header and 56 of the program header.
const CODE_AT: u8 = 120;

/// Where, in the scripts' root, calls are noted: arguments ended by zero bytes, then a newline.
pub(super) const CALLS: &str = "/run/gt-image-calls";

/// `fd = open(CALLS, O_WRONLY|O_APPEND); write(fd, argv[0], envp[0] - argv[0]); write(fd, "\n", 1)`:
/// the arguments lie one behind the other, up to the environment, which is never empty here. Then,
/// for each argument: when it begins with `debian-i`, exit 1, for deb-systemd-helper must deny that a
/// unit is `debian-installed` already. At last exit 0. A newline and the path follow.
const RECORD_X86_64: [u8; 114] = [
    0x48, 0x8d, 0x3d, 0x6c, 0x00, 0x00, 0x00, 0xbe, 0x01, 0x04, 0x00, 0x00, 0xb8, 0x02, 0x00, 0x00, 0x00,
    0x0f, 0x05, 0x89, 0xc3, 0x48, 0x8b, 0x0c, 0x24, 0x48, 0x8b, 0x74, 0x24, 0x08, 0x48, 0x8b, 0x54, 0xcc,
    0x10, 0x48, 0x29, 0xf2, 0x89, 0xdf, 0xb8, 0x01, 0x00, 0x00, 0x00, 0x0f, 0x05, 0x48, 0x8d, 0x35, 0x3c,
    0x00, 0x00, 0x00, 0xba, 0x01, 0x00, 0x00, 0x00, 0x89, 0xdf, 0xb8, 0x01, 0x00, 0x00, 0x00, 0x0f, 0x05,
    0x48, 0x8d, 0x5c, 0x24, 0x10, 0x31, 0xff, 0x48, 0xba, 0x64, 0x65, 0x62, 0x69, 0x61, 0x6e, 0x2d, 0x69,
    0x48, 0x8b, 0x0b, 0x48, 0x83, 0xc3, 0x08, 0x48, 0x85, 0xc9, 0x74, 0x0a, 0x48, 0x39, 0x11, 0x75, 0xef,
    0xbf, 0x01, 0x00, 0x00, 0x00, 0xb8, 0xe7, 0x00, 0x00, 0x00, 0x0f, 0x05,
];

/// The same in AArch64's instructions.
const RECORD_AARCH64: [u8; 136] = [
    0x60, 0x0c, 0x80, 0x92, 0x21, 0x04, 0x00, 0x30, 0x22, 0x80, 0x80, 0xd2, 0x03, 0x00, 0x80, 0xd2, 0x08,
    0x07, 0x80, 0xd2, 0x01, 0x00, 0x00, 0xd4, 0xe9, 0x03, 0x00, 0xaa, 0xea, 0x03, 0x40, 0xf9, 0xe1, 0x07,
    0x40, 0xf9, 0xeb, 0x6f, 0x2a, 0x8b, 0x62, 0x09, 0x40, 0xf9, 0x42, 0x00, 0x01, 0xcb, 0xe0, 0x03, 0x09,
    0xaa, 0x08, 0x08, 0x80, 0xd2, 0x01, 0x00, 0x00, 0xd4, 0x61, 0x02, 0x00, 0x10, 0x22, 0x00, 0x80, 0xd2,
    0xe0, 0x03, 0x09, 0xaa, 0x08, 0x08, 0x80, 0xd2, 0x01, 0x00, 0x00, 0xd4, 0xeb, 0x43, 0x00, 0x91, 0x6c,
    0x01, 0x00, 0x58, 0x00, 0x00, 0x80, 0xd2, 0x6d, 0x85, 0x40, 0xf8, 0xad, 0x00, 0x00, 0xb4, 0xae, 0x01,
    0x40, 0xf9, 0xdf, 0x01, 0x0c, 0xeb, 0x81, 0xff, 0xff, 0x54, 0x20, 0x00, 0x80, 0xd2, 0xc8, 0x0b, 0x80,
    0xd2, 0x01, 0x00, 0x00, 0xd4, 0x1f, 0x20, 0x03, 0xd5, 0x64, 0x65, 0x62, 0x69, 0x61, 0x6e, 0x2d, 0x69,
];

/// True when this processor's code for [`Program::Record`] is known.
pub(in crate::layer::packages) fn can_record() -> bool {
    matches!(std::env::consts::ARCH, "x86_64" | "aarch64")
}

/// A static executable; a shell script that only ends where the processor is another.
pub(super) fn program(kind: Program) -> Vec<u8> {
    let tail = [b"\n", CALLS.as_bytes(), b"\0"].concat();
    match (std::env::consts::ARCH, kind) {
        ("x86_64", Program::Record) => elf(62, &[&RECORD_X86_64[..], &tail].concat()),
        ("aarch64", Program::Record) => elf(183, &[&RECORD_AARCH64[..], &tail].concat()),
        // mov edi, exit; mov eax, 231; syscall
        ("x86_64", Program::Exit(exit)) => elf(62, &[0xbf, exit, 0, 0, 0, 0xb8, 231, 0, 0, 0, 0x0f, 0x05]),
        ("aarch64", Program::Exit(exit)) => {
            // mov x0, #exit; mov x8, #94; svc #0
            let exit = (0xd280_0000_u32 | u32::from(exit) << 5).to_le_bytes();
            let code = [exit, 0xd280_0bc8_u32.to_le_bytes(), 0xd400_0001_u32.to_le_bytes()];
            elf(183, &code.concat())
        }
        (_, Program::Exit(exit)) => format!("#!/bin/sh\nexit {exit}\n").into_bytes(),
        (_, Program::Record) => b"#!/bin/sh\nexit 1\n".to_vec(),
    }
}

/// The calls that were noted, each with the program's name first.
pub(super) fn calls(noted: &[u8]) -> Vec<Vec<String>> {
    let text = |word: &[u8]| String::from_utf8_lossy(word).into_owned();
    let words = |line: &[u8]| -> Vec<String> {
        let mut words: Vec<String> =
            line.strip_suffix(b"\0").unwrap_or(line).split(|&b| b == 0).map(text).collect();
        if let Some(name) = words.first_mut() {
            *name = name.rsplit('/').next().unwrap_or_default().to_owned();
        }
        words
    };
    noted.split(|&b| b == b'\n').filter(|line| !line.is_empty()).map(words).collect()
}

fn elf(machine: u8, code: &[u8]) -> Vec<u8> {
    const LOAD_AT: u64 = 0x40_0000;
    let mut out = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0".to_vec();
    out.extend_from_slice(&[2, 0, machine, 0, 1, 0, 0, 0]);
    let words =
        |out: &mut Vec<u8>, words: &[u64]| words.iter().for_each(|w| out.extend_from_slice(&w.to_le_bytes()));
    // Entry, offset of the program header, no section headers.
    words(&mut out, &[LOAD_AT + u64::from(CODE_AT), 64, 0]);
    // Flags; sizes of the headers; one program header; no sections.
    out.extend_from_slice(&[0, 0, 0, 0, 64, 0, 56, 0, 1, 0, 64, 0, 0, 0, 0, 0]);
    // PT_LOAD, readable and executable.
    out.extend_from_slice(&[1, 0, 0, 0, 5, 0, 0, 0]);
    let len = u64::from(CODE_AT) + code.len() as u64;
    words(&mut out, &[0, LOAD_AT, LOAD_AT, len, len, 0x1000]);
    out.extend_from_slice(code);
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn this_machine_runs_them() {
        let dir = tempfile::tempdir().unwrap();
        for exit in [0, 1, 101, 255] {
            let path = dir.path().join(exit.to_string());
            std::fs::write(&path, program(Program::Exit(exit))).unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
            let status = std::process::Command::new(&path).status().unwrap();
            assert_eq!(status.code(), Some(i32::from(exit)));
        }
    }

    #[test]
    fn calls_are_read_back() {
        let noted = b"/usr/bin/x\0--a\0b c\0\nx\0\0\n";
        assert_eq!(calls(noted), [vec!["x", "--a", "b c"], vec!["x", ""]]);
        assert!(calls(b"").is_empty());
    }

    #[test]
    fn the_code_stands_right_behind_the_headers() {
        assert_eq!(elf(62, &[]).len(), usize::from(CODE_AT));
    }
}
