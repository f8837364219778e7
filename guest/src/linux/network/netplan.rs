//! Ubuntu's netplan: YAML in /etc/netplan (netplan-yaml reference).

use super::{
    Interface,
    yaml::{Yaml, parse},
};
use crate::linux::tree::Tree;

pub fn inspect(tree: &Tree<'_>) -> Vec<Interface> {
    let mut all = Vec::new();
    for path in tree.files("/etc/netplan", ".yaml") {
        if let Some(text) = tree.text(&path) {
            all.extend(interfaces(&path, &text));
        }
    }
    all
}

pub fn interfaces(path: &str, text: &str) -> Vec<Interface> {
    let file = parse(text);
    let Some(network) = file.get("network") else {
        return Vec::new();
    };
    let by_cloud_init = text.contains("generated from information provided by the datasource");
    let mut all = Vec::new();
    for (kind, made) in [
        ("ethernets", false),
        ("bonds", true),
        ("bridges", true),
        ("vlans", true),
    ] {
        let interfaces = network.get(kind).map_or(&[][..], Yaml::pairs);
        all.extend(interfaces.iter().map(|(id, interface)| {
            let matched = interface.get("match");
            let part = |key| matched.and_then(|matched| matched.get(key)?.text());
            let renames = interface.get("set-name").is_some();
            let yes = |key| {
                let value = interface.get(key).and_then(Yaml::text);
                value.is_some_and(|value| {
                    ["true", "yes", "on"].contains(&value.to_ascii_lowercase().as_str())
                })
            };
            let name = match matched {
                // A match by anything else frees it from its id.
                Some(_) => part("name"),
                None => Some(id.as_str()),
            };
            let addresses = interface
                .get("addresses")
                .map(Yaml::texts)
                .unwrap_or_default();
            Interface {
                source: path.to_owned(),
                name: name.map(str::to_owned),
                mac: part("macaddress").map(str::to_owned),
                dhcp: yes("dhcp4") || yes("dhcp6"),
                addresses,
                by_cloud_init,
                renames,
                made,
            }
        }));
    }
    all
}
