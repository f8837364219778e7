//! One disk's partition table, of whichever kind it is, and what is wrong with it.

use virtual_disk::{DiskError, DiskReader};

use super::bytes::Bytes;
use super::{TableKind, gpt, mbr};

/// One partition as its table names it.
#[derive(Debug)]
pub(super) struct Entry {
    pub number: u32,
    /// In bytes; `None` when it does not fit into 64 bits.
    pub start: Option<u64>,
    /// `None` when the end lies before the start.
    pub length: Option<u64>,
    pub part_uuid: Option<String>,
    pub part_label: Option<String>,
    pub part_type: String,
    pub bootable: bool,
}

/// What a disk's table says.
pub(super) struct Table {
    pub kind: TableKind,
    pub entries: Vec<Entry>,
    /// The first GPT is lost, and the backup was read.
    pub from_backup: bool,
    pub faults: Vec<String>,
}

/// `whole_disk_holds_a_volume`: a FAT or NTFS boot sector also ends in 55 AA, and what stands where an MBR has its table
/// is believed less then.
pub(super) fn read(
    disk: &dyn DiskReader,
    first_sector: &[u8],
    whole_disk_holds_a_volume: bool,
) -> Result<Table, DiskError> {
    let mbr = mbr::parse(first_sector);
    let protective = mbr.as_ref().is_some_and(|mbr| mbr.is_protective());
    // Without a protective entry a GPT does not count (UEFI 2.10, 5.2.3): it may be left from an earlier use of the disk.
    // Where the first sector is no MBR at all, though, the GPT is what is left of a table.
    if (protective || (mbr.is_none() && !whole_disk_holds_a_volume))
        && let Some(gpt) = gpt::read(disk)?
    {
        let mut faults = gpt.faults;
        match &mbr {
            Some(mbr) if mbr.is_hybrid() => faults.push(
                "the MBR names partitions beside the GPT (hybrid): BIOS and UEFI see different tables"
                    .to_owned(),
            ),
            Some(_) => {}
            None => faults.push("the protective MBR is missing".to_owned()),
        }
        check_entries(&gpt.entries, disk.size_bytes(), &mut faults);
        return Ok(Table {
            kind: TableKind::Gpt,
            entries: gpt.entries,
            from_backup: gpt.from_backup,
            faults,
        });
    }
    if protective {
        return Ok(Table {
            kind: TableKind::Gpt,
            entries: Vec::new(),
            from_backup: false,
            faults: vec![
                "the MBR says that there is a GPT, and none was found at either end".to_owned(),
            ],
        });
    }
    if let Some(mbr) = mbr
        && mbr.is_plausible(disk.size_bytes(), whole_disk_holds_a_volume)
    {
        let (entries, mut faults) = mbr.entries(disk)?;
        check_entries(&entries, disk.size_bytes(), &mut faults);
        return Ok(Table {
            kind: TableKind::Mbr,
            entries,
            from_backup: false,
            faults,
        });
    }
    Ok(Table {
        kind: TableKind::None,
        entries: Vec::new(),
        from_backup: false,
        faults: Vec::new(),
    })
}

fn check_entries(entries: &[Entry], size: u64, faults: &mut Vec<String>) {
    let mut placed = Vec::new();
    for entry in entries {
        match (entry.start, entry.length) {
            (Some(start), Some(length)) => match start.checked_add(length) {
                Some(end) if end <= size => placed.push((start, end, entry.number)),
                _ => faults.push(format!(
                    "partition {} reaches behind the disk's end",
                    entry.number
                )),
            },
            _ => faults.push(format!("partition {} ends before it begins", entry.number)),
        }
    }
    placed.sort_unstable();
    for pair in placed.windows(2) {
        if let [(_, end, first), (start, _, second)] = pair
            && start < end
        {
            faults.push(format!("partitions {first} and {second} overlap"));
        }
    }
}

/// Whether nothing was ever written there.
pub(super) fn is_zero(bytes: &[u8]) -> bool {
    bytes.iter().all(|&byte| byte == 0)
}

/// Whether a sector ends in 55 AA, as boot sectors and MBRs do.
pub(super) fn has_boot_signature(sector: &[u8]) -> bool {
    sector.has(510, &[0x55, 0xaa])
}
