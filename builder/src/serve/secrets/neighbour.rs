//! Which card has an address, as the kernel saw it when it answered.
//! Must not know: who is asked for.
//! Spec: proc_pid_net(5), `/proc/net/arp`; RFC 826. A TCP connection on the link needs an entry, so a
//! machine on the link is always in the table while it asks.

use std::collections::BTreeSet;
use std::io;
use std::net::Ipv4Addr;

use gt_netboot::site::Mac;

/// ATF_COM of linux/if_arp.h: the entry has an answer.
const COMPLETE: u32 = 0x02;
/// ARPHRD_ETHER.
const ETHERNET: u32 = 0x1;

/// Reads the kernel's table and gives the cards of `address`.
pub fn of(address: Ipv4Addr) -> io::Result<BTreeSet<Mac>> {
    Ok(cards(&std::fs::read_to_string("/proc/net/arp")?, address))
}

/// The cards that `table` has for `address`: several when it is on several interfaces. Lines that are
/// not as expected are passed over.
pub fn cards(table: &str, address: Ipv4Addr) -> BTreeSet<Mac> {
    table
        .lines()
        .skip(1)
        .filter_map(entry)
        .filter(|(found, _)| *found == address)
        .map(|(_, mac)| mac)
        .collect()
}

/// `IP address, HW type, Flags, HW address, Mask, Device`.
fn entry(line: &str) -> Option<(Ipv4Addr, Mac)> {
    let mut fields = line.split_ascii_whitespace();
    let address = fields.next()?.parse().ok()?;
    let (kind, flags) = (number(fields.next()?)?, number(fields.next()?)?);
    let mac = mac(fields.next()?)?;
    (kind == ETHERNET && flags & COMPLETE != 0).then_some((address, mac))
}

fn number(text: &str) -> Option<u32> {
    u32::from_str_radix(text.strip_prefix("0x")?, 16).ok()
}

fn mac(text: &str) -> Option<Mac> {
    let mut octets = [0; 6];
    let mut groups = text.split(':');
    for octet in &mut octets {
        let group = groups.next().filter(|group| group.len() == 2)?;
        *octet = u8::from_str_radix(group, 16).ok()?;
    }
    groups.next().is_none().then_some(Mac(octets))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// As Linux 6.12 prints it.
    const TABLE: &str = "\
IP address       HW type     Flags       HW address            Mask     Device
10.4.0.15        0x1         0x2         d8:3a:dd:89:ef:61     *        eth0
10.4.0.16        0x1         0x0         00:00:00:00:00:00     *        eth0
10.4.0.17        0x1         0x6         d8:3a:dd:89:f9:23     *        eth0
10.4.0.18        0x1         0x2         d8:3a:dd:89:fa:fc     *        eth0
10.4.0.18        0x1         0x2         02:00:00:00:00:01     *        eth1
10.4.0.19        0x300       0x2         d8:3a:dd:89:f0:4b     *        sl0
";

    #[test]
    fn entries_are_found() {
        for (last, want) in [
            (15, &[[0xd8, 0x3a, 0xdd, 0x89, 0xef, 0x61]][..]),
            // Asked for, not answered.
            (16, &[]),
            // Set by hand.
            (17, &[[0xd8, 0x3a, 0xdd, 0x89, 0xf9, 0x23]]),
            (18, &[[0x02, 0, 0, 0, 0, 1], [0xd8, 0x3a, 0xdd, 0x89, 0xfa, 0xfc]]),
            // No Ethernet.
            (19, &[]),
            (1, &[]),
        ] {
            let found: Vec<[u8; 6]> =
                cards(TABLE, Ipv4Addr::new(10, 4, 0, last)).into_iter().map(|mac| mac.0).collect();
            assert_eq!(found, want, "10.4.0.{last}");
        }
    }

    proptest! {
        #[test]
        fn any_table_is_read(line in "10.4.0.15 +[0-9a-fx]{0,12} +[0-9a-fx]{0,12} +[0-9a-f:]{0,24}.{0,8}") {
            let found = cards(&format!("header\n{line}\n"), Ipv4Addr::new(10, 4, 0, 15));
            prop_assert!(found.len() <= 1);
        }
    }
}
