//! The disk as it is now, when a recovery point is assembled over something: an old copy, or what an interrupted run left.
//! What of it can stay.

use crate::error::DiskFailure;
use crate::extents::Extents;
use rayon::prelude::*;
use std::sync::Arc;
use vault_format::keys::IdKey;
use vault_format::layer::Slot;
use vault_format::record::is_zero;

/// What is to be done at a position.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Change {
    Write = 0,
    /// It is already as the recovery point has it.
    Keep = 1,
    Zero = 2,
}

/// The old copy of a disk, or several of it: in several formats.
pub(super) struct OldCopy {
    pub disks: Vec<Arc<dyn Extents>>,
    /// Of the disk as it will be; what the old one lacks reads as zero.
    pub size_bytes: u64,
    pub chunk_bytes: u32,
}

/// An offset of the disk, and what went wrong there.
pub(super) type OldFailure = (u64, DiskFailure);

impl OldCopy {
    /// Compares positions `first`… with `slots`, on all CPUs; ranges without data are not read. What one of the copies
    /// lacks is written to all. `progress` is called with bytes compared.
    pub fn compare(
        &self,
        first: u64,
        slots: &[Slot],
        id_key: &IdKey,
        progress: &(dyn Fn(u64) + Sync),
    ) -> Result<Vec<Change>, OldFailure> {
        let buffer = || vec![0; self.chunk_bytes as usize];
        slots
            .par_iter()
            .enumerate()
            .map_init(buffer, |buffer, (i, slot)| {
                let offset = (first + i as u64) * u64::from(self.chunk_bytes);
                let mut all = Change::Keep;
                for disk in &self.disks {
                    let change = self.judge(&**disk, offset, slot, id_key, buffer);
                    all = match change.map_err(|e| (offset, e))? {
                        Change::Keep => all,
                        other => other,
                    };
                }
                let end = offset + u64::from(self.chunk_bytes);
                progress(self.size_bytes.min(end).saturating_sub(offset));
                Ok(all)
            })
            .collect()
    }

    fn judge(
        &self,
        disk: &dyn Extents,
        offset: u64,
        slot: &Slot,
        id_key: &IdKey,
        buffer: &mut [u8],
    ) -> Result<Change, DiskFailure> {
        let end = self.size_bytes.min(disk.size_bytes());
        let length = end.saturating_sub(offset).min(buffer.len() as u64);
        let has_data = length > 0
            && disk
                .next_data(offset)?
                .is_some_and(|data| data.start < offset + length);
        if !has_data {
            return Ok(if *slot == Slot::Hole {
                Change::Keep
            } else {
                Change::Write
            });
        }
        let (data, padding) = buffer.split_at_mut(length as usize);
        disk.read_at(offset, data)?;
        padding.fill(0);
        Ok(match slot {
            Slot::Hole if is_zero(buffer) => Change::Keep,
            Slot::Hole => Change::Zero,
            Slot::Chunk(id) if id_key.chunk_id(buffer) == *id => Change::Keep,
            Slot::Chunk(_) => Change::Write,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::extents::MemoryDisk;
    use vault_format::keys::Secret;

    const CHUNK: u32 = 65536;

    #[test]
    fn what_is_there_already_is_kept_and_old_data_in_holes_is_zeroed() {
        let key = IdKey::new(&Secret([1; 32]));
        let one = vec![1; CHUNK as usize];
        let mut padded = vec![0; CHUNK as usize];
        padded[..10].fill(7);
        let bytes = [&one[..], &one, &one, &vec![0; CHUNK as usize], &[7; 10]].concat();
        let size_bytes = bytes.len() as u64;
        let old = OldCopy {
            disks: vec![Arc::new(MemoryDisk::new(bytes))],
            size_bytes,
            chunk_bytes: CHUNK,
        };
        let (same, other) = (
            Slot::Chunk(key.chunk_id(&one)),
            Slot::Chunk(key.chunk_id(b"other")),
        );
        let slots = [
            same,
            other,
            Slot::Hole,
            Slot::Hole,
            Slot::Chunk(key.chunk_id(&padded)),
        ];
        let changes = old.compare(0, &slots, &key, &|_| {}).unwrap();
        assert_eq!(
            changes,
            [
                Change::Keep,
                Change::Write,
                Change::Zero,
                Change::Keep,
                Change::Keep
            ]
        );
        assert_eq!(
            old.compare(5, &[Slot::Hole, same], &key, &|_| {}).unwrap(),
            [Change::Keep, Change::Write],
            "behind its end"
        );
    }
}
