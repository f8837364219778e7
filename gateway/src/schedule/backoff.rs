//! When to try again what failed. Pure.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

const FIRST: Duration = Duration::from_secs(60);
const LONGEST: Duration = Duration::from_secs(3600);
const LEAST: Duration = Duration::from_secs(1);

/// Failures in a row.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Failures {
    pub count: u32,
    /// When the last of them ended.
    pub last_at: Option<Timestamp>,
}

impl Failures {
    pub fn and_one_more(self, at: Timestamp) -> Self {
        Failures {
            count: self.count.saturating_add(1),
            last_at: Some(at),
        }
    }

    /// The same, without the pause before the next try: what they waited for may have come.
    pub fn at_once(self) -> Self {
        Failures {
            last_at: None,
            ..self
        }
    }

    /// The pause after the last failure. It doubles from a minute to an hour, and less where the RPO
    /// target is short: from a quarter to a half of it, so that a target is not missed for the pause's sake.
    pub fn pause(self, rpo_target: Option<Duration>) -> Duration {
        let (first, longest) = match rpo_target {
            Some(target) => (
                FIRST.min(target / 4).max(LEAST),
                LONGEST.min((target / 2).max(FIRST)),
            ),
            None => (FIRST, LONGEST),
        };
        let doublings = self.count.saturating_sub(1).min(16);
        first.saturating_mul(1 << doublings).min(longest)
    }

    /// `None`: at once. So too for a failure of the future: the clock was set back.
    pub fn retry_at(self, now: Timestamp, rpo_target: Option<Duration>) -> Option<Timestamp> {
        let last = self.last_at.filter(|last| self.count > 0 && *last <= now)?;
        let pause = SignedDuration::try_from(self.pause(rpo_target)).ok()?;
        last.checked_add(pause).ok().filter(|at| *at > now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pauses(rpo_seconds: u64) -> Vec<u64> {
        let target = Some(Duration::from_secs(rpo_seconds));
        let pause = |count| {
            Failures {
                count,
                last_at: None,
            }
            .pause(target)
            .as_secs()
        };
        (1..=9).map(pause).collect()
    }

    #[test]
    fn pauses_double_within_their_bounds() {
        assert_eq!(
            pauses(86_400),
            [60, 120, 240, 480, 960, 1920, 3600, 3600, 3600]
        );
        assert_eq!(
            pauses(3_600),
            [60, 120, 240, 480, 960, 1800, 1800, 1800, 1800]
        );
        // A target of 10 s: quick at first, a minute in the end.
        assert_eq!(pauses(10), [2, 5, 10, 20, 40, 60, 60, 60, 60]);
        let many = Failures {
            count: u32::MAX,
            last_at: None,
        };
        assert_eq!(many.pause(None), LONGEST);
    }

    #[test]
    fn a_retry_is_at_once_when_its_time_has_come_or_the_clock_cannot_be_trusted() {
        let at = |second: i64| Timestamp::from_second(second).expect("a time");
        let failed = Failures::default().and_one_more(at(1000));
        assert_eq!(failed.retry_at(at(1000), None), Some(at(1060)));
        assert_eq!(failed.retry_at(at(1059), None), Some(at(1060)));
        assert_eq!(failed.retry_at(at(1060), None), None);
        assert_eq!(failed.retry_at(at(999), None), None);
        assert_eq!(failed.at_once().retry_at(at(1000), None), None);
        assert_eq!(failed.at_once().count, 1);
        assert_eq!(Failures::default().retry_at(at(0), None), None);
    }
}
