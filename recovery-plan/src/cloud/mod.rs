//! A plan against what the cloud says of itself, weeks before the day: quotas, what its zones offer, the network, the key, rights.
//! What is missing then takes the cloud's support days.

mod judge;
mod network;
mod quota;

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

use ipnet::Ipv4Net;

use crate::draft;
use crate::judge::Row;
use crate::plan::{AddressRule, Plan};

pub use judge::{CloudJudged, judge_cloud};
pub use quota::{Quota, QuotaRow};

/// What has to be known of a cloud to judge a plan.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Questions<'a> {
    /// Instance types, the first choices and what else is tried.
    pub types: BTreeSet<&'a str>,
    /// Ids of subnets, and of their twins in the test network.
    pub subnets: BTreeSet<&'a str>,
    pub security_groups: BTreeSet<&'a str>,
    pub quotas: Vec<&'static Quota>,
    /// ARN of the key that volumes are encrypted with.
    pub key: Option<&'a str>,
    /// Whether a VM wants an address of its own, which something else may have.
    pub addresses: bool,
}

impl<'a> Questions<'a> {
    /// `rows` are those of the plan, judged.
    pub fn of(plan: &'a Plan, rows: &[Row]) -> Self {
        let subnets = plan.subnets.iter();
        let ids = subnets.flat_map(|subnet| std::iter::once(&subnet.id).chain(&subnet.test));
        // What is still to be filled in is found without the cloud.
        let ids = ids.filter(|id| !id.contains(draft::TO_FILL));
        let of_vms = |names: fn(&crate::PlannedVm) -> &Vec<String>| {
            plan.vms
                .iter()
                .flat_map(names)
                .map(String::as_str)
                .collect()
        };
        Questions {
            types: of_vms(|vm| &vm.instance),
            subnets: ids.map(String::as_str).collect(),
            security_groups: of_vms(|vm| &vm.security_groups),
            quotas: quota::quotas(plan, rows),
            key: plan.volume_key.as_deref(),
            addresses: plan.vms.iter().any(|vm| vm.address != AddressRule::Dhcp),
        }
    }
}

/// What a cloud answered. Names are the cloud's own.
#[derive(Debug, Clone, PartialEq)]
pub struct CloudFacts {
    /// vCPUs of each instance type that the region has, of those that were asked for and those that run.
    pub vcpus: Answer<BTreeMap<String, u64>>,
    /// Instances of each type that count against its quota now.
    pub running: Answer<BTreeMap<String, u64>>,
    /// Types with the zones that offer them.
    pub offered: Answer<BTreeSet<(String, String)>>,
    /// By their ids; those that are not there are missing.
    pub subnets: Answer<BTreeMap<String, SubnetFacts>>,
    /// Networks of the security groups that are there, by the groups' ids.
    pub security_groups: Answer<BTreeMap<String, String>>,
    /// What has an address, by subnet and address; empty where no VM wants one of its own.
    pub holders: Answer<BTreeMap<(String, Ipv4Addr), Holder>>,
    /// GiB of all volumes of a type now.
    pub volumes_gib: Answer<BTreeMap<String, u64>>,
    pub snapshots: Answer<u64>,
    /// In their own units, by their codes.
    pub quotas: BTreeMap<&'static str, Answer<f64>>,
    /// `None` within the answer: there is no such key.
    pub key: Option<Answer<Option<KeyFacts>>>,
    pub rights: Answer<Vec<Right>>,
}

pub type Answer<T> = Result<T, Unasked>;

/// A question that got no answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unasked {
    /// `what zones offer`.
    pub what: String,
    pub why: String,
    /// The right that the identity does not have; none where something else was in the way.
    pub right: Option<&'static str>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SubnetFacts {
    pub vpc: String,
    pub zone: String,
    /// None where it is nothing that can be read.
    pub range: Option<Ipv4Net>,
    /// Addresses that nothing has.
    pub free: u64,
}

/// What has an address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holder {
    pub interface: String,
    /// The VM that it is, where a run made it.
    pub vm: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyFacts {
    /// `Enabled`, or what it is instead.
    pub state: String,
    /// It is of the kind that volumes can be encrypted with.
    pub encrypts: bool,
}

/// Something that a failover does, asked for by a dry run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Right {
    /// `ec2:RunInstances`.
    pub action: &'static str,
    /// `subnet servers, in a failover`.
    pub on: String,
    pub may: May,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum May {
    Yes,
    /// With the cloud's words.
    No(String),
    /// Something else was wrong with the question.
    Untold(String),
}

#[cfg(test)]
mod tests;
