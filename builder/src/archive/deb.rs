//! A Debian package file: the members of its control archive, and its files as a layer.
//! Must not know: package relations, the database of installed packages, running scripts.
//! Spec: deb(5): `debian-binary`, then `control.tar`, then `data.tar`; a name with `_` in front may
//! stand between them and is skipped.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use crate::archive::ar::{ArError, ArReader, Member};
use crate::archive::compress::{CompressError, Decoder, Format};
use crate::archive::control::{ControlError, Paragraph, Paragraphs};
use crate::archive::import::{self, ImportError};
use crate::archive::tar::{self, EntryKind, Fault, TarError};
use crate::store::Store;
use crate::tree::layer::Layer;

/// Bytes of one member of the control archive; the largest in Debian, a list of checksums, has 4 MiB.
const CONTROL_FILE_MAX: u64 = 32 << 20;
/// Bytes of all members of the control archive.
const CONTROL_MAX: u64 = 64 << 20;

/// Bytes of one file; Debian's archive has no package above 4 GiB.
const FILE_MAX: u64 = 16 << 30;

/// A package, unpacked.
#[derive(Debug)]
pub struct Deb {
    /// The members of the control archive in its order: `control`, `postinst`, `conffiles`…
    pub control: Vec<ControlFile>,
    /// Its files, with their bytes in the store. Directories that it states are stated in the layer
    /// too; dpkg leaves those alone that exist already.
    pub data: Layer,
}

/// One member of the control archive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ControlFile {
    /// Its name without `./`.
    pub name: String,
    /// Its content.
    pub bytes: Vec<u8>,
    /// Permission bits.
    pub mode: u16,
}

impl Deb {
    /// A member of the control archive.
    pub fn control_file(&self, name: &str) -> Option<&ControlFile> {
        self.control.iter().find(|file| file.name == name)
    }

    /// The fields of `control`, which is always there.
    pub fn fields(&self) -> Result<Paragraph, ControlError> {
        let text = self.control_file("control").map_or(&b""[..], |file| &file.bytes);
        Ok(Paragraphs::new(text).next().transpose()?.unwrap_or_default())
    }
}

/// A package file that cannot be unpacked.
#[derive(Debug, thiserror::Error)]
#[error("package `{}`: {fault}", path.display())]
pub struct DebError {
    /// The file.
    pub path: PathBuf,
    /// What is wrong; boxed, for it is several times the size of what it stands in for.
    pub fault: Box<DebFault>,
}

/// What is wrong with a package file.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DebFault {
    /// The file could not be opened or read.
    #[error("reading it: {0}")]
    Io(#[source] io::Error),
    /// The outer archive is bad.
    #[error(transparent)]
    Ar(#[from] ArError),
    /// Another version of the format.
    #[error("format version `{found}` is not supported: 2.x is")]
    Version {
        /// What `debian-binary` says.
        found: String,
    },
    /// A member stands where another must.
    #[error("offset {at}: member `{found}` stands where `{wanted}` must")]
    Order {
        /// Offset of the member's header, in bytes.
        at: u64,
        /// Its name.
        found: String,
        /// What belongs here.
        wanted: &'static str,
    },
    /// The file ends before a member that must be there.
    #[error("it has no member `{wanted}`")]
    Missing {
        /// What belongs here.
        wanted: &'static str,
    },
    /// A member is named after another compression than it has.
    #[error("member `{member}` is compressed with {found}")]
    Misnamed {
        /// Its name.
        member: String,
        /// Its compression.
        found: Format,
    },
    /// A member's compressed stream is bad.
    #[error("member `{member}`: {source}")]
    Packed {
        /// Its name.
        member: String,
        /// What is wrong.
        source: CompressError,
    },
    /// The control archive is bad.
    #[error("member `{member}`: {source}")]
    Control {
        /// Its name.
        member: String,
        /// What is wrong.
        source: TarError,
    },
    /// The control archive has something else than plain files, or no `control`.
    #[error("member `{member}`: {what}")]
    ControlFile {
        /// Its name.
        member: String,
        /// What is wrong.
        what: String,
    },
    /// The data archive is bad.
    #[error("member `{member}`: {source}")]
    Data {
        /// Its name.
        member: String,
        /// What is wrong.
        source: ImportError,
    },
}

/// Unpacks a package file, its files into `store`.
pub fn read(path: &Path, store: &Store) -> Result<Deb, DebError> {
    let fail = |fault| DebError { path: path.to_owned(), fault: Box::new(fault) };
    let file = File::open(path).map_err(|e| fail(DebFault::Io(e)))?;
    read_from(file, store).map_err(fail)
}

/// Unpacks a package from any source.
pub fn read_from(source: impl Read, store: &Store) -> Result<Deb, DebFault> {
    read_bounded(source, store, FILE_MAX)
}

/// As [`read_from`], with no file above `file_max` bytes.
pub(crate) fn read_bounded(source: impl Read, store: &Store, file_max: u64) -> Result<Deb, DebFault> {
    let mut ar = ArReader::new(source)?;
    let version = member(&mut ar, "debian-binary")?;
    check_version(&mut ar, &version)?;
    let name = member(&mut ar, "control.tar")?.name;
    let mut control = tar::Reader::new(unpack(&mut ar, &name)?);
    let control = read_control(&mut control, &name)?;
    let name = member(&mut ar, "data.tar")?.name;
    let mut data = tar::Reader::new(unpack(&mut ar, &name)?).file_limit(file_max);
    let data = import::into_layer(&mut data, store)
        .map_err(|source| lift(source, |source| DebFault::Data { member: name.clone(), source }))?;
    // dpkg ignores what follows; a second `data.tar` would be installed by nobody and seen by nobody.
    while let Some(more) = ar.next_member()? {
        if !more.name.starts_with('_') {
            return Err(DebFault::Order { at: more.at, found: more.name, wanted: "the end" });
        }
    }
    Ok(Deb { control, data })
}

/// The next member that counts; its name must be `wanted`, for archives with any ending of a
/// compression.
fn member(ar: &mut ArReader<impl Read>, wanted: &'static str) -> Result<Member, DebFault> {
    loop {
        let Some(member) = ar.next_member()? else { return Err(DebFault::Missing { wanted }) };
        let rest = member.name.strip_prefix(wanted);
        if rest.is_some_and(|rest| rest.is_empty() || (rest.starts_with('.') && wanted.ends_with(".tar"))) {
            return Ok(member);
        }
        // Nothing may come before `debian-binary`.
        if !member.name.starts_with('_') || wanted == "debian-binary" {
            return Err(DebFault::Order { at: member.at, found: member.name, wanted });
        }
    }
}

fn check_version(ar: &mut ArReader<impl Read>, member: &Member) -> Result<(), DebFault> {
    let mut text = Vec::new();
    // Later versions may add lines; the first is the version.
    ar.by_ref().take(member.size.min(1024)).read_to_end(&mut text).map_err(outer)?;
    let line = text.split(|&b| b == b'\n').next().unwrap_or_default();
    if line.strip_prefix(b"2.").is_some_and(|minor| !minor.is_empty() && minor.iter().all(u8::is_ascii_digit))
    {
        return Ok(());
    }
    Err(DebFault::Version { found: crate::tree::printable(&line[..line.len().min(100)]) })
}

fn unpack<R: Read>(source: R, member: &str) -> Result<Decoder<R>, DebFault> {
    let packed = |source| DebFault::Packed { member: member.to_owned(), source };
    let wanted = match member.rsplit('.').next() {
        Some("tar") => Format::Plain,
        Some("gz") => Format::Gzip,
        Some("xz") => Format::Xz,
        Some("zst") => Format::Zstd,
        Some("bz2") => return Err(packed(CompressError::Unsupported { found: "bzip2" })),
        Some("lzma") => return Err(packed(CompressError::Unsupported { found: "lzma (of old, not xz)" })),
        _ => return Err(packed(CompressError::Unsupported { found: "an unknown method" })),
    };
    let decoder = Decoder::new(source).map_err(|e| match e.downcast::<CompressError>() {
        Ok(source) => packed(source),
        Err(e) => outer(e),
    })?;
    // dpkg-deb goes by the name alone, so a file with another content is broken for it.
    match decoder.format() {
        found if found == wanted => Ok(decoder),
        found => Err(DebFault::Misnamed { member: member.to_owned(), found }),
    }
}

fn read_control<R: Read>(archive: &mut tar::Reader<R>, member: &str) -> Result<Vec<ControlFile>, DebFault> {
    let fault = |what: String| DebFault::ControlFile { member: member.to_owned(), what };
    let bad = |source| lift_tar(source, |source| DebFault::Control { member: member.to_owned(), source });
    let mut files: Vec<ControlFile> = Vec::new();
    let mut total = 0;
    while let Some(entry) = archive.next_entry().map_err(bad)? {
        let shown = crate::tree::printable(&entry.name[..entry.name.len().min(300)]);
        let name = entry.name.strip_prefix(b"./").unwrap_or(&entry.name);
        match entry.kind {
            EntryKind::Dir if matches!(name, b"" | b".") => continue,
            EntryKind::File
                if !name.is_empty() && name.iter().all(|&b| b != b'/' && b.is_ascii_graphic()) => {}
            _ => return Err(fault(format!("`{shown}` is not a plain file of its top directory"))),
        }
        let bytes = archive.read_all(CONTROL_FILE_MAX).map_err(bad)?;
        total += bytes.len() as u64;
        if total > CONTROL_MAX {
            return Err(fault(format!("its files have more than {CONTROL_MAX} bytes")));
        }
        if files.iter().any(|file| file.name.as_bytes() == name) {
            return Err(fault(format!("`{shown}` is there twice")));
        }
        files.push(ControlFile {
            name: shown.trim_start_matches("./").to_owned(),
            bytes,
            mode: entry.meta.mode,
        });
    }
    if files.iter().any(|file| file.name == "control") {
        return Ok(files);
    }
    Err(fault("it has no file `control`".into()))
}

/// An error of the outer archive comes through the layers above it as an [`io::Error`].
fn outer(error: io::Error) -> DebFault {
    error.downcast::<ArError>().map_or_else(DebFault::Io, DebFault::Ar)
}

fn lift_tar(error: TarError, or: impl FnOnce(TarError) -> DebFault) -> DebFault {
    match error.fault {
        Fault::Io(source) => outer(source),
        fault => or(TarError { fault, ..error }),
    }
}

fn lift(error: ImportError, or: impl FnOnce(ImportError) -> DebFault) -> DebFault {
    match error {
        ImportError::Tar(error) => lift_tar(error, |error| or(error.into())),
        error => or(error),
    }
}

#[cfg(test)]
mod tests;
