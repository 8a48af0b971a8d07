//! Whether a boot tree has what a Pi's firmware will ask for, and nothing that it chokes on.
//! Must not know: how the tree is kept or served.
//! Spec: the order of files and the limits are those of [`crate::pi::boot`].

use super::Finding;
use crate::pi::Board;
use crate::pi::Model;
use crate::pi::config::{Config, READ_AT_MOST};

/// Blocks of 1024 bytes, 65,535 of them: more than that was cut before 2025-09-23 (rpi-eeprom#375, #720),
/// and a Pi 3 takes half.
const FILE_AT_MOST: u64 = 64 << 20;

/// Checks the boot tree of `node`: names and sizes of all its files, and a way to read one.
pub fn check(
    node: &str,
    board: &Board,
    files: &[(String, u64)],
    read: &mut dyn FnMut(&str) -> Option<Vec<u8>>,
) -> Vec<Finding> {
    let subject = format!("boot files of node `{node}`");
    let there = |name: &str| files.iter().any(|(file, _)| file == name);
    let rebuild = format!("run `gt-image build --node {node}`");
    if files.is_empty() {
        return vec![Finding::fault(subject, "none", "a boot tree", rebuild)];
    }
    let mut findings = vec![];
    let text = read("config.txt").unwrap_or_default();
    let config = Config::read(&text, board, read);
    for (what, names) in needed(board, &config) {
        let names = with_prefix(names, config.os_prefix());
        if !names.iter().any(|name| there(name)) {
            let found = format!("no {what}: `{}` is missing", names.join("` or `"));
            findings.push(Finding::fault(&subject, found, "it is there", &rebuild));
        }
    }
    if text.len() > READ_AT_MOST {
        findings.push(Finding::fault(
            &subject,
            format!("`config.txt` has {} bytes", text.len()),
            format!("at most {READ_AT_MOST}: over the network a Pi 4 reads no more (firmware#1012)"),
            "shorten `config_txt` in the overlays, or put part of it in an `include`d file",
        ));
    }
    for (name, size) in files.iter().filter(|(_, size)| *size > FILE_AT_MOST) {
        findings.push(Finding::fault(
            &subject,
            format!("`{name}` has {} MiB", size >> 20),
            "at most 64 MiB: older bootloaders cut what is longer",
            "compress the kernel, or take what it does not need out of the initramfs",
        ));
    }
    if findings.is_empty() {
        findings.push(Finding::good(
            subject,
            format!("{} files, all that a {:?} asks for", files.len(), board.model),
        ));
    }
    findings
}

/// Each file that the boot cannot do without: what it is, and its names, any of which will do.
fn needed(board: &Board, config: &Config) -> Vec<(&'static str, Vec<String>)> {
    let kernels = config.kernels(board.model);
    let (start, fixup) = config.start_files(board.model);
    let mut needed = vec![("configuration", vec!["/config.txt".to_owned()])];
    if board.model != Model::Pi5 {
        needed.push(("firmware", vec![format!("/{start}")]));
        needed.push(("memory split", vec![format!("/{fixup}")]));
    }
    needed.push(("device tree", vec![config.device_tree(board)]));
    needed.push(("kernel command line", vec![config.get("cmdline").unwrap_or("cmdline.txt").to_owned()]));
    if let Some(initramfs) = config.initramfs_for(&kernels[0]) {
        needed.push(("initramfs", vec![initramfs]));
    }
    needed.push(("kernel", kernels));
    needed
}

/// `os_prefix` goes before every name but those with a slash in front.
fn with_prefix(names: Vec<String>, prefix: &str) -> Vec<String> {
    let full = |name: String| name.strip_prefix('/').map_or(format!("{prefix}{name}"), str::to_owned);
    names.into_iter().map(full).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::State;
    use crate::site::{Mac, Serial};

    const PI4: &[&str] = &[
        "config.txt",
        "start4.elf",
        "fixup4.dat",
        "bcm2711-rpi-4-b.dtb",
        "cmdline.txt",
        "kernel8.img",
        "initramfs8",
    ];

    fn faults(model: Model, names: &[&str], config: &str, size: u64) -> Vec<String> {
        let board = Board::new(model, Mac([0; 6]), Serial(1));
        let files: Vec<(String, u64)> = names.iter().map(|name| ((*name).to_owned(), size)).collect();
        let mut read = |name: &str| (name == "config.txt").then(|| config.as_bytes().to_vec());
        let findings = check("fenn", &board, &files, &mut read);
        assert!(!findings.is_empty());
        findings.into_iter().filter(|f| f.state == State::Fault).map(|f| f.found).collect()
    }

    #[test]
    fn a_whole_tree() {
        assert_eq!(faults(Model::Pi4, PI4, "auto_initramfs=1", 1), [] as [String; 0]);
        let pi5 = ["config.txt", "bcm2712-rpi-5-b.dtb", "cmdline.txt", "kernel8.img"];
        assert_eq!(faults(Model::Pi5, &pi5, "", 1), [] as [String; 0]);
    }

    #[test]
    fn each_missing_file_is_named() {
        for missing in PI4 {
            let names: Vec<&str> = PI4.iter().copied().filter(|name| name != missing).collect();
            let faults = faults(Model::Pi4, &names, "auto_initramfs=1", 1);
            assert_eq!(faults.len(), 1, "{faults:?}");
            assert!(faults[0].contains(&format!("`{missing}` is missing")), "{faults:?}");
        }
        assert_eq!(faults(Model::Pi4, &[], "", 1), ["none"]);
        let moved = faults(Model::Pi4, PI4, "os_prefix=gen42/", 1);
        assert_eq!(moved.len(), 3, "device tree, command line and kernel are under the prefix: {moved:?}");
    }

    #[test]
    fn sizes() {
        let long = format!("kernel=kernel8.img\n{}", "#\n".repeat(2048));
        assert_eq!(faults(Model::Pi4, PI4, &long, 1), ["`config.txt` has 4115 bytes"]);
        assert_eq!(faults(Model::Pi4, PI4, "", 64 << 20), [] as [String; 0]);
        assert_eq!(faults(Model::Pi4, PI4, "", (64 << 20) + 1).len(), PI4.len());
    }
}
