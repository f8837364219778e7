//! A first plan for what is in the vault: whole, readable by [`Plan::parse`](crate::Plan::parse), and open where only the
//! owner knows.

use std::fmt::Write;

use console::show;

use crate::known::KnownVm;
use crate::prices::{Prices, wanted};

/// Stands where an id of the owner's cloud belongs; `judge` finds it.
pub const TO_FILL: &str = "TO-FILL-IN";

/// The range of the drafted subnet: one that few offices use.
const RANGE: &str = "10.77.0.0/24";
/// Of the one that is drafted as a comment.
const SECOND_RANGE: &str = "10.77.1.0/24";

/// Groups in the order in which a site usually has to come up, and the beginnings of names that tell who belongs there.
/// Domain controllers are alone in theirs: all others need them.
const GROUPS: [(&str, &[&str]); 4] = [
    (CONTROLLERS, &["dc", "pdc", "bdc"]),
    ("names", &["ad", "ldap", "ipa", "dns", "dhcp", "radius"]),
    (
        "databases",
        &[
            "db", "sql", "pg", "postgres", "mysql", "maria", "mssql", "oracle", "mongo",
        ],
    ),
    ("servers", &[""]),
];
const CONTROLLERS: &str = "directory";

/// The text of a plan that starts all `vms`.
pub fn draft(name: &str, region: &str, vms: &[KnownVm], prices: &Prices) -> String {
    let mut text = format!(
        "# A recovery plan: what starts where, in which order, on the bad day. Drafted from what the vault knows; read it,\n\
         # fill in what is marked, and ask `sparesite-restore plan check` what it makes of it.\n\
         name = {}\n\
         cloud = \"aws\"\n\
         region = {}\n\
         # Domain controllers of the site that this plan does not start: while one answers, none is started beside it.\n\
         # site_controllers = [\"192.168.10.6\"]\n\
         \n\
         [[subnet]]\n\
         name = \"servers\"\n\
         id = \"subnet-{TO_FILL}\"\n\
         # test = \"subnet-…\"              its twin in the isolated test network\n\
         range = \"{RANGE}\"\n\
         zone = {}\n\
         \n\
         # One in another zone, for when the first has no room: `subnet = [\"servers\", \"servers-b\"]` in a [[vm]] tries them in this order.\n\
         # [[subnet]]\n\
         # name = \"servers-b\"\n\
         # id = \"subnet-{TO_FILL}-TOO\"\n\
         # range = \"{SECOND_RANGE}\"\n\
         # zone = {}\n\
         \n\
         # The addresses of the site, to those of the subnet: 192.168.10.7 becomes 10.77.0.7.\n\
         # [[map]]\n\
         # site = \"192.168.10.0/24\"\n\
         # subnet = \"servers\"\n",
        quoted(name),
        quoted(region),
        quoted(&format!("{region}a")),
        quoted(&format!("{region}b")),
    );
    text += "\n# Groups start in this order, each when all of the one before serve; within one, a VM waits for what it `needs`.\n\
             # point: latest, latest-application, latest-proven (by a drill), before-anomaly, or a time.\n\
             # instance, subnet: in the order in which they are tried. address: dhcp, keep, map (both with `site_address`), or one.\n\
             # site_address: what it has on site; a failover does not start a VM while something answers there.\n\
             # A Windows guest needs `licence`: \"included\" (the cloud's, by the hour) or \"byol\" (yours; AWS takes it on Dedicated Hosts only).\n\
             # A VM serves when all its probes hold: tcp = 5432, http = \"80/health\", dns = \"NAME\", ldap = \"\", command = […].\n";
    for (group, _) in GROUPS {
        let of: Vec<&KnownVm> = vms
            .iter()
            .filter(|vm| group_of(&vm.name) == group)
            .collect();
        if of.is_empty() {
            continue;
        }
        let _ = write!(text, "\n[[group]]\nname = \"{group}\"\n");
        of.into_iter()
            .for_each(|vm| one(&mut text, vm, group, prices));
    }
    text
}

fn one(text: &mut String, vm: &KnownVm, group: &str, prices: &Prices) {
    let Some(point) = vm.points.last() else {
        return;
    };
    let hardware = &point.hardware;
    let (cpus, memory) = wanted(hardware);
    let told = match (hardware.cpus, hardware.memory_bytes) {
        (None, None) => {
            "the vault does not tell its CPUs and memory: look whether `instance` is enough"
                .to_owned()
        }
        _ => format!("{cpus} CPUs, {}", show::size(memory)),
    };
    let disks = point
        .disks
        .iter()
        .map(|disk| format!("{} {}", disk.name, show::size(disk.size_bytes)));
    let disks = disks.collect::<Vec<_>>().join(", ");
    let types = prices.suggest(hardware);
    let types = match types.is_empty() {
        // The largest there is; `judge` says that it is too small.
        true => largest(prices).into_iter().collect(),
        false => types,
    };
    let types: Vec<String> = types.into_iter().map(quoted).collect();
    let _ = write!(
        text,
        "\n# {}; {told}\n\
         [[vm]]\n\
         name = {}\n\
         group = \"{group}\"\n\
         point = \"latest\"\n\
         instance = [{}]\n\
         subnet = [\"servers\"]\n\
         security_groups = []\n\
         address = \"dhcp\"\n",
        show::printable(&disks).replace('\n', " "),
        quoted(&vm.name),
        types.join(", "),
    );
    if group == CONTROLLERS {
        text.push_str("domain_controller = true        # by its name: take it out if it is none\n");
        text.push_str("# site_address = \"192.168.10.5\"    # where a living one is asked for\n");
        text.push_str("[[vm.probe]]\nldap = \"\"\n");
    }
}

fn group_of(name: &str) -> &'static str {
    let belongs = |(_, starts): &&(&str, &[&str])| starts.iter().any(|start| begins(name, start));
    GROUPS
        .iter()
        .find(belongs)
        .map_or("servers", |(group, _)| group)
}

/// `dc01` and `DC-1` begin with `dc`, `dcim` does not; everything begins with nothing.
fn begins(name: &str, start: &str) -> bool {
    let name = name.to_ascii_lowercase();
    let rest = name.strip_prefix(start);
    start.is_empty() || rest.is_some_and(|rest| !rest.starts_with(|c: char| c.is_ascii_lowercase()))
}

fn largest(prices: &Prices) -> Option<&str> {
    let size =
        |(_, instance): &(&String, &crate::prices::Instance)| (instance.memory_mib, instance.vcpus);
    prices
        .instances
        .iter()
        .max_by_key(size)
        .map(|(name, _)| name.as_str())
}

/// A TOML string, whatever is in it.
fn quoted(text: &str) -> String {
    toml::Value::from(text).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::judge::tests::known;
    use crate::{Plan, starts};

    #[test]
    fn a_draft_is_a_plan_of_all_vms_in_a_likely_order() {
        let names = [
            "web",
            "dc01",
            "DC-2",
            "sql1",
            "dcim",
            "adventure",
            "db",
            "dns1",
            "Web",
        ];
        let vms: Vec<KnownVm> = names.iter().map(|name| known(name)).collect();
        let text = draft("whole-site", "eu-central-1", &vms, &Prices::aws());
        let plan = Plan::parse(&text).unwrap_or_else(|error| panic!("{error}\n{text}"));
        let order: Vec<Vec<&str>> = starts(&plan)
            .iter()
            .map(|start| start.vms.iter().map(|vm| vm.name.as_str()).collect())
            .collect();
        assert_eq!(
            order,
            [
                vec!["dc01", "DC-2"],
                vec!["dns1"],
                vec!["sql1", "db"],
                vec!["web", "dcim", "adventure", "Web"]
            ]
        );
        let controllers = plan.vms.iter().filter(|vm| vm.domain_controller);
        assert_eq!(controllers.count(), 2);
        assert!(text.contains("# sda 8 GiB; 2 CPUs, 4 GiB"), "{text}");
    }

    #[test]
    fn a_second_zone_stands_there_to_be_taken_in() {
        let text = draft("p", "eu-central-1", &[known("web")], &Prices::aws());
        let first = Plan::parse(&text).unwrap();
        assert_eq!(first.subnets.len(), 1);
        let (before, rest) = text.split_once("\n# [[subnet]]\n").unwrap();
        let (second, after) = rest.split_once("\n\n").unwrap();
        let second = second.replace("# ", "");
        let text = format!("{before}\n[[subnet]]\n{second}\n\n{after}").replace(
            "subnet = [\"servers\"]",
            "subnet = [\"servers\", \"servers-b\"]",
        );
        let both = Plan::parse(&text).unwrap_or_else(|error| panic!("{error}\n{text}"));
        let zones: Vec<&str> = both.subnets.iter().map(|its| its.zone.as_str()).collect();
        assert_eq!(zones, ["eu-central-1a", "eu-central-1b"]);
        assert_eq!(both.vms[0].subnet, ["servers", "servers-b"]);
    }

    #[test]
    fn what_is_too_large_or_unknown_still_makes_a_plan() {
        let mut vms = vec![known("big"), known("list")];
        vms[0].points[2].hardware.cpus = Some(4096);
        vms[1].points[2].hardware = Default::default();
        vms[1].points[2].disks[0].name = "a\"\n[[vm]]\nname = \"b".into();
        let text = draft("p", "us-east-1", &vms, &Prices::aws());
        let plan = Plan::parse(&text).unwrap_or_else(|error| panic!("{error}\n{text}"));
        assert_eq!(plan.vms.len(), 2);
        assert!(text.contains("does not tell its CPUs"));
    }
}
