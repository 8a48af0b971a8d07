//! A machine that is not in `cluster.toml` becomes a node of it: one `[[node]]` more, everything else as
//! its owner wrote it, to the byte.
//! Must not know: where the machine was seen, where the file is.
//! Spec: design.md sections 4 and 10.

use std::net::Ipv4Addr;

use toml_edit::{Array, ArrayOfTables, DocumentMut, Item, Table, value};

use super::{Cluster, MacAddr, Model, NodeName, OverlayName, Serial};

/// The facts of a new node. What is not among them has its default in `cluster.toml`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewNode {
    /// Its name.
    pub name: NodeName,
    /// Its roles, in order.
    pub roles: Vec<OverlayName>,
    /// Its address.
    pub ip: Ipv4Addr,
    /// Its wired card.
    pub mac: MacAddr,
    /// Its serial number.
    pub serial: Serial,
    /// Which Raspberry Pi it is.
    pub model: Model,
}

/// The text cannot take a node.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AdoptError {
    /// It is no TOML.
    #[error("reading the description")]
    Toml(#[from] toml_edit::TomlError),
    /// The nodes are not written as tables of their own.
    #[error("the nodes are not written as `[[node]]`")]
    NotTables,
}

impl NewNode {
    /// The text with this node behind the last one. That it makes a right description is for
    /// [`super::parse`] to say.
    pub fn add_to(&self, text: &str) -> Result<String, AdoptError> {
        let mut document: DocumentMut = text.parse()?;
        let nodes = document.entry("node").or_insert(Item::ArrayOfTables(ArrayOfTables::new()));
        nodes.as_array_of_tables_mut().ok_or(AdoptError::NotTables)?.push(self.table());
        Ok(document.to_string())
    }

    fn table(&self) -> Table {
        let mut table = Table::new();
        table.decor_mut().set_prefix("\n");
        table["name"] = value(self.name.as_str());
        table["roles"] = value(self.roles.iter().map(OverlayName::as_str).collect::<Array>());
        table["ip"] = value(self.ip.to_string());
        table["mac"] = value(self.mac.to_string());
        table["serial"] = value(self.serial.to_string());
        table["model"] = value(self.model.as_str());
        table
    }
}

/// The address that comes after those of all nodes, or the first free one; never the router's, the
/// server's or a name server's. `None` when the subnet is full.
pub fn next_free(cluster: &Cluster) -> Option<Ipv4Addr> {
    let network = &cluster.network;
    let taken = |address: &Ipv4Addr| {
        cluster.nodes.iter().any(|node| node.ip == *address)
            || network.gateway == Some(*address)
            || network.server == Some(*address)
            || network.dns.contains(address)
    };
    let free = |address: &Ipv4Addr| network.subnet.objection(*address).is_none() && !taken(address);
    let (first, last) = (network.subnet.address().to_bits(), network.subnet.broadcast().to_bits());
    let highest = cluster.nodes.iter().map(|node| node.ip.to_bits()).max().unwrap_or(first);
    // All that can be taken lie between, so either search ends after as many steps as there are nodes.
    (highest..last).chain(first..highest).map(Ipv4Addr::from_bits).find(free)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::tests::{SAMPLE, load_text};

    fn new(name: &str) -> NewNode {
        NewNode {
            name: name.parse().unwrap(),
            roles: vec!["worker".parse().unwrap()],
            ip: Ipv4Addr::new(10, 4, 0, 16),
            mac: "dc:a6:32:01:36:c2".parse().unwrap(),
            serial: "5b154510".parse().unwrap(),
            model: Model::Pi4,
        }
    }

    const ADDED: &str = "\n[[node]]\nname = \"jast\"\nroles = [\"worker\"]\nip = \"10.4.0.16\"\n\
                         mac = \"dc:a6:32:01:36:c2\"\nserial = \"5b154510\"\nmodel = \"pi4\"\n";

    #[test]
    fn the_node_comes_last_and_all_else_stays() {
        let odd = SAMPLE.replace("dhcp = \"proxy\"", "dhcp   =  'proxy' # beside the router");
        for text in [SAMPLE, &odd, &odd.replace("[[node]]", "# A node.\n[[node]]")] {
            assert_eq!(new("jast").add_to(text).unwrap(), format!("{text}{ADDED}"));
        }
        let (cluster, report) = load_text(&new("jast").add_to(&odd).unwrap());
        assert_eq!(report, "");
        let cluster = cluster.unwrap();
        let node = cluster.node("jast").unwrap();
        assert_eq!((node.ip, node.model, node.roles.len()), (new("jast").ip, Model::Pi4, 1));
        assert_eq!(cluster.node("fenn").unwrap().vars["greeting"].as_str(), Some("hej"));
    }

    #[test]
    fn what_stands_behind_the_nodes_stays_behind() {
        let (head, nodes) = SAMPLE.split_at(SAMPLE.find("[[node]]").unwrap());
        let text = format!("[top]\nx = 1\n\n{nodes}\n# The rest.\n{head}# The end.\n");
        let want = format!("[top]\nx = 1\n\n{nodes}{ADDED}\n# The rest.\n{head}# The end.\n");
        assert_eq!(new("jast").add_to(&text).unwrap(), want);
    }

    #[test]
    fn the_first_node_and_a_file_without_a_last_line_end() {
        let head = &SAMPLE[..SAMPLE.find("\n[[node]]").unwrap()];
        assert_eq!(new("jast").add_to(head).unwrap(), format!("{head}{ADDED}"));
        assert_eq!(new("jast").add_to(head.trim_end()).unwrap(), format!("{head}{ADDED}"));
    }

    #[test]
    fn other_forms_are_refused() {
        assert!(matches!(new("jast").add_to("node = [{ name = \"a\" }]"), Err(AdoptError::NotTables)));
        assert!(matches!(new("jast").add_to("node = "), Err(AdoptError::Toml(_))));
    }

    #[test]
    fn addresses_that_are_free() {
        let sample = |edits: &[(&str, &str)]| {
            let text = edits.iter().fold(SAMPLE.to_owned(), |text, (old, new)| text.replace(old, new));
            load_text(&text).0.unwrap()
        };
        let address = |last| Some(Ipv4Addr::new(10, 4, 0, last));
        assert_eq!(next_free(&sample(&[])), address(16));
        assert_eq!(next_free(&sample(&[("server = \"10.4.0.10\"", "server = \"10.4.0.16\"")])), address(17));
        // Behind the last node there is no more room: 10.4.0.1 is the gateway's.
        let small = [("10.4.0.0/20", "10.4.0.0/28"), ("10.4.0.15", "10.4.0.14")];
        assert_eq!(next_free(&sample(&small)), address(2));
        let full = [
            ("10.4.0.0/20", "10.4.0.0/30"),
            ("10.4.0.10", "10.4.0.1"),
            ("10.4.0.15", "10.4.0.2"),
            ("gateway = \"10.4.0.1\"", ""),
        ];
        assert_eq!(next_free(&sample(&full)), None);
    }
}
