//! Programs that do nothing but end with a status, for this machine's processor: they start in a
//! millisecond where an emulated shell takes 25.
//! Must not know: what they stand for.
//! Spec: ELF-64: a file header and one program header, then code; exit_group of Linux is system call
//! 231 on x86-64 and 94 on AArch64.

/// Bytes before the code: 64 of the file header and 56 of the program header.
const CODE_AT: u8 = 120;

/// A static executable that ends with `exit`; a shell script where the processor is another.
pub(super) fn program(exit: u8) -> Vec<u8> {
    match std::env::consts::ARCH {
        // mov edi, exit; mov eax, 231; syscall
        "x86_64" => elf(62, &[0xbf, exit, 0, 0, 0, 0xb8, 231, 0, 0, 0, 0x0f, 0x05]),
        "aarch64" => {
            // mov x0, #exit; mov x8, #94; svc #0
            let exit = (0xd280_0000_u32 | u32::from(exit) << 5).to_le_bytes();
            let code = [exit, 0xd280_0bc8_u32.to_le_bytes(), 0xd400_0001_u32.to_le_bytes()];
            elf(183, &code.concat())
        }
        _ => format!("#!/bin/sh\nexit {exit}\n").into_bytes(),
    }
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
            std::fs::write(&path, program(exit)).unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
            let status = std::process::Command::new(&path).status().unwrap();
            assert_eq!(status.code(), Some(i32::from(exit)));
        }
    }

    #[test]
    fn the_code_stands_right_behind_the_headers() {
        assert_eq!(elf(62, &[]).len(), usize::from(CODE_AT));
    }
}
