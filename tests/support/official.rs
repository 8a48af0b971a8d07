//! Disk images in exactly the layout of Raspberry Pi OS, made by other people's tools.
//! Must not know: what is in them, what is tested.
//! Spec: pi-gen's `export-image`, as its images since 2025-03-12 are: MBR, FAT32 with clusters of one sector, ext4.

use std::fs::{self, File};
use std::path::Path;

use super::run;

pub const SECTOR: u64 = 512;
/// Where the partitions begin, in sectors.
pub const BOOT: u64 = 16_384;
pub const ROOT: u64 = 1_064_960;
/// The disk's id, which its PARTUUIDs begin with.
pub const DISK: &str = "041bba91";

pub const TOOLS: [&str; 5] = ["sfdisk", "mkfs.vfat", "mcopy", "mke2fs", "dd"];

/// The words of the published images of 2026.
pub const CMDLINE: &str = "console=serial0,115200 console=tty1 root=PARTUUID=041bba91-02 rootfstype=ext4 \
                           fsck.repair=yes rootwait resize\n";
pub const CONFIG: &str = "# For more options and information see\n# http://rptl.io/configtxt\n\
    dtparam=audio=on\ncamera_auto_detect=1\ndisplay_auto_detect=1\nauto_initramfs=1\ndtoverlay=vc4-kms-v3d\n\
    max_framebuffers=2\ndisable_fw_kms_setup=1\narm_64bit=1\ndisable_overscan=1\narm_boost=1\n\n[cm4]\notg_mode=1\n\n\
    [cm5]\ndtoverlay=dwc2,dr_mode=host\n\n[all]\n";
pub const FSTAB: &str = "proc            /proc           proc    defaults          0       0\n\
    PARTUUID=041bba91-01  /boot/firmware  vfat    defaults          0       2\n\
    PARTUUID=041bba91-02  /               ext4    defaults,noatime  0       1\n";

/// Makes the image `to` of all that is in the folders `boot` and `root`; `sectors` is the size of the root
/// partition.
pub fn image(to: &Path, boot: &Path, root: &Path, sectors: u64) {
    let text = |path: &Path| path.to_str().unwrap().to_owned();
    let sized = |path: &Path, sectors: u64| File::create(path).unwrap().set_len(sectors * SECTOR).unwrap();
    let (table, boot_part, root_part) =
        (to.with_extension("table"), to.with_extension("boot"), to.with_extension("root"));
    sized(to, ROOT + sectors);
    let (size, lines) = (ROOT - BOOT, format!("label: dos\nlabel-id: 0x{DISK}\nstart={BOOT}, "));
    fs::write(&table, format!("{lines}size={size}, type=c\nstart={ROOT}, size={sectors}, type=83\n"))
        .unwrap();
    run("sh", ["-c", &format!("sfdisk -q {} < {}", text(to), text(&table))]);
    sized(&boot_part, size);
    run("mkfs.vfat", ["-F", "32", "-s", "1", "-n", "bootfs", "-i", "B2F082D2", &text(&boot_part)]);
    for entry in fs::read_dir(boot).unwrap() {
        run("mcopy", ["-s", "-i", &text(&boot_part), &text(&entry.unwrap().path()), "::"]);
    }
    sized(&root_part, sectors);
    let form = ["-q", "-t", "ext4", "-O", "^64bit,^huge_file", "-L", "rootfs", "-E", "root_owner=0:0", "-d"];
    run("mke2fs", form.into_iter().chain([&*text(root), &*text(&root_part)]));
    for (part, at) in [(&boot_part, BOOT), (&root_part, ROOT)] {
        let (from, to) = (format!("if={}", text(part)), format!("of={}", text(to)));
        // A block of 64 KiB is 128 sectors, and both partitions begin at one.
        let seek = format!("seek={}", at / 128);
        run("dd", [&*from, &*to, "bs=64K", &seek, "conv=notrunc,sparse", "status=none"]);
    }
    [table, boot_part, root_part].iter().for_each(|file| fs::remove_file(file).unwrap());
}
