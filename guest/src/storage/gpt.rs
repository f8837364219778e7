//! GUID partition tables (UEFI 2.10, chapter 5): both headers, their checksums, 512- and 4096-byte sectors.

use virtual_disk::{DiskError, DiskReader};

use super::bytes::{Bytes, mixed_guid, utf16_text};
use super::checksum::CRC32;
use super::table::Entry;

const SIGNATURE: &[u8] = b"EFI PART";
/// UEFI asks for room for 128 entries of 128 bytes, 16 KiB; a mebibyte is far more than any tool makes.
const MAX_ENTRY_BYTES: u64 = 1 << 20;

/// What a GUID partition table says.
pub(super) struct Gpt {
    pub entries: Vec<Entry>,
    /// The first one is lost.
    pub from_backup: bool,
    pub faults: Vec<String>,
}

struct Header {
    sector: u64,
    backup_lba: u64,
    entries_lba: u64,
    count: u32,
    entry_bytes: u32,
    entries_crc: u32,
}

/// `Ok(None)` when no header of either place and sector size has the signature.
pub(super) fn read(disk: &dyn DiskReader) -> Result<Option<Gpt>, DiskError> {
    let size = disk.size_bytes();
    let mut faults = Vec::new();
    let mut seen = false;
    for sector in [512u64, 4096] {
        let Some(last) = (size / sector).checked_sub(1).filter(|last| *last > 1) else {
            continue;
        };
        match table_at(disk, sector, 1)? {
            Found::Table(header, entries) => {
                check_backup(disk, &header, last, &mut faults)?;
                return Ok(Some(Gpt {
                    entries,
                    from_backup: false,
                    faults,
                }));
            }
            Found::Damaged(why) => {
                seen = true;
                faults.push(format!("the GPT at sector 1 is damaged: {why}"));
            }
            Found::Nothing => {}
        }
    }
    for sector in [512u64, 4096] {
        let Some(last) = (size / sector).checked_sub(1).filter(|last| *last > 1) else {
            continue;
        };
        match table_at(disk, sector, last)? {
            Found::Table(_, entries) => {
                if !seen {
                    faults.push("the GPT at sector 1 is missing".to_owned());
                }
                faults.push(
                    "its backup at the disk's end was read instead; firmware may do so too, or not boot"
                        .to_owned(),
                );
                return Ok(Some(Gpt {
                    entries,
                    from_backup: true,
                    faults,
                }));
            }
            Found::Damaged(why) => {
                seen = true;
                faults.push(format!(
                    "the backup GPT at the disk's end is damaged: {why}"
                ));
            }
            Found::Nothing => {}
        }
    }
    Ok(seen.then_some(Gpt {
        entries: Vec::new(),
        from_backup: false,
        faults,
    }))
}

enum Found {
    Nothing,
    Damaged(String),
    Table(Header, Vec<Entry>),
}

fn table_at(disk: &dyn DiskReader, sector: u64, lba: u64) -> Result<Found, DiskError> {
    let mut block = [0u8; 512];
    disk.read_at(lba * sector, &mut block)?;
    if !block.has(0, SIGNATURE) {
        return Ok(Found::Nothing);
    }
    let Some(header) = parse_header(&block, sector, lba) else {
        return Ok(Found::Damaged("its header's checksum is wrong".to_owned()));
    };
    let bytes = u64::from(header.count) * u64::from(header.entry_bytes);
    if header.entry_bytes < 128 || bytes == 0 || bytes > MAX_ENTRY_BYTES {
        return Ok(Found::Damaged(format!(
            "it names {} entries of {} bytes",
            header.count, header.entry_bytes
        )));
    }
    let start = header
        .entries_lba
        .checked_mul(sector)
        .filter(|start| matches!(start.checked_add(bytes), Some(end) if end <= disk.size_bytes()));
    let Some(start) = start else {
        return Ok(Found::Damaged(
            "its entries lie behind the disk's end".to_owned(),
        ));
    };
    let mut table = vec![0u8; bytes as usize];
    disk.read_at(start, &mut table)?;
    if CRC32.checksum(&table) != header.entries_crc {
        return Ok(Found::Damaged(
            "the checksum of its entries is wrong".to_owned(),
        ));
    }
    let entries = table
        .chunks_exact(header.entry_bytes as usize)
        .enumerate()
        .filter_map(|(index, entry)| parse_entry(entry, index, sector))
        .collect();
    Ok(Found::Table(header, entries))
}

/// `None` when the checksum or the header's own place is wrong.
fn parse_header(block: &[u8], sector: u64, lba: u64) -> Option<Header> {
    let length = block.le32(12)? as usize;
    // 92 bytes in every version so far; what follows up to the sector's end is reserved and zero.
    if !(92..=block.len()).contains(&length) {
        return None;
    }
    let mut summed = block.part(0, length)?.to_vec();
    summed[16..20].fill(0);
    if CRC32.checksum(&summed) != block.le32(16)? || block.le64(24)? != lba {
        return None;
    }
    Some(Header {
        sector,
        backup_lba: block.le64(32)?,
        entries_lba: block.le64(72)?,
        count: block.le32(80)?,
        entry_bytes: block.le32(84)?,
        entries_crc: block.le32(88)?,
    })
}

fn parse_entry(entry: &[u8], index: usize, sector: u64) -> Option<Entry> {
    let kind = mixed_guid(entry.array(0)?)?;
    let (first, last) = (entry.le64(32)?, entry.le64(40)?);
    let name = utf16_text(entry.part(56, 72)?);
    Some(Entry {
        number: u32::try_from(index).ok()?.checked_add(1)?,
        start: first.checked_mul(sector),
        length: last
            .checked_sub(first)
            .and_then(|sectors| sectors.checked_add(1)?.checked_mul(sector)),
        part_uuid: mixed_guid(entry.array(16)?),
        part_label: (!name.is_empty()).then_some(name),
        part_type: kind,
        // Attribute 2: "legacy BIOS bootable".
        bootable: entry.le64(48)? & 4 != 0,
    })
}

fn check_backup(
    disk: &dyn DiskReader,
    primary: &Header,
    last: u64,
    faults: &mut Vec<String>,
) -> Result<(), DiskError> {
    if primary.backup_lba > last {
        faults.push(
            "the disk is shorter than its GPT says: the backup GPT would lie behind the end"
                .to_owned(),
        );
        return Ok(());
    }
    if primary.backup_lba < last {
        faults.push(
            "the backup GPT is not at the disk's end, as after growing the disk (sgdisk -e moves it)"
                .to_owned(),
        );
    }
    match table_at(disk, primary.sector, primary.backup_lba)? {
        Found::Table(..) => {}
        Found::Damaged(why) => faults.push(format!("the backup GPT is damaged: {why}")),
        Found::Nothing => faults.push("the backup GPT is missing".to_owned()),
    }
    Ok(())
}
