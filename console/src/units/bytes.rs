//! A number of bytes.

use std::{fmt, str::FromStr};

use super::{UnitError, quantity, written_form};

/// A number of bytes, written with a binary or a decimal unit: `256 KiB`, `500 GB`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Bytes(pub u64);

const UNITS: [(&str, u64); 11] = [
    ("B", 1),
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
    ("TiB", 1 << 40),
    ("PiB", 1 << 50),
    ("kB", 1_000),
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
    ("TB", 1_000_000_000_000),
    ("PB", 1_000_000_000_000_000),
];

impl Bytes {
    pub(super) const WANTED: &str =
        "a size such as \"500 GB\" or \"256 KiB\" (B, kB, MB, GB, TB, PB; KiB, MiB, GiB, TiB, PiB)";

    pub fn get(self) -> u64 {
        self.0
    }
}

impl FromStr for Bytes {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Self, UnitError> {
        let refuse = |why: String| UnitError::new(text, Self::WANTED, why);
        let (number, unit) = quantity::split(text);
        let name = if unit == "KB" { "kB" } else { unit };
        let Some((_, size)) = UNITS.iter().find(|(known, _)| *known == name) else {
            return Err(refuse(quantity::unknown_unit(number, unit)));
        };
        quantity::times(number, *size)
            .map(Bytes)
            .map_err(|e| refuse(quantity::reason(e, "bytes")))
    }
}

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(&quantity::in_largest_unit(self.0, &UNITS))
    }
}

written_form!(Bytes);

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn reads_what_people_write() {
        for (text, bytes) in [
            ("500 GB", 500_000_000_000),
            ("256 KiB", 262_144),
            ("256KiB", 262_144),
            ("  4 TiB ", 4 << 40),
            ("1.5 GiB", 3 << 29),
            ("64 KB", 64_000),
            ("64 kB", 64_000),
            ("0 B", 0),
        ] {
            assert_eq!(text.parse(), Ok(Bytes(bytes)), "{text}");
        }
    }

    #[test]
    fn refuses_and_says_what_it_takes() {
        let message = |text: &str| text.parse::<Bytes>().expect_err(text).to_string();
        assert_eq!(
            message("40"),
            "\"40\" is not a size such as \"500 GB\" or \"256 KiB\" (B, kB, MB, GB, TB, PB; KiB, \
             MiB, GiB, TiB, PiB): the unit is missing"
        );
        for (text, why) in [
            ("GB", "it must start with a number"),
            ("-1 GB", "it must start with a number"),
            ("1,5 GB", "no such unit: \",5 GB\""),
            ("5 Gb", "no such unit: \"Gb\""),
            ("0.3 B", "it is not a whole number of bytes"),
            ("99999 PB", "it is too large"),
            ("1.2.3 MB", "it must be a plain decimal number and a unit"),
            ("", "it must start with a number"),
        ] {
            assert!(message(text).ends_with(why), "{}", message(text));
        }
    }

    #[test]
    fn prints_the_exact_value_in_its_largest_unit() {
        for text in ["500 GB", "256 KiB", "0 B", "1001 B", "3 TiB", "1 kB"] {
            assert_eq!(
                text.parse::<Bytes>().map(|b| b.to_string()),
                Ok(text.to_string())
            );
        }
    }

    #[derive(serde::Deserialize, serde::Serialize, PartialEq, Debug)]
    struct Outbox {
        max: Bytes,
    }

    #[test]
    fn toml_holds_it_as_a_string_and_not_as_a_number() {
        let outbox: Outbox = toml::from_str("max = '40 GB'").expect("reads");
        assert_eq!(
            outbox,
            Outbox {
                max: Bytes(40_000_000_000)
            }
        );
        assert_eq!(
            toml::to_string(&outbox).expect("writes"),
            "max = \"40 GB\"\n"
        );
        let refused = toml::from_str::<Outbox>("max = 40").expect_err("a bare number");
        assert!(
            refused.to_string().contains("expected a size such as"),
            "{refused}"
        );
    }

    proptest! {
        #[test]
        fn prints_what_it_parses(n in prop_oneof![any::<u64>(), (0u64..5000).prop_map(|n| n << 20)]) {
            prop_assert_eq!(Bytes(n).to_string().parse(), Ok(Bytes(n)));
        }

        #[test]
        fn never_panics(text in ".{0,30}") {
            let _ = text.parse::<Bytes>();
        }
    }
}
