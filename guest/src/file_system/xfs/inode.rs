//! An XFS inode and its data fork: in the inode, a list of extents, or a B+tree of them (XFS Algorithms & Data Structures,
//! chapters 15 and 16).

use std::ops::Range;

use super::super::FileKind;
use super::Xfs;
use crate::GuestError;
use crate::storage::bytes::Bytes;

const FLAG_REAL_TIME: u16 = 0x1;
/// Runs of one file; a fragmented file of 4 GiB has fewer.
const MAX_RUNS: usize = 1 << 20;
/// Blocks of a tree; at 4 KiB each holds 251 extents.
const MAX_NODES: usize = 1 << 14;
/// Linux allows no deeper trees (XFS_BM_MAXLEVELS is 9 on the largest volumes).
const MAX_LEVEL: u16 = 9;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Fork {
    Local,
    Extents,
    Tree,
    Other,
}

pub(super) struct Inode {
    pub number: u64,
    pub size: u64,
    mode: u16,
    flags: u16,
    fork: Fork,
    data: Vec<u8>,
}

/// Blocks of a file that lie together.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Run {
    pub logical: u64,
    pub physical: u64,
    pub count: u64,
}

impl Inode {
    /// `None` when it is no inode, is another one, or does not hold together.
    pub(super) fn parse(number: u64, bytes: &[u8]) -> Option<Self> {
        let version = bytes.byte(4)?;
        (bytes.has(0, b"IN") && matches!(version, 1..=3)).then_some(())?;
        let start = if version == 3 {
            (bytes.be64(152)? == number).then_some(176)?
        } else {
            100
        };
        let fork = match bytes.byte(5)? {
            1 => Fork::Local,
            2 => Fork::Extents,
            3 => Fork::Tree,
            _ => Fork::Other,
        };
        // Where extended attributes begin, in units of 8 bytes; 0 where there are none.
        let length = match usize::from(bytes.byte(82)?) {
            0 => bytes.len().checked_sub(start)?,
            units => units * 8,
        };
        let inode = Self {
            number,
            size: bytes.be64(56)?,
            mode: bytes.be16(2)?,
            flags: bytes.be16(90)?,
            fork,
            data: bytes.part(start, length)?.to_vec(),
        };
        Some(inode)
    }

    pub(super) fn kind(&self) -> FileKind {
        match self.mode & 0xf000 {
            0x8000 => FileKind::File,
            0x4000 => FileKind::Folder,
            0xa000 => FileKind::Link,
            _ => FileKind::Other,
        }
    }

    /// What lies in the inode itself: a small folder, a short link's target.
    pub(super) fn local(&self) -> Option<&[u8]> {
        let length = usize::try_from(self.size).ok()?;
        (self.fork == Fork::Local)
            .then(|| self.data.get(..length))
            .flatten()
    }
}

/// The runs that cover these blocks of a file, in order, cut off at both ends; what none covers is zero.
pub(super) fn runs(xfs: &Xfs, inode: &Inode, blocks: Range<u64>) -> Result<Vec<Run>, GuestError> {
    let mut map = Map {
        xfs,
        what: xfs.what(inode.number),
        blocks,
        nodes: 0,
        runs: Vec::new(),
    };
    if inode.flags & FLAG_REAL_TIME != 0 && inode.kind() == FileKind::File {
        return Err(GuestError::unsupported(
            map.what,
            "it lies on a real-time device",
        ));
    }
    match inode.fork {
        Fork::Extents => map.records(&inode.data)?,
        Fork::Tree => map.root(&inode.data)?,
        Fork::Local => return Err(map.damaged("its data lies in the inode, where none may")),
        Fork::Other => return Err(map.damaged("its data fork is of an unknown kind")),
    }
    Ok(map.runs)
}

struct Map<'a> {
    xfs: &'a Xfs,
    what: String,
    blocks: Range<u64>,
    nodes: usize,
    runs: Vec<Run>,
}

impl Map<'_> {
    fn damaged(&self, why: &str) -> GuestError {
        GuestError::damaged(&self.what, why)
    }

    /// Records of 128 bits: unwritten, 54 bits of block in the file, 52 of block on disk, 21 of length. An empty one ends.
    fn records(&mut self, bytes: &[u8]) -> Result<(), GuestError> {
        for record in bytes.chunks_exact(16) {
            let (Some(high), Some(low)) = (record.be64(0), record.be64(8)) else {
                break;
            };
            let count = low & 0x1f_ffff;
            if count == 0 {
                break;
            }
            let logical = (high & !(1 << 63)) >> 9;
            let physical = (high & 0x1ff) << 43 | low >> 21;
            let is_unwritten = high >> 63 != 0;
            if is_unwritten || logical >= self.blocks.end || logical + count <= self.blocks.start {
                continue;
            }
            // Checked as a whole, as an extent never leaves its group.
            if self.xfs.superblock.block_offset(physical, count).is_none() {
                return Err(self.damaged("an extent of it lies behind the end of its group"));
            }
            let before = self.blocks.start.saturating_sub(logical);
            let logical = logical + before;
            if self
                .runs
                .last()
                .is_some_and(|last| last.logical + last.count > logical)
            {
                return Err(self.damaged("two extents claim the same part of it"));
            }
            if self.runs.len() == MAX_RUNS {
                return Err(self.damaged("it has too many pieces"));
            }
            self.runs.push(Run {
                logical,
                physical: physical + before,
                count: (count - before).min(self.blocks.end - logical),
            });
        }
        Ok(())
    }

    /// The root in the inode: level, count, then room for keys, then as many pointers.
    fn root(&mut self, fork: &[u8]) -> Result<(), GuestError> {
        let most = fork.len().saturating_sub(4) / 16;
        let (Some(level), Some(count)) = (fork.be16(0), fork.be16(2)) else {
            return Err(self.damaged("the root of its extent tree is cut off"));
        };
        if level == 0 || level > MAX_LEVEL || usize::from(count) > most {
            return Err(self.damaged("the root of its extent tree is damaged"));
        }
        self.pointers(fork, 4, most, count, level)
    }

    /// `most` keys from `start` on, which are the first block of what each pointer leads to; then the pointers.
    fn pointers(
        &mut self,
        node: &[u8],
        start: usize,
        most: usize,
        count: u16,
        level: u16,
    ) -> Result<(), GuestError> {
        let count = usize::from(count);
        let key = |index: usize| node.be64(start + index * 8).filter(|_| index < count);
        for index in 0..count {
            if index > 0 && key(index).is_some_and(|key| key >= self.blocks.end) {
                break;
            }
            if key(index + 1).is_some_and(|next| next <= self.blocks.start) {
                continue;
            }
            let Some(block) = node.be64(start + (most + index) * 8) else {
                return Err(self.damaged("a node of its extent tree is cut off"));
            };
            self.node(block, level - 1)?;
        }
        Ok(())
    }

    /// Each node is one level below the one that points to it, so that the walk ends.
    fn node(&mut self, block: u64, level: u16) -> Result<(), GuestError> {
        self.nodes += 1;
        if self.nodes > MAX_NODES {
            return Err(self.damaged("its extent tree does not end"));
        }
        let bytes = self
            .xfs
            .blocks(block, 1)?
            .ok_or_else(|| self.damaged("a node of its extent tree lies behind the last block"))?;
        let header = match bytes.part(0, 4) {
            Some(b"BMAP") => 24,
            Some(b"BMA3") => 72,
            _ => return Err(self.damaged("a node of its extent tree is none")),
        };
        let (Some(there), Some(count)) = (bytes.be16(4), bytes.be16(6)) else {
            return Err(self.damaged("a node of its extent tree is cut off"));
        };
        let most = (bytes.len() - header) / 16;
        if there != level || usize::from(count) > most {
            return Err(self.damaged("a node of its extent tree is damaged"));
        }
        if level == 0 {
            let records = &bytes[header..header + usize::from(count) * 16];
            self.records(records)
        } else {
            self.pointers(&bytes, header, most, count, level)
        }
    }
}
