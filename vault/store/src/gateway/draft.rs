//! The draft of a VM's next point: opened by a capture or a pass, gone on with by the next one after a failure, and made a
//! whole point in one commit.

use super::batches::{Known, Tracked};
use super::later::Later;
use super::losses::Loss;
use super::rows::{DiskRow, QueueRow, Scrub};
use super::scrub::{bound, plan_scrub};
use super::state_queue::Changes;
use super::{DiskCapture, Hold, PointReport, Shared, VmCapture};
use crate::StoreError;
use std::collections::{BTreeSet, HashSet};
use std::ops::Range;
use std::sync::Arc;
use vault_format::ids::{CaptureId, VmId};
use vault_format::layer::Slot;
use vault_format::manifest::PointBytes;

/// A draft in the hands of a capture.
pub(super) struct Draft {
    pub ordinal: u64,
    pub row: QueueRow,
    /// Per disk.
    pub known: Vec<Known>,
    /// The points that it replaces.
    pub replaces: Vec<u64>,
    /// What is read of each disk whether or not it changed; once that is done, what was read. `None` for all of it.
    pub scrubs: Vec<Option<Range<u64>>>,
    hold: Hold,
}

impl Draft {
    /// Where a pass of this id was cut off: the number of the disk, and the position.
    pub fn resumes_at(&self, pass: Option<CaptureId>) -> Option<(usize, u64)> {
        let (id, map, position) = self.row.under_way?;
        let number = self.row.disks.iter().position(|disk| disk.number == map)?;
        (pass == Some(id)).then_some((number, position))
    }

    /// Packs of other captures that wait, and that this one refers to.
    pub fn add_needs(&mut self, needs: &[u64]) {
        self.row.needs.extend(needs);
    }
}

impl Shared {
    /// Opens the VM's draft, or begins one, for a capture or a pass.
    pub(super) fn open_draft(
        &self,
        vm: &VmCapture,
        (hold, is_pass): (Hold, bool),
        report: &mut PointReport,
    ) -> Result<Draft, StoreError> {
        let vm_id = self.key.id_key.vm_id(&vm.name);
        self.check_vm(&vm.name, &vm_id)?;
        // A pass that goes on had forgotten it, and has read it again since.
        let goes_on = is_pass && self.is_under_way(&vm_id, vm.id)?;
        if hold != Hold::Nothing && !goes_on {
            self.forget_unsure(&vm_id)?;
        }
        // In this order: of a point that is half in the map when the snapshot is taken, the pending row is found, or the
        // point is the published one.
        let snapshot = Arc::new(self.state.snapshot()?);
        let is_pending = self
            .state
            .pending()?
            .iter()
            .any(|row| row.vm.vm_id == vm_id);
        let mut queue = self.state.queue_of(&vm_id)?;
        let all = queue.clone();
        let draft = match queue.last() {
            Some((_, row)) if row.point.is_none() => queue.pop(),
            _ => None,
        };
        let before = match (&draft, queue.last()) {
            (Some((_, row)), _) | (None, Some((_, row))) => row.disks.clone(),
            (None, None) => self.state.vm(&vm_id)?.map_or(Vec::new(), |vm| vm.disks),
        };
        let (base, replaces) = match hold {
            Hold::Superseding => self.replaceable(&queue)?,
            _ => (None, Vec::new()),
        };
        let trusted = self.captures(&vm_id)?.into_iter();
        let mut trusted: Vec<CaptureId> = trusted.map(|known| known.id).collect();
        if is_pending {
            // Nobody knows any more what the point that is nearly in the map changes in the one before it.
            trusted.retain(|id| all.iter().any(|(_, row)| is_of(row, *id)));
        }
        let (mut disks, mut known, mut due) = (Vec::new(), Vec::new(), Vec::new());
        let (chunk_bytes, now) = (u64::from(self.key.chunk_bytes), vm.captured_at.as_second());
        for disk in &vm.disks {
            let old = before.iter().find(|row| row.name == disk.name);
            let row = self.disk_row(old, disk)?;
            let old = old.filter(|old| old.number == row.number);
            let why = distrusted(disk, old, &trusted);
            let scrub = match &why {
                // A pass and a capture share the map: only the capture's share counts.
                None if is_pass => Some(0..0),
                None => Some(plan_scrub(disk, row.scrub, chunk_bytes, now)),
                Some(_) => None,
            };
            due.push((row.scrub.at, scrub));
            let tracked = match why {
                None => Some(Tracked {
                    scrub: 0..0,
                    lost: self.lost_positions(row.number)?,
                    later: disk
                        .since
                        .and_then(|its| Later::new(&snapshot, row.number, &all, its)),
                }),
                Some(_) => None,
            };
            report.compared.extend(why);
            disks.push(row);
            known.push(Known { tracked, base });
        }
        let positions = disks
            .iter()
            .map(|disk| disk.size_bytes.div_ceil(chunk_bytes));
        let positions: Vec<u64> = positions.collect();
        bound(&mut due, &positions, hold != Hold::Nothing);
        let scrubs: Vec<Option<Range<u64>>> = due.into_iter().map(|(_, range)| range).collect();
        for (known, scrub) in known.iter_mut().zip(&scrubs) {
            if let (Some(tracked), Some(scrub)) = (&mut known.tracked, scrub) {
                tracked.scrub = scrub.clone();
            }
        }
        let (ordinal, row) = match draft {
            Some((ordinal, row)) => {
                let gone = row.disks.iter().map(|disk| disk.number);
                let gone = gone.filter(|old| !disks.iter().any(|disk| disk.number == *old));
                let gone: Vec<u32> = gone.collect();
                let row = QueueRow {
                    disks,
                    priority: vm.priority,
                    ..row
                };
                self.state.reopen_draft(ordinal, &row, &gone)?;
                (ordinal, row)
            }
            None => {
                let row = QueueRow {
                    vm: vm.name.clone(),
                    vm_id,
                    pass: None,
                    under_way: None,
                    disks,
                    needs: BTreeSet::new(),
                    priority: vm.priority,
                    cost: PointBytes::default(),
                    point: None,
                };
                (self.state.begin_draft(&row)?, row)
            }
        };
        Ok(Draft {
            ordinal,
            row,
            known,
            replaces,
            scrubs,
            hold,
        })
    }

    fn is_under_way(&self, vm: &VmId, pass: CaptureId) -> Result<bool, StoreError> {
        let queue = self.state.queue_of(vm)?;
        let draft = queue.last().filter(|(_, row)| row.point.is_none());
        Ok(draft.is_some_and(|(_, row)| row.under_way.is_some_and(|(id, ..)| id == pass)))
    }

    fn disk_row(&self, old: Option<&DiskRow>, disk: &DiskCapture) -> Result<DiskRow, StoreError> {
        let excluded = disk.source.is_none();
        match old {
            Some(row) if row.excluded == excluded => Ok(DiskRow {
                size_bytes: disk.size_bytes,
                layers: Vec::new(),
                ..row.clone()
            }),
            _ => Ok(DiskRow {
                name: disk.name.clone(),
                // A disk that was excluded before, or is now, begins anew, and so does one that comes back: its old map says
                // nothing about its layers.
                number: self.state.new_disk_number()?,
                size_bytes: disk.size_bytes,
                excluded,
                layers: Vec::new(),
                mapped: 0,
                scrub: Scrub::default(),
            }),
        }
    }

    /// Where a disk holds chunks that are lost.
    fn lost_positions(&self, disk: u32) -> Result<BTreeSet<u64>, StoreError> {
        let mut lost = BTreeSet::new();
        if self.state.any_lost() {
            let snapshot = self.state.snapshot()?;
            for item in snapshot.slots(disk, 0..u64::MAX, u64::MAX)? {
                if let (position, Slot::Chunk(id)) = item?
                    && snapshot.is_lost(&id)?
                {
                    lost.insert(position);
                }
            }
        }
        Ok(lost)
    }

    /// The points that may be replaced: those behind the one being published. With the ordinal before them.
    fn replaceable(
        &self,
        queue: &[(u64, QueueRow)],
    ) -> Result<(Option<u64>, Vec<u64>), StoreError> {
        let being_published = *self.busy.point();
        let fixed = self.fixed_captures(being_published)?;
        // What a fenced VM's disks held is kept whatever comes after it.
        let is_kept = |row: &QueueRow| row.point.as_ref().is_some_and(|its| its.fence.is_some());
        let fixed = queue
            .iter()
            .rposition(|(ordinal, row)| fixed.contains(ordinal) || is_kept(row));
        let base = fixed.map_or(0, |at| queue[at].0);
        let replaced = queue.iter().map(|(ordinal, _)| *ordinal);
        Ok((Some(base), replaced.filter(|its| *its > base).collect()))
    }

    /// Captures that are not replaced any more: their manifest is on its way, or about to be.
    fn fixed_captures(&self, being_published: Option<u64>) -> Result<HashSet<u64>, StoreError> {
        let pending = self.state.pending()?.into_iter().map(|row| row.capture);
        Ok(pending.chain(being_published).collect())
    }

    /// Packs of which this capture knows nothing: those that go once it is whole; and where it must not wait to learn it,
    /// those of which nobody knows whether they arrived.
    pub(super) fn unheeded_packs(&self, draft: &Draft) -> Result<Arc<HashSet<u64>>, StoreError> {
        let mut unheeded = HashSet::new();
        if !draft.replaces.is_empty() {
            let (packs, useless) = self.packs_of_gone(&draft.replaces, &self.busy.packs())?;
            unheeded.extend(packs.into_iter().chain(useless));
            unheeded.retain(|pack| !draft.row.needs.contains(pack));
        }
        if draft.hold != Hold::Nothing {
            unheeded.extend(self.unsure_packs()?);
        }
        Ok(Arc::new(unheeded))
    }

    /// The outbox took no more of it. What it has stays, with what that cost; but of one that was to replace points nothing
    /// does, as it used the room that is left for that.
    pub(super) fn end_without_room(&self, draft: &Draft) -> Result<(), StoreError> {
        if draft.hold == Hold::Superseding {
            let flying = self.busy.packs();
            let (packs, useless) = self.packs_of_gone(&[draft.ordinal], &flying)?;
            self.state.lose(&Loss {
                captures: vec![(draft.ordinal, draft.row.clone())],
                packs,
                useless,
                ..Loss::default()
            })?;
            drop(flying);
            return self.tidy_outbox();
        }
        let Some(noted) = self.state.capture(draft.ordinal)? else {
            return Ok(());
        };
        let cost = draft.row.cost;
        let row = QueueRow { cost, ..noted };
        self.state.add_changes(draft.ordinal, &row, &Changes::new())
    }

    /// The draft is a whole point now. Returns how many points it replaced.
    pub(super) fn commit_draft(&self, draft: &mut Draft) -> Result<u64, StoreError> {
        tokio::task::block_in_place(|| self.outbox.settle())?;
        // While these are held nothing begins to be published, and no pack sets out.
        let busy = self.busy.point();
        let flying = self.busy.packs();
        let mut gone = Vec::new();
        if draft.hold == Hold::Superseding {
            let fixed = self.fixed_captures(*busy)?;
            gone = self.state.queue()?;
            gone.retain(|(its, _)| draft.replaces.contains(its) && !fixed.contains(its));
        }
        let numbers: Vec<u64> = gone.iter().map(|(ordinal, _)| *ordinal).collect();
        let (packs, useless) = match numbers.is_empty() {
            true => Default::default(),
            false => self.packs_of_gone(&numbers, &flying)?,
        };
        self.state
            .commit_capture(draft.ordinal, &draft.row, &gone, (&packs, &useless))?;
        drop((busy, flying));
        self.tidy_outbox()?;
        Ok(numbers.len() as u64)
    }
}

/// Whether `id` is what this row of the queue counts from.
fn is_of(row: &QueueRow, id: CaptureId) -> bool {
    let point = row.point.as_ref().map(|point| point.capture);
    point.or(row.pass) == Some(id)
}

/// Why all of a disk is compared; `None` if its source knows what changed.
fn distrusted(disk: &DiskCapture, old: Option<&DiskRow>, trusted: &[CaptureId]) -> Option<String> {
    let name = &disk.name;
    disk.source.as_ref()?;
    match (disk.since, old) {
        (None, _) => Some(format!(
            "disk {name}: its source does not know what changed"
        )),
        (Some(_), None) => Some(format!("disk {name}: it was not captured before")),
        (Some(_), Some(old)) if old.size_bytes != disk.size_bytes => Some(format!(
            "disk {name}: it has {} bytes and had {}",
            disk.size_bytes, old.size_bytes
        )),
        (Some(since), Some(_)) if !trusted.contains(&since) => Some(format!(
            "disk {name}: its source knows changes since capture {since}, which is neither the newest point nor one that waits"
        )),
        _ => None,
    }
}
