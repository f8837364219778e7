//! Recovery points at which a VM changed as it never does: what encrypts a disk writes much, and nothing of it compresses.
//!
//! A hint, not a proof: a large import looks the same. So it is measured against the VM's own history, and says by what.

use std::fmt;

use console::show;

use crate::known::KnownPoint;

/// Points that a point is compared with: those right before it.
const WINDOW: usize = 20;
/// With fewer before it nothing is said: a first sync is among them, and tells nothing of what is usual.
const LEAST: usize = 6;
/// Less is not looked at, however quiet the VM was.
const LEAST_BYTES: u64 = 64 << 20;
/// Far above: so many times what the window had at its second-largest. Its largest may be the first sync, or a bulk load.
const TIMES: u64 = 3;
/// Sent of what changed, of data that does not compress: a sealed record is a little larger than what it holds.
const INCOMPRESSIBLE_PERCENT: u64 = 92;
/// And what the window's second-largest may have at most, so that a file server full of films is not always one.
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
                "{} changed, and at most {} did before",
                show::size(*bytes),
                show::size(*usual_bytes)
            ),
            Anomaly::Incompressible {
                percent,
                usual_percent,
            } => write!(
                f,
                "what changed compressed to {percent} %, and to at most {usual_percent} % before"
            ),
        }
    }
}

/// For each of a VM's points, in their order, what is unusual about it.
pub fn anomalies(points: &[KnownPoint]) -> Vec<Option<Anomaly>> {
    let of = |number: usize| {
        let window = &points[number.saturating_sub(WINDOW)..number];
        (window.len() >= LEAST).then(|| anomaly(&points[number], window))?
    };
    (0..points.len()).map(of).collect()
}

fn anomaly(point: &KnownPoint, window: &[KnownPoint]) -> Option<Anomaly> {
    if point.changed_bytes < LEAST_BYTES {
        return None;
    }
    let usual_bytes = second_largest(window.iter().map(|point| point.changed_bytes))?;
    if point.changed_bytes > usual_bytes.saturating_mul(TIMES) {
        return Some(Anomaly::Changed {
            bytes: point.changed_bytes,
            usual_bytes,
        });
    }
    // What changed by a few blocks only tells nothing of what the VM's data is like.
    let told = window
        .iter()
        .filter(|point| point.changed_bytes >= LEAST_BYTES / 64);
    let usual_percent = second_largest(told.map(sent_percent))?;
    let percent = sent_percent(point);
    (percent >= INCOMPRESSIBLE_PERCENT && usual_percent <= COMPRESSIBLE_PERCENT).then_some(
        Anomaly::Incompressible {
            percent,
            usual_percent,
        },
    )
}

fn sent_percent(point: &KnownPoint) -> u64 {
    let percent = u128::from(point.sent_bytes) * 100 / u128::from(point.changed_bytes.max(1));
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

    const MIB: u64 = 1 << 20;

    /// Points that changed so many MiB, of which so many percent were sent.
    fn found(history: &[(u64, u64)]) -> Vec<usize> {
        let points: Vec<_> = history
            .iter()
            .enumerate()
            .map(|(number, (mib, percent))| KnownPoint {
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

    #[test]
    fn a_usual_history_has_none() {
        let mut history = vec![(40_000, 50)];
        history.extend((0..60).map(|day| (50 + day * 7 % 90, 40 + day % 20)));
        assert_eq!(found(&history), [] as [usize; 0]);
    }

    #[test]
    fn far_more_than_ever_is_one_although_the_first_sync_was_larger() {
        let mut history = vec![(40_000, 50)];
        history.extend([(100, 50); 9]);
        history.push((301, 50));
        assert_eq!(found(&history), [10]);
        history[10] = (300, 50);
        assert_eq!(found(&history), [] as [usize; 0]);
    }

    #[test]
    fn what_no_longer_compresses_is_one_and_what_never_did_is_not() {
        let mut history = vec![(200, 50); 10];
        history.push((210, 99));
        assert_eq!(found(&history), [10]);
        let films = vec![(200, 99); 11];
        assert_eq!(found(&films), [] as [usize; 0]);
    }

    #[test]
    fn a_quiet_vm_and_a_short_history_say_nothing() {
        // 63 MiB where 1 MiB is usual.
        let mut quiet = vec![(1, 50); 10];
        quiet.push((63, 99));
        assert_eq!(found(&quiet), [] as [usize; 0]);
        let mut short = vec![(1, 50); 5];
        short.push((10_000, 99));
        assert_eq!(found(&short), [] as [usize; 0]);
        short.insert(0, (1, 50));
        assert_eq!(found(&short), [6]);
    }

    #[test]
    fn counters_of_any_size_are_taken() {
        let mut points: Vec<_> = (1..9).map(point).collect();
        for point in &mut points {
            (point.changed_bytes, point.sent_bytes) = (u64::MAX, u64::MAX);
        }
        points[7].changed_bytes = 0;
        assert!(anomalies(&points).iter().all(Option::is_none));
    }
}
