//! ifcfg files: RHEL's in /etc/sysconfig/network-scripts, SUSE's (wicked) in /etc/sysconfig/network.

use super::Interface;
use crate::linux::tree::Tree;

pub fn inspect(tree: &Tree<'_>) -> Vec<Interface> {
    let mut all = Vec::new();
    for folder in ["/etc/sysconfig/network-scripts", "/etc/sysconfig/network"] {
        for path in tree.files(folder, "") {
            let name = path.rsplit('/').next().unwrap_or_default();
            let kept = [
                "~",
                ".bak",
                ".orig",
                ".rpmnew",
                ".rpmsave",
                ".old",
                ".template",
            ];
            if !name.starts_with("ifcfg-")
                || name == "ifcfg-lo"
                || kept.iter().any(|end| name.ends_with(end))
            {
                continue;
            }
            let text = tree.text(&path).unwrap_or_default();
            all.extend(parse(&path, &text));
        }
    }
    all
}

pub fn parse(path: &str, text: &str) -> Option<Interface> {
    let named = path.rsplit_once("ifcfg-")?.1;
    let mut interface = Interface {
        source: path.to_owned(),
        ..Interface::default()
    };
    let mut device = None;
    for (key, value) in text.lines().filter_map(|line| line.trim().split_once('=')) {
        let value = value.trim().trim_matches(['"', '\'']).to_owned();
        let lower = value.to_ascii_lowercase();
        match key {
            "DEVICE" => device = Some(value),
            "HWADDR" | "LLADDR" if !value.is_empty() => interface.mac = Some(value),
            "BOOTPROTO" => {
                interface.dhcp = lower.contains("dhcp") || lower == "auto" || lower == "bootp"
            }
            "ONBOOT" if lower == "no" => return None,
            "STARTMODE"
                if ["off", "manual", "nfsroot"].contains(&lower.as_str()) && lower != "nfsroot" =>
            {
                return None;
            }
            "TYPE" => interface.made |= !lower.is_empty() && lower != "ethernet",
            "VLAN" | "ETHERDEVICE" | "BRIDGE_PORTS" | "BONDING_MASTER" => {
                interface.made |= lower != "no"
            }
            key if key.starts_with("IPADDR") && !value.is_empty() => {
                interface.addresses.push(value)
            }
            _ => {}
        }
    }
    interface.by_cloud_init = text.contains("Created by cloud-init");
    // wicked goes by the file's name; the old scripts and NetworkManager by DEVICE, else by the address.
    let suse = path.starts_with("/etc/sysconfig/network/");
    let by_file = (suse || interface.mac.is_none()).then(|| named.to_owned());
    interface.name = device.filter(|device| !device.is_empty()).or(by_file);
    Some(interface)
}
