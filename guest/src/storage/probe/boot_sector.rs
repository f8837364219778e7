//! NTFS and FAT, which begin with a boot sector.

use virtual_disk::{DiskError, DiskReader};

use super::super::Content;
use super::super::bytes::{Bytes, padded_text, utf16_text};
use super::Signature;

pub(super) fn probe(disk: &dyn DiskReader, head: &[u8]) -> Result<Option<Signature>, DiskError> {
    if let Some(serial) = ntfs_serial(head) {
        return Ok(Some(Signature::new(
            Content::Ntfs,
            Some(format!("{serial:016X}")),
            ntfs_label(disk, head)?,
        )));
    }
    let Some(fat) = Fat::parse(head) else {
        return Ok(None);
    };
    let label = match fat.folder_label(disk)? {
        None => fat.label.clone(),
        label => label,
    };
    Ok(Some(Signature::new(Content::Fat, fat.uuid(), label)))
}

fn ntfs_serial(head: &[u8]) -> Option<u64> {
    head.has(3, b"NTFS    ").then_some(())?;
    head.le64(72)
}

/// The attribute $VOLUME_NAME of record 3 of the MFT, whose first records lie together.
fn ntfs_label(disk: &dyn DiskReader, head: &[u8]) -> Result<Option<String>, DiskError> {
    let Some(at) = ntfs_volume_record(head).filter(|at| {
        at.checked_add(1024)
            .is_some_and(|end| end <= disk.size_bytes())
    }) else {
        return Ok(None);
    };
    let mut record = [0u8; 1024];
    disk.read_at(at, &mut record)?;
    Ok(ntfs_record_label(&record))
}

fn ntfs_volume_record(head: &[u8]) -> Option<u64> {
    let sector = u64::from(head.le16(11)?);
    let cluster = match head.byte(13)? {
        count @ 1..=128 => sector.checked_mul(u64::from(count))?,
        // Above 64 KiB the field is a negative power of two.
        power => sector.checked_shl(u32::from(power.wrapping_neg()))?,
    };
    let record = match head.byte(64)? as i8 {
        count @ 1.. => cluster.checked_mul(count as u64)?,
        power => 1u64.checked_shl(u32::from(power.unsigned_abs()))?,
    };
    head.le64(48)?
        .checked_mul(cluster)?
        .checked_add(record.checked_mul(3)?)
}

/// The sector's last two bytes, which hold a sequence number on disk, are no place where a label comes to lie: the name is
/// the third attribute.
fn ntfs_record_label(record: &[u8]) -> Option<String> {
    record.has(0, b"FILE").then_some(())?;
    let mut at = usize::from(record.le16(20)?);
    // 1,024 bytes have room for 42 attributes of the least size.
    for _ in 0..42 {
        let (kind, length) = (record.le32(at)?, record.le32(at + 4)? as usize);
        if kind == 0x60 && record.byte(at + 8)? == 0 {
            let value = at.checked_add(usize::from(record.le16(at + 20)?))?;
            let name = utf16_text(record.part(value, record.le32(at + 16)? as usize)?);
            return (!name.is_empty()).then_some(name);
        }
        if kind == u32::MAX || length < 24 {
            return None;
        }
        at = at.checked_add(length)?;
    }
    None
}

/// What a FAT's boot sector says, as far as its label and number need it.
struct Fat {
    id: u32,
    label: Option<String>,
    /// Where the root folder begins, and how much of it is read.
    root: Option<(u64, usize)>,
}

impl Fat {
    fn parse(head: &[u8]) -> Option<Self> {
        let sector = u64::from(head.le16(11)?);
        let per_cluster = u64::from(head.byte(13)?);
        let reserved = u64::from(head.le16(14)?);
        let fats = u64::from(head.byte(16)?);
        let media = head.byte(21)?;
        let makes_sense = matches!(sector, 512 | 1024 | 2048 | 4096)
            && per_cluster.is_power_of_two()
            && reserved > 0
            && (1..=2).contains(&fats)
            && (media == 0xf0 || media >= 0xf8);
        makes_sense.then_some(())?;
        let small = head.le16(22)?;
        if small == 0 {
            // FAT32: the root folder is a chain of clusters as any other; its first one is enough for the label.
            let fat_sectors = u64::from(head.le32(36)?);
            (fat_sectors > 0 && head.le16(17)? == 0).then_some(())?;
            let cluster = u64::from(head.le32(44)? & 0x0fff_ffff).checked_sub(2);
            let root = cluster.and_then(|cluster| {
                let data = reserved.checked_add(fats.checked_mul(fat_sectors)?)?;
                let start = data.checked_add(cluster.checked_mul(per_cluster)?)?;
                Some((start.checked_mul(sector)?, (per_cluster * sector) as usize))
            });
            return Some(Self {
                id: head.le32(67)?,
                label: boot_label(head.part(71, 11)?),
                root,
            });
        }
        let start = reserved.checked_add(fats.checked_mul(u64::from(small))?)?;
        // 0x29: number, label and type follow; 0x28: the number alone.
        let (id, label) = match head.byte(38)? {
            0x29 => (head.le32(39)?, boot_label(head.part(43, 11)?)),
            0x28 => (head.le32(39)?, None),
            _ => (0, None),
        };
        Some(Self {
            id,
            label,
            root: Some((
                start.checked_mul(sector)?,
                usize::from(head.le16(17)?).checked_mul(32)?,
            )),
        })
    }

    fn uuid(&self) -> Option<String> {
        (self.id != 0).then(|| format!("{:04X}-{:04X}", self.id >> 16, self.id & 0xffff))
    }

    /// The label that the root folder holds, which is the one that tools change.
    fn folder_label(&self, disk: &dyn DiskReader) -> Result<Option<String>, DiskError> {
        let Some((start, length)) = self.root.filter(|(start, length)| {
            start
                .checked_add(*length as u64)
                .is_some_and(|end| end <= disk.size_bytes())
        }) else {
            return Ok(None);
        };
        // 512 entries: a label is made first, with the file system.
        let mut folder = vec![0u8; length.min(16 * 1024)];
        disk.read_at(start, &mut folder)?;
        Ok(folder
            .chunks_exact(32)
            .take_while(|entry| entry[0] != 0)
            // Volume label, and not the 0x0f of a long name's parts.
            .find(|entry| entry[0] != 0xe5 && entry[11] & 0x3f & 0x18 == 0x08 && entry[11] != 0x0f)
            .and_then(|entry| padded_text(&entry[..11])))
    }
}

fn boot_label(bytes: &[u8]) -> Option<String> {
    padded_text(bytes).filter(|label| label != "NO NAME")
}
