//! What an account may have at once in a region, and how much of it a plan needs.

use std::collections::BTreeMap;

use console::Finding;
use serde::Serialize;

use super::{Answer, CloudFacts};
use crate::judge::Row;
use crate::plan::{Plan, VolumeType};

/// One of AWS's. Codes and names: Service Quotas, and Amazon EC2 User Guide, "Amazon EC2 On-Demand Instance quotas".
///
/// Not among them: network interfaces (5,000 a region by default, and a VM has one) and public addresses, which no VM gets.
#[derive(Debug, PartialEq, Eq)]
pub struct Quota {
    pub service: &'static str,
    pub code: &'static str,
    pub name: &'static str,
    pub unit: &'static str,
    /// What is counted here (vCPUs, GiB, snapshots) to one of its unit.
    pub per_unit: u32,
}

const fn vcpus(code: &'static str, name: &'static str) -> Quota {
    Quota {
        service: "ec2",
        code,
        name,
        unit: "vCPUs",
        per_unit: 1,
    }
}

const fn storage(code: &'static str, name: &'static str) -> Quota {
    Quota {
        service: "ebs",
        code,
        name,
        unit: "TiB",
        per_unit: 1024,
    }
}

static STANDARD: Quota = vcpus(
    "L-1216C47A",
    "Running On-Demand Standard (A, C, D, H, I, M, R, T, Z) instances",
);
static GRAPHICS: Quota = vcpus("L-DB2E81BA", "Running On-Demand G and VT instances");
static MEMORY: Quota = vcpus("L-7295265B", "Running On-Demand X instances");
static HIGH_MEMORY: Quota = vcpus("L-43DA4232", "Running On-Demand High Memory instances");
static GP3: Quota = storage(
    "L-7A658B76",
    "Storage for General Purpose SSD (gp3) volumes, in TiB",
);
static GP2: Quota = storage(
    "L-D18FCD1D",
    "Storage for General Purpose SSD (gp2) volumes, in TiB",
);
static IO2: Quota = storage(
    "L-09BD8365",
    "Storage for Provisioned IOPS SSD (io2) volumes, in TiB",
);
static ST1: Quota = storage(
    "L-82ACEF56",
    "Storage for Throughput Optimized HDD (st1) volumes, in TiB",
);
static SC1: Quota = storage("L-17AF77E8", "Storage for Cold HDD (sc1) volumes, in TiB");
static SNAPSHOTS: Quota = Quota {
    service: "ebs",
    code: "L-309BACF6",
    name: "Snapshots per Region",
    unit: "snapshots",
    per_unit: 1,
};

/// The one that an instance type counts against; none for those that no server of a small site is brought back as.
fn of_instance(kind: &str) -> Option<&'static Quota> {
    let letters = kind.split(|other: char| !other.is_ascii_lowercase()).next();
    match letters.unwrap_or_default() {
        "a" | "c" | "d" | "h" | "i" | "im" | "is" | "m" | "r" | "t" | "z" => Some(&STANDARD),
        "g" | "gr" | "vt" => Some(&GRAPHICS),
        "x" => Some(&MEMORY),
        "u" => Some(&HIGH_MEMORY),
        _ => None,
    }
}

fn of_volume(kind: VolumeType) -> &'static Quota {
    match kind {
        VolumeType::Gp3 => &GP3,
        VolumeType::Gp2 => &GP2,
        VolumeType::Io2 => &IO2,
        VolumeType::St1 => &ST1,
        VolumeType::Sc1 => &SC1,
    }
}

/// Those that the plan needs something of.
pub fn quotas(plan: &Plan, rows: &[Row]) -> Vec<&'static Quota> {
    let types = plan.vms.iter().flat_map(|vm| &vm.instance);
    let volumes = rows.iter().flat_map(|row| row.volumes_gib.keys());
    let all = types
        .filter_map(|kind| of_instance(kind))
        .chain(volumes.map(|kind| of_volume(*kind)))
        .chain([&SNAPSHOTS]);
    let by_code: BTreeMap<_, _> = all.map(|quota| (quota.code, quota)).collect();
    by_code.into_values().collect()
}

/// One quota, in its own unit.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct QuotaRow {
    pub code: &'static str,
    pub name: &'static str,
    pub unit: &'static str,
    /// None where the cloud did not tell.
    pub quota: Option<f64>,
    pub used: Option<f64>,
    /// By all VMs of the plan at once.
    pub needed: f64,
    /// Where each VM gets the largest of the types that are tried.
    pub needed_at_most: f64,
}

impl QuotaRow {
    /// 5, 0.25: no more digits than tell something.
    pub fn number(value: f64) -> String {
        match value.fract() == 0.0 {
            true => format!("{value:.0}"),
            false => format!("{value:.2}"),
        }
    }
}

/// What the plan needs of a quota, in what is counted.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
struct Need {
    first: u64,
    most: u64,
}

fn needs(plan: &Plan, rows: &[Row], facts: &CloudFacts) -> BTreeMap<&'static str, Need> {
    let mut needs: BTreeMap<&str, Need> = BTreeMap::new();
    let vcpus_of = |kind: &str| known(&facts.vcpus).and_then(|all| all.get(kind)).copied();
    for vm in &plan.vms {
        let mut most: BTreeMap<&str, u64> = BTreeMap::new();
        for (place, kind) in vm.instance.iter().enumerate() {
            let Some((quota, vcpus)) = of_instance(kind).zip(vcpus_of(kind)) else {
                continue;
            };
            if place == 0 {
                add(&mut needs.entry(quota.code).or_default().first, vcpus);
            }
            let of_vm = most.entry(quota.code).or_default();
            *of_vm = vcpus.max(*of_vm);
        }
        for (code, vcpus) in most {
            add(&mut needs.entry(code).or_default().most, vcpus);
        }
    }
    let volumes = rows.iter().flat_map(|row| &row.volumes_gib);
    let volumes = volumes.map(|(kind, gib)| (of_volume(*kind).code, *gib));
    let snapshots = rows.iter().map(|row| (SNAPSHOTS.code, row.disks));
    for (code, count) in volumes.chain(snapshots) {
        let need = needs.entry(code).or_default();
        add(&mut need.first, count);
        add(&mut need.most, count);
    }
    needs
}

fn add(sum: &mut u64, more: u64) {
    *sum = sum.saturating_add(more);
}

fn known<T>(answer: &Answer<T>) -> Option<&T> {
    answer.as_ref().ok()
}

fn used(quota: &Quota, facts: &CloudFacts) -> Option<u64> {
    if quota.code == SNAPSHOTS.code {
        return known(&facts.snapshots).copied();
    }
    let is_it = |its: Option<&'static Quota>| its == Some(quota);
    if quota.service == "ebs" {
        let all = known(&facts.volumes_gib)?.iter();
        let its = all.filter(|(kind, _)| is_it(VolumeType::named(kind).map(of_volume)));
        return Some(its.map(|(_, gib)| *gib).fold(0, u64::saturating_add));
    }
    let (vcpus, running) = known(&facts.vcpus).zip(known(&facts.running))?;
    let its = running.iter().filter(|(kind, _)| is_it(of_instance(kind)));
    let each = its.filter_map(|(kind, count)| Some(count.saturating_mul(*vcpus.get(kind)?)));
    Some(each.fold(0, u64::saturating_add))
}

/// Each quota that the plan needs, and a finding for each that is too small.
pub fn judge(plan: &Plan, rows: &[Row], facts: &CloudFacts) -> (Vec<QuotaRow>, Vec<Finding>) {
    let needs = needs(plan, rows, facts);
    let mut told = Vec::new();
    let mut findings = Vec::new();
    for quota in quotas(plan, rows) {
        let need = needs.get(quota.code).copied().unwrap_or_default();
        let in_units = |count: u64| count as f64 / f64::from(quota.per_unit);
        let row = QuotaRow {
            code: quota.code,
            name: quota.name,
            unit: quota.unit,
            quota: facts.quotas.get(quota.code).and_then(known).copied(),
            used: used(quota, facts).map(in_units),
            needed: in_units(need.first),
            needed_at_most: in_units(need.most),
        };
        findings.extend(too_small(plan, quota, &row));
        told.push(row);
    }
    (told, findings)
}

fn too_small(plan: &Plan, quota: &Quota, row: &QuotaRow) -> Option<Finding> {
    let has = row.quota?;
    // What is used may not be known: then the quota has to hold the plan at least.
    let used = row.used.unwrap_or(0.0);
    let number = QuotaRow::number;
    let unit = quota.unit;
    let why = match (used + row.needed > has, used + row.needed_at_most > has) {
        (true, _) => format!(
            "it is {}, {} are in use, and the plan needs {} at once: some VMs would not start",
            number(has),
            number(used),
            number(row.needed)
        ),
        (false, true) => format!(
            "it is {}, {} are in use, and the plan needs up to {} if larger types have to be taken because capacity is short",
            number(has),
            number(used),
            number(row.needed_at_most)
        ),
        (false, false) => return None,
    };
    let wanted = (used + row.needed.max(row.needed_at_most)).ceil();
    let remedy = format!(
        "today, since it may take days: \"Request an increase of '{}' ({}) in {} from {} to {} {unit}\" (AWS console, Service Quotas)",
        quota.name,
        quota.code,
        plan.region,
        number(has),
        number(wanted)
    );
    Some(Finding::new(
        format!("the account may not have enough {unit}"),
        format!("quota {}", quota.code),
        why,
        remedy,
    ))
}
