//! MBR partition tables with logical partitions (the chain of extended boot records).

use std::collections::BTreeSet;

use virtual_disk::{DiskError, DiskReader};

use super::bytes::Bytes;
use super::table::{Entry, has_boot_signature};

/// MBRs count in sectors of 512 bytes on all disks that hypervisors present with one.
const SECTOR: u64 = 512;
/// Linux stops at 256 partitions of a disk (DISK_MAX_PARTS).
const MAX_LOGICAL: u32 = 252;

#[derive(Clone, Copy)]
struct Slot {
    active: u8,
    kind: u8,
    first: u32,
    sectors: u32,
}

impl Slot {
    fn parse(entry: &[u8]) -> Option<Self> {
        Some(Self {
            active: entry.byte(0)?,
            kind: entry.byte(4)?,
            first: entry.le32(8)?,
            sectors: entry.le32(12)?,
        })
    }

    fn is_used(self) -> bool {
        self.kind != 0 && self.sectors != 0
    }

    /// 0x05 CHS, 0x0f LBA, 0x85 Linux.
    fn is_extended(self) -> bool {
        matches!(self.kind, 0x05 | 0x0f | 0x85) && self.is_used()
    }
}

/// The first sector of a disk, read as an MBR.
pub(super) struct Mbr {
    signature: u32,
    slots: [Slot; 4],
}

/// `None` when the sector is no MBR: no 55 AA, or an active flag that is neither 0 nor 0x80.
pub(super) fn parse(sector: &[u8]) -> Option<Mbr> {
    let slots = parse_slots(sector)?;
    if slots.iter().any(|slot| slot.active & 0x7f != 0) {
        return None;
    }
    Some(Mbr {
        signature: sector.le32(440)?,
        slots,
    })
}

fn parse_slots(sector: &[u8]) -> Option<[Slot; 4]> {
    if !has_boot_signature(sector) {
        return None;
    }
    let slot = |index: usize| Slot::parse(sector.part(446 + 16 * index, 16)?);
    Some([slot(0)?, slot(1)?, slot(2)?, slot(3)?])
}

impl Mbr {
    /// An entry of type 0xee says that the disk has a GPT.
    pub(super) fn is_protective(&self) -> bool {
        self.slots.iter().any(|slot| slot.kind == 0xee)
    }

    pub(super) fn is_hybrid(&self) -> bool {
        self.is_protective()
            && self
                .slots
                .iter()
                .any(|slot| slot.is_used() && slot.kind != 0xee)
    }

    /// Whether there is a table: some entry is used. Beside a whole-disk FAT or NTFS, whose boot code lies where the table
    /// would, every used entry must make sense too.
    pub(super) fn is_plausible(&self, size: u64, doubtful: bool) -> bool {
        let mut used = self.slots.iter().filter(|slot| slot.is_used()).peekable();
        used.peek().is_some()
            && (!doubtful
                || used.all(|slot| {
                    slot.first > 0
                        && (u64::from(slot.first) + u64::from(slot.sectors)) * SECTOR <= size
                }))
    }

    fn entry(&self, number: u32, slot: Slot, base: u64) -> Entry {
        let first = base + u64::from(slot.first);
        Entry {
            number,
            start: first.checked_mul(SECTOR),
            length: Some(u64::from(slot.sectors) * SECTOR),
            part_uuid: (self.signature != 0)
                .then(|| format!("{:08x}-{number:02x}", self.signature)),
            part_label: None,
            part_type: format!("0x{:02x}", slot.kind),
            bootable: slot.active & 0x80 != 0,
        }
    }

    /// All partitions, primary ones first, and what is wrong with the chain of logical ones.
    pub(super) fn entries(
        &self,
        disk: &dyn DiskReader,
    ) -> Result<(Vec<Entry>, Vec<String>), DiskError> {
        let mut faults = Vec::new();
        let mut entries = Vec::new();
        for (number, slot) in (1u32..).zip(self.slots) {
            if slot.is_used() && !slot.is_extended() {
                entries.push(self.entry(number, slot, 0));
            }
        }
        if let Some(extended) = self.slots.iter().find(|slot| slot.is_extended()) {
            self.follow_chain(disk, u64::from(extended.first), &mut entries, &mut faults)?;
        }
        Ok((entries, faults))
    }

    fn follow_chain(
        &self,
        disk: &dyn DiskReader,
        base: u64,
        entries: &mut Vec<Entry>,
        faults: &mut Vec<String>,
    ) -> Result<(), DiskError> {
        let mut seen = BTreeSet::new();
        let mut at = base;
        let mut number = 5;
        loop {
            if !seen.insert(at) || number >= 5 + MAX_LOGICAL {
                faults.push("the chain of logical partitions does not end".to_owned());
                return Ok(());
            }
            let mut sector = [0u8; SECTOR as usize];
            match at.checked_mul(SECTOR) {
                Some(start) if start.saturating_add(SECTOR) <= disk.size_bytes() => {
                    disk.read_at(start, &mut sector)?;
                }
                _ => {
                    faults.push(
                        "the chain of logical partitions leads behind the disk's end".to_owned(),
                    );
                    return Ok(());
                }
            }
            let Some(slots) = parse_slots(&sector) else {
                faults.push(format!(
                    "the extended boot record at sector {at} has no signature: later logical partitions are lost"
                ));
                return Ok(());
            };
            // The partition counts from this record, the next record from the first one.
            if let Some(slot) = slots
                .iter()
                .find(|slot| slot.is_used() && !slot.is_extended())
            {
                entries.push(self.entry(number, *slot, at));
                number += 1;
            }
            match slots.iter().find(|slot| slot.is_extended()) {
                Some(next) => at = base + u64::from(next.first),
                None => return Ok(()),
            }
        }
    }
}
