//! Whose file is meant: the address that asks and the name it asks for, to a node and a path.
//! Must not know: whether there is such a file; packets; sockets.
//! Spec: facts of the firmware: serial prefix, MAC prefix, plain names (Pi 3 ROM, dropped prefix).
//!
//! | asked by fenn (serial 5b154510) | means |
//! |---|---|
//! | `5b154510/config.txt`, `//5B154510//config.txt` | fenn's `config.txt` |
//! | `dc-a6-32-01-36-c2/config.txt` | the same |
//! | `config.txt` | the same: Pi 3 ROMs, and a Pi that has dropped its prefix |
//! | another board's serial or MAC in place of its own | nothing |
//!
//! The address decides who asks, the prefix only must not gainsay it: anyone may claim a serial.

use std::net::Ipv4Addr;

use crate::site::{Mac, Node, Serial, Site};

/// Longest name that is looked at, in bytes. RFC 2347 ends a whole request at 512.
const MAX_NAME: usize = 512;

/// What is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted<'a> {
    /// The node that asks, and the only one whose files it gets.
    pub node: &'a Node,
    /// Components joined by one `/`: not empty, no `.` or `..`, no NUL, no prefix.
    pub path: Vec<u8>,
}

/// Finds what `from` means by `name`.
///
/// # Errors
/// Why it gets nothing, for the log; the asker is told "not found" in every case.
pub fn resolve<'a>(site: &'a Site, from: Ipv4Addr, name: &[u8]) -> Result<Wanted<'a>, &'static str> {
    let node = site.by_address(from).ok_or("no node has this address")?;
    if name.len() > MAX_NAME {
        return Err("the name is too long");
    }
    if name.contains(&0) {
        return Err("the name holds a NUL");
    }
    if name.ends_with(b"/") {
        return Err("the name is a directory's");
    }
    let mut parts: Vec<&[u8]> = name.split(|&b| b == b'/').filter(|part| !part.is_empty()).collect();
    if let [first, _, ..] = parts[..] {
        match Prefix::parse(first) {
            Some(Prefix::Serial(serial)) if serial != node.serial => return Err("another board's serial"),
            Some(Prefix::Mac(mac)) if mac != node.mac => return Err("another board's MAC address"),
            Some(_) => drop(parts.remove(0)),
            None => {}
        }
    }
    // A backslash is a letter like others: the boot tree is looked up by components, and only we
    // could make a path of it.
    if parts.iter().any(|part| matches!(*part, b"." | b"..")) {
        return Err("the name leaves its directory");
    }
    if parts.is_empty() {
        return Err("the name is empty");
    }
    Ok(Wanted { node, path: parts.join(&b'/') })
}

/// The first component of a name, if it is one that firmware makes of its board.
enum Prefix {
    Serial(Serial),
    Mac(Mac),
}

impl Prefix {
    fn parse(component: &[u8]) -> Option<Prefix> {
        if component.len() == 8 {
            return hex(component).map(|serial| Prefix::Serial(Serial(serial)));
        }
        if component.len() != 17 {
            return None;
        }
        let mut mac = [0; 6];
        let mut groups = component.split(|&b| b == b'-');
        for byte in &mut mac {
            let group = groups.next().filter(|group| group.len() == 2)?;
            *byte = u8::try_from(hex(group)?).ok()?;
        }
        Some(Prefix::Mac(Mac(mac)))
    }
}

/// At most eight hex digits as a number.
fn hex(digits: &[u8]) -> Option<u32> {
    digits.iter().try_fold(0, |value, &digit| Some((value << 4) | char::from(digit).to_digit(16)?))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn site() -> Site {
        let node = |name: &str, last: u8, serial| Node {
            name: name.into(),
            address: Ipv4Addr::new(10, 4, 0, last),
            mac: Mac([0xdc, 0xa6, 0x32, 0x01, 0x36, last]),
            serial: Serial(serial),
        };
        Site {
            server: Ipv4Addr::new(10, 4, 0, 10),
            netmask: Ipv4Addr::new(255, 255, 240, 0),
            gateway: None,
            dns: vec![],
            domain: "example".into(),
            nodes: vec![node("fenn", 0xc2, 0x5b15_4510), node("jast", 0xc3, 0x0000_00ab)],
        }
    }

    const FENN: u8 = 0xc2;
    const JAST: u8 = 0xc3;

    #[test]
    fn names_are_seen_from_the_asking_node() {
        for (last, name, want) in [
            (FENN, "5b154510/start4.elf", Ok("fenn start4.elf")),
            (FENN, "5B154510/start4.elf", Ok("fenn start4.elf")),
            (FENN, "/5b154510/start4.elf", Ok("fenn start4.elf")),
            (FENN, "//5b154510///overlays//README", Ok("fenn overlays/README")),
            (FENN, "dc-a6-32-01-36-c2/start4.elf", Ok("fenn start4.elf")),
            (FENN, "DC-A6-32-01-36-C2/start4.elf", Ok("fenn start4.elf")),
            (FENN, "bootcode.bin", Ok("fenn bootcode.bin")),
            (FENN, "overlays/overlay_map.dtb", Ok("fenn overlays/overlay_map.dtb")),
            (JAST, "000000ab/config.txt", Ok("jast config.txt")),
            (JAST, "000000AB/config.txt", Ok("jast config.txt")),
            // Eight digits and nothing behind them are a file of that name.
            (FENN, "5b154510", Ok("fenn 5b154510")),
            // A second prefix is a directory like others.
            (FENN, "5b154510/000000ab/x", Ok("fenn 000000ab/x")),
            // Not the firmware's form, so plain names: fewer digits, other separators.
            (JAST, "ab/config.txt", Ok("jast ab/config.txt")),
            (FENN, "5b15451g/config.txt", Ok("fenn 5b15451g/config.txt")),
            (FENN, "dc:a6:32:01:36:c3/x", Ok("fenn dc:a6:32:01:36:c3/x")),
            (FENN, "dc-a6-32-01-36c3-/x", Ok("fenn dc-a6-32-01-36c3-/x")),
            (FENN, "a\\..\\b", Ok("fenn a\\..\\b")),
            (FENN, "...", Ok("fenn ...")),
            // Another's.
            (FENN, "000000ab/start4.elf", Err("another board's serial")),
            (FENN, "deadbeef/start4.elf", Err("another board's serial")),
            (FENN, "dc-a6-32-01-36-c3/start4.elf", Err("another board's MAC address")),
            // Nobody's.
            (FENN, "", Err("the name is empty")),
            (FENN, "/", Err("the name is a directory's")),
            (FENN, "5b154510/", Err("the name is a directory's")),
            (FENN, "overlays/", Err("the name is a directory's")),
            (FENN, "../etc/passwd", Err("the name leaves its directory")),
            (FENN, "5b154510/../000000ab/x", Err("the name leaves its directory")),
            (FENN, "5b154510/..", Err("the name leaves its directory")),
            (FENN, "5b154510/./x", Err("the name leaves its directory")),
            (FENN, "a\0b", Err("the name holds a NUL")),
            // Strangers.
            (9, "bootcode.bin", Err("no node has this address")),
            (9, "5b154510/start4.elf", Err("no node has this address")),
        ] {
            let site = site();
            let found = resolve(&site, Ipv4Addr::new(10, 4, 0, last), name.as_bytes());
            let found = found.map(|w| format!("{} {}", w.node.name, String::from_utf8_lossy(&w.path)));
            assert_eq!(
                found.as_deref(),
                want.as_ref().map(|s| *s).map_err(|e| e),
                "{last} asks for {name:?}"
            );
        }
    }

    #[test]
    fn a_name_has_a_longest() {
        let site = site();
        let ask = |len| resolve(&site, Ipv4Addr::new(10, 4, 0, FENN), &vec![b'a'; len]).is_ok();
        assert!(ask(512) && !ask(513));
    }

    proptest! {
        #[test]
        fn no_name_leads_outside_or_to_another(name in "[a./\\\\0-9-]{0,40}", last in any::<u8>()) {
            let site = site();
            let from = Ipv4Addr::new(10, 4, 0, last);
            if let Ok(wanted) = resolve(&site, from, name.as_bytes()) {
                prop_assert_eq!(wanted.node.address, from);
                prop_assert!(!wanted.path.is_empty());
                for part in wanted.path.split(|&b| b == b'/') {
                    prop_assert!(!matches!(part, b"" | b"." | b".."));
                }
            }
        }
    }
}
