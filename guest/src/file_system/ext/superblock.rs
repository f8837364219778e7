//! The superblock of ext2/3/4 and where it puts the group descriptors (Linux, Documentation/filesystems/ext4/super.rst).

use crate::GuestError;
use crate::storage::bytes::Bytes;

/// Offset and length on the volume.
pub(super) const OFFSET: u64 = 1024;
pub(super) const LENGTH: usize = 1024;

const INCOMPAT_FILE_TYPE: u32 = 0x2;
const INCOMPAT_RECOVER: u32 = 0x4;
const INCOMPAT_META_BLOCK_GROUPS: u32 = 0x10;
const INCOMPAT_64BIT: u32 = 0x80;
/// What is read here, by name: file types, recovery, meta block groups, extents, 64 bits, multiple-mount protection,
/// flexible groups, values in inodes, checksum seed, large folders, data in inodes (refused file by file), encryption
/// (likewise), case folding. Not: compression (1), a journal's own device (8), data in folder entries (0x1000).
const INCOMPAT_KNOWN: u32 = 0x2
    | 0x4
    | 0x10
    | 0x40
    | 0x80
    | 0x100
    | 0x200
    | 0x400
    | 0x2000
    | 0x4000
    | 0x8000
    | 0x1_0000
    | 0x2_0000;
const RO_COMPAT_SPARSE_SUPER: u32 = 0x1;
const RO_COMPAT_BIG_ALLOC: u32 = 0x200;
/// A volume of 128 TiB in groups of 128 MiB.
const MAX_GROUPS: u64 = 1 << 20;

#[derive(Debug)]
pub(super) struct Superblock {
    pub block_bytes: u64,
    pub blocks: u64,
    pub reserved_blocks: u64,
    /// Bytes of what the free counters count: blocks, or clusters with bigalloc.
    pub cluster_bytes: u64,
    pub inodes_per_group: u32,
    pub inodes: u32,
    pub inode_bytes: usize,
    pub groups: u64,
    pub descriptor_bytes: usize,
    pub has_file_types: bool,
    pub needs_recovery: bool,
    pub journal_inode: u32,
    pub state: u16,
    pub error_count: u32,
    first_block: u64,
    blocks_per_group: u64,
    first_meta_group: u64,
    has_meta_groups: bool,
    has_sparse_super: bool,
}

/// Checks all that later arithmetic relies upon.
pub(super) fn parse(
    place: &str,
    bytes: &[u8],
    volume_bytes: u64,
) -> Result<Superblock, GuestError> {
    let what = || format!("{place} (ext superblock)");
    let superblock =
        fields(bytes).ok_or_else(|| GuestError::damaged(what(), "its sizes make no sense"))?;
    let unknown = bytes.le32(96).unwrap_or(0) & !INCOMPAT_KNOWN;
    if unknown != 0 {
        return Err(GuestError::unsupported(
            what(),
            format!("it uses features {unknown:#x}, which are not read here"),
        ));
    }
    let end = superblock.blocks.checked_mul(superblock.block_bytes);
    if end.is_none_or(|end| end > volume_bytes) {
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

fn fields(bytes: &[u8]) -> Option<Superblock> {
    bytes.has(56, &[0x53, 0xef]).then_some(())?;
    let incompat = bytes.le32(96)?;
    let ro_compat = bytes.le32(100)?;
    let wide = incompat & INCOMPAT_64BIT != 0;
    let high = |at: usize| -> Option<u64> {
        Some(if wide {
            u64::from(bytes.le32(at)?) << 32
        } else {
            0
        })
    };
    let block_log = bytes.le32(24).filter(|log| *log <= 6)?;
    let block_bytes = 1024u64 << block_log;
    let blocks = u64::from(bytes.le32(4)?) | high(0x150)?;
    let first_block = u64::from(bytes.le32(20)?);
    let blocks_per_group = u64::from(bytes.le32(32)?);
    let inodes_per_group = bytes.le32(40)?;
    let groups = blocks
        .checked_sub(first_block)?
        .checked_add(blocks_per_group)?
        .checked_sub(1)?
        .checked_div(blocks_per_group)?;
    // Revision 0 has inodes of 128 bytes and no such field.
    let inode_bytes = match bytes.le32(76)? {
        0 => 128,
        _ => usize::from(bytes.le16(88)?),
    };
    let descriptor_bytes = if wide {
        usize::from(bytes.le16(254)?)
    } else {
        32
    };
    let cluster_log = if ro_compat & RO_COMPAT_BIG_ALLOC != 0 {
        bytes.le32(28).filter(|log| *log <= 20)?
    } else {
        block_log
    };
    let sane = (1..=MAX_GROUPS).contains(&groups)
        && inodes_per_group > 0
        && inode_bytes.is_power_of_two()
        && inode_bytes >= 128
        && inode_bytes as u64 <= block_bytes
        && descriptor_bytes.is_power_of_two()
        && (32..=1024).contains(&descriptor_bytes);
    sane.then_some(Superblock {
        block_bytes,
        blocks,
        reserved_blocks: u64::from(bytes.le32(8)?) | high(0x154)?,
        cluster_bytes: 1024 << cluster_log,
        inodes_per_group,
        inodes: bytes.le32(0)?,
        inode_bytes,
        groups,
        descriptor_bytes,
        has_file_types: incompat & INCOMPAT_FILE_TYPE != 0,
        needs_recovery: incompat & INCOMPAT_RECOVER != 0,
        journal_inode: bytes.le32(224)?,
        state: bytes.le16(58)?,
        error_count: bytes.le32(0x194)?,
        first_block,
        blocks_per_group,
        first_meta_group: u64::from(bytes.le32(260)?),
        has_meta_groups: incompat & INCOMPAT_META_BLOCK_GROUPS != 0,
        has_sparse_super: ro_compat & RO_COMPAT_SPARSE_SUPER != 0,
    })
}

impl Superblock {
    /// The byte where a group's descriptor lies; `group` is below [`Superblock::groups`].
    pub(super) fn descriptor_offset(&self, group: u64) -> u64 {
        let per_block = self.block_bytes / self.descriptor_bytes as u64;
        let table_block = group / per_block;
        let within = (group % per_block) * self.descriptor_bytes as u64;
        let block = if self.has_meta_groups && table_block >= self.first_meta_group {
            // Each block of descriptors lies in the first of the groups that it describes, behind a copy of the superblock.
            let first = table_block * per_block;
            let behind = if first == 0 {
                self.superblock_block() + 1 - self.first_block.min(1)
            } else {
                u64::from(self.has_superblock(first))
            };
            self.first_block + first * self.blocks_per_group + behind
        } else {
            self.superblock_block() + 1 + table_block
        };
        block * self.block_bytes + within
    }

    /// The block that holds byte 1024. With bigalloc it is not the first data block, which is 0 then.
    fn superblock_block(&self) -> u64 {
        OFFSET / self.block_bytes
    }

    /// Whether a group begins with a copy of the superblock: with `sparse_super` 0, 1, and powers of 3, 5 and 7 do.
    fn has_superblock(&self, group: u64) -> bool {
        let is_power = |base: u64| {
            let mut power = base;
            while power < group {
                power *= base;
            }
            power == group
        };
        !self.has_sparse_super || group <= 1 || [3, 5, 7].into_iter().any(is_power)
    }
}
