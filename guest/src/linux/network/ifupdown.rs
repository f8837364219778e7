//! Debian's /etc/network/interfaces (interfaces(5)).

use super::Interface;
use crate::linux::tree::Tree;

pub fn inspect(tree: &Tree<'_>) -> Vec<Interface> {
    let mut all = Vec::new();
    let mut files = vec!["/etc/network/interfaces".to_owned()];
    files.extend(tree.files("/etc/network/interfaces.d", ""));
    for path in files {
        if let Some(text) = tree.text(&path) {
            parse(&path, &text, &mut all);
        }
    }
    all
}

pub fn parse(path: &str, text: &str, all: &mut Vec<Interface>) {
    let by_cloud_init =
        text.contains("generated from information provided by") || text.contains("cloud-init");
    let joined = text.replace("\\\n", " ");
    let mut current: Option<Interface> = None;
    for line in joined
        .lines()
        .map(str::trim)
        .filter(|line| !line.starts_with('#'))
    {
        let words: Vec<&str> = line.split_ascii_whitespace().collect();
        match words[..] {
            ["iface", name, ref rest @ ..] => {
                all.extend(current.take());
                if name == "lo" {
                    continue;
                }
                let made = ["br", "bond", "vmbr", "tun", "tap", "wg", "dummy"]
                    .iter()
                    .any(|p| name.starts_with(p));
                current = Some(Interface {
                    source: path.to_owned(),
                    name: Some(name.to_owned()),
                    dhcp: rest.contains(&"dhcp") || rest.contains(&"auto"),
                    by_cloud_init,
                    made: made || name.contains(['.', ':']),
                    ..Interface::default()
                });
            }
            ["auto" | "mapping" | "source" | "source-directory", ..] => all.extend(current.take()),
            [word, ..] if word.starts_with("allow-") => all.extend(current.take()),
            ["address", address, ..] => {
                if let Some(interface) = &mut current {
                    interface.addresses.push(address.to_owned());
                }
            }
            ["hwaddress", ref rest @ ..] => {
                if let (Some(interface), Some(mac)) = (&mut current, rest.last()) {
                    interface.mac = Some((*mac).to_owned());
                }
            }
            _ => {}
        }
    }
    all.extend(current);
}
