//! What a build would do, layer by layer, without doing it: cluster, roles and lock in, a plan out.
//! Must not know: the store, the network, how layers are made.
//! Spec: design.md sections 3 and 11.

use schemars::JsonSchema;
use serde::Serialize;

use crate::base::lock::{BASE_SET, Lock};
use crate::base::{Base, Source};
use crate::cluster::{Node, PartitionTable};
use crate::overlay::{Description, Overlay};

/// The plan of one node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Plan {
    /// The node.
    pub node: String,
    /// Its address.
    pub ip: String,
    /// Its board.
    pub model: String,
    /// The roles that `cluster.toml` gives it.
    pub roles: Vec<String>,
    /// How its root is mounted when it is netbooted, or `disk`, `disk-ephemeral`.
    pub root: String,
    /// How it uses its own disk when it boots from that.
    pub disk: String,
    /// `gpt` or `mbr`.
    pub partition_table: String,
    /// From the lowest to the highest.
    pub layers: Vec<Layer>,
    /// What will not work, or needs attention.
    pub warnings: Vec<String>,
}

/// One layer of a node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Layer {
    /// `base`, `packages`, `overlay` or `identity`.
    pub kind: String,
    /// The base's, the package set's or the overlay's name.
    pub name: String,
    /// What it does.
    pub detail: String,
}

/// What is known of a base without building it.
#[derive(Debug, Clone, Copy)]
pub struct Known<'a> {
    /// The base.
    pub base: &'a Base,
    /// Its lock, when there is one.
    pub lock: Option<&'a Lock>,
    /// Whether it has a kernel; `None` when nobody looked.
    pub kernel: Option<bool>,
}

/// Plans one node.
pub fn plan(description: &Description, node: &Node, known: Known) -> Plan {
    let overlays = description.overlays.expand_node(node);
    let mut layers = vec![base_layer(known)];
    let set = node.package_set();
    let wants = overlays.iter().map(|o| o.packages.len()).sum::<usize>();
    if wants > 0 {
        let detail = match known.lock.and_then(|lock| lock.set(&set)) {
            Some(locked) => format!("{} packages beyond the base, locked", locked.packages.len()),
            None => format!("{wants} packages are asked for, not locked yet"),
        };
        layers.push(Layer { kind: "packages".into(), name: set, detail });
    }
    layers.extend(overlays.iter().map(|o| overlay_layer(o)));
    let secrets: Vec<String> = overlays.iter().flat_map(|o| &o.secrets).map(|s| s.name.to_string()).collect();
    let mut detail = "host name, machine-id, SSH host key, disk ids".to_owned();
    if !secrets.is_empty() {
        detail.push_str(&format!("; secrets on its own disk: {}", secrets.join(", ")));
    }
    layers.push(Layer { kind: "identity".into(), name: node.name.to_string(), detail });
    Plan {
        node: node.name.to_string(),
        ip: node.ip.to_string(),
        model: node.model.as_str().into(),
        roles: node.roles.iter().map(|role| role.value.to_string()).collect(),
        root: node.root.as_str().into(),
        disk: node.disk_mode().as_str().into(),
        partition_table: table(node).into(),
        layers,
        warnings: warnings(node, known),
    }
}

fn table(node: &Node) -> &'static str {
    match node.partition_table {
        PartitionTable::Gpt => "gpt",
        PartitionTable::Mbr => "mbr",
    }
}

fn base_layer(known: Known) -> Layer {
    let detail = match (&known.base.source, known.lock) {
        (Source::Apt(_), Some(lock)) => {
            let packages = lock.packages_of(BASE_SET);
            let bytes: u64 = packages.iter().map(|p| p.size).sum();
            let size = indicatif::HumanBytes(bytes);
            format!(
                "{} packages, {size} to fetch, of {}",
                packages.len(),
                crate::sbom::utc(known_epoch(lock))
            )
        }
        (Source::Apt(apt), None) => format!("{} packages are asked for, not locked yet", apt.packages.len()),
        (Source::Tar(pinned), _) => format!("a root filesystem tarball, {}", pinned.sha256),
        (Source::DiskImage(image), _) => format!("a disk image, {}", image.pinned.sha256),
    };
    Layer { kind: "base".into(), name: known.base.name.clone(), detail }
}

fn known_epoch(lock: &Lock) -> i64 {
    // A date beyond what fits is none that an archive has.
    i64::try_from(lock.epoch).unwrap_or(0)
}

fn overlay_layer(o: &Overlay) -> Layer {
    let counts = [
        (o.packages.len(), "package", ""),
        (o.sources.len(), "file", ""),
        (o.users.len(), "user", ""),
        (o.enable.len(), "unit", " enabled"),
        (o.mask.len(), "unit", " masked"),
        (o.artifacts.len(), "artifact", ""),
        (o.persist.len(), "kept path", ""),
        (o.scratch.len(), "scratch path", ""),
        (o.checks.len(), "check", ""),
    ];
    let count = |(n, noun, more): &(usize, &str, &str)| match n {
        0 => None,
        1 => Some(format!("1 {noun}{more}")),
        n => Some(format!("{n} {noun}s{more}")),
    };
    let counts: Vec<String> = counts.iter().filter_map(count).collect();
    Layer { kind: "overlay".into(), name: o.name.to_string(), detail: counts.join(", ") }
}

fn warnings(node: &Node, known: Known) -> Vec<String> {
    let mut warnings = Vec::new();
    let locked = |lock: &Lock| lock.packages_of(BASE_SET).iter().any(|p| p.name.starts_with("linux-image-"));
    // What an image has is not known before it is imported.
    let known_kernel = known.kernel.or(known.base.apt().and(known.lock).map(locked));
    if known_kernel == Some(false) {
        warnings.push("base has no kernel: this node cannot boot".into());
    }
    if node.partition_table == PartitionTable::Gpt {
        warnings.push(
            "its disk has a GPT, which needs a bootloader of 2020-09-14 or newer; \
             `partition_table = \"mbr\"` is for older ones"
                .into(),
        );
    }
    warnings
}
