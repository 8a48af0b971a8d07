//! `cmdline.txt`: the kernel's words, on one line.
//! Must not know: trees, stores, where words come from.
//! Spec: Linux, Documentation/admin-guide/kernel-parameters.rst; systemd's kernel-command-line(7);
//! our init's own words (`gt.*`) are in initramfs/init.sh. Limit: raspberrypi/linux#140.

use std::net::Ipv4Addr;

use super::BootError;
use crate::digest::Digest;

/// Longest file in bytes, its line end included. The firmware takes 1024 and adds words of its own
/// to them for the kernel, which takes 2048.
pub const MAX_FILE: usize = 1024;

/// Where `gt-image serve` answers HTTP unless it is told otherwise.
pub const HTTP_PORT: u16 = 8080;

/// Words that ours replace, by the text they begin with. The last two are the first-boot programs of
/// Raspberry Pi OS, which would change the disk's ids.
const REPLACED: [&str; 10] = [
    "root=",
    "rootfstype=",
    "gt.root=",
    "nfsroot=",
    "ip=",
    "boot=",
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
    /// Where the root is.
    pub root: Root<'a>,
    /// Words of overlays, in their order.
    pub extra: &'a [String],
}

/// Where the root is, as our init is told.
#[derive(Debug, Clone, Copy)]
pub enum Root<'a> {
    /// On a disk.
    Disk {
        /// What is done with it: `disk` or `disk-ephemeral`.
        mode: &'a str,
        /// Its partition.
        partuuid: &'a str,
    },
    /// On a server. No secret is among these words: whoever asks by TFTP can read them.
    Server {
        /// The server's address.
        server: Ipv4Addr,
        /// The node's name there.
        node: &'a str,
        /// The image of a root in memory; `None` for a root by NFS.
        ram: Option<&'a RamImage>,
        /// Partitions that the node has by its description. A disk may show up later than the network, so
        /// init waits for these, and for no others.
        partitions: &'a [&'a str],
    },
}

/// The image of a root in memory, as init checks it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RamImage {
    /// Of all its bytes.
    pub digest: Digest,
    /// Bytes.
    pub size: u64,
}

impl Root<'_> {
    fn words(&self) -> Vec<String> {
        match self {
            Root::Disk { mode, partuuid } => vec![
                format!("root=PARTUUID={partuuid}"),
                "rootfstype=ext4".into(),
                format!("gt.root={mode}"),
                "rw".into(),
                "rootwait".into(),
                "fsck.repair=yes".into(),
            ],
            Root::Server { server, node, ram, partitions } => {
                let mode = if ram.is_some() { "ram" } else { "nfs" };
                let mut words =
                    vec![format!("gt.root={mode}"), format!("gt.server={server}"), format!("gt.node={node}")];
                words.push(format!("gt.http={HTTP_PORT}"));
                if let Some(RamImage { digest, size }) = ram {
                    words.extend([format!("gt.ram={digest}"), format!("gt.ram_size={size}")]);
                }
                if !partitions.is_empty() {
                    words.push(format!("gt.partitions={}", partitions.join(",")));
                }
                words.push("rw".into());
                words
            }
        }
    }
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
    // `net.ifnames=0`: the wired interface keeps its name when the system takes it over from init.
    for word in words.root.words().into_iter().chain(["net.ifnames=0".to_owned()]) {
        if !line.contains(&word) {
            line.push(word);
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
        Words { consoles, root: Root::Disk { mode: "disk", partuuid: "12-34" }, extra }
    }

    fn served<'a>(consoles: &'a [String], ram: Option<&'a RamImage>) -> Words<'a> {
        let server = Ipv4Addr::new(10, 4, 0, 10);
        Words { consoles, root: Root::Server { server, node: "fenn", ram, partitions: &[] }, extra: &[] }
    }

    #[test]
    fn the_line_names_root_and_mode() {
        let (consoles, extra) = (["console=tty0".to_owned()], ["a=1".to_owned(), "b".to_owned()]);
        assert_eq!(
            line(&words(&consoles, &extra), None),
            "console=tty0 root=PARTUUID=12-34 rootfstype=ext4 gt.root=disk rw rootwait fsck.repair=yes \
             net.ifnames=0 a=1 b\n"
        );
    }

    #[test]
    fn a_served_nodes_line_names_server_and_node_and_no_disk() {
        let consoles = ["console=tty0".to_owned()];
        let net = "gt.server=10.4.0.10 gt.node=fenn gt.http=8080";
        let nfs = format!("console=tty0 gt.root=nfs {net} rw net.ifnames=0\n");
        assert_eq!(line(&served(&consoles, None), None), nfs);
        let image = RamImage { digest: Digest::of(b"image"), size: 4096 };
        assert_eq!(
            line(&served(&consoles, Some(&image)), None),
            format!(
                "console=tty0 gt.root=ram {net} gt.ram={} gt.ram_size=4096 rw net.ifnames=0\n",
                Digest::of(b"image")
            )
        );
        let mut words = served(&consoles, None);
        if let Root::Server { partitions, .. } = &mut words.root {
            *partitions = &["gt-state", "gt-scratch"];
        }
        let waits = nfs.replace(" rw ", " gt.partitions=gt-state,gt-scratch rw ");
        assert_eq!(line(&words, None), waits);
        let base = "root=/dev/nfs nfsroot=10.0.0.1:/x,vers=3 ip=dhcp boot=nfs rootfstype=nfs gt.root=disk";
        assert_eq!(line(&served(&consoles, None), Some(base)), nfs);
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
