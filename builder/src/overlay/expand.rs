//! The order in which overlays are laid: what one includes comes below it, each once.
//! Must not know: what overlays hold.
//! Spec: docs/overlay-format.md: depth first, in the order written.

use std::collections::{BTreeMap, BTreeSet};

use super::{Overlay, Overlays};
use crate::cluster::OverlayName;
use crate::diagnostic::{Placed, Report};

impl Overlays {
    /// The overlays of some roles with all they include, the lowest first. Names that do not exist
    /// are left out, and circles are cut: loading told of both.
    pub fn expand<'a>(&self, roles: impl IntoIterator<Item = &'a OverlayName>) -> Vec<&Overlay> {
        let mut order = Vec::new();
        let mut seen = BTreeSet::new();
        for role in roles {
            // Each step is an overlay and how many of its includes are done.
            let mut path: Vec<(&Overlay, usize)> = Vec::new();
            path.extend(self.get(role).filter(|o| seen.insert(&o.name)).map(|o| (o, 0)));
            while let Some((overlay, done)) = path.last_mut() {
                let overlay = *overlay;
                match overlay.includes.get(*done) {
                    Some(next) => {
                        *done += 1;
                        path.extend(self.get(&next.value).filter(|o| seen.insert(&o.name)).map(|o| (o, 0)));
                    }
                    None => {
                        order.push(overlay);
                        path.pop();
                    }
                }
            }
        }
        order
    }

    /// The overlays of a node's roles, the lowest first.
    pub fn expand_node(&self, node: &crate::cluster::Node) -> Vec<&Overlay> {
        self.expand(node.roles.iter().map(|role| &role.value))
    }
}

/// Reports includes of overlays that do not exist, and circles.
pub(super) fn check(overlays: &Overlays, report: &mut Report) {
    let names = overlays.names();
    for overlay in overlays.iter() {
        for include in overlay.includes.iter().filter(|i| !names.contains(&i.value)) {
            let known = names.iter().map(OverlayName::as_str);
            report.add_unknown(include.place.clone(), "overlay", include.value.as_str(), known);
        }
        for conflict in &overlay.conflicts {
            let known = |o: &Overlay| {
                o.name == conflict.value || o.provides.iter().any(|p| p.value == conflict.value)
            };
            if !overlays.iter().any(known) {
                let known = names.iter().map(OverlayName::as_str);
                report.add_unknown(
                    conflict.place.clone(),
                    "overlay or provided name",
                    conflict.value.as_str(),
                    known,
                );
            }
        }
    }
    check_circles(overlays, report);
}

/// Each circle is told once, at the include that closes it when the walk begins with its first name.
fn check_circles(overlays: &Overlays, report: &mut Report) {
    let mut done: BTreeMap<&OverlayName, bool> = BTreeMap::new();
    for start in overlays.iter() {
        let mut path: Vec<(&Overlay, usize)> = Vec::new();
        if !done.contains_key(&start.name) {
            path.push((start, 0));
        }
        while let Some((overlay, next)) = path.last_mut() {
            let overlay = *overlay;
            done.entry(&overlay.name).or_insert(false);
            let Some(include) = overlay.includes.get(*next) else {
                done.insert(&overlay.name, true);
                path.pop();
                continue;
            };
            *next += 1;
            match overlays.get(&include.value) {
                Some(below) if done.get(&below.name) == Some(&false) => tell_circle(&path, include, report),
                Some(below) if !done.contains_key(&below.name) => path.push((below, 0)),
                _ => {}
            }
        }
    }
}

fn tell_circle(path: &[(&Overlay, usize)], include: &Placed<OverlayName>, report: &mut Report) {
    let circle = path.iter().map(|(o, _)| &o.name).skip_while(|name| **name != include.value);
    let names: Vec<String> = circle.chain([&include.value]).map(|name| format!("`{name}`")).collect();
    report.add(include.place.clone(), format!("includes form a circle: {}", names.join(" -> ")));
}
