//! The one decision of the daemon: what to begin now, or until when to wait. Pure.

use std::{cmp::Reverse, time::Duration};

use jiff::{SignedDuration, Timestamp};

use super::Failures;

/// What is known of one VM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VmStanding {
    pub name: String,
    /// VMs of one consistency group are captured together.
    pub group: Option<String>,
    /// The machine that is read from: one capture at a time on each.
    pub host: Option<usize>,
    /// 1 first; `None` after all that have one.
    pub priority: Option<u32>,
    pub rpo_target: Duration,
    /// The instant of its newest point, published or queued; `None` before the first sync is done.
    pub captured_at: Option<Timestamp>,
    /// How many of its points wait in the outbox.
    pub queued: u32,
    pub took: Option<Took>,
    pub failures: Failures,
    /// It is being captured, or its first sync is under way.
    pub running: bool,
}

/// How long its last point took.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Took {
    pub capture: Duration,
    /// To send what is its own; waiting for other points in the outbox is no part of it.
    pub upload: Duration,
}

/// What is known of the outbox and the way out.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct UplinkStanding {
    /// Something waits to be sent.
    pub waiting: bool,
    pub running: bool,
    pub failures: Failures,
    /// No upload before; `None`: the uplink is open.
    pub off_until: Option<Timestamp>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Schedule {
    /// First syncs under way at once: they compete for one uplink.
    pub first_syncs: usize,
}

impl Default for Schedule {
    fn default() -> Self {
        Schedule { first_syncs: 1 }
    }
}

/// VMs are places in the slice that was given, in its order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// All of a group, or one VM.
    Capture { vms: Vec<usize> },
    /// The same, where a first point is still missing. Takes days; holds no host meanwhile.
    FirstSync { vms: Vec<usize> },
    /// The outbox, until it is empty.
    Upload,
    /// Nothing before this time, or before something that runs ends.
    Wait { until: Option<Timestamp> },
}

/// A point may take this much longer than the last one did, and is not late for it.
const MARGIN: f64 = 1.25;
/// Of the target, for whatever else there is.
const SPARE: f64 = 0.05;
/// Clocks that disagree by less are nothing to speak of.
const SKEW: SignedDuration = SignedDuration::from_secs(60);

/// VMs that are captured together.
#[derive(Debug)]
struct Unit {
    vms: Vec<usize>,
    hosts: Vec<Option<usize>>,
    priority: u32,
    rpo_target: Duration,
    first: bool,
    running: bool,
    /// When its next capture should begin; `None` is at once, whatever the time.
    due_at: Option<Timestamp>,
    /// Not before, after a failure.
    retry_at: Option<Timestamp>,
}

pub fn next_action(
    now: Timestamp,
    vms: &[VmStanding],
    uplink: &UplinkStanding,
    schedule: &Schedule,
) -> Action {
    let upload_at = [uplink.off_until, uplink.failures.retry_at(now, None)];
    let upload_at = upload_at.into_iter().flatten().max().filter(|at| *at > now);
    let can_upload = uplink.waiting && !uplink.running;
    if can_upload && upload_at.is_none() {
        return Action::Upload;
    }
    let units = units(now, vms);
    let busy: Vec<_> = units
        .iter()
        .filter(|unit| unit.running && !unit.first)
        .flat_map(|unit| unit.hosts.iter().copied())
        .collect();
    let first_syncs = units
        .iter()
        .filter(|unit| unit.running && unit.first)
        .count();
    let has_room = |unit: &&Unit| match unit.first {
        true => first_syncs < schedule.first_syncs,
        false => !unit.hosts.iter().any(|host| busy.contains(host)),
    };
    let idle = || units.iter().filter(|unit| !unit.running).filter(has_room);
    let mut ready: Vec<_> = idle().filter(|unit| unit.begin_at(now).is_none()).collect();
    ready.sort_by_key(|unit| unit.rank(now));
    if let Some(unit) = ready.first() {
        let vms = unit.vms.clone();
        return match unit.first {
            true => Action::FirstSync { vms },
            false => Action::Capture { vms },
        };
    }
    let later = idle().filter_map(|unit| unit.begin_at(now));
    Action::Wait {
        until: later.chain(upload_at.filter(|_| can_upload)).min(),
    }
}

fn units(now: Timestamp, vms: &[VmStanding]) -> Vec<Unit> {
    let mut units: Vec<Unit> = Vec::new();
    for (place, vm) in vms.iter().enumerate() {
        let first_of_group = vm
            .group
            .as_ref()
            .and_then(|_| vms.iter().position(|other| other.group == vm.group));
        if first_of_group.is_some_and(|first| first < place) {
            continue;
        }
        let members: Vec<usize> = match vm.group {
            Some(_) => (place..vms.len())
                .filter(|p| vms[*p].group == vm.group)
                .collect(),
            None => vec![place],
        };
        units.push(Unit::of(now, vms, members));
    }
    units
}

impl Unit {
    /// Of all that its VMs ask, the strictest.
    fn of(now: Timestamp, vms: &[VmStanding], members: Vec<usize>) -> Self {
        let all = || members.iter().map(|place| &vms[*place]);
        let first = all().any(|vm| vm.captured_at.is_none());
        let rpo_target = all().map(|vm| vm.rpo_target).min().unwrap_or_default();
        let retries = all().filter_map(|vm| vm.failures.retry_at(now, Some(vm.rpo_target)));
        let due = |vm: &VmStanding| due_at(now, vm, vms);
        let mut hosts: Vec<_> = all().map(|vm| vm.host).collect();
        hosts.sort_unstable();
        hosts.dedup();
        Unit {
            hosts,
            priority: all()
                .map(|vm| vm.priority.unwrap_or(u32::MAX))
                .min()
                .unwrap_or(u32::MAX),
            rpo_target,
            first,
            running: all().any(|vm| vm.running),
            due_at: match all().any(|vm| due(vm).is_none()) {
                true => None,
                false => all().filter_map(due).min(),
            },
            retry_at: retries.max(),
            vms: members,
        }
    }

    /// `None`: now.
    fn begin_at(&self, now: Timestamp) -> Option<Timestamp> {
        let begin = self.due_at.max(self.retry_at);
        begin.filter(|at| *at > now)
    }

    /// Lowest first. By priority; but who is late by more than its whole target goes before all who
    /// are not, the latest first, so that a high priority that can never be satisfied starves nobody.
    fn rank(&self, now: Timestamp) -> (Reverse<u64>, u32, Option<Timestamp>, usize) {
        let late = self
            .due_at
            .map_or(0, |due| now.duration_since(due).as_secs().max(0) as u64);
        let starved = match late > self.rpo_target.as_secs() {
            true => late,
            false => 0,
        };
        (Reverse(starved), self.priority, self.due_at, self.vms[0])
    }
}

/// When a VM's next capture should begin; `None` is at once.
fn due_at(now: Timestamp, vm: &VmStanding, vms: &[VmStanding]) -> Option<Timestamp> {
    let captured_at = vm.captured_at?;
    // A point of the future: the clock was set back, and its age tells nothing.
    if captured_at.duration_since(now) > SKEW {
        return None;
    }
    let pause = SignedDuration::try_from(pause_between(vm, vms)).ok()?;
    captured_at.checked_add(pause).ok()
}

/// From one capture to the next, so that the next point is published before this one is older than
/// the target: also when every other VM of the host is captured first, and every other point sent
/// first. Where that leaves too little, only what the VM itself takes counts, since capturing more
/// often would make the queues longer still.
fn pause_between(vm: &VmStanding, vms: &[VmStanding]) -> Duration {
    let target = vm.rpo_target;
    let spare = target.mul_f64(SPARE);
    let own = vm.took.unwrap_or(Took {
        capture: Duration::ZERO,
        upload: target / 4,
    });
    // Behind points that still wait, a point is published no sooner for being captured sooner.
    let (own_upload, counts) = match vm.queued {
        0 => (own.upload, true),
        _ => (Duration::ZERO, false),
    };
    let own = own.capture.saturating_add(own_upload).mul_f64(MARGIN);
    let others = vms.iter().filter(|other| other.name != vm.name);
    let before_us = others.fold(Duration::ZERO, |sum, other| {
        let took = other.took.unwrap_or_default();
        let capture = if other.host == vm.host {
            took.capture
        } else {
            Duration::ZERO
        };
        let upload = if counts { took.upload } else { Duration::ZERO };
        sum.saturating_add(capture).saturating_add(upload)
    });
    let least = target / 4;
    let left = |needed: Duration| target.saturating_sub(needed.saturating_add(spare));
    match left(own.saturating_add(before_us)) {
        pause if pause >= least => pause,
        _ => left(own).max(least),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_700_000_000 + second).expect("a time")
    }

    fn seconds(length: u64) -> Duration {
        Duration::from_secs(length)
    }

    /// Synced 10 minutes before the epoch of these tests, with a target of an hour.
    fn vm(name: &str) -> VmStanding {
        VmStanding {
            name: name.into(),
            group: None,
            host: None,
            priority: None,
            rpo_target: seconds(3600),
            captured_at: Some(at(-600)),
            queued: 0,
            took: Some(Took {
                capture: seconds(60),
                upload: seconds(540),
            }),
            failures: Failures::default(),
            running: false,
        }
    }

    fn next(now: i64, vms: &[VmStanding]) -> Action {
        next_action(
            at(now),
            vms,
            &UplinkStanding::default(),
            &Schedule::default(),
        )
    }

    fn capture(vms: &[usize]) -> Action {
        Action::Capture { vms: vms.into() }
    }

    fn wait(until: i64) -> Action {
        Action::Wait {
            until: Some(at(until)),
        }
    }

    #[test]
    fn a_capture_begins_early_enough_to_be_published_within_the_target() {
        // 600 s and a quarter more, 180 s to spare: 930 s before the hour is over.
        assert_eq!(next(0, &[vm("a")]), wait(-600 + 3600 - 930));
        assert_eq!(next(2070, &[vm("a")]), capture(&[0]));
        // What is queued before it cannot be overtaken: only the capture itself counts.
        let queued = VmStanding {
            queued: 2,
            ..vm("a")
        };
        assert_eq!(next(0, &[queued]), wait(-600 + 3600 - 255));
        // Never to be kept: not more often than four times.
        let slow = VmStanding {
            took: Some(Took {
                capture: seconds(9000),
                upload: seconds(9000),
            }),
            ..vm("a")
        };
        assert_eq!(next(0, &[slow]), wait(-600 + 900));
    }

    #[test]
    fn priority_counts_among_the_due_and_lateness_before_it() {
        let due = |priority, captured| VmStanding {
            priority,
            captured_at: Some(at(captured)),
            ..vm("a")
        };
        let vms = [due(None, -5000), due(Some(2), -3600), due(Some(1), -3500)];
        assert_eq!(next(0, &vms), capture(&[2]));
        // The first is late by more than its target.
        assert_eq!(next(1400, &vms), capture(&[0]));
    }

    #[test]
    fn one_capture_at_a_time_on_each_host() {
        let on = |host, running| VmStanding {
            host,
            running,
            captured_at: Some(at(-3600)),
            ..vm("a")
        };
        assert_eq!(
            next(0, &[on(None, true), on(None, false), on(Some(0), false)]),
            capture(&[2])
        );
        let none = Action::Wait { until: None };
        assert_eq!(next(0, &[on(None, true), on(None, false)]), none);
    }

    #[test]
    fn a_group_is_captured_together_as_its_strictest_vm_asks() {
        let member = |priority, target, host| VmStanding {
            group: Some("shop".into()),
            priority,
            rpo_target: seconds(target),
            host,
            ..vm("a")
        };
        let vms = [
            vm("x"),
            member(None, 3600, None),
            VmStanding {
                priority: Some(2),
                ..vm("y")
            },
            member(Some(1), 1800, Some(0)),
        ];
        assert_eq!(next(1000, &vms), capture(&[1, 3]));
        // One of its hosts is busy.
        let busy = VmStanding {
            host: Some(0),
            running: true,
            ..vm("z")
        };
        let vms = [&vms[..], &[busy]].concat();
        assert_eq!(next(1000, &vms), wait(2070));
    }

    #[test]
    fn first_syncs_go_one_after_the_other_and_hold_up_no_capture() {
        let new = |priority, running| VmStanding {
            captured_at: None,
            took: None,
            priority,
            running,
            ..vm("n")
        };
        let late = VmStanding {
            captured_at: Some(at(-3600)),
            priority: Some(9),
            ..vm("a")
        };
        let vms = [new(None, false), new(Some(1), false), late.clone()];
        assert_eq!(next(0, &vms), Action::FirstSync { vms: vec![1] });
        assert_eq!(
            next(0, &[new(None, false), new(Some(1), true), late]),
            capture(&[2])
        );
        // A group waits for the last of its first points.
        let mate = |vm| VmStanding {
            group: Some("g".into()),
            ..vm
        };
        assert_eq!(
            next(0, &[mate(vm("a")), mate(new(None, false))]),
            Action::FirstSync { vms: vec![0, 1] }
        );
    }

    #[test]
    fn a_failure_is_tried_again_after_its_pause_and_stops_no_other() {
        let failed = VmStanding {
            failures: Failures {
                count: 3,
                last_at: Some(at(0)),
            },
            captured_at: Some(at(-3600)),
            priority: Some(1),
            ..vm("a")
        };
        assert_eq!(next(10, std::slice::from_ref(&failed)), wait(240));
        assert_eq!(next(240, std::slice::from_ref(&failed)), capture(&[0]));
        let other = VmStanding {
            captured_at: Some(at(-3600)),
            ..vm("b")
        };
        assert_eq!(next(10, &[failed, other]), capture(&[1]));
    }

    #[test]
    fn a_clock_that_was_set_back_leaves_no_vm_behind() {
        let future = VmStanding {
            captured_at: Some(at(86_400)),
            ..vm("a")
        };
        assert_eq!(next(0, &[future]), capture(&[0]));
        // Some seconds are nothing to speak of.
        let near = VmStanding {
            captured_at: Some(at(30)),
            ..vm("a")
        };
        assert_eq!(next(0, &[near]), wait(30 + 3600 - 930));
        let failed = VmStanding {
            failures: Failures {
                count: 9,
                last_at: Some(at(86_400)),
            },
            captured_at: Some(at(-9000)),
            ..vm("a")
        };
        assert_eq!(next(0, &[failed]), capture(&[0]));
    }

    #[test]
    fn the_outbox_is_sent_whenever_the_uplink_lets_it() {
        let next = |now, uplink: UplinkStanding| {
            next_action(at(now), &[vm("a")], &uplink, &Schedule::default())
        };
        let waiting = UplinkStanding {
            waiting: true,
            ..UplinkStanding::default()
        };
        assert_eq!(next(0, waiting), Action::Upload);
        assert_eq!(
            next(
                0,
                UplinkStanding {
                    running: true,
                    ..waiting
                }
            ),
            wait(2070)
        );
        let off = UplinkStanding {
            off_until: Some(at(500)),
            ..waiting
        };
        assert_eq!((next(0, off), next(500, off)), (wait(500), Action::Upload));
        let failed = UplinkStanding {
            failures: Failures {
                count: 1,
                last_at: Some(at(0)),
            },
            ..waiting
        };
        assert_eq!(
            (next(1, failed), next(60, failed)),
            (wait(60), Action::Upload)
        );
    }

    #[test]
    fn nothing_to_protect_is_nothing_to_do() {
        assert_eq!(next(0, &[]), Action::Wait { until: None });
    }
}
