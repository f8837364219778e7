//! How a VM and its recovery point are named on the command line: `VM[@POINT]`.

use std::{fmt, str::FromStr};

use vault_format::manifest::is_name;
use vault_store::StoreError;
use vault_store::read::PointSelector;

/// `dc01`, `dc01@latest`, `dc01@17`, `dc01@2026-11-22T08:00:00Z`.
#[derive(Debug, Clone)]
pub struct VmPoint {
    pub vm: String,
    pub selector: PointSelector,
    text: String,
}

impl FromStr for VmPoint {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (vm, point) = text.split_once('@').unwrap_or((text, "latest"));
        let selector = point
            .parse()
            .map_err(|error: StoreError| error.to_string())?;
        Ok(VmPoint {
            vm: vm_name(vm)?,
            selector,
            text: text.to_owned(),
        })
    }
}

impl fmt::Display for VmPoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// A VM's, disk's or gateway's name as an argument.
pub fn vm_name(text: &str) -> Result<String, String> {
    match is_name(text) {
        true => Ok(text.to_owned()),
        false => Err("a name is 1 to 64 of A-Z a-z 0-9 . _ -, and begins with none of . -".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<(String, PointSelector), String> {
        text.parse().map(|p: VmPoint| (p.vm, p.selector))
    }

    #[test]
    fn the_point_is_the_latest_unless_given() {
        for text in ["dc01", "dc01@latest"] {
            let (vm, selector) = parse(text).unwrap();
            assert_eq!(vm, "dc01");
            assert!(matches!(selector, PointSelector::Latest), "{text}");
        }
        assert!(matches!(
            parse("a.b-c@17").unwrap().1,
            PointSelector::Sequence(17)
        ));
    }

    #[test]
    fn a_time_may_have_a_zone() {
        for text in ["vm@2026-11-22T08:00:00Z", "vm@2026-11-22T09:00:00+01:00"] {
            let PointSelector::At(at) = parse(text).unwrap().1 else {
                panic!("{text} is a time");
            };
            assert_eq!(at.to_string(), "2026-11-22T08:00:00Z");
        }
    }

    #[test]
    fn what_names_nothing_is_refused() {
        for text in [
            "",
            "@7",
            "vm@",
            "vm@yesterday",
            "vm@-1",
            "vm@7@8",
            "../vm",
            "-vm",
            ".vm@7",
            "v m",
        ] {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}
