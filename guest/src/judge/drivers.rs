//! Drivers that the target's disks and network cards need: in the kernel, in the initial file system, as a module.

use super::{
    Findings,
    Severity::{Blocks, Hinders},
    Target, remedy,
};
use crate::{
    facts::Facts,
    linux::{LinuxFacts, drivers::Drivers},
};

/// One driver, or any of several.
type Need = &'static [&'static str];

/// What finds the root disk. EC2 Nitro shows all volumes as NVMe, whatever their name; Azure's disks are SCSI disks on
/// Hyper-V's bus.
fn for_disk(facts: &Facts, linux: &LinuxFacts, target: Target) -> (&'static [Need], String) {
    match target {
        Target::Aws => (&[&["nvme"]], "EC2's volumes are NVMe disks".into()),
        Target::Azure => (
            &[&["hv_vmbus"], &["hv_storvsc"], &["sd_mod"]],
            "Azure's disks are SCSI disks on Hyper-V's bus".into(),
        ),
        Target::Qemu => {
            let disk = linux.root.as_deref().and_then(|root| facts.volume(root));
            let disk = disk.map(|volume| volume.disk.as_str()).unwrap_or_default();
            let bus = facts.bus_of(disk);
            let needs: &[Need] = match bus {
                "scsi" => &[
                    &["virtio_scsi"],
                    &["virtio_pci", "virtio_mmio"],
                    &["sd_mod"],
                ],
                "sata" => &[&["ahci"], &["sd_mod"]],
                "ide" => &[&["ata_piix", "ata_generic"], &["sd_mod"]],
                "nvme" => &[&["nvme"]],
                "usb" => &[&["usb_storage", "uas"], &["sd_mod"]],
                _ => &[&["virtio_blk"], &["virtio_pci", "virtio_mmio"]],
            };
            (needs, format!("the disk is on a {bus} bus"))
        }
    }
}

/// What the network card needs.
fn for_network(facts: &Facts, target: Target) -> Vec<(Need, String)> {
    let models = &facts.machine.nic_models;
    match target {
        Target::Aws => vec![(&["ena"], "EC2's network cards are ENA".into())],
        Target::Azure => vec![(
            &["hv_netvsc"],
            "Azure's network cards are on Hyper-V's bus".into(),
        )],
        Target::Qemu if models.is_empty() && facts.machine.nics == 0 => Vec::new(),
        Target::Qemu if models.is_empty() => {
            vec![(&["virtio_net"], "the network card is virtio".into())]
        }
        Target::Qemu => {
            let need = |model: &String| -> Option<(Need, String)> {
                let need: Need = match model.to_ascii_lowercase().as_str() {
                    model if model.contains("virtio") => &["virtio_net"],
                    model if model.starts_with("e1000e") || model == "82574l" => &["e1000e"],
                    model if model.starts_with("e1000") => &["e1000"],
                    model if model.starts_with("rtl8139") => &["8139cp", "8139too"],
                    "vmxnet3" => &["vmxnet3"],
                    "igb" => &["igb"],
                    "pcnet" => &["pcnet32"],
                    "ne2k_pci" => &["ne2k_pci"],
                    "tulip" => &["tulip"],
                    _ => return None,
                };
                Some((need, format!("the network card is a {model}")))
            };
            models.iter().filter_map(need).collect()
        }
    }
}

pub fn rules(facts: &Facts, findings: &mut Findings) {
    let Some(linux) = facts.system() else {
        return;
    };
    let Some(kernel) = linux
        .kernel
        .as_ref()
        .filter(|kernel| !kernel.presence.is_missing())
    else {
        return;
    };
    let version = kernel.version.as_deref().unwrap_or("of unknown version");
    disk(facts, linux, version, findings);
    network(facts, linux, version, findings);
}

fn disk(facts: &Facts, linux: &LinuxFacts, version: &str, findings: &mut Findings) {
    let target = findings.target;
    let drivers = &linux.drivers;
    let (needs, why) = for_disk(facts, linux, target);
    let lacking: Vec<&str> = lacking(needs, |name| drivers.of(name).finds_root());
    if lacking.is_empty() {
        return;
    }
    let list = lacking.join(", ");
    if !drivers.built_in_known {
        findings.undecided(format!("whether the kernel {version} has {list} built in: its list (modules.builtin) was not found"));
        return;
    }
    // One that is damaged, missing or not read is a finding of its own.
    let sound = linux.initramfs.as_ref().is_none_or(|own| {
        own.broken.is_none()
            && own.unread.is_none()
            && own
                .presences
                .iter()
                .all(|p| matches!(p, crate::linux::tree::Presence::Present { bytes } if *bytes > 0))
    });
    if !sound {
        return;
    }
    let what = match &linux.initramfs {
        Some(own) => format!(
            "the kernel {version} has {list} not built in, and {} does not bring it",
            own.paths.join(", ")
        ),
        None => format!(
            "the kernel {version} has {list} not built in, and is started without an initial file system"
        ),
    };
    let why = format!("{why}: without the driver the root is not found");
    let available =
        lacking.iter().all(|name| drivers.of(name).is_there()) || !drivers.modules_known;
    let remedy = match available {
        true => remedy::early_drivers(facts, &lacking),
        false => format!(
            "{}; then {}",
            remedy::other_kernel(facts, &lacking),
            remedy::early_drivers(facts, &lacking)
        ),
    };
    findings.add("initramfs-lacks-driver", Blocks, what, why, remedy);
}

/// The first name of each need that nothing of it meets.
fn lacking(needs: &[Need], met: impl Fn(&str) -> bool) -> Vec<&'static str> {
    let unmet = needs
        .iter()
        .filter(|need| !need.iter().any(|name| met(name)));
    unmet.map(|need| need[0]).collect()
}

fn network(facts: &Facts, linux: &LinuxFacts, version: &str, findings: &mut Findings) {
    let drivers: &Drivers = &linux.drivers;
    // Without the root's lists nothing can be said of modules.
    if !drivers.modules_known {
        let entry = linux.boot.default_entry.as_ref();
        let starts_a_kernel = entry.is_some_and(|entry| entry.chain.is_none());
        if linux.root.is_some() && starts_a_kernel {
            let what = format!(
                "the kernel {version} has no modules on the root file system (/lib/modules/{version})"
            );
            let list = for_network(facts, findings.target);
            let unmet = list
                .iter()
                .any(|(need, _)| !need.iter().any(|name| drivers.of(name).is_there()));
            if unmet {
                let why = "what the initial file system does not bring is not loaded: the network card, for one";
                findings.add(
                    "kernel-lacks-driver",
                    Hinders,
                    what,
                    why,
                    "reinstall the kernel's package",
                );
            }
        }
        return;
    }
    for (need, why) in for_network(facts, findings.target) {
        let lacking = lacking(&[need], |name| drivers.of(name).is_there());
        if lacking.is_empty() {
            continue;
        }
        let what = format!(
            "the kernel {version} has no {}, neither built in nor as a module",
            need.join(" or ")
        );
        let why = format!("{why}: the guest starts without a network");
        findings.add(
            "kernel-lacks-driver",
            Hinders,
            what,
            why,
            remedy::other_kernel(facts, &lacking),
        );
    }
}
