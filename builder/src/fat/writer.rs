//! A layout's bytes, front to back: reserved sectors, FATs, directories, files.
//! Must not know: how places were chosen.
//! Spec: fatgen103.
//!
//! Zero bytes that have a meaning (free entries of the FATs, ends of directories, runs of zeros in
//! files) are written, and only clusters that nobody has are skipped: a block map leaves skipped
//! blocks alone, and a card that was in use has other bytes there.

use std::io::{self, Read};

use super::FatError;
use super::format::{self, BACKUP, CHAIN_END, FAT_HEAD, Target, short_entry};
use super::geometry::FATS;
use super::layout::{Directory, File, Layout, Node, Run};
use crate::io::sink::ImageSink;
use crate::store::Store;

/// Bytes taken from the store at a time.
const BUFFER: usize = 1 << 20;
/// Readers that end a name at eleven bytes see these two.
const DOT: [u8; 11] = *b".          ";
const DOTDOT: [u8; 11] = *b"..         ";

impl Layout<'_> {
    /// Bytes of the volume.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Writes the volume to `sink`, from its current position on, the free end skipped. Errors
    /// name the file that could not be read, or the byte of the volume that could not be written.
    pub fn write(&self, store: &Store, sink: &mut dyn ImageSink) -> Result<(), FatError> {
        let start = sink.position();
        let mut out = Out { start, sink };
        out.data(&self.reserved())?;
        for _ in 0..FATS {
            self.write_fat(&mut out)?;
        }
        for index in 0..self.directories.len() {
            out.data(&self.directory_bytes(&self.directories[index]))?;
        }
        let mut buffer = vec![0; BUFFER];
        for file in &self.files {
            self.write_file(file, store, &mut buffer, &mut out)?;
        }
        let end = out.start + self.size;
        let at = out.at();
        out.sink.skip_to(end).map_err(|source| FatError::Sink { at, source })
    }

    fn reserved(&self) -> Vec<u8> {
        let boot = format::boot_sector(&self.geometry, &self.identity);
        let used = self.free.0 - format::Cluster::FIRST.0;
        let left = self.geometry.clusters - used;
        let info = format::fs_info(left, (left > 0).then_some(self.free));
        let mut bytes = vec![0; usize::from(self.geometry.reserved) * 512];
        for first in [0, usize::from(BACKUP) * 512] {
            bytes[first..first + 512].copy_from_slice(&boot);
            bytes[first + 512..first + 1024].copy_from_slice(&info);
        }
        bytes
    }

    fn write_fat(&self, out: &mut Out<'_>) -> Result<(), FatError> {
        let mut chunk: Vec<u8> = Vec::with_capacity(BUFFER);
        let end = out.at() + self.geometry.fat_bytes();
        FAT_HEAD.iter().for_each(|entry| chunk.extend_from_slice(&entry.to_le_bytes()));
        let runs = self.directories.iter().map(|d| d.run).chain(self.files.iter().map(|f| f.run));
        for Run { first, count } in runs {
            for next in 1..=count {
                let entry = if next == count { CHAIN_END } else { first.0 + next };
                chunk.extend_from_slice(&entry.to_le_bytes());
                if chunk.len() >= BUFFER {
                    out.data(&chunk)?;
                    chunk.clear();
                }
            }
        }
        out.data(&chunk)?;
        out.zeros(end - out.at())
    }

    fn directory_bytes(&self, directory: &Directory<'_>) -> Vec<u8> {
        let mut bytes = Vec::new();
        if directory.path.is_root() {
            if let Some(label) = self.identity.label {
                bytes.extend_from_slice(&short_entry(&label, Target::Label, directory.mtime));
            }
        } else {
            let parent = &self.directories[directory.parent];
            // The root is meant by 0, not by the cluster it has: fatgen103, "dotdot".
            let above = if parent.path.is_root() { format::Cluster::NONE } else { parent.run.first };
            let here = Target::Directory(directory.run.first);
            bytes.extend_from_slice(&short_entry(&DOT, here, directory.mtime));
            bytes.extend_from_slice(&short_entry(&DOTDOT, Target::Directory(above), parent.mtime));
        }
        for child in &directory.children {
            let (target, mtime) = match child.node {
                Node::Directory(at) => {
                    let d = &self.directories[at];
                    (Target::Directory(d.run.first), d.mtime)
                }
                Node::File(at) => {
                    let f = &self.files[at];
                    (Target::File(f.run.first, f.size), f.mtime)
                }
            };
            format::put_long_entries(&mut bytes, &child.name.long(), &child.short);
            bytes.extend_from_slice(&short_entry(&child.short, target, mtime));
        }
        let clusters = usize::try_from(directory.run.count).unwrap_or(usize::MAX);
        bytes.resize(clusters * self.cluster(), 0);
        bytes
    }

    fn cluster(&self) -> usize {
        usize::from(self.geometry.cluster_sectors) * 512
    }

    fn write_file(
        &self,
        file: &File<'_>,
        store: &Store,
        buffer: &mut [u8],
        out: &mut Out<'_>,
    ) -> Result<(), FatError> {
        if file.size == 0 {
            return Ok(());
        }
        let path = || file.path.clone();
        let mut source =
            store.open_object(file.object).map_err(|source| FatError::Store { path: path(), source })?;
        let mut left = u64::from(file.size);
        while left > 0 {
            let want = buffer.len().min(usize::try_from(left).unwrap_or(usize::MAX));
            let piece = &mut buffer[..want];
            source.read_exact(piece).map_err(|source| FatError::Read { path: path(), source })?;
            out.data(piece)?;
            left -= want as u64;
        }
        let whole = u64::from(file.run.count) * self.geometry.cluster_bytes();
        out.zeros(whole - u64::from(file.size))
    }
}

/// The sink, with errors that say how far the volume was written.
struct Out<'s> {
    sink: &'s mut dyn ImageSink,
    start: u64,
}

impl Out<'_> {
    fn at(&self) -> u64 {
        self.sink.position() - self.start
    }

    fn data(&mut self, bytes: &[u8]) -> Result<(), FatError> {
        let at = self.at();
        self.sink.data(bytes).map_err(|source: io::Error| FatError::Sink { at, source })
    }

    fn zeros(&mut self, mut len: u64) -> Result<(), FatError> {
        static ZEROS: [u8; 65_536] = [0; 65_536];
        while len > 0 {
            let piece = usize::try_from(len).unwrap_or(usize::MAX).min(ZEROS.len());
            self.data(&ZEROS[..piece])?;
            len -= piece as u64;
        }
        Ok(())
    }
}
