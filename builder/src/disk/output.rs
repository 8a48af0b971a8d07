//! Where an image's bytes end up: a sparse file, or a zstd stream.
//! Must not know: partitions, block maps.
//! Spec: RFC 8878 for frames and blocks.
//!
//! A zstd file is a row of frames: one for each run of content, and one for each long run of zeros
//! between, which is written by hand (four bytes for 128 KiB) instead of being compressed. A card of
//! 128 GB that is nearly empty costs a few MB and no time.

use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::FileExt;

use zstd::zstd_safe::{CCtx, CParameter, InBuffer, OutBuffer, ResetDirective, get_error_name};

/// Takes the bytes of an image in order.
pub trait Backend {
    /// The next bytes, which begin `at` bytes from the start of the image.
    fn data(&mut self, at: u64, bytes: &[u8]) -> io::Result<()>;
    /// The next `len` bytes are zero and were never given.
    fn hole(&mut self, len: u64) -> io::Result<()>;
    /// The image has `size` bytes in all.
    fn finish(&mut self, size: u64) -> io::Result<()>;
}

/// A file in which holes take no space.
pub(super) struct Raw<'f> {
    file: &'f File,
    /// Writing to the disk has begun up to here.
    begun: u64,
}

/// The kernel is asked to write this much at a time. Left alone it begins when the image is complete and is
/// synced, and the builder waits: 0.37 of 1.05 s for fenn.
const WRITE_BEHIND: u64 = 16 << 20;

impl<'f> Raw<'f> {
    pub fn new(file: &'f File) -> Raw<'f> {
        Raw { file, begun: 0 }
    }
}

impl Backend for Raw<'_> {
    fn data(&mut self, at: u64, bytes: &[u8]) -> io::Result<()> {
        self.file.write_all_at(bytes, at)?;
        let end = at + bytes.len() as u64;
        if let Some(len) = std::num::NonZeroU64::new(end - self.begun).filter(|len| len.get() >= WRITE_BEHIND)
        {
            // Begins to write what is dirty, without waiting (mm/fadvise.c). Advice: a refusal costs nothing.
            let _ = rustix::fs::fadvise(self.file, self.begun, Some(len), rustix::fs::Advice::DontNeed);
            self.begun = end;
        }
        Ok(())
    }

    fn hole(&mut self, _: u64) -> io::Result<()> {
        Ok(())
    }

    fn finish(&mut self, size: u64) -> io::Result<()> {
        self.file.set_len(size)
    }
}

/// Level of compression: zstd's own default. A root of 280 MiB, jobs of 4 MiB, libzstd 1.5.4:
/// level 1 takes 0.9 s of processor time and gives 93.3 MB; 2: 1.2 s, 88.3 MB; 3: 2.3 s, 84.5 MB;
/// 4: 3.2 s, 83.8 MB; 5: 4.6 s, 81.2 MB; 6: 6.2 s, 79.4 MB. Beyond 3 each MB saved costs more than
/// writing it to a card.
const LEVEL: i32 = 3;
/// Bytes that one worker compresses at a time, and how much of the job before it looks back into
/// (6: an eighth of the window). Both are pinned because libzstd derives them from what it likes
/// otherwise, and they decide the bytes; the number of workers does not.
const JOB_BYTES: u32 = 4 << 20;
const OVERLAP_LOG: u32 = 6;
/// Shorter holes are compressed like content: ending a frame drains all workers.
const FRAME_HOLE: u64 = 4 << 20;

/// A zstd stream into any writer.
pub(super) struct Zstd<W> {
    context: CCtx<'static>,
    writer: W,
    out: Vec<u8>,
    /// A frame has begun and not ended.
    open: bool,
}

impl<W: Write> Zstd<W> {
    /// `workers` is at least 1: libzstd's bytes without workers differ from those with any.
    pub fn new(writer: W, workers: u32) -> io::Result<Zstd<W>> {
        let mut context = CCtx::try_create().ok_or(io::ErrorKind::OutOfMemory)?;
        for parameter in [
            CParameter::CompressionLevel(LEVEL),
            CParameter::ChecksumFlag(true),
            CParameter::NbWorkers(workers.max(1)),
            CParameter::JobSize(JOB_BYTES),
            CParameter::OverlapSizeLog(OVERLAP_LOG),
        ] {
            context.set_parameter(parameter).map_err(zstd_error)?;
        }
        Ok(Zstd { context, writer, out: Vec::with_capacity(CCtx::out_size()), open: false })
    }

    fn compress(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.open = true;
        let mut input = InBuffer::around(bytes);
        while input.pos() < bytes.len() {
            self.step(&mut input, false)?;
        }
        Ok(())
    }

    fn end_frame(&mut self) -> io::Result<()> {
        while self.open {
            self.open = self.step(&mut InBuffer::around(&[]), true)? > 0;
        }
        Ok(())
    }

    /// Moves what there is from input to output; at the end, says how much is still to come.
    fn step(&mut self, input: &mut InBuffer<'_>, end: bool) -> io::Result<usize> {
        self.out.clear();
        let mut output = OutBuffer::around(&mut self.out);
        let left = match end {
            true => self.context.end_stream(&mut output),
            false => self.context.compress_stream(&mut output, input),
        };
        let left = left.map_err(zstd_error)?;
        self.writer.write_all(&self.out)?;
        Ok(left)
    }
}

impl<W: Write> Backend for Zstd<W> {
    fn data(&mut self, _: u64, bytes: &[u8]) -> io::Result<()> {
        self.compress(bytes)
    }

    fn hole(&mut self, mut len: u64) -> io::Result<()> {
        if len >= FRAME_HOLE {
            self.end_frame()?;
            return zero_frame(&mut self.writer, len);
        }
        static ZEROS: [u8; 65_536] = [0; 65_536];
        while len > 0 {
            let piece = usize::try_from(len).unwrap_or(usize::MAX).min(ZEROS.len());
            self.compress(&ZEROS[..piece])?;
            len -= piece as u64;
        }
        Ok(())
    }

    fn finish(&mut self, _: u64) -> io::Result<()> {
        self.end_frame()?;
        // Frees the workers' memory; a stream ended well has nothing else to lose.
        self.context.reset(ResetDirective::SessionOnly).map_err(zstd_error)?;
        self.writer.flush()
    }
}

/// A frame of `len` zeros, `len > 0`: RFC 8878 section 3.1.1, all blocks of the type RLE.
fn zero_frame(writer: &mut impl Write, len: u64) -> io::Result<()> {
    /// The largest block: 128 KiB, which is also the window that the header asks for.
    const BLOCK: u64 = 128 * 1024;
    let mut frame = Vec::with_capacity(64 * 1024);
    frame.extend_from_slice(&0xFD2F_B528u32.to_le_bytes());
    // Content size in eight bytes, no dictionary, no checksum; then a window of 2^(10 + 7) bytes.
    frame.extend_from_slice(&[0xc0, 7 << 3]);
    frame.extend_from_slice(&len.to_le_bytes());
    let mut left = len;
    while left > 0 {
        let size = left.min(BLOCK);
        left -= size;
        // Three bytes: last block, type 1 (RLE), size. Then the byte that is repeated.
        let header = u64::from(left == 0) | 1 << 1 | size << 3;
        frame.extend_from_slice(&header.to_le_bytes()[..3]);
        frame.push(0);
        if frame.len() > 60 * 1024 {
            writer.write_all(&frame)?;
            frame.clear();
        }
    }
    writer.write_all(&frame)
}

fn zstd_error(code: usize) -> io::Error {
    io::Error::other(get_error_name(code))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;

    const MIB: u64 = 1 << 20;

    fn bytes(len: usize) -> Vec<u8> {
        // Compressible but not dull.
        (0..len).map(|i| (i as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes()[i % 3] & 0x3f).collect()
    }

    fn packed(workers: u32, piece: usize) -> Vec<u8> {
        let mut zstd = Zstd::new(Vec::new(), workers).unwrap();
        let content = bytes(11 << 20);
        content.chunks(piece).for_each(|c| zstd.data(0, c).unwrap());
        zstd.hole(100_000).unwrap();
        zstd.data(0, &content[..70_000]).unwrap();
        zstd.hole(50 * MIB + 1).unwrap();
        zstd.data(0, &content[..3 << 20]).unwrap();
        zstd.hole(4 * MIB).unwrap();
        zstd.finish(0).unwrap();
        zstd.writer
    }

    fn want() -> Vec<u8> {
        let content = bytes(11 << 20);
        let zeros = |len: u64| vec![0; usize::try_from(len).unwrap()];
        let parts: [&[u8]; 6] = [
            &content,
            &zeros(100_000),
            &content[..70_000],
            &zeros(50 * MIB + 1),
            &content[..3 << 20],
            &zeros(4 * MIB),
        ];
        parts.concat()
    }

    #[test]
    fn a_stream_of_content_and_holes_comes_back() {
        assert!(zstd::decode_all(&packed(1, 1 << 20)[..]).unwrap() == want());
    }

    #[test]
    fn workers_and_pieces_change_no_byte() {
        let one = packed(1, 512 * 1024);
        for (workers, piece) in [(2, 512 * 1024), (4, 512 * 1024), (4, 8 << 20), (1, 100_001), (0, 4096)] {
            assert!(packed(workers, piece) == one, "{workers} workers, pieces of {piece}");
        }
    }

    #[test]
    fn zeros_cost_four_bytes_for_128_kib() {
        for len in [1, 131_071, 131_072, 131_073, 600 * MIB] {
            let mut frame = Vec::new();
            zero_frame(&mut frame, len).unwrap();
            assert_eq!(frame.len() as u64, 14 + 4 * len.div_ceil(131_072));
            let mut decoder = zstd::Decoder::new(&frame[..]).unwrap();
            let mut count = 0;
            let mut buffer = vec![1; 1 << 20];
            loop {
                let n = decoder.read(&mut buffer).unwrap();
                if n == 0 {
                    break;
                }
                assert!(buffer[..n].iter().all(|&b| b == 0));
                count += n as u64;
            }
            assert_eq!(count, len);
        }
    }
}
