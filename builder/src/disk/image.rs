//! Writing a disk image and its block map in one pass.
//! Must not know: filesystems; it asks each partition for its bytes in order.
//! Spec: design.md section 8: `disk.img` or `disk.img.zst`, and `disk.bmap`.

use std::error::Error;
use std::fs::File;
use std::io;
use std::path::Path;

use super::bmap::{BLOCK, Bmap, Range};
use super::hash::{BUFFER, Hasher};
use super::layout::DiskLayout;
use super::output::{Backend, Raw, Zstd};
use super::{DiskError, LayoutError};
use crate::digest::Digest;
use crate::io::atomic;
use crate::io::progress::Task;
use crate::io::sink::ImageSink;

/// [`BLOCK`] as a length.
const BLOCK_BYTES: usize = 4096;

/// Why a partition has no content; `?` makes one of any error.
pub type ContentError = Box<dyn Error + Send + Sync>;

/// Something that fills a partition. A closure will do.
pub trait PartitionContent {
    /// Writes the partition's bytes to `sink`, whose position 0 is the partition's start. What is
    /// not written up to the partition's end counts as skipped; what goes beyond is an error.
    fn write(&self, sink: &mut dyn ImageSink) -> Result<(), ContentError>;
}

impl<F: Fn(&mut dyn ImageSink) -> Result<(), ContentError>> PartitionContent for F {
    fn write(&self, sink: &mut dyn ImageSink) -> Result<(), ContentError> {
        self(sink)
    }
}

/// A partition without a filesystem yet, such as a new `gt-state`.
///
/// Its first MiB is written as zeros, not skipped: a card that was in use may have an old filesystem
/// there, whose superblock would be found (ext4: byte 1024, btrfs: 64 KiB). The partition must be no
/// smaller.
#[derive(Debug, Clone, Copy)]
pub struct Blank;

impl PartitionContent for Blank {
    fn write(&self, sink: &mut dyn ImageSink) -> Result<(), ContentError> {
        Ok(sink.data(&vec![0; 1 << 20])?)
    }
}

/// The form of an image.
#[derive(Debug, Clone, Copy)]
pub enum Output<'a> {
    /// A sparse file of the image's size.
    Raw(&'a Path),
    /// A zstd file; its bytes do not depend on the number of processors.
    Zstd(&'a Path),
}

impl<'a> Output<'a> {
    /// The file.
    pub fn path(&self) -> &'a Path {
        match self {
            Output::Raw(path) | Output::Zstd(path) => path,
        }
    }
}

/// What was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Written {
    /// Bytes of the disk image.
    pub size: u64,
    /// Bytes of it that have content.
    pub mapped_bytes: u64,
    /// Digest of the block map file. As the map names the image's size and the digest of all its
    /// content, it stands for every byte of the image.
    pub bmap: Digest,
}

/// Writes the image of `layout` to `output` and its block map to `bmap_path`, each under a temporary
/// name until it is complete, the map last. `contents` has one item for each partition; `progress`
/// counts [`DiskLayout::size`] bytes.
pub fn write(
    layout: &DiskLayout,
    contents: &[&dyn PartitionContent],
    output: Output<'_>,
    bmap_path: &Path,
    progress: &Task,
) -> Result<Written, DiskError> {
    let path = output.path();
    let whole = (path, layout.size);
    let fail = |source| DiskError::Io { path: path.into(), source };
    let temp = atomic::begin(path).map_err(fail)?;
    let file: &File = temp.as_file();
    let hasher = Some(Hasher::start().map_err(fail)?);
    let ranges = match output {
        Output::Raw(_) => emit(layout, contents, whole, &mut Raw::new(file), hasher, progress)?,
        Output::Zstd(_) => {
            let mut zstd = Zstd::new(file, workers()).map_err(fail)?;
            emit(layout, contents, whole, &mut zstd, hasher, progress)?
        }
    };
    atomic::finish(temp, path).map_err(fail)?;
    let bmap = Bmap { image_size: layout.size, ranges };
    let xml = bmap.to_xml();
    atomic::write(bmap_path, xml.as_bytes())
        .map_err(|source| DiskError::Io { path: bmap_path.into(), source })?;
    let mapped_bytes = (bmap.mapped_blocks() * BLOCK).min(layout.size);
    Ok(Written { size: layout.size, mapped_bytes, bmap: Digest::of(xml.as_bytes()) })
}

/// As many workers as processors. The bytes are the same for any number.
fn workers() -> u32 {
    std::thread::available_parallelism().map_or(1, |n| u32::try_from(n.get()).unwrap_or(1))
}

/// Gives `backend` the bytes of `layout` on a medium of `size` bytes, which may be larger than
/// [`DiskLayout::size`]: a GPT's backup is at the medium's end. `path` names it in errors.
pub fn stream(
    layout: &DiskLayout,
    contents: &[&dyn PartitionContent],
    whole: (&Path, u64),
    backend: &mut dyn Backend,
    progress: &Task,
) -> Result<(), DiskError> {
    emit(layout, contents, whole, backend, None, progress).map(drop)
}

/// The same, and the ranges that have content when there is somebody to take their digests.
fn emit(
    layout: &DiskLayout,
    contents: &[&dyn PartitionContent],
    (path, size): (&Path, u64),
    backend: &mut dyn Backend,
    hasher: Option<Hasher>,
    progress: &Task,
) -> Result<Vec<Range>, DiskError> {
    let partitions = layout.partitions.len();
    if contents.len() != partitions {
        return Err(DiskError::Contents { contents: contents.len(), partitions });
    }
    let fail = |source| DiskError::Io { path: path.into(), source };
    let table = layout.table_bytes(size)?;
    let mut image = Image::new(backend, hasher, progress);
    image.data(&table.head).map_err(fail)?;
    for (partition, content) in layout.partitions.iter().zip(contents) {
        let (start, size) = (partition.offset, partition.spec.size);
        image.skip_to(start).map_err(fail)?;
        progress.note(&partition.spec.name);
        let mut window = Window { inner: &mut image, start, size };
        content
            .write(&mut window)
            .map_err(|source| DiskError::Content { name: partition.spec.name.clone(), source })?;
        image.skip_to(start + size).map_err(fail)?;
    }
    // Cannot underflow for a layout of ours; a table longer than its disk is the layout's error.
    let tail = size
        .checked_sub(table.tail.len() as u64)
        .ok_or_else(|| LayoutError::Disk { size, what: "smaller than its table".into() })?;
    image.skip_to(tail).map_err(fail)?;
    image.data(&table.tail).map_err(fail)?;
    image.skip_to(size).map_err(fail)?;
    image.finish().map_err(fail)
}

/// A partition's part of the image.
struct Window<'i> {
    inner: &'i mut dyn ImageSink,
    start: u64,
    size: u64,
}

impl Window<'_> {
    fn check(&self, len: u64) -> io::Result<()> {
        match self.position().checked_add(len) {
            Some(end) if end <= self.size => Ok(()),
            _ => {
                let (at, size) = (self.position(), self.size);
                Err(io::Error::other(format!("{len} bytes at {at} are beyond the partition's {size}")))
            }
        }
    }
}

impl ImageSink for Window<'_> {
    fn data(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.check(bytes.len() as u64)?;
        self.inner.data(bytes)
    }

    fn skip(&mut self, len: u64) -> io::Result<()> {
        self.check(len)?;
        self.inner.skip(len)
    }

    fn position(&self) -> u64 {
        self.inner.position() - self.start
    }
}

/// The whole image: cuts what it is given into whole blocks, passes them on and may have them digested.
///
/// A block of which any byte was given is mapped, its other bytes being zero; ranges are runs of
/// such blocks.
struct Image<'b> {
    backend: &'b mut dyn Backend,
    /// Nothing when nobody wants digests: they are 0.4 of fenn's 0.9 s of processor time.
    hasher: Option<Hasher>,
    progress: &'b Task,
    /// Bytes given or skipped so far.
    position: u64,
    /// The bytes that follow `passed`, not passed on yet; fewer than [`BUFFER`].
    buffer: Vec<u8>,
    /// Bytes that the backend has, holes included; a multiple of a block.
    passed: u64,
    /// First block of the range that is open.
    first: Option<u64>,
}

impl<'b> Image<'b> {
    fn new(backend: &'b mut dyn Backend, hasher: Option<Hasher>, progress: &'b Task) -> Image<'b> {
        let buffer = Vec::with_capacity(BUFFER);
        Image { backend, hasher, progress, position: 0, buffer, passed: 0, first: None }
    }

    /// Makes the buffer reach up to `position`: zeros where blocks are shared, a hole where whole
    /// blocks were skipped.
    fn close_gap(&mut self) -> io::Result<()> {
        let block = self.position - self.position % BLOCK;
        let end = self.end().next_multiple_of(BLOCK);
        if self.first.is_some() && block <= end {
            self.pad(end.min(self.position))?;
        } else {
            self.end_range()?;
            self.hole_to(block)?;
            self.first = Some(block / BLOCK);
        }
        self.pad(self.position)
    }

    /// Where the buffer ends.
    fn end(&self) -> u64 {
        self.passed + self.buffer.len() as u64
    }

    /// Fills the buffer with zeros up to `to`, in the block where it ends or at that block's end.
    fn pad(&mut self, to: u64) -> io::Result<()> {
        let len = usize::try_from(to - self.passed).map_err(io::Error::other)?;
        self.buffer.resize(len, 0);
        if self.buffer.len() >= BUFFER { self.flush() } else { Ok(()) }
    }

    /// Adds bytes to the buffer, which is passed on whenever it has a multiple of `full`.
    fn gather(&mut self, mut bytes: &[u8], full: usize) -> io::Result<()> {
        while !bytes.is_empty() {
            let (now, later) = bytes.split_at(bytes.len().min(full - self.buffer.len() % full));
            self.buffer.extend_from_slice(now);
            self.position += now.len() as u64;
            bytes = later;
            if self.buffer.len().is_multiple_of(full) {
                self.flush()?;
            }
        }
        Ok(())
    }

    fn hole_to(&mut self, to: u64) -> io::Result<()> {
        if to > self.passed {
            self.backend.hole(to - self.passed)?;
            self.passed = to;
        }
        Ok(())
    }

    /// Passes the buffer on. It ends on a block, or with the image.
    fn flush(&mut self) -> io::Result<()> {
        if self.buffer.is_empty() {
            return Ok(());
        }
        self.backend.data(self.passed, &self.buffer)?;
        self.passed += self.buffer.len() as u64;
        match &self.hasher {
            Some(hasher) => hasher.bytes(std::mem::replace(&mut self.buffer, hasher.buffer())),
            None => {
                self.buffer.clear();
                Ok(())
            }
        }
    }

    /// Ends the open range with its block, or with the image.
    fn end_range(&mut self) -> io::Result<()> {
        let Some(first) = self.first.take() else { return Ok(()) };
        self.pad(self.end().next_multiple_of(BLOCK).min(self.position))?;
        self.flush()?;
        self.hasher.as_ref().map_or(Ok(()), |hasher| hasher.end(first))
    }

    fn finish(mut self) -> io::Result<Vec<Range>> {
        self.end_range()?;
        self.hole_to(self.position)?;
        self.backend.finish(self.position)?;
        self.hasher.map_or(Ok(Vec::new()), Hasher::finish)
    }
}

impl ImageSink for Image<'_> {
    fn data(&mut self, bytes: &[u8]) -> io::Result<()> {
        if bytes.is_empty() {
            return Ok(());
        }
        self.close_gap()?;
        self.progress.advance(bytes.len() as u64);
        if self.hasher.is_some() {
            return self.gather(bytes, BUFFER);
        }
        // Only digests want large buffers; without them whole blocks are spared a copy.
        let missing = self.buffer.len().next_multiple_of(BLOCK_BYTES) - self.buffer.len();
        let (first, bytes) = bytes.split_at(missing.min(bytes.len()));
        self.gather(first, BLOCK_BYTES)?;
        if missing == 0 {
            // Nothing, or zeros up to a block's end.
            self.flush()?;
        }
        let (whole, last) = bytes.split_at(bytes.len() - bytes.len() % BLOCK_BYTES);
        if !whole.is_empty() {
            self.backend.data(self.passed, whole)?;
            self.passed += whole.len() as u64;
            self.position += whole.len() as u64;
        }
        self.gather(last, BLOCK_BYTES)
    }

    fn skip(&mut self, len: u64) -> io::Result<()> {
        let end = self.position.checked_add(len);
        self.position = end.ok_or_else(|| io::Error::other("an image of more than 64 bits"))?;
        self.progress.advance(len);
        Ok(())
    }

    fn position(&self) -> u64 {
        self.position
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::fs;
    use std::os::unix::fs::MetadataExt;

    use proptest::prelude::*;

    use super::super::layout::tests::{GPT, MBR, MIB, spec};
    use super::super::{Role, lay_out};
    use super::*;
    use crate::io::progress::{Progress, Unit};

    /// What a backend got, for comparison with what was given.
    #[derive(Default)]
    struct Memory(Vec<u8>, Vec<(u64, u64)>);

    impl Backend for Memory {
        fn data(&mut self, at: u64, bytes: &[u8]) -> io::Result<()> {
            assert_eq!((at, at % BLOCK), (self.0.len() as u64, 0));
            self.0.extend_from_slice(bytes);
            Ok(())
        }

        fn hole(&mut self, len: u64) -> io::Result<()> {
            self.1.push((self.0.len() as u64, len));
            self.0.resize(self.0.len() + usize::try_from(len).unwrap(), 0);
            Ok(())
        }

        fn finish(&mut self, size: u64) -> io::Result<()> {
            assert_eq!(size, self.0.len() as u64);
            Ok(())
        }
    }

    fn task() -> Task {
        Progress::off().task("image", Unit::Bytes, None)
    }

    /// Gives the steps, `true` for content, and checks image, holes and ranges against the plain
    /// truth, block by block.
    fn check(steps: &[(bool, usize)]) {
        let (mut memory, mut plain, progress) = (Memory::default(), Memory::default(), task());
        let mut image = Image::new(&mut memory, Some(Hasher::start().unwrap()), &progress);
        let mut without = Image::new(&mut plain, None, &progress);
        let (mut want, mut mapped) = (Vec::new(), Vec::new());
        for (at, &(data, len)) in steps.iter().enumerate() {
            let start = want.len();
            let byte = u8::try_from(at % 250).unwrap() + 1;
            match data {
                true => [&mut image, &mut without].map(|i| i.data(&vec![byte; len]).unwrap()),
                false => [&mut image, &mut without].map(|i| i.skip(len as u64).unwrap()),
            };
            want.resize(start + len, if data { byte } else { 0 });
            mapped.resize(want.len().div_ceil(4096), false);
            if data && len > 0 {
                mapped[start / 4096..=(start + len - 1) / 4096].fill(true);
            }
        }
        let ranges = image.finish().unwrap();
        assert_eq!(without.finish().unwrap(), []);
        assert!(memory.0 == want, "{steps:?}");
        assert!(plain.0 == want && plain.1 == memory.1, "without digests: {steps:?}");
        let mut found = vec![false; mapped.len()];
        for Range { first, last, digest } in &ranges {
            let blocks = usize::try_from(*first).unwrap()..usize::try_from(*last).unwrap() + 1;
            let end = (blocks.end * 4096).min(want.len());
            assert_eq!(*digest, Digest::of(&want[blocks.start * 4096..end]), "{steps:?}");
            assert!(blocks.start == 0 || !found[blocks.start - 1], "ranges touch: {steps:?}");
            found[blocks].fill(true);
        }
        assert_eq!(found, mapped, "{steps:?}");
    }

    #[test]
    fn blocks_are_mapped_when_any_byte_is_given() {
        for steps in [
            &[][..],
            &[(false, 10_000)],
            &[(true, 1)],
            &[(true, 0), (false, 4096)],
            &[(false, 4095), (true, 2), (false, 1)],
            &[(true, 1), (false, 4095), (true, 1), (false, 4096), (true, 4096)],
            &[(true, 5000), (false, 100), (true, 10), (false, 9000), (true, 1)],
            &[(true, BUFFER), (true, BUFFER - 1), (false, 1), (true, 1)],
            &[(true, BUFFER - 1), (false, 5000), (true, 3 * BUFFER)],
            &[(true, BUFFER - 4097), (false, 4098), (true, 1)],
        ] {
            check(steps);
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(60))]
        #[test]
        fn any_steps_give_the_same_image_and_the_right_map(
            steps in proptest::collection::vec((any::<bool>(), prop_oneof![0usize..20_000, 500_000usize..1_100_000]), 0..12)
        ) {
            check(&steps);
        }
    }

    fn small(table: super::super::Table) -> DiskLayout {
        lay_out(table, vec![spec("a", Role::Boot, 9 * MIB), spec("b", Role::Data, 2 * MIB)]).unwrap()
    }

    fn fill(sink: &mut dyn ImageSink) -> Result<(), ContentError> {
        assert_eq!(sink.position(), 0);
        sink.data(b"partition a")?;
        sink.skip_to(5 * MIB)?;
        Ok(sink.data(&[7; 100_000])?)
    }

    #[test]
    fn a_raw_image_is_sparse_and_a_packed_one_is_equal() {
        let dir = tempfile::tempdir().unwrap();
        let (raw, packed) = (dir.path().join("disk.img"), dir.path().join("disk.img.zst"));
        let bmaps = [dir.path().join("raw.bmap"), dir.path().join("zst.bmap")];
        for table in [GPT, MBR] {
            let layout = small(table);
            let contents: [&dyn PartitionContent; 2] = [&fill, &Blank];
            let one = write(&layout, &contents, Output::Raw(&raw), &bmaps[0], &task()).unwrap();
            let two = write(&layout, &contents, Output::Zstd(&packed), &bmaps[1], &task()).unwrap();
            assert_eq!(one, two);
            assert_eq!(fs::read(&bmaps[0]).unwrap(), fs::read(&bmaps[1]).unwrap());
            let bytes = fs::read(&raw).unwrap();
            assert_eq!(bytes.len() as u64, layout.size);
            assert!(zstd::decode_all(&fs::read(&packed).unwrap()[..]).unwrap() == bytes);
            assert_eq!(&bytes[8 << 20..(8 << 20) + 11], b"partition a");
            assert!(one.mapped_bytes < 2 * MIB && one.size == layout.size);
            assert!(fs::metadata(&raw).unwrap().blocks() * 512 < 4 * MIB, "holes stay holes");
        }
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 4, "no temporary file stays");
    }

    #[test]
    fn content_that_fails_or_is_too_long_leaves_no_file() {
        let dir = tempfile::tempdir().unwrap();
        let (raw, bmap) = (dir.path().join("disk.img"), dir.path().join("disk.bmap"));
        let error = |content: &dyn PartitionContent| {
            write(&small(GPT), &[content, &Blank], Output::Raw(&raw), &bmap, &task()).unwrap_err()
        };
        let seen = RefCell::new(0);
        let long = |sink: &mut dyn ImageSink| -> Result<(), ContentError> {
            sink.skip(9 * MIB - 3)?;
            *seen.borrow_mut() = sink.position();
            Ok(sink.data(b"four")?)
        };
        let e = error(&long);
        assert!(
            matches!(&e, DiskError::Content { name, source } if name == "a" && source.to_string().contains("beyond")),
            "{e}"
        );
        assert_eq!(*seen.borrow(), 9 * MIB - 3);
        let broken = |_: &mut dyn ImageSink| -> Result<(), ContentError> { Err("no bytes today".into()) };
        assert!(matches!(error(&broken), DiskError::Content { .. }));
        let e = write(&small(GPT), &[&Blank], Output::Raw(&raw), &bmap, &task()).unwrap_err();
        assert!(matches!(e, DiskError::Contents { contents: 1, partitions: 2 }));
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }
}
