//! The speed of an uplink.

use std::{fmt, str::FromStr};

use super::{UnitError, quantity, written_form};

/// Bits per second, as uplinks are sold: `8 Mbit/s`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct BitRate(pub u64);

const UNITS: [(&str, u64); 4] = [
    ("bit/s", 1),
    ("kbit/s", 1_000),
    ("Mbit/s", 1_000_000),
    ("Gbit/s", 1_000_000_000),
];

impl BitRate {
    pub(super) const WANTED: &str = "a rate such as \"8 Mbit/s\" (bit/s, kbit/s, Mbit/s, Gbit/s)";

    pub fn bits_per_second(self) -> u64 {
        self.0
    }

    /// Whole bytes per second, rounded down.
    pub fn bytes_per_second(self) -> u64 {
        self.0 / 8
    }
}

impl FromStr for BitRate {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Self, UnitError> {
        let refuse = |why: String| UnitError::new(text, Self::WANTED, why);
        let (number, unit) = quantity::split(text);
        let Some((_, size)) = UNITS.iter().find(|(known, _)| *known == unit) else {
            return Err(refuse(quantity::unknown_unit(number, unit)));
        };
        quantity::times(number, *size)
            .map(BitRate)
            .map_err(|e| refuse(quantity::reason(e, "bits per second")))
    }
}

impl fmt::Display for BitRate {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(&quantity::in_largest_unit(self.0, &UNITS))
    }
}

written_form!(BitRate);

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn reads_what_people_write() {
        for (text, bits) in [
            ("8 Mbit/s", 8_000_000),
            ("2.5 Mbit/s", 2_500_000),
            ("640kbit/s", 640_000),
            ("1 Gbit/s", 1_000_000_000),
        ] {
            assert_eq!(text.parse(), Ok(BitRate(bits)), "{text}");
        }
        assert_eq!(BitRate(8_000_000).bytes_per_second(), 1_000_000);
    }

    #[test]
    fn bytes_are_not_taken_for_bits() {
        for (text, why) in [
            ("8 MB/s", "no such unit: \"MB/s\""),
            ("8 Mbit", "no such unit: \"Mbit\""),
            ("8", "the unit is missing"),
        ] {
            let message = text.parse::<BitRate>().expect_err(text).to_string();
            assert_eq!(
                message,
                format!(
                    "{text:?} is not a rate such as \"8 Mbit/s\" (bit/s, kbit/s, Mbit/s, Gbit/s): {why}"
                )
            );
        }
    }

    proptest! {
        #[test]
        fn prints_what_it_parses(n in any::<u64>()) {
            prop_assert_eq!(BitRate(n).to_string().parse(), Ok(BitRate(n)));
        }
    }
}
