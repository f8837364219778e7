//! What a cloud asks: a dated table that can be edited, and which instance type a VM gets by it.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::known::KnownHardware;
use crate::plan::{Volume, VolumeType};

/// The table that comes with the program, as text.
pub const AWS: &str = include_str!("prices/aws.toml");

/// As [`Prices::aws`] has them, or the owner's own.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Prices {
    pub region: String,
    pub as_of: String,
    pub usd_per_gib_month_snapshot: f64,
    pub usd_per_1000_snapshot_blocks: f64,
    pub usd_per_vcpu_hour_windows: f64,
    pub volumes: Volumes,
    pub instances: BTreeMap<String, Instance>,
}

/// By their types.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Volumes {
    pub gp3: VolumePrice,
    pub gp2: VolumePrice,
    pub io2: VolumePrice,
    pub st1: VolumePrice,
    pub sc1: VolumePrice,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VolumePrice {
    pub usd_per_gib_month: f64,
    /// Included.
    #[serde(default)]
    pub iops: u32,
    #[serde(default)]
    pub usd_per_iops_month: f64,
    /// MiB/s that are included.
    #[serde(default)]
    pub throughput: u32,
    #[serde(default)]
    pub usd_per_mibps_month: f64,
}

impl Volumes {
    fn of(&self, kind: VolumeType) -> VolumePrice {
        match kind {
            VolumeType::Gp3 => self.gp3,
            VolumeType::Gp2 => self.gp2,
            VolumeType::Io2 => self.io2,
            VolumeType::St1 => self.st1,
            VolumeType::Sc1 => self.sc1,
        }
    }

    /// US dollars a month of one volume.
    pub fn month(&self, volume: &Volume, gib: f64) -> f64 {
        let price = self.of(volume.kind);
        let above = |asked: Option<u32>, included: u32| {
            f64::from(asked.unwrap_or(0).saturating_sub(included))
        };
        gib * price.usd_per_gib_month
            + above(volume.iops, price.iops) * price.usd_per_iops_month
            + above(volume.throughput, price.throughput) * price.usd_per_mibps_month
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Instance {
    pub vcpus: u32,
    pub memory_mib: u32,
    pub usd_per_hour: f64,
    /// What a licence-included Windows server costs above that; by its vCPUs where it is not written.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub usd_per_hour_windows: Option<f64>,
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
        Prices::parse(AWS).unwrap_or_else(|error| unreachable!("{error}"))
    }

    pub fn parse(text: &str) -> Result<Prices, String> {
        let prices: Prices = toml::from_str(text).map_err(|error| error.to_string())?;
        if prices.instances.is_empty() {
            return Err("[instances] names none".into());
        }
        let volumes = &prices.volumes;
        let volumes = [
            volumes.gp3,
            volumes.gp2,
            volumes.io2,
            volumes.st1,
            volumes.sc1,
        ];
        let volumes = volumes.iter().flat_map(|price| {
            [
                price.usd_per_gib_month,
                price.usd_per_iops_month,
                price.usd_per_mibps_month,
            ]
        });
        let instances = prices.instances.values();
        let hourly =
            instances.flat_map(|one| [one.usd_per_hour, one.usd_per_hour_windows.unwrap_or(0.0)]);
        let all = [
            prices.usd_per_gib_month_snapshot,
            prices.usd_per_1000_snapshot_blocks,
            prices.usd_per_vcpu_hour_windows,
        ];
        match all
            .into_iter()
            .chain(volumes)
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

    /// Types for a VM, the cheapest first, each of another family, those of [`FAMILIES`] before all others; none where
    /// nothing in the table is large enough.
    pub fn suggest(&self, hardware: &KnownHardware) -> Vec<&str> {
        let mut fit: Vec<(&str, f64)> = self
            .instances
            .iter()
            .filter(|(_, instance)| Prices::holds(**instance, hardware))
            .map(|(name, instance)| (name.as_str(), instance.usd_per_hour))
            .collect();
        let other = |name: &str| !FAMILIES.contains(&family(name));
        fit.sort_by(|(a, cost_a), (b, cost_b)| {
            let by_cost = cost_a.total_cmp(cost_b);
            other(a).cmp(&other(b)).then(by_cost).then(a.cmp(b))
        });
        let mut seen = BTreeSet::new();
        let names = fit.into_iter().map(|(name, _)| name);
        names
            .filter(|name| seen.insert(family(name)))
            .take(SUGGESTED)
            .collect()
    }
}

/// `m6i` of `m6i.large`.
fn family(instance: &str) -> &str {
    instance.split('.').next().unwrap_or(instance)
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
    fn volumes_cost_by_their_type_and_what_is_asked_of_them() {
        let month = |text: &str, gib| {
            Prices::aws()
                .volumes
                .month(&toml::from_str(text).unwrap(), gib)
        };
        let near = |a: f64, b: f64| assert!((a - b).abs() < 1e-9, "{a} {b}");
        near(month("", 100.0), 8.0);
        near(month("iops = 3000\nthroughput = 125", 100.0), 8.0);
        near(
            month("iops = 5000\nthroughput = 225", 100.0),
            8.0 + 2000.0 * 0.005 + 100.0 * 0.04,
        );
        near(month("type = \"io2\"\niops = 1000", 10.0), 1.25 + 65.0);
        near(month("type = \"sc1\"", 1000.0), 15.0);
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
        let none = &own[..own.find("[instances]").unwrap()];
        assert!(
            Prices::parse(&format!("{none}[instances]\n"))
                .unwrap_err()
                .contains("names none")
        );
        let odd = format!(
            "{none}[instances]\n\"x9.odd\" = {{ vcpus = 2, memory_mib = 4096, usd_per_hour = 1.0 }}\n"
        );
        let odd = Prices::parse(&odd).unwrap();
        assert_eq!(odd.suggest(&KnownHardware::default()), ["x9.odd"]);
        assert!(Prices::parse(&own.replacen("0.08", "nan", 1)).is_err());
        assert!(
            Prices::parse("region = \"x\"")
                .unwrap_err()
                .contains("missing field")
        );
    }
}
