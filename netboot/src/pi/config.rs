//! `config.txt` as the firmware reads it, as far as it decides which files are fetched.
//! Must not know: TFTP, where the text comes from.
//! Spec: Raspberry Pi documentation, "The config.txt file"; limits over the network by firmware#1012,
//! #1575.

use super::{Board, Model};

/// Over the network a Pi 4 ignored what lay past this many bytes (firmware#1012, #1575).
pub const READ_AT_MOST: usize = 4096;
/// What is longer is cut ("The config.txt file": the line length limit is 98 characters).
const LINE_AT_MOST: usize = 98;
/// Of one `config.txt`, at all depths together: a file that includes itself twice would double at each.
const INCLUDES_AT_MOST: u32 = 32;

/// What `config.txt` says to this board.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Config {
    settings: Vec<(String, String)>,
    /// `initramfs NAME followkernel`, the last one.
    pub initramfs: Option<String>,
    /// Names of device-tree overlays, in order, without parameters.
    pub dtoverlays: Vec<String>,
}

impl Config {
    /// Reads a `config.txt` for `board`; `include` gives the text of a file that it names, if there is one.
    pub fn read(text: &[u8], board: &Board, include: &mut dyn FnMut(&str) -> Option<Vec<u8>>) -> Config {
        let mut config = Config::default();
        let mut left = INCLUDES_AT_MOST;
        config.read_at(text, board, include, &mut left);
        config
    }

    fn read_at(
        &mut self,
        text: &[u8],
        board: &Board,
        include: &mut dyn FnMut(&str) -> Option<Vec<u8>>,
        left: &mut u32,
    ) {
        let text = &text[..text.len().min(READ_AT_MOST)];
        let mut filter = Filter::default();
        for line in text.split(|byte| *byte == b'\n') {
            let line = String::from_utf8_lossy(&line[..line.len().min(LINE_AT_MOST)]);
            let line = line.split('#').next().unwrap_or_default().trim();
            if let Some(name) = line.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
                filter.set(name, board);
            } else if filter.is_open() {
                match line.strip_prefix("include ") {
                    Some(name) if *left > 0 => {
                        *left -= 1;
                        if let Some(text) = include(name.trim()) {
                            self.read_at(&text, board, include, left);
                        }
                    }
                    _ => self.read_line(line),
                }
            }
        }
    }

    fn read_line(&mut self, line: &str) {
        if let Some(rest) = line.strip_prefix("initramfs ") {
            self.initramfs = rest.split_whitespace().next().map(str::to_owned);
        } else if let Some((key, value)) = line.split_once('=') {
            let (key, value) = (key.trim(), value.trim());
            if matches!(key, "dtoverlay" | "device_tree_overlay") {
                // `name:parameter` and `name,parameter`; an empty one ends the scope of the one before.
                let name = value.split([',', ':']).next().unwrap_or_default();
                if !name.is_empty() {
                    self.dtoverlays.push(name.trim_end_matches(".dtbo").to_owned());
                }
            } else {
                self.settings.push((key.to_owned(), value.to_owned()));
            }
        }
    }

    /// The last value of a setting.
    pub fn get(&self, key: &str) -> Option<&str> {
        self.settings.iter().rev().find(|(name, _)| name == key).map(|(_, value)| value.as_str())
    }

    /// A setting that is a number; `default` where it is missing or none.
    pub fn flag(&self, key: &str, default: bool) -> bool {
        self.get(key).and_then(|value| value.parse::<u32>().ok()).map_or(default, |value| value != 0)
    }

    /// What comes before the names of kernel, device tree, initramfs and `cmdline.txt`.
    pub fn os_prefix(&self) -> &str {
        self.get("os_prefix").unwrap_or_default()
    }

    /// Names of the kernel, most wanted first.
    pub fn kernels(&self, model: Model) -> Vec<String> {
        let names: &[&str] = match (self.get("kernel"), model) {
            (Some(name), _) => &[name],
            (None, Model::Pi5) => &["kernel_2712.img", "kernel8.img"],
            (None, _) if self.is_64_bit(model) => &["kernel8.img"],
            (None, Model::Pi3b | Model::Pi3bPlus) => &["kernel8-32.img", "kernel7.img"],
            (None, _) => &["kernel7l.img"],
        };
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    /// True if the kernel is started in 64 bits: the default from Pi 4 on, the only way on a Pi 5.
    fn is_64_bit(&self, model: Model) -> bool {
        model == Model::Pi5 || self.flag("arm_64bit", !model.has_rom_dhcp())
    }

    /// The name of the device tree.
    pub fn device_tree(&self, board: &Board) -> String {
        // The lowest four bits of a Pi 5's revision are its board's: 1 and later have the D0 chip.
        let d0 = board.revision & 0xf != 0;
        let name = self.get("device_tree").filter(|name| !name.is_empty()).unwrap_or(match board.model {
            Model::Pi3b => "bcm2710-rpi-3-b.dtb",
            Model::Pi3bPlus => "bcm2710-rpi-3-b-plus.dtb",
            Model::Pi4Old | Model::Pi4 => "bcm2711-rpi-4-b.dtb",
            Model::Pi5 if d0 => "bcm2712d0-rpi-5-b.dtb",
            Model::Pi5 => "bcm2712-rpi-5-b.dtb",
        });
        name.to_owned()
    }

    /// The name of the initramfs that goes with `kernel`: the one that is named, or with
    /// `auto_initramfs` the kernel's own name with `initramfs` for `kernel` and no `.img`.
    pub fn initramfs_for(&self, kernel: &str) -> Option<String> {
        let auto = || {
            let rest = kernel.strip_prefix("kernel")?;
            Some(format!("initramfs{}", rest.strip_suffix(".img").unwrap_or(rest)))
        };
        let named = self.initramfs.clone().or_else(|| self.get("ramfsfile").map(str::to_owned));
        named.or_else(|| self.flag("auto_initramfs", false).then(auto).flatten())
    }

    /// The second stage and its data, of those that have one.
    pub fn start_files(&self, model: Model) -> (String, String) {
        let family = if model.has_rom_dhcp() { "" } else { "4" };
        let extra = if self.flag("start_x", false) { "x" } else { "" };
        let name = |key, stem, ending: &str| {
            self.get(key).map_or_else(|| format!("{stem}{family}{extra}.{ending}"), str::to_owned)
        };
        (name("start_file", "start", "elf"), name("fixup_file", "fixup", "dat"))
    }
}

/// Which lines count: filters of different kinds add up, those of one kind replace each other, `[all]`
/// ends them all.
#[derive(Debug, Default)]
struct Filter {
    model_shut: bool,
    serial_shut: bool,
    other_shut: bool,
}

impl Filter {
    fn is_open(&self) -> bool {
        !self.model_shut && !self.serial_shut && !self.other_shut
    }

    fn set(&mut self, name: &str, board: &Board) {
        let name = name.trim().to_ascii_lowercase();
        let models: &[&str] = match board.model {
            Model::Pi3b => &["pi3"],
            Model::Pi3bPlus => &["pi3", "pi3+"],
            Model::Pi4Old | Model::Pi4 => &["pi4"],
            Model::Pi5 => &["pi5"],
        };
        if name == "all" {
            *self = Filter::default();
        } else if let Some(serial) = name.strip_prefix("0x") {
            self.serial_shut = u32::from_str_radix(serial, 16).ok() != Some(board.serial.0);
        } else if ["pi", "cm", "board-type="].iter().any(|start| name.starts_with(start)) {
            self.model_shut = !models.contains(&name.as_str());
        } else {
            // `[none]`, `[tryboot]`, `[edid=…]`, `[gpio…]`: a netbooted node without a screen has none.
            self.other_shut = true;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::site::{Mac, Serial};

    fn board(model: Model) -> Board {
        Board::new(model, Mac([0; 6]), Serial(0x5b15_4510))
    }

    fn read(text: &str) -> Config {
        Config::read(text.as_bytes(), &board(Model::Pi4), &mut |_| None)
    }

    #[test]
    fn filters() {
        for (text, want) in [
            ("kernel=a", Some("a")),
            ("kernel=a\nkernel=b", Some("b")),
            ("kernel=a # why\r\n", Some("a")),
            ("#kernel=a", None),
            ("[pi5]\nkernel=a", None),
            ("[pi5]\nx=1\n[pi4]\nkernel=a", Some("a")),
            ("[pi5]\nx=1\n[all]\nkernel=a", Some("a")),
            ("[0x5b154510]\nkernel=a", Some("a")),
            ("[0x5B154510]\nkernel=a", Some("a")),
            ("[0x5b154511]\n[pi4]\nkernel=a", None),
            ("[none]\nkernel=a\n[pi4]\nkernel=b", None),
            ("[none]\n[all]\nkernel=c", Some("c")),
            ("[tryboot]\nkernel=a", None),
        ] {
            assert_eq!(read(text).get("kernel"), want, "{text:?}");
        }
    }

    #[test]
    fn names_of_the_files() {
        let config =
            read("auto_initramfs=1\ndtoverlay=vc4-kms-v3d,cma-256\ndtoverlay=\ndtoverlay=disable-bt.dtbo\n");
        assert_eq!(config.dtoverlays, ["vc4-kms-v3d", "disable-bt"]);
        assert_eq!(config.initramfs_for("kernel8.img").as_deref(), Some("initramfs8"));
        assert_eq!(config.initramfs_for("kernel_2712.img").as_deref(), Some("initramfs_2712"));
        assert_eq!(config.initramfs_for("vmlinuz"), None);
        assert_eq!(config.start_files(Model::Pi4), ("start4.elf".into(), "fixup4.dat".into()));
        assert_eq!(config.start_files(Model::Pi3b), ("start.elf".into(), "fixup.dat".into()));
        let named = read("auto_initramfs=1\ninitramfs initrd.gz followkernel\nstart_x=1\nos_prefix=gen42/");
        assert_eq!(named.initramfs_for("kernel8.img").as_deref(), Some("initrd.gz"));
        assert_eq!(named.start_files(Model::Pi4).0, "start4x.elf");
        assert_eq!(named.os_prefix(), "gen42/");
    }

    #[test]
    fn kernels_and_device_trees() {
        let plain = Config::default();
        for (model, kernels, tree) in [
            (Model::Pi3b, &["kernel8-32.img", "kernel7.img"][..], "bcm2710-rpi-3-b.dtb"),
            (Model::Pi3bPlus, &["kernel8-32.img", "kernel7.img"], "bcm2710-rpi-3-b-plus.dtb"),
            (Model::Pi4, &["kernel8.img"], "bcm2711-rpi-4-b.dtb"),
            (Model::Pi5, &["kernel_2712.img", "kernel8.img"], "bcm2712-rpi-5-b.dtb"),
        ] {
            assert_eq!(plain.kernels(model), kernels, "{model:?}");
            assert_eq!(plain.device_tree(&board(model)), tree, "{model:?}");
        }
        assert_eq!(read("arm_64bit=0").kernels(Model::Pi4), ["kernel7l.img"]);
        assert_eq!(read("arm_64bit=1").kernels(Model::Pi3b), ["kernel8.img"]);
        assert_eq!(read("kernel=vmlinuz").kernels(Model::Pi5), ["vmlinuz"]);
        assert_eq!(read("device_tree=my.dtb").device_tree(&board(Model::Pi4)), "my.dtb");
        let d0 = Board { revision: 0x00d0_4171, ..board(Model::Pi5) };
        assert_eq!(plain.device_tree(&d0), "bcm2712d0-rpi-5-b.dtb");
    }

    #[test]
    fn what_is_past_the_limits_is_not_read() {
        let text = format!("{}kernel=late", "#\n".repeat(2048));
        assert_eq!(read(&text).get("kernel"), None);
        let across = format!("{}kernel=latelatelate", "#\n".repeat(2040));
        assert_eq!(read(&across).get("kernel"), Some("latelatel"), "a line across the limit is cut");
        let long = format!("kernel={}", "k".repeat(200));
        assert_eq!(read(&long).get("kernel").map(str::len), Some(LINE_AT_MOST - 7));
    }

    #[test]
    fn includes() {
        let mut asked = vec![];
        let text = b"include extra.txt\n[pi5]\ninclude never.txt\n";
        let config = Config::read(text, &board(Model::Pi4), &mut |name| {
            asked.push(name.to_owned());
            Some(b"kernel=x\n[none]\ninclude loop.txt".to_vec())
        });
        assert_eq!((config.get("kernel"), asked.as_slice()), (Some("x"), &["extra.txt".to_owned()][..]));
        let mut count = 0;
        Config::read(b"include me", &board(Model::Pi4), &mut |_| {
            count += 1;
            Some(b"include me\ninclude me\n".to_vec())
        });
        assert_eq!(count, INCLUDES_AT_MOST, "a circle ends");
    }

    proptest! {
        #[test]
        fn no_bytes_panic(text in proptest::collection::vec(any::<u8>(), 0..300)) {
            let config = Config::read(&text, &board(Model::Pi5), &mut |_| None);
            config.kernels(Model::Pi5);
        }
    }
}
