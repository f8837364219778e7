//! The one decision of the daemon: what to begin now, or until when to wait. Pure.

use std::{cmp::Reverse, time::Duration};

use jiff::{SignedDuration, Timestamp};

use super::Failures;

/// What captures are read from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    /// This machine's hypervisor.
    Here,
    /// That of a host of the configuration.
    Host(usize),
    /// Lists of disks, which take long to read: two at once would only keep both for longer, and hypervisors need not wait.
    Lists,
}

/// What is known of one VM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VmStanding {
    pub name: String,
    /// VMs of one consistency group are captured together.
    pub group: Option<String>,
    /// Not with its group for now: its tracking was lost, and what brings it down again takes long.
    pub alone: bool,
    /// Where it is read from: one capture at a time on each.
    pub place: Place,
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
    /// What runs are passes over its running disks, which hold no host: a first sync, or one after tracking was lost.
    pub passes: bool,
    /// What runs has not moved for long: other first syncs wait for it no more.
    pub stalled: bool,
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
    /// The next point of the outbox.
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
    places: Vec<Place>,
    priority: u32,
    rpo_target: Duration,
    first: bool,
    running: bool,
    passes: bool,
    stalled: bool,
    /// When the last try of a first sync failed: those that wait take turns.
    tried_at: Option<Timestamp>,
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
    // Points wait for it: the pause is one that the strictest target can bear.
    let target = vms.iter().map(|vm| vm.rpo_target).min();
    let upload_at = [uplink.off_until, uplink.failures.retry_at(now, target)];
    let upload_at = upload_at.into_iter().flatten().max().filter(|at| *at > now);
    let can_upload = uplink.waiting && !uplink.running;
    if can_upload && upload_at.is_none() {
        return Action::Upload;
    }
    let units = units(now, vms);
    let busy: Vec<_> = units
        .iter()
        .filter(|unit| unit.running && !unit.first && !unit.passes)
        .flat_map(|unit| unit.places.iter().copied())
        .collect();
    let first_syncs = units
        .iter()
        .filter(|unit| unit.running && unit.first && !unit.stalled)
        .count();
    let has_room = |unit: &&Unit| match unit.first {
        true => first_syncs < schedule.first_syncs,
        false => !unit.places.iter().any(|place| busy.contains(place)),
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

/// Groups, and VMs that have none. A VM that is new in a group whose others have points, or lost its tracking, is brought
/// down by itself first: the others go on meanwhile, and it joins them with its point.
fn units(now: Timestamp, vms: &[VmStanding]) -> Vec<Unit> {
    let is_alone = |vm: &VmStanding| {
        let mut mates = vms.iter().filter(|mate| mate.group == vm.group);
        let is_new = vm.captured_at.is_none() && mates.any(|mate| mate.captured_at.is_some());
        vm.group.is_none() || vm.alone || is_new
    };
    let group_of = |vm: &VmStanding| vm.group.clone().filter(|_| !is_alone(vm));
    let groups: Vec<Option<String>> = vms.iter().map(group_of).collect();
    let mut units: Vec<Unit> = Vec::new();
    for (place, group) in groups.iter().enumerate() {
        let members: Vec<usize> = match group {
            Some(_) => (0..vms.len()).filter(|p| groups[*p] == *group).collect(),
            None => vec![place],
        };
        if members[0] == place {
            units.push(Unit::of(now, vms, members));
        }
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
        let mut places: Vec<_> = all().map(|vm| vm.place).collect();
        places.sort_unstable();
        places.dedup();
        Unit {
            places,
            priority: all()
                .map(|vm| vm.priority.unwrap_or(u32::MAX))
                .min()
                .unwrap_or(u32::MAX),
            rpo_target,
            first,
            running: all().any(|vm| vm.running),
            passes: all().any(|vm| vm.passes),
            stalled: all().any(|vm| vm.stalled),
            tried_at: all()
                .filter_map(|vm| vm.failures.last_at)
                .max()
                .filter(|_| first),
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
    /// For the same reason a first sync that failed goes after those that were not tried since.
    fn rank(
        &self,
        now: Timestamp,
    ) -> (
        Reverse<u64>,
        Option<Timestamp>,
        u32,
        Option<Timestamp>,
        usize,
    ) {
        let late = self
            .due_at
            .map_or(0, |due| now.duration_since(due).as_secs().max(0) as u64);
        let starved = match late > self.rpo_target.as_secs() {
            true => late,
            false => 0,
        };
        (
            Reverse(starved),
            self.tried_at,
            self.priority,
            self.due_at,
            self.vms[0],
        )
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
        let capture = if other.place == vm.place {
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
mod tests;
