//! Fences (section 3): a VM that was failed over, and which of its points diverged from those that were failed over to.

use crate::control_log::ControlLog;
use crate::ids::{PointId, VmId};
use serde::{Deserialize, Serialize};

/// A VM's fence, as the log tells it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fence {
    /// Of the log's entry.
    pub number: u64,
    /// RFC 3339, the clock of who failed over.
    pub time: String,
    /// The run that failed over; fences of old do not say.
    pub run: Option<String>,
    /// The VM's newest point then. What comes behind it came from a site that did not know.
    pub last: Option<PointId>,
    /// The entry that took the fence away.
    pub until: Option<u64>,
}

impl Fence {
    /// Whether who had heeded the log up to `log` knew it, and nothing of its end.
    fn was_known_at(&self, log: u64) -> bool {
        self.number <= log && self.until.is_none_or(|until| log < until)
    }
}

/// `run 4f2a at 2026-11-22T08:00:00Z`
impl std::fmt::Display for Fence {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let run = self.run.as_deref().unwrap_or("that is not named");
        write!(f, "run {run} at {}", self.time)
    }
}

impl ControlLog {
    /// The fence that a VM is behind now.
    pub fn fence(&self, vm: &VmId) -> Option<&Fence> {
        self.fences
            .get(vm)?
            .last()
            .filter(|its| its.until.is_none())
    }

    /// The fence that a point captured with `log` heeded is captured under.
    pub fn fence_at(&self, vm: &VmId, log: u64) -> Option<&Fence> {
        let mut fences = self.fences.get(vm)?.iter();
        fences.find(|fence| fence.was_known_at(log))
    }

    /// The entry of the fence for which a point counts as diverged: it says so itself (`marked`); or its gateway had heeded
    /// the fence (`log`) and was to capture nothing else; or the fence stands, and the point is none of those before it.
    pub fn diverged(
        &self,
        vm: &VmId,
        point: PointId,
        (marked, log): (Option<u64>, u64),
    ) -> Option<u64> {
        let known = || self.fence_at(vm, log).map(|fence| fence.number);
        let behind = || {
            let fence = self.fence(vm)?;
            (point > fence.last?).then_some(fence.number)
        };
        marked.or_else(known).or_else(behind)
    }

    pub(crate) fn set_fence(&mut self, vm: VmId, fence: Fence) {
        // Of two runs that have the VM, the first one fenced it.
        if self.fence(&vm).is_none() {
            self.fences.entry(vm).or_default().push(fence);
        }
    }

    pub(crate) fn end_fence(&mut self, vm: &VmId) {
        let number = self.number;
        let fence = self.fences.get_mut(vm).and_then(|all| all.last_mut());
        if let Some(fence) = fence {
            fence.until.get_or_insert(number);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::VaultId;

    const VM: VmId = VmId([1; 16]);

    fn point(epoch: u64, sequence: u64) -> PointId {
        PointId { epoch, sequence }
    }

    fn fenced(log: &mut ControlLog, number: u64, last: Option<PointId>) {
        log.number = number;
        let fence = Fence {
            number,
            time: "2026-11-22T08:00:00Z".into(),
            run: Some("r".into()),
            last,
            until: None,
        };
        log.set_fence(VM, fence);
    }

    #[test]
    fn a_point_diverges_by_its_mark_by_what_it_knew_or_by_its_place() {
        let mut log = ControlLog::new(VaultId([0; 32]));
        fenced(&mut log, 5, Some(point(2, 7)));
        let diverged = |log: &ControlLog, id, marked, knew| log.diverged(&VM, id, (marked, knew));
        assert_eq!(diverged(&log, point(2, 7), None, 4), None);
        assert_eq!(
            diverged(&log, point(2, 8), None, 4),
            Some(5),
            "written unknowing"
        );
        assert_eq!(diverged(&log, point(2, 6), None, 5), Some(5), "knew better");
        assert_eq!(diverged(&log, point(2, 7), Some(3), 4), Some(3));
        assert_eq!(log.diverged(&VmId([2; 16]), point(9, 9), (None, 9)), None);
        // Another run of the same VM changes nothing; the end of it ends all.
        fenced(&mut log, 6, Some(point(2, 9)));
        assert_eq!(log.fence(&VM).map(|fence| fence.number), Some(5));
        log.number = 8;
        log.end_fence(&VM);
        assert_eq!(log.fence(&VM), None);
        assert_eq!(
            diverged(&log, point(2, 8), None, 4),
            None,
            "the site goes on"
        );
        assert_eq!(diverged(&log, point(2, 8), None, 7), Some(5));
        assert_eq!(diverged(&log, point(2, 9), None, 8), None);
        assert_eq!(diverged(&log, point(2, 8), Some(5), 7), Some(5), "for ever");
        // A later fence is one of its own, and does not open the earlier one.
        fenced(&mut log, 11, None);
        assert_eq!(diverged(&log, point(2, 9), None, 10), None);
        assert_eq!(diverged(&log, point(2, 10), None, 11), Some(11));
        log.number = 12;
        log.end_fence(&VM);
        assert_eq!(diverged(&log, point(2, 8), None, 7), Some(5));
        assert_eq!(diverged(&log, point(2, 12), None, 12), None);
    }
}
