//! Going through a VM's disks: holes are skipped, chunks are judged on all CPUs in batches, records go to packs in order
//! of position.

use super::batches::{Batch, Batches, NextError, chunks_of_batch};
use super::chunk_job::{ChunkJobs, Judged, Outcome};
use super::rows::{DiskRow, VmRow};
use super::uploads::{Uploads, chunk_row};
use super::values::Values;
use super::{DiskCapture, Gateway, PointReport};
use crate::StoreError;
use crate::buffers::Buffers;
use crate::extents::Extents;
use std::sync::Arc;
use tokio::task::JoinHandle;
use vault_format::VmId;
use vault_format::layer::Slot;
use vault_format::manifest::Consistency;
use vault_format::record::RECORD_OVERHEAD;

/// Map changes kept in memory before they go to the state.
const DELTA_SLOTS: usize = 65_536;

type JudgedBatch = (Batch, Vec<Judged>);

/// A batch being judged.
struct Judging(Option<JoinHandle<Result<JudgedBatch, (u64, String)>>>);

impl Judging {
    fn start(jobs: ChunkJobs, batch: Batch) -> Self {
        Judging(Some(tokio::task::spawn_blocking(move || {
            let judged = jobs.run(&batch.positions)?;
            Ok((batch, judged))
        })))
    }

    async fn end(mut self) -> Result<JudgedBatch, (u64, String)> {
        match &mut self.0 {
            Some(task) => {
                let ended = task.await;
                self.0 = None;
                ended.unwrap_or_else(|e| std::panic::resume_unwind(e.into_panic()))
            }
            None => unreachable!("it ends once"),
        }
    }
}

/// A capture that is given up waits for it: until it has ended, the disk is open.
impl Drop for Judging {
    fn drop(&mut self) {
        if let Some(task) = self.0.take() {
            let wait = || tokio::runtime::Handle::current().block_on(task);
            drop(tokio::task::block_in_place(wait));
        }
    }
}

/// What one disk's batches are taken into.
struct Intake<'a> {
    row: &'a mut DiskRow,
    report: &'a mut PointReport,
    values: Arc<Values>,
    records: Buffers,
    delta: Vec<(u64, Slot)>,
}

impl Intake<'_> {
    fn unmap(&mut self, positions: impl ExactSizeIterator<Item = u64>) {
        self.row.mapped = self.row.mapped.saturating_sub(positions.len() as u64);
        self.delta
            .extend(positions.map(|position| (position, Slot::Hole)));
    }
}

/// Disks that were read and whose packs have arrived.
pub(super) struct Captured {
    /// Layers as before; `publish` adds the new ones.
    pub disks: Vec<DiskRow>,
    /// Map numbers of disks that are gone.
    pub dropped_disks: Vec<u32>,
    pub consistency: Consistency,
}

impl Gateway {
    pub(super) async fn capture_vm(
        &mut self,
        vm: &str,
        disks: Vec<DiskCapture>,
        vm_id: &VmId,
        progress: &(dyn Fn(u64) + Sync),
        after_reading: impl AsyncFnOnce() -> Consistency,
    ) -> Result<(Captured, PointReport), StoreError> {
        let before = self.state.vm(vm_id)?;
        let mut report = PointReport::default();
        let mut uploads = Uploads::new();
        let mut rows = Vec::new();
        let mut read = Ok(());
        for disk in &disks {
            match self.disk_row(vm_id, before.as_ref(), disk) {
                Ok(row) => rows.push(row),
                Err(e) => read = Err(e),
            }
            if let (Ok(()), Some(source), Some(row)) = (&read, &disk.source, rows.last_mut()) {
                read = self
                    .capture_disk(vm, row, source, &mut uploads, &mut report, progress)
                    .await;
            }
            if read.is_err() {
                break;
            }
        }
        // Closing a disk may wait for a qemu-nbd to end.
        tokio::task::block_in_place(|| drop(disks));
        let consistency = after_reading().await;
        let sent = match read {
            Ok(()) => self.finish_uploads(&mut uploads).await,
            Err(e) => Err(e),
        };
        if let Err(e) = sent {
            self.await_uploads(&mut uploads).await?;
            return Err(e);
        }
        let gone = |row: &&DiskRow| !rows.iter().any(|disk| disk.number == row.number);
        let dropped_disks = before
            .iter()
            .flat_map(|vm| &vm.disks)
            .filter(gone)
            .map(|row| row.number)
            .collect();
        let captured = Captured {
            disks: rows,
            dropped_disks,
            consistency,
        };
        Ok((captured, report))
    }

    fn disk_row(
        &mut self,
        vm_id: &VmId,
        before: Option<&VmRow>,
        disk: &DiskCapture,
    ) -> Result<DiskRow, StoreError> {
        let excluded = disk.source.is_none();
        let known = before.and_then(|vm| {
            vm.disks
                .iter()
                .find(|row| row.name == disk.name && row.excluded == excluded)
        });
        let was_there = before.is_some_and(|vm| vm.disks.iter().any(|row| row.name == disk.name));
        match known {
            Some(row) => Ok(DiskRow {
                size_bytes: disk.size_bytes,
                ..row.clone()
            }),
            None => Ok(DiskRow {
                name: disk.name.clone(),
                // A disk that was excluded before, or is now, begins anew: its old map says nothing about its layers.
                number: self.state.disk_number(vm_id, &disk.name, was_there)?,
                size_bytes: disk.size_bytes,
                excluded,
                layers: Vec::new(),
                mapped: 0,
            }),
        }
    }

    /// A batch is judged on all CPUs while the one before goes into packs and the state.
    async fn capture_disk(
        &mut self,
        vm: &str,
        row: &mut DiskRow,
        source: &Arc<dyn Extents>,
        uploads: &mut Uploads,
        report: &mut PointReport,
        progress: &(dyn Fn(u64) + Sync),
    ) -> Result<(), StoreError> {
        let (name, size_bytes) = (row.name.clone(), row.size_bytes);
        let failed = |offset: u64, cause: String| StoreError::Disk {
            vm: vm.to_owned(),
            disk: name.clone(),
            offset,
            cause,
        };
        let chunk_bytes = u64::from(self.key.chunk_bytes);
        let values = Values::open(self.state.directory(), row.number, self.key.chunk_bytes)?;
        let values = Arc::new(values);
        let record_bytes = self.key.chunk_bytes as usize + RECORD_OVERHEAD;
        let records = Buffers::new(2 * chunks_of_batch(chunk_bytes), record_bytes);
        let mut batches = Batches::new(source.clone(), row.number, size_bytes, chunk_bytes);
        let mut intake = Intake {
            row,
            report,
            values: values.clone(),
            records: records.clone(),
            delta: Vec::new(),
        };
        let (mut before, mut done): (Option<JudgedBatch>, u64) = (None, 0);
        loop {
            let snapshot = self.state.snapshot()?;
            uploads.next_snapshot();
            let next = batches.next(&snapshot).map_err(|e| match e {
                NextError::State(e) => e,
                NextError::Disk(cause) => failed(batches.cursor() * chunk_bytes, cause.to_string()),
            });
            let judging = next.map(|next| {
                let batch = next?;
                let jobs = ChunkJobs {
                    source: source.clone(),
                    size_bytes,
                    chunk_bytes: chunk_bytes as usize,
                    key: self.key.clone(),
                    sealer: self.sealer.clone(),
                    level: self.options.level,
                    snapshot,
                    filling: uploads.filling(),
                    values: values.clone(),
                    records: records.clone(),
                };
                Some(Judging::start(jobs, batch))
            });
            let taken = match before {
                Some(batch) => self.take_in_batch(&mut intake, batch, uploads).await,
                None => Ok(done),
            };
            let judged = match judging? {
                Some(judging) => Some(judging.end().await),
                None => None,
            };
            let end = (taken? * chunk_bytes).min(size_bytes);
            progress(end - done);
            done = end;
            before = match judged {
                None => break,
                Some(Ok(judged)) => Some(judged),
                Some(Err((offset, cause))) => return Err(failed(offset, cause)),
            };
        }
        progress(size_bytes - done);
        // A disk that shrank: what lay behind its end is gone.
        let behind = size_bytes.div_ceil(chunk_bytes)..u64::MAX;
        let behind = self.state.snapshot()?.mapped(intake.row.number, behind)?;
        intake.unmap(behind.iter().map(|(position, _)| *position));
        intake.delta.sort_unstable_by_key(|(position, _)| *position);
        self.state.add_delta(intake.row.number, &intake.delta)
    }

    /// Returns the position up to which the disk is done.
    async fn take_in_batch(
        &mut self,
        intake: &mut Intake<'_>,
        (batch, judged): JudgedBatch,
        uploads: &mut Uploads,
    ) -> Result<u64, StoreError> {
        let chunk_bytes = u64::from(self.key.chunk_bytes);
        intake.unmap(batch.holes.iter().copied());
        let mut rows = Vec::new();
        for ((position, old), judged) in batch.positions.iter().zip(judged) {
            let size = intake.row.size_bytes;
            intake.report.chunks_read += 1;
            intake.report.read_bytes += chunk_bytes.min(size - position * chunk_bytes);
            rows.extend(judged.values.map(|values| (*position, values)));
            let slot = self.take_in(judged.outcome, uploads, intake).await?;
            if let Some(slot) = slot.filter(|slot| Some(*slot) != old.map(Slot::Chunk)) {
                count_mapped(&mut intake.row.mapped, old.is_some(), slot);
                intake.delta.push((*position, slot));
            }
        }
        // After the records, which are patches of what the rows say so far.
        intake.values.write(&rows)?;
        if intake.delta.len() >= DELTA_SLOTS {
            self.state.add_delta(intake.row.number, &intake.delta)?;
            intake.delta.clear();
        }
        Ok(batch.end)
    }

    /// The slot that the position gets; `None` for no change.
    async fn take_in(
        &mut self,
        outcome: Outcome,
        uploads: &mut Uploads,
        intake: &mut Intake<'_>,
    ) -> Result<Option<Slot>, StoreError> {
        let report = &mut *intake.report;
        match outcome {
            Outcome::Unchanged => Ok(None),
            Outcome::Hole => Ok(Some(Slot::Hole)),
            Outcome::Known(id) => {
                report.chunks_known += 1;
                Ok(Some(Slot::Chunk(id)))
            }
            // Two chunks that were judged at once may be the same one.
            Outcome::Stored { id, .. } if uploads.has(&id) => {
                report.chunks_known += 1;
                Ok(Some(Slot::Chunk(id)))
            }
            Outcome::Stored {
                id,
                kind,
                mask,
                record,
                changed_bytes,
            } => {
                match kind.depth() {
                    0 => report.chunks_full += 1,
                    _ => report.chunks_patched += 1,
                }
                report.changed_bytes += changed_bytes;
                report.stored_bytes += record.len() as u64;
                let row = chunk_row(kind, record.len(), mask);
                self.add_record(uploads, id, row, &record).await?;
                intake.records.give(record);
                Ok(Some(Slot::Chunk(id)))
            }
        }
    }
}

fn count_mapped(mapped: &mut u64, was_chunk: bool, slot: Slot) {
    match (was_chunk, slot) {
        (false, Slot::Chunk(_)) => *mapped += 1,
        (true, Slot::Hole) => *mapped = mapped.saturating_sub(1),
        _ => {}
    }
}
