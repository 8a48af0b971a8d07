//! The boot tree: all that the firmware reads before Linux runs. Firmware, device trees,
//! `config.txt`, `cmdline.txt`, kernel and initramfs, as the FAT partition or the TFTP folder has them.
//! Must not know: FAT, TFTP, roles, how kernel and initramfs are made.
//! Spec: Raspberry Pi documentation (boot folder contents); Debian's hook `z50-raspi-firmware`, of
//! which this is the native form for a root that is no running system.
//!
//! A base may bring a boot tree of its own (Raspberry Pi OS, a tarball with `boot/firmware`). It stays
//! as it is: what it has is kept, what it lacks is added. Only two of its files change, because the
//! node would not find its root otherwise: `config.txt` gets our kernel and initramfs after its own
//! lines, and in `cmdline.txt` the words that name a root or start a first-boot program give way to
//! ours. Its own initramfs goes, for ours is loaded in its place.

pub mod cmdline;
pub mod config_txt;
pub mod firmware;
pub mod kernel;
pub mod model;

use std::net::Ipv4Addr;

use crate::store::{Store, StoreError};
use crate::tree::{Inode, Kind, Meta, Object, PathError, Time, Tree, TreeError, TreePath};
use kernel::Kernel;
use model::Model;

/// The kernel's file on the boot partition.
pub const KERNEL: &str = "vmlinuz";
/// The initramfs's file on the boot partition.
pub const INITRAMFS: &str = "initramfs.img";
/// What the firmware loads with `auto_initramfs=1`, by the name of the kernel.
const OWN_INITRAMFS: [&str; 5] = ["initramfs8", "initramfs_2712", "initramfs", "initramfs7", "initramfs7l"];
/// The kernel's words for a node that is served, in the place of `cmdline.txt`; only where the
/// description names a server. A TFTP request for `cmdline.txt` is answered with it.
pub const CMDLINE_NETBOOT: &str = "cmdline.netboot.txt";
/// Boot files must be smaller: bootloaders before 2025-09-23 end a transfer at 65,535 blocks, which
/// is 64 MiB at their block size of 1024 (rpi-eeprom#720).
pub const MAX_BOOT_FILE: u64 = 64 << 20;

/// A boot tree could not be put together.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BootError {
    /// `config.txt` is longer than bootloaders read.
    #[error("config.txt has {bytes} bytes, bootloaders read {}", config_txt::MAX_FILE)]
    ConfigTooLong {
        /// Length in bytes.
        bytes: usize,
    },
    /// A line of `config.txt` is longer than the firmware reads.
    #[error("a line of config.txt has {bytes} bytes, the firmware reads {}: `{line}`", config_txt::MAX_LINE)]
    ConfigLine {
        /// The line.
        line: String,
        /// Length in bytes.
        bytes: usize,
    },
    /// `cmdline.txt` is longer than the firmware takes.
    #[error("cmdline.txt has {bytes} bytes, the firmware takes {}", cmdline::MAX_FILE)]
    CmdlineTooLong {
        /// Length in bytes.
        bytes: usize,
    },
    /// A word that would end the one line of `cmdline.txt`, or is none.
    #[error("`{}` is no word of a kernel command line", word.escape_debug())]
    CmdlineWord {
        /// The word.
        word: String,
    },
    /// A file that old bootloaders would cut.
    #[error(
        "the boot file `{path}` has {bytes} bytes; bootloaders before 2025-09-23 cut files of 64 MiB and more"
    )]
    FileTooLarge {
        /// Where in the boot tree.
        path: TreePath,
        /// Length in bytes.
        bytes: u64,
    },
    /// A file of the base that should be text.
    #[error("`{path}` of the base's boot partition is no text")]
    NotText {
        /// Where in the boot tree.
        path: TreePath,
    },
    /// A kernel that the firmware cannot start.
    #[error("`{path}` is no arm64 kernel that a Raspberry Pi's firmware can start")]
    NotArm64 {
        /// Where in the root.
        path: TreePath,
    },
    /// A kernel cannot be compressed.
    #[error("packing the kernel `{path}`")]
    Pack {
        /// Where in the root.
        path: TreePath,
        /// What the compressor said.
        source: std::io::Error,
    },
    /// The store did not give or take bytes.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The files do not fit together.
    #[error(transparent)]
    Tree(#[from] TreeError),
    /// A name that is no path.
    #[error(transparent)]
    Path(#[from] PathError),
}

/// What of a node its boot files depend on.
#[derive(Debug, Clone)]
pub struct BootNode {
    /// Its board.
    pub model: Model,
    /// Lines of overlays for `config.txt`, in their order.
    pub config_txt: Vec<String>,
    /// Words of overlays for the kernel, in their order.
    pub cmdline: Vec<String>,
    /// What our init does for the root on the node's own disk: `disk`, `disk-ephemeral`.
    pub disk_mode: String,
    /// PARTUUID of the root's partition.
    pub partuuid: String,
    /// Who serves it; `None` where nobody does.
    pub server: Option<Server>,
    /// `console=` words; empty for those of the model.
    pub consoles: Vec<String>,
}

/// How a node is served.
#[derive(Debug, Clone)]
pub struct Server {
    /// The server's address.
    pub address: Ipv4Addr,
    /// The node's name.
    pub node: String,
    /// The image of its root, for a node that has it in memory.
    pub ram: Option<cmdline::RamImage>,
    /// Partitions of its own that init has to wait for.
    pub partitions: Vec<&'static str>,
}

/// Kernel and initramfs as they go on the boot partition; the same for all nodes of a root.
#[derive(Debug, Clone, Default)]
pub struct Payload {
    /// The kernel of the root, by [`kernel::choose`], and its packed image, by [`kernel::pack`].
    pub kernel: Option<(Kernel, Object)>,
    /// By `initramfs::build`.
    pub initramfs: Option<Object>,
}

/// A node's boot tree.
#[derive(Debug, Clone)]
pub struct Boot {
    /// The files, owned by root, mode 0644.
    pub tree: Tree,
    /// What will not work, for the user to decide about.
    pub warnings: Vec<String>,
}

/// Puts a node's boot tree together. `base_boot` is what the base brings for the boot partition and
/// may be empty; `epoch` (seconds since 1970) is the time of all that is added.
pub fn assemble(
    root: &Tree,
    base_boot: &Tree,
    node: &BootNode,
    payload: &Payload,
    store: &Store,
    epoch: i64,
) -> Result<Boot, BootError> {
    let mut boot = BootTree { tree: base_boot.clone(), epoch };
    let kernel = payload.kernel.as_ref();
    let version = kernel.map(|(kernel, _)| kernel.version.as_str());
    firmware::add(root, version, &mut boot)?;
    let upstream = version.is_some_and(|version| firmware::is_upstream(root, base_boot, version));
    // Without an initramfs a kernel cannot find its root, so the base's own pair stays in charge.
    let pair = kernel.zip(payload.initramfs.as_ref());
    if let Some(((kernel, image), initramfs)) = pair {
        boot.put_other(TreePath::new(kernel.file)?, image.clone())?;
        boot.put(TreePath::new(INITRAMFS)?, initramfs.clone())?;
        // They would do what the image does at its first boot, if anybody set `auto_initramfs` again.
        for name in OWN_INITRAMFS {
            boot.tree.remove(&TreePath::new(name)?);
        }
    }
    let settings = config_txt::Settings {
        extra: &node.config_txt,
        upstream,
        kernel: pair.map(|((kernel, _), _)| kernel.file),
        initramfs: pair.map(|_| INITRAMFS),
    };
    let base_config = text_of(base_boot, store, "config.txt")?;
    boot.put_text(store, "config.txt", &config_txt::write(&settings, base_config.as_deref())?)?;
    let consoles = match &node.consoles[..] {
        [] => node.model.consoles(upstream).map(str::to_owned).to_vec(),
        own => own.to_vec(),
    };
    let base_cmdline = text_of(base_boot, store, "cmdline.txt")?;
    let line = |root| {
        let words = cmdline::Words { consoles: &consoles, root, extra: &node.cmdline };
        cmdline::write(&words, base_cmdline.as_deref())
    };
    let disk = cmdline::Root::Disk { mode: &node.disk_mode, partuuid: &node.partuuid };
    boot.put_text(store, "cmdline.txt", &line(disk)?)?;
    if let Some(Server { address, node, ram, partitions }) = &node.server {
        let root = cmdline::Root::Server { server: *address, node, ram: ram.as_ref(), partitions };
        boot.put_text(store, CMDLINE_NETBOOT, &line(root)?)?;
    }
    check_sizes(&boot.tree)?;
    let warnings = warnings(root, &boot.tree, node.model, pair.is_some(), version.filter(|_| upstream));
    Ok(Boot { tree: boot.tree, warnings })
}

fn warnings(root: &Tree, boot: &Tree, model: Model, pair: bool, upstream: Option<&str>) -> Vec<String> {
    let own_kernel = |name: &str| TreePath::new(name).is_ok_and(|path| boot.get(&path).is_some());
    let mut warnings = Vec::new();
    if !pair && !["kernel8.img", "kernel_2712.img"].into_iter().any(own_kernel) {
        warnings.push("base has no kernel: this node cannot boot".to_owned());
    } else if !pair {
        warnings.push(
            "the base's own kernel is used without our initramfs: only a root on disk works".to_owned(),
        );
    }
    warnings.extend(firmware::lacks(boot, model));
    if let Some(version) =
        upstream.filter(|version| model == Model::Pi5 && !firmware::drives_rp1(root, version))
    {
        warnings
            .push(format!("kernel `{version}` has no driver for the RP1 of a pi5: no Ethernet and no USB"));
    }
    warnings
}

fn check_sizes(tree: &Tree) -> Result<(), BootError> {
    let files = tree.iter().filter_map(|(path, _, inode)| Some((path, inode.object()?.size)));
    match files.into_iter().find(|(_, bytes)| *bytes >= MAX_BOOT_FILE) {
        Some((path, bytes)) => Err(BootError::FileTooLarge { path: path.clone(), bytes }),
        None => Ok(()),
    }
}

fn text_of(tree: &Tree, store: &Store, name: &str) -> Result<Option<String>, BootError> {
    let path = TreePath::new(name)?;
    let Some(object) = tree.get(&path).and_then(Inode::object) else { return Ok(None) };
    match String::from_utf8(store.read_object(object)?) {
        Ok(text) => Ok(Some(text)),
        Err(_) => Err(BootError::NotText { path }),
    }
}

/// A boot tree in the making.
#[derive(Debug)]
pub struct BootTree {
    tree: Tree,
    epoch: i64,
}

impl BootTree {
    /// Adds a file unless there is one of this name; FAT does not tell case apart.
    pub fn add_missing(&mut self, path: TreePath, object: Object) -> Result<(), BootError> {
        let same = |other: &TreePath| other.as_bytes().eq_ignore_ascii_case(path.as_bytes());
        if self.tree.iter().any(|(other, _, _)| same(other)) { Ok(()) } else { self.put(path, object) }
    }

    /// Adds a file, in the place of one of this name.
    pub fn put(&mut self, path: TreePath, object: Object) -> Result<(), BootError> {
        let time = Time::seconds(self.epoch);
        self.tree.make_parents(&path, &Meta::root_owned(0o755, time))?;
        let inode = Inode { meta: Meta::root_owned(0o644, time), kind: Kind::File(object) };
        self.tree.insert(path, inode)?;
        Ok(())
    }

    /// The same, unless the file there has these bytes: what a base brought keeps its time.
    fn put_other(&mut self, path: TreePath, object: Object) -> Result<(), BootError> {
        let same =
            self.tree.get(&path).and_then(Inode::object).is_some_and(|old| old.digest == object.digest);
        if same { Ok(()) } else { self.put(path, object) }
    }

    fn put_text(&mut self, store: &Store, name: &str, text: &str) -> Result<(), BootError> {
        let object = store.put_bytes(text.as_bytes())?;
        self.put(TreePath::new(name)?, object)
    }
}

#[cfg(test)]
mod tests;
