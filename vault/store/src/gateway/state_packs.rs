//! The state's packs, what is known by them, and the segments that index them.

use super::rows::{ChunkRow, PackRow, QueueRow, SegmentRow};
use super::state::{CHUNKS, ENTRIES, LOST, OPEN, PACKS, SEGMENTS, State, json, take_numbers};
use super::state_queue::{Changes, put_changes, put_row};
use crate::StoreError;
use redb::{ReadableTable, WriteTransaction};
use vault_format::ChunkId;
use vault_format::entry::{Entry, decode_entries, encode_entries};

impl State {
    /// Notes a pack that is about to be sent, with what it makes known and what its capture changed, in one commit.
    pub fn add_pack(
        &self,
        row: &PackRow,
        entries: &[Entry],
        chunks: &[(ChunkId, ChunkRow)],
        (capture, draft, changes): (u64, &QueueRow, &Changes),
    ) -> Result<u64, StoreError> {
        self.write(|w| {
            put_row(w, capture, draft)?;
            put_changes(w, (capture, draft), changes)?;
            let ordinal = take_numbers(w, "pack", 1)?;
            w.open_table(PACKS)?.insert(ordinal, json(row).as_slice())?;
            w.open_table(OPEN)?.insert(ordinal, ())?;
            w.open_table(ENTRIES)?
                .insert(ordinal, encode_entries(entries).as_slice())?;
            let mut table = w.open_table(CHUNKS)?;
            for (id, chunk) in chunks {
                table.insert(
                    &id.0,
                    ChunkRow {
                        pack: ordinal,
                        ..chunk.clone()
                    }
                    .encode()
                    .as_slice(),
                )?;
            }
            Ok(ordinal)
        })
    }

    /// Changes the rows of these packs.
    pub fn update_packs(
        &self,
        ordinals: &[u64],
        change: impl Fn(&mut PackRow),
    ) -> Result<(), StoreError> {
        self.write(|w| update_pack_rows(w, ordinals, &change))
    }

    /// These packs arrived: what they bring is lost no more.
    pub fn mark_arrived(&self, ordinals: &[u64]) -> Result<(), StoreError> {
        let mut brought = Vec::new();
        for ordinal in ordinals.iter().filter(|_| self.any_lost()) {
            let entries = self.entries_of(*ordinal)?.into_iter();
            brought.extend(entries.map(|entry| (*ordinal, entry)));
        }
        self.write(|w| {
            let (mut lost, chunks) = (w.open_table(LOST)?, w.open_table(CHUNKS)?);
            for (ordinal, entry) in &brought {
                // What it brought was lost again meanwhile, if the chunk is not known by it any more.
                let row = chunks.get(&entry.id.0)?;
                let row = row.and_then(|v| ChunkRow::decode(v.value()));
                if row.is_some_and(|row| row.pack == *ordinal) {
                    lost.remove(&entry.id.0)?;
                }
            }
            drop((lost, chunks));
            update_pack_rows(w, ordinals, &|pack| pack.arrived = true)
        })
    }

    pub fn entries_of(&self, ordinal: u64) -> Result<Vec<Entry>, StoreError> {
        self.read(|r| entries_in(&r.open_table(ENTRIES)?, ordinal))
    }

    /// All packs, by ordinal.
    pub fn packs(&self) -> Result<Vec<(u64, PackRow)>, StoreError> {
        self.rows(PACKS, |ordinal| ordinal)
    }

    pub fn is_open(&self, ordinal: u64) -> Result<bool, StoreError> {
        self.read(|r| Ok(r.open_table(OPEN)?.get(ordinal)?.is_some()))
    }

    /// Packs that no segment has, by ordinal.
    pub fn open_packs(&self) -> Result<Vec<(u64, PackRow)>, StoreError> {
        let rows = self.read(|r| {
            let (open, packs) = (r.open_table(OPEN)?, r.open_table(PACKS)?);
            let mut out = Vec::new();
            for item in open.iter()? {
                let ordinal = item?.0.value();
                if let Some(row) = packs.get(ordinal)? {
                    out.push(serde_json::from_slice(row.value()).map(|row| (ordinal, row)));
                }
            }
            Ok(out)
        })?;
        rows.into_iter()
            .collect::<Result<_, serde_json::Error>>()
            .map_err(self.error())
    }

    pub fn segments(&self) -> Result<Vec<(u64, SegmentRow)>, StoreError> {
        self.rows(SEGMENTS, |first| first)
    }

    /// Replaces the segments that begin at `gone` by one, and marks its packs as indexed.
    pub fn put_segment(
        &self,
        gone: &[u64],
        first: u64,
        row: &SegmentRow,
        packs: &[u64],
    ) -> Result<(), StoreError> {
        self.write(|w| {
            let mut table = w.open_table(SEGMENTS)?;
            gone.iter()
                .try_for_each(|first| table.remove(first).map(drop))?;
            table.insert(first, json(row).as_slice())?;
            update_pack_rows(w, packs, &|pack| pack.indexed = true)
        })
    }

    pub fn drop_segment(&self, first: u64, packs: &[u64]) -> Result<(), StoreError> {
        self.write(|w| {
            w.open_table(SEGMENTS)?.remove(first)?;
            update_pack_rows(w, packs, &|pack| pack.indexed = false)
        })
    }

    /// Takes these chunks as lost: not known any more, and to be sent full wherever a disk still has them.
    pub fn mark_lost(&self, ids: &[ChunkId], packs: &[u64]) -> Result<(), StoreError> {
        if !ids.is_empty() {
            self.note_lost();
        }
        self.write(|w| {
            let (mut chunks, mut lost) = (w.open_table(CHUNKS)?, w.open_table(LOST)?);
            for id in ids {
                chunks.remove(&id.0)?;
                lost.insert(&id.0, ())?;
            }
            let (mut rows, mut entries) = (w.open_table(PACKS)?, w.open_table(ENTRIES)?);
            let mut open = w.open_table(OPEN)?;
            for pack in packs {
                open.remove(pack)?;
                rows.remove(pack)?;
                entries.remove(pack)?;
            }
            Ok(())
        })
    }

    /// Takes in packs that the vault already holds, in one commit, and returns the first one's ordinal; the others follow.
    /// Their chunks go through `put_chunks`.
    pub fn adopt(&self, packs: &[(PackRow, Vec<Entry>)]) -> Result<u64, StoreError> {
        self.write(|w| {
            let first = take_numbers(w, "pack", packs.len() as u64)?;
            let (mut rows, mut all) = (w.open_table(PACKS)?, w.open_table(ENTRIES)?);
            let mut open = w.open_table(OPEN)?;
            for (ordinal, (row, entries)) in (first..).zip(packs) {
                if !row.indexed {
                    open.insert(ordinal, ())?;
                }
                rows.insert(ordinal, json(row).as_slice())?;
                all.insert(ordinal, encode_entries(entries).as_slice())?;
            }
            Ok(first)
        })
    }

    /// Best in the order of their ids.
    pub fn put_chunks(&self, rows: &[(ChunkId, ChunkRow)]) -> Result<(), StoreError> {
        self.write(|w| {
            let mut chunks = w.open_table(CHUNKS)?;
            for (id, row) in rows {
                chunks.insert(&id.0, row.encode().as_slice())?;
            }
            Ok(())
        })
    }
}

/// Changes rows, and keeps the list of open ones true.
pub(super) fn update_pack_rows(
    w: &WriteTransaction,
    ordinals: &[u64],
    change: &impl Fn(&mut PackRow),
) -> Result<(), redb::Error> {
    let (mut packs, mut open) = (w.open_table(PACKS)?, w.open_table(OPEN)?);
    for ordinal in ordinals {
        let row = packs
            .get(ordinal)?
            .and_then(|v| serde_json::from_slice::<PackRow>(v.value()).ok());
        if let Some(mut row) = row {
            change(&mut row);
            packs.insert(ordinal, json(&row).as_slice())?;
            match row.indexed {
                true => open.remove(ordinal)?,
                false => open.insert(ordinal, ())?,
            };
        }
    }
    Ok(())
}

pub(super) fn entries_in(
    table: &impl ReadableTable<u64, &'static [u8]>,
    pack: u64,
) -> Result<Vec<Entry>, redb::Error> {
    let bytes = table.get(pack)?;
    let bytes = bytes.as_ref().map_or(&[][..], |v| v.value());
    decode_entries(bytes, 1).map_err(|error| redb::Error::Corrupted(error.to_string()))
}

/// Forgets packs and the chunks that only they were to bring.
pub(super) fn drop_packs(w: &WriteTransaction, packs: &[u64]) -> Result<(), redb::Error> {
    drop_chunks(w, packs)?;
    let (mut rows, mut open) = (w.open_table(PACKS)?, w.open_table(OPEN)?);
    let mut all = w.open_table(ENTRIES)?;
    for ordinal in packs {
        rows.remove(ordinal)?;
        open.remove(ordinal)?;
        all.remove(ordinal)?;
    }
    Ok(())
}

/// The chunks that these packs brought are not known any more; the packs stay.
pub(super) fn drop_chunks(w: &WriteTransaction, packs: &[u64]) -> Result<(), redb::Error> {
    let (mut chunks, all) = (w.open_table(CHUNKS)?, w.open_table(ENTRIES)?);
    for ordinal in packs {
        for entry in entries_in(&all, *ordinal)? {
            let its = chunks
                .get(&entry.id.0)?
                .and_then(|v| ChunkRow::decode(v.value()));
            if its.is_some_and(|row| row.pack == *ordinal) {
                chunks.remove(&entry.id.0)?;
            }
        }
    }
    Ok(())
}
