//! Going through a VM's disks: holes are skipped, chunks are judged on all CPUs in batches, records go to packs in order
//! of position, and what changed goes into the VM's draft, which becomes a point at the end.

use super::batches::{Batch, Batches, NextError, chunks_of_batch};
use super::chunk_job::{ChunkJobs, Judged, Outcome};
use super::draft::Draft;
use super::packing::{Packing, chunk_row};
use super::rows::{DiskRow, PointFacts};
use super::state_map::Change;
use super::values::Values;
use super::{DiskCapture, Gateway, Hold, PassEnd, PointReport, VmCapture};
use crate::StoreError;
use crate::buffers::Buffers;
use crate::extents::Extents;
use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::task::JoinHandle;
use vault_format::block_values::of_chunk;
use vault_format::ids::CaptureId;
use vault_format::layer::Slot;
use vault_format::manifest::Consistency;
use vault_format::record::RECORD_OVERHEAD;

type JudgedBatch = (Batch, Vec<Judged>);

/// A batch being judged.
struct Judging(Option<JoinHandle<Result<JudgedBatch, (u64, String)>>>);

impl Judging {
    fn start(jobs: ChunkJobs, mut batch: Batch) -> Self {
        Judging(Some(tokio::task::spawn_blocking(move || {
            let began = Instant::now();
            let judged = jobs.run(&batch.looks)?;
            batch.took = began.elapsed();
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

/// How the disks of a capture are gone through.
struct Reading<'r> {
    vm: &'r str,
    /// Packs of which it knows nothing.
    unheeded: Arc<HashSet<u64>>,
    /// The pass that this is, if it is one, and when it stops for now.
    pass: Option<(CaptureId, Instant)>,
    /// How long a disk may be read for what is not said to have changed; `None` if nobody waits.
    scrub_time: Option<Duration>,
    progress: &'r (dyn Fn(u64) + Sync),
}

/// What one disk's batches are taken into.
struct Intake<'a> {
    draft: &'a mut Draft,
    /// Index in the draft's disks.
    disk: usize,
    report: &'a mut PointReport,
    values: Arc<Values>,
    records: Buffers,
    surprises: u64,
}

impl Intake<'_> {
    fn row(&mut self) -> &mut DiskRow {
        &mut self.draft.row.disks[self.disk]
    }
}

impl Gateway {
    pub(super) async fn capture_vm(
        &mut self,
        vm: VmCapture,
        hold: Hold,
        progress: &(dyn Fn(u64) + Sync),
        after_reading: impl AsyncFnOnce() -> Consistency,
    ) -> Result<PointReport, StoreError> {
        let mut report = PointReport::default();
        let mut draft = self.shared.open_draft(&vm, (hold, false), &mut report)?;
        let mut packing = Packing::new(draft.ordinal, (hold, false));
        let reading = Reading {
            vm: &vm.name,
            unheeded: self.shared.unheeded_packs(&draft)?,
            pass: None,
            scrub_time: (hold != Hold::Nothing).then(|| self.scrub_time.next(vm.captured_at)),
            progress,
        };
        let read = self
            .read_disks(&reading, &vm.disks, &mut draft, &mut packing, &mut report)
            .await;
        draft.row.cost += report.bytes();
        // Closing a disk may wait for a qemu-nbd to end.
        tokio::task::block_in_place(|| drop(vm.disks));
        let consistency = after_reading().await;
        self.end_reading(read.map(drop), &mut packing, &draft)
            .await?;
        let header = self.shared.state.header();
        draft.row.point = Some(PointFacts {
            capture: vm.id,
            captured_at: vm.captured_at.to_string(),
            consistency,
            software: vm.software,
            hardware: vm.hardware,
            bytes: draft.row.cost,
            log: header.heeded_log(),
            fence: header.log.fence(&draft.row.vm_id).map(|fence| fence.number),
        });
        (draft.row.pass, draft.row.under_way) = (None, None);
        let chunk_bytes = u64::from(self.shared.key.chunk_bytes);
        let now = vm.captured_at.as_second();
        draft.end_scrubs(now, (chunk_bytes, false), &mut report);
        report.superseded = self.shared.commit_draft(&mut draft)?;
        Ok(report)
    }

    pub(super) async fn pass_vm(
        &mut self,
        vm: VmCapture,
        (hold, until): (Hold, Instant),
        progress: &(dyn Fn(u64) + Sync),
    ) -> Result<(PointReport, PassEnd), StoreError> {
        let mut report = PointReport::default();
        let mut draft = self.shared.open_draft(&vm, (hold, true), &mut report)?;
        let mut packing = Packing::new(draft.ordinal, (hold, true));
        let reading = Reading {
            vm: &vm.name,
            unheeded: self.shared.unheeded_packs(&draft)?,
            pass: Some((vm.id, until)),
            scrub_time: None,
            progress,
        };
        let read = self
            .read_disks(&reading, &vm.disks, &mut draft, &mut packing, &mut report)
            .await;
        draft.row.cost += report.bytes();
        tokio::task::block_in_place(|| drop(vm.disks));
        let ended = *read.as_ref().unwrap_or(&false);
        let end = self.end_reading(read.map(drop), &mut packing, &draft).await;
        if let Err(StoreError::OutboxFull { most_bytes }) = end {
            return Ok((report, PassEnd::NoRoom { most_bytes }));
        }
        end?;
        if !ended {
            return Ok((report, PassEnd::Stopped));
        }
        (draft.row.pass, draft.row.under_way) = (Some(vm.id), None);
        let chunk_bytes = u64::from(self.shared.key.chunk_bytes);
        let now = vm.captured_at.as_second();
        draft.end_scrubs(now, (chunk_bytes, true), &mut report);
        self.shared.state.end_pass(draft.ordinal, &draft.row)?;
        Ok((report, PassEnd::Whole))
    }

    /// Ends the packs, and notes what is still to be noted. What was read before the disk failed stays; where it is the
    /// store, the outbox or the state that failed, what it had not taken yet is read again.
    async fn end_reading(
        &mut self,
        read: Result<(), StoreError>,
        packing: &mut Packing,
        draft: &Draft,
    ) -> Result<(), StoreError> {
        let ended = match &read {
            Ok(()) | Err(StoreError::Disk { .. }) => self.finish_packing(packing, &draft.row).await,
            Err(_) => Ok(()),
        };
        let ended = read.and(ended);
        if ended.is_err() {
            self.await_packing(packing).await?;
        }
        if matches!(ended, Err(StoreError::OutboxFull { .. })) {
            self.shared.end_without_room(draft)?;
        }
        ended
    }

    /// False if a pass stopped on the way.
    async fn read_disks(
        &mut self,
        reading: &Reading<'_>,
        disks: &[DiskCapture],
        draft: &mut Draft,
        packing: &mut Packing,
        report: &mut PointReport,
    ) -> Result<bool, StoreError> {
        let from = draft.resumes_at(reading.pass.map(|(id, _)| id));
        for (number, disk) in disks.iter().enumerate() {
            let Some(source) = &disk.source else { continue };
            let from = match from {
                Some((first, _)) if number < first => continue,
                Some((first, position)) if number == first => position,
                _ => 0,
            };
            let ended = self
                .read_disk(
                    reading,
                    (number, disk, source),
                    from,
                    draft,
                    packing,
                    report,
                )
                .await?;
            if !ended {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// A batch is judged on all CPUs while the one before goes into packs and the state.
    async fn read_disk(
        &mut self,
        reading: &Reading<'_>,
        (number, disk, source): (usize, &DiskCapture, &Arc<dyn Extents>),
        from: u64,
        draft: &mut Draft,
        packing: &mut Packing,
        report: &mut PointReport,
    ) -> Result<bool, StoreError> {
        let shared = self.shared.clone();
        let failed = |offset: u64, cause: String| StoreError::Disk {
            vm: reading.vm.to_owned(),
            disk: disk.name.clone(),
            offset,
            cause,
        };
        let chunk_bytes = u64::from(shared.key.chunk_bytes);
        let (size_bytes, map) = (disk.size_bytes, draft.row.disks[number].number);
        let values = Values::open(shared.state.directory(), map, shared.key.chunk_bytes)?;
        let values = Arc::new(values);
        let zeros = vec![0; shared.key.chunk_bytes as usize];
        let zero_values: Arc<[_]> = of_chunk(&shared.key.id_key, &zeros).into();
        let record_bytes = shared.key.chunk_bytes as usize + RECORD_OVERHEAD;
        let records = Buffers::new(2 * chunks_of_batch(chunk_bytes), record_bytes);
        let known = std::mem::take(&mut draft.known[number]);
        let sizes = (size_bytes, chunk_bytes);
        let mut batches = Batches::new(source.clone(), map, sizes, from, known);
        let mut intake = Intake {
            draft,
            disk: number,
            report,
            values: values.clone(),
            records: records.clone(),
            surprises: 0,
        };
        let mut done = (from * chunk_bytes).min(size_bytes);
        (reading.progress)(done);
        let (mut before, mut ended): (Option<JudgedBatch>, bool) = (None, true);
        let mut scrub_time = reading.scrub_time;
        loop {
            let snapshot = shared.state.snapshot()?;
            let waiting = shared.waiting_packs()?.into_keys().collect();
            packing.next_snapshot();
            let stops = reading
                .pass
                .is_some_and(|(_, until)| Instant::now() >= until);
            ended &= !stops;
            let next = match stops {
                true => Ok(None),
                false => batches.next(&snapshot).map_err(|e| match e {
                    NextError::State(e) => e,
                    NextError::Disk(cause) => {
                        failed(batches.cursor() * chunk_bytes, cause.to_string())
                    }
                }),
            };
            let judging = next.map(|next| {
                let batch = next?;
                let jobs = ChunkJobs {
                    source: source.clone(),
                    size_bytes,
                    chunk_bytes: chunk_bytes as usize,
                    key: shared.key.clone(),
                    sealer: self.sealer.clone(),
                    level: shared.options.level,
                    snapshot,
                    filling: packing.filling(),
                    waiting,
                    unheeded: reading.unheeded.clone(),
                    values: values.clone(),
                    zero_values: zero_values.clone(),
                    records: records.clone(),
                };
                Some(Judging::start(jobs, batch))
            });
            let taken = match before {
                Some(batch) => Some(self.take_in_batch(&mut intake, batch, packing).await),
                None => None,
            };
            let judged = match judging? {
                Some(judging) => Some(judging.end().await),
                None => None,
            };
            if let Some(end) = taken.transpose()? {
                if let Some((id, _)) = reading.pass {
                    intake.draft.row.under_way = Some((id, map, end));
                }
                let end = (end * chunk_bytes).min(size_bytes);
                (reading.progress)(end - done);
                done = end;
            }
            before = match judged {
                None => break,
                Some(Ok(judged)) => {
                    let batch = &judged.0;
                    if let Some(left) = scrub_time.as_mut().filter(|_| batch.is_scrub) {
                        *left = left.saturating_sub(batch.took);
                        if left.is_zero() {
                            batches.stop_scrub();
                        }
                    }
                    Some(judged)
                }
                Some(Err((offset, cause))) => return Err(failed(offset, cause)),
            };
        }
        if !ended {
            return Ok(false);
        }
        if let Some(scrub) = &mut intake.draft.scrubs[number] {
            *scrub = batches.scrub();
        }
        (reading.progress)(size_bytes - done);
        if intake.surprises > 0 && reading.pass.is_none() {
            let surprises = intake.surprises;
            intake.report.findings.push(lied(&disk.name, surprises));
        }
        // A disk that shrank: what lay behind its end is gone.
        let behind = size_bytes.div_ceil(chunk_bytes)..u64::MAX;
        for (position, _) in shared.state.snapshot()?.mapped(map, behind)? {
            unmap(&mut intake, packing, position, true);
        }
        Ok(true)
    }

    /// Returns the position up to which the disk is done.
    async fn take_in_batch(
        &mut self,
        intake: &mut Intake<'_>,
        (batch, judged): JudgedBatch,
        packing: &mut Packing,
    ) -> Result<u64, StoreError> {
        for (position, was_mapped) in &batch.holes {
            unmap(intake, packing, *position, *was_mapped);
        }
        let (map, values) = (intake.row().number, intake.values.clone());
        for (look, judged) in batch.looks.iter().zip(judged) {
            intake.report.chunks_read += 1;
            intake.report.read_bytes += judged.read_bytes;
            if let Some(row) = judged.values {
                packing.values(map, &values, (look.position, row));
            }
            intake.draft.add_needs(&judged.needs);
            let slot = self.take_in(judged.outcome, &judged.needs, packing, intake);
            let old = look.old.map_or(Slot::Hole, Slot::Chunk);
            let is_news = slot.is_some_and(|slot| slot != old);
            intake.surprises += u64::from(judged.is_surprise || (look.is_scrub && is_news));
            if let Some(slot) = slot.filter(|_| is_news || look.base.is_some()) {
                count_mapped(&mut intake.row().mapped, look.old.is_some(), slot);
                let before = look.base.as_ref().map(|base| base.blocks.as_ref());
                let blocks = match before {
                    None => judged.changed,
                    Some(before) => before.zip(judged.changed.as_ref()).map(|(a, b)| a.union(b)),
                };
                packing.change(map, (look.position, Change { slot, blocks }));
            }
            self.end_due_pack(packing, &intake.draft.row).await?;
        }
        Ok(batch.end)
    }

    /// The slot that the position gets; `None` for no change.
    fn take_in(
        &mut self,
        outcome: Outcome,
        needs: &[u64],
        packing: &mut Packing,
        intake: &mut Intake<'_>,
    ) -> Option<Slot> {
        let report = &mut *intake.report;
        match outcome {
            Outcome::Unchanged => None,
            Outcome::Hole => Some(Slot::Hole),
            Outcome::Known(id) => {
                report.chunks_known += 1;
                Some(Slot::Chunk(id))
            }
            // Two chunks that were judged at once may be the same one.
            Outcome::Stored { id, .. } if packing.has(&id) => {
                report.chunks_known += 1;
                Some(Slot::Chunk(id))
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
                self.add_record(packing, (id, row), &record, needs);
                intake.records.give(record);
                Some(Slot::Chunk(id))
            }
        }
    }
}

fn unmap(intake: &mut Intake<'_>, packing: &mut Packing, position: u64, was_mapped: bool) {
    let row = intake.row();
    row.mapped = row.mapped.saturating_sub(u64::from(was_mapped));
    let hole = Change {
        slot: Slot::Hole,
        blocks: None,
    };
    packing.change(row.number, (position, hole));
}

fn count_mapped(mapped: &mut u64, was_chunk: bool, slot: Slot) {
    match (was_chunk, slot) {
        (false, Slot::Chunk(_)) => *mapped += 1,
        (true, Slot::Hole) => *mapped = mapped.saturating_sub(1),
        _ => {}
    }
}

fn lied(disk: &str, chunks: u64) -> String {
    format!(
        "the hypervisor's change tracking of disk {disk} missed changes ({chunks} chunks, found by reading them anyway); they are right now, others may not be: have all of it compared with `sparesite-gateway sync --compare`, and look for what writes to it past the hypervisor"
    )
}
