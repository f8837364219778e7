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
    async fn slots(&self, positions: &[u64]) -> Result<Vec<Slot>, StoreError> {
        let mut slots = Vec::with_capacity(positions.len());
        for run in positions.chunk_by(|a, b| a + 1 == *b) {
            slots.extend(self.0.slots(run[0]..run[run.len() - 1] + 1).await?);
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
        let mut fetched = self.fetch_all(positions).await;
        // What was damaged on its way is whole the next time; what a store's weakness asks of patience was spent below.
        if let Err(error @ StoreError::Format { .. }) = &fetched {
            tracing::warn!(%error, "it is fetched again");
            fetched = self.fetch_all(positions).await;
        }
        match fetched {
            Ok(chunks) => chunks,
            Err(error) => vec![Err(error.to_string()); positions.len()],
        }
    }

    async fn holes(&self, positions: Range<u64>) -> Result<Vec<bool>, String> {
        let slots = self.0.slots(positions).await.map_err(|e| e.to_string())?;
        Ok(slots.iter().map(|slot| *slot == Slot::Hole).collect())
    }
}
