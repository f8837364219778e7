//! What a volume holds, by its signature, with the UUID and label that `blkid` would print.
//!
//! Offsets are those of libblkid's superblock probers (util-linux, libblkid/src/superblocks).

mod boot_sector;
mod member;

use virtual_disk::{DiskError, DiskReader};

use super::Content;
use super::bytes::{Bytes, dashed_uuid, padded_text};

/// What was recognised.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Signature {
    pub content: Content,
    pub uuid: Option<String>,
    pub label: Option<String>,
}

impl Signature {
    fn new(content: Content, uuid: Option<String>, label: Option<String>) -> Self {
        Self {
            content,
            uuid,
            label,
        }
    }
}

/// The farthest signature near the beginning is that of btrfs, 64 KiB + 4 KiB.
const HEAD_BYTES: u64 = 68 * 1024;

/// Reads at most 68 KiB at the beginning, 4 KiB twice at the end, one cluster for a label, and 128 KiB more when nothing
/// was recognised.
pub(super) fn probe(disk: &dyn DiskReader) -> Result<Signature, DiskError> {
    let mut head = vec![0u8; disk.size_bytes().min(HEAD_BYTES) as usize];
    disk.read_at(0, &mut head)?;
    if let Some(found) = encrypted(&head)
        .or_else(|| member::lvm(&head))
        .or_else(|| member::raid_at_start(&head))
    {
        return Ok(found);
    }
    // RAID 1 with its metadata at the end looks like a plain file system from the beginning.
    if let Some(found) = member::raid_at_end(disk)? {
        return Ok(found);
    }
    if let Some(found) = xfs(&head)
        .or_else(|| btrfs(&head))
        .or_else(|| ext(&head))
        .or_else(|| swap(&head))
    {
        return Ok(found);
    }
    if let Some(found) = boot_sector::probe(disk, &head)? {
        return Ok(found);
    }
    if member::has_zfs_uberblock(disk)? {
        return Ok(Signature::new(Content::ZfsMember, None, None));
    }
    // The last: what is left of an earlier use of the volume must not hide what it is now.
    Ok(foreign(&head).unwrap_or_else(|| Signature::new(Content::Unknown, None, None)))
}

fn encrypted(head: &[u8]) -> Option<Signature> {
    if head.has(0, b"LUKS\xba\xbe") {
        // Both versions keep the UUID as text at 168; version 2 has a label at 24.
        let label = match head.be16(6)? {
            2 => padded_text(head.part(24, 48)?),
            _ => None,
        };
        return Some(Signature::new(
            Content::Luks,
            padded_text(head.part(168, 40)?),
            label,
        ));
    }
    // BitLocker To Go begins as a FAT; its GUID 4967d63b-2e29-4ad8-8399-f6a339e3d001 stands at 424.
    const TO_GO: &[u8] = &[
        0x3b, 0xd6, 0x67, 0x49, 0x29, 0x2e, 0xd8, 0x4a, 0x83, 0x99, 0xf6, 0xa3, 0x39, 0xe3, 0xd0,
        0x01,
    ];
    (head.has(3, b"-FVE-FS-") || head.has(424, TO_GO))
        .then(|| Signature::new(Content::BitLocker, None, None))
}

fn xfs(head: &[u8]) -> Option<Signature> {
    head.has(0, b"XFSB").then_some(())?;
    Some(Signature::new(
        Content::Xfs,
        dashed_uuid(head.part(32, 16)?),
        padded_text(head.part(108, 12)?),
    ))
}

fn btrfs(head: &[u8]) -> Option<Signature> {
    head.has(0x10040, b"_BHRfS_M").then_some(())?;
    Some(Signature::new(
        Content::Btrfs,
        dashed_uuid(head.part(0x10020, 16)?),
        padded_text(head.part(0x1012b, 256)?),
    ))
}

fn ext(head: &[u8]) -> Option<Signature> {
    let superblock = head.part(1024, 1024)?;
    superblock.has(56, &[0x53, 0xef]).then_some(())?;
    // The magic is but two bytes: the block size and the inodes per group must make sense too.
    (superblock.le32(24)? <= 6 && superblock.le32(40)? != 0).then_some(())?;
    Some(Signature::new(
        Content::Ext,
        dashed_uuid(superblock.part(104, 16)?),
        padded_text(superblock.part(120, 16)?),
    ))
}

/// File systems that a guest may start from and that are not read here, so that what bears no signature at all is known
/// to hold none.
fn foreign(head: &[u8]) -> Option<Signature> {
    const KNOWN: [(usize, &[u8]); 16] = [
        // F2FS, EROFS
        (1024, b"\x10\x20\xf5\xf2"),
        (1024, b"\xe2\xe1\xf5\xe0"),
        // NILFS2
        (1030, b"\x34\x34"),
        // HFS+, HFSX
        (1024, b"H+\0\x04"),
        (1024, b"HX\0\x05"),
        (32, b"NXSB"),
        (0, b"hsqs"),
        // bcachefs
        (4120, b"\xc6\x85\x73\xf6\x4e\x1a\x45\xca"),
        (4120, b"\xc6\x85\x73\xf6\x66\xce\x90\xa9"),
        (0x8000, b"JFS1"),
        (0x8001, b"CD001"),
        (0x10034, b"ReIsEr"),
        (0x10000, b"ReIsEr4"),
        // GFS2
        (0x10000, b"\x01\x16\x19\x70"),
        // UFS2 in either order of bytes
        (0x1055c, b"\x19\x01\x54\x19"),
        (0x1055c, b"\x19\x54\x01\x19"),
    ];
    let known = KNOWN.iter().any(|(at, mark)| head.has(*at, mark));
    known.then(|| Signature::new(Content::Foreign, None, None))
}

fn swap(head: &[u8]) -> Option<Signature> {
    // At the end of the first page, whatever a page's size; a hibernated system has another text there.
    const SIGNATURES: [&[u8]; 6] = [
        b"SWAPSPACE2",
        b"SWAP-SPACE",
        b"S1SUSPEND",
        b"S2SUSPEND",
        b"ULSUSPEND",
        b"LINHIB0001",
    ];
    [4096usize, 8192, 16384, 32768, 65536]
        .iter()
        .any(|page| SIGNATURES.iter().any(|text| head.has(page - 10, text)))
        .then_some(())?;
    Some(Signature::new(
        Content::Swap,
        dashed_uuid(head.part(0x40c, 16)?),
        padded_text(head.part(0x41c, 16)?),
    ))
}

#[cfg(test)]
mod tests {
    use super::super::window::memory::MemoryDisk;
    use super::*;

    /// An empty volume of `size` bytes with these bytes at these places.
    fn volume(size: usize, parts: &[(usize, &[u8])]) -> Signature {
        let mut bytes = vec![0u8; size];
        for (at, part) in parts {
            bytes[*at..*at + part.len()].copy_from_slice(part);
        }
        probe(&MemoryDisk(bytes)).unwrap()
    }

    #[test]
    fn what_is_not_read_is_told_from_what_bears_no_signature() {
        let f2fs: (usize, &[u8]) = (1024, b"\x10\x20\xf5\xf2");
        assert_eq!(volume(1 << 20, &[f2fs]).content, Content::Foreign);
        assert_eq!(
            volume(1 << 20, &[(0x8000, b"JFS1")]).content,
            Content::Foreign
        );
        assert_eq!(
            volume(1 << 20, &[(9000, b"words")]).content,
            Content::Unknown
        );
        // What lies there now counts.
        let now = volume(1 << 20, &[(0, b"XFSB"), (0x8000, b"JFS1")]);
        assert_eq!(now.content, Content::Xfs);
    }

    #[test]
    fn nothing_is_unknown() {
        for size in [0, 1, 511, 4096, 1 << 20] {
            assert_eq!(volume(size, &[]).content, Content::Unknown, "{size}");
        }
    }

    #[test]
    fn luks_of_both_versions() {
        let uuid = b"0c2ab9f5-3b1a-4e5c-8a52-0123456789ab";
        let first = volume(1 << 20, &[(0, b"LUKS\xba\xbe\0\x01"), (168, uuid)]);
        assert_eq!(first.content, Content::Luks);
        assert_eq!(
            first.uuid.as_deref(),
            Some(std::str::from_utf8(uuid).unwrap())
        );
        assert_eq!(first.label, None);
        let second = volume(
            1 << 20,
            &[(0, b"LUKS\xba\xbe\0\x02"), (24, b"cryptroot"), (168, uuid)],
        );
        assert_eq!(second.label.as_deref(), Some("cryptroot"));
    }

    #[test]
    fn bitlocker_and_btrfs() {
        assert_eq!(
            volume(1 << 20, &[(3, b"-FVE-FS-")]).content,
            Content::BitLocker
        );
        let btrfs = volume(
            1 << 20,
            &[
                (0x10040, b"_BHRfS_M"),
                (0x10020, &[0xab; 16]),
                (0x1012b, b"pool"),
            ],
        );
        assert_eq!(btrfs.content, Content::Btrfs);
        assert_eq!(
            btrfs.uuid.as_deref(),
            Some("abababab-abab-abab-abab-abababababab")
        );
        assert_eq!(btrfs.label.as_deref(), Some("pool"));
    }

    #[test]
    fn raid_metadata_at_the_end_wins_over_the_file_system_at_the_start() {
        let magic = 0xa92b_4efc_u32.to_le_bytes();
        let size = 1 << 20;
        let at = (size - 8192) & !4095;
        let mut header = [0u8; 64];
        header[..4].copy_from_slice(&magic);
        header[4] = 1;
        header[16..32].fill(0x11);
        header[32..38].copy_from_slice(b"host:0");
        let member = volume(size, &[(0, b"XFSB"), (at, &header)]);
        assert_eq!(member.content, Content::RaidMember);
        assert_eq!(member.label.as_deref(), Some("host:0"));
        // The old format: 64 KiB before the end, aligned to 64 KiB.
        let mut old = [0u8; 128];
        old[..4].copy_from_slice(&magic);
        old[20..24].copy_from_slice(&0x0102_0304_u32.to_le_bytes());
        let member = volume(size, &[(size - 65536, &old)]);
        assert_eq!(member.content, Content::RaidMember);
        assert_eq!(
            member.uuid.as_deref(),
            Some("01020304-0000-0000-0000-000000000000")
        );
        // And the one that lies at 4 KiB.
        assert_eq!(
            volume(size, &[(4096, &header)]).content,
            Content::RaidMember
        );
    }

    #[test]
    fn zfs_by_its_uberblocks() {
        let magic = 0x00ba_b10c_u64.to_le_bytes();
        let member = volume(1 << 20, &[((128 + 7) * 1024, &magic)]);
        assert_eq!(member.content, Content::ZfsMember);
    }
}
