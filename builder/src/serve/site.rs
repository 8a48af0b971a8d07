//! The cluster description as the protocol servers want it.
//! Must not know: files, sockets.
//! Spec: design.md section 4.

use std::net::Ipv4Addr;

use gt_netboot::site;

use crate::cluster::{Cluster, MacAddr, Serial};

impl From<MacAddr> for site::Mac {
    fn from(mac: MacAddr) -> site::Mac {
        site::Mac(mac.octets())
    }
}

impl From<site::Mac> for MacAddr {
    fn from(mac: site::Mac) -> MacAddr {
        MacAddr::from(mac.0)
    }
}

impl From<Serial> for site::Serial {
    fn from(serial: Serial) -> site::Serial {
        site::Serial(serial.into())
    }
}

impl From<site::Serial> for Serial {
    fn from(serial: site::Serial) -> Serial {
        Serial::from(serial.0)
    }
}

/// The site of a cluster whose nodes are told `server` as this server's address.
pub fn site(cluster: &Cluster, server: Ipv4Addr) -> site::Site {
    let nodes = cluster.nodes.iter().map(|node| site::Node {
        name: node.name.to_string(),
        address: node.ip,
        mac: node.mac.into(),
        serial: node.serial.into(),
    });
    site::Site {
        server,
        netmask: cluster.network.subnet.netmask(),
        gateway: cluster.network.gateway,
        dns: cluster.network.dns.clone(),
        domain: cluster.domain.to_string(),
        nodes: nodes.collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::tests::{SAMPLE, load_text};
    use proptest::prelude::*;

    #[test]
    fn a_cluster_becomes_a_site() {
        let cluster = load_text(SAMPLE).0.unwrap();
        let server = Ipv4Addr::new(10, 4, 0, 10);
        let site = site(&cluster, server);
        assert_eq!(site.nodes.len(), cluster.nodes.len());
        for node in &cluster.nodes {
            let found = site.by_address(node.ip).unwrap();
            assert_eq!(found.name, node.name.as_str());
            assert_eq!(site.by_mac(node.mac.into()), Some(found));
            assert_eq!(site.by_serial(node.serial.into()), Some(found));
            assert!(site.contains(node.ip));
        }
        assert_eq!((site.server, &site.domain[..]), (server, &*cluster.domain.to_string()));
    }

    proptest! {
        #[test]
        fn addresses_and_serials_keep_their_text(octets in any::<[u8; 6]>(), number: u32) {
            let (mac, serial) = (site::Mac(octets), site::Serial(number));
            prop_assert_eq!(MacAddr::from(mac).to_string(), mac.to_string());
            prop_assert_eq!(site::Mac::from(MacAddr::from(mac)), mac);
            prop_assert_eq!(Serial::from(serial).to_string(), serial.to_string());
            prop_assert_eq!(site::Serial::from(Serial::from(serial)), serial);
        }
    }
}
