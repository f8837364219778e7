//! Writing what was fetched, on all CPUs: chunks are opened, verified, and written in runs.

use super::batch::{Batch, Pieces};
use super::engine::Engine;
use super::plan::{OnBytes, PlannedBatch};
use crate::StoreError;
use crate::extents::Sink;
use rayon::prelude::*;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use vault_format::ChunkId;

/// Written at once where chunks lie side by side: a device takes 1 MiB at 1.7 GB/s, 256 KiB at 1.2.
const RUN_BYTES: usize = 1 << 20;

/// Chunks that lie side by side, to be written at once.
#[derive(Debug, Default)]
struct Run {
    offset: u64,
    bytes: Vec<u8>,
}

/// What all batches of a disk share.
pub(super) struct Writing {
    pub engine: Arc<Engine>,
    pub sink: Arc<dyn Sink>,
    pub disk: String,
    pub size_bytes: u64,
    pub chunk_bytes: u64,
    pub bytes_written: AtomicU64,
    pub progress: OnBytes,
}

impl Writing {
    /// Writes what can be written, and returns the jobs whose records are lost or damaged.
    pub fn write_batch(
        &self,
        planned: &PlannedBatch,
        pieces: &Pieces,
    ) -> Result<Vec<usize>, StoreError> {
        planned
            .zeroes
            .par_iter()
            .try_for_each(|range| self.write_zeroes(range))?;
        (self.progress)(planned.quiet_bytes);
        let batch: &Batch = &planned.batch;
        let jobs_at_once = (RUN_BYTES / self.chunk_bytes as usize).max(1);
        let next = AtomicUsize::new(0);
        // Handed out in order, so that a device with a head need not move it to and fro.
        let write = || {
            let mut failed = Vec::new();
            let mut run = Run {
                offset: 0,
                bytes: Vec::with_capacity(RUN_BYTES.max(self.chunk_bytes as usize)),
            };
            loop {
                let first = next.fetch_add(jobs_at_once, Relaxed);
                let Some(jobs) = batch.jobs.get(first..) else {
                    return Ok(failed);
                };
                for (i, job) in (first..).zip(jobs.iter().take(jobs_at_once)) {
                    match batch.build(job, pieces, &self.engine.keys, false) {
                        Ok(chunk) => self.write_chunk(&mut run, &chunk, &planned.positions[i])?,
                        Err(_) => failed.push(i),
                    }
                }
                self.write_run(&mut run)?;
            }
        };
        let failed: Result<Vec<Vec<usize>>, StoreError> =
            rayon::broadcast(|_| write()).into_iter().collect();
        let mut failed = failed?.concat();
        failed.sort_unstable();
        Ok(failed)
    }

    pub async fn write_recovered(
        &self,
        planned: &PlannedBatch,
        failed: Vec<usize>,
    ) -> Result<(), StoreError> {
        let ids: Vec<ChunkId> = failed.iter().map(|i| planned.batch.jobs[*i].id).collect();
        let mut chunks = self.engine.recover(&ids).await?;
        for i in failed {
            let (id, positions) = (planned.batch.jobs[i].id, &planned.positions[i]);
            let chunk = chunks
                .remove(&id)
                .unwrap_or_else(|| Err("it was not recovered".into()));
            let chunk = chunk.map_err(|why| lost_at(&id, &self.disk, positions[0], why))?;
            tokio::task::block_in_place(|| {
                let mut run = Run::default();
                self.write_chunk(&mut run, &chunk, positions)?;
                self.write_run(&mut run)
            })?;
        }
        Ok(())
    }

    /// Writes the chunk to all its positions, or puts it behind `run`.
    fn write_chunk(
        &self,
        run: &mut Run,
        chunk: &[u8],
        positions: &[u64],
    ) -> Result<(), StoreError> {
        for position in positions {
            let offset = position * self.chunk_bytes;
            let length = self
                .size_bytes
                .saturating_sub(offset)
                .min(chunk.len() as u64);
            let run_end = run.offset + run.bytes.len() as u64;
            if offset != run_end || run.bytes.len() >= RUN_BYTES {
                self.write_run(run)?;
                run.offset = offset;
            }
            run.bytes.extend_from_slice(&chunk[..length as usize]);
        }
        Ok(())
    }

    fn write_run(&self, run: &mut Run) -> Result<(), StoreError> {
        if run.bytes.is_empty() {
            return Ok(());
        }
        self.sink
            .write_at(run.offset, &run.bytes)
            .map_err(|e| self.sink_error(run.offset, &*e))?;
        let length = run.bytes.len() as u64;
        self.bytes_written.fetch_add(length, Relaxed);
        (self.progress)(length);
        run.bytes.clear();
        Ok(())
    }

    fn write_zeroes(&self, range: &Range<u64>) -> Result<(), StoreError> {
        self.sink
            .write_zeroes(range.start, range.end - range.start)
            .map_err(|e| self.sink_error(range.start, &*e))
    }

    fn sink_error(&self, offset: u64, cause: &dyn std::fmt::Display) -> StoreError {
        StoreError::Sink {
            disk: self.disk.clone(),
            offset,
            cause: cause.to_string(),
        }
    }
}

pub(super) fn lost_at(id: &ChunkId, disk: &str, position: u64, why: String) -> StoreError {
    StoreError::LostChunk {
        id: id.to_string(),
        why: format!("disk {disk}, position {position}: {why}"),
    }
}
