//! One disk of a recovery point, opened for reading.

use super::batch::Batch;
use super::engine::Engine;
use super::index::{Index, Reach};
use super::overlay::MapOverlay;
use super::packs::Grouping;
use super::{Point, Vault};
use crate::StoreError;
use bytes::Bytes;
use rayon::prelude::*;
use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;
use vault_format::ChunkId;
use vault_format::layer::Slot;
use vault_format::manifest::{Disk, Manifest};

/// Chunks fetched and built in one go, in bytes of disk.
const BATCH_BYTES: usize = 32 << 20;

/// A disk: its layers' roots, and the index. What is larger is read on demand, by several tasks at once.
pub struct DiskImage {
    pub(super) engine: Arc<Engine>,
    overlay: tokio::sync::Mutex<MapOverlay>,
    size_bytes: u64,
    chunk_bytes: u32,
}

impl std::fmt::Debug for DiskImage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "DiskImage({} bytes)", self.size_bytes)
    }
}

/// The disk `name` of `point`, or an error that names those it has.
pub(super) fn disk_of<'p>(point: &'p Point, name: &str) -> Result<&'p Disk, StoreError> {
    let disks = &point.manifest.disks;
    disks.iter().find(|d| d.name == name).ok_or_else(|| {
        let known: Vec<&str> = disks.iter().map(|d| d.name.as_str()).collect();
        let (vm, at) = (
            &point.manifest.facts.vm,
            point.manifest.facts.point.sequence,
        );
        StoreError::Other(format!(
            "recovery point {at} of VM {vm} has no disk {name}; it has {}",
            known.join(", ")
        ))
    })
}

/// What reads a point's chunks: the segments, and the lists of packs that none holds.
pub(super) async fn engine_for(vault: &Vault, manifest: &Manifest) -> Result<Engine, StoreError> {
    let mut index = Index::open(vault).await?;
    index.add_unindexed(manifest).await?;
    index.add_manifest(manifest, false);
    Ok(Engine::new(vault, index))
}

/// How often a chunk that did not come right is read anew, record by record, before it counts as lost: until somebody asks
/// for it again.
const RECOVERIES: usize = 2;

impl DiskImage {
    pub async fn open(
        vault: &Vault,
        point: &Point,
        disk_name: &str,
    ) -> Result<DiskImage, StoreError> {
        disk_of(point, disk_name)?;
        let engine = Arc::new(engine_for(vault, &point.manifest).await?);
        Self::with(engine, vault, point, disk_name).await
    }

    /// Several disks of a point, which share one index.
    pub async fn open_all(
        vault: &Vault,
        point: &Point,
        disk_names: &[&str],
    ) -> Result<Vec<DiskImage>, StoreError> {
        let engine = Arc::new(engine_for(vault, &point.manifest).await?);
        let open = |name| Self::with(engine.clone(), vault, point, name);
        futures::future::try_join_all(disk_names.iter().copied().map(open)).await
    }

    /// With what other disks of the point are read with too.
    pub(super) async fn with(
        engine: Arc<Engine>,
        vault: &Vault,
        point: &Point,
        disk_name: &str,
    ) -> Result<DiskImage, StoreError> {
        let disk = disk_of(point, disk_name)?;
        let layers = if disk.excluded {
            &[][..]
        } else {
            &disk.layers[..]
        };
        let overlay = MapOverlay::open(vault.objects.clone(), &vault.trust, layers).await?;
        Ok(DiskImage {
            engine,
            overlay: tokio::sync::Mutex::new(overlay),
            size_bytes: disk.size_bytes,
            chunk_bytes: vault.config.chunk_bytes,
        })
    }

    pub fn size_bytes(&self) -> u64 {
        self.size_bytes
    }

    pub fn chunk_bytes(&self) -> u32 {
        self.chunk_bytes
    }

    /// What stands at positions `range`, the layers overlaid: a hole where none says, and behind the disk's end.
    pub async fn slots(&self, range: Range<u64>) -> Result<Vec<Slot>, StoreError> {
        let count = range.end.saturating_sub(range.start) as usize;
        let end = self.size_bytes.div_ceil(u64::from(self.chunk_bytes));
        let mut overlay = self.overlay.lock().await;
        let mut slots = overlay
            .slots(range.start.min(end)..range.end.min(end))
            .await?;
        slots.resize(count, Slot::Hole);
        Ok(slots)
    }

    /// Fetches, opens and verifies chunks: any order, repetitions too. Each is had or lost by itself; an error is the
    /// store's, and concerns all.
    pub async fn chunks(
        &self,
        ids: &[ChunkId],
    ) -> Result<HashMap<ChunkId, Result<Bytes, StoreError>>, StoreError> {
        let mut unique = ids.to_vec();
        unique.sort_unstable();
        unique.dedup();
        let mut out = HashMap::with_capacity(unique.len());
        for group in unique.chunks((BATCH_BYTES / self.chunk_bytes as usize).max(1)) {
            let (chains, _) = self.engine.chains(group, Reach::First).await?;
            let mut usable = Vec::with_capacity(chains.len());
            for (id, chain) in chains {
                match chain {
                    Ok(chain) => usable.push(chain),
                    Err(why) => drop(out.insert(id, Err(lost(&id, why)))),
                }
            }
            let batch = Batch::new(usable);
            let pieces = self.engine.fetch(&batch, Grouping::Together).await?;
            let engine = &self.engine;
            let built: Vec<_> = tokio::task::block_in_place(|| {
                let build = |job| batch.build(job, &pieces, &engine.keys, false).ok();
                batch
                    .jobs
                    .par_iter()
                    .map(|job| (job.id, build(job).map(Bytes::from)))
                    .collect()
            });
            let mut failed = Vec::new();
            for (id, chunk) in built {
                match chunk {
                    Some(chunk) => drop(out.insert(id, Ok(chunk))),
                    None => failed.push(id),
                }
            }
            for _ in 0..RECOVERIES {
                if failed.is_empty() {
                    break;
                }
                let recovered = self.engine.recover(&failed).await?;
                failed.clear();
                for (id, chunk) in recovered {
                    if chunk.is_err() {
                        failed.push(id);
                    }
                    out.insert(id, chunk.map(Bytes::from).map_err(|why| lost(&id, why)));
                }
                if !failed.is_empty() {
                    self.engine.forget_faults();
                }
            }
        }
        Ok(out)
    }
}

fn lost(id: &ChunkId, why: String) -> StoreError {
    StoreError::LostChunk {
        id: id.to_string(),
        why,
    }
}
