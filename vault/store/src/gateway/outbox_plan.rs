//! What is decided of the outbox: whether a capture fits, in which order its packs and points are sent, and which packs
//! nobody needs. Pure.

use std::collections::{BTreeMap, BTreeSet};
use vault_format::VmId;

/// How full the outbox is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OutboxUse {
    pub most_bytes: u64,
    pub used_bytes: u64,
    /// Points that wait, of each VM that has any.
    pub vms: BTreeMap<String, VmWaiting>,
}

/// What waits of one VM.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct VmWaiting {
    /// Those that can be sent.
    pub points: u64,
    /// Those that cannot, as long as the VM is another gateway's.
    pub held: u64,
    pub bytes: u64,
}

/// What to do with a capture that is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CapturePlan {
    /// It waits behind those that wait already.
    Append,
    /// It replaces what waits of its VM.
    Supersede,
    /// There is no room: it is not begun.
    NoRoom,
}

/// Decides before a capture of which `expected_bytes` are expected. Replacing needs room for the new points beside the
/// old ones, which go only when the new ones are whole; so room for the largest VM's is kept free, also by a VM's first:
/// one that took all the room would leave none for any VM until the uplink is back.
pub fn plan_capture(outbox: &OutboxUse, vm: &str, expected_bytes: u64) -> CapturePlan {
    let own = outbox.vms.get(vm).copied().unwrap_or_default();
    let largest = outbox.vms.values().map(|vm| vm.bytes).max().unwrap_or(0);
    let after = outbox.used_bytes + expected_bytes;
    let replacement = largest.max(own.bytes + expected_bytes);
    if after + replacement <= outbox.most_bytes {
        CapturePlan::Append
    } else if own.points > 0 && after + own.bytes <= outbox.most_bytes {
        CapturePlan::Supersede
    } else {
        CapturePlan::NoRoom
    }
}

/// A point that waits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct WaitingPoint {
    pub capture: u64,
    pub vm: VmId,
    pub priority: u32,
    /// Its own packs, and others that it refers to.
    pub needs: BTreeSet<u64>,
}

/// Packs that have not arrived, and those that their patches stand on.
pub(super) type WaitingPacks = BTreeMap<u64, Vec<u64>>;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Step {
    Pack(u64),
    Point(u64),
}

/// Everything that waits, in the order in which it is sent: by priority, but what a point needs goes before it, and a
/// VM's points go in their order. Packs that no point needs come last.
pub(super) fn plan_uploads(points: &[WaitingPoint], packs: &WaitingPacks) -> Vec<Step> {
    let mut by_priority: Vec<&WaitingPoint> = points.iter().collect();
    by_priority.sort_by_key(|point| (point.priority, point.capture));
    let (mut steps, mut planned) = (Vec::new(), BTreeSet::new());
    let mut plan = |point: &WaitingPoint| {
        if !planned.contains(&Step::Point(point.capture)) {
            let needs = closure(&point.needs, packs).into_iter().map(Step::Pack);
            let all = needs.chain([Step::Point(point.capture)]);
            steps.extend(all.filter(|step| planned.insert(*step)));
        }
    };
    for point in by_priority {
        let mut before: Vec<&WaitingPoint> = points
            .iter()
            .filter(|other| other.vm == point.vm && other.capture <= point.capture)
            .collect();
        before.sort_by_key(|other| other.capture);
        before.into_iter().for_each(&mut plan);
    }
    let rest = packs.keys().map(|pack| Step::Pack(*pack));
    steps.extend(rest.filter(|step| !planned.contains(step)));
    steps
}

/// The first point, by priority, that needs nothing any more, and before which no other of its VM waits.
pub(super) fn ready_point(points: &[WaitingPoint], packs: &WaitingPacks) -> Option<u64> {
    let is_first = |point: &&WaitingPoint| {
        let mut others = points.iter().filter(|other| other.vm == point.vm);
        others.all(|other| other.capture >= point.capture)
    };
    points
        .iter()
        .filter(is_first)
        .filter(|point| closure(&point.needs, packs).is_empty())
        .min_by_key(|point| (point.priority, point.capture))
        .map(|point| point.capture)
}

/// These packs, and all that they stand on, as far as they have not arrived.
pub(super) fn closure(needs: &BTreeSet<u64>, packs: &WaitingPacks) -> BTreeSet<u64> {
    let mut out = BTreeSet::new();
    let mut open: Vec<u64> = needs.iter().copied().collect();
    while let Some(pack) = open.pop() {
        if let Some(after) = packs.get(&pack)
            && out.insert(pack)
        {
            open.extend(after);
        }
    }
    out
}

/// The waiting packs that none of the captures that stay needs.
pub(super) fn unneeded<'p>(
    stay: impl Iterator<Item = &'p BTreeSet<u64>>,
    packs: &WaitingPacks,
) -> Vec<u64> {
    let needed: BTreeSet<u64> = stay.flat_map(|needs| closure(needs, packs)).collect();
    let waiting = packs.keys().copied();
    waiting.filter(|pack| !needed.contains(pack)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outbox(used: u64, vms: &[(&str, u64, u64)]) -> OutboxUse {
        let vms = vms.iter().map(|(name, points, bytes)| {
            let waiting = VmWaiting {
                points: *points,
                bytes: *bytes,
                held: 0,
            };
            ((*name).to_owned(), waiting)
        });
        OutboxUse {
            most_bytes: 100,
            used_bytes: used,
            vms: vms.collect(),
        }
    }

    #[test]
    fn there_is_always_room_to_replace_what_was_appended() {
        // Every run of captures of two VMs, whatever they cost: an appended one can be replaced at its cost.
        for costs in 0..5_u64.pow(6) {
            let (mut state, mut rest) = (outbox(0, &[]), costs);
            for turn in 0..6 {
                let (vm, cost) = (["a", "b"][turn % 2], rest % 5 * 7);
                rest /= 5;
                let own = state.vms.get(vm).copied().unwrap_or_default();
                match plan_capture(&state, vm, cost) {
                    CapturePlan::Append => {
                        state.used_bytes += cost;
                        let own = state.vms.entry(vm.to_owned()).or_default();
                        (own.points, own.bytes) = (own.points + 1, own.bytes + cost);
                    }
                    CapturePlan::Supersede => {
                        assert!(state.used_bytes + own.bytes + cost <= 100);
                        state.used_bytes += cost;
                        let own = state.vms.entry(vm.to_owned()).or_default();
                        (own.points, own.bytes) = (1, own.bytes + cost);
                    }
                    CapturePlan::NoRoom => {}
                }
                assert!(state.used_bytes <= 100, "{costs}: {state:?}");
            }
        }
    }

    #[test]
    fn a_full_outbox_is_superseded_and_one_without_room_for_that_takes_nothing() {
        for (used, vms, expected, plan) in [
            (0, &[][..], 50, CapturePlan::Append),
            (0, &[], 51, CapturePlan::NoRoom),
            (40, &[("a", 2, 40)], 5, CapturePlan::Append),
            (48, &[("a", 2, 48)], 4, CapturePlan::Supersede),
            (60, &[("a", 2, 60)], 4, CapturePlan::NoRoom),
            // Another VM's points are not this one's to replace; it may have its first one as long as those can be.
            (40, &[("b", 2, 40)], 20, CapturePlan::Append),
            (40, &[("b", 2, 40)], 21, CapturePlan::NoRoom),
        ] {
            assert_eq!(
                plan_capture(&outbox(used, vms), "a", expected),
                plan,
                "{used}"
            );
        }
    }

    #[test]
    fn one_vms_first_point_leaves_room_for_the_others_and_to_replace_it() {
        let mut state = outbox(0, &[]);
        let mut largest = (0..=100).rev();
        let fits = |bytes: &u64| plan_capture(&state, "a", *bytes) == CapturePlan::Append;
        assert_eq!(largest.find(fits), Some(50));
        // One that leaves others some.
        state = outbox(30, &[("a", 1, 30)]);
        assert_eq!(plan_capture(&state, "b", 30), CapturePlan::Append);
        state = outbox(60, &[("a", 1, 30), ("b", 1, 30)]);
        assert_eq!(plan_capture(&state, "a", 10), CapturePlan::Supersede);
        assert_eq!(plan_capture(&state, "b", 10), CapturePlan::Supersede);
    }

    fn point(capture: u64, vm: u8, priority: u32, needs: &[u64]) -> WaitingPoint {
        WaitingPoint {
            capture,
            vm: VmId([vm; 16]),
            priority,
            needs: needs.iter().copied().collect(),
        }
    }

    #[test]
    fn what_a_point_needs_goes_before_it_whatever_the_priorities() {
        use Step::{Pack, Point};
        let packs = BTreeMap::from([
            (1, vec![]),
            (2, vec![1]),
            (3, vec![2, 9]),
            (4, vec![]),
            (5, vec![]),
        ]);
        let points = [
            point(10, 1, 5, &[1, 2]),
            point(11, 2, 1, &[3]),
            point(12, 1, 1, &[4]),
        ];
        let steps = plan_uploads(&points, &packs);
        // The urgent point of VM 2 stands on what VM 1 sends; VM 1's urgent second point waits for its first.
        let expected = [
            Pack(1),
            Pack(2),
            Pack(3),
            Point(11),
            Point(10),
            Pack(4),
            Point(12),
            Pack(5),
        ];
        assert_eq!(steps, expected);
    }

    #[test]
    fn a_point_is_ready_when_its_packs_have_arrived_and_its_elders_are_published() {
        let packs = BTreeMap::from([(3, vec![]), (4, vec![3])]);
        let points = [
            point(10, 1, 1, &[4]),
            point(11, 1, 1, &[1]),
            point(12, 2, 9, &[2]),
            point(13, 3, 8, &[]),
        ];
        assert_eq!(ready_point(&points, &packs), Some(13));
        assert_eq!(ready_point(&points[..2], &packs), None);
        assert_eq!(ready_point(&points[..2], &BTreeMap::new()), Some(10));
    }

    #[test]
    fn a_pack_goes_only_if_nothing_that_stays_stands_on_it() {
        let packs = BTreeMap::from([(1, vec![]), (2, vec![1]), (3, vec![2]), (4, vec![])]);
        let stay = [BTreeSet::from([3]), BTreeSet::new()];
        assert_eq!(unneeded(stay.iter(), &packs), [4]);
        assert_eq!(unneeded([BTreeSet::from([1])].iter(), &packs), [2, 3, 4]);
    }
}
