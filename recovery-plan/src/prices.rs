//! What a cloud asks: a dated table that can be edited, and which instance type a VM gets by it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::known::KnownHardware;

/// The table that comes with the program, as text.
pub const AWS: &str = include_str!("prices/aws.toml");

/// As [`Prices::aws`] has them, or the owner's own.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Prices {
    pub region: String,
    pub as_of: String,
    pub usd_per_gib_month_volume: f64,
    pub usd_per_gib_month_snapshot: f64,
    pub usd_per_1000_snapshot_blocks: f64,
    pub usd_per_vcpu_hour_windows: f64,
    pub instances: BTreeMap<String, Instance>,
}

#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Instance {
    pub vcpus: u32,
    pub memory_mib: u32,
    pub usd_per_hour: f64,
}

impl Instance {
    pub fn memory_bytes(self) -> u64 {
        u64::from(self.memory_mib) << 20
    }
}

/// Families that are suggested beside the cheapest type: another processor maker, and no burst credits.
const FAMILIES: [&str; 6] = ["t3", "t3a", "m6i", "m6a", "r6i", "r6a"];
/// Types that are suggested for a VM: capacity of one may be short on the day.
const SUGGESTED: usize = 3;
/// A hypervisor's VM of 4 GiB fits a type of 4 GiB, whose guest sees a little less; one of 4.1 GiB is meant to fit too.
const TOLERANCE_PERCENT: u64 = 5;
/// Where the vault does not tell (a list of disks): a small server.
const UNTOLD: (u64, u64) = (2, 4 << 30);
/// Two hypervisor CPUs are threads, and so are two vCPUs; no instance type has fewer.
const LEAST_CPUS: u64 = 2;

impl Prices {
    /// The table that comes with the program.
    pub fn aws() -> Prices {
        // A constant, and a test reads it.
        Prices::parse(include_str!("prices/aws.toml"))
            .unwrap_or_else(|error| unreachable!("{error}"))
    }

    pub fn parse(text: &str) -> Result<Prices, String> {
        let prices: Prices = toml::from_str(text).map_err(|error| error.to_string())?;
        let single = [
            prices.usd_per_gib_month_volume,
            prices.usd_per_gib_month_snapshot,
            prices.usd_per_1000_snapshot_blocks,
            prices.usd_per_vcpu_hour_windows,
        ];
        let hourly = prices.instances.values().map(|one| one.usd_per_hour);
        match single
            .into_iter()
            .chain(hourly)
            .all(|price| price.is_finite() && price >= 0.0)
        {
            true => Ok(prices),
            false => Err("a price is negative, or no number".into()),
        }
    }

    /// Whether `instance` has what the VM had: a small shortage is none.
    pub fn holds(instance: Instance, hardware: &KnownHardware) -> bool {
        let (cpus, memory) = wanted(hardware);
        let memory = memory / 100 * (100 - TOLERANCE_PERCENT);
        u64::from(instance.vcpus) >= cpus && instance.memory_bytes() >= memory
    }

    /// Types for a VM, the cheapest first and then those of other families; none where nothing in the table is large enough.
    pub fn suggest(&self, hardware: &KnownHardware) -> Vec<&str> {
        let family = |name: &str| {
            FAMILIES
                .iter()
                .position(|family| name.split('.').next() == Some(family))
        };
        let mut fit: Vec<(&str, Instance, usize)> = self
            .instances
            .iter()
            .filter(|(_, instance)| Prices::holds(**instance, hardware))
            .filter_map(|(name, instance)| Some((name.as_str(), *instance, family(name)?)))
            .collect();
        fit.sort_by(|a, b| {
            a.1.usd_per_hour
                .total_cmp(&b.1.usd_per_hour)
                .then(a.0.cmp(b.0))
        });
        let mut seen = Vec::new();
        fit.retain(|(_, _, family)| {
            let new = !seen.contains(family);
            seen.push(*family);
            new
        });
        fit.into_iter()
            .map(|(name, _, _)| name)
            .take(SUGGESTED)
            .collect()
    }
}

/// vCPUs, and bytes of memory.
pub fn wanted(hardware: &KnownHardware) -> (u64, u64) {
    let cpus = hardware.cpus.unwrap_or(UNTOLD.0).max(LEAST_CPUS);
    (cpus, hardware.memory_bytes.unwrap_or(UNTOLD.1))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn suggested(cpus: u64, memory_gib: f64) -> Vec<String> {
        let hardware = KnownHardware {
            cpus: Some(cpus),
            memory_bytes: Some((memory_gib * f64::from(1 << 30)) as u64),
            ..KnownHardware::default()
        };
        let prices = Prices::aws();
        prices
            .suggest(&hardware)
            .into_iter()
            .map(str::to_owned)
            .collect()
    }

    #[test]
    fn the_cheapest_that_is_large_enough_comes_first_and_others_of_other_families_follow() {
        assert_eq!(suggested(1, 1.0), ["t3a.micro", "t3.micro", "m6a.large"]);
        assert_eq!(suggested(2, 4.0), ["t3a.medium", "t3.medium", "m6a.large"]);
        assert_eq!(
            suggested(4, 30.0),
            ["r6a.xlarge", "r6i.xlarge", "t3a.2xlarge"]
        );
        // 4.1 GiB is 4 GiB to a person who made the VM so.
        assert_eq!(suggested(2, 4.1)[0], "t3a.medium");
        assert_eq!(suggested(2, 4.5)[0], "t3a.large");
        assert!(suggested(400, 4.0).is_empty());
    }

    #[test]
    fn what_the_vault_does_not_tell_gets_a_small_server() {
        assert_eq!(
            Prices::aws().suggest(&KnownHardware::default())[0],
            "t3a.medium"
        );
    }

    #[test]
    fn a_table_of_ones_own_is_read_and_checked() {
        let own = AWS;
        assert!(Prices::parse(own).is_ok());
        assert!(Prices::parse(&own.replacen("0.08", "-0.08", 1)).is_err());
        assert!(Prices::parse(&own.replacen("0.08", "nan", 1)).is_err());
        assert!(
            Prices::parse("region = \"x\"")
                .unwrap_err()
                .contains("missing field")
        );
    }
}
