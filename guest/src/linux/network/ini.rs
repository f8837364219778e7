//! Files of sections: systemd-networkd's *.network and *.link (systemd.network(5), systemd.link(5)), and NetworkManager's
//! keyfiles (nm-settings-keyfile(5)).

use super::Interface;
use crate::linux::tree::Tree;

/// Sections, each with its keys in order.
type Sections = Vec<(String, Vec<(String, String)>)>;

pub fn sections(text: &str) -> Sections {
    let mut all: Sections = Vec::new();
    for line in text
        .lines()
        .map(str::trim)
        .filter(|line| !line.starts_with(['#', ';']))
    {
        if let Some(name) = line
            .strip_prefix('[')
            .and_then(|rest| rest.strip_suffix(']'))
        {
            all.push((name.to_owned(), Vec::new()));
        } else if let (Some((_, keys)), Some((key, value))) = (all.last_mut(), line.split_once('='))
        {
            keys.push((key.trim().to_owned(), value.trim().to_owned()));
        }
    }
    all
}

fn values<'a>(all: &'a Sections, section: &str, key: &str) -> Vec<&'a str> {
    let sections = all.iter().filter(|(name, _)| name == section);
    let keys = sections.flat_map(|(_, keys)| keys);
    keys.filter(|(own, _)| own == key)
        .map(|(_, value)| value.as_str())
        .collect()
}

fn value(all: &Sections, section: &str, key: &str) -> Option<String> {
    let last = values(all, section, key).into_iter().next_back()?;
    (!last.is_empty()).then(|| last.to_owned())
}

pub fn networkd(tree: &Tree<'_>) -> Vec<Interface> {
    let mut all = Vec::new();
    for (ending, link) in [(".network", false), (".link", true)] {
        for path in tree.files("/etc/systemd/network", ending) {
            let text = tree.text(&path).unwrap_or_default();
            all.extend(match link {
                true => link_file(&path, &text),
                false => network_file(&path, &text),
            });
        }
    }
    all
}

pub fn network_file(path: &str, text: &str) -> Option<Interface> {
    let all = sections(text);
    let name = value(&all, "Match", "Name");
    let mac =
        value(&all, "Match", "MACAddress").or_else(|| value(&all, "Match", "PermanentMACAddress"));
    let kind = value(&all, "Match", "Type").or_else(|| value(&all, "Match", "Kind"));
    let made = kind.is_some_and(|kind| !["ether", "!loopback"].contains(&kind.as_str()));
    let dhcp = value(&all, "Network", "DHCP")
        .unwrap_or_default()
        .to_ascii_lowercase();
    let addresses = values(&all, "Network", "Address").into_iter();
    let addresses = addresses.chain(values(&all, "Address", "Address"));
    let attached = ["Bridge", "Bond"]
        .iter()
        .any(|key| value(&all, "Network", key).is_some());
    (name.as_deref() != Some("lo")).then(|| Interface {
        source: path.to_owned(),
        name,
        mac,
        dhcp: ["yes", "true", "1", "on", "both", "ipv4", "ipv6", "v4"].contains(&dhcp.as_str()),
        addresses: addresses.map(str::to_owned).collect(),
        made: made && !attached,
        ..Interface::default()
    })
}

/// A .link file binds a name to a hardware address.
pub fn link_file(path: &str, text: &str) -> Option<Interface> {
    let all = sections(text);
    let mac = value(&all, "Match", "MACAddress")
        .or_else(|| value(&all, "Match", "PermanentMACAddress"))?;
    Some(Interface {
        source: path.to_owned(),
        mac: Some(mac),
        dhcp: true,
        renames: true,
        ..Interface::default()
    })
}

pub fn network_manager(tree: &Tree<'_>) -> Vec<Interface> {
    let folder = "/etc/NetworkManager/system-connections";
    let mut all = Vec::new();
    for path in tree.files(folder, "") {
        let text = tree.text(&path).unwrap_or_default();
        all.extend(keyfile(&path, &text));
    }
    all
}

pub fn keyfile(path: &str, text: &str) -> Option<Interface> {
    let all = sections(text);
    let kind = value(&all, "connection", "type")?;
    if kind == "loopback"
        || kind == "wifi"
        || value(&all, "connection", "autoconnect").as_deref() == Some("false")
    {
        return None;
    }
    let ethernet = kind == "ethernet" || kind == "802-3-ethernet";
    let either = |key| value(&all, "ethernet", key).or_else(|| value(&all, "802-3-ethernet", key));
    let methods =
        ["ipv4", "ipv6"].map(|section| value(&all, section, "method").unwrap_or_default());
    let mut addresses: Vec<String> = Vec::new();
    for (section, keys) in &all {
        let keys = keys
            .iter()
            .filter(|(key, _)| section.starts_with("ipv") && key.starts_with("address"));
        addresses.extend(keys.map(|(_, value)| value.clone()));
    }
    Some(Interface {
        source: path.to_owned(),
        name: value(&all, "connection", "interface-name"),
        mac: either("mac-address"),
        dhcp: methods[0] == "auto" || (methods[0].is_empty() && methods[1] == "auto"),
        addresses,
        by_cloud_init: text.contains("cloud-init"),
        made: !ethernet,
        ..Interface::default()
    })
}
