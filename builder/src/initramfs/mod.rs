//! The initramfs: busybox of the target, the modules that a boot needs, and one readable init. The
//! same bytes serve every node of a root; what differs comes from the kernel's command line.
//! Must not know: nodes, roles, partitions.
//! Spec: design.md section 9; Linux, Documentation/filesystems/ramfs-rootfs-initramfs.rst.

pub mod cpio;
pub mod modules;

use std::io::{self, Write};

use crate::kmod::{self, KmodError, elf, packed};
use crate::store::{Store, StoreError};
use crate::tree::{Inode, Kind, Object, Tree, TreePath};
use cpio::{Archive, Entry};
use modules::Lists;

/// The program that runs first on every node.
pub const INIT: &str = include_str!("init.sh");

/// What [`INIT`] needs besides, most of it for roots that come from a server: where each file goes, its text,
/// whether it is a program. `systemd.sh` and `netboot.sh` say what they are for.
pub const PARTS: &[(&str, &str, bool)] = &[
    ("systemd.sh", include_str!("systemd.sh"), false),
    ("netboot.sh", include_str!("netboot.sh"), false),
    ("netboot/lease", include_str!("netboot/lease"), true),
    ("netboot/end", include_str!("netboot/end"), true),
    ("netboot/05-gt-netboot.network", include_str!("netboot/05-gt-netboot.network"), false),
    ("netboot/gt-boot-report.service", include_str!("netboot/gt-boot-report.service"), false),
    ("netboot/gt-end@.service", include_str!("netboot/gt-end@.service"), false),
];

/// How the archive is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compression {
    /// Zstandard: for kernels with `CONFIG_RD_ZSTD`.
    Zstd,
    /// gzip: every kernel of Debian and Raspberry Pi OS reads it.
    Gzip,
}

/// What the initramfs is for.
#[derive(Debug, Clone)]
pub struct Options {
    /// The kernel, such as `6.12.107+deb13-arm64`; names the directory of modules.
    pub kernel: String,
    /// `None` decides by the kernel's `/boot/config-<version>`.
    pub compression: Option<Compression>,
    /// A busybox that is not the root's; `None` takes that.
    pub busybox: Option<Object>,
}

/// Something the user should know that is no error.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Note(pub String);

/// The initramfs could not be made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum InitramfsError {
    /// The root has no busybox.
    #[error(
        "the root has no busybox at `/usr/bin/busybox` or `/bin/busybox`: the package `busybox-static` has one"
    )]
    NoBusybox,
    /// The root's busybox needs libraries, or is no program that we can read.
    #[error("`{path}` is not usable in an initramfs: {what}; the package `busybox-static` has one that is")]
    Busybox {
        /// The program.
        path: TreePath,
        /// What is wrong.
        what: String,
    },
    /// A list of modules is missing or no text.
    #[error("`{name}` of kernel `{kernel}` is missing or no text: depmod must run first")]
    NoList {
        /// The file.
        name: &'static str,
        /// The kernel.
        kernel: String,
    },
    /// A module cannot be unpacked.
    #[error("unpacking the module `{file}`")]
    Module {
        /// The module's file, from the module directory.
        file: String,
        /// What is wrong.
        source: io::Error,
    },
    /// The archive cannot be packed.
    #[error("packing the initramfs")]
    Pack(#[source] io::Error),
    /// The module directory cannot be read.
    #[error(transparent)]
    Kmod(#[from] KmodError),
    /// The store did not give or take bytes.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Builds the initramfs of a root's kernel. The root's `modules.dep` must be there ([`kmod::depmod`]).
/// The same root gives the same bytes.
pub fn build(root: &Tree, store: &Store, options: &Options) -> Result<(Object, Vec<Note>), InitramfsError> {
    let mut archive = Archive::default();
    for dir in ["dev", "etc", "proc", "root", "run", "sys"] {
        archive.insert(dir, Entry::Dir);
    }
    // The kernel opens the console for init before anything is mounted.
    archive.insert("dev/console", Entry::Char { major: 5, minor: 1 });
    archive.insert("dev/null", Entry::Char { major: 1, minor: 3 });
    archive.insert("init", Entry::File { bytes: INIT.as_bytes().into(), executable: true });
    archive.insert("netboot", Entry::Dir);
    for &(name, text, executable) in PARTS {
        archive.insert(name, Entry::File { bytes: text.as_bytes().into(), executable });
    }
    add_busybox(root, store, options.busybox.as_ref(), &mut archive)?;
    let mut notes = add_modules(root, store, &options.kernel, &mut archive)?;
    let compression = match options.compression {
        Some(compression) => compression,
        None => choose_compression(root, store, &options.kernel, &mut notes)?,
    };
    let bytes = pack(&archive, compression).map_err(InitramfsError::Pack)?;
    Ok((store.put_bytes(&bytes)?, notes))
}

/// Programs that [`INIT`] and its parts call, or that someone at their shell (`gt.debug`) would
/// miss. Names of busybox's applets; `[` and `echo` are part of its shell.
const APPLETS: &[&str] = &[
    "blockdev",
    "cat",
    "chmod",
    "chown",
    "chroot",
    "cp",
    "cttyhack",
    "cut",
    "dd",
    "df",
    "dmesg",
    "find",
    "findfs",
    "free",
    "grep",
    "halt",
    "hexdump",
    "insmod",
    "ip",
    "ln",
    "ls",
    "lsmod",
    "mkdir",
    "mke2fs",
    "mkfifo",
    "mknod",
    "modprobe",
    "mount",
    "mv",
    "nc",
    "ping",
    "poweroff",
    "printf",
    "ps",
    "readlink",
    "reboot",
    "rm",
    "sed",
    "setsid",
    "sh",
    "sha256sum",
    "sleep",
    "sort",
    "stat",
    "switch_root",
    "sync",
    "tar",
    "tee",
    "timeout",
    "tr",
    "true",
    "udhcpc",
    "umount",
    "uname",
    "vi",
    "wget",
    "xxd",
];

fn add_busybox(
    root: &Tree,
    store: &Store,
    given: Option<&Object>,
    archive: &mut Archive,
) -> Result<(), InitramfsError> {
    let own = || find_busybox(root).ok_or(InitramfsError::NoBusybox);
    let (path, object) = match given {
        Some(object) => (TreePath::new("usr/bin/busybox").map_err(KmodError::Path)?, object),
        None => own()?,
    };
    let bytes = store.read_object(object)?;
    let wrong = |what: String| InitramfsError::Busybox { path: path.clone(), what };
    if elf::is_dynamic(&bytes).map_err(|e| wrong(e.to_string()))? {
        return Err(wrong("it is linked dynamically".into()));
    }
    // The names of a busybox's applets stand in it one after another, each ended by a zero byte.
    let strings: std::collections::HashSet<&[u8]> = bytes.split(|&b| b == 0).collect();
    if let Some(applet) = APPLETS.iter().find(|applet| !strings.contains(applet.as_bytes())) {
        return Err(wrong(format!("it was built without `{applet}`")));
    }
    archive.insert("bin/busybox", Entry::File { bytes, executable: true });
    for applet in APPLETS {
        archive.insert(&format!("bin/{applet}"), Entry::Symlink("busybox".into()));
    }
    // Where the kernel looks for modprobe when it wants a module itself.
    archive.insert("sbin", Entry::Symlink("bin".into()));
    Ok(())
}

/// The busybox of a root, or of the files of its package.
pub fn find_busybox(root: &Tree) -> Option<(TreePath, &Object)> {
    ["usr/bin/busybox", "bin/busybox"].into_iter().find_map(|path| {
        let path = root.resolve(&TreePath::new(path).ok()?, true)?;
        let object = root.get(&path).and_then(Inode::object)?;
        Some((path, object))
    })
}

fn add_modules(
    root: &Tree,
    store: &Store,
    kernel: &str,
    archive: &mut Archive,
) -> Result<Vec<Note>, InitramfsError> {
    let dir = kmod::module_dir(root, kernel)?;
    let list = |name: &'static str| -> Result<String, InitramfsError> {
        let bytes = kmod::read_file(root, store, &dir, name)?;
        let text = bytes.and_then(|bytes| String::from_utf8(bytes).ok());
        text.ok_or_else(|| InitramfsError::NoList { name, kernel: kernel.into() })
    };
    let (dep, alias) = (list("modules.dep")?, list("modules.alias")?);
    let (softdep, builtin) = (list("modules.softdep")?, list("modules.builtin")?);
    let choice = modules::choose(&Lists { dep: &dep, alias: &alias, softdep: &softdep, builtin: &builtin });
    let place = |file: &str| format!("lib/modules/{kernel}/{file}");
    for file in &choice.files {
        let bytes = module(root, store, &dir, file)?;
        archive.insert(&place(modules::plain_file(file)), Entry::File { bytes, executable: false });
    }
    for (name, text) in
        [("modules.dep", choice.dep), ("modules.alias", choice.alias), ("modules.builtin", builtin)]
    {
        archive.insert(&place(name), Entry::File { bytes: text.into(), executable: false });
    }
    let note =
        |name: &&str| Note(format!("kernel `{kernel}` has no `{name}`: what needs it will not work at boot"));
    Ok(choice.missing.iter().map(note).collect())
}

/// A module's unpacked bytes.
fn module(root: &Tree, store: &Store, dir: &TreePath, file: &str) -> Result<Vec<u8>, InitramfsError> {
    let fault = |source: io::Error| InitramfsError::Module { file: file.into(), source };
    let name = file.rsplit('/').next().unwrap_or_default();
    let packing = packed::module_name(name.as_bytes()).map(|(packing, _)| packing);
    let (Some(packing), Some(bytes)) = (packing, kmod::read_file(root, store, dir, file)?) else {
        return Err(fault(io::Error::new(
            io::ErrorKind::NotFound,
            "`modules.dep` names it, the root lacks it",
        )));
    };
    packed::unpack(packing, &bytes).map_err(fault)
}

/// zstd where the kernel says that it reads it. The setting is on in Debian's kernels.
fn choose_compression(
    root: &Tree,
    store: &Store,
    kernel: &str,
    notes: &mut Vec<Note>,
) -> Result<Compression, InitramfsError> {
    let path = TreePath::new(format!("boot/config-{kernel}")).map_err(KmodError::Path)?;
    let Some(Inode { kind: Kind::File(config), .. }) = root.get(&path) else {
        return Ok(Compression::Gzip);
    };
    let config = store.read_object(config)?;
    if config.split(|&b| b == b'\n').any(|line| line == b"CONFIG_RD_ZSTD=y") {
        return Ok(Compression::Zstd);
    }
    notes.push(Note(format!("kernel `{kernel}` reads no zstd: the initramfs is packed with gzip")));
    Ok(Compression::Gzip)
}

/// One thread and a fixed level: the same archive gives the same bytes on every machine.
fn pack(archive: &Archive, compression: Compression) -> io::Result<Vec<u8>> {
    match compression {
        Compression::Zstd => {
            // Level 19 keeps the window at 8 MiB, far below the kernel's limit of 128 MiB.
            let mut encoder = zstd::Encoder::new(Vec::new(), 19)?;
            encoder.set_pledged_src_size(None)?;
            encoder.include_checksum(true)?;
            archive.write(&mut encoder)?;
            encoder.finish()
        }
        Compression::Gzip => {
            let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
            archive.write(&mut encoder)?;
            encoder.flush()?;
            encoder.finish()
        }
    }
}

#[cfg(test)]
mod tests;
