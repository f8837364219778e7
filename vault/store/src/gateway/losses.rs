//! Packs that are lost before they arrived. What of the queue goes with them goes in the same commit: a process that dies
//! knows them still, and asks about them again, or nothing is left that needs them.

use super::Shared;
use super::rows::{PackRow, QueueRow};
use super::state::{ENTRIES, State};
use super::state_packs::{drop_chunks, drop_packs, entries_in, update_pack_rows};
use super::state_queue::{drop_capture, put_row, unlearn};
use super::uploader::needs_of;
use crate::StoreError;
use redb::WriteTransaction;
use std::collections::{BTreeSet, HashMap, HashSet};
use vault_format::{ChunkId, VmId, names};

/// Chunks looked for at once in what drafts changed: 40 MB of memory, however much is lost.
const CHUNKS_PER_LOOK: usize = 1 << 20;

/// What goes with packs that never arrived.
#[derive(Debug, Default)]
pub(super) struct Loss {
    /// Forgotten, and what was to be known by them.
    pub packs: Vec<u64>,
    /// These arrived, and stand on those: their chunks are not known any more.
    pub useless: Vec<u64>,
    /// Points that need them, those of their VMs that follow, and the drafts behind those.
    pub captures: Vec<(u64, QueueRow)>,
    /// They forget what they have of them.
    pub drafts: Vec<(u64, QueueRow)>,
}

impl Shared {
    /// Packs of which nobody knows whether they arrived, and that the outbox has not.
    pub(super) fn doubtful_packs(&self) -> Result<HashMap<u64, PackRow>, StoreError> {
        let mut packs = self.waiting_packs()?;
        packs.retain(|_, pack| !self.outbox.has(&pack.name));
        Ok(packs)
    }

    /// Those, and all that stand on them: whatever a capture builds on these goes if they are lost.
    pub(super) fn unsure_packs(&self) -> Result<BTreeSet<u64>, StoreError> {
        let doubtful: Vec<u64> = self.doubtful_packs()?.into_keys().collect();
        match doubtful.is_empty() {
            true => Ok(BTreeSet::new()),
            false => Ok(with_dependents(
                &doubtful,
                &self.state.packs()?.into_iter().collect(),
            )),
        }
    }

    /// A VM's draft forgets what it has of doubtful packs: a capture that cannot wait to learn about them must not build on
    /// them, and its point does not need them.
    pub(super) fn forget_unsure(&self, vm_id: &VmId) -> Result<(), StoreError> {
        let unsure: Vec<u64> = self.unsure_packs()?.into_iter().collect();
        let mut drafts = self.state.queue_of(vm_id)?;
        drafts.retain(|(_, row)| row.point.is_none());
        match unsure.is_empty() || drafts.is_empty() {
            true => Ok(()),
            false => self.state.disown(&drafts, &unsure),
        }
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
        if lost.is_empty() {
            return Ok(Vec::new());
        }
        let all = self.state.packs()?.into_iter().collect();
        let loss = plan_loss(&lost, &all, self.state.queue()?);
        self.state.lose(&loss)?;
        self.tidy_outbox()?;
        let points = loss.captures.into_iter().filter_map(|(_, row)| row.point);
        let gone = points.map(|point| format!(
            "the recovery point captured at {} was lost before it was sent: its part of the outbox is gone; the next one compares what changed since the one before it",
            point.captured_at
        ));
        Ok(gone.collect())
    }
}

/// What is lost with these packs, which never arrived.
fn plan_loss(lost: &[u64], packs: &HashMap<u64, PackRow>, queue: Vec<(u64, QueueRow)>) -> Loss {
    let gone = with_dependents(lost, packs);
    // What arrived and stands on what is lost is of no use either.
    let (useless, never_arrived) = gone
        .iter()
        .partition(|pack| packs.get(pack).is_some_and(|row| row.arrived));
    let mut loss = Loss {
        packs: never_arrived,
        useless,
        ..Loss::default()
    };
    let mut broken: HashSet<VmId> = HashSet::new();
    for (ordinal, row) in queue {
        let is_hit = !needs_of(ordinal, &row, packs).is_disjoint(&gone);
        let is_broken = broken.contains(&row.vm_id);
        match row.point {
            Some(_) if is_hit || is_broken => {
                broken.insert(row.vm_id);
                loss.captures.push((ordinal, row));
            }
            None if is_broken => loss.captures.push((ordinal, row)),
            None if is_hit => loss.drafts.push((ordinal, row)),
            _ => {}
        }
    }
    loss
}

/// These packs, and all that stand on them.
pub(super) fn with_dependents(lost: &[u64], packs: &HashMap<u64, PackRow>) -> BTreeSet<u64> {
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

impl State {
    pub fn lose(&self, loss: &Loss) -> Result<(), StoreError> {
        self.write(|w| {
            for (ordinal, row) in &loss.captures {
                drop_capture(w, *ordinal, &row.disks)?;
            }
            let gone = [&loss.packs[..], &loss.useless].concat();
            repair_drafts(w, &loss.drafts, &gone)?;
            drop_packs(w, &loss.packs)?;
            drop_chunks(w, &loss.useless)
        })
    }

    /// Drafts forget what they have of these packs, which are theirs no more: their points do not wait for them, and are
    /// not lost with them.
    fn disown(&self, drafts: &[(u64, QueueRow)], packs: &[u64]) -> Result<(), StoreError> {
        self.write(|w| {
            repair_drafts(w, drafts, packs)?;
            update_pack_rows(w, packs, &|pack: &mut PackRow| {
                let is_theirs = |(ordinal, _): &(u64, QueueRow)| pack.capture == Some(*ordinal);
                if drafts.iter().any(is_theirs) {
                    pack.capture = None;
                }
            })
        })
    }
}

/// A draft's positions that held chunks of these packs are looked at again, by the pass that had seen them.
fn repair_drafts(
    w: &WriteTransaction,
    drafts: &[(u64, QueueRow)],
    packs: &[u64],
) -> Result<(), redb::Error> {
    if drafts.is_empty() {
        return Ok(());
    }
    let mut first: Vec<Option<Place>> = vec![None; drafts.len()];
    let mut forgotten: HashSet<ChunkId> = HashSet::new();
    for (number, pack) in packs.iter().enumerate() {
        let entries = entries_in(&w.open_table(ENTRIES)?, *pack)?;
        forgotten.extend(entries.into_iter().map(|entry| entry.id));
        if forgotten.len() < CHUNKS_PER_LOOK && number + 1 < packs.len() {
            continue;
        }
        for ((ordinal, row), first) in drafts.iter().zip(&mut first) {
            let gone = unlearn(w, *ordinal, &row.disks, &forgotten)?;
            *first = first.iter().copied().chain(gone).min();
        }
        forgotten.clear();
    }
    for ((ordinal, row), first) in drafts.iter().zip(first) {
        let mut repaired = first.map_or_else(|| row.clone(), |first| sent_back(row, first));
        repaired.needs.retain(|pack| !packs.contains(pack));
        put_row(w, *ordinal, &repaired)?;
    }
    Ok(())
}

/// Index of a disk in its draft, and position.
pub(super) type Place = (usize, u64);

/// The draft as it is when it has forgotten what it knew at `first` and perhaps behind: no pass over it is complete.
fn sent_back(row: &QueueRow, first: Place) -> QueueRow {
    let pass = row.under_way.map(|(id, ..)| id).or(row.pass);
    let reached = row.under_way.map(|(_, number, position)| {
        let index = row.disks.iter().position(|disk| disk.number == number);
        // A disk that is gone: nobody knows what was behind it.
        index.map_or((0, 0), |index| (index, position))
    });
    let (index, position) = reached.map_or(first, |reached| reached.min(first));
    QueueRow {
        under_way: pass.map(|id| (id, row.disks[index].number, position)),
        pass: None,
        ..row.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::super::rows::{DiskRow, PointFacts, Scrub};
    use super::*;
    use vault_format::ids::{CaptureId, PackName};
    use vault_format::manifest::{Consistency, PointBytes};

    fn pack(arrived: bool, capture: u64, after: &[u64]) -> PackRow {
        PackRow {
            name: PackName([0; 32]),
            size: 1,
            arrived,
            holder: None,
            indexed: false,
            adopted: false,
            capture: Some(capture),
            after: after.to_vec(),
        }
    }

    fn row(vm: u8, needs: &[u64], is_point: bool) -> QueueRow {
        let disk = |number: u32| DiskRow {
            name: number.to_string(),
            number,
            size_bytes: 0,
            excluded: false,
            layers: Vec::new(),
            mapped: 0,
            scrub: Scrub::default(),
        };
        let point = PointFacts {
            capture: CaptureId([0; 16]),
            captured_at: String::new(),
            consistency: Consistency::Crash,
            software: String::new(),
            hardware: None,
            bytes: PointBytes::default(),
            log: 0,
            fence: None,
        };
        QueueRow {
            vm: vm.to_string(),
            vm_id: VmId([vm; 16]),
            pass: None,
            under_way: None,
            disks: vec![disk(7), disk(3)],
            needs: needs.iter().copied().collect(),
            priority: 1,
            cost: PointBytes::default(),
            point: is_point.then_some(point),
        }
    }

    #[test]
    fn with_a_lost_pack_goes_all_that_stands_on_it() {
        let packs = HashMap::from([
            (1, pack(true, 10, &[])),
            (2, pack(false, 10, &[])),
            (3, pack(false, 11, &[2])),
            (4, pack(true, 12, &[3])),
            (5, pack(false, 13, &[1])),
        ]);
        let queue = vec![
            (9, row(1, &[], true)),
            (10, row(1, &[], true)),
            // Of the same VM, and behind.
            (14, row(1, &[], true)),
            (15, row(1, &[], false)),
            // Its pack stands on a lost one that arrived.
            (12, row(2, &[], true)),
            (13, row(3, &[1], true)),
            (16, row(4, &[3], false)),
            (17, row(5, &[1], false)),
        ];
        let loss = plan_loss(&[2], &packs, queue);
        let numbers = |rows: &[(u64, QueueRow)]| -> Vec<u64> {
            rows.iter().map(|(ordinal, _)| *ordinal).collect()
        };
        assert_eq!((loss.packs, loss.useless), (vec![2, 3], vec![4]));
        assert_eq!(numbers(&loss.captures), [10, 14, 15, 12]);
        assert_eq!(numbers(&loss.drafts), [16]);
    }

    #[test]
    fn a_draft_goes_on_where_it_first_forgot_something_and_no_pass_of_it_is_trusted() {
        let (complete, other) = (CaptureId([1; 16]), CaptureId([2; 16]));
        let draft = |pass, under_way| QueueRow {
            pass,
            under_way,
            ..row(1, &[], false)
        };
        // Disks are gone through in the order of the draft: 7, then 3.
        for (pass, under_way, first, expected) in [
            (Some(complete), None, (1, 5), Some((complete, 3, 5))),
            (
                Some(complete),
                Some((other, 3, 9)),
                (1, 5),
                Some((other, 3, 5)),
            ),
            (
                Some(complete),
                Some((other, 7, 9)),
                (1, 5),
                Some((other, 7, 9)),
            ),
            (None, Some((other, 3, 9)), (0, 50), Some((other, 7, 50))),
            (None, Some((other, 99, 9)), (0, 50), Some((other, 7, 0))),
            (None, None, (0, 50), None),
        ] {
            let back = sent_back(&draft(pass, under_way), first);
            assert_eq!((back.pass, back.under_way), (None, expected), "{first:?}");
        }
    }
}
