//! The durable record: boots, strangers and what else must outlive a restart, as keys and values.
//! Must not know: what a boot is.
//! Spec: design.md section 10. Two verbs, so that a store that several servers share can take the
//! place of the embedded database.
//!
//! ```text
//! boots.redb     the database, 0600
//! handles.key    32 random bytes that file handles are signed with, 0600
//! ```

use std::fs;
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use redb::{Database, DatabaseError, ReadableDatabase, TableDefinition};

const TABLE: TableDefinition<&str, &[u8]> = TableDefinition::new("record");

/// A key with its value, or with none to remove it.
pub type Entry = (String, Option<Vec<u8>>);

/// Where the record is kept.
pub trait Record: Send + 'static {
    /// All entries whose keys begin with `prefix`, by key.
    ///
    /// # Errors
    /// [`RecordError`] if the record cannot be read.
    fn read(&self, prefix: &str) -> Result<Vec<(String, Vec<u8>)>, RecordError>;

    /// Writes all entries or none, and returns when they outlive a power cut.
    ///
    /// # Errors
    /// [`RecordError`] if nothing was written.
    fn write(&self, entries: &[Entry]) -> Result<(), RecordError>;
}

/// The record could not be opened, read or written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RecordError {
    /// Another server has it.
    #[error("`{}` is in use by another `gt-image serve`", path.display())]
    InUse {
        /// The database.
        path: PathBuf,
    },
    /// The files cannot be used.
    #[error("using `{}`", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The database is damaged or of another version.
    #[error("`{}` cannot be read: {what}", path.display())]
    Damaged {
        /// The database.
        path: PathBuf,
        /// What is wrong.
        what: String,
    },
}

/// The embedded database.
#[derive(Debug)]
pub struct Redb {
    path: PathBuf,
    database: Database,
}

impl Redb {
    /// Opens or makes the database in `dir`, which is made too.
    ///
    /// # Errors
    /// [`RecordError::InUse`] while another process has it.
    pub fn open(dir: &Path) -> Result<Redb, RecordError> {
        make_private(dir)?;
        let path = dir.join("boots.redb");
        let fail = |source| RecordError::Io { path: path.clone(), source };
        let mut options = fs::File::options();
        // Made by us first: redb would make it readable for all.
        options.read(true).write(true).create(true).truncate(false).mode(0o600);
        options.open(&path).map_err(fail)?;
        let database = Database::create(&path).map_err(|e| match e {
            DatabaseError::DatabaseAlreadyOpen => RecordError::InUse { path: path.clone() },
            e => RecordError::Damaged { path: path.clone(), what: e.to_string() },
        })?;
        Ok(Redb { path, database })
    }

    fn damaged(&self, error: impl Into<redb::Error>) -> RecordError {
        match error.into() {
            redb::Error::Io(source) => RecordError::Io { path: self.path.clone(), source },
            error => RecordError::Damaged { path: self.path.clone(), what: error.to_string() },
        }
    }
}

impl Record for Redb {
    fn read(&self, prefix: &str) -> Result<Vec<(String, Vec<u8>)>, RecordError> {
        let read = || -> Result<Vec<(String, Vec<u8>)>, redb::Error> {
            let table = match self.database.begin_read()?.open_table(TABLE) {
                Ok(table) => table,
                Err(redb::TableError::TableDoesNotExist(_)) => return Ok(Vec::new()),
                Err(e) => return Err(e.into()),
            };
            let mut found = Vec::new();
            for entry in table.range(prefix..)? {
                let (key, value) = entry?;
                if !key.value().starts_with(prefix) {
                    break;
                }
                found.push((key.value().to_owned(), value.value().to_vec()));
            }
            Ok(found)
        };
        read().map_err(|e| self.damaged(e))
    }

    fn write(&self, entries: &[Entry]) -> Result<(), RecordError> {
        let write = || -> Result<(), redb::Error> {
            let transaction = self.database.begin_write()?;
            {
                let mut table = transaction.open_table(TABLE)?;
                for (key, value) in entries {
                    match value {
                        Some(value) => _ = table.insert(key.as_str(), value.as_slice())?,
                        None => _ = table.remove(key.as_str())?,
                    }
                }
            }
            Ok(transaction.commit()?)
        };
        write().map_err(|e| self.damaged(e))
    }
}

/// The key that file handles are signed with: made when there is none, the same for ever after, so
/// that handles outlive a restart.
///
/// # Errors
/// If it cannot be read or made, or is not 32 bytes.
pub fn handle_key(dir: &Path) -> Result<[u8; 32], RecordError> {
    make_private(dir)?;
    let path = dir.join("handles.key");
    let fail = |source| RecordError::Io { path: path.clone(), source };
    match fs::read(&path) {
        Ok(bytes) => bytes.try_into().map_err(|bytes: Vec<u8>| {
            let what = format!("{} bytes instead of 32", bytes.len());
            RecordError::Damaged { path: path.clone(), what }
        }),
        Err(e) if e.kind() == io::ErrorKind::NotFound => {
            let mut key = [0; 32];
            fs::File::open("/dev/urandom").and_then(|mut f| f.read_exact(&mut key)).map_err(fail)?;
            let temp = dir.join(".handles.key.new");
            let _ = fs::remove_file(&temp);
            let made = fs::File::options().write(true).create_new(true).mode(0o600).open(&temp);
            made.and_then(|mut f| f.write_all(&key).and_then(|()| f.sync_all()))
                .and_then(|()| fs::rename(&temp, &path))
                .map_err(fail)?;
            Ok(key)
        }
        Err(e) => Err(fail(e)),
    }
}

fn make_private(dir: &Path) -> Result<(), RecordError> {
    let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(dir);
    made.map_err(|source| RecordError::Io { path: dir.into(), source })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn entry(key: &str, value: &str) -> Entry {
        (key.into(), Some(value.into()))
    }

    #[test]
    fn what_was_written_is_there_after_reopening() {
        let dir = tempfile::tempdir().unwrap();
        let state = dir.path().join("a/state");
        let record = Redb::open(&state).unwrap();
        assert!(record.read("").unwrap().is_empty());
        record.write(&[entry("boot/1", "one"), entry("boot/2", "two"), entry("stranger/x", "x")]).unwrap();
        record.write(&[("boot/1".into(), None), entry("boot/2", "zwei")]).unwrap();
        assert!(matches!(Redb::open(&state), Err(RecordError::InUse { .. })));
        drop(record);
        let record = Redb::open(&state).unwrap();
        assert_eq!(record.read("boot/").unwrap(), [("boot/2".into(), b"zwei".to_vec())]);
        assert_eq!(record.read("").unwrap().len(), 2);
        let mode = |name: &str| fs::metadata(state.join(name)).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode("."), mode("boots.redb")), (0o700, 0o600));
    }

    #[test]
    fn a_damaged_database_is_told() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("boots.redb"), "junk".repeat(4096)).unwrap();
        assert!(matches!(Redb::open(dir.path()), Err(RecordError::Damaged { .. } | RecordError::Io { .. })));
    }

    #[test]
    fn the_key_is_made_once_and_private() {
        let dir = tempfile::tempdir().unwrap();
        let state = dir.path().join("state");
        let key = handle_key(&state).unwrap();
        assert_eq!(handle_key(&state).unwrap(), key);
        assert_ne!(key, [0; 32]);
        let file = state.join("handles.key");
        assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
        fs::write(&file, "short").unwrap();
        assert!(matches!(handle_key(&state), Err(RecordError::Damaged { .. })));
    }
}
