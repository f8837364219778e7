//! Which address a recovery VM gets in a subnet.

use std::net::Ipv4Addr;

use ipnet::Ipv4Net;

use crate::plan::{AddressRule, Plan, PlannedVm, Subnet};

/// Why a rule gives no address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    #[error("its `site_address` is not written, and `{0}` needs it")]
    NoSiteAddress(&'static str),
    #[error("no [[map]] leads from {0} to subnet {1:?}")]
    NoMap(Ipv4Addr, String),
    #[error("{0} is not in {1}, the range of subnet {2:?}")]
    Outside(Ipv4Addr, Ipv4Net, String),
    #[error("{0} is one of the five addresses of {1} that AWS keeps for itself")]
    Reserved(Ipv4Addr, Ipv4Net),
}

/// The address of `vm` in `subnet`; `None` where the subnet gives it one.
pub fn given_address(
    plan: &Plan,
    vm: &PlannedVm,
    subnet: &Subnet,
) -> Result<Option<Ipv4Addr>, AddressError> {
    let on_site = |rule| vm.site_address.ok_or(AddressError::NoSiteAddress(rule));
    let address = match vm.address {
        AddressRule::Dhcp => return Ok(None),
        AddressRule::Is(address) => address,
        AddressRule::Keep => on_site("keep")?,
        AddressRule::Map => {
            let address = on_site("map")?;
            let leads =
                |map: &&crate::plan::Map| map.subnet == subnet.name && map.site.contains(&address);
            let map = plan.maps.iter().find(leads);
            let map = map.ok_or_else(|| AddressError::NoMap(address, subnet.name.clone()))?;
            mapped(address, map.site, subnet.range)
        }
    };
    if !subnet.range.contains(&address) {
        return Err(AddressError::Outside(
            address,
            subnet.range,
            subnet.name.clone(),
        ));
    }
    match is_reserved(address, subnet.range) {
        true => Err(AddressError::Reserved(address, subnet.range)),
        false => Ok(Some(address)),
    }
}

/// The same place within another range, which is at least as large.
fn mapped(address: Ipv4Addr, from: Ipv4Net, to: Ipv4Net) -> Ipv4Addr {
    let place = u32::from(address) - u32::from(from.network());
    Ipv4Addr::from(u32::from(to.network()) | place)
}

/// The first four and the last. Source: Amazon VPC user guide, "Subnet CIDR blocks".
fn is_reserved(address: Ipv4Addr, range: Ipv4Net) -> bool {
    let place = u32::from(address) - u32::from(range.network());
    place < 4 || address == range.broadcast()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::tests::plan;

    fn address(rule: &str, more: &str) -> Result<Option<Ipv4Addr>, AddressError> {
        let mut plan = plan("");
        plan.maps.push(crate::plan::Map {
            site: "192.168.10.0/25".parse().unwrap(),
            subnet: "servers".into(),
        });
        plan.vms[0].address = rule.parse().unwrap();
        plan.vms[0].site_address = (!more.is_empty()).then(|| more.parse().unwrap());
        given_address(&plan, &plan.vms[0], &plan.subnets[0])
    }

    #[test]
    fn each_rule_gives_the_address_that_its_name_says() {
        let is = |text: &str| Ok(Some(text.parse().unwrap()));
        assert_eq!(address("dhcp", ""), Ok(None));
        assert_eq!(address("10.20.0.77", ""), is("10.20.0.77"));
        assert_eq!(address("keep", "10.20.0.4"), is("10.20.0.4"));
        assert_eq!(address("map", "192.168.10.7"), is("10.20.0.7"));
        assert_eq!(address("map", "192.168.10.127"), is("10.20.0.127"));
    }

    #[test]
    fn what_cannot_be_given_says_why() {
        let why = |rule, more| address(rule, more).unwrap_err().to_string();
        assert!(why("keep", "").contains("`keep` needs it"));
        assert!(why("keep", "192.168.10.7").contains("not in 10.20.0.0/24"));
        // Beyond the half that is mapped.
        assert!(why("map", "192.168.10.200").contains("no [[map]]"));
        for reserved in ["10.20.0.0", "10.20.0.3", "10.20.0.255"] {
            assert!(why(reserved, "").contains("keeps for itself"), "{reserved}");
        }
        assert!(why("map", "192.168.10.2").contains("keeps for itself"));
    }
}
