//! The plan's network against the one that is there, and what its zones offer.

use std::collections::{BTreeMap, BTreeSet};

use console::Finding;

use super::{CloudFacts, SubnetFacts};
use crate::address::given_address;
use crate::draft;
use crate::plan::{Plan, PlannedVm, Subnet};

type Subnets = BTreeMap<String, SubnetFacts>;

/// Subnets that differ from what the plan says, and have too few addresses.
pub fn subnets(plan: &Plan, facts: &CloudFacts) -> Vec<Finding> {
    let Ok(known) = &facts.subnets else {
        return Vec::new();
    };
    let mut findings = Vec::new();
    for subnet in &plan.subnets {
        let at = |id: &str, what: &str| format!("subnet {} ({what}{id})", subnet.name);
        let real = seen(
            plan,
            subnet,
            known,
            &subnet.id,
            at(&subnet.id, ""),
            &mut findings,
        );
        let Some(test) = &subnet.test else { continue };
        let on = at(test, "its twin ");
        let twin = seen(plan, subnet, known, test, on.clone(), &mut findings);
        if real
            .zip(twin)
            .is_some_and(|(real, twin)| real.vpc == twin.vpc)
        {
            findings.push(Finding::new(
                "the test network is the recovery network",
                on,
                "a rehearsal would start copies where the recovered VMs are",
                "write a subnet of the isolated network as its `test`",
            ));
        }
    }
    findings
}

fn seen<'a>(
    plan: &Plan,
    subnet: &Subnet,
    known: &'a Subnets,
    id: &str,
    on: String,
    findings: &mut Vec<Finding>,
) -> Option<&'a SubnetFacts> {
    if id.contains(draft::TO_FILL) {
        return None;
    }
    let Some(real) = known.get(id) else {
        findings.push(Finding::new(
            format!("there is no such subnet in {}", plan.region),
            on,
            "no VM could be started in it",
            "make it (terraform/aws), or correct the plan",
        ));
        return None;
    };
    let mut find = |what: String, why: String, remedy: &str| {
        findings.push(Finding::new(what, on.clone(), why, remedy));
    };
    if real.range != Some(subnet.range) {
        let range = real
            .range
            .map_or_else(|| "another one".into(), |range| range.to_string());
        find(
            "its range is not the plan's".into(),
            format!(
                "it is {range}, the plan says {}: addresses are given by the plan's",
                subnet.range
            ),
            "write the range that it has into the plan, or its right id",
        );
    }
    if real.zone != subnet.zone {
        find(
            "its zone is not the plan's".into(),
            format!("it is in {}, the plan says {}", real.zone, subnet.zone),
            "write the zone that it has into the plan, or its right id",
        );
    }
    let names = |vm: &&PlannedVm| vm.subnet.contains(&subnet.name);
    let first = |vm: &&PlannedVm| vm.subnet.first() == Some(&subnet.name);
    let (needed, most) = (
        plan.vms.iter().filter(first).count() as u64,
        plan.vms.iter().filter(names).count() as u64,
    );
    let why = match (needed > real.free, most > real.free) {
        (true, _) => format!(
            "{} are free, and {needed} VMs are put there first",
            real.free
        ),
        (false, true) => format!("{} are free, and {most} VMs name it", real.free),
        (false, false) => return Some(real),
    };
    find(
        "it has too few free addresses".into(),
        why,
        "free some, or name another subnet too",
    );
    Some(real)
}

/// Security groups that are not there, or are of another network than a subnet of the VM.
pub fn security_groups(plan: &Plan, facts: &CloudFacts) -> Vec<Finding> {
    let Ok(groups) = &facts.security_groups else {
        return Vec::new();
    };
    // One finding for each group, with its VMs.
    let mut wrong: BTreeMap<(&str, String), BTreeSet<&str>> = BTreeMap::new();
    for vm in &plan.vms {
        for group in &vm.security_groups {
            let mut add = |why: String| {
                wrong.entry((group, why)).or_default().insert(&vm.name);
            };
            let Some(vpc) = groups.get(group) else {
                add(format!("there is none in {}", plan.region));
                continue;
            };
            for subnet in of_vm(plan, vm) {
                let real = facts
                    .subnets
                    .as_ref()
                    .ok()
                    .and_then(|all| all.get(&subnet.id));
                if let Some(real) = real.filter(|real| real.vpc != *vpc) {
                    let (name, other) = (&subnet.name, &real.vpc);
                    add(format!(
                        "it is one of {vpc}, and subnet {name} is in {other}"
                    ));
                }
            }
        }
    }
    let findings = wrong.into_iter().map(|((group, why), vms)| {
        Finding::new(
            format!("security group {group} cannot be used"),
            on_vms(vms),
            why,
            "name one of the subnet's network",
        )
    });
    findings.collect()
}

/// Addresses that the plan gives, and something else has.
pub fn addresses(plan: &Plan, facts: &CloudFacts) -> Vec<Finding> {
    let Ok(holders) = &facts.holders else {
        return Vec::new();
    };
    let mut findings = Vec::new();
    for vm in &plan.vms {
        for subnet in of_vm(plan, vm) {
            let Ok(Some(address)) = given_address(plan, vm, subnet) else {
                continue;
            };
            for id in std::iter::once(&subnet.id).chain(&subnet.test) {
                let held = holders.get(&(id.clone(), address));
                // The VM itself, in a run that is up.
                let Some(held) = held.filter(|held| held.vm.as_deref() != Some(&vm.name)) else {
                    continue;
                };
                findings.push(Finding::new(
                    format!(
                        "its address {address} is in use in subnet {} ({id})",
                        subnet.name
                    ),
                    format!("VM {}", vm.name),
                    format!("network interface {} has it", held.interface),
                    "remove what has it, or give the VM another one (`address`)",
                ));
            }
        }
    }
    findings
}

/// Types that zones do not offer.
pub fn offers(plan: &Plan, facts: &CloudFacts) -> Vec<Finding> {
    let Ok(offered) = &facts.offered else {
        return Vec::new();
    };
    let offers = |kind: &str, zone: &str| offered.contains(&(kind.to_owned(), zone.to_owned()));
    let anywhere = |kind: &str| offered.iter().any(|(offered, _)| offered == kind);
    let mut findings = Vec::new();
    let mut unknown: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    // Whether it is a first choice, and of which VMs.
    let mut missing: BTreeMap<(&str, String), (bool, BTreeSet<&str>)> = BTreeMap::new();
    for vm in &plan.vms {
        let zones: Vec<String> = of_vm(plan, vm).map(|subnet| zone(subnet, facts)).collect();
        let mut some = false;
        for (place, kind) in vm.instance.iter().enumerate() {
            if !anywhere(kind) {
                unknown.entry(kind).or_default().insert(&vm.name);
                continue;
            }
            for (nth, zone) in zones.iter().enumerate() {
                if offers(kind, zone) {
                    some = true;
                    continue;
                }
                let (first, vms) = missing.entry((kind, zone.clone())).or_default();
                *first |= place == 0 && nth == 0;
                vms.insert(&vm.name);
            }
        }
        if !some {
            findings.push(Finding::new(
                "it cannot start",
                format!("VM {}", vm.name),
                "none of its instance types is offered in a zone of its subnets",
                "name types that are, or subnets of other zones",
            ));
        }
    }
    for (kind, vms) in unknown {
        findings.push(Finding::new(
            format!("instance type {kind} is not offered in {}", plan.region),
            on_vms(vms),
            "no zone of the region has it",
            "name another type",
        ));
    }
    for ((kind, zone), (first, vms)) in missing {
        let has = offered.iter().filter(|(offered, _)| offered == kind);
        let zones: Vec<&str> = has.map(|(_, zone)| zone.as_str()).collect();
        let why = match first {
            true => "it is the first choice, and another one would be taken on the day",
            false => "one chance less on the day that capacity is short",
        };
        findings.push(Finding::new(
            format!("instance type {kind} is not offered in zone {zone}"),
            on_vms(vms),
            why,
            format!("name a type that is, or a subnet of {}", zones.join(", ")),
        ));
    }
    findings
}

/// The zone that it is in; by the plan where the cloud did not tell.
fn zone(subnet: &Subnet, facts: &CloudFacts) -> String {
    let real = facts
        .subnets
        .as_ref()
        .ok()
        .and_then(|all| all.get(&subnet.id));
    real.map_or_else(|| subnet.zone.clone(), |real| real.zone.clone())
}

fn of_vm<'a>(plan: &'a Plan, vm: &'a PlannedVm) -> impl Iterator<Item = &'a Subnet> {
    vm.subnet.iter().filter_map(|name| plan.subnet(name))
}

fn on_vms(vms: BTreeSet<&str>) -> String {
    let names: Vec<&str> = vms.iter().copied().collect();
    match names.len() {
        1 => format!("VM {}", names.join("")),
        _ => format!("VMs {}", names.join(", ")),
    }
}
