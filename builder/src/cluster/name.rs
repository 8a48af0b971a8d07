//! Names as newtypes, each with its own grammar, so that no name stands where another belongs.
//! Must not know: which of them exist.
//! Spec: RFC 1123 section 2.1 (host names), systemd.unit(5), useradd(8), Debian Policy 5.6.1.

use std::fmt;
use std::str::FromStr;

/// A text that is not the name it should be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{found}` is no {noun}: {wanted}")]
pub struct NameError {
    pub(crate) found: String,
    pub(crate) noun: &'static str,
    pub(crate) wanted: &'static str,
}

impl NameError {
    /// An error that quotes at most the first 80 characters of what was found.
    pub(crate) fn new(found: &str, noun: &'static str, wanted: &'static str) -> NameError {
        NameError { found: found.chars().take(80).collect(), noun, wanted }
    }
}

/// Declares a name: its noun in messages, the grammar as a predicate and in words.
macro_rules! name {
    ($(#[$doc:meta])* $name:ident, $noun:literal, $fits:expr, $wanted:literal) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Box<str>);

        impl $name {
            /// The text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = NameError;
            fn from_str(text: &str) -> Result<$name, NameError> {
                let fits: fn(&str) -> bool = $fits;
                if fits(text) { Ok($name(text.into())) } else { Err(NameError::new(text, $noun, $wanted)) }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&*self.0, f)
            }
        }
    };
}

name! {
    /// A node's name, which is its host name too.
    NodeName, "node name", is_label,
    "wanted are 1 to 63 of `a-z`, `0-9` and `-`, with no `-` at either end"
}
name! {
    /// The name of the cluster.
    ClusterName, "cluster name", is_label,
    "wanted are 1 to 63 of `a-z`, `0-9` and `-`, with no `-` at either end"
}
name! {
    /// The name of an overlay, and so of a role, or a name that overlays provide.
    OverlayName, "overlay name", is_label,
    "wanted are 1 to 63 of `a-z`, `0-9` and `-`, with no `-` at either end"
}
name! {
    /// The name of a base: that of its file `images/<name>.toml`.
    BaseName, "base name", |text| starts_plain(text) && text.len() <= 64 && only(text, "-_."),
    "wanted are 1 to 64 of `a-z`, `0-9`, `-`, `_` and `.`, beginning with a letter or digit"
}
name! {
    /// A DNS domain without a final dot.
    DomainName, "domain", |text| text.len() <= 253 && text.split('.').all(is_label),
    "wanted are labels of `a-z`, `0-9` and `-`, joined by `.`"
}
name! {
    /// A user's login name or a group's name.
    AccountName, "user or group name",
    |text| text.len() <= 32 && text.starts_with(|c: char| c.is_ascii_lowercase() || c == '_') && only(text, "-_"),
    "wanted are 1 to 32 of `a-z`, `0-9`, `-` and `_`, beginning with a letter or `_`"
}
name! {
    /// A systemd unit with its suffix: `ssh.service`, `getty@.service`.
    UnitName, "unit name", is_unit,
    "wanted is a name with a suffix, such as `ssh.service`"
}
name! {
    /// A package of the base's archive.
    PackageName, "package name", |text| text.len() >= 2 && starts_plain(text) && only(text, "+-."),
    "wanted are at least two of `a-z`, `0-9`, `+`, `-` and `.`, beginning with a letter or digit"
}
name! {
    /// A kernel module.
    ModuleName, "kernel module", |text| {
        (1..=55).contains(&text.len()) && text.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '-')
    },
    "wanted are letters, digits, `-` and `_`"
}
name! {
    /// A kernel parameter: `net.ipv4.ip_forward`.
    SysctlKey, "sysctl key", is_sysctl,
    "wanted are parts joined by `.` or `/`, such as `net.ipv4.ip_forward`"
}
name! {
    /// A name for an artifact or a secret.
    ThingName, "name", |text| starts_plain(text) && text.len() <= 64 && only(text, "-_."),
    "wanted are 1 to 64 of `a-z`, `0-9`, `-`, `_` and `.`, beginning with a letter or digit"
}
name! {
    /// A time zone by its name in the IANA database: `America/New_York`.
    TimeZone, "time zone", is_time_zone,
    "wanted is a name of the IANA database, such as `Europe/London` or `UTC`"
}

/// One label of a host name, lower case: RFC 1123 section 2.1.
fn is_label(text: &str) -> bool {
    (1..=63).contains(&text.len()) && only(text, "-") && !text.starts_with('-') && !text.ends_with('-')
}

fn only(text: &str, others: &str) -> bool {
    text.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || others.contains(c))
}

fn starts_plain(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit())
}

/// systemd.unit(5): at most 255 characters, and these suffixes.
fn is_unit(text: &str) -> bool {
    const SUFFIXES: [&str; 11] = [
        "service",
        "socket",
        "device",
        "mount",
        "automount",
        "swap",
        "target",
        "path",
        "timer",
        "slice",
        "scope",
    ];
    let legal = |c: char| c.is_ascii_alphanumeric() || ":_.\\@-".contains(c);
    text.len() <= 255
        && text.chars().all(legal)
        && text.rsplit_once('.').is_some_and(|(stem, suffix)| {
            !stem.is_empty() && !stem.starts_with(['@', '.']) && SUFFIXES.contains(&suffix)
        })
}

/// sysctl.d(5): a path below /proc/sys; a leading `-` ignores errors, `*` matches.
fn is_sysctl(text: &str) -> bool {
    let text = text.strip_prefix('-').unwrap_or(text);
    let legal = |c: char| c.is_ascii_alphanumeric() || "_-*:@".contains(c);
    let parts: Vec<&str> = text.split(['.', '/']).collect();
    parts.len() >= 2 && parts.iter().all(|part| !part.is_empty() && part.chars().all(legal))
}

/// The theory file of the database: parts of at most 14 letters, digits, `-`, `+` and `_`; newer
/// names are longer, so 32 are taken here.
fn is_time_zone(text: &str) -> bool {
    let legal = |c: char| c.is_ascii_alphanumeric() || "-+_".contains(c);
    text.split('/').count() <= 3
        && text.split('/').all(|part| (1..=32).contains(&part.len()) && part.chars().all(legal))
        && text.starts_with(|c: char| c.is_ascii_uppercase())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn check<T: FromStr<Err = NameError> + fmt::Display>(good: &[&str], bad: &[&str]) {
        for text in good {
            assert_eq!(text.parse::<T>().unwrap().to_string(), *text);
        }
        for text in bad {
            assert!(text.parse::<T>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn every_name_has_its_grammar() {
        let long = "x".repeat(64);
        check::<NodeName>(&["fenn", "a", "node-1", "1"], &["", "Fenn", "-a", "a-", "a.b", "a_b", "é", &long]);
        check::<DomainName>(&["lan", "nodes.goldentooth.net"], &["", ".", "a.", "a..b", "A.b", "a b"]);
        check::<BaseName>(&["debian-trixie", "x.1_2"], &["", "../x", "a/b", ".x", "A"]);
        check::<AccountName>(&["nathan", "_apt", "www-data"], &["", "1a", "Nathan", "a.b", "a:b", "root\n"]);
        check::<UnitName>(
            &["ssh.service", "getty@tty1.service", "getty@.service", "dev-sda.swap", "var-lib\\x2da.mount"],
            &["ssh", "ssh.servic", ".service", "@.service", "a/b.service", "a b.service"],
        );
        check::<PackageName>(
            &["openssh-server", "g++", "libc6", "7zip"],
            &["", "a", "+a", "A1", "a_b", "a:b"],
        );
        check::<ModuleName>(&["br_netfilter", "overlay", "snd-bcm2835"], &["", "a b", "a/b", "a\n"]);
        check::<SysctlKey>(
            &["net.ipv4.ip_forward", "net/ipv4/conf/eth0.100/x", "-net.core.x", "net.ipv4.conf.*.rp_filter"],
            &["", "kernel", "net..x", "a = b.c", "a.b\n", ".a", "a."],
        );
        check::<TimeZone>(
            &["UTC", "America/New_York", "America/Argentina/Buenos_Aires", "Etc/GMT+5"],
            &["", "america/new_york", "/UTC", "America/", "../etc/passwd", "A/B/C/D", "New York"],
        );
    }

    #[test]
    fn messages_say_what_is_wanted() {
        let error = "Fenn".parse::<NodeName>().unwrap_err();
        assert_eq!(
            error.to_string(),
            "`Fenn` is no node name: wanted are 1 to 63 of `a-z`, `0-9` and `-`, with no `-` at either end"
        );
    }

    proptest! {
        /// What is accepted can stand as a file's name, and on a line of a list.
        #[test]
        fn accepted_names_are_safe(text in "\\PC{0,40}") {
            let names = [
                text.parse::<NodeName>().map(|n| n.to_string()),
                text.parse::<BaseName>().map(|n| n.to_string()),
                text.parse::<AccountName>().map(|n| n.to_string()),
                text.parse::<UnitName>().map(|n| n.to_string()),
                text.parse::<ThingName>().map(|n| n.to_string()),
            ];
            for name in names.into_iter().flatten() {
                prop_assert!(!name.is_empty() && !name.contains(['/', ' ', '\n']));
                prop_assert!(name != "." && name != "..");
            }
        }
    }
}
