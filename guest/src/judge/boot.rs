//! From the firmware to the kernel: boot code, EFI system partition, the loader's configuration, kernel, initial file
//! system, root.

use super::{
    Findings,
    Severity::{Blocks, Hinders, Note},
    Target, remedy,
};
use crate::{
    facts::{Facts, fallback},
    linux::{
        LinuxFacts,
        boot::{BootEntry, Loader},
        device_name::DeviceName,
        tree::Presence,
    },
    storage::{BootCode, Content, TableKind},
};

/// The type of a BIOS boot partition, where GRUB's core lies on a GPT (GRUB manual, 3.4).
const BIOS_BOOT: &str = "21686148-6449-6e6f-744e-656564454649";

pub fn rules(facts: &Facts, findings: &mut Findings) {
    if nothing_boots(facts, findings) {
        return;
    }
    match facts.boots_by_uefi() {
        true => uefi(facts, findings),
        false => bios(facts, findings),
    }
    let Some(linux) = facts.system() else {
        if facts.windows.is_empty() {
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

fn nothing_boots(facts: &Facts, findings: &mut Findings) -> bool {
    let code = facts.storage.disks.iter().any(|disk| disk.has_boot_code);
    let loaders = facts.efi.iter().any(|efi| !efi.loaders.is_empty());
    let systems = !facts.linux.is_empty() || !facts.windows.is_empty();
    if code || loaders || systems {
        return false;
    }
    findings.add(
        "no-boot-disk",
        Blocks,
        "no disk has boot code, an EFI loader, or a system on it",
        "the firmware finds nothing to start",
        "include the disk that the VM boots from in its recovery points",
    );
    true
}

fn uefi(facts: &Facts, findings: &mut Findings) {
    let readable: Vec<_> = facts.efi.iter().filter(|efi| efi.readable).collect();
    let place = |of: &[&crate::facts::EfiPartition]| {
        let places: Vec<&str> = of.iter().map(|efi| efi.volume.as_str()).collect();
        places.join(", ")
    };
    if readable.is_empty() {
        let all: Vec<_> = facts.efi.iter().collect();
        let what = match all.is_empty() {
            true => {
                "the machine starts by UEFI, and no disk has an EFI system partition".to_owned()
            }
            false => format!(
                "the EFI system partition {} holds no FAT file system that can be read",
                place(&all)
            ),
        };
        let remedy = "make a FAT file system on a partition of type EFI System, mount it at /boot/efi, and install the \
                      boot loader into it";
        findings.add(
            "esp-missing",
            Blocks,
            what,
            "UEFI starts only what lies on such a partition",
            remedy,
        );
        return;
    }
    if readable.iter().all(|efi| efi.loaders.is_empty()) {
        let what = format!(
            "the EFI system partition {} has no loader (*.efi) in it",
            place(&readable)
        );
        findings.add(
            "efi-loader-missing",
            Blocks,
            what,
            "UEFI has nothing to start",
            remedy::efi_fallback(facts),
        );
        return;
    }
    let architecture = facts.architecture().unwrap_or("x86_64");
    if !readable.iter().any(|efi| efi.has_fallback(architecture)) {
        let found: Vec<&str> = readable
            .iter()
            .flat_map(|efi| &efi.loaders)
            .map(String::as_str)
            .collect();
        let wanted = fallback(architecture).replace('/', "\\");
        let what = format!(
            "{} has {} but no {wanted}",
            place(&readable),
            found[..found.len().min(4)].join(", ")
        );
        let why = "the boot entries that name the others lie in the machine's own memory, which no recovery brings along: \
                   a new machine starts this path only";
        findings.add(
            "efi-fallback-missing",
            Blocks,
            what,
            why,
            remedy::efi_fallback(facts),
        );
    }
}

fn bios(facts: &Facts, findings: &mut Findings) {
    let with_code: Vec<_> = facts
        .storage
        .disks
        .iter()
        .filter(|disk| disk.has_boot_code)
        .collect();
    let remedy = || match facts.linux.is_empty() && !facts.windows.is_empty() {
        true => "bootrec /fixmbr && bootrec /fixboot from the recovery environment".to_owned(),
        false => remedy::bios_loader(facts),
    };
    let Some(disk) = with_code.first() else {
        let what = "the machine starts by BIOS, and the first 440 bytes of every disk are zero";
        findings.add(
            "bios-loader-missing",
            Blocks,
            what,
            "a BIOS runs these bytes and nothing else",
            remedy(),
        );
        return;
    };
    // A data disk that once was a boot disk is no fault: one disk that boots is enough.
    let sound = |code: BootCode| {
        !matches!(
            code,
            BootCode::None
                | BootCode::Grub {
                    core_present: false,
                    ..
                }
        )
    };
    if !with_code.iter().any(|disk| sound(disk.boot_code)) {
        if let BootCode::Grub { core_sector, .. } = disk.boot_code {
            let what = format!(
                "GRUB's boot code on {} loads its core from sector {core_sector}, and it is not there",
                disk.disk
            );
            findings.add(
                "bios-loader-missing",
                Blocks,
                what,
                "GRUB stops before it shows anything",
                remedy(),
            );
        }
        return;
    }
    let unsafe_gpt = with_code.iter().find(|disk| {
        let partition = facts
            .storage
            .volumes
            .iter()
            .any(|v| v.disk == disk.disk && v.part_type.as_deref() == Some(BIOS_BOOT));
        disk.table == TableKind::Gpt
            && matches!(disk.boot_code, BootCode::Grub { .. })
            && !partition
    });
    if let Some(disk) = unsafe_gpt {
        let what = format!(
            "{} has a GPT and GRUB's boot code, but no BIOS boot partition",
            disk.disk
        );
        let why = "GRUB's core lies in blocks that nothing reserves for it: it starts until they are written over";
        let remedy = format!(
            "make a partition of 1 MiB of type BIOS boot, then {}",
            remedy()
        );
        findings.add("bios-loader-missing", Hinders, what, why, remedy);
    }
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
            if facts
                .volume(&entry.volume)
                .is_some_and(|v| unreadable(v.content))
            {
                findings.undecided(format!(
                    "{named} lies on {}, which is not read",
                    entry.volume
                ));
                return;
            }
            let state = if *presence == Presence::Absent {
                "is not there"
            } else {
                "is empty"
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
        _ => {}
    }
}

/// What no file system module opens.
pub fn unreadable(content: Content) -> bool {
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
                if facts
                    .volume(&entry.volume)
                    .is_some_and(|v| unreadable(v.content))
                {
                    findings.undecided(format!(
                        "{path} lies on {}, which is not read",
                        entry.volume
                    ));
                    continue;
                }
                let state = if *presence == Presence::Absent {
                    "is not there"
                } else {
                    "is empty"
                };
                broken(
                    format!("{} loads {path}, and it {state}", entry.config),
                    findings,
                );
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
    if facts.hides_volumes() {
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
