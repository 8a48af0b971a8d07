//! Compressed streams: found by their first bytes, decompressed with bounded memory.
//! Must not know: what is in the stream, names of files.
//! Spec: RFC 1952 (gzip), the .xz file format 1.2.1, RFC 8878 (Zstandard).

use std::fmt;
use std::io::{self, BufRead, BufReader, Chain, Cursor, Read};

use flate2::bufread::MultiGzDecoder;
use liblzma::bufread::XzDecoder;

/// Memory for one xz stream. `xz -9` needs 65 MiB; only hand-made dictionaries need more.
const XZ_MEMORY: u64 = 100 << 20;
/// Zstandard's window as a power of two: 128 MiB, the `zstd` command's own limit, reached by
/// `--ultra -22`.
const ZSTD_WINDOW_LOG: u32 = 27;
const BUFFER: usize = 64 * 1024;

/// How a stream is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Format {
    /// Not at all.
    Plain,
    /// One or more gzip members.
    Gzip,
    /// One or more xz streams.
    Xz,
    /// One or more Zstandard frames.
    Zstd,
}

impl Format {
    /// What `head` begins; at least six bytes are needed to be sure.
    pub fn detect(head: &[u8]) -> Result<Format, CompressError> {
        match head {
            [0x1f, 0x8b, ..] => Ok(Format::Gzip),
            [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => Ok(Format::Xz),
            // The second form is a skippable frame, with which `pzstd` begins its files.
            [0x28, 0xb5, 0x2f, 0xfd, ..] | [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => Ok(Format::Zstd),
            [b'B', b'Z', b'h', b'1'..=b'9', ..] => Err(CompressError::Unsupported { found: "bzip2" }),
            [0x5d, 0, 0, _, _, ..] => Err(CompressError::Unsupported { found: "lzma (of old, not xz)" }),
            _ => Ok(Format::Plain),
        }
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Format::Plain => "no compression",
            Format::Gzip => "gzip",
            Format::Xz => "xz",
            Format::Zstd => "zstd",
        })
    }
}

/// A stream that cannot be decompressed. `at` counts compressed bytes from the stream's start, and
/// is exact to one buffer of 64 KiB.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CompressError {
    /// A checksum or a code is wrong.
    #[error("the {format} stream is corrupt near byte {at}: {what}")]
    Corrupt {
        /// Its format.
        format: Format,
        /// About where.
        at: u64,
        /// What the decoder said.
        what: String,
    },
    /// The stream ends too early.
    #[error("the {format} stream is cut off at byte {at}")]
    Truncated {
        /// Its format.
        format: Format,
        /// Its length.
        at: u64,
    },
    /// A compression that we do not read.
    #[error("compressed with {found}, which is not supported: gzip, xz and zstd are")]
    Unsupported {
        /// Its name.
        found: &'static str,
    },
    /// Decompressing takes more memory than is allowed.
    #[error("the {format} stream needs more than {limit} MiB of memory to decompress")]
    Memory {
        /// Its format.
        format: Format,
        /// What is allowed, in MiB.
        limit: u64,
    },
}

/// Decompresses a stream whose format its first bytes tell. An [`io::Error`] from reading either
/// holds a [`CompressError`] or came unchanged from the source.
pub struct Decoder<R: Read> {
    inner: Inner<Source<R>>,
    failed: bool,
}

enum Inner<S: BufRead> {
    Plain(S),
    // Boxed: the codecs' states are several times the others' size.
    Gzip(Box<MultiGzDecoder<S>>),
    Xz(Box<XzDecoder<S>>),
    Zstd(Box<zstd::Decoder<'static, S>>),
}

impl<R: Read> Decoder<R> {
    /// Reads the first bytes.
    pub fn new(mut source: R) -> io::Result<Decoder<R>> {
        let mut head = Vec::with_capacity(6);
        source.by_ref().take(6).read_to_end(&mut head)?;
        let format = Format::detect(&head).map_err(wrap)?;
        let source = BufReader::with_capacity(BUFFER, Cursor::new(head).chain(source));
        let source = Source { inner: source, at: 0, failed: false };
        let inner = match format {
            Format::Plain => Inner::Plain(source),
            Format::Gzip => Inner::Gzip(Box::new(MultiGzDecoder::new(source))),
            Format::Xz => {
                let flags = liblzma::stream::CONCATENATED;
                let stream = liblzma::stream::Stream::new_stream_decoder(XZ_MEMORY, flags)?;
                Inner::Xz(Box::new(XzDecoder::new_stream(source, stream)))
            }
            Format::Zstd => {
                let mut decoder = zstd::Decoder::with_buffer(source)?;
                decoder.window_log_max(ZSTD_WINDOW_LOG)?;
                Inner::Zstd(Box::new(decoder))
            }
        };
        Ok(Decoder { inner, failed: false })
    }

    /// How the stream is compressed.
    pub fn format(&self) -> Format {
        match self.inner {
            Inner::Plain(_) => Format::Plain,
            Inner::Gzip(_) => Format::Gzip,
            Inner::Xz(_) => Format::Xz,
            Inner::Zstd(_) => Format::Zstd,
        }
    }

    fn source(&self) -> &Source<R> {
        match &self.inner {
            Inner::Plain(source) => source,
            Inner::Gzip(decoder) => decoder.get_ref(),
            Inner::Xz(decoder) => decoder.get_ref(),
            Inner::Zstd(decoder) => decoder.get_ref(),
        }
    }

    /// Tells what the codec found from what the source said.
    fn explain(&self, error: io::Error) -> io::Error {
        if error.kind() == io::ErrorKind::Interrupted || self.source().failed {
            return error;
        }
        let (format, at) = (self.format(), self.source().at);
        let what = error.to_string();
        let xz = error.get_ref().and_then(|e| e.downcast_ref::<liblzma::stream::Error>());
        wrap(match xz {
            Some(liblzma::stream::Error::MemLimit) => {
                CompressError::Memory { format, limit: XZ_MEMORY >> 20 }
            }
            // The zstd crate gives its errors as text only: ZSTD_error_frameParameter_windowTooLarge.
            _ if what.contains("too much memory") => {
                CompressError::Memory { format, limit: 1 << (ZSTD_WINDOW_LOG - 20) }
            }
            _ if error.kind() == io::ErrorKind::UnexpectedEof => CompressError::Truncated { format, at },
            _ => CompressError::Corrupt { format, at, what },
        })
    }
}

impl<R: Read> Read for Decoder<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.failed {
            return Err(io::Error::other("read on after an error"));
        }
        let got = match &mut self.inner {
            Inner::Plain(source) => source.read(buffer),
            Inner::Gzip(decoder) => decoder.read(buffer),
            Inner::Xz(decoder) => decoder.read(buffer),
            Inner::Zstd(decoder) => decoder.read(buffer),
        };
        got.map_err(|e| {
            // Codecs do not promise anything about reads after an error.
            self.failed = e.kind() != io::ErrorKind::Interrupted;
            self.explain(e)
        })
    }
}

impl<R: Read> fmt::Debug for Decoder<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Decoder").field("format", &self.format()).finish_non_exhaustive()
    }
}

/// The compressed bytes, counted; remembers whether an error was theirs.
struct Source<R> {
    inner: BufReader<Chain<Cursor<Vec<u8>>, R>>,
    at: u64,
    failed: bool,
}

impl<R: Read> Read for Source<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let got = self.inner.read(buffer).inspect_err(|_| self.failed = true)?;
        self.at += got as u64;
        Ok(got)
    }
}

impl<R: Read> BufRead for Source<R> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        self.inner.fill_buf().inspect_err(|_| self.failed = true)
    }

    fn consume(&mut self, amount: usize) {
        self.at += amount as u64;
        self.inner.consume(amount);
    }
}

fn wrap(error: CompressError) -> io::Error {
    let kind = match error {
        CompressError::Unsupported { .. } => io::ErrorKind::Unsupported,
        _ => io::ErrorKind::InvalidData,
    };
    io::Error::new(kind, error)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::io::Write;

    pub(crate) fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut out = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        out.write_all(bytes).unwrap();
        out.finish().unwrap()
    }

    pub(crate) fn xz(bytes: &[u8]) -> Vec<u8> {
        liblzma::encode_all(bytes, 0).unwrap()
    }

    pub(crate) fn zst(bytes: &[u8]) -> Vec<u8> {
        zstd::encode_all(bytes, 1).unwrap()
    }

    fn unpack(bytes: &[u8]) -> Result<Vec<u8>, CompressError> {
        let mut out = Vec::new();
        let mut read = || Decoder::new(bytes)?.read_to_end(&mut out);
        read().map_err(|e| e.downcast::<CompressError>().unwrap())?;
        Ok(out)
    }

    /// Compresses all bytes.
    pub(crate) type Pack = fn(&[u8]) -> Vec<u8>;

    const CODECS: [(Format, Pack); 3] = [(Format::Gzip, gzip), (Format::Xz, xz), (Format::Zstd, zst)];

    #[test]
    fn every_format_is_found_and_read_also_in_several_parts() {
        let bytes: Vec<u8> = (0..200_000u32).flat_map(|n| (n / 7).to_le_bytes()).collect();
        for (format, pack) in CODECS {
            let packed = pack(&bytes);
            assert_eq!(Decoder::new(&packed[..]).unwrap().format(), format);
            assert_eq!(unpack(&packed).unwrap(), bytes, "{format}");
            let twice = [pack(b"one "), pack(b""), pack(b"two")].concat();
            assert_eq!(unpack(&twice).unwrap(), b"one two", "{format}");
        }
        assert_eq!(unpack(b"plain text").unwrap(), b"plain text");
        assert_eq!(unpack(b"").unwrap(), b"");
    }

    #[test]
    fn cut_changed_and_followed_streams_are_told_apart() {
        let bytes = vec![b'x'; 5000];
        for (want, pack) in CODECS {
            let packed = pack(&bytes);
            let cut = unpack(&packed[..packed.len() - 3]).unwrap_err();
            assert!(matches!(cut, CompressError::Truncated { format, .. } if format == want), "{cut}");
            // The last bytes are a checksum (gzip, zstd has none) or the index (xz).
            if want != Format::Zstd {
                let mut bad = packed.clone();
                let end = bad.len() - 6;
                bad[end] ^= 0x55;
                assert!(matches!(unpack(&bad), Err(CompressError::Corrupt { .. })), "{want}");
            }
            let followed = [packed, b"trailing garbage".to_vec()].concat();
            let error = unpack(&followed).unwrap_err();
            assert!(matches!(error, CompressError::Corrupt { .. }), "{want}: {error}");
        }
    }

    #[test]
    fn what_is_not_read_is_named() {
        assert_eq!(
            unpack(b"BZh91AY&SY").unwrap_err().to_string(),
            "compressed with bzip2, which is not supported: gzip, xz and zstd are"
        );
        assert!(matches!(unpack(b"\x5d\0\0\x80\0\xff\xff"), Err(CompressError::Unsupported { .. })));
    }

    #[test]
    fn a_window_beyond_the_limit_is_refused_before_it_is_allocated() {
        // A frame header that asks for a window of 2^31 bytes: descriptor 0, window byte 21 << 3.
        let bomb = [0x28, 0xb5, 0x2f, 0xfd, 0, 21 << 3, 1, 0, 0];
        let error = unpack(&bomb).unwrap_err();
        assert!(matches!(error, CompressError::Memory { limit: 128, .. }), "{error}");
        let mut options = liblzma::stream::LzmaOptions::new_preset(0).unwrap();
        options.dict_size(256 << 20);
        let mut filters = liblzma::stream::Filters::new();
        filters.lzma2(&options);
        let stream =
            liblzma::stream::Stream::new_stream_encoder(&filters, liblzma::stream::Check::Crc32).unwrap();
        let mut packed = Vec::new();
        liblzma::bufread::XzEncoder::new_stream(&b"x"[..], stream).read_to_end(&mut packed).unwrap();
        let error = unpack(&packed).unwrap_err();
        assert!(matches!(error, CompressError::Memory { format: Format::Xz, limit: 100 }), "{error}");
    }

    #[test]
    fn an_error_of_the_source_stays_as_it_is() {
        struct Broken;
        impl Read for Broken {
            fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
                Err(io::Error::from(io::ErrorKind::ConnectionReset))
            }
        }
        for (format, pack) in CODECS {
            let packed = pack(&[7; 3000]);
            let half = &packed[..packed.len() / 2];
            let mut decoder = Decoder::new(half.chain(Broken)).unwrap();
            let error = decoder.read_to_end(&mut Vec::new()).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::ConnectionReset, "{format}");
        }
    }

    proptest! {
        #[test]
        fn changed_streams_never_panic(codec in 0usize..3, at in 0usize..120, byte: u8, cut in 4usize..120) {
            let mut bytes = CODECS[codec].1(b"some text, some more text, and numbers 0123456789");
            bytes.truncate(cut);
            if let Some(b) = bytes.get_mut(at) {
                *b = byte;
            }
            crate::archive::fuzz::compress(&bytes);
        }
    }
}
