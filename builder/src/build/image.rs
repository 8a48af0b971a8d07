//! From a generation to a disk image: what is added for a card of its own, sizes, ids, and the call
//! of the writers.
//! Must not know: roles, packages, how trees were made.
//! Spec: design.md sections 7, 8 and 13.

use std::path::Path;

use crate::cluster::{ByteSize, Node, PartitionTable, RootMode};
use crate::digest::Digest;
use crate::disk::{self, Backend, Output, PartitionContent, Role, Written, gpt};
use crate::ext4;
use crate::fat;
use crate::io::progress::{Progress, Task, Unit};
use crate::io::sink::ImageSink;
use crate::layer::identity::{ClusterKey, serial, uuid};
use crate::manifest;
use crate::store::Store;
use crate::tree::layer::Layer;
use crate::tree::{Inode, Kind, Meta, Object, Time, Tree, TreePath};

/// The boot partition's size, as on Raspberry Pi OS.
const BOOT_SIZE: u64 = 512 << 20;
/// The partition whose content outlives a node.
pub const STATE: &str = "gt-state";
/// The partition that is made anew at each boot.
pub const SCRATCH: &str = "gt-scratch";
/// Least free space of a root filesystem whose size is not fixed.
const FREE_MIN: u64 = 512 << 20;

/// A file of the image that is in no generation, with its content.
#[derive(Debug, Clone)]
pub struct Private {
    /// Where it goes.
    pub path: TreePath,
    /// Its bytes.
    pub bytes: Vec<u8>,
    /// Permissions.
    pub mode: u16,
    /// Owner and group.
    pub owner: (u32, u32),
    /// `derived` or `file` for a secret, `None` for what anybody may see.
    pub secret: Option<&'static str>,
}

/// The ids of a node's disk. They follow from names alone.
#[derive(Debug, Clone)]
pub struct DiskIds<'a> {
    cluster: &'a str,
    node: &'a str,
    table: PartitionTable,
}

impl<'a> DiskIds<'a> {
    /// The ids for one node.
    pub fn new(cluster: &'a str, node: &'a Node) -> DiskIds<'a> {
        DiskIds { cluster, node: node.name.as_str(), table: node.partition_table }
    }

    /// What `root=PARTUUID=` and fstab say for the partition of this label and number, counted
    /// from 0.
    pub fn partuuid(&self, label: &str, index: usize) -> String {
        match self.table {
            PartitionTable::Gpt => gpt::guid_text(&self.uuid(label)),
            PartitionTable::Mbr => format!("{:08x}-{:02x}", self.serial("disk"), index + 1),
        }
    }

    fn uuid(&self, purpose: &str) -> [u8; 16] {
        uuid(self.cluster, self.node, purpose)
    }

    fn serial(&self, purpose: &str) -> u32 {
        serial(self.cluster, self.node, purpose)
    }
}

/// What every flashed node has of its own: machine-id, SSH host key, fstab.
pub fn private_files(
    cluster: &str,
    node: &Node,
    key: &ClusterKey,
    root: &Tree,
    store: &Store,
) -> anyhow::Result<Vec<Private>> {
    let name = node.name.as_str();
    let ssh = key.ssh_host_key(name);
    let comment = format!("root@{name}");
    let ids = DiskIds::new(cluster, node);
    let file = |path: &str, text: String, mode, secret| -> anyhow::Result<Private> {
        Ok(Private { path: TreePath::new(path)?, bytes: text.into_bytes(), mode, owner: (0, 0), secret })
    };
    let mut files = vec![
        file("etc/machine-id", format!("{}\n", key.machine_id(name)), 0o444, Some("derived"))?,
        file("etc/fstab", fstab(&ids, node, root, store)?, 0o644, None)?,
    ];
    if root.get(&TreePath::new("etc/ssh")?).is_some() {
        let public = format!("{} {comment}\n", ssh.public());
        files.push(file("etc/ssh/ssh_host_ed25519_key", ssh.private(&comment), 0o600, Some("derived"))?);
        files.push(file("etc/ssh/ssh_host_ed25519_key.pub", public, 0o644, None)?);
    }
    Ok(files)
}

/// Our lines, after those lines of the base that are about other mount points.
fn fstab(ids: &DiskIds, node: &Node, root: &Tree, store: &Store) -> anyhow::Result<String> {
    let path = TreePath::new("etc/fstab")?;
    let old = match root.get(&path).and_then(Inode::object) {
        Some(object) => String::from_utf8_lossy(&store.read_object(object)?).into_owned(),
        None => String::new(),
    };
    let ours = |line: &str| matches!(line.split_whitespace().nth(1), Some("/" | "/boot/firmware"));
    let mut text: String = old.lines().filter(|line| !ours(line)).map(|line| format!("{line}\n")).collect();
    if node.disk_mode() == RootMode::Disk {
        text.push_str(&format!("PARTUUID={} / ext4 defaults,noatime 0 1\n", ids.partuuid("rootfs", 1)));
    }
    // `nofail`: a node whose boot partition is damaged after boot is still worth logging in to.
    let boot = ids.partuuid("bootfs", 0);
    text.push_str(&format!("PARTUUID={boot} /boot/firmware vfat defaults,noatime,nofail 0 0\n"));
    Ok(text)
}

/// The root of the image: the generation's, with the private files over it. The store that is given
/// back has their bytes in memory alone.
pub fn with_private(
    root: &Tree,
    files: &[Private],
    epoch: i64,
    store: &Store,
) -> anyhow::Result<(Tree, Store)> {
    let mut layer = Layer::new();
    for file in files {
        let meta = Meta {
            mode: file.mode,
            uid: file.owner.0,
            gid: file.owner.1,
            mtime: Time::seconds(epoch),
            ..Meta::default()
        };
        let object =
            Object { digest: Digest::of(&file.bytes), size: file.bytes.len() as u64, holes: Box::default() };
        layer.insert(file.path.clone(), Inode { meta, kind: Kind::File(object) })?;
    }
    let mut merged = root.clone();
    layer.merge_onto(&mut merged)?;
    Ok((merged, store.with_memory(files.iter().map(|f| f.bytes.clone()).collect())))
}

/// A disk with all sizes and places decided.
pub struct Plan {
    layout: disk::DiskLayout,
    ids: Vec<[u8; 16]>,
    fat_serial: u32,
}

/// Sizes that are not as the node says.
#[derive(Debug, Clone, Copy, Default)]
pub struct Sizes {
    /// Bytes of the medium, all of which the root filesystem is to take that nothing else does.
    pub fill: Option<u64>,
    /// Size of the root filesystem.
    pub root: Option<u64>,
    /// Size of `gt-state`.
    pub state: Option<u64>,
    /// Size of `gt-scratch`.
    pub scratch: Option<u64>,
}

/// Decides sizes and places. `root` is the image's own root, private files included.
pub fn plan(cluster: &str, node: &Node, root: &Tree, sizes: &Sizes) -> anyhow::Result<Plan> {
    let least = plan_with(cluster, node, root, sizes, 0)?;
    // Partitions behind the root move by whole units of alignment, so they stay aligned.
    let spare = sizes.fill.and_then(|size| size.checked_sub(least.layout.size)).unwrap_or(0);
    match spare / disk::ALIGN * disk::ALIGN {
        0 => Ok(least),
        more => plan_with(cluster, node, root, sizes, more),
    }
}

fn plan_with(cluster: &str, node: &Node, root: &Tree, sizes: &Sizes, more: u64) -> anyhow::Result<Plan> {
    let ids = DiskIds::new(cluster, node);
    let root_size = match sizes.root.or(node.size.map(ByteSize::bytes)) {
        Some(size) => size,
        // A quarter of what is used is a fifth of the whole.
        None => ext4::roomy_size_for(root, |used| (used / 4).max(FREE_MIN))?,
    };
    let root_size = root_size / 4096 * 4096 + more;
    let mut specs = vec![("bootfs", Role::Boot, BOOT_SIZE), ("rootfs", Role::Root, root_size)];
    let extra = [(STATE, sizes.state, node.state), (SCRATCH, sizes.scratch, node.scratch)];
    specs.extend(extra.iter().filter_map(|(name, size, stated)| {
        Some((*name, Role::Data, size.or(stated.map(ByteSize::bytes))? / 4096 * 4096))
    }));
    let table = match node.partition_table {
        PartitionTable::Gpt => disk::Table::Gpt { disk_guid: ids.uuid("disk") },
        PartitionTable::Mbr => disk::Table::Mbr { id: ids.serial("disk") },
    };
    let filesystems = specs.iter().map(|(name, ..)| ids.uuid(&format!("{name} filesystem"))).collect();
    let specs = specs
        .into_iter()
        .map(|(name, role, size)| disk::Spec { name: name.into(), role, size, guid: ids.uuid(name) })
        .collect();
    let layout = disk::lay_out(table, specs).map_err(disk::DiskError::from)?;
    Ok(Plan { layout, ids: filesystems, fat_serial: ids.serial("bootfs") })
}

impl Plan {
    /// The partitions as the manifest lists them.
    pub fn partitions(&self) -> Vec<manifest::Partition> {
        let list = self.layout.partitions.iter().enumerate();
        list.map(|(index, p)| manifest::Partition {
            label: p.spec.name.clone(),
            start: p.offset,
            size: p.spec.size,
            partuuid: self.layout.partuuid(index).unwrap_or_default(),
        })
        .collect()
    }

    /// Where everything lies.
    pub fn layout(&self) -> &disk::DiskLayout {
        &self.layout
    }

    /// The id of the filesystem of a partition.
    pub fn filesystem(&self, index: usize) -> Option<&[u8; 16]> {
        self.ids.get(index)
    }

    /// Writes the image and its block map.
    pub fn write(
        &self,
        trees: &Trees,
        epoch: i64,
        output: Output,
        bmap: &Path,
        progress: &Progress,
    ) -> anyhow::Result<Written> {
        let task = progress.task("writing disk image", Unit::Bytes, Some(self.layout.size));
        let contents = self.contents(trees, epoch, None);
        Ok(disk::write(&self.layout, &refs(&contents), output, bmap, &task)?)
    }

    /// Gives the bytes of a disk of `size` bytes to `backend`, in order; all but those of the partition
    /// `keep`, which stays as it is.
    pub fn stream(
        &self,
        trees: &Trees,
        epoch: i64,
        keep: Option<usize>,
        (path, size): (&Path, u64),
        backend: &mut dyn Backend,
        task: &Task,
    ) -> anyhow::Result<()> {
        let contents = self.contents(trees, epoch, keep);
        Ok(disk::stream(&self.layout, &refs(&contents), (path, size), backend, task)?)
    }

    fn contents<'a>(&'a self, trees: &'a Trees, epoch: i64, keep: Option<usize>) -> Vec<Content<'a>> {
        let partitions = 0..self.layout.partitions.len();
        let nothing = |_: &mut dyn ImageSink| Ok(());
        partitions
            .map(|index| match keep == Some(index) {
                true => Box::new(nothing) as Content<'a>,
                false => self.content(index, trees, epoch),
            })
            .collect()
    }

    fn content<'a>(&'a self, index: usize, trees: &'a Trees, epoch: i64) -> Content<'a> {
        let partition = &self.layout.partitions[index];
        let (size, label) = (partition.spec.size, partition.spec.name.clone());
        if partition.spec.role == Role::Boot {
            // Disks have less than 2^32 sectors before their first partition.
            let hidden = u32::try_from(partition.offset / 512).unwrap_or(0);
            let options = fat::Options { size, serial: self.fat_serial, label, hidden_sectors: hidden };
            return Box::new(move |sink: &mut dyn ImageSink| {
                Ok(fat::lay_out(trees.boot, &options)?.write(trees.store, sink)?)
            });
        }
        let tree = match partition.spec.role {
            Role::Root => Some(trees.root),
            _ if label == STATE => Some(trees.state),
            _ => None,
        };
        let uuid = self.ids[index];
        let options = ext4::Options {
            size,
            uuid,
            hash_seed: uuid,
            label,
            time: Time::seconds(epoch),
            reserved_percent: 0,
        };
        Box::new(move |sink: &mut dyn ImageSink| {
            let empty = Tree::new(Meta::root_owned(0o755, Time::seconds(epoch)));
            Ok(ext4::lay_out(tree.unwrap_or(&empty), &options)?.write(trees.store, sink)?)
        })
    }
}

/// What goes on the disk.
pub struct Trees<'a> {
    /// The boot partition.
    pub boot: &'a Tree,
    /// The root filesystem, private files included.
    pub root: &'a Tree,
    /// What a new `gt-state` has.
    pub state: &'a Tree,
    /// Where the bytes are; private ones in memory.
    pub store: &'a Store,
}

type Content<'a> = Box<dyn PartitionContent + 'a>;

fn refs<'a>(contents: &'a [Content<'_>]) -> Vec<&'a dyn PartitionContent> {
    contents.iter().map(|content| &**content as &dyn PartitionContent).collect()
}
