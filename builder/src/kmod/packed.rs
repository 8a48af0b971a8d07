//! Unpacking modules: `.ko`, `.ko.xz`, `.ko.zst`, `.ko.gz`.
//! Must not know: what the bytes mean.
//! Spec: the xz, zstd and gzip formats; names as in kmod's list of extensions.

use std::io::{self, Read};

/// Longest module that is unpacked, in bytes. The largest of Debian's 6.12 for arm64 has 15 MB; the
/// limit keeps a damaged or hostile file from filling the memory.
pub const MAX_MODULE: u64 = 256 << 20;

/// How a module file is packed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Packing {
    /// Not at all.
    Plain,
    /// xz.
    Xz,
    /// Zstandard.
    Zstd,
    /// gzip.
    Gzip,
}

/// The packing of a file by its name, and the module's own name: from `snd-hda.ko.xz` comes
/// `snd_hda`. `None` for files that are no modules.
pub fn module_name(file: &[u8]) -> Option<(Packing, String)> {
    const ENDS: [(&str, Packing); 4] = [
        (".ko", Packing::Plain),
        (".ko.xz", Packing::Xz),
        (".ko.zst", Packing::Zstd),
        (".ko.gz", Packing::Gzip),
    ];
    let file = std::str::from_utf8(file).ok().filter(|name| name.is_ascii())?;
    let (_, packing) = ENDS.into_iter().find(|(end, _)| file.len() > end.len() && file.ends_with(end))?;
    // kmod ends the name at the first dot, not at the extension.
    let stem = file.split('.').next().unwrap_or_default();
    Some((packing, underscores(stem)))
}

/// The kernel knows no dashes in names of modules.
pub fn underscores(name: &str) -> String {
    name.replace('-', "_")
}

/// All bytes of a module. `InvalidData` when the packed data is damaged, `FileTooLarge` beyond
/// [`MAX_MODULE`].
pub fn unpack(packing: Packing, packed: &[u8]) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let mut reader: Box<dyn Read + '_> = match packing {
        Packing::Plain => Box::new(packed),
        Packing::Xz => Box::new(liblzma::read::XzDecoder::new_multi_decoder(packed)),
        Packing::Zstd => Box::new(zstd::Decoder::with_buffer(packed)?),
        Packing::Gzip => Box::new(flate2::bufread::MultiGzDecoder::new(packed)),
    };
    let read = reader.by_ref().take(MAX_MODULE + 1).read_to_end(&mut bytes)?;
    if read as u64 > MAX_MODULE {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, "the module unpacks to over 256 MiB"));
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn names_give_packing_and_module() {
        for (file, want) in [
            ("ext4.ko", Some((Packing::Plain, "ext4"))),
            ("snd-hda-core.ko.xz", Some((Packing::Xz, "snd_hda_core"))),
            ("a.ko.zst", Some((Packing::Zstd, "a"))),
            ("a.ko.gz", Some((Packing::Gzip, "a"))),
            ("a.b.ko", Some((Packing::Plain, "a"))),
            (".ko", None),
            ("modules.dep", None),
            ("a.ko.bz2", None),
            ("ä.ko", None),
        ] {
            let want = want.map(|(packing, name)| (packing, name.to_owned()));
            assert_eq!(module_name(file.as_bytes()), want, "given {file}");
        }
    }

    #[test]
    fn every_packing_gives_the_bytes_back() {
        let bytes = b"module".repeat(1000);
        let mut xz = liblzma::write::XzEncoder::new(Vec::new(), 1);
        xz.write_all(&bytes).unwrap();
        let mut gz = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gz.write_all(&bytes).unwrap();
        for (packing, packed) in [
            (Packing::Plain, bytes.clone()),
            (Packing::Xz, xz.finish().unwrap()),
            (Packing::Zstd, zstd::encode_all(&bytes[..], 1).unwrap()),
            (Packing::Gzip, gz.finish().unwrap()),
        ] {
            assert_eq!(unpack(packing, &packed).unwrap(), bytes, "{packing:?}");
            if packing != Packing::Plain {
                assert!(unpack(packing, &packed[..packed.len() / 2]).is_err(), "{packing:?} cut short");
            }
        }
    }
}
