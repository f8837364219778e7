//! The packs of a capture: filled one at a time, noted in the state when they are whole, and sent at once, a few at the
//! same time, or laid into the outbox.

use super::rows::{ChunkRow, PackRow, QueueRow};
use super::state_queue::Changed;
use super::{Gateway, Hold};
use crate::StoreError;
use crate::objects::ObjectError;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::time::Instant;
use tokio::task::JoinSet;
use vault_format::pack::PackBuilder;
use vault_format::record::Kind;
use vault_format::{ChunkId, names};

/// A PUT should take no longer than this, since a broken one starts again.
const PUT_SECONDS: f64 = 30.0;
/// Below this, requests cost more than a broken PUT.
const LEAST_PACK_BYTES: usize = 2 << 20;

/// A pack ends after its last record: a chunk of 4 MiB, and the trailer.
pub(super) const PACK_REST_BYTES: usize = 6 << 20;

/// Records in one pack, at most: a manifest must be able to carry the entries of 64 of them.
const MOST_RECORDS: usize = 16_384;

/// Changes of the map that wait in memory, at most.
const MOST_CHANGES: usize = 65_536;
/// From this many on a commit pays.
const DUE_CHANGES: usize = 4096;

type Landed = Result<(u64, usize, f64), ObjectError>;

/// The packs of one capture, and what it changed in the map as far as that waits for them: a change is noted when the
/// chunk that it names is.
pub(super) struct Packing {
    /// The capture's ordinal.
    capture: u64,
    hold: Hold,
    builder: Option<PackBuilder>,
    filling: HashMap<ChunkId, ChunkRow>,
    /// Waiting packs that the one being filled stands on.
    after: BTreeSet<u64>,
    flying: JoinSet<Landed>,
    arrived: Vec<u64>,
    /// Chunks of packs noted in the state while this batch is taken in, and while the one before was.
    noted: [HashSet<ChunkId>; 2],
    /// By disk.
    changes: BTreeMap<u32, Vec<Changed>>,
    waiting_changes: usize,
}

impl Packing {
    pub fn new(capture: u64, hold: Hold) -> Self {
        Packing {
            capture,
            hold,
            builder: None,
            filling: HashMap::new(),
            after: BTreeSet::new(),
            flying: JoinSet::new(),
            arrived: Vec::new(),
            noted: Default::default(),
            changes: BTreeMap::new(),
            waiting_changes: 0,
        }
    }

    /// Another batch is being judged, by a new snapshot of the state.
    pub fn next_snapshot(&mut self) {
        self.noted[1] = std::mem::take(&mut self.noted[0]);
    }

    /// Chunks of the pack being filled, which no snapshot knows.
    pub fn filling(&self) -> HashSet<ChunkId> {
        self.filling.keys().copied().collect()
    }

    /// Whether `id` was stored, but too late for the snapshot that the batch being taken in was judged by.
    pub fn has(&self, id: &ChunkId) -> bool {
        self.filling.contains_key(id) || self.noted.iter().any(|noted| noted.contains(id))
    }

    pub fn change(&mut self, disk: u32, changed: Changed) {
        self.changes.entry(disk).or_default().push(changed);
        self.waiting_changes += 1;
    }

    /// So many changes wait that the pack is ended for them.
    fn is_crowded(&self) -> bool {
        self.waiting_changes >= MOST_CHANGES
    }

    fn are_changes_due(&self) -> bool {
        self.builder.is_none() && self.waiting_changes >= DUE_CHANGES
    }
}

impl Gateway {
    /// Adds a record to the pack being filled; ends the pack when it is full.
    pub(super) async fn add_record(
        &mut self,
        packing: &mut Packing,
        (id, row): (ChunkId, ChunkRow),
        record: &[u8],
        needs: &[u64],
    ) -> Result<(), StoreError> {
        let capacity = self.pack_bytes;
        let builder = packing.builder.get_or_insert_with(|| {
            // Of one size, whatever the pace: what is not touched takes no memory.
            let most = self.shared.options.pack_bytes + PACK_REST_BYTES;
            PackBuilder::new(&self.sealed_key, self.buffers.take(most))
        });
        builder.push(id, row.kind, record);
        packing.after.extend(needs);
        packing.filling.insert(id, row);
        if builder.len() >= capacity || packing.filling.len() >= MOST_RECORDS {
            self.end_pack(packing).await?;
        }
        Ok(())
    }

    async fn end_pack(&mut self, packing: &mut Packing) -> Result<(), StoreError> {
        let Some(builder) = packing.builder.take() else {
            return Ok(());
        };
        while packing.flying.len() >= self.shared.options.uploads {
            self.land_one(packing).await?;
        }
        let shared = self.shared.clone();
        let (key, keys) = (&shared.key, shared.key.trust.keys.newest());
        let pack =
            tokio::task::block_in_place(|| builder.finish(&key.trust.vault, &key.writer.id, keys));
        let row = PackRow {
            name: pack.name,
            size: pack.bytes.len() as u64,
            arrived: false,
            holder: None,
            indexed: false,
            adopted: false,
            capture: Some(packing.capture),
            after: std::mem::take(&mut packing.after).into_iter().collect(),
        };
        let chunks: Vec<(ChunkId, ChunkRow)> = packing.filling.drain().collect();
        packing.noted[0].extend(chunks.iter().map(|(id, _)| *id));
        // Noted before it is sent: whoever finds this row asks the store whether the pack arrived.
        let ordinal = tokio::task::block_in_place(|| {
            let _held = shared.outbox.hold_files();
            if packing.hold != Hold::Nothing {
                shared.outbox.put(&pack.name, &pack.bytes)?;
            }
            shared.state.add_pack(&row, &pack.entries, &chunks)
        })?;
        let buffers = self.buffers.clone();
        if packing.hold != Hold::Nothing {
            buffers.give(pack.bytes);
            return Ok(());
        }
        packing.flying.spawn(async move {
            let (name, length, begin) = (names::pack(&pack.name), pack.bytes.len(), Instant::now());
            let bytes = buffers.lend(pack.bytes);
            shared.objects.create(&name, bytes).await?;
            Ok((ordinal, length, begin.elapsed().as_secs_f64()))
        });
        Ok(())
    }

    async fn land_one(&mut self, packing: &mut Packing) -> Result<(), StoreError> {
        let Some(landed) = packing.flying.join_next().await else {
            return Ok(());
        };
        let landed =
            landed.map_err(|e| StoreError::Other(format!("an upload ended unexpectedly: {e}")))?;
        let (ordinal, bytes, seconds) = landed?;
        packing.arrived.push(ordinal);
        let options = self.shared.options;
        self.pack_bytes =
            next_pack_bytes(options.pack_bytes, bytes, seconds * options.uploads as f64);
        self.write_segment_on_the_way(packing).await
    }

    /// A first sync may take days: its packs go into segments as it goes, so that little is sent again if it is killed
    /// and its state is lost.
    async fn write_segment_on_the_way(&mut self, packing: &mut Packing) -> Result<(), StoreError> {
        if packing.arrived.len() < 64 {
            return Ok(());
        }
        self.note_arrived(packing)?;
        let _turn = self.shared.publishing.lock().await;
        self.shared.write_due_segments().await
    }

    fn note_arrived(&mut self, packing: &mut Packing) -> Result<(), StoreError> {
        if packing.arrived.is_empty() {
            return Ok(());
        }
        self.shared.state.mark_arrived(&packing.arrived)?;
        packing.arrived.clear();
        Ok(())
    }

    /// Sends what is left, and waits until all has arrived; where packs wait in the outbox, they are there now.
    pub(super) async fn finish_packing(&mut self, packing: &mut Packing) -> Result<(), StoreError> {
        self.end_pack(packing).await?;
        while !packing.flying.is_empty() {
            self.land_one(packing).await?;
        }
        self.note_arrived(packing)
    }

    /// After a failure: waits for the packs under way. One that lands after the next sync asked for it would be sent
    /// twice, and what is nearly there need not be sent again.
    pub(super) async fn await_packing(&mut self, packing: &mut Packing) -> Result<(), StoreError> {
        while let Some(landed) = packing.flying.join_next().await {
            if let Ok(Ok((ordinal, _, _))) = landed {
                packing.arrived.push(ordinal);
            }
        }
        self.note_arrived(packing)
    }

    /// Notes what was changed, where it is time for that.
    pub(super) async fn note_due_changes(
        &mut self,
        packing: &mut Packing,
        row: &QueueRow,
    ) -> Result<(), StoreError> {
        if packing.is_crowded() {
            self.end_pack(packing).await?;
        }
        match packing.are_changes_due() {
            true => self.note_changes(packing, row),
            false => Ok(()),
        }
    }

    /// Notes all that was changed. No chunk of it is in a pack being filled.
    pub(super) fn note_changes(
        &self,
        packing: &mut Packing,
        row: &QueueRow,
    ) -> Result<(), StoreError> {
        debug_assert!(packing.builder.is_none());
        packing.waiting_changes = 0;
        let changes = std::mem::take(&mut packing.changes);
        self.shared
            .state
            .add_changes(packing.capture, row, &changes)
    }
}

/// Pack size at which a PUT takes half a minute, at the pace of the last one.
fn next_pack_bytes(most: usize, bytes: usize, seconds: f64) -> usize {
    let pace = bytes as f64 / seconds.max(0.001);
    ((pace * PUT_SECONDS) as usize).clamp(LEAST_PACK_BYTES.min(most), most)
}

/// What the state keeps of a record just sealed; its pack's number is filled in when the pack is noted.
pub(super) fn chunk_row(
    kind: Kind,
    length: usize,
    mask: Option<vault_format::record::BlockMask>,
) -> ChunkRow {
    ChunkRow {
        pack: u64::MAX,
        length: length as u32,
        kind,
        mask,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packs_are_as_large_as_half_a_minute_of_uplink() {
        assert_eq!(next_pack_bytes(32 << 20, 16 << 20, 0.1), 32 << 20);
        assert_eq!(
            next_pack_bytes(32 << 20, 1_250_000, 10.0),
            3_750_000,
            "1 Mbit/s"
        );
        assert_eq!(next_pack_bytes(32 << 20, 1000, 10.0), LEAST_PACK_BYTES);
    }
}
