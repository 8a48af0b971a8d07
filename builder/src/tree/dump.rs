//! The canonical form of a tree: text, one line an entry, in the order of a walk. A tree's digest is
//! the digest of this text, so two trees that differ can be compared with `diff`.
//! Must not know: where trees are kept.
//! Spec: below.
//!
//! ```text
//! gt-tree 1
//! / d 0755 0 0 0.000000000 -
//! /etc/motd f 0644 0 0 1700000000.5 sha256:… 17
//! /etc/copy h /etc/motd
//! /bin l 0777 0 0 0.0 usr/bin
//! /dev/sda b 0660 0 6 0.0 8:0 user.note=hello
//! ```
//!
//! Fields are separated by one space: path, type (`d f l b c p s`, or `h` for a further name of the
//! inode that the named path has), mode, uid, gid, mtime, then what the type has (`-` for none),
//! then `name=value` for each extended attribute in byte order. A file has its digest, its size and,
//! if there are any, `holes=OFFSET+LEN,…`. Bytes outside `!` to `~`, and `\` and `=`, are written
//! `\xNN`.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::io::{BufRead, Read as _};

use super::{Hole, Inode, InodeId, Kind, Meta, Object, Time, Tree, TreePath};
use crate::digest::Digest;

const HEADER: &str = "gt-tree 1";
/// A line holds a path, a link target and attributes; ext4 and XFS keep at most 64 KiB of
/// attributes with an inode, and every byte takes at most four here.
const LINE_MAX: usize = 512 * 1024;

/// A dump that is none. `line` counts from 1.
#[derive(Debug, thiserror::Error)]
#[error("line {line}: {what}")]
pub struct DumpError {
    /// The line that is wrong.
    pub line: usize,
    /// What is wrong with it.
    pub what: String,
}

/// The canonical text.
pub fn write(tree: &Tree) -> String {
    let mut out = String::with_capacity(tree.len() * 130);
    out.push_str(HEADER);
    out.push('\n');
    let mut first: HashMap<InodeId, &TreePath> = HashMap::new();
    for (path, id, inode) in tree.iter() {
        escape(&mut out, b"/");
        escape(&mut out, path.as_bytes());
        if let Some(first) = first.get(&id) {
            out.push_str(" h /");
            escape(&mut out, first.as_bytes());
        } else {
            write_inode(&mut out, inode);
            if tree.links(id) > 1 {
                first.insert(id, path);
            }
        }
        out.push('\n');
    }
    out
}

/// The tree's digest: SHA-256 of [`write`]'s text.
pub fn digest(tree: &Tree) -> Digest {
    Digest::of(write(tree).as_bytes())
}

fn write_inode(out: &mut String, inode: &Inode) {
    let Meta { mode, uid, gid, mtime, xattrs } = &inode.meta;
    let letter = match inode.kind {
        Kind::Dir => 'd',
        Kind::File(_) => 'f',
        Kind::Symlink(_) => 'l',
        Kind::Block { .. } => 'b',
        Kind::Char { .. } => 'c',
        Kind::Fifo => 'p',
        Kind::Socket => 's',
    };
    // By hand, for `write!` took three times as long, and a build writes each tree several times.
    out.push(' ');
    out.push(letter);
    out.push(' ');
    number(out, (*mode).into(), 8, 4);
    for id in [uid, gid] {
        out.push(' ');
        number(out, (*id).into(), 10, 1);
    }
    out.push_str(if mtime.sec < 0 { " -" } else { " " });
    number(out, mtime.sec.unsigned_abs(), 10, 1);
    out.push('.');
    number(out, mtime.nsec.into(), 10, 9);
    out.push(' ');
    match &inode.kind {
        Kind::File(object) => {
            object.digest.push_to(out);
            out.push(' ');
            number(out, object.size, 10, 1);
            for (i, hole) in object.holes.iter().enumerate() {
                out.push_str(if i == 0 { " holes=" } else { "," });
                number(out, hole.offset, 10, 1);
                out.push('+');
                number(out, hole.len, 10, 1);
            }
        }
        Kind::Symlink(target) => escape(out, target),
        Kind::Block { major, minor } | Kind::Char { major, minor } => {
            number(out, (*major).into(), 10, 1);
            out.push(':');
            number(out, (*minor).into(), 10, 1);
        }
        Kind::Dir | Kind::Fifo | Kind::Socket => out.push('-'),
    }
    for (name, value) in xattrs {
        out.push(' ');
        escape(out, name);
        out.push('=');
        escape(out, value);
    }
}

/// Adds a number with at least `width` digits.
fn number(out: &mut String, mut value: u64, radix: u64, width: usize) {
    // 22 octal digits have 64 bits.
    let mut digits = [b'0'; 22];
    let mut at = digits.len();
    while value > 0 || digits.len() - at < width {
        at -= 1;
        #[expect(clippy::cast_possible_truncation, reason = "less than the radix")]
        let digit = (value % radix) as u8;
        digits[at] = b'0' + digit;
        value /= radix;
    }
    out.extend(digits[at..].iter().map(|&digit| char::from(digit)));
}

fn escape(out: &mut String, bytes: &[u8]) {
    let special = |b: &u8| matches!(b, b'\\' | b'=' | 0..=b' ' | 0x7f..);
    for part in bytes.chunk_by(|a, b| special(a) == special(b)) {
        match std::str::from_utf8(part) {
            Ok(plain) if !special(&part[0]) => out.push_str(plain),
            _ => part.iter().for_each(|b| {
                // Writing to a String cannot fail.
                let _ = write!(out, "\\x{b:02x}");
            }),
        }
    }
}

/// Reads what [`write`] wrote. Any other text is refused, also one that differs only in spelling:
/// a tree has one text.
pub fn read(text: &[u8]) -> Result<Tree, DumpError> {
    let tree = parse(text)?;
    if write(&tree).as_bytes() != text {
        let line = text.iter().filter(|&&b| b == b'\n').count();
        return Err(DumpError { line, what: "not in canonical form".into() });
    }
    Ok(tree)
}

/// As [`read`], for a text that is known to be one that [`write`] wrote, such as one whose digest was
/// recorded then: another spelling of a tree is not noticed.
pub fn parse(text: &[u8]) -> Result<Tree, DumpError> {
    let mut tree: Option<Tree> = None;
    let mut lines = Lines::new(text);
    while let Some((path, line)) = lines.next().transpose()? {
        let put = |tree: &mut Option<Tree>| match (tree, line) {
            (None, Line::Inode(inode)) if path.is_root() && inode.is_dir() => Ok(Some(Tree::new(inode.meta))),
            (None, _) => Err("the first entry must be the root directory".into()),
            (Some(tree), Line::Inode(inode)) => {
                tree.insert(path, inode).map(|_| None).map_err(|e| e.to_string())
            }
            (Some(tree), Line::Link(first)) => {
                let id = tree.id(&first).ok_or_else(|| format!("`{first}` does not exist"))?;
                tree.link(path, id).map(|()| None).map_err(|e| e.to_string())
            }
        };
        if let Some(root) = put(&mut tree).map_err(|what| lines.fail(what))? {
            tree = Some(root);
        }
    }
    tree.ok_or_else(|| lines.fail("no root directory".into()))
}

/// What one line says of its path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Line {
    /// An inode under its first name.
    Inode(Inode),
    /// A further name of the inode that this path has.
    Link(TreePath),
}

/// The lines of a dump one after another, in the order of a walk, for readers to whom a [`Tree`] is
/// too big. Each line is checked by itself and against the order; that parents exist, that there is
/// a root and that the form is canonical is for the reader, or follows from the text's digest.
#[derive(Debug)]
pub struct Lines<R> {
    reader: R,
    number: usize,
    last: Option<TreePath>,
    line: Vec<u8>,
}

impl<R: BufRead> Lines<R> {
    /// Begins at the header.
    pub fn new(reader: R) -> Lines<R> {
        Lines { reader, number: 0, last: None, line: Vec::new() }
    }

    /// A fault of the line read last.
    pub fn fail(&self, what: String) -> DumpError {
        DumpError { line: self.number, what }
    }

    /// What the bytes are read from.
    pub fn into_inner(self) -> R {
        self.reader
    }

    fn read(&mut self) -> Result<Option<(TreePath, Line)>, String> {
        loop {
            self.line.clear();
            // One byte more than a line may have tells a long one from one that just fits.
            let mut limited = (&mut self.reader).take(LINE_MAX as u64 + 1);
            if limited.read_until(b'\n', &mut self.line).map_err(|e| e.to_string())? == 0 {
                return match self.number {
                    0 => Err(format!("`{HEADER}` is wanted, not an empty text")),
                    _ => Ok(None),
                };
            }
            self.number += 1;
            if self.line.len() > LINE_MAX {
                return Err("longer than any entry can be".into());
            }
            let line = self.line.strip_suffix(b"\n").ok_or("cut off")?;
            let line = std::str::from_utf8(line).map_err(|_| "not ASCII")?;
            if self.number > 1 {
                let (path, line) = read_line(line)?;
                if self.last.as_ref().is_some_and(|last| *last >= path) {
                    return Err(format!("`{path}` is out of order"));
                }
                self.last = Some(path.clone());
                return Ok(Some((path, line)));
            }
            if line != HEADER {
                return Err(format!("`{HEADER}` is wanted, not `{line}`"));
            }
        }
    }
}

impl<R: BufRead> Iterator for Lines<R> {
    type Item = Result<(TreePath, Line), DumpError>;

    fn next(&mut self) -> Option<Self::Item> {
        self.read().map_err(|what| self.fail(what)).transpose()
    }
}

fn read_line(line: &str) -> Result<(TreePath, Line), String> {
    let mut fields = line.split(' ');
    let mut field = |what: &str| fields.next().ok_or_else(|| format!("no {what}"));
    let path = TreePath::new(unescape(field("path")?)?).map_err(|e| e.to_string())?;
    let letter = field("type")?;
    if letter == "h" {
        let first = TreePath::new(unescape(field("link target")?)?).map_err(|e| e.to_string())?;
        return Ok((path, Line::Link(first)));
    }
    let mode = u16::from_str_radix(field("mode")?, 8).ok().filter(|m| *m <= 0o7777).ok_or("bad mode")?;
    let uid = field("uid")?.parse().map_err(|_| "bad uid")?;
    let gid = field("gid")?.parse().map_err(|_| "bad gid")?;
    let (sec, nsec) = field("mtime")?.split_once('.').ok_or("bad mtime")?;
    let mtime = Time {
        sec: sec.parse().map_err(|_| "bad mtime")?,
        nsec: nsec.parse().ok().filter(|n| *n < 1_000_000_000).ok_or("bad mtime")?,
    };
    let payload = field("content")?;
    let mut rest: Vec<&str> = fields.collect();
    let kind = read_kind(letter, payload, &mut rest)?;
    let mut meta = Meta { mode, uid, gid, mtime, ..Meta::default() };
    for attribute in rest {
        let (name, value) = attribute.split_once('=').ok_or("an attribute without `=`")?;
        meta.xattrs.insert(unescape(name)?, unescape(value)?);
    }
    Ok((path, Line::Inode(Inode { meta, kind })))
}

fn read_kind(letter: &str, payload: &str, rest: &mut Vec<&str>) -> Result<Kind, String> {
    Ok(match letter {
        "d" => Kind::Dir,
        "p" => Kind::Fifo,
        "s" => Kind::Socket,
        "l" => match unescape(payload)? {
            target if target.is_empty() || target.len() > 4095 || target.contains(&0) => {
                return Err("bad link target".into());
            }
            target => Kind::Symlink(target.into()),
        },
        "b" | "c" => {
            let (major, minor) = payload.split_once(':').ok_or("bad device number")?;
            let number = |text: &str, limit: u32| text.parse().ok().filter(|n| *n < limit);
            let (Some(major), Some(minor)) = (number(major, 1 << 12), number(minor, 1 << 20)) else {
                return Err("bad device number".into());
            };
            if letter == "b" { Kind::Block { major, minor } } else { Kind::Char { major, minor } }
        }
        "f" => {
            if rest.is_empty() {
                return Err("no size".into());
            }
            let size = rest.remove(0).parse().map_err(|_| "bad size")?;
            let holes = match rest.first().and_then(|f| f.strip_prefix("holes=")) {
                Some(list) => {
                    rest.remove(0);
                    list.split(',').map(read_hole).collect::<Option<_>>().ok_or("bad hole")?
                }
                None => Box::default(),
            };
            let digest = payload.parse().map_err(|e| format!("{e}"))?;
            check_holes(&holes, size)?;
            Kind::File(Object { digest, size, holes })
        }
        other => return Err(format!("type `{other}` is unknown")),
    })
}

fn read_hole(text: &str) -> Option<Hole> {
    let (offset, len) = text.split_once('+')?;
    Some(Hole { offset: offset.parse().ok()?, len: len.parse().ok()? })
}

/// Writers rely on holes that ascend, lie on the grain and stay inside the file.
fn check_holes(holes: &[Hole], size: u64) -> Result<(), String> {
    let mut end = 0;
    for hole in holes {
        let next = hole.offset.checked_add(hole.len).filter(|n| *n <= size).ok_or("hole beyond the end")?;
        let grain = hole.offset % super::HOLE_GRAIN == 0
            && (hole.len % super::HOLE_GRAIN == 0 || next == size)
            && hole.len >= super::HOLE_MIN;
        if !grain || hole.offset < end {
            return Err("holes overlap or are off the grain".into());
        }
        end = next;
    }
    Ok(())
}

fn unescape(text: &str) -> Result<Vec<u8>, String> {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, tail)) = rest.split_first() {
        rest = tail;
        if first != b'\\' {
            out.push(first);
            continue;
        }
        let hex = rest.split_off(..3).filter(|hex| hex[0] == b'x').ok_or("bad escape")?;
        let hex = std::str::from_utf8(&hex[1..]).map_err(|_| "bad escape")?;
        out.push(u8::from_str_radix(hex, 16).map_err(|_| "bad escape")?);
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tree::tests::{any_tree, dir, file, path, symlink, tree};
    use proptest::prelude::*;

    #[test]
    fn the_text_is_as_documented() {
        let mut t = tree(&[("bin", symlink("usr/bin")), ("etc/a b", file(b"abc")), ("z", dir())]);
        let id = t.id(&path("etc/a b")).unwrap();
        t.link(path("zz"), id).unwrap();
        t.meta_mut(&path("z")).unwrap().xattrs.insert(b"user.n".to_vec(), b"a=\x00".to_vec());
        assert_eq!(
            write(&t),
            "gt-tree 1\n\
             / d 0755 0 0 7.000000000 -\n\
             /bin l 0777 0 0 7.000000000 usr/bin\n\
             /etc d 0755 0 0 7.000000000 -\n\
             /etc/a\\x20b f 0644 0 0 7.000000000 \
             sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad 3\n\
             /z d 0755 0 0 7.000000000 - user.n=a\\x3d\\x00\n\
             /zz h /etc/a\\x20b\n"
        );
    }

    #[test]
    fn a_text_with_a_fault_is_refused_with_its_line() {
        let good = write(&tree(&[("a", file(b"abc")), ("b", dir())]));
        for (find, replace, line, what) in [
            ("gt-tree 1", "gt-tree 2", 1, "wanted"),
            ("/ d", "/x d", 2, "first entry"),
            ("0755", "17777", 2, "bad mode"),
            ("7.000000000", "7", 2, "bad mtime"),
            ("/a f", "/../a f", 3, "`..`"),
            ("/a f", "/a q", 3, "type `q`"),
            (" 3\n", " 3 holes=0+4096\n", 3, "hole"),
            ("/b d", "/a/b d", 4, "not a directory"),
            ("/b d", "/0 d", 4, "out of order"),
            ("/b d 0755", "/b d 755", 4, "canonical"),
        ] {
            let error = read(good.replacen(find, replace, 1).as_bytes()).unwrap_err();
            assert_eq!(error.line, line, "{find} -> {replace}: {error}");
            assert!(error.what.contains(what), "{find} -> {replace}: {error}");
        }
        assert!(read(&good.as_bytes()[..good.len() - 1]).unwrap_err().what.contains("cut off"));
        assert!(read(b"").is_err());
    }

    proptest! {
        #[test]
        fn any_tree_is_read_back(t in any_tree()) {
            prop_assert_eq!(read(write(&t).as_bytes()).unwrap(), t);
        }

        #[test]
        fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let mut text = b"gt-tree 1\n/ d 0755 0 0 7.000000000 -\n".to_vec();
            text.extend(bytes);
            let _ = read(&text);
        }
    }
}
