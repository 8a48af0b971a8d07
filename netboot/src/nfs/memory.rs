//! An export that is built by calls and kept in memory: what tests, fuzz targets and benchmarks serve.
//! Must not know: the wire.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{MemfdFlags, memfd_create};

use crate::content::Content;
use crate::nfs::{Attributes, Export, ExportId, FileId, FileType};

/// A tree of inodes. Paths begin with `/` and are given to its methods as they are: a path that is not
/// there is the caller's mistake and panics.
#[derive(Debug)]
pub struct MemoryExport {
    id: ExportId,
    /// The inode with number n is at n - 1.
    inodes: Vec<Inode>,
}

#[derive(Debug)]
struct Inode {
    attributes: Attributes,
    parent: FileId,
    /// In order of the names' bytes.
    entries: Vec<(Vec<u8>, FileId)>,
    target: Vec<u8>,
    source: Source,
    xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
}

#[derive(Debug)]
enum Source {
    Nothing,
    Open(Content),
    Path(PathBuf),
}

impl MemoryExport {
    /// An empty root directory of mode 0755.
    pub fn new(id: ExportId) -> MemoryExport {
        let mut export = MemoryExport { id, inodes: Vec::new() };
        export.push(FileType::Directory, 0o755, FileId(1));
        export
    }

    /// A copy of the directory `dir` as it is now; contents are opened where they lie.
    pub fn load(id: ExportId, dir: &Path) -> io::Result<MemoryExport> {
        let mut export = MemoryExport::new(id);
        export.fill(FileId(1), dir)?;
        Ok(export)
    }

    fn fill(&mut self, into: FileId, dir: &Path) -> io::Result<()> {
        for found in fs::read_dir(dir)? {
            let found = found?;
            let (path, meta) = (found.path(), found.path().symlink_metadata()?);
            let kind = meta.file_type();
            let device = || (rustix::fs::major(meta.rdev()), rustix::fs::minor(meta.rdev()));
            let kind = match () {
                () if kind.is_dir() => FileType::Directory,
                () if kind.is_symlink() => FileType::Symlink,
                () if kind.is_block_device() => FileType::Block(device().0, device().1),
                () if kind.is_char_device() => FileType::Char(device().0, device().1),
                () if kind.is_fifo() => FileType::Fifo,
                () if kind.is_socket() => FileType::Socket,
                () => FileType::Regular,
            };
            // Cannot be cut: the mask leaves twelve bits.
            let mode = u16::try_from(meta.mode() & 0o7777).unwrap_or(0);
            let file = self.insert(into, found.file_name().as_bytes(), kind, mode);
            let inode = self.inode_mut(file);
            inode.attributes.uid = meta.uid();
            inode.attributes.gid = meta.gid();
            inode.attributes.mtime = (meta.mtime(), u32::try_from(meta.mtime_nsec()).unwrap_or(0));
            match kind {
                FileType::Directory => self.fill(file, &path)?,
                FileType::Symlink => self.set_target(file, fs::read_link(&path)?.as_os_str().as_bytes()),
                FileType::Regular => {
                    inode.attributes.size = meta.size();
                    inode.attributes.used = meta.blocks() * 512;
                    inode.source = Source::Path(path);
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn push(&mut self, kind: FileType, mode: u16, parent: FileId) -> FileId {
        let directory = kind == FileType::Directory;
        let (nlink, size) = if directory { (2, 4096) } else { (1, 0) };
        let mtime = (1_700_000_000, 0);
        self.inodes.push(Inode {
            attributes: Attributes { kind, mode, nlink, uid: 0, gid: 0, size, used: size, mtime },
            parent,
            entries: Vec::new(),
            target: Vec::new(),
            source: Source::Nothing,
            xattrs: BTreeMap::new(),
        });
        FileId(self.inodes.len() as u64)
    }

    fn insert(&mut self, dir: FileId, name: &[u8], kind: FileType, mode: u16) -> FileId {
        let file = self.push(kind, mode, dir);
        if kind == FileType::Directory {
            self.inode_mut(dir).attributes.nlink += 1;
        }
        self.enter(dir, name, file);
        file
    }

    fn enter(&mut self, dir: FileId, name: &[u8], file: FileId) {
        let entries = &mut self.inode_mut(dir).entries;
        let at = entries.partition_point(|(other, _)| &other[..] < name);
        entries.insert(at, (name.to_vec(), file));
    }

    fn set_target(&mut self, file: FileId, target: &[u8]) {
        let inode = self.inode_mut(file);
        inode.attributes.size = target.len() as u64;
        inode.target = target.to_vec();
    }

    fn inode(&self, file: FileId) -> Option<&Inode> {
        self.inodes.get(usize::try_from(file.0).ok()?.checked_sub(1)?)
    }

    #[expect(clippy::expect_used, reason = "numbers come from this type's own methods")]
    fn inode_mut(&mut self, file: FileId) -> &mut Inode {
        let at = usize::try_from(file.0 - 1).expect("numbers fit the memory that holds them");
        &mut self.inodes[at]
    }

    /// The inode at a path.
    #[expect(clippy::panic, reason = "the type's documentation says so")]
    pub fn at(&self, path: impl AsRef<[u8]>) -> FileId {
        let path = path.as_ref();
        path.split(|b| *b == b'/').filter(|name| !name.is_empty()).fold(FileId(1), |dir, name| {
            let found = self.lookup(dir, name);
            found.unwrap_or_else(|| panic!("the export has no {}", path.escape_ascii()))
        })
    }

    /// Adds an inode of any type; its parent directory must be there.
    pub fn add(&mut self, path: impl AsRef<[u8]>, kind: FileType, mode: u16) -> FileId {
        let (dir, name) = self.split(path.as_ref());
        self.insert(dir, &name, kind, mode)
    }

    fn split(&self, path: &[u8]) -> (FileId, Vec<u8>) {
        let at = path.iter().rposition(|b| *b == b'/').map_or(0, |at| at + 1);
        (self.at(&path[..at]), path[at..].to_vec())
    }

    /// Adds a regular file.
    pub fn add_file(&mut self, path: impl AsRef<[u8]>, mode: u16, content: &[u8]) -> io::Result<FileId> {
        let mut file = File::from(memfd_create("export", MemfdFlags::CLOEXEC)?);
        file.write_all(content)?;
        Ok(self.add_content(path, mode, Content::new(Arc::new(file), content.len() as u64)))
    }

    /// Adds a regular file whose content is open already.
    pub fn add_content(&mut self, path: impl AsRef<[u8]>, mode: u16, content: Content) -> FileId {
        let file = self.add(path, FileType::Regular, mode);
        let inode = self.inode_mut(file);
        inode.attributes.size = content.len();
        inode.attributes.used = content.len().next_multiple_of(4096);
        inode.source = Source::Open(content);
        file
    }

    /// Adds a symbolic link.
    pub fn add_symlink(&mut self, path: impl AsRef<[u8]>, target: &[u8]) -> FileId {
        let file = self.add(path, FileType::Symlink, 0o777);
        self.set_target(file, target);
        file
    }

    /// Adds one more name of the inode at `old`.
    pub fn add_link(&mut self, path: impl AsRef<[u8]>, old: &str) {
        let ((dir, name), file) = (self.split(path.as_ref()), self.at(old));
        self.enter(dir, &name, file);
        self.inode_mut(file).attributes.nlink += 1;
    }

    /// Attributes, to be changed.
    pub fn attributes_mut(&mut self, path: &str) -> &mut Attributes {
        let file = self.at(path);
        &mut self.inode_mut(file).attributes
    }

    /// Sets an extended attribute.
    pub fn set_xattr(&mut self, path: &str, name: &[u8], value: &[u8]) {
        let file = self.at(path);
        self.inode_mut(file).xattrs.insert(name.to_vec(), value.to_vec());
    }
}

impl Export for MemoryExport {
    fn id(&self) -> ExportId {
        self.id
    }

    fn attributes(&self, file: FileId) -> Option<Attributes> {
        self.inode(file).map(|inode| inode.attributes)
    }

    fn lookup(&self, dir: FileId, name: &[u8]) -> Option<FileId> {
        let entries = &self.inode(dir)?.entries;
        let at = entries.binary_search_by(|(other, _)| other[..].cmp(name)).ok()?;
        entries.get(at).map(|(_, file)| *file)
    }

    fn parent(&self, dir: FileId) -> Option<FileId> {
        self.inode(dir).map(|inode| inode.parent)
    }

    fn entry(&self, dir: FileId, position: u64) -> Option<(&[u8], FileId)> {
        let (name, file) = self.inode(dir)?.entries.get(usize::try_from(position).ok()?)?;
        Some((name, *file))
    }

    fn link_target(&self, file: FileId) -> Option<&[u8]> {
        self.inode(file)
            .filter(|inode| inode.attributes.kind == FileType::Symlink)
            .map(|inode| &inode.target[..])
    }

    fn open(&self, file: FileId) -> io::Result<Content> {
        let inode = self.inode(file).ok_or(io::ErrorKind::NotFound)?;
        match &inode.source {
            Source::Open(content) => Ok(content.clone()),
            Source::Path(path) => Ok(Content::new(Arc::new(File::open(path)?), inode.attributes.size)),
            Source::Nothing => Err(io::ErrorKind::NotFound.into()),
        }
    }

    fn xattr(&self, file: FileId, name: &[u8]) -> Option<&[u8]> {
        self.inode(file)?.xattrs.get(name).map(Vec::as_slice)
    }

    fn inodes(&self) -> u64 {
        self.inodes.len() as u64
    }

    fn bytes(&self) -> u64 {
        self.inodes.iter().filter(|i| i.attributes.kind == FileType::Regular).map(|i| i.attributes.size).sum()
    }
}
