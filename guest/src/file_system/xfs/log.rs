//! Whether an XFS log holds changes that the file system lacks: it is clean when its last record is that of an unmount.
//!
//! As Linux finds it (fs/xfs/xfs_log_recover.c, xlog_find_head and xlog_check_unmount_rec), with the log taken to be whole.

use super::Xfs;
use crate::GuestError;
use crate::storage::bytes::Bytes;

/// The log counts in blocks of 512 bytes, whatever the file system's.
const BASIC: u64 = 512;
const RECORD_MAGIC: u32 = 0xfeed_babe;
/// An unmount record is one header and one block; others are told apart by not being that.
const SEARCHED: u64 = 128;
const FLAG_UNMOUNT: u8 = 0x20;

/// `None` when the log's state cannot be told.
pub(super) fn is_clean(xfs: &Xfs) -> Result<Option<bool>, GuestError> {
    let Some((start, blocks)) = xfs.superblock.log else {
        return Ok(None);
    };
    let Some(offset) = xfs.superblock.block_offset(start, blocks) else {
        return Ok(None);
    };
    let count = blocks * xfs.superblock.block_bytes / BASIC;
    if count < 2 {
        return Ok(None);
    }
    let block = |index: u64| xfs.volume.bytes(offset + index * BASIC, BASIC as usize);
    let head = find_head(count, |index| cycle(&block(index)?))?;
    // Backwards from the head, around the ring's end.
    for back in 1..=SEARCHED.min(count) {
        let header = block((head + count - back) % count)?;
        if header.be32(0) != Some(RECORD_MAGIC) {
            continue;
        }
        let length = u64::from(header.be32(12).unwrap_or(0)).div_ceil(BASIC);
        if header.be32(40) != Some(1) || back != length + 1 {
            return Ok(Some(false));
        }
        let operation = block((head + count - back + 1) % count)?;
        let flags = operation.byte(9).unwrap_or(0);
        return Ok(Some(flags & FLAG_UNMOUNT != 0));
    }
    Ok(Some(false))
}

/// The pass around the ring that wrote a block: its first number, or the second behind a record's magic.
fn cycle(block: &[u8]) -> Result<u32, GuestError> {
    let first = block.be32(0).unwrap_or(0);
    Ok(if first == RECORD_MAGIC {
        block.be32(4).unwrap_or(0)
    } else {
        first
    })
}

/// The first block of an older pass than the log's first block is of; by bisection, in some 20 reads.
fn find_head(
    count: u64,
    cycle_at: impl Fn(u64) -> Result<u32, GuestError>,
) -> Result<u64, GuestError> {
    let newest = cycle_at(0)?;
    if cycle_at(count - 1)? == newest {
        return Ok(0);
    }
    let (mut low, mut high) = (0, count - 1);
    while high - low > 1 {
        let middle = low + (high - low) / 2;
        if cycle_at(middle)? == newest {
            low = middle;
        } else {
            high = middle;
        }
    }
    Ok(high)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_head_is_where_the_older_pass_begins() {
        for head in 1..100 {
            let found = find_head(100, |index| Ok(if index < head { 8 } else { 7 })).unwrap();
            assert_eq!(found, head);
        }
        assert_eq!(find_head(100, |_| Ok(7)).unwrap(), 0);
    }
}
