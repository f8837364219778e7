//! An inode of ext2/3/4, and where its blocks lie: by extents, or by blocks of block numbers.

use std::ops::Range;

use super::super::FileKind;
use super::Ext;
use crate::GuestError;
use crate::storage::bytes::Bytes;

const FLAG_ENCRYPTED: u32 = 0x800;
const FLAG_COMPRESSED: u32 = 0x4;
const FLAG_EXTENTS: u32 = 0x8_0000;
const FLAG_INLINE: u32 = 0x1000_0000;
/// Linux makes extent trees at most 5 deep.
const MAX_DEPTH: u16 = 5;
/// Runs of one file; a fragmented file of 4 GiB has fewer.
const MAX_RUNS: usize = 1 << 20;
/// Blocks of an extent tree or of block numbers that are read for one file.
const MAX_NODES: usize = 1 << 15;

pub(super) struct Inode {
    pub number: u32,
    pub size: u64,
    mode: u16,
    flags: u32,
    /// Extents, block numbers, or a short link's target.
    map: [u8; 60],
}

/// Blocks of a file that lie together.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Run {
    pub logical: u64,
    pub physical: u64,
    pub count: u64,
}

impl Inode {
    pub(super) fn parse(number: u32, bytes: &[u8]) -> Option<Self> {
        let mode = bytes.le16(0)?;
        // For all but files the upper half was something else once (i_dir_acl).
        let high = if mode & 0xf000 == 0x8000 {
            u64::from(bytes.le32(108)?) << 32
        } else {
            0
        };
        Some(Self {
            number,
            size: u64::from(bytes.le32(4)?) | high,
            mode,
            flags: bytes.le32(32)?,
            map: bytes.array(40)?,
        })
    }

    pub(super) fn kind(&self) -> FileKind {
        match self.mode & 0xf000 {
            0x8000 => FileKind::File,
            0x4000 => FileKind::Folder,
            0xa000 => FileKind::Link,
            _ => FileKind::Other,
        }
    }

    /// A target of less than 60 bytes stands in the inode.
    pub(super) fn short_target(&self) -> Option<&[u8]> {
        let length = usize::try_from(self.size).ok()?;
        (length < self.map.len() && self.flags & (FLAG_EXTENTS | FLAG_INLINE) == 0)
            .then(|| &self.map[..length])
    }

    pub(super) fn check_readable(&self, what: &str) -> Result<(), GuestError> {
        let why = if self.flags & FLAG_ENCRYPTED != 0 {
            "it is encrypted"
        } else if self.flags & FLAG_COMPRESSED != 0 {
            "it is compressed"
        } else if self.flags & FLAG_INLINE != 0 {
            "its data lies in the inode (inline_data)"
        } else {
            return Ok(());
        };
        Err(GuestError::unsupported(what, why))
    }
}

/// The runs that cover these blocks of a file, cut off at both ends; what none covers is zero.
pub(super) fn runs(ext: &Ext, inode: &Inode, blocks: Range<u64>) -> Result<Vec<Run>, GuestError> {
    let mut map = Map {
        ext,
        what: ext.what(inode.number),
        blocks,
        nodes: 0,
        runs: Vec::new(),
    };
    if inode.flags & FLAG_EXTENTS != 0 {
        map.extents(&inode.map, None)?;
    } else {
        map.numbers(&inode.map)?;
    }
    Ok(map.runs)
}

struct Map<'a> {
    ext: &'a Ext,
    what: String,
    blocks: Range<u64>,
    nodes: usize,
    runs: Vec<Run>,
}

impl Map<'_> {
    fn damaged(&self, why: &str) -> GuestError {
        GuestError::damaged(&self.what, why)
    }

    fn node(&mut self, block: u64) -> Result<Vec<u8>, GuestError> {
        self.nodes += 1;
        if self.nodes > MAX_NODES {
            return Err(self.damaged("its map of blocks does not end"));
        }
        self.ext.block(block)
    }

    fn push(&mut self, logical: u64, physical: u64, count: u64) -> Result<(), GuestError> {
        let before = self.blocks.start.saturating_sub(logical);
        let logical = logical + before;
        let count = count
            .saturating_sub(before)
            .min(self.blocks.end.saturating_sub(logical));
        if count == 0 {
            return Ok(());
        }
        let physical = physical
            .checked_add(before)
            .ok_or_else(|| self.damaged("one of its blocks lies behind all numbers"))?;
        if let Some(last) = self.runs.last_mut() {
            let end = last.logical + last.count;
            if end > logical {
                return Err(self.damaged("two extents claim the same part of it"));
            }
            if end == logical && last.physical.checked_add(last.count) == Some(physical) {
                last.count += count;
                return Ok(());
            }
        }
        if self.runs.len() == MAX_RUNS {
            return Err(self.damaged("it has too many pieces"));
        }
        self.runs.push(Run {
            logical,
            physical,
            count,
        });
        Ok(())
    }

    /// One node of an extent tree; each level is one less deep than the one above, so that the walk ends.
    fn extents(&mut self, node: &[u8], depth_above: Option<u16>) -> Result<(), GuestError> {
        let bad = || GuestError::damaged(&self.what, "a node of its extent tree is damaged");
        let (Some(0xf30a), Some(entries), Some(depth)) = (node.le16(0), node.le16(2), node.le16(6))
        else {
            return Err(bad());
        };
        let right_depth = match depth_above {
            Some(above) => above.checked_sub(1) == Some(depth),
            None => depth <= MAX_DEPTH,
        };
        if !right_depth || usize::from(entries) > (node.len() - 12) / 12 {
            return Err(bad());
        }
        let mut entries = node[12..]
            .chunks_exact(12)
            .take(usize::from(entries))
            .peekable();
        while let Some(entry) = entries.next() {
            let number = |at| u64::from(entry.le32(at).unwrap_or(0));
            let logical = number(0);
            if logical >= self.blocks.end {
                break;
            }
            // What the next entry begins before, this one has nothing of.
            let next = entries.peek().and_then(|next| next.le32(0));
            if next.is_some_and(|next| u64::from(next) <= self.blocks.start) {
                continue;
            }
            if depth == 0 {
                let length = entry.le16(4).unwrap_or(0);
                let high = u64::from(entry.le16(6).unwrap_or(0)) << 32;
                // Above 32,768 the extent is allocated and not written: its blocks are zero.
                if length <= 0x8000 {
                    self.push(logical, number(8) | high, u64::from(length))?;
                }
            } else {
                let high = u64::from(entry.le16(8).unwrap_or(0)) << 32;
                let child = self.node(number(4) | high)?;
                self.extents(&child, Some(depth))?;
            }
        }
        Ok(())
    }

    /// Twelve numbers of blocks, then one block of numbers, one of such blocks, and one of those.
    fn numbers(&mut self, map: &[u8; 60]) -> Result<(), GuestError> {
        let mut logical = 0;
        for (index, number) in map.chunks_exact(4).enumerate() {
            let level = (index as u32).saturating_sub(11);
            self.numbered(number.le32(0).unwrap_or(0), level, &mut logical)?;
        }
        Ok(())
    }

    fn numbered(&mut self, block: u32, level: u32, logical: &mut u64) -> Result<(), GuestError> {
        if *logical >= self.blocks.end {
            return Ok(());
        }
        let per_block = self.ext.superblock.block_bytes / 4;
        let after = logical.saturating_add(per_block.pow(level));
        if block == 0 || after <= self.blocks.start {
            // A hole as large as all that would hang from here, or all of that lies before what is asked for.
            *logical = after;
            return Ok(());
        }
        if level == 0 {
            self.push(*logical, u64::from(block), 1)?;
            *logical += 1;
            return Ok(());
        }
        let node = self.node(u64::from(block))?;
        for number in node.chunks_exact(4) {
            if *logical >= self.blocks.end {
                break;
            }
            self.numbered(number.le32(0).unwrap_or(0), level - 1, logical)?;
        }
        Ok(())
    }
}
