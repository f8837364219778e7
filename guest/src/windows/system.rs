//! Facts of the hive SYSTEM: the control set that is in use, and what stands in it.

use super::drivers;
use super::facts::{Adapter, FirewallRule, WindowsFacts};
use super::registry::{Hive, Value};
use crate::GuestError;

/// A guest with more, gone ones counted, was not seen.
const ADAPTER_LIMIT: usize = 256;
/// The class of network adapters, below which connections have their names.
const NETWORK_CLASS: &str = "{4D36E972-E325-11CE-BFC1-08002BE10318}";

/// Agents by their services.
const AGENTS: [(&str, &str); 7] = [
    ("Amazon EC2Launch", "EC2Launch v2"),
    ("Ec2Config", "EC2Config"),
    ("AmazonSSMAgent", "AWS Systems Manager Agent"),
    ("WindowsAzureGuestAgent", "Azure VM Agent"),
    ("cloudbase-init", "Cloudbase-Init"),
    ("QEMU-GA", "QEMU guest agent"),
    ("VMTools", "VMware Tools"),
];

pub fn gather(hive: &Hive, facts: &mut WindowsFacts) -> Result<(), GuestError> {
    let set = control_set(hive)?;
    let services = format!("{set}\\Services");
    let manager = format!("{set}\\Control\\Session Manager");

    let text = |path: &str, name: &str| text(hive.value(path, name));
    let number = |path: &str, name: &str| number(hive.value(path, name));
    let architecture = text(&format!("{manager}\\Environment"), "PROCESSOR_ARCHITECTURE");
    facts.architecture = facts.take(architecture)?;
    let name = text(
        &format!("{set}\\Control\\ComputerName\\ComputerName"),
        "ComputerName",
    );
    facts.computer_name = facts.take(name)?;

    let drivers = match hive.key(&services)? {
        Some(services) => drivers::registered(&services),
        None => Err(GuestError::Damaged {
            what: format!("{} registry", facts.place),
            why: format!("{services} is not there"),
        }),
    };
    // Without them nothing can be said of what it boots on.
    facts.drivers = drivers?;

    let policy = number(&format!("{services}\\partmgr\\Parameters"), "SanPolicy");
    facts.san_policy = facts.take(policy)?;
    let fast_start = number(&format!("{manager}\\Power"), "HiberbootEnabled");
    facts.hibernation.fast_start = facts.take(fast_start)?.map(|enabled| enabled != 0);

    for name in [
        "PendingFileRenameOperations",
        "PendingFileRenameOperations2",
    ] {
        // Only whether there are any: the list may be long.
        let pending = hive
            .value(&manager, name)
            .map(|v| v.is_some_and(|v| v.size() > 2));
        if facts.take(pending)? {
            facts
                .pending_restart
                .push(format!("files wait to be renamed ({name})"));
        }
    }
    remote_desktop(hive, &set, facts)?;
    let adapters = adapters(hive, &set);
    facts.adapters = facts.take(adapters)?;
    for (service, agent) in AGENTS {
        let start = drivers::start_of(hive, &services, service);
        if facts.take(start)?.is_some_and(|start| start != 4) {
            facts.agents.push(agent.to_owned());
        }
    }
    Ok(())
}

/// `ControlSet001`. `CurrentControlSet` is a link that only a running Windows has.
fn control_set(hive: &Hive) -> Result<String, GuestError> {
    let current = number(hive.value("Select", "Current"))?;
    let number = match current {
        Some(current @ 1..=999) => current,
        // As Windows does where it is lost.
        _ => number(hive.value("Select", "Default"))?.unwrap_or(1),
    };
    Ok(format!("ControlSet{number:03}"))
}

fn remote_desktop(hive: &Hive, set: &str, facts: &mut WindowsFacts) -> Result<(), GuestError> {
    let firewall = format!("{set}\\Services\\SharedAccess\\Parameters\\FirewallPolicy");
    let deny = hive.value(
        &format!("{set}\\Control\\Terminal Server"),
        "fDenyTSConnections",
    );
    let denied = facts.take(number(deny))?;
    let start = drivers::start_of(hive, &format!("{set}\\Services"), "TermService");
    let service_start = facts.take(start)?;
    let rules = format!("{firewall}\\FirewallRules");
    let rule = facts.take(text(hive.value(&rules, "RemoteDesktop-UserMode-In-TCP")))?;
    let public = hive.value(&format!("{firewall}\\PublicProfile"), "EnableFirewall");
    let public = facts.take(number(public))?;

    let remote = &mut facts.remote_desktop;
    remote.denied = denied.map(|denied| denied != 0);
    remote.service_start = service_start;
    remote.rule = rule.as_deref().map(firewall_rule);
    remote.public_firewall = public.map(|enabled| enabled != 0);
    Ok(())
}

/// `v2.30|Action=Allow|Active=TRUE|Dir=In|Protocol=6|Profile=Domain|LPort=3389|…`
fn firewall_rule(text: &str) -> FirewallRule {
    let mut rule = FirewallRule::default();
    let mut allows = true;
    for (name, value) in text.split('|').filter_map(|field| field.split_once('=')) {
        match name {
            "Active" => rule.active = value.eq_ignore_ascii_case("TRUE"),
            "Action" => allows = value.eq_ignore_ascii_case("Allow"),
            "Profile" => rule.profiles.push(value.to_owned()),
            _ => (),
        }
    }
    rule.active &= allows;
    rule
}

fn adapters(hive: &Hive, set: &str) -> Result<Vec<Adapter>, GuestError> {
    let interfaces = format!("{set}\\Services\\Tcpip\\Parameters\\Interfaces");
    let Some(interfaces) = hive.key(&interfaces)? else {
        return Ok(Vec::new());
    };
    let mut adapters = Vec::new();
    for key in interfaces.subkeys()?.into_iter().take(ADAPTER_LIMIT) {
        let id = key.name();
        let connection = format!("{set}\\Control\\Network\\{NETWORK_CLASS}\\{id}\\Connection");
        let servers = text(key.value("NameServer"))?.unwrap_or_default();
        let addresses = texts(key.value("IPAddress"))?;
        adapters.push(Adapter {
            name: text(hive.value(&connection, "Name"))?,
            dhcp: number(key.value("EnableDHCP"))?.map(|enabled| enabled != 0),
            // 0.0.0.0 stands for none.
            addresses: addresses.into_iter().filter(|a| a != "0.0.0.0").collect(),
            name_servers: listed(&servers),
            id,
        });
    }
    Ok(adapters)
}

/// Separated by commas or spaces.
fn listed(text: &str) -> Vec<String> {
    let parts = text.split([',', ' ']).filter(|part| !part.is_empty());
    parts.map(str::to_owned).collect()
}

type Found<'h> = Result<Option<Value<'h>>, GuestError>;

pub fn text(value: Found<'_>) -> Result<Option<String>, GuestError> {
    value?.map_or(Ok(None), |value| value.text())
}

pub fn number(value: Found<'_>) -> Result<Option<u32>, GuestError> {
    value?.map_or(Ok(None), |value| value.number())
}

fn texts(value: Found<'_>) -> Result<Vec<String>, GuestError> {
    value?.map_or(Ok(Vec::new()), |value| value.texts())
}
