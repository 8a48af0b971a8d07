//! Which kernel modules the initramfs carries, and the lists by which modprobe finds them.
//! Must not know: cpio, init, nodes.
//! Spec: modules.dep(5); Debian's and Raspberry Pi OS's kernel configurations for what is a module.

use std::collections::{BTreeMap, BTreeSet};

use crate::kmod::packed::{module_name, underscores};

/// Needed on every machine; a note says when one is neither a module nor built in.
pub const WANTED: &[&str] = &[
    // Filesystems. ext4 needs a crc32c that only its soft dependency names.
    "ext4",
    "overlay",
    "vfat",
    "nls_cp437",
    "nls_ascii",
    "nfs",
    "nfsv3",
    "loop",
    // Pi 3 and 4: SD card, and the regulators that it waits for.
    "sdhci_iproc",
    "bcm2835",
    "gpio_regulator",
    "fixed",
    // Pi 4: Ethernet; USB behind PCIe with its firmware; restart by watchdog, on all models.
    "genet",
    "mdio_bcm_unimac",
    "broadcom",
    "reset_raspberrypi",
    "xhci_pci",
    "bcm2835_wdt",
    // Pi 3: USB, and Ethernet behind it.
    "dwc2",
    "phy_generic",
    "smsc95xx",
    "smsc",
    "lan78xx",
    "microchip",
    // Pi 5: Ethernet of its RP1.
    "macb",
    // Disks behind USB and PCIe.
    "usb_storage",
    "uas",
    "sd_mod",
    "nvme",
    // QEMU's `virt` machine.
    "virtio_pci",
    "virtio_mmio",
    "virtio_blk",
    "virtio_scsi",
    "virtio_net",
];

/// Taken along where they are: each is in some kernels only.
pub const OPTIONAL: &[&str] = &[
    "mmc_block",
    "sdhci_brcmstb",
    "bcm2835_sdhost",
    "bcm2835_mmc",
    "usbhid",
    "rp1",
    "rp1_mfd",
    "rp1_pci",
    "clk_rp1",
    "pinctrl_rp1",
    "pcie_brcmstb",
    "xhci_plat_hcd",
    "dwc3",
    "i2c_brcmstb",
    "nls_iso8859_1",
];

/// The texts of a module directory that say what depends on what.
#[derive(Debug, Clone, Copy, Default)]
pub struct Lists<'a> {
    /// `modules.dep`.
    pub dep: &'a str,
    /// `modules.alias`.
    pub alias: &'a str,
    /// `modules.softdep`.
    pub softdep: &'a str,
    /// `modules.builtin`.
    pub builtin: &'a str,
}

/// The modules to carry.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Choice {
    /// Their files, from the module directory, packed as they are there.
    pub files: Vec<String>,
    /// `modules.dep` of these, for unpacked files. What a soft dependency wants first is listed as a
    /// dependency, because busybox's modprobe knows no soft ones.
    pub dep: String,
    /// `modules.alias` of these.
    pub alias: String,
    /// Wanted, but neither a module nor built in.
    pub missing: Vec<&'static str>,
}

/// Chooses [`WANTED`], [`OPTIONAL`] and all that they need, softly or not.
pub fn choose(lists: &Lists) -> Choice {
    let index = ModuleIndex::read(lists);
    let mut chosen: BTreeSet<&str> = BTreeSet::new();
    let mut missing = Vec::new();
    for &name in WANTED.iter().chain(OPTIONAL) {
        if index.modules.contains_key(name) {
            chosen.insert(name);
            chosen.extend(index.needs(name));
        } else if WANTED.contains(&name) && !index.builtin.contains(name) {
            missing.push(name);
        }
    }
    let mut choice = Choice { missing, ..Choice::default() };
    for &name in &chosen {
        let needs = index.needs(name).into_iter().map(|need| plain_file(index.modules[need].0));
        let line: Vec<&str> = needs.collect();
        let file = index.modules[name].0;
        let space = if line.is_empty() { "" } else { " " };
        choice.dep.push_str(&format!("{}:{space}{}\n", plain_file(file), line.join(" ")));
        choice.files.push(file.to_owned());
    }
    for line in lists.alias.lines() {
        if line.starts_with("alias ") && line.rsplit(' ').next().is_some_and(|name| chosen.contains(name)) {
            choice.alias.push_str(line);
            choice.alias.push('\n');
        }
    }
    choice
}

/// A module's file without what packs it: `a.ko` for `a.ko.xz`.
pub fn plain_file(file: &str) -> &str {
    file.rfind(".ko").map_or(file, |at| &file[..at + 3])
}

struct ModuleIndex<'a> {
    /// By name: the file, and the names of all that is needed, nearest first.
    modules: BTreeMap<String, (&'a str, Vec<String>)>,
    /// By name: what soft dependencies want loaded first.
    soft: BTreeMap<String, Vec<String>>,
    builtin: BTreeSet<String>,
}

impl<'a> ModuleIndex<'a> {
    fn read(lists: &Lists<'a>) -> ModuleIndex<'a> {
        let mut modules = BTreeMap::new();
        for line in lists.dep.lines() {
            let Some((file, needs)) = line.split_once(':') else { continue };
            let needs = needs.split_whitespace().filter_map(name_of).collect();
            modules.extend(name_of(file).map(|name| (name, (file, needs))));
        }
        let mut aliases: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for line in lists.alias.lines() {
            if let ["alias", alias, name] = line.split(' ').collect::<Vec<_>>()[..] {
                aliases.entry(underscores(alias)).or_default().push(name.to_owned());
            }
        }
        let mut soft: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for line in lists.softdep.lines() {
            let mut words = line.split_whitespace();
            let (Some("softdep"), Some(module)) = (words.next(), words.next()) else { continue };
            let wanted =
                words.skip_while(|&word| word != "pre:").skip(1).take_while(|word| !word.ends_with(':'));
            let list = soft.entry(underscores(module)).or_default();
            for name in wanted.map(underscores) {
                match aliases.get(&name) {
                    _ if modules.contains_key(&name) => list.push(name),
                    Some(names) => list.extend(names.iter().filter(|n| modules.contains_key(*n)).cloned()),
                    // Built in, or absent: softly wanted things may be.
                    None => {}
                }
            }
        }
        let builtin = lists.builtin.lines().filter_map(name_of).collect();
        ModuleIndex { modules, soft, builtin }
    }

    /// All that must or should be loaded before `name`, in the order of `modules.dep`: the last
    /// first.
    fn needs<'s>(&'s self, name: &'s str) -> Vec<&'s str> {
        let mut found: Vec<&str> = Vec::new();
        let mut todo = vec![name];
        while let Some(name) = todo.pop() {
            let hard = self.modules.get(name).map_or(&[][..], |(_, needs)| needs);
            let soft = self.soft.get(name).map_or(&[][..], Vec::as_slice);
            for need in hard.iter().chain(soft).map(String::as_str) {
                if !found.contains(&need) {
                    found.push(need);
                    todo.push(need);
                }
            }
        }
        // A soft circle may lead back to where it began.
        found.retain(|&need| need != name && self.modules.contains_key(need));
        self.order(found)
    }

    /// Puts what others need behind them: what needs more comes first, as it needs all that its own
    /// needs need, and more.
    fn order<'s>(&'s self, mut names: Vec<&'s str>) -> Vec<&'s str> {
        names.sort_by_key(|&name| {
            std::cmp::Reverse(self.modules.get(name).map_or(0, |(_, needs)| needs.len()))
        });
        names
    }
}

fn name_of(file: &str) -> Option<String> {
    let file = file.rsplit('/').next()?;
    module_name(file.as_bytes()).map(|(_, name)| name)
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEP: &str = "kernel/fs/ext4/ext4.ko.xz: kernel/fs/jbd2/jbd2.ko.xz kernel/lib/crc16.ko.xz\n\
        kernel/fs/jbd2/jbd2.ko.xz:\nkernel/lib/crc16.ko.xz:\nkernel/crypto/crc32c_generic.ko.xz:\n\
        kernel/net/other.ko.xz: kernel/lib/crc16.ko.xz\nkernel/drivers/rp1.ko:\n";
    const LISTS: Lists = Lists {
        dep: DEP,
        alias: "# Aliases\nalias crypto-crc32c crc32c_generic\nalias fs-ext4 ext4\nalias net-x other\n",
        softdep: "# Soft\nsoftdep ext4 pre: crypto-crc32c\nsoftdep jbd2 post: other pre: crypto-crc32c gone\n",
        builtin: "kernel/fs/overlayfs/overlay.ko\nkernel/drivers/sdhci-iproc.ko\n",
    };

    #[test]
    fn what_is_wanted_comes_with_all_that_it_needs_and_no_more() {
        let choice = choose(&LISTS);
        assert_eq!(
            choice.files,
            [
                "kernel/lib/crc16.ko.xz",
                "kernel/crypto/crc32c_generic.ko.xz",
                "kernel/fs/ext4/ext4.ko.xz",
                "kernel/fs/jbd2/jbd2.ko.xz",
                "kernel/drivers/rp1.ko"
            ]
        );
        assert_eq!(choice.alias, "alias crypto-crc32c crc32c_generic\nalias fs-ext4 ext4\n");
    }

    #[test]
    fn soft_dependencies_become_dependencies_of_unpacked_files() {
        let dep = choose(&LISTS).dep;
        let line = dep.lines().find(|line| line.contains("ext4.ko:")).unwrap();
        for need in ["kernel/fs/jbd2/jbd2.ko", "kernel/lib/crc16.ko", "kernel/crypto/crc32c_generic.ko"] {
            assert!(line.split(' ').any(|word| word == need), "{need} in {line}");
        }
        assert!(dep.contains("kernel/fs/jbd2/jbd2.ko: kernel/crypto/crc32c_generic.ko\n"));
        assert!(!dep.contains(".xz"));
    }

    #[test]
    fn only_what_is_nowhere_is_missing() {
        let missing = choose(&LISTS).missing;
        assert!(missing.contains(&"vfat") && missing.contains(&"genet"));
        assert!(
            !missing.contains(&"overlay") && !missing.contains(&"sdhci_iproc") && !missing.contains(&"ext4")
        );
        assert!(!missing.contains(&"dwc3"), "optional ones are never missing");
    }

    #[test]
    fn a_circle_of_soft_dependencies_ends() {
        let lists = Lists { softdep: "softdep ext4 pre: jbd2\nsoftdep jbd2 pre: ext4\n", ..LISTS };
        assert!(choose(&lists).dep.contains("ext4.ko: kernel/fs/jbd2/jbd2.ko kernel/lib/crc16.ko\n"));
    }
}
