//! What captures have changed in a disk since the one from which its tracking counts. The tracking names that too, unless
//! the disk was put back to what it was, bitmaps included: it tells the truth then, and what was taken from the disk in
//! between would stay in the next point if nobody looked at it.

use super::rows::QueueRow;
use super::snapshot::Snapshot;
use crate::StoreError;
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;
use vault_format::ids::CaptureId;
use vault_format::record::BlockMask;

/// Positions to be looked at beside those that the tracking names.
pub(super) struct Later {
    /// Of the time when the capture began: what is published meanwhile is not to be seen any more in a newer one.
    snapshot: Arc<Snapshot>,
    disk: u32,
    counts_from: From,
    /// The first position at or after one that was asked for.
    found: Option<(u64, Option<u64>)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum From {
    /// The capture with this ordinal; 0 is what is published.
    Ordinal(u64),
    /// The last complete pass of the draft.
    Pass,
}

/// Whether anything can have been changed in a VM's disks since `since`.
fn counts_from(queue: &[(u64, QueueRow)], since: CaptureId) -> Option<From> {
    let newest = queue.last().map_or(0, |(ordinal, _)| *ordinal);
    let is_pass = |row: &QueueRow| row.point.is_none() && row.pass == Some(since);
    if queue.iter().any(|(_, row)| is_pass(row)) {
        return Some(From::Pass);
    }
    let is_since = |row: &QueueRow| row.point.as_ref().is_some_and(|its| its.capture == since);
    let waits = queue.iter().find(|(_, row)| is_since(row));
    let ordinal = waits.map_or(0, |(ordinal, _)| *ordinal);
    (ordinal < newest).then_some(From::Ordinal(ordinal))
}

impl Later {
    /// `queue`: the captures of the disk's VM, its draft too.
    pub fn new(
        snapshot: &Arc<Snapshot>,
        disk: u32,
        queue: &[(u64, QueueRow)],
        since: CaptureId,
    ) -> Option<Self> {
        Some(Later {
            snapshot: snapshot.clone(),
            disk,
            counts_from: counts_from(queue, since)?,
            found: None,
        })
    }

    /// The first such position at or after this one. Asked for in order of position, each row is gone over once.
    pub fn next(&mut self, position: u64) -> Result<Option<u64>, StoreError> {
        match self.found {
            Some((asked, None)) if asked <= position => return Ok(None),
            Some((asked, Some(found))) if (asked..=found).contains(&position) => {
                return Ok(Some(found));
            }
            _ => {}
        }
        let next = match self.counts_from {
            From::Ordinal(base) => self.snapshot.next_changed_since(self.disk, position, base),
            From::Pass => self.snapshot.next_changed_after_pass(self.disk, position),
        };
        let next = next?;
        self.found = Some((position, next));
        Ok(next)
    }

    /// The blocks in which what was captured may differ from the disk, by position; `None` for all of them.
    pub fn blocks(
        &self,
        range: Range<u64>,
    ) -> Result<BTreeMap<u64, Option<BlockMask>>, StoreError> {
        match self.counts_from {
            From::Ordinal(base) => self.snapshot.changed_since(self.disk, range, base),
            From::Pass => self.snapshot.changed_after_pass(self.disk, range),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::rows::PointFacts;
    use super::*;
    use vault_format::VmId;
    use vault_format::manifest::{Consistency, PointBytes};

    fn row(point: Option<u8>, pass: Option<u8>) -> QueueRow {
        let id = |n| CaptureId([n; 16]);
        let point = point.map(|n| PointFacts {
            capture: id(n),
            captured_at: String::new(),
            consistency: Consistency::Crash,
            software: String::new(),
            hardware: None,
            bytes: PointBytes::default(),
            log: 0,
            fence: None,
        });
        QueueRow {
            vm: "vm".into(),
            vm_id: VmId([1; 16]),
            pass: pass.map(id),
            under_way: None,
            disks: Vec::new(),
            needs: Default::default(),
            priority: 1,
            cost: PointBytes::default(),
            point,
        }
    }

    #[test]
    fn all_counts_that_was_captured_after_what_the_tracking_knows() {
        let published = 9;
        let points = vec![(3, row(Some(1), None)), (7, row(Some(2), None))];
        let draft = |pass| [&points[..], &[(8, row(None, pass))]].concat();
        for (queue, since, expected) in [
            (vec![], published, None),
            (points.clone(), published, Some(From::Ordinal(0))),
            (points.clone(), 1, Some(From::Ordinal(3))),
            (points.clone(), 2, None),
            (draft(None), 2, Some(From::Ordinal(7))),
            (draft(Some(5)), 2, Some(From::Ordinal(7))),
            (draft(Some(5)), published, Some(From::Ordinal(0))),
            (draft(Some(5)), 5, Some(From::Pass)),
        ] {
            let found = counts_from(&queue, CaptureId([since; 16]));
            assert_eq!(found, expected, "since {since}, {} captures", queue.len());
        }
    }
}
