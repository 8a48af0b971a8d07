//! From `cluster.toml` as written to a checked description; every problem becomes a finding and
//! none hides another.
//! Must not know: where the file came from.
//! Spec: design.md section 4, the last paragraph.

use std::collections::{BTreeSet, HashMap};
use std::fmt::Display;
use std::hash::Hash;
use std::net::Ipv4Addr;
use std::path::PathBuf;

use super::{
    Artifacts, BaseName, ByteSize, Cluster, MacAddr, Network, Node, NodeName, OverlayName, Serial, Subnet,
    wire,
};
use crate::diagnostic::{At, Place, Placed, Report, Source};

/// One load in progress.
pub(super) struct Checker<'a> {
    pub source: &'a Source,
    pub roles: &'a BTreeSet<OverlayName>,
    pub read_keys: &'a mut dyn FnMut(&str) -> std::io::Result<String>,
    pub report: &'a mut Report,
}

impl Checker<'_> {
    pub(super) fn add<T>(&mut self, at: &At<T>, message: impl Into<String>) {
        self.report.add(self.source.place_of(at), message);
    }

    pub(super) fn cluster(mut self, file: wire::File) -> Option<Cluster> {
        let source = self.source;
        let users = self.users(&file.users);
        let network = file.network.as_ref().and_then(|raw| self.network(raw));
        let raw = file.cluster.as_ref();
        let name = raw.and_then(|c| source.parse_option(&c.name, self.report));
        let domain = raw.and_then(|c| source.parse_option(&c.domain, self.report));
        let base = raw.and_then(|c| source.parse_option::<BaseName>(&c.base, self.report));
        let timezone = match raw.and_then(|c| c.timezone.as_ref()) {
            Some(zone) => source.parse(zone, self.report).map(|zone| zone.value),
            None => "UTC".parse().ok(),
        };
        let artifacts = self.artifacts(&file.artifacts);
        let subnet = network.as_ref().map(|n| n.subnet);
        // A cluster's base that is wrong is one finding, not one for each node.
        let any_base = raw.is_none_or(|c| c.base.is_some());
        let base = base.map(|b| b.value);
        let mut unique = Unique::default();
        let nodes: Vec<Option<Node>> = (0..)
            .zip(&file.node)
            .map(|(position, raw)| {
                self.addresses(raw, subnet, network.as_ref(), &mut unique);
                if raw.base.is_none() && !any_base {
                    let place =
                        raw.name.as_ref().map_or(Place::file(source.name().clone()), |n| source.place_of(n));
                    let name = raw.name.as_ref().map_or("?", |n| n.get());
                    let hint = "add `base` to the node or to `[cluster]`";
                    self.report.add_with_hint(place, format!("node `{name}` has no base"), hint);
                }
                self.node(raw, position, base.as_ref())
            })
            .collect();
        Some(Cluster {
            name: name?.value,
            domain: domain?.value,
            timezone: timezone?,
            network: network?,
            artifacts,
            vars: file.vars,
            users,
            nodes: nodes.into_iter().collect::<Option<_>>()?,
        })
    }

    fn network(&mut self, raw: &wire::Network) -> Option<Network> {
        let source = self.source;
        let subnet = source.parse_option::<Subnet>(&raw.subnet, self.report);
        let gateway = self.machine("the gateway", &raw.gateway, subnet.as_ref());
        // Behind a relay agent, and so behind a router, the server is in a network of its own.
        let routed =
            |address| gateway.is_some() && subnet.as_ref().is_some_and(|s| !s.value.contains(address));
        let server = match raw.server.as_ref().and_then(|at| at.get().parse().ok()) {
            Some(address) if routed(address) => Some(address),
            _ => self.machine("the server", &raw.server, subnet.as_ref()),
        };
        let dns = raw.dns.iter().filter_map(|at| self.address(at)).collect();
        let reset = self.command("reset", raw.reset.as_deref(), &super::RESET);
        let check = self.command("check", raw.check.as_deref(), &super::CHECK);
        let dhcp = raw.dhcp.unwrap_or_default();
        Some(Network { subnet: subnet?.value, gateway, dns, server, dhcp, reset, check })
    }

    fn artifacts(&mut self, raw: &wire::Artifacts) -> Artifacts {
        for (from, to) in &raw.mirrors {
            if !["https://", "http://"].iter().any(|scheme| from.get().starts_with(scheme)) {
                self.add(
                    from,
                    format!("`{}` begins no address: wanted is `https://…` or `http://…`", from.get()),
                );
            }
            let known = ["https://", "http://", "file:///"].iter().any(|scheme| to.get().starts_with(scheme));
            if !known || to.get().contains(|c: char| c.is_whitespace() || c.is_control()) {
                let wanted = "wanted is `https://…`, `http://…` or `file:///…`";
                self.add(to, format!("`{}` is no mirror: {wanted}", to.get()));
            }
            // Else `https://get.helm.sh` would also catch `https://get.helm.shop/`.
            for at in [from, to].into_iter().filter(|at| !at.get().ends_with('/')) {
                self.add(at, format!("`{}`: a prefix and its mirror end in `/`", at.get()));
            }
        }
        let text = |at: &At<String>| at.get().clone();
        let mirrors = raw.mirrors.iter().map(|(from, to)| (text(from), text(to))).collect();
        Artifacts { mirrors, folder: raw.folder.as_ref().map(|at| PathBuf::from(at.get())) }
    }

    /// An empty list is as good as none: there is no way to say that no node can be reset.
    fn command(&mut self, key: &str, raw: Option<&[At<String>]>, default: &[&str]) -> Vec<String> {
        let words = raw.unwrap_or_default();
        match words.first() {
            None => default.iter().map(|word| (*word).to_owned()).collect(),
            Some(program) => {
                if program.get().trim().is_empty() {
                    self.add(program, format!("the first word of `{key}` must be a program, such as `ssh`"));
                }
                words.iter().map(|word| word.get().clone()).collect()
            }
        }
    }

    fn address(&mut self, at: &At<String>) -> Option<Ipv4Addr> {
        let address = at.get().parse().ok();
        if address.is_none() {
            self.add(at, format!("`{}` is no IPv4 address, such as `10.4.0.1`", at.get()));
        }
        address
    }

    /// The address of a machine in the subnet.
    fn machine(
        &mut self,
        who: &str,
        at: &Option<At<String>>,
        subnet: Option<&Placed<Subnet>>,
    ) -> Option<Ipv4Addr> {
        let at = at.as_ref()?;
        let address = self.address(at)?;
        if let Some(why) = subnet.and_then(|s| s.value.objection(address)) {
            let subnet = subnet.map_or(String::new(), |s| s.value.to_string());
            self.add(at, format!("address `{address}` of {who} is {why} `{subnet}`"));
        }
        Some(address)
    }

    /// What may be there only once: names, addresses, cards, serial numbers.
    fn addresses(
        &mut self,
        raw: &wire::Node,
        subnet: Option<Subnet>,
        network: Option<&Network>,
        unique: &mut Unique,
    ) {
        let source = self.source;
        let quiet = &mut Report::new();
        if let Some(name) = source.parse_option(&raw.name, quiet) {
            check_once(&mut unique.names, "name", &name, self.report);
        }
        if let Some(mac) = source.parse_option(&raw.mac, quiet) {
            check_once(&mut unique.macs, "MAC address", &mac, self.report);
        }
        if let Some(serial) = source.parse_option(&raw.serial, quiet) {
            check_once(&mut unique.serials, "serial number", &serial, self.report);
        }
        let Some(ip) = source.parse_option::<Ipv4Addr>(&raw.ip, quiet) else { return };
        check_once(&mut unique.addresses, "address", &ip, self.report);
        let objection = subnet.and_then(|s| Some((s.objection(ip.value)?, s)));
        if let Some((why, subnet)) = objection {
            self.report.add(ip.place, format!("address `{}` is {why} `{subnet}`", ip.value));
        } else if network.is_some_and(|n| n.gateway == Some(ip.value)) {
            self.report.add(ip.place, format!("address `{}` is the gateway's", ip.value));
        }
    }

    fn node(&mut self, raw: &wire::Node, position: u32, base: Option<&BaseName>) -> Option<Node> {
        let source = self.source;
        let roles = self.node_roles(&raw.roles);
        let ip = raw.ip.as_ref().and_then(|at| self.address(at));
        let report = &mut *self.report;
        let name = source.parse_option::<NodeName>(&raw.name, report);
        let mac = source.parse_option::<MacAddr>(&raw.mac, report);
        let serial = source.parse_option::<Serial>(&raw.serial, report);
        let own_base = source.parse_option::<BaseName>(&raw.base, report).map(|b| b.value);
        let mut size = |raw| source.parse_option::<ByteSize>(raw, report).map(|s| s.value);
        let (size, state, scratch, ram) =
            (size(&raw.size), size(&raw.state), size(&raw.scratch), size(&raw.ram));
        let name = name?;
        Some(Node {
            name: name.value,
            roles,
            ip: ip?,
            mac: mac?.value,
            serial: serial?.value,
            model: raw.model.unwrap_or_default(),
            root: raw.root.unwrap_or_default(),
            base: own_base.or_else(|| base.cloned())?,
            partition_table: raw.partition_table.unwrap_or_default(),
            size,
            state,
            scratch,
            ram,
            index: raw.index.as_ref().map_or(position, |i| *i.get()),
            vars: raw.vars.clone(),
            place: name.place,
        })
    }

    fn node_roles(&mut self, raw: &[At<String>]) -> Vec<Placed<OverlayName>> {
        let roles = self.source.parse_all::<OverlayName>(raw, self.report);
        let mut seen = BTreeSet::new();
        for role in &roles {
            if !self.roles.contains(&role.value) {
                let known = self.roles.iter().map(OverlayName::as_str);
                self.report.add_unknown(role.place.clone(), "role", role.value.as_str(), known);
            } else if !seen.insert(&role.value) {
                self.report.add(role.place.clone(), format!("role `{}` is given twice", role.value));
            }
        }
        roles
    }
}

/// What was seen so far, and where.
#[derive(Default)]
struct Unique {
    names: HashMap<NodeName, Place>,
    addresses: HashMap<Ipv4Addr, Place>,
    macs: HashMap<MacAddr, Place>,
    serials: HashMap<Serial, Place>,
}

fn check_once<T: Clone + Eq + Hash + Display>(
    seen: &mut HashMap<T, Place>,
    noun: &str,
    found: &Placed<T>,
    report: &mut Report,
) {
    match seen.get(&found.value) {
        Some(first) => {
            report.add(found.place.clone(), format!("{noun} `{}` is taken already at {first}", found.value));
        }
        None => _ = seen.insert(found.value.clone(), found.place.clone()),
    }
}
