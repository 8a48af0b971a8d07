//! Whether a node's bootloader is set to boot from the network, as far as the node told; else what its
//! owner should look at once.
//! Must not know: how a node is asked.
//! Spec: Raspberry Pi documentation, "Raspberry Pi bootloader configuration"; rpi-eeprom release notes.

use super::Finding;

/// Reads GPT since this release: 2020-09-14, in seconds since 1970.
pub const GPT_SINCE: u64 = 1_600_041_600;
/// Block numbers wrap since this release: 2025-09-23.
pub const WRAPS_SINCE: u64 = 1_758_585_600;

/// What is known of a node's bootloader.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Bootloader {
    /// `/proc/device-tree/chosen/bootloader/build-timestamp`, seconds since 1970.
    pub built: Option<u64>,
    /// `BOOT_ORDER`.
    pub boot_order: Option<u32>,
}

/// Checks one node; `gpt` if its card has a GPT.
pub fn check(node: &str, bootloader: Bootloader, gpt: bool) -> Vec<Finding> {
    let subject = format!("bootloader of node `{node}`");
    let update = "run `sudo rpi-eeprom-update -a` on the node, and reboot it";
    let edit = "run `sudo -E rpi-eeprom-config --edit` on the node and set `BOOT_ORDER=0xf12`";
    let mut findings = vec![];
    findings.push(match bootloader.boot_order {
        None => Finding::advice(&subject, "`BOOT_ORDER` is not known", "0xf12: network, then card", edit),
        Some(order) => match position_of_network(order) {
            Some(0) => Finding::good(&subject, format!("`BOOT_ORDER` is {order:#x}: network first")),
            Some(_) => Finding::advice(
                &subject,
                format!("`BOOT_ORDER` is {order:#x}: a bootable card comes before the network"),
                "0xf12: network, then card",
                edit,
            ),
            None => Finding::fault(
                &subject,
                format!("`BOOT_ORDER` is {order:#x}: never from the network"),
                "0xf12: network, then card",
                edit,
            ),
        },
    });
    let wanted = "2025-09-23 or newer";
    findings.push(match bootloader.built {
        None => Finding::advice(&subject, "its date is not known", wanted, update),
        Some(built) if gpt && built < GPT_SINCE => {
            Finding::fault(&subject, "older than 2020-09-14: it reads no GPT", wanted, update)
        }
        Some(built) if built < WRAPS_SINCE => {
            Finding::advice(&subject, "older than 2025-09-23: it cuts files of over 64 MiB", wanted, update)
        }
        Some(_) => Finding::good(&subject, "2025-09-23 or newer"),
    });
    findings
}

/// How many boot modes come before the network (2). Nibbles count from the right; what comes after RESTART
/// (f), STOP (e) and RPIBOOT (3), which waits for ever, is never reached.
fn position_of_network(order: u32) -> Option<usize> {
    let modes: Vec<u32> = (0..8).map(|nibble| (order >> (4 * nibble)) & 0xf).collect();
    let reached = modes.iter().position(|mode| matches!(mode, 0xf | 0xe | 3)).unwrap_or(8);
    modes[..reached].iter().filter(|mode| **mode != 0).position(|mode| *mode == 2)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::State::{self, Advice, Fault, Good};

    #[test]
    fn boot_orders() {
        for (order, want) in [
            (0xf12, Some(0)),
            (0xf21, Some(1)),
            (0xf41, None),
            (0x21f, None),
            (0x23, None),
            (2, Some(0)),
            (0, None),
        ] {
            assert_eq!(position_of_network(order), want, "{order:#x}");
        }
    }

    #[test]
    fn what_is_said() {
        let states = |bootloader, gpt| -> Vec<State> {
            check("fenn", bootloader, gpt).into_iter().map(|finding| finding.state).collect()
        };
        for (built, boot_order, gpt, want) in [
            (None, None, true, [Advice, Advice]),
            (Some(WRAPS_SINCE), Some(0xf12), true, [Good, Good]),
            (Some(WRAPS_SINCE - 1), Some(0xf21), true, [Advice, Advice]),
            (Some(GPT_SINCE - 1), Some(0xf41), true, [Fault, Fault]),
            (Some(GPT_SINCE - 1), Some(0xf12), false, [Good, Advice]),
        ] {
            assert_eq!(states(Bootloader { built, boot_order }, gpt), want, "{built:?} {boot_order:?}");
        }
    }
}
