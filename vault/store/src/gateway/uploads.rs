//! Packs on their way: filled one at a time, noted in the state before they are sent, a few sent at once.

use super::Gateway;
use super::rows::{ChunkRow, PackRow};
use crate::StoreError;
use crate::objects::ObjectError;
use std::collections::{HashMap, HashSet};
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

type Sent = Result<(u64, usize, f64), ObjectError>;

/// The packs of one capture.
pub(super) struct Uploads {
    builder: Option<PackBuilder>,
    filling: HashMap<ChunkId, ChunkRow>,
    flying: JoinSet<Sent>,
    arrived: Vec<u64>,
    /// Chunks of packs noted in the state while this batch is taken in, and while the one before was.
    noted: [HashSet<ChunkId>; 2],
}

impl Uploads {
    pub fn new() -> Self {
        Uploads {
            builder: None,
            filling: HashMap::new(),
            flying: JoinSet::new(),
            arrived: Vec::new(),
            noted: Default::default(),
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
}

impl Gateway {
    /// Adds a record to the pack being filled; sends the pack when it is full.
    pub(super) async fn add_record(
        &mut self,
        uploads: &mut Uploads,
        id: ChunkId,
        row: ChunkRow,
        record: &[u8],
    ) -> Result<(), StoreError> {
        let capacity = self.pack_bytes;
        let builder = uploads.builder.get_or_insert_with(|| {
            // Of one size, whatever the pace: what is not touched takes no memory.
            let buffer = self.buffers.take(self.options.pack_bytes + PACK_REST_BYTES);
            PackBuilder::new(&self.sealed_key, buffer)
        });
        builder.push(id, row.kind, record);
        uploads.filling.insert(id, row);
        if builder.len() >= capacity || uploads.filling.len() >= MOST_RECORDS {
            self.send_pack(uploads).await?;
        }
        Ok(())
    }

    async fn send_pack(&mut self, uploads: &mut Uploads) -> Result<(), StoreError> {
        let Some(builder) = uploads.builder.take() else {
            return Ok(());
        };
        while uploads.flying.len() >= self.options.uploads {
            self.land_one(uploads).await?;
        }
        let (key, keys) = (&self.key, self.key.trust.keys.newest());
        let pack =
            tokio::task::block_in_place(|| builder.finish(&key.trust.vault, &key.writer.id, keys));
        let row = PackRow {
            name: pack.name,
            size: pack.bytes.len() as u64,
            arrived: false,
            holder: None,
            indexed: false,
            adopted: false,
        };
        let chunks: Vec<(ChunkId, ChunkRow)> = uploads.filling.drain().collect();
        uploads.noted[0].extend(chunks.iter().map(|(id, _)| *id));
        // Noted before it is sent: whoever finds this row asks the store whether the pack arrived.
        let ordinal = self.state.add_pack(&row, &pack.entries, &chunks)?;
        let (objects, buffers) = (self.objects.clone(), self.buffers.clone());
        uploads.flying.spawn(async move {
            let (name, length, begin) = (names::pack(&pack.name), pack.bytes.len(), Instant::now());
            objects.create(&name, buffers.lend(pack.bytes)).await?;
            Ok((ordinal, length, begin.elapsed().as_secs_f64()))
        });
        Ok(())
    }

    async fn land_one(&mut self, uploads: &mut Uploads) -> Result<(), StoreError> {
        let Some(landed) = uploads.flying.join_next().await else {
            return Ok(());
        };
        let landed =
            landed.map_err(|e| StoreError::Other(format!("an upload ended unexpectedly: {e}")))?;
        let (ordinal, bytes, seconds) = landed?;
        uploads.arrived.push(ordinal);
        self.pack_bytes = next_pack_bytes(
            self.options.pack_bytes,
            bytes,
            seconds * self.options.uploads as f64,
        );
        self.write_segment_on_the_way(uploads).await
    }

    /// A first sync may take days: its packs go into segments as it goes, so that little is sent again if it is killed
    /// and its state is lost.
    async fn write_segment_on_the_way(&mut self, uploads: &mut Uploads) -> Result<(), StoreError> {
        if uploads.arrived.len() < 64 {
            return Ok(());
        }
        self.note_arrived(uploads)?;
        self.write_due_segments().await
    }

    fn note_arrived(&mut self, uploads: &mut Uploads) -> Result<(), StoreError> {
        if uploads.arrived.is_empty() {
            return Ok(());
        }
        self.state.mark_arrived(&uploads.arrived)?;
        uploads.arrived.clear();
        Ok(())
    }

    /// Sends what is left, and waits until all has arrived.
    pub(super) async fn finish_uploads(&mut self, uploads: &mut Uploads) -> Result<(), StoreError> {
        self.send_pack(uploads).await?;
        while !uploads.flying.is_empty() {
            self.land_one(uploads).await?;
        }
        self.note_arrived(uploads)
    }

    /// After a failure: waits for the packs under way. One that lands after the next sync asked for it would be sent
    /// twice, and what is nearly there need not be sent again.
    pub(super) async fn await_uploads(&mut self, uploads: &mut Uploads) -> Result<(), StoreError> {
        while let Some(landed) = uploads.flying.join_next().await {
            if let Ok(Ok((ordinal, _, _))) = landed {
                uploads.arrived.push(ordinal);
            }
        }
        self.note_arrived(uploads)
    }

    /// Asks the store about packs of which nobody knows whether they arrived: an earlier sync died or failed.
    pub(super) async fn settle_packs(&mut self) -> Result<(), StoreError> {
        for (ordinal, pack) in self
            .state
            .open_packs()?
            .into_iter()
            .filter(|(_, pack)| !pack.arrived)
        {
            match self.objects.size(&names::pack(&pack.name)).await? {
                Some(size) if size == pack.size => self.state.mark_arrived(&[ordinal])?,
                _ => self.state.forget_pack(ordinal)?,
            }
        }
        Ok(())
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
