//! Recovery points at which a VM changed as it never does: what encrypts a disk writes much, and nothing of it compresses.
//!
//! A hint, not a proof: a large import looks the same. So it is measured against the VM's own history, and says by what.

use std::collections::BTreeMap;
use std::fmt;

use console::show;

use crate::known::KnownPoint;

const DAY_SECONDS: i64 = 86_400;
/// Days that a point is compared with: those right before it, five of each kind of weekday.
const WINDOW_DAYS: i64 = 35;
/// With a shorter history nothing is said: what happens once a week has not yet happened twice.
const LEAST_DAYS: i64 = 14;
/// Nor with fewer days that have a point.
const LEAST_COUNT: usize = 4;
/// Less is not looked at, however quiet the VM was.
const LEAST_BYTES: u64 = 64 << 20;
/// Days that changed less do not tell what the VM's data is like.
const TELLING_BYTES: u64 = 1 << 20;
/// Far above: so many times the second-largest of the days' largest. The largest may be the first sync, or a bulk load.
const TIMES: u64 = 3;
/// A point that comes after a silence may have changed what so long a time brings; up to so many days.
const MOST_SILENCE_DAYS: i64 = 100;
/// A time this far behind the point before it is no time: a clock was wrong.
const MOST_AHEAD_DAYS: i64 = 400;
/// Sent of what changed, of data that does not compress: a sealed record is a little larger than what it holds.
const INCOMPRESSIBLE_PERCENT: u64 = 92;
/// And what the second-largest day may have at most, so that a file server full of films is not always one.
const COMPRESSIBLE_PERCENT: u64 = 80;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Anomaly {
    /// It changed far more than it does.
    Changed { bytes: u64, usual_bytes: u64 },
    /// What changed does not compress, and it did before.
    Incompressible { percent: u64, usual_percent: u64 },
}

impl fmt::Display for Anomaly {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Anomaly::Changed { bytes, usual_bytes } => write!(
                f,
                "{} changed, and usually at most {}",
                show::size(*bytes),
                show::size(*usual_bytes)
            ),
            Anomaly::Incompressible {
                percent,
                usual_percent,
            } => write!(
                f,
                "what changed compressed to {percent} %, and usually to at most {usual_percent} %"
            ),
        }
    }
}

/// What one day had.
#[derive(Default, Clone, Copy)]
struct Day {
    /// In one point.
    most_bytes: u64,
    changed_bytes: u64,
    sent_bytes: u64,
}

/// For each of a VM's points, in their order, what is unusual about it. A point whose time cannot be right (none, before the
/// point before it, far ahead) is taken as of the day of the point before it: the order counts, not the clocks.
pub fn anomalies(points: &[KnownPoint]) -> Vec<Option<Anomaly>> {
    let mut days = BTreeMap::<i64, Day>::new();
    let mut before = None::<i64>;
    let mut found = Vec::with_capacity(points.len());
    for point in points {
        let told = point.captured_at.map(|at| at.as_second());
        let plausible = |seconds: &i64| {
            let since = before.map_or(0, |before| seconds.saturating_sub(before));
            (0..=MOST_AHEAD_DAYS * DAY_SECONDS).contains(&since)
        };
        let Some(seconds) = told.filter(plausible).or(before) else {
            found.push(None);
            continue;
        };
        let silence = before.map_or(0, |before| seconds - before);
        let today = seconds.div_euclid(DAY_SECONDS);
        found.push(anomaly(point, today, &days, silence));
        let day = days.entry(today).or_default();
        day.most_bytes = day.most_bytes.max(point.changed_bytes);
        day.changed_bytes = day.changed_bytes.saturating_add(point.changed_bytes);
        day.sent_bytes = day.sent_bytes.saturating_add(point.sent_bytes);
        before = Some(seconds);
    }
    found
}

fn anomaly(
    point: &KnownPoint,
    today: i64,
    days: &BTreeMap<i64, Day>,
    silence: i64,
) -> Option<Anomaly> {
    if point.changed_bytes < LEAST_BYTES {
        return None;
    }
    let window: Vec<(i64, Day)> = days
        .range(today.saturating_sub(WINDOW_DAYS)..=today)
        .map(|(day, had)| (*day, *had))
        .collect();
    let first = window.first()?.0;
    if window.len() < LEAST_COUNT || today - first < LEAST_DAYS {
        return None;
    }
    let most = second_largest(window.iter().map(|(_, day)| day.most_bytes))?;
    // What so long a time brings at the rate of a whole day.
    let a_day = second_largest(window.iter().map(|(_, day)| day.changed_bytes))?;
    let silence = silence.min(MOST_SILENCE_DAYS * DAY_SECONDS);
    let brought = u128::from(a_day) * u128::try_from(silence).unwrap_or(0) / (DAY_SECONDS as u128);
    let usual_bytes = most.max(u64::try_from(brought).unwrap_or(u64::MAX));
    if point.changed_bytes > usual_bytes.saturating_mul(TIMES) {
        return Some(Anomaly::Changed {
            bytes: point.changed_bytes,
            usual_bytes,
        });
    }
    let told = window
        .iter()
        .filter(|(_, day)| day.changed_bytes >= TELLING_BYTES);
    let usual_percent =
        second_largest(told.map(|(_, day)| percent(day.sent_bytes, day.changed_bytes)))?;
    let percent = percent(point.sent_bytes, point.changed_bytes);
    (percent >= INCOMPRESSIBLE_PERCENT && usual_percent <= COMPRESSIBLE_PERCENT).then_some(
        Anomaly::Incompressible {
            percent,
            usual_percent,
        },
    )
}

fn percent(sent: u64, changed: u64) -> u64 {
    let percent = u128::from(sent) * 100 / u128::from(changed.max(1));
    u64::try_from(percent).unwrap_or(u64::MAX)
}

fn second_largest(values: impl Iterator<Item = u64>) -> Option<u64> {
    let mut values: Vec<u64> = values.collect();
    values.sort_unstable();
    values.iter().rev().nth(1).copied()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::point::tests::point;
    use jiff::SignedDuration;

    const MIB: u64 = 1 << 20;

    /// Points: the hour of each, how many MiB it changed, and how many percent of that were sent.
    fn found(history: &[(i64, u64, u64)]) -> Vec<usize> {
        let first = point(0).captured_at.unwrap();
        let points: Vec<_> = history
            .iter()
            .enumerate()
            .map(|(number, (hour, mib, percent))| KnownPoint {
                captured_at: Some(first + SignedDuration::from_hours(*hour)),
                changed_bytes: mib * MIB,
                sent_bytes: mib * MIB * percent / 100,
                ..point(number as u64 + 1)
            })
            .collect();
        let found = anomalies(&points);
        (0..found.len())
            .filter(|number| found[*number].is_some())
            .collect()
    }

    fn daily(history: &[(u64, u64)]) -> Vec<usize> {
        let at = (0..).map(|day| day * 24).zip(history);
        found(
            &at.map(|(hour, (mib, percent))| (hour, *mib, *percent))
                .collect::<Vec<_>>(),
        )
    }

    const NONE: [usize; 0] = [];

    #[test]
    fn usual_lives_have_none() {
        let mut varied = vec![(40_000, 50)];
        varied.extend((0..60).map(|day| (50 + day * 7 % 90, 40 + day % 20)));
        assert_eq!(daily(&varied), NONE);
        // An hourly point, a dump every night, and a larger one on Sundays; the first sync before all of it.
        let hourly: Vec<_> = (0..24 * 50)
            .map(|hour| match (hour, hour % 24, hour / 24 % 7) {
                (0, ..) => (hour, 40_000, 50),
                (_, 2, 6) => (hour, 9_000, 50),
                (_, 2, _) => (hour, 2_000, 50),
                _ => (hour, 100, 50),
            })
            .collect();
        assert_eq!(found(&hourly), NONE);
    }

    #[test]
    fn far_more_than_ever_is_one_although_the_first_sync_was_larger() {
        let mut history = vec![(40_000, 50)];
        history.extend([(100, 50); 19]);
        history.push((301, 50));
        assert_eq!(daily(&history), [20]);
        history[20] = (300, 50);
        assert_eq!(daily(&history), NONE);
    }

    #[test]
    fn all_points_of_an_attack_are_found_while_it_is_new() {
        let mut hourly: Vec<_> = (0..24 * 20).map(|hour| (hour, 100, 50)).collect();
        hourly.extend((0..3).map(|hour| (24 * 20 + hour, 5_000, 99)));
        assert_eq!(found(&hourly), [480, 481, 482]);
    }

    #[test]
    fn a_point_after_a_long_silence_may_have_changed_as_much_more() {
        let mut hourly: Vec<_> = (0..24 * 20).map(|hour| (hour, 100, 50)).collect();
        // The gateway was off for two days.
        hourly.push((24 * 22, 4_000, 50));
        assert_eq!(found(&hourly), NONE);
        hourly[480] = (24 * 22, 20_000, 50);
        assert_eq!(found(&hourly), [480]);
        // A nightly dump does not make every hour of a silence one.
        let mut dumps: Vec<_> = (0..24 * 20)
            .map(|hour| (hour, if hour % 24 == 2 { 5_000 } else { 100 }, 50))
            .collect();
        dumps.push((24 * 22, 60_000, 50));
        assert_eq!(found(&dumps), [480]);
    }

    #[test]
    fn a_vm_that_went_from_hourly_to_daily_points_is_still_watched() {
        let mut history: Vec<_> = (0..24 * 60).map(|hour| (hour, 100, 50)).collect();
        history.extend((0..20).map(|day| (24 * (61 + day), 2_000, 50)));
        assert_eq!(found(&history), NONE);
        history.push((24 * 81, 8_000, 50));
        assert_eq!(found(&history), [24 * 60 + 20]);
    }

    #[test]
    fn a_time_that_cannot_be_right_hides_nothing() {
        for wrong in [
            None,
            Some(jiff::Timestamp::MIN),
            Some("2099-01-01T00:00:00Z".parse().unwrap()),
        ] {
            let mut points: Vec<_> = (1..=30).map(point).collect();
            (points[28].captured_at, points[28].changed_bytes) = (wrong, 500 << 20);
            points[29].changed_bytes = 20 << 20;
            let found = anomalies(&points);
            let found: Vec<usize> = (0..30).filter(|number| found[*number].is_some()).collect();
            assert_eq!(found, [28], "{wrong:?}");
        }
    }

    #[test]
    fn what_no_longer_compresses_is_one_and_what_never_did_is_not() {
        let mut history = vec![(200, 50); 20];
        history.push((210, 99));
        assert_eq!(daily(&history), [20]);
        assert_eq!(daily(&[(200, 99); 21]), NONE);
        // A photo now and then among much else tells nothing of the day.
        let mut photos: Vec<_> = (0..24 * 20)
            .map(|hour| {
                (
                    hour,
                    if hour % 24 == 9 { 2 } else { 50 },
                    if hour % 24 == 9 { 99 } else { 50 },
                )
            })
            .collect();
        photos.push((24 * 20, 100, 99));
        assert_eq!(found(&photos), [480]);
    }

    #[test]
    fn a_quiet_vm_and_a_short_history_say_nothing() {
        // 63 MiB where 1 MiB is usual.
        let mut quiet = vec![(1, 50); 20];
        quiet.push((63, 99));
        assert_eq!(daily(&quiet), NONE);
        let mut short = vec![(1, 50); 14];
        short[13] = (10_000, 99);
        assert_eq!(daily(&short), NONE);
        short.insert(0, (1, 50));
        assert_eq!(daily(&short), [14]);
    }

    #[test]
    fn counters_and_times_of_any_size_are_taken() {
        let mut points: Vec<_> = (1..60).map(point).collect();
        for (number, point) in points.iter_mut().enumerate() {
            (point.changed_bytes, point.sent_bytes) = (u64::MAX, u64::MAX);
            point.captured_at = match number % 4 {
                0 => None,
                1 => Some(jiff::Timestamp::MAX),
                2 => Some(jiff::Timestamp::MIN),
                _ => point.captured_at,
            };
        }
        points[7].changed_bytes = 0;
        assert!(anomalies(&points).iter().all(Option::is_none));
    }
}
