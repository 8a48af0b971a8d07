//! What deb-systemd-helper and update-rc.d would have done, from a list of their calls: state files
//! of enabled units, and the links of init scripts.
//! Must not know: how calls were noted.
//! Spec: init-system-helpers 1.69, `script/deb-systemd-helper` and `script/update-rc.d`. The links of
//! units themselves are made by the target's own systemctl.

use super::InstallError;
use super::database::{place, put};
use crate::store::Store;
use crate::tree::{Inode, Kind, Meta, Time, Tree};

/// True when calls may wait until all scripts have run: with systemctl there, and without insserv,
/// which orders init scripts by what others there are.
pub(super) fn are_ours(tree: &Tree) -> bool {
    let has = |path: &str| place(path).is_ok_and(|path| tree.get(&path).is_some());
    has("usr/bin/systemctl") && !has("usr/lib/insserv/insserv") && !has("usr/sbin/openrc")
}

/// The words of a call behind its options, and whether it is about the units of users.
pub(super) fn words(call: &[String]) -> (Vec<&str>, bool) {
    let words = call.iter().skip(1).map(String::as_str).filter(|w| !w.starts_with('-')).collect();
    (words, call.iter().any(|w| w == "--user"))
}

/// Does what the calls ask for, in their order. Units that were only `unmask`ed were never masked.
pub(super) fn apply(
    tree: &mut Tree,
    store: &Store,
    calls: &[Vec<String>],
    time: Time,
) -> Result<(), InstallError> {
    for call in calls {
        let (words, user) = words(call);
        let name = call.first().map(String::as_str).unwrap_or_default();
        match (name, &words[..]) {
            ("deb-systemd-helper", [action, unit]) => {
                let mut helper = Helper { tree, store, time, instance: if user { "user" } else { "system" } };
                match *action {
                    "enable" => helper.enable(unit)?,
                    "update-state" => helper.update_state(unit)?,
                    _ => {}
                }
            }
            ("update-rc.d", [script, "defaults", ..]) => init_links(tree, store, script, 'S', time)?,
            ("update-rc.d", [script, "defaults-disabled", ..]) => init_links(tree, store, script, 'K', time)?,
            _ => {}
        }
    }
    Ok(())
}

struct Helper<'a> {
    tree: &'a mut Tree,
    store: &'a Store,
    time: Time,
    instance: &'static str,
}

impl Helper<'_> {
    fn state_dir(&self) -> &'static str {
        match self.instance {
            "user" => "var/lib/systemd/deb-systemd-user-helper-enabled",
            _ => "var/lib/systemd/deb-systemd-helper-enabled",
        }
    }

    fn state_file(&self, unit: &str) -> String {
        format!("{}/{}.dsh-also", self.state_dir(), unit.rsplit('/').next().unwrap_or(unit))
    }

    /// Adds the unit's links to its state file, and an empty file for each link.
    fn enable(&mut self, unit: &str) -> Result<(), InstallError> {
        let file = self.state_file(unit);
        let mut lines = self.text(&file)?.unwrap_or_default();
        let prefix = format!("/etc/systemd/{}/", self.instance);
        for link in self.links(unit)? {
            if !lines.lines().any(|line| line == link) {
                lines.push_str(&format!("{link}\n"));
            }
            let mark = format!("{}/{}", self.state_dir(), link.strip_prefix(&prefix).unwrap_or(&link));
            if self.tree.get(&place(&mark)?).is_none() {
                self.write(&mark, "")?;
            }
        }
        if lines.is_empty() { Ok(()) } else { self.write(&file, &lines) }
    }

    fn update_state(&mut self, unit: &str) -> Result<(), InstallError> {
        let lines: String = self.links(unit)?.iter().map(|link| format!("{link}\n")).collect();
        self.write(&self.state_file(unit), &lines)
    }

    fn write(&mut self, path: &str, text: &str) -> Result<(), InstallError> {
        put(self.tree, self.store, path, text.as_bytes(), Meta::root_owned(0o644, self.time))
    }

    fn text(&self, path: &str) -> Result<Option<String>, InstallError> {
        text(self.tree, self.store, path)
    }

    /// The paths of all links that enabling makes, those of units named by `Also=` first.
    fn links(&self, unit: &str) -> Result<Vec<String>, InstallError> {
        let mut links = Vec::new();
        // Units still to do come off the end; a unit is done once.
        let mut todo = vec![unit.to_owned()];
        let mut seen: Vec<String> = Vec::new();
        while let Some(unit) = todo.pop() {
            if seen.contains(&unit) {
                continue;
            }
            if let Some(text) = self.unit(&unit)? {
                let install = Install::read(&unit, &text);
                let (mut aliases, wants) = install.links(self.instance);
                aliases.extend(wants);
                links.splice(0..0, aliases);
                todo.extend(install.also);
            }
            seen.push(unit);
        }
        Ok(links)
    }

    fn unit(&self, unit: &str) -> Result<Option<String>, InstallError> {
        for dir in ["etc/systemd", "usr/lib/systemd"] {
            let found = self.text(&format!("{dir}/{}/{unit}", self.instance))?;
            if found.is_some() {
                return Ok(found);
            }
        }
        Ok(None)
    }
}

/// The section of a unit that says how it is enabled.
#[derive(Default)]
struct Install {
    /// As others want it: its name, or the default instance of a template.
    wanted: String,
    /// `x.target.wants`, `x.target.requires`.
    dirs: Vec<String>,
    aliases: Vec<String>,
    also: Vec<String>,
}

impl Install {
    fn read(name: &str, text: &str) -> Install {
        let mut found = Install { wanted: name.into(), ..Install::default() };
        for line in text.lines() {
            let Some((key, value)) = line.trim_start().split_once('=') else { continue };
            let values = || value.split_whitespace().map(unquote).map(str::to_owned);
            match key.to_ascii_lowercase().as_str() {
                "wantedby" => found.dirs.extend(values().map(|v| format!("{v}.wants"))),
                "requiredby" => found.dirs.extend(values().map(|v| format!("{v}.requires"))),
                "alias" => found.aliases.extend(values().filter(|v| v != name)),
                "also" => found.also.extend(values()),
                "defaultinstance" => {
                    if let Some((stem, end)) = name.split_once("@.") {
                        found.wanted = format!("{stem}@{}.{end}", unquote(value.trim()));
                    }
                }
                _ => {}
            }
        }
        found
    }

    fn links(&self, instance: &str) -> (Vec<String>, Vec<String>) {
        let top = format!("/etc/systemd/{instance}");
        let aliases = self.aliases.iter().map(|alias| format!("{top}/{alias}")).collect();
        let wants = self.dirs.iter().map(|dir| format!("{top}/{dir}/{}", self.wanted)).collect();
        (aliases, wants)
    }
}

fn unquote(value: &str) -> &str {
    let inner = |quote| value.strip_prefix(quote).and_then(|v: &str| v.strip_suffix(quote));
    inner('"').or_else(|| inner('\'')).unwrap_or(value)
}

/// `/etc/rcN.d/S01NAME` and `K01NAME` for the runlevels of the script's header, unless there are
/// links already.
fn init_links(
    tree: &mut Tree,
    store: &Store,
    script: &str,
    start: char,
    time: Time,
) -> Result<(), InstallError> {
    let Some(text) = text(tree, store, &format!("etc/init.d/{script}"))? else { return Ok(()) };
    let levels = |key: &str| -> Vec<String> {
        let header = text.split("### END INIT INFO").next().unwrap_or_default();
        let line = header.lines().find_map(|l| l.strip_prefix(key));
        line.into_iter().flat_map(str::split_whitespace).map(str::to_owned).collect()
    };
    let mut links = Vec::new();
    for (letter, key) in [(start, "# Default-Start:"), ('K', "# Default-Stop:")] {
        links.extend(levels(key).into_iter().map(|level| format!("etc/rc{level}.d/{letter}01{script}")));
    }
    for path in links {
        let path = place(&path)?;
        if tree.get(&path).is_none() {
            tree.make_parents(&path, &Meta::root_owned(0o755, time))?;
            let target = format!("../init.d/{script}").into_bytes().into();
            tree.insert(path, Inode { meta: Meta::root_owned(0o777, time), kind: Kind::Symlink(target) })?;
        }
    }
    Ok(())
}

fn text(tree: &Tree, store: &Store, path: &str) -> Result<Option<String>, InstallError> {
    let end = tree.resolve(&place(path)?, true);
    let object = end.and_then(|end| tree.get(&end)).and_then(Inode::object);
    let bytes = object.map(|object| store.read_object(object)).transpose()?;
    Ok(bytes.map(|bytes| String::from_utf8_lossy(&bytes).into_owned()))
}
