//! The state at one moment, for look-ups from several threads: which chunks the vault has, and what each disk holds once
//! all captures so far are published.

use super::rows::ChunkRow;
use super::state::state_error;
use super::state_map::Change;
use crate::StoreError;
use redb::ReadOnlyTable;
use std::collections::BTreeMap;
use std::iter::Peekable;
use std::ops::Range;
use std::path::PathBuf;
use vault_format::ChunkId;
use vault_format::layer::Slot;
use vault_format::record::BlockMask;

type Changes = ReadOnlyTable<(u32, u64, u64), &'static [u8]>;

pub(super) struct Snapshot {
    pub(super) chunks: ReadOnlyTable<&'static [u8; 32], &'static [u8]>,
    pub(super) lost: ReadOnlyTable<&'static [u8; 32], ()>,
    pub(super) map: ReadOnlyTable<(u32, u64), &'static [u8; 32]>,
    pub(super) changes: Changes,
    pub(super) after_pass: Changes,
    pub(super) any_lost: bool,
    pub(super) directory: PathBuf,
}

impl Snapshot {
    pub fn chunk(&self, id: &ChunkId) -> Result<Option<ChunkRow>, StoreError> {
        let found = self.chunks.get(&id.0).map_err(self.error())?;
        Ok(found.and_then(|v| ChunkRow::decode(v.value())))
    }

    pub fn is_lost(&self, id: &ChunkId) -> Result<bool, StoreError> {
        Ok(self.any_lost && self.lost.get(&id.0).map_err(self.error())?.is_some())
    }

    fn error(&self) -> impl Fn(redb::StorageError) -> StoreError {
        state_error(&self.directory)
    }

    /// What `disk` holds in `range`, in order of position: a slot for each position that has a chunk, or that became a
    /// hole after it was published. Captures with a higher ordinal than `last` do not count.
    pub fn slots(&self, disk: u32, range: Range<u64>, last: u64) -> Result<Slots<'_>, StoreError> {
        let changed = self.changed(disk, range.clone(), last)?;
        let map = self.map.range((disk, range.start)..(disk, range.end));
        let wrong = self.error();
        let map = map.map_err(self.error())?.map(move |item| {
            let (key, id) = item.map_err(&wrong)?;
            Ok((key.value().1, Slot::Chunk(ChunkId(*id.value()))))
        });
        let map: Items<'_> = Box::new(map);
        Ok(Slots {
            map: map.peekable(),
            ..changed
        })
    }

    /// The same of what is not published, without what is.
    pub fn changed(
        &self,
        disk: u32,
        range: Range<u64>,
        last: u64,
    ) -> Result<Slots<'_>, StoreError> {
        let changes = self
            .changes
            .range((disk, range.start, 0)..(disk, range.end, 0));
        let wrong = self.error();
        let slot_of = move |item: Result<ChangeItem<'_>, redb::StorageError>| {
            let (key, value) = item.map_err(&wrong)?;
            let (_, position, ordinal) = key.value();
            Ok((ordinal <= last).then(|| (position, Change::decode(value.value()).slot)))
        };
        let changes = changes
            .map_err(self.error())?
            .filter_map(move |item| slot_of(item).transpose());
        let (map, changes): (Items<'_>, Items<'_>) =
            (Box::new(std::iter::empty()), Box::new(changes));
        Ok(Slots {
            map: map.peekable(),
            changes: changes.peekable(),
        })
    }

    /// The positions of `disk` in `range` that have a chunk, in order.
    pub fn mapped(&self, disk: u32, range: Range<u64>) -> Result<Vec<(u64, ChunkId)>, StoreError> {
        let slots = self.slots(disk, range, u64::MAX)?;
        slots
            .filter_map(|item| item.map(chunk_of).transpose())
            .collect()
    }

    /// The first mapped position of `disk` at or after `position`.
    pub fn next_mapped(&self, disk: u32, position: u64) -> Result<Option<u64>, StoreError> {
        let mut slots = self.slots(disk, position..u64::MAX, u64::MAX)?;
        let found = slots.find_map(|item| item.map(chunk_of).transpose());
        Ok(found.transpose()?.map(|(position, _)| position))
    }

    /// The blocks of each position of `disk` in `range` that captures after the one with the ordinal `base` may have
    /// changed; `None` for all of them.
    pub fn changed_since(
        &self,
        disk: u32,
        range: Range<u64>,
        base: u64,
    ) -> Result<BTreeMap<u64, Option<BlockMask>>, StoreError> {
        self.changed_in(&self.changes, disk, range, base)
    }

    /// The same of what the VM's draft has changed since its last complete pass.
    pub fn changed_after_pass(
        &self,
        disk: u32,
        range: Range<u64>,
    ) -> Result<BTreeMap<u64, Option<BlockMask>>, StoreError> {
        self.changed_in(&self.after_pass, disk, range, 0)
    }

    fn changed_in(
        &self,
        changes: &Changes,
        disk: u32,
        range: Range<u64>,
        base: u64,
    ) -> Result<BTreeMap<u64, Option<BlockMask>>, StoreError> {
        let items = changes.range((disk, range.start, 0)..(disk, range.end, 0));
        let mut out: BTreeMap<u64, Option<BlockMask>> = BTreeMap::new();
        for item in items.map_err(self.error())? {
            let (key, value) = item.map_err(self.error())?;
            let (_, position, ordinal) = key.value();
            if ordinal <= base {
                continue;
            }
            let blocks = Change::decode(value.value()).blocks;
            out.entry(position)
                .and_modify(|before| {
                    *before = before
                        .as_ref()
                        .zip(blocks.as_ref())
                        .map(|(before, blocks)| before.union(blocks));
                })
                .or_insert(blocks);
        }
        Ok(out)
    }
}

impl Snapshot {
    /// The first position at or after `position` that captures after the one with the ordinal `base` changed.
    pub fn next_changed_since(
        &self,
        disk: u32,
        position: u64,
        base: u64,
    ) -> Result<Option<u64>, StoreError> {
        self.next_in(&self.changes, disk, position, base)
    }

    /// The first position at or after `position` that the VM's draft has changed since its last complete pass.
    pub fn next_changed_after_pass(
        &self,
        disk: u32,
        position: u64,
    ) -> Result<Option<u64>, StoreError> {
        self.next_in(&self.after_pass, disk, position, 0)
    }

    fn next_in(
        &self,
        changes: &Changes,
        disk: u32,
        position: u64,
        base: u64,
    ) -> Result<Option<u64>, StoreError> {
        let items = changes.range((disk, position, 0)..=(disk, u64::MAX, u64::MAX));
        for item in items.map_err(self.error())? {
            let (_, position, ordinal) = item.map_err(self.error())?.0.value();
            if ordinal > base {
                return Ok(Some(position));
            }
        }
        Ok(None)
    }
}

type ChangeItem<'s> = (
    redb::AccessGuard<'s, (u32, u64, u64)>,
    redb::AccessGuard<'s, &'static [u8]>,
);

fn chunk_of((position, slot): (u64, Slot)) -> Option<(u64, ChunkId)> {
    match slot {
        Slot::Chunk(id) => Some((position, id)),
        Slot::Hole => None,
    }
}

type Items<'s> = Box<dyn Iterator<Item = Result<(u64, Slot), StoreError>> + 's>;

/// The map with changes laid over it.
pub(super) struct Slots<'s> {
    map: Peekable<Items<'s>>,
    /// Of a position the last one counts.
    changes: Peekable<Items<'s>>,
}

/// The position that comes next; an error comes at once.
fn front(items: &mut Peekable<Items<'_>>) -> u64 {
    match items.peek() {
        Some(Ok((position, _))) => *position,
        Some(Err(_)) => 0,
        None => u64::MAX,
    }
}

impl Iterator for Slots<'_> {
    type Item = Result<(u64, Slot), StoreError>;

    fn next(&mut self) -> Option<Self::Item> {
        let (map, changes) = (front(&mut self.map), front(&mut self.changes));
        let mut found = None;
        if map <= changes {
            found = self.map.next();
        }
        if changes <= map {
            found = self.changes.next().or(found);
            while let Some(Ok((at, _))) = &found
                && front(&mut self.changes) == *at
            {
                found = self.changes.next().or(found);
            }
        }
        found
    }
}
