//! `config.txt`: what the firmware reads before the kernel.
//! Must not know: trees, stores, where lines come from.
//! Spec: Raspberry Pi documentation, config.txt. Limits: firmware#1012 and #1575 (over the network
//! a Pi 4 ignored all beyond 4096 bytes), firmware#1669 (entries end at 98 characters).

use super::BootError;

/// Longest file in bytes.
pub const MAX_FILE: usize = 4096;
/// Longest line in bytes.
pub const MAX_LINE: usize = 98;

/// What our part of the file depends on.
#[derive(Debug, Clone, Copy)]
pub struct Settings<'a> {
    /// Lines of overlays, in their order; they may open sections such as `[pi4]`.
    pub extra: &'a [String],
    /// The kernel's device trees have upstream's names.
    pub upstream: bool,
    /// The kernel's file on the boot partition; `None` when there is none.
    pub kernel: Option<&'a str>,
    /// The initramfs's file on the boot partition.
    pub initramfs: Option<&'a str>,
}

const HEAD: &str = "# Written by gt-image. The node's overlays say what is in it.";

/// Writes the file. With a file of the base, its lines stay, except those that name kernel and
/// initramfs, and ours follow: for the firmware, the last line counts.
pub fn write(settings: &Settings, base: Option<&str>) -> Result<String, BootError> {
    let mut lines: Vec<&str> = Vec::new();
    let ours = ours(settings);
    match base {
        Some(base) => {
            lines.extend(base.lines().filter(|line| settings.kernel.is_none() || !names_a_file(line)));
            lines.extend(["", HEAD, "[all]"]);
        }
        None => lines.extend([HEAD, "arm_64bit=1", "enable_uart=1", "disable_splash=1"]),
    }
    lines.extend(ours.iter().map(String::as_str));
    lines.extend(settings.extra.iter().flat_map(|text| text.lines()));
    check(&lines)?;
    let mut text = lines.join("\n");
    text.push('\n');
    if text.len() > MAX_FILE {
        return Err(BootError::ConfigTooLong { bytes: text.len() });
    }
    Ok(text)
}

/// The kernel that a file of ours names; our line is the last one.
pub fn kernel(text: &str) -> Option<&str> {
    text.lines().rev().find_map(|line| line.trim().strip_prefix("kernel="))
}

fn ours(settings: &Settings) -> Vec<String> {
    let mut lines = Vec::new();
    if settings.upstream && settings.kernel.is_some() {
        // Makes the firmware ask for upstream's names of device trees.
        lines.push("upstream_kernel=1".to_owned());
    }
    // An image must never update a board's EEPROM unasked; an overlay can say otherwise.
    lines.push("bootloader_update=0".to_owned());
    lines.extend(settings.kernel.map(|name| format!("kernel={name}")));
    // This one entry has no equals sign.
    lines.extend(settings.initramfs.map(|name| format!("initramfs {name} followkernel")));
    lines
}

/// Lines of a base that would contradict our kernel and initramfs.
fn names_a_file(line: &str) -> bool {
    let line = line.trim_start();
    ["kernel=", "initramfs ", "auto_initramfs=", "os_prefix=", "upstream_kernel="]
        .iter()
        .any(|key| line.starts_with(key))
}

fn check(lines: &[&str]) -> Result<(), BootError> {
    match lines.iter().find(|line| !line.starts_with('#') && line.len() > MAX_LINE) {
        Some(line) => Err(BootError::ConfigLine { line: (*line).to_owned(), bytes: line.len() }),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SETTINGS: Settings =
        Settings { extra: &[], upstream: true, kernel: Some("vmlinuz"), initramfs: Some("initramfs.img") };

    #[test]
    fn the_file_names_kernel_and_initramfs() {
        let text = write(&SETTINGS, None).unwrap();
        assert_eq!(
            text,
            format!(
                "{HEAD}\narm_64bit=1\nenable_uart=1\ndisable_splash=1\nupstream_kernel=1\n\
                 bootloader_update=0\nkernel=vmlinuz\ninitramfs initramfs.img followkernel\n"
            )
        );
    }

    #[test]
    fn overlays_have_the_last_word_and_may_open_sections() {
        let extra = ["[pi4]\narm_boost=1".to_owned(), "[all]".to_owned(), "dtparam=audio=off".to_owned()];
        let text = write(&Settings { extra: &extra, ..SETTINGS }, None).unwrap();
        assert!(text.ends_with("followkernel\n[pi4]\narm_boost=1\n[all]\ndtparam=audio=off\n"), "{text}");
    }

    #[test]
    fn a_bases_file_stays_but_for_its_kernel() {
        let base = "arm_boost=1\nauto_initramfs=1\n[cm4]\nkernel=kernel8.img\notg_mode=1\n";
        let settings = Settings { upstream: false, ..SETTINGS };
        let text = write(&settings, Some(base)).unwrap();
        let ours = "bootloader_update=0\nkernel=vmlinuz\ninitramfs initramfs.img followkernel\n";
        assert_eq!(text, format!("arm_boost=1\n[cm4]\notg_mode=1\n\n{HEAD}\n[all]\n{ours}"));
        assert_eq!((kernel(&text), kernel(base), kernel("")), (Some("vmlinuz"), Some("kernel8.img"), None));
        let settings = Settings { kernel: None, initramfs: None, ..SETTINGS };
        assert!(write(&settings, Some(base)).unwrap().contains("kernel=kernel8.img"));
    }

    #[test]
    fn what_the_firmware_would_cut_is_refused() {
        let long = [format!("dtoverlay=x,{}", "y".repeat(MAX_LINE))];
        let error = write(&Settings { extra: &long, ..SETTINGS }, None).unwrap_err();
        assert!(matches!(error, BootError::ConfigLine { bytes: 110, .. }), "{error}");
        let many = vec!["dtparam=x=y".to_owned(); 400];
        let error = write(&Settings { extra: &many, ..SETTINGS }, None).unwrap_err();
        assert!(matches!(error, BootError::ConfigTooLong { bytes } if bytes > 4800), "{error}");
        let comment = [format!("# {}", "y".repeat(200))];
        assert!(write(&Settings { extra: &comment, ..SETTINGS }, None).is_ok());
    }
}
