//! The disks of this machine, as far as it matters to somebody who is about to overwrite one.
//! Must not know: what will be written.
//! Spec: Documentation/ABI/testing/sysfs-block and sysfs-class-block of the kernel, proc_pid_mountinfo(5).

use std::fs;
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use schemars::JsonSchema;
use serde::Serialize;

use super::medium::Medium;
use crate::disk::read::partitions;
use crate::io::at::ReadAt;

/// A disk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Device {
    /// Its file.
    pub path: PathBuf,
    /// Bytes.
    pub size: u64,
    /// Maker and model, or a card's name.
    pub model: String,
    /// What names this very card: a card's CID, or a serial number.
    pub id: Option<String>,
    /// Whether it looks like a card: a card slot, or removable, or by USB.
    pub card: bool,
    /// Whether it can be written.
    pub read_only: bool,
    /// Where it, or a part of it, is mounted, or what else uses it.
    pub used: Vec<String>,
    /// The labels of its filesystems, in order.
    pub content: Vec<String>,
}

/// Where the kernel tells of disks.
#[derive(Debug, Clone)]
pub struct System {
    /// `/sys`.
    pub sys: PathBuf,
    /// `/proc`.
    pub proc: PathBuf,
    /// `/dev`.
    pub dev: PathBuf,
}

impl Default for System {
    fn default() -> System {
        System { sys: "/sys".into(), proc: "/proc".into(), dev: "/dev".into() }
    }
}

impl System {
    /// All disks that look like cards, by name.
    ///
    /// # Errors
    /// Without `/sys/block`.
    pub fn cards(&self) -> io::Result<Vec<Device>> {
        let mut names: Vec<String> = fs::read_dir(self.sys.join("block"))?
            .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
            .collect();
        names.sort();
        Ok(names.iter().map(|name| self.device(name)).filter(|d| d.card && d.size > 0).collect())
    }

    /// The disk at `path`; `Err` names the disk of which it is a part.
    ///
    /// # Errors
    /// What the kernel says of the path.
    pub fn at(&self, path: &Path) -> io::Result<Result<Device, PathBuf>> {
        let meta = fs::metadata(path)?;
        if !meta.file_type().is_block_device() {
            return Err(io::Error::other("not a block device"));
        }
        let device = meta.rdev();
        let number = format!("{}:{}", rustix::fs::major(device), rustix::fs::minor(device));
        let node = fs::canonicalize(self.sys.join("dev/block").join(number))?;
        let name = |path: &Path| path.file_name().map(|name| name.to_string_lossy().into_owned());
        if node.join("partition").exists() {
            let disk = node.parent().and_then(name).unwrap_or_default();
            return Ok(Err(self.dev.join(disk)));
        }
        Ok(Ok(Device { path: path.into(), ..self.device(&name(&node).unwrap_or_default()) }))
    }

    fn device(&self, name: &str) -> Device {
        let dir = self.sys.join("block").join(name);
        let read = |file: &str| fs::read_to_string(dir.join(file)).ok().map(|text| text.trim().to_owned());
        let number = |file: &str| read(file).and_then(|text| text.parse::<u64>().ok());
        let full = |text: &String| !text.is_empty();
        let words =
            [read("device/vendor"), read("device/model"), read("device/name"), read("loop/backing_file")];
        let by_usb = fs::canonicalize(&dir).is_ok_and(|path| path.to_string_lossy().contains("/usb"));
        let in_slot = name.starts_with("mmcblk") && read("device/type").is_none_or(|kind| kind == "SD");
        let path = self.dev.join(name);
        Device {
            size: number("size").unwrap_or(0).saturating_mul(512),
            model: words.into_iter().flatten().filter(full).collect::<Vec<_>>().join(" "),
            id: read("device/cid").or_else(|| read("device/serial")).filter(full),
            card: in_slot || by_usb || number("removable") == Some(1),
            read_only: number("ro") == Some(1),
            used: self.used(name, &dir),
            content: content(&path),
            path,
        }
    }

    /// Mounts, swap, and what is made of the disk or its partitions (RAID, LVM, crypt, loop).
    fn used(&self, name: &str, dir: &Path) -> Vec<String> {
        let mut parts = vec![(name.to_owned(), dir.to_path_buf())];
        for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
            if entry.path().join("partition").exists() {
                parts.push((entry.file_name().to_string_lossy().into_owned(), entry.path()));
            }
        }
        parts.sort();
        let mounts = fs::read_to_string(self.proc.join("self/mountinfo")).unwrap_or_default();
        let swaps = fs::read_to_string(self.proc.join("swaps")).unwrap_or_default();
        let mut used = Vec::new();
        for (name, dir) in parts {
            let path = self.dev.join(&name).display().to_string();
            let number = fs::read_to_string(dir.join("dev")).unwrap_or_default();
            for line in mounts.lines() {
                let fields: Vec<&str> = line.split(' ').collect();
                // btrfs has numbers of its own; the source, after the dash and the type, is the device.
                let source = fields.iter().position(|f| *f == "-").and_then(|dash| fields.get(dash + 2));
                if fields.get(2) == Some(&number.trim()) || source == Some(&path.as_str()) {
                    used.push(format!("`{path}` is mounted at `{}`", fields.get(4).unwrap_or(&"?")));
                }
            }
            if swaps.lines().any(|line| line.split_whitespace().next() == Some(path.as_str())) {
                used.push(format!("`{path}` is swap space"));
            }
            for holder in fs::read_dir(dir.join("holders")).into_iter().flatten().flatten() {
                used.push(format!("`{path}` is a part of `{}`", holder.file_name().to_string_lossy()));
            }
        }
        used
    }
}

/// Labels of what is on a disk, as far as it can be read.
fn content(path: &Path) -> Vec<String> {
    let Ok(medium) = Medium::open(path, false) else { return Vec::new() };
    let parts = partitions(&medium).unwrap_or_default();
    parts.iter().map(|part| label(&medium, part.start).unwrap_or_else(|| "no label".into())).collect()
}

/// The label of a FAT32 or ext filesystem that begins at `start`.
pub fn label(medium: &dyn ReadAt, start: u64) -> Option<String> {
    let mut bytes = [0; 2048];
    medium.read_at(&mut bytes, start).ok()?;
    let text = |bytes: &[u8]| {
        let end = bytes.iter().position(|b| *b == 0).unwrap_or(bytes.len());
        let text: String =
            String::from_utf8_lossy(&bytes[..end]).chars().filter(|c| !c.is_control()).collect();
        Some(text.trim().to_owned()).filter(|text| !text.is_empty())
    };
    if bytes[1024 + 0x38..1024 + 0x3a] == [0x53, 0xef] {
        return text(&bytes[1024 + 0x78..1024 + 0x88]);
    }
    if bytes[82..87] == *b"FAT32" { text(&bytes[71..82]) } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A machine with a card of two partitions, one of which is mounted, and a disk that is built in.
    fn system(dir: &Path) -> System {
        let system = System { sys: dir.join("sys"), proc: dir.join("proc"), dev: dir.join("dev") };
        let file = |path: &str, text: &str| {
            let path = dir.join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        for (path, text) in [
            ("sys/block/mmcblk0/size", "62333952\n"),
            ("sys/block/mmcblk0/dev", "179:0\n"),
            ("sys/block/mmcblk0/device/type", "SD\n"),
            ("sys/block/mmcblk0/device/name", "SD32G\n"),
            ("sys/block/mmcblk0/device/cid", "035344534333324780e7\n"),
            ("sys/block/mmcblk0/mmcblk0p1/partition", "1\n"),
            ("sys/block/mmcblk0/mmcblk0p1/dev", "179:1\n"),
            ("sys/block/mmcblk0/mmcblk0p2/partition", "2\n"),
            ("sys/block/mmcblk0/mmcblk0p2/dev", "179:2\n"),
            ("sys/block/nvme0n1/size", "1000\n"),
            ("sys/block/nvme0n1/dev", "259:0\n"),
            ("sys/block/nvme0n1/holders/dm-0/x", ""),
            ("proc/self/mountinfo", "24 1 179:2 / /media/card rw - ext4 /dev/mmcblk0p2 rw\n"),
            ("proc/swaps", "Filename Type Size Used Priority\n"),
        ] {
            file(path, text);
        }
        system
    }

    #[test]
    fn cards_are_told_from_disks_and_mounts_are_seen() {
        let dir = tempfile::tempdir().unwrap();
        let system = system(dir.path());
        let cards = system.cards().unwrap();
        let [card] = &cards[..] else { panic!("{cards:?}") };
        assert_eq!((card.size, card.model.as_str()), (62_333_952 * 512, "SD32G"));
        assert_eq!(card.id.as_deref(), Some("035344534333324780e7"));
        assert!(card.used[0].contains("mmcblk0p2` is mounted at `/media/card`"), "{:?}", card.used);
        let disk = system.device("nvme0n1");
        assert!(!disk.card && disk.used[0].ends_with("is a part of `dm-0`"), "{disk:?}");
    }
}
