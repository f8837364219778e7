//! What the queue says to those who capture: which captures a source's tracking may be trusted from, how full the outbox
//! is; and what becomes of the queue when packs are lost before they arrived.

use super::outbox_plan::{OutboxUse, unneeded};
use super::rows::{DiskRow, PackRow, QueueRow};
use super::status::VmStatus;
use super::uploader::{needs_of, stands_on};
use super::{Gateway, Shared, Uploader};
use crate::StoreError;
use std::collections::{BTreeSet, HashMap, HashSet};
use vault_format::ids::CaptureId;
use vault_format::{ChunkId, VmId, names};

/// A VM's capture that is not whole yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DraftStatus {
    /// The last pass that is complete.
    pub pass: Option<CaptureId>,
    /// The pass that was cut off, and goes on if it is asked for by this id.
    pub under_way: Option<CaptureId>,
}

/// A capture from which a source may know what changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KnownCapture {
    pub id: CaptureId,
    /// Name and size in bytes of each disk then.
    pub disks: Vec<(String, u64)>,
}

impl Gateway {
    /// The captures of a VM from which a source may know what changed, newest first: a pass, those that wait, and the
    /// newest published one. Tracking that is called by another name is not trusted.
    pub fn captures(&self, name: &str) -> Result<Vec<KnownCapture>, StoreError> {
        self.shared.captures(&self.shared.key.id_key.vm_id(name))
    }

    /// Whether the next cycle begins with a rebuild, which takes its time.
    pub fn is_in_doubt(&self) -> bool {
        self.shared.state.header().epoch == 0
    }

    /// Whether a VM can be captured without asking the vault first: it was captured before, and nothing is in doubt.
    pub fn can_capture_unasked(&self, name: &str) -> Result<bool, StoreError> {
        let vm_id = self.shared.key.id_key.vm_id(name);
        let known = match self.shared.state.vm(&vm_id)? {
            Some(vm) => vm.taken_from.is_none(),
            None => !self.shared.state.queue_of(&vm_id)?.is_empty(),
        };
        Ok(known && self.shared.check_vm(name, &vm_id).is_ok())
    }

    /// What earlier passes and captures that failed have left of a VM's next point.
    pub fn draft(&self, name: &str) -> Result<Option<DraftStatus>, StoreError> {
        let vm_id = self.shared.key.id_key.vm_id(name);
        let queue = self.shared.state.queue_of(&vm_id)?.into_iter();
        let draft = queue.map(|(_, row)| row).find(|row| row.point.is_none());
        Ok(draft.map(|row| DraftStatus {
            pass: row.pass,
            under_way: row.under_way.map(|(id, ..)| id),
        }))
    }

    pub fn outbox_use(&self) -> Result<OutboxUse, StoreError> {
        self.shared.outbox_use()
    }
}

impl Uploader {
    /// The newest published point of each VM.
    pub fn status(&self) -> Result<Vec<VmStatus>, StoreError> {
        self.shared.status()
    }

    /// When the newest point of a VM that waits was captured, RFC 3339.
    pub fn newest_waiting(&self, name: &str) -> Result<Option<String>, StoreError> {
        let vm_id = self.shared.key.id_key.vm_id(name);
        let queue = self.shared.state.queue_of(&vm_id)?.into_iter();
        let points = queue.filter_map(|(_, row)| row.point);
        Ok(points.map(|point| point.captured_at).next_back())
    }

    pub fn outbox_use(&self) -> Result<OutboxUse, StoreError> {
        self.shared.outbox_use()
    }
}

impl Shared {
    /// Whether the VM may be captured, as far as is known here.
    pub(super) fn check_vm(&self, name: &str, vm_id: &VmId) -> Result<(), StoreError> {
        let header = self.state.header();
        if header.log.fenced.contains(vm_id) {
            return Err(StoreError::Fenced {
                vm: name.to_owned(),
            });
        }
        if header.epoch == 0 {
            return Err(StoreError::Other(
                "the gateway's state is in doubt: begin a cycle first, which rebuilds it".into(),
            ));
        }
        let row = self.state.vm(vm_id)?.filter(|row| row.taken_from.is_none());
        let own = self.key.writer.id;
        match row.and_then(|row| header.log.taken_from(&own, vm_id, row.point.epoch)) {
            Some(takeover) => Err(StoreError::TakenVm {
                vm: name.to_owned(),
                by: header.log.label(&takeover.writer),
            }),
            None => Ok(()),
        }
    }

    pub(super) fn captures(&self, vm_id: &VmId) -> Result<Vec<KnownCapture>, StoreError> {
        let known = |id: CaptureId, disks: &[DiskRow]| KnownCapture {
            id,
            disks: disks
                .iter()
                .map(|disk| (disk.name.clone(), disk.size_bytes))
                .collect(),
        };
        let queue = self.state.queue_of(vm_id)?.into_iter().rev();
        let waiting = queue.filter_map(|(_, row)| {
            let id = row.point.map_or(row.pass, |point| Some(point.capture))?;
            Some(known(id, &row.disks))
        });
        let published = self.state.vm(vm_id)?.filter(|vm| !vm.object.is_empty());
        let published = published.map(|vm| known(vm.capture, &vm.disks));
        Ok(waiting.chain(published).collect())
    }

    fn outbox_use(&self) -> Result<OutboxUse, StoreError> {
        let mut usage = OutboxUse {
            most_bytes: self.outbox.most_bytes(),
            used_bytes: self.outbox.used_bytes(),
            ..OutboxUse::default()
        };
        let waiting = self.waiting_packs()?;
        for (ordinal, row) in self.state.queue()? {
            let own = waiting
                .values()
                .filter(|pack| pack.capture == Some(ordinal));
            let vm = usage.vms.entry(row.vm).or_default();
            vm.points += u64::from(row.point.is_some());
            vm.bytes += own.map(|pack| pack.size).sum::<u64>();
        }
        Ok(usage)
    }

    /// The waiting packs that no capture needs once these are gone, except what is on its way (`flying`); and those that
    /// arrived, or are about to, and stand on them.
    pub(super) fn packs_of_gone(
        &self,
        gone: &[u64],
        flying: &HashSet<u64>,
    ) -> Result<(Vec<u64>, Vec<u64>), StoreError> {
        let all: HashMap<u64, PackRow> = self.state.packs()?.into_iter().collect();
        let waiting = self.waiting_packs()?;
        let stay: Vec<BTreeSet<u64>> = self
            .state
            .queue()?
            .iter()
            .filter(|(ordinal, _)| !gone.contains(ordinal))
            .map(|(ordinal, row)| needs_of(*ordinal, row, &waiting))
            .collect();
        let mut packs = unneeded(stay.iter(), &stands_on(&waiting));
        packs.retain(|pack| !flying.contains(pack));
        let mut useless = with_dependents(&packs, &all);
        useless.retain(|pack| !packs.contains(pack));
        Ok((packs, useless.into_iter().collect()))
    }

    /// Packs of which nobody knows whether they arrived, and that the outbox has not.
    pub(super) fn doubtful_packs(&self) -> Result<HashMap<u64, PackRow>, StoreError> {
        let mut packs = self.waiting_packs()?;
        packs.retain(|_, pack| !self.outbox.has(&pack.name));
        Ok(packs)
    }

    /// A VM's draft forgets what it has of doubtful packs: a capture that cannot wait to learn about them must not build on
    /// them.
    pub(super) fn forget_doubtful(&self, vm_id: &VmId) -> Result<(), StoreError> {
        let doubtful: Vec<u64> = self.doubtful_packs()?.into_keys().collect();
        if doubtful.is_empty() {
            return Ok(());
        }
        let entries = self.state.entries_of_all(&doubtful)?;
        let ids = entries.iter().flat_map(|(_, its)| its.iter().map(|e| e.id));
        let ids: HashSet<ChunkId> = ids.collect();
        let drafts = self.state.queue_of(vm_id)?.into_iter();
        drafts
            .filter(|(_, row)| row.point.is_none())
            .try_for_each(|(ordinal, row)| self.repair_draft(ordinal, row, &ids))
    }

    /// Asks the store about packs of which nobody knows whether they arrived, and that the outbox has not: a sync died or
    /// failed. Returns what was lost by that.
    pub(super) async fn settle_packs(&self) -> Result<Vec<String>, StoreError> {
        let mut lost = Vec::new();
        for (ordinal, pack) in self.doubtful_packs()? {
            match self.objects.size(&names::pack(&pack.name)).await? {
                Some(size) if size == pack.size => self.state.mark_arrived(&[ordinal])?,
                _ => lost.push(ordinal),
            }
        }
        match lost.is_empty() {
            true => Ok(Vec::new()),
            false => self.lose_packs_on_the_way(&lost),
        }
    }

    /// These packs never arrived, and are gone: so are the points that need them, and those of their VMs that follow.
    /// A draft forgets what it had of them. Returns which points are gone.
    pub(super) fn lose_packs_on_the_way(&self, lost: &[u64]) -> Result<Vec<String>, StoreError> {
        let all: HashMap<u64, PackRow> = self.state.packs()?.into_iter().collect();
        let waiting = self.waiting_packs()?;
        // What arrived and stands on what is lost is of no use either: its chunks are not known any more.
        let (lost, useless) = with_dependents(lost, &all)
            .into_iter()
            .partition::<BTreeSet<u64>, _>(|pack| waiting.contains_key(pack));
        let ordinals: Vec<u64> = lost.iter().copied().collect();
        let both: Vec<u64> = lost.union(&useless).copied().collect();
        let entries = self.state.entries_of_all(&both)?;
        let ids: HashSet<ChunkId> = entries
            .iter()
            .flat_map(|(_, entries)| entries.iter().map(|entry| entry.id))
            .collect();
        self.state.forget_packs(&ordinals)?;
        self.state.forget_chunks(&useless)?;
        let mut findings = Vec::new();
        let mut broken: HashSet<VmId> = HashSet::new();
        for (ordinal, row) in self.state.queue()? {
            let needs = needs_of(ordinal, &row, &all);
            let hit = !(needs.is_disjoint(&lost) && needs.is_disjoint(&useless));
            match &row.point {
                Some(point) if hit || broken.contains(&row.vm_id) => {
                    broken.insert(row.vm_id);
                    self.state.drop_capture(ordinal, &row)?;
                    findings.push(format!(
                        "the recovery point captured at {} was lost before it was sent: its part of the outbox is gone; the next one compares what changed since the one before it",
                        point.captured_at
                    ));
                }
                None if broken.contains(&row.vm_id) => self.state.drop_capture(ordinal, &row)?,
                None if hit => self.repair_draft(ordinal, row, &ids)?,
                _ => {}
            }
        }
        self.tidy_outbox()?;
        Ok(findings)
    }

    /// The draft's positions that held these chunks are looked at again, by the pass that had seen them.
    fn repair_draft(
        &self,
        ordinal: u64,
        mut row: QueueRow,
        forgotten: &HashSet<ChunkId>,
    ) -> Result<(), StoreError> {
        let gone = self.state.unlearn(ordinal, &row.disks, forgotten)?;
        let rank = |number: u32| row.disks.iter().position(|disk| disk.number == number);
        let place = |(number, position): (u32, u64)| (rank(number), position);
        let Some(first) = gone.into_iter().min_by_key(|at| place(*at)) else {
            return Ok(());
        };
        let pass = row.under_way.map(|(id, ..)| id).or(row.pass);
        let reached = row
            .under_way
            .map(|(_, number, position)| (number, position));
        let from = match reached {
            Some(reached) if place(reached) < place(first) => reached,
            _ => first,
        };
        row.under_way = pass.map(|id| (id, from.0, from.1));
        row.pass = None;
        self.state.put_capture(ordinal, &row)
    }
}

/// These packs, and all that stand on them.
fn with_dependents(lost: &[u64], packs: &HashMap<u64, PackRow>) -> BTreeSet<u64> {
    let mut out: BTreeSet<u64> = lost.iter().copied().collect();
    loop {
        let before = out.len();
        for (ordinal, pack) in packs {
            if pack.after.iter().any(|pack| out.contains(pack)) {
                out.insert(*ordinal);
            }
        }
        if out.len() == before {
            return out;
        }
    }
}
