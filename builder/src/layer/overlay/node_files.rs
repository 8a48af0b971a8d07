//! What belongs to a node as a whole: its users, its name and time zone, and the lists under
//! `/etc/gt` that the initramfs and the checks read.
//! Must not know: keys and secrets themselves, machine-id, boot files.
//! Spec: docs/overlay-format.md, section "What a node gets".

use super::accounts::Accounts;
use super::view::View;
use super::{Context, Inode, Kind, Layer, Meta, Owners, RenderError, Result, Store, Tree, TreePath, people};
use crate::overlay::{Check, Dir, Overlay};
use crate::tree::Object;

const CHECKS: &str = "usr/lib/gt/checks";

/// Runs the checks of a node. `timeout` because a check that hangs has failed. With `each` no line of a check's
/// output can be taken for another check, and each has its file, which names the overlay.
const RUNNER: &str = r#"#!/bin/sh
# Runs every check of this node and says how each went; fails when one did. With the word `each` for programs:
# `ok FILE NAME` or `FAILED FILE NAME`, and the output of one that failed behind `| `.
passed=0
failed=0
for check in /usr/lib/gt/checks/*; do
    [ -x "$check" ] || continue
    name=$(sed -n '2s/^# //p' "$check")
    [ "$1" = each ] && file="${check##*/} " || file=
    if output=$(timeout 60 "$check" </dev/null 2>&1); then
        passed=$((passed + 1))
        printf 'ok %s%s\n' "$file" "$name"
    else
        failed=$((failed + 1))
        if [ "$file" ]; then
            printf 'FAILED %s%s\n' "$file" "$name"
            printf '%s\n' "$output" | sed 's/^/| /'
        else
            printf 'FAILED %s: %s\n' "$name" "$output"
        fi
    fi
done
printf 'gt-check: %d passed, %d failed\n' "$passed" "$failed"
[ "$failed" -eq 0 ]
"#;

/// The layer of the node itself, to be laid over all its overlays, which `below` holds already.
pub fn node_files(
    overlays: &[&Overlay],
    context: &Context,
    below: &Tree,
    store: &Store,
    epoch: i64,
) -> Result<Layer> {
    let mut view = View::new(below, store, epoch);
    people::add(context.users(), &mut view)?;
    let accounts = Accounts::read(&view)?;
    let owners = Owners { accounts: &accounts, context };
    name_and_zone(overlays, context, &mut view)?;
    let dirs = |list: fn(&Overlay) -> &[Dir]| overlays.iter().flat_map(move |o| list(o)).map(|dir| (dir, ""));
    write_list("persist", dirs(|o| &o.persist), &owners, &mut view)?;
    write_list("scratch", dirs(|o| &o.scratch), &owners, &mut view)?;
    let secrets = overlays.iter().flat_map(|o| &o.secrets).map(|s| (&s.file, s.name.as_str()));
    write_list("secrets", secrets, &owners, &mut view)?;
    for dir in overlays.iter().flat_map(|o| o.persist.iter().chain(&o.scratch)) {
        // A mount point must be there already: a root over NFS is read-only.
        if view.get(dir.path.tree(), true).is_none() {
            let inode = Inode::dir(owned(dir, &owners, &view)?);
            view.layer.insert(dir.path.tree().clone(), inode)?;
        }
    }
    write_checks(overlays, &mut view)?;
    Ok(view.layer)
}

/// Each where no overlay has its own.
fn name_and_zone(overlays: &[&Overlay], context: &Context, view: &mut View<'_>) -> Result<()> {
    let stated = |path: &str| {
        let path = path.as_bytes();
        overlays.iter().any(|o| {
            o.sources.iter().any(|s| s.path.as_bytes() == path)
                || o.files.iter().any(|f| f.path.tree().as_bytes() == path)
        })
    };
    if !stated("etc/hostname") {
        view.put_text("etc/hostname", 0o644, &format!("{}\n", context.host_name()))?;
    }
    if !stated("etc/timezone") {
        view.put_text("etc/timezone", 0o644, &format!("{}\n", context.timezone()))?;
    }
    if !stated("etc/localtime") {
        let zones = TreePath::new("usr/share/zoneinfo")?;
        let zone = zones.join(context.timezone().as_str())?;
        // A base without the database has UTC whatever the link says.
        if view.get(&zones, true).is_some() && view.get(&zone, true).is_none() {
            return Err(RenderError::TimeZone { zone: context.timezone().to_string() });
        }
        view.put_link(TreePath::new("etc/localtime")?, &zone.to_string())?;
    }
    Ok(())
}

fn owned(dir: &Dir, owners: &Owners<'_>, view: &View<'_>) -> Result<Meta> {
    let mut meta = Meta::root_owned(dir.mode.bits(), view.time());
    meta.uid = owners.uid(&dir.owner, &dir.place)?;
    meta.gid = owners.gid(&dir.group, &dir.place)?;
    Ok(meta)
}

/// `/etc/gt/<name>`: a line `mode uid gid path` each, or `mode uid gid name path` where things have
/// names; sorted by path. Always written, so that an empty list is told from a missing file.
fn write_list<'a>(
    name: &str,
    items: impl Iterator<Item = (&'a Dir, &'a str)>,
    owners: &Owners<'_>,
    view: &mut View<'_>,
) -> Result<()> {
    let mut lines = Vec::new();
    for (dir, label) in items {
        let Meta { mode, uid, gid, .. } = owned(dir, owners, view)?;
        let label = if label.is_empty() { String::new() } else { format!("{label} ") };
        lines.push((dir.path.tree(), format!("{mode:04o} {uid} {gid} {label}{}\n", dir.path)));
    }
    lines.sort();
    let text: String = lines.into_iter().map(|(_, line)| line).collect();
    view.put_text(&format!("etc/gt/{name}"), 0o644, &text)
}

/// The checks of a node in the order in which they run, each with the name of its file.
pub fn check_files<'a>(overlays: &[&'a Overlay]) -> Vec<(String, &'a Overlay, &'a Check)> {
    let all: Vec<(&Overlay, &Check)> =
        overlays.iter().flat_map(|&o| o.checks.iter().map(move |check| (o, check))).collect();
    // As many digits as the last number has, so that the shell's order is ours.
    let width = all.len().to_string().len().max(2);
    let name = |number: usize, overlay: &Overlay, check: &Check| {
        format!("{number:0width$}-{}-{}", overlay.name, slug(&check.name))
    };
    (1..).zip(all).map(|(number, (o, check))| (name(number, o, check), o, check)).collect()
}

fn write_checks(overlays: &[&Overlay], view: &mut View<'_>) -> Result<()> {
    for (name, _, check) in check_files(overlays) {
        let text = format!("#!/bin/sh\n# {}\n{}\n", check.name, check.command.trim_end());
        let kind = Kind::File(put(view, text.as_bytes())?);
        let meta = Meta::root_owned(0o755, view.time());
        view.layer.insert(TreePath::new(CHECKS)?.join(name)?, Inode { meta, kind })?;
    }
    let dir = Meta::root_owned(0o755, view.time());
    view.layer.insert(TreePath::new(CHECKS)?, Inode::dir(dir))?;
    view.put_text("usr/lib/gt/check", 0o755, RUNNER)
}

fn put(view: &View<'_>, bytes: &[u8]) -> Result<Object> {
    Ok(view.store.put_bytes(bytes)?)
}

/// A name made fit for a file: letters and digits, `-` between, at most 48 bytes.
fn slug(name: &str) -> String {
    let words = name.split(|c: char| !c.is_ascii_alphanumeric()).filter(|word| !word.is_empty());
    let mut slug = words.collect::<Vec<_>>().join("-").to_ascii_lowercase();
    slug.truncate(48);
    let slug = slug.trim_end_matches('-');
    if slug.is_empty() { "check".into() } else { slug.into() }
}
