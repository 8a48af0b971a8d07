//! systemd units made to start or not, as `systemctl --root` does it but without running it.
//! Must not know: overlays' other parts, what a unit does.
//! Spec: systemctl(1) (enable, disable, mask), systemd.unit(5) ([Install], specifiers, load path);
//! the links are those of systemd 257's src/shared/install.c.

use std::collections::BTreeSet;

use super::view::{View, step};
use super::{Kind, RenderError, Result, TreePath};
use crate::cluster::UnitName;
use crate::overlay::Overlay;

/// Directories of unit files, the strongest first: systemd.unit(5), Unit File Load Path.
const LOAD_PATH: [&str; 4] =
    ["etc/systemd/system", "usr/local/lib/systemd/system", "usr/lib/systemd/system", "lib/systemd/system"];
const CONFIG: &str = "etc/systemd/system";

/// A unit cannot be enabled or disabled.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum UnitError {
    /// No such unit file.
    #[error("unit `{unit}` does not exist on the node")]
    Missing {
        /// The unit.
        unit: String,
    },
    /// The unit file has no [Install] section.
    #[error("unit `{unit}` has nothing in [Install], so enabling it would do nothing")]
    NoInstall {
        /// The unit.
        unit: String,
    },
    /// The unit is a link to /dev/null.
    #[error("unit `{unit}` is masked by `{by}`")]
    Masked {
        /// The unit.
        unit: String,
        /// The link.
        by: TreePath,
    },
    /// The name is only an alias.
    #[error("`{unit}` is an alias of unit `{target}`: name that one")]
    Alias {
        /// The alias.
        unit: String,
        /// What it stands for.
        target: String,
    },
    /// A template without an instance.
    #[error(
        "unit `{unit}` is a template without a default instance: name one, such as `{unit}` with a word after `@`"
    )]
    NoInstance {
        /// The template.
        unit: String,
    },
    /// A specifier that only a running system can fill in.
    #[error("unit `{unit}` has `{value}` in [Install], which only a running system can fill in")]
    Specifier {
        /// The unit.
        unit: String,
        /// The value with the specifier.
        value: String,
    },
}

/// What a unit's [Install] section says.
#[derive(Debug, Default, PartialEq, Eq)]
struct Install {
    wanted_by: Vec<String>,
    required_by: Vec<String>,
    upheld_by: Vec<String>,
    alias: Vec<String>,
    also: Vec<String>,
    default_instance: Option<String>,
}

/// Enables, disables and masks an overlay's units.
pub(super) fn apply(overlay: &Overlay, view: &mut View<'_>) -> Result<()> {
    for unit in &overlay.disable {
        for path in disabled_links(&unit.value, &unit.place, view)? {
            view.layer.remove(path);
        }
    }
    for unit in &overlay.mask {
        view.put_link(TreePath::new(CONFIG)?.join(unit.value.as_str())?, "/dev/null")?;
    }
    for unit in &overlay.enable {
        let wrong = |source| RenderError::Unit { place: unit.place.clone(), source };
        let links = enabled_links(unit.value.as_str(), view)?.map_err(wrong)?;
        for (path, target) in links {
            view.put_link(path, &target)?;
        }
    }
    Ok(())
}

type Links = Vec<(TreePath, String)>;

/// The links that enabling a unit makes, with their targets; the outer error is the store's.
fn enabled_links(name: &str, view: &View<'_>) -> Result<std::result::Result<Links, UnitError>> {
    let mut links = Vec::new();
    let mut seen = BTreeSet::new();
    let mut todo = vec![name.to_owned()];
    while let Some(unit) = todo.pop() {
        if !seen.insert(unit.clone()) {
            continue;
        }
        // Units named by `Also=` may be missing: systemctl passes over them.
        let is_first = seen.len() == 1;
        let (file, install) = match load(&unit, view)? {
            Ok(found) => found,
            Err(_) if !is_first => continue,
            Err(e) => return Ok(Err(e)),
        };
        let made = match unit_links(&unit, &file, &install) {
            Ok(made) => made,
            Err(e) => return Ok(Err(e)),
        };
        if is_first && made.is_empty() && install.also.is_empty() {
            return Ok(Err(UnitError::NoInstall { unit }));
        }
        for (path, target) in made {
            links.push((TreePath::new(CONFIG)?.join(path)?, target));
        }
        todo.extend(install.also.into_iter().rev());
    }
    Ok(Ok(links))
}

/// Links of one unit: path below /etc/systemd/system, and target.
fn unit_links(
    unit: &str,
    file: &TreePath,
    install: &Install,
) -> std::result::Result<Vec<(String, String)>, UnitError> {
    let target = file.to_string();
    let name = match (split(unit), &install.default_instance) {
        ((stem, Some(""), suffix), Some(instance)) => format!("{stem}@{instance}.{suffix}"),
        _ => unit.to_owned(),
    };
    let is_template = matches!(split(&name), (_, Some(""), _));
    let mut links = Vec::new();
    for alias in &install.alias {
        let alias = expand(alias, &name)?;
        // `Alias=x@.service` in an instance means the same instance of x.
        let alias = match (split(&alias), split(&name)) {
            ((stem, Some(""), suffix), (_, Some(instance), _)) => format!("{stem}@{instance}.{suffix}"),
            _ => alias,
        };
        if alias != unit {
            links.push((alias, target.clone()));
        }
    }
    let kinds =
        [("wants", &install.wanted_by), ("requires", &install.required_by), ("upholds", &install.upheld_by)];
    for (kind, parents) in kinds {
        for parent in parents {
            let parent = expand(parent, &name)?;
            if is_template && !matches!(split(&parent), (_, Some(""), _)) {
                return Err(UnitError::NoInstance { unit: unit.into() });
            }
            links.push((format!("{parent}.{kind}/{name}"), target.clone()));
        }
    }
    Ok(links)
}

/// Stem, instance and suffix: `getty@tty1.service` is `getty`, `tty1`, `service`.
fn split(unit: &str) -> (&str, Option<&str>, &str) {
    let (name, suffix) = unit.rsplit_once('.').unwrap_or((unit, ""));
    match name.split_once('@') {
        Some((stem, instance)) => (stem, Some(instance), suffix),
        None => (name, None, suffix),
    }
}

/// Fills in the specifiers that follow from the unit's name.
fn expand(value: &str, unit: &str) -> std::result::Result<String, UnitError> {
    let (stem, instance, _) = split(unit);
    let full = unit.rsplit_once('.').map_or(unit, |(name, _)| name);
    let mut text = String::new();
    let mut chars = value.chars();
    while let Some(c) = chars.next() {
        if c != '%' {
            text.push(c);
            continue;
        }
        match chars.next() {
            Some('%') => text.push('%'),
            Some('n') => text.push_str(unit),
            Some('N') => text.push_str(full),
            Some('p') => text.push_str(stem),
            Some('i') => text.push_str(instance.unwrap_or("")),
            Some('j') => text.push_str(stem.rsplit('-').next().unwrap_or(stem)),
            _ => return Err(UnitError::Specifier { unit: unit.into(), value: value.into() }),
        }
    }
    Ok(text)
}

/// The unit's file and its [Install] section, drop-ins included.
fn load(unit: &str, view: &View<'_>) -> Result<std::result::Result<(TreePath, Install), UnitError>> {
    let (stem, instance, suffix) = split(unit);
    let mut names = vec![unit.to_owned()];
    if instance.is_some_and(|i| !i.is_empty()) {
        names.push(format!("{stem}@.{suffix}"));
    }
    for name in &names {
        for dir in LOAD_PATH {
            let path = TreePath::new(dir)?.join(name)?;
            let Some(inode) = view.get(&path, false) else { continue };
            if let Kind::Symlink(target) = &inode.kind {
                let end = step(&path.parent().unwrap_or_default(), target).unwrap_or_default();
                if end.as_bytes() == b"dev/null" {
                    return Ok(Err(UnitError::Masked { unit: unit.into(), by: path }));
                }
                if end.name() != name.as_bytes() {
                    let target = String::from_utf8_lossy(end.name()).into_owned();
                    return Ok(Err(UnitError::Alias { unit: unit.into(), target }));
                }
            }
            let Some(text) = view.read(&path)? else { continue };
            let mut install = Install::default();
            install.add(&text);
            for name in names.iter().rev() {
                add_drop_ins(name, view, &mut install)?;
            }
            return Ok(Ok((path, install)));
        }
    }
    Ok(Err(UnitError::Missing { unit: unit.into() }))
}

/// `<unit>.d/*.conf` in the order of their names; of equal names the strongest directory's counts.
fn add_drop_ins(unit: &str, view: &View<'_>, install: &mut Install) -> Result<()> {
    let mut found = std::collections::BTreeMap::new();
    for dir in LOAD_PATH {
        let dir = TreePath::new(dir)?.join(format!("{unit}.d"))?;
        for name in view.names(&dir).into_iter().filter(|name| name.ends_with(b".conf")) {
            let path = dir.join(&name)?;
            found.entry(name).or_insert(path);
        }
    }
    for path in found.values() {
        install.add(&view.read(path)?.unwrap_or_default());
    }
    Ok(())
}

impl Install {
    /// Reads one file: sections, `#` and `;` comments, lines continued by `\`. An empty value
    /// empties its list, as for all lists of systemd.
    fn add(&mut self, text: &[u8]) {
        let text = String::from_utf8_lossy(text).replace("\\\n", " ");
        let mut here = false;
        for line in text.lines().map(str::trim) {
            if line.starts_with('[') {
                here = line == "[Install]";
            }
            let Some((key, value)) = line.split_once('=').filter(|_| here && !line.starts_with(['#', ';']))
            else {
                continue;
            };
            let mut words = value.split_whitespace().map(str::to_owned);
            let list = match key.trim_end() {
                "WantedBy" => &mut self.wanted_by,
                "RequiredBy" => &mut self.required_by,
                "UpheldBy" => &mut self.upheld_by,
                "Alias" => &mut self.alias,
                "Also" => &mut self.also,
                "DefaultInstance" => {
                    self.default_instance = words.next_back();
                    continue;
                }
                _ => continue,
            };
            if value.trim().is_empty() {
                list.clear();
            }
            list.extend(words);
        }
    }
}

/// The links in /etc/systemd/system that make a unit start: those of its name and those that lead
/// to it, and the same for units named by `Also=`.
fn disabled_links(
    unit: &UnitName,
    place: &crate::diagnostic::Place,
    view: &View<'_>,
) -> Result<Vec<TreePath>> {
    let wrong = |source| RenderError::Unit { place: place.clone(), source };
    let mut names = BTreeSet::from([unit.to_string()]);
    match load(unit.as_str(), view)? {
        Ok((_, install)) => names.extend(install.also),
        // What is masked does not start already, and an alias may be disabled by its own name.
        Err(UnitError::Masked { .. } | UnitError::Alias { .. }) => {}
        Err(e) => return Err(wrong(e)),
    }
    let config = TreePath::new(CONFIG)?;
    let links = view.below.below(&config).filter(|(path, _, inode)| {
        let Kind::Symlink(target) = &inode.kind else { return false };
        let end = target.rsplit(|&b| b == b'/').next().unwrap_or_default();
        let is_mask = target.as_ref() == b"/dev/null";
        !is_mask && names.iter().any(|name| is_of(path.name(), name) || is_of(end, name))
    });
    Ok(links.map(|(path, ..)| path.clone()).collect())
}

/// True for the unit itself and, of a template, for every instance.
fn is_of(found: &[u8], unit: &str) -> bool {
    found == unit.as_bytes()
        || match (split(unit), std::str::from_utf8(found).map(split)) {
            ((stem, Some(""), suffix), Ok((other, Some(_), other_suffix))) => {
                stem == other && suffix == other_suffix
            }
            _ => false,
        }
}

#[cfg(test)]
mod tests;
