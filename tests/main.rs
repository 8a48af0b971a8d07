//! The end-to-end tests: foreign tools judge what we write, a kernel boots it.
//! Must not know: private parts of the library. Spec: style.md section 7.
//!
//! The harness is our own (`harness = false`) because a test that cannot run here must be counted
//! as ignored, not as passed. `GT_IMAGE_REQUIRE=judge,root,qemu,archive` makes those tiers fail
//! instead.

#![allow(clippy::unwrap_used, reason = "in a test an unwrap is the assertion")]

mod artifacts;
mod check;
mod cli;
mod commands;
mod consul;
mod disk_image;
mod doctor;
mod edge;
mod fenn;
mod flash;
mod judge_disk;
mod judge_ext4;
mod judge_fat;
mod judge_import;
mod kernel;
mod manifests;
mod netboot;
mod netroot;
mod official_image;
mod ops;
mod package;
mod pages;
mod qemu_initramfs;
mod raspios;
mod rebirth;
mod roles;
mod serve;
mod site;
mod small;
mod support;
mod trio;
mod wire;
mod wire_hard;
mod wire_others;

fn main() {
    let arguments = libtest_mimic::Arguments::from_args();
    let mut trials = Vec::new();
    trials.extend(cli::trials());
    trials.extend(small::trials());
    trials.extend(disk_image::trials());
    trials.extend(raspios::trials());
    trials.extend(official_image::trials());
    trials.extend(artifacts::trials());
    trials.extend(check::trials());
    trials.extend(package::trials());
    trials.extend(pages::trials());
    trials.extend(site::trials());
    trials.extend(commands::trials());
    trials.extend(flash::trials());
    trials.extend(fenn::trials());
    trials.extend(netboot::trials());
    trials.extend(netroot::trials());
    trials.extend(serve::trials());
    trials.extend(ops::trials());
    trials.extend(roles::trials());
    trials.extend(consul::trials());
    trials.extend(rebirth::trials());
    trials.extend(manifests::trials());
    trials.extend(trio::trials());
    trials.extend(edge::trials());
    trials.extend(wire::trials());
    trials.extend(doctor::trials());
    trials.extend(wire_hard::trials());
    trials.extend(wire_others::trials());
    trials.extend(judges());
    libtest_mimic::run(&arguments, trials).exit();
}

/// Tests that know the library's writers alone, each a plain function.
fn judges() -> Vec<libtest_mimic::Trial> {
    use support::{Tier, trial};
    const EXT4: &[Tier] = &[Tier::Judge(&["e2fsck", "dumpe2fs", "debugfs", "resize2fs", "mke2fs"])];
    const KERNEL: &[Tier] = &[Tier::Judge(&["e2fsck", "resize2fs"]), Tier::Root];
    const GROW: &[Tier] = &[Tier::Judge(&["e2fsck", "resize2fs"]), Tier::Root, Tier::Grow];
    const IMPORT: &[Tier] = &[Tier::Judge(&["e2fsck", "mke2fs", "debugfs"]), Tier::Root];
    const FAT: &[Tier] = &[Tier::Judge(&["fsck.vfat", "mkfs.vfat", "mdir", "mcopy", "minfo"])];
    const DISK: &[Tier] =
        &[Tier::Judge(&["sgdisk", "sfdisk", "blkid", "bmaptool", "zstd", "fsck.vfat", "mdir"])];
    const QEMU: &[Tier] = &[Tier::Archive, Tier::Qemu, Tier::Judge(&["mke2fs", "sgdisk", "dpkg-deb"])];
    let mut trials = Vec::new();
    for (name, judge) in judge_ext4::ALL {
        let tiers = match *name {
            "root_kernel_grows_while_mounted" => GROW,
            name if name.starts_with("root_") => KERNEL,
            _ => EXT4,
        };
        trials.push(trial(&format!("ext4::{name}"), tiers, *judge));
    }
    trials.extend(
        judge_import::ALL.iter().map(|(name, test)| trial(&format!("import::{name}"), IMPORT, *test)),
    );
    trials.extend(judge_fat::ALL.iter().map(|(name, judge)| trial(&format!("fat::{name}"), FAT, *judge)));
    trials.extend(judge_disk::ALL.iter().map(|(name, judge)| trial(&format!("disk::{name}"), DISK, *judge)));
    for (name, test) in qemu_initramfs::ALL {
        trials.push(trial(&format!("initramfs::{name}"), QEMU, *test));
    }
    const KMOD: &[Tier] = &[Tier::Archive, Tier::Judge(&["depmod", "modprobe", "dpkg-deb"])];
    trials.extend(kernel::ALL.iter().map(|(name, test)| trial(&format!("kernel::{name}"), KMOD, *test)));
    trials
}
