//! All that is asked and looked at before a card is written.
//! Must not know: how cards are written.
//! Spec: design.md section 13.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::io::{self, BufRead, IsTerminal, Write as _};
use std::path::Path;

use anyhow::{Context, bail};
use indicatif::HumanBytes;

use super::super::Hint;
use super::super::subject::{Shared, Subject};
use super::Flash;
use crate::build::disk::Disk;
use crate::build::image::{Private, STATE, Sizes};
use crate::cluster::{ByteSize, Node};
use crate::flash;
use crate::flash::cards::{Card, Registry};
use crate::flash::device::{Device, System};
use crate::flash::medium::Medium;
use crate::flash::refuse::{self, Refusal};
use crate::flash::state::{self, State};
use crate::serve::secrets::NodeKey;
use crate::tree::TreePath;

/// One card on its way, with all that must live as long.
pub(super) struct Prepared<'a> {
    pub(super) subject: Subject<'a>,
    pub(super) disk: Disk,
    pub(super) medium: Medium,
    pub(super) device: Option<Device>,
    pub(super) keep: Option<usize>,
    pub(super) key: Option<NodeKey>,
}

impl Flash {
    /// Everything that can be found wrong before a byte is written.
    pub(super) fn prepare<'a>(
        &self,
        shared: &'a Shared,
        registry: &Registry,
        name: &str,
        path: &Path,
    ) -> anyhow::Result<Prepared<'a>> {
        let subject = Subject::find(shared, name)?;
        let missing = &subject.manifest.incomplete;
        if !missing.is_empty() && !self.allow_incomplete {
            let left: BTreeSet<_> = missing.iter().map(|m| m.overlay.as_str()).collect();
            let left: Vec<_> = left.into_iter().collect();
            let error = anyhow::anyhow!("the generation of `{name}` lacks overlays: {}", left.join(", "));
            return Err(error.context(Hint("build it whole, or add `--allow-incomplete`".into())));
        }
        let device = self.device(path)?;
        let sizes = Sizes {
            state: self.state.map(ByteSize::bytes),
            scratch: self.scratch.map(ByteSize::bytes),
            ..Sizes::default()
        };
        let mut disk = subject.disk(&sizes)?;
        let size = device.as_ref().map(|d| d.size).or_else(|| Some(std::fs::metadata(path).ok()?.len()));
        let size = size.filter(|size| *size > 0);
        let wanted = disk.plan.layout().size;
        match (&device, size) {
            (Some(device), _) => refuse::check(device, wanted, self.yes).map_err(refused)?,
            (None, Some(size)) if size < wanted => {
                return Err(refused(Refusal::Small { path: path.into(), size, wanted }));
            }
            _ => {}
        }
        if self.grow && size.is_some() {
            disk = subject.disk(&Sizes { fill: size, ..sizes })?;
        }
        if size.is_some() {
            self.ask(registry, device.as_ref(), path, subject.node)?;
        }
        let medium = flash::open(path, &disk.plan)?;
        let keep = match state::find(&medium, &disk.plan) {
            _ if self.wipe_state => None,
            State::Stays(index) => Some(index),
            State::None => None,
            State::InTheWay { start, size } => {
                let size = HumanBytes(size);
                let text = format!(
                    "`{}` has state of a node ({size} at byte {start}), which would be overwritten",
                    path.display()
                );
                let hint = format!(
                    "give `{STATE}` and the root the sizes that they had; add `--wipe-state` if it can go"
                );
                return Err(anyhow::anyhow!(text).context(Hint(hint)));
            }
        };
        let mut key = None;
        let has_state = disk.plan.layout().partitions.iter().any(|p| p.spec.name == STATE);
        if has_state && keep.is_none() {
            let (public, secret) = NodeKey::generate();
            let path = TreePath::new("node.age")?;
            let file = Private { path, bytes: secret.into_bytes(), mode: 0o400, owner: (0, 0), secret: None };
            disk = disk.with_state(&[file], subject.manifest.epoch)?;
            key = Some(public);
        }
        Ok(Prepared { subject, disk, medium, device, keep, key })
    }

    /// What is known of a device; nothing for a plain file.
    fn device(&self, path: &Path) -> anyhow::Result<Option<Device>> {
        use std::os::unix::fs::FileTypeExt;
        match std::fs::metadata(path) {
            Ok(meta) if meta.file_type().is_block_device() => {}
            Ok(meta) if meta.is_file() => return Ok(None),
            Err(e) if e.kind() == io::ErrorKind::NotFound && !path.starts_with("/dev") => return Ok(None),
            Ok(_) => bail!("`{}` is neither a device nor a plain file", path.display()),
            Err(e) => {
                let error = anyhow::Error::new(e).context(format!("looking at `{}`", path.display()));
                return Err(error.context(Hint("run `gt-image flash` to see the cards".into())));
            }
        }
        let found = System::default().at(path).with_context(|| format!("looking at `{}`", path.display()))?;
        found.map(Some).map_err(|disk| refused(Refusal::Partition { path: path.into(), disk }))
    }

    /// Asks for the user's word, with all that tells one card from another.
    fn ask(
        &self,
        registry: &Registry,
        device: Option<&Device>,
        path: &Path,
        node: &Node,
    ) -> anyhow::Result<()> {
        if self.yes {
            return Ok(());
        }
        if !io::stdin().is_terminal() {
            let error = anyhow::anyhow!("`{}` is overwritten only when somebody says so", path.display());
            return Err(error.context(Hint("add `--yes`, or run it on a terminal".into())));
        }
        let mut out = io::stderr().lock();
        match device {
            Some(device) => {
                write!(out, "{}", line(device, last_node(&registry.cards()?, device).as_deref()))?;
            }
            None => writeln!(out, "{}: a file", path.display())?,
        }
        write!(out, "overwrite it with {}? Type its name, {}: ", node.name, path.display())?;
        out.flush()?;
        let mut answer = String::new();
        io::stdin().lock().read_line(&mut answer)?;
        if answer.trim() != path.to_string_lossy() {
            bail!("nothing was done");
        }
        Ok(())
    }
}

fn refused(refusal: Refusal) -> anyhow::Error {
    let hint = refusal.hint();
    anyhow::Error::new(refusal).context(Hint(hint))
}

pub(super) fn last_node(cards: &[Card], device: &Device) -> Option<String> {
    let id = device.id.as_ref()?;
    cards.iter().find(|card| card.id == *id && card.size == device.size).map(|card| card.node.clone())
}

/// A device as people tell it from others.
pub(super) fn line(device: &Device, last: Option<&str>) -> String {
    let mut out = format!("{}  {}  {}", device.path.display(), HumanBytes(device.size), device.model);
    // Writing to a String cannot fail.
    if !device.content.is_empty() {
        let _ = write!(out, "  holds {}", device.content.join(", "));
    }
    if let Some(node) = last {
        let _ = write!(out, "  was {node}");
    }
    for used in &device.used {
        let _ = write!(out, "\n    {used}");
    }
    out + "\n"
}
