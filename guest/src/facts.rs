//! What was found out about a guest: plain values, printed as JSON, judged by [`crate::judge`].

use serde::Serialize;

use crate::{
    file_system::Space,
    linux::{LinuxFacts, tree::Note},
    storage::{Storage, Volume},
    windows::WindowsFacts,
};

/// The type of an EFI system partition in a GPT, and in an MBR (UEFI 2.10, 5.2.2 and 5.3.3).
pub const ESP_TYPES: [&str; 2] = ["c12a7328-f81f-11d2-ba4b-00a0c93ec93b", "0xef"];

/// Partitions that hold no file system by their type: BIOS boot, Microsoft reserved, PReP; extended ones of an MBR.
const WITHOUT_FILES: [&str; 7] = [
    "21686148-6449-6e6f-744e-656564454649",
    "e3c9e316-0b5c-4db8-817d-f92df00215ae",
    "9e1a2d38-c612-4316-aa26-8b49521e5a8b",
    "0x05",
    "0x0f",
    "0x85",
    "0x41",
];

/// What the recovery point's manifest says of the VM, as far as a target's limits ask for it.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Machine {
    pub name: String,
    /// `bios`, `uefi`; none where the source did not tell.
    pub firmware: Option<String>,
    /// `x86_64`, `aarch64`, …
    pub architecture: Option<String>,
    pub cpus: Option<u32>,
    pub memory_bytes: Option<u64>,
    pub nics: usize,
    /// `virtio`, `scsi`, `sata`, `ide`, `nvme`, `usb`: of each disk, in the order of [`Storage::disks`]; empty where
    /// the source did not tell.
    pub disk_buses: Vec<String>,
    /// As the hypervisor calls them: `virtio`, `virtio-net-pci`, `e1000`, `vmxnet3`, …
    pub nic_models: Vec<String>,
    /// Disks that are left out of recovery points, and made anew, empty.
    pub excluded_disks: Vec<String>,
}

/// A file system that could be opened.
#[derive(Clone, Debug, Default, Serialize)]
pub struct FileSystemFacts {
    /// [`Volume::place`].
    pub volume: String,
    pub space: Option<Space>,
    /// Not unmounted cleanly, errors noted: in words.
    pub state: Vec<String>,
}

/// An EFI system partition.
#[derive(Clone, Debug, Default, Serialize)]
pub struct EfiPartition {
    pub volume: String,
    pub disk: String,
    /// Its partition has that type. Some firmware starts what lies on any FAT file system.
    pub typed: bool,
    /// It is a FAT file system that can be read.
    pub readable: bool,
    /// All `*.efi` below `/EFI`.
    pub loaders: Vec<String>,
}

impl EfiPartition {
    /// What firmware starts from a disk that it has no boot entry for (UEFI 2.10, 3.5.1.1).
    pub fn has_fallback(&self, architecture: &str) -> bool {
        let wanted = fallback(architecture);
        self.loaders
            .iter()
            .any(|path| path.eq_ignore_ascii_case(wanted))
    }
}

/// The path of the fallback loader.
pub fn fallback(architecture: &str) -> &'static str {
    match architecture {
        "aarch64" => "/EFI/BOOT/BOOTAA64.EFI",
        "i686" => "/EFI/BOOT/BOOTIA32.EFI",
        _ => "/EFI/BOOT/BOOTX64.EFI",
    }
}

/// All that is known of a guest.
#[derive(Debug, Default, Serialize)]
pub struct Facts {
    pub machine: Machine,
    pub storage: Storage,
    pub file_systems: Vec<FileSystemFacts>,
    pub efi: Vec<EfiPartition>,
    /// The systems on the disks; first the one that the boot loader starts.
    pub linux: Vec<LinuxFacts>,
    pub windows: Vec<WindowsFacts>,
    /// What could not be read, and why: the judgement says that it lacks it.
    pub unread: Vec<Note>,
}

impl Facts {
    pub fn volume(&self, place: &str) -> Option<&Volume> {
        self.storage.volumes.iter().find(|v| v.place == place)
    }

    /// The Linux that starts.
    pub fn system(&self) -> Option<&LinuxFacts> {
        self.linux.first()
    }

    /// Of the guest's programs, else of the VM: `x86_64`, `aarch64`, `i686`, …
    pub fn architecture(&self) -> Option<&str> {
        let linux = self
            .system()
            .and_then(|linux| linux.architecture.as_deref());
        let windows = self
            .windows
            .first()
            .and_then(|windows| windows.architecture.as_deref());
        let found = linux.or(windows).or(self.machine.architecture.as_deref())?;
        Some(match found {
            "AMD64" | "amd64" => "x86_64",
            "ARM64" | "arm64" => "aarch64",
            "x86" | "i386" | "i586" => "i686",
            other => other,
        })
    }

    /// How it boots: as the manifest says; else by UEFI when no disk has boot code for a BIOS.
    pub fn boots_by_uefi(&self) -> bool {
        match self.machine.firmware.as_deref() {
            Some(firmware) => ["uefi", "efi", "ovmf"]
                .iter()
                .any(|name| firmware.eq_ignore_ascii_case(name)),
            None => !self.storage.disks.iter().any(|disk| disk.has_boot_code),
        }
    }

    /// The disk that firmware starts from: with the first boot code, or the first loader for UEFI.
    pub fn boot_disk(&self) -> Option<&str> {
        match self.boots_by_uefi() {
            true => {
                let mut efi = self.efi.iter().filter(|efi| !efi.loaders.is_empty());
                Some(efi.next()?.disk.as_str())
            }
            false => {
                let mut disks = self.storage.disks.iter();
                Some(disks.find(|disk| disk.has_boot_code)?.disk.as_str())
            }
        }
    }

    /// Whether a start needs this volume: the boot loader's, the root, and what fstab makes boot wait for.
    pub fn is_needed(&self, place: &str) -> bool {
        let Some(linux) = self.system() else {
            return self.windows.is_empty() || self.windows.iter().any(|own| own.place == place);
        };
        let mounted = linux.mounts.iter().any(|mount| mount.volume == place);
        let loads = self.boots_by_uefi() && self.efi.iter().any(|efi| efi.volume == place);
        let entry = linux.boot.default_entry.as_ref();
        let starts = entry.is_some_and(|entry| entry.volume == place);
        let root = entry.and_then(|entry| entry.root.as_ref());
        let waited = linux
            .fstab
            .iter()
            .filter(|entry| entry.is_on_disk() && !entry.is_optional())
            .map(|entry| &entry.device);
        let named = root.into_iter().chain(waited);
        let mut named = named.filter_map(|name| name.find(&self.storage));
        linux.root.as_deref() == Some(place)
            || mounted
            || loads
            || starts
            || named.any(|volume| volume.place == place)
    }

    /// The bus of a disk at the source; virtio where none was recorded, as `boot` attaches it then.
    pub fn bus_of(&self, disk: &str) -> &str {
        let position = self.storage.disks.iter().position(|d| d.disk == disk);
        let buses = &self.machine.disk_buses;
        let bus = position.and_then(|index| buses.get(index));
        bus.or(buses.first()).map_or("virtio", String::as_str)
    }

    /// Volumes whose content is not seen from outside: what is looked for may lie in them.
    pub fn hides_volumes(&self) -> bool {
        self.storage.volumes.iter().any(hides) || !self.storage.faults.is_empty()
    }

    /// Partitions without any signature.
    pub fn blank_volumes(&self) -> impl Iterator<Item = &Volume> {
        self.storage
            .volumes
            .iter()
            .filter(|volume| is_blank(volume))
    }
}

/// Encrypted, part of an array, or of a kind that is not read. What bears no signature holds none of these.
fn hides(volume: &Volume) -> bool {
    use crate::storage::Content::{Foreign, Luks, RaidMember, ZfsMember};
    matches!(volume.content, Luks | RaidMember | ZfsMember | Foreign)
}

/// A partition that nothing is known of; encryption without a header (plain dm-crypt) looks so. A whole disk without any
/// signature is rather empty.
fn is_blank(volume: &Volume) -> bool {
    let kind = volume.part_type.as_deref().unwrap_or_default();
    volume.content == crate::storage::Content::Unknown
        && (volume.number.is_some() || volume.lvm.is_some())
        && !WITHOUT_FILES.contains(&kind)
        && !is_esp(volume)
}

/// Whether a partition is an EFI system partition by its type.
pub fn is_esp(volume: &Volume) -> bool {
    let kind = volume.part_type.as_deref().unwrap_or_default();
    ESP_TYPES.iter().any(|esp| kind.eq_ignore_ascii_case(esp))
}
