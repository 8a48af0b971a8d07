//! Lets the kernel run the target's programs by an emulator, inside the sandbox alone.
//! Must not know: what is run.
//! Spec: Documentation/admin-guide/binfmt-misc.rst; since Linux 6.7 each user namespace may mount its
//! own binfmt_misc (commit 21ca59b365c0), and the machine's own is never touched.

use std::fs;
use std::path::Path;

use rustix::mount::{MountFlags, mount};

use super::spec::{Event, Trouble};

/// Where the kernel's own list is, when the machine has one.
const OF_THE_MACHINE: &str = "/proc/sys/fs/binfmt_misc";

/// An architecture that can be emulated.
struct Emulated {
    debian: &'static str,
    qemu: &'static str,
    /// ELF class, data and machine of its programs.
    class: u8,
    machine: u8,
}

const EMULATED: [Emulated; 3] = [
    Emulated { debian: "arm64", qemu: "aarch64", class: 2, machine: 0xb7 },
    Emulated { debian: "amd64", qemu: "x86_64", class: 2, machine: 0x3e },
    Emulated { debian: "armhf", qemu: "arm", class: 1, machine: 0x28 },
];

/// Registers the emulator for `architecture` below `top`, which must stay mounted as long as
/// programs are to run.
pub(super) fn register(architecture: &str, top: &Path) -> Result<(), Trouble> {
    let cannot = |what: String| Trouble(Event::Emulation { what });
    let Some(wanted) = EMULATED.iter().find(|e| e.debian == architecture) else {
        return Err(cannot("no emulator for it is known".into()));
    };
    let dir = top.join("binfmt");
    fs::create_dir(&dir).map_err(Trouble::io("making a folder"))?;
    if let Err(e) = mount("binfmt_misc", &dir, "binfmt_misc", MountFlags::empty(), None) {
        if machine_has(wanted.qemu) {
            return Ok(());
        }
        return Err(cannot(format!(
            "mounting binfmt_misc: {e}; Linux 6.7 or newer is needed with `modprobe binfmt_misc` done, or \
             `sudo apt install qemu-user-static binfmt-support` on an older one"
        )));
    }
    let names = [format!("/usr/bin/qemu-{}-static", wanted.qemu), format!("/usr/bin/qemu-{}", wanted.qemu)];
    let qemu = names.iter().find(|name| fs::read(name).is_ok_and(|elf| is_static(&elf)));
    let Some(qemu) = qemu else {
        let hint = "run `sudo apt install qemu-user-static`";
        return Err(cannot(format!("`{}` is not there or not static; {hint}", names[0])));
    };
    fs::write(dir.join("register"), rule(wanted, qemu)).map_err(Trouble::io("registering the emulator"))
}

/// `F`: the emulator is opened now, from outside the sandbox. `P`: programs see their own name, not
/// their path. `OC`: set-uid programs keep their rights.
fn rule(wanted: &Emulated, qemu: &str) -> Vec<u8> {
    let mut magic = vec![0x7f, b'E', b'L', b'F', wanted.class, 1, 1];
    magic.resize(16, 0);
    // Executable, machine.
    magic.extend_from_slice(&[2, 0, wanted.machine, 0]);
    let mut mask = vec![0xff; 20];
    // The ABI is any; ET_EXEC and ET_DYN differ in one bit.
    mask[7] = 0;
    mask[16] = 0xfe;
    let hex = |bytes: &[u8]| bytes.iter().map(|b| format!("\\x{b:02x}")).collect::<String>();
    format!(":gt-image:M::{}:{}:{qemu}:POCF", hex(&magic), hex(&mask)).into_bytes()
}

/// True when the machine runs these programs everywhere, without a path to the emulator.
fn machine_has(qemu: &str) -> bool {
    let Ok(entries) = fs::read_dir(OF_THE_MACHINE) else { return false };
    entries.flatten().any(|entry| {
        let text = fs::read_to_string(entry.path()).unwrap_or_default();
        let fixed = text.lines().any(|l| l.starts_with("flags:") && l.contains('F'));
        text.starts_with("enabled") && fixed && text.contains(&format!("qemu-{qemu}"))
    })
}

/// True for an ELF executable that names no interpreter: one that can be opened from elsewhere.
fn is_static(elf: &[u8]) -> bool {
    let half = |at: usize| elf.get(at..at + 2).map(|b| usize::from(u16::from_le_bytes([b[0], b[1]])));
    let word = |at: usize| elf.get(at..at + 4).map(|b| u32::from_le_bytes([b[0], b[1], b[2], b[3]]));
    let check = || {
        if !elf.starts_with(b"\x7fELF\x02\x01") {
            return None;
        }
        let table = usize::try_from(word(32)?).ok()?;
        let (size, count) = (half(54)?, half(56)?);
        let interpreter = |n: usize| word(table.checked_add(n * size)?);
        // PT_INTERP is 3.
        (0..count).map(interpreter).collect::<Option<Vec<_>>>().map(|kinds| !kinds.contains(&3))
    };
    check().unwrap_or(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rule_is_what_the_kernel_reads() {
        let text = String::from_utf8(rule(&EMULATED[0], "/q")).unwrap();
        assert_eq!(
            text,
            r":gt-image:M::\x7f\x45\x4c\x46\x02\x01\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02\x00\xb7\x00:\xff\xff\xff\xff\xff\xff\xff\x00\xff\xff\xff\xff\xff\xff\xff\xff\xfe\xff\xff\xff:/q:POCF"
        );
    }

    #[test]
    fn programs_that_name_an_interpreter_are_not_static() {
        let own = fs::read("/proc/self/exe").unwrap();
        assert!(!is_static(&own[..40]));
        let plain = super::super::stub::program(super::super::spec::Program::Exit(0));
        assert_eq!(is_static(&plain), super::super::stub::can_record());
        assert!(!is_static(b"#!/bin/sh\n"));
    }
}
