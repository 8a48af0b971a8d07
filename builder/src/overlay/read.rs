//! From overlay.toml as written to a checked overlay; every problem becomes a finding and none
//! hides another.
//! Must not know: nodes, other overlays.
//! Spec: docs/overlay-format.md.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Display;
use std::path::Path;
use std::str::FromStr;

use super::{
    Artifact, Check, Content, Dir, Extract, FileEntry, FileKind, FileSource, Group, Mode, Origin, Overlay,
    Owner, Secret, User, values, wire,
};
use crate::cluster::{AccountName, OverlayName, UnitName, is_field};
use crate::diagnostic::{self, At, Place, Placed, Report, Source};

/// Reads the text of an overlay.toml. `sources` is what is in `files/`, `folder` the overlay's own.
/// What is wrong goes to the report and is left out of the overlay. Never panics, whatever the text.
pub fn parse(
    name: OverlayName,
    source: &Source,
    sources: Vec<FileSource>,
    folder: &Path,
    report: &mut Report,
) -> Overlay {
    let raw: wire::File = diagnostic::load(source, report).unwrap_or_default();
    let mut reader = Reader { source, folder, report };
    let files = reader.files(&raw.files, &sources);
    let (enable, disable, mask) = reader.units(&raw.units);
    Overlay {
        name,
        description: raw.description.as_ref().map_or(String::new(), |d| d.get().clone()),
        includes: reader.list(&raw.includes),
        provides: reader.list(&raw.provides),
        conflicts: reader.list(&raw.conflicts),
        packages: reader.list(&raw.packages),
        modules: reader.list(&raw.modules).into_iter().map(|m| m.value).collect(),
        config_txt: reader.lines(&raw.config_txt),
        cmdline: reader.words(&raw.cmdline),
        sysctl: reader.sysctl(&raw.sysctl),
        enable,
        disable,
        mask,
        listens: reader.list(&raw.listens).into_iter().map(|l| l.value).collect(),
        files,
        sources,
        remove: reader.list(&raw.remove).into_iter().map(|p| p.value).collect(),
        groups: raw.groups.iter().filter_map(|g| reader.group(g)).collect(),
        users: raw.users.iter().filter_map(|u| reader.user(u)).collect(),
        artifacts: raw.artifacts.iter().filter_map(|a| reader.artifact(a)).collect(),
        secrets: raw.secrets.iter().filter_map(|s| reader.secret(s)).collect(),
        persist: raw.persist.iter().filter_map(|p| reader.dir(p)).collect(),
        scratch: raw.scratch.iter().filter_map(|p| reader.dir(p)).collect(),
        checks: raw.checks.iter().filter_map(|c| reader.check(c)).collect(),
        folder: folder.to_path_buf(),
        place: Place::file(source.name().clone()),
    }
}

struct Reader<'a> {
    source: &'a Source,
    folder: &'a Path,
    report: &'a mut Report,
}

impl Reader<'_> {
    fn add<T>(&mut self, at: &At<T>, message: impl Into<String>) {
        self.report.add(self.source.place_of(at), message);
    }

    fn option<T: FromStr<Err: Display>>(&mut self, raw: &Option<At<String>>) -> Option<Placed<T>> {
        self.source.parse_option(raw, self.report)
    }

    /// A list in which nothing may stand twice.
    fn list<T: FromStr<Err: Display> + Ord + Clone + Display>(
        &mut self,
        raw: &[At<String>],
    ) -> Vec<Placed<T>> {
        let found = self.source.parse_all::<T>(raw, self.report);
        let mut seen = BTreeSet::new();
        for item in &found {
            if !seen.insert(item.value.clone()) {
                self.report.add(item.place.clone(), format!("`{}` is listed twice", item.value));
            }
        }
        found
    }

    fn lines(&mut self, raw: &[At<String>]) -> Vec<String> {
        for line in raw.iter().filter(|l| l.get().contains(char::is_control)) {
            self.add(line, "a line cannot hold a line break or a control character");
        }
        raw.iter().map(|line| line.get().clone()).collect()
    }

    fn words(&mut self, raw: &[At<String>]) -> Vec<String> {
        for word in raw.iter().filter(|w| w.get().is_empty() || w.get().contains(char::is_whitespace)) {
            self.add(word, format!("`{}` is not one word of a kernel command line", word.get()));
        }
        raw.iter().map(|word| word.get().clone()).collect()
    }

    fn sysctl(
        &mut self,
        raw: &BTreeMap<At<String>, At<wire::Scalar>>,
    ) -> BTreeMap<crate::cluster::SysctlKey, String> {
        let mut found = BTreeMap::new();
        for (key, value) in raw {
            if value.get().0.contains(char::is_control) {
                self.add(value, "a value cannot hold a line break or a control character");
            }
            let key = self.source.parse(key, self.report);
            found.extend(key.map(|key| (key.value, value.get().0.clone())));
        }
        found
    }

    #[expect(clippy::type_complexity, reason = "three lists of one kind")]
    fn units(
        &mut self,
        raw: &wire::Units,
    ) -> (Vec<Placed<UnitName>>, Vec<Placed<UnitName>>, Vec<Placed<UnitName>>) {
        let lists = [self.list(&raw.enable), self.list(&raw.disable), self.list(&raw.mask)];
        let mut seen = BTreeSet::new();
        for (i, list) in lists.iter().enumerate() {
            for unit in list {
                let twice = lists[..i].iter().flatten().any(|other| other.value == unit.value);
                if twice && seen.insert(&unit.value) {
                    let message =
                        format!("unit `{}` can only be one of enabled, disabled and masked", unit.value);
                    self.report.add(unit.place.clone(), message);
                }
            }
        }
        let [enable, disable, mask] = lists;
        (enable, disable, mask)
    }

    fn owner(&mut self, raw: &Option<At<wire::Scalar>>) -> Owner {
        let Some(at) = raw else { return Owner::root() };
        at.get().0.parse().unwrap_or_else(|e: crate::cluster::NameError| {
            self.add(at, e.to_string());
            Owner::root()
        })
    }

    fn files(&mut self, raw: &[wire::FileEntry], sources: &[FileSource]) -> Vec<FileEntry> {
        let mut seen = BTreeSet::new();
        let mut files = Vec::new();
        for raw in raw {
            let Some(entry) = self.file(raw) else { continue };
            if !seen.insert(entry.path.clone()) {
                self.report.add(entry.place.clone(), format!("`{}` is stated twice", entry.path));
                continue;
            }
            let source = sources.iter().find(|s| s.path == *entry.path.tree());
            self.file_and_source(&entry, source, raw);
            files.push(entry);
        }
        files
    }

    fn file(&mut self, raw: &wire::FileEntry) -> Option<FileEntry> {
        let mode = self.option(&raw.mode).map(|m| m.value);
        let owner = self.owner(&raw.owner);
        let group = self.owner(&raw.group);
        let mut xattrs = BTreeMap::new();
        for (name, value) in &raw.xattrs {
            if !values::is_xattr_name(name.get()) {
                let message = format!("`{}` is no attribute name, such as `user.note`", name.get());
                self.add(name, message);
            }
            let value = self.source.parse(value, self.report);
            xattrs.extend(value.map(|value| (name.get().clone(), value.value)));
        }
        let target = raw.target.as_ref().map(|t| t.get().clone());
        if let Some(at) = raw
            .target
            .as_ref()
            .filter(|t| t.get().is_empty() || t.get().len() > 4095 || t.get().contains('\0'))
        {
            self.add(at, "a link's target has 1 to 4095 bytes and no zero byte");
        }
        let path = self.option(&raw.path)?;
        Some(FileEntry {
            path: path.value,
            kind: raw.kind.unwrap_or_default(),
            template: raw.template,
            mode,
            owner,
            group,
            target,
            xattrs,
            place: path.place,
        })
    }

    /// What is stated must fit what is in `files/`.
    fn file_and_source(&mut self, entry: &FileEntry, source: Option<&FileSource>, raw: &wire::FileEntry) {
        let mut wrong = |message: String| self.report.add(entry.place.clone(), message);
        let path = &entry.path;
        match (entry.kind, source) {
            (FileKind::File, None) => {
                let hint = "put it there, or state `kind`";
                let message = format!("there is no file `files{path}`");
                return self.report.add_with_hint(entry.place.clone(), message, hint);
            }
            (FileKind::Directory | FileKind::Symlink, Some(_)) => {
                wrong(format!("`files{path}` is in the way"))
            }
            _ => {}
        }
        if (entry.kind == FileKind::Symlink) != entry.target.is_some() {
            wrong(format!("`{path}`: `target` and `kind = \"symlink\"` belong together"));
        }
        let is_link = entry.kind == FileKind::Symlink
            || matches!(source, Some(FileSource { content: Content::Symlink(_), .. }));
        if is_link && (raw.mode.is_some() || entry.template || !entry.xattrs.is_empty()) {
            wrong(format!("`{path}` is a symbolic link, which has no mode, template or attributes"));
        } else if entry.kind == FileKind::Directory && entry.template {
            wrong(format!("`{path}` is a directory, not a template"));
        } else if let Some(source) = source.filter(|_| entry.template) {
            self.template(&source.source);
        }
    }

    fn template(&mut self, path: &Path) {
        let Some(text) = Source::read(path, self.report) else { return };
        if let Err(e) = minijinja::Environment::new().template_from_named_str(text.name(), text.text()) {
            let place = Place::at(text.name().clone(), e.line().unwrap_or(1), 1);
            let detail = e.detail().map(str::to_owned).unwrap_or_else(|| e.kind().to_string());
            self.report.add(place, format!("template: {detail}"));
        }
    }

    fn group(&mut self, raw: &wire::Group) -> Option<Group> {
        let name = self.option(&raw.name)?;
        Some(Group { name: name.value, gid: *raw.gid.as_ref()?.get(), place: name.place })
    }

    fn user(&mut self, raw: &wire::User) -> Option<User> {
        let name = self.option::<AccountName>(&raw.name);
        let group = self.option(&raw.group).map(|g| g.value);
        let groups = self.list(&raw.groups).into_iter().map(|g| g.value).collect();
        let mut field = |at: &Option<At<String>>, default: &str, path: bool| {
            let text = at.as_ref().map_or(default, |at| at.get());
            let fits = is_field(text) && (!path || text.starts_with('/'));
            if let Some(at) = at.as_ref().filter(|_| !fits) {
                let wanted = if path {
                    "wanted is an absolute path without `:`"
                } else {
                    "`:` and line breaks cannot stand here"
                };
                self.add(at, format!("`{text}`: {wanted}"));
            }
            text.to_owned()
        };
        let home = field(&raw.home, "/nonexistent", true);
        let shell = field(&raw.shell, "/usr/sbin/nologin", true);
        let comment = field(&raw.comment, "", false);
        let name = name?;
        let uid = *raw.uid.as_ref()?.get();
        Some(User { name: name.value, uid, group, groups, home, shell, comment, place: name.place })
    }

    fn artifact(&mut self, raw: &wire::Artifact) -> Option<Artifact> {
        let name = self.option(&raw.name);
        let sha256 = self.option(&raw.sha256).map(|d| d.value);
        let licence = raw.licence.as_ref().map(|l| self.licence(l));
        let extract = raw.extract.iter().filter_map(|e| self.extract(e)).collect();
        let place =
            name.as_ref().map_or(Place::file(self.source.name().clone()), |n: &Placed<_>| n.place.clone());
        let origin = match (&raw.url, &raw.wheel, &raw.path) {
            (Some(url), None, None) => self.url(url),
            (None, Some(wheel), None) => origin_of_wheel(wheel),
            (None, None, Some(path)) => self.local(path, raw),
            _ => {
                let message = "an artifact has exactly one of `url`, `wheel` and `path`";
                self.report.add(place.clone(), message);
                return None;
            }
        };
        if raw.path.is_none() && raw.sha256.is_none() {
            self.report.add(place.clone(), "an artifact from elsewhere is pinned by its `sha256`");
        }
        if let Some(make) = raw.make.as_ref().filter(|_| raw.path.is_none()) {
            self.add(make, "`make` is for `path` alone");
        }
        let (name, origin) = (name?, origin?);
        let stated = raw.version.as_ref().map(|v| v.get().clone());
        Some(Artifact {
            name: name.value,
            version: stated.or_else(|| version_of(&origin)),
            origin,
            sha256,
            size: raw.size.as_ref().map(|s| *s.get()),
            licence: licence?,
            extract,
            place,
        })
    }

    /// A file in the overlay's folder, and the command that makes it.
    fn local(&mut self, at: &At<String>, raw: &wire::Artifact) -> Option<Origin> {
        let path = at.get();
        // Nothing from outside, so that an overlay is one folder, wherever it is copied to.
        if !crate::tree::TreePath::new(path)
            .is_ok_and(|tree| tree.as_bytes() == path.as_bytes() && !tree.is_root())
        {
            self.add(at, format!("`{path}` is no file in this overlay's folder"));
            return None;
        }
        if raw.sha256.is_some() || raw.size.is_some() {
            self.add(
                at,
                "a file that is made here is what it is: `sha256` and `size` are for `url` and `wheel`",
            );
        }
        if raw.make.is_none() {
            self.add(at, "`path` needs `make`, the command that makes the file");
        }
        Some(Origin::Local { file: self.folder.join(path), make: raw.make.as_ref()?.get().clone() })
    }

    /// The characters of SPDX 2.3, annex D; which licences there are is not ours to say.
    fn licence(&mut self, at: &At<String>) -> String {
        let text = at.get();
        let fits = |c: char| c.is_ascii_alphanumeric() || "-.+:() ".contains(c);
        if text.trim().is_empty() || !text.chars().all(fits) {
            self.add(at, format!("`{text}` is no SPDX expression, such as `Apache-2.0` or `MIT OR Zlib`"));
        }
        text.clone()
    }

    fn url(&mut self, at: &At<String>) -> Option<Origin> {
        let url = at.get();
        let known = ["https://", "http://", "file:///"].iter().any(|scheme| url.starts_with(scheme));
        if !known || url.contains(|c: char| c.is_whitespace() || c.is_control()) {
            self.add(at, format!("`{url}` is no URL: wanted is `https://…`, `http://…` or `file:///…`"));
            return None;
        }
        Some(Origin::Url(url.clone()))
    }

    fn extract(&mut self, raw: &wire::Extract) -> Option<Extract> {
        let to = self.option(&raw.to);
        let mode = self.option(&raw.mode).map(|m| m.value);
        let fits = |from: &str| {
            crate::tree::TreePath::new(from).is_ok_and(|path| !path.is_root() || from.ends_with('/'))
        };
        if let Some(from) = raw.from.as_ref().filter(|from| !fits(from.get())) {
            self.add(from, format!("`{}` is no path in an archive", from.get()));
        }
        Some(Extract { from: raw.from.as_ref().map(|f| f.get().clone()), to: to?.value, mode })
    }

    fn secret(&mut self, raw: &wire::Secret) -> Option<Secret> {
        let name = self.option(&raw.name);
        let path = self.option(&raw.path);
        let mode = self.option(&raw.mode).map(|m| m.value);
        let (owner, group) = (self.owner(&raw.owner), self.owner(&raw.group));
        let (name, path) = (name?, path?);
        let mode = mode.or_else(|| "0400".parse().ok())?;
        Some(Secret {
            name: name.value,
            file: Dir { path: path.value, owner, group, mode, place: path.place },
            derive: raw.derive,
            optional: raw.optional,
        })
    }

    fn dir(&mut self, raw: &wire::Place) -> Option<Dir> {
        let path = self.option(&raw.path);
        let mode = self.option::<Mode>(&raw.mode).map(|m| m.value);
        let (owner, group) = (self.owner(&raw.owner), self.owner(&raw.group));
        let path = path?;
        let mode = mode.or_else(|| "0755".parse().ok())?;
        Some(Dir { path: path.value, owner, group, mode, place: path.place })
    }

    fn check(&mut self, raw: &wire::Check) -> Option<Check> {
        let (name, command) = (raw.name.as_ref()?, raw.command.as_ref()?);
        if name.get().trim().is_empty() || name.get().contains(char::is_control) {
            self.add(name, "a check's name is one line that is not empty");
        }
        if command.get().trim().is_empty() || command.get().contains('\0') {
            self.add(command, "a check's command is not empty and has no zero byte");
        }
        Some(Check { name: name.get().clone(), command: command.get().clone() })
    }
}

/// The version in an address, for people: the last that looks like one, in the file's name or before it.
/// `…/v1.32.3%2Bk3s1/k3s-arm64` has 1.32.3+k3s1.
fn version_of(origin: &Origin) -> Option<String> {
    let url = match origin {
        Origin::Wheel { version, .. } => return Some(version.clone()),
        Origin::Local { .. } => return None,
        Origin::Url(url) => url.replace("%2B", "+").replace("%2b", "+"),
    };
    let path = url.split(['?', '#']).next()?.split_once("://")?.1.split_once('/')?.1.to_owned();
    let parts = path.rsplit('/').flat_map(|part| part.split(['-', '_']));
    parts
        .filter_map(|word| {
            let digits: String = word
                .trim_start_matches('v')
                .chars()
                .take_while(|c| c.is_ascii_digit() || *c == '.' || *c == '+' || word.contains('+'))
                .collect();
            let version = digits.trim_end_matches(['.', '+']);
            let numbers = version.split('+').next()?.split('.').filter(|n| n.parse::<u32>().is_ok()).count();
            (numbers >= 2).then(|| version.to_owned())
        })
        .next()
}

fn origin_of_wheel(raw: &wire::Wheel) -> Option<Origin> {
    let text = |at: &Option<At<String>>| at.as_ref().map(|at| at.get().clone());
    Some(Origin::Wheel {
        package: text(&raw.package)?,
        version: text(&raw.version)?,
        platform: text(&raw.platform)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_is_found_in_an_address() {
        for (url, want) in [
            ("https://h/consul/1.20.5/consul_1.20.5_linux_arm64.zip", Some("1.20.5")),
            ("https://h/download/v1.32.3%2Bk3s1/k3s-airgap-images-arm64.tar.zst", Some("1.32.3+k3s1")),
            ("https://h/v1.9.1/node_exporter-1.9.1.linux-arm64.tar.gz", Some("1.9.1")),
            ("https://h/cni-plugins-linux-arm64-v1.6.2.tgz", Some("1.6.2")),
            ("https://h/release/v1.32.7/bin/linux/arm64/kubelet?a=9.9", Some("1.32.7")),
            ("https://10.0.0.1/tool", None),
            ("https://h/arm64/k3s-arm64.bin", None),
            ("https://h", None),
        ] {
            assert_eq!(version_of(&Origin::Url(url.into())).as_deref(), want, "{url}");
        }
    }
}
