//! Months of a site, in moments: which targets are kept, and that nobody starves.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use super::*;

const HOUR: u64 = 3600;
const DAY: u64 = 24 * HOUR;

/// A VM of the simulated site.
struct Guest {
    standing: VmStanding,
    capture_seconds: u64,
    /// At the full rate of the uplink, alone.
    upload_seconds: u64,
    /// When the running capture ends.
    ends_at: Option<Timestamp>,
    /// Captured and queued: at this time, taking so long to capture.
    queue: Vec<(Timestamp, u64, Timestamp)>,
    published_at: Option<Timestamp>,
    /// The greatest achieved RPO since the first point.
    worst: Duration,
    points: u32,
    attempts: u32,
}

impl Guest {
    fn new(
        priority: u32,
        target: u64,
        host: usize,
        capture_seconds: u64,
        upload_seconds: u64,
    ) -> Self {
        Guest {
            standing: VmStanding {
                name: format!("vm-{priority}-{target}"),
                group: None,
                alone: false,
                place: Place::Host(host),
                priority: Some(priority),
                rpo_target: Duration::from_secs(target),
                captured_at: None,
                queued: 0,
                took: None,
                failures: Failures::default(),
                running: false,
                passes: false,
                stalled: false,
            },
            capture_seconds,
            upload_seconds,
            ends_at: None,
            queue: Vec::new(),
            published_at: None,
            worst: Duration::ZERO,
            points: 0,
            attempts: 0,
        }
    }
}

struct Site {
    now: Timestamp,
    guests: Vec<Guest>,
    /// The guest whose point is being sent, and until when.
    sending: Option<(usize, Timestamp)>,
    /// Fails captures of guests in these spans of seconds since the start.
    broken: Vec<(usize, std::ops::Range<i64>)>,
    /// Its captures stand still as soon as they have begun, and never end.
    stuck: Option<usize>,
    start: Timestamp,
}

fn seconds(length: u64) -> SignedDuration {
    SignedDuration::from_secs(length as i64)
}

fn after(at: Timestamp, length: u64) -> Timestamp {
    at + seconds(length)
}

impl Site {
    fn new(guests: Vec<Guest>) -> Self {
        let start = "2026-01-01T00:00:00Z".parse().expect("a time");
        Site {
            now: start,
            guests,
            sending: None,
            broken: Vec::new(),
            stuck: None,
            start,
        }
    }

    fn run(&mut self, seconds: u64) {
        let end = after(self.now, seconds);
        while self.now < end {
            let wait = self.begin();
            self.advance(wait.unwrap_or(end).min(end));
        }
    }

    /// Begins all that may begin; until when to wait.
    fn begin(&mut self) -> Option<Timestamp> {
        for _ in 0..1000 {
            let standings = self.standings();
            let uplink = UplinkStanding {
                waiting: standings.iter().any(|vm| vm.queued > 0),
                running: self.sending.is_some(),
                ..UplinkStanding::default()
            };
            match next_action(self.now, &standings, &uplink, &Schedule::default()) {
                Action::Wait { until } => return until,
                Action::Upload => self.send(),
                Action::Capture { vms } | Action::FirstSync { vms } => {
                    for place in vms {
                        let guest = &mut self.guests[place];
                        assert!(!guest.standing.running);
                        guest.standing.running = true;
                        guest.attempts += 1;
                        guest.ends_at = Some(after(self.now, guest.capture_seconds));
                    }
                }
            }
        }
        panic!("it never waits");
    }

    fn standings(&self) -> Vec<VmStanding> {
        let mut all: Vec<_> = self.guests.iter().map(|g| g.standing.clone()).collect();
        if let Some(stuck) = self.stuck {
            let guest = &self.guests[stuck];
            let began = guest
                .ends_at
                .map(|end| end - seconds(guest.capture_seconds));
            all[stuck].stalled = began.is_some_and(|began| after(began, HOUR) <= self.now);
        }
        all
    }

    fn send(&mut self) {
        let oldest = |guest: &Guest| guest.queue.first().map(|(_, _, since)| *since);
        let place = (0..self.guests.len())
            .filter(|place| !self.guests[*place].queue.is_empty())
            .min_by_key(|place| oldest(&self.guests[*place]))
            .expect("something waits");
        self.sending = Some((place, after(self.now, self.guests[place].upload_seconds)));
    }

    /// To the next thing that ends, or to `until`.
    fn advance(&mut self, until: Timestamp) {
        let ends = self.guests.iter().filter_map(|guest| guest.ends_at);
        let next = ends
            .chain(self.sending.map(|(_, end)| end))
            .chain([until])
            .min();
        self.now = next.expect("until").max(self.now);
        let since_start = self.now.duration_since(self.start).as_secs();
        for (place, guest) in self.guests.iter_mut().enumerate() {
            if let Some(published) = guest.published_at {
                let age =
                    Duration::try_from(self.now.duration_since(published)).unwrap_or_default();
                guest.worst = guest.worst.max(age);
            }
            if guest.ends_at.is_none_or(|end| end > self.now) {
                continue;
            }
            guest.ends_at = None;
            guest.standing.running = false;
            let mut broken = self.broken.iter();
            if broken.any(|(who, when)| *who == place && when.contains(&since_start)) {
                guest.standing.failures = guest.standing.failures.and_one_more(self.now);
                continue;
            }
            guest.standing.failures = Failures::default();
            let captured = self.now - seconds(guest.capture_seconds);
            guest.standing.captured_at = Some(captured);
            guest.standing.queued += 1;
            guest
                .queue
                .push((captured, guest.capture_seconds, self.now));
        }
        if let Some((place, _)) = self.sending.filter(|(_, end)| *end <= self.now) {
            let guest = &mut self.guests[place];
            let (captured, capture_seconds, _) = guest.queue.remove(0);
            guest.published_at = Some(captured);
            guest.points += 1;
            guest.standing.queued -= 1;
            guest.standing.took = Some(Took {
                capture: Duration::from_secs(capture_seconds),
                upload: Duration::from_secs(guest.upload_seconds),
            });
            self.sending = None;
        }
    }

    /// Forgets how it was until now.
    fn watch(&mut self) {
        for guest in &mut self.guests {
            (guest.worst, guest.points, guest.attempts) = (Duration::ZERO, 0, 0);
        }
    }
}

#[test]
fn for_three_months_a_site_that_can_keep_its_targets_keeps_them() {
    let mut site = Site::new(vec![
        Guest::new(1, HOUR, 0, 30, 120),
        Guest::new(2, HOUR, 0, 60, 200),
        Guest::new(2, 4 * HOUR, 1, 120, 400),
        Guest::new(3, DAY, 1, 600, 900),
    ]);
    // It learns how long each takes.
    site.run(2 * DAY);
    site.watch();
    site.run(90 * DAY);
    for guest in &site.guests {
        let target = guest.standing.rpo_target;
        assert!(
            guest.worst <= target,
            "{}: {:?}",
            guest.standing.name,
            guest.worst
        );
        // And not by capturing all the time.
        let most = 90 * DAY / target.as_secs() * 4;
        assert!(
            u64::from(guest.points) <= most,
            "{}: {}",
            guest.standing.name,
            guest.points
        );
    }
}

#[test]
fn a_target_that_cannot_be_kept_starves_no_other_vm() {
    let mut site = Site::new(vec![
        // Always due, and first by priority.
        Guest::new(1, 60, 0, 300, 1),
        Guest::new(9, 4 * HOUR, 0, 300, 1),
    ]);
    site.run(30 * DAY);
    let [greedy, patient] = &site.guests[..] else {
        panic!()
    };
    // Due within its target, late by it at most, and then by a capture of the other one and its own.
    let most = Duration::from_secs(2 * 4 * HOUR + 2 * 300 + 60);
    assert!(patient.worst <= most, "{:?}", patient.worst);
    assert!(greedy.points > 100 * 30, "{}", greedy.points);
}

#[test]
fn a_broken_vm_is_tried_a_bounded_number_of_times_and_comes_back() {
    let mut site = Site::new(vec![
        Guest::new(1, HOUR, 0, 10, 10),
        Guest::new(2, HOUR, 0, 10, 10),
    ]);
    site.run(DAY);
    site.watch();
    site.broken = vec![(0, DAY as i64..(11 * DAY) as i64)];
    site.run(10 * DAY);
    let broken = &site.guests[0];
    // At most every half hour after the first few.
    assert!((400..600).contains(&broken.attempts), "{}", broken.attempts);
    assert!(site.guests[1].worst <= Duration::from_secs(HOUR));
    site.run(HOUR);
    assert_eq!(site.guests[0].standing.failures, Failures::default());
    assert!(site.guests[0].points > 0);
}

#[test]
fn clocks_that_jump_cost_a_capture_and_no_more() {
    for jump in [-40 * DAY as i64, -7200, -5, 5, 7200, 40 * DAY as i64] {
        let mut site = Site::new(vec![
            Guest::new(1, HOUR, 0, 10, 10),
            Guest::new(2, DAY, 1, 10, 10),
        ]);
        site.run(3 * DAY);
        assert!(site.guests.iter().all(|guest| guest.ends_at.is_none()) && site.sending.is_none());
        site.now += SignedDuration::from_secs(jump);
        for guest in &mut site.guests {
            guest.published_at = None;
        }
        site.watch();
        site.run(2 * DAY);
        for guest in &site.guests {
            let (name, target) = (&guest.standing.name, guest.standing.rpo_target);
            assert!(guest.points > 0, "{name} after {jump}");
            let most = 2 * DAY / target.as_secs() * 2 + 1;
            assert!(
                u64::from(guest.attempts) <= most,
                "{name} after {jump}: {}",
                guest.attempts
            );
        }
    }
}

#[test]
fn first_syncs_come_in_the_order_of_priority() {
    let mut site = Site::new(vec![
        Guest::new(3, HOUR, 0, DAY, 10),
        Guest::new(1, HOUR, 1, DAY, 10),
        Guest::new(2, HOUR, 0, DAY, 10),
    ]);
    let mut order = Vec::new();
    for _ in 0..80 {
        site.run(HOUR);
        for guest in &site.guests {
            if guest.standing.running
                && !order.contains(&guest.standing.priority)
                && guest.standing.captured_at.is_none()
            {
                order.push(guest.standing.priority);
            }
        }
    }
    assert_eq!(order, [Some(1), Some(2), Some(3)]);
}

#[test]
fn first_syncs_that_always_fail_leave_the_others_their_turn() {
    let mut site = Site::new(vec![
        Guest::new(1, HOUR, 0, 5 * HOUR, 10),
        Guest::new(2, HOUR, 1, 5 * HOUR, 10),
        Guest::new(3, HOUR, 2, 5 * HOUR, 10),
    ]);
    site.broken = vec![(0, 0..i64::MAX), (1, 0..i64::MAX)];
    site.run(DAY);
    assert!(site.guests[2].points > 0);
    // And they are tried again, in turn.
    assert!(site.guests[0].attempts.abs_diff(site.guests[1].attempts) <= 1);
}

#[test]
fn a_first_sync_that_never_ends_keeps_the_others_for_an_hour() {
    let mut site = Site::new(vec![
        Guest::new(1, HOUR, 0, 1000 * DAY, 10),
        Guest::new(2, HOUR, 0, HOUR, 10),
        Guest::new(3, HOUR, 1, HOUR, 10),
    ]);
    site.stuck = Some(0);
    for _ in 0..6 {
        site.run(HOUR);
    }
    assert_eq!(site.guests[0].attempts, 1);
    assert!(site.guests[1].points > 0 && site.guests[2].points > 0);
}
