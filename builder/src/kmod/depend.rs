//! Which module needs which, and the order of loading.
//! Must not know: files, formats. It sees names of symbols and numbers of modules.
//! Spec: kmod 34, tools/depmod.c (`depmod_load_dependencies`, `depmod_calculate_dependencies`): the
//! order is part of what modprobe relies on, so it is followed step by step.

use std::collections::HashMap;

use super::modinfo::ModInfo;

/// For each module, by number, what it needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dependencies {
    /// Everything that must be loaded before, nearest first, each once. This is the order of
    /// `modules.dep`; loading goes from the last to the first.
    pub all: Vec<Vec<usize>>,
}

/// Modules that need each other, so that none can be loaded first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cycle(pub Vec<usize>);

/// Which module exports each symbol. Where two do, the later one counts, as in kmod.
pub fn exporters<'a>(modules: &[&'a ModInfo]) -> HashMap<&'a str, usize> {
    let exports = modules.iter().enumerate();
    exports.flat_map(|(number, m)| m.exports.iter().map(move |name| (name.as_str(), number))).collect()
}

/// Finds who needs whom. Symbols that no module exports are the kernel's own.
pub fn dependencies(modules: &[&ModInfo]) -> Result<Dependencies, Cycle> {
    let exporters = exporters(modules);
    let direct: Vec<Vec<usize>> = modules
        .iter()
        .map(|module| {
            let mut needs = Vec::new();
            for name in &module.needs {
                // PowerPC's `.name` is `name`.
                let name = name.strip_prefix('.').unwrap_or(name);
                if let Some(&owner) = exporters.get(name).filter(|owner| !needs.contains(*owner)) {
                    needs.push(owner);
                }
            }
            needs
        })
        .collect();
    let rank = rank(&direct)?;
    let all = (0..direct.len()).map(|number| closure(&direct, &rank, number)).collect();
    Ok(Dependencies { all })
}

/// The place of each module when those that nobody uses come first.
fn rank(direct: &[Vec<usize>]) -> Result<Vec<usize>, Cycle> {
    let mut users = vec![0_usize; direct.len()];
    for &owner in direct.iter().flatten() {
        users[owner] += 1;
    }
    let mut ready: Vec<usize> = (0..direct.len()).filter(|&number| users[number] == 0).collect();
    let mut rank = vec![usize::MAX; direct.len()];
    let mut next = 0;
    while let Some(number) = ready.pop() {
        rank[number] = next;
        next += 1;
        for &owner in &direct[number] {
            users[owner] -= 1;
            if users[owner] == 0 {
                ready.push(owner);
            }
        }
    }
    if next < direct.len() {
        return Err(Cycle((0..direct.len()).filter(|&n| rank[n] == usize::MAX).collect()));
    }
    Ok(rank)
}

/// All that `number` needs, directly or not, by rank.
fn closure(direct: &[Vec<usize>], rank: &[usize], number: usize) -> Vec<usize> {
    let mut found = std::collections::BTreeSet::new();
    let mut todo = vec![number];
    while let Some(number) = todo.pop() {
        for &owner in &direct[number] {
            if found.insert((rank[owner], owner)) {
                todo.push(owner);
            }
        }
    }
    found.into_iter().map(|(_, owner)| owner).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn module(exports: &[&str], needs: &[&str]) -> ModInfo {
        let own = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect();
        ModInfo { exports: own(exports), needs: own(needs), ..ModInfo::default() }
    }

    #[test]
    fn what_is_needed_comes_with_all_that_it_needs() {
        let modules = [
            module(&["crc"], &[]),
            module(&["journal"], &["crc", "printk"]),
            module(&[], &["journal", "cache", "journal"]),
            module(&["cache"], &[]),
        ];
        let all = dependencies(&modules.iter().collect::<Vec<_>>()).unwrap().all;
        assert_eq!(all, [vec![], vec![0], vec![3, 1, 0], vec![]]);
    }

    #[test]
    fn of_two_exporters_the_later_counts_and_a_leading_dot_does_not() {
        let modules = [module(&["s"], &[]), module(&["s"], &[]), module(&[], &[".s"])];
        let all = dependencies(&modules.iter().collect::<Vec<_>>()).unwrap().all;
        assert_eq!(all[2], [1]);
    }

    #[test]
    fn a_circle_names_its_members() {
        let modules = [module(&["a"], &["b"]), module(&["b"], &["a"]), module(&[], &["a"])];
        assert_eq!(dependencies(&modules.iter().collect::<Vec<_>>()), Err(Cycle(vec![0, 1])));
    }

    proptest! {
        #[test]
        fn whatever_is_needed_is_loaded_before(
            needs in proptest::collection::vec(proptest::collection::vec(0_usize..20, 0..5), 1..20),
        ) {
            // A module needs only earlier ones, so there is no circle.
            let names: Vec<String> = (0..needs.len()).map(|n| format!("s{n}")).collect();
            let modules: Vec<ModInfo> = needs.iter().enumerate().map(|(number, needs)| {
                let needs: Vec<&str> =
                    needs.iter().filter(|&&n| n < number).map(|&n| names[n].as_str()).collect();
                module(&[&names[number]], &needs)
            }).collect();
            let modules: Vec<&ModInfo> = modules.iter().collect();
            let all = dependencies(&modules).unwrap().all;
            for (number, deps) in all.iter().enumerate() {
                let load: Vec<usize> = deps.iter().rev().copied().chain([number]).collect();
                for (at, &one) in load.iter().enumerate() {
                    for dep in &all[one] {
                        prop_assert!(load[..at].contains(dep), "{load:?}: {one} needs {dep}");
                    }
                }
            }
        }
    }
}
