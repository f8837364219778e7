//! Whether the network comes up with another card, another address and another name.

use super::{
    Findings,
    Severity::{self, Hinders, Note},
    Target,
};
use crate::{
    facts::Facts,
    linux::{LinuxFacts, network::Interface},
};

pub fn rules(facts: &Facts, findings: &mut Findings) {
    let Some(linux) = facts.system().filter(|linux| linux.root.is_some()) else {
        return;
    };
    let network = &linux.network;
    let real: Vec<&Interface> = network.interfaces.iter().filter(|one| !one.made).collect();
    if network.interfaces.is_empty() && !network.automatic_dhcp && !linux.programs.cloud_init {
        let what = "no configuration of a network was found that is understood (ifupdown, netplan, systemd-networkd, \
                    NetworkManager, ifcfg)";
        let why = "whether the guest is reached is not known";
        findings.add(
            "network-unknown",
            Note,
            what,
            why,
            "see to it that the first card gets its address by DHCP, by any name",
        );
    }
    for interface in &network.interfaces {
        fixed(linux, interface, findings);
    }
    for interface in &real {
        bound(linux, interface, findings);
    }
    for rule in &network.mac_rules {
        let what = format!("{rule} names a network card by its hardware address");
        let why = "the card has another address there, so it gets another name than the configuration expects";
        findings.add(
            "network-mac-bound",
            Hinders,
            what,
            why,
            format!("rm {rule}"),
        );
    }
    named(linux, &real, findings);
}

/// cloud-init writes its configuration anew on another instance; QEMU tells it nothing.
fn softened(
    linux: &LinuxFacts,
    interface: &Interface,
    target: Target,
    severity: Severity,
) -> Severity {
    let anew = interface.by_cloud_init && linux.programs.cloud_init && target != Target::Qemu;
    if anew { Note } else { severity }
}

fn fixed(linux: &LinuxFacts, interface: &Interface, findings: &mut Findings) {
    if interface.dhcp || interface.addresses.is_empty() {
        return;
    }
    let target = findings.target;
    let severity = match target {
        Target::Qemu => Note,
        Target::Aws | Target::Azure => softened(linux, interface, target, Hinders),
    };
    let what = format!(
        "{} gives a fixed address, {}",
        interface.source,
        interface.addresses.join(", ")
    );
    let why = match target {
        Target::Qemu => "it is reached only in a network where that address is right",
        _ => {
            "the cloud's network gives each card its address by DHCP, and lets no other one through"
        }
    };
    let remedy = "let the card ask by DHCP, and have its address given there; or keep a second configuration by DHCP that is \
                  taken when no other matches";
    findings.add("network-static", severity, what, why, remedy);
}

fn bound(linux: &LinuxFacts, interface: &Interface, findings: &mut Findings) {
    let Some(mac) = &interface.mac else {
        return;
    };
    let severity = softened(linux, interface, findings.target, Hinders);
    let what = format!(
        "{} is for the card with the hardware address {mac}",
        interface.source
    );
    let why = "the card has another address there, so it is not configured";
    let remedy = "match by name or driver instead, and remove the address (HWADDR=, mac-address=, macaddress:, MACAddress=)";
    findings.add("network-mac-bound", severity, what, why, remedy);
}

/// What the first card is called there. EC2: ens5 as systemd names it by its slot. Azure: eth0, as Hyper-V's bus has no
/// slots. QEMU: by where the machine puts it.
fn named(linux: &LinuxFacts, real: &[&Interface], findings: &mut Findings) {
    let target = findings.target;
    let old = linux.network.old_names;
    let there = match target {
        Target::Azure => "eth0",
        _ if old => "eth0",
        Target::Aws => "ens5",
        Target::Qemu => "ens3, enp1s0 or the like",
    };
    let is_fine = |interface: &Interface| match interface.one_name() {
        // A pattern, a driver, or no bond to a name at all.
        None => interface.mac.is_none(),
        Some(name) => name == there && (old || target != Target::Azure),
    };
    // One configuration that fits is enough for the first card.
    if real.iter().any(|interface| is_fine(interface)) {
        return;
    }
    for interface in real {
        let (Some(name), None) = (interface.one_name(), &interface.mac) else {
            continue;
        };
        let right = name == there;
        let severity = match target {
            Target::Azure if right => Note,
            _ if linux.network.automatic_dhcp => Note,
            _ => softened(linux, interface, target, Hinders),
        };
        let what = format!("{} is for the interface {name}", interface.source);
        let why = match (right, linux.network.automatic_dhcp) {
            (true, _) => {
                "it is called so there as well, unless accelerated networking adds a second one"
                    .to_owned()
            }
            (false, true) => format!(
                "it is called {there} there; NetworkManager then asks by DHCP by itself, and what is set here does not hold"
            ),
            (false, false) => format!("it is called {there} there, so it is not configured"),
        };
        let remedy = "match all cards (Name=en* eth*, match: {name: \"e*\"}, no interface-name=), or put net.ifnames=0 on the \
                      kernel's command line and configure eth0";
        findings.add("network-interface-name", severity, what, why, remedy);
    }
}
