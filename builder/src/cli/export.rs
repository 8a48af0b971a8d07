//! `gt-image export`: takes parts of a node's current generation out of the store.
//! Must not know: how they were made.
//! Spec: design.md section 11; the tar file is POSIX.1-2001 (pax).

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, bail};
use clap::Args;

use super::{Global, project::Project, select};
use crate::boot::{INITRAMFS, KERNEL, config_txt};
use crate::io::atomic;
use crate::io::progress::{Task, Unit};
use crate::store::Store;
use crate::tree::{Inode, Kind, Tree, TreePath, dump};

/// Take parts of a generation out: the root as tar or as text, the boot files
///
/// `-` in place of a file means stdout. Secrets are in none of them: they are
/// added when a disk image is written.
#[derive(Args, Debug)]
#[command(override_usage = "gt-image export --node <NAME> <PART> [<PART>...]", group(clap::ArgGroup::new("what").required(true).multiple(true)))]
#[command(after_help = "Examples:
  gt-image export --node fenn --tar - | tar -t
  gt-image export --node fenn~1 --dump before.txt
  gt-image export --node fenn --boot boot/    firmware, kernel, initramfs")]
pub struct Export {
    /// The node, or one of its generations: `fenn`, `fenn~1`, `fenn@3fa2`
    #[arg(long, value_name = "NAME")]
    node: String,
    /// The root filesystem as a tar archive
    #[arg(long, value_name = "FILE", group = "what")]
    tar: Option<PathBuf>,
    /// The root filesystem's canonical text, one line an entry
    #[arg(long, value_name = "FILE", group = "what")]
    dump: Option<PathBuf>,
    /// The boot partition's files
    #[arg(long, value_name = "DIR", group = "what")]
    boot: Option<PathBuf>,
    /// The kernel
    #[arg(long, value_name = "FILE", group = "what")]
    kernel: Option<PathBuf>,
    /// The initramfs
    #[arg(long, value_name = "FILE", group = "what")]
    initramfs: Option<PathBuf>,
    /// The kernel's command line
    #[arg(long, value_name = "FILE", group = "what")]
    cmdline: Option<PathBuf>,
}

impl Export {
    pub(super) fn run(&self, global: &Global) -> anyhow::Result<ExitCode> {
        let project = Project::find(global)?;
        let store = Store::open(&project.store).context("opening the store")?;
        let generation = select::generation(&store, &self.node)?;
        if let Some(file) = &self.tar {
            let root = store.tree(&generation.root)?;
            let mut left_out = Vec::new();
            let total = root.iter().filter_map(|(_, _, inode)| inode.object()).map(|o| o.size).sum();
            let task = global.progress().task("writing the archive", Unit::Bytes, Some(total));
            to_file(file, &mut |out| {
                left_out =
                    crate::archive::tar_write::write(&root, &store, &mut Watched { out, task: &task })?;
                Ok(())
            })?;
            drop(task);
            for path in left_out {
                global.progress().say(&format!("left out `{path}`: tar has no sockets"));
            }
        }
        if let Some(file) = &self.dump {
            let text = dump::write(&store.tree(&generation.root)?);
            to_file(file, &mut |out| Ok(out.write_all(text.as_bytes())?))?;
        }
        if let Some(dir) = &self.boot {
            write_out(&store.tree(&generation.boot)?, &store, dir)?;
        }
        if self.kernel.is_some() || self.initramfs.is_some() || self.cmdline.is_some() {
            self.boot_files(&store, &store.tree(&generation.boot)?)?;
        }
        Ok(ExitCode::SUCCESS)
    }

    fn boot_files(&self, store: &Store, boot: &Tree) -> anyhow::Result<()> {
        // An image keeps the name that its kernel has.
        let config = boot.get(&TreePath::new("config.txt")?).and_then(Inode::object);
        let config = config.map(|object| store.read_object(object)).transpose()?.unwrap_or_default();
        let config = String::from_utf8_lossy(&config);
        let kernel = config_txt::kernel(&config).unwrap_or(KERNEL);
        let files = [(&self.kernel, kernel), (&self.initramfs, INITRAMFS), (&self.cmdline, "cmdline.txt")];
        for (file, name) in files {
            if let Some(file) = file {
                boot_file(store, boot, name, file)?;
            }
        }
        Ok(())
    }
}

/// Tells a task of what is written.
struct Watched<'a> {
    out: &'a mut dyn Write,
    task: &'a Task,
}

impl Write for Watched<'_> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let written = self.out.write(bytes)?;
        self.task.advance(u64::try_from(written).unwrap_or(0));
        Ok(written)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.out.flush()
    }
}

fn boot_file(store: &Store, boot: &Tree, name: &str, file: &Path) -> anyhow::Result<()> {
    let Some(object) = boot.get(&TreePath::new(name)?).and_then(Inode::object) else {
        bail!("the boot tree has no `{name}`: the node's base has no kernel");
    };
    to_file(file, &mut |out| {
        std::io::copy(&mut store.open_object(object)?, out)?;
        Ok(())
    })
}

/// Writes a file whole or not at all; `-` is stdout.
fn to_file(file: &Path, write: &mut dyn FnMut(&mut dyn Write) -> anyhow::Result<()>) -> anyhow::Result<()> {
    if file == Path::new("-") {
        return write(&mut std::io::stdout().lock());
    }
    let doing = || format!("writing `{}`", file.display());
    let mut temp = atomic::begin(file).with_context(doing)?;
    let mut out = std::io::BufWriter::with_capacity(1 << 20, temp.as_file_mut());
    write(&mut out).and_then(|()| Ok(out.flush()?)).with_context(doing)?;
    drop(out);
    atomic::finish(temp, file).with_context(doing)
}

/// Writes the files and directories of a boot tree into a directory that is empty or new.
fn write_out(tree: &Tree, store: &Store, dir: &Path) -> anyhow::Result<()> {
    use std::os::unix::ffi::OsStrExt;
    if dir.exists()
        && fs::read_dir(dir).with_context(|| format!("reading `{}`", dir.display()))?.next().is_some()
    {
        return Err(anyhow::anyhow!("`{}` is not empty", dir.display())
            .context(super::Hint("name a directory that does not exist yet".into())));
    }
    for (path, _, inode) in tree.iter() {
        let target = dir.join(std::ffi::OsStr::from_bytes(path.as_bytes()));
        let doing = || format!("writing `{}`", target.display());
        match &inode.kind {
            Kind::Dir => fs::create_dir_all(&target).with_context(doing)?,
            Kind::File(object) => {
                let mut file = fs::File::create(&target).with_context(doing)?;
                std::io::copy(&mut store.open_object(object)?, &mut file).with_context(doing)?;
            }
            other => bail!("`{path}` is a {}, which a boot partition cannot hold", other.noun()),
        }
    }
    Ok(())
}
