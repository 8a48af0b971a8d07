//! The record of a generation: inputs, versions, digests. Nothing in it differs between two builds
//! of the same inputs, so its digest names the generation.
//! Must not know: how a build goes, where files are.
//! Spec: design.md sections 2 and 13; docs/schema/manifest.schema.json is generated from the types.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Raised when a reader of the old form would misread the new.
pub const FORMAT: u32 = 1;

/// What one build of one node was made of and gave.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Manifest {
    /// Version of this form.
    pub format: u32,
    /// Program and version.
    pub tool: String,
    /// The node's name.
    pub node: String,
    /// Its cluster.
    pub cluster: String,
    /// Raspberry Pi model: `pi3`, `pi4`, `pi5`.
    pub model: String,
    /// The roles in `cluster.toml`.
    pub roles: Vec<String>,
    /// How the node's root is mounted when it is netbooted, or `disk`, `disk-ephemeral`.
    pub root_mode: String,
    /// What the node starts from.
    pub base: Base,
    /// Seconds since 1970: the newest time of any file that we made.
    pub epoch: i64,
    /// Digest of the root tree (see `gt-image export --dump`).
    pub root: String,
    /// Digest of the boot tree.
    pub boot: String,
    /// Overlays in the order in which they were laid.
    pub overlays: Vec<Overlay>,
    /// Packages from the base's archive, by name.
    pub packages: Vec<Package>,
    /// Other pinned files, by name.
    pub artifacts: Vec<Artifact>,
    /// Overlays that were left out with what could not be had; empty for a whole generation.
    pub incomplete: Vec<Missing>,
    /// What a flashed image has beside the trees: owner-only files, by path. Never their content.
    pub secrets: Vec<Secret>,
    /// Partitions of the disk image, in order.
    pub partitions: Vec<Partition>,
}

/// The base.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Base {
    /// Name: `images/<name>.toml`.
    pub name: String,
    /// `apt`, `tar` or `disk-image`.
    pub kind: String,
    /// Digest of the tree before overlays and identity.
    pub tree: String,
}

/// One overlay.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Overlay {
    /// Name: `overlays/<name>/`.
    pub name: String,
    /// Digest of its `overlay.toml` and files.
    pub digest: String,
}

/// One package.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Package {
    /// Name.
    pub name: String,
    /// Version.
    pub version: String,
    /// `arm64` or `all`.
    pub architecture: String,
    /// Of the .deb file.
    pub sha256: String,
}

/// One artifact.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Artifact {
    /// Name.
    pub name: String,
    /// Of the file.
    pub sha256: String,
    /// SPDX expression.
    pub licence: String,
}

/// Something that could not be had with `--keep-going`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Missing {
    /// The overlay that was left out.
    pub overlay: String,
    /// The artifact.
    pub artifact: String,
    /// Where it would come from.
    pub source: String,
    /// What it must be; not there for a file that is made here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sha256: Option<String>,
}

/// One owner-only file of a flashed image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Secret {
    /// Path on the node.
    pub path: String,
    /// `derived` from the cluster key, or `file` beside `cluster.toml`.
    pub source: String,
}

/// One partition of the disk image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Partition {
    /// `bootfs`, `rootfs`, `gt-state`, `gt-scratch`.
    pub label: String,
    /// Bytes from the start of the disk.
    pub start: u64,
    /// Bytes.
    pub size: u64,
    /// As in `root=PARTUUID=…`.
    pub partuuid: String,
}

impl Manifest {
    /// The file's bytes: indented JSON with a line end.
    pub fn to_bytes(&self) -> Vec<u8> {
        // Strings, numbers and lists only: serde_json has nothing to refuse.
        let mut bytes = serde_json::to_vec_pretty(self).unwrap_or_default();
        bytes.push(b'\n');
        bytes
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn manifest() -> Manifest {
        let package = |name: &str| Package {
            name: name.into(),
            version: "1:2.0-1+b1".into(),
            architecture: "arm64".into(),
            sha256: "00".repeat(32),
        };
        Manifest {
            format: FORMAT,
            tool: "gt-image 0.1.0".into(),
            node: "fenn".into(),
            cluster: "goldentooth".into(),
            model: "pi4".into(),
            roles: vec!["worker".into()],
            root_mode: "nfs".into(),
            base: Base { name: "debian-trixie".into(), kind: "apt".into(), tree: "sha256:00".into() },
            epoch: 1_700_000_000,
            root: "sha256:01".into(),
            boot: "sha256:02".into(),
            overlays: vec![Overlay { name: "common".into(), digest: "sha256:04".into() }],
            packages: vec![package("libc6"), package("libstdc++6")],
            artifacts: vec![Artifact {
                name: "consul".into(),
                sha256: "11".repeat(32),
                licence: "BUSL-1.1".into(),
            }],
            incomplete: vec![],
            secrets: vec![],
            partitions: vec![],
        }
    }

    #[test]
    fn a_manifest_is_read_back() {
        let m = manifest();
        let bytes = m.to_bytes();
        assert!(bytes.ends_with(b"}\n"));
        assert_eq!(serde_json::from_slice::<Manifest>(&bytes).unwrap(), m);
    }
}
