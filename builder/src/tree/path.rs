//! Paths inside a tree: relative, canonical, bytes. No path of this type can leave its tree.
//! Must not know: the machine's own file system.
//! Spec: POSIX.1-2017 section 3.271; name length 255 bytes as in ext4 and the kernel's NAME_MAX.

use std::cmp::Ordering;
use std::fmt;
use std::sync::Arc;

/// Longest name of one entry in bytes.
pub const NAME_MAX: usize = 255;
/// Longest path in bytes, as the kernel's PATH_MAX less the ending zero byte and the first slash.
pub const PATH_MAX: usize = 4094;

/// A path inside a tree. The empty path is the tree's root.
///
/// Holds no leading or trailing slash, no empty, `.` or `..` component and no zero byte. The order
/// is that of a depth-first walk with the names of each directory sorted by byte: `a`, `a/b`, `a.b`.
/// Shared, because each layer and node copies the tree that it is laid on.
#[derive(Clone, PartialEq, Eq, Hash, Default)]
pub struct TreePath(Arc<[u8]>);

/// Bytes that are no [`TreePath`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PathError {
    /// A component is `..`, so the path may lead out of the tree.
    #[error("path `{path}` has a `..` component, which could leave the tree")]
    Parent {
        /// The path, made printable.
        path: String,
    },
    /// A zero byte.
    #[error("path `{path}` holds a zero byte")]
    Zero {
        /// The path, made printable.
        path: String,
    },
    /// A name over [`NAME_MAX`] or a path over [`PATH_MAX`] bytes.
    #[error("path `{path}` is too long: names have at most 255 bytes, paths at most 4094")]
    TooLong {
        /// The path's first bytes, made printable.
        path: String,
    },
}

impl TreePath {
    /// The tree's root.
    pub fn root() -> TreePath {
        TreePath::default()
    }

    /// Reads a path as archives and people write it: leading `/` and `./`, doubled and trailing
    /// slashes and `.` components are dropped. `..` is refused rather than resolved.
    pub fn new(text: impl AsRef<[u8]>) -> Result<TreePath, PathError> {
        let text = text.as_ref();
        let shown = || printable(&text[..text.len().min(300)]);
        if text.contains(&0) {
            return Err(PathError::Zero { path: shown() });
        }
        let mut path = Vec::with_capacity(text.len());
        for name in text.split(|&b| b == b'/') {
            match name {
                b"" | b"." => continue,
                b".." => return Err(PathError::Parent { path: shown() }),
                _ if name.len() > NAME_MAX => return Err(PathError::TooLong { path: shown() }),
                _ => {}
            }
            if !path.is_empty() {
                path.push(b'/');
            }
            path.extend_from_slice(name);
        }
        if path.len() > PATH_MAX {
            return Err(PathError::TooLong { path: shown() });
        }
        Ok(TreePath(path.into()))
    }

    /// The bytes, without a leading slash.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// True for the tree's root.
    pub fn is_root(&self) -> bool {
        self.0.is_empty()
    }

    /// The directory that holds this entry; `None` for the root.
    pub fn parent(&self) -> Option<TreePath> {
        if self.is_root() {
            return None;
        }
        let end = self.0.iter().rposition(|&b| b == b'/').unwrap_or(0);
        Some(TreePath(self.0[..end].into()))
    }

    /// The last component; empty for the root.
    pub fn name(&self) -> &[u8] {
        let start = self.0.iter().rposition(|&b| b == b'/').map_or(0, |at| at + 1);
        &self.0[start..]
    }

    /// This path with one or more components added.
    pub fn join(&self, more: impl AsRef<[u8]>) -> Result<TreePath, PathError> {
        let mut path = self.0.to_vec();
        path.push(b'/');
        path.extend_from_slice(more.as_ref());
        TreePath::new(path)
    }

    /// The components from the outermost to the last.
    pub fn components(&self) -> impl DoubleEndedIterator<Item = &[u8]> {
        self.0.split(|&b| b == b'/').filter(|c| !c.is_empty())
    }

    /// True when `self` is `other` or lies below it.
    pub fn starts_with(&self, other: &TreePath) -> bool {
        other.is_root()
            || self.0.strip_prefix(&*other.0).is_some_and(|rest| rest.first().is_none_or(|&b| b == b'/'))
    }

    /// How many components: 0 for the root.
    pub fn depth(&self) -> usize {
        self.components().count()
    }
}

/// Bytes made safe to print: what is not UTF-8, and control characters, as `\xNN`.
pub fn printable(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        for c in chunk.valid().chars() {
            match c {
                '\\' => text.push_str("\\\\"),
                c if c.is_control() => {
                    let mut utf8 = [0; 4];
                    for byte in c.encode_utf8(&mut utf8).bytes() {
                        text.push_str(&format!("\\x{byte:02x}"));
                    }
                }
                c => text.push(c),
            }
        }
        for byte in chunk.invalid() {
            text.push_str(&format!("\\x{byte:02x}"));
        }
    }
    text
}

/// Compares as a depth-first walk would meet them: `/` sorts before every other byte. A zero byte
/// cannot occur, so it stands for the slash.
impl Ord for TreePath {
    fn cmp(&self, other: &TreePath) -> Ordering {
        // Neighbours share most of their bytes, so those are passed over eight at a time.
        let words = self.0.chunks_exact(8).zip(other.0.chunks_exact(8));
        let common = 8 * words.take_while(|(one, two)| one == two).count();
        let key = |b: &u8| if *b == b'/' { 0 } else { *b };
        self.0[common..].iter().map(key).cmp(other.0[common..].iter().map(key))
    }
}

impl PartialOrd for TreePath {
    fn partial_cmp(&self, other: &TreePath) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// With a leading slash, unprintable bytes as `\xNN`.
impl fmt::Display for TreePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "/{}", printable(&self.0))
    }
}

impl fmt::Debug for TreePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl TryFrom<&str> for TreePath {
    type Error = PathError;
    fn try_from(text: &str) -> Result<TreePath, PathError> {
        TreePath::new(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn path(text: &str) -> TreePath {
        TreePath::new(text).unwrap()
    }

    #[test]
    fn every_spelling_of_a_path_is_one_path() {
        for (given, want) in [
            ("", "/"),
            ("/", "/"),
            (".", "/"),
            ("./", "/"),
            ("./etc/passwd", "/etc/passwd"),
            ("//etc//passwd/", "/etc/passwd"),
            ("etc/./x", "/etc/x"),
            ("...", "/..."),
        ] {
            assert_eq!(path(given).to_string(), want, "given {given:?}");
        }
    }

    #[test]
    fn paths_that_leave_the_tree_or_cannot_exist_are_refused() {
        for given in ["..", "../x", "a/../b", "a/..", "/.."] {
            assert!(matches!(TreePath::new(given), Err(PathError::Parent { .. })), "given {given:?}");
        }
        assert!(matches!(TreePath::new(b"a\0b"), Err(PathError::Zero { .. })));
        assert!(TreePath::new("x".repeat(255)).is_ok());
        assert!(matches!(TreePath::new("x".repeat(256)), Err(PathError::TooLong { .. })));
        assert!(matches!(TreePath::new("abc/".repeat(2000)), Err(PathError::TooLong { .. })));
    }

    #[test]
    fn the_order_is_that_of_a_walk() {
        let mut paths = ["a.b", "b", "a/b/c", "a", "a/b", "a-", "", "a/b.c"].map(path);
        paths.sort();
        let text: Vec<String> = paths.iter().map(|p| p.to_string()).collect();
        assert_eq!(text, ["/", "/a", "/a/b", "/a/b/c", "/a/b.c", "/a-", "/a.b", "/b"]);
    }

    #[test]
    fn parents_names_and_prefixes() {
        let p = path("usr/lib/x.so");
        assert_eq!(p.parent(), Some(path("usr/lib")));
        assert_eq!(path("usr").parent(), Some(TreePath::root()));
        assert_eq!(TreePath::root().parent(), None);
        assert_eq!(p.name(), b"x.so");
        assert!(p.starts_with(&path("usr/lib")) && p.starts_with(&TreePath::root()));
        assert!(!path("usr/lib64").starts_with(&path("usr/lib")));
        assert_eq!(TreePath::root().join("a/b").unwrap(), path("a/b"));
        assert!(p.join("../y").is_err());
    }

    #[test]
    fn bytes_that_are_no_text_are_shown_escaped() {
        assert_eq!(TreePath::new(b"a\xff\n\\").unwrap().to_string(), r"/a\xff\x0a\\");
    }

    proptest! {
        #[test]
        fn a_path_read_again_is_the_same(bytes in proptest::collection::vec(any::<u8>(), 0..60)) {
            if let Ok(p) = TreePath::new(&bytes) {
                prop_assert_eq!(TreePath::new(p.as_bytes()).unwrap(), p.clone());
                prop_assert!(p.components().all(|c| c != b".." && c != b"." && !c.is_empty()));
                if let Some(parent) = p.parent() {
                    prop_assert!(parent < p && p.starts_with(&parent));
                    prop_assert_eq!(parent.join(p.name()).unwrap(), p);
                }
            }
        }
    }
}
