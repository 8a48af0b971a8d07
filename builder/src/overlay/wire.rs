//! `overlay.toml` as it is written: names and types, not yet checked. The texts here are what
//! editors show, by way of `docs/schema/overlay.schema.json`.
//! Must not know: what makes an overlay right; that is in `read`.
//! Spec: docs/overlay-format.md.

use std::borrow::Cow;
use std::collections::BTreeMap;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer};

use super::FileKind;
use crate::diagnostic::At;

/// One overlay: what it adds to a node.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default)]
#[schemars(title = "overlay.toml", deny_unknown_fields)]
pub(crate) struct File {
    /// What it gives, in one sentence.
    pub description: Option<At<String>>,
    /// Overlays laid below this one.
    pub includes: Vec<At<String>>,
    /// Names that no other overlay of a node may provide.
    pub provides: Vec<At<String>>,
    /// Overlays or provided names that may not be on the same node.
    pub conflicts: Vec<At<String>>,
    /// Packages from the base's archive.
    pub packages: Vec<At<String>>,
    /// Kernel modules loaded at boot.
    pub modules: Vec<At<String>>,
    /// Lines for `config.txt` on the boot partition.
    pub config_txt: Vec<At<String>>,
    /// Words for the kernel command line.
    pub cmdline: Vec<At<String>>,
    /// Kernel parameters.
    pub sysctl: BTreeMap<At<String>, At<Scalar>>,
    pub units: Units,
    /// Ports that something of it listens on and what for, such as `9100/tcp measurements for Prometheus`, or
    /// `8300-8302/tcp …`. For people: nothing opens or closes a port.
    pub listens: Vec<At<String>>,
    /// Only for what differs from a plain copy.
    pub files: Vec<FileEntry>,
    /// Paths of lower layers that go.
    pub remove: Vec<At<String>>,
    /// Groups with fixed numbers.
    pub groups: Vec<Group>,
    /// Users with fixed numbers; also pins users that packages make.
    pub users: Vec<User>,
    /// Files from elsewhere, most of them pinned by their digest.
    pub artifacts: Vec<Artifact>,
    /// Secrets needed at run time, by name and place, never content.
    pub secrets: Vec<Secret>,
    /// State that outlives a reset, kept on `gt-state`.
    pub persist: Vec<Place>,
    /// Directories wiped at each boot, on a real filesystem: `gt-scratch`.
    pub scratch: Vec<Place>,
    /// Commands that must succeed on the booted node.
    pub checks: Vec<Check>,
}

/// A text or a whole number, kept as text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Scalar(pub String);

impl<'de> Deserialize<'de> for Scalar {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Scalar, D::Error> {
        // The schema lets strings and integers through and nothing else.
        Ok(Scalar(match toml::Value::deserialize(d)? {
            toml::Value::String(text) => text,
            other => other.to_string(),
        }))
    }
}

impl JsonSchema for Scalar {
    fn inline_schema() -> bool {
        true
    }
    fn schema_name() -> Cow<'static, str> {
        "Scalar".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": ["string", "integer"] })
    }
}

/// systemd units and what becomes of them.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default)]
#[schemars(deny_unknown_fields)]
pub(crate) struct Units {
    /// Started at boot, as `systemctl enable` makes it.
    pub enable: Vec<At<String>>,
    /// Not started at boot.
    pub disable: Vec<At<String>>,
    /// Never started.
    pub mask: Vec<At<String>>,
}

/// How one path differs from a plain copy.
#[derive(Debug, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub(crate) struct FileEntry {
    /// The path on the node.
    #[schemars(required)]
    pub path: Option<At<String>>,
    /// `file` when left out.
    pub kind: Option<FileKind>,
    /// The file in `files/` is a template.
    #[serde(default)]
    pub template: bool,
    /// Four octal digits.
    pub mode: Option<At<String>>,
    /// A user's name or number; `root` when left out.
    pub owner: Option<At<Scalar>>,
    /// A group's name or number; `root` when left out.
    pub group: Option<At<Scalar>>,
    /// Where a symbolic link leads.
    pub target: Option<At<String>>,
    /// Extended attributes: text, or `base64:` and bytes.
    #[serde(default)]
    pub xattrs: BTreeMap<At<String>, At<String>>,
}

/// A group with its number.
#[derive(Debug, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub(crate) struct Group {
    #[schemars(required)]
    pub name: Option<At<String>>,
    #[schemars(required)]
    pub gid: Option<At<u32>>,
}

/// A user with its number.
#[derive(Debug, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub(crate) struct User {
    #[schemars(required)]
    pub name: Option<At<String>>,
    #[schemars(required)]
    pub uid: Option<At<u32>>,
    /// A group of the same name and number when left out.
    pub group: Option<At<String>>,
    /// Further groups.
    #[serde(default)]
    pub groups: Vec<At<String>>,
    /// `/nonexistent` when left out.
    pub home: Option<At<String>>,
    /// `/usr/sbin/nologin` when left out.
    pub shell: Option<At<String>>,
    /// What the user is for.
    pub comment: Option<At<String>>,
}

/// A file from elsewhere: pinned by its digest, as a URL or a Python wheel, or made on this machine.
#[derive(Debug, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub(crate) struct Artifact {
    #[schemars(required)]
    pub name: Option<At<String>>,
    /// Where it is.
    pub url: Option<At<String>>,
    /// A wheel that pip fetches from the index this machine uses.
    pub wheel: Option<Wheel>,
    /// A file that is made on this machine, in this overlay's folder and not kept in git. Like the files of
    /// `files/` it is what it is when the overlay is read.
    pub path: Option<At<String>>,
    /// The command that makes the file of `path`, for people who have it not.
    pub make: Option<At<String>>,
    /// For people, in lists; when left out it is looked for in the address.
    pub version: Option<At<String>>,
    /// SHA-256, 64 hex digits: with `url` and `wheel`.
    pub sha256: Option<At<String>>,
    /// Bytes: with `url` and `wheel`.
    pub size: Option<At<u64>>,
    /// SPDX expression, such as `Apache-2.0`.
    #[schemars(required)]
    pub licence: Option<At<String>>,
    /// What goes where.
    #[serde(default)]
    pub extract: Vec<Extract>,
}

/// A Python wheel by package, version and platform.
#[derive(Debug, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub(crate) struct Wheel {
    #[schemars(required)]
    pub package: Option<At<String>>,
    #[schemars(required)]
    pub version: Option<At<String>>,
    /// Such as `manylinux2014_aarch64`.
    #[schemars(required)]
    pub platform: Option<At<String>>,
}

/// One file or folder out of an artifact.
#[derive(Debug, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub(crate) struct Extract {
    /// The path in the archive; with `/` at its end all of that folder, and `/` alone is everything. The whole
    /// file when left out.
    pub from: Option<At<String>>,
    /// The path on the node.
    #[schemars(required)]
    pub to: Option<At<String>>,
    /// Four octal digits, for files; when left out the archive's own, or 0644 for the whole file.
    pub mode: Option<At<String>>,
}

/// A secret by name and place.
#[derive(Debug, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub(crate) struct Secret {
    #[schemars(required)]
    pub name: Option<At<String>>,
    #[schemars(required)]
    pub path: Option<At<String>>,
    /// A user's name or number; `root` when left out.
    pub owner: Option<At<Scalar>>,
    /// A group's name or number; `root` when left out.
    pub group: Option<At<Scalar>>,
    /// Four octal digits; `0400` when left out.
    pub mode: Option<At<String>>,
    /// Bytes to derive from the cluster key, the same for all nodes, when the owner has no file of
    /// this name in `secrets/`.
    #[schemars(range(min = 1, max = 8160))]
    pub derive: Option<u16>,
    /// The overlay does its work without it as well: a build that has none says nothing.
    #[serde(default)]
    pub optional: bool,
}

/// A directory that is not part of the tree.
#[derive(Debug, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub(crate) struct Place {
    #[schemars(required)]
    pub path: Option<At<String>>,
    /// A user's name or number; `root` when left out.
    pub owner: Option<At<Scalar>>,
    /// A group's name or number; `root` when left out.
    pub group: Option<At<Scalar>>,
    /// Four octal digits; `0755` when left out.
    pub mode: Option<At<String>>,
}

/// A command that must succeed on the booted node.
#[derive(Debug, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub(crate) struct Check {
    /// What is true when it succeeds, in one line.
    #[schemars(required)]
    pub name: Option<At<String>>,
    /// Run by `sh -c` as root.
    #[schemars(required)]
    pub command: Option<At<String>>,
}
