//! XFS, versions 4 and 5. Its log is not replayed: when it is not clean, that is noted, and the last seconds before the
//! copy may read as they were before.
//!
//! Structures: "XFS Algorithms & Data Structures", 3rd edition (kernel.org, xfs-documentation).

mod folder;
mod inode;
mod log;
mod superblock;

use super::cache::CachedVolume;
use super::tree::{Child, Tree, blocks_of, overlap};
use super::{FileKind, Space};
use crate::GuestError;
use crate::storage::bytes::Bytes;
use inode::Inode;
use superblock::Superblock;

/// A superblock takes one sector, of at most 32 KiB.
const SUPERBLOCK_BYTES: u64 = 32 * 1024;
/// A folder of 262,144 names of middling length.
const MAX_FOLDER_BYTES: u64 = 16 << 20;
/// XFS_SYMLINK_MAXLEN.
const MAX_TARGET_BYTES: u64 = 1024;
/// Each group's header is one read; with more groups, the superblock's own count must do.
const MAX_COUNTED_GROUPS: u64 = 64;

pub(super) struct Xfs {
    volume: CachedVolume,
    superblock: Superblock,
}

impl Xfs {
    pub(super) fn open(volume: CachedVolume) -> Result<Self, GuestError> {
        let length = volume.size_bytes().min(SUPERBLOCK_BYTES) as usize;
        let bytes = volume.bytes(0, length)?;
        let superblock = superblock::parse(volume.place(), &bytes, volume.size_bytes())?;
        Ok(Self { volume, superblock })
    }

    fn what(&self, inode: u64) -> String {
        format!("{} (XFS inode {inode})", self.volume.place())
    }

    fn damaged(&self, inode: u64, why: impl Into<String>) -> GuestError {
        GuestError::damaged(self.what(inode), why)
    }

    /// `count` blocks from `block` on; `None` when they are not all in one group.
    fn blocks(&self, block: u64, count: u64) -> Result<Option<Vec<u8>>, GuestError> {
        let Some(offset) = self.superblock.block_offset(block, count) else {
            return Ok(None);
        };
        let length = (count * self.superblock.block_bytes) as usize;
        self.volume.bytes(offset, length).map(Some)
    }

    fn inode(&self, number: u64) -> Result<Inode, GuestError> {
        let offset = self
            .superblock
            .inode_offset(number)
            .ok_or_else(|| self.damaged(number, "there is no such inode"))?;
        let bytes = self.volume.bytes(offset, self.superblock.inode_bytes)?;
        Inode::parse(number, &bytes)
            .ok_or_else(|| self.damaged(number, "it is damaged, or not in use"))
    }

    /// The first `length` bytes of a file's blocks.
    fn data(&self, inode: &Inode, length: usize) -> Result<Vec<u8>, GuestError> {
        let mut bytes = vec![0u8; length];
        self.data_at(inode, 0, &mut bytes)?;
        Ok(bytes)
    }

    /// A file's bytes from `offset` on.
    fn data_at(&self, inode: &Inode, offset: u64, buf: &mut [u8]) -> Result<(), GuestError> {
        buf.fill(0);
        let block_bytes = self.superblock.block_bytes;
        for run in inode::runs(self, inode, blocks_of(offset, buf.len(), block_bytes))? {
            let start = run.logical * block_bytes;
            let place = self.superblock.block_offset(run.physical, run.count);
            if let (Some((within, part)), Some(place)) =
                (overlap(start, run.count * block_bytes, offset, buf), place)
            {
                self.volume.read(place + within, part)?;
            }
        }
        Ok(())
    }

    /// A folder's data blocks, each of one or more blocks of the file system, which need not lie together.
    fn folder_blocks(&self, inode: &Inode) -> Result<Vec<Child<u64>>, GuestError> {
        let block_bytes = self.superblock.block_bytes;
        let per_block = self.superblock.folder_block_bytes / block_bytes;
        let mut children = Vec::new();
        let mut block = Vec::new();
        let mut expected = None;
        let mut read = 0;
        for run in inode::runs(self, inode, 0..folder::DATA_BYTES / block_bytes)? {
            read += run.count * block_bytes;
            if read > MAX_FOLDER_BYTES {
                return Err(GuestError::TooLarge {
                    what: self.what(inode.number),
                    bytes: read,
                    limit: MAX_FOLDER_BYTES,
                });
            }
            let bytes = self
                .blocks(run.physical, run.count)?
                .ok_or_else(|| self.damaged(inode.number, "it lies behind the last block"))?;
            let parts = bytes.chunks_exact(block_bytes as usize);
            for (logical, part) in (run.logical..).zip(parts) {
                if logical % per_block == 0 {
                    block.clear();
                } else if expected != Some(logical) {
                    return Err(self.damaged(inode.number, "a part of a folder block is missing"));
                }
                expected = Some(logical + 1);
                block.extend_from_slice(part);
                if block.len() as u64 == self.superblock.folder_block_bytes {
                    folder::block(&block, self.superblock.has_file_types, &mut children).map_err(
                        |why| {
                            let number = logical / per_block;
                            self.damaged(inode.number, format!("its block {number}: {why}"))
                        },
                    )?;
                }
            }
        }
        Ok(children)
    }

    /// Free blocks of all groups, which are current, whereas the superblock's sum is written at unmount.
    fn free_blocks(&self) -> Result<Option<u64>, GuestError> {
        let superblock = &self.superblock;
        if superblock.groups > MAX_COUNTED_GROUPS {
            return Ok(None);
        }
        let mut free = 0u64;
        for group in 0..superblock.groups {
            // The AGF is a group's second sector: free blocks, those in its own free list, and in its free-space trees.
            let offset =
                group * superblock.group_blocks * superblock.block_bytes + superblock.sector_bytes;
            let header = self.volume.bytes(offset, 64)?;
            if !header.has(0, b"XAGF") {
                return Ok(None);
            }
            for field in [48, 52, 60] {
                free = free.saturating_add(u64::from(header.be32(field).unwrap_or(0)));
            }
        }
        Ok(Some(free))
    }
}

impl Tree for Xfs {
    type Node = u64;
    const IGNORES_CASE: bool = false;

    fn root(&self) -> u64 {
        self.superblock.root
    }

    fn kind(&self, node: &u64) -> Result<FileKind, GuestError> {
        Ok(self.inode(*node)?.kind())
    }

    fn children(&self, folder: &u64) -> Result<Vec<Child<u64>>, GuestError> {
        let inode = self.inode(*folder)?;
        if inode.kind() != FileKind::Folder {
            return Err(self.damaged(*folder, "its name says folder, and it is none"));
        }
        match inode.local() {
            Some(fork) => folder::short(fork, self.superblock.has_file_types)
                .ok_or_else(|| self.damaged(*folder, "its entries are cut off")),
            None => self.folder_blocks(&inode),
        }
    }

    fn size(&self, file: &u64) -> Result<u64, GuestError> {
        Ok(self.inode(*file)?.size)
    }

    fn content_at(&self, file: &u64, offset: u64, buf: &mut [u8]) -> Result<(), GuestError> {
        self.data_at(&self.inode(*file)?, offset, buf)
    }

    fn target(&self, link: &u64) -> Result<Option<String>, GuestError> {
        let inode = self.inode(*link)?;
        if inode.size > MAX_TARGET_BYTES {
            return Err(self.damaged(*link, "its target is too long"));
        }
        let length = inode.size as usize;
        let target = match inode.local() {
            Some(target) => target.to_vec(),
            None if self.superblock.is_version_5 => self.remote_target(&inode, length)?,
            None => self.data(&inode, length)?,
        };
        Ok(Some(String::from_utf8_lossy(&target).into_owned()))
    }

    fn space(&self) -> Option<Space> {
        let superblock = &self.superblock;
        let free = self
            .free_blocks()
            .ok()
            .flatten()
            .unwrap_or(superblock.free_blocks);
        Some(Space {
            total_bytes: superblock.blocks * superblock.block_bytes,
            free_bytes: free.saturating_mul(superblock.block_bytes),
            free_inodes: None,
        })
    }

    fn state(&self) -> Vec<String> {
        let mut state = Vec::new();
        if self.superblock.needs_repair {
            state.push("it is marked as needing xfs_repair: Linux refuses to mount it".to_owned());
        }
        match log::is_clean(self) {
            Ok(Some(false)) => state.push(
                "it was not unmounted: its log holds changes, which its next mount writes and which are not read here"
                    .to_owned(),
            ),
            Ok(_) => {}
            Err(error) => state.push(format!("its log is not read: {error}")),
        }
        state
    }

    fn place(&self) -> &str {
        self.volume.place()
    }
}

impl Xfs {
    /// A long target in version 5: each stretch of blocks begins with a header of 56 bytes.
    fn remote_target(&self, inode: &Inode, length: usize) -> Result<Vec<u8>, GuestError> {
        const HEADER: usize = 56;
        let block_bytes = self.superblock.block_bytes;
        let blocks = length.div_ceil(block_bytes as usize - HEADER) as u64;
        let mut target = Vec::with_capacity(length);
        for run in inode::runs(self, inode, 0..blocks)? {
            let part = self
                .blocks(run.physical, run.count)?
                .filter(|part| part.has(0, b"XSLM"))
                .ok_or_else(|| self.damaged(inode.number, "its target is damaged"))?;
            let left = (length - target.len()).min(part.len() - HEADER);
            target.extend_from_slice(&part[HEADER..HEADER + left]);
        }
        Ok(target)
    }
}
