//! The small values of overlay.toml: paths, modes, owners, attributes.
//! Must not know: which keys they belong to.
//! Spec: docs/overlay-format.md; inode(7), xattr(7).

use std::fmt;
use std::str::FromStr;

use schemars::JsonSchema;
use serde::Deserialize;

use crate::cluster::{AccountName, NameError};
use crate::tree::TreePath;

/// A path on the node, written in one way only: absolute, without `.`, `..`, or doubled or final
/// slashes, and without line breaks, for it stands in lists of lines.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct TargetPath(TreePath);

impl TargetPath {
    /// The path in a tree.
    pub fn tree(&self) -> &TreePath {
        &self.0
    }
}

impl FromStr for TargetPath {
    type Err = NameError;

    fn from_str(text: &str) -> Result<TargetPath, NameError> {
        let wanted = "wanted is an absolute path without `.`, `..`, `//`, a final `/` or line breaks";
        let path = TreePath::new(text).ok().filter(|path| {
            text.as_bytes().strip_prefix(b"/") == Some(path.as_bytes())
                && !path.is_root()
                && !text.contains(char::is_control)
        });
        path.map(TargetPath).ok_or_else(|| NameError::new(text, "path on a node", wanted))
    }
}

impl fmt::Display for TargetPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "/{}", String::from_utf8_lossy(self.0.as_bytes()))
    }
}

/// The twelve permission bits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Mode(u16);

impl Mode {
    /// The bits.
    pub fn bits(self) -> u16 {
        self.0
    }
}

/// Three or four octal digits.
impl FromStr for Mode {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Mode, NameError> {
        let octal = (3..=4).contains(&text.len()) && text.bytes().all(|b| (b'0'..=b'7').contains(&b));
        let bits = u16::from_str_radix(text, 8).ok().filter(|_| octal);
        bits.map(Mode).ok_or_else(|| {
            NameError::new(text, "mode", "wanted are three or four octal digits, such as `0640`")
        })
    }
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:04o}", self.0)
    }
}

/// Ports and what they are for: `9100/tcp measurements`, `8300-8302/udp gossip`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Listen {
    /// First and last port; the same for one.
    pub from: u16,
    /// Last port.
    pub to: u16,
    /// `tcp` or `udp`.
    pub protocol: &'static str,
    /// What for.
    pub what: String,
}

impl Listen {
    /// The ports without what they are for.
    pub fn ports(&self) -> String {
        let Listen { from, to, protocol, .. } = self;
        if from == to { format!("{from}/{protocol}") } else { format!("{from}-{to}/{protocol}") }
    }
}

impl FromStr for Listen {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Listen, NameError> {
        let read = || {
            let (ports, what) = text.split_once(' ')?;
            let (ports, protocol) = ports.split_once('/')?;
            let protocol = ["tcp", "udp"].into_iter().find(|known| *known == protocol)?;
            let (from, to) = ports.split_once('-').unwrap_or((ports, ports));
            let port = |text: &str| text.parse::<u16>().ok().filter(|port| *port != 0);
            let (from, to) = (port(from)?, port(to)?);
            let what = what.trim();
            let fits = from <= to && !what.is_empty() && !what.contains(char::is_control);
            fits.then(|| Listen { from, to, protocol, what: what.to_owned() })
        };
        let wanted = "wanted is `9100/tcp what for`, or `8300-8302/udp what for`";
        read().ok_or_else(|| NameError::new(text, "port", wanted))
    }
}

impl fmt::Display for Listen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.ports(), self.what)
    }
}

/// A user or a group, by name or by number.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Owner {
    /// Looked up in the node's own `/etc/passwd` or `/etc/group`.
    Name(AccountName),
    /// Taken as it is.
    Number(u32),
}

impl Owner {
    /// The superuser or its group.
    pub fn root() -> Owner {
        Owner::Number(0)
    }
}

impl FromStr for Owner {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Owner, NameError> {
        let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
        match text.parse() {
            Ok(number) if digits => Ok(Owner::Number(number)),
            _ => text.parse().map(Owner::Name),
        }
    }
}

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Owner::Name(name) => name.fmt(f),
            Owner::Number(number) => number.fmt(f),
        }
    }
}

/// The value of an extended attribute: text, or `base64:` and bytes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct XattrValue(pub Vec<u8>);

impl FromStr for XattrValue {
    type Err = NameError;

    fn from_str(text: &str) -> Result<XattrValue, NameError> {
        use base64::Engine as _;
        let engine = base64::engine::general_purpose::STANDARD_PAD_INDIFFERENT;
        match text.strip_prefix("base64:") {
            None => Ok(XattrValue(text.into())),
            Some(code) => engine.decode(code).map(XattrValue).map_err(|_| {
                NameError::new(text, "value of an attribute", "what follows `base64:` is no base64")
            }),
        }
    }
}

/// An attribute's name with its namespace, of at most 255 bytes: xattr(7).
pub(super) fn is_xattr_name(name: &str) -> bool {
    let namespaces = ["user.", "trusted.", "security.", "system."];
    name.len() <= 255
        && !name.contains(char::is_control)
        && namespaces.iter().any(|n| name.strip_prefix(n).is_some_and(|rest| !rest.is_empty()))
}

/// What stands at a path.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum FileKind {
    /// A file, or whatever is in `files/`.
    #[default]
    File,
    /// An empty directory.
    Directory,
    /// A symbolic link to `target`.
    Symlink,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_written_in_one_way() {
        for (given, fits) in [
            ("/etc/hosts", true),
            ("/a b", true),
            ("etc/hosts", false),
            ("/etc/../x", false),
            ("/etc//x", false),
            ("/etc/", false),
            ("/./x", false),
            ("/", false),
            ("", false),
            ("/a\nb", false),
        ] {
            assert_eq!(given.parse::<TargetPath>().map(|p| p.to_string()).ok(), fits.then(|| given.into()));
        }
    }

    #[test]
    fn modes_owners_and_attributes() {
        for (given, want) in [
            ("0640", Some(0o640)),
            ("755", Some(0o755)),
            ("7777", Some(0o7777)),
            ("0o64", None),
            ("8", None),
            ("00644", None),
        ] {
            assert_eq!(given.parse::<Mode>().ok().map(Mode::bits), want, "{given}");
        }
        assert_eq!("901".parse::<Owner>(), Ok(Owner::Number(901)));
        assert!(matches!("www-data".parse::<Owner>(), Ok(Owner::Name(_))));
        assert!("99999999999".parse::<Owner>().is_err() && "".parse::<Owner>().is_err());
        assert_eq!("base64:AAAAAg==".parse::<XattrValue>().unwrap().0, [0, 0, 0, 2]);
        assert_eq!("text".parse::<XattrValue>().unwrap().0, b"text");
        assert!("base64:*".parse::<XattrValue>().is_err());
        assert!(is_xattr_name("user.note") && !is_xattr_name("note") && !is_xattr_name("user."));
    }
}
