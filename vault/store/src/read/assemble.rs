//! Assembling a disk: three stages at once. A task plans (map, index, old copy), tasks fetch, all CPUs open, verify and
//! write. What waits between the stages is bounded, so memory is too, whatever the disk's size.

use super::batch::{Batch, Pieces};
use super::disk_image::DiskImage;
use super::engine::Engine;
use super::packs::Grouping;
use super::plan::{DiskPlan, PlannedBatch};
use super::task::Task;
use super::{Point, Vault};
use crate::StoreError;
use crate::extents::{Extents, Sink};
use futures::{StreamExt, TryStreamExt, stream};
use rayon::prelude::*;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use tokio::sync::mpsc;
use vault_format::ChunkId;

/// Batches being fetched while one is written: each has up to 16 MiB of records.
const FETCHED_AHEAD: usize = 2;

/// Each holds a few chunks, which may have 4 MiB. More threads than CPUs, since two at a time wait for the device.
const MOST_THREADS: usize = 16;

/// Written at once where chunks lie side by side: a device takes 1 MiB at 1.7 GB/s, 256 KiB at 1.2.
const RUN_BYTES: usize = 1 << 20;

/// What assembling a disk came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AssembleReport {
    /// Positions that are no hole.
    pub chunks: u64,
    /// Positions written with chunks from the vault.
    pub chunks_fetched: u64,
    /// Positions that the old copy had already.
    pub chunks_kept: u64,
    pub bytes_written: u64,
    pub zeroed_bytes: u64,
}

/// Writes a disk to `sink`. `old` is the same disk as it is now, when it is assembled in place: chunks that it has are
/// not fetched, and holes are written only where it is not zero. `progress` is called with bytes of the disk done, from
/// several threads. Needs a multi-threaded tokio runtime.
pub async fn assemble(
    vault: &Vault,
    point: &Point,
    disk_name: &str,
    sink: Arc<dyn Sink>,
    old: Option<Arc<dyn Extents>>,
    progress: &(dyn Fn(u64) + Sync),
) -> Result<AssembleReport, StoreError> {
    let image = DiskImage::open(vault, point, disk_name).await?;
    let writing = Writing {
        engine: image.engine.clone(),
        sink,
        disk: disk_name.to_owned(),
        size_bytes: image.size_bytes(),
        chunk_bytes: u64::from(image.chunk_bytes()),
        bytes_written: AtomicU64::new(0),
        progress,
    };
    let workers = rayon::ThreadPoolBuilder::new()
        .num_threads((2 * rayon::current_num_threads()).min(MOST_THREADS))
        .build()
        .map_err(|e| StoreError::Other(format!("threads cannot be started: {e}")))?;
    let mut report = AssembleReport::default();
    let (to_fetch, planned) = mpsc::channel(1);
    let plan = DiskPlan::new(image, old, &point.manifest.facts.vm, disk_name);
    let planning = Task::spawn(plan.run(to_fetch));
    let engine = writing.engine.clone();
    let fetch = |planned: PlannedBatch| {
        let engine = engine.clone();
        Task::spawn(async move {
            let pieces = engine.fetch(&planned.batch, Grouping::Together).await?;
            Ok((planned, pieces))
        })
    };
    let planned = stream::unfold(planned, |mut planned| async {
        Some((planned.recv().await?, planned))
    });
    let mut fetched = Box::pin(planned.map(fetch).buffered(FETCHED_AHEAD + 1));
    while let Some((planned, pieces)) = fetched.try_next().await? {
        let failed = tokio::task::block_in_place(|| {
            workers.install(|| writing.write_batch(&planned, &pieces))
        })?;
        drop(pieces);
        writing.write_recovered(&planned, failed).await?;
        report.chunks += planned.chunks;
        report.chunks_kept += planned.kept;
        report.chunks_fetched += planned
            .positions
            .iter()
            .map(|p| p.len() as u64)
            .sum::<u64>();
        report.zeroed_bytes += planned.zeroes.iter().map(|r| r.end - r.start).sum::<u64>();
    }
    planning.await?;
    report.bytes_written = writing.bytes_written.into_inner();
    Ok(report)
}

/// Chunks that lie side by side, to be written at once.
#[derive(Debug, Default)]
struct Run {
    offset: u64,
    bytes: Vec<u8>,
}

/// What all batches of a disk share.
struct Writing<'a> {
    engine: Arc<Engine>,
    sink: Arc<dyn Sink>,
    disk: String,
    size_bytes: u64,
    chunk_bytes: u64,
    bytes_written: AtomicU64,
    progress: &'a (dyn Fn(u64) + Sync),
}

impl Writing<'_> {
    /// Writes what can be written, and returns the jobs whose records are lost or damaged.
    fn write_batch(
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

    async fn write_recovered(
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
