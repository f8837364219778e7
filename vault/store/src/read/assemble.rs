//! Assembling disks of a recovery point, side by side. Each goes through three stages at once: a task plans (map, index),
//! tasks fetch, all CPUs open, verify and write. What waits between the stages is bounded over all disks (`limits`).
//!
//! A disk that is written over an old copy is compared first, in a pass of its own: so it is known, before anything is
//! written, what will be fetched.

use super::disk_image::{DiskImage, engine_for};
use super::engine::Engine;
use super::limits::Limits;
use super::packs::Grouping;
use super::plan::{DiskPlan, OnBytes, PlannedBatch};
use super::task::Task;
use super::writing::Writing;
use super::{Point, Vault};
use crate::StoreError;
use crate::extents::{Extents, Sink};
use futures::{StreamExt, TryStreamExt, stream};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use tokio::sync::{OwnedSemaphorePermit, mpsc};

/// Batches of one disk being fetched while one is written: each has up to 16 MiB of records.
pub(super) const FETCHED_AHEAD: usize = 2;

/// Planned records of a comparison that are kept for the writing: 8 GiB that changed, 5 MB here. With more, the index is
/// asked again, which costs little of such a fetch.
const KEPT_RECORDS: usize = 32 * 1024;

/// What a comparison found, or what a new disk needs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Survey {
    /// Positions that are no hole.
    pub chunks: u64,
    /// Positions that will be written with chunks from the vault.
    pub chunks_to_fetch: u64,
    /// Positions that are there already.
    pub chunks_kept: u64,
    /// Of the records that will be fetched, compressed, as the index tells; requests have a little besides.
    pub bytes_to_fetch: u64,
    pub bytes_to_zero: u64,
}

/// What assembling a disk came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AssembleReport {
    /// Positions that are no hole.
    pub chunks: u64,
    /// Positions written with chunks from the vault.
    pub chunks_fetched: u64,
    /// Positions that the old copy had already.
    pub chunks_kept: u64,
    /// Of the records fetched, as [`Survey::bytes_to_fetch`] counts them.
    pub record_bytes: u64,
    pub bytes_written: u64,
    pub zeroed_bytes: u64,
}

/// A recovery point whose disks are assembled. Needs a multi-threaded tokio runtime.
pub struct Assembly<'v> {
    vault: &'v Vault,
    point: &'v Point,
    engine: Arc<Engine>,
    limits: Arc<Limits>,
}

impl<'v> Assembly<'v> {
    pub async fn open(vault: &'v Vault, point: &'v Point) -> Result<Self, StoreError> {
        Ok(Assembly {
            vault,
            point,
            engine: Arc::new(engine_for(vault, &point.manifest).await?),
            limits: Arc::new(Limits::new()?),
        })
    }

    /// One of the point's disks. It stands for itself, so that a task of its own can have it: two disks in one task would
    /// wait for each other.
    pub async fn disk(&self, name: &str) -> Result<DiskAssembly, StoreError> {
        let engine = self.engine.clone();
        let image = DiskImage::with(engine, self.vault, self.point, name).await?;
        Ok(DiskAssembly {
            plan: DiskPlan::new(image, &self.point.manifest.facts.vm, name),
            limits: self.limits.clone(),
            disk: name.to_owned(),
            kept: None,
        })
    }
}

/// One disk on its way.
pub struct DiskAssembly {
    plan: DiskPlan,
    limits: Arc<Limits>,
    disk: String,
    /// What the survey planned, where it is little.
    kept: Option<Vec<PlannedBatch>>,
}

impl DiskAssembly {
    /// Finds out what is to be fetched, and writes nothing. `old` is the same disk as it is now, in one format or several,
    /// when it is written over: chunks that it has are not fetched, and holes are written only where it is not zero; it
    /// must not change until the end. `progress` is called with bytes of the disk compared.
    pub async fn survey(
        &mut self,
        old: Vec<Arc<dyn Extents>>,
        progress: OnBytes,
    ) -> Result<Survey, StoreError> {
        if !old.is_empty() {
            self.plan.begin_comparing(old, progress);
        }
        let (out, mut planned) = mpsc::channel::<PlannedBatch>(1);
        let mut survey = Survey::default();
        let (mut kept, mut records) = (Some(Vec::new()), 0);
        let add = async {
            while let Some(batch) = planned.recv().await {
                survey.chunks += batch.chunks;
                survey.chunks_kept += batch.kept;
                survey.chunks_to_fetch += batch.fetched();
                survey.bytes_to_fetch += batch.record_bytes();
                survey.bytes_to_zero += batch.zeroed_bytes();
                records += 1 + batch.batch.records.len() + batch.zeroes.len();
                match &mut kept {
                    Some(all) if records <= KEPT_RECORDS => all.push(batch),
                    _ => kept = None,
                }
            }
        };
        let (ran, ()) = futures::join!(self.plan.run(out), add);
        ran?;
        self.plan.end_comparing();
        self.kept = kept;
        Ok(survey)
    }

    /// Writes the disk to `sink`. `progress` is called with bytes of the disk done, from several threads.
    pub async fn write(
        self,
        sink: Arc<dyn Sink>,
        progress: OnBytes,
    ) -> Result<AssembleReport, StoreError> {
        let image = self.plan.image();
        let engine = image.engine.clone();
        let writing = Writing {
            engine: engine.clone(),
            sink,
            disk: self.disk,
            size_bytes: image.size_bytes(),
            chunk_bytes: u64::from(image.chunk_bytes()),
            bytes_written: AtomicU64::new(0),
            progress,
        };
        let (to_fetch, planned) = mpsc::channel(1);
        let (mut plan, kept) = (self.plan, self.kept);
        let planning = Task::spawn(async move {
            let Some(kept) = kept else {
                return plan.run(to_fetch).await;
            };
            for batch in kept {
                if to_fetch.send(batch).await.is_err() {
                    break;
                }
            }
            Ok(())
        });
        let limits = self.limits;
        // In order, and before the fetch is begun: the first batch that a disk waits for always has its place, so disks
        // that share the places cannot wait for each other.
        let planned = stream::unfold(
            (planned, limits.batches.clone()),
            |(mut planned, places)| async {
                let batch: PlannedBatch = planned.recv().await?;
                let place = places.clone().acquire_owned().await.ok()?;
                Some(((batch, place), (planned, places)))
            },
        );
        let fetch = |(planned, place): (PlannedBatch, OwnedSemaphorePermit)| {
            let engine = engine.clone();
            Task::spawn(async move {
                let pieces = engine.fetch(&planned.batch, Grouping::Together).await?;
                Ok((planned, pieces, place))
            })
        };
        let mut fetched = Box::pin(planned.map(fetch).buffered(FETCHED_AHEAD + 1));
        let mut report = AssembleReport::default();
        while let Some((planned, pieces, place)) = fetched.try_next().await? {
            let write = || writing.write_batch(&planned, &pieces);
            let failed = tokio::task::block_in_place(|| limits.workers.install(write))?;
            drop((pieces, place));
            writing.write_recovered(&planned, failed).await?;
            report.chunks += planned.chunks;
            report.chunks_kept += planned.kept;
            report.chunks_fetched += planned.fetched();
            report.record_bytes += planned.record_bytes();
            report.zeroed_bytes += planned.zeroed_bytes();
        }
        planning.await?;
        report.bytes_written = writing.bytes_written.into_inner();
        Ok(report)
    }
}
