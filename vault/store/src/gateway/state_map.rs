//! The state's map of each disk, what the capture under way changes in it, and manifests on their way.

use super::rows::PendingRow;
use super::state::{DELTA, DISKS, MAP, PENDING, State, VMS, json, put_header};
use super::state_packs::update_pack_rows;
use crate::StoreError;
use redb::ReadableTable;
use vault_format::layer::{Run, Slot};
use vault_format::{ChunkId, VmId};

impl State {
    /// A disk's number in the map; the same one again after a first sync that was cut off, unless a `fresh` one is
    /// asked for.
    pub fn disk_number(&mut self, vm: &VmId, disk: &str, fresh: bool) -> Result<u32, StoreError> {
        let key = format!("{vm}/{disk}");
        let known =
            self.read(|r| Ok(r.open_table(DISKS)?.get(key.as_str())?.map(|v| v.value())))?;
        if let (Some(number), false) = (known, fresh) {
            return Ok(number);
        }
        let number = self.header.next_disk;
        self.header.next_disk += 1;
        self.write(|w| {
            w.open_table(DISKS)?.insert(key.as_str(), number)?;
            put_header(w, &self.header)
        })?;
        Ok(number)
    }

    pub fn clear_delta(&self) -> Result<(), StoreError> {
        let any = self.read(|r| Ok(r.open_table(DELTA)?.iter()?.next().is_some()))?;
        match any {
            false => Ok(()),
            true => self.write(|w| {
                w.delete_table(DELTA)?;
                w.open_table(DELTA)?;
                Ok(())
            }),
        }
    }

    pub fn add_delta(&self, disk: u32, changes: &[(u64, Slot)]) -> Result<(), StoreError> {
        if changes.is_empty() {
            return Ok(());
        }
        self.write(|w| {
            let mut table = w.open_table(DELTA)?;
            for (position, slot) in changes {
                let id: &[u8] = match slot {
                    Slot::Hole => &[],
                    Slot::Chunk(id) => &id.0,
                };
                table.insert((disk, *position), id)?;
            }
            Ok(())
        })
    }

    /// Calls `f` with the changed slots of `disk`, in order of position.
    pub fn each_delta(&self, disk: u32, mut f: impl FnMut(u64, Slot)) -> Result<(), StoreError> {
        self.read(|r| {
            for item in r.open_table(DELTA)?.range((disk, 0)..=(disk, u64::MAX))? {
                let (key, value) = item?;
                f(key.value().1, slot_of(value.value()));
            }
            Ok(())
        })
    }

    /// Calls `f` with every position of `disk` that holds a chunk, in order.
    pub fn each_mapped(
        &self,
        disk: u32,
        mut f: impl FnMut(u64, ChunkId),
    ) -> Result<(), StoreError> {
        self.read(|r| {
            for item in r.open_table(MAP)?.range((disk, 0)..=(disk, u64::MAX))? {
                let (key, value) = item?;
                f(key.value().1, ChunkId(*value.value()));
            }
            Ok(())
        })
    }

    /// Lays a layer's runs over the map, straight: what a rebuild does.
    pub fn overlay(&self, disk: u32, runs: &[Run]) -> Result<(), StoreError> {
        self.write(|w| {
            let mut map = w.open_table(MAP)?;
            for run in runs {
                match run {
                    Run::Holes { .. } => {
                        map.retain_in((disk, run.first())..(disk, run.end()), |_, _| false)?;
                    }
                    Run::Chunks { first, ids } => {
                        for (position, id) in (*first..).zip(ids) {
                            map.insert((disk, position), &id.0)?;
                        }
                    }
                }
            }
            Ok(())
        })
    }

    pub fn pending(&self) -> Result<Vec<PendingRow>, StoreError> {
        Ok(self
            .rows(PENDING, |_| ())?
            .into_iter()
            .map(|(_, row)| row)
            .collect())
    }

    pub fn put_pending(&self, row: &PendingRow) -> Result<(), StoreError> {
        self.write(|w| {
            Ok(w.open_table(PENDING)?
                .insert(&row.vm.vm_id.0, json(row).as_slice())
                .map(drop)?)
        })
    }

    pub fn drop_pending(&self, vm: &VmId) -> Result<(), StoreError> {
        self.write(|w| Ok(w.open_table(PENDING)?.remove(&vm.0).map(drop)?))
    }

    /// The point exists: its delta becomes the map, in one commit.
    pub fn apply_pending(&self, pending: &PendingRow) -> Result<(), StoreError> {
        self.write(|w| {
            let mut map = w.open_table(MAP)?;
            for disk in &pending.dropped_disks {
                map.retain_in((*disk, 0)..=(*disk, u64::MAX), |_, _| false)?;
            }
            for item in w.open_table(DELTA)?.iter()? {
                let (key, value) = item?;
                match slot_of(value.value()) {
                    Slot::Hole => drop(map.remove(key.value())?),
                    Slot::Chunk(id) => drop(map.insert(key.value(), &id.0)?),
                }
            }
            w.delete_table(DELTA)?;
            w.open_table(DELTA)?;
            w.open_table(VMS)?
                .insert(&pending.vm.vm_id.0, json(&pending.vm).as_slice())?;
            let holder = &pending.vm.object;
            update_pack_rows(w, &pending.packs, &|pack| {
                pack.holder = Some(holder.clone())
            })?;
            w.open_table(PENDING)?.remove(&pending.vm.vm_id.0)?;
            Ok(())
        })
    }
}

fn slot_of(bytes: &[u8]) -> Slot {
    <[u8; 32]>::try_from(bytes).map_or(Slot::Hole, |id| Slot::Chunk(ChunkId(id)))
}
