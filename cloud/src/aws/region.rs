//! What a region offers, and what an account has in it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

use super::Aws;
use super::Tags;
use super::ec2::Form;
use super::image::tags_of;
use super::xml::Element;
use crate::CloudError;

/// Values of one filter; AWS takes 200 (Amazon EC2 API Reference, "Filter").
const VALUES: usize = 100;
/// Types of one page, the most that DescribeInstanceTypes takes.
const TYPES: &str = "100";

/// A subnet, as it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SubnetSeen {
    pub vpc: String,
    pub zone: String,
    /// `10.20.1.0/24`.
    pub range: String,
    /// Addresses that nothing has.
    pub free: u64,
}

/// A network interface, which holds addresses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Interface {
    pub id: String,
    pub subnet: String,
    pub addresses: Vec<Ipv4Addr>,
    pub tags: Tags,
}

impl Aws {
    /// vCPUs of those of these types that the region has.
    pub async fn vcpus(&self, types: &[&str]) -> Result<BTreeMap<String, u64>, CloudError> {
        let attempted = "ask which instance types the region has";
        let mut found = BTreeMap::new();
        for types in types.chunks(VALUES) {
            let form = Form::new("DescribeInstanceTypes").filter(1, "instance-type", types);
            let see = |item: &Element| {
                let vcpus = item.text_at(&["vCpuInfo", "defaultVCpus"]);
                let name = item.text_at(&["instanceType"]).to_owned();
                found.extend(vcpus.parse().ok().map(|vcpus: u64| (name, vcpus)));
            };
            let ec2 = &self.0.ec2;
            ec2.each(form, "instanceTypeSet", TYPES, attempted, see)
                .await?;
        }
        Ok(found)
    }

    /// Types with the zones that offer them, of these types.
    pub async fn offered(&self, types: &[&str]) -> Result<BTreeSet<(String, String)>, CloudError> {
        let attempted = "ask which zones offer which instance types";
        let mut found = BTreeSet::new();
        for types in types.chunks(VALUES) {
            let form = Form::new("DescribeInstanceTypeOfferings")
                .set("LocationType", "availability-zone")
                .filter(1, "instance-type", types);
            for item in self
                .0
                .ec2
                .all(form, "instanceTypeOfferingSet", attempted)
                .await?
            {
                let text = |name| item.text_at(&[name]).to_owned();
                found.insert((text("instanceType"), text("location")));
            }
        }
        Ok(found)
    }

    /// Those that are there, by their ids.
    pub async fn subnets(&self, ids: &[&str]) -> Result<BTreeMap<String, SubnetSeen>, CloudError> {
        let attempted = "look at the plan's subnets";
        let mut found = BTreeMap::new();
        for ids in ids.chunks(VALUES) {
            let form = Form::new("DescribeSubnets").filter(1, "subnet-id", ids);
            for item in self.0.ec2.all(form, "subnetSet", attempted).await? {
                let text = |name| item.text_at(&[name]).to_owned();
                let seen = SubnetSeen {
                    vpc: text("vpcId"),
                    zone: text("availabilityZone"),
                    range: text("cidrBlock"),
                    free: text("availableIpAddressCount").parse().unwrap_or(0),
                };
                found.insert(text("subnetId"), seen);
            }
        }
        Ok(found)
    }

    /// Those that are there, with the networks (VPCs) that they are of.
    pub async fn security_groups(
        &self,
        ids: &[&str],
    ) -> Result<BTreeMap<String, String>, CloudError> {
        let attempted = "look at the plan's security groups";
        let mut found = BTreeMap::new();
        for ids in ids.chunks(VALUES) {
            let form = Form::new("DescribeSecurityGroups").filter(1, "group-id", ids);
            for item in self.0.ec2.all(form, "securityGroupInfo", attempted).await? {
                let text = |name| item.text_at(&[name]).to_owned();
                found.insert(text("groupId"), text("vpcId"));
            }
        }
        Ok(found)
    }

    /// Those in these subnets.
    pub async fn interfaces(&self, subnets: &[&str]) -> Result<Vec<Interface>, CloudError> {
        let attempted = "ask which addresses are in use";
        let mut found = Vec::new();
        for subnets in subnets.chunks(VALUES) {
            let form = Form::new("DescribeNetworkInterfaces").filter(1, "subnet-id", subnets);
            for item in self
                .0
                .ec2
                .all(form, "networkInterfaceSet", attempted)
                .await?
            {
                let text = |name| item.text_at(&[name]).to_owned();
                let addresses = item.items(&["privateIpAddressesSet"]);
                let addresses = addresses.map(|one| one.text_at(&["privateIpAddress"]));
                found.push(Interface {
                    id: text("networkInterfaceId"),
                    subnet: text("subnetId"),
                    addresses: addresses.filter_map(|one| one.parse().ok()).collect(),
                    tags: tags_of(&item),
                });
            }
        }
        Ok(found)
    }

    /// How many instances of each type count against the quotas of On-Demand: those that run or are about to, neither Spot
    /// nor on a dedicated host (Amazon EC2 User Guide, "Amazon EC2 On-Demand Instance quotas").
    pub async fn running(&self) -> Result<BTreeMap<String, u64>, CloudError> {
        let attempted = "count the instances that run";
        let form = Form::new("DescribeInstances").filter(
            1,
            "instance-state-name",
            &["pending", "running"],
        );
        let mut found = BTreeMap::new();
        for reservation in self.0.ec2.all(form, "reservationSet", attempted).await? {
            let instances = reservation.items(&["instancesSet"]);
            let counts = |item: &&Element| {
                item.text_at(&["instanceLifecycle"]).is_empty()
                    && item.text_at(&["placement", "tenancy"]) != "host"
            };
            for item in instances.filter(counts) {
                let kind = item.text_at(&["instanceType"]).to_owned();
                *found.entry(kind).or_default() += 1;
            }
        }
        Ok(found)
    }

    /// GiB of all volumes of each type.
    pub async fn volumes_gib(&self) -> Result<BTreeMap<String, u64>, CloudError> {
        let attempted = "add the volumes up";
        let mut found: BTreeMap<String, u64> = BTreeMap::new();
        let see = |item: &Element| {
            let kind = item.text_at(&["volumeType"]).to_owned();
            let size = item.text_at(&["size"]).parse().unwrap_or(0);
            let sum = found.entry(kind).or_default();
            *sum = sum.saturating_add(size);
        };
        let form = Form::new("DescribeVolumes");
        self.0
            .ec2
            .each(form, "volumeSet", super::ec2::PAGE, attempted, see)
            .await?;
        Ok(found)
    }

    pub async fn snapshots(&self) -> Result<u64, CloudError> {
        let mut count = 0;
        let form = Form::new("DescribeSnapshots").set("Owner.1", "self");
        let attempted = "count the snapshots";
        let see = |_: &Element| count += 1;
        self.0
            .ec2
            .each(form, "snapshotSet", super::ec2::PAGE, attempted, see)
            .await?;
        Ok(count)
    }
}
