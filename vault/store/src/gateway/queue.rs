//! What the queue says to those who capture: which captures a source's tracking may be trusted from, how full the outbox
//! is, and which packs nobody needs.

use super::losses::with_dependents;
use super::outbox_plan::{OutboxUse, unneeded};
use super::rows::{DiskRow, PackRow};
use super::status::VmStatus;
use super::uploader::{needs_of, stands_on};
use super::{Gateway, Shared, Uploader};
use crate::StoreError;
use std::collections::{BTreeSet, HashMap, HashSet};
use vault_format::VmId;
use vault_format::ids::CaptureId;

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
        self.check_fence(name, vm_id)?;
        self.check_own(name, vm_id)
    }

    /// Whether the VM is this gateway's, as far as is known here. Behind a fence its points are still published, as diverged
    /// ones.
    pub(super) fn check_own(&self, name: &str, vm_id: &VmId) -> Result<(), StoreError> {
        let header = self.state.header();
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

    pub(super) fn outbox_use(&self) -> Result<OutboxUse, StoreError> {
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
            let may_publish = self.may_publish(&row)?;
            let vm = usage.vms.entry(row.vm).or_default();
            match &row.point {
                Some(_) if may_publish => vm.points += 1,
                Some(_) => vm.held += 1,
                None => {}
            }
            vm.bytes += own.map(|pack| pack.size).sum::<u64>();
        }
        Ok(usage)
    }

    /// The packs in the outbox that no capture needs once these are gone, except what is on its way (`flying`); and those
    /// that arrived, or are about to, and stand on them. Of what waits elsewhere nobody knows yet whether it arrived.
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
        packs.retain(|pack| !flying.contains(pack) && self.outbox.has(&waiting[pack].name));
        let mut useless = with_dependents(&packs, &all);
        useless.retain(|pack| !packs.contains(pack));
        Ok((packs, useless.into_iter().collect()))
    }
}
