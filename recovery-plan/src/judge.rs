//! A plan against what the vault has, what instances there are, and what they cost: the ordered list that people read
//! before the day, and what would go wrong on it.

mod itself;

use std::collections::BTreeMap;

use console::{Finding, show};
use jiff::Timestamp;
use serde::Serialize;

use crate::address::given_address;
use crate::known::{KnownDisk, KnownPoint, KnownVm};
use crate::order::starts;
use crate::plan::{Group, Hook, Licence, Plan, PlannedVm, Volume, VolumeType};
use crate::point::{Chosen, NoPoint, choose};
use crate::prices::{Prices, wanted};

const HOURS_PER_DAY: f64 = 24.0;
const DAYS_PER_MONTH: f64 = 30.4;
/// PutSnapshotBlock takes so much at a time. Source: Amazon EBS direct APIs reference.
const SNAPSHOT_BLOCK_BYTES: u64 = 512 << 10;
const GIB: u64 = 1 << 30;

#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Judged {
    /// In the order in which they start.
    pub rows: Vec<Row>,
    pub groups: Vec<GroupRow>,
    pub cost: Cost,
    pub findings: Vec<Finding>,
    /// What is good to know, and no finding.
    pub notes: Vec<String>,
}

/// One VM of the plan.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Row {
    /// VMs of the same number start at the same time; 1 is first.
    pub step: usize,
    pub group: String,
    pub vm: String,
    /// The sequence number of the recovery point; none where the rule finds none.
    pub point: Option<u64>,
    /// `EPOCH-SEQUENCE`, which no other point of the VM has.
    pub point_id: Option<String>,
    pub captured_at: Option<Timestamp>,
    pub age: String,
    /// Points that are newer, and given up.
    pub newer_points: usize,
    /// In the order in which they are tried.
    pub instances: Vec<String>,
    pub subnets: Vec<String>,
    pub volumes_bytes: u64,
    /// Of each type, each volume rounded up as AWS does.
    pub volumes_gib: BTreeMap<VolumeType, u64>,
    /// Snapshots that are made.
    pub disks: u64,
    /// `dhcp`, or the address in the first subnet.
    pub address: String,
    pub needs: Vec<String>,
    pub probes: Vec<String>,
    /// Their commands.
    pub hooks_before: Vec<String>,
    pub hooks_after: Vec<String>,
}

/// What a group does beside its VMs.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct GroupRow {
    pub name: String,
    /// Waited when all of it serve.
    pub delay_seconds: u64,
    pub hooks_before: Vec<String>,
    pub hooks_after: Vec<String>,
}

/// In US dollars, by the table; `None` where a type is not in it.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Cost {
    /// To make the disks once: no more than if no block of them were empty.
    pub making_at_most: f64,
    /// Of all instances and volumes.
    pub day: Option<f64>,
    /// Of the snapshots, as long as they are kept: no more than if no block were empty.
    pub snapshots_month_at_most: f64,
}

/// What is judged, of one VM at the point that its rule takes.
struct Subject<'a> {
    plan: &'a Plan,
    vm: &'a PlannedVm,
    point: &'a KnownPoint,
    prices: &'a Prices,
}

/// `vms` are all that the vault knows.
pub fn judge(plan: &Plan, vms: &[KnownVm], prices: &Prices, now: Timestamp) -> Judged {
    let mut judged = Judged {
        rows: Vec::new(),
        groups: plan.groups.iter().map(group).collect(),
        cost: Cost {
            making_at_most: 0.0,
            day: Some(0.0),
            snapshots_month_at_most: 0.0,
        },
        findings: Vec::new(),
        notes: Vec::new(),
    };
    for (step, start) in starts(plan).into_iter().enumerate() {
        for vm in start.vms {
            let known = vms.iter().find(|known| known.name == vm.name);
            let chosen = known.map(|known| choose(vm.point, &known.points, now));
            let chosen = match chosen {
                None => Err(unknown(vm, vms)),
                Some(chosen) => chosen.map_err(|why| no_point(vm, &why)),
            };
            judged
                .rows
                .push(row(plan, vm, chosen.as_ref().ok(), step + 1, now));
            match chosen {
                Err(finding) => judged.findings.push(finding),
                Ok(chosen) => {
                    judged.notes.extend(of_choice(vm, &chosen));
                    let point = chosen.point;
                    Subject {
                        plan,
                        vm,
                        point,
                        prices,
                    }
                    .judge(&mut judged);
                }
            }
        }
    }
    itself::judge(plan, &mut judged.findings);
    let planned = |known: &&KnownVm| plan.vms.iter().any(|vm| vm.name == known.name);
    let left_out: Vec<&str> = vms
        .iter()
        .filter(|vm| !planned(vm))
        .map(|vm| vm.name.as_str())
        .collect();
    if !left_out.is_empty() {
        judged.notes.push(format!(
            "in the vault and not in this plan: {}",
            left_out.join(", ")
        ));
    }
    if prices.region != plan.region {
        judged.notes.push(format!(
            "prices are those of {} of {}; {} asks others: give a table of its own with --prices",
            prices.region, prices.as_of, plan.region
        ));
    }
    judged
}

fn row(plan: &Plan, vm: &PlannedVm, chosen: Option<&Chosen>, step: usize, now: Timestamp) -> Row {
    let subnet = vm.subnet.first().and_then(|name| plan.subnet(name));
    let address = subnet.and_then(|subnet| given_address(plan, vm, subnet).ok().flatten());
    let point = chosen.map(|chosen| chosen.point);
    let disks = point.map_or(&[][..], |point| &point.disks);
    Row {
        step,
        group: vm.group.clone(),
        vm: vm.name.clone(),
        point: point.map(|point| point.id.sequence),
        point_id: point.map(|point| point.id.to_string()),
        captured_at: point.and_then(|point| point.captured_at),
        age: chosen.map_or_else(String::new, |chosen| chosen.age(now)),
        newer_points: chosen.map_or(0, |chosen| chosen.newer),
        instances: vm.instance.clone(),
        subnets: vm.subnet.clone(),
        volumes_bytes: disks
            .iter()
            .fold(0, |sum, disk| sum.saturating_add(disk.size_bytes)),
        volumes_gib: volumes_gib(vm, disks),
        disks: disks.iter().filter(|disk| !disk.excluded).count() as u64,
        address: address.map_or_else(|| "dhcp".into(), |address| address.to_string()),
        needs: vm.needs.clone(),
        probes: vm.probes.iter().map(ToString::to_string).collect(),
        hooks_before: commands(&vm.before),
        hooks_after: commands(&vm.after),
    }
}

fn volumes_gib(vm: &PlannedVm, disks: &[KnownDisk]) -> BTreeMap<VolumeType, u64> {
    let mut sums = BTreeMap::new();
    for disk in disks {
        let sum: &mut u64 = sums.entry(vm.volume_of(&disk.name).kind).or_default();
        *sum = sum.saturating_add(disk.size_bytes.div_ceil(GIB));
    }
    sums
}

fn group(group: &Group) -> GroupRow {
    GroupRow {
        name: group.name.clone(),
        delay_seconds: group.delay.map_or(0, |delay| delay.seconds()),
        hooks_before: commands(&group.before),
        hooks_after: commands(&group.after),
    }
}

fn commands(hooks: &[Hook]) -> Vec<String> {
    hooks.iter().map(|hook| hook.command.join(" ")).collect()
}

fn unknown(vm: &PlannedVm, vms: &[KnownVm]) -> Finding {
    let known: Vec<&str> = vms.iter().map(|vm| vm.name.as_str()).collect();
    let remedy = match known.is_empty() {
        true => "the vault holds no recovery point that opens".to_owned(),
        false => format!("name one of those that have: {}", known.join(", ")),
    };
    Finding::new(
        "the vault has no recovery point of it that opens",
        on(vm),
        "",
        remedy,
    )
}

fn no_point(vm: &PlannedVm, why: &NoPoint) -> Finding {
    Finding::new(
        format!("`point = \"{}\"` finds no recovery point", vm.point),
        on(vm),
        why.to_string(),
        "choose another rule for it; a drill proves a point, an application-consistent policy makes one",
    )
}

fn of_choice(vm: &PlannedVm, chosen: &Chosen) -> Vec<String> {
    let name = &vm.name;
    let why = chosen.why.as_ref().map(|why| {
        format!(
            "{name}: point {} is taken, and {} newer given up: {why}",
            chosen.point.id.sequence, chosen.newer
        )
    });
    let suspect = chosen.suspect.as_ref().map(|what| {
        format!("{name}: {what}: if that was an attack, take the point before it (`point = \"before-anomaly\"`)")
    });
    why.into_iter().chain(suspect).collect()
}

fn on(vm: &PlannedVm) -> String {
    format!("VM {}", vm.name)
}

impl Subject<'_> {
    fn judge(&self, judged: &mut Judged) {
        let mut find = |what: String, why: String, remedy: &str| {
            judged
                .findings
                .push(Finding::new(what, on(self.vm), why, remedy));
        };
        let (vm, point) = (self.vm, self.point);
        if point.hardware.other_architecture {
            find(
                "its processor is not x86-64".into(),
                "the instance types of this version are".into(),
                "bring it back elsewhere: `sparesite-restore assemble`",
            );
        }
        for name in &vm.instance {
            if let Some((what, why)) = self.instance(name) {
                find(what, why, "name a larger type, or another one first");
            }
        }
        for (number, disk) in point.disks.iter().enumerate() {
            if let Some((what, why)) = wrong_disk(disk, vm.volume_of(&disk.name), number == 0) {
                find(
                    what,
                    why,
                    "change `volume`, or `volumes` for this disk alone",
                );
            }
        }
        let has = |name: &str| point.disks.iter().any(|disk| disk.name == name);
        for name in vm.volumes.keys().filter(|name| !has(name)) {
            let disks: Vec<&str> = point.disks.iter().map(|disk| disk.name.as_str()).collect();
            find(
                format!("[vm.volumes] names disk {name:?}"),
                format!("its recovery point has {}", disks.join(", ")),
                "name one of those",
            );
        }
        for name in vm.subnet.iter().skip(1) {
            let subnet = self.plan.subnet(name);
            if let Some(Err(why)) = subnet.map(|subnet| given_address(self.plan, vm, subnet)) {
                find(
                    format!(
                        "it cannot get its address in subnet {name:?}, where it goes if the first has no capacity"
                    ),
                    why.to_string(),
                    "map its address there too, or give it one by DHCP",
                );
            }
        }
        self.notes(&mut judged.notes);
        judged.cost.add(self.cost());
    }

    fn instance(&self, name: &str) -> Option<(String, String)> {
        let Some(instance) = self.prices.instances.get(name) else {
            return Some((
                format!("instance type {name:?} is not in the price table"),
                "what it costs, and whether it is large enough, cannot be told".into(),
            ));
        };
        let hardware = &self.point.hardware;
        let (cpus, memory) = wanted(hardware);
        (!Prices::holds(*instance, hardware)).then(|| {
            let has = show::size(instance.memory_bytes());
            (
                format!("instance type {name} is smaller than the VM"),
                format!(
                    "{} vCPUs and {has}; the VM has {cpus} and {}",
                    instance.vcpus,
                    show::size(memory)
                ),
            )
        })
    }

    fn notes(&self, notes: &mut Vec<String>) {
        let name = &self.vm.name;
        if self.point.hardware.nics > 1 {
            notes.push(format!(
                "{name}: it has {} network interfaces, and the recovery VM has one",
                self.point.hardware.nics
            ));
        }
        if self.point.hardware.tpm {
            notes.push(format!("{name}: the secrets in its TPM are not in the vault: have its recovery keys at hand"));
        }
        for disk in self.point.disks.iter().filter(|disk| disk.excluded) {
            notes.push(format!(
                "{name}: disk {} was not captured: it comes back empty",
                disk.name
            ));
        }
        if self.vm.probes.is_empty() {
            notes.push(format!(
                "{name}: it has no probe: it counts as serving as soon as it runs"
            ));
        }
        if self.vm.instance.len() == 1 {
            notes.push(format!(
                "{name}: one instance type only: if the cloud is out of it, nothing else is tried"
            ));
        }
    }

    fn cost(&self) -> Cost {
        let kept = || self.point.disks.iter().filter(|disk| !disk.excluded);
        let blocks: f64 = kept()
            .map(|disk| disk.size_bytes.div_ceil(SNAPSHOT_BLOCK_BYTES) as f64)
            .sum();
        let stored: f64 = kept().map(gib).sum();
        let instance = self
            .vm
            .instance
            .first()
            .and_then(|name| self.prices.instances.get(name));
        let hour = instance.map(|instance| match self.vm.licence {
            Some(Licence::Included) => {
                let by_cpus = f64::from(instance.vcpus) * self.prices.usd_per_vcpu_hour_windows;
                instance.usd_per_hour + instance.usd_per_hour_windows.unwrap_or(by_cpus)
            }
            _ => instance.usd_per_hour,
        });
        let volumes = self.point.disks.iter().map(|disk| {
            let volume = self.vm.volume_of(&disk.name);
            self.prices.volumes.month(volume, gib(disk)) / DAYS_PER_MONTH
        });
        let volumes: f64 = volumes.sum();
        Cost {
            making_at_most: blocks / 1000.0 * self.prices.usd_per_1000_snapshot_blocks,
            day: hour.map(|hour| hour * HOURS_PER_DAY + volumes),
            snapshots_month_at_most: stored * self.prices.usd_per_gib_month_snapshot,
        }
    }
}

/// What a volume of its size would have.
fn gib(disk: &KnownDisk) -> f64 {
    disk.size_bytes.div_ceil(GIB) as f64
}

/// Source: Amazon EBS user guide, "Amazon EBS volume types", and the limits of StartSnapshot.
fn wrong_disk(disk: &KnownDisk, volume: &Volume, boots: bool) -> Option<(String, String)> {
    let (least_gib, most_gib) = match volume.kind {
        VolumeType::Gp3 => (1, 65_536),
        VolumeType::Io2 => (4, 65_536),
        VolumeType::Gp2 => (1, 16_384),
        VolumeType::St1 | VolumeType::Sc1 => (125, 16_384),
    };
    let gib = disk.size_bytes.div_ceil(GIB);
    let size = format!("disk {} has {}", disk.name, show::size(disk.size_bytes));
    if gib > most_gib {
        return Some((
            size,
            format!("a volume of its type has at most {most_gib} GiB"),
        ));
    }
    if gib < least_gib {
        return Some((
            size,
            format!("a volume of its type has at least {least_gib} GiB"),
        ));
    }
    if boots && matches!(volume.kind, VolumeType::St1 | VolumeType::Sc1) {
        let what = format!("disk {} is the one that boots", disk.name);
        return Some((what, "no instance boots from a volume of its type".into()));
    }
    let per_gib = match volume.kind {
        VolumeType::Io2 => 1_000,
        _ => 500,
    };
    // What comes with the volume is there whatever its size.
    let most = gib.saturating_mul(per_gib).max(3_000);
    let asked = volume.iops.map(u64::from).filter(|asked| *asked > most);
    asked.map(|asked| {
        (
            size,
            format!("a volume of its size and type has at most {most} IOPS, and {asked} are asked"),
        )
    })
}

impl Cost {
    fn add(&mut self, more: Cost) {
        self.making_at_most += more.making_at_most;
        self.day = self.day.zip(more.day).map(|(a, b)| a + b);
        self.snapshots_month_at_most += more.snapshots_month_at_most;
    }
}

#[cfg(test)]
pub(crate) mod tests;
