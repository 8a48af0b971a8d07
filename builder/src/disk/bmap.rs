//! Block maps: which blocks of an image have content, and the digest of each run of them.
//! Must not know: how images are made.
//! Spec: bmaptool's format 2.0, as its `BmapCreate.py` writes and `BmapCopy.py` reads it.

use std::fmt::Write as _;

use crate::digest::Digest;

/// Bytes of a block: what bmaptool's own maps have, and the page of the kernel's cache.
pub const BLOCK: u64 = 4096;

/// Blocks in a row that have content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Range {
    /// First block, counted from the start of the image.
    pub first: u64,
    /// Last block, itself included.
    pub last: u64,
    /// SHA-256 of all their bytes; the image's last block may be short.
    pub digest: Digest,
}

/// Which parts of an image must be copied. Blocks that are in no range may keep what a device had.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bmap {
    /// Bytes of the image.
    pub image_size: u64,
    /// Ascending and never touching each other.
    pub ranges: Vec<Range>,
}

impl Bmap {
    /// Blocks in all ranges.
    pub fn mapped_blocks(&self) -> u64 {
        self.ranges.iter().map(|r| r.last - r.first + 1).sum()
    }

    /// The file's text. It names no time and no path, so equal images have equal maps.
    pub fn to_xml(&self) -> String {
        let zeros = "0".repeat(64);
        let blank = self.text(&zeros);
        // The file's own digest is taken with zeros in its place: BmapCopy, `_verify_bmap_checksum`.
        self.text(&Digest::of(blank.as_bytes()).hex())
    }

    fn text(&self, checksum: &str) -> String {
        let Bmap { image_size, .. } = self;
        let blocks = image_size.div_ceil(BLOCK);
        let mapped = self.mapped_blocks();
        let mut xml = format!(
            r#"<?xml version="1.0" ?>
<bmap version="2.0">
    <ImageSize> {image_size} </ImageSize>
    <BlockSize> {BLOCK} </BlockSize>
    <BlocksCount> {blocks} </BlocksCount>
    <MappedBlocksCount> {mapped} </MappedBlocksCount>
    <ChecksumType> sha256 </ChecksumType>
    <BmapFileChecksum> {checksum} </BmapFileChecksum>
    <BlockMap>
"#
        );
        for Range { first, last, digest } in &self.ranges {
            let digest = digest.hex();
            // Writing to a String cannot fail.
            let _ = match first == last {
                true => writeln!(xml, r#"        <Range chksum="{digest}"> {first} </Range>"#),
                false => writeln!(xml, r#"        <Range chksum="{digest}"> {first}-{last} </Range>"#),
            };
        }
        xml.push_str("    </BlockMap>\n</bmap>\n");
        xml
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map() -> Bmap {
        let range = |first, last| Range { first, last, digest: Digest::of(b"x") };
        Bmap { image_size: 10 * BLOCK - 1, ranges: vec![range(0, 3), range(9, 9)] }
    }

    #[test]
    fn the_text_counts_blocks_and_names_ranges() {
        let xml = map().to_xml();
        for line in [
            "<ImageSize> 40959 </ImageSize>",
            "<BlocksCount> 10 </BlocksCount>",
            "<MappedBlocksCount> 5 </MappedBlocksCount>",
            "> 0-3 </Range>",
            "> 9 </Range>",
        ] {
            assert!(xml.contains(line), "`{line}` is wanted in\n{xml}");
        }
    }

    #[test]
    fn the_checksum_is_taken_over_zeros() {
        let xml = map().to_xml();
        let (head, rest) = xml.split_once("<BmapFileChecksum> ").unwrap();
        let (sum, tail) = rest.split_once(' ').unwrap();
        let blank = format!("{head}<BmapFileChecksum> {} {tail}", "0".repeat(64));
        assert_eq!(Digest::of(blank.as_bytes()).hex(), sum);
    }
}
