//! The superblock of XFS, versions 4 and 5 (XFS Algorithms & Data Structures, 3rd edition, chapter 13).

use crate::GuestError;
use crate::storage::bytes::Bytes;
use crate::storage::checksum::CRC32C;

/// File types in folders, sparse inodes, another UUID in metadata, times to 2486, needs repair (noted), 64-bit counts of
/// extents, exchanged ranges, parent pointers.
const INCOMPAT_KNOWN: u32 = 0xff;
const INCOMPAT_FILE_TYPE: u32 = 0x1;
const INCOMPAT_NEEDS_REPAIR: u32 = 0x10;
const FEATURES2_FILE_TYPE: u32 = 0x200;

pub(super) struct Superblock {
    pub is_version_5: bool,
    pub block_bytes: u64,
    pub blocks: u64,
    pub free_blocks: u64,
    pub root: u64,
    pub group_blocks: u64,
    pub groups: u64,
    pub sector_bytes: u64,
    pub inode_bytes: usize,
    pub folder_block_bytes: u64,
    pub has_file_types: bool,
    pub needs_repair: bool,
    /// Block of an internal log, and its blocks.
    pub log: Option<(u64, u64)>,
    inodes_per_block_log: u32,
    group_log: u32,
}

pub(super) fn parse(
    place: &str,
    bytes: &[u8],
    volume_bytes: u64,
) -> Result<Superblock, GuestError> {
    let what = || format!("{place} (XFS superblock)");
    let (superblock, incompat) =
        fields(bytes).ok_or_else(|| GuestError::damaged(what(), "its sizes make no sense"))?;
    if incompat & !INCOMPAT_KNOWN != 0 {
        return Err(GuestError::unsupported(
            what(),
            format!(
                "it uses features {:#x}, which are not read here",
                incompat & !INCOMPAT_KNOWN
            ),
        ));
    }
    if superblock.is_version_5 && !has_right_checksum(bytes, superblock.sector_bytes) {
        return Err(GuestError::damaged(what(), "its checksum is wrong"));
    }
    if superblock
        .blocks
        .checked_mul(superblock.block_bytes)
        .is_none_or(|end| end > volume_bytes)
    {
        return Err(GuestError::damaged(
            what(),
            format!(
                "the file system has {} blocks of {} bytes, and the volume only {volume_bytes} bytes",
                superblock.blocks, superblock.block_bytes
            ),
        ));
    }
    Ok(superblock)
}

/// Over the whole sector, with the field itself as zero; the field alone is little-endian.
fn has_right_checksum(bytes: &[u8], sector_bytes: u64) -> bool {
    let Some(sector) = bytes.get(..sector_bytes as usize) else {
        return false;
    };
    let mut summed = sector.to_vec();
    summed[224..228].fill(0);
    sector.le32(224) == Some(CRC32C.checksum(&summed))
}

/// The features are given back unjudged.
fn fields(bytes: &[u8]) -> Option<(Superblock, u32)> {
    let version = bytes.be16(100)? & 0xf;
    (bytes.has(0, b"XFSB") && matches!(version, 4 | 5)).then_some(())?;
    let is_version_5 = version == 5;
    let log2 = |at: usize, least: u32, most: u32| {
        bytes
            .byte(at)
            .map(u32::from)
            .filter(|log| (least..=most).contains(log))
    };
    let block_log = log2(120, 9, 16)?;
    let sector_log = log2(121, 9, 15)?;
    let inode_log = log2(122, 8, 11)?;
    let inodes_per_block_log = log2(123, 0, 8)?;
    let group_log = log2(124, 1, 31)?;
    let folder_log = log2(192, 0, 7)?;
    let block_bytes = 1u64 << block_log;
    let (blocks, group_blocks) = (bytes.be64(8)?, u64::from(bytes.be32(84)?));
    let groups = u64::from(bytes.be32(88)?);
    let incompat = if is_version_5 { bytes.be32(216)? } else { 0 };
    let sane = u64::from(bytes.be32(4)?) == block_bytes
        && u64::from(bytes.be16(102)?) == 1 << sector_log
        && u64::from(bytes.be16(104)?) == 1 << inode_log
        && inode_log + inodes_per_block_log == block_log
        && block_log + folder_log <= 16
        && group_blocks > 0
        && group_blocks <= 1 << group_log
        && groups > 0
        && (groups - 1).checked_mul(group_blocks)? < blocks
        && blocks <= groups.checked_mul(group_blocks)?;
    sane.then_some(())?;
    let log_start = bytes.be64(48)?;
    let superblock = Superblock {
        is_version_5,
        block_bytes,
        blocks,
        free_blocks: bytes.be64(144)?,
        root: bytes.be64(56)?,
        group_blocks,
        groups,
        sector_bytes: 1 << sector_log,
        inode_bytes: 1 << inode_log,
        folder_block_bytes: block_bytes << folder_log,
        has_file_types: if is_version_5 {
            incompat & INCOMPAT_FILE_TYPE != 0
        } else {
            bytes.be32(200)? & FEATURES2_FILE_TYPE != 0
        },
        needs_repair: incompat & INCOMPAT_NEEDS_REPAIR != 0,
        log: (log_start != 0).then_some((log_start, u64::from(bytes.be32(96)?))),
        inodes_per_block_log,
        group_log,
    };
    Some((superblock, incompat))
}

impl Superblock {
    /// The byte where block `number` lies, whose upper bits name its group; `None` when there is no such block.
    pub(super) fn block_offset(&self, number: u64, count: u64) -> Option<u64> {
        let group = number >> self.group_log;
        let within = number & ((1 << self.group_log) - 1);
        let fits = group < self.groups && within.checked_add(count)? <= self.group_blocks;
        let block = (group.checked_mul(self.group_blocks)?).checked_add(within)?;
        (fits && block.checked_add(count)? <= self.blocks).then_some(block * self.block_bytes)
    }

    /// The byte where an inode lies: group, block and place in the block are parts of its number.
    pub(super) fn inode_offset(&self, number: u64) -> Option<u64> {
        let block = self.block_offset(number >> self.inodes_per_block_log, 1)?;
        let within = number & ((1 << self.inodes_per_block_log) - 1);
        Some(block + within * self.inode_bytes as u64)
    }
}
