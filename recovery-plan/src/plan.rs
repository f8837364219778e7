//! A recovery plan as it is written.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::str::FromStr;

use console::units::Duration;
use ipnet::Ipv4Net;
use serde::{Deserialize, Serialize};

use crate::check::{self, PlanError};
use crate::living::Controller;
use crate::point::PointRule;
use crate::words::{parsed, parsed_or_time};

/// A plan that holds together: names are unique, what refers to something finds it, and nothing waits for itself.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Plan {
    pub name: String,
    pub cloud: Cloud,
    /// The cloud's name of it: `eu-central-1`.
    pub region: String,
    #[serde(default, rename = "subnet")]
    pub subnets: Vec<Subnet>,
    #[serde(default, rename = "map")]
    pub maps: Vec<Map>,
    /// They start one after the other, in this order.
    #[serde(default, rename = "group")]
    pub groups: Vec<Group>,
    #[serde(default, rename = "vm")]
    pub vms: Vec<PlannedVm>,
    /// The owner's key that volumes are encrypted with (ARN of a KMS key); the account's default decides without one.
    #[serde(default)]
    pub volume_key: Option<String>,
    #[serde(default)]
    pub deadline: Option<Deadline>,
    /// Domain controllers of the site beside those that this plan starts: while one of them answers, no other is started.
    #[serde(default)]
    pub site_controllers: Vec<Controller>,
    /// What of the site lives for certain, where only a part of it is lost: while it does not answer, nobody's silence counts.
    #[serde(default)]
    pub site_witness: Option<SocketAddrV4>,
}

/// What tears a test down when its time is over, whatever became of this program.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Deadline {
    /// ARN of what is started then, with the run's id.
    pub sweep: String,
    /// ARN of the role by which the cloud's scheduler may start it.
    pub role: String,
    /// Group of schedules that it is one of.
    #[serde(default = "default_group")]
    pub group: String,
}

fn yes() -> bool {
    true
}

fn default_group() -> String {
    "default".into()
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Cloud {
    Aws,
}

/// Where recovery VMs are put.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Subnet {
    /// As the plan calls it.
    pub name: String,
    /// The cloud's name of it: `subnet-0a1b…`.
    pub id: String,
    /// Its twin in the isolated test network, with the same range.
    pub test: Option<String>,
    pub range: Ipv4Net,
    pub zone: String,
}

/// Addresses of the site become those of a subnet: the same place within its range.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Map {
    pub site: Ipv4Net,
    /// Its name in the plan.
    pub subnet: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Group {
    pub name: String,
    /// Waited when all of it serve, before the next group starts.
    #[serde(default)]
    pub delay: Option<Duration>,
    #[serde(default)]
    pub before: Vec<Hook>,
    #[serde(default)]
    pub after: Vec<Hook>,
}

/// A command that is run where the failover runs; its arguments are not read by a shell.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Hook {
    pub command: Vec<String>,
    /// What takes back what it did, when the run is undone.
    #[serde(default)]
    pub undo: Vec<String>,
    /// Ended then; 10 minutes where none is written.
    #[serde(default)]
    pub wait: Option<Duration>,
    /// The run goes on although it failed.
    #[serde(default)]
    pub may_fail: bool,
    /// Run in tests too. One that changes what the world sees (DNS) is not.
    #[serde(default)]
    pub in_tests: bool,
}

#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PlannedVm {
    /// Its name in the vault.
    pub name: String,
    pub group: String,
    /// VMs of its own group or of one before that have to serve first.
    #[serde(default)]
    pub needs: Vec<String>,
    #[serde(default, deserialize_with = "parsed_or_time")]
    pub point: PointRule,
    /// What preflight finds and can be mended is mended on the way; on where nothing is written.
    #[serde(default = "yes")]
    pub convert: bool,
    /// Types in the order in which they are tried: capacity is short on the day that many fail over.
    pub instance: Vec<String>,
    /// Subnets (by their names here) in the order in which they are tried.
    pub subnet: Vec<String>,
    #[serde(default)]
    pub security_groups: Vec<String>,
    #[serde(default, deserialize_with = "parsed")]
    pub address: AddressRule,
    /// What it has on site: needed by `keep` and `map`, and asked before a failover starts it: nothing may answer there.
    #[serde(default)]
    pub site_address: Option<Ipv4Addr>,
    #[serde(default)]
    pub volume: Volume,
    /// By the disk's name, where one differs from `volume`.
    #[serde(default)]
    pub volumes: BTreeMap<String, Volume>,
    #[serde(default)]
    pub tags: BTreeMap<String, String>,
    /// Of a Windows guest, whose licence has to come from somewhere.
    #[serde(default)]
    pub licence: Option<Licence>,
    /// An image of Amazon's that gives its licence where that is `included` (`ami-…`); the newest that fits without one.
    #[serde(default)]
    pub donor: Option<String>,
    /// It must not start where it can reach a living one.
    #[serde(default)]
    pub domain_controller: bool,
    #[serde(default, rename = "probe")]
    pub probes: Vec<Probe>,
    /// Before it is started.
    #[serde(default)]
    pub before: Vec<Hook>,
    /// When it serves.
    #[serde(default)]
    pub after: Vec<Hook>,
}

impl PlannedVm {
    pub fn volume_of(&self, disk: &str) -> &Volume {
        self.volumes.get(disk).unwrap_or(&self.volume)
    }
}

/// Which address the recovery VM gets.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum AddressRule {
    /// What the subnet gives it.
    #[default]
    Dhcp,
    /// The one that it has on site.
    Keep,
    /// The one at the same place in the range that its own is mapped to.
    Map,
    Is(Ipv4Addr),
}

impl FromStr for AddressRule {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "dhcp" => Ok(AddressRule::Dhcp),
            "keep" => Ok(AddressRule::Keep),
            "map" => Ok(AddressRule::Map),
            other => other
                .parse()
                .map(AddressRule::Is)
                .map_err(|_| "an address rule is `dhcp`, `keep`, `map`, or an IPv4 address"),
        }
    }
}

/// Source: EBS volume types, AWS documentation "Amazon EBS volume types".
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Volume {
    #[serde(default, rename = "type")]
    pub kind: VolumeType,
    /// gp3: 3,000 to 80,000, at most 500 for each GiB; io2: 100 to 256,000, at most 1,000.
    #[serde(default)]
    pub iops: Option<u32>,
    /// MiB/s, of gp3 only: 125 to 2,000, at most a quarter of its IOPS.
    #[serde(default)]
    pub throughput: Option<u32>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum VolumeType {
    #[default]
    Gp3,
    Gp2,
    Io2,
    St1,
    Sc1,
}

impl VolumeType {
    const ALL: [VolumeType; 5] = [
        VolumeType::Gp3,
        VolumeType::Gp2,
        VolumeType::Io2,
        VolumeType::St1,
        VolumeType::Sc1,
    ];

    /// As AWS has it.
    pub fn word(self) -> &'static str {
        match self {
            VolumeType::Gp3 => "gp3",
            VolumeType::Gp2 => "gp2",
            VolumeType::Io2 => "io2",
            VolumeType::St1 => "st1",
            VolumeType::Sc1 => "sc1",
        }
    }

    /// None for those that no plan names: `io1`, `standard`.
    pub(crate) fn named(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.word() == word)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Licence {
    /// The cloud's, paid by the hour.
    Included,
    /// The owner's.
    Byol,
}

/// One thing that is asked of a VM; it serves when all hold. Exactly one of `tcp`, `http`, `dns`, `ldap` and `command`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Probe {
    tcp: Option<u16>,
    /// `8080/health`: a port, and a path.
    http: Option<String>,
    /// A name that its DNS server has to resolve.
    dns: Option<String>,
    /// A base that its directory has to answer for; empty asks for the directory's own entry (RFC 4512, section 5.1).
    ldap: Option<String>,
    command: Option<Vec<String>>,
    /// Asked again until then; 10 minutes where none is written.
    pub wait: Option<Duration>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ProbeKind<'a> {
    Tcp(u16),
    Http { port: u16, path: &'a str },
    Dns(&'a str),
    Ldap(&'a str),
    Command(&'a [String]),
}

impl Probe {
    /// What is asked, or why it is nothing that can be.
    pub fn kind(&self) -> Result<ProbeKind<'_>, String> {
        // A port in digits, and a path that no request line breaks at.
        let http = |text: &'_ String| {
            let port = text.split('/').next().unwrap_or_default();
            let plain = port.bytes().all(|byte| byte.is_ascii_digit())
                && text.bytes().all(|byte| byte.is_ascii_graphic());
            port.parse().ok().filter(|port| plain && *port != 0)
        };
        match (&self.tcp, &self.http, &self.dns, &self.ldap, &self.command) {
            (Some(0), None, None, None, None) => Err("tcp: a port is 1 to 65535".into()),
            (Some(port), None, None, None, None) => Ok(ProbeKind::Tcp(*port)),
            (None, Some(text), None, None, None) => match http(text) {
                Some(port) => {
                    let path = text.find('/').map_or("/", |at| &text[at..]);
                    Ok(ProbeKind::Http { port, path })
                }
                None => Err(format!(
                    "http: {text:?} is no port with a path: write \"8080/health\""
                )),
            },
            (None, None, Some(name), None, None) if name.is_empty() => {
                Err("dns: name what shall be resolved".into())
            }
            (None, None, Some(name), None, None) => Ok(ProbeKind::Dns(name)),
            (None, None, None, Some(base), None) => Ok(ProbeKind::Ldap(base)),
            (None, None, None, None, Some(words)) if words.first().is_none_or(String::is_empty) => {
                Err("command: it has no words".into())
            }
            (None, None, None, None, Some(words)) => Ok(ProbeKind::Command(words)),
            _ => Err("a probe asks one thing: `tcp`, `http`, `dns`, `ldap` or `command`".into()),
        }
    }
}

impl std::fmt::Display for Probe {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.kind() {
            Ok(ProbeKind::Tcp(port)) => write!(f, "TCP {port}"),
            Ok(ProbeKind::Http { port, path }) => write!(f, "HTTP {port}{path}"),
            Ok(ProbeKind::Dns(name)) => write!(f, "DNS {name}"),
            Ok(ProbeKind::Ldap("")) => write!(f, "LDAP"),
            Ok(ProbeKind::Ldap(base)) => write!(f, "LDAP {base}"),
            Ok(ProbeKind::Command(words)) => write!(f, "{}", words.join(" ")),
            Err(why) => f.write_str(&why),
        }
    }
}

impl Plan {
    /// Reads a plan. Every problem is told at once, except where the text cannot be read at all.
    pub fn parse(text: &str) -> Result<Plan, PlanError> {
        let plan: Plan = toml::from_str(text).map_err(|error| PlanError::unread(&error))?;
        check::check(&plan)?;
        Ok(plan)
    }

    pub fn subnet(&self, name: &str) -> Option<&Subnet> {
        self.subnets.iter().find(|subnet| subnet.name == name)
    }

    pub fn vms_of<'a>(&'a self, group: &'a str) -> impl Iterator<Item = &'a PlannedVm> {
        self.vms.iter().filter(move |vm| vm.group == group)
    }
}

#[cfg(test)]
pub(crate) mod tests;
