//! The state's map of each disk, as it is published, and what captures that are not published yet change in it.

use super::state::{MAP, State, take_numbers};
use crate::StoreError;
use vault_format::ChunkId;
use vault_format::layer::{Run, RunBuilder, Slot};
use vault_format::record::BlockMask;

impl State {
    /// A number that no disk has had.
    pub fn new_disk_number(&self) -> Result<u32, StoreError> {
        self.write(|w| Ok(take_numbers(w, "disk", 1)? as u32))
    }

    /// Runs of at most `most` positions from `from` on, and where to go on if there are more: what the capture with the
    /// ordinal `capture`, the next to be published, changes in `disk`, or (`whole`) what the disk then holds.
    pub fn runs_from(
        &self,
        (disk, capture): (u32, u64),
        from: u64,
        whole: bool,
        most: u64,
    ) -> Result<(Vec<Run>, Option<u64>), StoreError> {
        let snapshot = self.snapshot()?;
        let mut slots = match whole {
            true => snapshot.slots(disk, from..u64::MAX, capture)?,
            false => snapshot.changed(disk, from..u64::MAX, capture)?,
        };
        let mut builder = RunBuilder::default();
        while let Some((position, slot)) = slots.next().transpose()? {
            if !whole || slot != Slot::Hole {
                builder.push(position, slot);
            }
            if builder.positions() >= most {
                let more = slots.next().transpose()?.map(|(position, _)| position);
                return Ok((builder.runs(), more));
            }
        }
        Ok((builder.runs(), None))
    }

    /// Lays a layer's runs over the map, straight: what a rebuild does.
    pub fn overlay(&self, disk: u32, runs: &[Run]) -> Result<(), StoreError> {
        self.write(|w| {
            let mut map = w.open_table(MAP)?;
            for run in runs {
                match run {
                    Run::Holes { .. } => {
                        map.retain_in((disk, run.first())..(disk, run.end()), |_, _| false)?;
                    }
                    Run::Chunks { first, ids } => {
                        for (position, id) in (*first..).zip(ids) {
                            map.insert((disk, position), &id.0)?;
                        }
                    }
                }
            }
            Ok(())
        })
    }
}

/// What a capture changed at one position.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Change {
    pub slot: Slot,
    /// Blocks in which it may differ from what was there before; `None` for all of them.
    pub blocks: Option<BlockMask>,
}

impl Change {
    /// A pass may come to a position twice: it differs in what either changed.
    pub fn over(&self, before: Change) -> Change {
        let both = self.blocks.as_ref().zip(before.blocks.as_ref());
        Change {
            slot: self.slot,
            blocks: both.map(|(now, before)| before.union(now)),
        }
    }

    /// A hole is empty, a chunk its id and the mask.
    pub fn encode(&self) -> Vec<u8> {
        let mask = self.blocks.as_ref().map_or(&[][..], BlockMask::as_bytes);
        match &self.slot {
            Slot::Hole => Vec::new(),
            Slot::Chunk(id) => [&id.0[..], mask].concat(),
        }
    }

    pub fn decode(bytes: &[u8]) -> Self {
        let Some((id, mask)) = bytes.split_first_chunk::<32>() else {
            return Change {
                slot: Slot::Hole,
                blocks: None,
            };
        };
        Change {
            slot: Slot::Chunk(ChunkId(*id)),
            blocks: (!mask.is_empty()).then(|| BlockMask::from_bytes(mask)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::rows::{DiskRow, PendingRow, QueueRow, Scrub, VmRow};
    use super::*;
    use crate::setup::{VaultRequest, prepare_vault_at};
    use vault_format::ids::{CaptureId, ObjectHash};
    use vault_format::kit::Argon2idCosts;
    use vault_format::{PointId, VmId};

    fn state(folder: &std::path::Path) -> State {
        let request = VaultRequest {
            url: "file:///x",
            region: None,
            chunk_bytes: 65_536,
            label: "test",
            passphrase: "passphrase",
            now: jiff::Timestamp::now(),
        };
        let costs = Argon2idCosts {
            memory_kib: 64,
            iterations: 1,
            parallelism: 1,
        };
        let prepared = prepare_vault_at(&request, costs).unwrap();
        State::open(folder, &prepared.key).unwrap()
    }

    fn pending(capture: u64, disks: [u32; 2]) -> PendingRow {
        let disk = |number: u32| DiskRow {
            name: number.to_string(),
            number,
            size_bytes: 0,
            excluded: false,
            layers: Vec::new(),
            mapped: 0,
            scrub: Scrub::default(),
        };
        let vm = VmRow {
            name: "vm".into(),
            vm_id: VmId([1; 16]),
            point: PointId {
                epoch: 1,
                sequence: 1,
            },
            hash: ObjectHash([0; 32]),
            object: "points/x".into(),
            captured_at: String::new(),
            capture: CaptureId([0; 16]),
            consistency: String::new(),
            taken_from: None,
            disks: disks.map(disk).to_vec(),
            fenced: Default::default(),
        };
        PendingRow {
            manifest: Vec::new(),
            vm,
            packs: Vec::new(),
            capture,
        }
    }

    fn chunk(n: u8) -> Slot {
        Slot::Chunk(ChunkId([n; 32]))
    }

    fn change(state: &State, capture: u64, disk: u32, slots: &[(u64, Slot)]) {
        let row = QueueRow {
            vm: "vm".into(),
            vm_id: VmId([1; 16]),
            pass: None,
            under_way: None,
            disks: Vec::new(),
            needs: Default::default(),
            priority: 1,
            cost: Default::default(),
            point: None,
        };
        let change = |(at, slot): &(u64, Slot)| {
            let (slot, blocks) = (*slot, None);
            (*at, Change { slot, blocks })
        };
        let changes: Vec<_> = slots.iter().map(change).collect();
        let changes = [(disk, changes)].into();
        state.add_changes(capture, &row, &changes).unwrap();
    }

    #[test]
    fn later_captures_lie_over_earlier_ones_and_all_over_what_is_published() {
        let folder = tempfile::tempdir().unwrap();
        let state = state(folder.path());
        let ids = [1, 2, 3, 4].map(|n| ChunkId([n; 32])).to_vec();
        state.overlay(4, &[Run::Chunks { first: 10, ids }]).unwrap();
        change(
            &state,
            1,
            4,
            &[(10, chunk(5)), (11, Slot::Hole), (20, chunk(6))],
        );
        change(
            &state,
            2,
            4,
            &[(10, Slot::Hole), (12, chunk(7)), (20, chunk(8))],
        );
        let snapshot = state.snapshot().unwrap();
        let mapped = |range| snapshot.mapped(4, range).unwrap();
        let id = |n| ChunkId([n; 32]);
        assert_eq!(mapped(0..100), [(12, id(7)), (13, id(4)), (20, id(8))]);
        assert_eq!(mapped(13..20), [(13, id(4))]);
        assert_eq!(snapshot.next_mapped(4, 0).unwrap(), Some(12));
        assert_eq!(snapshot.next_mapped(4, 21).unwrap(), None);
        let as_of = |last| -> Vec<(u64, Slot)> {
            let slots = snapshot.slots(4, 0..100, last).unwrap();
            slots.map(Result::unwrap).collect()
        };
        let first = [
            (10, chunk(5)),
            (11, Slot::Hole),
            (12, chunk(3)),
            (13, chunk(4)),
            (20, chunk(6)),
        ];
        assert_eq!(as_of(1), first);
        assert_eq!(as_of(0)[..2], [(10, chunk(1)), (11, chunk(2))]);
        let since = |base| snapshot.changed_since(4, 0..100, base).unwrap();
        assert_eq!(since(0).into_keys().collect::<Vec<_>>(), [10, 11, 12, 20]);
        assert_eq!(since(1).into_keys().collect::<Vec<_>>(), [10, 12, 20]);
        assert_eq!(snapshot.next_changed_since(4, 11, 1).unwrap(), Some(12));
    }

    #[test]
    fn a_point_becomes_the_map_page_by_page_and_a_death_in_between_changes_nothing() {
        use std::sync::atomic::Ordering::Relaxed;
        let folder = tempfile::tempdir().unwrap();
        let state = state(folder.path());
        let ids = [1, 2, 3, 4].map(|n| ChunkId([n; 32])).to_vec();
        state.overlay(4, &[Run::Chunks { first: 0, ids }]).unwrap();
        let slots: Vec<_> = (0..40)
            .map(|at| match at % 5 {
                0 => (at, Slot::Hole),
                _ => (at, chunk(100 + at as u8)),
            })
            .collect();
        change(&state, 1, 4, &slots);
        change(&state, 1, 6, &slots[..9]);
        change(&state, 2, 4, &[(3, chunk(9)), (50, chunk(9))]);
        let pending = pending(1, [4, 6]);
        state.put_pending(&pending).unwrap();
        let all = || -> Vec<(u64, Slot)> {
            let snapshot = state.snapshot().unwrap();
            let both = [4, 6].map(|disk| snapshot.mapped(disk, 0..100).unwrap());
            let slots = both.concat().into_iter();
            slots.map(|(at, id)| (at, Slot::Chunk(id))).collect()
        };
        let (before, mut deaths) = (all(), 0);
        loop {
            state.commits_left.store(1, Relaxed);
            let applied = state.apply_in_pages(&pending, &[], 7);
            state.commits_left.store(u64::MAX, Relaxed);
            assert_eq!(all(), before, "after {deaths} deaths");
            if applied.is_ok() {
                break;
            }
            assert_eq!(state.pending().unwrap().len(), 1);
            deaths += 1;
        }
        assert_eq!(deaths, 6, "49 rows, 7 at a time");
        assert!(state.pending().unwrap().is_empty());
        let snapshot = state.snapshot().unwrap();
        let left = snapshot.changed(4, 0..100, u64::MAX).unwrap();
        assert_eq!(left.count(), 2, "the later capture's");
    }

    /// All positions, asked for `most` at a time.
    fn slots(state: &State, whole: bool, most: u64) -> Vec<(u64, Slot)> {
        let (mut out, mut from) = (Vec::new(), Some(0));
        while let Some(begin) = from {
            let (runs, more) = state.runs_from((4, 1), begin, whole, most).unwrap();
            let slots = runs.iter().flat_map(|run| {
                (run.first()..run.end()).filter_map(|at| run.slot(at).map(|slot| (at, slot)))
            });
            let before = out.len();
            out.extend(slots);
            assert!((out.len() - before) as u64 <= most);
            from = more;
        }
        out
    }

    #[test]
    fn runs_are_what_changed_or_what_the_disk_then_holds_in_parts_of_any_size() {
        let folder = tempfile::tempdir().unwrap();
        let state = state(folder.path());
        let ids = |numbers: &[u8]| numbers.iter().map(|n| ChunkId([*n; 32])).collect();
        let run = |first, numbers: &[u8]| Run::Chunks {
            first,
            ids: ids(numbers),
        };
        // Neighbours in the table are other disks' positions.
        state.overlay(3, &[run(0, &[9, 9])]).unwrap();
        state.overlay(5, &[run(0, &[9, 9])]).unwrap();
        state
            .overlay(4, &[run(1, &[1, 2, 3]), run(10, &[4, 5])])
            .unwrap();
        let changes = [
            (0, chunk(6)),
            (2, Slot::Hole),
            (3, chunk(7)),
            (11, Slot::Hole),
            (20, chunk(8)),
        ];
        change(&state, 1, 4, &changes);
        // A later capture's changes are not this one's.
        change(
            &state,
            2,
            4,
            &[(1, Slot::Hole), (3, chunk(9)), (30, chunk(9))],
        );
        change(&state, 1, 5, &[(0, chunk(9))]);
        for most in [1, 2, 3, 100] {
            assert_eq!(slots(&state, false, most), changes, "{most}");
            let whole = [
                (0, chunk(6)),
                (1, chunk(1)),
                (3, chunk(7)),
                (10, chunk(4)),
                (20, chunk(8)),
            ];
            assert_eq!(slots(&state, true, most), whole, "{most}");
        }
    }
}
