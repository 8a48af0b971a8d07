//! Whether a device may be overwritten.
//! Must not know: how devices are found or written.
//! Spec: design.md section 13: every refusal is status 1 and writes nothing.

use std::path::PathBuf;

use super::device::Device;

/// Why a device is left alone.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    /// A partition of something was named.
    #[error("`{}` is a partition", path.display())]
    Partition {
        /// What was named.
        path: PathBuf,
        /// The disk.
        disk: PathBuf,
    },
    /// It is mounted, or something is made of it.
    #[error("`{}` is in use: {}", path.display(), by.join(", "))]
    Used {
        /// The device.
        path: PathBuf,
        /// By what.
        by: Vec<String>,
    },
    /// It cannot be written.
    #[error("`{}` is write-protected", path.display())]
    ReadOnly {
        /// The device.
        path: PathBuf,
    },
    /// The disk does not fit on it.
    #[error("`{}` has {size} bytes, and {wanted} are needed", path.display())]
    Small {
        /// The device.
        path: PathBuf,
        /// What it has.
        size: u64,
        /// What is needed.
        wanted: u64,
    },
    /// It looks like a disk that is built in.
    #[error("`{}` does not look like a card: it is neither in a card slot nor removable nor on USB", path.display())]
    NoCard {
        /// The device.
        path: PathBuf,
    },
}

impl Refusal {
    /// What the user can do.
    pub fn hint(&self) -> String {
        match self {
            Refusal::Partition { disk, .. } => format!("name the whole disk: `--device {}`", disk.display()),
            Refusal::Used { path, .. } => {
                format!("if it is the right one, unmount it: `umount {}?*`", path.display())
            }
            Refusal::ReadOnly { .. } => "move the switch at the card's side".into(),
            Refusal::Small { .. } => {
                "take a larger card, or give the node a smaller `size` in cluster.toml".into()
            }
            Refusal::NoCard { .. } => {
                "run `gt-image flash` to see the cards; add `--yes` if it is meant".into()
            }
        }
    }
}

/// Refuses what must not be overwritten. `yes` is the user's word that this very device is meant; it does not
/// help against what is in use or too small.
///
/// # Errors
/// The first reason.
pub fn check(device: &Device, wanted: u64, yes: bool) -> Result<(), Refusal> {
    let path = device.path.clone();
    if !device.used.is_empty() {
        return Err(Refusal::Used { path, by: device.used.clone() });
    }
    if device.read_only {
        return Err(Refusal::ReadOnly { path });
    }
    if device.size < wanted {
        return Err(Refusal::Small { path, size: device.size, wanted });
    }
    if !device.card && !yes {
        return Err(Refusal::NoCard { path });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_of_the_user_helps_against_looks_alone() {
        let card = Device {
            path: "/dev/sdx".into(),
            size: 100,
            model: String::new(),
            id: None,
            card: true,
            read_only: false,
            used: Vec::new(),
            content: Vec::new(),
        };
        assert_eq!(check(&card, 100, false), Ok(()));
        let disk = Device { card: false, ..card.clone() };
        assert!(matches!(check(&disk, 100, false), Err(Refusal::NoCard { .. })));
        assert_eq!(check(&disk, 100, true), Ok(()));
        let mounted = Device { used: vec!["x".into()], ..card.clone() };
        let locked = Device { read_only: true, ..card.clone() };
        for yes in [false, true] {
            assert!(matches!(check(&mounted, 100, yes), Err(Refusal::Used { .. })));
            assert!(matches!(check(&locked, 100, yes), Err(Refusal::ReadOnly { .. })));
            assert!(matches!(check(&card, 101, yes), Err(Refusal::Small { .. })));
        }
    }
}
