//! What is begun when, case by case.

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
        alone: false,
        place: Place::Here,
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
        passes: false,
        stalled: false,
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
    let on = |place, running| VmStanding {
        place,
        running,
        captured_at: Some(at(-3600)),
        ..vm("a")
    };
    let (here, there) = (Place::Here, Place::Host(0));
    assert_eq!(
        next(0, &[on(here, true), on(here, false), on(there, false)]),
        capture(&[2])
    );
    let none = Action::Wait { until: None };
    assert_eq!(next(0, &[on(here, true), on(here, false)]), none);
}

#[test]
fn one_list_is_read_at_a_time_and_keeps_no_hypervisor_waiting() {
    let of = |place, running, passes| VmStanding {
        place,
        running,
        passes,
        captured_at: Some(at(-3600)),
        ..vm("a")
    };
    let list = |running, passes| of(Place::Lists, running, passes);
    let vms = [list(true, false), list(false, false)];
    assert_eq!(next(0, &vms), Action::Wait { until: None });
    let vms = [&vms[..], &[of(Place::Here, false, false)]].concat();
    assert_eq!(next(0, &vms), capture(&[2]));
    // Nothing is read while it waits for the uplink.
    assert_eq!(
        next(0, &[list(true, true), list(false, false)]),
        capture(&[1])
    );
}

#[test]
fn a_group_is_captured_together_as_its_strictest_vm_asks() {
    let member = |priority, target, host: Option<usize>| VmStanding {
        group: Some("shop".into()),
        priority,
        rpo_target: seconds(target),
        place: host.map_or(Place::Here, Place::Host),
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
        place: Place::Host(0),
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
    // One that has not moved for long keeps nobody, though it is not over.
    let stalled = VmStanding {
        stalled: true,
        ..new(Some(1), true)
    };
    assert_eq!(
        next(0, &[new(None, false), stalled]),
        Action::FirstSync { vms: vec![0] }
    );
}

#[test]
fn a_member_without_its_tracking_keeps_no_group_waiting() {
    let due = |name| VmStanding {
        group: Some("g".into()),
        captured_at: Some(at(-3600)),
        ..vm(name)
    };
    let lost = |running| VmStanding {
        alone: true,
        passes: running,
        running,
        ..due("l")
    };
    assert_eq!(next(0, &[lost(false), due("a")]), capture(&[0]));
    let vms = [lost(true), due("a"), due("b")];
    assert_eq!(next(0, &vms), capture(&[1, 2]));
    // With its point it is a member again.
    assert_eq!(next(0, &[due("l"), due("a")]), capture(&[0, 1]));
}

#[test]
fn a_group_goes_on_while_its_new_member_is_synced() {
    let mate = |name, captured_at, running| VmStanding {
        group: Some("g".into()),
        captured_at,
        running,
        ..vm(name)
    };
    let old = |name| mate(name, Some(at(-3600)), false);
    let new = |running| mate("new", None, running);
    let vms = [old("a"), new(true), old("b")];
    assert_eq!(next(0, &vms), capture(&[0, 2]));
    let recent = mate("a", Some(at(-60)), false);
    assert_eq!(
        next(0, &[recent, new(false)]),
        Action::FirstSync { vms: vec![1] }
    );
    // Where all are new, their first points share an instant too; and so do all later ones.
    assert_eq!(
        next(0, &[new(false), new(false)]),
        Action::FirstSync { vms: vec![0, 1] }
    );
    let synced = mate("new", Some(at(-60)), false);
    assert_eq!(next(0, &[old("a"), synced]), capture(&[0, 1]));
}

#[test]
fn first_syncs_that_fail_take_turns() {
    let failed = |priority, last| VmStanding {
        captured_at: None,
        priority: Some(priority),
        failures: Failures {
            count: 1,
            last_at: Some(at(last)),
        },
        ..vm("f")
    };
    let new = VmStanding {
        captured_at: None,
        priority: Some(9),
        ..vm("n")
    };
    let vms = [failed(1, -500), failed(2, -900), new];
    assert_eq!(next(0, &vms), Action::FirstSync { vms: vec![2] });
    assert_eq!(next(0, &vms[..2]), Action::FirstSync { vms: vec![1] });
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
    // The pause grows to half of the strictest target, not to an hour.
    let down = UplinkStanding {
        failures: Failures {
            count: 20,
            last_at: Some(at(0)),
        },
        ..waiting
    };
    let strict = VmStanding {
        rpo_target: seconds(900),
        captured_at: Some(at(500)),
        running: true,
        ..vm("b")
    };
    let vms = [vm("a"), strict];
    let next = |now| next_action(at(now), &vms, &down, &Schedule::default());
    assert_eq!((next(1), next(450)), (wait(450), Action::Upload));
}

#[test]
fn nothing_to_protect_is_nothing_to_do() {
    assert_eq!(next(0, &[]), Action::Wait { until: None });
}
