//! What must not answer any more when a VM is started in earnest: a living domain controller, and whatever has its address.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::str::FromStr;

use serde::Deserialize;

use crate::plan::{AddressRule, Plan, PlannedVm, ProbeKind};

/// Port of LDAP (RFC 4511, section 5.2).
const LDAP: u16 = 389;
/// What servers listen on, or refuse if they live: SSH, RPC, HTTPS, SMB, RDP.
const COMMON: [u16; 5] = [22, 135, 443, 445, 3389];

/// A domain controller of the site: its address, and a port where LDAP is not at 389.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Controller(pub SocketAddrV4);

impl FromStr for Controller {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let alone = || text.parse().map(|address| SocketAddrV4::new(address, LDAP));
        let read = text.parse().or_else(|_| alone());
        read.map(Controller)
            .map_err(|_| "an IPv4 address, perhaps with a port: \"192.168.10.5\"")
    }
}

impl TryFrom<String> for Controller {
    type Error = String;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse().map_err(|why| format!("{text:?}: {why}"))
    }
}

/// Who is asked before a VM is started in earnest.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Living {
    /// Directories: none of them may answer. Of a domain controller only.
    pub controllers: BTreeSet<SocketAddrV4>,
    /// Nothing may answer there, not even by a refusal.
    pub addresses: BTreeSet<SocketAddrV4>,
}

/// Its own address on site is asked also where it gets another: then the VM itself lives.
pub fn living(plan: &Plan, vm: &PlannedVm) -> Living {
    let mut living = Living::default();
    if vm.domain_controller {
        let planned = plan.vms.iter().filter(|vm| vm.domain_controller);
        let planned = planned.filter_map(|vm| vm.site_address);
        living.controllers = planned
            .map(|address| SocketAddrV4::new(address, LDAP))
            .chain(plan.site_controllers.iter().map(|one| one.0))
            .collect();
    }
    let given = match vm.address {
        AddressRule::Is(address) => Some(address),
        AddressRule::Dhcp | AddressRule::Keep | AddressRule::Map => None,
    };
    let asked = vm.probes.iter().filter_map(|probe| match probe.kind() {
        Ok(ProbeKind::Tcp(port) | ProbeKind::Http { port, .. }) => Some(port),
        _ => None,
    });
    let ports: BTreeSet<u16> = asked.chain(COMMON).collect();
    let own: BTreeSet<Ipv4Addr> = vm.site_address.into_iter().chain(given).collect();
    for address in own {
        let at = ports.iter().map(|port| SocketAddrV4::new(address, *port));
        living.addresses.extend(at);
    }
    living
}

/// Whether there is anything to ask, or should be.
pub(crate) fn is_asked(plan: &Plan, vm: &PlannedVm) -> bool {
    vm.domain_controller || living(plan, vm) != Living::default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::tests::{HEAD, vm};

    fn asked(more: &str, of: &str) -> Living {
        let more = format!("{HEAD}{more}");
        let plan = Plan::parse(&more).unwrap_or_else(|error| panic!("{error}\n{more}"));
        let vm = plan.vms.iter().find(|vm| vm.name == of).unwrap();
        living(&plan, vm)
    }

    fn at(texts: &[&str]) -> BTreeSet<SocketAddrV4> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    #[test]
    fn a_controller_asks_all_of_them_and_any_other_vm_its_own_address() {
        let plan = [
            vm(
                "dc01",
                "directory",
                "domain_controller = true\nsite_address = \"10.1.0.5\"",
            ),
            vm(
                "dc02",
                "directory",
                "domain_controller = true\nsite_address = \"10.1.0.6\"",
            ),
            vm(
                "web",
                "servers",
                "address = \"10.20.0.9\"\nsite_address = \"10.1.0.9\"\n[[vm.probe]]\ntcp = 81",
            ),
            vm("db", "servers", ""),
        ]
        .concat();
        let with = format!("{plan}\n");
        let one = asked(&with, "dc01");
        assert_eq!(one.controllers, at(&["10.1.0.5:389", "10.1.0.6:389"]));
        assert!(one.addresses.contains(&"10.1.0.5:3389".parse().unwrap()));
        let web = asked(&with, "web");
        assert_eq!(web.controllers, at(&[]));
        let of = |address: &str| {
            at(&[22, 81, 135, 443, 445, 3389]
                .map(|port| format!("{address}:{port}"))
                .each_ref()
                .map(String::as_str))
        };
        assert_eq!(web.addresses, &of("10.1.0.9") | &of("10.20.0.9"));
        assert_eq!(asked(&with, "db"), Living::default());
    }

    #[test]
    fn controllers_that_the_plan_does_not_start_are_asked_too() {
        let head = HEAD.replacen(
            "cloud =",
            "site_controllers = [\"10.1.0.7\", \"10.1.0.8:3268\"]\ncloud =",
            1,
        );
        let text =
            head + &vm("dc01", "directory", "domain_controller = true") + &vm("db", "servers", "");
        let plan = Plan::parse(&text).unwrap();
        assert_eq!(
            living(&plan, &plan.vms[0]).controllers,
            at(&["10.1.0.7:389", "10.1.0.8:3268"])
        );
        assert_eq!(living(&plan, &plan.vms[1]), Living::default());
        let wrong = text.replace("10.1.0.7", "dc01.example");
        let why = Plan::parse(&wrong).unwrap_err().to_string();
        assert!(why.contains("an IPv4 address"), "{why}");
    }
}
