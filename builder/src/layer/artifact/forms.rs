//! The forms of archives that upstream ships: zip and wheel, tar however compressed, Debian package. Each
//! shows its members in turn; which form a file has is told by its first bytes.
//! Must not know: what is wanted of an archive, trees.
//! Spec: .ZIP File Format Specification 6.3.10 (wheels are zip files, PEP 427); POSIX tar; deb(5).

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use super::{ArtifactError, Picker};
use crate::archive::Decoder;
use crate::archive::ar::{ArError, ArReader};
use crate::archive::tar::{self, EntryKind};

/// Bytes of a symbolic link's target that are read: one more than it may have.
const LINK_READ: u64 = 4096;
/// Permission bits that are taken over: a set-user-ID bit is only set where an overlay says so.
const BITS: u16 = 0o777;

/// One member of an archive.
pub(super) struct Member<'a> {
    /// The name as written: perhaps absolute, perhaps with `..`.
    pub name: &'a [u8],
    /// What it is.
    pub what: What,
    /// Its permissions without special bits.
    pub mode: u16,
}

/// What a member is; the bytes of a file come from a reader beside it.
pub(super) enum What {
    File,
    Dir,
    Symlink(Vec<u8>),
    /// A further name of the member of this name, which came before.
    HardLink(Vec<u8>),
    /// Nothing that can be taken.
    Other(&'static str),
}

/// Shows all members of an archive to the picker.
pub(super) fn walk(file: &Path, picker: &mut Picker<'_>) -> Result<(), ArtifactError> {
    let shown = file.display().to_string();
    let io = |source| ArtifactError::Io { file: shown.clone(), source };
    let mut head = Vec::new();
    File::open(file).and_then(|f| f.take(8).read_to_end(&mut head)).map_err(io)?;
    let input = File::open(file).map_err(io)?;
    match head.as_slice() {
        // The second is a zip file without members.
        [b'P', b'K', 3, 4, ..] | [b'P', b'K', 5, 6, ..] => zip(&shown, input, picker),
        b"!<arch>\n" => deb(&shown, input, picker),
        _ => tar(&shown, input, picker),
    }
}

fn zip(shown: &str, input: File, picker: &mut Picker<'_>) -> Result<(), ArtifactError> {
    let zip = |source| ArtifactError::Zip { file: shown.to_owned(), source };
    let mut archive = zip::ZipArchive::new(input).map_err(zip)?;
    for index in 0..archive.len() {
        // A member that nobody wants may be encrypted or packed in a way that is not known here.
        let name = archive.name_for_index(index).transpose().map_err(zip)?;
        if !name.is_some_and(|name| picker.wants(name.as_bytes())) {
            continue;
        }
        let mut file = archive.by_index(index).map_err(zip)?;
        let name = file.name_raw().to_vec();
        let what = match () {
            () if file.is_dir() => What::Dir,
            () if file.is_symlink() => {
                let mut target = Vec::new();
                let io = |source| ArtifactError::Io { file: shown.to_owned(), source };
                file.by_ref().take(LINK_READ).read_to_end(&mut target).map_err(io)?;
                What::Symlink(target)
            }
            () => What::File,
        };
        // Archives that were made on other systems have no mode at all.
        let bits = file.unix_mode().and_then(|mode| u16::try_from(mode & u32::from(BITS)).ok());
        let default = if matches!(what, What::Dir) { 0o755 } else { 0o644 };
        let mode = bits.filter(|bits| *bits != 0).unwrap_or(default);
        picker.take(&Member { name: &name, what, mode }, &mut file)?;
    }
    Ok(())
}

/// What dpkg would unpack; the scripts of the package are not ours to run.
fn deb(shown: &str, input: File, picker: &mut Picker<'_>) -> Result<(), ArtifactError> {
    let ar = |source| ArtifactError::Ar { file: shown.to_owned(), source };
    let mut reader = ArReader::new(input).map_err(ar)?;
    while let Some(member) = reader.next_member().map_err(ar)? {
        if member.name == "data.tar" || member.name.starts_with("data.tar.") {
            return tar(shown, &mut reader, picker);
        }
    }
    Err(ArtifactError::NoData { file: shown.to_owned() })
}

fn tar(shown: &str, input: impl Read, picker: &mut Picker<'_>) -> Result<(), ArtifactError> {
    let tar = |source| ArtifactError::Tar { file: shown.to_owned(), source };
    let input = Decoder::new(input).map_err(|source| match source.downcast::<ArError>() {
        Ok(source) => ArtifactError::Ar { file: shown.to_owned(), source },
        Err(source) => ArtifactError::Io { file: shown.to_owned(), source },
    })?;
    let mut archive = tar::Reader::new(input);
    while let Some(entry) = archive.next_entry().map_err(tar)? {
        let what = match entry.kind {
            EntryKind::File => What::File,
            EntryKind::Dir => What::Dir,
            EntryKind::Symlink(to) => What::Symlink(to),
            EntryKind::HardLink(to) => What::HardLink(to),
            EntryKind::Block(..) | EntryKind::Char(..) => What::Other("device"),
            EntryKind::Fifo => What::Other("named pipe"),
        };
        let member = Member { name: &entry.name, what, mode: entry.meta.mode & BITS };
        picker.take(&member, &mut Data(&mut archive))?;
    }
    Ok(())
}

/// The bytes of a tar archive's present file.
struct Data<'a, R>(&'a mut tar::Reader<R>);

impl<R: Read> Read for Data<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.read(buffer).map_err(io::Error::other)
    }
}
