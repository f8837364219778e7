//! How a guest configures its network: what of it is bound to this machine.

mod ifcfg;
mod ifupdown;
mod ini;
mod netplan;
mod yaml;

use serde::Serialize;

use super::tree::Tree;

/// Interfaces that are kept.
const INTERFACES: usize = 500;

/// One configured interface, the loopback left out.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Interface {
    /// The file that says so.
    pub source: String,
    /// A name or a pattern that it is bound to.
    pub name: Option<String>,
    /// A hardware address that it is bound to.
    pub mac: Option<String>,
    pub dhcp: bool,
    pub addresses: Vec<String>,
    /// Written by cloud-init, which writes it anew on another machine.
    pub by_cloud_init: bool,
    /// It names what it matches itself (`set-name`, a .link file): a name that does not come from the hardware.
    pub renames: bool,
    /// Made of others (bridge, bond, VLAN) or not brought up at boot: its name is no hardware's.
    pub made: bool,
}

impl Interface {
    /// It is bound to one name, not to a pattern.
    pub fn one_name(&self) -> Option<&str> {
        let pattern = |name: &&str| !name.contains(['*', '?', '[', '!', ' ']);
        self.name.as_deref().filter(pattern)
    }
}

#[derive(Clone, Debug, Default, Serialize)]
pub struct NetworkFacts {
    /// `ifupdown`, `networkd`, `netplan`, `network-manager`, `ifcfg`
    pub managers: Vec<&'static str>,
    pub interfaces: Vec<Interface>,
    /// udev rules that name an interface by its hardware address.
    pub mac_rules: Vec<String>,
    /// Interfaces are called eth0 and so on: `net.ifnames=0`, or udev's rule for it is masked.
    pub old_names: bool,
    /// NetworkManager gives an interface that it has no connection for one by DHCP.
    pub automatic_dhcp: bool,
}

pub fn inspect(tree: &Tree<'_>, command_line: Option<&str>) -> NetworkFacts {
    let mut facts = NetworkFacts::default();
    let mut add = |manager: &'static str, found: Vec<Interface>| {
        if !found.is_empty() {
            facts.managers.push(manager);
            facts.interfaces.extend(found);
        }
    };
    add("ifupdown", ifupdown::inspect(tree));
    add("netplan", netplan::inspect(tree));
    add("networkd", ini::networkd(tree));
    add("network-manager", ini::network_manager(tree));
    add("ifcfg", ifcfg::inspect(tree));
    facts.interfaces.truncate(INTERFACES);
    for interface in &mut facts.interfaces {
        interface.by_cloud_init |= interface.source.contains("50-cloud-init");
    }
    facts.mac_rules = mac_rules(tree);
    let words = command_line.unwrap_or_default().split_ascii_whitespace();
    let masked = [
        "/etc/systemd/network/99-default.link",
        "/etc/udev/rules.d/80-net-setup-link.rules",
    ]
    .iter()
    .any(|path| tree.link(path).as_deref() == Some("/dev/null"));
    facts.old_names = masked || words.into_iter().any(|word| word == "net.ifnames=0");
    facts.automatic_dhcp = automatic_dhcp(tree);
    facts
}

/// Rules such as 70-persistent-net.rules, and RHEL's 60-…: those that name an interface by its address.
fn mac_rules(tree: &Tree<'_>) -> Vec<String> {
    let mut found = Vec::new();
    for path in tree.files("/etc/udev/rules.d", ".rules") {
        let text = tree.text(&path).unwrap_or_default();
        let bound = |line: &str| {
            let line = line.trim();
            !line.starts_with('#')
                && (line.contains("ATTR{address}") || line.contains("ATTRS{address}"))
                && line.contains("NAME=")
        };
        if text.lines().any(bound) {
            found.push(path);
        }
    }
    found
}

/// NetworkManager is there, and `no-auto-default` is not set (NetworkManager.conf(5)).
fn automatic_dhcp(tree: &Tree<'_>) -> bool {
    if !tree.exists("/usr/sbin/NetworkManager") {
        return false;
    }
    let mut files = vec!["/etc/NetworkManager/NetworkManager.conf".to_owned()];
    for folder in [
        "/usr/lib/NetworkManager/conf.d",
        "/etc/NetworkManager/conf.d",
    ] {
        files.extend(tree.files(folder, ".conf"));
    }
    let texts = files.iter().filter_map(|path| tree.text(path));
    let forbids = |text: String| {
        let mut lines = text.lines().map(str::trim);
        lines.any(|line| {
            line.strip_prefix("no-auto-default")
                .is_some_and(|rest| rest.trim_start().starts_with('='))
        })
    };
    !texts.into_iter().any(forbids)
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
