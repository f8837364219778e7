//! ext2, ext3 and ext4, with the journal laid over the blocks that it would change: a disk that was copied while it was
//! mounted reads as it would after its next mount.
//!
//! Structures: Linux, Documentation/filesystems/ext4.

mod folder;
mod inode;
mod journal;
mod superblock;

use std::collections::BTreeMap;

use super::cache::CachedVolume;
use super::tree::{Child, Tree, blocks_of, overlap};
use super::{FileKind, Space};
use crate::GuestError;
use crate::storage::bytes::Bytes;
use inode::Inode;
use superblock::Superblock;

const ROOT: u32 = 2;
/// A folder of 262,144 names of middling length.
const MAX_FOLDER_BYTES: u64 = 16 << 20;
/// Linux gives a link's target one page at most.
const MAX_TARGET_BYTES: u64 = 4096;

/// Where the content of a block stands in the journal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct JournalCopy {
    block: u64,
    /// Its first four bytes are the journal's magic number, and zero in the journal.
    escaped: bool,
}

pub(super) struct Ext {
    volume: CachedVolume,
    superblock: Superblock,
    overlay: BTreeMap<u64, JournalCopy>,
    notes: Vec<String>,
}

impl Ext {
    pub(super) fn open(volume: CachedVolume) -> Result<Self, GuestError> {
        let bytes = volume.bytes(superblock::OFFSET, superblock::LENGTH)?;
        let superblock = superblock::parse(volume.place(), &bytes, volume.size_bytes())?;
        let mut ext = Self {
            volume,
            superblock,
            overlay: BTreeMap::new(),
            notes: Vec::new(),
        };
        if ext.superblock.needs_recovery {
            ext.replay_journal()?;
        }
        Ok(ext)
    }

    /// A journal that cannot be read leaves the blocks as they are, and a note.
    fn replay_journal(&mut self) -> Result<(), GuestError> {
        match journal::read(self) {
            Ok(replay) => {
                self.notes.push(format!(
                    "it was not unmounted: {} blocks of its journal are read in their place, as its next mount will",
                    replay.overlay.len()
                ));
                self.notes.extend(replay.notes);
                self.overlay = replay.overlay;
            }
            Err(GuestError::Disk(error)) => return Err(error.into()),
            Err(error) => self.notes.push(format!(
                "it was not unmounted, and its journal is not read: {error}"
            )),
        }
        // The superblock itself may lie in the journal.
        let mut bytes = vec![0u8; superblock::LENGTH];
        self.read(superblock::OFFSET, &mut bytes)?;
        self.superblock = superblock::parse(self.volume.place(), &bytes, self.volume.size_bytes())?;
        Ok(())
    }

    /// Reads bytes of the file system, those from the journal where it has newer ones.
    fn read(&self, mut offset: u64, mut buf: &mut [u8]) -> Result<(), GuestError> {
        if self.overlay.is_empty() {
            return self.volume.read(offset, buf);
        }
        let block_bytes = self.superblock.block_bytes;
        while !buf.is_empty() {
            let within = offset % block_bytes;
            let length = buf.len().min((block_bytes - within) as usize);
            let (now, later) = buf.split_at_mut(length);
            match self.overlay.get(&(offset / block_bytes)) {
                Some(copy) => {
                    self.volume.read(copy.block * block_bytes + within, now)?;
                    if copy.escaped {
                        let magic = journal::MAGIC.to_be_bytes();
                        for (byte, at) in now.iter_mut().zip(within as usize..magic.len()) {
                            *byte = magic[at];
                        }
                    }
                }
                None => self.volume.read(offset, now)?,
            }
            buf = later;
            offset += length as u64;
        }
        Ok(())
    }

    /// Reads within block `block`; fails where no such block is.
    fn read_block(&self, block: u64, buf: &mut [u8]) -> Result<(), GuestError> {
        if block >= self.superblock.blocks {
            return Err(GuestError::damaged(
                self.volume.place(),
                format!("block {block} is behind the last one"),
            ));
        }
        self.read(block * self.superblock.block_bytes, buf)
    }

    fn block(&self, block: u64) -> Result<Vec<u8>, GuestError> {
        let mut bytes = vec![0u8; self.superblock.block_bytes as usize];
        self.read_block(block, &mut bytes)?;
        Ok(bytes)
    }

    fn what(&self, inode: u32) -> String {
        format!("{} (ext inode {inode})", self.volume.place())
    }

    fn descriptor(&self, group: u64) -> Result<Vec<u8>, GuestError> {
        let mut bytes = vec![0u8; self.superblock.descriptor_bytes];
        self.read(self.superblock.descriptor_offset(group), &mut bytes)?;
        Ok(bytes)
    }

    fn inode(&self, number: u32) -> Result<Inode, GuestError> {
        let superblock = &self.superblock;
        let damaged = |why: &str| GuestError::damaged(self.what(number), why);
        let index = number
            .checked_sub(1)
            .filter(|_| number <= superblock.inodes)
            .ok_or_else(|| damaged("there is no such inode"))?;
        let group = u64::from(index / superblock.inodes_per_group);
        if group >= superblock.groups {
            return Err(damaged("its group does not exist"));
        }
        let table = inode_table(&self.descriptor(group)?)
            .filter(|block| *block < superblock.blocks)
            .ok_or_else(|| damaged("its group's inode table lies behind the last block"))?;
        let within = u64::from(index % superblock.inodes_per_group) * superblock.inode_bytes as u64;
        let mut bytes = [0u8; 128];
        self.read(table * superblock.block_bytes + within, &mut bytes)?;
        Inode::parse(number, &bytes).ok_or_else(|| damaged("it is cut off"))
    }

    /// The first `length` bytes of what an inode holds.
    fn data(&self, inode: &Inode, length: usize) -> Result<Vec<u8>, GuestError> {
        let mut bytes = vec![0u8; length];
        self.data_at(inode, 0, &mut bytes)?;
        Ok(bytes)
    }

    /// What an inode holds from `offset` on.
    fn data_at(&self, inode: &Inode, offset: u64, buf: &mut [u8]) -> Result<(), GuestError> {
        inode.check_readable(&self.what(inode.number))?;
        buf.fill(0);
        let block_bytes = self.superblock.block_bytes;
        for run in inode::runs(self, inode, blocks_of(offset, buf.len(), block_bytes))? {
            self.check_run(inode, &run)?;
            let start = run.logical * block_bytes;
            if let Some((within, part)) = overlap(start, run.count * block_bytes, offset, buf) {
                self.read(run.physical * block_bytes + within, part)?;
            }
        }
        Ok(())
    }

    fn check_run(&self, inode: &Inode, run: &inode::Run) -> Result<(), GuestError> {
        match run.physical.checked_add(run.count) {
            Some(end) if end <= self.superblock.blocks => Ok(()),
            _ => Err(GuestError::damaged(
                self.what(inode.number),
                format!("its block {} lies behind the last one", run.physical),
            )),
        }
    }

    /// Free clusters and inodes of all groups, which are journaled, whereas the superblock's sums are written at unmount.
    fn free(&self) -> Result<(u64, u64), GuestError> {
        let mut free = (0u64, 0u64);
        for group in 0..self.superblock.groups {
            let descriptor = self.descriptor(group)?;
            let count = |low: usize, high: usize| {
                u64::from(descriptor.le16(low).unwrap_or(0))
                    | u64::from(descriptor.le16(high).unwrap_or(0)) << 16
            };
            free.0 += count(12, 44);
            free.1 += count(14, 46);
        }
        Ok(free)
    }
}

fn inode_table(descriptor: &[u8]) -> Option<u64> {
    // The upper half is there in descriptors of 64 bytes alone.
    let high = descriptor.le32(40).unwrap_or(0);
    Some(u64::from(descriptor.le32(8)?) | u64::from(high) << 32)
}

impl Tree for Ext {
    type Node = u32;
    const IGNORES_CASE: bool = false;

    fn root(&self) -> u32 {
        ROOT
    }

    fn kind(&self, node: &u32) -> Result<FileKind, GuestError> {
        Ok(self.inode(*node)?.kind())
    }

    fn children(&self, folder: &u32) -> Result<Vec<Child<u32>>, GuestError> {
        let inode = self.inode(*folder)?;
        if inode.size > MAX_FOLDER_BYTES {
            return Err(GuestError::TooLarge {
                what: self.what(*folder),
                bytes: inode.size,
                limit: MAX_FOLDER_BYTES,
            });
        }
        let bytes = self.data(&inode, inode.size as usize)?;
        folder::children(
            &bytes,
            self.superblock.block_bytes as usize,
            self.superblock.has_file_types,
        )
        .map_err(|why| GuestError::damaged(self.what(*folder), why))
    }

    fn size(&self, file: &u32) -> Result<u64, GuestError> {
        Ok(self.inode(*file)?.size)
    }

    fn content_at(&self, file: &u32, offset: u64, buf: &mut [u8]) -> Result<(), GuestError> {
        self.data_at(&self.inode(*file)?, offset, buf)
    }

    fn target(&self, link: &u32) -> Result<Option<String>, GuestError> {
        let inode = self.inode(*link)?;
        if inode.size > MAX_TARGET_BYTES {
            return Err(GuestError::damaged(
                self.what(*link),
                "its target is too long",
            ));
        }
        let bytes = match inode.short_target() {
            Some(target) => target.to_vec(),
            None => self.data(&inode, inode.size as usize)?,
        };
        Ok(Some(String::from_utf8_lossy(&bytes).into_owned()))
    }

    fn space(&self) -> Option<Space> {
        let (clusters, inodes) = self.free().ok()?;
        let superblock = &self.superblock;
        let reserved = superblock
            .reserved_blocks
            .saturating_mul(superblock.block_bytes);
        Some(Space {
            total_bytes: superblock.blocks * superblock.block_bytes,
            free_bytes: clusters
                .saturating_mul(superblock.cluster_bytes)
                .saturating_sub(reserved),
            free_inodes: Some(inodes),
        })
    }

    fn state(&self) -> Vec<String> {
        let mut state = self.notes.clone();
        // s_state: 1 unmounted cleanly, 2 errors detected. With a journal, the first stays set while it is mounted.
        if self.superblock.state & 1 == 0 && !self.superblock.needs_recovery {
            state.push("it was not unmounted cleanly, and has no journal to mend it".to_owned());
        }
        if self.superblock.state & 2 != 0 || self.superblock.error_count > 0 {
            state.push(format!(
                "the guest's kernel noted errors in it ({} so far): e2fsck is due",
                self.superblock.error_count.max(1)
            ));
        }
        state
    }

    fn place(&self) -> &str {
        self.volume.place()
    }
}
