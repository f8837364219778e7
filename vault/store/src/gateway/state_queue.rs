//! Captures that are not published yet: at most one draft of a VM, then what waits, then what is being published.

use super::losses::Place;
use super::rows::{DiskRow, PackRow, PendingRow, QueueRow};
use super::state::{AFTER_PASS, CHANGES, MAP, PENDING, QUEUE, State, VMS, json, take_numbers};
use super::state_map::Change;
use super::state_packs::{drop_chunks, drop_packs, update_pack_rows};
use crate::StoreError;
use redb::{ReadableTable, TableDefinition, WriteTransaction};
use std::collections::{BTreeMap, HashSet};
use vault_format::layer::Slot;
use vault_format::{ChunkId, VmId};

/// A position, and what became of it.
pub(super) type Changed = (u64, Change);

/// Of a point that is published, moved into the map in one commit: the other half waits for it. A first point of 500 GB has
/// two million.
const ROWS_PER_COMMIT: usize = 1 << 15;

type ChangeTable = TableDefinition<'static, (u32, u64, u64), &'static [u8]>;

/// By disk.
pub(super) type Changes = BTreeMap<u32, Vec<Changed>>;

impl State {
    /// All captures that are not published, in order.
    pub fn queue(&self) -> Result<Vec<(u64, QueueRow)>, StoreError> {
        self.rows(QUEUE, |ordinal| ordinal)
    }

    pub fn capture(&self, ordinal: u64) -> Result<Option<QueueRow>, StoreError> {
        let rows = self.queue()?.into_iter();
        Ok(rows
            .filter(|(its, _)| *its == ordinal)
            .map(|(_, row)| row)
            .next())
    }

    pub fn queue_of(&self, vm: &VmId) -> Result<Vec<(u64, QueueRow)>, StoreError> {
        let mut rows = self.queue()?;
        rows.retain(|(_, row)| row.vm_id == *vm);
        Ok(rows)
    }

    /// Begins a draft.
    pub fn begin_draft(&self, row: &QueueRow) -> Result<u64, StoreError> {
        self.write(|w| {
            // From 1 on: 0 is what is published.
            let ordinal = 1 + take_numbers(w, "capture", 1)?;
            put_row(w, ordinal, row)?;
            Ok(ordinal)
        })
    }

    /// The draft's pass is complete.
    pub fn end_pass(&self, ordinal: u64, row: &QueueRow) -> Result<(), StoreError> {
        self.write(|w| {
            put_row(w, ordinal, row)?;
            drop_rows(w, AFTER_PASS, ordinal, &numbers(&row.disks))
        })
    }

    /// Notes what the draft changes in each disk, and how far it has come, in one commit.
    pub fn add_changes(
        &self,
        ordinal: u64,
        row: &QueueRow,
        changes: &Changes,
    ) -> Result<(), StoreError> {
        self.write(|w| {
            put_row(w, ordinal, row)?;
            put_changes(w, (ordinal, row), changes)
        })
    }

    /// The draft is a whole capture now. In the same commit go `superseded` ones, the packs that nobody needs then, and
    /// what is known by packs that arrived and stand on those.
    pub fn commit_capture(
        &self,
        ordinal: u64,
        row: &QueueRow,
        superseded: &[(u64, QueueRow)],
        (packs, useless): (&[u64], &[u64]),
    ) -> Result<(), StoreError> {
        self.write(|w| {
            put_row(w, ordinal, row)?;
            drop_rows(w, AFTER_PASS, ordinal, &numbers(&row.disks))?;
            for (old, row) in superseded {
                drop_capture(w, *old, &row.disks)?;
            }
            drop_packs(w, packs)?;
            drop_chunks(w, useless)
        })
    }

    /// Goes on with a draft, which forgets what it changed in disks that are `gone`.
    pub fn reopen_draft(
        &self,
        ordinal: u64,
        row: &QueueRow,
        gone: &[u32],
    ) -> Result<(), StoreError> {
        self.write(|w| {
            put_row(w, ordinal, row)?;
            drop_changes(w, ordinal, gone)
        })
    }

    pub fn pending(&self) -> Result<Vec<PendingRow>, StoreError> {
        let rows = self.rows(PENDING, |_| ())?;
        Ok(rows.into_iter().map(|(_, row)| row).collect())
    }

    pub fn put_pending(&self, row: &PendingRow) -> Result<(), StoreError> {
        self.write(|w| {
            let mut table = w.open_table(PENDING)?;
            Ok(table
                .insert(&row.vm.vm_id.0, json(row).as_slice())
                .map(drop)?)
        })
    }

    pub fn drop_pending(&self, vm: &VmId) -> Result<(), StoreError> {
        self.write(|w| Ok(w.open_table(PENDING)?.remove(&vm.0).map(drop)?))
    }

    /// The point exists: what it changed becomes the map. `before` are the VM's disks as they were.
    pub fn apply_pending(
        &self,
        pending: &PendingRow,
        before: &[DiskRow],
    ) -> Result<(), StoreError> {
        self.apply_in_pages(pending, before, ROWS_PER_COMMIT)
    }

    /// The map with the changes laid over it is the same before and after each page, and the pending row goes with the last
    /// one: a process that dies in between finds it, and moves what is left.
    pub(super) fn apply_in_pages(
        &self,
        pending: &PendingRow,
        before: &[DiskRow],
        rows: usize,
    ) -> Result<(), StoreError> {
        let mut from = (0, 0);
        loop {
            let more = self.write(|w| {
                let more = move_changes(w, pending, from, rows)?;
                if more.is_none() {
                    end_pending(w, pending, before)?;
                }
                Ok(more)
            })?;
            match more {
                Some(next) => from = next,
                None => return Ok(()),
            }
        }
    }
}

/// Moves so many rows from what the point changed into the map, and says where it goes on.
fn move_changes(
    w: &WriteTransaction,
    pending: &PendingRow,
    (index, position): Place,
    rows: usize,
) -> Result<Option<Place>, redb::Error> {
    let (mut map, mut changes) = (w.open_table(MAP)?, w.open_table(CHANGES)?);
    let (mut moved, mut from, mut more) = (Vec::new(), position, None);
    'disks: for (index, disk) in pending.vm.disks.iter().enumerate().skip(index) {
        let rest = (disk.number, from, 0)..=(disk.number, u64::MAX, u64::MAX);
        from = 0;
        for item in changes.range(rest)? {
            let (key, value) = item?;
            let (number, position, ordinal) = key.value();
            if ordinal != pending.capture {
                continue;
            }
            if moved.len() == rows {
                more = Some((index, position));
                break 'disks;
            }
            moved.push(((number, position), Change::decode(value.value()).slot));
        }
    }
    for (place, slot) in moved {
        match slot {
            Slot::Hole => drop(map.remove(place)?),
            Slot::Chunk(id) => drop(map.insert(place, &id.0)?),
        }
        changes.remove((place.0, place.1, pending.capture))?;
    }
    Ok(more)
}

/// All that it changed is in the map.
fn end_pending(
    w: &WriteTransaction,
    pending: &PendingRow,
    before: &[DiskRow],
) -> Result<(), redb::Error> {
    let mut map = w.open_table(MAP)?;
    let stays = |old: &&DiskRow| !pending.vm.disks.iter().any(|d| d.number == old.number);
    for disk in before.iter().filter(stays) {
        map.retain_in((disk.number, 0)..=(disk.number, u64::MAX), |_, _| false)?;
    }
    w.open_table(QUEUE)?.remove(pending.capture)?;
    w.open_table(VMS)?
        .insert(&pending.vm.vm_id.0, json(&pending.vm).as_slice())?;
    let holder = &pending.vm.object;
    update_pack_rows(w, &pending.packs, &|pack: &mut PackRow| {
        pack.holder = Some(holder.clone());
    })?;
    w.open_table(PENDING)?.remove(&pending.vm.vm_id.0)?;
    Ok(())
}

pub(super) fn put_row(
    w: &WriteTransaction,
    ordinal: u64,
    row: &QueueRow,
) -> Result<(), redb::Error> {
    w.open_table(QUEUE)?.insert(ordinal, json(row).as_slice())?;
    Ok(())
}

pub(super) fn put_changes(
    w: &WriteTransaction,
    (ordinal, draft): (u64, &QueueRow),
    changes: &Changes,
) -> Result<(), redb::Error> {
    let tables = match draft.pass {
        Some(_) => &[CHANGES, AFTER_PASS][..],
        None => &[CHANGES],
    };
    for table in tables {
        let mut table = w.open_table(*table)?;
        for (disk, changes) in changes {
            for (position, change) in changes {
                let key = (*disk, *position, ordinal);
                let before = table.get(key)?.map(|v| Change::decode(v.value()));
                let change = match before {
                    Some(before) => change.over(before),
                    None => change.clone(),
                };
                table.insert(key, change.encode().as_slice())?;
            }
        }
    }
    Ok(())
}

/// Gives up a capture: a draft of disks that are gone, or what is or cannot be published any more.
pub(super) fn drop_capture(
    w: &WriteTransaction,
    ordinal: u64,
    disks: &[DiskRow],
) -> Result<(), redb::Error> {
    w.open_table(QUEUE)?.remove(ordinal)?;
    drop_changes(w, ordinal, &numbers(disks))
}

fn drop_changes(w: &WriteTransaction, ordinal: u64, disks: &[u32]) -> Result<(), redb::Error> {
    drop_rows(w, CHANGES, ordinal, disks)?;
    drop_rows(w, AFTER_PASS, ordinal, disks)
}

fn numbers(disks: &[DiskRow]) -> Vec<u32> {
    disks.iter().map(|disk| disk.number).collect()
}

fn drop_rows(
    w: &WriteTransaction,
    table: ChangeTable,
    ordinal: u64,
    disks: &[u32],
) -> Result<(), redb::Error> {
    let mut changes = w.open_table(table)?;
    for disk in disks {
        let all = (*disk, 0, 0)..=(*disk, u64::MAX, u64::MAX);
        changes.retain_in(all, |(_, _, its), _| its != ordinal)?;
    }
    Ok(())
}

/// Forgets what a draft changed where it holds one of these chunks. Returns the first such place.
pub(super) fn unlearn(
    w: &WriteTransaction,
    ordinal: u64,
    disks: &[DiskRow],
    forgotten: &HashSet<ChunkId>,
) -> Result<Option<Place>, redb::Error> {
    let mut changes = w.open_table(CHANGES)?;
    let mut first = None;
    for (index, disk) in disks.iter().enumerate() {
        let all = (disk.number, 0, 0)..=(disk.number, u64::MAX, u64::MAX);
        changes.retain_in(all, |(_, position, its), value| {
            let stays = match Change::decode(value).slot {
                Slot::Chunk(id) => its != ordinal || !forgotten.contains(&id),
                Slot::Hole => true,
            };
            if !stays {
                first.get_or_insert((index, position));
            }
            stays
        })?;
    }
    Ok(first)
}
