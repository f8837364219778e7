//! A VM that was failed over: what its site does about it once, and the one point that keeps what its disks hold.

use super::rows::{FencedRow, OrdinaryRow, VmRow};
use super::{Gateway, Shared, Uploader};
use crate::StoreError;
use serde::{Deserialize, Serialize};
use vault_format::manifest::Facts;
use vault_format::{PointId, VmId};

/// What the site did about a fence, as its owner asked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OnFenced {
    /// Nothing was asked.
    Nothing,
    Done,
    /// Why it failed; it is to be tried again.
    Failed(String),
}

/// Where what the disks held is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kept {
    /// Not yet.
    No,
    /// In a point that waits to be sent.
    Waits,
    Point(PointId),
}

/// A VM's fence, and what came of it here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VmFence {
    /// The log's entry.
    pub number: u64,
    pub run: Option<String>,
    /// RFC 3339.
    pub time: String,
    /// `None`: not tried yet.
    pub on_fenced: Option<OnFenced>,
    pub kept: Kept,
}

impl VmFence {
    /// Whether its disks may be captured now, this once.
    pub fn is_to_be_kept(&self) -> bool {
        let is_settled = matches!(self.on_fenced, Some(OnFenced::Nothing | OnFenced::Done));
        is_settled && self.kept == Kept::No
    }
}

/// What the state remembers of a fence.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct FenceRow {
    pub fence: u64,
    pub on_fenced: OnFenced,
}

impl Gateway {
    /// The fence that a VM is behind, as far as is known here.
    pub fn fence(&self, name: &str) -> Result<Option<VmFence>, StoreError> {
        self.shared.fence(name)
    }

    /// Remembers what came of `on_fenced`, also over a rebuild. Unless it failed, the VM's disks may be captured once.
    pub fn note_on_fenced(
        &self,
        name: &str,
        fence: u64,
        on_fenced: OnFenced,
    ) -> Result<(), StoreError> {
        let vm_id = self.shared.key.id_key.vm_id(name);
        let row = FenceRow { fence, on_fenced };
        self.shared.state.put_fence(&vm_id, &row)
    }
}

impl Uploader {
    /// The fence that a VM is behind, as far as is known here.
    pub fn fence(&self, name: &str) -> Result<Option<VmFence>, StoreError> {
        self.shared.fence(name)
    }
}

impl Shared {
    fn fence(&self, name: &str) -> Result<Option<VmFence>, StoreError> {
        let vm_id = self.key.id_key.vm_id(name);
        let header = self.state.header();
        let Some(fence) = header.log.fence(&vm_id) else {
            return Ok(None);
        };
        let noted = self.state.fence(&vm_id)?;
        Ok(Some(VmFence {
            number: fence.number,
            run: fence.run.clone(),
            time: fence.time.clone(),
            on_fenced: noted
                .filter(|row| row.fence == fence.number)
                .map(|row| row.on_fenced),
            kept: self.kept(&vm_id, fence.number)?,
        }))
    }

    fn kept(&self, vm_id: &VmId, fence: u64) -> Result<Kept, StoreError> {
        let queue = self.state.queue_of(vm_id)?.into_iter();
        let mut waiting = queue.filter_map(|(_, row)| row.point);
        if waiting.any(|point| point.fence == Some(fence)) {
            return Ok(Kept::Waits);
        }
        let row = self.state.vm(vm_id)?;
        let kept = row.and_then(|row| row.fenced.kept);
        let kept = kept.filter(|(its, _)| *its == fence);
        Ok(kept.map_or(Kept::No, |(_, point)| Kept::Point(point)))
    }

    /// Whether no fence keeps the VM from being captured. One that is gone counts as long as a point would say that its
    /// gateway had heeded the fence and nothing after it: readers would take that for a diverged one.
    pub(super) fn check_fence(&self, name: &str, vm_id: &VmId) -> Result<(), StoreError> {
        let header = self.state.header();
        let standing = header.log.fence(vm_id);
        let Some(fence) = standing.or_else(|| header.log.fence_at(vm_id, header.heeded_log()))
        else {
            return Ok(());
        };
        let noted = self.fence(name)?;
        match noted.is_some_and(|noted| noted.is_to_be_kept()) {
            true => Ok(()),
            false => Err(StoreError::Fenced {
                vm: name.to_owned(),
                by: fence.to_string(),
            }),
        }
    }

    /// The first of these that is none of a fence.
    pub(super) async fn newest_ordinary(
        &self,
        vm_id: &VmId,
        points: impl Iterator<Item = &PointId>,
    ) -> Result<Option<OrdinaryRow>, StoreError> {
        for point in points {
            let facts = match self.open_point(vm_id, *point).await {
                Ok(Some((manifest, ..))) => manifest.facts,
                Ok(None) => continue,
                Err(e) if e.is_damage() => continue,
                Err(e) => return Err(e),
            };
            if facts.diverged.is_none() {
                return Ok(Some(OrdinaryRow {
                    point: *point,
                    captured_at: facts.captured_at,
                    consistency: facts.consistency.to_string(),
                }));
            }
        }
        Ok(None)
    }
}

impl FencedRow {
    /// That of the VM's next point. `captured_under`: the fence that it was captured for; `marked`: what it says of itself.
    pub fn after(
        before: Option<&VmRow>,
        point: PointId,
        (captured_under, marked): (Option<u64>, Option<u64>),
    ) -> Self {
        let kept = before.and_then(|vm| vm.fenced.kept);
        let ordinary = before.and_then(|vm| match vm.fenced.diverged {
            Some(_) => vm.fenced.ordinary.clone(),
            None => vm.as_ordinary(),
        });
        FencedRow {
            diverged: marked,
            kept: captured_under.map(|fence| (fence, point)).or(kept),
            ordinary: ordinary.filter(|_| marked.is_some()),
        }
    }

    /// What a manifest in the vault says. Only what was captured with the fence heeded is what its disks held then.
    pub fn learnt(facts: &Facts) -> Self {
        let knew = |fence: &u64| facts.log >= *fence;
        FencedRow {
            diverged: facts.diverged,
            kept: facts
                .diverged
                .filter(knew)
                .map(|fence| (fence, facts.point)),
            ordinary: None,
        }
    }
}
