//! Going through a VM's disks: holes are skipped, chunks are judged on all CPUs in batches, records go to packs in order
//! of position.

use super::chunk_job::{ChunkJobs, Outcome};
use super::rows::{DiskRow, VmRow};
use super::uploads::{Uploads, chunk_row};
use super::values::Values;
use super::{DiskCapture, Gateway, PointReport, VmCapture};
use crate::StoreError;
use crate::extents::Extents;
use rayon::prelude::*;
use std::collections::{HashMap, HashSet};
use vault_format::layer::Slot;
use vault_format::{ChunkId, VmId};

/// Disk bytes judged at once: enough for all CPUs, little memory.
const BATCH_BYTES: u64 = 16 << 20;
/// Map changes kept in memory before they go to the state.
const DELTA_SLOTS: usize = 65_536;

/// Positions of one batch that may hold data, with the chunk that each had.
type Batch = Vec<(u64, Option<ChunkId>)>;

impl Gateway {
    /// Captures all disks. Returns their rows (layers as before; `publish` adds the new ones), the map numbers of disks
    /// that are gone, and what it came to.
    pub(super) async fn capture_vm(
        &mut self,
        vm: &VmCapture,
        vm_id: &VmId,
        progress: &(dyn Fn(u64) + Sync),
    ) -> Result<(Vec<DiskRow>, Vec<u32>, PointReport), StoreError> {
        let before = self.state.vm(vm_id)?;
        let mut report = PointReport::default();
        let mut uploads = Uploads::new();
        let captured = self
            .capture_disks(
                vm,
                vm_id,
                before.as_ref(),
                &mut uploads,
                &mut report,
                progress,
            )
            .await;
        if captured.is_err() {
            self.await_uploads(&mut uploads).await?;
        }
        let disks = captured?;
        let gone = |row: &&DiskRow| !disks.iter().any(|disk| disk.number == row.number);
        let dropped = before
            .iter()
            .flat_map(|vm| &vm.disks)
            .filter(gone)
            .map(|row| row.number)
            .collect();
        Ok((disks, dropped, report))
    }

    async fn capture_disks(
        &mut self,
        vm: &VmCapture,
        vm_id: &VmId,
        before: Option<&VmRow>,
        uploads: &mut Uploads,
        report: &mut PointReport,
        progress: &(dyn Fn(u64) + Sync),
    ) -> Result<Vec<DiskRow>, StoreError> {
        let mut disks = Vec::new();
        for disk in &vm.disks {
            let mut row = self.disk_row(vm_id, before, disk)?;
            if let Some(source) = &disk.source {
                self.capture_disk(vm, &mut row, &**source, uploads, report, progress)
                    .await?;
            }
            disks.push(row);
        }
        self.finish_uploads(uploads).await?;
        Ok(disks)
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

    async fn capture_disk(
        &mut self,
        vm: &VmCapture,
        row: &mut DiskRow,
        source: &dyn Extents,
        uploads: &mut Uploads,
        report: &mut PointReport,
        progress: &(dyn Fn(u64) + Sync),
    ) -> Result<(), StoreError> {
        let chunk_bytes = u64::from(self.key.chunk_bytes);
        let values = Values::open(self.state.directory(), row.number, self.key.chunk_bytes)?;
        let end = row.size_bytes.div_ceil(chunk_bytes);
        let failed = |offset: u64, cause: String| StoreError::Disk {
            vm: vm.name.clone(),
            disk: row.name.clone(),
            offset,
            cause,
        };
        let mut delta: Vec<(u64, Slot)> = Vec::new();
        let mut cursor = 0;
        while let Some((batch, holes, next)) = self
            .next_batch(row.number, source, cursor, end)
            .map_err(|e| failed(cursor * chunk_bytes, e))?
        {
            delta.extend(holes.iter().map(|position| (*position, Slot::Hole)));
            row.mapped = row.mapped.saturating_sub(holes.len() as u64);
            let outcomes = {
                let snapshot = self.state.snapshot()?;
                let jobs = ChunkJobs {
                    source,
                    size_bytes: row.size_bytes,
                    chunk_bytes: chunk_bytes as usize,
                    key: &self.key,
                    sealer: &self.sealer,
                    level: self.options.level,
                    snapshot: &snapshot,
                    filling: &uploads.filling,
                    values: &values,
                };
                let run = |(position, old): &(u64, Option<ChunkId>)| jobs.run(*position, *old);
                tokio::task::block_in_place(|| batch.par_iter().map(run).collect::<Vec<_>>())
            };
            // The batch was judged at once, so a chunk that occurs in it twice was sealed twice.
            let mut sealed = HashSet::new();
            for ((position, old), outcome) in batch.iter().zip(outcomes) {
                let outcome = outcome.map_err(|(offset, cause)| failed(offset, cause))?;
                report.chunks_read += 1;
                report.read_bytes += chunk_bytes.min(row.size_bytes - position * chunk_bytes);
                let slot = self.take_in(outcome, &mut sealed, uploads, report).await?;
                if let Some(slot) = slot.filter(|slot| Some(*slot) != old.map(Slot::Chunk)) {
                    count_mapped(&mut row.mapped, old.is_some(), slot);
                    delta.push((*position, slot));
                }
            }
            if delta.len() >= DELTA_SLOTS {
                self.state.add_delta(row.number, &delta)?;
                delta.clear();
            }
            progress(next.min(end) * chunk_bytes - cursor * chunk_bytes);
            cursor = next;
        }
        progress(row.size_bytes.saturating_sub(cursor * chunk_bytes));
        // A disk that shrank: what lay behind its end is gone.
        let behind = self.state.snapshot()?.mapped(row.number, end..u64::MAX)?;
        row.mapped = row.mapped.saturating_sub(behind.len() as u64);
        delta.extend(behind.iter().map(|(position, _)| (*position, Slot::Hole)));
        delta.sort_unstable_by_key(|(position, _)| *position);
        self.state.add_delta(row.number, &delta)
    }

    /// The slot that the position gets; `None` for no change.
    async fn take_in(
        &mut self,
        outcome: Outcome,
        sealed: &mut HashSet<ChunkId>,
        uploads: &mut Uploads,
        report: &mut PointReport,
    ) -> Result<Option<Slot>, StoreError> {
        match outcome {
            Outcome::Unchanged => Ok(None),
            Outcome::Hole => Ok(Some(Slot::Hole)),
            Outcome::Known(id) => {
                report.chunks_known += 1;
                Ok(Some(Slot::Chunk(id)))
            }
            Outcome::Stored { id, .. } if !sealed.insert(id) => {
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
                Ok(Some(Slot::Chunk(id)))
            }
        }
    }

    /// The next positions that need a look, from `cursor` on: those with data, and those that became holes (of the
    /// mapped ones). The last value is where to go on; `None` at the end.
    fn next_batch(
        &self,
        disk: u32,
        source: &dyn Extents,
        cursor: u64,
        end: u64,
    ) -> Result<Option<(Batch, Vec<u64>, u64)>, String> {
        let chunk_bytes = u64::from(self.key.chunk_bytes);
        let words = |e: StoreError| e.to_string();
        if cursor >= end {
            return Ok(None);
        }
        let snapshot = self.state.snapshot().map_err(words)?;
        let data = source
            .next_data(cursor * chunk_bytes)
            .map_err(|e| e.to_string())?;
        let data_begin = data
            .as_ref()
            .map(|range| (range.start / chunk_bytes).max(cursor));
        let mapped_begin = snapshot
            .next_mapped(disk, cursor)
            .map_err(words)?
            .filter(|position| *position < end);
        let Some(begin) = data_begin
            .into_iter()
            .chain(mapped_begin)
            .min()
            .filter(|begin| *begin < end)
        else {
            return Ok(None);
        };
        let next = (begin + (BATCH_BYTES / chunk_bytes).max(2)).min(end);
        let old: HashMap<u64, ChunkId> = snapshot
            .mapped(disk, begin..next)
            .map_err(words)?
            .into_iter()
            .collect();
        let mut batch = Batch::new();
        let mut range = data;
        while let Some(data) = range.filter(|data| data.start < next * chunk_bytes) {
            let first = batch
                .last()
                .map_or(begin, |(position, _)| position + 1)
                .max(data.start / chunk_bytes);
            let last = data.end.div_ceil(chunk_bytes).min(next);
            batch.extend((first..last).map(|position| (position, old.get(&position).copied())));
            // Whatever else lies in the last chunk's rest is read with it.
            let seen = last.max(first) * chunk_bytes;
            range = source
                .next_data(data.end.max(seen.min(source.size_bytes())))
                .map_err(|e| e.to_string())?;
        }
        let read: HashSet<u64> = batch.iter().map(|(position, _)| *position).collect();
        let mut holes: Vec<u64> = old
            .keys()
            .copied()
            .filter(|position| !read.contains(position))
            .collect();
        holes.sort_unstable();
        Ok(Some((batch, holes, next)))
    }
}

fn count_mapped(mapped: &mut u64, was_chunk: bool, slot: Slot) {
    match (was_chunk, slot) {
        (false, Slot::Chunk(_)) => *mapped += 1,
        (true, Slot::Hole) => *mapped = mapped.saturating_sub(1),
        _ => {}
    }
}
