//! Files that are either whole or absent: temporary name, sync, rename.
//! Must not know: what the bytes mean.
//! Spec: rename(2), fsync(2).

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;

use tempfile::{Builder, NamedTempFile};

/// Writes `bytes` to `path` so that a reader or a crash sees the old file or the new one, never a
/// part. The mode is `0666` less the umask, as for any new file.
pub fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = begin(path)?;
    file.write_all(bytes)?;
    finish(file, path)
}

/// Like [`write`], but leaves a file alone that holds these bytes already, so that its time does
/// not change. Says whether it wrote.
pub fn write_if_changed(path: &Path, bytes: &[u8]) -> io::Result<bool> {
    match fs::read(path) {
        Ok(old) if old == bytes => return Ok(false),
        Ok(_) => {}
        Err(e) if e.kind() == io::ErrorKind::NotFound => {}
        Err(e) => return Err(e),
    }
    write(path, bytes)?;
    Ok(true)
}

/// A temporary file beside `path`, removed when dropped; [`finish`] gives it its name.
pub fn begin(path: &Path) -> io::Result<NamedTempFile> {
    let parent = parent(path);
    fs::create_dir_all(parent)?;
    begin_in(parent, ".gt-image-")
}

/// Like [`begin`], in a directory of the same filesystem where leftovers of a kill are looked for.
pub fn begin_in(dir: &Path, prefix: &str) -> io::Result<NamedTempFile> {
    use std::os::unix::fs::PermissionsExt;
    Builder::new().prefix(prefix).permissions(fs::Permissions::from_mode(0o666)).tempfile_in(dir)
}

/// Syncs the file, renames it to `path`, whose directory is made if it is missing, and syncs that.
pub fn finish(file: NamedTempFile, path: &Path) -> io::Result<()> {
    file.as_file().sync_all()?;
    fs::create_dir_all(parent(path))?;
    file.persist(path).map_err(|e| e.error)?;
    File::open(parent(path))?.sync_all()
}

fn parent(path: &Path) -> &Path {
    match path.parent() {
        Some(p) if !p.as_os_str().is_empty() => p,
        _ => Path::new("."),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_replaced_whole_and_no_temporary_stays() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("sub/a");
        write(&path, b"one").unwrap();
        write(&path, b"two").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"two");
        let names: Vec<_> = fs::read_dir(dir.path().join("sub")).unwrap().collect();
        assert_eq!(names.len(), 1);
    }

    #[test]
    fn an_equal_file_is_not_written_again() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a");
        assert!(write_if_changed(&path, b"x").unwrap());
        assert!(!write_if_changed(&path, b"x").unwrap());
        assert!(write_if_changed(&path, b"y").unwrap());
    }

    #[test]
    fn a_dropped_file_leaves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        drop(begin(&dir.path().join("a")).unwrap());
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }
}
