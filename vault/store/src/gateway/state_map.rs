//! The state's map of each disk, what the capture under way changes in it, and manifests on their way.

use super::rows::PendingRow;
use super::state::{DELTA, DISKS, MAP, PENDING, State, VMS, json, put_header};
use super::state_packs::update_pack_rows;
use crate::StoreError;
use redb::ReadableTable;
use vault_format::layer::{Run, RunBuilder, Slot};
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

    /// Runs of at most `most` positions from `from` on, and where to go on if there are more: what the capture under way
    /// changes, or (`whole`) what the disk then holds.
    pub fn runs_from(
        &self,
        disk: u32,
        from: u64,
        whole: bool,
        most: u64,
    ) -> Result<(Vec<Run>, Option<u64>), StoreError> {
        self.read(|r| {
            let range = (disk, from)..=(disk, u64::MAX);
            let (map, delta) = (r.open_table(MAP)?, r.open_table(DELTA)?);
            let mut changed = delta.range(range.clone())?.map(|item| {
                let (key, value) = item?;
                Ok::<_, redb::Error>((key.value().1, slot_of(value.value())))
            });
            let mut mapped = map.range(range)?.map(|item| {
                let (key, id) = item?;
                Ok::<_, redb::Error>((key.value().1, Slot::Chunk(ChunkId(*id.value()))))
            });
            let mut next_changed = changed.next().transpose()?;
            let mut next_mapped = match whole {
                true => mapped.next().transpose()?,
                false => None,
            };
            let mut builder = RunBuilder::default();
            loop {
                let (position, slot) = match (next_changed, next_mapped) {
                    (None, None) => return Ok((builder.runs(), None)),
                    (Some(new), old) if old.is_none_or(|old| new.0 <= old.0) => new,
                    (_, Some(old)) => old,
                    (Some(new), None) => new,
                };
                if next_changed.is_some_and(|new| new.0 == position) {
                    next_changed = changed.next().transpose()?;
                }
                if next_mapped.is_some_and(|old| old.0 == position) {
                    next_mapped = mapped.next().transpose()?;
                }
                if !whole || slot != Slot::Hole {
                    builder.push(position, slot);
                }
                if builder.positions() >= most {
                    let more = next_changed.is_some() || next_mapped.is_some();
                    return Ok((builder.runs(), more.then_some(position + 1)));
                }
            }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::setup::{VaultRequest, prepare_vault_at};
    use vault_format::kit::Argon2idCosts;

    fn state(folder: &std::path::Path) -> State {
        let request = VaultRequest {
            url: "file:///x",
            region: None,
            chunk_bytes: 65_536,
            label: "test",
            passphrase: "passphrase",
            now: jiff::Timestamp::now(),
        };
        let costs = Argon2idCosts {
            memory_kib: 64,
            iterations: 1,
            parallelism: 1,
        };
        let prepared = prepare_vault_at(&request, costs).unwrap();
        State::open(folder, &prepared.key).unwrap()
    }

    fn chunk(n: u8) -> Slot {
        Slot::Chunk(ChunkId([n; 32]))
    }

    /// All positions, asked for `most` at a time.
    fn slots(state: &State, whole: bool, most: u64) -> Vec<(u64, Slot)> {
        let (mut out, mut from) = (Vec::new(), Some(0));
        while let Some(begin) = from {
            let (runs, more) = state.runs_from(4, begin, whole, most).unwrap();
            let slots = runs.iter().flat_map(|run| {
                (run.first()..run.end()).filter_map(|at| run.slot(at).map(|slot| (at, slot)))
            });
            let before = out.len();
            out.extend(slots);
            assert!((out.len() - before) as u64 <= most);
            from = more;
        }
        out
    }

    #[test]
    fn runs_are_what_changed_or_what_the_disk_then_holds_in_parts_of_any_size() {
        let folder = tempfile::tempdir().unwrap();
        let state = state(folder.path());
        let ids = |numbers: &[u8]| numbers.iter().map(|n| ChunkId([*n; 32])).collect();
        let run = |first, numbers: &[u8]| Run::Chunks {
            first,
            ids: ids(numbers),
        };
        // Neighbours in the table are other disks' positions.
        state.overlay(3, &[run(0, &[9, 9])]).unwrap();
        state.overlay(5, &[run(0, &[9, 9])]).unwrap();
        state
            .overlay(4, &[run(1, &[1, 2, 3]), run(10, &[4, 5])])
            .unwrap();
        let changes = [
            (0, chunk(6)),
            (2, Slot::Hole),
            (3, chunk(7)),
            (11, Slot::Hole),
            (20, chunk(8)),
        ];
        state.add_delta(4, &changes).unwrap();
        state.add_delta(5, &[(0, chunk(9))]).unwrap();
        for most in [1, 2, 3, 100] {
            assert_eq!(slots(&state, false, most), changes, "{most}");
            let whole = [
                (0, chunk(6)),
                (1, chunk(1)),
                (3, chunk(7)),
                (10, chunk(4)),
                (20, chunk(8)),
            ];
            assert_eq!(slots(&state, true, most), whole, "{most}");
        }
    }
}
