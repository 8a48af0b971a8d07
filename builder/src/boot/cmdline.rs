//! `cmdline.txt`: the kernel's words, on one line.
//! Must not know: trees, stores, where words come from.
//! Spec: Linux, Documentation/admin-guide/kernel-parameters.rst; systemd's kernel-command-line(7);
//! our init's own words (`gt.*`) are in initramfs/init.sh. Limit: raspberrypi/linux#140.

use super::BootError;

/// Longest file in bytes, its line end included. The firmware takes 1024 and adds words of its own
/// to them for the kernel, which takes 2048.
pub const MAX_FILE: usize = 1024;

/// Words that ours replace, by the text they begin with. The last two are the first-boot programs of
/// Raspberry Pi OS, which would change the disk's ids.
const REPLACED: [&str; 8] = [
    "root=",
    "rootfstype=",
    "gt.root=",
    "nfsroot=",
    "rw",
    "ro",
    "resize",
    "init=/usr/lib/raspberrypi-sys-mods/",
];

/// What the line depends on.
#[derive(Debug, Clone, Copy)]
pub struct Words<'a> {
    /// `console=` words, used where the base brings none.
    pub consoles: &'a [String],
    /// What our init does for the root, such as `disk-ephemeral`.
    pub root_mode: &'a str,
    /// The root's partition; `None` for a root from the network.
    pub partuuid: Option<&'a str>,
    /// Words of overlays, in their order.
    pub extra: &'a [String],
}

/// Writes the line. Words of a base's file stay, save those that would name another root.
pub fn write(words: &Words, base: Option<&str>) -> Result<String, BootError> {
    let mut line: Vec<String> = Vec::new();
    let base: Vec<&str> =
        base.unwrap_or_default().split_whitespace().filter(|word| !replaced(word)).collect();
    if !base.iter().any(|word| word.starts_with("console=")) {
        line.extend(words.consoles.iter().cloned());
    }
    line.extend(base.iter().map(|&word| word.to_owned()));
    if let Some(partuuid) = words.partuuid {
        line.push(format!("root=PARTUUID={partuuid}"));
        line.push("rootfstype=ext4".into());
    }
    line.push(format!("gt.root={}", words.root_mode));
    for word in ["rw", "rootwait", "fsck.repair=yes", "net.ifnames=0"] {
        if !line.iter().any(|other| other == word) {
            line.push(word.into());
        }
    }
    line.extend(words.extra.iter().cloned());
    if let Some(word) = line.iter().find(|word| word.is_empty() || word.contains(char::is_control)) {
        return Err(BootError::CmdlineWord { word: word.clone() });
    }
    let text = line.join(" ") + "\n";
    if text.len() > MAX_FILE {
        return Err(BootError::CmdlineTooLong { bytes: text.len() });
    }
    Ok(text)
}

fn replaced(word: &str) -> bool {
    REPLACED.iter().any(|key| match key.ends_with(['=', '/']) {
        true => word.starts_with(key),
        false => word == *key,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(words: &Words, base: Option<&str>) -> String {
        write(words, base).unwrap()
    }

    fn words<'a>(consoles: &'a [String], extra: &'a [String]) -> Words<'a> {
        Words { consoles, root_mode: "disk", partuuid: Some("12-34"), extra }
    }

    #[test]
    fn the_line_names_root_and_mode() {
        let (consoles, extra) = (["console=tty0".to_owned()], ["a=1".to_owned(), "b".to_owned()]);
        assert_eq!(
            line(&words(&consoles, &extra), None),
            "console=tty0 root=PARTUUID=12-34 rootfstype=ext4 gt.root=disk rw rootwait fsck.repair=yes \
             net.ifnames=0 a=1 b\n"
        );
        let net = Words { partuuid: None, root_mode: "nfs", ..words(&consoles, &[]) };
        assert_eq!(line(&net, None), "console=tty0 gt.root=nfs rw rootwait fsck.repair=yes net.ifnames=0\n");
    }

    #[test]
    fn a_bases_words_stay_but_for_its_root_and_first_boot() {
        let base = "console=serial0,115200 root=PARTUUID=041bba91-02 rootfstype=ext4 fsck.repair=yes rootwait \
                    quiet init=/usr/lib/raspberrypi-sys-mods/firstboot resize rodata=on\n";
        assert_eq!(
            line(&words(&["console=tty0".to_owned()], &[]), Some(base)),
            "console=serial0,115200 fsck.repair=yes rootwait quiet rodata=on root=PARTUUID=12-34 \
             rootfstype=ext4 gt.root=disk rw net.ifnames=0\n"
        );
    }

    #[test]
    fn what_does_not_fit_one_line_is_refused() {
        for bad in ["", "a\nb", "a\0"] {
            let extra = [bad.to_owned()];
            let error = write(&words(&[], &extra), None).unwrap_err();
            assert!(matches!(error, BootError::CmdlineWord { .. }), "{bad:?}");
        }
        let extra = ["x".repeat(1000)];
        let error = write(&words(&[], &extra), None).unwrap_err();
        assert!(matches!(error, BootError::CmdlineTooLong { bytes } if bytes > 1024), "{error}");
    }
}
