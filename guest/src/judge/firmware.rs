//! What the firmware starts: boot code for a BIOS, an EFI system partition and its loaders for UEFI.

use super::{
    Findings,
    Severity::{Blocks, Hinders, Note},
    Target, remedy,
};
use crate::{
    facts::{EfiPartition, Facts, fallback},
    storage::{BootCode, TableKind},
};

/// The type of a BIOS boot partition, where GRUB's core lies on a GPT (GRUB manual, 3.4).
const BIOS_BOOT: &str = "21686148-6449-6e6f-744e-656564454649";

/// Whether there is anything to start.
pub fn rules(facts: &Facts, findings: &mut Findings) -> bool {
    if nothing_boots(facts, findings) {
        return false;
    }
    match facts.boots_by_uefi() {
        true => uefi(facts, findings),
        false => bios(facts, findings),
    }
    true
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

/// A loader where firmware that goes by the file system finds it, on a partition of another type: as OVMF starts it.
fn typed_otherwise(facts: &Facts, findings: &mut Findings) -> bool {
    let architecture = facts.architecture().unwrap_or("x86_64");
    let starts = |typed: bool| {
        let mut all = facts.efi.iter();
        all.find(|efi| efi.typed == typed && efi.readable && efi.has_fallback(architecture))
    };
    let Some(efi) = starts(false).filter(|_| starts(true).is_none()) else {
        return false;
    };
    let (severity, why) = match findings.target {
        Target::Qemu => (
            Note,
            "QEMU's firmware goes by the file system, and starts it",
        ),
        _ => (
            Hinders,
            "firmware may ask for that type, and start nothing; QEMU's goes by the file system",
        ),
    };
    let what = format!(
        "the boot loader is on {}, whose partition is not of the type EFI System",
        efi.volume
    );
    let remedy = format!(
        "sgdisk --typecode=N:ef00 /dev/{0}, or set type 0xef by fdisk where {0} has an MBR",
        efi.disk
    );
    findings.add("esp-type", severity, what, why, remedy);
    true
}

fn uefi(facts: &Facts, findings: &mut Findings) {
    if typed_otherwise(facts, findings) {
        return;
    }
    let typed = facts.efi.iter().filter(|efi| efi.typed);
    let readable: Vec<_> = typed.filter(|efi| efi.readable).collect();
    let place = |of: &[&EfiPartition]| {
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
