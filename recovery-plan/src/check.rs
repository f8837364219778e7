//! Whether a plan holds together by itself; what the vault and the cloud say to it is judged elsewhere.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::Ipv4Addr;

use vault_format::manifest::is_name;

use crate::address::given_address;
use crate::order::starts;
use crate::plan::{Hook, Licence, Plan, PlannedVm, Subnet, Volume, VolumeType};

/// Of the 50 tags that a resource can have, a run needs some itself.
const MOST_TAGS: usize = 40;

/// What is wrong with a plan, a line each.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlanError {
    problems: Vec<String>,
}

impl PlanError {
    /// The text is no plan: `toml` says where, and shows the line.
    pub(crate) fn unread(error: &toml::de::Error) -> Self {
        PlanError {
            problems: vec![error.to_string().trim_end().to_owned()],
        }
    }

    pub fn problems(&self) -> &[String] {
        &self.problems
    }
}

impl fmt::Display for PlanError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.problems.join("\n"))
    }
}

impl std::error::Error for PlanError {}

pub(crate) fn check(plan: &Plan) -> Result<(), PlanError> {
    let mut problems = Vec::new();
    names(plan, &mut problems);
    network(plan, &mut problems);
    groups(plan, &mut problems);
    plan.vms.iter().for_each(|vm| one(plan, vm, &mut problems));
    addresses(plan, &mut problems);
    let started: usize = starts(plan).iter().map(|start| start.vms.len()).sum();
    // Only where all else is right: a VM whose group is not there cannot start either.
    if problems.is_empty() && started < plan.vms.len() {
        circle(plan, &mut problems);
    }
    match problems.is_empty() {
        true => Ok(()),
        false => Err(PlanError { problems }),
    }
}

/// Names become tags, file names, and parts of the cloud's own names: they are made as a VM's is.
fn names(plan: &Plan, problems: &mut Vec<String>) {
    let all = [
        ("plan", vec![&plan.name]),
        ("subnet", plan.subnets.iter().map(|one| &one.name).collect()),
        ("group", plan.groups.iter().map(|one| &one.name).collect()),
        ("VM", plan.vms.iter().map(|one| &one.name).collect()),
    ];
    for (kind, names) in all {
        let mut seen = BTreeSet::new();
        for name in names {
            // The vault tells VMs apart by case.
            let folded = match kind {
                "VM" => name.clone(),
                _ => name.to_ascii_lowercase(),
            };
            if !is_name(name) {
                problems.push(format!(
                    "{name:?} is no name for a {kind}: at most 64 of A-Z, a-z, 0-9, `.`, `_` and `-`, the first no `.` or `-`"
                ));
            } else if !seen.insert(folded) {
                problems.push(format!("a second {kind} {name:?}: give each its own name"));
            }
        }
    }
    if plan.region.is_empty() {
        problems.push(
            "`region` is empty: write the cloud's name of it, such as \"eu-central-1\"".into(),
        );
    }
    if plan.vms.is_empty() {
        problems.push("it starts no VM: write at least one [[vm]]".into());
    }
    let deadline = plan.deadline.iter();
    let arns = deadline.flat_map(|deadline| {
        [
            ("deadline.sweep", &deadline.sweep),
            ("deadline.role", &deadline.role),
        ]
    });
    for (key, arn) in arns.chain(plan.volume_key.iter().map(|arn| ("volume_key", arn))) {
        if arn.split(':').filter(|part| !part.is_empty()).count() < 4 || !arn.starts_with("arn:") {
            problems.push(format!(
                "{key}: {arn:?} is no ARN: write the one that the cloud gave it, such as \"arn:aws:…\""
            ));
        }
    }
    let group = plan.deadline.iter().map(|deadline| &deadline.group);
    for group in group.filter(|group| !is_name(group)) {
        problems.push(format!(
            "deadline.group: {group:?} is no name of a group of schedules"
        ));
    }
}

fn network(plan: &Plan, problems: &mut Vec<String>) {
    for subnet in &plan.subnets {
        let on = format!("subnet {:?}", subnet.name);
        if subnet.range != subnet.range.trunc() {
            problems.push(format!(
                "{on}: {} is an address in a range: write {}",
                subnet.range,
                subnet.range.trunc()
            ));
        }
        if subnet.id.is_empty() {
            problems.push(format!(
                "{on}: `id` is empty: write the one that your cloud gave it"
            ));
        }
        if !subnet.zone.starts_with(&plan.region) {
            problems.push(format!(
                "{on}: zone {:?} is not of region {:?}",
                subnet.zone, plan.region
            ));
        }
        let into = |other: &&Subnet| subnet.test.as_ref() == Some(&other.id);
        if let Some(other) = plan.subnets.iter().find(into) {
            problems.push(format!(
                "{on}: its `test` is where subnet {:?} is: a test would run in earnest",
                other.name
            ));
        }
        let same = |other: &&Subnet| other.name != subnet.name && other.id == subnet.id;
        if let Some(other) = plan.subnets.iter().find(same) {
            problems.push(format!("{on}: subnet {:?} has the same `id`", other.name));
        }
        // Amazon VPC user guide, "Subnet CIDR blocks".
        if !(16..=28).contains(&subnet.range.prefix_len()) {
            problems.push(format!(
                "{on}: a subnet of AWS is /16 to /28, and this is /{}",
                subnet.range.prefix_len()
            ));
        }
    }
    for (number, map) in plan.maps.iter().enumerate() {
        let on = format!("the map from {}", map.site);
        match plan.subnet(&map.subnet) {
            None => problems.push(missing(&on, "subnet", &map.subnet)),
            Some(subnet) if subnet.range.prefix_len() > map.site.prefix_len() => {
                problems.push(format!(
                    "{on}: subnet {:?} ({}) has fewer addresses",
                    subnet.name, subnet.range
                ))
            }
            Some(_) => {}
        }
        if map.site != map.site.trunc() {
            problems.push(format!(
                "{on}: that is an address in a range: write {}",
                map.site.trunc()
            ));
        }
        let same = |other: &&crate::plan::Map| {
            other.subnet == map.subnet
                && (other.site.contains(&map.site) || map.site.contains(&other.site))
        };
        if plan.maps[..number].iter().any(|other| same(&other)) {
            problems.push(format!(
                "{on}: another map of its addresses leads to the same subnet"
            ));
        }
    }
}

fn groups(plan: &Plan, problems: &mut Vec<String>) {
    for group in &plan.groups {
        let on = format!("group {:?}", group.name);
        hooks(&on, group.before.iter().chain(&group.after), problems);
    }
}

fn missing(on: &str, kind: &str, name: &str) -> String {
    format!("{on}: there is no {kind} {name:?} in this plan")
}

fn one(plan: &Plan, vm: &PlannedVm, problems: &mut Vec<String>) {
    let on = format!("VM {:?}", vm.name);
    let place = |name: &str| plan.groups.iter().position(|group| group.name == name);
    let own = place(&vm.group);
    if own.is_none() {
        problems.push(missing(&on, "group", &vm.group));
    }
    for needed in &vm.needs {
        match plan.vms.iter().find(|other| other.name == *needed) {
            None => problems.push(missing(&on, "VM", needed)),
            Some(other) if own.is_some() && place(&other.group) > own => problems.push(format!(
                "{on}: it needs {needed:?}, whose group starts later: put group {:?} before {:?}",
                other.group, vm.group
            )),
            Some(_) => {}
        }
    }
    for (what, list) in [("instance", &vm.instance), ("subnet", &vm.subnet)] {
        if list.is_empty() {
            problems.push(format!("{on}: `{what}` is empty: name at least one"));
        }
    }
    for (what, list) in [
        ("instance", &vm.instance),
        ("subnet", &vm.subnet),
        ("security_groups", &vm.security_groups),
    ] {
        if let Some(twice) = list
            .iter()
            .enumerate()
            .find_map(|(number, one)| list[..number].contains(one).then_some(one))
        {
            problems.push(format!("{on}: `{what}` names {twice:?} twice"));
        }
        if list.iter().any(String::is_empty) {
            problems.push(format!("{on}: `{what}` has an empty name"));
        }
    }
    for subnet in vm.subnet.iter().filter(|name| plan.subnet(name).is_none()) {
        problems.push(missing(&on, "subnet", subnet));
    }
    for probe in &vm.probes {
        if let Err(why) = probe.kind() {
            problems.push(format!("{on}: {why}"));
        }
    }
    hooks(&on, vm.before.iter().chain(&vm.after), problems);
    let own = vm
        .volumes
        .iter()
        .map(|(disk, volume)| (format!("{on}, disk {disk:?}"), volume));
    for (on, volume) in std::iter::once((on.clone(), &vm.volume)).chain(own) {
        if let Some(why) = wrong_volume(volume) {
            problems.push(format!("{on}: {why}"));
        }
    }
    tags(&on, &vm.tags, problems);
    if let Some(donor) = &vm.donor {
        if vm.licence != Some(Licence::Included) {
            problems.push(format!(
                "{on}: `donor` is asked for with `licence = \"included\"` only"
            ));
        }
        if !donor.starts_with("ami-") {
            problems.push(format!(
                "{on}: `donor`: {donor:?} is no image: write its id, such as \"ami-0a1b…\""
            ));
        }
    }
}

fn hooks<'a>(on: &str, hooks: impl Iterator<Item = &'a Hook>, problems: &mut Vec<String>) {
    if hooks
        .into_iter()
        .any(|hook| hook.command.first().is_none_or(String::is_empty))
    {
        problems.push(format!("{on}: a hook has no command"));
    }
}

/// Source: Amazon EBS user guide, "Amazon EBS volume types".
fn wrong_volume(volume: &Volume) -> Option<String> {
    let iops = match volume.kind {
        VolumeType::Gp3 => Some(3_000..=80_000),
        VolumeType::Io2 => Some(100..=256_000),
        VolumeType::Gp2 | VolumeType::St1 | VolumeType::Sc1 => None,
    };
    match (volume.iops, iops) {
        (Some(_), None) => return Some("`iops` is of gp3 and io2 volumes only".into()),
        (Some(asked), Some(range)) if !range.contains(&asked) => {
            return Some(format!(
                "`iops` is {asked}: it must be {} to {}",
                range.start(),
                range.end()
            ));
        }
        (None, Some(_)) if volume.kind == VolumeType::Io2 => {
            return Some("an io2 volume needs `iops`".into());
        }
        _ => {}
    }
    match volume.throughput {
        Some(_) if volume.kind != VolumeType::Gp3 => {
            Some("`throughput` is of gp3 volumes only".into())
        }
        Some(asked) if !(125..=2_000).contains(&asked) => Some(format!(
            "`throughput` is {asked} MiB/s: it must be 125 to 2000"
        )),
        // 0.25 MiB/s for each IOPS.
        Some(asked) if asked > volume.iops.unwrap_or(3_000) / 4 => Some(format!(
            "`throughput` is {asked} MiB/s: that needs `iops = {}`",
            asked * 4
        )),
        _ => None,
    }
}

/// Source: Amazon EC2 user guide, "Tag restrictions".
fn tags(on: &str, tags: &BTreeMap<String, String>, problems: &mut Vec<String>) {
    if tags.len() > MOST_TAGS {
        problems.push(format!(
            "{on}: {} tags, and there is room for {MOST_TAGS}",
            tags.len()
        ));
    }
    for (key, value) in tags {
        let folded = key.to_ascii_lowercase();
        let kept = folded.starts_with("aws:") || folded.starts_with("sparesite-");
        if kept || key.is_empty() || key.chars().count() > 128 || value.chars().count() > 256 {
            problems.push(format!(
                "{on}: tag {key:?}: a key has 1 to 128 characters and does not begin with `aws:` or `sparesite-`, a value has \
                 at most 256"
            ));
        }
    }
}

/// In each subnet that a VM may get into: one VM an address. The first subnet has to have one for it.
fn addresses(plan: &Plan, problems: &mut Vec<String>) {
    let mut taken = BTreeMap::<(&str, Ipv4Addr), &str>::new();
    for vm in &plan.vms {
        let subnets = vm.subnet.iter().filter_map(|name| plan.subnet(name));
        for (number, subnet) in subnets.enumerate() {
            match given_address(plan, vm, subnet) {
                Err(why) if number == 0 => problems.push(format!("VM {:?}: {why}", vm.name)),
                Ok(Some(address)) => {
                    let other = taken.insert((&subnet.name, address), &vm.name);
                    if let Some(other) = other.filter(|other| *other != vm.name) {
                        problems.push(format!(
                            "VM {:?}: {other:?} gets {address} in subnet {:?} too",
                            vm.name, subnet.name
                        ));
                    }
                }
                Err(_) | Ok(None) => {}
            }
        }
    }
}

fn circle(plan: &Plan, problems: &mut Vec<String>) {
    let starts = starts(plan);
    let starts = |name: &str| {
        starts
            .iter()
            .flat_map(|start| &start.vms)
            .any(|vm| vm.name == name)
    };
    let never: Vec<&str> = plan
        .vms
        .iter()
        .map(|vm| vm.name.as_str())
        .filter(|name| !starts(name))
        .collect();
    problems.push(format!(
        "these VMs wait for each other, or for one that does, and none of them would start: {}",
        never.join(", ")
    ));
}
