//! What is changed in a guest so that it starts and is reached at a target: facts → changes → a script that is run within
//! the guest, while it does not run. Pure: who runs it, and on which copy of the disks, is another's.
//!
//! One module for each family of distributions, `debian.sh`, `redhat.sh`, `suse.sh`, over `every_family.sh`.

mod script;
#[cfg(test)]
mod tests;

use serde::Serialize;

use crate::{
    facts::Facts,
    judge::{Severity, Target, judge},
    linux::{LinuxFacts, device_name::DeviceName, fstab::FstabEntry, release::Family},
    storage::{Content, Volume},
};

pub use script::{Outcome, Told, read, script};

/// One change, by what preflight found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Change {
    /// The initial file systems of all kernels are made anew, with these drivers.
    Initramfs {
        drivers: Vec<&'static str>,
    },
    /// /etc/fstab names a volume by what this machine calls it.
    FstabUuid {
        device: String,
        point: String,
        uuid: String,
    },
    /// /etc/fstab makes boot wait for what is not there.
    FstabNofail {
        device: String,
        point: String,
        /// It is known that there is no such volume; else nobody can tell which one it is.
        sought: bool,
    },
    /// The boot loader names the root by what this machine calls it.
    RootUuid {
        device: String,
        uuid: String,
    },
    /// The network is bound to an address, a card or a name of the site.
    Network {
        managers: Vec<&'static str>,
        /// Files that are set aside.
        files: Vec<String>,
    },
    SerialConsole,
    SerialLogin,
    /// The loader is put where firmware without a memory finds it.
    EfiFallback {
        architecture: &'static str,
        /// Of the EFI system partition.
        uuid: Option<String>,
    },
}

/// What is changed in a guest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Conversion {
    pub family: Family,
    pub changes: Vec<Change>,
    /// Nothing else keeps the guest from starting.
    pub decides: bool,
}

/// Findings by which a guest does not start, and that a change mends.
const MENDED: [&str; 6] = [
    "initramfs-lacks-driver",
    "initramfs-missing",
    "root-by-device-name",
    "fstab-device-name",
    "fstab-missing-device",
    "efi-fallback-missing",
];

/// Drivers that the initial file system should have at a target.
fn early(target: Target) -> &'static [&'static str] {
    match target {
        Target::Aws => &["nvme", "ena"],
        Target::Azure => &["hv_vmbus", "hv_storvsc", "hv_netvsc", "sd_mod"],
        Target::Qemu => &[
            "virtio_pci",
            "virtio_blk",
            "virtio_scsi",
            "virtio_net",
            "sd_mod",
        ],
    }
}

/// What can be mended of what keeps the guest from starting or being reached at the target; none for what is not Linux, and
/// where nothing has to be.
pub fn conversion(facts: &Facts, target: Target) -> Option<Conversion> {
    let linux = facts.system().filter(|linux| linux.root.is_some())?;
    let found = judge(facts, target).findings;
    let has = |code: &str| found.iter().any(|finding| finding.code == code);
    let grave = |code: &str| {
        let of = |finding: &&crate::judge::Finding| finding.code == code;
        found
            .iter()
            .filter(of)
            .any(|finding| finding.severity > Severity::Note)
    };
    let blocking = found
        .iter()
        .filter(|finding| finding.severity == Severity::Blocks);
    let blocks: Vec<&str> = blocking.map(|finding| finding.code).collect();
    let mut changes = Vec::new();
    if grave("root-by-device-name") {
        changes.extend(root(facts, linux));
    }
    if has("fstab-device-name") || has("fstab-missing-device") {
        let waited = |entry: &&FstabEntry| entry.is_on_disk() && !entry.is_optional();
        let entries = linux.fstab.iter().filter(waited);
        changes.extend(entries.filter_map(|entry| fstab(facts, linux, entry)));
    }
    if [
        "network-static",
        "network-mac-bound",
        "network-interface-name",
    ]
    .into_iter()
    .any(grave)
    {
        changes.push(network(linux));
    }
    if has("console-missing") {
        changes.push(Change::SerialConsole);
    }
    if linux.console.masked {
        changes.push(Change::SerialLogin);
    }
    if has("efi-fallback-missing") {
        let architecture = match facts.architecture() {
            Some("aarch64") => "aa64",
            Some("i686") => "ia32",
            _ => "x64",
        };
        let mut loaders = facts
            .efi
            .iter()
            .filter(|efi| efi.typed && !efi.loaders.is_empty());
        let esp = loaders.next().and_then(|efi| facts.volume(&efi.volume));
        let uuid = esp.and_then(|volume| volume.uuid.clone());
        changes.push(Change::EfiFallback { architecture, uuid });
    }
    // Last, since what makes them reads fstab.
    let loads = linux.initramfs.is_some();
    if loads && (has("initramfs-lacks-driver") || has("initramfs-missing")) {
        let there = |name: &&&str| linux.drivers.of(name).module;
        let drivers = early(target).iter().filter(there).copied().collect();
        changes.push(Change::Initramfs { drivers });
    }
    (!changes.is_empty()).then_some(Conversion {
        family: linux.family,
        changes,
        decides: blocks.iter().all(|code| MENDED.contains(code))
            && !blocks.is_empty()
            && (loads || !has("initramfs-missing")),
    })
}

fn root(facts: &Facts, linux: &LinuxFacts) -> Option<Change> {
    let entry = linux.boot.default_entry.as_ref()?;
    let device = entry.root.as_ref()?.to_string();
    // Where the root was found, whatever the name leads to here.
    let volume = facts.volume(linux.root.as_deref()?)?;
    let uuid = volume.uuid.clone().filter(|_| is_only(facts, volume))?;
    Some(Change::RootUuid { device, uuid })
}

fn fstab(facts: &Facts, linux: &LinuxFacts, entry: &FstabEntry) -> Option<Change> {
    let [device, point] = entry.as_written.clone();
    let by_name = matches!(
        entry.device,
        DeviceName::Kernel(_) | DeviceName::Hardware(_)
    );
    if !by_name {
        let absent = entry.device.can_be_sought() && entry.device.find(&facts.storage).is_none();
        return (absent && entry.point != "/").then_some(Change::FstabNofail {
            device,
            point,
            sought: true,
        });
    }
    let found = match entry.point == "/" {
        true => linux.root.as_deref().and_then(|root| facts.volume(root)),
        false => by_letter(facts, linux, entry),
    };
    match found.and_then(|volume| volume.uuid.clone()) {
        Some(uuid) => Some(Change::FstabUuid {
            device,
            point,
            uuid,
        }),
        None if entry.point == "/" => None,
        None => Some(Change::FstabNofail {
            device,
            point,
            sought: false,
        }),
    }
}

/// The volume that a name of the kernel's means, where there is no doubt: the wrong one would be written to.
fn by_letter<'a>(facts: &'a Facts, linux: &LinuxFacts, entry: &FstabEntry) -> Option<&'a Volume> {
    let DeviceName::Kernel(name) = &entry.device else {
        return None;
    };
    let machine = &facts.machine;
    let buses = &machine.disk_buses;
    let letters = match buses.first().map(String::as_str) {
        Some("virtio") => "vd",
        Some("nvme") => "nvme",
        Some("scsi" | "sata" | "usb" | "ide") => "sd",
        _ => return None,
    };
    let alone = facts.storage.disks.len() == 1;
    let in_order = name.starts_with(letters) && buses.iter().all(|bus| *bus == buses[0]);
    if !machine.excluded_disks.is_empty() || !(alone || in_order) {
        return None;
    }
    let volume = entry
        .device
        .find(&facts.storage)
        .filter(|volume| holds(volume, entry))?;
    let claims = |other: &&FstabEntry| {
        other.as_written != entry.as_written
            && other
                .device
                .find(&facts.storage)
                .is_some_and(|own| own.place == volume.place)
    };
    let claimed = linux.root.as_deref() == Some(&volume.place)
        || linux.fstab.iter().any(|other| claims(&other));
    (!claimed && is_only(facts, volume)).then_some(volume)
}

/// No other volume has its UUID, as a copied disk would.
fn is_only(facts: &Facts, volume: &Volume) -> bool {
    let same = |other: &&Volume| other.uuid == volume.uuid;
    facts.storage.volumes.iter().filter(same).count() == 1
}

/// Whether a volume is of the kind that a line of fstab says.
fn holds(volume: &Volume, entry: &FstabEntry) -> bool {
    match entry.kind.as_str() {
        "auto" => true,
        "swap" => volume.content == Content::Swap,
        "xfs" => volume.content == Content::Xfs,
        "btrfs" => volume.content == Content::Btrfs,
        "vfat" | "msdos" => volume.content == Content::Fat,
        "ntfs" | "ntfs3" | "ntfs-3g" => volume.content == Content::Ntfs,
        kind => kind.starts_with("ext") && volume.content == Content::Ext,
    }
}

fn network(linux: &LinuxFacts) -> Change {
    let network = &linux.network;
    // What is made of others (a tunnel, a bridge) in a file of its own is bound to nothing.
    let real = network.interfaces.iter().filter(|one| !one.made);
    let sources = real.map(|one| &one.source);
    let mut files: Vec<String> = sources.chain(&network.mac_rules).cloned().collect();
    files.sort();
    files.dedup();
    let managers = network.managers.clone();
    Change::Network { managers, files }
}
