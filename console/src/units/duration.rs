//! A length of time in whole seconds.

use std::{fmt, str::FromStr};

use super::{UnitError, quantity, written_form};

/// A length of time in whole seconds, written `15m`, `1h 30m`, `7d`. A day is 24 hours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Duration {
    seconds: u64,
}

const UNITS: [(&str, u64); 5] = [
    ("w", 604_800),
    ("d", 86_400),
    ("h", 3_600),
    ("m", 60),
    ("s", 1),
];

/// The largest value: 100 years. Adding one to any date of this age stays a date.
const MOST: u64 = 100 * 365 * 86_400;

impl Duration {
    pub(super) const WANTED: &str = "a duration such as \"15m\" or \"1h 30m\" (s, m, h, d, w)";

    /// `None` beyond 100 years.
    pub fn from_seconds(seconds: u64) -> Option<Self> {
        (seconds <= MOST).then_some(Duration { seconds })
    }

    pub fn seconds(self) -> u64 {
        self.seconds
    }
}

impl From<Duration> for std::time::Duration {
    fn from(duration: Duration) -> Self {
        std::time::Duration::from_secs(duration.seconds)
    }
}

impl FromStr for Duration {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Self, UnitError> {
        let refuse = |why: String| UnitError::new(text, Self::WANTED, why);
        let mut rest = text.trim();
        let mut seconds = 0u64;
        let mut allowed = &UNITS[..];
        while !rest.is_empty() || allowed.len() == UNITS.len() {
            let (number, after) = quantity::split(rest);
            let end = after
                .find(|c: char| !c.is_alphabetic())
                .unwrap_or(after.len());
            let (unit, following) = after.split_at(end);
            let Some(place) = UNITS.iter().position(|(known, _)| *known == unit) else {
                return Err(refuse(quantity::unknown_unit(number, unit)));
            };
            if place + allowed.len() < UNITS.len() {
                return Err(refuse("larger units come first, each at most once".into()));
            }
            allowed = &UNITS[place + 1..];
            seconds = quantity::times(number, UNITS[place].1)
                .map_err(|e| refuse(quantity::reason(e, "seconds")))?
                .saturating_add(seconds);
            rest = following.trim_start();
        }
        Duration::from_seconds(seconds).ok_or_else(|| refuse("it is more than 100 years".into()))
    }
}

impl fmt::Display for Duration {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let mut left = self.seconds;
        let mut parts = Vec::new();
        // Weeks are read and not printed: 14d is as plain as 2w, and 10d is not 1w 3d.
        for (name, size) in &UNITS[1..] {
            if left >= *size {
                parts.push(format!("{}{name}", left / size));
                left %= size;
            }
        }
        f.write_str(
            if parts.is_empty() {
                "0s".into()
            } else {
                parts.join(" ")
            }
            .as_str(),
        )
    }
}

written_form!(Duration);

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn reads_what_people_write() {
        for (text, seconds) in [
            ("15m", 900),
            ("1h", 3_600),
            ("1h 30m", 5_400),
            ("1h30m", 5_400),
            ("1.5 h", 5_400),
            ("2w", 14 * 86_400),
            ("1d 1s", 86_401),
            (" 90 s ", 90),
            ("0s", 0),
        ] {
            assert_eq!(
                text.parse::<Duration>().map(Duration::seconds),
                Ok(seconds),
                "{text}"
            );
        }
    }

    #[test]
    fn refuses_and_says_what_it_takes() {
        for (text, why) in [
            ("", "it must start with a number"),
            ("h", "it must start with a number"),
            ("15", "the unit is missing"),
            ("15 min", "no such unit: \"min\""),
            ("1h 30", "the unit is missing"),
            ("30m 1h", "larger units come first, each at most once"),
            ("1m 1m", "larger units come first, each at most once"),
            ("0.5s", "it is not a whole number of seconds"),
            ("5300w", "it is more than 100 years"),
            ("1h, 30m", "it must start with a number"),
        ] {
            let message = text.parse::<Duration>().expect_err(text).to_string();
            assert_eq!(
                message,
                format!(
                    "{text:?} is not a duration such as \"15m\" or \"1h 30m\" (s, m, h, d, w): {why}"
                )
            );
        }
    }

    #[test]
    fn prints_days_hours_minutes_seconds() {
        for (text, printed) in [
            ("90s", "1m 30s"),
            ("26h", "1d 2h"),
            ("2w", "14d"),
            ("0m", "0s"),
        ] {
            assert_eq!(
                text.parse::<Duration>().map(|d| d.to_string()),
                Ok(printed.into())
            );
        }
    }

    proptest! {
        #[test]
        fn prints_what_it_parses(n in 0..=MOST) {
            let duration = Duration::from_seconds(n).expect("in range");
            prop_assert_eq!(duration.to_string().parse(), Ok(duration));
        }

        #[test]
        fn never_panics(text in "[0-9.hmsdw ]{0,30}") {
            let _ = text.parse::<Duration>();
        }
    }
}
