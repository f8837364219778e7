//! Where chunks come from: the vault.

use async_trait::async_trait;
use bytes::Bytes;
use std::ops::Range;
use vault_format::ChunkId;
use vault_format::layer::Slot;
use vault_store::StoreError;
use vault_store::read::DiskImage;

/// A chunk, or the hole at its place.
pub type Chunk = Option<Bytes>;

/// Chunks of one disk by position.
#[async_trait]
pub trait ChunkSource: Send + Sync {
    fn size_bytes(&self) -> u64;

    fn chunk_bytes(&self) -> u32;

    /// Chunks in the order of `positions`, whole and verified; each fails for itself.
    async fn fetch(&self, positions: &[u64]) -> Vec<Result<Chunk, String>>;

    /// Which positions are holes.
    async fn holes(&self, positions: Range<u64>) -> Result<Vec<bool>, String>;
}

/// A disk in the vault.
pub struct VaultSource(pub DiskImage);

impl VaultSource {
    /// What was damaged on its way is whole the next time; what a store's weakness asks of patience was spent below.
    async fn slots_of(&self, range: Range<u64>) -> Result<Vec<Slot>, StoreError> {
        match self.0.slots(range.clone()).await {
            Err(error @ StoreError::Format { .. }) => {
                tracing::warn!(%error, "it is fetched again");
                self.0.slots(range).await
            }
            other => other,
        }
    }

    async fn slots(&self, positions: &[u64]) -> Result<Vec<Slot>, StoreError> {
        let mut slots = Vec::with_capacity(positions.len());
        for run in positions.chunk_by(|a, b| a + 1 == *b) {
            slots.extend(self.slots_of(run[0]..run[run.len() - 1] + 1).await?);
        }
        Ok(slots)
    }

    async fn fetch_all(&self, positions: &[u64]) -> Result<Vec<Result<Chunk, String>>, StoreError> {
        let slots = self.slots(positions).await?;
        let ids: Vec<_> = slots.iter().filter_map(chunk_of).collect();
        let chunks = self.0.chunks(&ids).await?;
        let of = |slot: &Slot| match chunk_of(slot) {
            None => Ok(None),
            Some(id) => match chunks.get(&id) {
                Some(Ok(chunk)) => Ok(Some(chunk.clone())),
                Some(Err(lost)) => Err(lost.to_string()),
                None => Err(format!("chunk {id} was not fetched")),
            },
        };
        Ok(slots.iter().map(of).collect())
    }
}

fn chunk_of(slot: &Slot) -> Option<ChunkId> {
    match slot {
        Slot::Hole => None,
        Slot::Chunk(id) => Some(*id),
    }
}

#[async_trait]
impl ChunkSource for VaultSource {
    fn size_bytes(&self) -> u64 {
        self.0.size_bytes()
    }

    fn chunk_bytes(&self) -> u32 {
        self.0.chunk_bytes()
    }

    async fn fetch(&self, positions: &[u64]) -> Vec<Result<Chunk, String>> {
        match self.fetch_all(positions).await {
            Ok(chunks) => chunks,
            // What one of them lacks is no fault of its neighbours.
            Err(StoreError::Format { .. } | StoreError::LostChunk { .. })
                if positions.len() > 1 =>
            {
                let mut out = Vec::with_capacity(positions.len());
                for position in positions {
                    let one = self.fetch_all(&[*position]).await;
                    out.extend(one.unwrap_or_else(|error| vec![Err(error.to_string())]));
                }
                out
            }
            Err(error) => vec![Err(error.to_string()); positions.len()],
        }
    }

    async fn holes(&self, positions: Range<u64>) -> Result<Vec<bool>, String> {
        let slots = self.slots_of(positions).await;
        let slots = slots.map_err(|e| e.to_string())?;
        Ok(slots.iter().map(|slot| *slot == Slot::Hole).collect())
    }
}
