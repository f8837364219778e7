//! What a target takes at all: processor, sizes, count of disks, names.

use super::{
    Findings,
    Severity::{Blocks, Hinders, Note},
    Target,
};
use crate::{facts::Facts, storage::DiskLayout};

const GIB: u64 = 1 << 30;
const TIB: u64 = 1 << 40;
const MIB: u64 = 1 << 20;

/// StartSnapshot takes a VolumeSize up to 65,536 GiB (botocore's service-2.json for ebs).
const EBS_BYTES: u64 = 65_536 * GIB;
/// A Nitro instance's volumes and network cards share 28 places on most types; the newer ones have 32 to 128 for volumes
/// alone (docs.aws.amazon.com, "Amazon EBS volume limits for Amazon EC2 instances").
const EC2_DISKS: usize = 27;
const EC2_DISKS_AT_MOST: usize = 128;
/// uploadSizeBytes is at most 35,183,298,347,520, the VHD's footer of 512 bytes included.
const AZURE_BYTES: u64 = 35_183_298_347_520 - 512;
/// Azure's OS disk: 4,095 GiB; of generation 1, with an MBR, no more than 2 TiB of it are reached.
const AZURE_OS_BYTES: u64 = 4095 * GIB;
/// An MBR counts sectors of 512 bytes in 32 bits.
const MBR_BYTES: u64 = 2 * TIB;
/// The largest sizes of VMs take 64 data disks beside the OS disk.
const AZURE_DISKS: usize = 65;
/// The smallest that direct upload takes: 20 MiB.
const AZURE_LEAST_BYTES: u64 = 20 * MIB;

pub fn rules(facts: &Facts, findings: &mut Findings) {
    processor(facts, findings);
    excluded(facts, findings);
    match findings.target {
        Target::Aws => aws(facts, findings),
        Target::Azure => azure(facts, findings),
        Target::Qemu => {}
    }
}

fn processor(facts: &Facts, findings: &mut Findings) {
    let Some(architecture) = facts.architecture() else {
        return;
    };
    if ["x86_64", "aarch64"].contains(&architecture) {
        return;
    }
    let (severity, why) = match findings.target {
        Target::Qemu => (
            Note,
            "it needs a QEMU for that processor, which is slow where the host has another one",
        ),
        _ => (
            Blocks,
            "it has machines with x86-64 and 64-bit ARM processors only",
        ),
    };
    let what = format!("the guest's programs are for {architecture}");
    findings.add(
        "architecture",
        severity,
        what,
        why,
        "move the guest to a 64-bit installation, or plan its recovery with QEMU",
    );
}

fn excluded(facts: &Facts, findings: &mut Findings) {
    for disk in &facts.machine.excluded_disks {
        let what = format!("{disk} is left out of recovery points, and made anew, empty");
        let why = "what the guest has on it is not there after a recovery";
        findings.add(
            "excluded-disk",
            Note,
            what,
            why,
            "include it, or see to it that the guest starts without (nofail in fstab)",
        );
    }
}

/// The disk that the guest starts from: the root's, else the first.
fn os_disk(facts: &Facts) -> Option<&DiskLayout> {
    let root = facts.system().and_then(|linux| linux.root.as_deref());
    let root = root.or(facts.windows.first().map(|windows| windows.place.as_str()));
    let disk = root
        .and_then(|place| facts.volume(place))
        .map(|volume| volume.disk.as_str());
    let disks = &facts.storage.disks;
    disks
        .iter()
        .find(|layout| Some(layout.disk.as_str()) == disk)
        .or(disks.first())
}

fn size(bytes: u64) -> String {
    format!("{} GiB", bytes.div_ceil(GIB))
}

fn too_large(facts: &Facts, limit: u64, findings: &mut Findings) {
    for layout in facts
        .storage
        .disks
        .iter()
        .filter(|layout| layout.size_bytes > limit)
    {
        let what = format!("{} has {}", layout.disk, size(layout.size_bytes));
        let why = format!(
            "{} has no disks above {}",
            findings.target.name(),
            size(limit)
        );
        findings.add(
            "disk-too-large",
            Blocks,
            what,
            why,
            "spread what it holds over several disks, such as by LVM",
        );
    }
}

fn aws(facts: &Facts, findings: &mut Findings) {
    too_large(facts, EBS_BYTES, findings);
    let count = facts.storage.disks.len() + facts.machine.excluded_disks.len();
    if count > EC2_DISKS {
        let (severity, why) = match count > EC2_DISKS_AT_MOST {
            true => (Blocks, "no instance takes more than 128 volumes"),
            false => (
                Hinders,
                "most instance types take 27 volumes beside one network card; the newer ones take up to 128",
            ),
        };
        let remedy = "plan an instance type with a volume limit of its own (M7i, C7i, R7i, M8g, …), or put disks together";
        findings.add(
            "too-many-disks",
            severity,
            format!("the VM has {count} disks"),
            why,
            remedy,
        );
    }
    let os =
        os_disk(facts).filter(|layout| !facts.boots_by_uefi() && layout.size_bytes > MBR_BYTES);
    if let Some(layout) = os {
        os_too_large(
            layout,
            "a BIOS loads from the first 2 TiB of a disk",
            Hinders,
            findings,
        );
    }
    let name = &facts.machine.name;
    // An image's name (RegisterImage): 3 to 128 of these.
    let allowed = |c: char| c.is_ascii_alphanumeric() || "()[] ./-'@_".contains(c);
    if !name.is_empty()
        && (!(3..=128).contains(&name.chars().count()) || !name.chars().all(allowed))
    {
        vm_name(
            name,
            "an image's name has 3 to 128 letters, digits, blanks and ( ) [ ] . / - ' @ _",
            findings,
        );
    }
}

fn azure(facts: &Facts, findings: &mut Findings) {
    too_large(facts, AZURE_BYTES, findings);
    let count = facts.storage.disks.len() + facts.machine.excluded_disks.len();
    if count > AZURE_DISKS {
        let what = format!("the VM has {count} disks");
        findings.add(
            "too-many-disks",
            Blocks,
            what,
            "no size of VM takes more than 64 data disks",
            "put disks together",
        );
    }
    if let Some(layout) = os_disk(facts) {
        if layout.size_bytes > AZURE_OS_BYTES {
            os_too_large(
                layout,
                "Azure's OS disk has at most 4,095 GiB",
                Blocks,
                findings,
            );
        } else if layout.size_bytes > MBR_BYTES && !facts.boots_by_uefi() {
            let why = "a VM of generation 1 (BIOS) reaches the first 2 TiB of its OS disk";
            os_too_large(layout, why, Hinders, findings);
        }
    }
    for layout in &facts.storage.disks {
        let bytes = layout.size_bytes;
        if bytes % MIB != 0 || bytes < AZURE_LEAST_BYTES {
            let what = format!("{} has {bytes} bytes", layout.disk);
            let why = "Azure's disks are whole MiB, and 20 MiB at least: it becomes larger, and the backup of a GPT then lies \
                       before the end of the disk";
            findings.add(
                "disk-size-not-whole-mib",
                Note,
                what,
                why,
                "none is needed; or make the disk larger to a whole MiB",
            );
        }
    }
    let name = &facts.machine.name;
    let allowed = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    let ends = name.starts_with(['_', '-', '.']) || name.ends_with(['-', '.']);
    if !name.is_empty() && (name.chars().count() > 64 || ends || !name.chars().all(allowed)) {
        let rule =
            "a VM's name has up to 64 letters, digits, - _ . and does not begin or end with - or .";
        vm_name(name, rule, findings);
    }
}

fn os_too_large(
    layout: &DiskLayout,
    why: &str,
    severity: super::Severity,
    findings: &mut Findings,
) {
    let what = format!(
        "{}, which the guest starts from, has {}",
        layout.disk,
        size(layout.size_bytes)
    );
    let remedy = "keep the system on a disk of its own, and the data on others";
    findings.add("os-disk-too-large", severity, what, why, remedy);
}

fn vm_name(name: &str, why: &str, findings: &mut Findings) {
    let what = format!("the VM is called {name:?}");
    findings.add(
        "vm-name",
        Note,
        what,
        why,
        "none is needed: it gets a name like it there",
    );
}
