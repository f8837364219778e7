//! From the boot loader to the root: the loader's configuration, kernel, initial file system, root.

use super::{
    Findings,
    Severity::{Blocks, Hinders, Note},
    Target, firmware, remedy,
};
use crate::{
    facts::{Facts, is_esp},
    linux::{
        LinuxFacts,
        boot::{BootEntry, Loader},
        device_name::DeviceName,
        tree::Presence,
    },
    storage::{BootCode, Content},
};

pub fn rules(facts: &Facts, findings: &mut Findings) {
    if !firmware::rules(facts, findings) {
        return;
    }
    let Some(linux) = facts.system() else {
        if facts.windows.is_empty() && !nothing_to_load(facts, findings) {
            unknown_system(facts, findings);
        }
        return;
    };
    configuration(facts, linux, findings);
    let Some(entry) = &linux.boot.default_entry else {
        return;
    };
    if let Some(chain) = &entry.chain {
        findings.undecided(format!("{} starts another loader, {chain}", entry.config));
        return;
    }
    kernel(facts, linux, entry, findings);
    initramfs(facts, linux, entry, findings);
    root(facts, entry, findings);
}

/// GRUB is there, and no file system in which it could find its configuration, nor anything that may hide one.
fn nothing_to_load(facts: &Facts, findings: &mut Findings) -> bool {
    let boot = facts.boot_disk().filter(|_| !facts.boots_by_uefi());
    let layout = boot.and_then(|boot| facts.storage.disks.iter().find(|own| own.disk == boot));
    let grub = layout.filter(|own| {
        matches!(
            own.boot_code,
            BootCode::Grub {
                core_present: true,
                ..
            }
        )
    });
    let blank: Vec<&str> = facts.blank_volumes().map(|v| v.place.as_str()).collect();
    // Whatever else there is may hold it.
    let nothing =
        facts.storage.volumes.iter().all(|volume| {
            is_esp(volume) || matches!(volume.content, Content::Unknown | Content::Swap)
        });
    let Some(layout) = grub.filter(|_| nothing && !facts.hides_volumes() && !blank.is_empty())
    else {
        return false;
    };
    let what = format!(
        "GRUB is on {}, and {} bears no file system: its superblock is damaged, or it is empty",
        layout.disk,
        blank.join(", ")
    );
    let why = "the boot loader finds no configuration and no kernel, and stops at its prompt";
    let remedy = "fsck -n on the volume from a rescue system; ext has copies of its superblock (mke2fs -n tells where, \
                  e2fsck -b uses one)";
    findings.add("boot-config-missing", Blocks, what, why, remedy);
    true
}

/// Disks with something on them, and no system that was understood.
fn unknown_system(facts: &Facts, findings: &mut Findings) {
    let kinds: Vec<String> = facts
        .storage
        .volumes
        .iter()
        .map(|v| format!("{} ({:?})", v.place, v.content))
        .collect();
    findings.undecided(format!("no system was found on {}", kinds.join(", ")));
}

fn configuration(facts: &Facts, linux: &LinuxFacts, findings: &mut Findings) {
    if linux.boot.default_entry.is_some() {
        return;
    }
    if !linux.boot.unified_kernels.is_empty() {
        let kernels = linux.boot.unified_kernels.join(", ");
        findings.undecided(format!(
            "{kernels}: a kernel with its initial file system in one file, which is not read"
        ));
        return;
    }
    let boot = linux.fstab.iter().find(|entry| entry.point == "/boot");
    let mounted = linux.mounts.iter().any(|mount| mount.point == "/boot");
    if let Some(boot) = boot.filter(|_| !mounted) {
        findings.undecided(format!(
            "/etc/fstab mounts {} at /boot, and it could not be read",
            boot.device
        ));
        return;
    }
    // Within an encrypted or unknown root GRUB may have what is not seen here.
    if linux.root.is_none() && facts.hides_volumes() {
        findings.undecided(
            "the boot loader's configuration was not found outside of the encrypted volumes",
        );
        return;
    }
    let what = match linux.boot.configs.is_empty() {
        true => "no configuration of GRUB, systemd-boot or extlinux was found, in /boot or on an EFI system partition".to_owned(),
        false => format!("{} start nothing by themselves: no entry with a kernel", linux.boot.configs.join(", ")),
    };
    let why = "the boot loader stops at its prompt, and waits for somebody to type";
    findings.add(
        "boot-config-missing",
        Blocks,
        what,
        why,
        remedy::new_grub_config(facts),
    );
}

fn kernel(facts: &Facts, linux: &LinuxFacts, entry: &BootEntry, findings: &mut Findings) {
    let Some(kernel) = &linux.kernel else {
        return;
    };
    let named = entry.kernel.as_deref().unwrap_or_default();
    match &kernel.presence {
        Presence::Unreadable { why } => findings.undecided(format!("{}: {why}", kernel.path)),
        presence if presence.is_missing() => {
            let Some(state) = missing(facts, entry, named, presence, findings) else {
                return;
            };
            let what = format!(
                "{} starts {named} on {}, and it {state}",
                entry.config, entry.volume
            );
            let remedy = format!(
                "reinstall the kernel's package, then {}",
                remedy::new_grub_config(facts)
            );
            findings.add(
                "kernel-missing",
                Blocks,
                what,
                "the boot loader has no kernel to load",
                remedy,
            );
        }
        _ => {
            let Some((bytes, needs)) = kernel.cut_off() else {
                return;
            };
            let what = format!(
                "{} starts {named} on {}, and it is cut off: it has {bytes} bytes of {needs}",
                entry.config, entry.volume
            );
            let why = "what is there is loaded, and the machine resets, again and again";
            let remedy = format!(
                "make room on its volume, and reinstall the kernel's package, then {}",
                remedy::new_grub_config(facts)
            );
            findings.add("kernel-missing", Blocks, what, why, remedy);
        }
    }
}

/// How a file is missing that the boot entry names; `None` where its volume is not read, which is then undecided.
fn missing(
    facts: &Facts,
    entry: &BootEntry,
    file: &str,
    presence: &Presence,
    findings: &mut Findings,
) -> Option<&'static str> {
    let volume = facts.volume(&entry.volume);
    if volume.is_some_and(|volume| unreadable(volume.content)) {
        let place = &entry.volume;
        findings.undecided(format!("{file} lies on {place}, which is not read"));
        return None;
    }
    Some(match presence {
        Presence::Absent => "is not there",
        _ => "is empty",
    })
}

/// What no file system module opens.
fn unreadable(content: Content) -> bool {
    !matches!(
        content,
        Content::Ext | Content::Xfs | Content::Fat | Content::Ntfs
    )
}

fn initramfs(facts: &Facts, linux: &LinuxFacts, entry: &BootEntry, findings: &mut Findings) {
    let Some(initramfs) = &linux.initramfs else {
        let by_uuid = matches!(
            entry.root,
            Some(DeviceName::Uuid(_) | DeviceName::Label(_) | DeviceName::Lvm(..))
        );
        // The kernel alone knows partitions by PARTUUID and by name, no file systems (Documentation: root=).
        if by_uuid && linux.kernel.is_some() {
            let what = format!(
                "{} loads no initial file system, and root={} needs one",
                entry.config,
                root_words(entry)
            );
            let why = "the kernel alone cannot find a root by UUID, by label or on LVM";
            findings.add(
                "initramfs-missing",
                Blocks,
                what,
                why,
                remedy::new_initramfs(facts),
            );
        }
        return;
    };
    let broken = |what: String, findings: &mut Findings| {
        let why = "without it the kernel has no drivers for the root disk, and stops";
        findings.add(
            "initramfs-missing",
            Blocks,
            what,
            why,
            remedy::new_initramfs(facts),
        );
    };
    for (path, presence) in initramfs.paths.iter().zip(&initramfs.presences) {
        match presence {
            Presence::Unreadable { why } => findings.undecided(format!("{path}: {why}")),
            presence if presence.is_missing() => {
                if let Some(state) = missing(facts, entry, path, presence, findings) {
                    let what = format!("{} loads {path}, and it {state}", entry.config);
                    broken(what, findings);
                }
            }
            _ => {}
        }
    }
    if let Some(why) = &initramfs.broken {
        broken(
            format!("the initial file system does not hold together: {why}"),
            findings,
        );
    }
    if let Some(why) = &initramfs.unread {
        findings.undecided(format!("the initial file system: {why}"));
    }
}

fn root_words(entry: &BootEntry) -> String {
    entry
        .root
        .as_ref()
        .map(ToString::to_string)
        .unwrap_or_default()
}

fn root(facts: &Facts, entry: &BootEntry, findings: &mut Findings) {
    let Some(root) = &entry.root else {
        return;
    };
    by_name(facts, entry, root, findings);
    let any_number = || {
        // Letters of disks follow the order of their controllers, which is not told here: any such partition will do.
        let DeviceName::Kernel(name) = root else {
            return false;
        };
        let number = name.trim_start_matches(|c: char| !c.is_ascii_digit());
        let number = number
            .rsplit('p')
            .next()
            .and_then(|number| number.parse().ok());
        facts.storage.volumes.iter().any(|v| v.number == number)
    };
    if !root.can_be_sought() || root.find(&facts.storage).is_some() || any_number() {
        return;
    }
    // A mapping may be of what bears no signature (plain dm-crypt).
    let mapped = matches!(root, DeviceName::Mapper(_) | DeviceName::Lvm(..));
    if facts.hides_volumes() || mapped && facts.blank_volumes().next().is_some() {
        findings.undecided(format!(
            "root={root} was not found; it may lie in a volume that is not read"
        ));
        return;
    }
    let what = format!(
        "{} starts with root={root}, and no captured volume is that{}",
        entry.config,
        excluded(facts)
    );
    let why = "the guest waits for its root, and ends at the prompt of its initial file system";
    let remedy = match entry.loader {
        Loader::Grub => format!(
            "compare with blkid, mend GRUB_CMDLINE_LINUX in /etc/default/grub, then {}",
            remedy::new_grub_config(facts)
        ),
        _ => format!("compare with blkid, and mend {}", entry.config),
    };
    findings.add("root-not-found", Blocks, what, why, remedy);
}

/// Where a disk is not in recovery points, what is sought may lie there.
pub fn excluded(facts: &Facts) -> String {
    match &facts.machine.excluded_disks[..] {
        [] => String::new(),
        disks => format!(
            " (it may lie on {}, which recovery points leave out: made anew, empty)",
            disks.join(", ")
        ),
    }
}

/// What the first disk is called at the target.
pub fn disk_name(facts: &Facts, target: Target, disk: &str) -> &'static str {
    match target {
        Target::Aws => "nvme0n1",
        Target::Azure => "sda",
        Target::Qemu => match facts.bus_of(disk) {
            "virtio" => "vda",
            "nvme" => "nvme0n1",
            _ => "sda",
        },
    }
}

/// Whether a name of the kernel's is of the same kind of disk.
pub fn same_kind(name: &str, target_name: &str) -> bool {
    let kind = |name: &str| name.get(..2).map(str::to_owned);
    kind(name) == kind(target_name)
}

fn by_name(facts: &Facts, entry: &BootEntry, root: &DeviceName, findings: &mut Findings) {
    let target = findings.target;
    let disk = root.find(&facts.storage).map(|v| v.disk.clone());
    let disk = disk
        .or_else(|| facts.storage.disks.first().map(|d| d.disk.clone()))
        .unwrap_or_default();
    let there = disk_name(facts, target, &disk);
    let severity = match root {
        DeviceName::Kernel(name) if !same_kind(name, there) => Blocks,
        // The letters follow the order in which disks answer: with one disk that is no matter.
        DeviceName::Kernel(_) if target == Target::Qemu => Note,
        DeviceName::Kernel(_) => Hinders,
        DeviceName::Hardware(_) if target == Target::Qemu => Hinders,
        DeviceName::Hardware(_) => Blocks,
        _ => return,
    };
    let what = format!("{} starts with root={root}", entry.config);
    let why = match severity {
        Blocks => format!(
            "on {} the disk is /dev/{there} or the like, so this root is not found",
            target.name()
        ),
        _ => format!(
            "on {} the disk is /dev/{there} or the like, and which disk is the first is not promised",
            target.name()
        ),
    };
    let remedy = format!(
        "name the root by UUID (see blkid): {}",
        remedy::kernel_words(facts, "root=UUID=…")
    );
    findings.add("root-by-device-name", severity, what, why, remedy);
}
