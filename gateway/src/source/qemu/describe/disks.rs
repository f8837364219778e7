//! Which of a VM's devices are disks to capture, and what stands in the way with the others.

use serde_json::Value;

use super::{Disk, Facts, Lack, Limit};
use crate::source::qemu::{
    position::keeps_bitmaps,
    view::{Device, Node, UNNAMED},
};

const CLOUD_INIT: [&str; 4] = ["cloudinit", "cloud-init", "cidata", "seed"];
const RESYNC: &str = "after each stop of the VM the whole disk is read and compared (a resync)";
/// QOM types of storage that QEMU does not see as block nodes.
const OUTSIDE: [(&str, &str); 10] = [
    (
        "vhost-user-blk",
        "another process serves this disk to the guest",
    ),
    (
        "vhost-scsi",
        "the host's kernel serves this disk to the guest",
    ),
    (
        "vhost-user-scsi",
        "another process serves these disks to the guest",
    ),
    ("virtio-9p", "a folder of the host, shared with the guest"),
    (
        "vhost-user-fs",
        "a folder of the host, shared with the guest",
    ),
    ("nvdimm", "memory that keeps its content"),
    ("virtio-pmem", "memory that keeps its content"),
    (
        "vhost-vdpa",
        "hardware of the host serves this device to the guest, which may be a disk",
    ),
    (
        "usb-host",
        "a USB device of the host, passed through: whether it is storage QEMU does not tell",
    ),
    (
        "usb-redir",
        "a USB device of another machine, passed through: whether it is storage QEMU does not tell",
    ),
];
/// PCI's base class of mass storage, in the upper byte.
const MASS_STORAGE: u64 = 0x01;

fn limit(lack: Lack, on: &str, why: impl Into<String>, cost: impl Into<String>) -> Limit {
    Limit {
        lack,
        on: on.to_owned(),
        why: why.into(),
        cost: cost.into(),
    }
}

/// The disks that can be captured; what is to be said of these and of the others.
pub fn disks(facts: &Facts, limits: &mut Vec<Limit>) -> Vec<Disk> {
    let mut disks = Vec::new();
    for device in &facts.view.devices {
        // A drive that no device shows to the guest, and the firmware's own.
        let Some(path) = device.qom_path.as_deref() else {
            continue;
        };
        if path.starts_with("/machine/system.flash") {
            continue;
        }
        let properties = facts.devices.get(path).unwrap_or(&Value::Null);
        let kind = properties["type"].as_str().unwrap_or_default();
        match (refusal(device, kind), facts.view.image(device)) {
            (Some(limit), _) => limits.push(limit),
            (None, None) => {
                let why = "QEMU does not name the image under it";
                limits.push(limit(
                    Lack::NotCaptured,
                    &device.id,
                    why,
                    "it is not restored",
                ));
            }
            (None, Some(image)) => {
                if let Some(said) = skipped(device, kind, image) {
                    limits.push(said);
                    continue;
                }
                let disk = disk(facts, device, path, properties, image);
                tracking(&disk, image, limits);
                limits.extend(nameless(&disk));
                disks.push(disk);
            }
        }
    }
    disks
}

fn refusal(device: &Device, kind: &str) -> Option<Limit> {
    match kind {
        "scsi-block" | "scsi-generic" => Some(limit(
            Lack::NotCaptured,
            &device.id,
            "the guest's SCSI commands go to the host's device past QEMU (pass-through)",
            "it is not restored; attach it as an ordinary disk (scsi-hd), or capture it by a \
             program in the guest",
        )),
        _ if device.chain.is_empty() => {
            Some(limit(Lack::Skipped, &device.id, "an empty drive", "none"))
        }
        _ => None,
    }
}

fn skipped(device: &Device, kind: &str, image: &Node) -> Option<Limit> {
    let said = |why: &str, cost: &str| Some(limit(Lack::Skipped, &device.id, why, cost));
    let file = image.image.filename.to_ascii_lowercase();
    let name = file.rsplit('/').next().unwrap_or_default();
    if CLOUD_INIT.iter().any(|word| name.contains(word)) && (image.read_only || device.removable) {
        return said(
            "the configuration drive of cloud-init",
            "the hypervisor makes it anew; a recovery in a cloud brings its own",
        );
    }
    if kind.ends_with("-cd") || device.removable {
        return said(
            "a CD-ROM or another removable medium",
            "none, if the guest boots without",
        );
    }
    if image.read_only {
        return said(
            "it is read-only",
            "it is not restored; attach it writable to have it",
        );
    }
    None
}

fn tracking(disk: &Disk, image: &Node, limits: &mut Vec<Limit>) {
    if disk.shared {
        let why = "other VMs may write to it too (share-rw=on), and QEMU knows nothing of what they write";
        let cost = "each capture reads and compares the whole disk, and holds it for so long; what the others write \
                    meanwhile is not frozen";
        limits.push(limit(Lack::NotTracked, &disk.id, why, cost));
        return;
    }
    let old = image.image.format_specific["data"]["compat"] == "0.10";
    if !keeps_bitmaps(&image.driver) {
        let why = format!("its {} image stores no bitmap", image.driver);
        limits.push(limit(Lack::NotTracked, &disk.id, why, RESYNC));
    } else if old {
        let why = "its qcow2 image is of version 2, which stores no bitmap; \
                   `qemu-img amend -o compat=1.1`, with the VM off, changes that";
        limits.push(limit(Lack::NotTracked, &disk.id, why, RESYNC));
    } else {
        let why = "QEMU goes back to no snapshot inside of an image that has a bitmap \
                   (\"Device has active dirty bitmaps\")";
        let cost = "before such a rollback, remove the bitmaps whose names begin with sparesite-; \
                    a resync follows";
        limits.push(limit(Lack::Note, &disk.id, why, cost));
    }
}

fn nameless(disk: &Disk) -> Option<Limit> {
    disk.id.starts_with(UNNAMED).then(|| {
        let why = "its device has no id, so it is named by its place on QEMU's command line";
        let cost = "a device that is put before it takes its name, and a resync of both follows; give it an id";
        limit(Lack::Note, &disk.id, why, cost)
    })
}

fn disk(facts: &Facts, device: &Device, path: &str, properties: &Value, image: &Node) -> Disk {
    // A part of a device is described by the whole: virtio-blk-pci has the address.
    let whole: String = path.splitn(5, '/').take(4).collect::<Vec<_>>().join("/");
    let whole = facts.devices.get(&whole).unwrap_or(&Value::Null);
    let either = |name: &str| match &properties[name] {
        Value::Null => whole[name].clone(),
        own => own.clone(),
    };
    let text = |name: &str| {
        either(name)
            .as_str()
            .filter(|t| !t.is_empty())
            .map(str::to_owned)
    };
    let number = |name: &str| either(name).as_i64();
    let address = match (number("channel"), number("scsi-id"), number("lun")) {
        (Some(channel), Some(id), Some(lun)) => Some(format!("{channel}:{id}:{lun}")),
        _ => text("legacy-addr").or_else(|| number("unit").map(|unit| unit.to_string())),
    };
    let machine = facts.machine["type"].as_str().unwrap_or_default();
    let parent = either("parent_bus");
    let parent = parent.as_str().unwrap_or_default();
    Disk {
        id: device.id.clone(),
        bus: bus(path, &either("type"), parent, machine).to_owned(),
        address,
        boot_index: number("bootindex").filter(|index| *index >= 0),
        serial: text("serial"),
        node: image.node_name.clone(),
        format: image.driver.clone(),
        file: image.image.filename.clone(),
        size_bytes: image.image.virtual_size,
        backing: image.backing_file.clone(),
        shared: either("share-rw") == true,
    }
}

fn bus(path: &str, kind: &Value, parent: &str, machine: &str) -> &'static str {
    let kind = kind.as_str().unwrap_or_default();
    let sata = parent.contains("ahci") || machine.contains("q35");
    match kind.split('-').next().unwrap_or_default() {
        _ if path.contains("usb") || kind.starts_with("usb") => "usb",
        "virtio" => "virtio",
        "scsi" => "scsi",
        "ide" if sata && !parent.contains("piix") => "sata",
        "ide" => "ide",
        "nvme" => "nvme",
        _ => "other",
    }
}

/// Storage of the guest that is no block node of QEMU.
pub fn others(facts: &Facts, limits: &mut Vec<Limit>) {
    for (path, properties) in &facts.devices {
        let kind = properties["type"].as_str().unwrap_or_default();
        let id = path.rsplit('/').next().unwrap_or_default();
        let not_restored = "what is on it is not restored; capture it by a program in the guest";
        if let Some((_, why)) = OUTSIDE.iter().find(|(prefix, _)| kind.starts_with(prefix)) {
            limits.push(limit(Lack::NotCaptured, id, *why, not_restored));
        } else if kind.starts_with("vfio-") {
            let class = facts.pci_classes.get(id).map(|class| class >> 8);
            limits.push(match class {
                Some(class) if class != MASS_STORAGE => limit(
                    Lack::Note,
                    id,
                    "a device of the host, passed through to the guest",
                    "the recovery VM does not have it",
                ),
                _ => limit(
                    Lack::NotCaptured,
                    id,
                    "a storage device of the host, passed through to the guest past QEMU",
                    not_restored,
                ),
            });
        }
    }
}
