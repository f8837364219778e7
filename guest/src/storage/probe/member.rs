//! Volumes that are parts of something larger: LVM2, md RAID, ZFS.

use virtual_disk::{DiskError, DiskReader};

use super::super::Content;
use super::super::bytes::{Bytes, dashed_uuid, padded_text};
use super::super::lvm::dashed_lvm_uuid;
use super::Signature;

const RAID_MAGIC: u32 = 0xa92b_4efc;

/// An LVM2 label stands in one of the first four sectors.
pub(super) fn lvm(head: &[u8]) -> Option<Signature> {
    (0..4)
        .map(|sector| sector * 512)
        .find(|&at| head.has(at, b"LABELONE") && head.has(at + 24, b"LVM2 001"))
        .and_then(|at| {
            let header = at.checked_add(head.le32(at + 20)? as usize)?;
            Some(Signature::new(
                Content::LvmPhysicalVolume,
                dashed_lvm_uuid(head.part(header, 32)?),
                None,
            ))
        })
}

/// Metadata 1.1 at the beginning, 1.2 at 4 KiB (Linux, include/uapi/linux/raid/md_p.h).
pub(super) fn raid_at_start(head: &[u8]) -> Option<Signature> {
    [0, 4096]
        .into_iter()
        .find_map(|at| raid_version_1(head.get(at..)?))
}

/// Metadata 1.0 at least 8 KiB before the end, 0.90 in the last whole 64 KiB but one.
pub(super) fn raid_at_end(disk: &dyn DiskReader) -> Result<Option<Signature>, DiskError> {
    let size = disk.size_bytes();
    let mut block = [0u8; 256];
    let mut read = |at: Option<u64>| -> Result<Option<[u8; 256]>, DiskError> {
        match at.filter(|at| at.saturating_add(256) <= size) {
            Some(at) => disk.read_at(at, &mut block).map(|()| Some(block)),
            None => Ok(None),
        }
    };
    if let Some(block) = read(size.checked_sub(8192).map(|at| at & !4095))?
        && let Some(found) = raid_version_1(&block)
    {
        return Ok(Some(found));
    }
    let old = read((size & !0xffff).checked_sub(0x10000))?;
    Ok(old.and_then(|block| raid_version_0(&block)))
}

fn raid_version_1(header: &[u8]) -> Option<Signature> {
    (header.le32(0)? == RAID_MAGIC && header.le32(4)? == 1).then_some(())?;
    Some(Signature::new(
        Content::RaidMember,
        dashed_uuid(header.part(16, 16)?),
        padded_text(header.part(32, 32)?),
    ))
}

fn raid_version_0(header: &[u8]) -> Option<Signature> {
    (header.le32(0)? == RAID_MAGIC && header.le32(4)? == 0).then_some(())?;
    // Four numbers in the byte order of the machine that made it; blkid prints them as numbers.
    let mut uuid = [0u8; 16];
    for (part, at) in uuid.chunks_exact_mut(4).zip([20, 52, 56, 60]) {
        part.copy_from_slice(&header.le32(at)?.to_be_bytes());
    }
    Some(Signature::new(
        Content::RaidMember,
        dashed_uuid(&uuid),
        None,
    ))
}

/// The first label's 128 KiB of uberblocks, one in each KiB, in either byte order.
pub(super) fn has_zfs_uberblock(disk: &dyn DiskReader) -> Result<bool, DiskError> {
    const MAGIC: u64 = 0x00ba_b10c;
    const START: u64 = 128 * 1024;
    if disk.size_bytes() < 2 * START {
        return Ok(false);
    }
    let mut ring = vec![0u8; START as usize];
    disk.read_at(START, &mut ring)?;
    Ok(ring
        .chunks_exact(1024)
        .any(|block| block.le64(0) == Some(MAGIC) || block.be64(0) == Some(MAGIC)))
}
