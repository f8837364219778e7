//! Partition tables, encrypted and unread volumes, and what fstab mounts.

use super::{
    Findings,
    Severity::{Blocks, Hinders, Note},
    Target,
    boot::{disk_name, excluded, same_kind},
};
use crate::{
    facts::Facts,
    linux::{LinuxFacts, device_name::DeviceName, fstab::FstabEntry},
    storage::{Content, TableKind, Volume},
};

pub fn rules(facts: &Facts, findings: &mut Findings) {
    tables(facts, findings);
    encrypted(facts, findings);
    unknown(facts, findings);
    if let Some(linux) = facts.system() {
        fstab(facts, linux, findings);
    }
}

fn tables(facts: &Facts, findings: &mut Findings) {
    for layout in facts
        .storage
        .disks
        .iter()
        .filter(|layout| !layout.faults.is_empty())
    {
        let faults = layout.faults.join("; ");
        let any = facts
            .storage
            .volumes
            .iter()
            .any(|volume| volume.disk == layout.disk);
        let backup_only = layout
            .faults
            .iter()
            .all(|fault| fault.contains("the backup GPT"));
        if layout.table == TableKind::Gpt && !any && !backup_only {
            let what = format!(
                "the partition table of {} does not hold together: {faults}",
                layout.disk
            );
            let remedy = format!(
                "gdisk /dev/{}: compare with the partitions in use, and write the table anew",
                layout.disk
            );
            findings.add(
                "partition-table-damaged",
                Blocks,
                what,
                "no partition of it is found",
                remedy,
            );
        } else {
            let what = format!("the partition table of {}: {faults}", layout.disk);
            // GRUB's core for a BIOS reads the first GPT alone, as does syslinux' code; OVMF mends it.
            let starts = facts.boot_disk() == Some(layout.disk.as_str());
            let (severity, why) = match layout.backup_gpt_read && starts && !facts.boots_by_uefi() {
                true => (
                    Blocks,
                    "boot loaders for a BIOS read the first GPT only, and find no partition",
                ),
                false => (
                    Note,
                    "what was read could be mended by what is left; the firmware may be stricter",
                ),
            };
            let remedy = format!(
                "sgdisk --move-second-header /dev/{0} (and sgdisk --verify /dev/{0})",
                layout.disk
            );
            findings.add("partition-table-repaired", severity, what, why, remedy);
        }
    }
}

fn encrypted(facts: &Facts, findings: &mut Findings) {
    let of = |content: Content| {
        facts
            .storage
            .volumes
            .iter()
            .filter(move |volume| volume.content == content)
    };
    let locked: Vec<&Volume> = of(Content::Luks).collect();
    // A readable root has its data volumes' keys in crypttab; there only fstab tells what boot waits for.
    let root_is_read = facts.system().is_some_and(|linux| linux.root.is_some());
    if !locked.is_empty() && !root_is_read && facts.windows.is_empty() {
        let places: Vec<&str> = locked.iter().map(|volume| volume.place.as_str()).collect();
        let what = format!(
            "{} is encrypted by LUKS, and no root was found outside of it",
            places.join(", ")
        );
        let why = match findings.target {
            Target::Qemu => "somebody has to type the passphrase at its console at each start",
            _ => {
                "somebody has to type the passphrase at the serial console at each start; a key that is sealed to a TPM \
                  does not open elsewhere"
            }
        };
        let remedy = "keep the passphrase where it is reached on that day, and put console=ttyS0 on the kernel's command \
                      line so that the prompt is seen; or bind it to a server (clevis luks bind, tang)";
        findings.add("encrypted-luks", Hinders, what, why, remedy);
        findings.undecided(format!(
            "{} is encrypted: what is in it is not seen",
            places.join(", ")
        ));
    }
    for volume in of(Content::BitLocker) {
        let what = format!("{} is encrypted by BitLocker", volume.place);
        let why = "its key is sealed to this machine's TPM: elsewhere Windows asks for the recovery key at each start";
        let remedy = "keep the recovery key (manage-bde -protectors -get C:), or suspend BitLocker: \
                      Suspend-BitLocker -MountPoint C: -RebootCount 0";
        findings.add("encrypted-bitlocker", Hinders, what.clone(), why, remedy);
        // Beside a Windows that is read it holds data only.
        if facts.windows.is_empty() {
            findings.undecided(what);
        }
    }
}

/// No root was found, and there are volumes that it may lie on.
fn unknown(facts: &Facts, findings: &mut Findings) {
    let root_is_read = facts.system().is_some_and(|linux| linux.root.is_some());
    if root_is_read || !facts.windows.is_empty() {
        return;
    }
    let kinds = [
        Content::Btrfs,
        Content::ZfsMember,
        Content::RaidMember,
        Content::Foreign,
    ];
    let hidden = facts
        .storage
        .volumes
        .iter()
        .filter(|volume| kinds.contains(&volume.content));
    let places: Vec<String> = hidden
        .map(|volume| format!("{} ({})", volume.place, kind_name(volume.content)))
        .collect();
    if places.is_empty() {
        if facts.system().is_some() && !facts.hides_volumes() {
            findings.undecided("no root file system was found beside /boot");
        }
        return;
    }
    let what = format!(
        "the root was not found; {} is of a kind that is not read",
        places.join(", ")
    );
    let why = "what is on it is not judged: kernel modules, fstab, network";
    findings.add(
        "unknown-file-system",
        Note,
        what.clone(),
        why,
        "try a recovery of this VM instead",
    );
    findings.undecided(what);
}

fn kind_name(content: Content) -> &'static str {
    match content {
        Content::Btrfs => "btrfs",
        Content::ZfsMember => "ZFS",
        Content::RaidMember => "Linux software RAID",
        Content::Foreign => "another file system",
        _ => "unknown",
    }
}

/// What boot waits for: systemd gives a device 90 s, and then goes to emergency mode (systemd.mount(5),
/// DefaultDeviceTimeoutSec of systemd-system.conf(5)).
fn fstab(facts: &Facts, linux: &LinuxFacts, findings: &mut Findings) {
    for entry in linux
        .fstab
        .iter()
        .filter(|entry| entry.is_on_disk() && !entry.is_optional())
    {
        match &entry.device {
            DeviceName::Kernel(name) => by_name(facts, entry, Some(name), findings),
            DeviceName::Hardware(_) => by_name(facts, entry, None, findings),
            device if device.can_be_sought() => missing(facts, entry, findings),
            _ => {}
        }
    }
}

fn by_name(facts: &Facts, entry: &FstabEntry, name: Option<&str>, findings: &mut Findings) {
    let target = findings.target;
    let disk = entry.device.find(&facts.storage).map(|v| v.disk.clone());
    let disk = disk
        .or_else(|| facts.storage.disks.first().map(|d| d.disk.clone()))
        .unwrap_or_default();
    let there = disk_name(facts, target, &disk);
    let changes = name.is_none_or(|name| !same_kind(name, there));
    // The root is mounted already when fstab is read, and boot goes on without swap (swap.target is wanted only).
    let goes_on = entry.point == "/" || entry.is_swap();
    let severity = match target {
        _ if !changes && target == Target::Qemu => Note,
        _ if goes_on => Hinders,
        Target::Aws => Blocks,
        Target::Azure => Hinders,
        // By serial number, which the disk keeps where it was given one.
        Target::Qemu if name.is_none() => Hinders,
        Target::Qemu => Blocks,
    };
    let what = format!("/etc/fstab has {}", entry.words());
    let there = format!(
        "on {} disks are named /dev/{there} and the like",
        target.name()
    );
    let why = match (goes_on, changes) {
        (_, false) => format!("{there}; which disk gets which letter is not promised"),
        (true, true) => format!("{there}: boot waits 90 s for this one, and goes on without it"),
        (false, true) => {
            format!("{there}: boot waits 90 s for this one, and ends in emergency mode")
        }
    };
    let remedy = "put UUID=… (see blkid) in its place, or nofail into its options if the guest can do without it; then \
                  systemctl daemon-reload and findmnt --verify";
    findings.add("fstab-device-name", severity, what, why, remedy);
}

fn missing(facts: &Facts, entry: &FstabEntry, findings: &mut Findings) {
    if entry.device.find(&facts.storage).is_some() {
        return;
    }
    let what = format!(
        "/etc/fstab has {}, and no captured volume is that{}",
        entry.words(),
        excluded(facts)
    );
    let remedy = "delete the line if the volume is no more, add nofail to its options if the guest can do without it, or \
                  include its disk in the recovery points";
    let goes_on = entry.point == "/" || entry.is_swap();
    let hidden = facts.hides_volumes();
    let (severity, why) = match (goes_on, hidden) {
        (false, false) => (Blocks, "boot waits 90 s for it, and ends in emergency mode"),
        (true, _) => (Hinders, "boot waits 90 s for it, and goes on without it"),
        (false, true) => (
            Hinders,
            "it may lie within a volume that is not read; if not, boot ends in emergency mode",
        ),
    };
    findings.add("fstab-missing-device", severity, what, why, remedy);
}
