//! What an overlay has in its `files/` folder.
//! Must not know: what overlay.toml says about it.
//! Spec: docs/overlay-format.md; of all modes git keeps the owner's execute bit alone.

use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use crate::diagnostic::{Place, Report};
use crate::tree::TreePath;

/// One file or link of `files/`. Directories are implied by what is in them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileSource {
    /// The path on the node.
    pub path: TreePath,
    /// Where it is on this machine.
    pub source: PathBuf,
    /// What it is.
    pub content: Content,
}

/// What an entry of `files/` is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Content {
    /// A regular file.
    File {
        /// Git's executable bit.
        executable: bool,
    },
    /// A symbolic link with its target as it is.
    Symlink(Vec<u8>),
}

/// All entries below `folder` in the order of their paths; none when there is no such folder.
pub(super) fn list(folder: &Path, report: &mut Report) -> Vec<FileSource> {
    let mut found = Vec::new();
    if !folder.exists() {
        return found;
    }
    let mut todo = vec![(folder.to_path_buf(), TreePath::root())];
    while let Some((dir, at)) = todo.pop() {
        let entries = fs::read_dir(&dir).and_then(|entries| entries.collect::<Result<Vec<_>, _>>());
        let entries = match entries {
            Ok(entries) => entries,
            Err(e) => {
                report.add(Place::file(dir.display().to_string()), e.to_string().to_lowercase());
                continue;
            }
        };
        for entry in entries {
            let source = entry.path();
            let step = match at.join(entry.file_name().as_bytes()) {
                Ok(path) => examine(&source).map(|content| (path, content)),
                Err(e) => Err(e.to_string()),
            };
            match step {
                Ok((path, Some(content))) => found.push(FileSource { path, source, content }),
                Ok((path, None)) => todo.push((source, path)),
                Err(why) => report.add(Place::file(source.display().to_string()), why),
            }
        }
    }
    found.sort_by(|a, b| a.path.cmp(&b.path));
    found
}

/// What the entry is; `None` for a directory.
fn examine(path: &Path) -> Result<Option<Content>, String> {
    let told = |e: std::io::Error| e.to_string().to_lowercase();
    let meta = fs::symlink_metadata(path).map_err(told)?;
    let kind = meta.file_type();
    if kind.is_dir() {
        Ok(None)
    } else if kind.is_file() {
        Ok(Some(Content::File { executable: meta.permissions().mode() & 0o100 != 0 }))
    } else if kind.is_symlink() {
        let target = fs::read_link(path).map_err(told)?;
        Ok(Some(Content::Symlink(target.as_os_str().as_bytes().to_vec())))
    } else {
        Err("neither a file, a directory nor a symbolic link".into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn files_links_and_the_executable_bit_are_listed_in_order() {
        let dir = tempfile::tempdir().unwrap();
        let at = |p: &str| dir.path().join(p);
        fs::create_dir_all(at("usr/bin")).unwrap();
        fs::create_dir_all(at("empty")).unwrap();
        fs::write(at("usr/bin/tool"), "x").unwrap();
        fs::set_permissions(at("usr/bin/tool"), fs::Permissions::from_mode(0o4711)).unwrap();
        fs::write(at("usr/bin.conf"), "x").unwrap();
        fs::set_permissions(at("usr/bin.conf"), fs::Permissions::from_mode(0o066)).unwrap();
        symlink("../x", at("a")).unwrap();
        let mut report = Report::new();
        let found = list(dir.path(), &mut report);
        let shown: Vec<_> = found.iter().map(|f| (f.path.to_string(), f.content.clone())).collect();
        assert_eq!(
            shown,
            [
                ("/a".into(), Content::Symlink(b"../x".to_vec())),
                ("/usr/bin/tool".into(), Content::File { executable: true }),
                ("/usr/bin.conf".into(), Content::File { executable: false }),
            ]
        );
        assert!(report.is_clean());
        assert_eq!(list(&at("none"), &mut report), []);
    }

    #[test]
    fn what_git_cannot_keep_is_a_finding() {
        let dir = tempfile::tempdir().unwrap();
        let socket = std::os::unix::net::UnixListener::bind(dir.path().join("s")).unwrap();
        let mut report = Report::new();
        assert_eq!(list(dir.path(), &mut report), []);
        assert!(report.to_string().ends_with("neither a file, a directory nor a symbolic link"), "{report}");
        drop(socket);
    }
}
