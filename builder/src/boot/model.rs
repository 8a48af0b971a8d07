//! What each model of Raspberry Pi needs on its boot partition.
//! Must not know: trees, nodes, file contents.
//! Spec: facts from Debian's raspi-firmware hook (`z50-raspi-firmware`) and the boot order of files
//! seen on the wire; a Pi 5 has its firmware in its EEPROM.

/// A family of boards with the same boot files.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Model {
    /// Pi 3B, 3B+ and 3A+ (BCM2837).
    Pi3,
    /// Pi 4B, 400 and Compute Module 4 (BCM2711).
    Pi4,
    /// Pi 5, 500 and Compute Module 5 (BCM2712).
    Pi5,
}

impl Model {
    /// The name in `cluster.toml`.
    pub fn name(self) -> &'static str {
        match self {
            Model::Pi3 => "pi3",
            Model::Pi4 => "pi4",
            Model::Pi5 => "pi5",
        }
    }

    /// Firmware files without which the board does not start.
    pub fn firmware(self) -> &'static [&'static str] {
        match self {
            Model::Pi3 => &["bootcode.bin", "start.elf", "fixup.dat"],
            Model::Pi4 => &["start4.elf", "fixup4.dat"],
            Model::Pi5 => &[],
        }
    }

    /// Device trees of the family's main board. Upstream kernels and Raspberry Pi's own name those of
    /// the Pi 3 differently; one of them is enough.
    pub fn device_trees(self) -> &'static [&'static str] {
        match self {
            Model::Pi3 => &["bcm2837-rpi-3-b.dtb", "bcm2710-rpi-3-b.dtb"],
            Model::Pi4 => &["bcm2711-rpi-4-b.dtb"],
            Model::Pi5 => &["bcm2712-rpi-5-b.dtb"],
        }
    }

    /// Kernel words for screen and serial port. The last one is `/dev/console`.
    ///
    /// With an upstream kernel the mini UART of Pi 3 and 4 is `ttyS1`, as in Debian's hook; the
    /// debug connector of a Pi 5 is `ttyAMA10`. With Raspberry Pi's kernel the firmware puts the
    /// right name in the place of `serial0`.
    pub fn consoles(self, upstream: bool) -> [&'static str; 2] {
        match (self, upstream) {
            (_, false) => ["console=serial0,115200", "console=tty1"],
            (Model::Pi3 | Model::Pi4, true) => ["console=tty0", "console=ttyS1,115200"],
            (Model::Pi5, true) => ["console=tty0", "console=ttyAMA10,115200"],
        }
    }

    /// Whether the firmware looks for a kernel of this name by itself.
    pub fn looks_for(self, file: &str) -> bool {
        file == "kernel8.img" || (self == Model::Pi5 && file == "kernel_2712.img")
    }

    /// Whether a kernel of this version can run here. Raspberry Pi's kernels ending in `-2712` have
    /// pages of 16 KiB, which older processors cannot; those ending in `-v8` run on all models.
    pub fn runs(self, version: &str) -> bool {
        self == Model::Pi5 || !version.ends_with("-2712")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_pi_5_runs_a_kernel_made_for_it() {
        for (model, version, want) in [
            (Model::Pi4, "6.12.47+rpt-rpi-2712", false),
            (Model::Pi5, "6.12.47+rpt-rpi-2712", true),
            (Model::Pi4, "6.12.47+rpt-rpi-v8", true),
            (Model::Pi3, "6.12.107+deb13-arm64", true),
        ] {
            assert_eq!(model.runs(version), want, "{} on {}", version, model.name());
        }
    }

    #[test]
    fn the_serial_port_is_the_console_where_the_kernel_is_upstream() {
        for model in [Model::Pi3, Model::Pi4, Model::Pi5] {
            assert!(model.consoles(true)[1].contains("115200"), "{}", model.name());
            assert_eq!(model.consoles(false)[0], "console=serial0,115200");
        }
    }
}
