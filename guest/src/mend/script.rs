//! Changes as a script of the guest's own shell, and what it tells of them.

use serde::{Deserialize, Serialize};

use super::{Change, Conversion};
use crate::linux::release::Family;

const EVERY_FAMILY: &str = include_str!("every_family.sh");
/// Lines that are taken of what the script says: it runs in the guest, which may say anything.
const MOST_LINES: usize = 1000;
const MOST_CHARACTERS: usize = 300;

/// The script, for `/bin/sh`, run as root with the guest's root as its own. None where nobody wrote a module for the guest's
/// family.
pub fn script(conversion: &Conversion) -> Option<String> {
    let family = match conversion.family {
        Family::Debian => include_str!("debian.sh"),
        Family::RedHat => include_str!("redhat.sh"),
        Family::Suse => include_str!("suse.sh"),
        Family::Arch | Family::Alpine | Family::Other => return None,
    };
    let mut text = format!("{EVERY_FAMILY}\n{family}\nbegin\n");
    for change in &conversion.changes {
        for call in calls(change) {
            let words: Vec<String> = call.iter().map(|word| quoted(word)).collect();
            text += &words.join(" ");
            text.push('\n');
        }
    }
    text += "relabel\nwritten\ntold end '' ''\n";
    Some(text)
}

/// Function and arguments.
fn calls(change: &Change) -> Vec<Vec<String>> {
    let call = |words: &[&str]| {
        words
            .iter()
            .map(|word| (*word).to_owned())
            .collect::<Vec<_>>()
    };
    match change {
        Change::Initramfs { drivers } => vec![call(&["initramfs", &drivers.join(" ")])],
        Change::FstabUuid {
            device,
            point,
            uuid,
        } => vec![call(&["fstab_uuid", device, point, uuid])],
        Change::FstabNofail {
            device,
            point,
            sought,
        } => {
            let sought = if *sought { "sought" } else { "unknown" };
            vec![call(&["fstab_nofail", device, point, sought])]
        }
        Change::RootUuid { device, uuid } => vec![call(&["root_uuid", device, uuid])],
        Change::Network { managers, files } => {
            let mut aside = call(&["network_set_aside"]);
            aside.extend(files.iter().cloned());
            let dhcp = managers.iter().map(|manager| match *manager {
                "ifupdown" => "ifupdown_dhcp",
                "netplan" => "netplan_dhcp",
                "networkd" => "networkd_dhcp",
                "network-manager" => "network_manager_dhcp",
                _ => "ifcfg_dhcp",
            });
            std::iter::once(aside)
                .chain(dhcp.map(|name| call(&[name])))
                .collect()
        }
        Change::SerialConsole => vec![call(&["serial_console"])],
        Change::SerialLogin => vec![call(&["serial_login"])],
        Change::EfiFallback { architecture, uuid } => {
            let uuid = uuid.as_deref().unwrap_or_default();
            vec![call(&["efi_fallback", architecture, uuid])]
        }
    }
}

/// A word that the shell takes as it stands (POSIX.1-2017, Shell Command Language, 2.2.2).
fn quoted(word: &str) -> String {
    format!("'{}'", word.replace('\0', "").replace('\'', r"'\''"))
}

/// One thing that the script told.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Told {
    /// As preflight's finding, or `network`, `initramfs`, `selinux`.
    pub code: String,
    pub words: String,
}

/// What became of the changes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outcome {
    pub mended: Vec<Told>,
    /// What could not be changed, and why.
    pub left: Vec<Told>,
    /// It came to its end.
    pub whole: bool,
}

/// Reads what the script said.
pub fn read(said: &str) -> Outcome {
    let mut outcome = Outcome::default();
    for line in said.lines().take(MOST_LINES) {
        let mut parts = line.splitn(3, '\t');
        let (Some(kind), Some(code), Some(words)) = (parts.next(), parts.next(), parts.next())
        else {
            continue;
        };
        let short = |text: &str| {
            text.chars()
                .filter(|c| !c.is_control())
                .take(MOST_CHARACTERS)
                .collect()
        };
        let told = Told {
            code: short(code),
            words: short(words),
        };
        match kind {
            "mended" => outcome.mended.push(told),
            "left" => outcome.left.push(told),
            "end" => outcome.whole = true,
            _ => {}
        }
    }
    outcome
}
