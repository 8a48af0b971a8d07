//! What differs between two trees, path by path and field by field.
//! Must not know: why they differ.
//! Spec: none; the fields are those of [`Meta`] and [`Kind`].

use super::{Inode, Kind, Meta, Tree, TreePath};

/// One path at which two trees differ.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// Only the second tree has it.
    Added(TreePath),
    /// Only the first tree has it.
    Removed(TreePath),
    /// Both have it, with other values in these fields.
    Changed(TreePath, Vec<Field>),
}

/// A field with its two values, made printable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Field {
    /// `type`, `mode`, `owner`, `group`, `mtime`, `content`, `target`, `device`, `links`, or
    /// `xattr NAME`.
    pub name: String,
    /// In the first tree; empty when it has none.
    pub old: String,
    /// In the second tree; empty when it has none.
    pub new: String,
}

impl Change {
    /// The path in question.
    pub fn path(&self) -> &TreePath {
        match self {
            Change::Added(path) | Change::Removed(path) | Change::Changed(path, _) => path,
        }
    }
}

/// All differences in canonical order.
pub fn diff(old: &Tree, new: &Tree) -> Vec<Change> {
    let mut changes = Vec::new();
    let mut a = old.iter().peekable();
    let mut b = new.iter().peekable();
    loop {
        match (a.peek(), b.peek()) {
            (None, None) => return changes,
            (Some((p, ..)), None) => changes.push(Change::Removed((*p).clone())),
            (None, Some((p, ..))) => changes.push(Change::Added((*p).clone())),
            (Some((p, ..)), Some((q, ..))) if p < q => changes.push(Change::Removed((*p).clone())),
            (Some((p, ..)), Some((q, ..))) if p > q => changes.push(Change::Added((*q).clone())),
            (Some((p, i, x)), Some((_, j, y))) => {
                let mut fields = fields(x, y);
                push(&mut fields, "links", &old.links(*i), &new.links(*j));
                if !fields.is_empty() {
                    changes.push(Change::Changed((*p).clone(), fields));
                }
            }
        }
        let order = match (a.peek(), b.peek()) {
            (Some((p, ..)), Some((q, ..))) => p.cmp(q),
            (Some(_), None) => std::cmp::Ordering::Less,
            _ => std::cmp::Ordering::Greater,
        };
        if order.is_le() {
            a.next();
        }
        if order.is_ge() {
            b.next();
        }
    }
}

fn fields(old: &Inode, new: &Inode) -> Vec<Field> {
    let mut out = Vec::new();
    push(&mut out, "type", &old.kind.noun(), &new.kind.noun());
    let (x, y): (&Meta, &Meta) = (&old.meta, &new.meta);
    push(&mut out, "mode", &format!("{:04o}", x.mode), &format!("{:04o}", y.mode));
    push(&mut out, "owner", &x.uid, &y.uid);
    push(&mut out, "group", &x.gid, &y.gid);
    let time = |m: &Meta| format!("{}.{:09}", m.mtime.sec, m.mtime.nsec);
    push(&mut out, "mtime", &time(x), &time(y));
    push(&mut out, label(&new.kind), &content(&old.kind), &content(&new.kind));
    for name in x.xattrs.keys().chain(y.xattrs.keys().filter(|n| !x.xattrs.contains_key(*n))) {
        let value = |m: &Meta| m.xattrs.get(name).map_or(String::new(), |v| super::printable(v));
        push(&mut out, &format!("xattr {}", super::printable(name)), &value(x), &value(y));
    }
    out
}

fn label(kind: &Kind) -> &'static str {
    match kind {
        Kind::Symlink(_) => "target",
        Kind::Block { .. } | Kind::Char { .. } => "device",
        _ => "content",
    }
}

fn content(kind: &Kind) -> String {
    match kind {
        Kind::File(object) => format!("{} ({} bytes)", object.digest, object.size),
        Kind::Symlink(target) => super::printable(target),
        Kind::Block { major, minor } | Kind::Char { major, minor } => format!("{major}:{minor}"),
        Kind::Dir | Kind::Fifo | Kind::Socket => String::new(),
    }
}

fn push(out: &mut Vec<Field>, name: &str, old: &impl ToString, new: &impl ToString) {
    let (old, new) = (old.to_string(), new.to_string());
    if old != new {
        out.push(Field { name: name.into(), old, new });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tree::tests::{any_tree, dir, file, path, tree};
    use proptest::prelude::*;

    #[test]
    fn differences_name_path_and_field() {
        let old = tree(&[("a", file(b"1")), ("b", dir()), ("c", file(b""))]);
        let mut new = tree(&[("a", file(b"2")), ("b", dir()), ("d", file(b""))]);
        new.meta_mut(&path("b")).unwrap().mode = 0o700;
        let changes = diff(&old, &new);
        assert_eq!(changes.len(), 4);
        let Change::Changed(p, fields) = &changes[0] else { panic!("{changes:?}") };
        assert_eq!((p, fields[0].name.as_str()), (&path("a"), "content"));
        let Change::Changed(_, fields) = &changes[1] else { panic!("{changes:?}") };
        assert_eq!((fields[0].old.as_str(), fields[0].new.as_str()), ("0755", "0700"));
        assert_eq!(changes[2], Change::Removed(path("c")));
        assert_eq!(changes[3], Change::Added(path("d")));
    }

    proptest! {
        #[test]
        fn equal_trees_do_not_differ(t in any_tree()) {
            prop_assert_eq!(diff(&t, &t.clone()), vec![]);
        }

        #[test]
        fn the_two_directions_mirror_each_other(a in any_tree(), b in any_tree()) {
            prop_assert_eq!(diff(&a, &b).len(), diff(&b, &a).len());
        }
    }
}
