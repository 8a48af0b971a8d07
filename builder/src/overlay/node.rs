//! Checks that concern several overlays: those of one node, and artifacts of all.
//! Must not know: trees, what a base has.
//! Spec: docs/overlay-format.md (`provides`, `conflicts`, ids, artifacts).

use std::collections::BTreeMap;

use super::{Overlay, Overlays};
use crate::cluster::{Cluster, Node, OverlayName};
use crate::diagnostic::{Place, Report};

/// An artifact is locked by its name, so no two may have the same.
pub(super) fn check_artifacts(overlays: &Overlays, report: &mut Report) {
    let mut seen: BTreeMap<&str, &Place> = BTreeMap::new();
    for artifact in overlays.iter().flat_map(|o| &o.artifacts) {
        let name = artifact.name.as_str();
        match seen.get(name) {
            Some(first) => {
                report.add(artifact.place.clone(), format!("artifact `{name}` is stated already at {first}"))
            }
            None => _ = seen.insert(name, &artifact.place),
        }
    }
}

/// Checks the overlays of each node against each other and against the cluster's users.
pub(super) fn check(cluster: &Cluster, overlays: &Overlays, report: &mut Report) {
    for node in &cluster.nodes {
        let list = overlays.expand_node(node);
        check_company(node, &list, report);
        check_accounts(cluster, &list, report);
        check_places(&list, report);
    }
}

/// `provides` and `conflicts`.
fn check_company(node: &Node, list: &[&Overlay], report: &mut Report) {
    let mut providers: BTreeMap<&OverlayName, &OverlayName> = BTreeMap::new();
    for overlay in list {
        for name in overlay.provides.iter().map(|p| &p.value) {
            if let Some(other) = providers.insert(name, &overlay.name) {
                let message = format!(
                    "node `{}`: overlays `{other}` and `{}` both provide `{name}`",
                    node.name, overlay.name
                );
                report.add(node.place.clone(), message);
            }
        }
    }
    for overlay in list {
        for name in overlay.conflicts.iter().map(|c| &c.value) {
            let others = list.iter().filter(|o| o.name != overlay.name);
            for other in others.filter(|o| o.name == *name || o.provides.iter().any(|p| p.value == *name)) {
                let by =
                    if other.name == *name { String::new() } else { format!(", which provides `{name}`") };
                let message = format!(
                    "node `{}`: overlay `{}` conflicts with `{}`{by}",
                    node.name, overlay.name, other.name
                );
                report.add(node.place.clone(), message);
            }
        }
    }
}

/// One name has one number and one number one name. The same account in two overlays is allowed.
#[derive(Default)]
struct Ids<'a> {
    by_name: BTreeMap<&'a str, (u32, &'a Place)>,
    by_id: BTreeMap<u32, (&'a str, &'a Place)>,
}

impl<'a> Ids<'a> {
    fn add(&mut self, noun: &str, name: &'a str, id: u32, place: &'a Place, report: &mut Report) {
        match self.by_name.get(name) {
            Some((other, first)) if *other != id => {
                report.add(
                    place.clone(),
                    format!("{noun} `{name}` has number {id} here and {other} at {first}"),
                );
            }
            Some(_) => {}
            None => _ = self.by_name.insert(name, (id, place)),
        }
        match self.by_id.get(&id) {
            Some((other, first)) if *other != name => {
                report.add(
                    place.clone(),
                    format!("{noun} number {id} of `{name}` is that of `{other}` at {first}"),
                );
            }
            Some(_) => {}
            None => _ = self.by_id.insert(id, (name, place)),
        }
    }
}

fn check_accounts(cluster: &Cluster, list: &[&Overlay], report: &mut Report) {
    let (mut users, mut groups) = (Ids::default(), Ids::default());
    for user in &cluster.users {
        users.add("user", user.name.as_str(), user.uid, &user.place, report);
        groups.add("group", user.name.as_str(), user.uid, &user.place, report);
    }
    for overlay in list {
        for group in &overlay.groups {
            groups.add("group", group.name.as_str(), group.gid, &group.place, report);
        }
        for user in &overlay.users {
            users.add("user", user.name.as_str(), user.uid, &user.place, report);
            if user.group.is_none() {
                groups.add("group", user.name.as_str(), user.uid, &user.place, report);
            }
        }
    }
}

/// A place kept, wiped or filled at boot is stated once.
fn check_places(list: &[&Overlay], report: &mut Report) {
    let mut seen = BTreeMap::new();
    for overlay in list {
        let dirs = overlay.persist.iter().chain(&overlay.scratch);
        for dir in dirs.chain(overlay.secrets.iter().map(|s| &s.file)) {
            if let Some(first) = seen.get(&dir.path) {
                report.add(dir.place.clone(), format!("`{}` is stated already at {first}", dir.path));
            } else {
                seen.insert(&dir.path, &dir.place);
            }
        }
    }
}
