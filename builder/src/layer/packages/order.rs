//! In which order packages are configured: what one depends on comes first.
//! Must not know: files, scripts' content.
//! Spec: Debian policy 7.2 and 6.6; like dpkg, a circle is broken at a package without a script.

use std::collections::{BTreeMap, BTreeSet};

use super::unpack::Package;

/// These come before all else: scripts of any other package may rely on users, groups, the usual
/// directories and the C library, and state it nowhere, because these packages are essential.
const FIRST: [&str; 4] = ["base-passwd", "base-files", "libc6", "libc-bin"];

/// Indices into `packages` in the order of configuration. It depends on names and relations alone,
/// not on the order of `packages`.
pub(super) fn order(packages: &[Package]) -> Vec<usize> {
    let mut sorted: Vec<usize> = (0..packages.len()).collect();
    sorted.sort_by_key(|&at| (&packages[at].name, &packages[at].architecture));
    let needs = needs(packages, &sorted);
    let early = essential_closure(packages, &needs);
    let mut done = BTreeSet::new();
    let mut out = Vec::with_capacity(packages.len());
    for wave in [true, false] {
        let mut left: Vec<usize> = sorted.iter().copied().filter(|at| early.contains(at) == wave).collect();
        left.sort_by_key(|&at| FIRST.iter().position(|n| *n == packages[at].name).unwrap_or(FIRST.len()));
        while !left.is_empty() {
            let at = pick(&left, packages, &needs, &done);
            let next = left.remove(at);
            done.insert(next);
            out.push(next);
        }
    }
    out
}

/// The first one that waits for nothing; in a circle one without a script, else the one that waits
/// for the least.
fn pick(left: &[usize], packages: &[Package], needs: &[BTreeSet<usize>], done: &BTreeSet<usize>) -> usize {
    let waits = |at: usize| needs[at].iter().filter(|n| left.contains(n) && !done.contains(n)).count();
    let first = |at: usize| FIRST.contains(&packages[at].name.as_str());
    let key = |&(_, &at): &(usize, &usize)| {
        let scripted = packages[at].control_file("postinst").is_some();
        match waits(at) {
            _ if first(at) => (0, 0, 0),
            0 => (1, 0, 0),
            n => (2, usize::from(scripted), n),
        }
    };
    left.iter().enumerate().min_by_key(key).map_or(0, |(at, _)| at)
}

/// For each package those of the same set that it needs. Of alternatives the first that is there.
fn needs(packages: &[Package], sorted: &[usize]) -> Vec<BTreeSet<usize>> {
    let mut providers: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
    for &at in sorted {
        providers.entry(&packages[at].name).or_default().insert(0, at);
    }
    for &at in sorted {
        for name in packages[at].fields.get("Provides").into_iter().flat_map(relations) {
            providers.entry(name).or_default().push(at);
        }
    }
    let all = |package: &Package| {
        let mut found = BTreeSet::new();
        for field in ["Pre-Depends", "Depends"] {
            for group in package.fields.get(field).unwrap_or_default().split(',') {
                let one = group.split('|').filter_map(name).find_map(|name| providers.get(name)?.first());
                found.extend(one.copied());
            }
        }
        found
    };
    packages.iter().map(all).collect()
}

fn essential_closure(packages: &[Package], needs: &[BTreeSet<usize>]) -> BTreeSet<usize> {
    let mut closure = BTreeSet::new();
    let mut todo: Vec<usize> = (0..packages.len()).filter(|&at| packages[at].essential).collect();
    while let Some(at) = todo.pop() {
        if closure.insert(at) {
            todo.extend(&needs[at]);
        }
    }
    closure
}

/// The names in a field of relations, without versions and architectures.
pub(super) fn relations(value: &str) -> impl Iterator<Item = &str> {
    value.split([',', '|']).filter_map(name)
}

fn name(relation: &str) -> Option<&str> {
    relation.trim_start().split([' ', '(', '[', '<', ':', '\n']).next().filter(|name| !name.is_empty())
}
